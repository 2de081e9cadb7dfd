"""A model's threshold of success, from the validation episodes of a release."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from eval.held_out.episodes import HeldOut, held_out
from eval.held_out.evaluate import BATCH, predict
from eval.reward.success import Success, calibrate
from eval.runners.prompt import Runner, UnansweredError
from eval.runners.start import ScorerRunner
from training.folder import read_card, write_card
from warehouse.lake import Lake
from warehouse.releases import Release

SPLIT = "val"
MOST = 2048  # moments that are asked about, spread over the episodes


def calibrate_checkpoint(lake: Lake, release: Release, folder: Path, *, words: bool = False) -> Success | None:
    """Calibrate from which output on a run counts as done, on a release's validation episodes, into the model's card.

    None where there is nothing to calibrate by. A model without a head answers each moment in words, which is slow, and
    is calibrated with `words` only. Raises ModelError or ShardError.
    """
    card = read_card(folder)
    answers_in_words = card.get("head", True) is None
    if (answers_in_words and not words) or not release.paths(lake.workspace, SPLIT):
        return None
    episodes = held_out(lake, release, (SPLIT,))
    success = calibrated(ScorerRunner(folder, BATCH), episodes, release.name) if episodes else None
    if success is not None:
        write_card(folder, card | {"success": success.as_json()})
    return success


def calibrated(runner: Runner, episodes: Sequence[HeldOut], release: str) -> Success | None:
    """None where the episodes have no moment at the end state, or no other. By the head's own output where it has one;
    of other heads, and of answers in words, by progress. Answers that cannot be read are left out."""
    # Each n-th moment of every episode, n rounded up: about MOST in all.
    n = max(1, -(-sum(len(e.questions) for e in episodes) // MOST))
    some = [replace(e, questions=e.questions[::n], label=e.label[::n]) for e in episodes]
    try:
        progress, done = predict(runner, some, step="calibration")
    except UnansweredError:
        return None
    raw, label = (
        np.concatenate(of_all) for of_all in zip(*(((done or progress)[e.key], e.label) for e in some), strict=True)
    )
    known = ~np.isnan(raw)
    return calibrate(raw[known], label[known] >= 1, "done" if done else "progress", release, SPLIT)

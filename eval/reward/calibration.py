"""A model's threshold of success, from the validation episodes of a release."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.logs import TOLD
from eval.held_out.episodes import HeldOut, held_out
from eval.reward.laptop import LaptopScorer
from eval.reward.model import ModelScorer
from eval.reward.open import open_checkpoint
from eval.reward.scorer import asked_of
from eval.reward.success import Success, calibrate
from eval.reward.window import LAST_PICTURE, Window
from training.card import add_success
from training.folder import read_card
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
    if not episodes:
        return None
    scorer = open_checkpoint(folder, None if Window.of_card(card) else LAST_PICTURE)
    success = calibrated(scorer, card["max_px"], episodes, release.name)
    if success is not None:
        add_success(folder, success.as_json())
    return success


def calibrated(
    scorer: ModelScorer | LaptopScorer, max_px: int, episodes: Sequence[HeldOut], release: str
) -> Success | None:
    """None where the episodes have no moment at the end state, or no other. By the head's own output where it has one;
    of other heads, and of answers in words, by progress. Answers that cannot be read are left out."""
    raw: list[float] = []
    reached: list[bool] = []
    by_done = scorer.says_done
    # Each n-th moment of every episode, n rounded up: about MOST in all.
    every = max(1, -(-sum(len(e.samples) for e in episodes) // MOST))
    for k, episode in enumerate(episodes, 1):
        TOLD.get()("calibration", k, len(episodes), "episodes")
        questions = asked_of(episode.items(max_px)[::every])
        for reward, label in zip(scorer.ask(questions), episode.label[::every], strict=True):
            value = reward.done if by_done else reward.progress
            if value is not None:
                raw.append(value)
                reached.append(bool(label >= 1))
    if not raw:
        return None
    return calibrate(np.array(raw), np.array(reached), "done" if by_done else "progress", release, SPLIT)

"""Hand-labelled runs of real sets, with their signals, and as the vlm annotator is shown them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import starmap
from pathlib import Path
from typing import NamedTuple

import numpy as np

from annotate.config import MotionConfig
from annotate.model_client.calls import Image
from annotate.motion.annotator import annotate as by_motion
from annotate.motion.observe import Signals
from annotate.vlm.pictures import EpisodeView, moments_of
from benchmarks.label_truth import TRUTH, true_runs
from benchmarks.vlm_other_ways import blank
from core.paths import Workspace
from eval.annotators.truth import EpisodeTruth

SIZE_PX = (480, 360)
KEYFRAME_S = 1.0


@cache
def picture() -> Image:
    return blank(*SIZE_PX)


class HandLabelled(NamedTuple):
    """A run, with a person's label of it."""

    signals: Signals
    truth: EpisodeTruth


def labelled_sets(
    space: Workspace, data: Path, names: Sequence[str]
) -> dict[str, list[HandLabelled]]:
    """The hand-labelled runs of some sets, built from `data` by the product's command."""
    return {
        name: list(starmap(_as_shown, true_runs(space, data / name, TRUTH, name))) for name in names
    }


def _as_shown(signals: Signals, truth: EpisodeTruth) -> HandLabelled:
    # The model plans for a run what the run shows: a failed one has no more steps than it came to
    return HandLabelled(signals, replace(truth, num_planned=0))


def view_of(run: HandLabelled, *, success: bool | None) -> EpisodeView:
    """The run as a build shows it to the annotator, with one grey picture for all."""
    truth = run.truth
    config = MotionConfig()
    n = truth.num_frames
    stride = max(1, round(KEYFRAME_S * truth.fps))
    [label] = by_motion([run.signals], config)
    return EpisodeView(
        dataset=truth.dataset,
        episode_index=truth.episode_index,
        task="do the task",
        fps=truth.fps,
        num_frames=n,
        success=success,
        frames=tuple(range(0, n, stride)),
        load=lambda frames: dict.fromkeys(frames, picture()),
        phash=np.random.default_rng(0).integers(0, 2**63, n, dtype=np.uint64),
        motion_cuts=tuple(s.start_frame for s in label.segments[1:]),
        moments=moments_of(run.signals, config),
    )

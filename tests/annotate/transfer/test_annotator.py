"""Labels that follow a labelled episode of the same task."""

from dataclasses import replace

import numpy as np
import pytest

from annotate.motion.config import MotionConfig
from annotate.motion.structure import SURE
from annotate.segments import check_tiling
from annotate.transfer.annotator import Reference, Transferred, annotate
from annotate.transfer.config import TransferConfig
from tests.kits.transfer_runs import (
    PLAN,
    pace,
    random_run,
    random_segments,
    run_along,
    shown_by,
)

CONFIG, MOTION = TransferConfig(), MotionConfig()


def labelled(runs, references) -> list[Transferred]:
    return annotate(runs, references, CONFIG, MOTION)


def test_pictures_alone_do_not_say_how_an_episode_ended():
    def seen(run):
        return replace(run, grippers=(), state=None, speed=None)

    reference = shown_by(pace(190, 9), 9)
    reference = replace(reference, signals=seen(reference.signals))
    untold, told = labelled(
        [seen(run_along(pace(200, 1), 1)), seen(run_along(pace(200, 2), 2, success=True))], [reference]
    )
    assert untold.label is not None
    assert told.label is not None
    assert untold.label.confidence <= SURE < told.label.confidence


@pytest.mark.parametrize("seed", range(12))
def test_any_signals_make_a_label_or_say_why_not(seed: int):
    draws = np.random.default_rng(seed)
    kinds = (int(draws.integers(3)), int(draws.integers(3)), bool(draws.integers(2)), bool(draws.integers(2)))
    runs = [random_run(draws, k, int(draws.integers(5, 200)), kinds) for k in range(4)]
    references = [
        Reference(run, random_segments(draws, len(run), PLAN), PLAN, draws.random(len(run))) for run in runs[:2]
    ]
    for run, one in zip(runs, labelled(runs, references), strict=True):
        if one.label is None:
            assert one.why_none
            continue
        check_tiling(one.label.segments, len(run), one.label.num_planned)
        assert one.label.curve is not None
        assert ((one.label.curve >= 0) & (one.label.curve <= 1)).all()
        assert one.label.curve[0] == 0
        assert one.alignment is not None
        assert (one.alignment.frames < len(run)).all()

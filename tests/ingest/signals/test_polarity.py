"""Which end of a gripper is open: what each kind of evidence says, and that nobody guesses."""

import numpy as np

from ingest.signals.polarity import GripperRun, observed_evidence, polarity_of

FPS = 10.0
WAY = np.linspace(0, 1, 100)


def run(*parts: tuple[int, float], way: np.ndarray | None = WAY, push: np.ndarray | None = None) -> GripperRun:
    """So many frames at each level."""
    return GripperRun(np.concatenate([np.full(count, level) for count, level in parts]), way, push, FPS)


def shown(*runs: GripperRun) -> tuple[str, float]:
    finding = polarity_of(observed_evidence(runs))
    return finding.polarity, round(finding.confidence, 2)


# What episodes show


def test_a_command_beyond_what_is_reached() -> None:
    levels = ((20, 1.0), (20, 0.2), (20, 1.0), (20, 0.2), (20, 1.0))
    low = run(*levels).relative < 0.5
    squeezes = run(*levels, push=np.where(low, -0.2, 0.0))
    assert shown(squeezes) == ("high_is_open", 0.88)
    opens_wide = run(*levels, push=np.where(low, 0.0, 0.2))
    assert shown(opens_wide) == ("high_is_closed", 0.88)
    assert shown(run(*levels, push=np.zeros(100))) == ("unknown", 0.5)
    assert shown(run(*levels, push=np.where(low, -0.2, 0.2))) == ("unknown", 0.5)  # beyond both ends alike


def test_a_gripper_that_does_not_move_shows_nothing() -> None:
    assert observed_evidence([run((100, 0.5), push=np.full(100, 0.5))]) == []

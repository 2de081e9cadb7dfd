"""What flags, rewards, ends and folder names say of a run, and what all runs of a dataset have to show for it."""

from typing import Any

import numpy as np
import pytest

from ingest.outcomes import (
    NO_EVIDENCE,
    REACHED,
    UNCLEAR,
    UNSET,
    Ending,
    OutcomeEvidence,
    RewardEvidence,
    decide,
    truth,
)

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        (0, False),
        (1.0, True),
        ("Yes ", True),
        ("FAILURE", False),
        (b"success", True),
        ([1], True),
        (np.array([False]), False),
        (np.bool_(True), True),
        (None, None),
        ("", None),
        ("partly", None),
        (2, None),
        (0.5, None),
        (NAN, None),
        ([1, 0], None),
        ({}, None),
    ],
)
def test_truth(value: Any, expected: bool | None) -> None:
    assert truth(value) is expected


def outcomes_of(*evidence: OutcomeEvidence) -> list[tuple[bool, str] | None]:
    decided, _ = decide(dict(enumerate(evidence)))
    decisions = [decided[k] for k in range(len(evidence))]
    return [(o.success, o.source) if o else None for o in decisions]


def test_a_sparse_reward() -> None:
    rewarded = [
        OutcomeEvidence(reward=RewardEvidence("reward", shows))
        for shows in (REACHED, UNSET, UNCLEAR)
    ]
    expected = [(True, "final reward"), (False, "final reward"), None, None]
    assert outcomes_of(*rewarded, NO_EVIDENCE) == expected


@pytest.mark.parametrize("reward", [None, RewardEvidence("reward", UNSET)])
def test_an_end_alone(reward: RewardEvidence | None) -> None:
    runs = [
        OutcomeEvidence(reward=reward, ending=Ending("is_terminal", ended))
        for ended in (True, False)
    ]
    assert outcomes_of(*runs) == [(True, "final is_terminal"), None]
    assert outcomes_of(runs[0], runs[0]) == [None, None]

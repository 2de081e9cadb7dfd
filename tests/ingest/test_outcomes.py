"""What flags, rewards, ends and folder names say of a run, and what all runs of a dataset have to show for it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ingest.outcomes import (
    DENSE,
    NO_EVIDENCE,
    REACHED,
    UNCLEAR,
    UNSET,
    Ending,
    Evidence,
    Flag,
    Outcome,
    Reward,
    RowValues,
    decide,
    fields_of,
    folder_outcome,
    row_values,
    stated,
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


def test_the_registrys_field_comes_first() -> None:
    facts = {"won": "no", "success": True, "is_success": "perhaps"}
    assert stated(facts, fields_of("won")) == Outcome(False, "metadata won")
    assert stated(facts, fields_of("success")) == Outcome(True, "metadata success")
    assert stated({"is_success": "perhaps", "episode_success": 1}, fields_of("won"), "column") == Outcome(
        True, "column episode_success"
    )
    assert stated({}, fields_of("success")) is None


@pytest.mark.parametrize(
    ("paths", "success"),
    [
        (["lab/success/2023/a.h5"], True),
        (["lab/Failed/a.mp4", "lab/Failed/b.mp4"], False),
        (["fail/a.mp4"], False),
        (["lab/a_failure.h5", "failure.mp4", "successful/a.mp4", ""], None),  # file names, and other words
        (["success/a.mp4", "failure/b.mp4"], None),
    ],
)
def test_folders(paths: list[str], success: bool | None) -> None:
    assert folder_outcome(*paths) == (None if success is None else Outcome(success, "folder name"))


@pytest.mark.parametrize(
    ("rows", "flag", "shows"),
    [
        ([0, 0, 1], Flag("x", True, True), REACHED),
        ([0, 1, 1], Flag("x", True, True), REACHED),
        ([NAN, 0, NAN, 1], Flag("x", True, True), REACHED),
        ([0, 1, 0], Flag("x", False, True), UNCLEAR),
        ([1, 1, 1], Flag("x", True, True), UNCLEAR),
        ([1], Flag("x", True, True), UNCLEAR),
        ([0, 1, 0, 1], Flag("x", True, True), UNCLEAR),
        ([0, 0], Flag("x", False, False), UNSET),
        ([0, 0.5, 1], None, DENSE),
        ([-1, -1, 0], None, DENSE),
        ([NAN, NAN], None, None),
        ([], None, None),
    ],
)
def test_rows(rows: list[float], flag: Flag | None, shows: str | None) -> None:
    """The same however the rows are cut into parts."""
    whole = row_values(rows)
    assert whole.flag("x") == flag
    assert whole.reward("x") == (Reward("x", shows) if shows else None)
    for cut in range(len(rows)):
        in_parts = RowValues()
        for part in (rows[:cut], rows[cut:]):
            in_parts.add(np.array(part, np.float64))
        assert in_parts == whole


def outcomes_of(*evidence: Evidence) -> list[tuple[bool, str] | None]:
    decided = decide(dict(enumerate(evidence))).outcomes
    found = [decided[k] for k in range(len(evidence))]
    return [(o.success, o.source) if o else None for o in found]


def flagged(*flags: Flag) -> Evidence:
    return Evidence(flags=flags)


def test_a_flag_counts_as_the_run_ended() -> None:
    lost_again = flagged(Flag("is_success", False, True))
    assert outcomes_of(flagged(Flag("is_success", True, True)), lost_again, NO_EVIDENCE) == [
        (True, "column is_success"),
        (False, "column is_success"),
        None,
    ]


def test_a_flag_that_no_run_ends_with_marks_the_moment() -> None:
    moments = [flagged(Flag("success", False, was_set)) for was_set in (True, False)]
    assert outcomes_of(*moments) == [(True, "column success"), (False, "column success")]


def test_a_flag_that_is_never_set_says_nothing() -> None:
    evidence = dict(enumerate([flagged(Flag("next.success", False, False))] * 3))
    decided = decide(evidence)
    assert decided.outcomes == dict.fromkeys(range(3))
    assert decided.never_set == ("next.success",)
    # The next flag is asked then
    both = [flagged(Flag("success", False, False), Flag("next.success", True, True))] * 2
    assert outcomes_of(*both) == [(True, "column next.success")] * 2


def rewarded(shows: str, *, ended: bool | None = None, name: str = "reward") -> Evidence:
    return Evidence(reward=Reward(name, shows), ending=None if ended is None else Ending("is_terminal", ended))


def test_a_sparse_reward() -> None:
    assert outcomes_of(rewarded(REACHED), rewarded(UNSET), rewarded(UNCLEAR), NO_EVIDENCE) == [
        (True, "final reward"),
        (False, "final reward"),
        None,
        None,
    ]


@pytest.mark.parametrize("ended", [None, True, False])
def test_a_reward_that_is_never_set_says_nothing(ended: bool | None) -> None:
    """As in the debug set of BridgeData, whose episodes are cut-outs."""
    decided = decide(dict.fromkeys(range(4), rewarded(UNSET, ended=ended)))
    assert set(decided.outcomes.values()) == {None}
    assert decided.never_set == ("reward",)


def test_a_dense_reward_says_nothing_of_any_run() -> None:
    runs = [rewarded(REACHED, ended=True), rewarded(DENSE, ended=True), rewarded(UNSET, ended=False)]
    assert outcomes_of(*runs) == [None] * 3
    assert decide(dict(enumerate(runs))).never_set == ()


def test_a_run_that_was_cut_off_did_not_fail() -> None:
    """Only where others of the dataset end by themselves: else the mark was never filled in."""
    cut_off, ended = rewarded(UNSET, ended=False), rewarded(UNSET, ended=True)
    assert outcomes_of(rewarded(REACHED, ended=True), cut_off, ended) == [
        (True, "final reward"),
        None,
        (False, "final reward"),
    ]
    assert outcomes_of(rewarded(REACHED, ended=False), cut_off) == [(True, "final reward"), (False, "final reward")]


@pytest.mark.parametrize("reward", [None, Reward("reward", UNSET)])
def test_an_end_alone(reward: Reward | None) -> None:
    runs = [Evidence(reward=reward, ending=Ending("is_terminal", ended)) for ended in (True, False)]
    assert outcomes_of(*runs) == [(True, "final is_terminal"), None]
    assert outcomes_of(runs[0], runs[0]) == [None, None]


def test_what_counts_first() -> None:
    everything = Evidence(
        Outcome(False, "metadata success"),
        (Flag("next.success", True, True),),
        Outcome(False, "folder name"),
        Reward("reward", REACHED),
    )
    assert outcomes_of(everything) == [(False, "metadata success")]
    without = replace(everything, stated=None)
    assert outcomes_of(without) == [(True, "column next.success")]
    without = replace(without, flags=())
    assert outcomes_of(without) == [(False, "folder name")]
    assert outcomes_of(replace(without, folder=None)) == [(True, "final reward")]

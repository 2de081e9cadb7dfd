"""What the end of a build says of grippers and hands, and of labels that give less than others."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.console import show_gate, show_signals
from cli.status import status_rows
from ingest.reasons import REASONS
from tests.kits.made_corpus import Made
from tests.kits.signal_kit import give_two_arms, signal
from warehouse.lake import Lake


@pytest.fixture
def lake(made: Made, tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(made.copy(tmp_path).space)
    yield lake
    lake.con.close()


def test_a_line_for_each_arm_and_what_to_do_where_something_is_amiss(lake: Lake, capsys: pytest.CaptureFixture[str]):
    give_two_arms(lake, "tiny", signal(arm="third", is_used=False, closings_per_episode=None))
    lake.con.execute(
        "INSERT INTO signal_lags BY NAME SELECT 'tiny' AS dataset, 0 AS chunk, 'state' AS signal, 0.25 AS lag_s, "
        "0.6 AS likeness, 5 AS num_observed, true AS is_corrected"
    )
    show_signals(lake, ["tiny"])
    left, right, no_polarity, third, unused, state = capsys.readouterr().out.splitlines()
    assert left.startswith("tiny: left gripper: state[6] main_gripper, 0..0.07 m, high is open (sure 0.95), ")
    assert "closing 1.0 s behind, opening 1.6 s behind the pictures (corrected)" in left
    assert right.startswith(
        "tiny: right hand: state[7-10] thumb ... ring, -0.02..1.2 rad, which end is open is unknown"
    )
    assert no_polarity == f"tiny: hand_without_polarity: {REASONS['hand_without_polarity'].remedy}"
    assert third.startswith("tiny: third gripper: ")
    assert unused == f"tiny: gripper_unused: {REASONS['gripper_unused'].remedy}"
    assert state == "tiny: the state is 0.2 s behind the pictures: labels are corrected by it"


def test_a_dataset_without_a_gripper_says_so(lake: Lake, capsys: pytest.CaptureFixture[str]):
    lake.con.execute("DELETE FROM signals")
    lake.con.execute(
        "INSERT INTO findings BY NAME SELECT 'tiny' AS dataset, 'episodes' AS stage, 'no_gripper' AS reason, "
        "'looked at state of 3 dimensions' AS detail, 'warning' AS severity"
    )
    show_signals(lake, ["tiny"])
    assert capsys.readouterr().out == (
        f"tiny: no_gripper: looked at state of 3 dimensions: {REASONS['no_gripper'].remedy}\n"
    )


def test_only_what_was_built_is_shown(lake: Lake, capsys: pytest.CaptureFixture[str]):
    show_signals(lake, [])
    assert capsys.readouterr().out == ""
    show_signals(lake, ["tiny"])
    assert capsys.readouterr().out.startswith("tiny: gripper: state[2] gripper, 0..1, high is open (sure ")
    lake.con.execute("DELETE FROM signals")
    show_signals(lake, ["tiny"])
    assert capsys.readouterr().out.startswith("tiny: no gripper and no hand: ")


def test_labels_with_unnamed_steps_and_unsure_ones_are_counted(lake: Lake, capsys: pytest.CaptureFixture[str]):
    lake.con.execute("UPDATE episode_labels SET confidence = 0.9")
    show_gate(lake, ["tiny"])
    assert capsys.readouterr().out == "", "nothing is said of labels that give all"
    [before] = status_rows(lake)
    assert "unnamed" not in before["labels"]

    lake.con.execute("UPDATE episode_labels SET named = false WHERE episode_index IN (0, 1)")
    lake.con.execute("UPDATE episode_labels SET confidence = 0.4 WHERE episode_index = 2")
    show_gate(lake, ["tiny"])
    assert capsys.readouterr().out.splitlines() == [
        "tiny: 2 of 5 labels have unnamed steps: they give progress alone",
        "tiny: 1 of 5 labels are less sure than 0.5 (min_name_confidence): they give no names of steps",
    ]
    show_gate(lake, ["another"])
    assert capsys.readouterr().out == ""
    [row] = status_rows(lake)
    assert row["labels"] == before["labels"] + ", 2 with unnamed steps"
    assert lake.rows("SELECT unnamed FROM coverage") == [(2,)]

"""Grippers and hands as the lake holds them, and as a lake of an earlier version does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.made_corpus import Made
from tests.kits.signal_kit import LEFT, RIGHT_HAND, give_two_arms, signal
from warehouse.lake import Lake
from warehouse.lake.signals import gripper_openings, lags_by_dataset, signals_by_dataset, stored_signals

UNUSED = signal(arm="third", is_used=False, closings_per_episode=None)


@pytest.fixture
def lake(made: Made, tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(made.copy(tmp_path).space)
    yield lake
    lake.con.close()


def openings(lake: Lake, column: str = "gripper", episode: int = 1) -> list[float]:
    sql = f"SELECT {column} FROM frames WHERE dataset = 'tiny' AND episode_index = ? ORDER BY frame_index"
    return lake.column(sql, [episode])


def test_what_a_build_stored_comes_back(lake: Lake):
    (found,) = stored_signals(lake.con, "tiny")
    assert (found.title, found.column, found.dimensions, found.names) == ("gripper", "state", (2,), ("gripper",))
    assert signals_by_dataset(lake.con) == {"tiny": [found]}
    (curve,) = gripper_openings(lake.con, "tiny", 0, 1)
    assert (curve.signal, curve.opening) == (found, openings(lake))
    assert stored_signals(lake.con, "other") == gripper_openings(lake.con, "other", 0, 1) == []


def test_each_used_gripper_has_a_curve(lake: Lake):
    give_two_arms(lake, "tiny", UNUSED)
    assert stored_signals(lake.con, "tiny") == [LEFT, RIGHT_HAND, UNUSED]
    left, right = gripper_openings(lake.con, "tiny", 0, 1)
    assert (left.signal, right.signal) == (LEFT, RIGHT_HAND)
    assert left.opening == openings(lake)
    assert right.opening == openings(lake, "1 - gripper")
    assert left.opening != right.opening
    lags = {row["signal"]: row["lag_s"] for row in lags_by_dataset(lake.con)["tiny"] if row["is_corrected"]}
    assert lags == {"left gripper: closing": 1.04, "left gripper: opening": 1.6}


def test_frames_that_an_earlier_survey_measured_have_one_curve(lake: Lake):
    give_two_arms(lake)
    lake.con.execute("UPDATE frames SET grippers = [gripper] WHERE episode_index = 1")
    (curve,) = gripper_openings(lake.con, "tiny", 0, 1)
    assert (curve.signal, curve.opening) == (None, openings(lake))
    assert len(gripper_openings(lake.con, "tiny", 0, 0)) == 2


def test_an_episode_without_a_gripper_has_no_curve(lake: Lake):
    lake.con.execute("UPDATE frames SET gripper = NULL, grippers = NULL")
    assert gripper_openings(lake.con, "tiny", 0, 1) == []


def test_a_lake_from_before_grippers_were_told_apart(lake: Lake):
    opening = openings(lake)
    lake.con.execute("DROP TABLE signals")
    lake.con.execute("DROP TABLE signal_lags")
    lake.con.execute("ALTER TABLE frames DROP COLUMN grippers")
    assert (signals_by_dataset(lake.con), lags_by_dataset(lake.con)) == ({}, {})
    (curve,) = gripper_openings(lake.con, "tiny", 0, 1)
    assert (curve.signal, curve.opening) == (None, opening)

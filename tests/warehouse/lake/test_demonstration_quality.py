"""The view demonstration_quality: each run beside the others of its task, on measures that are odd in a known way."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from core.demonstration_quality import FEWEST, MOST_COMPARED, PARTS, TOO_FEW
from core.paths import Workspace
from core.tables import TABLES
from warehouse.lake import Lake

USUAL: dict[str, Any] = {
    "duration_s": 10.0,
    "rest_s": 0.5,
    "pauses": 0,
    "reversals": 1,
    "jerk": 20.0,
    "gripper_moves": 2,
    "end_state": [1.0, 2.0],
    "state_spread": [1.0, 0.5],
    "camera": "front",
    "end_phash": 0,
}
Make = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(Workspace(tmp_path))
    yield lake
    lake.con.close()


@pytest.fixture
def judged(lake: Lake) -> Make:
    def judged(
        *changes: Mapping[str, Any], facts: Mapping[int, Mapping[str, Any]] | None = None, dataset: str = "a"
    ) -> list[dict[str, Any]]:
        """The rows of the view by episode; `changes`: what runs have otherwise than is usual."""
        keys = [{"dataset": dataset, "episode_index": e, "chunk": e // 2} for e in range(len(changes))]
        rows = [key | USUAL | change for key, change in zip(keys, changes, strict=True)]
        listed = [key | {"task": "pick"} | (facts or {}).get(e, {}) for e, key in enumerate(keys)]
        lake.append("test", "demonstration_measures", lambda: TABLES["demonstration_measures"].rows(rows))
        lake.append("test", "episode_facts", lambda: TABLES["episode_facts"].rows(listed))
        return lake.dicts("FROM demonstration_quality WHERE dataset = ? ORDER BY episode_index", [dataset])

    return judged


ODD = {
    "stands still": ({"rest_s": 3.1}, "stands still for 31 % of its time, others of its task 5 %"),
    "stops on the way": ({"pauses": 3}, "stand-stills on the way: 3, others of its task 0"),
    "turns back": ({"reversals": 7}, "turns back: 7, others of its task 1"),
    "moves roughly": ({"jerk": 60.0}, "its jerk is 3 times the usual"),
    "takes long": ({"duration_s": 25.0, "rest_s": 1.25}, "2.5 times as long as others of its task"),
    "is short": ({"duration_s": 5.0, "rest_s": 0.25}, "0.5 times as long as others of its task"),
    "gripper moves more": ({"gripper_moves": 4}, "closings and openings of the gripper: 4, others of its task 2"),
    "ends elsewhere": ({"end_state": [1.0, 3.0]}, "ends 29 times as far from others of its task as is usual"),
    "last picture differs": (
        {"end_phash": 2**16 - 1},
        "its last picture is 5 times as unlike those of others as is usual",
    ),
}


@pytest.mark.parametrize("main", ODD)
def test_each_part_is_seen_alone_and_said_in_words(judged: Make, main: str):
    change, why = ODD[main]
    rows = judged(*[{}] * 6, change)
    assert (rows[6]["main"], rows[6]["why"]) == (main, [why])
    assert rows[6]["score"] < 0.7
    assert [(r["score"], r["main"], r["why"]) for r in rows[:6]] == [(1.0, "as usual", [])] * 6


def test_every_part_is_tried_above():
    shown = " ".join(part.short for part in PARTS)
    assert all(f"'{main}'" in shown for main in ODD)
    assert shown.count("'") == 2 * len(ODD)


def test_less_than_usual_is_odd_of_the_length_alone(judged: Make):
    less = {"rest_s": 0.0, "pauses": 0, "reversals": 0, "jerk": 2.0, "gripper_moves": 0}
    row = judged(*[{"pauses": 3}] * 6, less)[6]
    assert (row["score"], row["main"]) == (1.0, "as usual")


def test_the_score_halves_at_three_deviations_and_parts_add_up(judged: Make):
    # A share of rest that is 0.15 more, where the least deviation is 0.05
    one, both = {"rest_s": 2.0}, {"rest_s": 2.0, "pauses": 3}
    rows = judged(*[{}] * 8, one, both)
    assert rows[8]["rest_z"] == pytest.approx(3)
    assert rows[8]["score"] == pytest.approx(0.5)
    assert rows[9]["score"] == pytest.approx(0.25)
    assert rows[9]["why"][0].startswith("stand"), "the oddest first"


def test_runs_that_differ_by_themselves_need_more_to_be_odd(judged: Make):
    alike = judged(*[{}] * 8, {"jerk": 40.0})[8]
    varied = judged(*[{"jerk": 10.0 * 1.3**k} for k in range(8)], {"jerk": 40.0}, dataset="b")[8]
    assert alike["jerk_z"] > 4 > 2 > varied["jerk_z"]


def test_too_few_runs_give_no_score_and_say_so(judged: Make):
    rows = judged(*[{}] * (FEWEST - 1))
    for row in rows:
        assert (row["score"], row["num_usual"], row["main"], row["why"]) == (None, 0, TOO_FEW, [TOO_FEW])
        assert all(row[f"{part.name}_z"] is None for part in PARTS)


def test_what_is_usual_is_read_off_runs_that_did_not_fail(judged: Make):
    failed = {e: {"success": False} for e in range(5, 10)}
    rows = judged(*[{}] * 5, *[{"duration_s": 2.0, "rest_s": 0.1}] * 5, facts=failed)
    assert {row["main"] for row in rows[:5]} == {"as usual"}
    assert {row["main"] for row in rows[5:]} == {"is short"}
    assert {row["num_usual"] for row in rows} == {5}


def test_tasks_and_datasets_are_apart_until_people_join_them(judged: Make, lake: Lake):
    texts = {e: {"task": "pick it up"} for e in (3, 4, 5)}
    assert {row["score"] for row in judged(*[{}] * 6, facts=texts)} == {None}
    joined = {"join_id": "j", "dataset": "a", "task": "pick it up", "same_as": "pick", "author": "ada"}
    lake.append("test", "joined_tasks", lambda: TABLES["joined_tasks"].rows([joined]))
    rows = lake.dicts("FROM demonstration_quality")
    assert {row["score"] for row in rows} == {1.0}
    assert {row["task"] for row in rows} == {"pick", "pick it up"}


def test_what_is_not_measured_is_not_judged(judged: Make):
    without = {"jerk": None, "reversals": None, "gripper_moves": None, "end_state": None, "state_spread": None}
    row = judged(*[without] * 6, without | {"rest_s": 6.0})[6]
    assert [row[f"{name}_z"] for name in ("jerk", "reversals", "gripper", "end_state")] == [None] * 4
    assert row["main"] == "stands still"
    # One run alone without a state, or with one of another kind, is compared by the rest
    other = {"end_state": [1.0], "state_spread": [1.0]}
    rows = judged(*[{}] * 6, without, other, dataset="b")
    assert [row["end_state_z"] for row in rows[6:]] == [None, None]
    assert [row["score"] for row in rows] == [1.0] * 8


def test_pictures_of_different_cameras_are_not_compared(judged: Make):
    row = judged(*[{}] * 6, {"camera": "wrist", "end_phash": 2**16 - 1})[6]
    assert (row["end_picture_z"], row["score"]) == (None, 1.0)


def test_ends_at_two_places_are_both_usual(judged: Make):
    rows = judged(*[{"end_state": [1.0, 2.0]}] * 5, *[{"end_state": [5.0, 2.0]}] * 5, {"end_state": [1.0, 9.0]})
    assert [row["main"] for row in rows] == ["as usual"] * 10 + ["ends elsewhere"]


def test_a_large_task_is_compared_with_some_of_its_runs_and_is_judged_alike(judged: Make):
    rows = judged(*[{}] * (3 * MOST_COMPARED), {"end_state": [1.0, 3.0]}, {"end_phash": 2**16 - 1})
    assert [row["main"] for row in rows[-2:]] == ["ends elsewhere", "last picture differs"]
    assert {row["main"] for row in rows[:-2]} == {"as usual"}


def test_the_worst_come_first(judged: Make, lake: Lake):
    judged(*[{}] * 6, {"rest_s": 3.1}, {"rest_s": 6.0, "pauses": 4})
    judged({}, dataset="b")
    rows = lake.rows("SELECT dataset, episode_index FROM demonstration_quality")
    assert rows[:2] == [("a", 7), ("a", 6)]
    assert rows[-1] == ("b", 0), "without a score: last"

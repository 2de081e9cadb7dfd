"""Which runs of other chunks samples may show: of other tasks, of the same split, the same whatever else is listed."""

from collections import Counter, namedtuple

import pytest

from ingest.episode import CameraVideo, EpisodeRecord
from ingest.task_texts import MOST, are_other_tasks, other_tasks

Shown = namedtuple("Shown", ("chunk", "split", "episode_index"))
FRUIT = ("apple", "pear", "banana", "lemon")


def record(index: int, task: str) -> EpisodeRecord:
    cameras = (CameraVideo("front", f"{index}.mp4", 0),)
    return EpisodeRecord(
        index, f"run {index}", 10.0, task, num_rows=50, videos=cameras, group=f"g{index}"
    )


def chosen(records: list[EpisodeRecord]) -> list[Shown]:
    splits = {record.group: "train" for record in records}
    return [Shown(**row) for row in other_tasks("d", records, splits, (), chunk_size=5)]


RECORDS = [record(k, f"Put the {FRUIT[k // 5 % 4]} on the plate") for k in range(60)]


def test_chunks_are_offered_other_tasks_beyond_them():
    chosen_tasks = chosen(RECORDS)
    assert set(Counter(o.chunk for o in chosen_tasks).values()) == {MOST}
    for o in chosen_tasks:
        assert o.episode_index // 5 != o.chunk
        assert RECORDS[o.episode_index].task != RECORDS[5 * o.chunk].task
        assert o.split == "train"
    of_first = Counter(RECORDS[o.episode_index].task for o in chosen_tasks if o.chunk == 0)
    assert len(of_first) == 3  # of every other task
    assert max(of_first.values()) - min(of_first.values()) <= 1
    assert len({o.episode_index for o in chosen_tasks}) > 20  # not the same few for all


def test_the_order_of_listing_plays_no_role_and_newcomers_change_little():
    tasks_before = chosen(RECORDS)
    assert chosen(RECORDS[::-1]) == tasks_before
    tasks_after = chosen([*RECORDS, record(60, "Put the apple on the plate")])
    chunks = {o.chunk for o in set(tasks_before) ^ set(tasks_after)} - {12}
    assert len(chunks) < 9  # of twelve
    assert sum(o not in tasks_after for o in tasks_before) == len(chunks)  # one each


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Put the cup on the plate", "put the cup on the plate."),
        # Other words, one says more
        ("Grab the cup, set it on the plate", "Put the blue mug on the plate"),
        ("Picking up bananas", "pick up the bananna"),
        # Looks alike
        ("Stack the red cube onto the green cube", "Stack the green cube onto the red cube"),
        ("open the drawer", "close the drawer"),  # seen backwards
        ("把香蕉放在盘子上", "将香蕉放到盘子里"),
        ("pick and place", "put the cup on the plate"),  # says nothing
        ("put the cup away", None),
        ("", ""),
    ],
)
def test_the_same_in_other_words_is_not(one: str, other: str | None):
    assert not are_other_tasks(one, other)
    assert not are_other_tasks(other, one)

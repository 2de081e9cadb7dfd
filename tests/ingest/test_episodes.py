"""Splits: whole groups, decided by hash, and for good."""

from collections import Counter, namedtuple
from collections.abc import Sequence
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.episode import REASONS, CameraVideo, EpisodeRecord, Finding
from ingest.episodes import settled_listing
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
from ingest.splits import SplitConfig, assign_splits
from ingest.task_texts import MOST, are_other_tasks, other_tasks
from tests.kits.files import table
from tests.kits.lerobot_writer import said, source_of, write_v2


def record(episode: int, group: str, *tasks: str) -> EpisodeRecord:
    return EpisodeRecord(
        episode, f"e{episode}", 10.0, tasks[0] if tasks else None, tasks, group=group
    )


def records(groups: int) -> list[EpisodeRecord]:
    return [record(k, f"g{k}", "t") for k in range(groups)]


# Episodes of a few groups and tasks, in any order
some_records = st.lists(
    st.tuples(st.integers(0, 14), st.lists(st.sampled_from("abc"), max_size=2)),
    min_size=1,
    max_size=60,
).map(lambda rows: [record(e, f"g{g}", *tasks) for e, (g, tasks) in enumerate(rows)])


@given(some_records, st.data(), st.integers(0, 3))
def test_order_of_listing_changes_nothing(found, data, seed):
    config = SplitConfig(seed=seed, held_out_tasks=("c",))
    shuffled = data.draw(st.permutations(found))
    assert assign_splits("d", "train", shuffled, config) == assign_splits(
        "d", "train", found, config
    )


def test_seed_and_dataset_make_another_choice():
    def chosen(dataset: str, seed: int) -> dict[str, str]:
        return assign_splits(dataset, "train", records(100), SplitConfig(seed=seed))

    assert chosen("d", 0) == chosen("d", 0)
    assert (
        len({tuple(sorted(c.items())) for c in (chosen("d", 0), chosen("d", 1), chosen("e", 0))})
        == 3
    )


def test_ood_is_held_out_whole():
    all_records = [*records(20), record(99, "g99", "b")]
    assert set(
        assign_splits("d", "ood", all_records, SplitConfig(held_out_tasks=("b",))).values()
    ) == {"test_ood"}


def _splits_after(
    former_splits: dict[str, str], role: str, held_out: Sequence[str] = ()
) -> dict[str, str]:
    return assign_splits(
        "d", role, records(10), SplitConfig(held_out_tasks=tuple(held_out)), former_splits
    )


def test_what_the_configuration_decides_is_not_sticky():
    plain = _splits_after({}, "train")
    ood = _splits_after(plain, "ood")
    assert set(ood.values()) == {"test_ood"}
    assert _splits_after(ood | {"gone": "val"}, "train") == plain
    task = _splits_after(plain, "train", ["t"])
    assert set(task.values()) == {"test_task"}
    assert _splits_after(task, "train") == plain


@pytest.mark.parametrize("fields", [{"val": 0.5}, {"test_id": -0.1}, {"train": 0.8}])
def test_configuration_that_is_refused(fields):
    with pytest.raises(ValidationError):
        SplitConfig(**fields)


def test_findings_are_of_known_kinds():
    for reason, severity in (("nonsense", "warning"), ("no_video", "fatal")):
        with pytest.raises(ValueError, match="unknown finding"):
            Finding(reason, "x", severity)
    texts = chain.from_iterable(reason[:2] for reason in REASONS.values())
    assert all(text and text[0].islower() for text in texts)


def test_texts_that_the_lake_cannot_hold(tmp_path):
    root = write_v2(tmp_path, [6, 7], tasks=("a\0b", "pick"))
    result = settled_listing(source_of(root))
    assert said(result.findings) == [("unreadable_data", "unusable", 0, None)]
    assert [r.task for r in result.records] == ["a\ufffdb", "pick"]


def test_texts_beyond_the_limit(tmp_path):
    # A task of 50 MB ended a build: it is cut off, and its episode is not used
    root = write_v2(tmp_path, [6, 7], tasks=("x" * 101, "place it"))
    source = source_of(root, limits={"max_text": 100})
    result = settled_listing(source)
    (finding,) = [f for f in result.findings if f.reason == "over_limit"]
    assert (finding.severity, finding.episode_index) == ("unusable", 0)
    assert finding.detail.startswith(
        "characters of one of its texts: 101, over the limit of 100 (limits.max_text"
    )
    assert [record.task for record in result.records] == ["x" * 100, "place it"]


OF_NUMPY = [(b"success", True), (np.array([False]), False), (np.bool_(True), True), (np.nan, None)]


@pytest.mark.parametrize(("value", "expected"), [*table("truths"), *OF_NUMPY])
def test_truth(value, expected):
    assert truth(value) is expected


def outcomes_of(*evidence: OutcomeEvidence) -> list[tuple[bool, str] | None]:
    decided, _ = decide(dict(enumerate(evidence)))
    decisions = [decided[k] for k in range(len(evidence))]
    return [(o.success, o.source) if o else None for o in decisions]


def test_a_sparse_reward():
    rewarded = [
        OutcomeEvidence(reward=RewardEvidence("reward", shows))
        for shows in (REACHED, UNSET, UNCLEAR)
    ]
    expected = [(True, "final reward"), (False, "final reward"), None, None]
    assert outcomes_of(*rewarded, NO_EVIDENCE) == expected


@pytest.mark.parametrize("reward", [None, RewardEvidence("reward", UNSET)])
def test_an_end_alone(reward):
    runs = [
        OutcomeEvidence(reward=reward, ending=Ending("is_terminal", ended))
        for ended in (True, False)
    ]
    assert outcomes_of(*runs) == [(True, "final is_terminal"), None]
    assert outcomes_of(runs[0], runs[0]) == [None, None]


Shown = namedtuple("Shown", ("chunk", "split", "episode_index"))
FRUIT = ("apple", "pear", "banana", "lemon")


def task_record(index: int, task: str) -> EpisodeRecord:
    cameras = (CameraVideo("front", f"{index}.mp4", 0),)
    return EpisodeRecord(
        index, f"run {index}", 10.0, task, num_rows=50, videos=cameras, group=f"g{index}"
    )


def chosen(records: list[EpisodeRecord]) -> list[Shown]:
    splits = {task_record.group: "train" for task_record in records}
    return [Shown(**row) for row in other_tasks("d", records, splits, (), chunk_size=5)]


RECORDS = [task_record(k, f"Put the {FRUIT[k // 5 % 4]} on the plate") for k in range(60)]


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
    tasks_after = chosen([*RECORDS, task_record(60, "Put the apple on the plate")])
    chunks = {o.chunk for o in set(tasks_before) ^ set(tasks_after)} - {12}
    assert len(chunks) < 9  # of twelve
    assert sum(o not in tasks_after for o in tasks_before) == len(chunks)  # one each


@pytest.mark.parametrize(("one", "other"), table("same_tasks"))
def test_the_same_in_other_words_is_not(one, other):
    assert not are_other_tasks(one, other)
    assert not are_other_tasks(other, one)

"""Splits: whole groups, decided by hash, and for good."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.episode import EpisodeRecord
from ingest.splits import SplitConfig, assign_splits


def record(episode: int, group: str, *tasks: str) -> EpisodeRecord:
    return EpisodeRecord(episode, f"e{episode}", 10.0, tasks[0] if tasks else None, tasks, group=group)


def records(groups: int, task: str = "t", first: int = 0) -> list[EpisodeRecord]:
    return [record(k, f"g{k}", task) for k in range(first, first + groups)]


# Episodes of a few groups and tasks, in any order
some_records = st.lists(
    st.tuples(st.integers(0, 14), st.lists(st.sampled_from("abc"), max_size=2)), min_size=1, max_size=60
).map(lambda rows: [record(e, f"g{g}", *tasks) for e, (g, tasks) in enumerate(rows)])


@given(some_records, st.data(), st.integers(0, 3))
def test_order_of_listing_changes_nothing(found: list[EpisodeRecord], data: st.DataObject, seed: int) -> None:
    config = SplitConfig(seed=seed, held_out_tasks=("c",))
    shuffled = data.draw(st.permutations(found))
    assert assign_splits("d", "train", shuffled, config) == assign_splits("d", "train", found, config)


@given(some_records, st.integers(0, 60))
def test_splits_stay_when_episodes_are_added(found: list[EpisodeRecord], known: int) -> None:
    config = SplitConfig()
    before = assign_splits("d", "train", found[:known], config)
    after = assign_splits("d", "train", found, config, before)
    assert {g: after[g] for g in before} == before
    assert set(after) == {r.group for r in found}


@given(some_records)
def test_held_out_tasks_are_never_trained_on(found: list[EpisodeRecord]) -> None:
    splits = assign_splits("d", "train", found, SplitConfig(held_out_tasks=("b",)))
    held_out = {r.group for r in found if "b" in r.tasks}
    assert {g for g, s in splits.items() if s == "test_task"} == held_out


@given(some_records)
def test_enough_groups_give_every_split(found: list[EpisodeRecord]) -> None:
    """Five groups or more: at least one for val and one for test_id, and most for training."""
    counts = Counter(assign_splits("d", "train", found, SplitConfig()).values())
    if counts.total() >= 5:
        assert counts["val"] >= 1
        assert counts["test_id"] >= 1
        assert counts["train"] >= 0.6 * counts.total()
    else:
        assert set(counts) == {"train"}


@pytest.mark.parametrize(("groups", "each"), [(4, 0), (5, 1), (14, 1), (15, 2), (24, 2), (25, 3), (200, 20)])
def test_shares(groups: int, each: int) -> None:
    counts = Counter(assign_splits("d", "train", records(groups), SplitConfig()).values())
    assert (counts["val"], counts["test_id"], counts["train"]) == (each, each, groups - 2 * each)


def test_a_small_share_is_one_group_at_least() -> None:
    counts = Counter(assign_splits("d", "train", records(20), SplitConfig(val=0.01, test_id=0.01)).values())
    assert counts == {"val": 1, "test_id": 1, "train": 18}


def test_shares_of_nothing() -> None:
    assert set(assign_splits("d", "train", records(50), SplitConfig(val=0, test_id=0)).values()) == {"train"}


def test_each_task_gives_its_share() -> None:
    """Tasks with fewer than five groups are pooled."""
    found = [record(k, f"{t}{k}", t) for t, n in (("a", 20), ("b", 30), ("c", 2), ("d", 3)) for k in range(n)]
    splits = assign_splits("d", "train", found, SplitConfig())
    counts = {t: Counter(s for g, s in splits.items() if g[0] in t) for t in ("a", "b", "cd")}
    assert counts["a"] == {"test_id": 2, "val": 2, "train": 16}
    assert counts["b"] == {"test_id": 3, "val": 3, "train": 24}
    assert counts["cd"] == {"test_id": 1, "val": 1, "train": 3}


def test_groups_of_several_tasks_in_any_order() -> None:
    """Ten groups do a and b, ten a alone, ten b alone: which task counts does not depend on which came first."""
    tasks = ("ab", "a", "b")
    found = [record(k, f"g{k}", task) for k in range(30) for task in tasks[k // 10]]
    assert assign_splits("d", "train", found[::-1], SplitConfig()) == assign_splits("d", "train", found, SplitConfig())


def test_a_group_is_one_whatever_its_episodes_do() -> None:
    found = [record(0, "g", "a"), record(1, "g", "b"), record(2, "h", "b"), record(3, "k", "a", "held")]
    splits = assign_splits("d", "train", found, SplitConfig(held_out_tasks=("b", "held")))
    assert splits == {"g": "test_task", "h": "test_task", "k": "test_task"}


def test_seed_and_dataset_make_another_choice() -> None:
    def chosen(dataset: str, seed: int) -> dict[str, str]:
        return assign_splits(dataset, "train", records(100), SplitConfig(seed=seed))

    assert chosen("d", 0) == chosen("d", 0)
    assert len({tuple(sorted(c.items())) for c in (chosen("d", 0), chosen("d", 1), chosen("e", 0))}) == 3


def test_a_choice_known_by_heart() -> None:
    """The hash must never change: corpora that exist were split by it."""
    splits = assign_splits("sim_short", "train", records(30), SplitConfig())
    chosen = {s: {g for g in splits if splits[g] == s} for s in ("test_id", "val")}
    assert chosen == {"test_id": {"g0", "g1", "g25"}, "val": {"g12", "g13", "g23"}}


def test_places_of_val_and_test_are_for_what_can_be_used() -> None:
    """As of a hundred episodes of which six have a video."""
    unusable = set(range(100)) - {3, 14, 15, 92, 65, 35}
    splits = assign_splits("d", "train", records(100), SplitConfig(), unusable=unusable)
    assert set(splits) == {"g3", "g14", "g15", "g92", "g65", "g35"}
    assert Counter(splits.values()) == {"train": 4, "val": 1, "test_id": 1}


@given(some_records, st.data())
def test_splits_are_those_of_the_usable_episodes_alone(found: list[EpisodeRecord], data: st.DataObject) -> None:
    unusable = data.draw(st.sets(st.sampled_from([r.episode_index for r in found])))
    usable = {r.group for r in found if r.episode_index not in unusable}
    splits = assign_splits("d", "train", found, SplitConfig(), unusable=unusable)
    assert splits == assign_splits("d", "train", [r for r in found if r.group in usable], SplitConfig())


def test_splits_stay_whether_episodes_can_be_used_or_not() -> None:
    """What is fetched later gets its share; what is lost keeps the split that it had, and takes no place."""
    half = set(range(50, 100))
    first = assign_splits("d", "train", records(100), SplitConfig(), unusable=half)
    assert Counter(first.values()) == {"train": 40, "val": 5, "test_id": 5}
    later = assign_splits("d", "train", records(100), SplitConfig(), first)
    assert {g: later[g] for g in first} == first
    assert Counter(later.values()) == {"train": 80, "val": 10, "test_id": 10}
    lost = assign_splits("d", "train", records(100), SplitConfig(), later, unusable=half)
    assert lost == later


def test_one_usable_episode_makes_a_usable_group() -> None:
    found = [record(0, "g"), record(1, "g"), record(2, "h")]
    assert assign_splits("d", "train", found, SplitConfig(), unusable={0, 2}) == {"g": "train"}


def test_ood_is_held_out_whole() -> None:
    found = [*records(20), record(99, "g99", "b")]
    assert set(assign_splits("d", "ood", found, SplitConfig(held_out_tasks=("b",))).values()) == {"test_ood"}


def _splits_after(before: dict[str, str], role: str, held_out: Sequence[str] = ()) -> dict[str, str]:
    return assign_splits("d", role, records(10), SplitConfig(held_out_tasks=tuple(held_out)), before)


def test_what_the_configuration_decides_is_not_sticky() -> None:
    """A dataset that is no longer held out, or a task that is, is assigned anew; groups that are gone are forgotten."""
    plain = _splits_after({}, "train")
    ood = _splits_after(plain, "ood")
    assert set(ood.values()) == {"test_ood"}
    assert _splits_after(ood | {"gone": "val"}, "train") == plain
    task = _splits_after(plain, "train", ["t"])
    assert set(task.values()) == {"test_task"}
    assert _splits_after(task, "train") == plain


@pytest.mark.parametrize("fields", [{"val": 0.5}, {"test_id": -0.1}, {"train": 0.8}])
def test_configuration_that_is_refused(fields: dict) -> None:
    with pytest.raises(ValidationError):
        SplitConfig(**fields)

"""Splits: whole groups, decided by hash, and for good."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.episode import EpisodeRecord
from ingest.splits import SplitConfig, assign_splits


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
def test_order_of_listing_changes_nothing(
    found: list[EpisodeRecord], data: st.DataObject, seed: int
) -> None:
    config = SplitConfig(seed=seed, held_out_tasks=("c",))
    shuffled = data.draw(st.permutations(found))
    assert assign_splits("d", "train", shuffled, config) == assign_splits(
        "d", "train", found, config
    )


def test_seed_and_dataset_make_another_choice() -> None:
    def chosen(dataset: str, seed: int) -> dict[str, str]:
        return assign_splits(dataset, "train", records(100), SplitConfig(seed=seed))

    assert chosen("d", 0) == chosen("d", 0)
    assert (
        len({tuple(sorted(c.items())) for c in (chosen("d", 0), chosen("d", 1), chosen("e", 0))})
        == 3
    )


def test_ood_is_held_out_whole() -> None:
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

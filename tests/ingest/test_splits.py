"""Splits: whole groups, decided by hash, and for good."""

from collections.abc import Sequence

from ingest.episode import EpisodeRecord
from ingest.splits import SplitConfig, assign_splits


def record(episode: int, group: str, *tasks: str) -> EpisodeRecord:
    return EpisodeRecord(episode, f"e{episode}", 10.0, tasks[0] if tasks else None, tasks, group=group)


def records(groups: int, task: str = "t", first: int = 0) -> list[EpisodeRecord]:
    return [record(k, f"g{k}", task) for k in range(first, first + groups)]


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

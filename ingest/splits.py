"""Splits: which episodes are for training and which for tests, decided per group from metadata alone.

A group (recording session, start state, declared clone) is never parted. Groups are ordered by
hash, so the outcome does not depend on the order of listing; what was once assigned stays. A group
without any episode that can be used has no split: it gets one when it first has such an episode.
"""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from itertools import chain

from pydantic import BaseModel, Field

from core.values import grouped
from ingest.episode import EpisodeRecord

MIN_GROUPS = 5  # a stratum with at least so many groups gets a val and a test_id group


class SplitConfig(BaseModel, extra="forbid", frozen=True):
    val: float = Field(default=0.1, ge=0, lt=0.5, description="share of groups in the split val")
    test_id: float = Field(
        default=0.1,
        ge=0,
        lt=0.5,
        description="share of groups in the split test_id: new starts of seen tasks",
    )
    held_out_tasks: tuple[str, ...] = Field(
        default=(), description="task texts whose episodes are in the split test_task"
    )
    seed: int = Field(default=0, description="another seed gives other splits")


def assign_splits(
    dataset: str,
    role: str,
    records: Sequence[EpisodeRecord],
    config: SplitConfig,
    former_splits: Mapping[str, str] | None = None,
    unusable: Collection[int] = (),
) -> dict[str, str]:
    """The split of each group. `former_splits` holds splits already given to groups; they stay.

    `unusable` are indices of episodes that cannot be used. Groups of nothing else take no place of
    val or test_id.

    Strata are tasks; tasks with fewer than MIN_GROUPS groups are pooled. Each stratum gives test_id
    and val their share of its groups, at least one each from MIN_GROUPS on, and the rest to train.

    Example: ten new groups of one task give one to test_id, one to val and eight to train; a task
    of four groups gives all to train, unless other small tasks fill the pool up.
    """
    # The task of each group: the least, where it has several
    tasks_of_group = grouped((record.group, record.task or "") for record in records)
    task_by_group = {group: min(tasks) for group, tasks in tasks_of_group.items()}
    # The registry holds the dataset out as a whole, whatever its tasks
    if role == "ood":
        return dict.fromkeys(task_by_group, "test_ood")
    # One episode of a held-out task holds its whole group out, since a group is never parted
    held_out = {
        r.group for r in records if not {r.task or "", *r.tasks}.isdisjoint(config.held_out_tasks)
    }
    # Held-out tasks and the role may be others than they were
    splits = dict.fromkeys(held_out, "test_task") | {
        group: split
        for group, split in (former_splits or {}).items()
        if group in task_by_group
        and group not in held_out
        and split not in ("test_ood", "test_task")
    }
    usable = {r.group for r in records if r.episode_index not in unusable}
    for groups in _strata({g: task for g, task in task_by_group.items() if g in usable}, held_out):
        _fill(dataset, groups, config, splits)
    return splits


def _strata(task_by_group: Mapping[str, str], held_out: set[str]) -> list[list[str]]:
    """Groups that are dealt together: those of one task, and those of all small tasks."""
    by_task = grouped(
        (task, group) for group, task in task_by_group.items() if group not in held_out
    )
    large = [groups for groups in by_task.values() if len(groups) >= MIN_GROUPS]
    small = chain.from_iterable(groups for groups in by_task.values() if len(groups) < MIN_GROUPS)
    return [*large, list(small)]


def _fill(dataset: str, groups: list[str], config: SplitConfig, splits: dict[str, str]) -> None:
    """Give the groups of one stratum that have no split one each."""
    new = [group for group in groups if group not in splits]
    new.sort(
        key=lambda group: hashlib.sha256(f"{config.seed}\0{dataset}\0{group}".encode()).digest()
    )
    for split, share in (("test_id", config.test_id), ("val", config.val)):
        target = math.floor(share * len(groups) + 0.5)
        # A small share of few groups would round to none
        if len(groups) >= MIN_GROUPS and share > 0:
            target = max(1, target)
        # Groups that have the split from before count; only what is lacking is dealt
        num_there = sum(splits.get(group) == split for group in groups)
        num_lacking = max(0, target - num_there)
        splits |= dict.fromkeys(new[:num_lacking], split)
        new = new[num_lacking:]
    splits |= dict.fromkeys(new, "train")

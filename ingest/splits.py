"""Splits: which episodes are for training and which for tests, decided per group from metadata alone.

A group (recording session, start state, declared clone) is never parted. Groups are ordered by hash, so the outcome
does not depend on the order of listing; what was once assigned stays.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from ingest.episode import EpisodeRecord

MIN_GROUPS = 5  # a stratum with at least so many groups gets a val and a test_id group


class SplitConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    val: float = Field(default=0.1, ge=0, lt=0.5, description="share of groups")
    test_id: float = Field(default=0.1, ge=0, lt=0.5, description="share of groups: new starts of seen tasks")
    held_out_tasks: tuple[str, ...] = Field(default=(), description="task texts whose episodes are test_task")
    seed: int = Field(default=0, description="another one deals the groups in another way")


def assign_splits(
    dataset: str,
    role: str,
    records: Sequence[EpisodeRecord],
    config: SplitConfig,
    before: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The split of each group. `before` holds splits already given to groups; they stay.

    Strata are tasks; tasks with fewer than MIN_GROUPS groups are pooled. Each stratum gives test_id and val their
    share of its groups, at least one each from MIN_GROUPS on, and the rest to train.
    """
    groups: dict[str, str] = {}  # group -> its task: the least, where it has several
    held_out: set[str] = set()  # groups with any episode of a held-out task
    for r in records:
        task = r.task or ""
        groups[r.group] = min(groups.get(r.group, task), task)
        if not {task, *r.tasks}.isdisjoint(config.held_out_tasks):
            held_out.add(r.group)
    if role == "ood":
        return dict.fromkeys(groups, "test_ood")
    splits = {g: s for g, s in (before or {}).items() if g in groups and s not in ("test_ood", "test_task")}
    splits |= dict.fromkeys(held_out, "test_task")
    strata: dict[str, list[str]] = defaultdict(list)
    for group, task in groups.items():
        if group not in held_out:
            strata[task].append(group)
    small = [g for task in list(strata) if len(strata[task]) < MIN_GROUPS for g in strata.pop(task)]
    for members in (*strata.values(), small):
        _fill(dataset, members, config, splits)
    return splits


def _fill(dataset: str, groups: list[str], config: SplitConfig, splits: dict[str, str]) -> None:
    new = sorted((g for g in groups if g not in splits), key=lambda g: _hash(config.seed, dataset, g))
    for split, share in (("test_id", config.test_id), ("val", config.val)):
        wanted = math.floor(share * len(groups) + 0.5)
        if len(groups) >= MIN_GROUPS and share > 0:
            wanted = max(1, wanted)
        missing = max(0, wanted - sum(splits.get(g) == split for g in groups))
        for group in new[:missing]:
            splits[group] = split
        new = new[missing:]
    splits |= dict.fromkeys(new, "train")


def _hash(seed: int, dataset: str, group: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{dataset}\0{group}".encode()).digest()

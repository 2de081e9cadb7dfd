"""What a release made now would hold, and what stays out of it and why."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError
from core.paths import Workspace
from warehouse.lake import Lake
from warehouse.releases.licences import NON_COMMERCIAL, classify
from warehouse.releases.takedown import taken_down

LOCAL = "local"  # the release that training here makes for itself; not to be given on


class ReleaseError(UserError):
    """A release that cannot be made, found or given on: what, and what to do."""


@dataclass(frozen=True)
class ShardFile:
    """A tar of a release, as it was recorded when the release was made."""

    split: str
    shard: str
    dataset: str
    chunk: int
    episodes: int
    samples: int
    bytes: int
    sha256: str
    store: str | None  # address below which <split>/<shard> lies; None: the workspace's shards/

    def path(self, workspace: Workspace) -> Path:
        return workspace.shard(self.split, self.shard, self.store)

    @property
    def address(self) -> str:
        """Within a workspace, and within a published release."""
        return f"shards/{self.split}/{self.shard}"


def held_episodes_sql(catalog: str = "lake") -> str:
    """(dataset, episode_index) with samples in some shards; its one parameter is the list of their names."""
    return (
        f"SELECT DISTINCT s.dataset, s.episode_index FROM {catalog}.samples s JOIN {catalog}.sample_location l "
        "ON l.dataset = s.dataset AND l.chunk = s.chunk AND l.sample_id = s.sample_id WHERE list_contains(?, l.shard)"
    )


@dataclass(frozen=True)
class LeftOut:
    """Shards of a dataset (all of them where `shards` is empty) that a release cannot hold."""

    dataset: str
    why: str
    remedy: str
    shards: tuple[str, ...] = ()
    samples: int = 0

    def __str__(self) -> str:
        what = f"{self.dataset}: {len(self.shards)} shards" if self.shards else self.dataset
        return f"{what} with {self.samples} samples: {self.why}; {self.remedy}"


@dataclass(frozen=True)
class Contents:
    datasets: list[str]
    shards: tuple[ShardFile, ...]
    left_out: tuple[LeftOut, ...]


def contents(lake: Lake, allow: Collection[str] | None = ()) -> Contents:
    """Shards whose licence is open, or in `allow` (None: whatever it is), and that show nothing taken down.

    Raises ReleaseError for none.
    """
    columns = ", ".join(ShardFile.__dataclass_fields__)
    shards = [ShardFile(*r) for r in lake.rows(f"SELECT {columns} FROM shards ORDER BY shard")]
    if not shards:
        raise ReleaseError("the corpus has no shards yet: build it first")
    licences = dict(lake.rows("SELECT dataset, license FROM datasets"))
    down = taken_down(lake)
    held: list[ShardFile] = []
    left_out: list[LeftOut] = []
    for dataset in sorted({s.dataset for s in shards} | {d for d, episodes in down.items() if episodes is None}):
        here = [s for s in shards if s.dataset == dataset]
        samples = sum(s.samples for s in here)
        licence = classify(licences.get(dataset))
        if dataset in down and down[dataset] is None:
            left_out.append(LeftOut(dataset, "taken down", "proccorpus takedown --undo takes it back", samples=samples))
        elif allow is not None and not licence.allowed(allow):
            stated = licences.get(dataset)
            why = f"its licence is {licence.kind}" + (f" ({stated})" if stated else ", none is stated")
            uses = "if your use is not commercial" if licence.kind == NON_COMMERCIAL else "if you know its terms"
            left_out.append(LeftOut(dataset, why, f"{uses}: {licence.flag}", samples=samples))
        else:
            showing = _showing(lake, dataset, down.get(dataset) or frozenset())
            stale = [s for s in here if s.shard in showing]
            held += [s for s in here if s.shard not in showing]
            if stale:
                episodes = ", ".join(map(str, sorted({e for s in stale for e in showing[s.shard]})))
                why = f"they show episodes taken down ({episodes})" if episodes else "they may show episodes taken down"
                remedy = "build the dataset again to make them anew"
                left_out.append(
                    LeftOut(dataset, why, remedy, tuple(s.shard for s in stale), sum(s.samples for s in stale))
                )
    if not held:
        raise ReleaseError(f"nothing is left for a release. {'. '.join(map(str, left_out))}")
    return Contents(sorted({s.dataset for s in held}), tuple(held), tuple(left_out))


def _showing(lake: Lake, dataset: str, episodes: frozenset[int]) -> dict[str, list[int]]:
    """Shards of a dataset that hold samples of some episodes, or show pictures of them, with which.

    A shard whose samples the lake has no more (a build broke off before it was made anew) may show anything: [].
    """
    if not episodes:
        return {}
    shown = "list_append(list_transform(s.pictures, lambda p: p.episode_index), s.episode_index)"
    rows = lake.rows(
        f"SELECT l.shard, list_sort(list_distinct(flatten(list(list_intersect({shown}, ?))))) FROM samples s "
        f"JOIN sample_location l ON l.dataset = s.dataset AND l.chunk = s.chunk AND l.sample_id = s.sample_id "
        f"WHERE s.dataset = ? AND list_has_any({shown}, ?) GROUP BY 1",
        [sorted(episodes), dataset, sorted(episodes)],
    )
    gone = lake.rows(
        "SELECT DISTINCT l.shard FROM sample_location l WHERE l.dataset = ? AND NOT EXISTS (FROM samples s WHERE "
        "s.dataset = l.dataset AND s.chunk = l.chunk AND s.sample_id = l.sample_id)",
        [dataset],
    )
    return {shard: [] for (shard,) in gone} | dict(rows)

"""The contents of a release made now, and the reasons why some data stays out."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from annotate.label_run import LabelGate
from core.errors import UserError
from core.paths import Workspace
from warehouse.lake import Lake
from warehouse.lake.statements import taken_down
from warehouse.releases.licences import NON_COMMERCIAL, classify

MOST_LISTED = 10  # episodes in a sentence
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


SHARD_COLUMNS = ", ".join(ShardFile.__dataclass_fields__)  # of the tables `shards` and `release_shards`


def lake_shards(lake: Lake) -> list[ShardFile]:
    """Every shard that the lake has recorded, in order of name."""
    return [ShardFile(*row) for row in lake.rows(f"SELECT {SHARD_COLUMNS} FROM shards ORDER BY shard")]


def held_episodes_sql(catalog: str = "lake") -> str:
    """(dataset, episode_index) with samples in some shards; its one parameter is the list of their names."""
    return (
        f"SELECT DISTINCT s.dataset, s.episode_index FROM {catalog}.samples s JOIN {catalog}.sample_location l "
        "USING (dataset, chunk, sample_id) WHERE list_contains(?, l.shard)"
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


def contents(lake: Lake, allow: Collection[str] | None = (), gate: LabelGate | None = None) -> Contents:
    """Shards whose licence is open, or in `allow` (None: whatever it is), and that show nothing taken down.

    `gate`: no shard with samples of labels that do not pass it; None: labels are as sure as the samples were built to
    ask. Raises ReleaseError for none.
    """
    # Licence and takedown are judged by dataset, and only then shard by shard
    shards_by_dataset: dict[str, list[ShardFile]] = {}
    for shard in lake_shards(lake):
        shards_by_dataset.setdefault(shard.dataset, []).append(shard)
    if not shards_by_dataset:
        raise ReleaseError("the corpus has no shards yet: build it first")
    licences = dict(lake.rows("SELECT dataset, license FROM datasets"))
    down = taken_down(lake)
    # a dataset that was taken down as a whole is named also when its shards are gone
    wholly_down = {dataset for dataset, episodes in down.items() if episodes is None}

    # A dataset is left out as a whole, or only shards of it are
    held: list[ShardFile] = []
    left_out: list[LeftOut] = []
    for dataset in sorted(shards_by_dataset.keys() | wholly_down):
        shards = shards_by_dataset.get(dataset, [])
        if why := _refusal(licences.get(dataset), allow, dataset in wholly_down):
            left_out.append(LeftOut(dataset, *why, samples=_samples(shards)))
            continue
        # shards that were made before some of their episodes were taken down still show them
        fresh, stale = _without(dataset, shards, _showing(lake, dataset, down.get(dataset) or frozenset()), None)
        # shards are whole: one with a sample of an unsure label has to be built anew without it
        sure, unsure = _without(dataset, fresh, _unsure(lake, dataset, gate), gate)
        left_out += [*stale, *unsure]
        held += sure

    if not held:
        raise ReleaseError(f"nothing is left for a release. {'. '.join(map(str, left_out))}")
    return Contents(sorted({s.dataset for s in held}), tuple(held), tuple(left_out))


def _samples(shards: Sequence[ShardFile]) -> int:
    return sum(s.samples for s in shards)


def _refusal(stated: str | None, allow: Collection[str] | None, wholly_down: bool) -> tuple[str, str] | None:
    """Why a release cannot hold a dataset at all, and the remedy; None where it can. `stated`: its licence."""
    # A takedown comes before the licence: no flag lets that data in
    if wholly_down:
        return "taken down", "proccorpus takedown --undo takes it back"
    licence = classify(stated)
    if allow is None or licence.allowed(allow):
        return None
    text = f" ({stated})" if stated else ", none is stated"
    condition = "if your use is not commercial" if licence.kind == NON_COMMERCIAL else "if you know its terms"
    return f"its licence is {licence.kind}{text}", f"{condition}: {licence.flag}"


def _without(
    dataset: str, shards: Sequence[ShardFile], by_shard: Mapping[str, list[int]], gate: LabelGate | None
) -> tuple[list[ShardFile], list[LeftOut]]:
    """The shards that are not in `by_shard` (episodes by shard), and what is said of those that are: they show episodes
    taken down, or, with a `gate`, hold samples of unsure labels."""
    others, named = [s for s in shards if s.shard not in by_shard], [s for s in shards if s.shard in by_shard]
    if not named:
        return others, []
    episodes = sorted(set(chain.from_iterable(by_shard[s.shard] for s in named)))
    why, remedy = _taken_down(episodes) if gate is None else _not_sure(episodes, gate)
    return others, [LeftOut(dataset, why, remedy, tuple(s.shard for s in named), _samples(named))]


def _taken_down(episodes: Sequence[int]) -> tuple[str, str]:
    listed = f"they show episodes taken down ({', '.join(map(str, episodes))})"
    why = listed if episodes else "they may show episodes taken down"
    return why, "build the dataset again to make them anew"


def _not_sure(episodes: Sequence[int], gate: LabelGate) -> tuple[str, str]:
    listed = ", ".join(map(str, episodes[:MOST_LISTED])) + (" ..." if len(episodes) > MOST_LISTED else "")
    why = f"they hold samples of {len(episodes)} labels that are not sure enough (episodes {listed})"
    asked = {"--min-confidence": gate.min_confidence, "--min-name-confidence": gate.min_name_confidence}
    flags = " ".join(f"{flag} {least:g}" for flag, least in asked.items() if least > 0)
    return why, f"build the dataset again with {flags} to make them without"


def _showing(lake: Lake, dataset: str, episodes: frozenset[int]) -> dict[str, list[int]]:
    """Shards of a dataset that hold samples of some episodes, or show pictures of them, with which.

    A shard whose samples the lake has no more (a build broke off before it was made anew) may show anything: [].
    """
    if not episodes:
        return {}
    episodes_shown = "list_append(list_transform(s.pictures, lambda p: p.episode_index), s.episode_index)"
    showing = lake.rows(
        f"SELECT l.shard, list_sort(list_distinct(flatten(list(list_intersect({episodes_shown}, ?))))) FROM samples s "
        f"JOIN sample_location l USING (dataset, chunk, sample_id) WHERE s.dataset = ? "
        f"AND list_has_any({episodes_shown}, ?) GROUP BY 1",
        [sorted(episodes), dataset, sorted(episodes)],
    )
    without_samples = lake.rows(
        "SELECT DISTINCT l.shard FROM sample_location l WHERE l.dataset = ? AND NOT EXISTS (FROM samples s WHERE "
        "s.dataset = l.dataset AND s.chunk = l.chunk AND s.sample_id = l.sample_id)",
        [dataset],
    )
    return {shard: [] for (shard,) in without_samples} | dict(showing)


def _unsure(lake: Lake, dataset: str, gate: LabelGate | None) -> dict[str, list[int]]:
    """Shards of a dataset with samples of labels that do not pass a gate, and the episodes of these."""
    if gate is None:
        return {}
    return dict(
        lake.rows(
            "SELECT l.shard, list_sort(list(DISTINCT s.episode_index)) FROM samples s "
            "JOIN sample_location l USING (dataset, chunk, sample_id) "
            "JOIN episode_labels e USING (dataset, episode_index, label_run) "
            "WHERE s.dataset = ? AND (e.confidence < ? OR (s.names_steps AND e.confidence < ?)) GROUP BY 1",
            [dataset, gate.min_confidence, gate.min_name_confidence],
        )
    )

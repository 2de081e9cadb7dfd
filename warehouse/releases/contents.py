"""The contents of a release made now, and the reasons why some data stays out:
takedowns, unsure labels, and licences.

Building and training on one's own machine are never asked for a licence; a
release is what is given to others.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path

import pyarrow as pa

from core.domain.label_run import LabelGate
from core.errors import UserError
from core.paths import Workspace
from core.tables import TABLES
from core.values import grouped, imported
from warehouse.lake import Lake
from warehouse.lake.acceptances import OPEN_WARNINGS, runs_with
from warehouse.lake.checks import blocked_datasets
from warehouse.lake.lake import NO_STAND_INS, StandIns
from warehouse.lake.statements import taken_down

OPEN = "open"
NON_COMMERCIAL = "non-commercial"
UNKNOWN = "unknown"

PERMISSIVE = re.compile(
    r"mit|mit-0|apache-2\.0|bsd-[0-4]-clause|bsd|0bsd|isc|zlib|unlicense|wtfpl|cc0-1\.0|cc0|pddl-1\.0|pddl|odc-by-1\.0|"
    r"odc-by|odbl-1\.0|odbl|cdla-permissive-[12]\.0|cdla-sharing-1\.0|cc-by(-sa)?(-[1-4]\.0)?"
)
FORBIDS_COMMERCE = re.compile(r"(^|[^a-z])nc($|[^a-z])|non-?commercial")
NOISE = {"the", "license", "licence", "licenses", "version", "later", "under"}
REMARK = re.compile(r"\(([^()]*)\)")
# A name, with the remark that a tool filled it in
BY_DEFAULT = re.compile(r"[^,;()]*\([^()]*\bdefault\b[^()]*\)")
WORDS = re.compile(r"[\s,;:]+")
PARTS = re.compile(r",|;|/|\+|&|\band\b|\bor\b")


@dataclass(frozen=True)
class Licence:
    """`names` are those in the text, as SPDX writes them where we know them; `restricted` those that are not open."""

    kind: str
    names: tuple[str, ...]
    restricted: tuple[str, ...] = ()

    def allowed(self, allow: Collection[str]) -> bool:
        """May data under it be given on, when the licences `allow` were said to be in order?"""
        if self.kind == OPEN or (self.kind == UNKNOWN and UNKNOWN in allow):
            return True
        allowed_names = {spdx(name) for name in allow}
        return bool(self.restricted) and set(self.restricted) <= allowed_names

    @property
    def flag(self) -> str:
        """What to add to the command line to let it in."""
        names = (UNKNOWN,) if self.kind == UNKNOWN else self.restricted
        return " ".join(f"--allow-licence {n}" for n in names)


def spdx(text: str) -> str:
    """One licence's name as SPDX writes it, in lower case: 'Apache License 2.0' is apache-2.0."""
    words = (
        re.sub(r"[\s_-]+", " ", text.lower())
        .replace("creative commons attribution", "cc by")
        .split()
    )
    return "-".join(w for w in words if w not in NOISE)


def classify(text: str | None) -> Licence:
    """The meaning of a dataset's licence text.

    Remarks in brackets say where a statement was found; they can make a licence stricter, never more open. A permissive
    name that a tool filled in by default says nothing of the data: without another name the licence is unknown.

    Examples: "MIT" is open. "CC BY-NC 4.0" is non-commercial, and so is "MIT (videos: non-commercial)". "Apache-2.0
    (converter's default)" is unknown, and so is a text with a name that is in no list.
    """
    text = text or ""
    # A text may join several licences: the strictest of them counts
    names = _names(PARTS.split(REMARK.sub(" ", text)))
    if not names:
        return Licence(UNKNOWN, (UNKNOWN,))
    restricted = tuple(name for name in names if not PERMISSIVE.fullmatch(name))
    # a name that we do not know may mean anything, unless it says itself that it is for non-commercial use
    if restricted and not _non_commercial(restricted):
        return Licence(UNKNOWN, names, restricted)
    remarks = " ".join(REMARK.findall(text))
    reasons = (*restricted, *_non_commercial(_names(WORDS.split(remarks))))
    if reasons:
        return Licence(NON_COMMERCIAL, names, tuple(dict.fromkeys(reasons)))
    if not _names(PARTS.split(REMARK.sub(" ", BY_DEFAULT.sub(" ", text)))):
        return Licence(UNKNOWN, (UNKNOWN,))
    return Licence(OPEN, names)


def _names(parts: Iterable[str]) -> tuple[str, ...]:
    """Names of licences as SPDX writes them, without repeats and empty ones."""
    return tuple(dict.fromkeys(name for name in map(spdx, parts) if name))


def _non_commercial(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in names if FORBIDS_COMMERCE.search(name))


def hub_licence(licence_texts: Sequence[str | None]) -> tuple[str, str | None]:
    """What the hub wants at the head of a card of such data: `license`, and the names where there are several."""
    licences = [classify(text) for text in licence_texts]
    names = sorted(set(chain.from_iterable(licence.names for licence in licences)))
    if len(names) > 1:
        return "other", ", ".join(names)
    return (UNKNOWN if licences[0].kind == UNKNOWN else names[0]), None


def licence_flags(licence_texts: Iterable[str | None]) -> str:
    """Options of a command that let in data under some licences; "" where all of them are open.

    Example: licence_flags([None, "MIT", "CC BY-NC 4.0"]) == "--allow-licence unknown --allow-licence cc-by-nc-4.0".
    """
    licences = (classify(text) for text in licence_texts)
    return " ".join(dict.fromkeys(licence.flag for licence in licences if licence.kind != OPEN))


def freeze_command(licence_texts: Iterable[str | None], used_names: Collection[str]) -> str:
    """The command that freezes a corpus of some licences under a name that no release has, such as v1."""
    name = next(name for number in count(1) if (name := f"v{number}") not in used_names)
    return " ".join(filter(None, (f"release create {name}", licence_flags(licence_texts))))


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


# Of the tables `shards` and `release_shards`
SHARD_COLUMNS = ", ".join(ShardFile.__dataclass_fields__)


def lake_shards(lake: Lake) -> list[ShardFile]:
    """Every shard that the lake has recorded, in order of name."""
    return [
        ShardFile(*row) for row in lake.rows(f"SELECT {SHARD_COLUMNS} FROM shards ORDER BY shard")
    ]


def held_episodes_sql(catalog: str = "lake") -> str:
    """(dataset, episode_index) with samples in some shards; its one parameter is the list of their names."""
    return (
        f"SELECT DISTINCT s.dataset, s.episode_index FROM {catalog}.samples s JOIN {catalog}.sample_location l "
        f"USING (dataset, chunk, sample_id) WHERE list_contains(?, l.shard)"
    )


def showing_sql(episodes: str) -> str:
    """Shards that hold samples of some episodes (a relation with dataset and episode_index), or show pictures of them,
    with which."""
    return f"""
SELECT l.shard, list_sort(list(DISTINCT t.episode_index)) FROM {episodes} t
JOIN samples s ON s.dataset = t.dataset AND (s.episode_index = t.episode_index OR
       list_contains(list_transform(s.pictures, lambda p: p.episode_index), t.episode_index))
JOIN sample_location l ON l.dataset = s.dataset AND l.chunk = s.chunk AND l.sample_id = s.sample_id GROUP BY 1"""


TAKEN_DOWN = showing_sql("current_takedowns")
FAULTY = showing_sql(
    f"(SELECT DISTINCT dataset, episode_index FROM {OPEN_WARNINGS} WHERE list_contains($1, reason))"
)
# One whose samples the lake has no more (a build broke off before it was made anew) may show anything
WITHOUT_SAMPLES = """
SELECT DISTINCT shard, [] FROM sample_location SEMI JOIN current_takedowns USING (dataset)
ANTI JOIN samples USING (dataset, chunk, sample_id)"""
# Shards with samples of labels that are less sure than $1, or of names than $2, and the episodes of these
UNSURE = """
SELECT l.shard, list_sort(list(DISTINCT s.episode_index)) FROM samples s
JOIN sample_location l USING (dataset, chunk, sample_id) JOIN episode_labels e USING (dataset, episode_index, label_run)
WHERE e.confidence < $1 OR (s.names_steps AND e.confidence < $2) GROUP BY 1"""


# Datasets with listed chunks that have no shards, or without any; how many chunks have, and how many there are
UNBUILT = """
SELECT b.dataset, count(s.chunk), count(f.chunk) FROM build_configs b
LEFT JOIN (SELECT DISTINCT dataset, chunk FROM episode_facts) f USING (dataset)
LEFT JOIN (SELECT dataset, chunk FROM stage_runs WHERE stage = 'shards') s USING (dataset, chunk)
GROUP BY 1 HAVING count(s.chunk) < greatest(count(f.chunk), 1) ORDER BY 1"""


@dataclass(frozen=True)
class LeftOut:
    """What a release does not hold of a dataset: `shards`, or the `episodes` that were cut out of some; else all."""

    dataset: str
    why: str
    remedy: str
    shards: tuple[str, ...] = ()
    samples: int = 0
    episodes: tuple[int, ...] = ()

    def __str__(self) -> str:
        title = f"{self.dataset}: {len(self.shards)} shards" if self.shards else self.dataset
        if self.episodes:
            title = f"{self.dataset}: {len(self.episodes)} runs"
        return f"{title} with {self.samples} samples: {self.why}; {self.remedy}"


@dataclass(frozen=True)
class Contents:
    """`stand_ins`: rows of shards that were cut for the release alone."""

    datasets: list[str]
    shards: tuple[ShardFile, ...]
    left_out: tuple[LeftOut, ...]
    stand_ins: StandIns = NO_STAND_INS

    @property
    def shard_names(self) -> list[str]:
        return [shard.shard for shard in self.shards]


def contents(
    lake: Lake,
    allow: Collection[str] | None = (),
    gate: LabelGate | None = None,
    without: Sequence[str] = (),
    *,
    without_unbuilt: bool = True,
) -> Contents:
    """Shards whose licence is open, or in `allow` (None: whatever it is), and
    that show nothing taken down, of datasets of which no blocking check fails.

    `gate`: no shard with samples of labels that do not pass it; None: labels are
    as sure as the samples were built to ask. `without`: no run in which one of
    these checks found a fault that nobody accepted; shards that show one are
    written again without it, beside those of the corpus. `without_unbuilt`: go on
    where datasets have no shards yet. Raises ReleaseError for none, and for such
    datasets, UserError for a check that is not there, ShardError for a shard that
    cannot be read.
    """
    # Licence and takedown are judged by dataset, and only then shard by shard
    shards_by_dataset = grouped((shard.dataset, shard) for shard in lake_shards(lake))
    if not shards_by_dataset:
        raise ReleaseError("the corpus has no shards yet: build it first")
    licences = dict(lake.rows("SELECT dataset, license FROM datasets"))
    # a dataset that was taken down as a whole is named also when its shards are gone
    wholly_down = {dataset for dataset, episodes in taken_down(lake).items() if episodes is None}
    showing = dict(lake.rows(WITHOUT_SAMPLES)) | dict(lake.rows(TAKEN_DOWN))
    if gate:
        unsure = dict(lake.rows(UNSURE, [gate.min_confidence, gate.min_name_confidence]))
    else:
        unsure = {}
    cuts = Cuts(lake, without)
    blocked = blocked_datasets(lake)
    unbuilt = [left_out for left_out in _unbuilt(lake) if left_out.dataset not in blocked]
    if unbuilt and not without_unbuilt:
        raise ReleaseError(". ".join(map(str, unbuilt)))

    # A dataset is left out as a whole, or only shards of it are
    held_shards: list[ShardFile] = []
    exclusions: list[LeftOut] = [
        left_out for left_out in unbuilt if left_out.dataset not in wholly_down
    ]
    for dataset in sorted(shards_by_dataset.keys() | wholly_down | blocked.keys()):
        shards = shards_by_dataset.get(dataset, [])
        if refusal := _refusal(licences.get(dataset), allow, dataset in wholly_down) or blocked.get(
            dataset
        ):
            exclusions.append(LeftOut(dataset, *refusal, samples=_samples(shards)))
            continue
        # shards that were made before some of their episodes were taken down still show them
        fresh, stale = _without(dataset, shards, showing, _taken_down)
        # one with a sample of an unsure label has to be built anew without it
        sure_shards, not_sure = _without(
            dataset, fresh, unsure, partial(_not_sure, gate=gate or LabelGate())
        )
        sound_shards, not_sound = cuts.without_faulty(dataset, sure_shards)
        exclusions += [*stale, *not_sure, *not_sound]
        held_shards += sound_shards

    if not held_shards:
        raise ReleaseError(f"nothing is left for a release. {'. '.join(map(str, exclusions))}")
    datasets = sorted({s.dataset for s in held_shards})
    # By name, as a release has them
    held_shards.sort(key=lambda shard_file: shard_file.shard)
    return Contents(datasets, tuple(held_shards), tuple(exclusions), cuts.stand_ins())


class Cuts:
    """Shards that show runs in which some checks found faults, each written again without these runs."""

    def __init__(self, lake: Lake, checks: Sequence[str]) -> None:
        self.workspace = lake.workspace
        self.checks = checks
        self.faulty = runs_with(lake, checks) if checks else {}
        self.showing = dict(lake.rows(FAULTY, [list(checks)])) if checks else {}
        self._replaced: list[str] = []
        self._rows: dict[str, list[pa.Table]] = {"shards": [], "sample_location": []}

    def without_faulty(
        self, dataset: str, shards: Sequence[ShardFile]
    ) -> tuple[list[ShardFile], list[LeftOut]]:
        """A dataset's shards without such runs, and what is said of these."""
        kept_shards: list[ShardFile] = []
        for shard in shards:
            kept_shards += self._cut(shard) if shard.shard in self.showing else [shard]
        num_lost = _samples(shards) - _samples(kept_shards)
        shown_episodes = (self.showing.get(shard.shard, ()) for shard in shards)
        episodes = sorted(set(chain.from_iterable(shown_episodes)))
        if not episodes:
            return kept_shards, []
        reason = (
            f"checks found {' or '.join(self.checks)} in them (episodes {listed_numbers(episodes)})"
        )
        remedy = "look at them (proccorpus show faults), or accept them"
        left_out = LeftOut(dataset, reason, remedy, samples=num_lost, episodes=tuple(episodes))
        return kept_shards, [left_out]

    def _cut(self, shard: ShardFile) -> Iterator[ShardFile]:
        episodes = {episode for name, episode in self.faulty if name == shard.dataset}
        cut_shard = imported("warehouse.shards.shard:cut_shard")
        tables = cut_shard(self.workspace, shard.path(self.workspace), episodes, shard.store)
        self._replaced.append(shard.shard)
        for name, rows in self._rows.items():
            rows.append(tables[name])
        yield from (ShardFile(**row) for row in tables["shards"].to_pylist())

    def stand_ins(self) -> StandIns:
        rows = {
            name: pa.concat_tables([TABLES[name].rows([]), *tables])
            for name, tables in self._rows.items()
        }
        return StandIns(tuple(self._replaced), rows)


def _unbuilt(lake: Lake) -> Iterator[LeftOut]:
    """Datasets of which chunks are not built."""
    for dataset, num_built, num_chunks in lake.rows(UNBUILT):
        reason = f"{num_chunks - num_built} of its {num_chunks} chunks are not built"
        remedy = (
            f"proccorpus build --dataset {dataset}, or release what is there: --without-unbuilt"
        )
        yield LeftOut(dataset, reason if num_built else "it is not built", remedy)


def _samples(shards: Sequence[ShardFile]) -> int:
    return sum(s.samples for s in shards)


def _refusal(
    licence_text: str | None, allow: Collection[str] | None, wholly_down: bool
) -> tuple[str, str] | None:
    """Why a release cannot hold a dataset at all, and the remedy; None where it can. `licence_text`: its licence."""
    # A takedown comes before the licence: no flag lets that data in
    if wholly_down:
        return "taken down", "proccorpus takedown --undo takes it back"
    licence = classify(licence_text)
    if allow is None or licence.allowed(allow):
        return None
    text = f" ({licence_text})" if licence_text else ", none is stated"
    if licence.kind == NON_COMMERCIAL:
        condition = "if your use is not commercial"
    else:
        condition = "if you know its terms"
    return f"its licence is {licence.kind}{text}", f"{condition}: {licence.flag}"


def _without(
    dataset: str,
    shards: Sequence[ShardFile],
    by_shard: Mapping[str, list[int]],
    reason_of: Callable[[Sequence[int]], tuple[str, str]],
) -> tuple[list[ShardFile], list[LeftOut]]:
    """The shards that are not in `by_shard` (episodes by shard), and what is said of those that are; reason_of: why
    they are left out, by their episodes, and the remedy."""
    other_shards = [s for s in shards if s.shard not in by_shard]
    affected_shards = [s for s in shards if s.shard in by_shard]
    if not affected_shards:
        return other_shards, []
    episodes = sorted(set(chain.from_iterable(by_shard[s.shard] for s in affected_shards)))
    reason, remedy = reason_of(episodes)
    return other_shards, [
        LeftOut(
            dataset,
            reason,
            remedy,
            tuple(s.shard for s in affected_shards),
            _samples(affected_shards),
        )
    ]


def _taken_down(episodes: Sequence[int]) -> tuple[str, str]:
    listed = f"they show episodes taken down ({', '.join(map(str, episodes))})"
    reason = listed if episodes else "they may show episodes taken down"
    return reason, "build the dataset again to make them anew"


def listed_numbers(episodes: Sequence[int]) -> str:
    """The numbers of the first episodes, with dots where there are more."""
    return ", ".join(map(str, episodes[:MOST_LISTED])) + (
        " ..." if len(episodes) > MOST_LISTED else ""
    )


def _not_sure(episodes: Sequence[int], gate: LabelGate) -> tuple[str, str]:
    listed = listed_numbers(episodes)
    reason = (
        f"they hold samples of {len(episodes)} labels that are not sure enough (episodes {listed})"
    )
    limit_by_flag = {
        "--min-confidence": gate.min_confidence,
        "--min-name-confidence": gate.min_name_confidence,
    }
    flags = " ".join(
        f"{flag} {min_value:g}" for flag, min_value in limit_by_flag.items() if min_value > 0
    )
    return reason, f"build the dataset again with {flags} to make them without"

"""Samples for export: which ones, out of which shards, and what each shows, one chunk and split at a time."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.values import IMAGE_MARK
from warehouse.exports.common import (
    Exported,
    ExportError,
    ExportFolder,
    Selected,
    join_folder,
    label_runs,
    open_folder,
    select,
)
from warehouse.exports.options import SampleOptions, Selection
from warehouse.lake import Lake, content_key, literal
from warehouse.releases import Release, get_release
from warehouse.releases.contents import ShardFile, lake_shards
from warehouse.releases.takedown import taken_down
from warehouse.shards import Entry, Sample, ShardError, expand, read_entry, read_index
from warehouse.shards.profiles import PROFILES, draw

PICTURE_NAME = re.compile(r"(?:e(?P<other>\d{6,})\.)?(?P<camera>.+)\.(?P<frame>\d{6,})(?:\.(?P<edit>[^.]+))?\.jpg")


@dataclass(frozen=True)
class SamplePart:
    """What is written together: the samples of one chunk in one split. `number` counts the parts of a split."""

    split: str
    number: int
    dataset: str
    chunk: int

    @property
    def name(self) -> str:
        return f"{self.split}/{self.dataset}-{self.chunk:05d}"


@dataclass(frozen=True)
class Samples:
    """The samples of a selection. Made by `open_samples`; `selected.episodes` are those that have some."""

    selected: Selected
    options: SampleOptions
    parts: tuple[SamplePart, ...]
    shards: Mapping[str, ShardFile]
    down: Mapping[str, Sequence[int]]

    def identity(self, kind: str, options: Any) -> str:
        """What the bytes of an export depend on; also what was taken down, since samples show other episodes."""
        down = [f"{dataset} {sorted(episodes)}" for dataset, episodes in sorted(self.down.items())]
        return content_key(self.selected.identity(kind, options), *sorted(self.shards), "down", *down)

    def read(self, part: SamplePart) -> Iterator[list[Sample]]:
        """The samples of a part, an episode at a time, each with one picture per mark. Raises ShardError."""
        rows = self.selected.lake.rows(
            'SELECT shard, "offset", list(sample_id) FROM export_samples WHERE NOT withheld '
            "AND dataset = ? AND chunk = ? AND split = ? GROUP BY ALL ORDER BY min(episode_index), 1, 2",
            [part.dataset, part.chunk, part.split],
        )
        for shard, offset, sample_ids in rows:
            yield self.of_entry(shard, offset, set(sample_ids))

    def of_entry(self, shard: str, offset: int, sample_ids: Collection[str]) -> list[Sample]:
        """Some samples of the entry at this byte of a shard's tar, which is what the lake records of a sample. Raises
        ShardError."""
        path = self.shards[shard].path(self.selected.lake.workspace)
        if shard not in self._entries:
            self._entries[shard] = {entry.offset: entry for entry in read_index(path).entries}
        entry = self._entries[shard].get(offset)
        if entry is None:
            raise ShardError(f"shard {shard} has no entry at byte {offset}, where the lake says there is one")
        return _entry_samples(path, entry, sample_ids)

    @cached_property
    def _entries(self) -> dict[str, dict[int, Entry]]:
        """By shard and byte, of the shards that were read."""
        return {}

    @cached_property
    def counts(self) -> list[dict[str, Any]]:
        """Samples by split, dataset, family and form."""
        return self.selected.lake.dicts(
            "SELECT split, dataset, family, coalesce(form, '') AS form, count(*) AS samples FROM export_samples "
            "WHERE NOT withheld GROUP BY ALL ORDER BY ALL"
        )

    def facts(self) -> dict[str, Any]:
        """What the manifest says of the samples."""
        lake = self.selected.lake
        runs = lake.rows("SELECT DISTINCT label_run FROM export_samples WHERE NOT withheld ORDER BY 1")
        return {
            "samples": self.num_samples,
            "counts": self.counts,
            "label_runs": label_runs(lake, [run for (run,) in runs]),
            "notes": self._notes(),
        }

    @property
    def num_samples(self) -> int:
        return sum(count["samples"] for count in self.counts)

    def _notes(self) -> list[str]:
        notes = self.selected.label_notes()
        [(down, unsure)] = self.selected.lake.rows(
            "SELECT count(*) FILTER (is_down), count(*) FILTER (is_unsure AND NOT is_down) FROM export_samples"
        )
        if down:
            notes.append(f"{down} samples that show pictures of episodes taken down were left out")
        if unsure:
            notes.append(f"{unsure} samples of labels that are not sure enough were left out")
        profile = self.options.profile
        if profile:
            asked = sum(PROFILES[profile].counts.values())
            if self.num_samples < asked:
                notes.append(f"the profile {profile} wants {asked} samples, and there are {self.num_samples}")
        return notes


def _entry_samples(path: Path, entry: Entry, sample_ids: Collection[str]) -> list[Sample]:
    """Some samples of one episode's entry in a shard. Raises ShardError where they are not there."""
    rows, pictures = read_entry(path, entry)
    samples = [expand(row, pictures) for row in rows if row["sample_id"] in sample_ids]
    if len(samples) != len(sample_ids):
        raise ShardError(f"shard {path.name} lacks samples at byte {entry.offset} that the lake says are there")
    for sample in samples:
        _check_marks(sample)
    return samples


@dataclass(frozen=True)
class ShownFrame:
    """What a picture in an entry shows: a frame of an episode, maybe edited."""

    dataset: str
    episode_index: int
    camera: str
    frame_index: int
    edit: str

    @property
    def path(self) -> str:
        edit = f".{self.edit}" if self.edit else ""
        return f"{self.dataset}/{self.episode_index:06d}/{self.camera}/{self.frame_index:06d}{edit}.jpg"


def shown_frame(row: Mapping, name: str) -> ShownFrame:
    """Of the picture `name` of a sample, as named in a shard. Raises ShardError."""
    match = PICTURE_NAME.fullmatch(name)
    if match is None:
        raise ShardError(f"sample {row['sample_id']} shows {name!r}, which is no picture's name")
    other = match["other"]
    episode = row["episode_index"] if other is None else int(other)
    return ShownFrame(row["dataset"], episode, match["camera"], int(match["frame"]), match["edit"] or "")


def open_samples(
    lake: Lake, selection: Selection, options: SampleOptions, families: Sequence[str] = (), forms: Sequence[str] = ()
) -> Samples:
    """Find the samples of a selection. Raises ExportError, ReleaseError, SqlError.

    Out of a release its shards; else those of the lake as it is. Left out is what shows anything taken down by today.
    `families` and `forms` hold where `options` name none; empty: all.
    """
    _check_options(selection, options)
    selected = select(lake, selection)
    then = selected.lake  # as the selection's snapshot has it
    families, forms = options.families or tuple(families), options.forms or tuple(forms)

    # The shards to read, and the samples in them
    release = get_release(lake, selection.release) if selection.release else None
    if release is None:
        shards, drawn = lake_shards(then), None
        _check_sharded(then, selected.datasets)
    else:
        shards, drawn = release.shard_list, _drawn_ids(lake, release, options)
    # A name that no sample has is a slip of the pen, and not an empty export
    _check_families(then, options.families)

    # What they may show: nothing that was taken down, also after the snapshot
    down = {dataset: sorted(episodes) for dataset, episodes in taken_down(lake).items() if episodes}
    _create_conditions(selected, [s.shard for s in shards], down, drawn)
    _create_export_samples(then, families, forms, drawn=drawn is not None)

    # What remains: the parts to write, and the episodes that have samples
    parts = _parts(then)
    if not parts:
        which = ", ".join((*families, *forms)) or "any kind"
        why = "".join(f"; {note}" for note in selected.label_notes())
        raise ExportError(
            f"nothing to export: the {len(selected.episodes)} episodes selected have no sample of {which}{why}"
        )
    with_samples = set(then.rows("SELECT DISTINCT dataset, episode_index FROM export_samples WHERE NOT withheld"))
    selected = replace(selected, episodes=tuple(e for e in selected.episodes if e.key in with_samples))
    return Samples(selected, options, parts, {s.shard: s for s in shards}, down)


def _drawn_ids(lake: Lake, release: Release, options: SampleOptions) -> pa.Table | None:
    """The samples of the profile, a column sample_id; None where there is no profile."""
    if options.profile is None:
        return None
    return draw(lake.workspace, release, options.profile, options.seed).samples.select(["sample_id"])


def _create_conditions(
    selected: Selected, shards: Sequence[str], down: Mapping[str, Sequence[int]], drawn: pa.Table | None
) -> None:
    """Temporary tables that `export_samples` joins: episodes, shards, what was taken down, a profile's samples."""
    con = selected.lake.con
    con.execute(
        "CREATE OR REPLACE TEMP TABLE export_episodes AS SELECT unnest(?) AS dataset, unnest(?) AS episode_index, "
        "unnest(?) AS label_is_unsure, unnest(?) AS sure_of_names",
        [
            [e.dataset for e in selected.episodes],
            [e.episode_index for e in selected.episodes],
            [e.is_unsure for e in selected.episodes],
            [e.sure_of_names for e in selected.episodes],
        ],
    )
    con.execute("CREATE OR REPLACE TEMP TABLE export_shards AS SELECT unnest(?) AS shard", [list(shards)])
    # A table even when nothing was taken down: the query that joins it is the same for all
    con.execute("CREATE OR REPLACE TEMP TABLE export_down (dataset VARCHAR, episodes BIGINT[])")
    for dataset, episodes in down.items():
        con.execute("INSERT INTO export_down VALUES (?, ?)", [dataset, episodes])
    if drawn is not None:
        con.register("drawn_ids", drawn)
        con.execute("CREATE OR REPLACE TEMP TABLE export_ids AS SELECT sample_id FROM drawn_ids")
        con.unregister("drawn_ids")


def _create_export_samples(lake: Lake, families: Sequence[str], forms: Sequence[str], *, drawn: bool) -> None:
    """The view `export_samples`: every sample that fits; `withheld` where it must not be given on.

    `is_down`: it shows an episode taken down. `is_unsure`: its label is not sure enough of what it asks.
    """
    # Samples of earlier versions do not say whether they name steps; what was frozen then stays as it was
    columns = {name for (name, *_) in lake.rows("DESCRIBE lake.samples")}
    names_steps = "coalesce(s.names_steps, false)" if "names_steps" in columns else "false"
    only_drawn = "SEMI JOIN export_ids i ON i.sample_id = s.sample_id" if drawn else ""
    in_families = f"s.family IN ({', '.join(map(literal, families))})" if families else "true"
    # samples of families that have no forms have the form NULL, and pass
    in_forms = f"coalesce(s.form, '') IN ('', {', '.join(map(literal, forms))})" if forms else "true"
    lake.con.execute(f"""
        CREATE OR REPLACE TEMP VIEW export_samples AS
        SELECT s.sample_id, s.dataset, s.chunk, s.split, s.episode_index, s.family, s.form, s.label_run, l.shard,
               l."offset", coalesce(list_has_any(list_transform(s.pictures, lambda p: p.episode_index), d.episodes),
                                    false) AS is_down,
               e.label_is_unsure OR ({names_steps} AND NOT e.sure_of_names) AS is_unsure,
               is_down OR is_unsure AS withheld
        FROM lake.samples s
        JOIN lake.sample_location l ON l.dataset = s.dataset AND l.chunk = s.chunk AND l.sample_id = s.sample_id
        LEFT JOIN export_down d ON d.dataset = s.dataset
        JOIN export_episodes e ON e.dataset = s.dataset AND e.episode_index = s.episode_index
        SEMI JOIN export_shards h ON h.shard = l.shard
        {only_drawn}
        WHERE ({in_families}) AND ({in_forms})""")


def _parts(lake: Lake) -> tuple[SamplePart, ...]:
    """A part for each chunk of each split that has samples, counted from 0 in every split."""
    rows = lake.rows(
        "SELECT DISTINCT split, dataset, chunk FROM export_samples WHERE NOT withheld ORDER BY split, dataset, chunk"
    )
    numbers = Counter[str]()
    parts = []
    for split, dataset, chunk in rows:
        parts.append(SamplePart(split, numbers[split], dataset, chunk))
        numbers[split] += 1
    return tuple(parts)


@dataclass(frozen=True)
class SampleKind:
    """A format that samples are exported to; its options have a field `samples`.

    `write_part` writes the files of a part and notes it as finished; `write_rest` what is there once. `families` and
    `forms` hold where the options name none, and `check` may refuse what is asked for.
    """

    name: str
    write_part: Callable[[ExportFolder, Samples, SamplePart, Any], None]
    write_rest: Callable[[ExportFolder, Samples], None]
    families: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    check: Callable[[SampleOptions], None] | None = None

    def export(self, lake: Lake, selection: Selection, out: Path, options: Any, overwrite: bool) -> Exported:
        """Write all that is not there yet, then the manifest."""
        samples = self._samples(lake, selection, options)
        folder = open_folder(out, self.name, samples.identity(self.name, options), overwrite)
        if folder.manifest:
            return folder.exported()
        for part in samples.parts:
            if folder.done(part.name) is None:
                self.write_part(folder, samples, part, options)
        self.write_rest(folder, samples)
        return folder.finish(samples.selected, options, samples.facts())

    def begin(
        self, lake: Lake, selection: Selection, out: Path, options: Any, overwrite: bool
    ) -> list[tuple[str, int]]:
        """Prepare the folder; returns the chunks (dataset, chunk) that `export_chunk` may write, in any order."""
        samples = self._samples(lake, selection, options)
        open_folder(out, self.name, samples.identity(self.name, options), overwrite)
        return sorted({(p.dataset, p.chunk) for p in samples.parts})

    def export_chunk(self, lake: Lake, selection: Selection, out: Path, options: Any, chunk: tuple[str, int]) -> int:
        """Write one chunk's parts, beside processes that write others; returns how many were missing."""
        samples = self._samples(lake, selection, options)
        folder = join_folder(out, self.name, samples.identity(self.name, options))
        if folder.manifest is not None:
            return 0
        parts = [part for part in samples.parts if (part.dataset, part.chunk) == chunk]
        missing = [part for part in parts if folder.done(part.name) is None]
        for part in missing:
            self.write_part(folder, samples, part, options)
        return len(missing)

    def _samples(self, lake: Lake, selection: Selection, options: Any) -> Samples:
        if self.check:
            self.check(options)
        return open_samples(lake, selection, options, self.families, self.forms)


def splits(samples: Samples) -> list[str]:
    return list(dict.fromkeys(p.split for p in samples.parts))


def first_index(samples: Samples, part: SamplePart) -> int:
    """How many samples the parts of this split before it have."""
    in_split = [other for other in samples.parts if other.split == part.split]
    before = {(other.dataset, other.chunk) for other in in_split if other.number < part.number}
    rows = samples.selected.lake.rows(
        "SELECT dataset, chunk, count(*) FROM export_samples WHERE NOT withheld AND split = ? GROUP BY ALL",
        [part.split],
    )
    return sum(count for dataset, chunk, count in rows if (dataset, chunk) in before)


def _check_options(selection: Selection, options: SampleOptions) -> None:
    if options.profile is not None:
        _check_profile(options.profile, selection, options)


def _check_profile(profile: str, selection: Selection, options: SampleOptions) -> None:
    if profile not in PROFILES:
        raise ExportError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    if selection.release is None:
        raise ExportError(f"the profile {profile} is drawn from a release: name it with --release")
    if options.families or options.forms:
        raise ExportError(f"the profile {profile} says which families and forms: leave --family and --form out")


def _check_families(lake: Lake, families: Sequence[str]) -> None:
    there = [family for (family,) in lake.rows("SELECT DISTINCT family FROM lake.samples ORDER BY 1")]
    for family in families:
        if family not in there:
            raise ExportError(f"there is no sample of a family {family!r}; families here: {', '.join(there) or 'none'}")


def _check_sharded(lake: Lake, datasets: Sequence[str]) -> None:
    """Raises ExportError where a build broke off between samples and shards."""
    rows = lake.rows(
        "SELECT s.dataset, count(*) FROM samples s ANTI JOIN sample_location l ON l.dataset = s.dataset "
        "AND l.chunk = s.chunk AND l.sample_id = s.sample_id WHERE list_contains(?, s.dataset) GROUP BY 1 ORDER BY 1",
        [list(datasets)],
    )
    if rows:
        raise ExportError(f"{rows[0][0]} has {rows[0][1]} samples that are in no shard yet: build it again")


def _check_marks(sample: Sample) -> None:
    row = sample.row
    if row["question"].count(IMAGE_MARK) != len(sample.pictures) or IMAGE_MARK in row["answer"]:
        raise ShardError(f"sample {row['sample_id']} has not one {IMAGE_MARK} in its question for each picture")

"""Samples for export: which ones, out of which shards, and what each shows, one chunk and split at a time."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import Any, ClassVar

import pyarrow as pa

from core.errors import UserError
from core.values import IMAGE_MARK
from warehouse.exports.export import ChunkKey, Columns, Export, Write, write_rows
from warehouse.exports.options import ExportSettings, Selection
from warehouse.exports.selection import Selected, counted, label_runs, outcome_assumed
from warehouse.lake import Lake, content_key
from warehouse.lake.connection import temp_table
from warehouse.lake.statements import taken_down
from warehouse.releases.contents import ShardFile, lake_shards
from warehouse.releases.release import get_release
from warehouse.shards.progresslm import PROFILES, draw
from warehouse.shards.shard import Sample, ShardError, named_picture, samples_at

# Every sample that fits, of the episodes in the table `export_episodes`, in the shards $shards; `withheld` where it
# must not be given on. `is_down`: it shows an episode taken down ($down, lists by dataset). `is_unsure`: its label is
# not sure enough of what it asks. $drawn: only these samples. Those of families that have no forms pass
SAMPLES_SQL = """
CREATE OR REPLACE TEMP TABLE export_samples AS
SELECT s.sample_id, s.dataset, s.chunk, s.split, s.episode_index, s.family, s.form, s.label_run, l.shard, l."offset",
       coalesce(list_has_any(list_transform(s.pictures, lambda p: p.episode_index), d.episodes), false) AS is_down,
       e.unsure OR ({names_steps} AND NOT e.sure_of) AS is_unsure,
       is_down OR is_unsure AS withheld
FROM lake.samples s
JOIN lake.sample_location l ON l.dataset = s.dataset AND l.chunk = s.chunk AND l.sample_id = s.sample_id
LEFT JOIN (SELECT unnest($down_datasets::VARCHAR[]) AS dataset, unnest($down::BIGINT[][]) AS episodes) d
  ON d.dataset = s.dataset
JOIN export_episodes e ON e.dataset = s.dataset AND e.episode_index = s.episode_index
WHERE l.shard IN (SELECT unnest($shards::VARCHAR[]))
  AND ($drawn::VARCHAR[] IS NULL OR s.sample_id IN (SELECT unnest($drawn::VARCHAR[])))
  AND ($label_run::VARCHAR IS NULL OR s.label_run = $label_run)
  AND (len($cameras::VARCHAR[]) = 0 OR list_has_all($cameras, [p.camera FOR p IN s.pictures]))
  AND (len($families::VARCHAR[]) = 0 OR list_contains($families, s.family))
  AND (len($forms::VARCHAR[]) = 0 OR coalesce(s.form, '') = '' OR list_contains($forms, s.form))"""


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


class SampleExport(Export):
    """An export of samples: out of a release its shards, else those of the lake as it is. Left out is what shows
    anything taken down by today. A kind is a table of columns over samples; it is written as Parquet with pictures.

    `families` and `forms` hold where the options name none; empty: all. `place`: of the splits' folders.
    """

    families: ClassVar[tuple[str, ...]] = ()
    forms: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[Columns] = {}
    place: ClassVar[str] = ""
    only_pairs: ClassVar[bool] = False
    parts: tuple[SamplePart, ...]  # in order of their splits
    shards: Mapping[str, ShardFile]
    down: Mapping[str, Sequence[int]]

    def select(self, lake: Lake, selection: Selection) -> Selected:
        """The episodes that have samples; sets the fields of this class."""
        # A kind may choose samples by itself
        self.which = ExportSettings() if self.only_pairs else self.options
        _check_profile(self.which, selection)
        selected = super().select(lake, selection)
        snapshot_lake = selected.lake  # as the selection's snapshot has it
        families = self.which.families or self.families
        forms = self.which.forms or self.forms
        shards, drawn = self._shards_and_drawn(lake, snapshot_lake, selection, selected.datasets)
        # A name that no sample has is a slip of the pen, and not an empty export
        known_names = snapshot_lake.column("SELECT DISTINCT family FROM lake.samples ORDER BY 1")
        for missing_family in sorted(set(self.which.families) - set(known_names)):
            raise UserError(
                f"there is no sample of a family {missing_family!r}; families here: {', '.join(known_names) or 'none'}"
            )

        # What they may show: nothing that was taken down, also after the snapshot
        self.down = {
            dataset: sorted(episodes) for dataset, episodes in taken_down(lake).items() if episodes
        }
        self.shards = {s.shard: s for s in shards}
        self._create_table(selected, families, forms, drawn)
        rows = snapshot_lake.rows(
            "SELECT split, row_number() OVER (PARTITION BY split ORDER BY dataset, chunk) - 1, dataset, chunk FROM "
            "(SELECT DISTINCT split, dataset, chunk FROM export_samples WHERE NOT withheld) ORDER BY 1, 2"
        )
        self.parts = tuple(SamplePart(*row) for row in rows)
        if not self.parts:
            kinds = ", ".join((*families, *forms)) or "any kind"
            notes = "".join(f"; {note}" for note in selected.label_notes())
            raise UserError(
                f"nothing to export: the {len(selected.episodes)} episodes selected have no sample of {kinds}{notes}"
            )
        with_samples = set(
            snapshot_lake.rows(
                "SELECT DISTINCT dataset, episode_index FROM export_samples WHERE NOT withheld"
            )
        )
        return replace(
            selected, episodes=tuple(e for e in selected.episodes if e.key in with_samples)
        )

    def _shards_and_drawn(
        self, lake: Lake, snapshot_lake: Lake, selection: Selection, datasets: Sequence[str]
    ) -> tuple[Sequence[ShardFile], pa.Table | None]:
        """The shards to read, and the samples of the profile, if there is one."""
        if selection.release:
            release = get_release(lake, selection.release)
            if not self.which.profile:
                return release.shard_list, None
            drawn = draw(lake.workspace, release, self.which.profile, self.which.seed)
            return release.shard_list, drawn.samples
        behind = snapshot_lake.rows(
            "SELECT s.dataset, count(*) FROM samples s ANTI JOIN sample_location l ON l.dataset = s.dataset AND "
            "l.chunk = s.chunk AND l.sample_id = s.sample_id WHERE list_contains(?, s.dataset) GROUP BY 1 ORDER BY 1",
            [list(datasets)],
        )
        if behind:  # a build broke off between samples and shards
            raise UserError(
                f"{behind[0][0]} has {behind[0][1]} samples that are in no shard yet: build it again"
            )
        return lake_shards(snapshot_lake), None

    def _create_table(
        self,
        selected: Selected,
        families: Sequence[str],
        forms: Sequence[str],
        drawn: pa.Table | None,
    ) -> None:
        """The table `export_samples`, as SAMPLES_SQL says."""
        episodes = ((*e.key, e.is_unsure, e.sure_of_names) for e in selected.episodes)
        columns = map(list, zip(*episodes, strict=True))
        names = ["dataset", "episode_index", "unsure", "sure_of"]
        temp_table(selected.lake.con, "export_episodes", pa.table([*columns], names=names))
        # Samples of earlier versions do not say whether they name steps; what was frozen then stays as it was
        sample_columns = selected.lake.column("SELECT column_name FROM (DESCRIBE lake.samples)")
        says_it = "names_steps" in sample_columns
        names_steps = "coalesce(s.names_steps, false)" if says_it else "false"
        values = {
            "shards": [*self.shards],
            "drawn": None if drawn is None else drawn["sample_id"].to_pylist(),
            "down_datasets": [*self.down],
            "down": [*self.down.values()],
            "label_run": selected.selection.label_run,
            "cameras": [*selected.selection.cameras],
            "families": [*families],
            "forms": [*forms],
        }
        selected.lake.rows(SAMPLES_SQL.format(names_steps=names_steps), values)

    @property
    def identity(self) -> str:
        """Also what was taken down, since samples show other episodes."""
        down = [f"{dataset} {sorted(episodes)}" for dataset, episodes in sorted(self.down.items())]
        return content_key(super().identity, *sorted(self.shards), "down", *down)

    @property
    def splits(self) -> list[str]:
        return list(dict.fromkeys(part.split for part in self.parts))

    def chunk_parts(self) -> Iterator[tuple[ChunkKey, str, Write, Any]]:
        for part in self.parts:
            yield (part.dataset, part.chunk), part.name, self.write_part, part

    def write_part(self, part: SamplePart) -> None:
        # A file's name must not sound like a split: `datasets` would take it for one
        stem = f"{self.place}{part.split}/part-{part.number:05d}"
        size = self.options.file_bytes
        write_rows(self.folder, stem, self.columns, self.read(part), file_bytes=size)

    def write_rest(self) -> Mapping[str, Any]:
        return self.sample_facts

    def read(self, part: SamplePart) -> Iterator[list[Sample]]:
        """The samples of a part, an episode at a time, each with one picture per mark. Rows have `index`, by which they
        are counted through their split, and `outcome_assumed` of their label. Raises ShardError."""
        numbers = count(
            *self.lake.column(
                "SELECT count(*) FROM export_samples WHERE NOT withheld AND split = ? AND (dataset, chunk) < (?, ?)",
                [part.split, part.dataset, part.chunk],
            )
        )
        assumed = {e.key: outcome_assumed(e) for e in self.selected.episodes}
        rows = self.lake.rows(
            'SELECT min(episode_index), shard, "offset", list(sample_id) FROM export_samples WHERE NOT withheld '
            'AND dataset = ? AND chunk = ? AND split = ? GROUP BY shard, "offset" ORDER BY 1, 2, 3',
            [part.dataset, part.chunk, part.split],
        )
        for episode, shard, offset, sample_ids in rows:
            of_label = {"outcome_assumed": assumed.get((part.dataset, episode))}
            yield [
                replace(s, row={**s.row, **of_label, "index": next(numbers)})
                for s in self.of_entry(shard, offset, set(sample_ids))
            ]

    def of_entry(self, shard: str, offset: int, sample_ids: Collection[str]) -> list[Sample]:
        """Some samples of the entry at this byte of a shard's tar, as the lake records it. Raises ShardError."""
        path = self.shards[shard].path(self.lake.workspace)
        samples = samples_at(path, offset, sample_ids)
        for sample in samples:
            if [sample.row[text].count(IMAGE_MARK) for text in ("question", "answer")] != [
                len(sample.pictures),
                0,
            ]:
                problem = f"has not one {IMAGE_MARK} in its question for each picture"
                raise ShardError(f"sample {sample.row['sample_id']} {problem}")
        return samples

    @cached_property
    def sample_facts(self) -> dict[str, Any]:
        """What the manifest says of the samples: `counts` by split, dataset, family and form."""
        counts = self.lake.dicts(
            "SELECT split, dataset, family, coalesce(form, '') AS form, count(*) AS samples FROM export_samples "
            "WHERE NOT withheld GROUP BY ALL ORDER BY ALL"
        )
        runs = self.lake.column(
            "SELECT DISTINCT label_run FROM export_samples WHERE NOT withheld ORDER BY 1"
        )
        number = sum(count["samples"] for count in counts)
        notes = self.notes()
        [(down, unsure)] = self.lake.rows(
            "SELECT count(*) FILTER (is_down), count(*) FILTER (is_unsure AND NOT is_down) FROM export_samples"
        )
        notes += counted(down, "samples that show pictures of episodes taken down were left out")
        notes += counted(unsure, "samples of labels that are not sure enough were left out")
        profile = self.which.profile
        if profile and number < (num_requested := sum(PROFILES[profile].counts.values())):
            notes.append(
                f"the profile {profile} wants {num_requested} samples, and there are {number}"
            )
        return {
            "samples": number,
            "counts": counts,
            "label_runs": label_runs(self.lake, runs),
            "notes": notes,
        }


def shown_pictures(sample: Sample) -> list[dict[str, Any]]:
    """A sample's pictures, as hub.PICTURE."""
    named_pictures = zip(sample.row["pictures"], sample.pictures, strict=True)
    return [{"bytes": data, "path": shown_path(sample.row, name)} for name, data in named_pictures]


def shown_path(row: Mapping, name: str) -> str:
    """The path of a picture in an export, by what it shows: a frame of an episode, maybe edited. `name`: of a picture
    of a sample in a shard. Raises ShardError."""
    picture = named_picture(row["episode_index"], name)
    if picture is None:
        raise ShardError(f"sample {row['sample_id']} shows {name!r}, which is no picture's name")
    edit = f".{picture['edit']}" if picture["edit"] else ""
    folder = f"{row['dataset']}/{picture['episode_index']:06d}/{picture['camera']}"
    return f"{folder}/{picture['frame_index']:06d}{edit}.jpg"


def _check_profile(options: Any, selection: Selection) -> None:
    profile = options.profile
    if profile is None:
        return
    if profile not in PROFILES:
        raise UserError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    if selection.release is None:
        raise UserError(f"the profile {profile} is drawn from a release: name it with --release")
    if options.families or options.forms:
        raise UserError(
            f"the profile {profile} says which families and forms: leave --family and --form out"
        )

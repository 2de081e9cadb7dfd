"""Is a workspace whole? The catalog against the files, shards and pictures against their hashes, what is left over.

`examine` only looks. What it finds says what, where and what to do; `doctor_repair` does what is safe of it.
"""

import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from core.errors import first_line
from core.files import HALF_FILE, files_below, sha256_file
from core.paths import Workspace
from core.tables import STAGE_TABLES, STAGED_TABLES, TABLES
from ingest.episode import Finding
from warehouse.lake.catalog import is_older
from warehouse.lake.checks import schema_faults
from warehouse.lake.connection import CATALOG
from warehouse.lake.gc import GRACE_S, unlisted_keyframes, unlisted_shards
from warehouse.lake.lake import Lake
from warehouse.lake.outdated import count_outdated
from warehouse.lake.place import LakeError, place
from warehouse.lake.publication import WHOLE_DATASET, output_hash
from warehouse.lake.recordings import review_counts
from warehouse.releases.release import card_path, get_release, verify_release
from warehouse.shards.check import check_shard
from warehouse.shards.shard import index_path

ERROR = "error"
WARNING = "warning"
# Free: nothing can be built; a build may not come to its end
LEAST_BYTES, FEW_BYTES = (64 << 20, 1 << 30)
# The stages that write a table
STAGES_OF = {"datasets": ["episodes"], "source_parts": ["episodes"]}
for _stage, _tables in STAGE_TABLES.items():
    for _table in _tables:
        STAGES_OF.setdefault(_table, []).append(_stage)
# Each stage has rows there: all are run again
OF_ALL_STAGES = ("stage_runs", "findings", "label_runs", "signals")
PARQUET, JPEG = (b"PAR1", b"PAR1"), (b"\xff\xd8", b"\xff\xd9")  # how files begin, and end
MEND = "proccorpus doctor --repair, then build again"
RESTORE = "restore catalog and data from one backup"
OF_CHUNK = "dataset = ? AND chunk = ?"
STORED = "SELECT DISTINCT '{0}' AS name, COLUMNS('^(dataset|chunk|label_run)$') FROM {0}"
UNKNOWN_ROWS = f"""
WITH stored AS MATERIALIZED ({" UNION ALL BY NAME ".join(map(STORED.format, STAGED_TABLES))})
SELECT name, dataset, chunk, 'rows of the label run ' || label_run || ', which is not recorded' FROM stored
WHERE label_run <> '' AND label_run NOT IN (SELECT label_run FROM label_runs WHERE label_run IS NOT NULL)
UNION SELECT name, dataset, chunk, 'rows that no finished stage has published' FROM stored
ANTI JOIN stage_runs USING (dataset, chunk) ORDER BY ALL"""


@dataclass(frozen=True)
class Partition:
    """What a stage publishes at once, as in stage_runs; `label_run` None: of every run."""

    stage: str
    dataset: str
    chunk: int = WHOLE_DATASET
    label_run: str | None = None


EVERYTHING = Partition("", "")


class Mend(NamedTuple):
    """What a repair goes by: `paths` are damaged or unlisted files, `data_files` numbers of lost files in DuckLake's
    catalog (-1: no build makes its rows again), and `parts` what has to be built again.
    """

    paths: tuple[Path, ...] = ()
    data_files: tuple[int, ...] = ()
    parts: tuple[Partition, ...] = ()


NOTHING = Mend()


def trouble(
    severity: str, what: str, where: object, detail: str, remedy: str, mend: Mend = NOTHING
) -> Finding:
    """A finding about a workspace: `what` and `where` it is."""
    return Finding(what, detail, severity, file=str(where), remedy=remedy, mend=mend)


def _to_build(title: str, detail: str, *parts: Partition, paths: tuple[Path, ...] = ()) -> Finding:
    """Trouble with partitions of one chunk, which a build makes again."""
    where = f"{parts[0].dataset} chunk {parts[0].chunk}"
    return trouble(ERROR, title, where, detail, MEND, Mend(paths, parts=parts))


def rows_are_lost(troubles: Iterable[Finding]) -> bool:
    """Can tables not be read, since files of theirs are lost?"""
    return any(t.mend.data_files for t in troubles)


def examine(lake: Lake, *, hashes: bool = False) -> list[Finding]:
    """All that is wrong with a workspace, errors first; with `hashes` every byte of it is read."""
    listed = data_files(lake)
    stored_sizes = _sizes(lake)
    lake_troubles = list(lake_files(lake, listed, stored_sizes, read=hashes))
    # Rows whose files are lost cannot be read, so nothing is compared with them
    compared: list[Finding] = []
    if not rows_are_lost(lake_troubles):
        try:
            checks = (
                shards,
                keyframes,
                releases,
                labels,
                outdated_labels,
                recordings,
                *((broken_tables, rows) if hashes else ()),
            )
            compared = list(chain.from_iterable(check(lake, hashes) for check in checks))
            compared += orphans(lake, listed, stored_sizes)
        except LakeError:
            # Not seen by size and ends: all of each file is read to tell which it is
            lake_troubles = list(lake_files(lake, listed, stored_sizes, read=True))
            if not rows_are_lost(lake_troubles):
                raise
    troubles = [
        *lake_troubles,
        *compared,
        *rollback(lake),
        *leftovers(lake.workspace),
        *disk_space(lake.workspace),
    ]
    return sorted(troubles, key=lambda t: (t.severity != ERROR, t.reason, t.file))


# The lake


@dataclass(frozen=True)
class DataFile:
    id: int
    table: str
    path: str
    bytes: int
    begin: int
    end: int | None  # snapshots [begin, end) list it
    dataset: str | None
    chunk: int | None


def data_files(lake: Lake) -> list[DataFile]:
    """Every file of rows that some snapshot lists, by DuckLake's own catalog."""
    # Paths in the catalog are relative to their table, that to its schema, and that to the data's folder
    full = "CASE WHEN {0}.path_is_relative THEN {1} || {0}.path ELSE {0}.path END"
    base = full.format("t", full.format("s", "?"))
    # Partitioned tables are so by dataset and, most of them, by chunk
    part = (
        f"(SELECT partition_value FROM {CATALOG}.ducklake_file_partition_value v "
        "WHERE v.data_file_id = f.data_file_id AND v.partition_key_index = {0})"
    )
    sql = (
        f"SELECT f.data_file_id, t.table_name, {full.format('f', base)}, f.file_size_bytes, f.begin_snapshot, "
        f"f.end_snapshot, {part.format(0)}, {part.format(1)}::INTEGER FROM {CATALOG}.ducklake_data_file f "
        f"JOIN {CATALOG}.ducklake_table t ON t.table_id = f.table_id "
        f"JOIN {CATALOG}.ducklake_schema s ON s.schema_id = t.schema_id"
    )
    return list(dict.fromkeys(DataFile(*r) for r in lake.rows(sql, [lake.place.data])))


def lake_files(
    lake: Lake, listed: Sequence[DataFile], stored_sizes: Mapping[str, int], *, read: bool
) -> Iterator[Finding]:
    """Files of rows that are listed and are missing, or damaged; `stored_sizes`: bytes of each file
    by its path.

    A local file is seen to be damaged by its size and by how it begins and ends, or where all of it
    is `read`.
    """
    details = {
        f: detail for f in listed if (detail := _damage_of(f, stored_sizes.get(f.path), read))
    }
    is_known = details and "releases" not in {f.table for f in details}
    frozen = lake.rows("SELECT name, snapshot FROM releases ORDER BY 1") if is_known else []
    for f, detail in details.items():
        # Files that the present tables list are the corpus; those of older snapshots matter only to releases
        yield (
            _lost_file(lake.workspace, f, detail)
            if f.end is None
            else _lost_old_file(f, detail, frozen)
        )


def _lost_old_file(f: DataFile, detail: str, frozen: Sequence[tuple[str, int]]) -> Finding:
    """Trouble with a file that only older snapshots list, maybe those of releases."""
    names = ", ".join(name for name, snapshot in frozen if f.begin <= snapshot < (f.end or 0))
    title = f"lake file of {f.table}"
    detail = f"{detail}; only older snapshots list it"
    if not names:
        return trouble(WARNING, title, f.path, detail, "proccorpus gc --keep-days 0")
    return trouble(
        ERROR,
        title,
        f.path,
        f"{detail}, of them release {names}",
        f"{RESTORE}, or delete the release",
    )


def _damage_of(f: DataFile, size: int | None, read: bool) -> str:
    """How a file of rows is damaged; empty: it is not, as far as was looked."""
    if size is None:
        return "is listed and missing"
    if size != f.bytes:
        return f"has {size} bytes instead of {f.bytes}"
    if "://" in f.path:
        return ""
    if not _has_ends(f.path, *PARQUET):
        return "does not begin and end as a file of rows does"
    if not read:
        return ""
    try:
        deque(pq.ParquetFile(f.path).iter_batches(), maxlen=0)
    except (pa.ArrowException, OSError) as e:
        return f"cannot be read: {first_line(e)}"
    return ""


def _has_ends(path: str | Path, first: bytes, last: bytes) -> bool:
    with open(path, "rb", buffering=0) as f:
        return (
            f.read(len(first)) == first and f.seek(-len(last), os.SEEK_END) > 0 and f.read() == last
        )


def _lost_file(workspace: Workspace, f: DataFile, detail: str) -> Finding:
    """Trouble with a file of the present corpus."""
    parts = tuple[Partition, ...]()
    if f.table in OF_ALL_STAGES:
        parts = (EVERYTHING,)
    elif f.table not in STAGES_OF or f.dataset is None:
        # What was spent, what was frozen, what was measured of models: no build makes it again
        return trouble(
            ERROR, f"lake file of {f.table}", f.path, detail, RESTORE, Mend(data_files=(-1,))
        )
    else:
        # The episodes stage works on a dataset as a whole, though its tables have chunks
        chunk = WHOLE_DATASET if f.chunk is None else f.chunk
        parts = tuple(
            Partition(s, f.dataset, WHOLE_DATASET if s == "episodes" else chunk)
            for s in STAGES_OF[f.table]
        )
    return trouble(
        ERROR,
        f"lake file of {f.table}",
        f.path,
        detail,
        MEND,
        Mend(_existing([Path(f.path)]), (f.id,), parts),
    )


def _sizes(lake: Lake) -> dict[str, int]:
    """Bytes of each file of the lake's data by its path; a bucket is listed once."""
    if lake.place.is_bucket:
        folder = UPath(lake.place.data)
        objects: Any = folder.fs.find(folder.path, detail=True)
        return {f"s3://{name}": facts["size"] for name, facts in objects.items()}
    return {
        file.path: file.stat().st_size
        for file in files_below(lake.place.data)
        if file.name.endswith(".parquet")
    }


def rollback(lake: Lake) -> Iterator[Finding]:
    """An older copy of the catalog beside newer files."""
    if reason := is_older(lake.workspace, lake.snapshot()):
        remedy = "a build makes anew what this one does not list, and moves what it does not know to .removed/"
        yield trouble(
            WARNING,
            "older catalog",
            lake.place.catalog,
            reason,
            remedy,
        )


def orphans(
    lake: Lake, listed: Sequence[DataFile], stored_paths: Iterable[str]
) -> Iterator[Finding]:
    """Files that nothing lists: a crash left them, or a build is about to record them."""
    scheduled = lake.column(f"SELECT path FROM {CATALOG}.ducklake_files_scheduled_for_deletion")
    names = {path.rpartition("/")[2] for path in scheduled}
    paths = {f.path for f in listed}
    unlisted_by_kind = {
        "lake data": [
            p for p in stored_paths if p not in paths and p.rpartition("/")[2] not in names
        ],
        "keyframes": list(unlisted_keyframes(lake, 0)),
        "shards": list(unlisted_shards(lake, 0)),
    }
    for kind, unlisted in filter(itemgetter(1), unlisted_by_kind.items()):
        detail = f"{len(unlisted)} files that nothing lists: a crash left them, or a build is about to record them"
        repair_note = (
            f"the next build moves them to .removed/ once they are {GRACE_S / 60:.0f} minutes old"
        )
        remedy = f"nothing, {repair_note}; or proccorpus doctor --repair"
        yield trouble(WARNING, f"orphaned {kind}", str(unlisted[0]), detail, remedy)


# Files beside the lake


def shards(lake: Lake, hashes: bool) -> Iterator[Finding]:
    """Shards that the corpus or a release lists: there, of the right size, with their index; by all their bytes."""
    # A shard of the corpus can be built again; one that only a release lists is of rows that may be gone
    in_corpus = set(lake.column("SELECT shard FROM shards"))
    columns = "split, shard, dataset, chunk, bytes, sha256, store"
    sql = f"SELECT {columns} FROM shards UNION SELECT {columns} FROM release_shards ORDER BY 2"
    for split, shard, dataset, chunk, size, sha256, store in lake.rows(sql):
        path = lake.workspace.shard(split, shard, store)
        wrong = check_shard(path, sha256, size, read=hashes)
        if not wrong:
            continue
        remedy = f"only a release lists it: {RESTORE}, or delete the release"
        mend = NOTHING
        if shard in in_corpus:
            parts = (Partition("shards", dataset, chunk),)
            remedy = MEND
            mend = Mend(_existing((path, index_path(path))), parts=parts)
        yield trouble(ERROR, "shard", path, "; ".join(wrong), remedy, mend)


def _existing(paths: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(path for path in paths if path.exists())


def keyframes(lake: Lake, hashes: bool) -> Iterator[Finding]:
    """Pictures that the corpus lists: there, not empty; by their bytes, or by how they begin and end."""
    # A damaged picture is mended by the stage that wrote it: the annotator's `segments`, or `frames`
    sql = (
        "SELECT if(label_run <> '', 'segments', 'frames') AS stage, dataset, chunk, nullif(label_run, '') AS run, "
        "list_sort(list(DISTINCT sha256)) FROM keyframes GROUP BY ALL ORDER BY ALL"
    )
    rows = lake.rows(sql)
    every_listed = {*chain.from_iterable(listed for *_, listed in rows)}
    # Of others a build writes some now, and a sweep takes some away
    present = {
        name: Path(file)
        for file in files_below(lake.workspace.root / "keyframes")
        if (name := file.name.removesuffix(".jpg")) in every_listed
    }
    whole = {name for name, path in present.items() if _is_whole(path, name, hashes)}
    for *partition, listed in rows:
        if hurt := [name for name in listed if name not in whole]:
            paths = tuple(present[name] for name in hurt if name in present)
            absent = len(hurt) - len(paths)
            first = lake.workspace.keyframe(hurt[0])
            detail = f"{absent} pictures that are listed are missing, {len(paths)} damaged, such as {first}"
            yield _to_build("keyframes", detail, Partition(*partition), paths=paths)


def _is_whole(path: Path, sha256: str, hashes: bool) -> bool:
    return sha256_file(path) == sha256 if hashes else _has_ends(path, *JPEG)


def releases(lake: Lake, hashes: bool) -> Iterator[Finding]:
    """Their snapshots and cards; with `hashes`, all of what `release verify` reads."""
    snapshots = set(lake.column("SELECT snapshot_id FROM ducklake_snapshots('lake')"))
    for name, snapshot in lake.rows("SELECT name, snapshot FROM releases ORDER BY 1"):
        wrong = [] if card_path(lake.workspace, name).exists() else ["its card is missing"]
        if snapshot not in snapshots:
            wrong = [f"its snapshot {snapshot} is gone"]
        elif hashes:
            wrong = [f"{f.file}: {f.detail}" for f in verify_release(lake, get_release(lake, name))]
        if wrong:
            yield trouble(
                ERROR,
                "release",
                name,
                "; ".join(wrong),
                f"{RESTORE}, or delete it and create another",
            )


def leftovers(workspace: Workspace) -> Iterator[Finding]:
    """Half-written files, downloads and exports that were not finished."""
    half = sorted(Path(f) for f in files_below(workspace.root) if f.name.startswith(HALF_FILE))
    if half:
        detail = f"{len(half)} files that were never finished: a crash left them, or a build writes them now"
        minutes = f"{GRACE_S / 60:.0f} minutes; nothing takes them for whole"
        remedy = f"proccorpus doctor --repair deletes those of more than {minutes}"
        yield trouble(WARNING, "half-written files", half[0], detail, remedy, Mend(tuple(half)))
    # What follows is no harm: the same command goes on where it was interrupted
    if partial_files := sorted(workspace.sources.glob("*/.fetch/*.partial")):
        detail = f"{len(partial_files)} files of remote datasets were not fetched to their end"
        remedy = "build again: it goes on where it stopped"
        yield trouble(WARNING, "unfinished downloads", str(partial_files[0]), detail, remedy)
    for partial_manifest in sorted((workspace.root / "exports").glob("*/manifest.partial*")):
        if not (partial_manifest.parent / "manifest.json").exists():
            yield trouble(
                WARNING,
                "unfinished export",
                str(partial_manifest.parent),
                "it has no manifest",
                "run the same export again",
            )


def disk_space(workspace: Workspace) -> Iterator[Finding]:
    """Disks of the workspace that are nearly full; the data's disk is not ours to watch where it is a bucket."""
    lake_place = place(workspace)
    if lake_place.is_bucket:
        folders = [workspace.root]
    else:
        folders = [Path(lake_place.data), workspace.root]
    for folder in {f.stat().st_dev: f for f in folders if f.exists()}.values():
        free = shutil.disk_usage(folder).free
        if free < FEW_BYTES:
            severity = ERROR if free < LEAST_BYTES else WARNING
            remedy = "make room: proccorpus gc deletes files that nothing uses any more"
            yield trouble(severity, "disk space", str(folder), f"{free >> 20} MiB are free", remedy)


# Rows


def labels(lake: Lake, _: bool) -> Iterator[Finding]:
    """Rows whose label run is not recorded, and partitions of rows that no stage has published."""
    for name, dataset, chunk, wrong in lake.rows(UNKNOWN_ROWS):
        parts = (Partition(stage, dataset, chunk) for stage in STAGES_OF[name])
        yield _to_build(f"rows of {name}", wrong, *parts)


def outdated_labels(lake: Lake, _: bool) -> Iterator[Finding]:
    """Labels of contents that an episode does not have any more, for which a release would be refused."""
    count = count_outdated(lake)
    if count:
        detail = f"{count} labels are of contents that their episodes do not have any more"
        yield trouble(
            ERROR,
            "labels of former contents",
            "lake",
            detail,
            "proccorpus doctor --repair takes them out",
        )


def recordings(lake: Lake, _: bool) -> Iterator[Finding]:
    """What people said of recordings that an episode only resembles."""
    for dataset, count in review_counts(lake).items():
        detail = f"words of people wait ({count}): it is not sure which episodes are the recordings that they are of"
        yield trouble(
            WARNING,
            "words in review",
            dataset,
            detail,
            f"proccorpus show words_in_review {dataset}",
        )


def broken_tables(lake: Lake, _: bool) -> Iterator[Finding]:
    """Rows against core/tables."""
    for (dataset, name), text in schema_faults(lake)[2].items():
        made_by = (
            "SELECT stage, dataset, chunk FROM stage_runs "
            "WHERE dataset = ? AND list_contains(?, stage)"
        )
        runs = lake.rows(made_by, [dataset, STAGES_OF[name]])
        parts = tuple(Partition(*run) for run in runs)
        yield trouble(ERROR, "rows", dataset, text, MEND, Mend(parts=parts))


def rows(lake: Lake, _: bool) -> Iterator[Finding]:
    """Rows of stages that are theirs alone, against the hash that was recorded when they were published."""
    schema_at = dict(
        lake.rows(f"SELECT snapshot_id, schema_version FROM {CATALOG}.ducklake_snapshot")
    )
    vlm_runs = set(lake.column("SELECT label_run FROM label_runs WHERE annotator = 'vlm'"))
    present_schema = schema_at[lake.snapshot()]
    sql = (
        "SELECT stage, dataset, chunk, label_run, output_hash, snapshot FROM stage_runs WHERE chunk <> ? "
        "AND stage IN ('frames', 'segments', 'reasoning', 'samples', 'shards') ORDER BY ALL"
    )
    for stage, dataset, chunk, run, recorded, snapshot in lake.rows(sql, [WHOLE_DATASET]):
        # A hash is over all columns: it says nothing under another schema
        if schema_at.get(snapshot) != present_schema:
            continue
        tables = {name: _partition(lake, name, dataset, chunk, run) for name in STAGE_TABLES[stage]}
        if stage == "segments":
            # Only a VLM asks for pictures of its own; and of its labels some follow others
            unpublished = {
                "keyframes": run not in vlm_runs,
                "alignments": not len(tables["alignments"]),
            }
            tables = {
                name: table_rows for name, table_rows in tables.items() if not unpublished.get(name)
            }
        # Some stages look for findings, others do not, and hash none then
        findings = f"FROM findings WHERE {OF_CHUNK} AND stage = ?"
        with_findings = tables | {"findings": lake.arrow(findings, [dataset, chunk, stage])}
        if recorded not in (output_hash(with_findings), output_hash(tables)):
            detail = f"the rows of {stage} are not those that were published (their hash differs)"
            yield _to_build("rows", detail, Partition(stage, dataset, chunk, run or None))


def _partition(lake: Lake, name: str, dataset: str, chunk: int, run: str) -> pa.Table:
    if "label_run" in TABLES[name].key:
        return lake.arrow(
            f"FROM {name} WHERE {OF_CHUNK} AND coalesce(label_run, '') = ?", [dataset, chunk, run]
        )
    return lake.arrow(f"FROM {name} WHERE {OF_CHUNK}", [dataset, chunk])

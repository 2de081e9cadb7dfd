"""Is a workspace whole? The catalog against the files, shards and pictures against their hashes, what is left over.

`examine` only looks. What it finds says what, where and what to do; `doctor_repair` does what is safe of it.
"""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from core.files import HALF_FILE, sha256_file
from core.paths import Workspace
from core.tables import STAGE_TABLES, STAGED_TABLES, TABLES
from warehouse.lake.connection import CATALOG, newest_committed
from warehouse.lake.gc import GRACE_S, unlisted_keyframes, unlisted_shards
from warehouse.lake.hashes import output_hash
from warehouse.lake.lake import Lake
from warehouse.lake.migrations import SCHEMA_VERSION, schema_version
from warehouse.lake.place import place
from warehouse.lake.publishing import WHOLE_DATASET
from warehouse.lake.soundness import corpus_soundness
from warehouse.releases import card_path, find_release
from warehouse.releases.verify import verify_release
from warehouse.shards import ShardError, check_shard, index_path, read_index

ERROR, WARNING = "error", "warning"
MISSING = "missing"
LEAST_BYTES, FEW_BYTES = 64 << 20, 1 << 30  # free: nothing can be built; a build may not come to its end
STAGE_OF = {t: stage for stage in reversed(STAGE_TABLES) for t in STAGE_TABLES[stage]} | {"datasets": "episodes"}
MEND = "proccorpus doctor --repair, then build again"
RESTORE = "restore catalog and data from one backup"


@dataclass(frozen=True)
class Partition:
    """What a stage publishes at once, as in stage_runs; `label_run` None: of every run."""

    stage: str
    dataset: str
    chunk: int = WHOLE_DATASET
    label_run: str | None = None


@dataclass(frozen=True)
class Trouble:
    """`paths` are damaged or unlisted files, `data_files` ids of lost files in DuckLake's catalog, and `parts` what has
    to be built again: what a repair goes by.
    """

    severity: str
    what: str
    where: str
    detail: str
    remedy: str
    paths: tuple[Path, ...] = ()
    data_files: tuple[int, ...] = ()
    parts: tuple[Partition, ...] = ()

    def __str__(self) -> str:
        return f"{self.where}: {self.detail}; {self.remedy}"

    def facts(self) -> dict[str, str]:
        return {k: getattr(self, k) for k in ("severity", "what", "where", "detail", "remedy")}


def examine(lake: Lake, *, hashes: bool = False) -> list[Trouble]:
    """All that is wrong with a workspace, errors first; with `hashes` every byte of it is read."""
    # A catalog without tables: what made the workspace was stopped, and nothing else is there to look at
    if not lake.rows("SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake'"):
        return [unfinished(lake.workspace)]
    listed, there = data_files(lake), _sizes(lake)
    lost = list(lake_files(lake, listed, there))
    troubles = [
        *lost,
        *versions(lake),
        *rollback(lake),
        *orphans(lake, listed, there),
        *leftovers(lake.workspace),
        *disk_space(lake.workspace),
    ]
    # Rows whose files are lost cannot be read, so nothing is compared with them
    if not any(t.data_files for t in lost):
        troubles += [*shards(lake, hashes), *keyframes(lake, hashes), *releases(lake, hashes), *labels(lake)]
        if hashes:
            troubles += rows(lake)
    return sorted(troubles, key=lambda t: (t.severity != ERROR, t.what, t.where))


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
    return list(dict.fromkeys(DataFile(*r) for r in lake.rows(sql, [place(lake.workspace).data])))


def lake_files(lake: Lake, listed: Sequence[DataFile], there: Mapping[str, int]) -> Iterator[Trouble]:
    """Files of rows that are listed and are missing, or of another size; `there`: bytes of each file by its path."""
    releases = lake.column("SELECT snapshot FROM releases")
    for f in listed:
        size = there.get(f.path)
        if size == f.bytes:
            continue
        detail = _difference(f, size)
        # Files that the present tables list are the corpus; those of older snapshots matter only to releases
        if f.end is None:
            yield _lost_file(f, detail, is_missing=size is None)
        else:
            in_file = [snapshot for snapshot in releases if f.begin <= snapshot < f.end]
            yield _lost_old_file(lake, f, detail, in_file)


def _difference(f: DataFile, size: int | None) -> str:
    if size is None:
        return "is listed and missing"
    return f"has {size} bytes instead of {f.bytes}"


def _lost_file(f: DataFile, detail: str, *, is_missing: bool) -> Trouble:
    """Trouble with a file of the present corpus."""
    kind, stage = f"lake file of {f.table}", STAGE_OF.get(f.table)
    if stage is None or f.dataset is None:
        # What people said, what was spent, what was frozen: no build makes it again
        return Trouble(ERROR, kind, f.path, detail, RESTORE, data_files=(-1,))
    # The episodes stage works on a dataset as a whole, though its tables have chunks
    chunk = WHOLE_DATASET if stage == "episodes" or f.chunk is None else f.chunk
    part = Partition(stage, f.dataset, chunk)
    paths = () if is_missing else (Path(f.path),)
    return Trouble(ERROR, kind, f.path, detail, MEND, paths, (f.id,), (part,))


def _lost_old_file(lake: Lake, f: DataFile, detail: str, releases: list[int]) -> Trouble:
    """Trouble with a file that only older snapshots list, those of some `releases` among them."""
    kind, detail = f"lake file of {f.table}", f"{detail}; only older snapshots list it"
    if not releases:
        return Trouble(WARNING, kind, f.path, detail, "proccorpus gc --keep-days 0")
    detail = f"{detail}, of them release {_named(lake, releases)}"
    return Trouble(ERROR, kind, f.path, detail, f"{RESTORE}, or delete the release")


def _named(lake: Lake, snapshots: list[int]) -> str:
    return ", ".join(lake.column("SELECT name FROM releases WHERE list_contains(?, snapshot) ORDER BY 1", [snapshots]))


def _sizes(lake: Lake) -> dict[str, int]:
    """Bytes of each file of the lake's data by its path; a bucket is listed once."""
    at = place(lake.workspace)
    if at.is_bucket:
        from upath import UPath  # imports fsspec

        folder = UPath(at.data)
        objects: Any = folder.fs.find(folder.path, detail=True)
        return {f"s3://{name}": facts["size"] for name, facts in objects.items()}
    return {str(p): p.stat().st_size for p in Path(at.data).rglob("*.parquet")}


def versions(lake: Lake) -> Iterator[Trouble]:
    """A lake of an earlier schema; one of a later schema is not opened at all."""
    version = schema_version(lake.con)
    if version < SCHEMA_VERSION:
        detail = f"its schema is of version {version}, this proccorpus has {SCHEMA_VERSION}"
        remedy = "nothing: the next build migrates it; back it up before, because it cannot go back"
        yield Trouble(WARNING, "schema version", place(lake.workspace).catalog, detail, remedy)


def rollback(lake: Lake, newest: int | None = None) -> Iterator[Trouble]:
    """An older copy of the catalog beside newer files; `newest`: the note of commits as it was before the lake opened.

    The next commit writes that note anew.
    """
    newest, now = newest or newest_committed(lake.workspace), lake.snapshot()
    if newest is not None and newest > now:
        yield Trouble(
            WARNING,
            "older catalog",
            place(lake.workspace).catalog,
            f"it is at snapshot {now}, but {newest} was committed here: an older copy replaced it",
            "put the newer one back before anything is built; or build again, and what this one does not list is "
            "made anew",
        )


def orphans(lake: Lake, listed: Sequence[DataFile], there: Iterable[str]) -> Iterator[Trouble]:
    """Files that nothing lists: a crash left them, or a build is about to record them."""
    listed_paths = {f.path for f in listed}
    scheduled = set(map(_name, lake.column(f"SELECT path FROM {CATALOG}.ducklake_files_scheduled_for_deletion")))
    unlisted = [path for path in there if path not in listed_paths and _name(path) not in scheduled]
    yield from _orphaned("lake data", unlisted)
    yield from _orphaned("keyframes", unlisted_keyframes(lake, 0))
    yield from _orphaned("shards", unlisted_shards(lake, 0))


def _orphaned(what: str, paths: Iterable[str | Path]) -> Iterator[Trouble]:
    paths = list(paths)
    if paths:
        yield Trouble(
            WARNING,
            f"orphaned {what}",
            str(paths[0]),
            f"{len(paths)} files that nothing lists: a crash left them, or a build is about to record them",
            "nothing, the next build deletes them once they are "
            f"{GRACE_S / 60:.0f} minutes old; or proccorpus doctor --repair",
        )


def _name(path: str) -> str:
    return path.rpartition("/")[2]


# Files beside the lake


def shards(lake: Lake, hashes: bool) -> Iterator[Trouble]:
    """Shards that the corpus or a release lists: there, of the right size, with their index; by all their bytes."""
    # A shard of the corpus can be built again; one that only a release lists is of rows that may be gone
    in_corpus = set(lake.column("SELECT shard FROM shards"))
    columns = "split, shard, dataset, chunk, bytes, sha256, store"
    sql = f"SELECT {columns} FROM shards UNION SELECT {columns} FROM release_shards ORDER BY 2"
    for split, shard, dataset, chunk, size, sha256, store in lake.rows(sql):
        path = lake.workspace.shard(split, shard, store)
        wrong = check_shard(path, sha256, size) if hashes else _glance(path, size)
        if not wrong:
            continue
        where, detail = str(path), "; ".join(wrong)
        if shard in in_corpus:
            files, part = (path, index_path(path)), Partition("shards", dataset, chunk)
            yield Trouble(ERROR, "shard", where, detail, MEND, _existing(files), parts=(part,))
        else:
            remedy = f"only a release lists it: {RESTORE}, or delete the release"
            yield Trouble(ERROR, "shard", where, detail, remedy)


def _existing(paths: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(path for path in paths if path.exists())


def _glance(path: Path, size: int) -> list[str]:
    """What is wrong with a shard as far as its size and its index show."""
    if not path.exists():
        return ["is not there"]
    real_size = path.stat().st_size
    if real_size != size:
        return [f"has {real_size} bytes instead of {size}: cut off, or not the same file"]
    try:
        read_index(path)
    except ShardError as e:
        return [str(e)]
    return []


def keyframes(lake: Lake, hashes: bool) -> Iterator[Trouble]:
    """Pictures that the corpus lists: there, not empty; by their bytes."""
    damage = cache(partial(_damage, lake.workspace, hashes))  # several chunks may list one picture
    missing: Counter[Partition] = Counter()
    damaged: dict[Partition, list[Path]] = {}
    sql = "SELECT DISTINCT dataset, chunk, label_run, sha256 FROM keyframes ORDER BY ALL"
    for dataset, chunk, run, sha256 in lake.rows(sql):
        kind = damage(sha256)
        if not kind:
            continue
        # A damaged picture is mended by the stage that wrote it: the annotator's `segments`, or `frames`
        part = Partition("segments", dataset, chunk, run) if run else Partition("frames", dataset, chunk)
        missing[part] += kind == MISSING
        damaged.setdefault(part, []).append(lake.workspace.keyframe(sha256))
    for part, paths in damaged.items():
        yield Trouble(
            ERROR,
            "keyframes",
            f"{part.dataset} chunk {part.chunk}",
            f"{missing[part]} pictures that are listed are missing, {len(paths) - missing[part]} damaged, such as "
            f"{paths[0]}",
            MEND,
            _existing(paths),
            parts=(part,),
        )


def _damage(workspace: Workspace, hashes: bool, sha256: str) -> str:
    """How a picture is damaged; empty where it is whole."""
    path = workspace.keyframe(sha256)
    if not path.is_file():
        return MISSING
    is_whole = sha256_file(path) == sha256 if hashes else path.stat().st_size > 0
    return "" if is_whole else "damaged"


def releases(lake: Lake, hashes: bool) -> Iterator[Trouble]:
    """Their snapshots and cards; with `hashes`, all of what `release verify` reads."""
    snapshots = set(lake.column("SELECT snapshot_id FROM ducklake_snapshots('lake')"))
    for name, snapshot in lake.rows("SELECT name, snapshot FROM releases ORDER BY 1"):
        is_gone = snapshot not in snapshots
        wrong = [f"its snapshot {snapshot} is gone"] if is_gone else _wrong_release(lake, name, hashes)
        if wrong:
            remedy = f"{RESTORE}, or delete the release and create another"
            yield Trouble(ERROR, "release", name, "; ".join(wrong), remedy)


def _wrong_release(lake: Lake, name: str, hashes: bool) -> list[str]:
    if hashes and (release := find_release(lake, name)):
        return [f"{f.what}: {f.wrong}" for f in verify_release(lake, release)]
    return [] if card_path(lake.workspace, name).exists() else ["its card is missing"]


def leftovers(workspace: Workspace) -> Iterator[Trouble]:
    """Half-written files, downloads and exports that were not finished."""
    half = sorted(p for p in workspace.root.rglob(f"{HALF_FILE}*") if p.is_file())
    if half:
        yield Trouble(
            WARNING,
            "half-written files",
            str(half[0]),
            f"{len(half)} files that were never finished: a crash left them, or a build writes them now",
            "proccorpus doctor --repair deletes those of more than "
            f"{GRACE_S / 60:.0f} minutes; nothing takes them for whole",
            paths=tuple(half),
        )
    # What follows is no harm: the same command goes on where it was interrupted
    partial_files = sorted(workspace.sources.glob("*/.fetch/*.partial"))
    if partial_files:
        yield Trouble(
            WARNING,
            "unfinished downloads",
            str(partial_files[0]),
            f"{len(partial_files)} files of remote datasets were not fetched to their end",
            "build again: it goes on where it stopped",
        )
    for begun in sorted((workspace.root / "exports").glob("*/manifest.partial*")):
        folder = begun.parent
        if not (folder / "manifest.json").exists():
            yield Trouble(WARNING, "unfinished export", str(folder), "it has no manifest", "run the same export again")


def disk_space(workspace: Workspace) -> Iterator[Trouble]:
    """Disks of the workspace that are nearly full."""
    for folder in _folders_by_disk(workspace).values():
        free = shutil.disk_usage(folder).free
        if free >= FEW_BYTES:
            continue
        severity = ERROR if free < LEAST_BYTES else WARNING
        remedy = "make room: proccorpus gc deletes files that nothing uses any more"
        yield Trouble(severity, "disk space", str(folder), f"{free >> 20} MiB are free", remedy)


def _folders_by_disk(workspace: Workspace) -> dict[int, Path]:
    """A folder on each disk of the workspace; the data's disk is not ours to watch where it is a bucket."""
    at = place(workspace)
    folders = [workspace.root] if at.is_bucket else [workspace.root, Path(at.data)]
    return {folder.stat().st_dev: folder for folder in reversed(folders) if folder.exists()}


# Rows


def labels(lake: Lake) -> Iterator[Trouble]:
    """Rows whose label run is not recorded, and partitions of rows that no stage has published."""
    recorded = {*lake.column("SELECT label_run FROM label_runs"), "", None}
    published = set(lake.rows("SELECT DISTINCT dataset, chunk FROM stage_runs"))
    for name in STAGED_TABLES:
        for dataset, chunk, label_run in _label_runs(lake, name):
            part = Partition(STAGE_OF[name], dataset, chunk)
            if label_run not in recorded:
                yield _rows_to_build(name, part, f"rows of the label run {label_run}, which is not recorded")
            if (dataset, chunk) not in published:
                yield _rows_to_build(name, part, "rows that no finished stage has published")


def _label_runs(lake: Lake, table: str) -> list[tuple]:
    """Dataset, chunk and label run of a table's rows; "" of rows that belong to no label run."""
    has_runs = "label_run" in TABLES[table].schema.names
    run_column = "label_run" if has_runs else "''"
    return lake.rows(f"SELECT DISTINCT dataset, chunk, {run_column} FROM {table} ORDER BY ALL")


def _rows_to_build(table: str, part: Partition, detail: str) -> Trouble:
    where = f"{part.dataset} chunk {part.chunk}"
    return Trouble(ERROR, f"rows of {table}", where, detail, MEND, parts=(part,))


def rows(lake: Lake) -> list[Trouble]:
    """Rows against core/tables, and against the hash that was recorded when they were published."""
    sound = corpus_soundness(lake)
    unsound = [] if sound.passed else [Trouble(ERROR, "rows", "lake", sound.detail, "build what is named again")]
    return [*unsound, *_other_rows(lake)]


def _other_rows(lake: Lake) -> Iterator[Trouble]:
    """Partitions whose rows are not those that were published, of stages whose rows are theirs alone.

    Only where the schema is still the one they were published under: a hash is over all columns.
    """
    schema_at = dict(lake.rows(f"SELECT snapshot_id, schema_version FROM {CATALOG}.ducklake_snapshot"))
    vlm_runs = set(lake.column("SELECT label_run FROM label_runs WHERE annotator = 'vlm'"))
    present_schema = schema_at[lake.snapshot()]
    sql = (
        "SELECT stage, dataset, chunk, label_run, output_hash, snapshot FROM stage_runs WHERE chunk <> ? "
        "AND stage IN ('frames', 'segments', 'reasoning', 'samples', 'shards') ORDER BY ALL"
    )
    for stage, dataset, chunk, run, recorded, snapshot in lake.rows(sql, [WHOLE_DATASET]):
        if schema_at.get(snapshot) != present_schema:
            continue
        tables = {}
        for name in STAGE_TABLES[stage]:
            # Of the annotators only a VLM asks for pictures of its own
            if (stage, name) != ("segments", "keyframes") or run in vlm_runs:
                tables[name] = _partition(lake, name, dataset, chunk, run)
        # Some stages look for findings, others do not, and hash none then
        with_findings = tables | {"findings": _findings(lake, stage, dataset, chunk)}
        if recorded not in (output_hash(with_findings), output_hash(tables)):
            part = Partition(stage, dataset, chunk, run or None)
            detail = f"the rows of {stage} are not those that were published (their hash differs)"
            yield Trouble(ERROR, "rows", f"{dataset} chunk {chunk}", detail, MEND, parts=(part,))


def _partition(lake: Lake, name: str, dataset: str, chunk: int, run: str) -> pa.Table:
    where = "dataset = ? AND chunk = ?"
    if "label_run" in TABLES[name].key:
        return lake.arrow(f"SELECT * FROM {name} WHERE {where} AND coalesce(label_run, '') = ?", [dataset, chunk, run])
    return lake.arrow(f"SELECT * FROM {name} WHERE {where}", [dataset, chunk])


def _findings(lake: Lake, stage: str, dataset: str, chunk: int) -> pa.Table:
    sql = "SELECT * FROM findings WHERE dataset = ? AND chunk = ? AND stage = ?"
    return lake.arrow(sql, [dataset, chunk, stage])


def unfinished(workspace: Workspace) -> Trouble:
    """A workspace whose lake is not made yet."""
    detail = "there are no tables yet: the creation of the workspace was stopped"
    return Trouble(WARNING, "empty lake", place(workspace).catalog, detail, "build again")


def unreadable(workspace: Workspace, e: Exception) -> Trouble:
    """A workspace whose lake cannot be opened."""
    at, detail = place(workspace), " ".join(str(e).split())
    if "does not exist" in detail and not at.is_postgres:  # a catalog without DuckLake's own tables
        return unfinished(workspace)
    if at.is_postgres:
        remedy = "start the server, or mend the address in workspace.toml"
    elif isinstance(e, duckdb.Error):
        remedy = RESTORE
    else:
        remedy = "do what it says"
    return Trouble(ERROR, "catalog", at.catalog, detail, remedy)

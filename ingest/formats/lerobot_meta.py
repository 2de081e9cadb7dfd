"""What the metadata of a LeRobot dataset says: info.json, cameras, episodes, task texts, and where files should be.

Nothing in it is trusted to be there or to be of the right type: what cannot be used is left out,
with a finding.
"""

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any

import pyarrow as pa

from ingest.formats.folders import object_of
from ingest.formats.listing import ListingBuilder
from ingest.formats.side_files import parse_json_lines, read_json, read_text
from ingest.formats.tables import batches, opened, rate_of, whole
from ingest.reasons import DataError
from ingest.sources.files import Source, once

STANDARD_V2 = {
    "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
}
STANDARD_V3 = {
    "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
EPISODE_FILE = re.compile(r"^data/.*episode_(\d+)\.parquet$")
DATA_FILE = re.compile(r"^data/chunk-\d+/file-\d+\.parquet$")
META_EPISODES = re.compile(r"^meta/episodes/chunk-\d+/file-\d+\.parquet$")
# Where a table was written from a frame whose index holds its texts
PANDAS_INDEX = "__index_level_0__"
INFO = "meta/info.json"
LANCE_TABLE = re.compile(r"((?:[^/]+/)?[^/]+\.lance)/")  # of lerobot-lancedb, which are folders
DEFAULT_CHUNK = 1000
MAX_EPISODE = 2**31  # so that chunks are numbers that the lake can hold
META_BATCH = 1 << 10  # rows of metadata read at a time
# Of a path template: {episode_index:06d}
FIELD = re.compile(r"\{([A-Za-z_]\w*)(?::0?[0-9]{0,2}d?)?\}")
MAX_FIELDS = 8
LEADS_NOWHERE = " of info.json leads nowhere for {} files; found them otherwise"

Rows = list[dict[str, Any]]


@dataclass(kw_only=True)
class LerobotListing(ListingBuilder):
    """A dataset's listing, with what is known of the dataset."""

    info: dict[str, Any]
    version: str
    pointers: set[str] = field(default_factory=set)  # data files that are git-LFS pointers
    # Of data files, each with the first that has it
    schemas: list[tuple[pa.Schema, str]] = field(default_factory=list)
    task_columns: set[str] = field(default_factory=set)  # of the file with the texts of tasks

    @property
    def rate(self) -> float:
        """Frames per second."""
        return float(self.source.config.fps or self.info["fps"])

    @cached_property
    def video_rates(self) -> dict[str, float]:
        """By camera, see `video_rate`."""
        return {name: video_rate(self.info, name, self.rate) for name in self.info["features"]}

    def note_schema(self, schema: pa.Schema, uri: str) -> None:
        """The columns of a data file, kept once of files that have the same."""
        if not any(schema.equals(noted_schema) for noted_schema, _ in self.schemas):
            self.schemas.append((schema, uri))

    def wants(self, episode: int) -> bool:
        """Are its rows to be read? Of a remote source, where they have to be fetched, only when it is asked for."""
        source = self.source
        return source.selected is None or not source.config.is_remote or episode in source.selected


def columns_of(dataset: LerobotListing) -> set[str]:
    """Columns of the rows: those that info.json declares, and those of any data file that was opened."""
    if not dataset.schemas:
        return set()
    stored = chain.from_iterable(schema.names for schema, _ in dataset.schemas)
    return {*dataset.info["features"], *stored}


@once
def read_info(source: Source) -> dict[str, Any]:
    """meta/info.json, read once of a source. Raises DataError, of reason no_metadata unless it is a git-LFS pointer."""
    if INFO not in source.files:
        raise DataError(f"there is no {INFO}", "no_metadata")
    try:
        info = read_json(source, INFO)
    except DataError as e:
        raise DataError(str(e), e.reason if e.reason == "lfs_pointer" else "no_metadata") from e
    if not isinstance(info, dict) or not isinstance(info.get("features"), dict):
        raise DataError(f"{INFO} has no features", "no_metadata")
    # The registry's rate overrules the stated one, which may then be absent
    if not source.config.fps and rate_of(info.get("fps")) is None:
        raise DataError(f"{INFO} has no fps", "no_metadata")
    if tables := sorted({m[1] for m in filter(None, map(LANCE_TABLE.match, source.files))}):
        stored = info.get("storage_format", "none stated")
        detail = (
            f"rows and pictures lie in Lance tables ({', '.join(tables)}; storage_format: {stored})"
        )
        raise DataError(detail, "other_layout")
    return info


def version_of(source: Source, info: dict[str, Any]) -> str:
    """v2.0, v2.1 or v3.0 by the files that are there; what info.json declares only tells v2.0 from v2.1."""
    uris = source.files

    def has(pattern: re.Pattern[str]) -> bool:
        return any(map(pattern.match, uris))

    if has(META_EPISODES) or (
        not has(EPISODE_FILE) and ("meta/tasks.parquet" in uris or has(DATA_FILE))
    ):
        return "v3.0"
    if "meta/episodes_stats.jsonl" in uris:
        return "v2.1"
    declared = str(info.get("codebase_version", ""))
    if declared in ("v2.0", "v2.1"):
        return declared
    return "v2.0"


# Cameras


def feature_details(feature: Any) -> dict[str, Any]:
    """Camera details of a feature: `video_info` in datasets converted from v1, `info` in recorded ones."""
    feature_object = object_of(feature)
    return object_of(feature_object.get("video_info")) | object_of(feature_object.get("info"))


def video_rate(info: dict[str, Any], camera: str, fps: float) -> float:
    """Frames per second that a camera's files play at, as info.json has it: times in a file count
    by this.

    Neither the registry's rate nor the rows' need be the same.
    """
    rates = (feature_details(info["features"].get(camera)).get("video.fps"), info.get("fps"), fps)
    return next(filter(None, map(rate_of, rates)), fps)


# Episodes and tasks


def episode_metadata(dataset: LerobotListing) -> dict[int, dict[str, Any]]:
    """Episode rows of the metadata by episode_index; statistics columns left out."""
    uris = ["meta/episodes.jsonl"]
    if dataset.version == "v3.0":
        below = [uri for uri in dataset.source.files if uri.startswith("meta/episodes/")]
        uris = list(filter(META_EPISODES.match, below))
        for uri in sorted({*below}.difference(uris)):
            detail = "not part of the v3.0 layout (meta/episodes/chunk-*/file-*.parquet)"
            dataset.warn("stray_file", detail, file=uri)
    rows = chain.from_iterable(metadata_rows(dataset, uri) for uri in uris)
    by_episode = {whole(row.get("episode_index")): row for row in rows}
    return {e: row for e, row in by_episode.items() if e is not None and 0 <= e < MAX_EPISODE}


def task_texts(dataset: LerobotListing) -> dict[int, str]:
    """Texts by task_index."""
    rows = metadata_rows(
        dataset, "meta/tasks.parquet" if dataset.version == "v3.0" else "meta/tasks.jsonl"
    )
    dataset.task_columns.update(*rows)
    return texts_by_index(rows, "task")


def texts_by_index(rows: Rows, name: str) -> dict[int, str]:
    """Of rows with a text each, which pandas' index may hold, and its number."""
    texts: dict[int, str] = {}
    for row in rows:
        index = whole(row.get(f"{name}_index"))
        stored = row.get(name, row.get(PANDAS_INDEX))
        if index is not None and isinstance(stored, str) and stored.strip():
            texts[index] = stored.strip()
    return texts


def metadata_rows(dataset: LerobotListing, uri: str) -> Rows:
    """Objects of a file of JSON lines, or rows of a table without statistics, which are most of it; with findings about
    what cannot be read."""
    limits = dataset.source.config.limits
    rows = list[dict[str, Any]]()
    size = 0
    if uri not in dataset.source.files:
        return rows
    try:
        if uri.endswith(".jsonl"):
            # Bad characters are replaced and bad lines left out: one of them must not cost all the others
            values, errors = parse_json_lines(
                read_text(dataset.source, uri, errors="replace"), strict=False
            )
            for number, error in errors:
                dataset.warn("unreadable_data", f"line {number} is not JSON ({error})", file=uri)
            return [row for _, row in values if isinstance(row, dict)]
        with opened(dataset.source.resolve(uri)) as file:
            limits.check("max_rows", file.metadata.num_rows, f"{uri}: rows")
            columns = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
            for batch in batches(file, columns, META_BATCH):
                size += batch.nbytes
                limits.check("max_bytes", size, f"{uri}: bytes of metadata")
                rows += batch.to_pylist()
        return rows
    except DataError as e:
        dataset.warn(e.reason, str(e), file=uri)
        return []


# Where files are


def v2_numbers(dataset: LerobotListing, episode: int) -> dict[str, int]:
    """What path templates of v2 are filled in with."""
    size = whole(dataset.info.get("chunks_size")) or DEFAULT_CHUNK
    return {
        "episode_index": episode,
        "episode_chunk": episode // size,
        "chunk_index": episode // size,
    }


def v3_pointer(meta: Mapping[str, Any], part: str) -> dict[str, int]:
    """What path templates of v3 are filled in with, as an episode's metadata says of its rows or a video; else {}."""
    chunk = whole(meta.get(f"{part}/chunk_index"))
    file = whole(meta.get(f"{part}/file_index"))
    if chunk is None or file is None:
        return {}
    return {"chunk_index": chunk, "file_index": file}


def locate(dataset: LerobotListing, key: str, numbers: Mapping[str, int | str]) -> str | None:
    """The file that a path template names: as info.json has it, in the standard place, or anywhere
    by its name.

    Of several files of one name (and camera) none is taken.
    """
    files = dataset.source.files
    template = _template(dataset, key)
    uri = _filled(template, numbers)
    if uri in files:
        return uri
    standard_uri = _standard(dataset, key).format(**numbers)
    if standard_uri in files:
        hits = [standard_uri]
    else:
        names = {u.rsplit("/", 1)[-1] for u in (uri, standard_uri)}
        namesakes = chain.from_iterable(dataset.source.by_name.get(name, []) for name in names)
        camera = numbers.get("video_key")
        hits = [hit for hit in namesakes if camera is None or camera in hit.split("/")]
    if len(hits) != 1:
        return None
    dataset.count("path_template", template + LEADS_NOWHERE)
    return hits[0]


def expected(
    dataset: LerobotListing, episode: int, meta: Mapping[str, Any], camera: str = ""
) -> str:
    """The file that should hold an episode's rows or a camera's video: by info.json's path template, else the standard
    one; v3 without a pointer to it: what such files are called."""
    key, part = ("video_path", f"videos/{camera}") if camera else ("data_path", "data")
    numbers: dict[str, int | str] = {"video_key": camera, **v2_numbers(dataset, episode)}
    if dataset.version == "v3.0":
        if not (pointer := v3_pointer(meta, part)):
            return f"{part}/chunk-*/file-*.{'mp4' if camera else 'parquet'}"
        # A template left over from v2 is filled in by episode
        numbers |= pointer
    return _filled(_template(dataset, key), numbers) or _standard(dataset, key).format(**numbers)


def _filled(template: str, numbers: Mapping[str, int | str]) -> str:
    """A path template with its fields filled in; "" where it has others."""
    if _fields(template) <= numbers.keys():
        return template.format(**numbers)
    return ""


def _standard(dataset: LerobotListing, key: str) -> str:
    return (STANDARD_V3 if dataset.version == "v3.0" else STANDARD_V2)[key]


def _template(dataset: LerobotListing, key: str) -> str:
    template = dataset.info.get(key)
    if isinstance(template, str):
        return template
    return _standard(dataset, key)


@lru_cache(maxsize=64)
def _fields(template: str) -> frozenset[str]:
    """Names in a path template; "" among them for what is none, or would reach into what is filled in, or repeat it."""
    parts = FIELD.split(template)  # a text, a name, a text, ..., a text
    is_plain = not {"{", "}"} & set("".join(parts[::2])) and len(parts) <= 2 * MAX_FIELDS + 1
    return frozenset(parts[1::2] if is_plain else [""])


def v3_data_files(dataset: LerobotListing) -> list[str]:
    """Data files as info.json names them, in the standard place, or anywhere below data/."""
    template = _template(dataset, "data_path")
    standard = STANDARD_V3["data_path"]
    # A template left over from v2 names the files of v2 that may have been left over too
    candidates = [template, standard] if "{file_index" in template else [standard]
    # The first template that names any file counts. Rows say themselves of which episode they are: without one, a
    # file's name does not matter
    everything = dataset.source.files
    for candidate in candidates:
        # A number is taken whole and never given back: else one of many digits could be tried in any number of ways
        pattern = re.compile("[0-9]++".join(map(re.escape, FIELD.split(candidate)[::2])))
        if uris := list(filter(pattern.fullmatch, everything)):
            break
    else:
        candidate = ""
        uris = fnmatch.filter(everything, "data/*.parquet")
    if uris and candidate != template:
        dataset.counts["path_template", template + LEADS_NOWHERE] = len(uris)
    return uris

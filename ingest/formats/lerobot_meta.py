"""What the metadata of a LeRobot dataset says: info.json, cameras, episodes, task texts, and where files should be.

Nothing in it is trusted to be there or to be of the right type: what cannot be used is left out, with a finding.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from string import Formatter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.episode import RowsError
from ingest.formats.cameras import in_order
from ingest.formats.listing import ListingBuilder, texts_among
from ingest.formats.side_files import parse_json_lines, read_json, read_text
from ingest.formats.tables import batches, check
from ingest.limits import Limits
from ingest.media.video import LFS_MARK
from ingest.sources.files import Source

DATA_V2 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
DATA_V3 = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_V2 = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
VIDEO_V3 = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODE_FILE = re.compile(r"^data/.*episode_(\d+)\.parquet$")
DATA_FILE = re.compile(r"^data/chunk-\d+/file-\d+\.parquet$")
META_EPISODES = re.compile(r"^meta/episodes/chunk-\d+/file-\d+\.parquet$")
TASK_COLUMNS = ("task", "__index_level_0__")  # pandas' index has either name
INFO = "meta/info.json"  # of a source: read once
DEFAULT_CHUNK = 1000
MAX_EPISODE = 2**31  # so that chunks are numbers that the lake can hold
MIN_FPS, MAX_FPS = 1e-3, 1e3
META_BATCH = 1 << 10  # rows of metadata read at a time
FIELD_FORMAT, MAX_FIELDS = re.compile(r"0?[0-9]{0,2}d?"), 8  # of a path template: {episode_index:06d}
# What pyarrow raises for damaged files, for names twice or that are no text, and for values that Python has not; and
# what is raised for those beyond the limits
PARQUET_ERRORS = (OSError, pa.ArrowException, ValueError, LookupError, OverflowError, RowsError)


@dataclass(kw_only=True)
class LerobotListing(ListingBuilder):
    """A dataset's listing, with what is known of the dataset."""

    info: dict[str, Any]
    version: str
    lost: set[int] = field(default_factory=set)  # episodes with an unusable finding
    pointers: set[str] = field(default_factory=set)  # data files that are git-LFS pointers
    searched: Counter[str] = field(default_factory=Counter)  # path templates that led nowhere: for how many files

    @property
    def fps(self) -> float:
        return float(self.source.config.fps or self.info["fps"])

    def wants(self, episode: int) -> bool:
        """Are its rows to be read? Of a remote source, where they have to be fetched, only when it is asked for."""
        source = self.source
        return source.selected is None or not source.config.is_remote or episode in source.selected

    def unusable(self, reason: str, detail: str, episode: int | None = None, **where: str | None) -> None:
        super().unusable(reason, detail, episode, **where)
        if episode is not None:
            self.lost.add(episode)


def whole(value: Any) -> int | None:
    """A whole number; None for null, NaN (which is how pandas writes a null among integers) and anything else."""
    number = finite(value)
    return int(number) if number is not None and number == int(number) else None


def finite(value: Any) -> float | None:
    """A number that the lake can hold, too, as a whole number."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and -(2**53) < value < 2**53
    return float(value) if known else None


def read_info(source: Source) -> dict[str, Any]:
    """meta/info.json, read once of a source. Raises RowsError, of reason no_metadata unless it is a git-LFS pointer."""
    if INFO not in source.noted:
        source.noted[INFO] = _read_info(source)
    return source.noted[INFO]


def _read_info(source: Source) -> dict[str, Any]:
    if "meta/info.json" not in source.files:
        raise RowsError("there is no meta/info.json", "no_metadata")
    try:
        info = read_json(source, "meta/info.json")
    except RowsError as e:
        reason = e.reason if e.reason == "lfs_pointer" else "no_metadata"
        raise RowsError(str(e), reason) from e
    if not isinstance(info, dict) or not isinstance(info.get("features"), dict):
        raise RowsError("meta/info.json has no features", "no_metadata")
    # The registry's rate overrules the stated one, which may then be absent
    if not source.config.fps and rate(info.get("fps")) is None:
        raise RowsError("meta/info.json has no fps", "no_metadata")
    return info


def rate(value: Any) -> float | None:
    """Frames per second, when a number can be that."""
    fps = finite(value)
    return fps if fps is not None and MIN_FPS <= fps <= MAX_FPS else None


def version_of(source: Source, info: dict[str, Any]) -> str:
    """v2.0, v2.1 or v3.0 by the files that are there; what info.json declares only tells v2.0 from v2.1."""
    uris = source.files
    if _has(uris, META_EPISODES):
        return "v3.0"
    if not _has(uris, EPISODE_FILE) and ("meta/tasks.parquet" in uris or _has(uris, DATA_FILE)):
        return "v3.0"
    if "meta/episodes_stats.jsonl" in uris:
        return "v2.1"
    declared = str(info.get("codebase_version", ""))
    return declared if declared in ("v2.0", "v2.1") else "v2.0"


def _has(uris: Iterable[str], pattern: re.Pattern[str]) -> bool:
    return any(pattern.match(uri) for uri in uris)


# Cameras


def _details(feature: Any) -> dict[str, Any]:
    """Camera details of a feature: `video_info` in datasets converted from v1, `info` in recorded ones."""
    details: dict[str, Any] = {}
    if isinstance(feature, dict):
        for part in (feature.get("video_info"), feature.get("info")):
            details |= part if isinstance(part, dict) else {}
    return details


def cameras_of(dataset: LerobotListing) -> list[str]:
    """Camera keys by preference: as the registry orders them, then those that see the scene, then by name."""
    keys = [key for key, feature in dataset.info["features"].items() if _is_camera(feature)]
    return in_order(keys, dataset.source.config.cameras)


def _is_camera(feature: Any) -> bool:
    details = _details(feature)
    if details.get("is_depth_map") or details.get("video.is_depth_map"):
        return False
    return isinstance(feature, dict) and feature.get("dtype") in ("video", "image")


def video_rate(info: dict[str, Any], camera: str, fps: float) -> float:
    """Frames per second that a camera's files play at, as info.json has it: times in a file count by this.

    Neither the registry's rate nor the rows' need be the same.
    """
    rates = (_details(info["features"].get(camera)).get("video.fps"), info.get("fps"), fps)
    return next((r for r in map(rate, rates) if r), fps)


# Episodes and tasks


def episode_metadata(dataset: LerobotListing) -> dict[int, dict[str, Any]]:
    """Episode rows of the metadata by episode_index; statistics columns left out."""
    rows = _episode_rows_v3(dataset) if dataset.version == "v3.0" else json_lines(dataset, "meta/episodes.jsonl")
    metadata = {}
    for row in rows:
        episode = whole(row.get("episode_index"))
        if episode is not None and 0 <= episode < MAX_EPISODE:
            metadata[episode] = row
    return metadata


def _episode_rows_v3(dataset: LerobotListing) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for uri in dataset.source.files:
        if META_EPISODES.match(uri):
            rows += parquet_rows(dataset, uri)
        elif uri.startswith("meta/episodes/"):
            detail = "not part of the v3.0 layout (meta/episodes/chunk-*/file-*.parquet)"
            dataset.warn("stray_file", detail, file=uri)
    return rows


def task_texts(dataset: LerobotListing) -> dict[int, str]:
    """Texts by task_index."""
    texts: dict[int, str] = {}
    for row in _task_rows(dataset):
        index = whole(row.get("task_index"))
        stored = [row[name] for name in TASK_COLUMNS if name in row]
        named = texts_among(stored[:1])
        if index is not None and named:
            texts[index] = named[0]
    return texts


def _task_rows(dataset: LerobotListing) -> list[dict[str, Any]]:
    if dataset.version != "v3.0":
        return json_lines(dataset, "meta/tasks.jsonl")
    uri = "meta/tasks.parquet"
    return parquet_rows(dataset, uri) if uri in dataset.source.files else []


def parquet_rows(dataset: LerobotListing, uri: str) -> list[dict[str, Any]]:
    """Rows of a table without statistics, which are most of it; none, with a finding, when it cannot be read."""
    try:
        path = dataset.source.resolve(uri)
        with pq.ParquetFile(path) as file:
            return _rows_without_statistics(file, path, dataset.source.config.limits)
    except PARQUET_ERRORS as e:
        dataset.warn(*unreadable(dataset.source, uri, e), file=uri)
        return []


def _rows_without_statistics(file: pq.ParquetFile, path: Path, limits: Limits) -> list[dict[str, Any]]:
    """Raises PARQUET_ERRORS, also for more rows or bytes than metadata may have."""
    check(limits.excess("max_rows", file.metadata.num_rows, f"{path.name}: rows"))
    rows: list[dict[str, Any]] = []
    size = 0
    columns = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
    for batch in batches(file, path, columns, limits, META_BATCH):
        size += batch.nbytes
        check(limits.excess("max_bytes", size, f"{path.name}: bytes of metadata"))
        rows += batch.to_pylist()
    return rows


def unreadable(source: Source, uri: str, e: Exception) -> tuple[str, str]:
    """Reason and detail of a file that could not be read."""
    if isinstance(e, RowsError) and e.reason == "over_limit":
        return e.reason, str(e)
    with source.resolve(uri).open("rb") as f:
        if f.read(len(LFS_MARK)) == LFS_MARK:
            return "lfs_pointer", "is a git-LFS pointer"
    return "unreadable_data", f"cannot be read: {first_line(e)}"


def first_line(e: Exception) -> str:
    return str(e).split("\n", 1)[0] or type(e).__name__


def json_lines(dataset: LerobotListing, uri: str) -> list[dict[str, Any]]:
    """Objects of a file of JSON lines, with findings about lines that are none."""
    if uri not in dataset.source.files:
        return []
    # Bad characters are replaced and bad lines left out: one of them must not cost all the others
    try:
        text = read_text(dataset.source, uri, errors="replace")
    except RowsError as e:
        dataset.warn(e.reason, str(e), file=uri)
        return []
    lines = parse_json_lines(text, strict=False)
    for number, error in lines.errors:
        dataset.warn("unreadable_data", f"line {number} is not JSON ({error})", file=uri)
    return [row for _, row in lines.values if isinstance(row, dict)]


# Where files are


def v2_numbers(dataset: LerobotListing, episode: int) -> dict[str, int]:
    """What path templates of v2 are filled in with."""
    size = whole(dataset.info.get("chunks_size")) or DEFAULT_CHUNK
    return {"episode_index": episode, "episode_chunk": episode // size, "chunk_index": episode // size}


def locate(dataset: LerobotListing, key: str, standard: str, **numbers: int | str) -> str | None:
    """The file that a path template names: as info.json has it, in the standard place, or anywhere by its name.

    Of several files of one name (and camera) none is taken.
    """
    files = dataset.source.files
    template = _template(dataset, key, standard)
    uri = _filled(template, numbers)
    if uri in files:
        return uri
    # The template leads nowhere: the standard place, then any file with the name
    standard_uri = standard.format(**numbers)
    located: str | None = standard_uri
    if standard_uri not in files:
        located = _by_name(dataset, {uri, standard_uri}, numbers.get("video_key"))
    # Counted, so that one finding speaks for all files that the template does not lead to
    if located is not None:
        dataset.searched[template] += 1
    return located


def expected(dataset: LerobotListing, key: str, standard: str, **numbers: int | str) -> str:
    """The file that info.json's path template names; the standard one, where it is no template of these numbers."""
    return _filled(_template(dataset, key, standard), numbers) or standard.format(**numbers)


def _filled(template: str, numbers: Mapping[str, int | str]) -> str:
    """A path template with its fields filled in; "" where it has others."""
    return template.format(**numbers) if _fields(template) <= numbers.keys() else ""


def _template(dataset: LerobotListing, key: str, standard: str) -> str:
    template = dataset.info.get(key)
    return template if isinstance(template, str) else standard


def _by_name(dataset: LerobotListing, uris: set[str], camera: int | str | None) -> str | None:
    """The only file with the name of one of some files, and with the camera among its folders; None for several."""
    names = {uri.rsplit("/", 1)[-1] for uri in uris}
    hits = [uri for name in names for uri in dataset.source.by_name.get(name, [])]
    if camera is not None:
        hits = [uri for uri in hits if camera in uri.split("/")]
    return hits[0] if len(hits) == 1 else None


@lru_cache(maxsize=64)
def _fields(template: str) -> frozenset[str]:
    """Names in a path template; "" among them for what is none, or would reach into what is filled in, or repeat it."""
    try:
        parsed = list(Formatter().parse(template))
    except ValueError:
        return frozenset([""])
    fields = [(name, spec, conversion) for _, name, spec, conversion in parsed if name is not None]
    if len(fields) > MAX_FIELDS or not all(_is_plain(*parts) for parts in fields):
        return frozenset([""])
    return frozenset(name for name, _, _ in fields)


def _is_plain(name: str, spec: str | None, conversion: str | None) -> bool:
    return name.isidentifier() and conversion is None and bool(FIELD_FORMAT.fullmatch(spec or ""))


def v3_data_files(dataset: LerobotListing) -> list[str]:
    """Data files as info.json names them, in the standard place, or anywhere below data/."""
    template = _template(dataset, "data_path", DATA_V3)
    # A template left over from v2 names the files of v2 that may have been left over too
    candidates = [template, DATA_V3] if "{file_index" in template else [DATA_V3]
    # The first template that names any file counts
    for candidate in candidates:
        uris = _files_like(dataset, candidate)
        if uris:
            break
    else:
        # Rows say themselves of which episode they are, so that a file's name does not matter
        candidate = None
        uris = [uri for uri in dataset.source.files if uri.startswith("data/") and uri.endswith(".parquet")]
    if uris and candidate != template:
        dataset.searched[template] = len(uris)
    return uris


def _files_like(dataset: LerobotListing, template: str) -> list[str]:
    """Files that a path template may name.

    None for a template that is none, or in which a number ends no one knows where: before another, or before a digit.
    """
    if "" in _fields(template):
        return []
    pattern, after_number = "", False
    for text, name, _, _ in Formatter().parse(template):
        if after_number and (text[:1].isdecimal() or (not text and name is not None)):
            return []
        # A number is taken whole and never given back: else one of many digits could be tried in any number of ways
        after_number = name is not None
        pattern += re.escape(text) + (r"\d++" if after_number else "")
    return [uri for uri in dataset.source.files if re.fullmatch(pattern, uri)]

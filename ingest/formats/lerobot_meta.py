"""What the metadata of a LeRobot dataset says: info.json, cameras, episodes, task texts, and where files should be.

Nothing in it is trusted to be there or to be of the right type: what cannot be used is left out, with a finding.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from string import Formatter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.episode import Finding, RowsError
from ingest.formats.cameras import in_order
from ingest.formats.side_files import parse_json, read_json, read_text
from ingest.media.video import LFS_MARK
from ingest.sources.files import Source

DATA_V2 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
DATA_V3 = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_V2 = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
VIDEO_V3 = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODE_FILE = re.compile(r"^data/.*episode_(\d+)\.parquet$")
DATA_FILE = re.compile(r"^data/chunk-\d+/file-\d+\.parquet$")
META_EPISODES = re.compile(r"^meta/episodes/chunk-\d+/file-\d+\.parquet$")
DEFAULT_CHUNK = 1000
MAX_EPISODE = 2**31  # so that chunks are numbers that the lake can hold
MIN_FPS, MAX_FPS = 1e-3, 1e3
META_BATCH = 1 << 10  # rows of metadata read at a time
MAX_META_ROWS, MAX_META_BYTES = 1 << 20, 1 << 26  # of one file, in memory: 100,000 episodes have 20 MB
FIELD_FORMAT, MAX_FIELDS = re.compile(r"0?[0-9]{0,2}d?"), 8  # of a path template: {episode_index:06d}
# What pyarrow raises for damaged files, for names twice or that are no text, and for values that Python has not
PARQUET_ERRORS = (OSError, pa.ArrowException, ValueError, LookupError, OverflowError)


@dataclass
class Dataset:
    """What is known of one dataset, as it is gathered."""

    source: Source
    info: dict[str, Any]
    version: str
    findings: list[Finding] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)  # episodes with an unusable finding
    searched: dict[str, int] = field(default_factory=dict)  # path templates that led nowhere, with a count

    @property
    def fps(self) -> float:
        return float(self.source.config.fps or self.info["fps"])

    def wants(self, episode: int) -> bool:
        """Are its rows to be read? Of a remote source, where they have to be fetched, only when it is asked for."""
        source = self.source
        return source.selected is None or not source.config.is_remote or episode in source.selected

    def warn(self, reason: str, detail: str, episode: int | None = None, **where: str) -> None:
        self.findings.append(Finding(reason, detail, "warning", episode, **where))

    def unusable(self, reason: str, detail: str, episode: int | None = None, **where: str) -> None:
        self.findings.append(Finding(reason, detail, "unusable", episode, **where))
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


def read_info(source: Source) -> tuple[dict[str, Any] | None, str]:
    """meta/info.json, or None and what is wrong with it."""
    if "meta/info.json" not in source.files:
        return None, "there is no meta/info.json"
    try:
        info = read_json(source, "meta/info.json")
    except RowsError as e:
        return None, str(e)
    if not isinstance(info, dict) or not isinstance(info.get("features"), dict):
        return None, "meta/info.json has no features"
    if not source.config.fps and rate(info.get("fps")) is None:
        return None, "meta/info.json has no fps"
    return info, ""


def rate(value: Any) -> float | None:
    """Frames per second, when a number can be that."""
    fps = finite(value)
    return fps if fps is not None and MIN_FPS <= fps <= MAX_FPS else None


def version_of(source: Source, info: dict[str, Any]) -> str:
    """v2.0, v2.1 or v3.0 by the files that are there; what info.json declares only tells v2.0 from v2.1."""
    uris = source.files
    if any(META_EPISODES.match(u) for u in uris):
        return "v3.0"
    v2 = any(EPISODE_FILE.match(u) for u in uris)
    if not v2 and ("meta/tasks.parquet" in uris or any(DATA_FILE.match(u) for u in uris)):
        return "v3.0"
    if "meta/episodes_stats.jsonl" in uris:
        return "v2.1"
    declared = str(info.get("codebase_version", ""))
    return declared if declared in ("v2.0", "v2.1") else "v2.0"


# Cameras


def _details(feature: Any) -> dict[str, Any]:
    """Camera details of a feature: `video_info` in datasets converted from v1, `info` in recorded ones."""
    parts = [feature.get(k) for k in ("video_info", "info")] if isinstance(feature, dict) else []
    return {k: v for part in parts if isinstance(part, dict) for k, v in part.items()}


def cameras_of(ds: Dataset) -> list[str]:
    """Camera keys by preference: as the registry orders them, then those that see the scene, then by name."""
    keys = []
    for key, feature in ds.info["features"].items():
        dtype, details = feature.get("dtype") if isinstance(feature, dict) else None, _details(feature)
        if details.get("is_depth_map") or details.get("video.is_depth_map"):
            continue
        if dtype in ("video", "image"):
            keys.append(key)
    return in_order(keys, ds.source.config.cameras)


def video_rate(info: dict[str, Any], camera: str, fps: float) -> float:
    """Frames per second that a camera's files play at, as info.json has it: times in a file count by this.

    Neither the registry's rate nor the rows' need be the same.
    """
    rates = (_details(info["features"].get(camera)).get("video.fps"), info.get("fps"), fps)
    return next((r for r in map(rate, rates) if r), fps)


# Episodes and tasks


def episode_metadata(ds: Dataset) -> dict[int, dict[str, Any]]:
    """Episode rows of the metadata by episode_index; statistics columns left out."""
    rows: list[dict[str, Any]] = []
    if ds.version == "v3.0":
        for uri in ds.source.files:
            if META_EPISODES.match(uri):
                rows += _parquet(ds, uri)
            elif uri.startswith("meta/episodes/"):
                ds.warn("stray_file", "not part of the v3.0 layout (meta/episodes/chunk-*/file-*.parquet)", file=uri)
    else:
        rows = _json_lines(ds, "meta/episodes.jsonl")
    return {e: r for r in rows if (e := whole(r.get("episode_index"))) is not None and 0 <= e < MAX_EPISODE}


def task_texts(ds: Dataset) -> dict[int, str]:
    if ds.version == "v3.0":
        rows = _parquet(ds, "meta/tasks.parquet") if "meta/tasks.parquet" in ds.source.files else []
    else:
        rows = _json_lines(ds, "meta/tasks.jsonl")
    texts: dict[int, str] = {}
    for row in rows:
        index = whole(row.get("task_index"))
        text = next((row[n] for n in ("task", "__index_level_0__") if n in row), None)  # pandas' index has either name
        if index is not None and isinstance(text, str) and text.strip():
            texts[index] = text.strip()
    return texts


def _parquet(ds: Dataset, uri: str) -> list[dict[str, Any]]:
    """Rows of a table without statistics, which are most of it; none, with a finding, when it cannot be read."""
    rows: list[dict[str, Any]] = []
    size = 0
    try:
        with pq.ParquetFile(ds.source.resolve(uri)) as file:
            columns = [n for n in file.schema_arrow.names if not n.startswith("stats/")]
            for batch in file.iter_batches(META_BATCH, columns=columns):
                size += batch.nbytes
                if size > MAX_META_BYTES or file.metadata.num_rows > MAX_META_ROWS:
                    raise ValueError(f"{file.metadata.num_rows} rows, and more than {size} bytes, are no metadata")
                rows += batch.to_pylist()
    except PARQUET_ERRORS as e:
        ds.warn(*unreadable(ds.source, uri, e), file=uri)
        return []
    return rows


def unreadable(source: Source, uri: str, e: Exception) -> tuple[str, str]:
    """Reason and detail of a file that could not be read."""
    with source.resolve(uri).open("rb") as f:
        if f.read(len(LFS_MARK)) == LFS_MARK:
            return "lfs_pointer", "is a git-LFS pointer"
    return "unreadable_data", f"cannot be read: {first_line(e)}"


def first_line(e: Exception) -> str:
    return str(e).split("\n", 1)[0] or type(e).__name__


def _json_lines(ds: Dataset, uri: str) -> list[dict[str, Any]]:
    if uri not in ds.source.files:
        return []
    rows = []
    try:
        text = read_text(ds.source, uri, errors="replace")
    except RowsError as e:
        ds.warn(e.reason, str(e), file=uri)
        return []
    # not splitlines(): a text may hold a line separator that JSON does not escape
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line, strict=False)
        except ValueError as e:
            ds.warn("unreadable_data", f"line {number} is not JSON ({e})", file=uri)
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


# Where files are


def v2_numbers(ds: Dataset, episode: int) -> dict[str, int]:
    size = whole(ds.info.get("chunks_size")) or DEFAULT_CHUNK
    return {"episode_index": episode, "episode_chunk": episode // size, "chunk_index": episode // size}


def locate(ds: Dataset, key: str, standard: str, **numbers: int | str) -> str | None:
    """The file that a path template names: as info.json has it, in the standard place, or anywhere by its name.

    Of several files of one name (and camera) none is taken.
    """
    template = ds.info.get(key)
    template = template if isinstance(template, str) else standard
    uri = template.format(**numbers) if _fields(template) <= numbers.keys() else ""
    if uri in ds.source.files:
        return uri
    usual = standard.format(**numbers)
    if usual not in ds.source.files:
        camera = numbers.get("video_key")
        names = {u.rsplit("/", 1)[-1] for u in (uri, usual)}
        hits = [u for n in names for u in ds.source.by_name.get(n, []) if camera is None or camera in u.split("/")]
        if len(hits) != 1:
            return None
        usual = hits[0]
    ds.searched[template] = ds.searched.get(template, 0) + 1
    return usual


@lru_cache(maxsize=64)
def _fields(template: str) -> frozenset[str]:
    """Names in a path template; "" among them for what is none, or would reach into what is filled in, or repeat it."""
    try:
        parts = [(name, spec, how) for _, name, spec, how in Formatter().parse(template) if name is not None]
    except ValueError:
        return frozenset([""])
    plain = len(parts) <= MAX_FIELDS and all(
        name.isidentifier() and how is None and FIELD_FORMAT.fullmatch(spec or "") for name, spec, how in parts
    )
    return frozenset(name for name, _, _ in parts) if plain else frozenset([""])


def v3_data_files(ds: Dataset) -> list[str]:
    """Data files as info.json names them, in the standard place, or anywhere below data/."""
    template = ds.info.get("data_path")
    template = template if isinstance(template, str) else DATA_V3
    # a template left over from v2 names the files of v2 that may have been left over too
    first = template if "{file_index" in template else DATA_V3
    for candidate in (first, DATA_V3):
        pattern = _pattern(candidate)
        found = [u for u in ds.source.files if pattern and pattern.match(u)]
        if found:
            break
    else:
        found = [u for u in ds.source.files if u.startswith("data/") and u.endswith(".parquet")]
        candidate = None
    if found and candidate != template:
        ds.searched[template] = len(found)
    return found


def _pattern(template: str) -> re.Pattern[str] | None:
    """What the file names of a path template look like; None for a template that is none."""
    if "" in _fields(template):
        return None
    parts = [re.escape(text) + ("" if name is None else r"\d+") for text, name, _, _ in Formatter().parse(template)]
    return re.compile("^" + "".join(parts) + "$")

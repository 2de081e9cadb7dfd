"""Adapter for AgiBot World as its makers publish it (Alpha and Beta): loose files, or the hub's tar archives.

`task_info/task_<task>.json` lists episodes with their timed steps; `observations/<task>/<episode>/videos/*.mp4` are the
cameras (depth and tactile pictures lie beside that folder and are not read); `proprio_stats/<task>/<episode>/
proprio_stats.h5` has the rows. On the hub the latter two are in `observations/<task>/<first>-<last>.tar` and
`proprio_stats/*.tar`, whose members stand as if the archive were unpacked where it lies. Frames are 30 a second.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ingest.episode import Episode, EpisodeRecord, Listing, NativeStep, RowsError
from ingest.formats.cameras import in_order
from ingest.formats.listing import ListingBuilder, folders_of, unique_texts
from ingest.formats.proprio import joined
from ingest.formats.steps import StatedSpan, checked_steps, span_objects
from ingest.formats.whole_videos import EpisodeKey, cameras_by_task, frames_of, videos_in, videos_of
from ingest.limits import Limits
from ingest.media.video import LFS_MARK
from ingest.outcomes import Evidence
from ingest.sources.archives import ArchiveError
from ingest.sources.archives import split as inside_tar
from ingest.sources.files import Source

if TYPE_CHECKING:
    import h5py

TASK_FILE = re.compile(r"^task_info/task_(\d+)\.json$")
VIDEO_FILE = re.compile(r"^observations/(?:.*/)?(\d+)/(\d+)/videos/([^/]+)\.mp4$")
ROWS_FILE = re.compile(r"^proprio_stats/(?:.*/)?(\d+)/(\d+)/proprio_stats\.h5$")
TAR_FILE = re.compile(r"^(observations/\d+|proprio_stats)/[^/]+\.tar$")
FILES = (TASK_FILE, VIDEO_FILE, ROWS_FILE, TAR_FILE)
ROOT = re.compile(rf"((?:[^/]+/)*?)(?:{'|'.join(pattern.pattern.strip('^$') for pattern in FILES)})")
FPS, ROBOT = 30.0, "a2d"
FIRST_CAMERAS, WRIST = ("head_color",), ("hand_",)
EFFECTOR = "effector/position"
STATE = ("state/joint/position", f"state/{EFFECTOR}")  # radians; grippers in mm or finger joints in radians
ACTION = ("action/joint/position", f"action/{EFFECTOR}")
# What h5py raises for damaged files
DAMAGED = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)


@dataclass
class AgibotFiles:
    videos: dict[str, str] = field(default_factory=dict)  # uri by camera
    rows: str | None = None


def recognises(source: Source) -> bool:
    return any(pattern.match(uri) for uri in source.files for pattern in FILES)


def roots(uris: Iterable[str]) -> dict[str, str]:
    return folders_of(ROOT, uris)


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    # An episode may be listed without files, and files may be there of episodes that are not listed
    entries = _entries(listing)
    files = _files_by_episode(listing)
    # Grippers, hands and sensors, and so cameras, differ between tasks
    cameras = cameras_by_task({key: episode.videos for key, episode in files.items()})
    order = in_order(set().union(*cameras.values()), source.config.cameras, FIRST_CAMERAS, WRIST)

    for key in sorted({*entries, *files}, key=lambda k: k.source_id):
        expected = [camera for camera in order if camera in cameras[key.task]]
        listing.records.append(_record(listing, key, entries.get(key), files.get(key, AgibotFiles()), expected))

    if not listing.records:
        listing.lists_nothing("no task_info file lists an episode, and there are no data")
    return listing.listing("agibot", source.config.fps or FPS, order, robot=ROBOT)


def _files_by_episode(listing: ListingBuilder) -> dict[EpisodeKey, AgibotFiles]:
    files: dict[EpisodeKey, AgibotFiles] = defaultdict(AgibotFiles)
    for place, uri in _places(listing).items():
        video = VIDEO_FILE.match(place)
        if video and "depth" not in video[3]:
            files[EpisodeKey(video[1], video[2])].videos.setdefault(video[3], uri)
        elif rows := ROWS_FILE.match(place):
            episode = files[EpisodeKey(rows[1], rows[2])]
            episode.rows = episode.rows or uri
    return files


def _entries(listing: ListingBuilder) -> dict[EpisodeKey, dict[str, Any]]:
    """What the task files say of each episode."""
    entries: dict[EpisodeKey, dict[str, Any]] = {}
    task_by_uri = _tasks_by_uri(listing.source)
    if not task_by_uri:
        listing.warn("no_metadata", "there is no task_info/task_<id>.json")
    # Of two entries of one episode the first counts
    for uri, task in task_by_uri.items():
        for number, entry in enumerate(_listed(listing, uri)):
            episode = _episode_id(entry)
            key = EpisodeKey(task, str(episode))
            if episode is None:
                listing.warn("unreadable_data", f"entry {number} of {uri} has no episode_id", file=uri)
            elif key in entries:
                listing.warn("duplicate_episode", f"{uri} lists episode {episode} twice", file=uri)
            else:
                entries[key] = entry
    return entries


def _tasks_by_uri(source: Source) -> dict[str, str]:
    """Task files, and the tasks that they are of."""
    matches = {uri: TASK_FILE.match(uri) for uri in source.files}
    return {uri: match[1] for uri, match in matches.items() if match}


def _listed(listing: ListingBuilder, uri: str) -> list[Any]:
    """The entries of a task file; none, with a warning, where it cannot be read."""
    content = listing.read_json(uri, default=[])
    return content if isinstance(content, list) else [content]


def _episode_id(entry: Any) -> int | None:
    episode = entry.get("episode_id") if isinstance(entry, dict) else None
    return episode if type(episode) is int and episode >= 0 else None


def _places(listing: ListingBuilder) -> dict[str, str]:
    """Uris of files by where they lie when all is unpacked; a loose file counts before one in an archive."""
    places = {uri: uri for uri in listing.source.files}
    for tar in filter(TAR_FILE.match, listing.source.files):
        folder = tar.rpartition("/")[0]
        for name in _members(listing, tar):
            if name.endswith((".mp4", ".h5")):
                places.setdefault(f"{folder}/{name}", f"{tar}!/{name}")
    return places


def _members(listing: ListingBuilder, tar: str) -> Iterable[str]:
    """Names of the files in an archive, as far as it can be read, with findings about what is wrong with it."""
    try:
        archive = listing.source.archive(tar)
    except OSError as e:
        listing.warn("unreadable_data", f"{tar} cannot be read: {e.strerror}", file=tar)
        return ()
    if archive.problem:
        listing.warn(archive.reason, f"{tar} is not read to its end: {archive.problem}", file=tar)
    return archive.members


def _record(
    listing: ListingBuilder, key: EpisodeKey, entry: dict[str, Any] | None, files: AgibotFiles, expected: list[str]
) -> EpisodeRecord:
    """The coming episode; `entry` is what the task file says of it."""
    source, index = listing.source, listing.next_index
    if entry is None:
        detail = f"has files, but task_info/task_{key.task}.json does not list it"
        listing.warn("not_in_metadata", detail, index)
        # Files alone are an episode as well, without text and steps
        entry = {}
    folder = f"observations/{key.task}/{key.episode}/videos"
    videos = videos_of(listing, files.videos, videos_in(folder, expected))
    num_rows = _num_rows_listed(listing, key, files.rows)
    tasks = unique_texts([entry.get("task_name")])
    if not tasks:
        listing.warn("no_task", "no task_name", index)
    # Published entries state no outcome; those of other makers do, beside the steps or above them
    labels = entry.get("label_info")
    facts = (labels if isinstance(labels, dict) else {}) | entry
    listing.evidence[index] = Evidence(listing.stated_outcome(facts))
    # The stamp changes when a file comes later, or is replaced by one of another size
    stamped = [video.uri for video in videos]
    if files.rows:
        stamped.append(files.rows)
    steps = _steps(listing, entry, num_rows)
    return EpisodeRecord(
        episode_index=index,
        source_id=key.source_id,
        fps=source.config.fps or FPS,
        task=next(iter(tasks), None),
        tasks=tasks,
        num_rows=num_rows,
        data_uri=files.rows,
        videos=videos,
        steps=steps,
        steps_from="action_config" if steps else None,
        group=listing.group(entry, key.source_id),
        source_stamp=source.stamp(stamped, num_rows),
    )


def _num_rows_listed(listing: ListingBuilder, key: EpisodeKey, rows_uri: str | None) -> int | None:
    """The coming episode's rows; None of a remote file, which would have to be fetched, unless its tar was."""
    source, index = listing.source, listing.next_index
    if rows_uri is None:
        looked_for = f"proprio_stats/{key.task}/{key.episode}/proprio_stats.h5"
        listing.unusable("no_data", f"there is no {looked_for}", index, file=looked_for)
        return None
    # A tar was fetched already, for the names of its members
    if source.config.is_remote and not inside_tar(rows_uri):
        return None
    try:
        with _opened(source, rows_uri) as file:
            return _num_rows(file, source.config.keys.state or STATE)
    except RowsError as e:
        listing.unusable(e.reason, str(e), index, file=rows_uri)
        return None


def _steps(listing: ListingBuilder, entry: dict[str, Any], num_rows: int | None) -> tuple[NativeStep, ...]:
    """A span ends before `end_frame`: in the published files it is the next span's `start_frame`."""
    label = entry.get("label_info", entry.get("lable_info"))  # the latter as the dataset's card spells it
    stored = label.get("action_config") if isinstance(label, dict) else None
    spans = []
    # Spans are kept all or none: one that is wrong makes the others doubtful
    try:
        for span in span_objects([] if stored is None else stored, "action_config"):
            name = span.get("action_text") or span.get("skill")
            spans.append(StatedSpan(name, span.get("start_frame"), span.get("end_frame")))
        return checked_steps(spans, num_rows)
    except ValueError as e:
        listing.warn("bad_steps", str(e), listing.next_index)
        return ()


# Rows


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    """Joints, with finger joints of dexterous hands, and grippers of one episode; raises RowsError.

    Grippers are in mm as published. The dataset's card calls that the opening; users of it report that it grows as a
    gripper closes (OpenDriveLab/AgiBot-World issue 133): the data has to show it.
    """
    if record.data_uri is None:
        raise RowsError("no proprio_stats.h5", "no_data")
    config = source.config
    state_paths, action_paths = config.keys.state or STATE, config.keys.action or ACTION
    action, action_names = None, []
    with _opened(source, record.data_uri) as file:
        num_rows = _num_rows(file, state_paths)
        state, state_names = _vector(file, state_paths, num_rows)
        # Actions are absent, or of another length, in many episodes, and only a registry entry can ask for them
        if any(gripper.column == "action" for gripper in config.grippers):
            action, action_names = _vector(file, action_paths, num_rows)
        times_ns = _array(file, "timestamp")
    times_s = None
    if times_ns is not None:
        # A clock in nanoseconds, which may be a table of one column; times of an episode begin at 0
        first_column = times_ns.reshape(num_rows, -1)[:, 0]
        times_s = (first_column - first_column[0]).astype(np.float64) / 1e9
    # Of a remote episode the number of rows is only known now
    record = replace(record, num_rows=num_rows)
    names = tuple(state_names), tuple(action_names)
    return Episode(record, state, action, times_s, frames_of(source, record), *names)


class RowsFile(NamedTuple):
    """An open proprio_stats.h5, and what its arrays may claim."""

    file: "h5py.File"
    limits: Limits


@contextmanager
def _opened(source: Source, uri: str) -> Iterator[RowsFile]:
    import h5py

    try:
        with source.open(uri) as data:
            if data.read(len(LFS_MARK)) == LFS_MARK:
                raise RowsError(f"{uri} is a git-LFS pointer", "lfs_pointer")
            with h5py.File(data, "r") as file:
                yield RowsFile(file, source.config.limits)
    except (*DAMAGED, ArchiveError) as e:
        raise RowsError(f"{uri} cannot be read: {str(e) or type(e).__name__}") from e


def _num_rows(file: RowsFile, state: tuple[str, ...]) -> int:
    """Rows by the first of time and state that has any; raises RowsError when there are none."""
    for path in ("timestamp", *state):
        dataset = _dataset(file, path)
        if dataset is not None:
            return dataset.shape[0]
    raise RowsError(f"no rows in {', '.join(('timestamp', *state))}", "no_data")


def _vector(file: RowsFile, paths: tuple[str, ...], num_rows: int) -> tuple[np.ndarray | None, list[str]]:
    """Some arrays side by side, [num_rows, d], and a name for each dimension; None for none."""
    parts: list[np.ndarray] = []
    names: list[str] = []
    for path in paths:
        values = _matrix(file, path, num_rows)
        if values is None:
            continue
        names += _effector_names(values.shape[1]) if path.endswith(EFFECTOR) else _numbered(path, values.shape[1])
        parts.append(values)
    return joined(parts), names


def _numbered(name: str, width: int) -> list[str]:
    return [f"{name}.{k}" for k in range(width)]


def _effector_names(width: int) -> list[str]:
    """An effector is two grippers, or twelve finger joints of two hands, the left one first."""
    if width == 1:
        return ["gripper"]
    if width == 2:
        return ["left_gripper", "right_gripper"]
    left = width // 2
    return _numbered("left_hand", left) + _numbered("right_hand", width - left)


def _matrix(file: RowsFile, path: str, num_rows: int) -> np.ndarray | None:
    """One array, [num_rows, d]. Raises RowsError for another number of rows."""
    array = _array(file, path)
    if array is None:
        return None
    if len(array) != num_rows:
        raise RowsError(f"{path} has {len(array)} rows, the episode {num_rows}")
    return array.reshape(num_rows, -1)


def _array(file: RowsFile, path: str) -> np.ndarray | None:
    dataset = _dataset(file, path)
    return None if dataset is None else dataset[()]


def _dataset(file: RowsFile, path: str) -> "h5py.Dataset | None":
    """A table of numbers; None where there is none, or an empty one, which is how AgiBot says that it has no values.

    Raises RowsError for one that lies in another file or is too large, following nothing.
    """
    import h5py

    node = _followed(file.file, path)
    if not isinstance(node, h5py.Dataset):
        return None
    if node.is_virtual or node.external:
        raise RowsError(f"{path} lies in another file", "path_escape")
    if not node.size:
        return None
    if node.dtype.kind not in "fiu" or not 1 <= node.ndim <= 3:
        raise RowsError(f"{path} is no table of numbers: {node.dtype} {list(node.shape)}")
    # A chunk is unpacked as a whole, however few rows the table has
    claimed = max(prod(node.shape), prod(node.chunks or (1,)))
    if problem := file.limits.excess("max_values", claimed, f"{path}: values of {list(node.shape)}"):
        raise RowsError(problem, "over_limit")
    return node


def _followed(file: "h5py.File", path: str) -> Any:
    """What lies at a path, or None. Raises RowsError for a link to another place."""
    import h5py

    node: Any = file
    for part in path.split("/"):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            return None
        # Only a hard link is sure to stay in the file
        if not isinstance(link, h5py.HardLink):
            raise RowsError(f"{path} is a link", "path_escape")
        node = node[part]
    return node

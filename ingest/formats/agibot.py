"""Adapter for AgiBot World as its makers publish it (Alpha and Beta): loose files, or the hub's tar archives.

`task_info/task_<task>.json` lists episodes with their timed steps; `observations/<task>/<episode>/videos/*.mp4` are the
cameras (depth and tactile pictures lie beside that folder and are not read); `proprio_stats/<task>/<episode>/
proprio_stats.h5` has the rows. On the hub the latter two are in `observations/<task>/<first>-<last>.tar` and
`proprio_stats/*.tar`, whose members stand as if the archive were unpacked where it lies. Frames are 30 a second.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ingest.episode import Episode, EpisodeRecord, Finding, Listing, NativeStep, RowsError
from ingest.formats.cameras import in_order
from ingest.formats.proprio import joined, signals
from ingest.formats.side_files import read_json
from ingest.formats.steps import checked_steps
from ingest.formats.whole_videos import frames_of, videos_of
from ingest.media.video import LFS_MARK
from ingest.sources.archives import ArchiveError
from ingest.sources.archives import split as inside_tar
from ingest.sources.files import Source

if TYPE_CHECKING:
    import h5py

TASK_FILE = re.compile(r"^task_info/task_(\d+)\.json$")
VIDEO_FILE = re.compile(r"^observations/(?:.*/)?(\d+)/(\d+)/videos/([^/]+)\.mp4$")
ROWS_FILE = re.compile(r"^proprio_stats/(?:.*/)?(\d+)/(\d+)/proprio_stats\.h5$")
TAR_FILE = re.compile(r"^(observations/\d+|proprio_stats)/[^/]+\.tar$")
FPS, ROBOT = 30.0, "a2d"
FIRST_CAMERAS, WRIST = ("head_color",), ("hand_",)
EFFECTOR = "effector/position"
STATE = ("state/joint/position", f"state/{EFFECTOR}")  # radians; grippers in mm or finger joints in radians
ACTION = ("action/joint/position", f"action/{EFFECTOR}")
MAX_ARRAY_BYTES = 1 << 28  # an hour of all joints has 12 MB
# What h5py raises for damaged files
DAMAGED = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)


class Key(NamedTuple):
    task: str
    episode: str

    @property
    def source_id(self) -> str:
        return f"{self.task}/{self.episode}"


def recognises(source: Source) -> bool:
    return any(p.match(u) for u in source.files for p in (TASK_FILE, VIDEO_FILE, ROWS_FILE, TAR_FILE))


def list_episodes(source: Source) -> Listing:
    findings: list[Finding] = []
    entries = _entries(source, findings)
    videos: dict[Key, dict[str, str]] = defaultdict(dict)
    rows: dict[Key, str] = {}
    for place, uri in _places(source, findings).items():
        if (m := VIDEO_FILE.match(place)) and "depth" not in m[3]:
            videos[Key(m[1], m[2])].setdefault(m[3], uri)
        elif m := ROWS_FILE.match(place):
            rows.setdefault(Key(m[1], m[2]), uri)
    usual: dict[str, set[str]] = defaultdict(set)  # cameras of a task: grippers, hands and sensors differ between tasks
    for key, found in videos.items():
        usual[key.task].update(found)
    order = in_order(set().union(*usual.values()), source.config.cameras, FIRST_CAMERAS, WRIST)
    records = [
        _record(
            source,
            index,
            key,
            entries.get(key),
            videos.get(key, {}),
            [c for c in order if c in usual[key.task]],
            rows.get(key),
            findings,
        )
        for index, key in enumerate(sorted({*entries, *videos, *rows}, key=lambda k: k.source_id))
    ]
    if not records:
        findings.append(Finding("no_episodes", "no task_info file lists an episode, and there are no data"))
    config = source.config
    return Listing(
        "agibot", config.fps or FPS, config.robot or ROBOT, tuple(order), tuple(records), tuple(findings), False
    )


def _entries(source: Source, findings: list[Finding]) -> dict[Key, dict[str, Any]]:
    """What the task files say of each episode."""
    entries: dict[Key, dict[str, Any]] = {}
    files = {uri: m[1] for uri in source.files if (m := TASK_FILE.match(uri))}
    if not files:
        findings.append(Finding("no_metadata", "there is no task_info/task_<id>.json", "warning"))
    for uri, task in files.items():
        try:
            listed = read_json(source, uri)
        except RowsError as e:
            findings.append(Finding(e.reason, str(e), "warning", file=uri))
            continue
        for number, entry in enumerate(listed if isinstance(listed, list) else [listed]):
            episode = entry.get("episode_id") if isinstance(entry, dict) else None
            if type(episode) is not int or episode < 0:
                detail = f"entry {number} of {uri} has no episode_id"
                findings.append(Finding("unreadable_data", detail, "warning", file=uri))
            elif (key := Key(task, str(episode))) in entries:
                detail = f"{uri} lists episode {episode} twice"
                findings.append(Finding("duplicate_episode", detail, "warning", file=uri))
            else:
                entries[key] = entry
    return entries


def _places(source: Source, findings: list[Finding]) -> dict[str, str]:
    """Uris of files by where they lie when all is unpacked; a loose file counts before one in an archive."""
    places = {u: u for u in source.files}
    for tar in [u for u in source.files if TAR_FILE.match(u)]:
        try:
            archive = source.archive(tar)
        except OSError as e:
            findings.append(Finding("unreadable_data", f"{tar} cannot be read: {e.strerror}", "warning", file=tar))
            continue
        if archive.problem:
            findings.append(Finding("unreadable_data", f"{tar} is damaged: {archive.problem}", "warning", file=tar))
        folder = tar.rpartition("/")[0]
        for name in archive.members:
            if name.endswith((".mp4", ".h5")):
                places.setdefault(f"{folder}/{name}", f"{tar}!/{name}")
    return places


def _record(
    source: Source,
    index: int,
    key: Key,
    entry: dict[str, Any] | None,
    found: dict[str, str],
    expected: list[str],
    rows: str | None,
    findings: list[Finding],
) -> EpisodeRecord:
    config = source.config
    if entry is None:
        detail = f"has files, but task_info/task_{key.task}.json does not list it"
        findings.append(Finding("not_in_metadata", detail, "warning", index))
        entry = {}
    videos = videos_of(found, expected, index, findings)
    num_rows = None
    if rows is None:
        findings.append(Finding("no_data", "no proprio_stats.h5", "unusable", index))
    elif not config.is_remote or inside_tar(rows):  # else it would be fetched
        try:
            with _opened(source, rows) as file:
                num_rows = _num_rows(file, config.keys.state or STATE)
        except RowsError as e:
            findings.append(Finding(e.reason, str(e), "unusable", index, None, rows))
    task = entry.get("task_name")
    tasks = (task.strip(),) if isinstance(task, str) and task.strip() else ()
    if not tasks:
        findings.append(Finding("no_task", "no task_name", "warning", index))
    success, group = entry.get(config.success_field), entry.get(config.group_field or "")
    return EpisodeRecord(
        episode_index=index,
        source_id=key.source_id,
        fps=config.fps or FPS,
        task=tasks[0] if tasks else None,
        tasks=tasks,
        num_rows=num_rows,
        data_uri=rows,
        videos=videos,
        steps=_steps(entry, num_rows, index, findings),
        success=success if isinstance(success, bool) else None,
        group=key.source_id if group in (None, "") else str(group),
        source_stamp=source.stamp([v.uri for v in videos] + ([rows] if rows else []), num_rows),
    )


def _steps(entry: dict[str, Any], num_rows: int | None, index: int, findings: list[Finding]) -> tuple[NativeStep, ...]:
    """A span ends before `end_frame`: in the published files it is the next span's `start_frame`."""
    label = entry.get("label_info", entry.get("lable_info"))  # the latter as the dataset's card spells it
    spans = label.get("action_config") if isinstance(label, dict) else None
    try:
        if not isinstance(spans, list | None) or not all(isinstance(s, dict) for s in spans or ()):
            raise ValueError("action_config is not a list of spans")
        named = [
            (s.get("action_text") or s.get("skill"), s.get("start_frame"), s.get("end_frame")) for s in spans or ()
        ]
        return checked_steps(named, num_rows)
    except ValueError as e:
        findings.append(Finding("bad_steps", str(e), "warning", index))
        return ()


# Rows


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    """Joints, with finger joints of dexterous hands, and grippers of one episode; raises RowsError.

    The gripper is the mean of both, in mm as published. The dataset's card calls that the opening; users of it report
    that it grows as a gripper closes (OpenDriveLab/AgiBot-World issue 133).
    """
    if record.data_uri is None:
        raise RowsError("no proprio_stats.h5", "no_data")
    config = source.config
    with _opened(source, record.data_uri) as file:
        num_rows = _num_rows(file, config.keys.state or STATE)
        state, names = _vector(file, config.keys.state or STATE, num_rows)
        # actions are absent, or of another length, in many episodes, and only a registry entry can ask for them
        wanted = config.gripper is not None and config.gripper.column == "action"
        action, action_names = _vector(file, config.keys.action or ACTION, num_rows) if wanted else (None, [])
        times_ns = _array(file, "timestamp")
    rest, gripper = signals(state, action, config.gripper, names, action_names)
    times_s = None
    if times_ns is not None:
        times_ns = times_ns.reshape(num_rows, -1)[:, 0]
        times_s = (times_ns - times_ns[0]).astype(np.float64) / 1e9
    record = replace(record, num_rows=num_rows)
    return Episode(record, rest, gripper, times_s, frames_of(source, record))


@contextmanager
def _opened(source: Source, uri: str) -> Iterator["h5py.File"]:
    import h5py

    try:
        with source.open(uri) as data:
            if data.read(len(LFS_MARK)) == LFS_MARK:
                raise RowsError(f"{uri} is a git-LFS pointer", "lfs_pointer")
            with h5py.File(data, "r") as file:
                yield file
    except (*DAMAGED, ArchiveError) as e:
        raise RowsError(f"{uri} cannot be read: {str(e) or type(e).__name__}") from e


def _num_rows(file: "h5py.File", state: tuple[str, ...]) -> int:
    """Rows by the first of time and state that has any; raises RowsError when there are none."""
    for path in ("timestamp", *state):
        dataset = _dataset(file, path)
        if dataset is not None:
            return dataset.shape[0]
    raise RowsError(f"no rows in {', '.join(('timestamp', *state))}", "no_data")


def _vector(file: "h5py.File", paths: tuple[str, ...], num_rows: int) -> tuple[np.ndarray | None, list[str]]:
    """Some arrays side by side, [num_rows, d], and a name for each dimension; None for none."""
    parts, names = [], []
    for path in paths:
        if (array := _array(file, path)) is None:
            continue
        if len(array) != num_rows:
            raise RowsError(f"{path} has {len(array)} rows, the episode {num_rows}")
        flat = array.reshape(num_rows, -1)
        # two grippers, or twelve joints of two hands
        kind = "gripper" if path.endswith(EFFECTOR) and flat.shape[1] <= 2 else path
        names += [f"{kind}.{k}" for k in range(flat.shape[1])]
        parts.append(flat)
    return joined(parts), names


def _array(file: "h5py.File", path: str) -> np.ndarray | None:
    dataset = _dataset(file, path)
    return None if dataset is None else dataset[()]


def _dataset(file: "h5py.File", path: str) -> "h5py.Dataset | None":
    """A table of numbers; None where there is none, or an empty one, which is how AgiBot says that it has no values.

    Raises RowsError for one that lies in another file or is too large, following nothing.
    """
    import h5py

    node: Any = file
    for part in path.split("/"):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise RowsError(f"{path} is a link", "path_escape")
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        return None
    if node.is_virtual or node.external:
        raise RowsError(f"{path} lies in another file", "path_escape")
    if node.size == 0 or node.size is None:
        return None
    if node.dtype.kind not in "fiu" or not 1 <= node.ndim <= 3:
        raise RowsError(f"{path} is no table of numbers: {node.dtype} {list(node.shape)}")
    chunk = int(np.prod(node.chunks or (1,), dtype=object))
    if max(node.size, chunk) * max(node.dtype.itemsize, 8) > MAX_ARRAY_BYTES:
        raise RowsError(f"{path} claims to be {list(node.shape)}")
    return node

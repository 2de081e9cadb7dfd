"""Adapter for RLDS datasets as TFDS writes them: TFRecord shards of tf.train.Example, read without TensorFlow.

One record is one episode. A listing walks the records and reads texts and small numbers; pictures are skipped by
length, and a record's CRC is checked when the episode is read. https://github.com/google-research/rlds
"""

import mmap
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np

from ingest.episode import CameraVideo, Episode, EpisodeRecord, Finding, Listing, RowsError, TimedPicture, timed
from ingest.formats.cameras import in_order
from ingest.formats.proprio import joined, signals
from ingest.formats.rlds_layout import FEATURES, Shard, has_layout, layout_of, read_json
from ingest.formats.rlds_steps import (
    Spec,
    Steps,
    inferred_specs,
    last_values,
    matrix,
    num_steps,
    pictures,
    scalar,
    specs_of,
    texts,
)
from ingest.formats.tfrecord import (
    FOOTER_BYTES,
    HEADER_BYTES,
    Data,
    Record,
    TFRecordError,
    check_message,
    example,
    is_whole,
    mapped,
    record_at,
    records,
    stored_crc,
)
from ingest.media.video import DECODE_ALL, LFS_MARK, DecodeOptions, VideoError
from ingest.sources.files import Source

DEFAULT_FPS = 10.0  # where nothing is known; each use is a finding
LANGUAGE = (
    "language_instruction",
    "language_instruction_2",  # DROID: paraphrases
    "language_instruction_3",
    "observation/natural_language_instruction",
    "observation/structured_language_instruction",  # TACO Play
    "observation/language_instruction",
    "observation/instruction",  # Language Table: a row of UTF-8 bytes
    "natural_language_instruction",
    "instruction",
    "episode_metadata/language_instruction",
    "episode_metadata/natural_language_instruction",
    "episode_metadata/instruction",
    "episode_metadata/task",
)
# The first whose first path is there; joined
STATES = (
    ("observation/state",),
    ("observation/proprio",),
    ("observation/robot_state",),
    ("observation/robot_obs",),
    ("robot_state",),
    ("observation/joint_position", "observation/gripper_position"),  # DROID
    ("observation/base_pose_tool_reached", "observation/gripper_closed"),  # RT-1
    ("observation/clip_function_input/base_pose_tool_reached", "observation/gripper_closed"),  # Kuka
    ("observation/eef_pose", "observation/state_gripper_pose"),  # FMB
    ("observation/EEF_state", "observation/gripper_state"),  # LIBERO
    ("observation/joint_states", "observation/gripper_states"),  # VIOLA
    ("observation/end_effector_cartesian_pos",),  # Jaco Play
    ("observation/joint_pos", "observation/gripper"),  # Berkeley MVP and RPT
    ("observation/effector_translation",),  # Language Table
)
EPISODE_ID = ("episode_metadata/file_path", "episode_metadata/episode_id")
NOT_SEEN = ("depth", "segmentation", "mask")  # stored as pictures, and none


@dataclass(frozen=True)
class Found:
    """A record with what is wrong with it; its index is not known yet."""

    record: EpisodeRecord
    findings: tuple[Finding, ...] = ()


def recognises(source: Source) -> bool:
    """A *.tfrecord file, sharded or not, or both of TFDS's metadata files."""
    return has_layout(source)


def list_episodes(source: Source) -> Listing:
    """Episodes in order of source_id. Of a remote source with a selection, only the shards it lies in are fetched."""
    layout = layout_of(source)
    findings, found, position = layout.findings, [], 0
    specs = {folder: _specs(source, folder, findings) for folder in dict.fromkeys(s.folder for s in layout.shards)}
    if source.selected is None:
        source.fetch(s.uri for s in layout.shards if specs[s.folder] is not None)
    for shard in layout.shards:
        known = specs[shard.folder]
        if known is None:
            continue
        length = _unwanted(source, shard, position)
        if length is None:
            inside = list(_listed(source, shard, known, findings))
        else:
            inside = [Found(_record(source, shard, n, known)) for n in range(length)]
        found += inside
        position += len(inside)
    found.sort(key=lambda f: f.record.source_id)
    episodes = tuple(replace(f.record, episode_index=i) for i, f in enumerate(found))
    findings += [replace(x, episode_index=i) for i, f in enumerate(found) for x in f.findings]
    if not episodes and not any(f.severity == "unusable" for f in findings):
        findings.append(Finding("no_episodes", "no TFRecord shard with records"))
    fps = source.config.fps or DEFAULT_FPS
    if episodes and not source.config.fps:
        detail = f"RLDS does not say it and the registry entry has no fps; {DEFAULT_FPS:g} per second is used"
        findings.append(Finding("no_frame_rate", detail, "warning"))
    cameras = tuple(in_order({c for e in episodes for c in e.cameras}, source.config.cameras))
    return Listing("rlds", fps, source.config.robot, cameras, episodes, tuple(findings), numbered=False)


def _specs(source: Source, folder: str, findings: list[Finding]) -> dict[str, Spec] | None:
    """Types by key; {} where the records themselves must tell; None for what is no RLDS dataset."""
    content, problem = read_json(source, folder + FEATURES)
    specs = specs_of(content)
    if not specs:
        detail = f"{problem or 'names no feature'}; types are taken from the records"
        findings.append(Finding("no_metadata", detail, "warning", file=folder + FEATURES))
    elif not any(key.startswith("steps/") for key in specs):
        detail = f"has no steps: a TFDS dataset, but not of episodes (it has {', '.join(list(specs)[:5])})"
        findings.append(Finding("no_metadata", detail, file=folder + FEATURES))
        return None
    return specs


def _unwanted(source: Source, shard: Shard, position: int) -> int | None:
    """Records in a shard that need not be fetched, the first being at `position` of all; None when it must be."""
    chosen, size = source.selected, source.files[shard.uri].size
    if not source.config.is_remote or chosen is None or shard.length is None:
        return None
    if shard.length > size // (HEADER_BYTES + FOOTER_BYTES):  # more than the file can hold
        return None
    ordered = sorted(chosen)
    at = bisect_left(ordered, position)
    return None if at < len(ordered) and ordered[at] < position + shard.length else shard.length


def _listed(source: Source, shard: Shard, known: dict[str, Spec], findings: list[Finding]) -> Iterator[Found]:
    """The records of one shard; what is wrong with the file itself goes to `findings`."""
    count = 0
    try:
        data = mapped(source.resolve(shard.uri))
        if isinstance(data, mmap.mmap):
            data.madvise(mmap.MADV_RANDOM)  # no reading ahead into pictures
        if data[: len(LFS_MARK)] == LFS_MARK:
            findings.append(Finding("lfs_pointer", "a git-LFS pointer, not a shard", file=shard.uri))
            return
        for number, at in enumerate(records(data)):
            count += 1
            yield _found(source, shard, number, known, data, at)
    except (OSError, TFRecordError) as e:
        after = f"; {count} of its {shard.length} records were read" if shard.length else f" after {count} records"
        findings.append(Finding("unreadable_data", f"{e}{after}", file=shard.uri))
        return
    if shard.length not in (None, count):
        detail = f"dataset_info.json says {shard.length} records, the file has {count}"
        findings.append(Finding("length_differs", detail, "warning", file=shard.uri))


def _found(source: Source, shard: Shard, number: int, known: dict[str, Spec], data: Data, at: Record) -> Found:
    record = replace(_record(source, shard, number, known), data_key=str(at.offset))
    if not is_whole(data, at):
        lacking = at.end + FOOTER_BYTES - len(data)
        return Found(record, (Finding("unreadable_data", f"cut off: {lacking} bytes are missing", file=shard.uri),))
    findings: list[Finding] = []
    try:
        steps = _steps(data, at, known)
        record = _read_metadata(source, record, steps, findings)
    except TFRecordError as e:
        findings.append(Finding("unreadable_data", str(e), file=shard.uri))
    stamp = sha256(f"{record.source_stamp} {at.end - at.start} {stored_crc(data, at)} {record.num_rows}".encode())
    return Found(replace(record, source_stamp=stamp.hexdigest()[:16]), tuple(findings))


def _steps(data: Data, at: Record, known: dict[str, Spec]) -> Steps:
    features = example(data, at)
    return Steps(data, features, known or inferred_specs(data, features))


def _record(source: Source, shard: Shard, number: int, known: dict[str, Spec]) -> EpisodeRecord:
    """What is known of an episode without its record: where it is, and the cameras that all have."""
    source_id = f"{shard.key}/{number:06d}"
    return EpisodeRecord(
        episode_index=0,
        source_id=source_id,
        fps=source.config.fps or DEFAULT_FPS,
        task=None,
        data_uri=shard.uri,
        videos=tuple(CameraVideo(c, shard.uri, 0) for c in in_order(_camera_keys(known), source.config.cameras)),
        group=source_id,
        source_stamp=source.stamp([shard.folder + FEATURES], None),
    )


def _read_metadata(source: Source, record: EpisodeRecord, steps: Steps, findings: list[Finding]) -> EpisodeRecord:
    """The record with what its Example says. Raises TFRecordError."""
    keys, uri = _camera_keys(steps.specs), record.data_uri or ""
    there = {c for c, key in keys.items() if (v := steps.features.get(key)) and v.end > v.start}
    for camera in in_order(set(keys) - there if there else (), source.config.cameras):
        findings.append(Finding("missing_camera", f"no {keys[camera]}", "warning", camera=camera, file=uri))
    if not there:
        findings.append(Finding("no_video", "no feature of its steps has pictures", file=uri))
    source_id = _source_id(source, steps) or record.source_id
    group = scalar(steps, source.config.group_field) if source.config.group_field else None
    record = replace(
        record,
        source_id=source_id,
        group=source_id if group in (None, "") else str(group),
        videos=tuple(CameraVideo(c, uri, 0) for c in in_order(there, source.config.cameras)),
    )
    try:
        num_rows = num_steps(steps)
    except RowsError as e:
        findings.append(Finding(e.reason, str(e), file=uri))
        return record
    if num_rows == 0:
        findings.append(Finding("no_data", "it has no steps", file=uri))
    paths = source.config.keys.language or LANGUAGE
    tasks = tuple(dict.fromkeys(t for p in paths for t in texts(steps, p, num_rows)))
    if not tasks:
        looked = ", ".join(source.config.keys.language) or "the usual places"
        findings.append(Finding("no_task", f"no text in {looked}", "warning", file=uri))
    return replace(
        record, num_rows=num_rows, task=tasks[0] if tasks else None, tasks=tasks, success=_success(source, steps)
    )


def _source_id(source: Source, steps: Steps) -> str | None:
    """What the record calls itself; None where it does not, or the source is remote.

    The id of a remote episode must not depend on whether its shard was fetched, so it is the record's place.
    """
    if source.config.is_remote:
        return None
    parts = [scalar(steps, p) for p in source.config.keys.episode_id or EPISODE_ID]
    return None if any(p in (None, "") for p in parts) else "#".join(map(str, parts))


def _success(source: Source, steps: Steps) -> bool | None:
    """As the registry's keys say; else true where a terminal step was rewarded with 1.

    RLDS gives an action's reward in its own step, and that of a terminal step has no meaning; Open X-Embodiment gives
    it there all the same. No reward says nothing: many datasets give none.
    """
    for path in source.config.keys.success or (source.config.success_field,):
        value = scalar(steps, path)
        if isinstance(value, str):  # DROID: episodes lie in .../success/... or .../failure/...
            folders = value.lower().split("/")
            if ("success" in folders) != ("failure" in folders):
                return "success" in folders
        elif value in (0, 1):
            return value == 1
    if source.config.keys.success or scalar(steps, "is_terminal") != 1:
        return None
    return True if 1 in last_values(steps, "reward", 2) else None


def _camera_keys(specs: dict[str, Spec]) -> dict[str, str]:
    """Features that are a camera's pictures, by the camera's name: their path in the observation."""
    shown = {
        key: spec
        for key, spec in specs.items()
        if spec.kind in ("picture", "array")
        and spec.dtype in ("", "uint8")
        and key.startswith("steps/")
        and not any(word in key.lower() for word in NOT_SEEN)
    }
    start = "steps/observation/" if any(k.startswith("steps/observation/") for k in shown) else "steps/"
    return {key.removeprefix(start): key for key in shown if key.startswith(start)}


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    """State, gripper and a frame iterator per camera; reads all of the record once, for its CRC. Raises RowsError."""
    if record.data_uri is None or not record.data_key.isdecimal():
        raise RowsError("its record was not read when the dataset was listed", "no_data")
    known = specs_of(read_json(source, record.data_uri[: record.data_uri.rfind("/") + 1] + FEATURES)[0])
    try:
        data = mapped(source.resolve(record.data_uri))
        at = record_at(data, int(record.data_key))
        check_message(data, at)
        steps = _steps(data, at, known)
        rows = num_steps(steps)
        state, state_names = _vector(steps, _state_keys(source, steps), rows)
        action, action_names = _vector(steps, _action_keys(source, steps), rows)
    except (OSError, TFRecordError) as e:
        raise RowsError(str(e)) from e
    if rows != record.num_rows:
        raise RowsError(f"has {rows} steps, and had {record.num_rows} when the dataset was listed")
    rest, gripper = signals(state, action, source.config.gripper, state_names, action_names)
    keys = _camera_keys(steps.specs)

    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        if keys.get(camera) not in steps.features:
            raise VideoError(f"the record has no pictures of {camera}", "missing_camera")
        yield from timed(pictures(steps, keys[camera]), record.fps)

    return Episode(record, rest, gripper, None, frames, action)


def _state_keys(source: Source, steps: Steps) -> list[str]:
    if paths := source.config.keys.state:
        return _there(steps, paths)
    return next((_there(steps, paths) for paths in STATES if _there(steps, paths[:1])), [])


def _action_keys(source: Source, steps: Steps) -> list[str]:
    """The action, or all parts of it by name."""
    if paths := source.config.keys.action:
        return _there(steps, paths)
    parts = sorted(k for k, s in steps.specs.items() if k.startswith("steps/action/") and s.kind == "numbers")
    return _there(steps, ("action",)) or _there(steps, [p.removeprefix("steps/") for p in parts])


def _there(steps: Steps, paths: tuple[str, ...] | list[str]) -> list[str]:
    """Numeric features of the steps that some paths lead to."""
    keys = [k for p in paths if (k := steps.key(p))]
    return [k for k in keys if k.startswith("steps/") and steps.specs.get(k, Spec("numbers")).kind == "numbers"]


def _vector(steps: Steps, keys: list[str], rows: int) -> tuple[np.ndarray | None, list[str]]:
    """Features side by side, float64 [rows, d], and the name of the feature that each dimension is of."""
    parts = [matrix(steps, key, rows) for key in keys]
    names = [k.rpartition("/")[2] for k, p in zip(keys, parts, strict=True) for _ in range(p.shape[1])]
    return joined(parts), names

"""Adapter for RLDS datasets as TFDS writes them: TFRecord shards of tf.train.Example, read without TensorFlow.

One record is one episode. A listing walks the records and reads texts and small numbers; pictures are skipped by
length, and a record's CRC is checked when the episode is read. https://github.com/google-research/rlds
"""

import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np

from ingest.episode import CameraVideo, Episode, EpisodeRecord, Listing, RowsError, TimedPicture, timed
from ingest.formats.cameras import in_order
from ingest.formats.listing import ListingBuilder
from ingest.formats.proprio import joined
from ingest.formats.rlds_layout import FEATURES, Shard, configurations, described, find_shards
from ingest.formats.rlds_outcomes import evidence_of
from ingest.formats.rlds_steps import (
    NUMBERS,
    Spec,
    Specs,
    Steps,
    inferred_specs,
    matrix,
    num_steps,
    pictures,
    scalar,
    specs_of,
    texts,
    values_of,
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
from ingest.limits import Limits
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
END_MARKS = ("is_last", "is_terminal")
EPISODE_ID = ("episode_metadata/file_path", "episode_metadata/episode_id")
NOT_SEEN = ("depth", "segmentation", "mask")  # stored as pictures, and none


def recognises(source: Source) -> bool:
    """A *.tfrecord file, sharded or not, or both of TFDS's metadata files."""
    return bool(configurations(source.files))


def roots(uris: Iterable[str]) -> dict[str, str]:
    return configurations(uris)


def list_episodes(source: Source) -> Listing:
    """Episodes in order of source_id. Of a remote source with a selection, only the shards it lies in are fetched."""
    listing = RldsListing(source)
    shards = _shards_of_episodes(listing)
    # All shards of a remote source are needed then, and are fetched several at a time
    if source.selected is None:
        source.fetch(shard.uri for shard, _ in shards)
    for shard, specs in shards:
        listing.add_shard(shard, specs)
    # Only now it is known what every record calls itself
    listing.order_by_source_id()
    listing.check_episodes()
    cameras = in_order(listing.cameras_in_use(), source.config.cameras)
    return listing.listing("rlds", listing.fps, cameras)


def _shards_of_episodes(listing: ListingBuilder) -> list[tuple[Shard, Specs]]:
    """The shards of versions that are RLDS datasets, with the types of their features."""
    shards = find_shards(listing)
    specs_by_folder: dict[str, Specs | None] = {}
    for shard in shards:
        if shard.folder not in specs_by_folder:
            specs_by_folder[shard.folder] = _specs(listing, shard.folder)
    typed = [(shard, specs_by_folder[shard.folder]) for shard in shards]
    return [(shard, specs) for shard, specs in typed if specs is not None]


def _specs(listing: ListingBuilder, folder: str) -> Specs | None:
    """Types by key; {} where the records themselves must tell; None for what is no RLDS dataset."""
    uri = folder + FEATURES
    content, problem = described(listing.source, uri)
    specs = specs_of(content)
    if not specs:
        detail = f"{problem or 'names no feature'}; types are taken from the records"
        listing.warn("no_metadata", detail, file=uri)
    elif not any(key.startswith("steps/") for key in specs):
        # TFDS holds datasets of single pictures or texts just as well
        first_keys = ", ".join(list(specs)[:5])
        detail = f"has no steps: a TFDS dataset, but not of episodes (it has {first_keys})"
        listing.unusable("no_metadata", detail, file=uri)
        return None
    return specs


@dataclass
class RldsListing(ListingBuilder):
    """A dataset's episodes, at first in order of shards: what a record calls itself is known once it was read."""

    @property
    def fps(self) -> float:
        return self.source.config.fps or DEFAULT_FPS

    def add_shard(self, shard: Shard, specs: Specs) -> None:
        """Add a shard's episodes, of which those that are not selected need not be fetched."""
        num_unwanted = self._unwanted(shard)
        if num_unwanted is None:
            self._read_shard(shard, specs)
            return
        for number in range(num_unwanted):
            self.records.append(self._unread(shard, number, specs))

    def _unwanted(self, shard: Shard) -> int | None:
        """Records in the coming shard when none of them is selected; None when it must be read."""
        source = self.source
        # A shard can stay where it is only when its number of records is known without it
        if not source.config.is_remote or source.selected is None or shard.length is None:
            return None
        # Metadata that says more than the file can hold is wrong, which reading shows
        most = source.files[shard.uri].size // (HEADER_BYTES + FOOTER_BYTES)
        if shard.length > most:
            return None
        # An episode's place among the records is its index, since remote ones are known by their place
        following = self.next_index + shard.length
        is_wanted = any(self.next_index <= index < following for index in source.selected)
        return None if is_wanted else shard.length

    def _read_shard(self, shard: Shard, specs: Specs) -> None:
        """Add the records of one shard, with findings about the file itself."""
        count = 0
        try:
            data = _without_reading_ahead(mapped(self.source.resolve(shard.uri)))
            # A clone made without git-LFS has a short text in the place of each shard
            if data[: len(LFS_MARK)] == LFS_MARK:
                self.unusable("lfs_pointer", "a git-LFS pointer, not a shard", file=shard.uri)
                return
            for number, at in enumerate(records(data)):
                count += 1
                self.records.append(self._read(shard, number, specs, data, at))
        except (OSError, TFRecordError) as e:
            # What was read before the damage stays
            after = f"; {count} of its {shard.length} records were read" if shard.length else f" after {count} records"
            self.unusable("unreadable_data", f"{e}{after}", file=shard.uri)
            return
        # The copy may be of another version than the dataset_info.json beside it
        if shard.length not in (None, count):
            detail = f"dataset_info.json says {shard.length} records, the file has {count}"
            self.warn("length_differs", detail, file=shard.uri)

    def _unread(self, shard: Shard, number: int, specs: Specs) -> EpisodeRecord:
        """What is known of an episode without its record: where it is, and the cameras that all have."""
        config = self.source.config
        # Its place is its name until the record itself says another
        source_id = f"{shard.key}/{number:06d}"
        cameras = in_order(_camera_keys(specs), config.cameras)
        return EpisodeRecord(
            episode_index=self.next_index,
            source_id=source_id,
            fps=self.fps,
            task=None,
            data_uri=shard.uri,
            videos=tuple(CameraVideo(camera, shard.uri, 0) for camera in cameras),
            group=source_id,
            source_stamp=self.source.stamp([shard.folder + FEATURES], None),
        )

    def _read(self, shard: Shard, number: int, specs: Specs, data: Data, at: Record) -> EpisodeRecord:
        """One episode, with findings about what cannot be read of it."""
        # The offset leads back to the record when the episode is read
        record = replace(self._unread(shard, number, specs), data_key=str(at.offset))
        # A download that broke off ends within a record, which is listed all the same
        if not is_whole(data, at):
            num_missing = at.end + FOOTER_BYTES - len(data)
            detail = f"cut off: {num_missing} bytes are missing"
            self.unusable("unreadable_data", detail, self.next_index, file=shard.uri)
            return record
        # A record that is no Example keeps its place, so that the places of later ones do not change
        try:
            steps = _steps(data, at, specs, self.source.config.limits)
            record = self._counted(self._described(record, steps), steps)
        except TFRecordError as e:
            self.unusable(e.reason, str(e), self.next_index, file=shard.uri)
        # The stored CRC changes with the contents, and is there without reading them
        crc = stored_crc(data, at)
        stamp = sha256(f"{record.source_stamp} {at.end - at.start} {crc} {record.num_rows}".encode())
        return replace(record, source_stamp=stamp.hexdigest()[:16])

    def _described(self, record: EpisodeRecord, steps: Steps) -> EpisodeRecord:
        """The record with its id, group and cameras as its Example says. Raises TFRecordError."""
        config, uri = self.source.config, record.data_uri or ""
        cameras = self._cameras(uri, steps)
        source_id = _source_id(self.source, steps) or record.source_id
        group = scalar(steps, config.group_field) if config.group_field else None
        return replace(
            record,
            source_id=source_id,
            group=source_id if group in (None, "") else str(group),
            videos=tuple(CameraVideo(camera, uri, 0) for camera in cameras),
        )

    def _cameras(self, uri: str, steps: Steps) -> list[str]:
        """Cameras that a record has pictures of, by preference, with findings about those that it lacks."""
        keys = _camera_keys(steps.specs)
        present = {camera for camera, key in keys.items() if steps.has_values(key)}
        if not present:
            self.unusable("no_video", "no feature of its steps has pictures", self.next_index, file=uri)
            return []
        for camera in in_order(keys.keys() - present, self.source.config.cameras):
            self.warn("missing_camera", f"no {keys[camera]}", self.next_index, camera=camera, file=uri)
        return in_order(present, self.source.config.cameras)

    def _counted(self, record: EpisodeRecord, steps: Steps) -> EpisodeRecord:
        """The record with its rows, instructions and success; as it is where it has no rows. Raises TFRecordError."""
        config, uri = self.source.config, record.data_uri or ""
        try:
            num_rows = num_steps(steps)
        except RowsError as e:
            self.unusable(e.reason, str(e), self.next_index, file=uri)
            return record
        if num_rows == 0:
            self.unusable("no_data", "it has no steps", self.next_index, file=uri)
        # Several features may hold a text; each text is kept once
        instructions: list[str] = []
        for path in config.keys.language or LANGUAGE:
            instructions += texts(steps, path, num_rows)
        tasks = tuple(dict.fromkeys(instructions))
        if not tasks:
            looked = ", ".join(config.keys.language) or "the usual places"
            self.warn("no_task", f"no text in {looked}", self.next_index, file=uri)
        if num_rows and _never_ends(steps):
            self.warn("never_ends", f"none of its {num_rows} steps is marked as its end", self.next_index, file=uri)
        # The first text is the instruction; the registry's policy may choose another later
        task = next(iter(tasks), None)
        self.evidence[self.next_index] = evidence_of(steps, num_rows, config.keys.success, config.success_field)
        return replace(record, num_rows=num_rows, task=task, tasks=tasks)

    def order_by_source_id(self) -> None:
        """Give episodes the indices of that order; their findings come in it, too, after those of files."""
        self.records.sort(key=lambda r: r.source_id)
        final: dict[int | None, int | None] = {None: None}
        for index, record in enumerate(self.records):
            final[record.episode_index] = index
        self.records = [replace(record, episode_index=index) for index, record in enumerate(self.records)]
        self.evidence = {final[index] or 0: evidence for index, evidence in self.evidence.items()}
        self.findings = [replace(finding, episode_index=final[finding.episode_index]) for finding in self.findings]
        self.findings.sort(key=lambda f: -1 if f.episode_index is None else f.episode_index)

    def check_episodes(self) -> None:
        """Find what all episodes together lack."""
        if not self.records and not any(finding.severity == "unusable" for finding in self.findings):
            self.lists_nothing("no TFRecord shard with records")
        if self.records and not self.source.config.fps:
            detail = f"RLDS does not say it and the registry entry has no fps; {DEFAULT_FPS:g} per second is used"
            self.warn("no_frame_rate", detail)
        self._say_once_what_all_lack()

    def _say_once_what_all_lack(self) -> None:
        """Where every episode that was read never ends, one finding says so instead of one each."""
        endless = [finding for finding in self.findings if finding.reason == "never_ends"]
        if len(endless) > 1 and len(endless) == sum(bool(record.num_rows) for record in self.records):
            self.findings = [finding for finding in self.findings if finding.reason != "never_ends"]
            self.warn("never_ends", f"none of its {len(endless)} episodes has a step that is marked as its end")


def _never_ends(steps: Steps) -> bool:
    """Do the marks of the last step exist, and mark none? So a run that was cut off looks, and one badly converted."""
    marks = [values_of(steps, name) for name in END_MARKS]
    return any(map(len, marks)) and not any(values.any() for values in marks)


def _without_reading_ahead(data: Data) -> Data:
    """A listing skips pictures, which are most of a shard."""
    if isinstance(data, mmap.mmap):
        data.madvise(mmap.MADV_RANDOM)
    return data


def _steps(data: Data, at: Record, specs: Specs, limits: Limits) -> Steps:
    features = example(data, at, limits)
    return Steps(data, features, specs or inferred_specs(data, features, limits), limits)


def _source_id(source: Source, steps: Steps) -> str | None:
    """What the record calls itself; None where it does not, or the source is remote.

    The id of a remote episode must not depend on whether its shard was fetched, so it is the record's place.
    """
    if source.config.is_remote:
        return None
    parts = [scalar(steps, p) for p in source.config.keys.episode_id or EPISODE_ID]
    return None if any(p in (None, "") for p in parts) else "#".join(map(str, parts))


def _camera_keys(specs: Specs) -> dict[str, str]:
    """Features that are a camera's pictures, by the camera's name: their path in the observation."""
    keys = [key for key, spec in specs.items() if key.startswith("steps/") and _is_camera(key, spec)]
    observed = [key for key in keys if key.startswith("steps/observation/")]
    if observed:
        return {key.removeprefix("steps/observation/"): key for key in observed}
    return {key.removeprefix("steps/"): key for key in keys}


def _is_camera(key: str, spec: Spec) -> bool:
    is_picture = spec.kind in ("picture", "array") and spec.dtype in ("", "uint8")
    return is_picture and not any(word in key.lower() for word in NOT_SEEN)


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    """State, gripper and a frame iterator per camera; reads all of the record once, for its CRC. Raises RowsError."""
    # A record of a remote shard that was not asked for has no offset
    if record.data_uri is None or not record.data_key.isdecimal():
        raise RowsError("its record was not read when the dataset was listed", "no_data")
    folder = record.data_uri[: record.data_uri.rfind("/") + 1]
    specs = specs_of(described(source, folder + FEATURES)[0])
    try:
        data = mapped(source.resolve(record.data_uri))
        at = record_at(data, int(record.data_key))
        # Only now all of the record is read: a listing looks at texts and numbers alone
        check_message(data, at)
        steps = _steps(data, at, specs, source.config.limits)
        num_rows = num_steps(steps)
        state, state_names = _vector(steps, _state_keys(source, steps), num_rows)
        action, action_names = _vector(steps, _action_keys(source, steps), num_rows)
    except TFRecordError as e:
        raise RowsError(str(e), e.reason) from e
    except OSError as e:
        raise RowsError(str(e)) from e
    # The shard was replaced since: what the corpus says of the episode is of other rows
    if num_rows != record.num_rows:
        raise RowsError(f"has {num_rows} steps, and had {record.num_rows} when the dataset was listed")
    keys = _camera_keys(steps.specs)

    # Pictures stay in the record's bytes until a frame is asked for
    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        if keys.get(camera) not in steps.features:
            raise VideoError(f"the record has no pictures of {camera}", "missing_camera")
        yield from timed(pictures(steps, keys[camera]), record.fps)

    return Episode(record, state, action, None, frames, tuple(state_names), tuple(action_names))


def _state_keys(source: Source, steps: Steps) -> list[str]:
    """The registry's, else those of the first layout whose first part is there."""
    registered = source.config.keys.state
    if registered:
        return _numeric_keys(steps, registered)
    for paths in STATES:
        if _numeric_keys(steps, paths[:1]):
            return _numeric_keys(steps, paths)
    return []


def _action_keys(source: Source, steps: Steps) -> list[str]:
    """The registry's, else the action, or all parts of it by name."""
    registered = source.config.keys.action
    if registered:
        return _numeric_keys(steps, registered)
    action = _numeric_keys(steps, ["action"])
    if action:
        return action
    parts = [key for key, spec in steps.specs.items() if key.startswith("steps/action/") and spec.kind == "numbers"]
    return _numeric_keys(steps, [key.removeprefix("steps/") for key in sorted(parts)])


def _numeric_keys(steps: Steps, paths: Sequence[str]) -> list[str]:
    """Numeric features of the steps that some paths lead to."""
    keys = []
    for path in paths:
        key = steps.key(path)
        if key and key.startswith("steps/") and steps.specs.get(key, NUMBERS).kind == "numbers":
            keys.append(key)
    return keys


def _vector(steps: Steps, keys: list[str], num_rows: int) -> tuple[np.ndarray | None, list[str]]:
    """Features side by side, float64 [num_rows, d], and the name of the feature that each dimension is of."""
    parts = [matrix(steps, key, num_rows) for key in keys]
    names: list[str] = []
    for key, part in zip(keys, parts, strict=True):
        names += [key.rpartition("/")[2]] * part.shape[1]
    return joined(parts), names

"""Adapter for RLDS datasets as TFDS writes them: TFRecord shards of tf.train.Example, read without TensorFlow.

One record is one episode. A listing walks the records and reads texts and small numbers; pictures are skipped by
length, and a record's CRC is checked when the episode is read. https://github.com/google-research/rlds
"""

import mmap
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from core.values import short_hash
from ingest.episode import CameraVideo, EpisodeData, EpisodeRecord, Listing, PartKind, Picture
from ingest.formats import rlds_steps
from ingest.formats.facts import instruction
from ingest.formats.listing import (
    BY_NAME,
    DEFAULT_FPS,
    ListingBuilder,
    in_order,
    named,
    texts_among,
)
from ingest.formats.rlds_files import (
    FEATURES,
    FOOTER_BYTES,
    HEADER_BYTES,
    Data,
    Record,
    Shard,
    check_message,
    configurations,
    example,
    find_shards,
    is_whole,
    mapped,
    read_description,
    record_at,
    records,
    stored_crc,
)
from ingest.formats.rlds_steps import (
    RAGGED,
    ROW_LENGTHS,
    STEPS,
    Labels,
    RldsRecord,
    Spec,
    Specs,
    camera_keys,
    matrix,
    path_of,
    pictures,
    texts_by_key,
    unreadable,
)
from ingest.formats.side_files import read_text
from ingest.formats.tree import Part, Roles, Use, Uses, fields
from ingest.formats.tree import account as account_for
from ingest.formats.tree_reader import read_tree, roles_of, why_known
from ingest.formats.writers import RLDS_WRITERS, writer_of
from ingest.outcomes import (
    Ending,
    OutcomeEvidence,
    deep_fields,
    ends_early,
    evidence_of,
    fields_of,
    folder_outcome,
    known,
    truth,
)
from ingest.reasons import DataError, Limits
from ingest.registry import DatasetConfig, Keys
from ingest.sources.files import Source
from ingest.sources.types import LFS_MARK

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
END_MARKS = ("is_last", "is_terminal")
START_MARK = "is_first"
EPISODE_ID = ("episode_metadata/file_path", "episode_metadata/episode_id")
# DROID's lie in success or failure
PATHS = ("episode_metadata/file_path", "episode_metadata/recording_folderpath")
REWARD = "reward"
TERMINAL = "is_terminal"
# Other formats of files that TFDS writes
OTHER_SHARD = re.compile(r"\.(array_record|riegeli|parquet)(-\d+-of-\d+)?$")


roots = configurations  # by *.tfrecord files, sharded or not, or both of TFDS's metadata files


# Listing


def list_episodes(source: Source) -> Listing:
    """Episodes in order of source_id. Of a remote source with a selection, only the shards it lies in are fetched."""
    listing = ListingBuilder(source)
    fps = source.config.fps or DEFAULT_FPS
    shards = find_shards(listing)
    folders = dict.fromkeys(shard.folder for shard in shards)
    by_folder = {folder: _specs(listing, folder) for folder in folders}
    labels = {folder: _labels(source, folder, specs or {}) for folder, specs in by_folder.items()}
    read = [(shard, specs) for shard in shards if (specs := by_folder[shard.folder]) is not None]
    # All shards of a remote source are needed then, and are fetched several at a time
    if source.selected is None:
        source.fetch(shard.uri for shard, _ in read)
    for shard, specs in read:
        if not _left_out(listing, shard, specs):
            _read_shard(listing, shard, specs, labels[shard.folder])
    _order_by_source_id(listing)
    _find_in_all(listing)
    return listing.listing(
        "rlds", in_order(listing.cameras_in_use(), source.config.cameras), fps=fps
    )


def _find_in_all(listing: ListingBuilder) -> None:
    """What is so for the dataset as a whole; where every episode that was read never ends, that is one finding."""
    if not listing.records and not any(
        finding.severity == "unusable" for finding in listing.findings
    ):
        if other_shards := [uri for uri in listing.source.files if OTHER_SHARD.search(uri)]:
            listing.unusable(
                "other_layout",
                f"its {len(other_shards)} shards are not TFRecord files (first: {other_shards[0]})",
            )
        else:
            listing.lists_nothing("no TFRecord shard with records")
    endless = [finding for finding in listing.findings if finding.reason == "never_ends"]
    if len(endless) > 1 and len(endless) == sum(
        bool(record.num_rows) for record in listing.records
    ):
        listing.findings = [
            finding for finding in listing.findings if finding.reason != "never_ends"
        ]
        listing.warn(
            "never_ends",
            f"none of its {len(endless)} episodes has a step that is marked as its end",
        )


def _specs(listing: ListingBuilder, folder: str) -> Specs | None:
    """Types by key; {} where the records themselves must tell; None for what is no RLDS dataset."""
    uri = folder + FEATURES
    content, problem = read_description(listing.source, uri)
    specs = rlds_steps.specs_of(content)
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


def _labels(source: Source, folder: str, specs: Specs) -> Labels:
    """Names of the classes of each ClassLabel, which TFDS keeps in a file of its own. Raises DataError."""
    uris = {key: f"{folder}{key.replace('/', '-')}.labels.txt" for key in specs}
    is_there = source.files.__contains__
    return {
        key: read_text(source, uri, "replace").splitlines()
        for key, uri in uris.items()
        if is_there(uri)
    }


def _left_out(listing: ListingBuilder, shard: Shard, specs: Specs) -> bool:
    """Add the coming shard's episodes without reading them, where none is selected and their number is known."""
    source = listing.source
    count = shard.length or 0
    # Metadata that says more than the file can hold is wrong, which reading shows
    max_records = source.files[shard.uri].size // (HEADER_BYTES + FOOTER_BYTES)
    # An episode's place among the records is its index, since remote ones are known by their place
    if (
        not source.config.is_remote
        or source.selected is None
        or not 0 < count <= max_records
        or {*range(listing.next_index, listing.next_index + count)} & source.selected
    ):
        return False
    for number in range(count):
        listing.add(**_place(listing, shard, number, specs))
    return True


def _place(listing: ListingBuilder, shard: Shard, number: int, specs: Specs) -> dict[str, Any]:
    """What is known of an episode without its record: where it is, and the cameras that all have."""
    source = listing.source
    cameras = in_order(camera_keys(specs.items()), source.config.cameras)
    return {
        "source_id": f"{shard.key}/{number:06d}",  # until the record itself says another
        "fps": listing.fps(None),  # RLDS does not say it
        "data_uri": shard.uri,
        "videos": [CameraVideo(camera, shard.uri, 0) for camera in cameras],
        "source_stamp": source.stamp([shard.folder + FEATURES], None),
    }


def _read_shard(listing: ListingBuilder, shard: Shard, specs: Specs, labels: Labels) -> None:
    """Add the records of one shard, with findings about the file itself."""
    count = 0
    try:
        data = mapped(listing.source.resolve(shard.uri))
        if isinstance(data, mmap.mmap):
            data.madvise(mmap.MADV_RANDOM)  # pictures, most of a shard, are skipped
        # A clone made without git-LFS has a short text in the place of each shard
        if data[: len(LFS_MARK)] == LFS_MARK:
            listing.unusable("lfs_pointer", "a git-LFS pointer, not a shard", file=shard.uri)
            return
        for number, record in enumerate(records(data)):
            count += 1
            _read(listing, _place(listing, shard, number, specs), specs, labels, data, record)
    except DataError as e:
        # What was read before the damage stays
        if shard.length:
            progress_note = f"; {count} of its {shard.length} records were read"
        else:
            progress_note = f" after {count} records"
        listing.unusable("unreadable_data", f"{e}{progress_note}", file=shard.uri)
        return
    # The copy may be of another version than the dataset_info.json beside it
    if shard.length not in (None, count):
        detail = f"dataset_info.json says {shard.length} records, the file has {count}"
        listing.warn("length_differs", detail, file=shard.uri)


def _read(
    listing: ListingBuilder,
    fields: dict[str, Any],
    specs: Specs,
    labels: Labels,
    data: Data,
    record: Record,
) -> None:
    """Add one episode, with findings about what cannot be read of it."""
    uri = fields["data_uri"]
    config = listing.source.config
    fields["data_key"] = str(record.offset)  # leads back to the record when the episode is read
    # A record that is no Example keeps its place, so that the places of later ones do not change. A download that broke
    # off ends within a record, which is listed all the same
    is_there = is_whole(data, record)
    try:
        if not is_there:
            missing = record.end + FOOTER_BYTES - len(data)
            raise DataError(f"cut off: {missing} bytes are missing")
        steps = replace(_steps(data, record, specs, config.limits), labels=labels)
        fields["videos"] = [CameraVideo(camera, uri, 0) for camera in _cameras(listing, uri, steps)]
        fields["source_id"] = _source_id(listing.source, steps) or fields["source_id"]
        group = rlds_steps.scalar(steps, config.group_field) if config.group_field else None
        fields["group"] = "" if group in (None, "") else str(group)
        fields["num_rows"] = num_rows = rlds_steps.num_steps(steps)
        fields |= _texts_and_outcome(listing, uri, steps, num_rows)
    except DataError as e:
        listing.unusable_next(e.reason, str(e), uri)
    # The stored CRC changes with the contents, and is there without reading them
    if is_there:
        stamp = (
            f"{fields['source_stamp']} {record.end - record.start} {stored_crc(data, record)} "
            f"{fields.get('num_rows')}"
        )
        fields["source_stamp"] = short_hash(stamp)
    listing.add(**fields)


def _texts_and_outcome(
    listing: ListingBuilder, uri: str, steps: RldsRecord, num_rows: int
) -> dict[str, Any]:
    """Instructions and what tells the outcome of the coming episode. Raises DataError."""
    config = listing.source.config
    if num_rows == 0:
        listing.unusable_next("no_data", "it has no steps", uri)
    for name in INVALID:
        if truth(rlds_steps.scalar(steps, name)):
            listing.unusable_next("known_bad", f"{name} is set", uri)
    # All usual texts are kept: the registry's policy may choose another than the first later
    text_keys, tasks = instruction(
        listing,
        uri,
        LANGUAGE,
        partial(rlds_steps.texts, steps, num_rows=num_rows),
        partial(texts_by_key, steps, num_rows),
        partial(rlds_steps.has_text_each, steps, num_rows=num_rows),
        are_all=True,
    )
    _find_ends(listing, uri, steps, num_rows)
    tree = RecordTree(steps, config.keys, num_rows)
    roles = tree.roles()
    unnamed = [
        path for path in LANGUAGE if config.keys.language and path not in config.keys.language
    ]
    overruled = {**roles.overruled, **dict.fromkeys(unnamed, "the registry entry names others")}
    evidence, outcomes = _evidence(steps, num_rows, config)
    account(listing, uri, tree, roles, _uses(steps, config, text_keys, outcomes), overruled)
    searched_places = ", ".join(config.keys.language) or "the usual places"
    return {
        "tasks": tasks,
        "no_task": f"no text in {searched_places}",
        "evidence": evidence,
    }


def _find_ends(listing: ListingBuilder, uri: str, steps: RldsRecord, num_rows: int) -> None:
    """What is wrong with the marks of the coming episode's first and last step. Raises DataError."""
    # Do the marks of the last step exist, and mark none? So a run that was cut off looks, and one badly converted
    marks = np.concatenate([rlds_steps.values_of(steps, name) for name in END_MARKS])
    if num_rows and len(marks) and not marks.any():
        listing.warn_next("never_ends", f"none of its {num_rows} steps is marked as its end", uri)
    for name in (*END_MARKS, START_MARK):
        marks = rlds_steps.values_of(steps, name)
        if ends_early(marks[::-1] if name == START_MARK else marks):
            rows = named([str(row) for row in np.flatnonzero(marks)])
            listing.warn_next(
                "bad_episode_ends", f"{name} is set in steps {rows} of {num_rows}", uri
            )


def _uses(
    steps: RldsRecord, config: DatasetConfig, texts: Sequence[str], outcomes: Sequence[str]
) -> Uses:
    """What features are used for that are neither rows nor cameras, by key."""
    places: Mapping[str, Sequence[str]] = {
        "instruction": texts,
        "outcome": [*outcomes, *PATHS, REWARD, TERMINAL],
        "length": ["steps/is_last"],
        "name": config.keys.episode_id or EPISODE_ID,
        "group": [config.group_field] if config.group_field else [],
        "mark": INVALID,
    }
    # Of two uses the first counts
    uses: dict[str, Use] = {}
    for use, paths in places.items():
        keys = (steps.keys.get(path, path) for path in paths)
        uses = dict.fromkeys(keys, (use, BY_NAME)) | uses
    return uses


def _cameras(listing: ListingBuilder, uri: str, steps: RldsRecord) -> list[str]:
    """Cameras that a record has pictures of, by preference, with findings about those that it lacks."""
    keys = camera_keys(steps.specs.items())
    registry = listing.source.config.cameras
    present = {
        camera
        for camera, key in keys.items()
        if steps.has_values(key) and _shows(listing, uri, steps, key)
    }
    if not present:
        listing.unusable_next("no_video", "no feature of its steps has pictures", uri)
        return []
    for camera in in_order(keys.keys() - present, registry):
        listing.warn_next("missing_camera", f"no {keys[camera]}", uri, camera)
    return in_order(present, registry)


def _shows(listing: ListingBuilder, uri: str, steps: RldsRecord, key: str) -> bool:
    """Are the values of a feature pictures'? Those of floating-point numbers tell. Raises DataError."""
    if steps.specs[key].kind != "array" or rlds_steps.picture_form(steps, key) is not None:
        return True
    listing.warn_next("undecodable_video", f"{key} holds values that are no picture's", uri, key)
    return False


def _order_by_source_id(listing: ListingBuilder) -> None:
    """Give episodes the indices of that order; their findings come in it, too, after those of files."""
    listing.records.sort(key=lambda r: r.source_id)
    final: dict[int | None, int | None] = {None: None}
    final |= {record.episode_index: index for index, record in enumerate(listing.records)}
    listing.records = [
        replace(record, episode_index=index) for index, record in enumerate(listing.records)
    ]
    listing.evidence = {final[index] or 0: evidence for index, evidence in listing.evidence.items()}
    listing.findings = [
        replace(finding, episode_index=final[finding.episode_index]) for finding in listing.findings
    ]
    listing.findings.sort(key=lambda f: -1 if f.episode_index is None else f.episode_index)


def _steps(data: Data, record: Record, specs: Specs, limits: Limits) -> RldsRecord:
    features = example(data, record, limits)
    return RldsRecord(data, features, specs or rlds_steps.inferred_specs(data, features), limits)


def _source_id(source: Source, steps: RldsRecord) -> str | None:
    """What the record calls itself; None where it does not, or the source is remote.

    The id of a remote episode must not depend on whether its shard was fetched, so it is the
    record's place.
    """
    if source.config.is_remote:
        return None
    parts = [rlds_steps.scalar(steps, p) for p in source.config.keys.episode_id or EPISODE_ID]
    if any(p in (None, "") for p in parts):
        return None
    return "#".join(map(str, parts))


# Outcomes


def _evidence(
    steps: RldsRecord, num_rows: int, config: DatasetConfig
) -> tuple[OutcomeEvidence, list[str]]:
    """What an episode shows of its outcome: flags, texts that are paths, the reward, how it ended; and the features
    that tell it. Where the registry says what to look at, nothing else is. Raises DataError.
    """
    registered = config.keys.success or (config.success_field,)

    def fact(name: str) -> tuple[Any, np.ndarray]:
        """What is beside the steps is stated once; what is in them has a value of each."""
        is_of_steps = steps.keys.get(name, "").startswith("steps/")
        values = rlds_steps.values_of(steps, name) if is_of_steps else np.zeros(0)
        # RLDS gives an action's reward in its own step, and that of the last step has no meaning; Open X-Embodiment
        # gives it there all the same. Several per step are parts of a reward, of which none is the whole
        if name == REWARD:
            values = values if len(values) == num_rows else np.zeros(0)
            values = values[:-1] if values[-2:].tolist() == [1, 0] else values
        # The name of a class rather than its number
        value = rlds_steps.label_of(steps, name)
        if value is None:
            value = rlds_steps.scalar(steps, name)
        return None if is_of_steps and name not in registered else value, known(values)

    if config.keys.success:
        return evidence_of(fact, registered, registered, ())
    deep = [
        path
        for path in deep_fields(map(path_of, steps.specs))
        if not path.startswith("episode_metadata/")
    ]
    fields = (*fields_of(config.success_field), *deep)
    evidence, telling = evidence_of(fact, fields, registered, (REWARD,))
    paths = texts_among(rlds_steps.scalar(steps, name) for name in PATHS)
    ends = rlds_steps.values_of(steps, TERMINAL)
    if num_rows and len(ends) == num_rows:
        evidence = replace(evidence, ending=Ending(TERMINAL, bool(ends[-1] == 1)))
    return replace(evidence, folder=folder_outcome(*paths)), telling


# Reading


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """State, gripper and a frame iterator per camera; reads all of the record once, for its CRC. Raises DataError."""
    # A record of a remote shard that was not asked for has no offset
    if record.data_uri is None or not record.data_key.isdecimal():
        raise DataError("its record was not read when the dataset was listed", "no_data")
    folder = record.data_uri[: record.data_uri.rfind("/") + 1]
    description, _ = read_description(source, folder + FEATURES)
    specs = rlds_steps.specs_of(description)
    data = mapped(source.resolve(record.data_uri))
    stored_record = record_at(data, int(record.data_key))
    # Only now all of the record is read: a listing looks at texts and numbers alone
    check_message(data, stored_record)
    steps = _steps(data, stored_record, specs, source.config.limits)
    # Pictures stay in the record's bytes until a frame is asked for
    tree = RecordTree(steps, source.config.keys, rlds_steps.num_steps(steps))
    return read_tree(record, lambda: nullcontext(tree))


# What features are: state, action, cameras and texts; and what each other one is, or why not used. Open X-Embodiment's
# converters keep the state in places of their own, which are a table by dataset; else names tell

KINDS: tuple[PartKind, PartKind] = ("column", "text")
INVALID = ("invalid", "is_invalid", "episode_invalid")


class RecordTree(NamedTuple):
    """A tree (`tree.Tree`) of the features of a record, whose `roles` are by paths in a step, the rest by keys."""

    steps: RldsRecord
    keys: Keys
    num_rows: int

    def problems(self) -> dict[str, str]:
        """Why some numbers of the steps cannot be read. Raises DataError."""
        keys = [key for key, spec in self.steps.specs.items() if spec.kind == "numbers"]
        keys = [key for key in keys if key.startswith(STEPS) and self.steps.has_values(key)]
        problems = {key: unreadable(self.steps, key) for key in keys}
        return {key: problem for key, problem in problems.items() if problem}

    def parts(self) -> list[Part]:
        parts: list[Part] = []
        steps = self.steps
        for key, spec in steps.specs.items():
            if not steps.has_values(key) and spec.kind != "other":
                continue
            is_text = spec.kind == "text"
            kind = "camera" if spec.is_picture else KINDS[is_text]
            dtype = spec.dtype or "text" * is_text
            title = key.removesuffix(RAGGED)
            holds_pictures = spec.kind in ("picture", "array")
            parts.append(Part(key, kind, spec.shape or (), dtype, None, title, holds_pictures))
        undescribed = [
            key for key in steps.features if key not in steps.specs and ROW_LENGTHS not in key
        ]
        return parts + fields("", filter(steps.has_values, undescribed), "column")

    def roles(self) -> Roles:
        problems = self.problems()
        readable = (
            (path_of(key), spec)
            for key, spec in self.steps.specs.items()
            if key.startswith(STEPS) and spec.kind == "numbers" and key not in problems
            if self.steps.has_values(key)
        )
        return _roles(tuple(readable), self.keys.state, self.keys.action)

    def cameras(self) -> dict[str, str]:
        cameras = camera_keys(self.steps.specs.items())
        return {camera: key for camera, key in cameras.items() if key in self.steps.features}

    def read(self, path: str, rows: slice) -> np.ndarray:
        return matrix(self.steps, self.steps.keys.get(path, path), self.num_rows)[rows]

    def pictures(self, path: str, rows: slice) -> Iterator[Picture]:
        return islice(pictures(self.steps, path), rows.start, rows.stop)


@lru_cache(maxsize=64)
def _roles(
    numeric: tuple[tuple[str, Spec], ...], state: tuple[str, ...], action: tuple[str, ...]
) -> Roles:
    parts = [
        Part(path, shape=(2, *(spec.static if spec.shape else (1,)))) for path, spec in numeric
    ]
    paths = {part.path for part in parts}
    writer = writer_of(RLDS_WRITERS, paths)
    # All of a dictionary of actions is the action, whatever its parts are called
    in_parts = tuple(sorted(path for path in paths if path.startswith("action/")))
    writer = writer and writer._replace(action=(*writer.action, in_parts))
    # Times of steps are in no unit that RLDS states
    return roles_of(parts, Keys(state=state, action=action), writer)._replace(times="")


def account(
    listing: ListingBuilder,
    uri: str,
    tree: RecordTree,
    roles: Roles,
    uses: Uses,
    overruled: Mapping[str, str],
) -> None:
    """Record every feature of a record; `uses`: what those are used for that are neither rows nor cameras, by key;
    `overruled`: why others are not, by path.
    """
    steps = tree.steps

    def why_left_out(part: Part) -> str:
        if part.path not in steps.specs:
            return ""
        path = path_of(part.path)
        reason = overruled.get(path) or why_known(part._replace(path=path), roles.writer)
        return reason or _blank(steps, part.path)

    all_uses = {steps.keys.get(path, path): use for path, use in roles.uses.items()}
    all_uses |= dict.fromkeys(tree.cameras().values(), ("camera", "its type says so"))
    parts = [part._replace(file=uri) for part in tree.parts()]
    account_for(listing.parts, parts, {**all_uses, **uses}, why_left_out, problems=tree.problems())


def _blank(steps: RldsRecord, key: str) -> str:
    """Why a text is none: in no step it has a letter."""
    is_text = steps.specs[key].kind == "text" and steps.features[key].kind == "bytes"
    if is_text and all(start == end for start, end in steps.spans(key)):
        return "it holds no text"
    return ""

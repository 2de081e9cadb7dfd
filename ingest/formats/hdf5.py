"""Adapter for HDF5 files: episodes in groups of a file (LIBERO, robomimic, Isaac Lab, ManiSkill), one per file (ALOHA,
RoboMIND), or the rows of all one after the other.

What is a camera is found by looking: datasets of pictures, raw or encoded. State, action, time,
texts and success are looked for where the file's writer keeps them (`writers`), by their names
(`tree_reader`), or where the registry's `keys` say, as paths below the episode.
"""

import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from typing import Any

import h5py

from ingest.episode import CameraVideo, EpisodeData, EpisodeRecord, Listing, SourcePart
from ingest.formats import hdf5_file as h5
from ingest.formats.facts import (
    instruction,
    is_rate_name,
    length_problem,
    rate_of_rows,
    spelt,
)
from ingest.formats.hdf5_episodes import STEP_NAMES, episode_keys, flat_ends
from ingest.formats.hdf5_parts import (
    OTHER_RATE,
    TEXT_KEYS,
    EpisodePlace,
    account,
    account_beside,
    opened_place,
    stated_lengths,
    stated_rates,
    texts_of,
    why_fact_known,
)
from ingest.formats.listing import (
    NEITHER_TRUE_NOR_FALSE,
    REGISTERED,
    ROWS_BEYOND,
    ListingBuilder,
    in_order,
    named,
    scene_first,
)
from ingest.formats.row_pictures import (
    pictures_beside,
    rate_by_video,
    with_frames_beside,
)
from ingest.formats.tree import ALL_ROWS, Part, Roles, Uses
from ingest.formats.tree_reader import read_tree, stored_times
from ingest.formats.writers import Writer
from ingest.outcomes import SUCCESS_FIELDS, deep_fields, folder_outcome
from ingest.reasons import DataError, guarded
from ingest.registry import DatasetConfig
from ingest.sources.files import Source

TEXTS_IN_JSON = {
    "problem_info": "language_instruction",
    "ep_meta": "lang",
}  # of LIBERO, of robocasa
LIBERO_FILE = re.compile(r"(?:[A-Z]+(?:_[A-Z]+)*_SCENE[0-9]+_)?(.+)_demo$")
NUMBERED = re.compile(r"[0-9]")


def roots(uris: Iterable[str]) -> dict[str, str]:
    return {posixpath.dirname(uri): "" for uri in _files(uris)}


def _files(uris: Iterable[str]) -> list[str]:
    return [
        uri
        for uri in uris
        if uri.lower().endswith(h5.SUFFIXES) and not uri.endswith("proprio_stats.h5")
    ]


# Listing


def list_episodes(source: Source) -> Listing:
    return list_files(source, "hdf5", _files(source.files))


def list_files(
    source: Source, format_: str, uris: Iterable[str], convention: Writer | None = None
) -> Listing:
    """Episodes of some files; `convention`: that of their writer, where it is known."""
    listing = ListingBuilder(source)
    for uri in sorted(uris, key=h5.natural):
        num_before = len(listing.records)
        try:
            with h5.opened(source, uri) as file:
                keys = episode_keys(file, source.config.limits)
                containers: defaultdict[str, dict[str, Any]] = defaultdict(dict)
                for k, key in enumerate(keys):
                    above = containers[key.rpartition("/")[0]]
                    among = h5.EpisodeSlice(ALL_ROWS, k, len(keys))
                    _add_readable(listing, uri, key, file, above, among, convention)
                account_beside(listing, uri, file, keys, source.config.limits)
        except DataError as e:
            # A file counts as one lost episode only where none of its episodes was listed before the error
            if len(listing.records) == num_before:
                listing.add_lost(e, uri, uri)
            else:
                listing.warn(e.reason, f"episodes of it may be missing: {e}", file=uri)
    listing.find_counted()
    cameras = scene_first(listing.cameras_in_use(), source.config.cameras)
    listing.find_missing(sorted(cameras), "no pictures of {}, which other episodes have")
    return listing.listing(format_, cameras, nothing="no file holds an episode")


def _add_readable(
    listing: ListingBuilder,
    uri: str,
    key: str,
    file: h5py.File,
    above: dict[str, Any],
    among: h5.EpisodeSlice,
    convention: Writer | None,
) -> None:
    """Add one episode, or those of a flat file; as lost where it cannot be read. `among`: its place in the file."""
    num_findings = len(listing.findings)
    num_records = len(listing.records)
    # A name that has the group's, not its place, which other episodes of the file would move
    last = key.rpartition("/")[2]
    source_id = f"{uri}#{last if key == f'data/{last}' else key}"
    if not key or (among.num_episodes == 1 and not NUMBERED.search(last)):
        source_id = uri
    try:
        with guarded(f"{uri}, {key or 'the file'}", h5.H5_ERRORS):
            group = h5.find(file, key)
            if not isinstance(group, h5py.Group):
                raise DataError(f"{key} is no group")
            container = h5.find(file, key.rpartition("/")[0])
            config = listing.source.config
            scope = (uri, key, group, container, config.limits, config.keys, above, among)
            place = EpisodePlace(*scope, convention=convention)
            _add_place(listing, place, source_id)
    except DataError as e:
        # Of an episode that cannot be read this is all there is to say
        del listing.findings[num_findings:]
        del listing.records[num_records:]
        listing.add_lost(e, source_id, uri, data_key=key)


def _add_place(listing: ListingBuilder, place: EpisodePlace, source_id: str) -> None:
    """Add the episode of a group; or each of those whose rows lie in it one after the other. Raises DataError."""
    config = listing.source.config
    is_flat = place.among.num_episodes == 1 and not NUMBERED.search(place.key.rpartition("/")[2])
    ends: Sequence[int] = ()
    marks: Sequence[str] = ()
    if is_flat:
        ends, marks = flat_ends(place.datasets, place.limits)
    else:
        _report_inner_ends(listing, place)
    if not ends:
        _add_episode(listing, place, source_id, h5.WHOLE_GROUP, marks)
        return
    if any(spelt(posixpath.basename(path)) in STEP_NAMES for path in marks):
        listing.warn(
            "bad_episode_ends",
            f"nothing marks the ends of episodes; one starts wherever {named(marks)} falls, first at row {ends[0]}",
            file=place.uri,
        )
    config.limits.check("max_rows", len(ends), f"{place.uri}: episodes")
    flat_place = replace(place, is_flat=True)
    lengths = (array.shape[0] for array in flat_place.arrays if array.shape[0])
    if (num_beyond := min(lengths, default=0) - ends[-1]) > 0:
        listing.warn("bad_episode_ends", ROWS_BEYOND.format(num_beyond, ends[-1]), file=place.uri)
    for k, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        rows = h5.EpisodeSlice(slice(start, end), k, len(ends), ends[-1])
        _add_episode(listing, flat_place, f"{source_id}#{h5.ROWS}{k}", rows, marks)


def _report_inner_ends(listing: ListingBuilder, place: EpisodePlace) -> None:
    """Find what marks ends before the last row in a group that is one episode."""
    try:
        with guarded(f"{place.uri}, {place.key}", h5.H5_ERRORS):
            ends, marks = flat_ends(place.datasets, place.limits)
    except DataError as e:
        listing.warn_next(e.reason, f"{e}; whether it marks ends is not known", place.uri)
        return
    if len(ends) > 1:
        listing.warn_next(
            "bad_episode_ends",
            f"an episode ends at row {ends[0]} of {ends[-1]} by {named(marks)}: the group is read as one episode",
            place.uri,
        )


def _add_episode(
    listing: ListingBuilder,
    place: EpisodePlace,
    source_id: str,
    rows: h5.EpisodeSlice,
    marks: Sequence[str],
) -> None:
    """Add one episode, which is some rows of its group. Raises DataError."""
    config = listing.source.config
    uri = place.uri
    is_alone = place.among.num_episodes == 1 and rows == h5.WHOLE_GROUP
    outside_cameras = (
        pictures_beside(listing.source, *_files(listing.source.files)).get(uri, {})
        if is_alone
        else {}
    )
    cameras, unreadable = h5.cameras_in(
        listing, uri, place.datasets, place.members.escapes, has_others=bool(outside_cameras)
    )
    files = dict.fromkeys(cameras, uri)
    if not files:
        files = {c: outside_cameras[c] for c in in_order(outside_cameras, config.cameras)}
        for file in files.values():
            listing.parts.add(SourcePart("file", f"{file}*", "known", "", "pictures of a camera"))
    roles = _roles(place)
    read_paths = {*roles.state.paths, *roles.action.paths, *cameras.values()}
    lengths = stated_lengths(place, read_paths, rows)
    num_rows = _num_rows(listing, place, roles, list(cameras.values()), rows.rows, lengths)
    texts = texts_of(place, set(cameras.values()), rows)
    text_from, tasks = _instruction(listing, place, texts, rows)
    name = LIBERO_FILE.fullmatch(uri.rpartition("/")[2].rpartition(".")[0])
    is_libero = "obs/agentview_rgb" in place.datasets
    if name and is_libero and not tasks and not config.keys.language:
        tasks = (name[1].replace("_", " "),)
        listing.count(
            "task_from_name",
            "the instruction of {} episodes is read from the names of their files, as LIBERO writes it",
        )
    by_video = rate_by_video(listing.source, files.values(), num_rows)
    rate, rate_from = _rate(listing, place, roles, rows.rows, read_paths, by_video)
    registered = (*config.keys.success, config.success_field)
    deep = [] if config.keys.success else deep_fields(place.datasets)
    evidence, outcomes = h5.evidence_in(listing, uri, place.group, registered, deep, rows, num_rows)
    evidence = replace(evidence, folder=folder_outcome(f"{place.key}/"))
    row_start = rows.rows.start or 0
    no_task = "no instruction in the file"
    # Texts that could be one
    if unknown_texts := [name for name in texts if not why_fact_known(place, Part(name, "text"))]:
        no_task += f" (its texts: {named(unknown_texts)})"
    listing.add(
        source_id,
        rate,
        tasks=tasks,
        num_rows=num_rows,
        data_uri=uri,
        data_key=place.key,
        row_start=row_start,
        videos=[CameraVideo(c, file, row_start if file == uri else 0) for c, file in files.items()],
        evidence=evidence,
        group=_session(config, place, rows),
        no_task=no_task,
    )
    uses = _uses(
        config, roles, list(cameras.values()), text_from, rate_from, marks, outcomes, [*lengths]
    )
    unread = dict.fromkeys(unreadable, "it cannot be read: a finding says why")
    unread |= roles.overruled
    account(listing, place, uses, unread, _problems(place, outcomes))


def _roles(place: EpisodePlace) -> Roles:
    """Raises DataError, also where one of the arrays is not there that the registry names."""
    registered = (*place.keys.state, *place.keys.action)
    arrays = h5.rows_in(place.group, registered)
    if missing := [path for path in registered if path not in arrays]:
        raise DataError(f"{place.group.name} has no rows of numbers at {missing[0]}", "no_data")
    return place.roles()


def _session(config: DatasetConfig, place: EpisodePlace, rows: h5.EpisodeSlice) -> str:
    """The session is the group: episodes of one session never come into different splits. Raises DataError."""
    if not config.group_field:
        return ""
    if h5.lacks_value(place.group, config.group_field):
        raise DataError(f"group_field {config.group_field} holds no value")
    session = rows.share(h5.value(place.group, config.group_field, config.limits))
    return "" if session is None else "".join(h5.texts(str(session)))


def _num_rows(
    listing: ListingBuilder,
    place: EpisodePlace,
    roles: Roles,
    cameras: Sequence[str],
    rows: slice,
    lengths: Mapping[str, Any],
) -> int | None:
    """Rows of the states, else of the actions, else of the first camera; finds where stated `lengths` are others.

    Raises DataError.
    """
    uri = place.uri
    limits = place.limits
    num_states, num_actions = (
        h5.length_of(h5.rows_in(place.group, vector.paths), limits)
        for vector in (roles.state, roles.action)
    )
    num_frames = next((len(place.datasets[path]) for path in cameras), None)
    num_rows = next((n for n in (num_states, num_actions, num_frames) if n is not None), None)
    # Simulators observe once more after the last action
    if num_states is None and num_actions is not None and num_frames == num_actions + 1:
        num_rows = num_frames
    if num_states is None and place.convention:
        listing.warn_next("no_data", f"no state where {place.convention.name} keeps it", uri)
    if num_rows == 0:
        listing.unusable_next("no_data", "it has no rows", uri)
    if num_rows and num_actions == num_rows - 1:
        listing.count(
            "length_differs",
            "{} episodes have one observation more than actions: the last frame has no action of its own, "
            "and keeps the one before",
        )
    elif num_states is not None and num_actions not in (None, num_states):
        listing.warn_next(
            "length_differs",
            f"{num_actions} actions, {num_states} states: the actions are not used",
            uri,
        )
    if not num_rows:
        return num_rows
    counts = [len(range(count)[rows]) for count in (num_rows, num_actions or num_rows)]
    for name, stated in lengths.items():
        if problem := length_problem(name, stated, counts):
            listing.warn_next("length_differs", problem, uri)
    return counts[0]


def _instruction(
    listing: ListingBuilder,
    place: EpisodePlace,
    texts: Mapping[str, tuple[str, ...]],
    rows: h5.EpisodeSlice,
) -> tuple[list[str], tuple[str, ...]]:
    """Where the instructions are, and what they say; the usual places are those of LIBERO, robocasa and others."""
    num_values = {array.shape[0] for array in place.arrays}

    def texts_at(path: str) -> tuple[str, ...]:
        if path in TEXTS_IN_JSON:
            inner = place.json(path).get(TEXTS_IN_JSON[path])
            return h5.texts("".join(map(str, inner)) if isinstance(inner, list) else inner)
        stored_texts = (h5.texts(rows.share(stored)) for stored in place.facts(path))
        return next(filter(None, stored_texts), ())

    def is_of_rows(path: str) -> bool:
        return path in place.datasets and place.datasets[path].size in num_values

    places = (*TEXTS_IN_JSON, *(place.writer.texts if place.writer else ()), *TEXT_KEYS)
    by_name = {name: texts[name] for name in texts if name != "env_args"}
    return instruction(listing, place.uri, places, texts_at, lambda: by_name, is_of_rows)


def _rate(
    listing: ListingBuilder,
    place: EpisodePlace,
    roles: Roles,
    rows: slice,
    read_paths: Set[str],
    by_video: float | None,
) -> tuple[float, list[str]]:
    """Frames per second, and what states it: the registry, the rows' times, the file, else the video's or the writer's
    usual rate.
    """
    if fps := listing.source.config.fps:
        return fps, []
    stated_fps = stated_rates(place, read_paths)
    times = stored_times(place, roles, rows)
    if rate := rate_of_rows(listing, place.uri, times, stated_fps):
        return rate, [*stated_fps]
    writer = place.writer
    if by_video or writer is None or not writer.fps:
        return by_video or listing.fps(None), []
    listing.count(
        "no_frame_rate",
        f"nothing states the frame rate of {{}} episodes; {writer.fps:g} fps is assumed, as {writer.name} usually runs",
    )
    return writer.fps, []


def _uses(
    config: DatasetConfig,
    roles: Roles,
    cameras: Sequence[str],
    texts: Sequence[str],
    rates: Sequence[str],
    marks: Sequence[str],
    outcomes: Sequence[str],
    lengths: Sequence[str],
) -> Uses:
    """What each part that is read is used for, and what shows it."""
    by_name = "its name says so"
    groups = [config.group_field] if config.group_field else []
    return {
        **dict.fromkeys(cameras, ("camera", "it holds pictures")),
        **roles.uses,
        **dict.fromkeys(texts, ("instruction", REGISTERED if config.keys.language else by_name)),
        **dict.fromkeys(rates, ("rate", by_name)),
        **dict.fromkeys(lengths, ("length", by_name)),
        **dict.fromkeys(marks, ("length", "it marks where an episode ends")),
        **dict.fromkeys(outcomes, ("outcome", by_name)),
        **dict.fromkeys(groups, ("group", REGISTERED)),
    }


def _problems(place: EpisodePlace, outcomes: Collection[str]) -> dict[str, str]:
    """Why arrays that could be pictures, rates, and fields that could tell success, are not read as such, by path."""
    problems = {
        path: OTHER_RATE
        for path in (*place.attributes, *place.datasets)
        if is_rate_name(posixpath.basename(path))
    }
    for path, dataset in place.datasets.items():
        could_be_one = len(dataset.shape or ()) == 4 and dataset.dtype.kind == "f"
        if could_be_one and (problem := h5.scale_of(path, dataset, place.limits)[1]):
            problems[path] = problem
    untold = [name for name in SUCCESS_FIELDS if name not in outcomes]
    return problems | dict.fromkeys(untold, NEITHER_TRUE_NOR_FALSE)


# Reading


def read_episode(
    source: Source, record: EpisodeRecord, convention: Writer | None = None
) -> EpisodeData:
    """Rows and frames of one episode, `convention` as for list_files; raises DataError when the rows cannot be read."""
    rows = h5.rows_of(record)
    uri = record.data_uri or ""
    is_flat = rows != ALL_ROWS
    opened = partial(opened_place, source, uri, convention, record.data_key, is_flat=is_flat)
    episode = read_tree(record, opened, rows)
    if any(video.uri != uri for video in record.videos):
        return with_frames_beside(source, episode)
    return episode

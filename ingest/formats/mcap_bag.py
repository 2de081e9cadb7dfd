"""Adapter for recordings of ROS (MCAP, `.db3`, ROS 1 bags): each is an episode, its picture topics are cameras.

A recording is a file, or the files that a `metadata.yaml` beside them names as one.

Topics come at times and rates of their own; frames are made of them on one clock. It ticks at the
rate of the first camera (or the registry's `fps`), from the first moment at which every topic has
spoken to the last at which none has ended, give or take half a tick. At each tick every topic gives
the message that is nearest in time, of two that are equally near the earlier one. Messages are
taken in the order of the recorder's times, whatever the file's order. A message's time is that of
its header; where headers of a topic are missing, all zero, out of order or shared by many, it is
the time at which the recorder wrote it down, else that at which it was published.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
from mcap.records import Attachment, Metadata

from ingest.episode import (
    CameraVideo,
    EpisodeData,
    EpisodeRecord,
    Listing,
    SourcePart,
)
from ingest.formats.bag_clock import PICTURES, Clock, Topic, frames_of, rows_of
from ingest.formats.bag_file import (
    PACKED,
    Decoder,
    Kind,
    RawMessage,
    custom_facts,
    is_recording,
    manifest_beside,
    manifest_uris,
    recordings,
    records,
    session_of,
)
from ingest.formats.listing import (
    DEFAULT_FPS,
    TASK_KEYS,
    ListingBuilder,
    camera_name,
    in_order,
    named,
    texts_among,
    usual_uses,
)
from ingest.formats.tree import Part, Roles, Uses, Vector, account
from ingest.formats.tree_reader import roles_of
from ingest.formats.writers import ROS
from ingest.reasons import DataError
from ingest.registry import DatasetConfig, Keys
from ingest.sources.files import Source

NUMBERS: tuple[Kind, ...] = ("joints", "numbers")
# Parts of a topic's name that say no more than that there are pictures
LAST_PARTS = (
    "compressed",
    "image_raw",
    "image_color",
    "image_rect",
    "image_rect_color",
    "image",
    "color",
    "rgb",
)
TASK_TOPIC = re.compile(r"(^|/)(task|instruction|language|language_instruction|prompt)$", re.I)
OTHER_PICTURES = re.compile(r"(image|video)$", re.I)  # types of messages
MAX_TASKS = 100
# Types of messages that say how a robot and its computers work, and nothing of a run
PLUMBING = tuple(
    (re.compile(pattern), why)
    for pattern, why in (
        (
            r"rcl_interfaces/.*|rosgraph_msgs/.*|diagnostic_msgs/.*|lifecycle_msgs/.*",
            "how ROS itself runs",
        ),
        (r"sensor_msgs/CameraInfo|foxglove(_msgs)?[./]CameraCalibration", "a camera's calibration"),
        (r"visualization_msgs/.*", "what a viewer draws"),
    )
)
GAP_TICKS, GAP_S = 3.0, 0.25  # a topic that is silent for longer is told


def roots(uris: Iterable[str]) -> dict[str, str]:
    """The folder above the recordings: `ros2 bag` makes a folder of each."""
    return {session_of(uri).rpartition("/")[0]: "" for uri in uris if is_recording(uri)}


# What a file holds


@dataclass
class Recording:
    """What one file holds, with no picture decoded; and which topics are what, by `find_roles`."""

    topics: dict[str, Topic] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    other_facts: set[str] = field(default_factory=set)  # those that had other values before
    attachments: dict[str, str] = field(default_factory=dict)  # types of their contents, by name
    texts: dict[str, dict[str, None]] = field(default_factory=dict)  # by topic, each once
    cut_off: str | None = None
    undecodable: Counter[str] = field(default_factory=Counter)
    cameras: dict[str, Topic] = field(default_factory=dict)  # by name
    roles: Roles = field(default_factory=Roles)

    @property
    def used(self) -> list[Topic]:
        of_rows = self.with_rows(self.roles.state) + self.with_rows(self.roles.action)
        return [*self.cameras.values(), *of_rows]

    def with_rows(self, vector: Vector) -> list[Topic]:
        return [self.topics[name] for name in vector.paths]

    def add(self, message: RawMessage, decoder: Decoder) -> Topic:
        """When a message was made."""
        topic = self.topics.get(message.topic)
        if topic is None:
            topic = Topic(message.topic, message.type.kind, message.type.name)
            self.topics[topic.name] = topic
            if topic.kind in PICTURES:
                with suppress(DataError):  # reading the picture raises it again
                    topic.format = decoder.format(message)
        if topic.video and not topic.log_ns and not topic.video[1].search(message.data):
            topic.skipped += 1
            return topic
        topic.log_ns.append(message.log_ns)
        topic.publish_ns.append(message.publish_ns)
        try:
            topic.header_ns.append(decoder.stamp_ns(message))
        except DataError:
            self.undecodable[topic.name] += 1
            topic.header_ns.append(None)
        return topic

    def add_facts(self, facts: Mapping[str, str]) -> None:
        self.other_facts |= {
            name for name in facts if self.facts.get(name, facts[name]) != facts[name]
        }
        self.facts |= facts

    def find_roles(self, config: DatasetConfig) -> None:
        """Cameras by their topics' names; state and action where the registry says, else by usual names."""
        repeated_topics = [topic for topic in self.topics.values() if len(topic.log_ns) > 1]
        parts = (
            Part(t.name, "topic", (None,), t.kind) for t in repeated_topics if t.kind in NUMBERS
        )
        self.roles = roles_of(sorted(parts), config.keys, ROS)
        # Of a camera that is there raw and packed, the raw pictures have lost nothing
        pictures = [t for t in repeated_topics if t.kind in PICTURES and not t.depth]
        pictures.sort(key=lambda t: (PICTURES.index(t.kind), bool(t.video), t.name), reverse=True)
        cameras = {camera_name(topic.name, LAST_PARTS): topic for topic in pictures}
        self.cameras = {camera: cameras[camera] for camera in in_order(cameras, config.cameras)}


def look_into(source: Source, uris: Sequence[str]) -> Recording:
    """What the files of a recording hold. Raises DataError, and OSError."""
    recording = Recording(facts=custom_facts(source, uris[0]))
    config = source.config
    decoder = Decoder(config.limits)
    for record in records(source, uris):
        if isinstance(record, DataError):
            recording.cut_off = str(record)
        elif isinstance(record, Metadata):
            recording.add_facts({str(k): str(v) for k, v in record.metadata.items()})
        elif isinstance(record, Attachment):
            recording.attachments[record.name] = record.media_type
        else:
            topic = recording.add(record, decoder)
            name = topic.name
            if topic.kind == "text" and _tells_task(name, config.keys):
                texts = recording.texts.setdefault(name, {})
                if len(texts) < MAX_TASKS:
                    texts[decoder.text(record)] = None
    recording.find_roles(config)
    return recording


# One clock


def clock_of(recording: Recording, fps: float | None) -> Clock:
    """Raises DataError where the topics share no time, or the first camera has none that goes on."""
    first = next(iter(recording.cameras.values()))
    fps = fps or first.fps()
    begin_ns = max(int(topic.stamps.times_ns[0]) for topic in recording.used)
    end_ns = min(int(topic.stamps.times_ns[-1]) for topic in recording.used)
    if end_ns < begin_ns or not 0 < fps <= 1000:
        spans = named([_span(topic) for topic in recording.used])
        raise DataError(f"its topics share no time: {spans}", "unsorted_stamps")
    return Clock.within(begin_ns, end_ns, first.stamps.times_ns, fps)


def _span(topic: Topic) -> str:
    """When a topic's messages were made, in words."""
    times_s = topic.stamps.times_ns / 1e9
    return f"{topic.name} {times_s[0]:.3f} to {times_s[-1]:.3f} s ({topic.stamps.clock})"


# Listing


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    for uri, uris in recordings(source).items():
        if uri.endswith(PACKED) and uri.removesuffix(PACKED) in source.files:
            listing.warn(
                "duplicate_episode", f"{uri.removesuffix(PACKED)} beside it is used", file=uri
            )
            continue
        try:
            _add(listing, uris, look_into(source, uris))
        except (DataError, OSError) as e:
            listing.add_lost(e, uri, uri)
    cameras = in_order(listing.cameras_in_use(), source.config.cameras)
    listing.find_missing(
        [*cameras, *source.config.cameras.ordered()], "no topic with pictures of {}"
    )
    # A recording without pictures has no rate of its own: it takes that of the first one with pictures
    fps = next((record.fps for record in listing.records if record.videos), None)
    for place, record in enumerate(listing.records):
        if fps and not record.videos:
            listing.records[place] = replace(record, fps=fps)
    return listing.listing("mcap", cameras, fps=fps, nothing="no file is a recording")


def _add(listing: ListingBuilder, uris: Sequence[str], recording: Recording) -> None:
    """The coming episode, with what is wrong with it. Raises DataError."""
    uri = uris[0]
    config = listing.source.config
    _find_doubts(listing, uri, recording)
    _find_lost_files(listing, uris)
    _account_for_parts(listing, uri, recording)
    fps = config.fps or DEFAULT_FPS
    ticks = 0
    if not recording.cameras:
        description = (
            named([f"{t.name} ({t.type}, {len(t.log_ns)})" for t in recording.topics.values()])
            or "nothing"
        )
        # Pictures of a type that is not read are there, and need not be fetched
        is_other = any(OTHER_PICTURES.search(topic.type) for topic in recording.topics.values())
        reason = "other_layout" if is_other else "no_video"
        listing.unusable_next(
            reason, f"no topic with pictures that are read; it holds {description}", uri
        )
    else:
        clock = clock_of(recording, config.fps)
        fps = clock.fps
        ticks = clock.ticks
        config.limits.check("max_rows", ticks, f"{uri}: frames")
        _find_doubtful_times(listing, uri, recording, clock)
    # What the topics of texts and the facts about the recording say of its task
    texts_by_topic = {topic: texts_among(texts) for topic, texts in recording.texts.items()}
    tasks = texts_among([*texts_by_topic.values(), *map(recording.facts.get, TASK_KEYS)])
    listing.add(
        uri,
        fps,
        tasks=listing.whole_task(tasks, texts_by_topic, uri),
        num_rows=ticks or None,
        data_uri=uri,
        videos=[CameraVideo(camera, uri, 0) for camera in recording.cameras],
        facts=recording.facts,
        group=listing.group(recording.facts, session_of(uri)),
        source_stamp=listing.source.stamp([*uris], ticks),
        no_task="no topic and no metadata has an instruction",
    )


def _find_doubts(listing: ListingBuilder, uri: str, recording: Recording) -> None:
    """What is wrong with the file and its topics."""
    keys = listing.source.config.keys
    if recording.cut_off:
        count = sum(len(t.log_ns) for t in recording.topics.values())
        listing.warn_next(
            "cut_off", f"{recording.cut_off}; the {count} messages before that are used", uri
        )
    used_names = {topic.name for topic in recording.used}
    for topic in sorted({*keys.state, *keys.action} - used_names):
        listing.warn_next(
            "missing_topic", f"no topic {topic} with numbers in more than one message", uri
        )
    for topic, count in recording.undecodable.items():
        listing.warn_next(
            "unreadable_data", f"{topic}: {count} messages are too short for their header", uri
        )
    for topic in recording.topics.values():
        if topic.skipped:
            listing.warn_next(
                "cut_off",
                f"{topic.name}: {topic.skipped} messages before its first key frame are left out",
                uri,
            )


def _find_lost_files(listing: ListingBuilder, uris: Sequence[str]) -> None:
    """What a recorder wrote down beside the files that are read, or says that it wrote."""
    files = listing.source.files
    # Beside an SQLite file: what its recorder did not come to write into it
    for log in [f"{uri}-wal" for uri in uris]:
        if log in files and files[log].size:
            listing.warn_next(
                "cut_off",
                f"{log} has messages that are not read: its recorder was stopped",
                uris[0],
            )
    if manifest_beside(uris[0]) in files:
        _find_lost_parts(listing, uris[0], manifest_beside(uris[0]))


def _find_lost_parts(listing: ListingBuilder, uri: str, manifest: str) -> None:
    """What a manifest names and is not there."""
    named_uris = manifest_uris(listing.source, manifest)
    missing = [part for part in named_uris if part not in listing.source.files]
    if not named_uris:
        detail = f"{manifest} names no file; each beside it counts as a recording"
        listing.warn_next("unreadable_data", detail, uri)
    elif missing and uri in named_uris:
        detail = f"{manifest} names files that are not there: {named(missing)}"
        listing.warn_next("cut_off", detail, uri)


def _account_for_parts(listing: ListingBuilder, uri: str, recording: Recording) -> None:
    """What each topic, attachment and remark of the recorder is used for, or why it is not."""
    config = listing.source.config
    parts = listing.parts
    uses = _uses_of_topics(recording, config)
    topics = recording.topics
    topic_parts = [Part(name, "topic", (), topic.type, uri) for name, topic in topics.items()]
    account(
        parts,
        topic_parts,
        uses,
        lambda part: _why_left_out(topics[part.path], recording),
    )
    texts: Uses = dict.fromkeys(TASK_KEYS, ("instruction", "its name"))
    listing.account_for_facts("metadata: ", recording.facts, texts, ROS, uri)
    for name in recording.other_facts & {*texts, *usual_uses(config)}:
        reason = "its values differ; the last counts"
        parts.add(SourcePart("text", f"metadata: {name}", "unknown", "", reason, file=uri))
    for name, media_type in recording.attachments.items():
        title = f"attachment {name}"
        parts.add(SourcePart("file", title, "unknown", "", "it is not read", (), media_type, uri))


def _uses_of_topics(recording: Recording, config: DatasetConfig) -> Uses:
    """What topics are read as, and what shows it."""
    texts = [topic.name for topic in recording.topics.values() if topic.kind == "text"]
    uses = {name: ("instruction", "its name") for name in texts if _tells_task(name, config.keys)}
    positions = {"joints": "; its positions, not velocities and efforts"}
    for name, (use, reason) in recording.roles.uses.items():
        uses[name] = (use, reason + positions.get(recording.topics[name].kind, ""))
    cameras = {
        topic.name: ("camera", f"its type; the camera {name}")
        for name, topic in recording.cameras.items()
    }
    return uses | cameras


def _tells_task(topic: str, keys: Keys) -> bool:
    if keys.language:
        return topic in keys.language
    return bool(TASK_TOPIC.search(topic))


def _why_left_out(topic: Topic, recording: Recording) -> str:
    """Why a topic is left out on purpose; "" where that is not known."""
    if topic.depth:
        return f"{topic.depth}: labels are made by colour pictures"
    if topic.skipped and not topic.log_ns:
        return f"none of its {topic.skipped} messages is a key frame"
    if topic.kind in PICTURES and (
        colour_topic := recording.cameras.get(camera_name(topic.name, LAST_PARTS))
    ):
        return f"the same camera as {colour_topic.name}, whose pictures have lost nothing"
    return next(
        (
            reason
            for pattern, reason in PLUMBING
            if pattern.fullmatch(topic.type.replace("/msg/", "/"))
        ),
        "",
    )


def _find_doubtful_times(
    listing: ListingBuilder, uri: str, recording: Recording, clock: Clock
) -> None:
    cameras = {topic.name: camera for camera, topic in recording.cameras.items()}
    for topic in recording.used:
        for doubt in _doubtful_times(topic, clock):
            detail = f"{topic.name}: {doubt}"
            listing.warn_next("unsorted_stamps", detail, uri, cameras.get(topic.name))


def _doubtful_times(topic: Topic, clock: Clock) -> Iterator[str]:
    """What is doubtful about when a topic's messages were made."""
    stamps = topic.stamps
    count = len(topic.log_ns)
    if stamps.clock != "header" and all(topic.header_ns):
        yield f"headers are out of order, or share their times; those of the {stamps.clock} are used"
    if stamps.num_shared:
        yield (
            f"{stamps.num_shared} of {count} messages have the time of the one before, by the {stamps.clock}; they "
            "are spread evenly from the time before theirs up to it"
        )
    if stamps.num_late:
        yield f"{stamps.num_late} of {count} messages are older than one before them, and left out"
    away_ns = np.abs(stamps.times_ns[clock.nearest(stamps.times_ns)] - clock.times_ns())
    is_gap = away_ns > max(GAP_TICKS / clock.fps, GAP_S) * 1e9
    if is_gap.any():
        yield (
            f"at {int(is_gap.sum())} of {clock.ticks} frames the nearest message is up to "
            f"{away_ns.max() / 1e9:.2f} s away"
        )


# Reading


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """Rows on the episode's clock, and frames that are decoded as the file is read. Raises DataError."""
    uri = record.data_uri or ""
    try:
        uris = recordings(source).get(uri, [uri])
        recording = look_into(source, uris)
        if not recording.cameras:
            raise DataError("no topic with pictures any more", "no_video")
        clock = clock_of(recording, source.config.fps)
        state, action = (
            rows_of(source, uris, recording.with_rows(vector), clock)
            for vector in (recording.roles.state, recording.roles.action)
        )
    except OSError as e:
        raise DataError(str(e)) from e
    return EpisodeData(
        record,
        state,
        action,
        np.arange(clock.ticks) / clock.fps,
        frames_of(source, uris, recording.cameras, clock),
    )

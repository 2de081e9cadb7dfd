"""Adapter for MCAP recordings of ROS 2: each file is an episode, its picture topics are cameras.

Topics come at times and rates of their own; frames are made of them on one clock. It ticks at the
rate of the first camera (or the registry's `fps`), from the first moment at which every topic has
spoken to the last at which none has ended, give or take half a tick. At each tick every topic gives
the message that is nearest in time, of two that are equally near the earlier one. Messages are
taken in the order of the recorder's times, whatever the file's order. A message's time is that of
its header; where headers of a topic are missing, all zero, out of order or shared by many, it is
the time at which the recorder wrote it down, else that at which it was published.
"""

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from operator import itemgetter

import numpy as np
import pyarrow as pa
from mcap.records import Attachment, Metadata

from ingest.episode import (
    CameraVideo,
    EpisodeData,
    EpisodeRecord,
    Finding,
    FrameReader,
    Listing,
    TimedPicture,
)
from ingest.formats.listing import (
    DEFAULT_FPS,
    REGISTERED,
    TASK_KEYS,
    ListingBuilder,
    camera_name,
    in_order,
    named,
    texts_among,
    usual_uses,
)
from ingest.formats.mcap_file import PACKED, CutOff, Decoder, Kind, RawMessage, records
from ingest.formats.mcap_time import Clock, Stamps, rate_of, stamps_of
from ingest.formats.tables import numbers
from ingest.formats.tree import Part, Uses, account
from ingest.media.frames import DECODE_ALL, DecodeOptions
from ingest.outcomes import OutcomeEvidence
from ingest.reasons import DataError, Limits
from ingest.registry import DatasetConfig, Keys
from ingest.sources.files import Source

SUFFIX = ".mcap"
PICTURES: tuple[Kind, ...] = ("compressed", "raw")
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
NO_CAMERA = re.compile(r"depth|disparity|infra|segment|mask|theora", re.I)
JOINTS_TOPIC = "/joint_states"
COMMAND = re.compile(r"command|cmd|action|leader|target|desired|goal|setpoint", re.I)
TASK_TOPIC = re.compile(r"(^|/)(task|instruction|language|language_instruction|prompt)$", re.I)
OTHER_PICTURES = re.compile(r"(image|video)$", re.I)  # types of messages
MAX_TASKS = 100
RECORDER_FACTS = ["serialized_metadata", "ROS_DISTRO"]  # rosbag2_storage_mcap's metadata records
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
SPLIT = re.compile(r"(.+)_(\d+)\.mcap(?:\.zstd)?")
# Share of a topic's messages that may have the time of the one before: two drivers may speak of their joints at a time
MAX_SHARED_PICTURES = 0.1
MAX_SHARED_NUMBERS = 0.5
GAP_TICKS, GAP_S = 3.0, 0.25  # a topic that is silent for longer is told
WAITING_CHUNKS = 8  # times limits.max_chunk_bytes: pictures that wait because they stand in the file before their turn


def roots(uris: Iterable[str]) -> dict[str, str]:
    """The folder above the recordings: `ros2 bag` makes a folder of each."""
    return {_session(uri).rpartition("/")[0]: "" for uri in uris if _is_recording(uri)}


def _is_recording(uri: str) -> bool:
    return uri.lower().removesuffix(PACKED).endswith(SUFFIX)


def _session(uri: str) -> str:
    """What a recording is called: its folder where that is named as `ros2 bag` names it, else the file."""
    folder, _, name = uri.rpartition("/")
    stem = name.removesuffix(PACKED)[: -len(SUFFIX)]
    if re.fullmatch(re.escape(folder.rpartition("/")[2]) + r"_\d+", stem):
        return folder
    return uri


# What a file holds


@dataclass
class Topic:
    """A topic of one file: when each of its messages was made, and the `stamps` of those that are used."""

    name: str
    kind: Kind
    type: str
    log_ns: list[int] = field(default_factory=list)
    publish_ns: list[int] = field(default_factory=list)
    header_ns: list[int | None] = field(default_factory=list)

    @cached_property
    def stamps(self) -> Stamps:
        max_shared = MAX_SHARED_PICTURES if self.kind in PICTURES else MAX_SHARED_NUMBERS
        return stamps_of(self.log_ns, self.publish_ns, self.header_ns, max_shared)

    def fps(self) -> float:
        """Messages a second. Raises DataError."""
        rate = rate_of(self.stamps.times_ns)
        if rate is None:
            raise DataError(f"{self.name}: its pictures are all of one moment", "unsorted_stamps")
        return rate


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
    state: list[Topic] = field(default_factory=list)
    action: list[Topic] = field(default_factory=list)

    @property
    def used(self) -> list[Topic]:
        return [*self.cameras.values(), *self.state, *self.action]

    def add(self, message: RawMessage) -> None:
        """When a message was made."""
        name = message.channel.topic
        type_ = message.schema.name if message.schema else "no type"
        topic = self.topics.setdefault(name, Topic(name, message.kind, type_))
        topic.log_ns.append(message.log_ns)
        topic.publish_ns.append(message.publish_ns)
        try:
            topic.header_ns.append(message.stamp_ns())
        except DataError:
            self.undecodable[name] += 1
            topic.header_ns.append(None)

    def find_roles(self, config: DatasetConfig) -> None:
        """Cameras by their topics' names; state and action where the registry says, else by usual names."""
        repeated_topics = [topic for topic in self.topics.values() if len(topic.log_ns) > 1]
        self._find_rows(
            {topic.name: topic for topic in repeated_topics if topic.kind in NUMBERS}, config
        )
        # Of a camera that is there raw and packed, the raw pictures have lost nothing
        pictures = [
            topic
            for topic in repeated_topics
            if topic.kind in PICTURES and not NO_CAMERA.search(topic.name)
        ]
        pictures.sort(key=lambda t: (PICTURES.index(t.kind), t.name), reverse=True)
        cameras = {camera_name(topic.name, LAST_PARTS): topic for topic in pictures}
        self.cameras = {camera: cameras[camera] for camera in in_order(cameras, config.cameras)}

    def _find_rows(self, numeric: Mapping[str, Topic], config: DatasetConfig) -> None:
        commands = sorted(name for name in numeric if COMMAND.search(name))
        plain = [
            name
            for name, topic in sorted(numeric.items())
            if topic.kind == "joints" and name not in commands
        ]
        default_topics = [JOINTS_TOPIC] if JOINTS_TOPIC in plain else plain
        state = config.keys.state or default_topics
        action = config.keys.action or commands
        self.state = list(filter(None, map(numeric.get, state)))
        self.action = list(filter(None, map(numeric.get, action)))


def look_into(source: Source, uri: str) -> Recording:
    """Raises DataError, and OSError."""
    recording = Recording()
    config = source.config
    decoder = Decoder(config.limits)
    for record in records(source, uri):
        if isinstance(record, CutOff):
            recording.cut_off = record.why
        elif isinstance(record, Metadata):
            facts = {str(k): str(v) for k, v in record.metadata.items()}
            recording.other_facts |= {
                name for name in facts if recording.facts.get(name, facts[name]) != facts[name]
            }
            recording.facts |= facts
        elif isinstance(record, Attachment):
            recording.attachments[record.name] = record.media_type
        else:
            name = record.channel.topic
            recording.add(record)
            if (
                record.kind == "text"
                and _tells_task(name, config.keys)
                and len(recording.texts.get(name, ())) < MAX_TASKS
            ):
                recording.texts.setdefault(name, {})[decoder.text(record)] = None
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
    _find_split(listing)
    for uri in sorted(filter(_is_recording, source.files)):
        if uri.endswith(PACKED) and uri.removesuffix(PACKED) in source.files:
            listing.warn(
                "duplicate_episode", f"{uri.removesuffix(PACKED)} beside it is used", file=uri
            )
            continue
        try:
            _add(listing, uri, look_into(source, uri))
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


def _find_split(listing: ListingBuilder) -> None:
    """`ros2 bag` can go on in a new file when one is full: then a file is not a whole episode."""
    parts = Counter(m[1] for uri in listing.source.files if (m := SPLIT.fullmatch(uri)))
    for stem, count in parts.items():
        if (
            count > 1
            and f"{stem.rpartition('/')[0]}/metadata.yaml".strip("/") in listing.source.files
        ):
            detail = f"{stem} is split over {count} files, each of which counts as an episode"
            listing.warn("cut_off", detail, file=f"{stem}_0.mcap")


def _add(listing: ListingBuilder, uri: str, recording: Recording) -> None:
    """The coming episode, with what is wrong with it. Raises DataError."""
    config = listing.source.config
    _find_doubts(listing, uri, recording)
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
        listing.findings += _timing(recording, clock, listing.next_index, uri)
    listing.add(
        uri,
        fps,
        tasks=_instruction(listing, uri, recording),
        num_rows=ticks or None,
        data_uri=uri,
        videos=[CameraVideo(camera, uri, 0) for camera in recording.cameras],
        evidence=OutcomeEvidence(listing.stated_outcome(recording.facts)),
        group=listing.group(recording.facts, _session(uri)),
        source_stamp=listing.source.stamp([uri], ticks),
        no_task="no topic and no metadata has an instruction",
    )


def _instruction(listing: ListingBuilder, uri: str, recording: Recording) -> tuple[str, ...]:
    """What the topics of texts and the facts about the recording say of its task."""
    texts_by_topic = {topic: texts_among(texts) for topic, texts in recording.texts.items()}
    tasks = texts_among([*texts_by_topic.values(), *map(recording.facts.get, TASK_KEYS)])
    return listing.whole_task(tasks, texts_by_topic, uri)


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
    known_reasons = dict.fromkeys(RECORDER_FACTS, "what the recorder says of itself")
    texts: Uses = dict.fromkeys(TASK_KEYS, ("instruction", "its name"))
    listing.account_for_facts("metadata: ", recording.facts, texts, known_reasons, uri)
    for name in recording.other_facts & {*texts, *usual_uses(config)}:
        parts.unknown("text", f"metadata: {name}", "its values differ; the last counts", file=uri)
    for name, media_type in recording.attachments.items():
        parts.unknown("file", f"attachment {name}", "it is not read", dtype=media_type, file=uri)


def _uses_of_topics(recording: Recording, config: DatasetConfig) -> Uses:
    """What topics are read as, and what shows it."""
    texts = [topic.name for topic in recording.topics.values() if topic.kind == "text"]
    uses = {name: ("instruction", "its name") for name in texts if _tells_task(name, config.keys)}
    for use, topics in (("action", recording.action), ("state", recording.state)):
        for topic in topics:
            is_stated = topic.name in (*config.keys.state, *config.keys.action)
            reason = REGISTERED if is_stated else "its type and its name"
            reason += (
                "; its positions, not velocities and efforts" if topic.kind == "joints" else ""
            )
            uses[topic.name] = (use, reason)
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
    if topic.kind in PICTURES and (kind := NO_CAMERA.search(topic.name)):
        return f"its name says {kind[0].lower()}: labels are made by colour pictures"
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


def _timing(recording: Recording, clock: Clock, index: int, uri: str) -> Iterator[Finding]:
    """Findings about when messages were made, of the episode `index`."""
    camera_by_topic = {topic.name: camera for camera, topic in recording.cameras.items()}
    for topic in recording.used:
        camera = camera_by_topic.get(topic.name)
        for reason, doubt in _doubtful_times(topic, clock):
            yield Finding(reason, f"{topic.name}: {doubt}", "warning", index, camera, uri)


def _doubtful_times(topic: Topic, clock: Clock) -> Iterator[tuple[str, str]]:
    """What is doubtful about a topic's times, each with the code of its finding."""
    stamps = topic.stamps
    count = len(topic.log_ns)
    if stamps.clock != "header" and all(topic.header_ns):
        yield (
            "unsorted_stamps",
            f"headers are out of order, or share their times; those of the {stamps.clock} are used",
        )
    if stamps.num_shared:
        yield (
            "unsorted_stamps",
            f"{stamps.num_shared} of {count} messages have the time of the one before, by the {stamps.clock}; they "
            "are spread evenly from the time before theirs up to it",
        )
    if stamps.num_late:
        yield (
            "unsorted_stamps",
            f"{stamps.num_late} of {count} messages are older than one before them, and left out",
        )
    away_ns = np.abs(stamps.times_ns[clock.nearest(stamps.times_ns)] - clock.times_ns())
    is_gap = away_ns > max(GAP_TICKS / clock.fps, GAP_S) * 1e9
    if is_gap.any():
        yield (
            "unsorted_stamps",
            f"at {int(is_gap.sum())} of {clock.ticks} frames the nearest message is up to "
            f"{away_ns.max() / 1e9:.2f} s away",
        )


# Reading


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """Rows on the episode's clock, and frames that are decoded as the file is read. Raises DataError."""
    uri = record.data_uri or ""
    try:
        recording = look_into(source, uri)
        if not recording.cameras:
            raise DataError("no topic with pictures any more", "no_video")
        clock = clock_of(recording, source.config.fps)
        state, action = (
            _rows(source, uri, topics, clock) for topics in (recording.state, recording.action)
        )
    except OSError as e:
        raise DataError(str(e)) from e
    return EpisodeData(
        record,
        state,
        action,
        np.arange(clock.ticks) / clock.fps,
        _frames(source, uri, recording, clock),
    )


def _rows(source: Source, uri: str, topics: Sequence[Topic], clock: Clock) -> pa.Table | None:
    """Numbers at each tick; of a joint that only some of a topic's messages name, those. Raises DataError."""
    if not topics:
        return None
    # Times and values of each number by "topic name"
    series: dict[str, tuple[list[int], list[float]]] = {}
    times: dict[str, dict[int, int]] = {}
    for topic in topics:
        stamps = topic.stamps
        times[topic.name] = dict(
            zip(stamps.numbers.tolist(), stamps.times_ns.tolist(), strict=True)
        )
    decoder = Decoder(source.config.limits)
    message_counts = Counter[str]()
    limits = source.config.limits
    for message in records(source, uri):
        if not isinstance(message, RawMessage) or (topic := message.channel.topic) not in times:
            continue
        if (time := times[topic].get(message_counts[topic])) is not None:
            for name, value in decoder.numbers(message).items():
                stamps, values = series.setdefault(f"{topic} {name}", ([], []))
                stamps.append(time)
                values.append(value)
        message_counts[topic] += 1
        limits.check("max_features", len(series), f"{uri}: joints")
    limits.check("max_values", len(series) * clock.ticks, f"{uri}: numbers")
    # Which topic's first message came first differs from one recording to the next
    place = {topic.name: k for k, topic in enumerate(topics)}
    names = sorted(series, key=lambda name: place[name.partition(" ")[0]])
    columns = [
        _at_ticks(clock, np.array(series[name][0], np.int64), np.array(series[name][1]))
        for name in names
    ]
    return numbers(np.stack(columns, axis=1), _names(names))


def _at_ticks(clock: Clock, stamps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Of values [n] with times, in the file's order, the one nearest to each tick."""
    in_time = np.argsort(stamps, kind="stable")
    return values[in_time][clock.nearest(stamps[in_time])]


def _names(series: Iterable[str]) -> list[str]:
    """Of "topic name" the name, or both where two topics have one of that name."""
    names = [name.partition(" ")[2] for name in series]
    if len({*names}) == len(names):
        return names
    return [name.replace(" ", "/").strip("/") for name in series]


def _frames(source: Source, uri: str, recording: Recording, clock: Clock) -> FrameReader:
    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        topic = recording.cameras[camera]
        limits = source.config.limits
        messages = (
            m
            for m in records(source, uri)
            if isinstance(m, RawMessage) and m.channel.topic == topic.name
        )
        picture_numbers = topic.stamps.numbers[clock.nearest(topic.stamps.times_ns)].tolist()
        decoder = Decoder(limits)
        for ticks, message in _in_turn(
            messages, picture_numbers, limits, f"{uri}: pictures of {camera} before their turn"
        ):
            picture = decoder.picture(message)
            yield from ((tick, tick / clock.fps, picture) for tick in ticks)

    return frames


def _in_turn(
    messages: Iterable[RawMessage], picture_numbers: Sequence[int], limits: Limits, description: str
) -> Iterator[tuple[list[int], RawMessage]]:
    """The messages that are wanted at each tick, by their numbers in the file, with their ticks.

    One that stands in the file before its turn waits. Raises DataError where too many do.
    """
    turns = deque[tuple[int, list[int]]]()
    for number, group in groupby(enumerate(picture_numbers), itemgetter(1)):
        turns.append((number, [tick for tick, _ in group]))
    needed = {*picture_numbers}
    waiting = dict[int, RawMessage]()
    waiting_bytes = 0
    for number, message in enumerate(messages):
        if number not in needed:
            continue
        waiting[number] = message
        waiting_bytes += len(message.data)
        limits.check("max_chunk_bytes", waiting_bytes, description, WAITING_CHUNKS)
        while turns and turns[0][0] in waiting:
            turn, ticks = turns.popleft()
            message = waiting.pop(turn)
            waiting_bytes -= len(message.data)
            yield ticks, message
        if not turns:
            return

"""Adapter for MCAP recordings of ROS 2: each file is an episode, its picture topics are cameras.

Topics come at times and rates of their own; frames are made of them on one clock. It ticks at the rate of the first
camera (or the registry's `fps`), from the first moment at which every topic has spoken to the last at which none has
ended. At each tick every topic gives the message that is nearest in time, of two that are equally near the earlier one.
A message's time is that of its header; where headers of a topic are missing, all zero or mostly out of order, it is the
time at which the recorder wrote it down.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa

from ingest.episode import CameraVideo, EpisodeData, EpisodeRecord, Finding, FrameReader, Listing, TimedPicture
from ingest.formats.listing import ListingBuilder, in_order, named, texts_among
from ingest.formats.mcap_file import CutOff, Decoder, Kind, Metadata, RawMessage, records
from ingest.formats.tables import numbers
from ingest.media.frames import DECODE_ALL, DecodeOptions
from ingest.outcomes import OutcomeEvidence
from ingest.reasons import DataError
from ingest.registry import DatasetConfig
from ingest.sources.files import Source

SUFFIX = ".mcap"
PICTURES: tuple[Kind, ...] = ("compressed", "raw")
NUMBERS: tuple[Kind, ...] = ("joints", "numbers")
# Parts of a topic's name that say no more than that there are pictures
LAST_PARTS = ("compressed", "image_raw", "image_color", "image_rect", "image_rect_color", "image", "color", "rgb")
NO_CAMERA = re.compile(r"depth|disparity|infra|segment|mask|theora", re.I)
JOINTS_TOPIC = "/joint_states"
COMMAND = re.compile(r"command|cmd|action|leader|target|desired|goal|setpoint", re.I)
TASK_TOPIC = re.compile(r"(^|/)(task|instruction|language|language_instruction|prompt)$", re.I)
TASK_KEYS = ("task", "instruction", "language_instruction", "prompt")
MAX_TASKS = 100
SPLIT = re.compile(r"(.+)_(\d+)\.mcap")
MAX_LATE = 0.1  # share of a topic's messages that may be out of order
GAP_TICKS, GAP_S = 3.0, 0.25  # a topic that is silent for longer is told
SLACK = 1e-6  # of a tick


def roots(uris: Iterable[str]) -> dict[str, str]:
    """The folder above the recordings: `ros2 bag` makes a folder of each."""
    return {_session(uri).rpartition("/")[0]: "" for uri in uris if uri.lower().endswith(SUFFIX)}


def _session(uri: str) -> str:
    """What a recording is called: its folder where that is named as `ros2 bag` names it, else the file."""
    folder, _, name = uri.rpartition("/")
    stem = name[: -len(SUFFIX)]
    return folder if re.fullmatch(re.escape(folder.rpartition("/")[2]) + r"_\d+", stem) else uri


# What a file holds


@dataclass
class Topic:
    """A topic of one file: when each of its messages was made."""

    name: str
    kind: Kind
    type: str
    log_ns: list[int] = field(default_factory=list)
    header_ns: list[int | None] = field(default_factory=list)

    @cached_property
    def stamps(self) -> tuple[np.ndarray, str]:
        """Times of all messages, int64 [n] in nanoseconds, and where they are from: header or log."""
        headers = np.array([h or 0 for h in self.header_ns], np.int64)
        if None not in self.header_ns and headers.any() and _late(headers).mean() <= MAX_LATE:
            return headers, "header"
        return np.array(self.log_ns, np.int64), "log"

    def fps(self) -> float:
        """Messages a second. Raises DataError."""
        steps = np.diff(self.used[0])
        if not steps.any():
            raise DataError(f"{self.name}: its pictures are all of one moment", "unsorted_stamps")
        return round(1e9 / float(np.median(steps[steps > 0])), 3)

    @property
    def told(self) -> str:
        stamps, by = self.stamps
        return f"{self.name} {stamps[0] / 1e9:.3f} to {stamps[-1] / 1e9:.3f} s ({by})"

    @cached_property
    def used(self) -> tuple[np.ndarray, np.ndarray]:
        """Times of the messages in order, and their numbers in the file; late ones are left out."""
        numbers = np.flatnonzero(~_late(self.stamps[0]))
        return self.stamps[0][numbers], numbers


def _late(stamps: np.ndarray) -> np.ndarray:
    """Which messages are older than one that came before them, bool [n]."""
    return stamps < np.maximum.accumulate(stamps)


@dataclass
class Recording:
    """What one file holds, with no picture decoded; and which topics are what, by `find_roles`."""

    topics: dict[str, Topic] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
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
        name, type_ = message.channel.topic, message.schema.name if message.schema else "no type"
        topic = self.topics.setdefault(name, Topic(name, message.kind, type_))
        topic.log_ns.append(message.log_ns)
        try:
            topic.header_ns.append(message.stamp_ns())
        except DataError:
            self.undecodable[name] += 1
            topic.header_ns.append(None)

    def find_roles(self, config: DatasetConfig) -> None:
        """Cameras by their topics' names; state and action where the registry says, else by usual names."""
        several = [topic for topic in self.topics.values() if len(topic.log_ns) > 1]
        self._find_rows({topic.name: topic for topic in several if topic.kind in NUMBERS}, config)
        # Of a camera that is there raw and packed, the raw pictures have lost nothing
        pictures = [topic for topic in several if topic.kind in PICTURES and not NO_CAMERA.search(topic.name)]
        pictures.sort(key=lambda t: (PICTURES.index(t.kind), t.name), reverse=True)
        cameras = {camera_name(topic.name): topic for topic in pictures}
        self.cameras = {camera: cameras[camera] for camera in in_order(cameras, config.cameras)}

    def _find_rows(self, numeric: Mapping[str, Topic], config: DatasetConfig) -> None:
        commands = [name for name in numeric if COMMAND.search(name)]
        plain = [name for name, topic in numeric.items() if topic.kind == "joints" and name not in commands]
        usual = [JOINTS_TOPIC] if JOINTS_TOPIC in plain else plain
        state, action = config.keys.state or usual, config.keys.action or commands
        self.state = list(filter(None, map(numeric.get, state)))
        self.action = list(filter(None, map(numeric.get, action)))


def camera_name(topic: str) -> str:
    """Example: "/camera/front/image_raw/compressed" is "camera/front"."""
    parts = topic.strip("/").split("/")
    while len(parts) > 1 and parts[-1] in LAST_PARTS:
        del parts[-1]
    return "/".join(parts)


def look_into(source: Source, uri: str) -> Recording:
    """Raises DataError, and OSError."""
    recording, config = Recording(), source.config
    decoder = Decoder(config.limits)
    for record in records(source, uri):
        if isinstance(record, CutOff):
            recording.cut_off = record.why
        elif isinstance(record, Metadata):
            recording.facts |= {str(k): str(v) for k, v in record.metadata.items()}
        else:
            name = record.channel.topic
            recording.add(record)
            tells_task = name in config.keys.language if config.keys.language else TASK_TOPIC.search(name)
            if record.kind == "text" and tells_task and len(recording.tasks) < MAX_TASKS:
                recording.tasks.append(decoder.text(record))
    recording.find_roles(config)
    return recording


# One clock


@dataclass(frozen=True)
class Clock:
    """Ticks that frames are made at: `start_ns`, then `fps` a second."""

    start_ns: int
    fps: float
    ticks: int

    def times_ns(self) -> np.ndarray:
        """int64 [ticks]"""
        return self.start_ns + np.round(np.arange(self.ticks) * (1e9 / self.fps)).astype(np.int64)

    def nearest(self, stamps: np.ndarray) -> np.ndarray:
        """Of ordered stamps [n], the place of the one nearest to each tick, int64 [ticks]; of two the earlier."""
        times = self.times_ns()
        after = np.clip(np.searchsorted(stamps, times), 0, len(stamps) - 1)
        before = np.maximum(after - 1, 0)
        return np.where(np.abs(times - stamps[before]) <= np.abs(stamps[after] - times), before, after)


def clock_of(recording: Recording, fps: float | None) -> Clock:
    """Raises DataError where the topics share no time, or the first camera has none that goes on."""
    first = next(iter(recording.cameras.values()))
    fps = fps or first.fps()
    firsts, lasts = zip(*(topic.used[0][[0, -1]].tolist() for topic in recording.used), strict=True)
    begin, end = max(firsts), min(lasts)
    if end < begin or not 0 < fps <= 1000:
        raise DataError(f"its topics share no time: {named([topic.told for topic in recording.used])}", "clock_gap")
    # Ticks fall on pictures of the first camera, so that jitter moves no picture to its neighbour's tick
    start = next((stamp for stamp in first.used[0].tolist() if begin <= stamp <= end), begin)
    return Clock(start, fps, int((end - start) * fps / 1e9 + SLACK) + 1)


# Listing


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    _find_split(listing)
    for uri in sorted(u for u in source.files if u.lower().endswith(SUFFIX)):
        try:
            _add(listing, uri, look_into(source, uri))
        except (DataError, OSError) as e:
            listing.add_lost(e, uri, uri)
    cameras = in_order(listing.cameras_in_use(), source.config.cameras)
    listing.find_missing([*cameras, *source.config.cameras.ordered()], "no topic with pictures of {}")
    return listing.listing("mcap", cameras, nothing="no file is a recording")


def _find_split(listing: ListingBuilder) -> None:
    """`ros2 bag` can go on in a new file when one is full: then a file is not a whole episode."""
    parts = Counter(m[1] for uri in listing.source.files if (m := SPLIT.fullmatch(uri)))
    for stem, count in parts.items():
        if count > 1 and f"{stem.rpartition('/')[0]}/metadata.yaml".strip("/") in listing.source.files:
            detail = f"{stem} is split over {count} files, each of which counts as an episode"
            listing.warn("split_recording", detail, file=f"{stem}_0.mcap")


def _add(listing: ListingBuilder, uri: str, recording: Recording) -> None:
    """The coming episode, with what is wrong with it. Raises DataError."""
    config = listing.source.config
    _find_doubts(listing, uri, recording)
    fps, ticks = config.fps or 1.0, 0
    if not recording.cameras:
        told = named([f"{t.name} ({t.type}, {len(t.log_ns)})" for t in recording.topics.values()]) or "nothing"
        listing.unusable_next("no_video", f"no topic with pictures that are read; it holds {told}", uri)
    else:
        clock = clock_of(recording, config.fps)
        fps, ticks = clock.fps, clock.ticks
        config.limits.check("max_rows", ticks, f"{uri}: frames")
        listing.findings += _timing(recording, clock, listing.next_index, uri)
    listing.add(
        uri,
        fps,
        tasks=texts_among([*recording.tasks, *map(recording.facts.get, TASK_KEYS)]),
        num_rows=ticks or None,
        data_uri=uri,
        videos=[CameraVideo(camera, uri, 0) for camera in recording.cameras],
        evidence=OutcomeEvidence(listing.stated_outcome(recording.facts)),
        group=listing.group(recording.facts, _session(uri)),
        source_stamp=listing.source.stamp([uri], ticks),
        no_task="no topic and no metadata has an instruction",
    )


def _find_doubts(listing: ListingBuilder, uri: str, recording: Recording) -> None:
    """What is wrong with the file and its topics."""
    keys = listing.source.config.keys
    if recording.cut_off:
        count = sum(len(t.log_ns) for t in recording.topics.values())
        listing.warn_next("cut_off", f"{recording.cut_off}; the {count} messages before that are used", uri)
    there = {topic.name for topic in recording.used}
    for topic in sorted({*keys.state, *keys.action} - there):
        listing.warn_next("missing_topic", f"no topic {topic} with numbers in more than one message", uri)
    for topic, count in recording.undecodable.items():
        listing.warn_next("unreadable_data", f"{topic}: {count} messages are too short for their header", uri)


def _timing(recording: Recording, clock: Clock, index: int, uri: str) -> Iterator[Finding]:
    """What is doubtful about when messages were made."""
    times = clock.times_ns()
    names = {topic.name: camera for camera, topic in recording.cameras.items()}
    longest = max(GAP_TICKS / clock.fps, GAP_S) * 1e9
    for topic in recording.used:
        stamps, by = topic.stamps
        late = int(_late(stamps).sum())
        camera = names.get(topic.name)
        if by == "log" and all(topic.header_ns):
            told = f"{topic.name}: headers are out of order; the recorder's own times are used"
            yield Finding("unsorted_stamps", told, "warning", index, camera, uri)
        if late:
            told = f"{topic.name}: {late} of {len(stamps)} messages are older than one before them, and left out"
            severity = "warning" if late <= MAX_LATE * len(stamps) else "unusable"
            yield Finding("unsorted_stamps", told, severity, index, None if severity == "unusable" else camera, uri)
        used, _ = topic.used
        away = np.abs(used[clock.nearest(used)] - times)
        if away.max() > longest:
            told = (
                f"{topic.name}: at {int((away > longest).sum())} of {clock.ticks} frames the nearest message is up to "
                f"{away.max() / 1e9:.2f} s away"
            )
            yield Finding("clock_gap", told, "warning", index, camera, uri)


# Reading


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """Rows on the episode's clock, and frames that are decoded as the file is read. Raises DataError."""
    uri = record.data_uri or ""
    try:
        recording = look_into(source, uri)
        if not recording.cameras:
            raise DataError("no topic with pictures any more", "no_video")
        clock = clock_of(recording, source.config.fps)
        state, action = (_rows(source, uri, topics, clock) for topics in (recording.state, recording.action))
    except OSError as e:
        raise DataError(str(e)) from e
    return EpisodeData(
        record, state, action, np.arange(clock.ticks) / clock.fps, _frames(source, uri, recording, clock)
    )


def _rows(source: Source, uri: str, topics: Sequence[Topic], clock: Clock) -> pa.Table | None:
    """Numbers at each tick; of a joint that only some of a topic's messages name, those. Raises DataError."""
    if not topics:
        return None
    # Times and values of each number by "topic name", in order of appearance
    series: dict[str, tuple[list[int], list[float]]] = {}
    times = {t.name: dict(zip(t.used[1].tolist(), t.used[0].tolist(), strict=True)) for t in topics}
    decoder, seen, limits = Decoder(source.config.limits), Counter[str](), source.config.limits
    for message in records(source, uri):
        if not isinstance(message, RawMessage) or (topic := message.channel.topic) not in times:
            continue
        if (time := times[topic].get(seen[topic])) is not None:
            for name, value in decoder.numbers(message).items():
                stamps, values = series.setdefault(f"{topic} {name}", ([], []))
                stamps.append(time)
                values.append(value)
        seen[topic] += 1
        limits.check("max_features", len(series), f"{uri}: joints")
    limits.check("max_values", len(series) * clock.ticks, f"{uri}: numbers")
    columns = [np.array(v)[clock.nearest(np.array(stamps, np.int64))] for stamps, v in series.values()]
    return numbers(np.stack(columns, axis=1), _names(series))


def _names(series: Iterable[str]) -> list[str]:
    """Of "topic name" the name, or both where two topics have one of that name."""
    names = [name.partition(" ")[2] for name in series]
    return names if len({*names}) == len(names) else [name.replace(" ", "/").strip("/") for name in series]


def _frames(source: Source, uri: str, recording: Recording, clock: Clock) -> FrameReader:
    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        topic = recording.cameras[camera]
        stamps, numbers = topic.used
        wanted = numbers[clock.nearest(stamps)]  # numbers of messages, which never go down
        decoder, number, tick = Decoder(source.config.limits), -1, 0
        for message in records(source, uri):
            if not isinstance(message, RawMessage) or message.channel.topic != topic.name:
                continue
            number += 1
            picture = decoder.picture(message) if wanted[tick] == number else None
            while picture and wanted[tick] == number:
                yield tick, tick / clock.fps, picture
                tick += 1
                if tick == len(wanted):
                    return

    return frames

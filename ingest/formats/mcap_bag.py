"""Adapter for MCAP recordings of ROS 2: each file is an episode, its picture topics are cameras.

Topics come at times and rates of their own; frames are made of them on one clock. It ticks at the rate of the first
camera (or the registry's `fps`), from the first moment at which every topic has spoken to the last at which none has
ended. At each tick every topic gives the message that is nearest in time, of two that are equally near the earlier one.
A message's time is that of its header; where headers of a topic are missing, all zero or mostly out of order, it is the
time at which the recorder wrote it down.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ingest.episode import CameraVideo, Episode, EpisodeRecord, Finding, Listing, RowsError, TimedPicture
from ingest.formats.cameras import in_order
from ingest.formats.listing import ListingBuilder, named, texts_among
from ingest.formats.mcap_file import CutOff, McapError, Metadata, RawMessage, records
from ingest.formats.ros_messages import Decoder, Kind, kind_of, stamp_ns
from ingest.media.video import DECODE_ALL, DecodeOptions, VideoError
from ingest.outcomes import Evidence
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


def recognises(source: Source) -> bool:
    return any(uri.lower().endswith(SUFFIX) for uri in source.files)


def roots(uris: Iterable[str]) -> dict[str, str]:
    """The folder above the recordings: `ros2 bag` makes a folder of each."""
    found = {}
    for uri in uris:
        if uri.lower().endswith(SUFFIX):
            found[_session(uri).rpartition("/")[0]] = ""
    return found


def _session(uri: str) -> str:
    """What a recording is called: its folder where that is named as `ros2 bag` names it, else the file."""
    folder, _, name = uri.rpartition("/")
    stem = name[: -len(SUFFIX)]
    return folder if re.fullmatch(re.escape(folder.rpartition("/")[2]) + r"_\d+", stem) else uri


# What a file holds


@dataclass
class Topic:
    """A topic of one file: when each message that is used was made, and which of the file's it is."""

    name: str
    kind: Kind
    type: str
    log_ns: list[int] = field(default_factory=list)
    header_ns: list[int | None] = field(default_factory=list)

    @property
    def stamps(self) -> tuple[np.ndarray, str]:
        """Times of all messages, int64 [n] in nanoseconds, and where they are from: header or log."""
        headers = np.array([h or 0 for h in self.header_ns], np.int64)
        known = None not in self.header_ns and len(headers) > 0 and bool(headers.any())
        if known and _late(headers).mean() <= MAX_LATE:
            return headers, "header"
        return np.array(self.log_ns, np.int64), "log"

    def used(self) -> tuple[np.ndarray, np.ndarray]:
        """Times of the messages in order, and their numbers in the file; late ones are left out."""
        stamps, _ = self.stamps
        numbers = np.flatnonzero(~_late(stamps))
        return stamps[numbers], numbers


def _late(stamps: np.ndarray) -> np.ndarray:
    """Which messages are older than one that came before them, bool [n]."""
    return stamps < np.maximum.accumulate(stamps)


@dataclass
class Recording:
    """What one file holds, with no picture decoded."""

    topics: dict[str, Topic] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    cut_off: str | None = None
    undecodable: Counter[str] = field(default_factory=Counter)

    def of_kind(self, kinds: Sequence[Kind]) -> list[Topic]:
        return [t for t in self.topics.values() if t.kind in kinds and len(t.log_ns) > 1]


@dataclass(frozen=True)
class Roles:
    """Which topics are what: cameras by name, the state's and the action's in order."""

    cameras: dict[str, Topic]
    state: tuple[Topic, ...]
    action: tuple[Topic, ...]
    missing: tuple[str, ...]  # that the registry names, and the file has not

    @property
    def all(self) -> list[Topic]:
        return [*self.cameras.values(), *self.state, *self.action]


def look_into(source: Source, uri: str) -> Recording:
    """Raises McapError, and OSError."""
    recording, decoder, limits = Recording(), Decoder(source.config.limits), source.config.limits
    for record in records(source.resolve(uri), limits):
        if isinstance(record, CutOff):
            recording.cut_off = record.why
        elif isinstance(record, Metadata):
            recording.facts |= {str(k): str(v) for k, v in record.metadata.items()}
        else:
            _note(recording, decoder, record, source.config)
    return recording


def _note(recording: Recording, decoder: Decoder, message: RawMessage, config: DatasetConfig) -> None:
    """Raises McapError."""
    name = message.channel.topic
    if name not in recording.topics:
        told = message.schema.name if message.schema else "no type"
        recording.topics[name] = Topic(name, kind_of(message.schema), told)
    topic = recording.topics[name]
    topic.log_ns.append(message.log_ns)
    if topic.kind == "text" and _tells_task(name, config) and len(recording.tasks) < MAX_TASKS:
        recording.tasks += texts_among([decoder.text(message)])
    try:
        topic.header_ns.append(stamp_ns(message))
    except McapError:
        recording.undecodable[name] += 1
        topic.header_ns.append(None)


def _tells_task(name: str, config: DatasetConfig) -> bool:
    return name in config.keys.language if config.keys.language else TASK_TOPIC.search(name) is not None


def camera_name(topic: str) -> str:
    """Example: "/camera/front/image_raw/compressed" is "camera/front"."""
    parts = topic.strip("/").split("/")
    while len(parts) > 1 and parts[-1] in LAST_PARTS:
        del parts[-1]
    return "/".join(parts)


def roles_of(recording: Recording, config: DatasetConfig) -> Roles:
    """Cameras by their topics' names; state and action where the registry says, else by usual names."""
    cameras: dict[str, Topic] = {}
    # Of a camera that is there raw and packed, the raw pictures have lost nothing
    for topic in sorted(recording.of_kind(PICTURES), key=lambda t: (PICTURES.index(t.kind), t.name), reverse=True):
        if not NO_CAMERA.search(topic.name):
            cameras[camera_name(topic.name)] = topic
    joints = recording.of_kind(("joints",))
    plain = [t for t in joints if not COMMAND.search(t.name)]
    usual = [t for t in plain if t.name == JOINTS_TOPIC] or plain
    commanded = [t for t in recording.of_kind(NUMBERS) if COMMAND.search(t.name)]
    numbers = {t.name: t for t in recording.of_kind(NUMBERS)}
    state = tuple(numbers[n] for n in config.keys.state if n in numbers) if config.keys.state else tuple(usual)
    action = tuple(numbers[n] for n in config.keys.action if n in numbers) if config.keys.action else tuple(commanded)
    missing = [n for n in (*config.keys.state, *config.keys.action) if n not in numbers]
    order = in_order(cameras, config.cameras)
    return Roles({c: cameras[c] for c in order}, state, action, tuple(missing))


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


def clock_of(roles: Roles, fps: float | None) -> Clock:
    """Raises McapError where the topics share no time, or the first camera has none that goes on."""
    first = next(iter(roles.cameras.values()))
    pictures, _ = first.used()
    steps = np.diff(pictures)
    steps = steps[steps > 0]
    if fps is None:
        if not len(steps):
            raise McapError(f"{first.name}: its pictures are all of one moment", "unsorted_stamps")
        fps = round(1e9 / float(np.median(steps)), 3)
    spans = [stamps for stamps, _ in (t.used() for t in roles.all)]
    begin, end = max(int(s[0]) for s in spans), min(int(s[-1]) for s in spans)
    if end < begin or not 0 < fps <= 1000:
        raise McapError(f"its topics share no time: {_spans(roles)}", "clock_gap")
    # Ticks fall on pictures of the first camera, so that jitter moves no picture to its neighbour's tick
    start = int(pictures[min(np.searchsorted(pictures, begin), len(pictures) - 1)])
    start = start if start <= end else begin
    return Clock(start, fps, int((end - start) * fps / 1e9 + SLACK) + 1)


def _spans(roles: Roles) -> str:
    told = []
    for topic in roles.all:
        stamps, by = topic.stamps
        told.append(f"{topic.name} {stamps[0] / 1e9:.3f} to {stamps[-1] / 1e9:.3f} s ({by})")
    return named(told)


# Listing


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    _find_splits(listing)
    for uri in sorted(u for u in source.files if u.lower().endswith(SUFFIX)):
        try:
            _add(listing, uri, look_into(source, uri))
        except (McapError, OSError) as e:
            listing.unusable(getattr(e, "reason", "unreadable_data"), str(e), listing.next_index, file=uri)
            listing.records.append(EpisodeRecord(listing.next_index, uri, source.config.fps or 1.0, None, data_uri=uri))
    if not listing.records:
        listing.lists_nothing("no file is a recording")
    cameras = in_order(listing.cameras_in_use(), source.config.cameras)
    _find_missing_cameras(listing, cameras)
    return listing.listing("mcap", listing.first_fps(), cameras)


def _find_splits(listing: ListingBuilder) -> None:
    """`ros2 bag` can go on in a new file when one is full: then a file is not a whole run."""
    parts = Counter(m[1] for uri in listing.source.files if (m := SPLIT.fullmatch(uri)))
    for stem, count in parts.items():
        if count > 1 and f"{stem.rpartition('/')[0]}/metadata.yaml".strip("/") in listing.source.files:
            detail = f"{stem} is split over {count} files, each of which counts as an episode"
            listing.warn("split_recording", detail, file=f"{stem}_0.mcap")


def _add(listing: ListingBuilder, uri: str, recording: Recording) -> None:
    """The coming episode, with what is wrong with it. Raises McapError."""
    config, index = listing.source.config, listing.next_index
    roles = roles_of(recording, config)
    if recording.cut_off:
        count = sum(len(t.log_ns) for t in recording.topics.values())
        detail = f"{recording.cut_off}; the {count} messages before that are used"
        listing.warn("cut_off", detail, index, file=uri)
    for topic in roles.missing:
        listing.warn("missing_topic", f"no topic {topic} with numbers in more than one message", index, file=uri)
    for topic, count in recording.undecodable.items():
        listing.warn("unreadable_data", f"{topic}: {count} messages are too short for their header", index, file=uri)
    fps, ticks = config.fps or 1.0, 0
    if not roles.cameras:
        told = named([f"{t.name} ({t.type}, {len(t.log_ns)})" for t in recording.topics.values()]) or "nothing"
        listing.unusable("no_video", f"no topic with pictures that are read; it holds {told}", index, file=uri)
    else:
        clock = clock_of(roles, config.fps)
        fps, ticks = clock.fps, clock.ticks
        if problem := config.limits.excess("max_rows", ticks, f"{uri}: frames"):
            raise McapError(problem, "over_limit")
        listing.findings += _timing(roles, clock, index, uri)
    tasks = tuple(dict.fromkeys([*recording.tasks, *texts_among(recording.facts.get(k) for k in TASK_KEYS)]))
    if not tasks:
        listing.warn("no_task", "no topic and no metadata has an instruction", index, file=uri)
    listing.evidence[index] = Evidence(listing.stated_outcome(recording.facts))
    session = _session(uri)
    listing.records.append(
        EpisodeRecord(
            episode_index=index,
            source_id=uri,
            fps=fps,
            task=next(iter(tasks), None),
            tasks=tasks,
            num_rows=ticks or None,
            data_uri=uri,
            videos=tuple(CameraVideo(camera, uri, 0) for camera in roles.cameras),
            group=listing.group(recording.facts, session),
            source_stamp=listing.source.stamp([uri], ticks),
        )
    )


def _timing(roles: Roles, clock: Clock, index: int, uri: str) -> Iterator[Finding]:
    """What is doubtful about when messages were made."""
    times = clock.times_ns()
    names = {id(topic): camera for camera, topic in roles.cameras.items()}
    longest = max(GAP_TICKS / clock.fps, GAP_S) * 1e9
    for topic in roles.all:
        stamps, by = topic.stamps
        late = int(_late(stamps).sum())
        camera = names.get(id(topic))
        if by == "log" and all(topic.header_ns):
            told = f"{topic.name}: headers are out of order; the recorder's own times are used"
            yield Finding("unsorted_stamps", told, "warning", index, camera, uri)
        if late:
            told = f"{topic.name}: {late} of {len(stamps)} messages are older than one before them, and left out"
            severity = "warning" if late <= MAX_LATE * len(stamps) else "unusable"
            yield Finding("unsorted_stamps", told, severity, index, None if severity == "unusable" else camera, uri)
        used, _ = topic.used()
        away = np.abs(used[clock.nearest(used)] - times)
        if away.max() > longest:
            told = (
                f"{topic.name}: at {int((away > longest).sum())} of {clock.ticks} frames the nearest message is up to "
                f"{away.max() / 1e9:.2f} s away"
            )
            yield Finding("clock_gap", told, "warning", index, camera, uri)


def _find_missing_cameras(listing: ListingBuilder, cameras: Sequence[str]) -> None:
    expected = dict.fromkeys((*cameras, *listing.source.config.cameras.ordered()))
    for record in listing.records:
        for camera in expected if record.videos else ():
            if camera not in record.cameras:
                detail = f"no topic with pictures of {camera}"
                listing.warn("missing_camera", detail, record.episode_index, camera=camera, file=record.data_uri)


# Reading


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    """Rows on the episode's clock, and frames that are decoded as the file is read. Raises RowsError."""
    if record.data_uri is None or not record.num_rows:
        raise RowsError("no rows", "no_data")
    uri = record.data_uri
    try:
        recording = look_into(source, uri)
        roles = roles_of(recording, source.config)
        if not roles.cameras:
            raise McapError("no topic with pictures any more", "no_video")
        clock = clock_of(roles, source.config.fps)
        # A file that was replaced since it was listed is not the episode that the corpus knows
        if clock.ticks != record.num_rows:
            raise McapError(f"{clock.ticks} frames; there were {record.num_rows}")
        state, state_names = _rows(source, uri, roles.state, clock)
        action, action_names = _rows(source, uri, roles.action, clock)
    except (McapError, OSError) as e:
        raise RowsError(str(e), getattr(e, "reason", "unreadable_data")) from e
    frames = _frames(source, uri, roles, clock)
    return Episode(record, state, action, np.arange(clock.ticks) / clock.fps, frames, state_names, action_names)


def _rows(source: Source, uri: str, topics: Sequence[Topic], clock: Clock) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Numbers at each tick, float64 [ticks, d], with their names; of a joint that only some of a topic's messages name,
    those. Raises McapError."""
    if not topics:
        return None, ()
    series = _series(source, uri, topics)
    if problem := source.config.limits.excess("max_values", len(series) * clock.ticks, f"{uri}: numbers"):
        raise McapError(problem, "over_limit")
    columns = []
    for stamps, values in series.values():
        columns.append(np.array(values)[clock.nearest(np.array(stamps, np.int64))])
    short = [name.partition(" ")[2] for name in series]
    names = short if len(set(short)) == len(short) else [n.replace(" ", "/").strip("/") for n in series]
    return np.stack(columns, axis=1), tuple(names)


def _series(source: Source, uri: str, topics: Sequence[Topic]) -> dict[str, tuple[list[int], list[float]]]:
    """Times and values of each number by "topic name", in order of appearance. Raises McapError."""
    times = {t.name: dict(zip(t.used()[1].tolist(), t.used()[0].tolist(), strict=True)) for t in topics}
    series: dict[str, tuple[list[int], list[float]]] = {}
    limits = source.config.limits
    decoder, seen = Decoder(limits), Counter[str]()
    for message in _messages(source, uri):
        topic = message.channel.topic
        if topic not in times:
            continue
        number = seen[topic]
        seen[topic] += 1
        if number in times[topic]:
            for name, value in decoder.numbers(message).items():
                stamps, values = series.setdefault(f"{topic} {name}", ([], []))
                stamps.append(times[topic][number])
                values.append(value)
        if problem := limits.excess("max_features", len(series), f"{uri}: joints"):
            raise McapError(problem, "over_limit")
    return series


def _messages(source: Source, uri: str) -> Iterator[RawMessage]:
    for record in records(source.resolve(uri), source.config.limits):
        if isinstance(record, RawMessage):
            yield record


def _frames(source: Source, uri: str, roles: Roles, clock: Clock) -> Callable[..., Iterator[TimedPicture]]:
    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        topic = roles.cameras[camera]
        stamps, numbers = topic.used()
        wanted = numbers[clock.nearest(stamps)]  # numbers of messages, which never go down
        decoder, number, tick = Decoder(source.config.limits), -1, 0
        try:
            for message in _messages(source, uri):
                if message.channel.topic != topic.name:
                    continue
                number += 1
                if tick < len(wanted) and wanted[tick] == number:
                    picture = decoder.picture(message)
                    while tick < len(wanted) and wanted[tick] == number:
                        yield tick, tick / clock.fps, picture
                        tick += 1
                if tick == len(wanted):
                    return
        except (McapError, OSError) as e:
            raise VideoError(str(e)) from e

    return frames

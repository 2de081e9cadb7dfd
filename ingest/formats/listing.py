"""Gathering a dataset's listing: its episodes, what is wrong with it, and what its parts are used for."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from ingest.episode import (
    CameraVideo,
    EpisodeRecord,
    Finding,
    Listing,
    PartCensus,
    PartKind,
    SourcePart,
)
from ingest.formats.side_files import read_json, text_file_of
from ingest.formats.tree import Uses, account, fields
from ingest.formats.writers import Writer, known_by
from ingest.media.camera_kinds import kind_by_name
from ingest.outcomes import (
    NO_EVIDENCE,
    Outcome,
    OutcomeEvidence,
    decide,
    fields_of,
    folder_outcome,
    stated,
    truth,
)
from ingest.reasons import DataError
from ingest.registry import Cameras, DatasetConfig
from ingest.sources.files import Source
from ingest.unread_files import add_unread_files

MAX_NAMED = 5  # files or cameras, in one message
TASK_KEYS = ("task", "instruction", "language_instruction", "prompt")  # of facts about a recording
REGISTERED = "the registry entry names it"
BY_NAME = "its name says so"
NEITHER_TRUE_NOR_FALSE = "its value is neither true nor false"
ROWS_BEYOND = "the last {} rows are of no episode: the last one ends at row {}"
STEPS = "{} changes within the episode, so that its {} texts are steps; {}"
STEPS_STAND_IN = "no text is of the whole, and these together stand for it"
TASK_NUMBER = re.compile(r"(^|[ /])task_?(index|idx|id|number)$")
DEFAULT_FPS = 10.0  # where nothing is known; each use is a finding
NO_FRAME_RATE = f"nothing states the frame rate of {{}} episodes; {DEFAULT_FPS:g} fps is assumed"


@dataclass
class ListingBuilder:
    """The episodes and findings of a dataset, as an adapter comes upon them."""

    source: Source
    number: int | None = None  # of the coming episode, where the source numbers them itself
    records: list[EpisodeRecord] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    # Of outcomes, by episode_index
    evidence: dict[int, OutcomeEvidence] = field(default_factory=dict)
    # Of findings of many episodes, by code and sentence: how many
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    # Of files of texts that were read, by uri: one may be that of all episodes
    texts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # Of the source: what is read, and what is not
    parts: PartCensus = field(default_factory=PartCensus)

    def __post_init__(self) -> None:
        self.parts.most = self.source.config.limits.max_features

    @property
    def next_index(self) -> int:
        """The index of the episode that comes next: its `number`, else as episodes are counted."""
        return len(self.records) if self.number is None else self.number

    def warn(self, reason: str, detail: str, episode: int | None = None, **location: Any) -> None:
        """Record what is doubtful: of an episode or a `camera` of it, or of the dataset; in a `file`."""
        self.findings.append(Finding(reason, detail, "warning", episode, **location))

    def unusable(
        self, reason: str, detail: str, episode: int | None = None, **location: Any
    ) -> None:
        """Record what makes an episode, a camera of it or the dataset unusable."""
        self.findings.append(Finding(reason, detail, "unusable", episode, **location))

    def count(self, reason: str, detail: str) -> None:
        """What is so for many episodes, and one finding of the dataset, in which their number stands."""
        self.counts[reason, detail] += 1

    def find_counted(self) -> None:
        """Record what was counted so far, in one order."""
        for reason, detail in sorted(self.counts, key=itemgetter(0), reverse=True):
            self.warn(reason, detail.replace("{}", str(self.counts[reason, detail])))
        self.counts.clear()

    def warn_next(
        self, reason: str, detail: str, file: str | None = None, camera: str | None = None
    ) -> None:
        """A warning of the episode that comes next."""
        self.warn(reason, detail, self.next_index, camera=camera, file=file)

    def unusable_next(self, reason: str, detail: str, file: str | None = None) -> None:
        """What makes the episode that comes next unusable."""
        self.unusable(reason, detail, self.next_index, file=file)

    def read_json(self, uri: str, episode: int | None = None, *, default: Any = None) -> Any:
        """What a JSON file holds; `default`, with a warning, where it cannot be read."""
        try:
            return read_json(self.source, uri)
        except DataError as e:
            self.warn(e.reason, str(e), episode, file=uri)
            return default

    def read_object(self, uri: str, episode: int | None = None) -> dict[str, Any]:
        """The object in a JSON file; {} for none or another value, and, with a warning, where it cannot be read."""
        content = self.read_json(uri, episode) if uri in self.source.files else None
        if isinstance(content, dict):
            return content
        return {}

    def fps(self, stated_fps: float | None) -> float:
        """The registry's frame rate, else the stated one, else the default."""
        if not self.source.config.fps and not stated_fps:
            self.count("no_frame_rate", NO_FRAME_RATE)
        return self.source.config.fps or stated_fps or DEFAULT_FPS

    def add(
        self,
        source_id: str,
        fps: float,
        *,
        tasks: Sequence[str] = (),
        num_rows: int | None = None,
        data_uri: str | None = None,
        videos: Iterable[CameraVideo] = (),
        files: Iterable[str] = (),
        facts: Mapping[str, Any] = MappingProxyType({}),
        evidence: OutcomeEvidence = NO_EVIDENCE,
        group: str = "",
        no_task: str = "",
        **fields: Any,
    ) -> None:
        """The coming episode. `files`: others than its rows and videos that say something of it. `facts`: what states
        its outcome and its group, where `evidence` and `group` do not. `no_task`: where a task was looked for.
        """
        videos = tuple(videos)
        uris = [video.uri for video in videos] + ([data_uri] if data_uri else [])
        if not tasks and uris:
            tasks, text_uris = self.texts_beside(uris[-1])
            files = [*files, *text_uris]
        if no_task and not tasks:
            self.warn_next("no_task", no_task, data_uri or next(iter(uris), None))
        stated_outcome = evidence.stated or self.stated_outcome(facts)
        self.evidence[self.next_index] = replace(evidence, stated=stated_outcome)
        usual_fields: dict[str, Any] = {
            "episode_index": self.next_index,
            "source_id": source_id,
            "fps": fps,
            "task": next(iter(tasks), None),
            "tasks": tuple(tasks),
            "num_rows": num_rows,
            "data_uri": data_uri,
            "videos": videos,
            "group": group or self.group(facts, source_id),
            "source_stamp": self.source.stamp([*uris, *files], num_rows),
        }
        self.records.append(EpisodeRecord(**{**usual_fields, **fields}))

    def texts_beside(self, uri: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The texts of the coming episode in a file beside its data, which has none itself, and that file's uri; a
        warning where it cannot be read.
        """
        text_file = text_file_of(self.source, uri)
        if text_file is None:
            return (), ()
        text_uri, form = text_file
        if text_uri not in self.texts:
            content = self.read_json(text_uri, self.next_index)
            fields = content if isinstance(content, dict) else {}
            uses: Uses = dict.fromkeys(form.keys, ("instruction", f"{form.writer} keeps it there"))
            account_for_fields(self.parts, "texts: ", fields, uses, file=text_uri)
            self.texts[text_uri] = texts_among([content, *map(fields.get, form.keys)])
        return self.texts[text_uri], (text_uri,)

    def whole_task(
        self, tasks: tuple[str, ...], texts_by_name: Mapping[str, Sequence[str]], uri: str | None
    ) -> tuple[str, ...]:
        """The instruction of the coming episode: its `tasks`, or those of them that are no steps.

        `texts_by_name`: of each column or topic with a text for each row, the different ones in their order. Several
        are steps, which together stand for the whole where no other text does. They are wordings if the registry says
        `paraphrases`.
        """
        changing = {name: texts for name, texts in texts_by_name.items() if len(texts) > 1}
        if not changing or self.source.config.instruction == "paraphrases":
            return tasks
        steps = texts_among(changing.values())
        whole_tasks = tuple(task for task in tasks if task not in steps)
        ending = f"{named(whole_tasks)} is of the whole" if whole_tasks else STEPS_STAND_IN
        self.warn_next("no_task", STEPS.format(named([*changing]), len(steps), ending), uri)
        return whole_tasks or ("; ".join(steps),)

    def add_lost(self, error: Exception, source_id: str, uri: str, **fields: Any) -> None:
        """An episode that cannot be read at all; a file that cannot be opened counts as one."""
        self.unusable_next(getattr(error, "reason", "unreadable_data"), str(error), uri)
        self.add(source_id, self.source.config.fps or DEFAULT_FPS, data_uri=uri, **fields)

    def lists_nothing(self, detail: str) -> None:
        """Record that there is no episode. Where files are git-LFS pointers, these are why."""
        if not any(f.reason == "lfs_pointer" for f in self.findings):
            self.unusable("no_episodes", detail)
        self.findings = [
            replace(f, severity="unusable") if f.reason == "lfs_pointer" else f
            for f in self.findings
        ]

    def stated_outcome(self, facts: Mapping[str, Any]) -> Outcome | None:
        """Whether a run succeeded, by the field that the registry names, else by the usual ones; one with another value
        than a truth is a part that is not used.
        """
        names = [name for name in fields_of(self.source.config.success_field) if name in facts]
        for name in names:
            is_empty = str(facts[name]).strip().lower() in ("", "none", "nan")
            if truth(facts[name]) is None and not is_empty:
                self.parts.add(
                    SourcePart("text", f"outcome: {name}", "unknown", "", NEITHER_TRUE_NOR_FALSE)
                )
        return stated(facts, names)

    def account_for_facts(
        self,
        prefix: str,
        facts: Iterable[str],
        uses: Uses,
        writer: Writer | None = None,
        file: str | None = None,
    ) -> None:
        """Account for fields of an episode's metadata, of which outcome and group are read, too."""
        all_uses = {**uses, **usual_uses(self.source.config)}
        account_for_fields(self.parts, prefix, facts, all_uses, writer, file=file)

    def group(self, facts: Mapping[str, Any], default: str = "", field: str = "") -> str:
        """The group that an episode's split is decided by: the field that the registry names, else a group of its own.

        `default` must not be the index of an episode that is counted: it moves when a file is added
        before it.
        """
        stated_group = facts.get(self.source.config.group_field or field)
        if stated_group in (None, ""):
            return default
        return str(stated_group)

    def listing(
        self,
        format_: str,
        cameras: Iterable[str],
        *,
        fps: float | None = None,
        robot: str | None = None,
        numbered: bool = False,
        nothing: str = "",
    ) -> Listing:
        """All of it, with the outcomes of all episodes; of each episode once, before its index changes.

        `fps`: by default the first episode's. `robot`: as the source says; the registry's counts
        before it. `nothing`: why there may be no episode.
        """
        if not self.records and nothing:
            self.lists_nothing(nothing)
        self.find_counted()
        records, never_set = self._with_outcomes()
        fps = fps or next((record.fps for record in records), None)
        robot = self.source.config.robot or robot
        # Where no episode can be used no part says more
        unusable_episodes = {
            finding.episode_index for finding in self.findings if finding.severity == "unusable"
        }
        is_usable = any(record.episode_index not in unusable_episodes for record in self.records)
        if is_usable:
            self._find_shared_texts()
            self._add_cameras()
        # Of a source of which some episodes are looked at, nothing says what the files of the others hold
        if is_usable and self.source.selected is None:
            add_unread_files(self.parts, self.source, format_, self.records, self.findings)
        findings = (*self.findings, *self.parts.findings())
        parts = self.parts.listed()
        return Listing(
            format_, fps, robot, tuple(cameras), records, findings, numbered, never_set, parts
        )

    def _find_shared_texts(self) -> None:
        """Say where all episodes have the same several texts, and a number may choose one of them for each."""
        texts = {record.tasks for record in self.records}
        numbers = [
            part.name
            for part in self.parts.listed()
            if part.status != "used" and TASK_NUMBER.search(part.name)
        ]
        if len(self.records) > 1 and len(texts) == 1 and len(min(texts)) > 1 and numbers:
            detail = "all episodes have the {} texts; {} is not read, and may say whose is which"
            self.warn("no_task", detail.format(len(min(texts)), numbers[0]))

    def _add_cameras(self) -> None:
        """Account for cameras of episodes that no reader described as parts."""
        used = [p.name for p in self.parts.listed() if p.kind == "camera" and p.status == "used"]
        counts = Counter(chain.from_iterable(record.cameras for record in self.records))
        videos = chain.from_iterable(record.videos for record in reversed(self.records))
        files = {video.camera: video.uri for video in videos}
        reason = "its files are where this format has a camera's"
        for camera in sorted(counts):
            if not any(camera in name for name in used):
                place = files[camera], counts[camera]
                self.parts.add(
                    SourcePart("camera", camera, "used", "camera", reason, (), "", *place)
                )

    def _with_outcomes(self) -> tuple[tuple[EpisodeRecord, ...], tuple[str, ...]]:
        """The records with what they show of success, and names of what could show it and is never set."""
        evidence: dict[int, OutcomeEvidence] = {}
        for record in self.records:
            of_record = self.evidence.get(record.episode_index, NO_EVIDENCE)
            # Whatever the format, files may lie in a folder that tells
            uris = (video.uri for video in record.videos)
            folder = of_record.folder or folder_outcome(record.data_uri or "", *uris)
            evidence[record.episode_index] = replace(of_record, folder=folder)
        outcomes, never_set = decide(evidence)
        records = []
        for record in self.records:
            if outcome := outcomes[record.episode_index]:
                record = replace(record, success=outcome.success, success_source=outcome.source)
            records.append(record)
        return tuple(records), never_set

    def find_missing(self, cameras: Iterable[str], wording: str) -> None:
        """Find the cameras that an episode lacks, where no finding says more of them; `wording` names pictures of
        one."""
        # An episode without any camera has a finding that says so
        explained = {(finding.episode_index, finding.camera) for finding in self.findings}
        for record in self.records:
            for camera in cameras if record.videos else ():
                if camera not in record.cameras and (record.episode_index, camera) not in explained:
                    self.warn(
                        "missing_camera",
                        wording.format(camera),
                        record.episode_index,
                        camera=camera,
                        file=record.data_uri,
                    )

    def cameras_in_use(self) -> list[str]:
        """Cameras that an episode has, each once, in order of appearance."""
        return list(dict.fromkeys(chain.from_iterable(record.cameras for record in self.records)))


def folders_of(pattern: re.Pattern[str], uris: Iterable[str]) -> dict[str, str]:
    """The folders that the first group of a pattern names in uris, for an adapter's `roots`. "" is the root."""
    matches = [pattern.fullmatch(uri) for uri in uris]
    return {(match[1] or "").rstrip("/"): "" for match in matches if match}


def named(things: Sequence[str], max_named: int = MAX_NAMED) -> str:
    """Some things by name; of many the first, and how many more. Example: named(["a", "b"]) == "a, b"."""
    first = ", ".join(things[:max_named])
    num_more = len(things) - max_named
    if num_more > 0:
        return f"{first} and {num_more} more"
    return first


def texts_among(values: Iterable[Any]) -> tuple[str, ...]:
    """Those of some values, or lists of them, that are texts, trimmed, each once, in order; empty ones are left out.

    Example: texts_among(["pick ", None, "", ["pick", 3, "place"]]) == ("pick", "place").
    """
    flat = chain.from_iterable(
        value if isinstance(value, list | tuple) else [value] for value in values
    )
    return tuple(
        dict.fromkeys(text for item in flat if isinstance(item, str) and (text := item.strip()))
    )


def camera_name(path: str, last_parts: Collection[str], folders: Collection[str] = ()) -> str:
    """A camera's name, by the path of its pictures: without what says no more than that there are pictures, at its
    beginning `folders`, at its end `last_parts`.

    Example: camera_name("/camera/front/image_raw/compressed", ("image_raw", "compressed")) == "camera/front".
    """
    parts = path.strip("/").split("/")
    while len(parts) > 1 and parts[0] in folders:
        del parts[0]
    while len(parts) > 1 and parts[-1] in last_parts:
        del parts[-1]
    return "/".join(parts)


# What parts of a source are used for


def usual_uses(config: DatasetConfig) -> Uses:
    """Of fields that any metadata of an episode may have: the outcome's names, and the group's."""
    uses = dict.fromkeys(fields_of(config.success_field), ("outcome", "its name"))
    if config.group_field:
        return uses | {config.group_field: ("group", REGISTERED)}
    return uses


def account_for_fields(
    parts: PartCensus,
    prefix: str,
    names: Iterable[str],
    uses: Uses,
    writer: Writer | None = None,
    *,
    kind: PartKind = "text",
    file: str | None = None,
) -> None:
    """Account for some fields, each by its name behind `prefix`; some their `writer` is known to leave there."""
    named_parts = fields(prefix, names, kind, file)
    account(parts, named_parts, uses, lambda part: known_by(writer, part.path))


# Cameras by preference for labelling: what the registry names, then what sees the scene, then what sees the hand


# In the names of cameras that see little of the scene
NEAR = ("wrist", "hand", "gripper", "eye_in", "finger")
ARMS = (*NEAR, "left", "right")


def in_order(
    cameras: Iterable[str],
    registry: Cameras,
    first: tuple[str, ...] = (),
    last: tuple[str, ...] = NEAR,
) -> list[str]:
    """The registry's cameras, then `first`, then others, then those with a part of `last` in their name.

    Those whose names say that they show depth, masks or touch come after all others.
    """
    preferred = (*registry.ordered(), *first)
    # Reversed, so that of a camera that is named twice the first place counts
    rank = {c: k for k, c in reversed(list(enumerate(preferred)))}

    def key(camera: str) -> tuple[int, str]:
        offset = 2 if kind_by_name(camera) else int(_has_part(camera, last))
        return rank.get(camera, len(preferred) + offset), camera

    return sorted(set(cameras), key=key)


def scene_first(cameras: Iterable[str], registry: Cameras) -> list[str]:
    """As `in_order`, but cameras that the registry does not name come before those that it names as
    the wrist's only.

    For formats with names that say nothing, such as serial numbers.
    """
    seeing, wrist = [*registry.views, *registry.exo, *registry.ego], list(registry.wrist)

    # 0: named as seeing the scene; 1 and 2: not named, 2 where its own name says that it is near; 3: the wrist's
    def key(camera: str) -> tuple[int, int, str]:
        if camera in seeing:
            return 0, seeing.index(camera), camera
        if camera in wrist:
            return 3, wrist.index(camera), camera
        return 1 + _has_part(camera, ARMS), 0, camera

    return sorted(cameras, key=key)


def _has_part(camera: str, parts: tuple[str, ...]) -> bool:
    return any(part in camera.lower() for part in parts)

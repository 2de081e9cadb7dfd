"""Annotations that others made: every form of steps in LeRobot datasets, ProcVQA-style JSON lines,
and the forms of annotate.conventions.

They are read into spans of steps per episode. The native annotator's rule makes segments of them:
frames that no step covers are idle, or done at the end of a run that did not fail. An export of
ours brings its segments whole.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from annotate.conventions import reward_data, sidecars
from annotate.imported_label import EpisodeAnnotation, ImportedError
from annotate.native import annotate
from annotate.spans import equal_spans
from core.domain.label import STEP, Label, finished
from core.values import is_index
from ingest.episode import NativeStep
from ingest.formats.folders import is_step
from ingest.formats.lerobot_meta import (
    LerobotListing,
    episode_metadata,
    read_info,
    version_of,
    whole,
)
from ingest.formats.lerobot_rows import StoredEpisode, find_rows, with_metadata
from ingest.formats.lerobot_steps import FORMS as LEROBOT_FORMS
from ingest.formats.lerobot_steps import Stated, read_form
from ingest.formats.side_files import parse_json_lines, read_text
from ingest.reasons import DataError
from ingest.registry import DatasetConfig
from ingest.sources.files import Source

CODE_VERSION = "imported-4"
# Forms of files, in the words of the command line; `annotations-json` is the form `visualizer` without its dataset
FILE_FORMS: Mapping[str, Callable[[Path], Sequence[EpisodeAnnotation]]] = {
    "frame-signals": sidecars.read_signals,
    "annotations-json": sidecars.read_visualizer,
    "opensarm": reward_data.read_opensarm,
    "robometer": reward_data.read_robometer,
}
FORMS = (*LEROBOT_FORMS, "frames", *FILE_FORMS)
# What says most comes first
IMPORT_ORDER = ("segments", *(form for form in LEROBOT_FORMS if form != "segments"))
EPISODE_NAME = re.compile(r"(\d+)(\.[a-z_]+)*\.jsonl$")


@dataclass(frozen=True)
class Annotation(EpisodeAnnotation):
    """One episode's annotation, by the index that the annotated dataset gives it.

    `of` names the corpus's dataset and episode where the annotated dataset is an export of ours.
    `num_frames` None: the form does not say. `plan` names the planned steps where the form does.
    `problem`: why its steps cannot be used.
    """

    episode_index: int
    num_frames: int | None
    steps: tuple[NativeStep, ...] = ()
    plan: tuple[str, ...] = ()
    of: tuple[str, int] | None = None
    problem: str | None = None

    def unchecked_label(self, num_frames: int, fps: float, success: bool | None) -> Label:
        if self.problem is not None:
            raise ValueError(self.problem)
        if self.num_frames not in (None, num_frames):
            raise ValueError(
                f"it is of an episode of {self.num_frames} frames, this one has {num_frames}"
            )
        label = Label(*annotate(self.steps, num_frames, success, self.plan), self.plan)
        if self.plan or any(step.step is not None for step in self.steps):
            return label
        # Steps without numbers of which names repeat: attempts at the same step, where the last ones complete all
        steps, plan = steps_numbered_by_name(self.steps)
        segments, num_planned = annotate(steps, num_frames, success, plan)
        is_attempts = len(plan) < label.num_planned and (
            success is False or finished(segments, num_planned)
        )
        if is_attempts:
            return Label(segments, num_planned, plan)
        return label


def steps_numbered_by_name(
    steps: Sequence[NativeStep],
) -> tuple[tuple[NativeStep, ...], tuple[str, ...]]:
    """Steps without numbers, each with that of the first step of its name; and the names, in order.

    One that is attempted again right away was not completed, where the source does not say.
    """
    attempts = [step for step in steps if step.kind in (None, STEP)]
    plan = tuple(dict.fromkeys(step.name for step in attempts))
    repeated = {a.start_frame for a, b in pairwise(attempts) if a.name == b.name}

    def numbered(step: NativeStep) -> NativeStep:
        if step.completed is None and step.start_frame in repeated:
            completed = False
        else:
            completed = step.completed
        return replace(step, step=plan.index(step.name), completed=completed)

    return tuple(numbered(step) if step.kind in (None, STEP) else step for step in steps), plan


@dataclass(frozen=True)
class Annotations:
    form: str
    episodes: tuple[EpisodeAnnotation, ...]

    @property
    def sha256(self) -> str:
        """A hash of the annotations, not of the files that hold them."""
        return hashlib.sha256(repr((self.form, self.episodes)).encode()).hexdigest()


def read_annotations(path: Path, form: str | None = None) -> Annotations:
    """The annotations in a LeRobot folder, a JSON-lines file or a folder of such files. Raises
    ImportedError."""
    if not path.exists():
        raise ImportedError(f"no such file or folder: {path}")
    # The name of a file may give its form away
    form = form or ("frame-signals" if path.suffix == ".parquet" else None)
    if form is not None and form in FILE_FORMS:
        return Annotations(form, tuple(FILE_FORMS[form](path)))
    # The folder meta makes it a LeRobot dataset, which has several forms; all else is JSON lines
    if (path / "meta").is_dir():
        return _read_lerobot(path, form)
    if form not in (None, "frames"):
        raise ImportedError(f"{path} is no LeRobot dataset, so it has no form {form}")
    source = _source(path)
    is_file = path.is_file()
    uris = [uri for uri in source.files if is_file or ("/" not in uri and uri.endswith(".jsonl"))]
    if not (episodes := tuple(_frames(source, uris))):
        raise ImportedError(
            f"{path} holds no annotations: expected JSON lines with frame_id and sub_task"
        )
    return Annotations("frames", episodes)


def _source(path: Path) -> Source:
    return Source(DatasetConfig(name="annotations", source=str(path.resolve())))


# LeRobot


def _read_lerobot(path: Path, form: str | None) -> Annotations:
    """Of the forms that the folder has, the one that says most: ours, then those that the build
    prefers."""
    if form not in (None, *LEROBOT_FORMS):
        raise ImportedError(f"{path} is a LeRobot dataset, which has no form {form}")
    dataset, episodes = _annotated_episodes(path)
    for name in [form] if form else IMPORT_ORDER:
        if stated_labels := read_form(dataset, episodes, name):
            return Annotations(
                name,
                tuple(_annotation(k, episodes[k], stated_labels[k]) for k in sorted(stated_labels)),
            )
    details = "".join(f"; {finding.detail}" for finding in dataset.findings)
    raise ImportedError(
        f"{path} has no steps of the form {form or ', '.join(LEROBOT_FORMS)}{details}"
    )


def _annotated_episodes(path: Path) -> tuple[LerobotListing, dict[int, StoredEpisode]]:
    """The folder's episodes, with what its metadata and rows say of each; rows may be missing, and
    info.json too."""
    source = _source(path)
    try:
        info = read_info(source)
        has_info = True
    except DataError:
        # Forms in frames need no more than meta/episodes
        info = {"features": {}, "fps": math.nan}
        has_info = False
    dataset = LerobotListing(source, info=info, version=version_of(source, info))
    metadata = episode_metadata(dataset)
    rows = find_rows(dataset, metadata) if has_info else {}
    return dataset, with_metadata(rows, metadata)


def _annotation(index: int, episode: StoredEpisode, stated_label: Stated) -> Annotation:
    dataset = episode.meta.get("proccorpus_dataset")
    number = whole(episode.meta.get("proccorpus_episode_index"))
    episode_key = (dataset, number) if isinstance(dataset, str) and number is not None else None
    return Annotation(
        index,
        episode.num_frames,
        stated_label.steps,
        stated_label.plan,
        episode_key,
        stated_label.problem,
    )


# JSON lines


def _read_lines(source: Source, uri: str) -> list[dict[str, Any]]:
    """The rows of a file. Raises ImportedError for a file, or a line, that cannot be read."""
    try:
        values, errors = parse_json_lines(read_text(source, uri))
    except DataError as e:
        raise ImportedError(str(e)) from e
    for number, error in errors:
        raise ImportedError(f"{uri}: line {number} is not JSON ({error})")
    return [_checked_row(row, f"{uri}: line {number}") for number, row in values]


def _checked_row(row: Any, location: str) -> dict[str, Any]:
    if not isinstance(row, dict) or not is_index(row.get("frame_id")) or "sub_task" not in row:
        raise ImportedError(f"{location} has no frame_id with a sub_task")
    if not isinstance(row["sub_task"], str | None):
        raise ImportedError(f"{location} has a sub_task that is no text")
    if not is_index(row.get("episode_index", 0)):
        raise ImportedError(f"{location} has an episode_index that is no number of an episode")
    return row


def _frames(source: Source, uris: Sequence[str]) -> Iterator[Annotation]:
    """One line per frame: {frame_id, sub_task}, in a file that is named by its episode, or with
    episode_index."""
    for name in uris:
        name_match = EPISODE_NAME.search(name)
        by_name = int(name_match[1]) if name_match else None
        keyed = [(row.get("episode_index", by_name), row) for row in _read_lines(source, name)]
        if any(episode is None for episode, _ in keyed):
            raise ImportedError(
                f"{name}: neither its name nor its lines say which episode it is of"
            )
        keyed.sort(key=lambda pair: (pair[0], pair[1]["frame_id"]))
        for episode, group in groupby(keyed, key=lambda pair: pair[0]):
            steps, num_frames = _steps(
                f"{name}: the frames of episode {episode}", [row for _, row in group]
            )
            if steps:
                yield Annotation(episode, num_frames, steps)


def _steps(
    description: str, frames: Sequence[Mapping[str, Any]]
) -> tuple[tuple[NativeStep, ...], int]:
    """The steps of an episode, by the name that each frame has, and the number of its frames."""
    # Ids may count over the whole dataset: an episode's first one is its frame 0
    first = frames[0]["frame_id"]
    if [row["frame_id"] for row in frames] != list(range(first, first + len(frames))):
        raise ImportedError(f"{description} are not one after another")
    names = [(row["sub_task"] or "").strip() for row in frames]
    spans = (NativeStep(names[start], start, end) for start, end in equal_spans(names))
    return tuple(step for step in spans if is_step(step.name)), len(frames)

"""RoboFAC's benchmark from its published annotations (arXiv 2505.12224): eight kinds of questions about runs, of which
most failed.

A file holds an object for each video by its id: its path, its task, and a conversation of turns for each kind of
question, of which the first is the question and the last the right answer. As its authors do, every 30th frame is shown
(a second of its videos), before the words.

Scored are the three kinds that name one of several options. The publication has a judge (GPT-4o) give 0 to 5 points for
correctness, relevance and completeness of the five kinds in free text. No number of ours stands for that: such answers
are counted, and kept in the prediction file.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from annotate.samples.wording import without_marks
from core.values import IMAGE_MARK, spread
from eval.benchmarks.question import (
    MAX_PX,
    BenchmarkError,
    Data,
    PictureFile,
    PredictionLine,
    Question,
    frame_files,
    has_file,
    json_object,
    read_row,
)
from eval.metrics import errors
from eval.metrics.score import Measure
from eval.scored import BenchmarkAnswers, ScoredBenchmark
from ingest.sources.files import Source

BENCHMARK = "robofac"
HUB = "hf://MINT-SJTU/RoboFAC-dataset"
# Kinds of questions by the name that prompts and scores have for them
KINDS = {
    "task_identification": "Task identification",
    "task_planning": "Task planning",
    "failure_detection": "Failure detection",
    "failure_identification": "Failure identification",
    "failure_locating": "Failure locating",
    "failure_explanation": "Failure explanation",
    "high_level_correction": "High-level correction",
    "low_level_correction": "Low-level correction",
}
FAMILIES = tuple(KINDS)
# Answered by one of several options
CHOICES = (
    "failure_detection",
    "failure_identification",
    "failure_locating",
)
# By the folder of annotations
VIDEOS = {
    "test_qa_sim": "simulation_data",
    "test_qa_realworld": "realworld_data",
}
EVERY = 30  # frames
MOST = 32  # pictures of a run; of longer ones so many, evenly
MAX_FILE_BYTES = 256 << 20
_FILE = re.compile(r"annos_per_video_split(\d+)\.json")
_NAMES = {kind.casefold(): name for name, kind in KINDS.items()}


class Turn(BaseModel):
    model_config = ConfigDict(extra="ignore")

    speaker: Annotated[str, Field(alias="from")]
    value: str


class VideoAnnotations(BaseModel):
    """The annotations of one video in a file."""

    model_config = ConfigDict(extra="ignore")

    video: Annotated[str, Field(min_length=1)]
    task: str = ""
    annos: dict[str, Annotated[list[Turn], Field(min_length=2)]]


def load(data: Data) -> list[Question]:
    """The questions of some kinds, the first `limit` of each; pictures are written below `image_root`.

    The data is the dataset's folder, one of its folders of annotations, one file, or a repository. A video that is not
    there or cannot be decoded costs its own questions, whose answers then say so. Raises BenchmarkError for what is no
    annotation, and where no video at all is there; SourceError.
    """
    base, uris = _annotation_files(data)
    num_taken = dict.fromkeys(data.parts, 0)
    pictures_by_video: dict[Path, tuple[PictureFile, ...]] = {}
    questions = []
    for uri in uris:
        for row in _rows(base, uri):
            kind = row["kind"]
            if kind not in num_taken or num_taken[kind] == data.asked.limit:
                continue
            num_taken[kind] += 1
            video = _video(base, row["split"], row["video"])
            if video not in pictures_by_video:
                pictures_by_video[video] = _pictures(video, data.frames)
            pictures = pictures_by_video[video]
            text = IMAGE_MARK * len(pictures) + without_marks(row["question"])
            questions.append(replace(question(BENCHMARK, row), text=text, pictures=pictures))
    if not questions:
        raise BenchmarkError(f"{data.address} holds no question of {', '.join(data.parts)}")
    if not any(video.is_file() for video in pictures_by_video):
        raise BenchmarkError(
            f"none of {len(pictures_by_video)} videos is there, such as {next(iter(pictures_by_video))}"
        )
    return questions


# Reading


def _annotation_files(data: Data) -> tuple[Source, list[str]]:
    """The source, and its files of annotations in the order of their numbers, by their path in it."""
    address = Path(data.address)
    folder = address.parent if address.is_file() else address
    # Somebody may name the folder of annotations, or a file: the videos lie beside that folder
    if "://" not in data.address:
        root = str(folder.parent if folder.name in VIDEOS else folder)
    else:
        root = data.address
    source = data.source(root)
    if address.is_file():
        return source, [str(address.relative_to(root))]
    if source.remote:
        files = source.files
    else:
        files = [path.relative_to(root).as_posix() for path in _json_files(folder)]
    names = [name for name in files if _FILE.fullmatch(name.rsplit("/", 1)[-1])]
    if not names:
        example = f"{next(iter(VIDEOS))}/annos_per_video_split0.json"
        raise BenchmarkError(f"{data.address} holds no file of {BENCHMARK}, such as {example}")
    return source, sorted(names, key=_in_order)


def _json_files(folder: Path) -> Iterator[Path]:
    """Of a folder of annotations, or of one that holds such."""
    if folder.name in VIDEOS:
        folders = [folder]
    else:
        folders = [folder, *(folder / name for name in VIDEOS)]
    return chain.from_iterable(f.glob("*.json") for f in folders)


def _in_order(uri: str) -> tuple[str, int]:
    folder, _, name = uri.rpartition("/")
    match = _FILE.fullmatch(name)
    return folder, int(match[1]) if match else 0


def _rows(source: Source, uri: str) -> Iterator[dict[str, Any]]:
    """A row for each question of a file, in its order. Raises BenchmarkError."""
    path = source.resolve(uri)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BenchmarkError(
                f"{uri} is larger than {MAX_FILE_BYTES >> 20} MiB: no file of {BENCHMARK}"
            )
        by_id = json_object(path.read_bytes(), uri)
    except OSError as e:
        raise BenchmarkError(f"cannot read {path}: {e.strerror}") from e
    for video_id, raw in by_id.items():
        video_name = f"{uri} video {video_id}"
        if not isinstance(raw, dict):
            raise BenchmarkError(f"{video_name} is no object but {type(raw).__name__}")
        video = read_row(VideoAnnotations.model_validate, raw, video_name)
        for kind, turns in video.annos.items():
            if kind.strip().casefold() not in _NAMES:
                raise BenchmarkError(
                    f"{video_name} has questions of {kind!r}; known: {', '.join(KINDS.values())}"
                )
            yield {
                "id": video_id,
                "split": uri.rpartition("/")[0].rsplit("/", 1)[-1],
                "video": video.video,
                "task": video.task,
                "kind": _NAMES[kind.strip().casefold()],
                "question": turns[0].value.replace(IMAGE_MARK, "").replace("<video>", "").strip(),
                "answer": turns[-1].value.strip(),
            }


class RoboFacRow(BaseModel):
    """A question about a run, as prediction files carry it."""

    model_config = ConfigDict(extra="ignore")

    id: Annotated[str, Field(min_length=1)]
    kind: str
    question: str
    answer: Annotated[str, Field(min_length=1)]
    split: str = ""
    task: str = ""


def question(benchmark: str, raw: Mapping[str, Any]) -> Question:
    """The question of a row, without its pictures. Raises ValueError."""
    if raw.get("kind") not in FAMILIES:
        raise ValueError(f"it has kind {raw.get('kind')!r}, not {', '.join(FAMILIES)}")
    row = RoboFacRow.model_validate(raw)
    slices = {"split": row.split, "task": row.task}
    return Question(
        benchmark=benchmark,
        part=row.kind,
        family=row.kind,
        trajectory=row.id,
        dataset=row.split,
        camera="",
        goal=row.task,
        text=row.question,
        pictures=(),
        row=raw,
        unit=(row.split, row.id),
        slices=tuple(f"{name} {value}" for name, value in slices.items() if value),
        answer=row.answer,
    )


# Pictures


def _video(source: Source, split: str, name: str) -> Path:
    """Where a video lies, or would lie first. Raises SourceError for one outside the dataset's folder."""
    uris = [f"{VIDEOS.get(split, '')}/{name}".lstrip("/"), name]
    locations = [uri for uri in uris if has_file(source, uri)]
    if locations:
        return source.resolve(locations[0])
    return source.path / uris[0]


def _pictures(video: Path, folder: Path) -> tuple[PictureFile, ...]:
    """A frame of each second; of a long run fewer, evenly."""
    frame_paths = frame_files(
        video,
        folder / BENCHMARK,
        lambda frames: islice(frames, 0, None, EVERY),
        f"{EVERY} {MAX_PX}",
    )
    return tuple(spread(frame_paths, MOST))


# Scores

DETECTION = "failure_detection"
MAX_OPTIONS_CHARS = 10_000
_LIST = re.compile(r"\[[^\[\]]*\]")


def score(answers: BenchmarkAnswers) -> ScoredBenchmark:
    """An answer that cannot be read counts as wrong. Raises BenchmarkError, which names the row that is wrong."""
    chosen = answers.among(np.flatnonzero([q.family in CHOICES for q in answers.questions]))
    chosen = BenchmarkAnswers.by_values(BENCHMARK, chosen.questions, chosen.values, chosen.lines)
    # Arrays of texts and None, by row
    pairs = zip(chosen.questions, chosen.lines, strict=True)
    options = np.array([_right_and_named(q, line) for q, line in pairs], object).reshape(-1, 2)
    right, choice = options.T
    kinds = np.array([q.family for q in chosen.questions])
    is_read = choice != np.array(None)
    is_right = (choice == right).astype(bool)
    is_of_kind = {kind: kinds == kind for kind in CHOICES if (kinds == kind).any()}
    measures: dict[str, Measure] = {
        f"{kind.removeprefix('failure_')}_accuracy": chosen.episodes.mean(is_right, places, is_read)
        for kind, places in is_of_kind.items()
    }
    if DETECTION in is_of_kind:
        # Mean of the shares found among runs that failed and runs that did not
        measures["detection_balanced"] = chosen.episodes.confusion(
            choice == "yes",
            right == "yes",
            is_of_kind[DETECTION],
            is_read,
            errors.balanced_accuracy,
        )
    measures["choice_accuracy"] = chosen.episodes.mean(is_right, chosen.everywhere, is_read)
    times = Counter(q.family for q in answers.questions)
    in_words = [kind for kind in FAMILIES if times[kind] and kind not in CHOICES]
    counts: dict[str, Any] = {
        "rows": len(answers.questions),
        **{f"rows_{kind}": times[kind] for kind in CHOICES},
        **{f"unscored_{kind}": times[kind] for kind in in_words},
    }
    note = f"{', '.join(in_words)}: free text, which a judge model scores as published; answers are kept, not scored"
    return chosen.scored(measures, is_read, notes=(note,) if in_words else (), **counts)


def _right_and_named(q: Question, line: PredictionLine) -> tuple[str, str | None]:
    """The right option and the one that an answer names; None: it cannot be read.

    Raises BenchmarkError for a right answer that is none of the options.
    """
    answer = q.answer or ""
    options = ("yes", "no") if q.family == DETECTION else options_of(q.row["question"])
    right = named_option(answer, options) if options else _plain(answer)
    if right is None:
        raise BenchmarkError(
            f"{line.where}: the right answer {answer!r} is none of {', '.join(options)}"
        )
    return right, named_option(line.response, options or (right,))


def options_of(question: str) -> tuple[str, ...]:
    """What a question says may be answered: the last list of texts in it, plainly written; () where there is none.

    Example: options_of("Which? (one of: ['Grasping error.', 'Wrong object.'])") == ("grasping error", "wrong object")
    """
    for match in reversed(_LIST.findall(question)):
        if len(match) > MAX_OPTIONS_CHARS:
            continue
        try:
            values = ast.literal_eval(match)
        except (ValueError, SyntaxError):
            continue
        if values and all(isinstance(v, str) for v in values):
            return tuple(dict.fromkeys(map(_plain, values)))
    return ()


def named_option(text: str, options: Sequence[str]) -> str | None:
    """The one option that a text names; None where it names none, or several. Of options within one another the longer
    counts."""
    plain = _plain(text)
    if plain in options:
        return plain
    # The longest first, each taken out of the text, so that what lies within it is not found again
    matches = []
    for option in sorted(options, key=len, reverse=True):
        if not option:
            continue
        pattern = rf"(?<!\w){re.escape(option)}(?!\w)"
        if re.search(pattern, plain):
            matches.append(option)
            plain = re.sub(pattern, " ", plain)
    if len(matches) == 1:
        return matches[0]
    return None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .")

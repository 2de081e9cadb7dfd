"""Benchmarks of videos: runs with an instruction, and what somebody said of each.

rbm-eval     Robometer's (arXiv 2603.02115): a table in each split's folder, with quality and partial success of runs
roboreward   RoboRewardBench (arXiv 2601.00675): lines in each split's folder, a reward of 1 to 5 for each video
robofac      RoboFAC's annotations (arXiv 2505.12224): eight kinds of questions about runs, of which most failed

A run with a grade is asked about once, at its end. Of RoboFAC the three kinds are scored that name one of several
options; answers in free text, which the publication has a judge score, are counted and kept.
"""

import ast
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, BeforeValidator, Field

from annotate.config import SamplesConfig
from annotate.samples.procvqa import progress_question, task_text, window
from annotate.samples.wording import without_marks
from core.values import IMAGE_MARK, spread
from eval.benchmarks.question import (
    MAX_PX,
    BenchmarkError,
    Data,
    Numbered,
    PictureFile,
    PredictionLine,
    Question,
    frame_files,
    has_file,
    json_lines,
    json_object,
    read_row,
)
from eval.metrics import errors
from eval.metrics.outcomes import auc, ranking_measures
from eval.metrics.score import Measure
from eval.scored import BenchmarkAnswers, ScoredBenchmark
from ingest.episode import VideoError
from ingest.media.video import Frame, probe
from ingest.sources.files import Source

RBM = "rbm-eval"
ROBOREWARD = "roboreward"
ROBOFAC = "robofac"
MAX_LINE_BYTES = 4 << 20
MAX_FILE_BYTES = 256 << 20
Text = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Pictures = tuple[PictureFile, ...]
Row = Mapping[str, Any]


class Converter(NamedTuple):
    """`rows` of a benchmark as prediction files carry them, and the source they are of; `part`: the field
    that says a row's part; `videos`: where its video may lie in the source; `question` of a row without
    pictures; `pictures` of a video, written below a folder; `fields`: what a question has by its row and
    its video's pictures."""

    rows: Callable[[Data], tuple[Source, Iterable[Row]]]
    part: Literal["split", "kind"]
    videos: Callable[[Row], Sequence[str]]
    question: Callable[[str, Row], Question]
    pictures: Callable[[Path, Path], Pictures]
    fields: Callable[[Row, Pictures], dict[str, Any]]


def load(converter: Converter, data: Data) -> list[Question]:
    """The questions of some parts, the first `limit` of each; pictures are written below `image_root`.

    A video that is not there or damaged costs its own questions, whose answers then say so. Raises
    BenchmarkError for a row that is wrong, and where no video at all is there; SourceError.
    """
    source, rows = converter.rows(data)
    num_taken = dict.fromkeys(data.parts, 0)
    by_video: dict[Path, Pictures] = {}
    questions = []
    for row in rows:
        part = row[converter.part]
        if num_taken.get(part, data.asked.limit) == data.asked.limit:
            continue
        num_taken[part] += 1
        uris = converter.videos(row)
        present = [uri for uri in uris if has_file(source, uri)]
        video = source.resolve(present[0]) if present else source.path / uris[0]
        if video not in by_video:
            by_video[video] = converter.pictures(video, data.frames)
        fields = converter.fields(row, by_video[video])
        questions.append(replace(converter.question(data.asked.benchmark, row), **fields))
    if not questions:
        raise BenchmarkError(f"{data.address} holds no question of {', '.join(data.parts)}")
    if not any(video.is_file() for video in by_video):
        missing = next(iter(by_video)).relative_to(source.path)
        raise BenchmarkError(
            f"none of {len(by_video)} videos of {data.address} is there, such as {missing}"
        )
    return questions


# Graded runs

QUALITIES = {"failure": 0.0, "suboptimal": 0.5, "success": 1.0}
POINTS = (1, 5)  # of RoboReward


def _share(value: Any) -> float | None:
    """Published tables have texts: "0.5" as 0.5, an empty one, "None" and "nan" as None. Raises
    ValueError."""
    if str(value).strip().lower() in ("", "none", "nan", "null"):
        return None
    share = float(value)
    if not 0 <= share <= 1:
        raise ValueError(f"is {value!r}, not a share from 0 to 1")
    return share


class RbmRow(BaseModel):
    file_name: Text
    id: Text
    task: Text
    quality_label: Literal["failure", "suboptimal", "success", "successful"]
    partial_success: Annotated[float | None, BeforeValidator(_share)] = None
    data_source: str = ""

    def asked(self, split: str) -> dict[str, Any]:
        """`grade` ranks runs, 0..1; `progress`: the share of the task that is done, where the
        benchmark says it."""
        quality = self.quality_label.replace("successful", "success")
        grade = QUALITIES[quality] if self.partial_success is None else self.partial_success
        # A run that went all the way did all of the task, however well; of the others only a person knows
        is_known = quality == "success" or self.partial_success is not None
        return {
            "dataset": self.data_source,
            "run": self.id,
            "split": split,
            "task": self.task,
            "video": self.file_name,
            "grade": grade,
            "progress": grade if is_known else None,
            "success": quality == "success",
            "quality": quality,
        }


class RoboRewardRow(BaseModel):
    file_name: Text
    task: Text
    reward: Annotated[int, Field(strict=True, ge=POINTS[0], le=POINTS[1])]

    def asked(self, split: str) -> dict[str, Any]:
        """1 is nothing, 5 is all of it, as Robometer's loader has it. A video's first folder names
        its source."""
        share = (self.reward - POINTS[0]) / (POINTS[1] - POINTS[0])
        return {
            "dataset": self.file_name.split("/")[0] if "/" in self.file_name else "",
            "run": f"{self.file_name} {self.task}",  # one video stands under several instructions
            "split": split,
            "task": self.task,
            "video": self.file_name,
            "grade": share,
            "progress": share,
            "success": share == 1,
            "reward": self.reward,
        }


PublishedRow = RbmRow | RoboRewardRow


def _graded_rows(file: str, form: type[PublishedRow], data: Data) -> tuple[Source, Iterator[Row]]:
    """The runs that a file in each split's folder lists, of the splits that are there. Raises
    BenchmarkError."""
    source = data.source()
    lists = {split: f"{split}/{file}" for split in data.parts}
    present = {split: uri for split, uri in lists.items() if has_file(source, uri)}
    if not present:
        raise BenchmarkError(f"{data.address} holds no {' and no '.join(lists.values())}")
    runs = (_runs(source.resolve(uri), uri, split, form) for split, uri in present.items())
    return source, chain.from_iterable(runs)


def _runs(path: Path, uri: str, split: str, form: type[PublishedRow]) -> Iterator[Row]:
    is_table = path.suffix == ".parquet"
    lines = json_lines(path, uri, MAX_LINE_BYTES, f"no row of {ROBOREWARD}")
    first_lines: dict[str, str] = {}
    for line_name, raw in _table_rows(path, uri) if is_table else lines:
        row = read_row(form.model_validate, raw, line_name).asked(split)
        if (first := first_lines.setdefault(row["run"], line_name)) != line_name:
            raise BenchmarkError(f"{line_name} is the same run as {first}: {row['run']}")
        yield row


def _table_rows(path: Path, uri: str) -> Iterator[tuple[str, dict[str, Any]]]:
    columns = list(RbmRow.model_fields)
    try:
        names = pq.read_schema(path).names
        if lacking := [c for c in ("file_name", "id", "task", "quality_label") if c not in names]:
            raise BenchmarkError(
                f"{uri} has no column {', '.join(lacking)}: it is no table of {RBM}"
            )
        table = pq.read_table(path, columns=[c for c in columns if c in names])
    except (pa.ArrowException, OSError) as e:
        raise BenchmarkError(f"{uri} cannot be read as Parquet: {e}") from e
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"{uri} row {number}", {k: v for k, v in row.items() if v is not None}


class GradedRow(BaseModel):
    """A question about a run, as prediction files carry it."""

    dataset: str
    run: Text
    split: str
    task: str
    grade: Share
    progress: Share | None = None
    success: bool | None = None


def graded_question(benchmark: str, raw: Row) -> Question:
    """The question of a row, without its pictures. What is resampled is tasks: runs of one are
    compared. Raises ValueError."""
    row = GradedRow.model_validate(raw)
    return Question(
        benchmark=benchmark,
        part=row.split,
        family="progress",
        trajectory=row.run,
        dataset=row.dataset or row.split,
        camera="",
        goal=task_text(row.task),
        text="",
        pictures=(),
        progress=row.progress,
        success=row.success,
        frame_index=1,
        num_frames=2,  # asked at its end, which is all that a clock has to know
        row=raw,
        unit=(row.split, row.dataset, row.task),
        slices=(f"part {row.split}", *([f"dataset {row.dataset}"] if row.dataset else [])),
    )


def _last_window(video: Path, folder: Path) -> Pictures:
    """A video's first frame and the window that ends it."""
    config = SamplesConfig()

    def chosen(frames: Numbered) -> Iterator[tuple[int, Frame]]:
        fps = probe(video).fps
        reach = round((config.window_frames - 1) * config.window_step_s * fps) + 1
        last: deque[tuple[int, Frame]] = deque(maxlen=max(1, reach))
        for number, frame in frames:
            if number == 0:
                yield number, frame
            last.append((number, frame))
        if not last:
            raise VideoError(f"{video.name} holds no frame")
        by_number = dict(last)
        yield from ((f, by_number[f]) for f in window(last[-1][0], fps, config) if f in by_number)

    return frame_files(
        video, folder / "graded", chosen, f"{MAX_PX} {config.window_frames} {config.window_step_s}"
    )


def _shown_at_end(row: Row, pictures: Pictures) -> dict[str, Any]:
    # The first is that of the run's beginning: it is not among those asked about
    later = pictures[1:] or pictures
    text = progress_question(row["task"], len(later), with_actions=False)
    return {"text": text, "pictures": later, "first": pictures[0] if len(pictures) > 1 else None}


def graded_score(answers: BenchmarkAnswers) -> ScoredBenchmark:
    """An answer that cannot be read is as wrong as can be."""
    tasks = answers.episodes
    answer_values = answers.values
    is_answered = answers.is_read
    grades, shares, success = map(answers.column, ("grade", "progress", "success"))
    worst = np.where(is_answered, answer_values, (grades < 0.5).astype(np.float64))
    runs, _ = tasks.runs(answer_values, grades, np.arange(len(answer_values)))
    measures: dict[str, Measure] = {
        **ranking_measures(runs),
        "final_mae": tasks.ratio(np.abs(worst - shares), ~np.isnan(shares), answers.read),
        "coverage": tasks.ratio(is_answered, answers.everywhere, answers.read),
    }
    if answers.benchmark == ROBOREWARD:
        low, high = POINTS
        points = np.rint(low + (high - low) * worst)
        right = np.rint(low + (high - low) * grades)
        farthest = np.maximum(right - low, high - right)
        off = np.where(is_answered, np.abs(points - right), farthest)
        is_right = (points == right) & is_answered
        measures["points_mae"] = tasks.ratio(off, answers.everywhere, answers.read)
        measures["points_accuracy"] = tasks.ratio(is_right, answers.everywhere, answers.read)
    # Over all runs whose outcome is known, where these are not all alike
    if np.nanmin(success, initial=1) < np.nanmax(success, initial=0):
        by_run = auc(np.where(np.isnan(success), np.nan, answer_values), success == 1)
        parts = tasks.sums(*by_run.parts.T)
        counted = parts.sum(axis=1) > 0
        measures["success_auc"] = Measure(parts, counted, answers.read, by_run.statistic)
    return answers.scored(measures)


# RoboFAC

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
_FILE = re.compile(r"annos_per_video_split(\d+)\.json")
_NAMES = {kind.casefold(): name for name, kind in KINDS.items()}


class Turn(BaseModel):
    value: str


class VideoAnnotations(BaseModel):
    """The annotations of one video in a file."""

    video: Annotated[str, Field(min_length=1)]
    task: str = ""
    annos: dict[str, Annotated[list[Turn], Field(min_length=2)]]


def _robofac_rows(data: Data) -> tuple[Source, Iterator[Row]]:
    """The data is the dataset's folder, one of its folders of annotations, one file, or a
    repository."""
    address = Path(data.address)
    folder = address.parent if address.is_file() else address
    # Somebody may name the folder of annotations, or a file: the videos lie beside that folder
    root = folder.parent if folder.name in VIDEOS else folder
    source = data.source(None if "://" in data.address else str(root))
    inside = "." if source.remote else address.relative_to(root).as_posix()
    if address.is_file():
        return source, _rows(source, inside)
    names = [name for name in source.files if inside in (".", name.rpartition("/")[0])]
    numbered = [(name, _FILE.fullmatch(name.rsplit("/", 1)[-1])) for name in names]
    numbers = {name: (name.rpartition("/")[0], int(match[1])) for name, match in numbered if match}
    if not numbers:
        example = f"{next(iter(VIDEOS))}/annos_per_video_split0.json"
        raise BenchmarkError(f"{data.address} holds no file of {ROBOFAC}, such as {example}")
    in_order = sorted(numbers, key=numbers.__getitem__)
    return source, chain.from_iterable(_rows(source, uri) for uri in in_order)


def _videos_of_annotations(row: Row) -> list[str]:
    location = f"{VIDEOS.get(row['split'], '')}/{row['video']}".lstrip("/")
    return [location, row["video"]]


def _rows(source: Source, uri: str) -> Iterator[Row]:
    """A row for each question of a file, in its order. Raises BenchmarkError."""
    path = source.resolve(uri)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BenchmarkError(
                f"{uri} is larger than {MAX_FILE_BYTES >> 20} MiB: no file of {ROBOFAC}"
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

    id: Annotated[str, Field(min_length=1)]
    kind: str
    question: str
    answer: Annotated[str, Field(min_length=1)]
    split: str = ""
    task: str = ""


def robofac_question(benchmark: str, raw: Row) -> Question:
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


def _each_second(video: Path, folder: Path) -> Pictures:
    """A frame of each second; of a long run fewer, evenly."""
    settings = f"{EVERY} {MAX_PX}"
    frames = frame_files(
        video, folder / ROBOFAC, lambda frames: islice(frames, 0, None, EVERY), settings
    )
    return tuple(spread(frames, MOST))


def _shown_before_words(row: Row, pictures: Pictures) -> dict[str, Any]:
    text = IMAGE_MARK * len(pictures) + without_marks(row["question"])
    return {"text": text, "pictures": pictures}


DETECTION = "failure_detection"
MAX_OPTIONS_CHARS = 10_000
_LIST = re.compile(r"\[[^\[\]]*\]")


def robofac_score(answers: BenchmarkAnswers) -> ScoredBenchmark:
    """An answer that cannot be read counts as wrong. Raises BenchmarkError, which names the row
    that is wrong."""
    chosen = answers.among(np.flatnonzero([q.family in CHOICES for q in answers.questions]))
    chosen = BenchmarkAnswers.by_values(ROBOFAC, chosen.questions, chosen.values, chosen.lines)
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
    """What a question says may be answered: the last list of texts in it, plainly written; () where
    there is none.

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
    """The one option that a text names; None where it names none, or several. Of options within one
    another the longer counts."""
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


def graded(file: str, form: type[PublishedRow]) -> Converter:
    """Of runs that are asked about once, at their ends."""
    return Converter(
        partial(_graded_rows, file, form),
        "split",
        lambda row: [f"{row['split']}/{row['video']}"],
        graded_question,
        _last_window,
        _shown_at_end,
    )


RBM_RUNS = graded("metadata.parquet", RbmRow)
ROBOREWARD_RUNS = graded("metadata.jsonl", RoboRewardRow)
ROBOFAC_RUNS = Converter(
    _robofac_rows,
    "kind",
    _videos_of_annotations,
    robofac_question,
    _each_second,
    _shown_before_words,
)

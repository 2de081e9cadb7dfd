"""RoboFAC's benchmark from its published annotations (arXiv 2505.12224): eight kinds of questions about runs, of which
most failed.

A file holds an object for each video by its id: its path, its task, and a conversation of turns for each kind of
question, of which the first is the question and the last the right answer. As its authors do, every 30th frame is shown
(a second of its videos), before the words.
"""

import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from annotate.samples.wording import without_marks
from core.values import IMAGE_MARK, spread
from eval.benchmarks.question import BenchmarkError, PictureFile, Question, RightAnswer
from eval.benchmarks.rows import json_object, read_row
from eval.benchmarks.source import MAX_PX, Data, frame_files, holds
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
CHOICES = ("failure_detection", "failure_identification", "failure_locating")  # answered by one of several options
VIDEOS = {"test_qa_sim": "simulation_data", "test_qa_realworld": "realworld_data"}  # by the folder of annotations
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
            questions.append(_question(row, pictures_by_video[video]))
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
    given = Path(data.address)
    folder = given.parent if given.is_file() else given
    # Somebody may name the folder of annotations, or a file: the videos lie beside that folder
    root = str(folder.parent if folder.name in VIDEOS else folder) if "://" not in data.address else data.address
    source = data.source(root)
    if given.is_file():
        return source, [str(given.relative_to(root))]
    files = source.files if source.remote else [path.relative_to(root).as_posix() for path in _json_files(folder)]
    names = [name for name in files if _FILE.fullmatch(name.rsplit("/", 1)[-1])]
    if not names:
        example = f"{next(iter(VIDEOS))}/annos_per_video_split0.json"
        raise BenchmarkError(f"{data.address} holds no file of {BENCHMARK}, such as {example}")
    return source, sorted(names, key=_in_order)


def _json_files(folder: Path) -> Iterator[Path]:
    """Of a folder of annotations, or of one that holds such."""
    folders = [folder] if folder.name in VIDEOS else [folder, *(folder / name for name in VIDEOS)]
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
            raise BenchmarkError(f"{uri} is larger than {MAX_FILE_BYTES >> 20} MiB: no file of {BENCHMARK}")
        by_id = json_object(path.read_bytes(), uri)
    except OSError as e:
        raise BenchmarkError(f"cannot read {path}: {e.strerror}") from e
    for video_id, raw in by_id.items():
        where = f"{uri} video {video_id}"
        if not isinstance(raw, dict):
            raise BenchmarkError(f"{where} is no object but {type(raw).__name__}")
        video = read_row(VideoAnnotations, raw, where)
        for kind, turns in video.annos.items():
            if kind.strip().casefold() not in _NAMES:
                raise BenchmarkError(f"{where} has questions of {kind!r}; known: {', '.join(KINDS.values())}")
            yield {
                "id": video_id,
                "split": uri.rpartition("/")[0].rsplit("/", 1)[-1],
                "video": video.video,
                "task": video.task,
                "kind": _NAMES[kind.strip().casefold()],
                "question": turns[0].value.replace(IMAGE_MARK, "").replace("<video>", "").strip(),
                "answer": turns[-1].value.strip(),
            }


def _question(row: dict[str, Any], pictures: tuple[PictureFile, ...]) -> Question:
    kind = row["kind"]
    return Question(
        benchmark=BENCHMARK,
        part=kind,
        family=kind,
        trajectory=row["id"],
        dataset=row["split"],
        camera="",
        goal=row["task"],
        text=IMAGE_MARK * len(pictures) + without_marks(row["question"]),
        pictures=pictures,
        truth=RightAnswer(text=row["answer"]),
        row=row,
    )


# Pictures


def _video(source: Source, split: str, name: str) -> Path:
    """Where a video lies, or would lie first. Raises SourceError for one outside the dataset's folder."""
    uris = [f"{VIDEOS.get(split, '')}/{name}".lstrip("/"), name]
    held = [uri for uri in uris if holds(source, uri)]
    return source.resolve(held[0]) if held else source.path / uris[0]


def _pictures(video: Path, folder: Path) -> tuple[PictureFile, ...]:
    """A frame of each second; of a long run fewer, evenly."""
    shown = frame_files(video, folder / BENCHMARK, lambda frames: islice(frames, 0, None, EVERY), f"{EVERY} {MAX_PX}")
    return tuple(spread(shown, MOST))

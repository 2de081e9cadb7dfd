"""RoboFAC's benchmark from its published annotations (arXiv 2505.12224): eight kinds of questions about runs, of which
most failed.

A file holds an object for each video by its id: its path, its task, and a conversation of turns for each kind of
question, of which the first is the question and the last the right answer. As its authors do, every 30th frame is shown
(a second of its videos), before the words.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field

from annotate.samples.wording import without_marks
from core.files import write_file
from core.values import IMAGE_MARK
from eval.benchmarks.dataset import jpeg
from eval.benchmarks.question import BenchmarkError, PictureFile, Question, RightAnswer, question_key
from eval.benchmarks.rows import read_row
from ingest.media.video import Frame, VideoError, decode
from ingest.registry import DatasetConfig
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
MAX_PX = 512
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


def load(
    data: str,
    frames: Path,
    parts: Sequence[str] = (),
    *,
    revision: str | None = None,
    cache: Path | None = None,
    limit: int | None = None,
) -> list[Question]:
    """The questions of some kinds (default: all), the first `limit` of each; pictures are written below `frames`.

    `data`: the dataset's folder, one of its folders of annotations, one file, or hf://owner/name (`revision`: the
    commit). A video that is not there or cannot be decoded costs its own questions, whose answers then say so. Raises
    BenchmarkError for what is no annotation, and where no video at all is there; SourceError.
    """
    kinds = tuple(parts) or FAMILIES
    if unknown := set(kinds) - set(FAMILIES):
        raise BenchmarkError(f"{BENCHMARK} has no part {min(unknown)!r}; it has {', '.join(FAMILIES)}")
    base, uris = _annotation_files(data, revision, cache)
    num_taken = dict.fromkeys(kinds, 0)
    pictures_by_video: dict[str, tuple[PictureFile, ...]] = {}
    places: dict[str, Path] = {}
    questions = []
    for uri in uris:
        for row in _rows(base, uri):
            kind = row["kind"]
            if kind not in num_taken or num_taken[kind] == limit:
                continue
            num_taken[kind] += 1
            where = f"{row['split']}/{row['video']}"
            if where not in places:
                places[where] = _video(base, row["split"], row["video"])
                pictures_by_video[where] = _pictures(places[where], frames)
            questions.append(_question(row, pictures_by_video[where]))
    if not questions:
        raise BenchmarkError(f"{data} holds no question of {', '.join(kinds)}")
    if not any(place.is_file() for place in places.values()):
        raise BenchmarkError(f"none of {len(places)} videos is there, such as {next(iter(places.values()))}")
    return questions


# Reading


def _annotation_files(data: str, revision: str | None, cache: Path | None) -> tuple[Source, list[str]]:
    """The source, and its files of annotations in the order of their numbers, by their path in it."""
    given = Path(data)
    folder = given.parent if given.is_file() else given
    # Somebody may name the folder of annotations, or a file: the videos lie beside that folder
    root = str(folder.parent if folder.name in VIDEOS else folder) if "://" not in data else data
    source = Source(DatasetConfig(name="benchmark", source=root, revision=revision), None, cache)
    if given.is_file():
        return source, [str(given.relative_to(root))]
    if source.remote:
        names = [name for name in source.files if _FILE.fullmatch(name.rsplit("/", 1)[-1])]
    else:
        folders = [folder] if folder.name in VIDEOS else [folder, *(folder / name for name in VIDEOS)]
        found = (path for f in folders for path in f.glob("*.json") if _FILE.fullmatch(path.name))
        names = [path.relative_to(root).as_posix() for path in found]
    if not names:
        raise BenchmarkError(
            f"{data} holds no file of {BENCHMARK}, such as {next(iter(VIDEOS))}/annos_per_video_split0.json"
        )
    return source, sorted(names, key=_in_order)


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
        by_id = json.loads(path.read_bytes())
    except OSError as e:
        raise BenchmarkError(f"cannot read {path}: {e.strerror}") from e
    except (ValueError, RecursionError) as e:
        raise BenchmarkError(f"{uri} is not JSON: {e}") from e
    if not isinstance(by_id, dict):
        raise BenchmarkError(f"{uri} is no object of videos but {type(by_id).__name__}")
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
        key=question_key(BENCHMARK, kind, row),
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
    folder = VIDEOS.get(split, "")
    uris = [f"{folder}/{name}".lstrip("/"), name]
    if source.remote:
        held = [uri for uri in uris if uri in source.files]
        return source.resolve(held[0]) if held else source.path / uris[0]
    places = [source.resolve(uri) for uri in uris]
    return next((place for place in places if place.is_file()), places[0])


def _pictures(video: Path, frames: Path) -> tuple[PictureFile, ...]:
    """JPEGs of a video's frames, written where they are not there yet; of one that cannot be decoded the video itself,
    which is no picture: so the answer's error names it."""
    itself = (PictureFile(video),)
    if not video.is_file():
        return itself
    facts = video.stat()
    text = f"{video.resolve()} {facts.st_size} {facts.st_mtime_ns} {EVERY} {MAX_PX}"
    folder = frames / BENCHMARK / hashlib.sha256(text.encode()).hexdigest()[:16]
    # Written last: where it is, all of the pictures are
    index = folder / "frames.json"
    if not index.exists():
        try:
            numbers = _write_frames(video, folder)
        except VideoError:
            return itself
        write_file(index, json.dumps(numbers).encode())
    numbers = json.loads(index.read_bytes())
    if len(numbers) > MOST:
        numbers = [numbers[round(k * (len(numbers) - 1) / (MOST - 1))] for k in range(MOST)]
    return tuple(PictureFile(folder / f"{number:06d}.jpg") for number in numbers) or itself


def _write_frames(video: Path, folder: Path) -> list[int]:
    """The numbers of the frames that are written, in one pass. Raises VideoError."""
    numbers = []
    # Nothing is passed over here, so there are frames alone
    for number, frame in islice(enumerate(cast("Iterator[Frame]", decode(video))), 0, None, EVERY):
        write_file(folder / f"{number:06d}.jpg", jpeg(frame.rgb(), MAX_PX))
        numbers.append(number)
    return numbers

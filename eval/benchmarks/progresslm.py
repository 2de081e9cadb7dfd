"""ProgressLM's two benchmarks, progress-bench and human-bench, from their published JSON lines (arXiv 2601.15224).

Files are looked for where the publication has them (prog-bench/text-normal.jsonl ...) and in the folder itself.
Pictures lie at <image root>/<id>/<file name>.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.benchmarks.question import BenchmarkError, PictureFile, Question, RightAnswer
from eval.benchmarks.rows import ProgressRow, json_lines, read_row
from eval.benchmarks.source import Data, holds
from ingest.sources.files import Source

HUB = "hf://Raymond-Qiancx/ProgressLM-Dataset"
MAX_LINE_BYTES = 4 << 20  # the longest published one has 2 KB
FOLDERS = {
    "progress-bench": ("prog-bench", "dataset/prog-bench", ""),
    "human-bench": ("human-bench", "dataset/human-bench", ""),
}
FILES = {"progress-bench": "{part}.jsonl", "human-bench": "{part}_demo_human_activities.jsonl"}
IMAGE_FOLDERS = ("images/", "image/", "")


def load(data: Data) -> list[Question]:
    """The questions of some parts (default: of those whose files are there), the first `limit` rows of each.

    The data is a folder, one file of JSON lines, or a repository. Raises BenchmarkError, which names a row that is
    broken; SourceError for what is not there or cannot be fetched.
    """
    source, questions = data.source(), []
    for name, path in _files(source, data).items():
        lines = json_lines(path, name, MAX_LINE_BYTES, "no row of this benchmark")
        # All are read: a broken row is an error wherever it stands
        rows = [(raw, read_row(ProgressRow, raw, where)) for where, raw in lines][: data.asked.limit]
        root = _picture_root(source, data.asked.image_root, (name for _, row in rows for name in row.names))
        questions += [_question(data, raw, row, root) for raw, row in rows]
    return questions


def _files(source: Source, data: Data) -> dict[str, Path]:
    """The files to read by name: those of the parts asked for, which must be there, or all that are there."""
    # A file that was named itself is read under whatever name it has.
    if source.remote is None and source.path.is_file():
        return {source.path.name: source.path}
    files = {}
    for part in data.parts:
        # Copies of the benchmark differ in their folders: the first known place that holds the file counts.
        name = FILES[data.asked.benchmark].format(part=part)
        places = [f"{folder}/{name}".lstrip("/") for folder in FOLDERS[data.asked.benchmark]]
        if held := next((place for place in places if holds(source, place)), None):
            files[held] = source.resolve(held)
        # Parts that nobody asked for by name may be missing.
        elif data.asked.part:
            raise BenchmarkError(f"{data.address} holds no {name} (nor {places[0]})")
    if not files:
        example = FILES[data.asked.benchmark].format(part=data.parts[0])
        raise BenchmarkError(f"{data.address} holds no file of {data.asked.benchmark}, such as {example}")
    return files


def _picture_root(source: Source, given: Path | None, names: Iterator[str]) -> Path:
    """The folder that pictures lie in. Those of a remote source are fetched, as far as it has them."""
    if given is not None:
        if not given.is_dir():
            raise BenchmarkError(f"--image-root {given} is no folder")
        return given
    if source.remote is None:
        base = source.path if source.path.is_dir() else source.path.parent
        return base / "images" if (base / "images").is_dir() else base
    distinct_names = dict.fromkeys(names)
    # The first folder that holds any of them is where the publication keeps its pictures
    for folder in IMAGE_FOLDERS:
        uris = [uri for uri in (folder + name for name in distinct_names) if uri in source.files]
        if uris:
            source.fetch(uris)
            return source.path / folder
    return source.path


def _picture(root: Path, name: str) -> PictureFile:
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise BenchmarkError(f"the picture {name} lies outside the folder of pictures {root}")
    return PictureFile(path)


def _question(data: Data, raw: dict[str, Any], row: ProgressRow, root: Path) -> Question:
    return Question(
        benchmark=data.asked.benchmark,
        part=row.part(data.asked.benchmark),
        family=row.kind,
        trajectory=row.id,
        dataset=row.dataset,
        camera=row.camera,
        goal=row.task_goal,
        text=row.question("think" if data.asked.think is not False else "no_think"),
        pictures=tuple(_picture(root, name) for name in row.names),
        truth=RightAnswer(row.answerable, row.progress_score, row.closest_idx, row.demo_size),
        steps=row.text_demo or (),
        shares=row.shares,
        row=raw,
    )

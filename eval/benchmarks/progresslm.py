"""ProgressLM's two benchmarks, progress-bench and human-bench, from their published JSON lines (arXiv 2601.15224).

Files are looked for where the publication has them (prog-bench/text-normal.jsonl ...) and in the folder itself.
Pictures lie at <image root>/<id>/<file name>.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from annotate.samples.progresslm_wording import question_text
from eval.benchmarks.question import BenchmarkError, PictureFile, Question, RightAnswer, question_key
from eval.benchmarks.rows import HUMAN_PARTS, PROGRESS_PARTS, ProgressRow, read_row
from ingest.registry import DatasetConfig
from ingest.sources.files import Source

HUB = "hf://Raymond-Qiancx/ProgressLM-Dataset"
MAX_LINE_BYTES = 4 << 20  # the longest published one has 2 KB
FOLDERS = {
    "progress-bench": ("prog-bench", "dataset/prog-bench", ""),
    "human-bench": ("human-bench", "dataset/human-bench", ""),
}
FILES = {
    "progress-bench": {part: f"{part}.jsonl" for part in PROGRESS_PARTS},
    "human-bench": {part: f"{part}_demo_human_activities.jsonl" for part in HUMAN_PARTS},
}
IMAGE_FOLDERS = ("images/", "image/", "")


def load(
    benchmark: str,
    data: str,
    parts: Sequence[str] = (),
    image_root: Path | None = None,
    *,
    revision: str | None = None,
    cache: Path | None = None,
    limit: int | None = None,
    think: bool = True,
) -> list[Question]:
    """The questions of some parts (default: of those whose files are there), the first `limit` rows of each.

    `data`: a folder, one JSONL file, or hf://owner/name (`revision`: the commit; fetched to `cache`). Raises
    BenchmarkError for a row that is broken, naming it; SourceError for what is not there or cannot be fetched.
    """
    source = Source(DatasetConfig(name="benchmark", source=data, revision=revision), None, cache)
    questions = []
    for name, path in _files(source, benchmark, parts).items():
        rows = list(_rows(path, name))[:limit]  # all are read: a broken row is an error wherever it stands
        pictures = _PicturePlaces(source, image_root)
        pictures.fetch(picture for _, row in rows for picture in _names(row))
        questions += [_question(benchmark, raw, row, pictures, think) for raw, row in rows]
    return questions


def _files(source: Source, benchmark: str, parts: Sequence[str]) -> dict[str, Path]:
    """The files to read by name: those of the parts asked for, which must be there, or all that are there."""
    # A file that was named itself is read under whatever name it has.
    if source.remote is None and source.path.is_file():
        return {source.path.name: source.path}
    name_by_part = FILES[benchmark]
    files = {}
    for part in parts or name_by_part:
        if part not in name_by_part:
            raise BenchmarkError(f"{benchmark} has no part {part!r}; it has {', '.join(name_by_part)}")
        # Copies of the benchmark differ in their folders: the first known place that holds the file counts.
        places = [f"{folder}/{name_by_part[part]}".lstrip("/") for folder in FOLDERS[benchmark]]
        held = [place for place in places if _holds(source, place)]
        if held:
            files[held[0]] = source.resolve(held[0])
        # Parts that nobody asked for by name may be missing.
        elif parts:
            raise BenchmarkError(f"{source.config.source} holds no {name_by_part[part]} (nor {places[0]})")
    if not files:
        example = next(iter(name_by_part.values()))
        raise BenchmarkError(f"{source.config.source} holds no file of {benchmark}, such as {example}")
    return files


def _holds(source: Source, place: str) -> bool:
    return place in source.files if source.remote else (source.path / place).is_file()


def _rows(path: Path, name: str) -> Iterator[tuple[dict[str, Any], ProgressRow]]:
    """(as published, as read) of each line. Raises BenchmarkError."""
    try:
        with path.open("rb") as file:
            # One byte more than allowed: `parse_row` sees a longer line without its being read as a whole
            lines = iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield parse_row(line, f"{name} line {number}")
    except OSError as e:
        raise BenchmarkError(f"cannot read {path}: {e.strerror}") from e


def parse_row(line: bytes, where: str) -> tuple[dict[str, Any], ProgressRow]:
    """One line of a benchmark file. Raises BenchmarkError, which says where."""
    if len(line) > MAX_LINE_BYTES:
        raise BenchmarkError(f"{where} is longer than {MAX_LINE_BYTES >> 20} MiB: no row of this benchmark")
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise BenchmarkError(f"{where} is not JSON: {e}") from e
    if not isinstance(raw, dict):
        raise BenchmarkError(f"{where} is no object but {type(raw).__name__}")
    return raw, read_row(ProgressRow, raw, where)


class _PicturePlaces:
    """Where a row's pictures lie."""

    def __init__(self, source: Source, root: Path | None) -> None:
        self.source, self.given = source, root
        if root is not None and not root.is_dir():
            raise BenchmarkError(f"--image-root {root} is no folder")
        is_folder = source.remote or source.path.is_dir()
        base = source.path if is_folder else source.path.parent
        images = base / "images"
        beside_the_rows = images if images.is_dir() else base
        self.root = root or beside_the_rows

    def fetch(self, names: Iterator[str]) -> None:
        """Have those of a remote source here; pictures that it does not hold are left for the one who reads them."""
        if self.source.remote is None or self.given is not None:
            return
        files = self.source.files
        distinct_names = dict.fromkeys(names)
        # The first folder that holds any of them is where the publication keeps its pictures
        for folder in IMAGE_FOLDERS:
            uris = [uri for uri in (folder + name for name in distinct_names) if uri in files]
            if uris:
                self.source.fetch(uris)
                self.root = self.source.path / folder
                return

    def __call__(self, name: str) -> PictureFile:
        path = self.root / name
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise BenchmarkError(f"the picture {name} lies outside the folder of pictures {self.root}")
        return PictureFile(path)


def _names(row: ProgressRow) -> list[str]:
    """Pictures of a row below the image root, in the order of its question."""
    return [f"{row.id}/{name}" for name in (*(row.visual_demo or ()), row.stage_to_estimate)]


def _question(benchmark: str, raw: dict[str, Any], row: ProgressRow, pictures: _PicturePlaces, think: bool) -> Question:
    part, n = row.part(benchmark), row.demo_size
    steps = row.text_demo or ()
    # Steps in words are done at their end; pictures reach from the start to the end of the task
    if steps:
        shares = tuple(k / n for k in range(1, n + 1))
    else:
        shares = tuple(k / max(1, n - 1) for k in range(n))
    form = "think" if think else "no_think"
    return Question(
        key=question_key(benchmark, part, raw),
        benchmark=benchmark,
        part=part,
        family=row.kind,
        trajectory=row.id,
        dataset=row.dataset,
        camera=row.camera,
        goal=row.task_goal,
        text=question_text(row.kind, row.task_goal or None, shares, steps, form),
        pictures=tuple(pictures(name) for name in _names(row)),
        truth=RightAnswer(row.answerable, row.progress_score, row.closest_idx, n),
        steps=steps,
        shares=shares,
        row=raw,
    )

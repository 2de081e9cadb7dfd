"""ProgressLM's two benchmarks, progress-bench and human-bench, from their published JSON lines (arXiv 2601.15224).

Files are looked for where the publication has them (prog-bench/text-normal.jsonl ...) and in the folder itself.
Pictures lie at <image root>/<id>/<file name>. ProgressLM's metrics are made strict, or are as its own evaluation has
them.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from annotate.samples.wording import parse_answer, parse_reply
from eval.benchmarks.question import (
    HUMAN,
    BenchmarkError,
    Data,
    PictureFile,
    PredictionLine,
    ProgressRow,
    Question,
    column,
    has_file,
    json_lines,
    read_row,
)
from eval.metrics import errors, order, published
from eval.metrics.score import mean_of, readable, worst_case
from eval.scored import Episodes, ScoredBenchmark, Series, lines_with_rows
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
    source = data.source()
    questions = []
    for name, path in _files(source, data).items():
        lines = json_lines(path, name, MAX_LINE_BYTES, "no row of this benchmark")
        # All are read: a broken row is an error wherever it stands
        rows = [(raw, read_row(ProgressRow, raw, line_name)) for line_name, raw in lines][
            : data.asked.limit
        ]
        names = chain.from_iterable(row.names for _, row in rows)
        root = _picture_root(source, data.asked.image_root, names)
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
        if location := next((place for place in places if has_file(source, place)), None):
            files[location] = source.resolve(location)
        # Parts that nobody asked for by name may be missing.
        elif data.asked.part:
            raise BenchmarkError(f"{data.address} holds no {name} (nor {places[0]})")
    if not files:
        example = FILES[data.asked.benchmark].format(part=data.parts[0])
        raise BenchmarkError(
            f"{data.address} holds no file of {data.asked.benchmark}, such as {example}"
        )
    return files


def _picture_root(source: Source, given_folder: Path | None, names: Iterator[str]) -> Path:
    """The folder that pictures lie in. Those of a remote source are fetched, as far as it has them."""
    if given_folder is not None:
        if not given_folder.is_dir():
            raise BenchmarkError(f"--image-root {given_folder} is no folder")
        return given_folder
    if source.remote is None:
        base = source.path if source.path.is_dir() else source.path.parent
        if (base / "images").is_dir():
            return base / "images"
        return base
    distinct_names = dict.fromkeys(names)
    # The first folder that holds any of them is where the publication keeps its pictures
    for folder in IMAGE_FOLDERS:
        if uris := [uri for name in distinct_names if (uri := folder + name) in source.files]:
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
        progress=row.progress_score,
        steps=row.text_demo or (),
        shares=row.shares,
        row=raw,
    )


# Scores

Parsed = tuple[float | None, int | None, bool]  # score, reference, and whether it says n/a


def score(
    benchmark: str, predictions: Iterable[PredictionLine], as_published: bool = False
) -> ScoredBenchmark:
    """Raises BenchmarkError for a row that is broken, of another benchmark, or there twice."""

    def foreign(meta: dict) -> str | None:
        if "text_demo" not in meta and "visual_demo" not in meta:
            return "its meta_data has neither text_demo nor visual_demo"
        source = meta.get("data_source")
        is_other = source is not None and (source == HUMAN) != (benchmark == "human-bench")
        if is_other:
            return f"its data_source is {source}"
        return None

    lines, rows = lines_with_rows(ProgressRow, benchmark, predictions, foreign)
    episodes = Episodes.of(
        rows, lambda row: (row.part(benchmark), row.id), lambda row: _slices(benchmark, row)
    )
    if as_published:
        # The published evaluation takes a whole file to be of one form
        tagged = _is_tagged(lines)
        return _published(
            benchmark, rows, [_parsed(line, tagged, takes_nan=True) for line in lines], episodes
        )
    parsed = [_parsed(line, _has_tags(line.response), takes_nan=False) for line in lines]
    return _strict(benchmark, rows, parsed, episodes)


def _slices(benchmark: str, row: ProgressRow) -> tuple[str, ...]:
    camera = row.camera_combination or row.camera
    slice_names = {
        "part": row.part(benchmark),
        "dataset": row.dataset,
        "family": row.kind,
        "camera": camera,
    }
    return (*(f"{k} {v}" for k, v in slice_names.items() if v), f"length {row.demo_size} items")


# What an answer says


def _is_tagged(lines: Sequence[PredictionLine]) -> bool:
    """Is a file one of answers with reasons in tags? The fields of its first row say so where ProgressLM's own runners
    wrote it; else any answer does, since the first may be one that cannot be read."""
    first = lines[0].fields
    if first & {"ref", "predicted_score"} or {"score", "ground_truth_score"} <= first:
        return {"ref", "score"} <= first
    return any(_has_tags(line.response) for line in lines)


def _has_tags(text: str) -> bool:
    return "<score>" in text or "<ref>" in text


def _parsed(line: PredictionLine, tagged: bool, takes_nan: bool) -> Parsed:
    """`takes_nan`: the published parser takes the text "nan" in a score's tag for 100 %."""
    if line.value is not None:
        return line.value, None, False
    if not tagged:
        answer = parse_answer(line.response, "published")
        return answer.score, None, answer.is_na
    reply = parse_reply(line.response, "published")
    is_number = takes_nan or "nan" not in reply.score_text.lower()
    return reply.score if is_number else None, reply.ref, reply.score_is_na


# Strict


def _strict(
    benchmark: str, rows: Sequence[ProgressRow], parsed: Sequence[Parsed], episodes: Episodes
) -> ScoredBenchmark:
    """Unanswered questions count as wrong as can be, episodes without any order as 0, refusals apart from rubbish."""
    target, right, demo_size = (
        column(rows, name) for name in ("progress_score", "closest_idx", "demo_size")
    )
    predicted, reference, refused = np.array(parsed, np.float64).T
    answerable = ~np.isnan(target)
    numeric = ~np.isnan(predicted)
    refused = refused > 0
    unparsable = ~numeric & ~refused
    everything = np.ones(len(rows), bool)

    # Order within each recording: the order of answers within an episode makes no difference
    of_answerable = episodes.among(answerable)
    runs, _ = of_answerable.runs(predicted[answerable], target[answerable], target[answerable])
    read = episodes.sums(answerable & numeric, answerable)
    voc_worst = order.voc(worst_case(runs))
    voc = np.where(np.isnan(voc_worst), np.nan, np.nan_to_num(order.voc(readable(runs))))

    # Distance of each number, and of each reference item, from the right one
    error = errors.score_error(predicted, target)
    worst_error = errors.errors_with_missing(error, answerable)
    has_reference = ~np.isnan(right)
    reference_read = ~np.isnan(reference)
    reference_error = errors.reference_error(reference, right, demo_size)
    worst_reference_error = errors.errors_with_missing(reference_error, has_reference)
    mean = episodes.mean
    measures = {
        "voc": mean_of(voc, read),
        "voc_worst": mean_of(voc_worst, read),
        "score_error": mean(worst_error, answerable, numeric),
        "score_error_parsed": mean(error, answerable, numeric),
        "score_error_episodes": mean_of(episodes.means(worst_error), read),
        "ref_error": mean(worst_reference_error, has_reference, reference_read),
        "ref_error_parsed": mean(reference_error, has_reference, reference_read),
        "na_recall": mean(refused, ~answerable, ~unparsable),
        "na_recall_reference": mean(~numeric, ~answerable, ~unparsable),
        "afrr": mean(refused, answerable, ~unparsable),
        "unparsable": mean(unparsable, everything, ~unparsable),
        # Is a question that has no answer told from one that has?
        "answerability": episodes.confusion(
            refused, ~answerable, everything, ~unparsable, errors.balanced_accuracy
        ),
        "coverage": mean(numeric, answerable, numeric),
    }
    counts = {
        "rows": len(rows),
        "episodes": len(episodes.scored),
        "answerable": int(answerable.sum()),
        "numbers": int((answerable & numeric).sum()),
        "refusals": int(refused.sum()),
        "unparsable": int(unparsable.sum()),
        "without_order": int(np.isnan(voc_worst).sum()),
    }
    return ScoredBenchmark(benchmark, episodes.scored, measures, counts, Series(runs))


# As published


def _published(
    benchmark: str, rows: Sequence[ProgressRow], parsed: Sequence[Parsed], episodes: Episodes
) -> ScoredBenchmark:
    """As `metric.py` of the release: scores are cut off to whole percent, what is no number is left out."""
    target, right, demo_size = (
        column(rows, name) for name in ("progress_score", "closest_idx", "demo_size")
    )
    predicted, reference, _ = np.array(parsed, np.float64).T
    predicted = published.written_shares(predicted)
    answerable = ~np.isnan(target)
    numeric = answerable & ~np.isnan(predicted)
    has_reference = ~np.isnan(right)
    both_references = has_reference & ~np.isnan(reference)
    reference_error = published.reference_error(reference, right, demo_size)

    runs, _ = episodes.among(numeric).runs(predicted[numeric], target[numeric], target[numeric])
    read = episodes.sums(numeric, answerable)
    read_references = episodes.sums(both_references, has_reference)
    unasked = episodes.sums(~answerable, ~answerable)
    answerable_counts = episodes.sums(answerable, answerable)
    measures = {
        "voc": mean_of(published.trajectory_voc(runs), read),
        "score_error": episodes.ratio(
            np.where(numeric, published.score_error(predicted, target), 0), numeric, read
        ),
        "ref_error": episodes.ratio(
            np.where(both_references, reference_error, 0), both_references, read_references
        ),
        "na_recall": episodes.ratio(~answerable & np.isnan(predicted), ~answerable, unasked),
        "afrr": episodes.ratio(answerable & ~numeric, answerable, answerable_counts),
        "coverage": episodes.ratio(numeric, answerable, read),
    }
    counts = {
        "rows": len(rows),
        "episodes": len(episodes.scored),
        "answerable": int(answerable.sum()),
        "numbers": int(numeric.sum()),
    }
    return ScoredBenchmark(benchmark, episodes.scored, measures, counts)

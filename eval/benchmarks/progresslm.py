"""ProgressLM's two benchmarks, progress-bench and human-bench, from their published JSON lines (arXiv 2601.15224).

Pictures lie at <image root>/<id>/<file name>. Metrics are made strict, or are as ProgressLM's own evaluation has them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from annotate.samples.wording import parse_answer, parse_reply
from eval.benchmarks.question import (
    BenchmarkError,
    Data,
    PredictionLine,
    Question,
    has_file,
    json_lines,
    picture_in,
    read_row,
)
from eval.metrics import errors, order
from eval.metrics.order import correlation, mean_ranks
from eval.metrics.score import Runs, mean_of
from eval.scored import BenchmarkAnswers, ScoredBenchmark
from ingest.sources.files import Source
from training.progresslm import SourceRow, Text

HUB = "hf://Raymond-Qiancx/ProgressLM-Dataset"
MAX_LINE_BYTES = 4 << 20  # the longest published one has 2 KB
FOLDERS = {
    "progress-bench": ("prog-bench", "dataset/prog-bench", ""),
    "human-bench": ("human-bench", "dataset/human-bench", ""),
}
FILES = {"progress-bench": "{part}.jsonl", "human-bench": "{part}_demo_human_activities.jsonl"}
IMAGE_FOLDERS = ("images/", "image/", "")


# The part that a row belongs to: by its kind and whether it has an answer; of human-bench by its kind alone
PROGRESS_PART = {
    ("text", True): "text-normal",
    ("text", False): "text-unanswerable",
    ("visual", True): "visual_same_view",
    ("cross_view", True): "visual_cross_view",
    ("visual", False): "visual-unanswerable",
    ("cross_view", False): "visual-unanswerable",
}
HUMAN_PART = {"text": "text", "visual": "visual", "cross_view": "visual"}
PROGRESS_PARTS = tuple(dict.fromkeys(PROGRESS_PART.values()))
HUMAN_PARTS = tuple(dict.fromkeys(HUMAN_PART.values()))
HUMAN_BENCH, HUMAN = "human-bench", "human"  # and the data_source of its rows


class ProgressRow(SourceRow):
    """A row of either benchmark, as published files and prediction files hold it."""

    task_goal: Text = ""
    data_source: str | None = None


def question(benchmark: str, raw: Mapping[str, Any]) -> Question:
    """The question of a published row, without its words and pictures. Raises ValueError."""
    if "text_demo" not in raw and "visual_demo" not in raw:
        raise ValueError("its meta_data has neither text_demo nor visual_demo")
    row = ProgressRow.model_validate(raw)
    if row.data_source is not None and (row.data_source == HUMAN) != (benchmark == HUMAN_BENCH):
        raise ValueError(f"its data_source is {row.data_source}")
    return _question(benchmark, raw, row)


def _question(benchmark: str, raw: Mapping[str, Any], row: ProgressRow) -> Question:
    has_answer = row.progress_score is not None
    part = HUMAN_PART[row.kind] if benchmark == HUMAN_BENCH else PROGRESS_PART[row.kind, has_answer]
    # Where the recording is from; the prefix that some files give its name is left out
    dataset = (row.data_source or row.id.split("/")[0]).removeprefix("robomind_")
    slices = {
        "part": part,
        "dataset": dataset,
        "family": row.kind,
        "camera": row.camera_combination or row.camera,
    }
    return Question(
        benchmark=benchmark,
        part=part,
        family=row.kind,
        trajectory=row.id,
        dataset=dataset,
        camera=row.camera,
        goal=row.task_goal,
        text="",
        pictures=(),
        progress=row.progress_score,
        steps=row.text_demo or (),
        shares=row.shares,
        reference=row.closest_idx,
        row=raw,
        unit=(part, row.id),
        slices=(*(f"{k} {v}" for k, v in slices.items() if v), f"length {row.demo_size} items"),
    )


def load(data: Data) -> Iterator[Question]:
    """The questions of some parts (default: of those whose files are there), the first `limit` rows
    of each.

    The data is a folder, one file of JSON lines, or a repository. Raises BenchmarkError, which
    names a row that is broken; SourceError for what is not there or cannot be fetched.
    """
    source = data.source()
    form = "think" if data.asked.think is not False else "no_think"
    for name, path in _files(source, data).items():
        lines = json_lines(path, name, MAX_LINE_BYTES, "no row of this benchmark")
        # All are read: a broken row is an error wherever it stands
        rows = [(raw, read_row(ProgressRow.model_validate, raw, line)) for line, raw in lines]
        chosen = rows[: data.asked.limit]
        names = chain.from_iterable(row.names for _, row in chosen)
        root = _picture_root(source, data.asked.image_root, names)
        for raw, row in chosen:
            pictures = tuple(picture_in(root, name) for name in row.names)
            q = _question(data.asked.benchmark, raw, row)
            yield replace(q, text=row.question(form), pictures=pictures)


def _files(source: Source, data: Data) -> dict[str, Path]:
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


# Scores

Parsed = tuple[float | None, int | None, bool]  # score, reference, and whether it says n/a


# What an answer says


def _is_tagged(lines: Sequence[PredictionLine]) -> bool:
    """Is a file one of answers with reasons in tags? The fields of its first row say so where
    ProgressLM's own runners wrote it; else any answer does, since the first may be one that cannot
    be read."""
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


def _columns(parsed: Sequence[Parsed]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores and references that answers state, float64 [n], NaN: none; bool [n]: n/a was said."""
    predicted, reference, refused = np.array(parsed, np.float64).T
    return predicted, reference, refused > 0


def _demo_sizes(answers: BenchmarkAnswers) -> np.ndarray:
    return np.array([len(q.shares) for q in answers.questions], np.float64)


def score(answers: BenchmarkAnswers) -> ScoredBenchmark:
    """Unanswered questions count as wrong as can be, episodes without any order as 0, refusals
    apart from rubbish."""
    predicted, reference, refused = _columns(
        [_parsed(x, _has_tags(x.response), takes_nan=False) for x in answers.lines]
    )
    target, right = answers.column("progress"), answers.column("reference")
    episodes = answers.episodes
    answerable = ~np.isnan(target)
    numeric = ~np.isnan(predicted)
    unparsable = ~numeric & ~refused

    # Order within each recording: the order of answers within an episode makes no difference
    labels = target[answerable]
    runs, _ = episodes.among(answerable).runs(predicted[answerable], labels, labels)
    read = episodes.sums(answerable & numeric, answerable)
    voc_worst = order.voc(runs.worst)
    voc = np.where(np.isnan(voc_worst), np.nan, np.nan_to_num(order.voc(runs.parsed)))

    # Distance of each number, and of each reference item, from the right one
    error = errors.score_error(predicted, target)
    worst_error = errors.errors_with_missing(error, answerable)
    has_reference = ~np.isnan(right)
    reference_read = ~np.isnan(reference)
    reference_error = errors.reference_error(reference, right, _demo_sizes(answers))
    worst_reference_error = errors.errors_with_missing(reference_error, has_reference)
    mean = episodes.mean
    everywhere = answers.everywhere
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
        "unparsable": mean(unparsable, everywhere, ~unparsable),
        # Is a question that has no answer told from one that has?
        "answerability": episodes.confusion(
            refused, ~answerable, everywhere, ~unparsable, errors.balanced_accuracy
        ),
        "coverage": mean(numeric, answerable, numeric),
    }
    counts = {
        "rows": len(answers.questions),
        "episodes": len(episodes.scored),
        "answerable": int(answerable.sum()),
        "numbers": int((answerable & numeric).sum()),
        "refusals": int(refused.sum()),
        "unparsable": int(unparsable.sum()),
        "without_order": int(np.isnan(voc_worst).sum()),
    }
    return ScoredBenchmark(answers.benchmark, episodes.scored, measures, counts, runs)


def published_score(answers: BenchmarkAnswers) -> ScoredBenchmark:
    """As `metric.py` of the release: a whole file is of one form, scores are cut off to whole
    percent, what is no number is left out."""
    tagged = _is_tagged(answers.lines)
    stated, reference, _ = _columns([_parsed(x, tagged, takes_nan=True) for x in answers.lines])
    target, right = answers.column("progress"), answers.column("reference")
    episodes = answers.episodes
    # As its runner wrote them: whole percentages, cut off, so that 0.57 becomes 0.56
    predicted = np.trunc(stated * 100) / 100
    answerable = ~np.isnan(target)
    numeric = answerable & ~np.isnan(predicted)
    # May exceed 1
    score_error = np.abs(predicted - target) / np.maximum(target, 1 - target)
    has_reference = ~np.isnan(right)
    both_references = has_reference & ~np.isnan(reference)
    reference_error = errors.reference_error(
        reference, right, _demo_sizes(answers), is_clipped=False
    )

    labels = target[numeric]
    runs, _ = episodes.among(numeric).runs(predicted[numeric], labels, labels)
    read = episodes.sums(numeric, answerable)
    read_references = episodes.sums(both_references, has_reference)
    unasked = episodes.sums(~answerable, ~answerable)
    answerable_counts = episodes.sums(answerable, answerable)
    measures = {
        "voc": mean_of(trajectory_voc(runs), read),
        "score_error": episodes.ratio(np.where(numeric, score_error, 0), numeric, read),
        "ref_error": episodes.ratio(
            np.where(both_references, reference_error, 0), both_references, read_references
        ),
        "na_recall": episodes.ratio(~answerable & np.isnan(predicted), ~answerable, unasked),
        "afrr": episodes.ratio(answerable & ~numeric, answerable, answerable_counts),
        "coverage": episodes.ratio(numeric, answerable, read),
    }
    counts = {
        "rows": len(answers.questions),
        "episodes": len(episodes.scored),
        "answerable": int(answerable.sum()),
        "numbers": int(numeric.sum()),
    }
    return ScoredBenchmark(answers.benchmark, episodes.scored, measures, counts)


def trajectory_voc(runs: Runs) -> np.ndarray:
    """Spearman with mean ranks, [episodes]; NaN (left out) where predictions are constant, as where
    labels are."""
    coefficient = correlation(runs, mean_ranks(runs, runs.predicted), mean_ranks(runs, runs.target))
    varies = replace(runs, target=runs.predicted).has_order
    return np.where(varies, coefficient, np.nan)

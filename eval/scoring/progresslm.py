"""progress-bench and human-bench: ProgressLM's metrics made strict, and as its own evaluation has them."""

from collections.abc import Iterable, Sequence

import numpy as np

from annotate.samples.replies import parse_answer, parse_reply
from eval.benchmarks.rows import HUMAN, PredictionLine, ProgressRow
from eval.metrics import errors, order, published
from eval.metrics.runs import readable, worst_case
from eval.metrics.score import mean_of
from eval.scoring.scored import Episodes, ScoredBenchmark, Series, checked, column

Parsed = tuple[float | None, int | None, bool]  # score, reference, and whether it says n/a


def score(benchmark: str, predictions: Iterable[PredictionLine], as_published: bool = False) -> ScoredBenchmark:
    """Raises BenchmarkError for a row that is broken, of another benchmark, or there twice."""

    def foreign(meta: dict) -> str | None:
        if "text_demo" not in meta and "visual_demo" not in meta:
            return "its meta_data has neither text_demo nor visual_demo"
        source = meta.get("data_source")
        is_other = source is not None and (source == HUMAN) != (benchmark == "human-bench")
        return f"its data_source is {source}" if is_other else None

    lines, rows = checked(ProgressRow, benchmark, predictions, foreign)
    episodes = Episodes.of(rows, lambda row: (row.part(benchmark), row.id), lambda row: _slices(benchmark, row))
    if as_published:
        # The published evaluation takes a whole file to be of one form
        tagged = _is_tagged(lines)
        return _published(benchmark, rows, [_parsed(line, tagged, takes_nan=True) for line in lines], episodes)
    parsed = [_parsed(line, _has_tags(line.response), takes_nan=False) for line in lines]
    return _strict(benchmark, rows, parsed, episodes)


def _slices(benchmark: str, row: ProgressRow) -> tuple[str, ...]:
    camera = row.camera_combination or row.camera
    named = {"part": row.part(benchmark), "dataset": row.dataset, "family": row.kind, "camera": camera}
    return (*(f"{k} {v}" for k, v in named.items() if v), f"length {row.demo_size} items")


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
    target, right, demo_size = (column(rows, name) for name in ("progress_score", "closest_idx", "demo_size"))
    predicted, reference, refused = np.array(parsed, np.float64).T
    answerable, numeric, refused = ~np.isnan(target), ~np.isnan(predicted), refused > 0
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
    worst_error = errors.penalised(error, answerable)
    has_reference, reference_read = ~np.isnan(right), ~np.isnan(reference)
    reference_error = errors.reference_error(reference, right, demo_size)
    worst_reference_error = errors.penalised(reference_error, has_reference)
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
        "answerability": episodes.confusion(refused, ~answerable, everything, ~unparsable, errors.balanced_accuracy),
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
    """eval/metric.py of the release: scores cut off to whole percent, whatever is no number left out."""
    target, right, demo_size = (column(rows, name) for name in ("progress_score", "closest_idx", "demo_size"))
    predicted, reference, _ = np.array(parsed, np.float64).T
    predicted = published.written(predicted)
    answerable = ~np.isnan(target)
    numeric = answerable & ~np.isnan(predicted)
    has_reference = ~np.isnan(right)
    both_references = has_reference & ~np.isnan(reference)
    reference_error = published.reference_error(reference, right, demo_size)

    runs, _ = episodes.among(numeric).runs(predicted[numeric], target[numeric], target[numeric])
    read = episodes.sums(numeric, answerable)
    read_references = episodes.sums(both_references, has_reference)
    unasked, asked = episodes.sums(~answerable, ~answerable), episodes.sums(answerable, answerable)
    measures = {
        "voc": mean_of(published.trajectory_voc(runs), read),
        "score_error": episodes.ratio(np.where(numeric, published.score_error(predicted, target), 0), numeric, read),
        "ref_error": episodes.ratio(np.where(both_references, reference_error, 0), both_references, read_references),
        "na_recall": episodes.ratio(~answerable & np.isnan(predicted), ~answerable, unasked),
        "afrr": episodes.ratio(answerable & ~numeric, answerable, asked),
        "coverage": episodes.ratio(numeric, answerable, read),
    }
    counts = {
        "rows": len(rows),
        "episodes": len(episodes.scored),
        "answerable": int(answerable.sum()),
        "numbers": int(numeric.sum()),
    }
    return ScoredBenchmark(benchmark, episodes.scored, measures, counts)

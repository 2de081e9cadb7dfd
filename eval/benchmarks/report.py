"""The report of a benchmark: what was asked, scores, and pictures of the worst episodes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from eval import confusion, robustness
from eval.benchmarks.question import BenchmarkError, PictureFile, Question
from eval.report import Report, Stills
from eval.scoring.scored import Evaluated


def report_on(
    benchmark: str,
    asked: str,
    entries: Sequence[Evaluated],
    questions: Sequence[Question],
    settings: Mapping[str, Any],
    left_out: Sequence[str],
) -> Report:
    """`asked`: what was asked, in words; `left_out`: notes on what was not scored."""
    listed = [f"{k} {v}" for k, v in settings.items() if v is not None and k != "question_keys"]
    notes = [f"{asked}.", f"Settings: {', '.join(listed)}.", *left_out]
    report = Report(entries[0].model, entries, notes=notes, stills=_stills(questions))
    if benchmark not in (confusion.BENCHMARK, robustness.BENCHMARK):
        return report
    # Splits, or what was done to the pictures, stand beside each other; and the latter is to be seen
    names = sorted({part for part, _ in entries[0].scores if part.startswith(("part ", "split ")) and ", " not in part})
    examples = _examples(questions) if benchmark == robustness.BENCHMARK else {}
    return replace(report, parts=("all", *names), examples=examples)


def _examples(questions: Sequence[Question]) -> dict[str, list[bytes]]:
    """Pictures of the middle of one run, by what was done to them."""
    first = questions[0]
    of_run = [q for q in questions if (q.dataset, q.trajectory) == (first.dataset, first.trajectory)]
    examples: dict[str, list[bytes]] = {}
    for part in dict.fromkeys(q.part for q in of_run):
        shown = [q for q in of_run if q.part == part]
        pictures = list(filter(None, map(_readable, shown[len(shown) // 2].pictures)))
        if pictures:
            examples[part] = pictures
    return examples


def _stills(questions: Sequence[Question]) -> Stills:
    """The last pictures of an episode's questions in order of time, by the key that scoring gives the episode."""
    questions_by_episode: dict[tuple[str, ...], list[Question]] = {}
    for q in questions:
        # ProgressLM's scoring has the first kind of key, ProcVQA's the second,
        # and that of held-out runs that are shown otherwise the third
        keys = (q.part, q.trajectory), (q.family, q.dataset, q.trajectory, q.camera), (q.part, q.dataset, q.trajectory)
        for key in keys:
            questions_by_episode.setdefault(key, []).append(q)

    def stills(key: tuple[str, ...]) -> list[bytes]:
        in_order = sorted(questions_by_episode.get(key, ()), key=lambda q: q.moment or 0)
        return [data for q in in_order if (data := _readable(q.pictures[-1]))]

    return stills


def _readable(picture: PictureFile) -> bytes | None:
    try:
        return picture.read()
    except BenchmarkError:  # the answers' own errors say so
        return None

"""RoboFAC's answers: the three kinds that name one of several options; what a judge model reads is told as not scored.

The publication has a judge (GPT-4o) give 0 to 5 points for correctness, relevance and completeness of the five kinds in
free text. No number of ours stands for that: such answers are counted, and kept in the prediction file.
"""

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from eval.benchmarks.question import BenchmarkError
from eval.benchmarks.robofac import BENCHMARK, CHOICES, FAMILIES
from eval.benchmarks.rows import check_benchmark, read_row
from eval.metrics import errors
from eval.metrics.score import Measure, ratio_of
from eval.predictions import PredictionLine
from eval.scoring.scored import ScoredBenchmark, ScoredEpisode, numbered

DETECTION = "failure_detection"
MAX_OPTIONS_CHARS = 10_000
_LIST = re.compile(r"\[[^\[\]]*\]")


class RoboFacRow(BaseModel):
    """A question's row, as prediction files carry it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Annotated[str, Field(min_length=1)]
    kind: str
    question: str
    answer: Annotated[str, Field(min_length=1)]
    split: str = ""
    task: str = ""
    inference: Annotated[int, Field(alias="_inference_idx")] = 0

    def identity(self) -> tuple:
        return self.split, self.id, self.kind, self.question, self.inference


@dataclass(frozen=True)
class Choice:
    """An answer to a question with options. None: `chosen` cannot be read."""

    row: RoboFacRow
    text: str
    right: str
    chosen: str | None


def score(benchmark: str, rows: Iterable[PredictionLine], as_published: bool = False) -> ScoredBenchmark:
    """An answer that cannot be read counts as wrong. `as_published`: right where the right answer contains the reply,
    so an empty reply is right and a sentence is wrong. Raises BenchmarkError, which names the row that is wrong."""
    choices, unscored = _choices(benchmark, rows)
    if not choices and not any(unscored.values()):
        raise BenchmarkError("the prediction file holds no row")
    is_read = np.array([as_published or c.chosen is not None for c in choices], bool)
    is_right = np.array([_contains(c) if as_published else c.chosen == c.right for c in choices], bool)
    numbers, keys = numbered([(c.row.split, c.row.id) for c in choices])
    episodes = tuple(ScoredEpisode(key, _slices(choices, numbers, k)) for k, key in enumerate(keys))

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(numbers, values, len(keys))

    measures: dict[str, Measure] = {}
    counts = {"rows": len(choices) + sum(unscored.values()), "episodes": len(keys), "unparsable": int((~is_read).sum())}
    for kind in CHOICES:
        of_kind = np.array([c.row.kind == kind for c in choices], bool)
        counts[f"rows_{kind}"] = int(of_kind.sum())
        if of_kind.any():
            name = kind.removeprefix("failure_")
            read = np.stack([sums(is_read & of_kind), sums(of_kind)], 1)
            measures[f"{name}_accuracy"] = ratio_of(sums(is_right & of_kind), sums(of_kind), read)
            if kind == DETECTION and not as_published:
                measures["detection_balanced"] = _balanced(choices, of_kind, is_read, numbers, read)
    every = sums(np.ones(len(choices)))
    read = np.stack([sums(is_read), every], 1)
    measures["choice_accuracy"] = ratio_of(sums(is_right), every, read)
    measures["coverage"] = ratio_of(sums(is_read), every, read)
    counts |= {f"unscored_{kind}": count for kind, count in unscored.items() if count}
    notes = ()
    if told := [kind for kind, count in unscored.items() if count]:
        notes = (
            f"{', '.join(told)}: free text, which a judge model scores as published; answers are kept, not scored",
        )
    return ScoredBenchmark(BENCHMARK, episodes, measures, counts, notes=notes)


def _choices(benchmark: str, rows: Iterable[PredictionLine]) -> tuple[list[Choice], dict[str, int]]:
    """The answers with options, and how many of each other kind there are. Raises BenchmarkError."""
    choices: list[Choice] = []
    unscored = {kind: 0 for kind in FAMILIES if kind not in CHOICES}
    seen: dict[tuple, str] = {}
    for p in rows:
        check_benchmark(benchmark, p.meta_data, p.where)
        row = read_row(RoboFacRow, p.meta_data, p.where)
        if row.kind not in FAMILIES:
            raise BenchmarkError(f"{p.where} has kind {row.kind!r}; {benchmark} has {', '.join(FAMILIES)}")
        first = seen.setdefault(row.identity(), p.where)
        if first != p.where:
            raise BenchmarkError(f"{p.where} is the same row as {first}: keep one answer")
        if row.kind in CHOICES:
            choices.append(_choice(row, "" if p.error else p.response, p.where))
        else:
            unscored[row.kind] += 1
    return choices, unscored


def _choice(row: RoboFacRow, text: str, where: str) -> Choice:
    """Raises BenchmarkError for a right answer that is none of the options."""
    options = ("yes", "no") if row.kind == DETECTION else options_of(row.question)
    right = named(row.answer, options) if options else _plain(row.answer)
    if right is None:
        raise BenchmarkError(f"{where}: the right answer {row.answer!r} is none of {', '.join(options)}")
    return Choice(row, text, right, named(text, options or (right,)))


def options_of(question: str) -> tuple[str, ...]:
    """What a question says may be answered: the last list of texts in it, plainly written; () where there is none.

    Example: options_of("Which? (one of: ['Grasping error.', 'Wrong object.'])") == ("grasping error", "wrong object")
    """
    for found in reversed(_LIST.findall(question)):
        if len(found) > MAX_OPTIONS_CHARS:
            continue
        try:
            values = ast.literal_eval(found)
        except (ValueError, SyntaxError):
            continue
        if values and all(isinstance(v, str) for v in values):
            return tuple(dict.fromkeys(map(_plain, values)))
    return ()


def named(text: str, options: Sequence[str]) -> str | None:
    """The one option that a text names; None where it names none, or several. Of options within one another the longer
    counts."""
    plain = _plain(text)
    if plain in options:
        return plain
    # The longest first, each taken out of the text, so that what lies within it is not found again
    found = []
    for option in sorted(options, key=len, reverse=True):
        if not option:
            continue
        pattern = rf"(?<!\w){re.escape(option)}(?!\w)"
        if re.search(pattern, plain):
            found.append(option)
            plain = re.sub(pattern, " ", plain)
    return found[0] if len(found) == 1 else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .")


def _contains(choice: Choice) -> bool:
    return choice.text.lower() in choice.row.answer.lower()


def _balanced(
    choices: Sequence[Choice], of_kind: np.ndarray, is_read: np.ndarray, numbers: np.ndarray, read: np.ndarray
) -> Measure:
    """Mean of the shares found among runs that failed and runs that did not."""
    actual = np.array([c.right == "yes" for c in choices], bool)
    cells = errors.confusion(np.array([c.chosen == "yes" for c in choices]), actual, is_read) * of_kind[:, None]
    parts = np.stack([np.bincount(numbers, column, len(read)) for column in cells.T], 1)
    return Measure(parts, read[:, 1] > 0, read, errors.balanced_accuracy)


def _slices(choices: Sequence[Choice], numbers: np.ndarray, episode: int) -> tuple[str, ...]:
    row = choices[int(np.flatnonzero(numbers == episode)[0])].row
    named_slices = (("split", row.split), ("task", row.task))
    return tuple(f"{name} {value}" for name, value in named_slices if value)

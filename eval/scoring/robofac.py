"""RoboFAC's answers: the three kinds that name one of several options; what a judge model reads is told as not scored.

The publication has a judge (GPT-4o) give 0 to 5 points for correctness, relevance and completeness of the five kinds in
free text. No number of ours stands for that: such answers are counted, and kept in the prediction file.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from eval.benchmarks.question import BenchmarkError
from eval.benchmarks.robofac import BENCHMARK, CHOICES, FAMILIES
from eval.benchmarks.rows import PredictionLine
from eval.metrics import errors
from eval.metrics.score import Measure
from eval.scoring.scored import AnsweredRow, Episodes, ScoredBenchmark, checked

DETECTION = "failure_detection"
MAX_OPTIONS_CHARS = 10_000
_LIST = re.compile(r"\[[^\[\]]*\]")


class RoboFacRow(AnsweredRow):
    id: Annotated[str, Field(min_length=1)]
    kind: str
    question: str
    answer: Annotated[str, Field(min_length=1)]
    split: str = ""
    task: str = ""

    def identity(self) -> tuple:
        return self.split, self.id, self.kind, self.question, self.inference

    @property
    def slices(self) -> list[str]:
        return [f"{name} {value}" for name, value in (("split", self.split), ("task", self.task)) if value]


def score(benchmark: str, lines: Iterable[PredictionLine], as_published: bool = False) -> ScoredBenchmark:
    """An answer that cannot be read counts as wrong. `as_published`: right where the right answer contains the reply,
    so an empty reply is right and a sentence is wrong. Raises BenchmarkError, which names the row that is wrong."""

    def foreign(meta: dict) -> str | None:
        kind = meta.get("kind")
        return None if kind in FAMILIES else f"it has kind {kind!r}, not {', '.join(FAMILIES)}"

    said, asked = checked(RoboFacRow, benchmark, lines, foreign)
    # Arrays of texts and None, by row
    answers = [(line, row) for line, row in zip(said, asked, strict=True) if row.kind in CHOICES]
    columns = np.array([_columns(line, row) for line, row in answers], object).reshape(-1, 4)
    kinds, right, chosen, contained = columns.T
    is_read = (chosen != np.array(None)) | as_published
    is_right = (contained if as_published else chosen == right).astype(bool)
    episodes = Episodes.of(answers, lambda a: (a[1].split, a[1].id), lambda a: a[1].slices)

    measures: dict[str, Measure] = {}
    for kind in CHOICES:
        if (kinds == kind).any():
            measures[f"{kind.removeprefix('failure_')}_accuracy"] = episodes.mean(is_right, kinds == kind, is_read)
    if (kinds == DETECTION).any() and not as_published:
        # Mean of the shares found among runs that failed and runs that did not
        measures["detection_balanced"] = episodes.confusion(
            chosen == "yes", right == "yes", kinds == DETECTION, is_read, errors.balanced_accuracy
        )
    every = np.ones(len(answers), bool)
    measures["choice_accuracy"] = episodes.mean(is_right, every, is_read)
    measures["coverage"] = episodes.mean(is_read, every, is_read)
    times = Counter(row.kind for row in asked)
    in_words = [kind for kind in FAMILIES if times[kind] and kind not in CHOICES]
    told = ", ".join(in_words)
    counts = {
        "rows": len(asked),
        "episodes": len(episodes.scored),
        "unparsable": int((~is_read).sum()),
        **{f"rows_{kind}": times[kind] for kind in CHOICES},
        **{f"unscored_{kind}": times[kind] for kind in in_words},
    }
    notes = (f"{told}: free text, which a judge model scores as published; answers are kept, not scored",)
    return ScoredBenchmark(BENCHMARK, episodes.scored, measures, counts, notes=notes if told else ())


def _columns(line: PredictionLine, row: RoboFacRow) -> tuple[str, str, str | None, bool]:
    """Kind, right option, chosen one (None: it cannot be read), and whether the right answer contains the reply.

    Raises BenchmarkError for a right answer that is none of the options.
    """
    options = ("yes", "no") if row.kind == DETECTION else options_of(row.question)
    right = named(row.answer, options) if options else _plain(row.answer)
    if right is None:
        raise BenchmarkError(f"{line.where}: the right answer {row.answer!r} is none of {', '.join(options)}")
    is_contained = line.response.lower() in row.answer.lower()
    return row.kind, right, named(line.response, options or (right,)), is_contained


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

"""Ways to get progress out of a model: the benchmark's own question, and three that need no demonstration.

direct     each state alone: how many per cent are done?
gvl        all states of a run at once, in a random order (Generative Value Learning, arXiv 2411.04549)
topreward  how probable is "True" when it is stated that the task is complete (TOPReward, arXiv 2602.19313)? Ours is
           p(True) / (p(True) + p(False)), without the published scaling of each run to 0..1: that makes every failure
           end at 1
"""

import hashlib
import json
import random
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from annotate.samples.procvqa import task_text
from annotate.samples.wording import parse_answer
from core.values import IMAGE_MARK, spread
from eval.benchmarks.question import FRAMES_OF_A_RUN, Question, runs_in_order
from eval.runners.journal import Journal, Row, has_failed, merged, part_path, row_of
from eval.runners.prompt import ModelReply, Prompt, Runner, UnansweredError

GVL_PICTURES = 30  # in one prompt; longer runs are asked in several, each shuffled
TOPREWARD_PICTURES = 8  # evenly over the run so far
PERCENT = re.compile(r"Picture\s+(\d+)\D{0,3}?\s*(\d+(?:\.\d+)?)\s*%")


@dataclass(frozen=True)
class AskedPrompt:
    """A prompt, and the questions that its reply answers."""

    prompt: Prompt
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Method:
    """`ask`: prompts for some questions; `read`: a line for each question that a prompt stands for."""

    name: str
    ask: Callable[[Sequence[Question]], list[AskedPrompt]]
    read: Callable[[AskedPrompt, ModelReply], list[Row]]


def own_question(questions: Sequence[Question]) -> list[AskedPrompt]:
    return [AskedPrompt(Prompt.of(q), (q,)) for q in questions]


def as_said(asked: AskedPrompt, reply: ModelReply) -> list[Row]:
    return [row_of(q, reply) for q in asked.questions]


def ask_direct(questions: Sequence[Question]) -> list[AskedPrompt]:
    asked = []
    for q in (q for q in questions if q.moment is not None):
        pictures = q.pictures if q.family in FRAMES_OF_A_RUN else q.pictures[-1:]
        text = _wording("direct").format(task=task_text(q.goal or None), frames=_marks(len(pictures)))
        asked.append(AskedPrompt(Prompt(q.key, text, pictures, seed=q.inference), (q,)))
    return asked


def read_direct(asked: AskedPrompt, reply: ModelReply) -> list[Row]:
    (question,) = asked.questions
    if reply.text is None:
        return [row_of(question, reply)]
    score = parse_answer(reply.text).score
    return [_scored(question, reply, score, f"no percentage alone: {reply.text[:200]!r}")]


def ask_gvl(questions: Sequence[Question]) -> list[AskedPrompt]:
    asked = []
    for run in runs_in_order(questions):
        if len(run) < 2:
            continue  # nothing to compare with
        first, shuffled = run[0], list(run)
        random.Random(first.key).shuffle(shuffled)
        parts = -(-len(run) // GVL_PICTURES)
        for part in (tuple(shuffled[k::parts]) for k in range(parts)):
            # The run's first picture to compare with, then the shuffled pictures to judge, numbered from 1
            frames = "\n".join(_wording("gvl_picture").format(number=n) for n in range(1, len(part) + 1))
            text = _wording("gvl").format(task=task_text(first.goal or None), count=len(part), frames=frames)
            pictures = (first.pictures[-1], *(q.pictures[-1] for q in part))
            asked.append(AskedPrompt(Prompt(part[0].key, text, pictures, seed=first.inference), part))
    return asked


def read_gvl(asked: AskedPrompt, reply: ModelReply) -> list[Row]:
    if reply.text is None:
        return [row_of(q, reply) for q in asked.questions]
    share_by_picture = {int(number): float(percent) / 100 for number, percent in PERCENT.findall(reply.text)}
    return [
        _scored(
            q,
            reply,
            share_by_picture.get(n),
            f"no percentage for picture {n} of {len(asked.questions)}: {reply.text[:200]!r}",
        )
        for n, q in enumerate(asked.questions, 1)
    ]


def ask_topreward(questions: Sequence[Question]) -> list[AskedPrompt]:
    asked = []
    for run in runs_in_order(questions):
        for k, q in enumerate(run):
            until = tuple(spread([x.pictures[-1] for x in run[: k + 1]], TOPREWARD_PICTURES))
            text = _wording("topreward").format(task=task_text(q.goal or None), frames=_marks(len(until)))
            asked.append(AskedPrompt(Prompt(q.key, text, until, words=("True", "False")), (q,)))
    return asked


def read_topreward(asked: AskedPrompt, reply: ModelReply) -> list[Row]:
    (question,) = asked.questions
    if reply.words is None:
        return [row_of(question, reply)]
    yes, no = reply.words["True"], reply.words["False"]
    score = yes / (yes + no) if yes + no > 0 else None
    return [_scored(question, reply, score, "neither True nor False is among the likeliest first words")]


METHODS = {
    m.name: m
    for m in (
        Method("question", own_question, as_said),
        Method("direct", ask_direct, read_direct),
        Method("gvl", ask_gvl, read_gvl),
        Method("topreward", ask_topreward, read_topreward),
    )
}
VLM_BASELINES = ("direct", "gvl", "topreward")


def _scored(question: Question, reply: ModelReply, score: float | None, why: str) -> Row:
    """A line with a number; with the reason where there is none in 0..1."""
    is_share = score is not None and 0 <= score <= 1
    scored = ModelReply(
        reply.key,
        progress=score if is_share else None,
        error=None if is_share else why,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
    )
    return row_of(question, scored) | {"response": reply.text or ""}


def _marks(count: int) -> str:
    return "\n".join([IMAGE_MARK] * count)


@cache
def _wording(name: str) -> str:
    return tomllib.loads((Path(__file__).parent / "wording.toml").read_text())[name].strip("\n")


# Answers collected into a prediction file, which survives kills

CODE_VERSION = "runners-2"  # 2: top_p, top_k, repetition_penalty and seed are part of what answers depend on
Shard = tuple[int, int]  # which, of how many


def of_shard(questions: Sequence[Question], shard: Shard) -> list[Question]:
    """The questions of one shard: whole runs, so that all that is asked about a run at once stays together.

    Runs are dealt in order of appearance; every question is in one shard.
    """
    number, count = shard
    runs: dict[tuple[str, str, str], int] = {}
    chosen = []
    for q in questions:
        run = runs.setdefault((q.part, q.dataset, q.trajectory), len(runs))
        if run % count == number:
            chosen.append(q)
    return chosen


def prompt_version(method: Method, questions: Sequence[Question]) -> str:
    """First 16 hex of a hash over all that is asked, word by word."""
    h = hashlib.sha256()
    for asked in method.ask(questions):
        system = f"{asked.prompt.system}\0" if asked.prompt.system else ""
        h.update(f"{asked.prompt.key}\0{asked.prompt.text}\0{system}".encode())
    return h.hexdigest()[:16]


def run_settings(
    runner: Runner, model: str, method: Method, questions: Sequence[Question], **more: object
) -> dict[str, Any]:
    """All that the answers depend on: for the journal and for eval_runs. `more`: how the questions were chosen."""
    keys = hashlib.sha256(json.dumps([q.key for q in questions]).encode()).hexdigest()[:16]
    return {
        "model": model,
        "method": method.name,
        "prompt_version": prompt_version(method, questions),
        "questions": len(questions),
        "question_keys": keys,
        "code_version": CODE_VERSION,
        **more,
        **runner.settings,
    }


def collect(
    runner: Runner,
    method: Method,
    questions: Sequence[Question],
    out: Path,
    settings: Mapping[str, Any],
    shard: Shard = (0, 1),
    on_rows: Callable[[int], None] = lambda count: None,
) -> list[Row] | None:
    """Ask what `out` does not hold yet; all rows in the order of the questions, or None while other shards are at work.

    `on_rows` is told how many questions of this shard have an answer. Raises UnansweredError when nothing was,
    UserError when `out` is another run's; what a runner raises.
    """
    with Journal(part_path(out, shard), settings) as journal:
        every = method.ask(of_shard(questions, shard))
        asked = {a.prompt.key: a for a in every if any(q.key not in journal.rows for q in a.questions)}
        on_rows(len(journal.rows))
        for reply in runner.answer([a.prompt for a in asked.values()]):
            journal.add(method.read(asked[reply.key], reply))
            on_rows(len(journal.rows))
        # Single failures stay in the file and are tried again by the next run; all of them mean that nothing works.
        failures = [row["error"] for row in journal.rows.values() if has_failed(row)]
        if failures and len(failures) == len(journal.rows):
            raise UnansweredError(f"none of {len(failures)} questions was answered; the first: {failures[0]}")
    # Of all shards, so that whichever process ends last puts the parts together.
    all_keys = [q.key for a in method.ask(questions) for q in a.questions]
    return merged(out, shard[1], all_keys, settings)

"""Answers of a model to a benchmark's questions, collected into a prediction file that survives kills."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.benchmarks.question import Question
from eval.runners.journal import Journal, Row, has_failed, merged, part_path
from eval.runners.methods import AskedPrompt, Method
from eval.runners.prompt import Runner, UnansweredError

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
        asked = _unanswered(method, of_shard(questions, shard), journal)
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


def _unanswered(method: Method, questions: Sequence[Question], journal: Journal) -> dict[str, AskedPrompt]:
    """The prompts, by key, that stand for any question without an answer."""
    unanswered = {}
    for asked in method.ask(questions):
        if any(q.key not in journal.rows for q in asked.questions):
            unanswered[asked.prompt.key] = asked
    return unanswered

"""Ways to get progress out of a model: the benchmark's own question, and three that need no demonstration.

direct     each state alone: how many per cent are done?
gvl        all states of a run at once, in a random order (Generative Value Learning, arXiv 2411.04549)
topreward  p(True) / (p(True) + p(False)) that the task is complete (TOPReward, arXiv 2602.19313), not scaled by run

Answers go into a prediction file as they come, a line each. What is there is not asked again. Beside them stand the
baselines that ask no model.
"""

import hashlib
import json
import os
import random
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import batched, chain
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from filelock import FileLock, Timeout

from annotate.samples.procvqa import task_text
from annotate.samples.wording import parse_answer
from core.errors import UserError
from core.files import write_file
from core.values import grouped, image_marks, short_hash, spread
from eval.benchmarks.question import (
    DEMONSTRATED,
    FRAMES_OF_A_RUN,
    BenchmarkError,
    PictureFile,
    Question,
    frame_number,
    runs_in_order,
)
from eval.runners.prompt import ModelReply, Prompt, Runner, UnansweredError

Row = dict[str, Any]


def run_hash(settings: Mapping[str, Any]) -> str:
    """First 16 hex of a hash over all that answers depend on."""
    return short_hash(json.dumps(settings, sort_keys=True))


class Journal:
    """One prediction file while it is written; `rows`: by key of the question."""

    def __init__(self, run: str, rows: dict[str, Row], file: IO[bytes]) -> None:
        self.run = run
        self.rows = rows
        self._file = file

    def add(self, rows: Iterable[Row]) -> None:
        """On disk, also after a power cut, when this returns."""
        rows = [row | {"run": self.run} for row in rows]
        self._file.write(b"".join(map(row_as_line, rows)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows.update((key_of(row), row) for row in rows)


@contextmanager
def journal_at(path: Path, settings: Mapping[str, Any]) -> Iterator[Journal]:
    """For one process. Takes away a line that a kill cut off, and failures, which are to be tried again. Raises
    UserError for a file of another run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    run = run_hash(settings)
    with ExitStack() as stack:
        try:
            # Two processes on one file would ask all questions twice and mix up their lines.
            stack.enter_context(FileLock(f"{path}.lock").acquire(timeout=0))
        except Timeout:
            raise UserError(
                f"{path} is being written by another process: wait for it, or give another --out"
            ) from None
        data = path.read_bytes() if path.exists() else b""
        rows = read_rows(path, data)
        # Answers of two models in one file would be scored as those of one.
        if any(row.get("run") != run for row in rows):
            raise UserError(
                f"{path} holds answers of another model or other settings (see {path.name}.run.json beside it): give "
                "another --out, or delete it"
            )
        answers = {key_of(row): row for row in rows if not has_failed(row)}
        # Written anew only where a cut line or a failure was taken away.
        if (answered := b"".join(map(row_as_line, answers.values()))) != data:
            write_file(path, answered)
        # Lines have a hash of the settings alone; these are the settings, for people.
        write_file(path.with_name(f"{path.name}.run.json"), json.dumps(settings, indent=1).encode())
        yield Journal(run, answers, stack.enter_context(path.open("ab")))


def key_of(row: Row) -> str:
    """Of the question that a line answers."""
    return row["meta_data"]["key"]


def has_failed(row: Row) -> bool:
    """Nothing was said; an answer that cannot be read is an answer."""
    return "error" in row and not row["response"]


def row_of(question: Question, reply: ModelReply) -> Row:
    """A reply as a line of a prediction file."""
    row = {"meta_data": question.meta_data(), "response": reply.text or ""}
    optional = {
        "error": reply.error,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "value": reply.progress,
        "done": reply.done,
    }
    return row | {name: value for name, value in optional.items() if value is not None}


def row_as_line(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_rows(path: Path, data: bytes) -> list[Row]:
    """The rows of a journal's bytes; a last line that a kill cut off is no row. Raises UserError."""
    *whole, _ = data.split(b"\n")
    rows = []
    for number, text in enumerate(whole, 1):
        try:
            row = json.loads(text)
            # Whatever has no key is no line of ours, though it may be JSON.
            key_of(row)
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{path} line {number} is no line of a prediction file of `eval`: move it away"
            ) from None
        rows.append(row)
    return rows


def part_path(out: Path, shard: tuple[int, int]) -> Path:
    """Where one of several processes writes; the whole file where there is one."""
    k, n = shard
    if n == 1:
        return out
    return out.with_name(f"{out.name}.{k}-of-{n}")


def merged_rows(
    out: Path, count: int, keys: Sequence[str], settings: Mapping[str, Any]
) -> list[Row] | None:
    """The rows of all parts in the order of `keys`, written to `out` as one file; None while some are missing.

    Whichever process ends last finds all; that two find all does no harm, they write equal bytes.
    """
    run = run_hash(settings)
    row_by_key: dict[str, Row] = {}
    for k in range(count):
        path = part_path(out, (k, count))
        rows_of_part = read_rows(path, path.read_bytes()) if path.exists() else []
        # A part may be left from an older run with other settings.
        row_by_key |= {key_of(row): row for row in rows_of_part if row["run"] == run}
    if any(key not in row_by_key for key in keys):
        return None
    rows = [row_by_key[key] for key in keys]
    # Answers come in any order; files are compared and scored in one
    write_file(out, b"".join(map(row_as_line, rows)))
    return rows


GVL_PICTURES = 30  # in one prompt; longer runs are asked in several, each shuffled
TOPREWARD_PICTURES = 8  # evenly over the run so far
PERCENT = re.compile(r"Picture\s+(\d+)\D{0,3}?\s*(\d+(?:\.\d+)?)\s*%")


@dataclass(frozen=True)
class AskedPrompt:
    """A prompt, and the questions that its reply answers."""

    prompt: Prompt
    questions: tuple[Question, ...]

    @property
    def keys(self) -> list[str]:
        return [question.key for question in self.questions]


@dataclass(frozen=True)
class Method:
    """`ask`: prompts for some questions. `shares`: of each of a number of questions that a reply answers the share of
    the task, and why there is none where it is not in 0..1; without it a reply is kept as it was said."""

    name: str
    ask: Callable[[Sequence[Question]], Iterable[AskedPrompt]]
    shares: Callable[[ModelReply, int], list[tuple[float | None, str]]] | None = None

    def read(self, prompt: AskedPrompt, reply: ModelReply) -> list[Row]:
        """A line for each question that a prompt stands for."""
        if self.shares is None or (reply.text is None and reply.words is None):
            return [row_of(q, reply) for q in prompt.questions]
        rows = []
        for q, (share, error) in zip(
            prompt.questions, self.shares(reply, len(prompt.questions)), strict=True
        ):
            if share is not None and 0 <= share <= 1:
                fields = {"progress": share}
            else:
                fields = {"error": error}
            rows.append(
                row_of(q, replace(reply, text=None, **fields)) | {"response": reply.text or ""}
            )
        return rows


def ask_direct(questions: Sequence[Question]) -> Iterator[AskedPrompt]:
    for q in (q for q in questions if q.moment is not None):
        pictures = q.pictures if q.family in FRAMES_OF_A_RUN else q.pictures[-1:]
        text = _wording("direct").format(
            task=task_text(q.goal or None), frames=image_marks(len(pictures))
        )
        yield AskedPrompt(Prompt(q.key, text, pictures, seed=q.inference), (q,))


def shares_of_direct(reply: ModelReply, _: int) -> list[tuple[float | None, str]]:
    text = reply.text or ""
    return [(parse_answer(text).score, f"no percentage alone: {text[:200]!r}")]


def ask_gvl(questions: Sequence[Question]) -> Iterator[AskedPrompt]:
    for run in runs_in_order(questions):
        if len(run) < 2:
            continue  # nothing to compare with
        first = run[0]
        shuffled = list(run)
        random.Random(first.key).shuffle(shuffled)
        parts = -(-len(run) // GVL_PICTURES)
        for part in (tuple(shuffled[k::parts]) for k in range(parts)):
            # The run's first picture to compare with, then the shuffled pictures to judge, numbered from 1
            frames = "\n".join(
                _wording("gvl_picture").format(number=n) for n in range(1, len(part) + 1)
            )
            text = _wording("gvl").format(
                task=task_text(first.goal or None), count=len(part), frames=frames
            )
            pictures = (first.pictures[-1], *(q.pictures[-1] for q in part))
            yield AskedPrompt(Prompt(part[0].key, text, pictures, seed=first.inference), part)


def shares_of_gvl(reply: ModelReply, count: int) -> list[tuple[float | None, str]]:
    text = reply.text or ""
    shares = {int(number): float(percent) / 100 for number, percent in PERCENT.findall(text)}
    return [
        (shares.get(n), f"no percentage for picture {n} of {count}: {text[:200]!r}")
        for n in range(1, count + 1)
    ]


def ask_topreward(questions: Sequence[Question]) -> Iterator[AskedPrompt]:
    for run in runs_in_order(questions):
        for k, q in enumerate(run):
            until = tuple(spread([x.pictures[-1] for x in run[: k + 1]], TOPREWARD_PICTURES))
            text = _wording("topreward").format(
                task=task_text(q.goal or None), frames=image_marks(len(until))
            )
            yield AskedPrompt(Prompt(q.key, text, until, words=("True", "False")), (q,))


def shares_of_topreward(reply: ModelReply, _: int) -> list[tuple[float | None, str]]:
    yes, no = ((reply.words or {})[word] for word in ("True", "False"))
    share = yes / (yes + no) if yes + no > 0 else None
    return [(share, "neither True nor False is among the likeliest first words")]


_METHODS = (
    Method("question", lambda questions: [AskedPrompt(Prompt.of(q), (q,)) for q in questions]),
    Method("direct", ask_direct, shares_of_direct),
    Method("gvl", ask_gvl, shares_of_gvl),
    Method("topreward", ask_topreward, shares_of_topreward),
)
METHODS = {method.name: method for method in _METHODS}
VLM_BASELINES = ("direct", "gvl", "topreward")


@cache
def _wording(name: str) -> str:
    return tomllib.loads((Path(__file__).parent / "wording.toml").read_text())[name].strip("\n")


# Answers collected into a prediction file, which survives kills

# 2: top_p, top_k, repetition_penalty and seed are part of what answers depend on
CODE_VERSION = "runners-2"
Shard = tuple[int, int]  # which, of how many
# Answers that are written together, of a head and of others
AT_ONCE = {True: 64, False: 1}


def questions_of_shard(questions: Sequence[Question], shard: Shard) -> list[Question]:
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
    for asked_prompt in method.ask(questions):
        system = f"{asked_prompt.prompt.system}\0" if asked_prompt.prompt.system else ""
        h.update(f"{asked_prompt.prompt.key}\0{asked_prompt.prompt.text}\0{system}".encode())
    return h.hexdigest()[:16]


def run_settings(
    runner: Runner,
    model: str,
    method: Method,
    questions: Sequence[Question],
    **other_settings: object,
) -> dict[str, Any]:
    """All that the answers depend on: for the journal and for eval_runs. `other_settings`: how the questions were
    chosen."""
    keys = short_hash(json.dumps([q.key for q in questions]))
    return {
        "model": model,
        "method": method.name,
        "prompt_version": prompt_version(method, questions),
        "questions": len(questions),
        "question_keys": keys,
        "code_version": CODE_VERSION,
        **other_settings,
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
    with journal_at(part_path(out, shard), settings) as journal:
        shard_prompts = method.ask(questions_of_shard(questions, shard))
        open_prompts = {
            a.prompt.key: a for a in shard_prompts if not journal.rows.keys() >= {*a.keys}
        }
        on_rows(len(journal.rows))
        replies = runner.answer([a.prompt for a in open_prompts.values()])
        # What a head says costs little: less than to have each answer on disk before the next
        for batch in batched(replies, AT_ONCE[runner.has_head]):
            rows = (method.read(open_prompts[reply.key], reply) for reply in batch)
            journal.add(chain.from_iterable(rows))
            on_rows(len(journal.rows))
        # Single failures stay in the file and are tried again by the next run; all of them mean that nothing works.
        failures = [row["error"] for row in journal.rows.values() if has_failed(row)]
        if failures and len(failures) == len(journal.rows):
            raise UnansweredError(
                f"none of {len(failures)} questions was answered; the first: {failures[0]}"
            )
    # Of all shards, so that whichever process ends last puts the parts together.
    all_keys = [*chain.from_iterable(prompt.keys for prompt in method.ask(questions))]
    return merged_rows(out, shard[1], all_keys, settings)


# Baselines without a model on a benchmark's questions: what one gets without looking, or by looking at pixels only.
# Each gives 0..1 by question key, NaN where a picture cannot be read, and leaves out what it is not defined for. None
# of them ever says n/a

GRID = 64
PICTURE_PX = 256  # of pictures that are compared
# By the task's mean length, by that of its references
RUNNING = "running clock"
REFERENCE = "reference clock"
Values = dict[str, float]
Goals = Mapping[tuple[str, str], PictureFile]  # by dataset and task: how a run that succeeded ended


def luma_grid(rgb: np.ndarray) -> np.ndarray:
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return cv2.resize(luma, (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float32)


def nearness(current: np.ndarray, first: np.ndarray, goal: np.ndarray) -> float:
    """1 - distance of a picture to the goal over the first one's distance to it, clipped to 0..1; NaN where one is.

    Pictures are luma on a 64x64 grid, and distance is their mean absolute difference.
    """
    far = max(float(np.abs(first - goal).mean()), 1e-6)
    return float(np.clip(1 - float(np.abs(current - goal).mean()) / far, 0, 1))


def best_constant(targets: np.ndarray) -> float:
    """The constant with the least mean absolute error on these very labels: no constant does
    better."""
    return float(np.median(targets))


def clock_answers(questions: Sequence[Question]) -> Values:
    """Frame number over the last one known of the run: order without understanding. It knows the length."""
    ends = _last_frame_by_run(questions)
    return {
        q.key: q.moment / ends[_run_of(q)]
        for q in questions
        if q.moment is not None and ends[_run_of(q)] > 0
    }


def timed_answers(questions: Sequence[Question], name: str) -> Values:
    """Seconds over the mean length of the runs by which a clock of that name goes, where a
    question's facts have it."""
    return {
        q.key: min(1.0, (q.frame_index or 0) / q.row["fps"] / length_s)
        for q in questions
        if (length_s := q.facts.get("lengths", {}).get(name))
    }


def running_clock_answers(questions: Sequence[Question]) -> Values:
    """Frame number over the mean of the last ones of the task's other runs, at most 1."""
    if any("lengths" in q.facts for q in questions):
        return timed_answers(questions, RUNNING)
    ends = _last_frame_by_run(questions)
    goals = {_run_of(q): q.goal for q in questions}
    of_task = grouped(((*run[:2], goals[run]), end) for run, end in ends.items())
    shares = {}
    for q in questions:
        task_ends = of_task.get((q.part, q.dataset, goals[_run_of(q)]), ())
        if q.moment is not None and (other_ends := sum(task_ends) - ends[_run_of(q)]) > 0:
            shares[q.key] = min(1.0, q.moment * (len(task_ends) - 1) / other_ends)
    return shares


def _run_of(q: Question) -> tuple[str, str, str]:
    return q.part, q.dataset, q.trajectory


def _last_frame_by_run(questions: Sequence[Question]) -> dict[tuple[str, str, str], int]:
    """The last frame that is known of each run."""
    ends: dict[tuple[str, str, str], int] = {}
    for q in questions:
        if q.moment is not None:
            # As a question tells it: by the run's length, else by the names of the demonstration
            if q.family in DEMONSTRATED and q.num_frames is None:
                demonstration = q.pictures[:-1]
            else:
                demonstration = ()
            frame_numbers = [frame_number(picture) or 0 for picture in demonstration]
            ends[_run_of(q)] = max(
                ends.get(_run_of(q), 0), q.moment, (q.num_frames or 1) - 1, *frame_numbers
            )
    return ends


def random_answers(questions: Sequence[Question]) -> Values:
    """A number drawn by the question's key: the same in every run."""
    return {
        q.key: int(hashlib.sha256(q.key.encode()).hexdigest()[:13], 16) / 16**13
        for q in questions
        if q.moment is not None
    }


def best_constant_answers(questions: Sequence[Question]) -> Values:
    """The constant with the least mean absolute error on these very labels."""
    labels = [q.progress for q in questions if q.progress is not None and q.is_scored]
    if not labels:
        return {}
    value = best_constant(np.array(labels))
    return {q.key: value for q in questions if q.moment is not None}


def nearness_to_last_frame(questions: Sequence[Question]) -> Values:
    """1 - distance of the state to the run's last known picture over the first one's, clipped. It sees the end."""
    shares = {}
    for run in runs_in_order(questions):
        if len({q.moment for q in run}) > 1:
            shares |= _nearness(run, run[0].pictures[-1], run[-1].pictures[-1])
    return shares


def nearness_to_goal(questions: Sequence[Question], goals: Goals) -> Values:
    """As nearness_to_last_frame, but nearness to the demonstration's last picture, or to how another run of the task
    ended that succeeded."""
    shares = {}
    for run in runs_in_order(questions):
        q = run[0]
        has_demonstration = q.family in DEMONSTRATED and not q.steps
        goal = q.pictures[-2] if has_demonstration else goals.get((q.dataset, q.goal))
        if goal is not None:
            shares |= _nearness(run, q.pictures[0] if has_demonstration else q.pictures[-1], goal)
    return shares


def weightless_answers(questions: Sequence[Question], goals: Goals) -> dict[str, Values]:
    """All that are defined for any of the questions, by name."""
    baselines: dict[str, Callable[[Sequence[Question]], Values]] = {
        "clock": clock_answers,
        RUNNING: running_clock_answers,
        REFERENCE: lambda q: timed_answers(q, REFERENCE),
        "random": random_answers,
        "best constant": best_constant_answers,
        "visual distance": nearness_to_last_frame,
        "goal image": lambda q: nearness_to_goal(q, goals),
        "the label itself": lambda q: {x.key: x.facts["label"] for x in q if "label" in x.facts},
    }
    values_by_name = {name: baseline(questions) for name, baseline in baselines.items()}
    return {name: values for name, values in values_by_name.items() if values}


def _nearness(run: Sequence[Question], first: PictureFile, goal: PictureFile) -> Values:
    start_grid = _grid(first)
    end = _grid(goal)
    return {q.key: nearness(_grid(q.pictures[-1]), start_grid, end) for q in run}


@lru_cache(maxsize=4096)
def _grid(picture: PictureFile) -> np.ndarray:
    """NaN where it cannot be read."""
    try:
        return luma_grid(picture.rgb(PICTURE_PX))
    except BenchmarkError:
        return np.full((GRID, GRID), np.nan, np.float32)

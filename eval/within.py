"""Evaluation within a training run: its held-out episodes, the scorer that training asks between its steps, and the
calibration of what it made."""

import gc
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.logs import TOLD
from core.values import grouped, spread
from eval.benchmarks.held_out import VALIDATION, episode_questions, thinned
from eval.benchmarks.options import HELD_OUT
from eval.benchmarks.procvqa import ALL_MOMENTS, SampleChoice
from eval.benchmarks.question import PictureFile, PredictionLine, Question, score_of, share_of
from eval.metrics.score import scores
from eval.reward.scorer import Success, calibrate
from eval.runners.checkpoint import BATCH, open_local
from eval.runners.prompt import ModelReply, Prompt, Runner, UnansweredError
from eval.runners.start import RunnerConfig, local_runner
from eval.scored import BenchmarkAnswers, progress_measures
from training.data import form_name
from training.folder import TrainingError, read_card, write_card
from training.progresslm_data import read_rows
from training.recipe import Recipe
from warehouse.lake import Lake
from warehouse.releases.release import Release

METRICS = ("mae", "voc", "coverage")


def scorer_of(lake: Lake, release: Release, recipe: Recipe) -> "HeldOutScorer | None":
    """The scorer on the split val, or on the files data.validation_jsonl; None if the recipe evaluates nothing.

    Raises TrainingError where there is nothing to evaluate on; ShardError.
    """
    data = recipe.data
    if not recipe.train.evaluate_every:
        return None
    if data.validation_jsonl:
        questions = row_questions(recipe)
        source = ", ".join(map(str, data.validation_jsonl))
    else:
        questions = episode_questions(lake, release, (VALIDATION,), choice=sample_choice(recipe))
        source = f"the split {VALIDATION} of the release {release.name}"
    if not questions:
        raise TrainingError(
            f"train.evaluate_every: {source} has no episode with a label of progress; add some, or set it to 0"
        )
    return HeldOutScorer(questions)


def sample_choice(recipe: Recipe) -> SampleChoice:
    """As `proccorpus eval`, a moment's progress; of a recipe that does not train on that, what it trains on."""
    data = recipe.data
    max_episodes = recipe.train.evaluate_episodes
    if ALL_MOMENTS.families <= data.families.keys():
        return SampleChoice(most=max_episodes)
    form = None if data.think is None else form_name(data.think)
    return SampleChoice(frozenset(data.families), form, max_episodes)


def row_questions(recipe: Recipe) -> list[Question]:
    """Rows of files, run by run, in order of their labels: those whose last pictures lie in one folder are of one run.

    Rows without a label of progress are left out. Raises TrainingError.
    """
    data = recipe.data
    rows = read_rows(
        data.validation_jsonl,
        data.image_root,
        form_name(bool(data.think)),
    )
    questions = []
    for number, run in spread(list(enumerate(rows.runs())), recipe.train.evaluate_episodes):
        in_order = sorted(run, key=lambda k: rows.row(k)["progress"])
        questions += [
            _question(number, moment, rows.row(k), rows.pictures(k))
            for moment, k in enumerate(in_order)
        ]
    return questions


def _question(run: int, moment: int, row: dict[str, Any], pictures: Sequence[Path]) -> Question:
    return Question(
        benchmark="rows",
        part=row["form"],
        family="rows",
        trajectory=str(run),
        dataset="rows",
        camera="",
        goal="",
        text=row["question"],
        pictures=tuple(map(PictureFile, pictures)),
        progress=row["progress"],
        frame_index=moment,
        row={"run": run, "moment": moment},
        unit=("rows", str(run)),
    )


def read_progress(text: str) -> float | None:
    """The progress in an answer in words, in any form that training teaches; None where it has none."""
    if "<progress>" in text:
        return share_of(text)
    return score_of(text)


def predict(
    runner: Runner,
    questions: Sequence[Question],
    read: Callable[[str], float | None] = share_of,
    step: str = "scoring",
) -> BenchmarkAnswers:
    """What a model answers to questions. `read`: the progress in words; `step`: what is told while it runs. Raises
    UnansweredError where it answers nothing."""
    prompts = list(map(Prompt.of, questions))
    replies: dict[str, ModelReply] = {}
    for k, reply in enumerate(runner.answer(prompts), 1):
        TOLD.get()(step, k, len(prompts), "moments")
        replies[reply.key] = reply
    unanswered = [r for r in replies.values() if r.text is None and r.progress is None]
    if prompts and len(unanswered) == len(prompts):
        raise UnansweredError(
            f"none of {len(prompts)} moments was answered; the first: {unanswered[0].error}"
        )
    in_order = [replies.get(q.key, ModelReply(q.key)) for q in questions]
    values = [read(r.text or "") if r.progress is None else r.progress for r in in_order]
    lines = [PredictionLine(r.key, {}, done=r.done) for r in in_order]
    return BenchmarkAnswers.by_values(HELD_OUT, questions, np.array(values, np.float64), lines)


class HeldOutScorer:
    """A training.checkpoint.CheckpointScorer, by the runner and the measures of `proccorpus eval`."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.episodes = list(grouped((q.unit, q) for q in questions).values())

    def predict(self, folder: Path, part: int, parts: int) -> list[list[float]]:
        """Progress at each moment of episodes part, part + parts ...; NaN where the model gave none."""
        mine = self.episodes[part::parts]
        if not mine:
            return []
        runner = local_runner(RunnerConfig(str(folder)), folder)
        answers = iter(predict(runner, list(chain(*mine)), read_progress).values.tolist())
        # Its memory is training's again.
        del runner
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return [[next(answers) for _ in episode] for episode in mine]

    def scores(self, predicted: Sequence[list[list[float]]]) -> dict[str, float]:
        """The metrics over all episodes; one that is not defined on any of them is left out."""
        parts = len(predicted)
        values = [predicted[k % parts][k // parts] for k in range(len(self.episodes))]
        questions = list(chain(*self.episodes))
        answers = BenchmarkAnswers.by_values(HELD_OUT, questions, np.array(list(chain(*values))))
        measured = scores(progress_measures(answers.series))
        chosen = {name: float(measured[name].value) for name in METRICS}
        return {name: value for name, value in chosen.items() if not np.isnan(value)}


def calibrate_checkpoint(
    lake: Lake, release: Release, folder: Path, *, words: bool = False
) -> Success | None:
    """Calibrate from which output on a run counts as done, on a release's validation episodes, into the model's card.

    By the head's own output where it has one; of other heads, and of answers in words, by progress. Answers that cannot
    be read are left out. None where there is nothing to calibrate by: no moment at the end state, or no other. A model
    without a head answers each moment in words, which is slow, and is calibrated with `words` only. Raises ModelError,
    ShardError.
    """
    card = read_card(folder)
    answers_in_words = card.get("head", True) is None
    if (answers_in_words and not words) or not release.paths(lake.workspace, VALIDATION):
        return None
    questions = thinned(episode_questions(lake, release, (VALIDATION,)))
    if not questions:
        return None
    try:
        answers = predict(open_local(folder, BATCH), questions, step="calibration")
    except UnansweredError:
        return None
    raw_scores = answers.success_scores
    is_answered = ~np.isnan(raw_scores)
    at_end = answers.column("progress") >= 1
    has_done = any(line.done is not None for line in answers.lines)
    success = calibrate(
        raw_scores[is_answered],
        at_end[is_answered],
        "done" if has_done else "progress",
        release.name,
        VALIDATION,
    )
    if success is not None:
        write_card(folder, card | {"success": success.as_json()})
    return success

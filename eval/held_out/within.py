"""Evaluation within a training run: its held-out episodes, and the scorer that training asks between its steps."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.domain.episode import Episode
from core.values import spread
from eval.benchmarks.procvqa import ALL_MOMENTS, SampleChoice
from eval.benchmarks.question import PictureFile, Question, score_of, share_of
from eval.held_out.episodes import EpisodeQuestions, held_out
from eval.held_out.evaluate import evaluate, predict, predictor_of
from eval.runners.start import RunnerConfig, local_runner
from eval.scored import ALL
from training.data import form_name
from training.folder import TrainingError
from training.progresslm_data import read_rows
from training.recipe import Recipe
from warehouse.lake import Lake
from warehouse.releases.release import Release

SPLIT = "val"
METRICS = ("mae", "voc", "coverage")


def scorer_of(lake: Lake, release: Release, recipe: Recipe) -> "HeldOutScorer | None":
    """The scorer on the split val, or on the files data.validation_jsonl; None if the recipe evaluates nothing.

    Raises TrainingError where there is nothing to evaluate on; ShardError.
    """
    data = recipe.data
    if not recipe.train.evaluate_every:
        return None
    if data.validation_jsonl:
        episodes = row_episodes(recipe)
        source = ", ".join(map(str, data.validation_jsonl))
    else:
        episodes = held_out(lake, release, (SPLIT,), choice=sample_choice(recipe))
        source = f"the split {SPLIT} of the release {release.name}"
    if not episodes:
        raise TrainingError(
            f"train.evaluate_every: {source} has no episode with a label of progress; add some, or set it to 0"
        )
    return HeldOutScorer(episodes)


def sample_choice(recipe: Recipe) -> SampleChoice:
    """As `proccorpus eval`, a moment's progress; of a recipe that does not train on that, what it trains on."""
    data = recipe.data
    max_episodes = recipe.train.evaluate_episodes
    if ALL_MOMENTS.families <= data.families.keys():
        return SampleChoice(most=max_episodes)
    form = None if data.think is None else form_name(data.think)
    return SampleChoice(frozenset(data.families), form, max_episodes)


def row_episodes(recipe: Recipe) -> list[EpisodeQuestions]:
    """Rows of files as episodes, in order of their labels: those whose last pictures lie in one folder are of one run.

    Rows without a label of progress are left out. Raises TrainingError.
    """
    data = recipe.data
    rows = read_rows(
        data.validation_jsonl,
        data.image_root,
        form_name(bool(data.think)),
    )
    episodes = []
    for number, run in spread(list(enumerate(rows.runs())), recipe.train.evaluate_episodes):
        in_order = sorted(run, key=lambda k: rows.row(k)["progress"])
        questions = tuple(_question(number, rows.row(k), rows.pictures(k)) for k in in_order)
        label = np.array([q.progress for q in questions], np.float64)
        count = len(questions)
        episodes.append(
            EpisodeQuestions(
                Episode("rows", number, 0, 1.0, count, None, None, SPLIT, ()),
                questions,
                np.arange(count),
                label,
            )
        )
    return episodes


def _question(run: int, row: dict[str, Any], pictures: Sequence[Path]) -> Question:
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
    )


def read_progress(text: str) -> float | None:
    """The progress in an answer in words, in any form that training teaches; None where it has none."""
    if "<progress>" in text:
        return share_of(text)
    return score_of(text)


class HeldOutScorer:
    """A training.checkpoint.CheckpointScorer, by the runner and the measures of `proccorpus eval`."""

    def __init__(self, episodes: Sequence[EpisodeQuestions]) -> None:
        self.episodes = episodes

    def predict(self, folder: Path, part: int, parts: int) -> list[list[float]]:
        """Progress at each moment of episodes part, part + parts ...; NaN where the model gave none."""
        mine = self.episodes[part::parts]
        if not mine:
            return []
        runner = local_runner(RunnerConfig(str(folder)), folder)
        progress, _ = predict(runner, mine, read_progress)
        # Its memory is training's again.
        del runner
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return [progress[e.key].tolist() for e in mine]

    def scores(self, predicted: Sequence[list[list[float]]]) -> dict[str, float]:
        """The metrics over all episodes; one that is not defined on any of them is left out."""
        parts = len(predicted)
        answers = {
            e.key: np.array(predicted[k % parts][k // parts]) for k, e in enumerate(self.episodes)
        }
        scored = evaluate(
            "training",
            "held-out",
            self.episodes,
            predictor_of(answers),
        )
        values = {name: float(scored.scores[ALL, name].value) for name in METRICS}
        return {name: value for name, value in values.items() if not np.isnan(value)}

"""Fits a laptop model to the runs of a release: all pictures once through the encoder, then steps on their numbers."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from annotate.embeddings.encoders import Encoder, load_encoder
from annotate.embeddings.networks import one_thread
from training.errors import TrainingError
from training.laptop.clips import ClipSource
from training.laptop.config import LaptopConfig, PreferencesConfig
from training.laptop.layout import NO_STATE
from training.laptop.model import LaptopModel, laptop_loss, load_laptop
from training.laptop.pairs import PairSource, learn_preferences
from training.laptop.runs import Run, encoder_width, episode_run, read_runs, state_lengths
from training.laptop.sentences import open_sentences
from training.loop import Point, share_of_rate
from training.recipe import Recipe
from warehouse.lake import Lake
from warehouse.lake.compared import run_facts
from warehouse.lake.sql import open_for_users
from warehouse.releases import Release, find_release
from warehouse.shards import Sample

MOST_COMPARED = 50_000  # pictures by which it is told what is strange
ADAPTED_PAIRS = PreferencesConfig(further=0.1)  # of one episode: it has no other run to compare its outcome with


@dataclass(frozen=True)
class Fitted:
    """`samples`: windows that were shown; `made`: how many of each kind, negatives among them; `pairs`: of runs, by
    why one is preferred; `stored_runs`: whose numbers are the lake's. cpu_s: of the process, for the encoder and for
    the steps."""

    model: LaptopModel
    encoder: Encoder
    curve: tuple[Point, ...]
    samples: int
    made: Mapping[str, int]
    pairs: Mapping[str, int]
    runs: int
    stored_runs: int
    pictures: int
    cpu_s: Mapping[str, float]


def fit(lake: Lake, release: Release, recipe: Recipe, on_step: Callable[[Point], None]) -> Fitted:
    """Raises TrainingError, EncoderError or ShardError."""
    config, train = recipe.model.laptop, recipe.train
    assert config is not None, "a recipe of another kind"
    started = time.process_time()
    encoder, sentences = load_encoder(config.embeddings), open_sentences(config)
    runs = read_runs(lake, release, release.paths(lake.workspace, "train"), encoder, config, train.seed)
    if not runs:
        raise TrainingError(f"release {release.name} has no samples of progress in its train split")
    looked = time.process_time()
    torch.manual_seed(train.seed)
    frames = min(config.most_frames, max(run.shown for run in runs))
    width, states = encoder_width(runs, config), state_lengths(runs) if config.state else NO_STATE
    model = LaptopModel(config, width, frames, sentences, states)
    runs = _laid_out(runs, model, release.name)
    model.normalise_by(np.concatenate([run.moments(0) for run in runs]))
    model.learn_the_familiar(*_some_pictures(runs))
    model.to("cuda" if torch.cuda.is_available() else "cpu").train()
    source = ClipSource(runs, frames, recipe.data.negatives, train.seed, model.layout)
    pairs = None
    if config.preference:
        facts = run_facts(open_for_users(lake.workspace, release.snapshot))
        pairs = PairSource(runs, facts, frames, recipe.data.preferences, train.seed)
    return _learn(model, encoder, source, pairs, recipe, on_step, started, looked)


def fit_to_episode(
    lake: Lake, folder: Path, samples: Sequence[Sample], recipe: Recipe, on_step: Callable[[Point], None]
) -> Fitted:
    """Go on with the laptop model of a folder on samples of one episode's progress, whose scene is strange no more.

    Where the lake still has the release that the model learnt from, every other clip is of its runs, so that they are
    not forgotten. Raises ModelError, EncoderError, ShardError, TrainingError.
    """
    train = recipe.train
    started = time.process_time()
    model, encoder, card = load_laptop(folder)
    run = replace(episode_run(lake, samples, encoder, model.config, train.seed), layout=model.layout)
    known = [replace(r, layout=model.layout) for r in _learnt_runs(lake, card, encoder, model.config, train.seed)]
    looked = time.process_time()
    torch.manual_seed(train.seed)
    model.widen_the_familiar(np.concatenate([run.moments(view) for view in range(len(run.numbers))]))
    model.to("cuda" if torch.cuda.is_available() else "cpu").train()
    source = ClipSource(
        [run] * max(1, len(known)) + known, model.frames, recipe.data.negatives, train.seed, model.layout
    )
    pairs = None
    if model.config.preference:
        pairs = PairSource([run, *known], {}, model.frames, ADAPTED_PAIRS, train.seed)
    return _learn(model, encoder, source, pairs, recipe, on_step, started, looked)


def _laid_out(runs: Sequence[Run], model: LaptopModel, release: str) -> list[Run]:
    """Runs as a model of several cameras, or of states, is shown them. Raises TrainingError: a camera was never seen,
    or no run has a state."""
    config = model.config
    if config.state and not model.layout.states:
        raise TrainingError(f"model.laptop.state: no run of release {release} has a state in the lake: leave it out")
    laid = [replace(run, layout=model.layout) for run in runs]
    for camera, numbers in zip(config.cameras, range(0, model.layout.pictures, model.layout.picture), strict=False):
        if all(np.isnan(run.numbers[0, :, numbers]).all() for run in runs):
            raise TrainingError(
                f"model.laptop.cameras: the lake has nothing that {camera} showed to this encoder in {release}: name "
                "both under the dataset's cameras, build with embeddings: {when: always}, and freeze a release of that"
            )
    return laid


def _learnt_runs(lake: Lake, card: Mapping[str, Any], encoder: Encoder, config: LaptopConfig, seed: int) -> list[Run]:
    """What a model was trained on, each picture as it is; none where the lake has that very release no more."""
    release = find_release(lake, card.get("release"))
    if release is None or release.config_hash != card.get("release_hash"):
        return []
    shards = release.paths(lake.workspace, "train")
    if not all(path.exists() for path in shards):
        return []
    return read_runs(lake, release, shards, encoder, config.model_copy(update={"views": 1}), seed)


def _learn(
    model: LaptopModel,
    encoder: Encoder,
    source: ClipSource,
    pairs: PairSource | None,
    recipe: Recipe,
    on_step: Callable[[Point], None],
    started: float,
    looked: float,
) -> Fitted:
    """The recipe's steps on clips, then those on pairs. `started`, `looked`: CPU time of the process, before and after
    the encoder's work. Raises TrainingError."""
    train, runs = recipe.train, source.runs
    if train.steps is None:
        raise TrainingError(f"recipe {recipe.name}: a laptop model learns for train.steps, not for epochs")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=train.lr, weight_decay=train.weight_decay, betas=(0.9, train.beta2)
    )
    curve = []
    with one_thread():
        for step in range(train.steps):
            began = time.perf_counter()
            rate = train.lr * share_of_rate(step / train.steps, train)
            point = _step(model, optimizer, source, recipe, step, rate, began)
            curve.append(point)
            on_step(point)
        if pairs is not None:
            learn_preferences(model, pairs, recipe)
    compared = dict(pairs.counts) if pairs else {}
    cpu_s = {"encoder": looked - started, "steps": time.process_time() - looked}
    shown = {(run.dataset, run.episode_index): run for run in runs}.values()
    pictures = sum(len(run.frames) for run in shown)
    samples = train.steps * train.batch
    stored = sum(run.is_stored for run in shown)
    return Fitted(
        model.eval(), encoder, tuple(curve), samples, dict(source.counts), compared, len(shown), stored, pictures, cpu_s
    )


def _some_pictures(runs: Sequence[Run]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of every n-th picture in all views [n, d], those of their runs' first in the same view, labels [n]."""
    every = -(-sum(len(run.frames) * len(run.numbers) for run in runs) // MOST_COMPARED)
    views = [(run.moments(view), run.label) for run in runs for view in range(len(run.numbers))]
    numbers = np.concatenate([view[::every] for view, _ in views])
    first = np.concatenate([np.broadcast_to(view[:1], view[::every].shape) for view, _ in views])
    return numbers, first, np.concatenate([label[::every] for _, label in views])


def _step(
    model: LaptopModel,
    optimizer: torch.optim.Optimizer,
    source: ClipSource,
    recipe: Recipe,
    step: int,
    rate: float,
    began: float,
) -> Point:
    """Raises TrainingError where the loss is not finite."""
    train, device = recipe.train, model.device
    for group in optimizer.param_groups:
        group["lr"] = rate
    clips = source.draw(train.batch)
    output = model(torch.from_numpy(clips.numbers).to(device), clips.tasks)
    loss, error = laptop_loss(model, output, torch.from_numpy(clips.label).to(device))
    if not torch.isfinite(loss):
        raise TrainingError(f"the loss is {float(loss.detach())} at step {step}: lower train.lr or train.clip")
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip)
    optimizer.step()
    samples, seconds = (step + 1) * train.batch, time.perf_counter() - began
    assert train.steps is not None
    return Point(
        step=step,
        loss=float(loss.detach()),
        text=None,
        progress=float(error),
        learning_rate=rate,
        gradient_norm=float(norm),
        done=(step + 1) / train.steps,
        samples=samples,
        tokens=samples * (1 + model.frames),
        samples_per_s=train.batch / seconds,
        tokens_per_s=train.batch * (1 + model.frames) / seconds,
        mfu=None,
    )

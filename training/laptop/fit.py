"""Trains laptop models: all pictures once through the encoder, then steps on their embeddings, in one process."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from annotate.embeddings.encoders import Encoder, load_encoder
from annotate.embeddings.networks import one_thread
from core.files import whole_folder
from training.card import make_card
from training.folder import TrainingError
from training.laptop.config import LaptopConfig
from training.laptop.episodes import FAMILIES, ClipSource, ShownEpisode, read_episodes
from training.laptop.model import LaptopModel, laptop_loss, load_laptop, save_laptop
from training.loop import share_of_rate
from training.recipe import Recipe
from training.runs import Point, TrainingRun, record, run_folder, training_run_id
from warehouse.lake import Lake
from warehouse.releases import Release, find_release
from warehouse.shards import Sample, read_samples

MOST_COMPARED = 50_000  # pictures that the OOD detector is fitted on


def train_laptop(
    lake: Lake, release: Release, recipe: Recipe, on_step: Callable[[Point], None], resume: bool
) -> TrainingRun:
    """A new model from a release's train split, saved and recorded. Raises TrainingError, EncoderError, ShardError."""
    clock = _started(resume)
    config, seed = recipe.model.laptop, recipe.train.seed
    assert config is not None, "a recipe of another kind"
    encoder = load_encoder(config.embeddings)
    episodes = _of_release(lake, release, encoder, config.views, seed)
    if not episodes:
        raise TrainingError(f"release {release.name} has no samples of progress in its train split")
    looked = time.process_time()
    torch.manual_seed(seed)
    model = fitted_model(config, episodes, min(config.most_frames, max(e.shown for e in episodes)))
    return _learn(lake, release, recipe, on_step, model, encoder, episodes, (*clock, looked), {})


def fitted_model(config: LaptopConfig, episodes: Sequence[ShownEpisode], frames: int) -> LaptopModel:
    """A new model that knows how the pictures of training are spread, and nothing of progress."""
    model = LaptopModel(config, episodes[0].numbers.shape[-1], frames)
    model.normalise_by(np.concatenate([e.numbers[0] for e in episodes]))
    # Every n-th picture in all views, beside those of its episode's first in the same view
    every = -(-sum(e.numbers.shape[0] * e.numbers.shape[1] for e in episodes) // MOST_COMPARED)
    views = [(view[::every], view[:1], e.label[::every], k) for k, e in enumerate(episodes) for view in e.numbers]
    parts = [(view, first.repeat(len(view), 0), label, np.full(len(view), k)) for view, first, label, k in views]
    seen, first, label, run = (torch.from_numpy(np.concatenate(of_all)) for of_all in zip(*parts, strict=True))
    model.ood.fit(model.normalised(seen), model.normalised(first), label, run)
    return model


def adapt_laptop(
    lake: Lake,
    folder: Path,
    samples: Sequence[Sample],
    release: Release,
    recipe: Recipe,
    on_step: Callable[[Point], None],
    resume: bool,
) -> TrainingRun:
    """Continue with the laptop model of a folder on samples of one episode's progress, whose scene is OOD no more.

    Where the lake still has the release that the model learnt from, every other clip is of its episodes, so that they
    are not forgotten. `release`: what the run is recorded to have learnt from. Raises ModelError, EncoderError,
    ShardError, TrainingError.
    """
    clock = _started(resume)
    seed = recipe.train.seed
    model, encoder, card = load_laptop(folder)
    dataset = samples[0].row["dataset"]
    [new] = read_episodes(lake, lake.snapshot(), samples, [dataset], encoder, model.config.views, seed)
    learnt_from = find_release(lake, card.get("release"))
    known: list[ShownEpisode] = []
    if learnt_from is not None and learnt_from.config_hash != card.get("release_hash"):
        learnt_from = None
    if learnt_from is not None and all(path.exists() for path in learnt_from.paths(lake.workspace, "train")):
        known = _of_release(lake, learnt_from, encoder, 1, seed)
    looked = time.process_time()
    torch.manual_seed(seed)
    model.ood.widen(model.normalised(np.concatenate(list(new.numbers))))
    # The window is laid out as before; the success threshold was found for other weights
    more = {name: card.get(name) for name in ("window", "max_px")}
    more |= {"adapted_to": release.name, "adapted_from": folder.name}
    episodes = [new] * max(1, len(known)) + known
    return _learn(lake, release, recipe, on_step, model, encoder, episodes, (*clock, looked), more)


def _started(resume: bool) -> tuple[float, float]:
    """Times of the wall's clock and of the CPU. Raises TrainingError where such a run cannot start."""
    if resume:
        raise TrainingError("a laptop model trains in seconds, and keeps nothing to go on from: leave out --resume")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise TrainingError("a laptop model is trained by one process: start it without torchrun")
    return time.monotonic(), time.process_time()


def _of_release(lake: Lake, release: Release, encoder: Encoder, views: int, seed: int) -> list[ShownEpisode]:
    """The episodes of a release's train split. Raises ShardError."""
    shards = release.paths(lake.workspace, "train")
    datasets = sorted({s.dataset for s in release.shard_list})
    return read_episodes(lake, release.snapshot, read_samples(shards, FAMILIES), datasets, encoder, views, seed)


def _learn(
    lake: Lake,
    release: Release,
    recipe: Recipe,
    on_step: Callable[[Point], None],
    model: LaptopModel,
    encoder: Encoder,
    episodes: Sequence[ShownEpisode],
    times: tuple[float, float, float],
    more: Mapping[str, Any],
) -> TrainingRun:
    """The recipe's steps on clips; the model is saved, the run recorded. `times`: when the run started, by the wall's
    clock and the CPU's, and CPU time after the encoder's work; `more` is for the card. Raises TrainingError."""
    train, run = recipe.train, training_run_id(recipe, release)
    if train.steps is None:
        raise TrainingError(f"recipe {recipe.name}: a laptop model learns for train.steps, not for epochs")
    model.to("cuda" if torch.cuda.is_available() else "cpu").train()
    source = ClipSource(episodes, model.frames, recipe.data.negatives, train.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=train.lr, weight_decay=train.weight_decay, betas=(0.9, train.beta2)
    )
    curve: list[Point] = []
    with one_thread():
        for step in range(train.steps):
            curve.append(learn_step(model, optimizer, source, recipe, step, train.steps))
            on_step(curve[-1])
    model.eval()
    started, began, looked = times
    shown = {(e.dataset, e.episode_index): e for e in episodes}.values()
    parameters, samples = sum(p.numel() for p in model.parameters()), train.steps * train.batch
    card = make_card(lake, release, recipe, run) | {
        "head": {"pooling": "laptop"},
        "parameters": parameters,
        "samples": samples,
        "left_out": 0,
        "final": asdict(curve[-1]),
        "negatives": dict(source.counts),
        "runs": len(shown),
        "pictures": sum(len(e.frames) for e in shown),
        "cpu_s": {"encoder": round(looked - began, 1), "steps": round(time.process_time() - looked, 1)},
    }
    folder = run_folder(lake.workspace, run)
    with whole_folder(folder) as half:
        save_laptop(model, encoder, half, card | dict(more))
        (half / "curve.json").write_text(json.dumps([asdict(p) for p in curve]) + "\n")
    record(lake, run, release, recipe, curve)
    return TrainingRun(run, folder, tuple(curve), parameters, samples, time.monotonic() - started)


def learn_step(
    model: LaptopModel, optimizer: torch.optim.Optimizer, source: ClipSource, recipe: Recipe, step: int, steps: int
) -> Point:
    """Raises TrainingError where the loss is not finite."""
    train, device, began = recipe.train, model.device, time.perf_counter()
    rate = train.lr * share_of_rate(step / steps, train)
    for group in optimizer.param_groups:
        group["lr"] = rate
    numbers, tasks, label = source.draw(train.batch)
    output = model(torch.from_numpy(numbers).to(device), tasks)
    loss, error = laptop_loss(model, output, torch.from_numpy(label).to(device))
    if not torch.isfinite(loss):
        raise TrainingError(f"the loss is {float(loss.detach())} at step {step}: lower train.lr or train.clip")
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip)
    optimizer.step()
    samples, seconds = (step + 1) * train.batch, time.perf_counter() - began
    return Point(
        step=step,
        loss=float(loss.detach()),
        progress=float(error),
        learning_rate=rate,
        gradient_norm=float(norm),
        done=(step + 1) / steps,
        samples=samples,
        tokens=samples * (1 + model.frames),
        samples_per_s=train.batch / seconds,
        tokens_per_s=train.batch * (1 + model.frames) / seconds,
    )

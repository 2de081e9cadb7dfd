"""Trains laptop models: pictures of a release's episodes once through the encoder, then steps on embeddings of clips of
them, in one process."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, groupby, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from annotate.embeddings.encoders import Encoder, load_encoder
from annotate.embeddings.networks import one_thread
from annotate.samples.procvqa import ACTIONS, PROGRESS, SEGMENTATION, task_text
from core.files import whole_folder
from core.logs import TOLD
from core.values import grouped
from training.card import check_shards, make_card
from training.data import augment
from training.folder import TrainingError
from training.laptop.config import MAX_PX, LaptopConfig
from training.laptop.model import LaptopModel, embed, laptop_loss, load_laptop, save_laptop
from training.loop import share_of_rate
from training.negatives.windows import Instructions, draw_kind, draw_speed, shown_of, window_places
from training.pictures import Item, decode_picture
from training.pixels import device
from training.recipe import AS_RECORDED, OTHER_TASK, NegativesConfig, Recipe
from training.runs import Point, TrainingRun, record, run_folder, training_run_id
from warehouse.lake import Lake
from warehouse.lake.references import joined_texts
from warehouse.lake.sql import open_for_users
from warehouse.lake.stored import usable_episodes
from warehouse.releases.release import Release, find_release
from warehouse.shards.shard import Sample, read_samples

# Those that show an episode's own pictures in order of time
FAMILIES = frozenset({SEGMENTATION, ACTIONS, PROGRESS})
LABELS = """
SELECT p.dataset, p.episode_index, p.frame_index, p.progress
FROM progress p JOIN active_runs a USING (dataset, episode_index, label_run)
WHERE list_contains(?, p.dataset)
"""


@dataclass(frozen=True)
class EncodedPictures:
    """An episode's pictures in order of time, through the encoder: what clips are drawn from.

    key: dataset and episode_index. numbers: embeddings, float16 [views, k, d], of each picture as it is and varied.
    frames: int64 [k]. label: float32 [k], NaN where the release has none. step: frames between the pictures of a window
    of the release; shown: how many at most.
    """

    key: tuple[str, int]
    task: str
    numbers: np.ndarray
    frames: np.ndarray
    label: np.ndarray
    step: float
    shown: int


def read_episodes(
    lake: Lake,
    snapshot: int,
    samples: Iterable[Sample],
    datasets: Sequence[str],
    encoder: Encoder,
    views: int,
    seed: int,
) -> list[EncodedPictures]:
    """Episodes with samples of progress, in order, each picture seen `views` times; an episode's
    samples come together.

    Labels of frames that no sample asks about are those of the lake at the snapshot.
    """
    con = open_for_users(lake.workspace, snapshot)
    usable = usable_episodes(con, "list_contains(?, dataset)", [datasets])
    # Nothing is told of a run without a text: it is no other run's task
    tasks = {episode.key: task_text(episode.task) if episode.task else "" for episode in usable}
    labels = grouped(
        ((dataset, episode), (frame, progress))
        for dataset, episode, frame, progress in con.execute(LABELS, [datasets]).fetchall()
    )
    episodes = []
    for key, group in groupby(samples, lambda s: (s.row["dataset"], s.row["episode_index"])):
        episode_samples = list(group)
        TOLD.get()("pictures", len(episodes), detail=f"of {len(episodes) + 1} episodes encoded")
        progress_rows = [
            s.row
            for s in episode_samples
            if s.row["family"] == PROGRESS and s.row["progress"] is not None
        ]
        # What no sample of progress was drawn of did not pass the release's gate
        if progress_rows:
            episode_labels = dict(labels.get(key, ())) | {
                row["frames"][-1]: float(row["progress"]) for row in progress_rows
            }
            episodes.append(
                _episode(
                    key,
                    episode_samples,
                    progress_rows,
                    tasks.get(key),
                    episode_labels,
                    encoder,
                    views,
                    seed,
                )
            )
    TOLD.get()("pictures", 1, 1)
    return episodes


def _episode(
    key: tuple[str, int],
    samples: Sequence[Sample],
    progress_rows: Sequence[Mapping[str, Any]],
    task: str | None,
    labels: Mapping[int, float],
    encoder: Encoder,
    views: int,
    seed: int,
) -> EncodedPictures:
    """One episode of its samples; `progress_rows`: rows of those of progress."""
    numbered = (zip(s.row["frames"], s.pictures, strict=True) for s in samples)
    pictures = dict(sorted(chain.from_iterable(numbered)))
    neighbours = chain.from_iterable(pairwise(row["frames"]) for row in progress_rows)
    between = [b - a for a, b in neighbours]
    return EncodedPictures(
        key,
        task=progress_rows[0]["question"] if task is None else task,
        numbers=_seen(
            list(pictures.values()), encoder, views, np.random.default_rng([seed, key[1]])
        ),
        frames=np.array(list(pictures)),
        label=np.array([labels.get(f, np.nan) for f in pictures], np.float32),
        step=float(max(between, default=1)),
        shown=max(len(row["frames"]) for row in progress_rows),
    )


def _seen(
    jpegs: Sequence[bytes], encoder: Encoder, views: int, rng: np.random.Generator
) -> np.ndarray:
    """Pictures through the encoder, as they are, and varied: one change of light and place for all, so that the motion
    stays what it was."""
    decoded = [decode_picture(p, MAX_PX) for p in jpegs]
    augmented = [
        decoded if k == 0 else augment(Item("", tuple(decoded)), rng).pictures for k in range(views)
    ]
    return np.stack([embed(encoder, pictures) for pictures in augmented]).astype(np.float16)


# What one step shows: windows of episodes, some of them changed into negatives, drawn by seed

WITHOUT_START = 0.15  # of windows: their own oldest picture stands for the episode's first
WITHOUT_TASK = 0.15  # of windows of the right task: nothing is said of it, as of a task whose words are all unknown


@dataclass
class ClipSource:
    """Draws clips of `frames` pictures, up to moments whose pictures are all there: of a long run few frames lie in the
    shards, and nearest ones in their place would tell how long it lasts. `counts`: how many of each kind."""

    episodes: Sequence[EncodedPictures]
    frames: int
    negatives: NegativesConfig
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    same_as: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._moments = list(map(self._whole_moments, self.episodes))
        self._instructions = Instructions([e.task for e in self.episodes], self.same_as)

    def _whole_moments(self, e: EncodedPictures) -> Sequence[int] | np.ndarray:
        """The frames whose window's pictures are all there; where none are, all frames."""
        moments = [f for f in e.frames if window_places(e.frames, f, e.step, self.frames)[1]]
        return moments or e.frames

    def draw(self, count: int) -> tuple[np.ndarray, list[str], np.ndarray]:
        """Clips: numbers float32 [n, 1 + frames, d], the episode's first picture before the window's; n texts of tasks;
        labels [n, frames], NaN where there is none."""
        drawn = [self._clip() for _ in range(count)]
        numbers, tasks, label, kinds = zip(*drawn, strict=True)
        self.counts.update(kinds)
        return np.stack(numbers).astype(np.float32), list(tasks), np.stack(label)

    def _clip(self) -> tuple[np.ndarray, str, np.ndarray, str]:
        rng = self._rng
        number = int(rng.integers(len(self.episodes)))
        e = self.episodes[number]
        kind, task = self._told(draw_kind(self.negatives, rng), e.task)
        frame_index = int(rng.choice(self._moments[number]))
        step = e.step * (draw_speed(rng) if kind == "other_speed" else 1)
        places = window_places(e.frames, frame_index, step, self.frames)[0][
            shown_of(kind, self.frames, rng)
        ]
        label = e.label[places]
        if kind == OTHER_TASK:
            label = np.zeros_like(label)
        elif rng.random() < WITHOUT_TASK:
            task = ""
        start = places[0] if rng.random() < WITHOUT_START else 0
        view = int(rng.integers(len(e.numbers)))
        return e.numbers[view][[start, *places]], task, label, kind

    def _told(self, kind: str, task: str) -> tuple[str, str]:
        """The kind, and the task that is told; where no instruction differs from the episode's, as it was recorded."""
        if kind != OTHER_TASK:
            return kind, task
        wrong = self._instructions.other(task, self._rng)
        if wrong:
            return (kind, wrong)
        return (AS_RECORDED, task)


MOST_COMPARED = 50_000  # pictures that the OOD detector is fitted on


def train_laptop(
    lake: Lake, release: Release, recipe: Recipe, on_step: Callable[[Point], None], resume: bool
) -> TrainingRun:
    """A new model from a release's train split, saved and recorded. Raises TrainingError, EncoderError, ShardError."""
    _check_start(resume)
    check_shards(lake, release, recipe)
    training = LaptopTraining(lake, release, recipe, on_step)
    config = recipe.model.laptop
    seed = recipe.train.seed
    assert config is not None, "a recipe of another kind"
    encoder = load_encoder(config.embeddings)
    episodes = _of_release(lake, release, encoder, config.views, seed)
    if not episodes:
        raise TrainingError(f"release {release.name} has no samples of progress in its train split")
    encoded_cpu_s = time.process_time()
    torch.manual_seed(seed)
    model = fitted_model(config, episodes, min(config.most_frames, max(e.shown for e in episodes)))
    return training.run(model, encoder, episodes, encoded_cpu_s)


def fitted_model(
    config: LaptopConfig, episodes: Sequence[EncodedPictures], frames: int
) -> LaptopModel:
    """A new model that knows how the pictures of training are spread, and nothing of progress."""
    model = LaptopModel(config, episodes[0].numbers.shape[-1], frames)
    model.normalise_by(np.concatenate([e.numbers[0] for e in episodes]))
    # Every n-th picture in all views, beside those of its episode's first in the same view
    stride = -(-sum(e.numbers.shape[0] * e.numbers.shape[1] for e in episodes) // MOST_COMPARED)
    numbers: list[np.ndarray] = []
    first_numbers: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    runs: list[np.ndarray] = []
    for k, e in enumerate(episodes):
        for view in e.numbers:
            chosen = view[::stride]
            numbers.append(chosen)
            first_numbers.append(view[:1].repeat(len(chosen), 0))
            labels.append(e.label[::stride])
            runs.append(np.full(len(chosen), k))
    model.ood.fit(
        model.normalised(_joined(numbers)),
        model.normalised(_joined(first_numbers)),
        _joined(labels),
        _joined(runs),
    )
    return model


def _joined(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(arrays))


def adapt_laptop(
    lake: Lake,
    folder: Path,
    samples: Sequence[Sample],
    release: Release,
    recipe: Recipe,
    on_step: Callable[[Point], None],
    resume: bool,
    facts: Mapping[str, Any],
) -> TrainingRun:
    """Continue with the laptop model of a folder on samples of one episode's progress, whose scene
    is OOD no more.

    Where the lake still has the release that the model learnt from, every other clip is of its
    episodes, so that they are not forgotten. `release`: what the run is recorded to have learnt
    from; `facts`: for its card. Raises ModelError, EncoderError, ShardError, TrainingError.
    """
    _check_start(resume)
    training = LaptopTraining(lake, release, recipe, on_step)
    seed = recipe.train.seed
    model, encoder, card = load_laptop(folder)
    dataset = samples[0].row["dataset"]
    [new] = read_episodes(
        lake, lake.snapshot(), samples, [dataset], encoder, model.config.views, seed
    )
    learnt_from = find_release(lake, card.get("release"))
    former_episodes: list[EncodedPictures] = []
    if learnt_from is not None and learnt_from.config_hash != card.get("release_hash"):
        learnt_from = None
    if learnt_from is not None and all(
        path.exists() for path in learnt_from.paths(lake.workspace, "train")
    ):
        former_episodes = _of_release(lake, learnt_from, encoder, 1, seed)
    encoded_cpu_s = time.process_time()
    torch.manual_seed(seed)
    model.ood.widen(model.normalised(np.concatenate(list(new.numbers))))
    # The window is laid out as before; the success threshold was found for other weights
    former_facts = {"window": card.get("window"), "max_px": card.get("max_px")}
    facts_of_card = former_facts | {**facts, "adapted_from": folder.name}
    episodes = [new] * max(1, len(former_episodes)) + former_episodes
    return training.run(model, encoder, episodes, encoded_cpu_s, facts_of_card)


def _check_start(resume: bool) -> None:
    """Raises TrainingError for what a laptop model cannot: go on from a checkpoint, or learn in several processes."""
    if resume:
        raise TrainingError(
            "a laptop model trains in seconds, and keeps nothing to go on from: leave out --resume"
        )
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise TrainingError("a laptop model is trained by one process: start it without torchrun")


def _of_release(
    lake: Lake, release: Release, encoder: Encoder, views: int, seed: int
) -> list[EncodedPictures]:
    """The episodes of a release's train split. Raises ShardError."""
    shards = release.paths(lake.workspace, "train")
    datasets = sorted({s.dataset for s in release.shard_list})
    return read_episodes(
        lake, release.snapshot, read_samples(shards, FAMILIES), datasets, encoder, views, seed
    )


@dataclass(frozen=True)
class LaptopTraining:
    """A run of training by a recipe. Its times, by the wall's clock and the CPU's, count from when this is made."""

    lake: Lake
    release: Release
    recipe: Recipe
    on_step: Callable[[Point], None]
    start_s: float = field(default_factory=time.monotonic)
    start_cpu_s: float = field(default_factory=time.process_time)

    def run(
        self,
        model: LaptopModel,
        encoder: Encoder,
        episodes: Sequence[EncodedPictures],
        encoded_cpu_s: float,
        card_fields: Mapping[str, Any] = MappingProxyType({}),
    ) -> TrainingRun:
        """Let a model learn from clips of the episodes, save it and record the run. `encoded_cpu_s`: the CPU's time
        after the encoder's work; `card_fields`: further ones of the model's card. Raises TrainingError."""
        train = self.recipe.train
        if train.steps is None:
            raise TrainingError(
                f"recipe {self.recipe.name}: a laptop model learns for train.steps, not for epochs"
            )
        run = training_run_id(self.recipe, self.release)
        joined = joined_texts(open_for_users(self.lake.workspace, self.release.snapshot))
        source = ClipSource(
            episodes,
            model.frames,
            self.recipe.data.negatives,
            train.seed,
            same_as={task_text(text): task_text(name) for (_, text), name in joined.items()},
        )
        curve = self._learn(model, source, train.steps)
        num_samples = train.steps * train.batch
        num_parameters = sum(p.numel() for p in model.parameters())
        # A new episode is given as often as the former ones together
        distinct_episodes = {e.key: e for e in episodes}.values()
        cpu_s = {
            "encoder": round(encoded_cpu_s - self.start_cpu_s, 1),
            "steps": round(time.process_time() - encoded_cpu_s, 1),
        }
        card = make_card(self.lake, self.release, self.recipe, run) | {
            "head": {"pooling": "laptop"},
            "parameters": num_parameters,
            "samples": num_samples,
            "left_out": 0,
            "final": asdict(curve[-1]),
            "negatives": dict(source.counts),
            "runs": len(distinct_episodes),
            "pictures": sum(len(e.frames) for e in distinct_episodes),
            "cpu_s": cpu_s,
        }
        folder = run_folder(self.lake.workspace, run)
        with whole_folder(folder) as half:
            save_laptop(model, encoder, half, card | dict(card_fields))
            (half / "curve.json").write_text(json.dumps([asdict(p) for p in curve]) + "\n")
        record(self.lake, run, self.release, self.recipe, curve)
        duration_s = time.monotonic() - self.start_s
        return TrainingRun(run, folder, tuple(curve), num_parameters, num_samples, duration_s)

    def _learn(self, model: LaptopModel, source: ClipSource, steps: int) -> list[Point]:
        """The curve of the steps."""
        train = self.recipe.train
        model.to(device()).train()
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=train.lr,
            weight_decay=train.weight_decay,
            betas=(0.9, train.beta2),
        )
        curve: list[Point] = []
        with one_thread():
            for step in range(steps):
                curve.append(learn_step(model, optimizer, source, self.recipe, step, steps))
                self.on_step(curve[-1])
        model.eval()
        return curve


def learn_step(
    model: LaptopModel,
    optimizer: torch.optim.Optimizer,
    source: ClipSource,
    recipe: Recipe,
    step: int,
    steps: int,
) -> Point:
    """Raises TrainingError where the loss is not finite."""
    train = recipe.train
    start_s = time.perf_counter()
    rate = train.lr * share_of_rate(step / steps, train)
    for group in optimizer.param_groups:
        group["lr"] = rate
    numbers, tasks, label = source.draw(train.batch)
    output = model(torch.from_numpy(numbers).to(model.device), tasks)
    loss, error = laptop_loss(model, output, torch.from_numpy(label).to(model.device))
    if not torch.isfinite(loss):
        raise TrainingError(
            f"the loss is {float(loss.detach())} at step {step}: lower train.lr or train.clip"
        )
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip)
    optimizer.step()
    samples = (step + 1) * train.batch
    seconds = time.perf_counter() - start_s
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

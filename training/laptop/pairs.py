"""Pairs of parts of runs: windows of them, drawn by seed, and the head that learns from them which is better."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from annotate.preferences import WHYS, ComparedRun, Pair, Pairing, RunPart, Why
from training.errors import TrainingError
from training.laptop.clips import window_places
from training.laptop.config import PreferencesConfig
from training.laptop.model import LaptopModel
from training.laptop.runs import Run
from training.loop import share_of_rate
from training.preferences import bradley_terry, part_scores
from training.recipe import Recipe
from warehouse.lake.compared import RunFacts


@dataclass(frozen=True)
class PairClips:
    """numbers: float32 [m, 1 + frames, d], a window for each moment of each part, as Clips has them. tasks: m texts.
    part: int64 [m], the number of each window's part: 2 n is the chosen one of pair n, 2 n + 1 the rejected one."""

    numbers: np.ndarray
    tasks: list[str]
    part: np.ndarray
    pairs: int

    def loss(self, scores: torch.Tensor) -> torch.Tensor:
        """The mean over the pairs; scores [m] of the windows."""
        whole = part_scores(scores, torch.from_numpy(self.part).to(scores.device), 2 * self.pairs)
        return bradley_terry(whole[0::2], whole[1::2]) / self.pairs


@dataclass
class PairSource:
    """Draws pairs of windows of `frames` pictures. `counts`: how many of each kind were drawn."""

    runs: Sequence[Run]
    facts: Mapping[tuple[str, int], RunFacts]
    frames: int
    config: PreferencesConfig
    seed: int
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        # Not the chance of ClipSource, which draws the same windows with pairs as without
        self._rng = np.random.default_rng([self.seed, len(WHYS)])
        self._by_key = {(r.dataset, r.episode_index): r for r in self.runs}
        self._pairing = Pairing([self._compared(run) for run in self.runs])
        self._first = {why: self._pairing.runs(why) for why in WHYS}

    def draw(self, windows: int) -> PairClips | None:
        """At the rates of the recipe beside so many windows; None where there are none."""
        pairs = [pair for why in WHYS for pair in self._of_kind(why, windows * getattr(self.config, why))]
        if not pairs:
            return None
        self.counts.update(pair.why for pair in pairs)
        parts = [part for pair in pairs for part in (pair.chosen, pair.rejected)]
        shown = [window for part in parts for window in self._windows(part)]
        numbers, tasks = zip(*shown, strict=True)
        owner = np.repeat(np.arange(len(parts)), [len(part.frames) for part in parts])
        return PairClips(np.stack(numbers).astype(np.float32), list(tasks), owner, len(pairs))

    def _of_kind(self, why: Why, wanted: float) -> list[Pair]:
        runs = self._first[why]
        # What is left of a whole number is drawn so often
        count = int(wanted) + int(self._rng.random() < wanted % 1)
        if not runs:
            return []
        drawn = (self._pairing.draw(why, runs[int(self._rng.integers(len(runs)))], self._rng) for _ in range(count))
        return [pair for pair in drawn if pair is not None]

    def _windows(self, part: RunPart) -> list[tuple[np.ndarray, str]]:
        run = self._by_key[part.key]
        view = int(self._rng.integers(len(run.numbers)))
        windows = ([0, *window_places(run.frames, now, run.step, self.frames)] for now in part.frames)
        return [(run.moments(view, places), run.task) for places in windows]

    def _compared(self, run: Run) -> ComparedRun:
        facts = self.facts.get((run.dataset, run.episode_index)) or RunFacts(run.task, None, None, None)
        return ComparedRun(
            run.dataset,
            run.episode_index,
            facts.same_as,
            run.frames,
            run.label,
            facts.success,
            facts.quality,
            facts.label_run,
        )


def learn_preferences(model: LaptopModel, source: PairSource, recipe: Recipe) -> None:
    """Fit the preference head on a model that has learnt the rest, which stays as it is to the last bit.

    As many steps as the rest had, at the same rates. Raises TrainingError where the loss is not finite.
    """
    train, device = recipe.train, model.device
    assert model.preference is not None, "a model without such a head"
    assert train.steps is not None, "the recipe checks it"
    head = list(model.preference.parameters())
    optimizer = torch.optim.AdamW(head, lr=train.lr, weight_decay=train.weight_decay, betas=(0.9, train.beta2))
    # As the model is when it is asked: nothing is left out by chance
    model.eval()
    for step in range(train.steps):
        for group in optimizer.param_groups:
            group["lr"] = train.lr * share_of_rate(step / train.steps, train)
        clips = source.draw(train.batch)
        if clips is None:
            continue
        with torch.no_grad():
            states = model.states(torch.from_numpy(clips.numbers).to(device), clips.tasks)[:, -1]
        loss = clips.loss(model.preference(states).squeeze(-1))
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss on preferences is {float(loss.detach())} at step {step}: lower train.lr")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head, train.clip)
        optimizer.step()

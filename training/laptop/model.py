"""The laptop model: a window of pictures that a frozen encoder has seen, the task in words, progress at each picture.

A moment's token is made of the picture's embedding and of how it differs from that of the episode's first one. The
task's words, hashed into rows of a table, scale and shift it. A causal transformer goes over the window. So one new
frame costs one pass of the encoder, and one of the transformer over a handful of kept states.

What training never showed is not taken for what it did show: an instruction of unknown words counts as none, and on a
picture out of distribution progress is a guess from how much of it has changed (`OodDetector`).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from annotate.embeddings import identity
from annotate.embeddings.encoders import encoder_input, load_encoder
from annotate.embeddings.networks import one_thread
from annotate.embeddings.projection import CELL, WHOLE, Encoder
from training.folder import CONFIG, LAPTOP, ModelError, read_card, write_card
from training.laptop.config import LaptopConfig
from training.negatives.windows import words_of

# Most OOD score of a picture within a scene that one episode was shown of after training
ADAPTED = 0.4
USUAL = 0.98  # share of the pictures of held-out runs that are in distribution
CERTAIN = 1.06  # times as far as that: from there on the score is 1
KEPT = 1024  # pictures of training that others are compared with
SMALLEST = 0.05  # change, in deviations: what is less is as good as none
LEAST = 1e-3  # of the distance: runs that are all alike have none
STEPS = 100
# Of the squared weights, in the loss: sizes of neighbouring cells say nearly the same
SHRINK = 1e-3


class OodDetector(nn.Module):
    """Works on embeddings [..., width] that are normalised: mean 0 and deviation 1 over training."""

    shown: torch.Tensor
    learnt: torch.Tensor
    usual: torch.Tensor
    middle: torch.Tensor
    spread: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = 1 + max(0, width - WHOLE) // CELL
        # Pictures of training, and of scenes that were learnt later [k, width], of length 1
        self.register_buffer("shown", torch.zeros(0, width))
        self.register_buffer("learnt", torch.zeros(0, width))
        # Until it is fitted, nothing is OOD
        self.register_buffer("usual", torch.tensor(float("inf")))
        self.register_buffer("middle", torch.zeros(sizes))
        self.register_buffer("spread", torch.ones(sizes))
        self.guess = nn.Linear(sizes, 1).requires_grad_(False)

    def score(self, features: torch.Tensor) -> torch.Tensor:
        """[...]: 0 for what lies as near training's pictures as usual, 1 for what is unlike all of them; at most
        ADAPTED for what lies as near a scene that was learnt later."""
        directions = _direction(features)
        score, later = (
            self._beyond(directions, directions_known)
            for directions_known in (self.shown, self.learnt)
        )
        return torch.minimum(score, later.clamp_min(ADAPTED) if len(self.learnt) else score)

    def _beyond(self, directions: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """0 up to the usual distance to the nearest, 1 from CERTAIN times that on."""
        if not len(references):
            return torch.zeros(directions.shape[:-1], device=directions.device)
        nearest = 1 - (directions @ references.T).amax(-1)
        return ((nearest / self.usual - 1) / (CERTAIN - 1)).clamp(0, 1)

    def by_change(self, features: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Progress 0..1 [...] of a picture by how much of it differs from its episode's first one."""
        return torch.sigmoid(self._logit(_sizes(features, first)))

    def _logit(self, sizes: torch.Tensor) -> torch.Tensor:
        return self.guess((sizes - self.middle) / self.spread)[..., 0]

    def fit(
        self, features: torch.Tensor, first: torch.Tensor, label: torch.Tensor, run: torch.Tensor
    ) -> None:
        """From pictures of training [n, width], each with its episode's first one; label: [n], NaN
        where none is; run: [n], which episode each is of. Of a single one nothing shows what is
        usual, and nothing will be OOD.

        The guess is a logistic regression: convex, so where it begins does not matter.
        """
        kept_places = slice(None, None, -(-len(features) // KEPT))
        self.shown = _direction(features[kept_places])
        distances = 1 - self.shown @ self.shown.T
        distances[run[kept_places, None] == run[kept_places]] = float("inf")
        self.usual.copy_(distances.amin(-1).quantile(USUAL, interpolation="lower").clamp_min(LEAST))
        is_labelled = ~torch.isnan(label)
        sizes = _sizes(features[is_labelled], first[is_labelled])
        target = label[is_labelled]
        self.middle.copy_(sizes.mean(0))
        self.spread.copy_(sizes.std(0, correction=0).clamp_min(1e-3))
        guess = self.guess.requires_grad_(True)
        nn.init.zeros_(guess.weight)
        nn.init.zeros_(guess.bias)
        optimizer = torch.optim.LBFGS(
            guess.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe"
        )

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            value = functional.binary_cross_entropy_with_logits(self._logit(sizes), target)
            value = value + SHRINK * guess.weight.square().sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        guess.requires_grad_(False)

    def widen(self, features: torch.Tensor) -> None:
        """Take in pictures [n, width] of a scene that was learnt after training."""
        self.learnt = torch.cat([self.learnt, _direction(features[:: -(-len(features) // KEPT)])])


def _direction(features: torch.Tensor) -> torch.Tensor:
    """Pictures' embeddings with each number at most 5 deviations, of length 1."""
    return functional.normalize(features.clamp(-5, 5), dim=-1)


def _sizes(features: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """[..., 1 + cells], logs: how far the picture is from the first one, and each cell, the least changed first"""
    change = features - first
    whole = change[..., :WHOLE].square().mean(-1, keepdim=True).sqrt()
    count = max(0, change.shape[-1] - WHOLE) // CELL
    fine = change[..., WHOLE : WHOLE + count * CELL].unflatten(-1, (count, CELL))
    cells = fine.square().mean(-1).sqrt().sort(-1).values
    return torch.log(torch.cat([whole, cells], -1) + SMALLEST)


WEIGHTS = "model.safetensors"
WIDEST, MOST_FRAMES, MOST_BYTES = 1 << 16, 64, 1 << 32  # of a checkpoint that is loaded
PART = 4  # characters of a part of a word, its bounds among them
# Of an instruction's words, each by how much it says: with fewer it counts as none
LEAST_KNOWN = 0.5
TRENDS = ("falling", "still", "rising")
NO_TREND = -1
STILL = 0.005  # progress between two pictures that counts as none


@dataclass(frozen=True)
class LaptopOutput:
    """Logits [n, frames] of progress and of having reached the end state, at each picture of each window.

    ood: 0..1, how much a picture is unlike all of training; by_change: progress by the change since the episode's first
    picture, which counts in its place. trend_logits: [n, frames, 3] as TRENDS, of progress since the picture before.
    """

    progress_logit: torch.Tensor
    done_logit: torch.Tensor
    ood: torch.Tensor
    by_change: torch.Tensor
    trend_logits: torch.Tensor | None = None

    @property
    def progress(self) -> torch.Tensor:
        return torch.lerp(torch.sigmoid(self.progress_logit), self.by_change, self.ood)

    @property
    def done(self) -> torch.Tensor:
        return torch.sigmoid(self.done_logit)


class LaptopModel(nn.Module):
    """`width`: numbers of a picture's embedding; `frames`: pictures of a window."""

    mean: torch.Tensor
    spread: torch.Tensor
    texts: torch.Tensor
    texts_with: torch.Tensor

    def __init__(self, config: LaptopConfig, width: int, frames: int) -> None:
        super().__init__()
        self.config = config
        self.width = width
        self.frames = frames
        d = config.hidden
        self.ood = OodDetector(width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        # How many texts training showed, and how many of them have each word
        self.register_buffer("texts", torch.tensor(0.0))
        self.register_buffer("texts_with", torch.zeros(config.text_buckets))
        self._shown: set[str] = set()
        self.words = nn.EmbeddingBag(config.text_buckets, d, mode="sum")
        nn.init.zeros_(self.words.weight)  # a word that training never showed says nothing
        self.task = nn.Linear(d, 2 * d)
        self.look = nn.Linear(width, d)
        self.change = nn.Linear(width, d, bias=False)
        self.feature_dropout = nn.Dropout(config.feature_dropout)
        self.place = nn.Parameter(torch.randn(frames, d) * 0.02)
        layer = nn.TransformerEncoderLayer(
            d,
            config.heads,
            2 * d,
            config.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.over_time = nn.TransformerEncoder(
            layer, config.layers, nn.LayerNorm(d), enable_nested_tensor=False
        )
        self.heads = nn.Linear(d, 2)
        self.trends = nn.Linear(d, len(TRENDS)) if config.trend_weight else None

    @property
    def device(self) -> torch.device:
        return self.place.device

    def normalise_by(self, numbers: np.ndarray) -> None:
        """Take mean and spread of the pictures of training, float [n, width]."""
        tensor = torch.from_numpy(numbers.astype(np.float32))
        self.mean.copy_(tensor.mean(0))
        self.spread.copy_(tensor.std(0).clamp_min(1e-3))

    def normalised(self, numbers: np.ndarray | torch.Tensor) -> torch.Tensor:
        return (
            torch.as_tensor(numbers, dtype=torch.float32, device=self.device) - self.mean
        ) / self.spread

    def forward(self, numbers: torch.Tensor, tasks: Sequence[str]) -> LaptopOutput:
        """`numbers`: float [n, 1 + frames, width], the episode's first picture before the window's; a task for each."""
        normalised = self.normalised(numbers)
        ood = self.ood.score(normalised[:, 1:])
        by_change = self.ood.by_change(normalised[:, 1:], normalised[:, :1])
        features = self.feature_dropout(normalised.clamp(-5, 5))
        first = features[:, :1]
        window = features[:, 1:]
        scale, shift = self.task(self._texts(tasks))[:, None].chunk(2, -1)
        tokens = self.look(window) + self.change(window - first)
        states = functional.gelu(tokens * (1 + scale) + shift) + self.place
        mask = nn.Transformer.generate_square_subsequent_mask(self.frames, device=states.device)
        states = self.over_time(states, mask=mask, is_causal=True)
        out = self.heads(states)
        trends = self.trends(states) if self.trends else None
        return LaptopOutput(out[..., 0], out[..., 1], ood, by_change, trends)

    def _texts(self, tasks: Sequence[str]) -> torch.Tensor:
        """[n, hidden]: each text is looked up once."""
        places = {text: k for k, text in enumerate(dict.fromkeys(tasks))}
        if self.training:
            self._note(places)
        rows = [
            hashed_text(text if self._understood(text) else "", self.config.text_buckets)
            for text in places
        ]
        starts = np.cumsum([0, *(len(r) for r in rows[:-1])])
        flat = torch.tensor(list(chain.from_iterable(rows)), device=self.device)
        embedded = self.words(flat, torch.from_numpy(starts).to(self.device))
        return embedded[torch.tensor([places[text] for text in tasks], device=self.device)]

    def _note(self, texts: Iterable[str]) -> None:
        """What training shows is known from then on."""
        for text in texts:
            words = hashed_words(text, self.config.text_buckets)
            if words and text not in self._shown:
                self._shown.add(text)
                self.texts += 1
                self.texts_with[list(words)] += 1

    def _understood(self, text: str) -> bool:
        """Are enough of its words known? Words that most instructions have say little, known or not; before anything
        was learnt all are."""
        words = hashed_words(text, self.config.text_buckets)
        if not words or not self.texts:
            return True
        having = self.texts_with[list(words)]
        information = torch.log((1 + self.texts) / having.clamp_min(1))
        return bool(information[having > 0].sum() >= LEAST_KNOWN * information.sum())


@lru_cache(maxsize=4096)
def hashed_text(text: str, buckets: int) -> tuple[int, ...]:
    """Which rows of a table of `buckets` a text is the sum of: of its words, of pairs of words and of parts of words;
    row 0 stands for a text without a word, and it alone.

    Case and punctuation do not count, the order of neighbouring words does.
    """
    words = words_of(text)
    grams = [("w", word) for word in words] + [("p", f"{a} {b}") for a, b in pairwise(words)]
    for word in map("<{}>".format, words):
        grams += [("c", word[k : k + PART]) for k in range(max(1, len(word) - PART + 1))]
    return tuple(_bucket(kind, gram, buckets) for kind, gram in grams) or (0,)


def hashed_words(text: str, buckets: int) -> tuple[int, ...]:
    """The rows of a text's words alone, each once; empty for a text without a word."""
    return tuple(dict.fromkeys(_bucket("w", word, buckets) for word in words_of(text)))


def _bucket(kind: str, gram: str, buckets: int) -> int:
    hashed = int.from_bytes(hashlib.blake2b(f"{kind}{gram}".encode(), digest_size=8).digest())
    return 1 + hashed % (buckets - 1)


def laptop_loss(
    model: LaptopModel, output: LaptopOutput, label: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and the mean |progress - label|, over the pictures with a label [n, frames]."""
    is_labelled = ~torch.isnan(label)
    target = label[is_labelled]
    progress = functional.binary_cross_entropy_with_logits(
        output.progress_logit[is_labelled], target
    )
    done_loss = functional.binary_cross_entropy_with_logits(
        output.done_logit[is_labelled], (target >= 1).float()
    )
    away = (output.progress[is_labelled] - target).abs().mean()
    loss = progress + away + model.config.done_weight * done_loss
    if output.trend_logits is not None:
        trends = trends_of(label)
        logits = output.trend_logits.flatten(0, 1)
        trend_loss = functional.cross_entropy(logits, trends.flatten(), ignore_index=NO_TREND)
        loss = loss + model.config.trend_weight * trend_loss
    return loss, away.detach()


def trends_of(label: torch.Tensor) -> torch.Tensor:
    """Of progress [n, frames] the number in TRENDS at each picture, since the one before; NO_TREND where there is none,
    or no label."""
    change = label.diff(dim=1, prepend=torch.full_like(label[:, :1], torch.nan))
    trends = 1 + (change > STILL).long() - (change < -STILL).long()
    return trends.masked_fill(change.isnan(), NO_TREND)


# In a folder


def save_laptop(model: LaptopModel, encoder: Encoder, folder: Path, card: dict[str, Any]) -> None:
    """Write a checkpoint folder: safetensors and JSON only. The encoder's weights stay where they are: the folder says
    which encoder it is."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous().cpu() for k, v in model.state_dict().items()}, folder / WEIGHTS)
    settings = {
        "model_type": LAPTOP,
        "laptop": model.config.model_dump(mode="json"),
        "width": model.width,
        "frames": model.frames,
        "encoder": encoder_facts(model.config, encoder),
    }
    (folder / CONFIG).write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
    write_card(folder, card)


def load_laptop(folder: Path, device: str = "cpu") -> tuple[LaptopModel, Encoder, dict[str, Any]]:
    """Model, encoder and card of a checkpoint folder. Raises ModelError, also where the encoder here is another one
    than in training; EncoderError where it cannot be had."""
    card = read_card(folder)
    try:
        settings = json.loads((folder / CONFIG).read_text())
        width = int(settings["width"])
        frames = int(settings["frames"])
        if width > WIDEST or frames > MOST_FRAMES or (folder / WEIGHTS).stat().st_size > MOST_BYTES:
            raise ValueError(
                f"a width of {width}, {frames} frames or its size are more than a laptop model has"
            )
        weights = load_file(folder / WEIGHTS)
        if "ood.usual" not in weights:
            raise ModelError(
                f"{folder.name} is of before strangeness was told by the nearest pictures: train it again"
            )
        config = LaptopConfig(**settings["laptop"])
        model = LaptopModel(config, width, frames)
        # As many pictures as training kept
        model.ood.shown = weights["ood.shown"]
        model.ood.learnt = weights["ood.learnt"]
        model.load_state_dict(weights)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        SafetensorError,
        ValidationError,
    ) as e:
        raise ModelError(
            f"the checkpoint {folder} cannot be loaded: {' '.join(str(e).split())[:300]}"
        ) from e
    encoder = load_encoder(config.embeddings)
    encoder_settings = encoder_facts(config, encoder)
    if encoder_settings != settings.get("encoder"):
        raise ModelError(
            f"{folder.name} was trained on what the encoder {settings.get('encoder')} saw, and here it is "
            f"{encoder_settings}: "
            "bring that encoder, or train again"
        )
    return model.to(device).eval(), encoder, card


def encoder_facts(config: LaptopConfig, encoder: Encoder) -> dict[str, str]:
    """What a model is bound to: another encoder's numbers mean nothing to it."""
    return {"title": encoder.title, "identity": identity(config.embeddings)}


# Asked: pictures through its encoder once, and windows of what it saw, in one batch


OOD = 0.5  # score from which on a picture counts as out of distribution


def embed(encoder: Encoder, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """float32 [n, d] of RGB pictures uint8 [h, w, 3]; in the encoder's own batches, the last filled
    up with black.

    Up to two small batches take the place of a large one, which costs more than both.
    """
    small = [encoder_input(rgb, encoder.size_px) for rgb in pictures]
    batches = []
    start = 0
    while start < len(small):
        if len(small) - start > 2 * encoder.small_batch:
            size = encoder.batch
        else:
            size = encoder.small_batch
        batch = np.zeros((size, encoder.size_px, encoder.size_px, 3), np.uint8)
        part = small[start : start + size]
        batch[: len(part)] = part
        batches.append(encoder.embed(batch)[: len(part)])
        start += len(part)
    if batches:
        return np.concatenate(batches)
    return np.zeros((0, 0), np.float32)


@dataclass(frozen=True)
class SeenWindow:
    """The embeddings [d] of a window's pictures in order, and of the episode's first one where it is known."""

    task: str
    pictures: Sequence[np.ndarray]
    first: np.ndarray | None = None


@dataclass(frozen=True)
class Answer:
    """At the last picture of a window: progress and the probability of the end state, 0..1.

    ood: 0..1, how much the picture is unlike all of training; at 1 progress is that by change alone, and `done` is
    worth nothing.
    """

    progress: float
    done: float
    ood: float


@torch.inference_mode()
def read_windows(model: LaptopModel, windows: Sequence[SeenWindow]) -> list[Answer]:
    """An answer for each, in order. Windows that are longer than in training lose their oldest pictures; in shorter
    ones the oldest picture stands for those before it."""
    if not windows:
        return []
    laid = np.empty((len(windows), 1 + model.frames, model.width), np.float32)
    for k, window in enumerate(windows):
        window_pictures = list(window.pictures[-model.frames :])
        window_pictures = [window_pictures[0]] * (
            model.frames - len(window_pictures)
        ) + window_pictures
        laid[k] = [window_pictures[0] if window.first is None else window.first, *window_pictures]
    numbers = torch.from_numpy(laid).to(model.device)
    with one_thread():
        output = model(numbers, [w.task for w in windows])
    columns = (values[:, -1].tolist() for values in (output.progress, output.done, output.ood))
    return [Answer(*answer) for answer in zip(*columns, strict=True)]

"""The laptop model: a window of pictures that a frozen encoder has seen, the task in words, progress at each picture.

A picture's token is made of its numbers and of how they differ from those of the run's first picture; the task's words
scale and shift it. A causal transformer goes over the window. So one new frame costs one pass of the encoder, and one
of the transformer over a handful of kept states; what lies before the window has no part in a number.

What training never showed is not taken for what it did show: an instruction of unknown words counts as none, and of a
strange picture progress is told by how much of it has changed (familiar.py).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from annotate.embeddings.encoders import Encoder, identity, load_encoder
from training.errors import ModelError
from training.folder import read_card, write_card
from training.laptop.config import LaptopConfig
from training.laptop.familiar import Familiar
from training.laptop.kind import KIND, SETTINGS
from training.laptop.sentences import SentenceEncoder, open_sentences
from training.laptop.text import hashed_text, hashed_words

WEIGHTS, WIDENED = "model.safetensors", "familiar.widened"
LEAST_SPREAD = 1e-3  # of a number over the pictures of training: below it says nothing
LEAST_KNOWN = 0.5  # of an instruction's words, each by how much it says: with fewer it counts as none


@dataclass(frozen=True)
class LaptopOutput:
    """Logits [n, frames] of progress and of having reached the end state, at each picture of each window.

    strange: 0..1, how much a picture is unlike all of training; by_change: progress as the change since the run's first
    picture has it, which counts in its place.
    score: the preference head's [n, frames], of which only differences count; None of a model without one.
    """

    progress_logit: torch.Tensor
    done_logit: torch.Tensor
    strange: torch.Tensor
    by_change: torch.Tensor
    score: torch.Tensor | None = None

    @property
    def progress(self) -> torch.Tensor:
        return torch.lerp(torch.sigmoid(self.progress_logit), self.by_change, self.strange)

    @property
    def done(self) -> torch.Tensor:
        return torch.sigmoid(self.done_logit)


class LaptopModel(nn.Module):
    """`width`: numbers of a picture; `frames`: pictures of a window. `sentences`: reads the texts, where the
    configuration names one; else they are hashed words."""

    mean: torch.Tensor
    spread: torch.Tensor
    texts: torch.Tensor
    texts_with: torch.Tensor

    def __init__(self, config: LaptopConfig, width: int, frames: int, sentences: SentenceEncoder | None = None) -> None:
        super().__init__()
        self.config, self.width, self.frames = config, width, frames
        d = config.hidden
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.familiar = Familiar(width)
        # How many texts training showed, and how many of them have each word
        self.register_buffer("texts", torch.tensor(0.0))
        self.register_buffer("texts_with", torch.zeros(config.text_buckets))
        self._shown: set[str] = set()
        self.sentences = sentences
        if sentences is None:
            self.words = nn.EmbeddingBag(config.text_buckets, d, mode="sum")
            nn.init.zeros_(self.words.weight)  # a word that training never showed says nothing
        else:
            self.sentence = nn.Linear(sentences.width, d)
        self.task = nn.Linear(d, 2 * d)
        self.look = nn.Linear(width, d)
        self.change = nn.Linear(width, d, bias=False)
        self.feature_dropout = nn.Dropout(config.feature_dropout)
        self.place = nn.Parameter(torch.randn(frames, d) * 0.02)
        layer = nn.TransformerEncoderLayer(
            d, config.heads, 2 * d, config.dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.over_time = nn.TransformerEncoder(layer, config.layers, nn.LayerNorm(d), enable_nested_tensor=False)
        self.heads = nn.Linear(d, 2)
        self.preference = preference_head(d) if config.preference else None

    def normalise_by(self, numbers: np.ndarray) -> None:
        """Take mean and spread of the pictures of training, float [n, width]."""
        found = torch.from_numpy(numbers.astype(np.float32))
        self.mean.copy_(found.mean(0))
        self.spread.copy_(found.std(0).clamp_min(LEAST_SPREAD))

    def learn_the_familiar(self, numbers: np.ndarray, first: np.ndarray, label: np.ndarray) -> None:
        """Of pictures of training, float [n, width], each with its run's first one; label [n], NaN for none."""
        seen, start = (self._normalised(torch.from_numpy(x.astype(np.float32))) for x in (numbers, first))
        self.familiar.learn(seen, start, torch.from_numpy(label.astype(np.float32)))

    def widen_the_familiar(self, numbers: np.ndarray) -> None:
        """Take in pictures of a scene that is learnt after training, float [n, width]."""
        self.familiar.widen(self._normalised(torch.from_numpy(numbers.astype(np.float32)).to(self.mean.device)))

    def _normalised(self, numbers: torch.Tensor) -> torch.Tensor:
        return (numbers - self.mean) / self.spread

    def forward(self, numbers: torch.Tensor, tasks: Sequence[str]) -> LaptopOutput:
        """`numbers`: float [n, 1 + frames, width], the run's first picture before the window's; a task for each."""
        states = self.states(numbers, tasks)
        out = self.heads(states)
        # What the head learns changes nothing for the others
        score = None if self.preference is None else self.preference(states.detach()).squeeze(-1)
        as_seen = self._normalised(numbers)
        strange = self.familiar.strangeness(as_seen[:, 1:])
        by_change = self.familiar.by_change(as_seen[:, 1:], as_seen[:, :1])
        return LaptopOutput(out[..., 0], out[..., 1], strange, by_change, score)

    def states(self, numbers: torch.Tensor, tasks: Sequence[str]) -> torch.Tensor:
        """What the heads read at each picture of each window, [n, frames, hidden]."""
        seen = self.feature_dropout(self._normalised(numbers).clamp(-5, 5))
        first, window = seen[:, :1], seen[:, 1:]
        scale, shift = self.task(self._texts(tasks))[:, None].chunk(2, -1)
        states = self.look(window) + self.change(window - first)
        states = functional.gelu(states * (1 + scale) + shift) + self.place
        mask = nn.Transformer.generate_square_subsequent_mask(self.frames, device=states.device)
        return self.over_time(states, mask=mask, is_causal=True)

    def _texts(self, tasks: Sequence[str]) -> torch.Tensor:
        """[n, hidden]: each text is looked up once."""
        known = {text: k for k, text in enumerate(dict.fromkeys(tasks))}
        place = torch.tensor([known[text] for text in tasks], device=self.mean.device)
        if self.sentences is not None:
            return self.sentence(self.sentences.read(list(known)).to(self.mean.device))[place]
        if self.training:
            self._note(known)
        rows = [hashed_text(text if self._understood(text) else "", self.config.text_buckets) for text in known]
        starts = np.cumsum([0, *(len(r) for r in rows[:-1])])
        device = self.mean.device
        flat = torch.tensor([row for of_text in rows for row in of_text], device=device)
        made = self.words(flat, torch.from_numpy(starts).to(device))
        return made[place]

    def _note(self, texts: Iterable[str]) -> None:
        """What training shows is known from then on."""
        for text in texts:
            rows = hashed_words(text, self.config.text_buckets)
            if rows and text not in self._shown:
                self._shown.add(text)
                self.texts += 1
                self.texts_with[list(rows)] += 1

    def _understood(self, text: str) -> bool:
        """Are enough of its words known? Words that most instructions have say little, known or not; before anything
        was learnt all are."""
        rows = hashed_words(text, self.config.text_buckets)
        if not rows or not self.texts:
            return True
        having = self.texts_with[list(rows)]
        says = torch.log((1 + self.texts) / having.clamp_min(1))
        return bool(says[having > 0].sum() >= LEAST_KNOWN * says.sum())


def preference_head(width: int) -> nn.Module:
    """One score per state. Its first weights take nothing from the chance that the rest of training draws from."""
    with torch.random.fork_rng(devices=[]):
        return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))


def laptop_loss(model: LaptopModel, output: LaptopOutput, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and the mean |progress - label|, over the pictures with a label [n, frames]."""
    known = ~torch.isnan(label)
    wanted = label[known]
    progress = functional.binary_cross_entropy_with_logits(output.progress_logit[known], wanted)
    done = functional.binary_cross_entropy_with_logits(output.done_logit[known], (wanted >= 1).float())
    away = (output.progress[known] - wanted).abs().mean()
    error = away.detach()
    return progress + away + model.config.done_weight * done, error


# In a folder


def save_laptop(model: LaptopModel, encoder: Encoder, folder: Path, card: dict[str, Any]) -> None:
    """Write a checkpoint folder: safetensors and JSON only. The encoder's weights stay where they are: the folder says
    which encoder it is."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous().cpu() for k, v in model.state_dict().items()}, folder / WEIGHTS)
    settings = {
        "model_type": KIND,
        "laptop": model.config.model_dump(mode="json"),
        "width": model.width,
        "frames": model.frames,
        "encoder": encoder_facts(model.config, encoder),
        "text_encoder": None if model.sentences is None else model.sentences.identity,
    }
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
    write_card(folder, card)


def load_laptop(folder: Path, device: str = "cpu") -> tuple[LaptopModel, Encoder, dict[str, Any]]:
    """Model, encoder and card of a checkpoint folder. Raises ModelError, also where the encoder here is another one
    than in training; EncoderError where it cannot be had."""
    card = read_card(folder)
    try:
        settings = json.loads((folder / SETTINGS).read_text())
        config = LaptopConfig(**settings["laptop"])
        sentences = open_sentences(config)
        model = LaptopModel(config, int(settings["width"]), int(settings["frames"]), sentences)
        weights = load_file(folder / WEIGHTS)
        model.familiar.widened = weights.get(WIDENED)  # of an adapted model
        model.load_state_dict(weights)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, ValidationError) as e:
        raise ModelError(f"the checkpoint {folder} cannot be loaded: {' '.join(str(e).split())[:300]}") from e
    encoder = load_encoder(config.embeddings)
    here = encoder_facts(config, encoder)
    if here != settings.get("encoder"):
        raise ModelError(
            f"{folder.name} was trained on what the encoder {settings.get('encoder')} saw, and here it is {here}: "
            "bring that encoder, or train again"
        )
    texts = None if sentences is None else sentences.identity
    if texts != settings.get("text_encoder"):
        raise ModelError(f"{folder.name} was trained on another text encoder than that in {config.text_encoder}")
    return model.to(device).eval(), encoder, card


def encoder_facts(config: LaptopConfig, encoder: Encoder) -> dict[str, str]:
    """What a model is bound to: another encoder's numbers mean nothing to it."""
    return {"title": encoder.title, "identity": identity(config.embeddings)}

"""The laptop model: a window of pictures that a frozen encoder has seen, the task in words, progress at each picture.

A moment's token is made of the numbers of its picture and of how they differ from those of the run's first one; of
several cameras it is the mean over those that show something, and the robot's state is added where it is known. The
task's words scale and shift it. A causal transformer goes over the window. So one new frame costs one pass of the
encoder, and one of the transformer over a handful of kept states; what lies before the window has no part in a number.

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
from training.heads import preference_head
from training.laptop.config import LaptopConfig
from training.laptop.familiar import Familiar
from training.laptop.inputs import CameraInput, CameraShown, StateInput, counted
from training.laptop.kind import KIND, SETTINGS
from training.laptop.layout import NO_STATE, Layout
from training.laptop.sentences import SentenceEncoder, open_sentences
from training.laptop.text import hashed_text, hashed_words

WEIGHTS, WIDENED = "model.safetensors", "familiar.widened"
OF_ONE_CAMERA = ("mean", "spread", "familiar.", "look.", "change.")  # names of weights from before there were several
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
    configuration names one; else they are hashed words. `states`: lengths of the states that it is told."""

    texts: torch.Tensor
    texts_with: torch.Tensor

    def __init__(
        self,
        config: LaptopConfig,
        width: int,
        frames: int,
        sentences: SentenceEncoder | None = None,
        states: tuple[int, ...] = NO_STATE,
    ) -> None:
        super().__init__()
        self.config, self.frames = config, frames
        self.layout = Layout(width, max(1, len(config.cameras)), states)
        d = config.hidden
        familiar = [Familiar(width) for _ in range(self.layout.cameras)]  # first: so chance is drawn in one order
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
        self.cameras = nn.ModuleList(CameraInput(one, width, d) for one in familiar)
        self.feature_dropout = nn.Dropout(config.feature_dropout)
        self.place = nn.Parameter(torch.randn(frames, d) * 0.02)
        layer = nn.TransformerEncoderLayer(
            d, config.heads, 2 * d, config.dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.over_time = nn.TransformerEncoder(layer, config.layers, nn.LayerNorm(d), enable_nested_tensor=False)
        self.heads = nn.Linear(d, 2)
        self.preference = preference_head(d) if config.preference else None
        self.state = StateInput(self.layout.state, d) if states else None

    @property
    def device(self) -> torch.device:
        return self.place.device

    def normalise_by(self, numbers: np.ndarray) -> None:
        """Take mean and spread of the moments of training, float [n, width of the layout]."""
        found = torch.from_numpy(numbers.astype(np.float32))
        for camera, seen in zip(self.inputs, self._by_camera(found), strict=True):
            camera.normalise_by(seen)
        if self.state is not None:
            self.state.normalise_by(found[:, self.layout.pictures :])

    def learn_the_familiar(self, numbers: np.ndarray, first: np.ndarray, label: np.ndarray) -> None:
        """Of moments of training, float [n, width of the layout], each with its run's first one; label [n], NaN for
        none."""
        seen, start = (self._by_camera(torch.from_numpy(x.astype(np.float32))) for x in (numbers, first))
        known = torch.from_numpy(label.astype(np.float32))
        for camera, own, its_start in zip(self.inputs, seen, start, strict=True):
            camera.learn_the_familiar(own, its_start, known)

    def widen_the_familiar(self, numbers: np.ndarray) -> None:
        """Take in moments of a scene that is learnt after training, float [n, width of the layout]."""
        found = torch.from_numpy(numbers.astype(np.float32)).to(self.device)
        for camera, seen in zip(self.inputs, self._by_camera(found), strict=True):
            camera.widen_the_familiar(seen)

    def camera_number(self, name: str | None) -> int:
        """Which of the model's cameras a name is of: itself, or what follows its last dot. One that is not known, or
        has no name, counts as the first."""
        return next((k for k, camera in enumerate(self.config.cameras) if name in _names(camera)), 0)

    def knows_camera(self, name: str) -> bool:
        return any(name in _names(camera) for camera in self.config.cameras)

    @property
    def inputs(self) -> list[CameraInput]:
        return [camera for camera in self.cameras if isinstance(camera, CameraInput)]

    def _by_camera(self, numbers: torch.Tensor) -> Sequence[torch.Tensor]:
        """The numbers [..., picture] of each camera."""
        return numbers[..., : self.layout.pictures].split(self.layout.picture, -1)

    def _looks(self, numbers: torch.Tensor) -> list[CameraShown]:
        return [c.shown(seen) for c, seen in zip(self.inputs, self._by_camera(numbers), strict=True)]

    def forward(self, numbers: torch.Tensor, tasks: Sequence[str]) -> LaptopOutput:
        """`numbers`: float [n, 1 + frames, width of the layout], the run's first moment before the window's, NaN for
        what is not there; a task for each."""
        shown = self._looks(numbers)
        states = self._states(shown, numbers, tasks)
        out = self.heads(states)
        # What the head learns changes nothing for the others
        score = None if self.preference is None else self.preference(states.detach()).squeeze(-1)
        counts = counted(shown)
        strange = _mean([camera.strange for camera in shown], counts)
        by_change = _mean([camera.by_change for camera in shown], counts)
        return LaptopOutput(out[..., 0], out[..., 1], strange, by_change, score)

    def states(self, numbers: torch.Tensor, tasks: Sequence[str]) -> torch.Tensor:
        """What the heads read at each picture of each window, [n, frames, hidden]."""
        return self._states(self._looks(numbers), numbers, tasks)

    def _states(self, shown: list[CameraShown], numbers: torch.Tensor, tasks: Sequence[str]) -> torch.Tensor:
        seen = [self.feature_dropout(camera.seen.clamp(-5, 5)) for camera in shown]
        scale, shift = self.task(self._texts(tasks))[:, None].chunk(2, -1)
        tokens = [c.token(x, s.there) for c, x, s in zip(self.inputs, seen, shown, strict=True)]
        states = _mean(tokens, counted(shown).unsqueeze(-1))
        if self.state is not None:
            states = states + self.state(numbers[..., self.layout.pictures :])
        states = functional.gelu(states * (1 + scale) + shift) + self.place
        mask = nn.Transformer.generate_square_subsequent_mask(self.frames, device=states.device)
        return self.over_time(states, mask=mask, is_causal=True)

    def _texts(self, tasks: Sequence[str]) -> torch.Tensor:
        """[n, hidden]: each text is looked up once."""
        known = {text: k for k, text in enumerate(dict.fromkeys(tasks))}
        place = torch.tensor([known[text] for text in tasks], device=self.device)
        if self.sentences is not None:
            return self.sentence(self.sentences.read(list(known)).to(self.device))[place]
        if self.training:
            self._note(known)
        rows = [hashed_text(text if self._understood(text) else "", self.config.text_buckets) for text in known]
        starts = np.cumsum([0, *(len(r) for r in rows[:-1])])
        device = self.device
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


def _names(camera: str) -> tuple[str, str]:
    """What a camera goes by: its name in the lake, and the last part of it."""
    return camera, camera.rpartition(".")[2]


def _mean(parts: Sequence[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    """The mean of some tensors, weighed; 0 where all weights are. Of one tensor that counts, itself."""
    return (torch.stack(list(parts)) * weights).sum(0) / weights.sum(0).clamp_min(1)


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
        "width": model.layout.picture,
        "states": list(model.layout.states),
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
        states = tuple(map(int, settings.get("states", NO_STATE)))
        model = LaptopModel(config, int(settings["width"]), int(settings["frames"]), sentences, states)
        weights = _of_cameras(load_file(folder / WEIGHTS))
        for k, camera in enumerate(model.inputs):
            camera.familiar.widened = weights.get(f"cameras.{k}.{WIDENED}")  # of an adapted model
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


def _of_cameras(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With the names of today."""
    return {f"cameras.0.{name}" if name.startswith(OF_ONE_CAMERA) else name: value for name, value in weights.items()}


def encoder_facts(config: LaptopConfig, encoder: Encoder) -> dict[str, str]:
    """What a model is bound to: another encoder's numbers mean nothing to it."""
    return {"title": encoder.title, "identity": identity(config.embeddings)}

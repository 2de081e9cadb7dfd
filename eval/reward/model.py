"""Checkpoints of ours in this process: the head from one prefill, words by generation; each picture is seen once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import batched, starmap
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.reward.scorer import CameraView, PictureQuestion, Reward, Scorer
from eval.reward.stream import StreamPicture
from eval.reward.text import read_words
from eval.reward.window import RewardError, Window, trained_window
from eval.runners.local import generate
from eval.runners.prompt import AnswerName, Sampling, apart
from training.folder import folder_hash
from training.model import Head, ProgressModel, Vision, encoder_outputs, load_model
from training.pictures import Item
from training.pixels import Batch, device, joined, normalised
from training.transform import Transform

BATCH = 32  # views in one forward pass of the language model
LIKELIEST_WORDS = Sampling()


class ModelScorer(Scorer):
    """`reasoning`: the model answers in words, too. A model without a head always does, and its number is in them.

    `answer`: auto is the head where it reads the question alone. ProcVLM's reads the model's own answer, too: a number
    is in the words, and with `head` the head's, in a second pass, of a converted one as its authors serve it. Raises
    RewardError for a head that is not there.
    """

    def __init__(
        self,
        model: ProgressModel,
        transform: Transform,
        window: Window | None,
        card: Mapping[str, Any],
        *,
        reasoning: bool = False,
        answer: AnswerName = "auto",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(window, card)
        # What was calibrated is what is served by default
        self.success = self.success if answer == "auto" else None
        self.model, self.transform = model.to(device()), transform
        if answer == "head" and model.head is None:
            raise RewardError("the model has no progress head: leave --answer head out")
        needs_words = model.head is not None and model.head.config.pooling == "published"
        self.by_head = model.head is not None and answer != "text" and (answer == "head" or not needs_words)
        self.after_words, self.is_published = self.by_head and needs_words, "converted_from" in card
        self.source = "head" if self.by_head else "text"
        self.reasoning = reasoning or self.after_words or not self.by_head
        told = "head after text" if self.after_words else self.source
        self.settings = {"answer": told, **(settings or {}), **(LIKELIEST_WORDS.__dict__ if self.reasoning else {})}

    def make_ready(self, picture: StreamPicture) -> None:
        """Cut the picture into patches. Raises ValueError for one of a shape that the model cannot see."""
        # In this order: the scoring thread keeps what it has seen before it throws the patches away
        if picture.cut is None and picture.seen is None:
            picture.cut = self.transform.patches([picture.rgb])

    def views(self, views: Sequence[CameraView]) -> list[Reward]:
        return self.ask([v.asked for v in views])

    def ask(self, questions: Sequence[PictureQuestion]) -> list[Reward]:
        """A reward for each, in order."""
        rewards: list[Reward] = []
        for part in batched(questions, BATCH):
            rewards += apart(part, self._batch, lambda _, why: Reward(self.source, None, failure=why))
        return rewards

    @torch.inference_mode()
    def _batch(self, questions: Sequence[PictureQuestion]) -> list[Reward]:
        """Rewards of questions in one forward pass, and of words in one generation."""
        items = [Item(q.text, tuple(p.rgb for p in q.pictures), system=q.system) for q in questions]
        vision = self._seen([p for q in questions for p in q.pictures], items)
        words = self._words(items, vision) if self.reasoning else []
        in_words = [read_words(w, q.has_steps) for w, q in zip(words, questions, strict=bool(words))]
        if not self.by_head:
            return in_words
        if self.after_words:
            items = [replace(i, answer=w) for i, w in zip(items, words, strict=True)]
        rewards = self._by_head(items, vision)
        if not in_words:
            return rewards
        return [replace(r, reasoning=w.reasoning) for r, w in zip(rewards, in_words, strict=True)]

    def _by_head(self, items: Sequence[Item], vision: Sequence[Vision]) -> list[Reward]:
        """What the head says, from features of the pictures that were computed before."""
        output = self.model(_placed(self.transform.seen(items, [v.grid for v in vision])), vision=vision)
        progress = output.progress
        if self.is_published and output.raw is not None and self.model.head is not None:
            progress = Head.progress(self.model.head, output.raw)
        progress = progress.float().tolist()
        if output.done is None:
            return [Reward("head", p) for p in progress]
        done = output.done.float().tolist()
        return [Reward("head", p, d) for p, d in zip(progress, done, strict=True)]

    def _seen(self, pictures: Sequence[StreamPicture], items: Sequence[Item]) -> list[Vision]:
        """What the vision tower makes of the items' pictures, in order. Those that it has not seen yet, or in another
        size (a window with more pictures may leave each less room), it sees now, all at once. `seen` is by shape."""
        shown = list(zip(pictures, (rgb for i in items for rgb in self.transform.pictures(i)), strict=True))
        new = {(id(p), rgb.shape): (p, rgb) for p, rgb in shown if rgb.shape not in (p.seen or {})}
        if new:
            pixels = normalised(_placed(joined(list(starmap(self._cut, new.values())))))
            for (p, rgb), vision in zip(new.values(), self.model.see(pixels), strict=True):
                p.seen, p.seen_bytes = {**(p.seen or {}), rgb.shape: vision}, p.seen_bytes + vision.nbytes
                p.cut = None
        return [p.seen[rgb.shape] for p, rgb in shown]

    def _cut(self, picture: StreamPicture, rgb: np.ndarray) -> Batch:
        """The patches of a picture as a window shows it, `rgb`: those made before where that is in its own size."""
        cut = picture.cut
        return cut if cut is not None and rgb.shape == picture.rgb.shape else self.transform.patches([rgb])

    def _words(self, items: Sequence[Item], vision: Sequence[Vision]) -> list[str]:
        """The likeliest answer of each, in words."""
        batch = _left_padded(self.transform.seen(items, [v.grid for v in vision]))
        tokenizer, pictures = self.transform.processor.tokenizer, encoder_outputs(vision)
        made = generate(
            self.model.backbone, tokenizer, _placed(batch), LIKELIEST_WORDS, (), mm_encoder_outputs=pictures
        )
        return tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def _placed(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v.to(device()) for k, v in batch.items()}


def _left_padded(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch for generation: all answers begin at the same place."""
    lengths = batch["attention_mask"].sum(1).tolist()
    kept = ("input_ids", "attention_mask", "mm_token_type_ids")
    rolled = {k: torch.stack([row.roll(len(row) - n) for row, n in zip(batch[k], lengths, strict=True)]) for k in kept}
    return rolled | {"image_grid_thw": batch["image_grid_thw"]}


def open_model(
    folder: Path,
    *,
    window: Window | None = None,
    reasoning: bool = False,
    answer: AnswerName = "auto",
) -> ModelScorer:
    """A checkpoint of ours. `window` is for those that do not say what they were trained on. Raises ModelError,
    RewardError: for another window than the model's above all."""
    trained = trained_window(folder, window)  # before the weights are read
    model, processor, card = load_model(folder)
    settings = {"runner": "transformers", "model_hash": folder_hash(folder), "window": str(trained)}
    return ModelScorer(
        model, Transform(processor), trained, card, reasoning=reasoning, answer=answer, settings=settings
    )

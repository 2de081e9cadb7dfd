"""From a sample to model inputs: the one message builder and the one transform, for training and for evaluation.

A sample's question has one <image> mark per picture; the chat message puts the pictures there. Pictures are shrunk to
`max_px` on the longer side before the processor sees them, so both paths work on the same pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

IMAGE_MARK = "<image>"
IGNORE = -100  # label of tokens without loss
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Item:
    """One question with its pictures (uint8 RGB [h, w, 3] each); answer and progress are None when it is only asked."""

    question: str
    pictures: tuple[np.ndarray, ...]
    answer: str | None = None
    progress: float | None = None


def decode_picture(jpeg: bytes, max_px: int) -> np.ndarray:
    """JPEG bytes to RGB, no larger than max_px on the longer side. Raises ValueError for what is not a picture."""
    bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError("a sample's picture is not a JPEG")
    return shrink(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), max_px)


def shrink(rgb: np.ndarray, max_px: int) -> np.ndarray:
    height, width = rgb.shape[:2]
    scale = max_px / max(height, width)
    if scale >= 1:
        return rgb
    return cv2.resize(rgb, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA)


def chat(question: str) -> list[dict[str, Any]]:
    """The user's turn: text with a picture wherever the question has a mark."""
    parts: list[dict[str, Any]] = []
    for i, text in enumerate(question.split(IMAGE_MARK)):
        if i:
            parts.append({"type": "image"})
        if text:
            parts.append({"type": "text", "text": text})
    return [{"role": "user", "content": parts}]


@dataclass(frozen=True)
class Transform:
    """Items to one padded batch. `processor` is the model's own (pictures, chat template, tokenizer)."""

    processor: Any

    def __call__(self, items: Sequence[Item]) -> Batch:
        """input_ids, attention_mask, mm_token_type_ids, prompt_mask, labels [b, t]; progress [b]; pictures' tensors.

        prompt_mask is 1 on vision and question tokens, all that stands before the answer; labels are IGNORE there;
        progress is NaN where an item has none. Raises ValueError when marks and pictures do not match.
        """
        tokenizer = self.processor.tokenizer
        prompts, answers, images = [], [], []
        for item in items:
            if item.question.count(IMAGE_MARK) != len(item.pictures):
                marks = item.question.count(IMAGE_MARK)
                raise ValueError(f"{marks} image marks for {len(item.pictures)} pictures")
            turn = chat(item.question)
            prompts.append(self.processor.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
            images += item.pictures
            answer = "" if item.answer is None else item.answer + tokenizer.eos_token
            answers.append(tokenizer(answer, add_special_tokens=False)["input_ids"])
        encoded = self.processor(text=prompts, images=images or None, padding=False, return_tensors=None)
        ids = [list(p) + list(a) for p, a in zip(encoded["input_ids"], answers, strict=True)]
        length = max(map(len, ids))
        shape = (len(items), length)
        batch: Batch = {
            "input_ids": torch.full(shape, tokenizer.pad_token_id),
            "attention_mask": torch.zeros(shape, dtype=torch.long),
            "prompt_mask": torch.zeros(shape, dtype=torch.long),
            "labels": torch.full(shape, IGNORE),
        }
        for row, (tokens, answer) in enumerate(zip(ids, answers, strict=True)):
            n, prompt = len(tokens), len(tokens) - len(answer)
            batch["input_ids"][row, :n] = torch.tensor(tokens)
            batch["attention_mask"][row, :n] = 1
            batch["prompt_mask"][row, :prompt] = 1
            batch["labels"][row, prompt:n] = torch.tensor(answer, dtype=torch.long)
        image_token = tokenizer.convert_tokens_to_ids(self.processor.image_token)
        batch["mm_token_type_ids"] = (batch["input_ids"] == image_token).long()
        for name in ("pixel_values", "image_grid_thw"):
            if name in encoded:
                batch[name] = torch.as_tensor(np.asarray(encoded[name]))
        progress = [float("nan") if i.progress is None else i.progress for i in items]
        batch["progress"] = torch.tensor(progress, dtype=torch.float32)
        return batch

"""A sample before any model: its pictures, decoded and made no larger than a model sees, and its message. No torch."""

import re
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from core.pictures import decode_stored
from core.values import IMAGE_MARK, PLAIN_IMAGE

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Item:
    """One question with its pictures (uint8 RGB [h, w, 3] each); answer and progress are None when it is only asked."""

    question: str
    pictures: tuple[np.ndarray, ...]
    answer: str | None = None
    progress: float | None = None
    system: str = ""


def decode_picture(jpeg: bytes, max_px: int) -> np.ndarray:
    """JPEG bytes to RGB, no larger than max_px on the longer side. Raises ValueError for what is not a picture."""
    return shrink(decode_stored(jpeg, "a sample's picture", cv2.IMREAD_COLOR_RGB), max_px)


def shrink(rgb: np.ndarray, max_px: int) -> np.ndarray:
    """A picture made no larger than max_px on its longer side, by an area average over all of its pixels.

    Its pixels differ from those of annotate.pictures.fitted_picture, which is quicker and makes
    stored pictures.
    """
    return shrunk_to(rgb, shrunk(size_of(rgb), max_px))


def size_of(rgb: np.ndarray) -> Size:
    return rgb.shape[0], rgb.shape[1]


def shrunk_to(rgb: np.ndarray, size: Size) -> np.ndarray:
    if size == size_of(rgb):
        return rgb
    return cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA)


def shrunk(size: Size, max_px: int) -> Size:
    """Of a picture made no larger than max_px on its longer side."""
    scale = max_px / max(size)
    if scale >= 1:
        return size
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


# Where a token of a chat template begins, of Qwen's families and of others that are evaluated
CONTROL = re.compile(
    r"<(?=\||/?(?:s|img|pad|unk|bos|eos|IMG_CONTEXT|(?:start|end)_of_(?:turn|image))>)"
)


def as_text(text: str) -> str:
    """A text of a dataset's such that no tokenizer finds a control token in it: a blank stands after its first sign."""
    return CONTROL.sub("< ", text)


def chat(question: str, system: str = "") -> list[dict[str, Any]]:
    """The user's turn, after the system's where there is one: text with a picture wherever the question has a mark."""
    parts: list[dict[str, Any]] = []
    for i, text in enumerate(question.split(IMAGE_MARK)):
        if i:
            parts.append({"type": "image"})
        if text:
            parts.append({"type": "text", "text": as_text(text.replace(PLAIN_IMAGE, IMAGE_MARK))})
    if system:
        system_messages = [
            {"role": "system", "content": [{"type": "text", "text": as_text(system)}]}
        ]
    else:
        system_messages = []
    return [*system_messages, {"role": "user", "content": parts}]

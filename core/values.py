"""Values as JSON has them, some of many, and the mark that stands for a picture in a text."""

import hashlib
import math
import pkgutil
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeGuard

# Control characters but tab and line ends, and marks that turn the direction of a text: they belong to no text, and
# command the terminal or hide what is written
MARKS = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
ANY_MARK = re.compile(rf"{MARKS.pattern}|\x1b")
IMAGE_MARK = "<image>"  # stands in a question where a picture goes, in samples as in benchmarks
PLAIN_IMAGE = "\ue000image\ue000"  # stands where the word <image> itself is meant


def imported(path: str) -> Callable[..., Any]:
    """The function of an import path `module:name`, whose module is imported when it is called."""
    return lambda *values, **options: pkgutil.resolve_name(path)(*values, **options)


def escaped(match: re.Match[str]) -> str:
    """A character as JSON writes it."""
    return f"\\u{ord(match[0]):04x}"


def shown(text: str) -> str:
    """A text of a dataset's as a person may read it, with nothing in it that commands or hides."""
    return ANY_MARK.sub(escaped, text)


def short_hash(text: str) -> str:
    """The first 16 hex digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_index(value: Any) -> TypeGuard[int]:
    """Is it a whole number from 0?"""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def image_marks(count: int) -> str:
    """So many pictures, one a line."""
    return "\n".join([IMAGE_MARK] * count)


def grouped[K, V](pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    """The values of each key, in order. Example: a: 1, b: 2, a: 3 are a: [1, 3] and b: [2]."""
    groups: dict[K, list[V]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def spread[T](items: Sequence[T], count: int) -> list[T]:
    """Up to so many of the items at equal distances, the first and the last among them."""
    if count < 2 or len(items) <= count:
        return list(items[: max(count, 0)])
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def plain(value: Any) -> Any:
    """A value as JSON has it: NaN and infinities become null, what JSON does not know becomes text."""
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return None
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)

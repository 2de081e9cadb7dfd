"""Values as JSON has them, some of many, and the mark that stands for a picture in a text."""

import math
from collections.abc import Sequence
from typing import Any

IMAGE_MARK = "<image>"  # stands in a question where a picture goes, in samples as in benchmarks
PLAIN_IMAGE = "\ue000image\ue000"  # stands where the word <image> itself is meant


def spread[T](items: Sequence[T], count: int) -> list[T]:
    """Up to so many of the items at equal distances, the first and the last among them."""
    if count < 2 or len(items) <= count:
        return list(items[: max(count, 0)])
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def plain(value: Any) -> Any:
    """A value as JSON has it: NaN and infinities become null, what JSON does not know becomes text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)

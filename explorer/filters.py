"""The filters of the templates: numbers, sizes and times as people read them, and data for scripts."""

import json
import shlex
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from annotate.quality import END_WORDS
from core.values import plain

UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def count(value: float | None) -> str:
    """12345 as 12,345; nothing as a dash."""
    return "–" if value is None else f"{round(value):,}"


def number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "–"
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits else text


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def seconds(value: float | None) -> str:
    """1:02.5 of 62.5."""
    if value is None:
        return "–"
    minutes, rest = divmod(round(value, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}"


def size(value: float | None) -> str:
    if value is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def age(then: datetime, now: datetime | None = None) -> str:
    """How long ago, in the largest unit that fits."""
    passed = ((now or datetime.now(UTC)) - then).total_seconds()
    for length, name in UNITS:
        if passed >= length:
            n = int(passed // length)
            return f"{n} {name}{'s' if n > 1 else ''} ago"
    return "just now"


def moment(then: datetime | None) -> str:
    return "–" if then is None else then.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def several(number: int, one: str, many: str = "") -> str:
    """3 runs of 3 and "run"; `many`: where it is more than an s."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def data(value: Any) -> Markup:
    """JSON for a script element that holds data: no text in it can end the element."""
    text = json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def short(name: str) -> str:
    """A camera's or a dimension's name without what LeRobot puts before each of them."""
    return name.removeprefix("observation.").removeprefix("images.") or name


FILTERS = {f.__name__: f for f in (count, number, percent, seconds, size, age, moment, several, data, short)}
FILTERS |= {"shell": shlex.quote, "end_by": END_WORDS.__getitem__}  # what says how a run ended, in words

"""Which pictures are shown, and what one look at them says: spans, known to the distance between two pictures."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from annotate.model_client.calls import VlmError
from annotate.segments import DONE, IDLE
from annotate.vlm.config import VlmConfig
from annotate.vlm.schemas import ACHIEVED

TILES = 9  # pictures in a contact sheet
MIN_SHOWN = 8  # pictures of a short episode
THIN_UP_TO = 1.5  # times the capacity: up to there fewer pictures are taken, since one window sees more than two halves

Window = tuple[int, ...]  # frames, ascending; picture k of a request, counted from 1, shows frame [k - 1]


@dataclass(frozen=True)
class Span:
    """An activity up to the next span, or to the end of what was seen. It begins in frames after + 1 .. start."""

    label: int | str  # planned step from 0, idle or done
    after: int  # last shown frame before it; -1 for the first span
    start: int  # first shown frame of it; 0 for the first span
    completed: bool
    notes: tuple[str, ...] = ()


def capacity(config: VlmConfig) -> int:
    """Pictures in one request."""
    return config.max_images * (TILES if config.contact_sheet else 1)


def shown_frames(coarse: Sequence[int], num_frames: int, config: VlmConfig) -> Window:
    """The frames that are shown: the coarse keyframes and the last frame, which tells how the run ended.

    A short episode is shown in evenly spread frames instead; one that is a little too long for a request, in fewer.
    """
    limit = capacity(config)
    frames = sorted({0, num_frames - 1, *(f for f in coarse if 0 <= f < num_frames)})
    least = min(MIN_SHOWN, limit, num_frames)
    if len(frames) < least:
        return spread(range(num_frames), least)
    if limit < len(frames) <= THIN_UP_TO * limit:
        return spread(frames, limit)
    return tuple(frames)


def shifted_frames(shown: Window) -> Window:
    """As many frames half-way between those shown, for a second look; the first and the last are the same.

    Where the shown frames lie side by side, every other one.
    """
    middle = {(a + b) // 2 for a, b in list(pairwise(shown))[1:]}
    shifted = tuple(sorted({shown[0], shown[-1], *middle}))
    return shifted if not set(shifted) <= set(shown) else tuple(sorted({*shown[::2], shown[-1]}))


def spread(frames: Sequence[int], count: int) -> Window:
    """`count` of the frames, evenly spread, the first and the last among them; all when there are no more."""
    if len(frames) <= count:
        return tuple(frames)
    return tuple(frames[i] for i in np.linspace(0, len(frames) - 1, count).round().astype(int))


def windows(shown: Window, config: VlmConfig) -> list[Window]:
    """Stretches of the shown frames that one request can hold, neighbours overlapping by at least overlap_images."""
    size = capacity(config)
    if len(shown) <= size:
        return [shown]
    stride = size - min(config.overlap_images, size // 2)
    count = 1 + -(-(len(shown) - size) // stride)
    starts = [round(i * (len(shown) - size) / (count - 1)) for i in range(count)]
    return [shown[a : a + size] for a in starts]


def spans_of(value: Mapping[str, Any], window: Window, num_steps: int) -> list[Span]:
    """The spans that a reply of the segment stage tells. Raises VlmError when it is none.

    The schema keeps pictures within the window; servers that do not know schemas might not. Pictures out of range are
    clipped, changes sorted, of several at one picture the last counts, repeated idle or done is one span: each noted.
    """
    labels = {str(k + 1): k for k in range(num_steps)} | {IDLE: IDLE, DONE: DONE}
    try:
        changes = [(_picture(c["picture"]), labels[c["label"]], c["outcome"] == ACHIEVED) for c in value["changes"]]
        first = Span(labels[value["first"]["label"]], -1, window[0], value["first"]["outcome"] == ACHIEVED)
    except (KeyError, TypeError, AttributeError) as e:
        raise VlmError("bad_reply", f"the reply of the segment stage is not what was asked for: {e!r}") from None
    at: dict[int, Span] = {}
    latest = 0
    for told, label, completed in changes:
        picture = min(max(told, 2), len(window))
        notes = () if picture == told else (f"picture {told} is not among 2-{len(window)}: clipped",)
        if picture < latest:
            notes += ("changes not in the order of time: sorted",)
        if picture in at:
            notes += (*at[picture].notes, f"several changes at picture {picture}: the last one counts")
        latest = max(latest, picture)
        at[picture] = Span(label, window[picture - 2], window[picture - 1], completed, notes)
    if not changes:
        first = replace(first, notes=("no change was told",))
    return _joined([first, *(at[k] for k in sorted(at))])


def _picture(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"{number!r} is not the number of a picture")
    return number


def _joined(spans: Sequence[Span]) -> list[Span]:
    """Idle after idle, and done after done, is one span; a step after itself is a new attempt."""
    out: list[Span] = []
    for s in spans:
        if out and s.label == out[-1].label and s.label in (IDLE, DONE):
            notes = (*out[-1].notes, *s.notes, f"{s.label} told again at frame {s.start}: merged")
            out[-1] = replace(out[-1], completed=s.completed, notes=tuple(dict.fromkeys(notes)))
        else:
            out.append(s)
    return out


def merged(parts: Sequence[tuple[Window, list[Span]]]) -> list[Span]:
    """The spans of all windows. Two windows are joined where they agree, nearest to the middle of their overlap.

    Where they agree nowhere, the later window counts from the middle on, and that is noted.
    """
    (seen, spans), *rest = parts
    for window, later in rest:
        overlap = seen[bisect_left(seen, window[0]) :]
        middle = len(overlap) // 2
        agreed = [i for i, f in enumerate(overlap) if label_at(spans, f) == label_at(later, f)]
        starts = {s.start for s in (*spans, *later[1:])}
        best = min(agreed, key=_preference(overlap, starts), default=middle)
        cut = overlap[best]
        head = [s for s in spans if s.start < cut or (agreed and s.start == cut)]
        over = later[_index(later, cut)]
        tail = [s for s in later if s.start > cut]
        if over.label == head[-1].label:
            notes = tuple(dict.fromkeys((*head[-1].notes, *over.notes)))
            head[-1] = replace(head[-1], completed=over.completed, notes=notes)
        else:
            before = seen[bisect_left(seen, cut) - 1]
            head.append(replace(over, after=before, start=cut, notes=(*over.notes, "windows disagree here")))
        if tail and over is later[0] and _one_retry(head, [s for s in spans if s.start > cut], tail[0], overlap):
            head[-1], tail = replace(head[-1], completed=tail[0].completed), tail[1:]
        spans = _joined([*head, *tail])
        seen = seen + tuple(f for f in window if f > seen[-1])
    return spans


def _preference(overlap: Window, starts: set[int]) -> Callable[[int], tuple[bool, int]]:
    """Of the overlap's frames, those first at which no span starts, then the middle ones."""
    return lambda i: (overlap[i] in starts, abs(i - len(overlap) // 2))


def _one_retry(head: list[Span], unused: list[Span], next_: Span, overlap: Window) -> bool:
    """Did each window see one new attempt at a step within the overlap, on either side of the cut: the same one?"""
    return (
        len(head) > 1
        and head[-1].start >= overlap[0]
        and head[-2].label == head[-1].label == next_.label
        and next_.start <= overlap[-1]
        and not (unused and unused[0].label == next_.label)
    )


def _index(spans: Sequence[Span], frame: int) -> int:
    return max(0, bisect_right([s.start for s in spans], frame) - 1)


def label_at(spans: Sequence[Span], frame: int) -> int | str:
    return spans[_index(spans, frame)].label


def search_ranges(spans: Sequence[Span], num_frames: int) -> list[tuple[int, int]]:
    """For each span but the first: the frames (least, greatest) among which its beginning is searched.

    That is where the coarse pictures put it and, as they may mislead, a quarter more on either side, but never more
    than half of the way to the neighbour's: the ranges are apart and in order, so boundaries cannot cross.
    """
    known = [(0, 0), *((s.after + 1, s.start) for s in spans[1:]), (num_frames, num_frames)]
    ranges = []
    for (_, end_before), (low, high), (start_after, _) in zip(known, known[1:], known[2:], strict=False):
        margin = (high - low + 1) // 4
        ranges.append(
            (low - min(margin, (low - end_before - 1) // 2), high + min(margin, (start_after - high - 1) // 2))
        )
    return ranges


def dense_frames(low: int, high: int, count: int) -> Window:
    """At most `count` frames to find a boundary among low .. high: the one before, and candidates up to `high`."""
    size = high - low + 1
    parts = min(count - 1, size)
    return (low - 1, *(low - 1 + -(-i * size // parts) for i in range(1, parts + 1)))

"""Charts as SVG, drawn on the server: no script, no style attribute; colours come from
the style sheet's classes.

A chart stretches to its box, so text is never inside what stretches: axes are words
around it, in the templates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from markupsafe import Markup

MAX_POINTS = 2400  # of a curve; twice what a screen shows, for a look at a part of it
WIDTH = 1000.0
STEP_COLOURS = 8  # that the style sheet has for the steps of a plan


@dataclass(frozen=True)
class Curve:
    """Values over frames. `kind` is a class of the style sheet, `name` what the legend
    and the cursor say.

    `shown`: is it drawn before anybody switches it on?
    """

    name: str
    frames: Sequence[int]
    values: Sequence[float | None]
    kind: str
    shown: bool = True


def _grid() -> str:
    lines = (f'<line x1="0" x2="{WIDTH:g}" y1="{y}" y2="{y}"/>' for y in (0, 25, 50, 75, 100))
    return f'<g class="grid">{"".join(lines)}</g>'


def curves(lines: Sequence[Curve], num_frames: int, low: float = 0.0, high: float = 1.0) -> Markup:
    """Curves over the frames of an episode, stretched over the whole box."""
    body = "".join(path(line, num_frames, low, high) for line in lines)
    return _svg(f"{_grid()}{body}", "curves")


def path(line: Curve, num_frames: int, low: float = 0.0, high: float = 1.0) -> str:
    """One path; a missing value is a gap, a single value between gaps a dot."""
    points = list(zip(line.frames, line.values, strict=True))
    # Points beyond what a screen can show only make the page larger
    step = max(1, ceil(len(points) / MAX_POINTS))
    span = (high - low) or 1.0
    parts: list[str] = []
    pen_down = False
    for frame, value in points[::step]:
        if value is None:
            pen_down = False
            continue
        # A value stands at the middle of its frame, as segments' boxes do; SVG counts y from the top down
        x = WIDTH * (frame + 0.5) / max(1, num_frames)
        y = 100 * (1 - (min(high, max(low, value)) - low) / span)
        parts.append(f"{'L' if pen_down else 'M'}{x:.1f} {y:.1f}")
        pen_down = True
    if len(parts) == 1:
        parts.append("h.01")  # a path of one point shows nothing; a very short line shows a dot
    kind = escape(line.kind if line.shown else f"{line.kind} off")
    return f'<path class="{kind}" d="{"".join(parts)}"><title>{escape(line.name)}</title></path>'


def runs_plot(
    bands: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    median: Curve,
    lines: Sequence[tuple[Curve, str]],
) -> Markup:
    """Curves from 0 to 1 of several runs over one another, before bands (kind, low, high)
    and a median. lines: the curve of each run, and the address that it leads to.

    All have one value for each place, and equally many.
    """
    n = len(median.values)
    areas = "".join(_area(kind, low, high) for kind, low, high in bands)
    links = "".join(_run_link(curve, address, n) for curve, address in lines)
    body = f"{_grid()}{areas}{links}{path(median, n)}"
    return Markup(
        f'<svg class="curves runs" viewBox="0 0 {WIDTH:g} 100" preserveAspectRatio="none" role="group"'
        f' aria-label="Progress of the runs">{body}</svg>'
    )


def _area(kind: str, low: Sequence[float], high: Sequence[float]) -> str:
    """What lies between two curves from 0 to 1."""

    def edge(values: Sequence[float]) -> list[str]:
        n = len(values)
        return [f"{WIDTH * (k + 0.5) / n:.1f} {100 * (1 - v):.1f}" for k, v in enumerate(values)]

    points = [*edge(high), *reversed(edge(low))]
    return f'<path class="band {escape(kind)}" d="M{"L".join(points)}Z"/>'


def _run_link(curve: Curve, address: str, num_places: int) -> str:
    """A curve that can be clicked: a broader one lies below it, which nobody sees."""
    drawn = path(curve, num_places)
    broad = drawn.replace(f'class="{escape(curve.kind)}"', 'class="broad"')
    return f'<a href="{escape(address)}" aria-label="{escape(curve.name)}">{broad}{drawn}</a>'


def _place(value: float, ends: tuple[float, float]) -> float:
    """Where a value stands between two ends, 0..1."""
    width = (ends[1] - ends[0]) or 1.0
    return min(1.0, max(0.0, (value - ends[0]) / width))


def lengths(
    quantiles: tuple[float, float, float, float, float],
    outliers: Sequence[tuple[float, str, str]],
    ends: tuple[float, float],
) -> Markup:
    """Lengths on a line from ends[0] to ends[1]: a box of the middle half, a line for
    nearly all; and single odd ones: value, words and address of each.
    """
    low, lower, median, upper, high = (100 * _place(value, ends) for value in quantiles)
    body = (
        '<line class="axis" x1="0" x2="100%" y1="50%" y2="50%"/>'
        f'<line class="range thin" x1="{low:.2f}%" x2="{high:.2f}%" y1="50%" y2="50%"/>'
        f'<rect x="{lower:.2f}%" width="{max(0.3, upper - lower):.2f}%" y="20%" height="60%"/>'
        f'<line class="value" x1="{median:.2f}%" x2="{median:.2f}%" y1="10%" y2="90%"/>'
    )
    for value, words, address in outliers:
        x = 100 * _place(value, ends)
        body += (
            f'<a href="{escape(address)}" aria-label="{escape(words)}"><circle cx="{x:.2f}%" cy="50%" r="4.5">'
            f"<title>{escape(words)}</title></circle></a>"
        )
    return Markup(f'<svg class="lengths" role="group" aria-label="Lengths">{body}</svg>')


PICTURE = (160, 60)  # px
# Of steps in a file of its own, in the order of the style sheet's
PICTURE_COLOURS = (
    "#6fa3d8",
    "#e0a05c",
    "#7fb86b",
    "#d9788a",
    "#9d8bd8",
    "#b08a72",
    "#d27fc0",
    "#b3b558",
)
IDLE_COLOUR = "#a9b2bb"


def picture(line: Curve, segments: Sequence[tuple[int, int, int | None]], num_frames: int) -> str:
    """A curve from 0 to 1 above a strip of segments (start, end, step), in colours that
    show on light and on dark.
    """
    width, height = PICTURE
    strip = "".join(
        f'<rect x="{WIDTH * start / num_frames:.1f}" width="{WIDTH * (end - start) / num_frames:.1f}" y="84"'
        f' height="16" fill="{IDLE_COLOUR if step is None else PICTURE_COLOURS[step % STEP_COLOURS]}"/>'
        for start, end, step in segments
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {WIDTH:g} 100"'
        f' preserveAspectRatio="none">{strip}<g fill="none" stroke="#4f86ba" stroke-width="2"'
        f' transform="scale(1 0.8)">{path(line, num_frames, 0.0, 1.0)}</g></svg>'
    ).replace("<path ", '<path vector-effect="non-scaling-stroke" ')


def bars(counts: Sequence[tuple[str, float]], label: str) -> Markup:
    """A histogram: bars side by side; each has its name and number as a title."""
    top = max((count for _, count in counts), default=0) or 1
    n = max(1, len(counts))
    width = max(1.0, WIDTH / n - 2)
    body = "".join(
        f'<rect x="{WIDTH * k / n + 1:.2f}" y="{100 - 100 * count / top:.2f}" width="{width:.2f}"'
        f' height="{100 * count / top:.2f}"><title>{escape(name)}: {count:,.4g}</title></rect>'
        for k, (name, count) in enumerate(counts)
    )
    return _svg(body, "bars", label)


def spans(
    segments: Sequence[Mapping], num_frames: int, moved_boundaries: frozenset[int] = frozenset()
) -> Markup:
    """Segments side by side over an episode's frames, with their names;
    `moved_boundaries`: boundaries to highlight.
    """
    n = max(1, num_frames)
    body = [_span(segment, n) for segment in segments]
    places = (f"{100 * boundary / n:.4f}%" for boundary in sorted(moved_boundaries))
    body += [f'<line class="moved" x1="{x}" x2="{x}" y1="0" y2="100%"/>' for x in places]
    return Markup(
        f'<svg class="spans" width="100%" height="100%" aria-hidden="true">{"".join(body)}</svg>'
    )


def stretches(faults: Sequence[Mapping], num_frames: int, fps: float) -> Markup:
    """Stretches in which checks found a fault, a row for each check, over an episode's
    frames: links to their starts, with the words of what was found.
    """
    rows = sorted({fault["check_name"] for fault in faults})
    n = max(1, num_frames)
    body = []
    for fault in faults:
        start = fault["start_frame"]
        end = fault["end_frame"]
        name = fault["check_name"]
        words = escape(fault["detail"])
        x = 100 * start / n
        width = 100 * (end - start) / n
        y = 100 * rows.index(name) / len(rows)
        height = 100 / len(rows)
        kind = "span fault accepted" if fault["is_accepted"] else "span fault"
        body.append(
            f'<a class="seek stretch" href="?t={start / fps:.2f}" data-frame="{start}" data-words="{words}"'
            f' aria-label="{name}: {words}"><svg class="{kind}" x="{x:.4f}%" width="{width:.4f}%" y="{y:.2f}%"'
            f' height="{height:.2f}%"><title>{words}</title><rect width="100%" height="100%"/>'
            f'<text x="4" y="50%">{name}</text></svg></a>'
        )
    return Markup(
        f'<svg class="spans" width="100%" height="100%" role="group">{"".join(body)}</svg>'
    )


def _span(segment: Mapping, num_frames: int) -> str:
    """One segment as a box with its name: steps in the colours of the plan, a failed one marked."""
    start = segment["start_frame"]
    end = segment["end_frame"]
    name = escape(segment["name"])
    # In percent, so that the boxes stretch with the page
    x = 100 * start / num_frames
    width = 100 * (end - start) / num_frames
    is_step = segment["kind"] == "step"
    has_failed = is_step and not segment["completed"]
    if is_step:
        colour = f"step{(segment['step'] or 0) % STEP_COLOURS}"
    else:
        colour = escape(str(segment["kind"]))
    state, ending = (" failed", ", not completed") if has_failed else ("", "")
    return (
        f'<svg class="span {colour}{state}" x="{x:.4f}%" width="{width:.4f}%" height="100%">'
        f"<title>{name}: frames {start} to {end - 1}{ending}</title>"
        f'<rect width="100%" height="100%"/><text x="4" y="50%">{name}</text></svg>'
    )


def _svg(body: str, kind: str, label: str = "") -> Markup:
    role = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    return Markup(
        f'<svg class="{kind}" viewBox="0 0 {WIDTH:g} 100" preserveAspectRatio="none" {role}>{body}</svg>'
    )


def nice_ends(values: Sequence[float]) -> tuple[float, float]:
    """Round ends that hold all values but infinite and extreme ones: of an axis."""
    finite_values = [value for value in values if abs(value) <= 1e150]
    low = min(finite_values, default=0.0)
    high = max(finite_values, default=1.0)
    if high - low < 1e-150:
        return low - 0.5, high + 0.5
    step = 10.0 ** floor(log10(high - low))
    return floor(low / step) * step, ceil(high / step) * step

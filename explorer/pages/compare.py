"""Two labels of an episode, or two models, beside each other.

And frames like one frame, and runs like one run, as pictures that lead to the moment.
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from core.errors import UserError
from explorer import charts
from explorer.access import PageError
from explorer.charts import Curve
from explorer.episode import EpisodeIndex, episode_and_facts
from explorer.pages.episode import charts_data, run_name, shown_episode
from explorer.site import BASELINES, Visiting
from warehouse.lake.similarity import SimilarityQuery, most_similar

router = APIRouter()
SAME_S = 0.25  # boundaries nearer than this are the same
MOST_LIKE = 24
TIME_S = 60.0  # a search reads every picture's numbers: 60,000 runs of 10 s take half a minute
AT_ONCE = 2
_searching = threading.Semaphore(AT_ONCE)


def _side_named(
    sides: list[dict[str, Any]], name: str, place: int, none: str
) -> dict[str, Any] | None:
    """What has a name; without a name what stands at `place`. Raises PageError."""
    side = next((s for s in sides if s["id"] == name), None)
    if name and side is None:
        raise PageError(f"{none} {name[:40]!r}")
    return side or (sides[place] if place < len(sides) else None)


def moved_boundaries(
    first: Collection[int], second: Collection[int], same: int
) -> list[frozenset[int]]:
    """Of each side, the boundaries that the other has nowhere within `same` frames.

    Example: {10, 30} and {12, 50}, with `same` 5, give {30} and {50}.
    """
    near_first = set(chain.from_iterable(range(b - same, b + same + 1) for b in first))
    near_second = set(chain.from_iterable(range(b - same, b + same + 1) for b in second))
    return [frozenset(first) - near_second, frozenset(second) - near_first]


@router.get("/compare/{dataset}/{episode_index}")
def page(
    visit: Visiting, dataset: str, episode_index: EpisodeIndex, a: str = "", b: str = ""
) -> HTMLResponse:
    """`a` and `b`: label runs or evaluations; default: the label that counts, and the next one."""
    episode, facts = episode_and_facts(visit.reader, dataset, episode_index)
    data = shown_episode(visit, episode)
    sides = comparable_sides(data)
    chosen = [
        _side_named(sides, name, k, "this episode has no label run or evaluation")
        for k, name in enumerate((a, b))
    ]
    n = episode.num_frames
    fps = episode.fps or 1.0
    lines = [
        replace(side["curve"], name=side["title"], kind=f"line run{k}")
        for k, side in enumerate(chosen)
        if side
    ]
    moved_frames: list[frozenset[int]] = [frozenset(), frozenset()]
    if all(side and side["segments"] for side in chosen):
        first, second = (side["boundaries"] for side in chosen if side)
        # A tolerance in seconds means the same at any frame rate; boundaries are counted in frames
        moved_frames = moved_boundaries(first, second, round(SAME_S * fps))
    spans = [
        (s, charts.spans(s["segments"], n, ends))
        for s, ends in zip(chosen, moved_frames, strict=True)
        if s
    ]
    return visit.page(
        "compare.html",
        title=f"Compare {dataset} {episode_index}",
        episode=episode,
        facts=facts,
        sides=sides,
        chosen=chosen,
        data=data | {"charts": charts_data({"progress": lines})},
        spans=spans,
        moved=sum(map(len, moved_frames)),
        lines=lines,
        progress=charts.curves(lines, n) if lines else None,
        apart=mean_difference(lines),
    )


def comparable_sides(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Everything of an episode that has a progress curve: label runs, then models, then baselines."""
    sides = []
    for run in data["runs"]:
        curve = Curve(run_name(run), range(len(run["progress"])), run["progress"], "line")
        title = curve.name + (" (active)" if run["active"] else "")
        sides.append(_side(run["label_run"], title, curve, run["segments"]))
    for p in sorted(data["predictions"], key=lambda p: p["model"] in BASELINES):
        curve = Curve(p["model"], p["frames"], p["prediction"], "line")
        sides.append(_side(p["eval_run"], f"{p['model']}, {p['benchmark']}", curve))
    return sides


def _side(
    name: str, title: str, curve: Curve, segments: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    boundaries = {segment["start_frame"] for segment in segments[1:]}
    return {
        "id": name,
        "title": title,
        "curve": curve,
        "segments": segments,
        "boundaries": boundaries,
    }


def mean_difference(lines: list[Curve]) -> float | None:
    """Mean |difference| of two curves at the frames that both have; None where they share none."""
    values = [dict(zip(c.frames, c.values, strict=True)) for c in lines]
    shared = values[0].keys() & values[1].keys() if len(values) > 1 else ()
    pairs = [(values[0][frame], values[1][frame]) for frame in shared]
    differences = [abs(a - b) for a, b in pairs if a is not None and b is not None]
    if differences:
        return sum(differences) / len(differences)
    return None


@router.get("/like/{dataset}/{episode_index}")
def like_page(
    visit: Visiting,
    dataset: str,
    episode_index: EpisodeIndex,
    frame: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    camera: Annotated[str | None, Query(max_length=200)] = None,
    among: Annotated[str | None, Query(max_length=200)] = None,
) -> HTMLResponse:
    """`frame`: frames like this one; without it runs. `camera`: that shows it. `among`:
    only runs of this dataset.
    """
    episode, facts = episode_and_facts(visit.reader, dataset, episode_index)
    query: SimilarityQuery | None = None
    similar: list[dict[str, Any]] = []
    why_not = ""
    with _searching, visit.explorer.corpus.reading(TIME_S) as reader:
        try:
            query, similar = most_similar(
                reader.con, dataset, episode_index, frame, camera, among, MOST_LIKE
            )
        except UserError as e:
            why_not = str(e)
    return visit.page(
        "similar.html",
        title=f"{'Runs' if frame is None else 'Frames'} like {dataset} {episode_index}",
        episode=episode,
        facts=facts,
        frame=frame,
        among=among,
        asked=query,
        similar=similar,
        why_not=why_not,
    )

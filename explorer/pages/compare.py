"""Two label runs, or two models, on one episode: boundaries that moved, curves one over the other."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from explorer import charts
from explorer.access import PageError
from explorer.charts import Curve
from explorer.episode import episode_data, find_episode
from explorer.pages.episode import EpisodeIndex, curve_data, run_name
from explorer.pages.leaderboard import BASELINES
from explorer.site import explorer_of

router = APIRouter()
SAME_S = 0.25  # boundaries nearer than this are the same


@router.get("/compare/{dataset}/{episode_index}")
def page(request: Request, dataset: str, episode_index: EpisodeIndex, a: str = "", b: str = "") -> HTMLResponse:
    """`a` and `b`: label runs or evaluations; default: the label that counts, and the next one."""
    explorer = explorer_of(request)
    with explorer.corpus.reading() as reader:
        episode = find_episode(reader, dataset, episode_index)
        data = episode_data(reader, episode)
        sides = comparable(data)
        chosen = [side_named(sides, a, 0), side_named(sides, b, 1)]
        n, fps = episode.num_frames, episode.facts["fps"] or 1.0
        # A tolerance in seconds means the same at any frame rate; boundaries are counted in frames
        moved = moved_boundaries(chosen, round(SAME_S * fps))
        lines = [side["curve"] for side in chosen if side]
        spans = [(s, charts.spans(s["segments"], n, ends)) for s, ends in zip(chosen, moved, strict=True) if s]
        return explorer.page(
            request,
            "compare.html",
            reader,
            title=f"Compare {dataset} {episode_index}",
            episode=episode,
            facts=episode.facts,
            sides=sides,
            chosen=chosen,
            data=data | {"curves": [curve_data(c) for c in lines]},
            spans=spans,
            moved=sum(map(len, moved)),
            lines=lines,
            progress=charts.curves(lines, n) if lines else None,
            apart=mean_difference(lines),
        )


def comparable(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Everything of an episode that has a progress curve: label runs, then models, then baselines."""
    runs = [
        {
            "id": r["label_run"],
            "title": run_name(r) + (" (counts)" if r["active"] else ""),
            "segments": r["segments"],
            "curve": Curve(run_name(r), range(len(r["progress"])), r["progress"], "line"),
        }
        for r in data["runs"]
    ]
    evaluated = sorted(data["predictions"], key=lambda p: p["model"] in BASELINES)
    return runs + [
        {
            "id": p["eval_run"],
            "title": f"{p['model']}, {p['benchmark']}",
            "segments": [],
            "curve": Curve(p["model"], p["frames"], p["prediction"], "line"),
        }
        for p in evaluated
    ]


def side_named(sides: list[dict[str, Any]], name: str, place: int) -> dict[str, Any] | None:
    """The side of a name, drawn as the first or second; without a name the one at `place`. Raises PageError."""
    side = next((s for s in sides if s["id"] == name), None)
    if name and side is None:
        raise PageError(f"this episode has no label run or evaluation {name[:40]!r}")
    if side is None and place < len(sides):
        side = sides[place]
    if side is None:
        return None
    curve = side["curve"]
    return side | {"curve": Curve(side["title"], curve.frames, curve.values, f"line run{place}")}


def moved_boundaries(chosen: list[dict[str, Any] | None], same: int) -> list[frozenset[int]]:
    """Of each side, the boundaries between segments that the other has nowhere within `same` frames.

    Example: boundaries at 10 and 30 against 12 and 50, with `same` 5, give {30} and {50}.
    """
    if not all(side and side["segments"] for side in chosen):
        return [frozenset() for _ in chosen]
    first, second = (_boundaries(side) for side in chosen)
    return [_far_from(first, second, same), _far_from(second, first, same)]


def _boundaries(side: dict[str, Any] | None) -> set[int]:
    return {segment["start_frame"] for segment in side["segments"][1:]} if side else set()


def _far_from(boundaries: set[int], others: set[int], same: int) -> frozenset[int]:
    return frozenset(b for b in boundaries if all(abs(b - other) > same for other in others))


def mean_difference(lines: list[Curve]) -> float | None:
    """Mean |difference| of two curves at the frames that both have; None where they share none."""
    if len(lines) < 2:
        return None
    first_values = dict(zip(lines[0].frames, lines[0].values, strict=True))
    differences = []
    for frame, second in zip(lines[1].frames, lines[1].values, strict=True):
        first = first_values.get(frame)
        if first is not None and second is not None:
            differences.append(abs(first - second))
    return sum(differences) / len(differences) if differences else None

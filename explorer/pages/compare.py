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
        found = episode_data(reader, episode)
        sides = comparable(found)
        chosen = [side_named(sides, name, k) for k, name in enumerate((a, b))]
        n, fps = episode.num_frames, episode.facts["fps"] or 1.0
        moved = moved_boundaries(chosen, round(SAME_S * fps))
        lines = [side["curve"] for side in chosen if side]
        return explorer.page(
            request,
            "compare.html",
            reader,
            title=f"Compare {dataset} {episode_index}",
            episode=episode,
            facts=episode.facts,
            sides=sides,
            chosen=chosen,
            data=found | {"curves": [curve_data(c) for c in lines]},
            spans=[(s, charts.spans(s["segments"], n, at)) for s, at in zip(chosen, moved, strict=True) if s],
            moved=sum(map(len, moved)),
            lines=lines,
            progress=charts.curves(lines, n) if lines else None,
            apart=mean_difference(lines),
        )


def comparable(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Everything of an episode that has a progress curve: label runs, then models, then baselines."""
    runs = [
        {
            "id": r["label_run"],
            "title": run_name(r) + (" (counts)" if r["active"] else ""),
            "segments": r["segments"],
            "curve": Curve(run_name(r), range(len(r["progress"])), r["progress"], "line"),
        }
        for r in found["runs"]
    ]
    evaluated = sorted(found["predictions"], key=lambda p: p["model"] in BASELINES)
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
    if side is None:
        side = sides[place] if place < len(sides) else None
    if side is None:
        return None
    c = side["curve"]
    return side | {"curve": Curve(side["title"], c.frames, c.values, f"line run{place}")}


def moved_boundaries(chosen: list[dict[str, Any] | None], same: int) -> list[frozenset[int]]:
    """Of each side, the boundaries between segments that the other has nowhere within `same` frames."""
    ends = [{s["start_frame"] for s in side["segments"][1:]} if side else set() for side in chosen]
    if not all(side and side["segments"] for side in chosen):
        return [frozenset() for _ in chosen]
    return [
        frozenset(b for b in own if not any(abs(b - other) <= same for other in others))
        for own, others in (ends, ends[::-1])
    ]


def mean_difference(lines: list[Curve]) -> float | None:
    """Mean |difference| of two curves at the frames that both have; None where they share none."""
    if len(lines) < 2:
        return None
    first = dict(zip(lines[0].frames, lines[0].values, strict=True))
    pairs = [(first.get(f), v) for f, v in zip(lines[1].frames, lines[1].values, strict=True)]
    apart = [abs(x - y) for x, y in pairs if x is not None and y is not None]
    return sum(apart) / len(apart) if apart else None

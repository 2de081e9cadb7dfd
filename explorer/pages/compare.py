"""Two label runs, or two models, beside each other: where a dataset's are farthest apart, and one episode of them."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from explorer import charts
from explorer.access import LakeReader, PageError
from explorer.charts import Curve
from explorer.episode import episode_data, find_episode
from explorer.pages.episode import EpisodeIndex, curve_data, run_name
from explorer.pages.leaderboard import BASELINES
from explorer.site import explorer_of

router = APIRouter()
SAME_S = 0.25  # boundaries nearer than this are the same
FARTHEST = 100  # episodes that a dataset's page lists


@router.get("/compare/{dataset}")
def dataset_page(request: Request, dataset: str, a: str = "", b: str = "") -> HTMLResponse:
    """`a` and `b`: label runs; default: the one that counts most often, and the next one."""
    explorer = explorer_of(request)
    with explorer.corpus.reading() as reader:
        runs = dataset_runs(reader, dataset)
        if not runs:
            raise PageError(f"there are no labels of a dataset {dataset[:60]!r}")
        chosen = [run_named(runs, name, place) for place, name in enumerate((a, b))]
        first, second = (run["label_run"] if run else None for run in chosen)
        num_episodes, apart, rows = episodes_apart(reader, dataset, first, second)
        return explorer.page(
            request,
            "compare_runs.html",
            reader,
            title=f"Compare labels of {dataset}",
            dataset=dataset,
            runs=runs,
            chosen=chosen,
            num_episodes=num_episodes,
            apart=apart,
            rows=rows,
        )


def dataset_runs(reader: LakeReader, dataset: str) -> list[dict[str, Any]]:
    """The label runs of a dataset with their episodes, those that count in most of them first."""
    rows = reader.dicts(
        "SELECT l.label_run, any_value(r.annotator) AS annotator, any_value(r.model) AS model, count(*) AS episodes,"
        " count(a.label_run) AS active"
        " FROM (SELECT episode_index, label_run FROM label_quality WHERE dataset = ?) l"
        " LEFT JOIN label_runs r USING (label_run)"
        " LEFT JOIN (SELECT episode_index, label_run FROM active_runs WHERE dataset = ?) a"
        " USING (episode_index, label_run) GROUP BY 1 ORDER BY active DESC, 1",
        dataset,
        dataset,
    )
    return [row | {"title": run_name(row)} for row in rows]


def run_named(runs: list[dict[str, Any]], name: str, place: int) -> dict[str, Any] | None:
    """The label run of a name; without a name the one at `place`. Raises PageError."""
    run = next((r for r in runs if r["label_run"] == name), None)
    if name and run is None:
        raise PageError(f"this dataset has no label run {name[:40]!r}")
    return run or (runs[place] if place < len(runs) else None)


def episodes_apart(
    reader: LakeReader, dataset: str, first: str | None, second: str | None
) -> tuple[int, float | None, list[dict[str, Any]]]:
    """Episodes that both runs label, their mean difference of progress, and the episodes in which it is largest."""
    if first is None or second is None or first == second:
        return 0, None, []
    pair = sorted((first, second))
    differences = _differences(reader, dataset, pair)
    if not differences:
        return 0, None, []
    apart = sum(differences.values()) / len(differences)
    farthest = sorted(differences, key=lambda episode: (-differences[episode], episode))[:FARTHEST]
    facts = {
        row["episode_index"]: row
        for row in reader.dicts(
            "SELECT f.episode_index, f.task, coalesce(c.fps, f.fps, d.fps) AS fps FROM episode_facts f"
            " JOIN datasets d ON d.dataset = f.dataset LEFT JOIN episode_content c ON c.dataset = f.dataset"
            " AND c.chunk = f.chunk AND c.episode_index = f.episode_index"
            " WHERE f.dataset = ? AND list_contains(?, f.episode_index)",
            dataset,
            farthest,
        )
    }
    rows: list[dict[str, Any]] = [facts[e] | {"mae": differences[e]} for e in farthest if e in facts]
    cuts = _cuts(reader, dataset, pair, farthest)
    for row in rows:
        own, other = (cuts.get((row["episode_index"], run), set()) for run in pair)
        same = round(SAME_S * (row["fps"] or 1.0))
        row["boundaries"] = len(own) + len(other)
        row["moved"] = len(_far_from(own, other, same)) + len(_far_from(other, own, same))
    return len(differences), apart, rows


def _differences(reader: LakeReader, dataset: str, pair: list[str]) -> dict[int, float]:
    """Mean |difference of progress| of two label runs, by episode that both label.

    Builds store those of two annotators. Where not all are stored they are counted from the curves, which takes a
    second for 20,000 episodes.
    """
    common = (
        "SELECT count(*) FROM label_quality a JOIN label_quality b ON a.episode_index = b.episode_index"
        " WHERE a.dataset = $1 AND b.dataset = $1 AND a.label_run = $2 AND b.label_run = $3"
    )
    stored = (
        "SELECT episode_index, any_value(mean_difference) FROM label_disagreement WHERE dataset = $1"
        " AND (label_run = $2 AND other_run = $3 OR label_run = $3 AND other_run = $2) GROUP BY 1"
    )
    found = dict(reader.rows(stored, dataset, *pair))
    if found and len(found) == reader.rows(common, dataset, *pair)[0][0]:
        return found
    # The view has every two runs once, the lesser name first
    sql = "SELECT episode_index, mae FROM label_agreement WHERE dataset = ? AND run_a = ? AND run_b = ?"
    return dict(reader.rows(sql, dataset, *pair))


def _cuts(reader: LakeReader, dataset: str, runs: list[str], episodes: list[int]) -> dict[tuple[int, str], set[int]]:
    """Frames at which a segment begins, but for the first, by episode and label run."""
    rows = reader.rows(
        "SELECT episode_index, label_run, start_frame FROM segments WHERE dataset = ? AND segment_index > 0"
        " AND list_contains(?, label_run) AND list_contains(?, episode_index)",
        dataset,
        runs,
        episodes,
    )
    cuts: dict[tuple[int, str], set[int]] = {}
    for episode, run, frame in rows:
        cuts.setdefault((episode, run), set()).add(frame)
    return cuts


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
            "title": run_name(r) + (" (active)" if r["active"] else ""),
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

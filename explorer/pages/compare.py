"""Two label runs, or two models, beside each other: where a dataset's are farthest apart,
and one episode of them.

And frames like one frame, and runs like one run, as pictures that lead to the moment.
"""

import threading
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from core.errors import UserError
from explorer import charts
from explorer.access import LakeReader, PageError
from explorer.charts import Curve
from explorer.drawn_labels import shown_episode
from explorer.episode import EpisodeIndex, episode_and_facts
from explorer.pages.episode import charts_data, run_name
from explorer.site import BASELINES, Visiting
from warehouse.lake.similarity import SimilarityQuery, most_similar

router = APIRouter()
SAME_S = 0.25  # boundaries nearer than this are the same
FARTHEST = 100  # episodes that a dataset's page lists
RUNS_SQL = """
    SELECT l.label_run AS id, any_value(r.annotator) AS annotator, any_value(r.model) AS model, count(*) AS episodes,
           count(a.label_run) AS active
    FROM (SELECT episode_index, label_run FROM label_quality WHERE dataset = $1) l
    LEFT JOIN label_runs r USING (label_run)
    LEFT JOIN (SELECT episode_index, label_run FROM active_runs WHERE dataset = $1) a USING (episode_index, label_run)
    GROUP BY 1 ORDER BY active DESC, 1"""
# How many episodes each two label runs share
SHARING_SQL = """
    SELECT a.label_run AS id, b.label_run AS other, count(*) AS shared FROM label_quality a
    JOIN label_quality b ON a.episode_index = b.episode_index AND a.label_run <> b.label_run
    WHERE a.dataset = $1 AND b.dataset = $1 GROUP BY 1, 2"""
COMMON_SQL = """
    SELECT count(*) FROM label_quality a JOIN label_quality b ON a.episode_index = b.episode_index
    WHERE a.dataset = $1 AND b.dataset = $1 AND a.label_run = $2 AND b.label_run = $3"""
STORED_SQL = """
    SELECT episode_index, any_value(mean_difference) FROM label_disagreement WHERE dataset = $1
    AND (label_run = $2 AND other_run = $3 OR label_run = $3 AND other_run = $2) GROUP BY 1"""
FACTS_SQL = """
    SELECT f.episode_index, f.task, coalesce(c.fps, f.fps, d.fps) AS fps FROM episode_facts f
    JOIN datasets d ON d.dataset = f.dataset LEFT JOIN episode_content c ON c.dataset = f.dataset
    AND c.chunk = f.chunk AND c.episode_index = f.episode_index
    WHERE f.dataset = ? AND list_contains(?, f.episode_index)"""
# Frames at which a segment begins, but for the first
CUTS_SQL = """
    SELECT episode_index, label_run, start_frame FROM segments WHERE dataset = ? AND segment_index > 0
    AND list_contains(?, label_run) AND list_contains(?, episode_index)"""
MOST_LIKE = 24
TIME_S = 60.0  # a search reads every picture's numbers: 60,000 runs of 10 s take half a minute
AT_ONCE = 2
_searching = threading.Semaphore(AT_ONCE)


@router.get("/compare/{dataset}")
def dataset_page(visit: Visiting, dataset: str, a: str = "", b: str = "") -> HTMLResponse:
    """`a` and `b`: label runs; default: the two that share most episodes, of these the
    ones that count most often.
    """
    runs = [
        row | {"title": run_name(row | {"label_run": row["id"]})}
        for row in visit.reader.dicts(RUNS_SQL, dataset)
    ]
    if not runs:
        raise PageError(f"there are no labels of a dataset {dataset[:60]!r}")
    a, b = _runs_to_begin_with(visit.reader, dataset, runs, a, b)
    chosen = [
        _side_named(runs, name, k, "this dataset has no label run") for k, name in enumerate((a, b))
    ]
    pair = sorted(run["id"] for run in chosen if run)
    if len({*pair}) == 2:
        num_episodes, distance, rows = episodes_apart(visit.reader, dataset, pair)
    else:
        num_episodes, distance, rows = (0, None, [])
    return visit.page(
        "compare_runs.html",
        title=f"Compare labels of {dataset}",
        dataset=dataset,
        runs=runs,
        chosen=chosen,
        num_episodes=num_episodes,
        apart=distance,
        rows=rows,
    )


def _runs_to_begin_with(
    reader: LakeReader, dataset: str, runs: list[dict[str, Any]], a: str, b: str
) -> tuple[str, str]:
    """The two label runs to begin with, where the address leaves one open; as they are
    where none share an episode.
    """
    if a and b:
        return a, b
    # Those that count most often stand first
    places = {run["id"]: place for place, run in enumerate(runs)}
    shared = reader.once(("sharing", dataset), lambda: reader.dicts(SHARING_SQL, dataset))
    pairs = [
        (-row["shared"], places[row["id"]], places[row["other"]], row["id"], row["other"])
        for row in shared
        if a in ("", row["id"]) and b in ("", row["other"])
    ]
    if pairs:
        return min(pairs)[3:]
    return (a, b)


def _side_named(
    sides: list[dict[str, Any]], name: str, place: int, none: str
) -> dict[str, Any] | None:
    """What has a name; without a name what stands at `place`. Raises PageError."""
    side = next((s for s in sides if s["id"] == name), None)
    if name and side is None:
        raise PageError(f"{none} {name[:40]!r}")
    return side or (sides[place] if place < len(sides) else None)


def episodes_apart(
    reader: LakeReader, dataset: str, pair: list[str]
) -> tuple[int, float | None, list[dict[str, Any]]]:
    """Episodes that both runs label, their mean difference of progress, and the episodes
    in which it is largest.
    """
    # Builds store the differences of two annotators. Where not all are stored they are counted from the curves, which
    # takes a second for 20,000 episodes; the view has every two runs once, the lesser name first
    differences = dict(reader.rows(STORED_SQL, dataset, *pair))
    if not differences or len(differences) != reader.rows(COMMON_SQL, dataset, *pair)[0][0]:
        sql = "SELECT episode_index, mae FROM label_agreement WHERE dataset = ? AND run_a = ? AND run_b = ?"
        differences = dict(reader.rows(sql, dataset, *pair))
    if not differences:
        return 0, None, []
    farthest = sorted(differences, key=lambda episode: (-differences[episode], episode))[:FARTHEST]
    facts = {row["episode_index"]: row for row in reader.dicts(FACTS_SQL, dataset, farthest)}
    cuts: defaultdict[tuple[int, str], set[int]] = defaultdict(set)
    for episode, run, frame in reader.rows(CUTS_SQL, dataset, pair, farthest):
        cuts[episode, run].add(frame)
    rows: list[dict[str, Any]] = []
    for episode in (e for e in farthest if e in facts):
        first_cuts = cuts[episode, pair[0]]
        second_cuts = cuts[episode, pair[1]]
        moved_frames = moved_boundaries(
            first_cuts, second_cuts, round(SAME_S * (facts[episode]["fps"] or 1.0))
        )
        counts = {
            "boundaries": len(first_cuts) + len(second_cuts),
            "moved": sum(map(len, moved_frames)),
        }
        rows.append(facts[episode] | {"mae": differences[episode]} | counts)
    return len(differences), sum(differences.values()) / len(differences), rows


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

"""One episode: cameras, labels, curves and measurements on one time axis.

And why a label is what it is: every question to a model about it, as sent, with reply,
tokens and price. And the curves of labels that no build has seen: of what a person has saved
since, and of what they draw right now. And frames like one frame, and runs like one run.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from annotate.model_client.responses import ResponseStore, StoredReply
from core.annotators import HUMAN
from core.domain.label import Episode
from core.errors import UserError
from core.files import queries_of
from core.values import plain
from explorer import charts
from explorer.access import LakeReader, PageError
from explorer.beside import (
    alignment_of,
    camera_pair,
    carried_segments,
    compared,
    run_name,
    unsure_steps,
)
from explorer.charts import Curve
from explorer.corrected_labels import corrected_places, correction_state
from explorer.episode import (
    EpisodeIndex,
    chunk_of,
    episode_and_facts,
    episode_data,
    find_episode,
    partition_of,
    recorded_data,
    stored_pictures,
)
from explorer.index import Indexed, places_by_value, tags_of
from explorer.review_queue import FOLLOWING, WAITING, ReviewQueue, place_of
from explorer.site import BASELINES, Visit, Visiting
from warehouse.lake import outcomes
from warehouse.lake.corrections import SAID_LATER, Corrected, CorrectedSegment, parsed, recording_of
from warehouse.lake.similarity import SimilarityQuery, most_similar

router = APIRouter()
# Names of lines, with a value per frame of each
Series = Sequence[tuple[str, Sequence[float | None]]]
LABEL_COLOURS, MODEL_COLOURS, BASELINE_DASHES = 3, 4, 5  # that the style sheet has
DIMENSIONS = 8  # colours of the dimensions of a state or an action
LABEL_ITSELF = "the label itself"  # a baseline, whose curve is the label's
VISUAL_CHANGE, GRIPPERS, SPEED = "visual change", "gripper opening", "speed"  # titles of charts
# At the end of a benchmark's name: what it scores against is the truth, not a label
TRUTH = "(truth)"
# The curves of a label that is being edited, by column of `progress`: name and kind of the line
EDITED = {
    "progress": ("as you edit it", "line edited"),
    "progress_procvlm": ("as you edit it, published formula", "line edited published"),
}
MAX_CALLS = 200
(
    STAGES_SQL,
    CALLS_SQL,
    CURVE_SQL,
    SEGMENTS_SQL,
    DEMONSTRATION_SQL,
    INDEXED_NEIGHBOURS_SQL,
    NEIGHBOURS_SQL,
) = queries_of(__file__)
MOST_LIKE = 24
SEARCH_S = 60.0  # a search reads every picture's numbers: 60,000 runs of 10 s take half a minute
SEARCHES_AT_ONCE = 2
_searching = threading.Semaphore(SEARCHES_AT_ONCE)


@router.get("/api/episode/{dataset}/{episode_index}")
def data(visit: Visiting, dataset: str, episode_index: EpisodeIndex) -> JSONResponse:
    """Everything of an episode: label runs with segments and curves, cameras, predictions, measurements."""
    return JSONResponse(
        plain(shown_episode(visit, find_episode(visit.reader, dataset, episode_index)))
    )


@router.post("/api/curves/{dataset}/{episode_index}")
def curves(
    visit: Visiting, dataset: str, episode_index: EpisodeIndex, label: dict[str, Any]
) -> JSONResponse:
    """The curves of a label as the editor has it: `lines` with name, kind, path in a
    chart, values at each frame, and whether each is drawn before it is switched on.
    Without lines where it has none: `why` says so. Saves nothing.
    """
    try:
        drawn = drawn_curves(visit, dataset, episode_index, parsed(label))
    except UserError as e:
        return JSONResponse({"lines": [], "why": str(e)})
    return JSONResponse(
        {"lines": [_edited_line(column, values) for column, values in drawn.items()], "why": ""}
    )


def _edited_line(column: str, values: Sequence[float]) -> dict[str, Any]:
    """A curve of the label that is being edited, by its column of the table `progress`."""
    name, kind = EDITED[column]
    curve = Curve(name, range(len(values)), values, kind, shown=column == "progress")
    drawing = charts.path(curve, len(values))
    return {
        "name": name,
        "kind": kind,
        "shown": curve.shown,
        "path": drawing,
        "values": [round(v, 4) for v in values],
    }


@router.get("/episode/{dataset}/{episode_index}")
def page(
    visit: Visiting, dataset: str, episode_index: EpisodeIndex, calls: bool = False
) -> HTMLResponse:
    """`calls`: with the questions to models about it."""
    return _page(visit, dataset, episode_index, with_calls=calls)


@router.get("/why/{dataset}/{episode_index}")
def why(dataset: str, episode_index: EpisodeIndex) -> RedirectResponse:
    """Who labelled it, and every question to a model about it: of the episode's page."""
    return RedirectResponse(f"/episode/{quote(dataset, safe='')}/{episode_index}?calls=1#labels")


@router.get("/compare/{dataset}/{episode_index}")
def compare(
    visit: Visiting, dataset: str, episode_index: EpisodeIndex, a: str = "", b: str = ""
) -> HTMLResponse:
    """Two labels or models beside each other; default: the label that counts, and the next one."""
    return _page(visit, dataset, episode_index, sides=(a, b))


def _page(
    visit: Visit,
    dataset: str,
    episode_index: int,
    *,
    sides: tuple[str, str] | None = None,
    with_calls: bool = False,
) -> HTMLResponse:
    """sides: that are compared; None: all that there is."""
    reader = visit.reader
    episode, facts = episode_and_facts(reader, dataset, episode_index)
    data = shown_episode(visit, episode)
    n = episode.num_frames
    comparison = None if sides is None else compared(data, episode, sides)
    lines = comparison["lines"] if comparison else progress_curves(data)
    queue = ReviewQueue.of(visit.request.query_params)
    # What is saved here shows at once
    index = visit.explorer.index.at(reader, waits=queue is not None)
    episode_before, episode_after = neighbours(reader, index, episode)
    measures = measure_charts(data["measures"], n)
    faults = data["faults"]
    measured = {measure["title"]: measure["lines"] for measure in measures}
    place = place_of(visit, queue, dataset, episode_index) if queue else None
    beside_reference = None
    if place and place.queue.kind == FOLLOWING and data["runs"]:
        beside_reference = _beside_reference(visit, episode, data, place.queue.camera)
        place = replace(place, label_run=data["runs"][0]["label_run"])
    corrections = correction_state(reader, dataset, episode_index)
    of_review = (c["correction_id"] for c in corrections["current"] if c["status"] == "review")
    waiting = next(of_review, None)
    drawn = {"charts": charts_data({"progress": lines} | measured), "measures": None}
    reference = {}
    if beside_reference:
        reference["beside"] = beside_reference["data"] | {"follows": corrections["newest"]}
    return visit.page(
        "episode.html",
        title=f"{'Compare ' if comparison else ''}{dataset} {episode_index}",
        episode=episode,
        facts=facts,
        data=data | drawn | reference,
        spans=comparison["spans"]
        if comparison
        else [(run, charts.spans(run["segments"], n)) for run in data["runs"]],
        comparison=comparison,
        beside=beside_reference,
        faults=faults,
        stretches=charts.stretches(faults, n, episode.fps) if faults else None,
        lines=lines,
        progress=charts.curves(lines, n) if lines or facts["status"] == "ok" else None,
        measures=measures,
        stages=stages(reader, episode),
        demonstration=demonstration(index, dataset, episode_index),
        before=episode_before,
        following=episode_after,
        place=place,
        newest_correction=corrections["newest"],
        waiting=waiting if place and place.queue.kind == WAITING else None,
        stated=outcomes.standing(
            visit.reader, dataset, episode_index, recording_of((dataset, episode_index), facts)
        ),
        marks=tags_of(reader, [(dataset, episode_index)])[dataset, episode_index],
        tags=[*places_by_value(reader, "tag")],
        people=[*places_by_value(reader, "assigned")],
        calls=_calls(visit, episode) if with_calls else None,
        max_calls=MAX_CALLS,
    )


def _beside_reference(
    visit: Visit, episode: Episode, data: dict[str, Any], camera: str | None
) -> dict[str, Any] | None:
    """The reference that the label which counts follows, and what of it is shown; None: there is none.

    `data`: what the page's script needs.
    """
    run = data["runs"][0]
    alignment = alignment_of(visit.reader, episode, run)
    if alignment is None:
        return None
    reference = find_episode(visit.reader, episode.dataset, alignment["reference"])
    of_reference = shown_episode(visit, reference)
    run_camera, reference_camera, names = camera_pair(data, of_reference, camera)
    segments = of_reference["runs"][0]["segments"] if of_reference["runs"] else []
    carried = carried_segments(alignment, segments, episode.num_frames)
    return {
        "reference": reference,
        "own": run_camera,
        "number": data["cameras"].index(run_camera) if run_camera else None,
        "other": reference_camera,
        "cameras": names,
        "carried": charts.spans(carried, episode.num_frames),
        "unsure": unsure_steps(run["segments"]),
        "data": {
            "aligned": alignment,
            "camera": reference_camera,
            "fps": of_reference["fps"],
            "segments": segments,
        },
    }


@router.get("/episode/{dataset}/{episode_index}/curve.svg")
def curve_picture(visit: Visiting, dataset: str, episode_index: EpisodeIndex) -> Response:
    """Progress and segments of the label that counts, as a small picture; an empty one
    where there is no label.
    """
    key = (dataset, chunk_of(visit.reader, dataset, episode_index), episode_index)
    if (dataset, episode_index) in corrected_places(visit.reader):
        return _picture(*_corrected_label(visit, dataset, episode_index))
    rows = visit.reader.rows(CURVE_SQL, [*key])
    segments = visit.reader.rows(SEGMENTS_SQL, [*key])
    frames, values = zip(*rows, strict=True) if rows else ((), ())
    return _picture(Curve("progress", frames, values, "line"), segments)


def _corrected_label(
    visit: Visit, dataset: str, episode_index: int
) -> tuple[Curve, list[tuple[int, int, int | None]]]:
    """Curve and segments of the label that counts by what people have said up to now;
    both empty where none does.
    """
    runs = shown_episode(visit, find_episode(visit.reader, dataset, episode_index))["runs"]
    run = next((run for run in runs if run["active"]), {"progress": [], "segments": []})
    segments = [(s["start_frame"], s["end_frame"], s["step"]) for s in run["segments"]]
    return Curve("progress", range(len(run["progress"])), run["progress"], "line"), segments


def _picture(curve: Curve, segments: Sequence[tuple[int, int, int | None]]) -> Response:
    num_frames = segments[-1][1] if segments else len(curve.frames)
    svg = charts.picture(curve, segments, num_frames)
    return Response(
        svg, media_type="image/svg+xml", headers={"Cache-Control": "private, max-age=60"}
    )


@router.get("/episode/{dataset}/{episode_index}/actions")
def actions_track(visit: Visiting, dataset: str, episode_index: EpisodeIndex) -> HTMLResponse:
    """The track of actions, and the names of the state's dimensions, which the page
    fetches: a part of a page.
    """
    episode = find_episode(visit.reader, dataset, episode_index)
    message = chart = None
    names: list[str] = []
    try:
        recording = recorded_data(visit.reader, episode)
        names = list(recording.state_names)
        if recording.action is None:
            message = (
                f"the actions of {dataset} {episode_index}: the source has none, or they are not read of "
                "its format"
            )
        else:
            series = [
                (name_of(recording.action_names, k), v)
                for k, v in enumerate(recording.action.T.tolist())
            ]
            chart = measure_chart("action", series, episode.num_frames)
    except PageError as e:
        message = str(e)
    curves = charts_data({"action": chart["lines"] if chart else []})["action"]
    return visit.part("actions.html", message=message, chart=chart, names=names, curves=curves)


def name_of(names: Sequence[str], dimension: int) -> str:
    """What the source calls a dimension; its number where it does not say."""
    if dimension < len(names) and names[dimension]:
        return names[dimension]
    return f"dimension {dimension}"


def demonstration(index: Indexed, dataset: str, episode_index: int) -> dict[str, Any] | None:
    """What is odd about the run beside others of its task: `main`, `score`, `why`; None
    where it was not measured.
    """
    rows = index.dicts(DEMONSTRATION_SQL, dataset, episode_index)
    return next(iter(rows), None)


def neighbours(
    reader: LakeReader, index: Indexed, episode: Episode
) -> tuple[int | None, int | None]:
    """The episodes of the dataset before and after this one, in the lake as the reader sees it."""
    key = episode.dataset, episode.episode_index
    # The index answers sooner, but an older one does not know which episodes have come and gone
    if index.snapshot.number == reader.snapshot():
        [numbers] = index.rows(INDEXED_NEIGHBOURS_SQL, *key)
    else:
        [numbers] = reader.rows(NEIGHBOURS_SQL, [*key])
    return numbers


def stages(reader: LakeReader, episode: Episode) -> list[dict]:
    """The stages that made what is known of the episode's chunk, with the name of their
    partition in Dagster.
    """
    key = episode.dataset, episode.chunk
    rows = reader.kept(("stages", *key), lambda: reader.dicts(STAGES_SQL, [*key]))
    return [
        r | {"partition": partition_of(episode) if r["chunk"] >= 0 else episode.dataset}
        for r in rows
    ]


def progress_curves(data: dict[str, Any]) -> list[Curve]:
    """Progress by every label run, by the published formula on the active one, by the
    truth, if an evaluation scored against it, and by each model once; baselines are there
    to be switched on, the label itself is none.
    """
    lines = []
    for k, run in enumerate(data["runs"]):
        frames = range(len(run["progress"]))
        name = run_name(run)
        if run["progress"]:
            lines.append(Curve(name, frames, run["progress"], f"line run{k % LABEL_COLOURS}"))
        if run["active"] and any(v is not None for v in run["progress_procvlm"]):
            published = f"{name}, published formula"
            lines.append(
                Curve(published, frames, run["progress_procvlm"], "line published", shown=False)
            )
    by_model: dict[str, dict[str, Any]] = {}
    for p in data["predictions"]:
        if p["model"] != LABEL_ITSELF:
            by_model.setdefault(p["model"], p)
    if truth := next((p for p in data["predictions"] if p["benchmark"].endswith(TRUTH)), None):
        lines.append(Curve("truth", truth["frames"], truth["target"], "line truth"))
    for are_baselines, kind, colours in (
        (False, "model", MODEL_COLOURS),
        (True, "base", BASELINE_DASHES),
    ):
        for k, name in enumerate(name for name in by_model if (name in BASELINES) == are_baselines):
            frames = by_model[name]["frames"]
            values = by_model[name]["prediction"]
            lines.append(
                Curve(name, frames, values, f"line {kind}{k % colours}", shown=not are_baselines)
            )
    return lines


def charts_data(lines: Mapping[str, Sequence[Curve]]) -> dict[str, list[dict[str, Any]]]:
    """The curves of charts for the script that shows their values at the cursor; `frames`
    None: one for each.
    """
    return {title: [*map(_curve_data, curves)] for title, curves in lines.items()}


def _curve_data(curve: Curve) -> dict[str, Any]:
    frames = None if type(curve.frames) is range else list(curve.frames)
    return {"frames": frames, "values": list(curve.values)}


def measure_charts(measures: dict[str, Any], num_frames: int) -> list[dict[str, Any]]:
    """A chart for each kind of measurement that the episode has, with what it shows and its range."""
    # What has to be known of a gripper to read its curve is in the curve's name
    grippers = [
        (
            ", ".join(
                filter(None, (g["name"], "" if g["has_polarity"] else "open end unknown", g["lag"]))
            ),
            g["opening"],
        )
        for g in measures["grippers"]
    ]
    series_by_title: dict[str, Series] = {
        VISUAL_CHANGE: list(measures["visual_change"].items()),
        GRIPPERS: grippers,
        SPEED: [("speed", measures["speed"])],
        "state": [(f"dimension {k}", values) for k, values in enumerate(measures["state"])],
    }
    return [
        measure_chart(title, series, num_frames)
        for title, series in series_by_title.items()
        if _values(series)
    ]


def _values(series: Series) -> list[float]:
    values = chain.from_iterable(values for _, values in series)
    return [value for value in values if value is not None]


# A colour means one thing on the page: each measurement has its own, and dimension k the same in state and action
KINDS = {VISUAL_CHANGE: "visual", GRIPPERS: "grip", SPEED: "speed"}


def measure_chart(title: str, series: Series, num_frames: int) -> dict[str, Any]:
    """A chart of values per frame, with what it shows and its range."""
    # A gripper's opening is 0 to 1 by definition; all else is drawn by its own range, which holds 0
    low = 0.0
    high = 1.0
    if title != GRIPPERS:
        low, high = charts.nice_ends([0.0, *_values(series)])
    # Several curves of one measurement differ by their dashes
    kind, max_lines = (f"{KINDS[title]} dash", 3) if title in KINDS else ("dim", DIMENSIONS)
    lines = [
        Curve(name, range(len(v)), v, f"line {kind}{k % max_lines}")
        for k, (name, v) in enumerate(series)
    ]
    chart = charts.curves(lines, num_frames, low, high)
    return {"title": title, "lines": lines, "low": low, "high": high, "chart": chart}


def _calls(visit: Visit, episode: Episode) -> list[dict[str, Any]]:
    """The questions to models about an episode, each with its reply where that is kept."""
    rows = visit.reader.dicts(CALLS_SQL, [episode.dataset, episode.episode_index, MAX_CALLS])
    # A call names stored pictures by the SHA-256 of their bytes
    pictures = {p["sha256"]: p for p in stored_pictures(visit.reader, episode.row_key)}
    # The lake has the facts of each question; words and pictures are in the kept replies, which may be pruned
    folder = visit.explorer.space.responses
    store = stored_replies(folder) if rows and folder.is_dir() else None
    return [
        call_facts(row, store.get(row["call_key"]) if store else None, pictures) for row in rows
    ]


stored_replies = cache(ResponseStore)  # of a folder, opened once


def call_facts(
    row: dict[str, Any], reply: StoredReply | None, pictures: dict[str, dict]
) -> dict[str, Any]:
    """One call for the page: what was sent in its order, pictures with where they are of, and the reply."""
    # A reply of a version that did not keep what was asked has its pictures alone
    parts = (reply.content or [{"sha256": sha256} for sha256 in reply.images]) if reply else ()
    content = [
        {"text": part}
        if isinstance(part, str)
        else {"sha256": part["sha256"], "picture": pictures.get(part["sha256"])}
        for part in parts
    ]
    return row | {"reply": reply, "content": content}


def drawn_curves(
    visit: Visit, dataset: str, episode_index: int, label: Corrected
) -> dict[str, list[float]]:
    """`progress` and `progress_procvlm` of a label, at every frame; empty where this
    explorer can draw none.

    Raises UserError: the label contradicts itself, or the episode cannot be used.
    """
    draw = visit.explorer.options.label_curves
    if draw:
        return draw(dataset, episode_index, visit.reader.snapshot(), label)
    return {}


def shown_episode(visit: Visit, episode: Episode) -> dict[str, Any]:
    """Everything of an episode; a person's label that no build has taken in has its curves, too."""
    facts = episode_data(visit.reader, episode)
    return facts | {"runs": [_with_curves(visit, episode, run) for run in facts["runs"]]}


def _with_curves(visit: Visit, episode: Episode, run: dict[str, Any]) -> dict[str, Any]:
    """The label; where a person made it and it lacks its curves, with them, or with the
    reason in its notes.
    """
    if run["progress"] or run["annotator"] != HUMAN:
        return run
    try:
        curves = drawn_curves(visit, episode.dataset, episode.episode_index, _as_correction(run))
    except UserError as e:
        return run | {"notes": [*run["notes"], f"no curve can be drawn before the next build: {e}"]}
    if not curves:
        return run
    return run | curves | {"quality": run["quality"] | {"end_progress": curves["progress"][-1]}}


def _as_correction(run: dict[str, Any]) -> Corrected:
    """A shown label as a person could say it. Raises CorrectionError."""
    segments = [
        {name: segment.get(name) for name in CorrectedSegment.model_fields}
        for segment in run["segments"]
    ]
    return parsed(
        {"plan": run["plan"], "segments": segments} | {name: run[name] for name in SAID_LATER}
    )


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
    with _searching, visit.explorer.corpus.reading(SEARCH_S) as reader:
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

"""Checking labels that follow a reference: each run beside its reference at the aligned
moment, one after another.
"""

from collections.abc import Sequence
from itertools import chain, groupby, pairwise
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from core.domain.episode import Episode
from explorer import charts
from explorer.access import LakeReader, PageError
from explorer.corrected_labels import correction_state
from explorer.episode import (
    OF_EPISODE,
    EpisodeIndex,
    episode_and_facts,
    find_dataset,
    find_episode,
)
from explorer.pages.episode import shown_episode
from explorer.pages.labelling import MOST_LISTED, shown_tasks
from explorer.pages.review import QueuePlace
from explorer.site import Explorer, Visiting
from warehouse.lake import outcomes
from warehouse.lake.corrections import recording_of

router = APIRouter(prefix="/review/beside/{dataset}")
UNSURE = 0.7  # steps that are less sure are named, so that one looks there
MOST_NAMED = 3
NOT_SHOWN = {"name": "not in the reference", "kind": "detour"}  # what the run does besides

# Labels that follow a reference and count, which nobody has judged yet
QUEUE_SQL = """
    SELECT a.episode_index, l.confidence
    FROM active_runs a JOIN episode_labels l USING (dataset, episode_index, label_run)
    WHERE a.dataset = $1 AND EXISTS (
      FROM alignments x WHERE x.dataset = $1 AND x.episode_index = a.episode_index AND x.label_run = a.label_run)
    AND a.episode_index NOT IN (
      SELECT episode_index FROM current_corrections WHERE dataset = $1 AND status <> 'review')"""
ALIGNMENT_SQL = f"""
    SELECT frame_index, reference_episode, reference_frame, follows FROM alignments {OF_EPISODE} AND label_run = $4
    ORDER BY frame_index"""


@router.get("")
def queue_page(
    visit: Visiting, dataset: str, end: bool = False, camera: str | None = None
) -> Response:
    """The first run of the queue; at its `end`, or where nothing waits, what is left to do."""
    reader = visit.reader
    find_dataset(reader, dataset)
    queue = doubtful_runs(visit.explorer, reader, dataset)
    first = _address(dataset, queue[0]["episode_index"], camera) if queue else None
    if first and not end:
        return RedirectResponse(first, 303)
    tasks = shown_tasks(reader, dataset)
    return visit.page(
        "beside_end.html",
        title=f"Review {dataset}",
        dataset=dataset,
        left=len(queue),
        num_references=sum(len(task["references"]) for task in tasks),
        no_fit=[*chain.from_iterable(task["no_fit"] for task in tasks)][:MOST_LISTED],
        first=first,
    )


@router.get("/{episode_index}")
def page(
    visit: Visiting, dataset: str, episode_index: EpisodeIndex, camera: str | None = None
) -> HTMLResponse:
    """A run beside the reference that its label follows. Raises PageError: it follows none."""
    reader = visit.reader
    episode, facts = episode_and_facts(reader, dataset, episode_index)
    shown_facts = shown_episode(visit, episode)
    run, alignment = _label_beside(reader, episode, shown_facts)
    reference = find_episode(reader, dataset, alignment["reference"])
    reference_data = shown_episode(visit, reference)
    own_camera, reference_camera, shared = _camera_pair(shown_facts, reference_data, camera)
    queue = doubtful_runs(visit.explorer, reader, dataset)
    numbers = [doubt["episode_index"] for doubt in queue]
    number = numbers.index(episode_index) + 1 if episode_index in numbers else 0
    next_address = _address(dataset, next(iter(numbers[number:]), None), camera)
    reasons = tuple(queue[number - 1]["why"]) if number else ()
    place = QueuePlace(
        f"/review/beside/{dataset}",
        number or None,
        len(queue),
        next_address,
        None,
        run["label_run"],
        reasons,
    )
    segments = reference_data["runs"][0]["segments"] if reference_data["runs"] else []
    data = {
        "runs": [run, *(r for r in shown_facts["runs"] if r is not run)],
        "beside": {
            "follows": correction_state(reader, dataset, episode_index)["newest"],
            "aligned": alignment,
            "camera": reference_camera,
            "fps": reference_data["fps"],
            "segments": segments,
        },
    }
    return visit.page(
        "beside.html",
        title=f"{dataset} {episode_index} beside {reference.episode_index}",
        episode=episode,
        facts=facts,
        data=shown_facts | data,
        run=run,
        own=own_camera,
        own_number=shown_facts["cameras"].index(own_camera) if own_camera else None,
        reference=reference,
        reference_camera=reference_camera,
        cameras=shared,
        spans=charts.spans(run["segments"], episode.num_frames),
        carried=charts.spans(
            carried_segments(alignment, segments, episode.num_frames), episode.num_frames
        ),
        unsure=unsure_steps(run["segments"]),
        place=place,
        stated=outcomes.standing(
            visit.reader, dataset, episode_index, recording_of((dataset, episode_index), facts)
        ),
    )


def _address(dataset: str, episode_index: int | None, camera: str | None) -> str:
    """Of a run beside its reference; None: of the end of the queue."""
    query = ({"end": 1} if episode_index is None else {}) | ({"camera": camera} if camera else {})
    path = f"/review/beside/{quote(dataset, safe='')}" + (
        "" if episode_index is None else f"/{episode_index}"
    )
    if query:
        return f"{path}?{urlencode(query)}"
    return path


def doubtful_runs(explorer: Explorer, reader: LakeReader, dataset: str) -> list[dict[str, Any]]:
    """The queue of a dataset, the most doubtful first: `episode_index`, `confidence`;
    `score` (how likely the label is wrong) and `why`, as in the review queue.
    """
    sql = "SELECT episode_index, score, why FROM review WHERE dataset = $of"
    signs = {row["episode_index"]: row for row in explorer.index.at(reader).dicts(sql, of=dataset)}
    queue = [
        {"score": 0.0, "why": []}
        | signs.get(episode, {})
        | {"episode_index": episode, "confidence": confidence}
        for episode, confidence in reader.rows(QUEUE_SQL, [dataset])
    ]
    by_confidence = sorted(
        queue, key=lambda d: (d["confidence"] is None, d["confidence"] or 0.0, d["episode_index"])
    )
    return sorted(by_confidence, key=lambda d: -d["score"])


def _label_beside(
    reader: LakeReader, episode: Episode, shown_facts: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The label of an episode that follows a reference, and how: `reference`, its
    episode, and lists of equal length: `frames` of the run that were looked at, the
    `reference_frames` that each is like, and whether each `follows` it.
    """
    for run in shown_facts["runs"]:
        if run["annotator"] == "transfer":
            rows = reader.rows(ALIGNMENT_SQL, [*episode.row_key, run["label_run"]])
        else:
            rows = []
        if rows:
            reference = rows[0][1]
            of_it = [
                (frame, reference_frame, follows)
                for frame, reference_index, reference_frame, follows in rows
                if reference_index == reference
            ]
            frames, reference_frames, follows = (
                list(column) for column in zip(*of_it, strict=True)
            )
            lists = {"frames": frames, "reference_frames": reference_frames, "follows": follows}
            return run, {"reference": reference} | lists
    raise PageError(
        f"{episode.dataset} {episode.episode_index} has no label that follows a reference"
    )


def _camera_pair(
    shown_facts: dict[str, Any], reference_data: dict[str, Any], chosen_camera: str | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None, list[str]]:
    """A camera of the run, the same of its reference, and the names of all that both
    have; those with videos first.
    """
    of_reference = {camera["camera"]: camera for camera in reference_data["cameras"]}
    both = [camera for camera in shown_facts["cameras"] if camera["camera"] in of_reference]
    both.sort(key=lambda c: not (c["usable"] and c["video"] and of_reference[c["camera"]]["video"]))
    names = [camera["camera"] for camera in both]
    if not both:
        return (
            next(iter(shown_facts["cameras"]), None),
            next(iter(reference_data["cameras"]), None),
            [],
        )
    chosen = both[names.index(chosen_camera)] if chosen_camera in names else both[0]
    return chosen, of_reference[chosen["camera"]], names


def carried_segments(
    alignment: dict[str, Any], segments: Sequence[dict[str, Any]], num_frames: int
) -> list[dict[str, Any]]:
    """A reference's segments on the run's frames: where it shows them, in the order in
    which the run does.

    segments: of the reference, tiling it.
    """

    def segment_at(frame: int) -> dict[str, Any]:
        return next((s for s in segments if s["start_frame"] <= frame < s["end_frame"]), NOT_SHOWN)

    # Half way to its neighbours a looked-at frame ends
    ends = [(a + b + 1) // 2 for a, b in pairwise(alignment["frames"])]
    parts = zip(alignment["reference_frames"], alignment["follows"], strict=True)
    parts_shown = [
        segment_at(reference_frame) if follows else NOT_SHOWN for reference_frame, follows in parts
    ]
    spans: list[dict[str, Any]] = []
    for _, of_place in groupby(
        zip([0, *ends], [*ends, num_frames], parts_shown, strict=True), key=lambda part: id(part[2])
    ):
        part = list(of_place)
        spans.append({**part[0][2], "start_frame": part[0][0], "end_frame": part[-1][1]})
    return spans


def unsure_steps(segments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps that are the least sure, if they are not sure, in order of time."""
    unsure = [s for s in segments if s["confidence"] is not None and s["confidence"] < UNSURE]
    least_sure = sorted(unsure, key=lambda s: s["confidence"])[:MOST_NAMED]
    return sorted(least_sure, key=lambda s: s["start_frame"])

"""Checking labels that follow a reference: each run beside its reference at the aligned moment, one after another."""

from typing import Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from explorer import charts
from explorer.access import LakeReader, PageError
from explorer.beside import Aligned, QueuedRun, aligned, carried, doubtful, unsure_steps
from explorer.corrected_labels import correction_state
from explorer.episode import LakeEpisode, episode_data, find_episode
from explorer.labelling import MOST_LISTED, shown_tasks
from explorer.pages.episode import EpisodeIndex
from explorer.site import Explorer, explorer_of
from explorer.writing import why_read_only

router = APIRouter(prefix="/review/beside/{dataset}")


@router.get("")
def queue_page(request: Request, dataset: str, end: bool = False, camera: str | None = None) -> Response:
    """The first run of the queue; at its `end`, or where nothing waits, what is left to do."""
    explorer = explorer_of(request)
    with explorer.corpus.reading() as reader:
        if reader.row("SELECT 1 FROM datasets WHERE dataset = ?", dataset) is None:
            raise PageError(f"there is no dataset {dataset!r} in this corpus")
        queue = _queue(explorer, reader, dataset)
        if queue and not end:
            return RedirectResponse(_address(dataset, queue[0].episode_index, camera), 303)
        tasks = shown_tasks(reader, dataset)
        return explorer.page(
            request,
            "beside_end.html",
            reader,
            title=f"Review {dataset}",
            dataset=dataset,
            left=len(queue),
            num_references=sum(len(task.references) for task in tasks),
            no_fit=[episode for task in tasks for episode in task.no_fit][:MOST_LISTED],
            first=_address(dataset, queue[0].episode_index, camera) if queue else None,
            can_write=why_read_only(explorer) is None,
        )


@router.get("/{episode_index}")
def page(request: Request, dataset: str, episode_index: EpisodeIndex, camera: str | None = None) -> HTMLResponse:
    """A run beside the reference that its label follows. Raises PageError: it follows none."""
    explorer = explorer_of(request)
    with explorer.corpus.reading() as reader:
        episode = find_episode(reader, dataset, episode_index)
        shown = episode_data(reader, episode)
        run, beside = _label_beside(reader, episode, shown)
        reference = find_episode(reader, dataset, beside.reference)
        its = episode_data(reader, reference)
        own_camera, reference_camera, shared = _cameras(shown, its, camera)
        queue = _queue(explorer, reader, dataset)
        place = next((k for k, doubt in enumerate(queue) if doubt.episode_index == episode_index), None)
        following = queue[0 if place is None else place + 1 :][:1]
        after = _address(dataset, following[0].episode_index, camera) if following else _end(dataset, camera)
        segments = its["runs"][0]["segments"] if its["runs"] else []
        data = {
            "runs": [run, *(r for r in shown["runs"] if r is not run)],
            "beside": {
                "label_run": run["label_run"],
                "follows": correction_state(reader, dataset, episode_index)["newest"],
                "after": after,
                "aligned": beside.facts(),
                "camera": reference_camera,
                "fps": its["fps"],
                "segments": segments,
            },
        }
        return explorer.page(
            request,
            "beside.html",
            reader,
            title=f"{dataset} {episode_index} beside {beside.reference}",
            episode=episode,
            facts=episode.facts,
            data=shown | data,
            run=run,
            own=own_camera,
            own_number=shown["cameras"].index(own_camera) if own_camera else None,
            reference=reference,
            reference_camera=reference_camera,
            cameras=shared,
            spans=charts.spans(run["segments"], episode.num_frames),
            carried=charts.spans(carried(beside, segments, episode.num_frames), episode.num_frames),
            doubt=queue[place] if place is not None else None,
            unsure=unsure_steps(run["segments"]),
            place=place,
            total=len(queue),
            after=after,
            why_read_only=why_read_only(explorer),
        )


def _queue(explorer: Explorer, reader: LakeReader, dataset: str) -> list[QueuedRun]:
    return doubtful(reader, explorer.index.at(reader), dataset)


def _label_beside(reader: LakeReader, episode: LakeEpisode, shown: dict[str, Any]) -> tuple[dict[str, Any], Aligned]:
    """The label of an episode that follows a reference, and how."""
    for run in shown["runs"]:
        beside = aligned(reader, episode, run["label_run"]) if run["annotator"] == "transfer" else None
        if beside is not None:
            return run, beside
    raise PageError(f"{episode.dataset} {episode.episode_index} has no label that follows a reference")


def _cameras(
    shown: dict[str, Any], its: dict[str, Any], wanted: str | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None, list[str]]:
    """A camera of the run, the same of its reference, and the names of all that both have; those with videos first."""
    of_reference = {camera["camera"]: camera for camera in its["cameras"]}
    both = [camera for camera in shown["cameras"] if camera["camera"] in of_reference]
    both.sort(key=lambda c: not (c["usable"] and c["video"] and of_reference[c["camera"]]["video"]))
    names = [camera["camera"] for camera in both]
    if not both:
        return next(iter(shown["cameras"]), None), next(iter(its["cameras"]), None), []
    chosen = both[names.index(wanted)] if wanted in names else both[0]
    return chosen, of_reference[chosen["camera"]], names


def _address(dataset: str, episode_index: int, camera: str | None) -> str:
    query = f"?{urlencode({'camera': camera})}" if camera else ""
    return f"/review/beside/{quote(dataset, safe='')}/{episode_index}{query}"


def _end(dataset: str, camera: str | None) -> str:
    query = {"end": 1} | ({"camera": camera} if camera else {})
    return f"/review/beside/{quote(dataset, safe='')}?{urlencode(query)}"

"""Files for the pages: videos, stored pictures, thumbnails and contact sheets."""

import importlib.util
import pathlib
from collections.abc import Callable
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from core.domain.label import Episode
from core.errors import install_hint
from explorer import media
from explorer.access import PageError
from explorer.episode import (
    EpisodeIndex,
    cameras,
    chunk_of,
    episode_and_facts,
    episode_facts,
    find_episode,
    stored_pictures,
)
from explorer.pages.episode import shown_episode
from explorer.site import Visit, Visiting, visiting, while_wanted
from ingest.media.curve_panel import CurvePanel

router = APIRouter(prefix="/media/{dataset}/{episode_index}")
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
NEW = {"Cache-Control": "no-store"}
SHORT = {"Cache-Control": "private, max-age=60"}
CONVERTED_AT_ONCE = 2  # videos
MOST_POINTS = 1000  # of a curve below a picture
Camera = Annotated[int, Path(ge=0)]


@router.get("/video/{camera}")
def video(visit: Visiting, dataset: str, episode_index: EpisodeIndex, camera: Camera) -> Response:
    """The file that holds a camera's pictures, also in parts (Range). It may hold other episodes, too."""
    path = media.video_file(
        visit.explorer.space, episode_facts(visit.reader, dataset, episode_index), camera
    )
    kind = media.MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")
    return FileResponse(path, media_type=kind, headers=SHORT)


@router.get("/video/{camera}/in_order")
def in_order(
    visit: Visiting, dataset: str, episode_index: EpisodeIndex, camera: Camera
) -> JSONResponse:
    """Do the rows have the file's pictures one after the other, from the listed frame on?
    Else a page plays the converted video, whose frames are those of the rows.
    """
    facts = episode_facts(visit.reader, dataset, episode_index)
    media.video_file(visit.explorer.space, facts, camera)
    view = cameras(facts, {})[camera]
    snapshot = visit.reader.snapshot()
    pictures = media.picture_numbers(
        visit.explorer.corpus, snapshot, dataset, episode_index, view["camera"]
    )
    first = view["video"]["start_frame"]
    return JSONResponse(
        pictures is None or pictures == [*range(first, first + len(pictures))], headers=SHORT
    )


@router.get("/video/{camera}/h264")
async def playable(
    request: Request, dataset: str, episode_index: EpisodeIndex, camera: Camera
) -> Response:
    """The episode's part of a camera's video in a codec that every browser plays; made
    where it is not yet.
    """
    path = await _converted_video(request, dataset, episode_index, camera, with_label=False)
    return FileResponse(path, media_type="video/mp4", headers=SHORT)


@router.get("/labelled/{camera}")
async def labelled(
    request: Request, dataset: str, episode_index: EpisodeIndex, camera: Camera
) -> Response:
    """The same with the label that counts below the pictures, to keep: its steps, its
    curve, and the moment.
    """
    path = await _converted_video(request, dataset, episode_index, camera, with_label=True)
    name = f"{quote(dataset, safe='')}-{episode_index:06d}-labelled.mp4"
    return FileResponse(path, media_type="video/mp4", headers=NEW, filename=name)


@router.get("/episode.rrd")
async def recording(request: Request, dataset: str, episode_index: EpisodeIndex) -> Response:
    """The episode as a recording for Rerun: cameras, labels and curves."""
    if importlib.util.find_spec("rerun") is None:
        raise PageError(f"recordings need rerun-sdk: {install_hint('exports')}", 501)

    def record(given_up: Callable[[], bool]) -> pathlib.Path:
        with visiting(request) as visit:
            episode = find_episode(visit.reader, dataset, episode_index)
        return media.rerun_recording(visit.explorer.space, visit.reader.state, episode, given_up)

    async with request.app.state.converting:
        path = await while_wanted(request, record)
    name = f"{quote(dataset, safe='')}-{episode_index:06d}.rrd"
    return FileResponse(path, media_type="application/octet-stream", headers=NEW, filename=name)


async def _converted_video(
    request: Request, dataset: str, episode_index: int, camera: int, *, with_label: bool
) -> pathlib.Path:
    """The converted video of a camera. Raises PageError."""

    def convert(given_up: Callable[[], bool]) -> pathlib.Path:
        with visiting(request) as visit:
            episode, facts = episode_and_facts(visit.reader, dataset, episode_index)
            limits = media.limits_of(visit.reader, dataset)
            label = _label(visit, episode) if with_label else None
        explorer = visit.explorer
        snapshot = visit.reader.snapshot()
        media.video_file(explorer.space, facts, camera)
        name = cameras(facts, {})[camera]["camera"]
        pictures = media.picture_numbers(explorer.corpus, snapshot, dataset, episode_index, name)
        return media.playable_video(
            explorer.space, facts, camera, limits, given_up, pictures, label
        )

    async with request.app.state.converting:
        return await while_wanted(request, convert)


def _label(visit: Visit, episode: Episode) -> CurvePanel:
    """The label that counts, with what people have said since the last build. Raises
    PageError: none has a curve.
    """
    runs = shown_episode(visit, episode)["runs"]
    run = next((run for run in runs if run["active"] and run["progress"]), None)
    if run is None:
        raise PageError(
            f"{episode.dataset} {episode.episode_index} has no label that counts: build it first"
        )
    fps = episode.fps or 1.0
    # Of a long run as many as can be told apart: all of them are drawn below each of its pictures
    progress = run["progress"]
    last = len(progress) - 1
    rows = [
        {"frame_index": k, "timestamp_s": k / fps, "progress": value, "done": None, "success": None}
        for k, value in enumerate(progress)
        if k % (1 + last // MOST_POINTS) == 0 or k == last
    ]
    steps = [(s["start_frame"], s["end_frame"], s["name"]) for s in run["segments"]]
    return CurvePanel(fps, rows, steps)


@router.get("/keyframes/{sha256}.jpg")
def keyframe(visit: Visiting, dataset: str, episode_index: EpisodeIndex, sha256: str) -> Response:
    """A stored picture, if the lake lists it for this episode."""
    chunk = chunk_of(visit.reader, dataset, episode_index)
    stored = stored_pictures(visit.reader, (dataset, chunk, episode_index))
    if not any(picture["sha256"] == sha256 for picture in stored):
        raise PageError(f"{dataset} {episode_index} has no such picture")
    path = visit.explorer.space.keyframe(sha256)
    if not path.is_file():
        raise PageError("this picture is listed, but its file is missing from the workspace")
    return FileResponse(path, media_type="image/jpeg", headers=FOREVER)


@router.get("/{kind}.jpg")
def picture(
    visit: Visiting, dataset: str, episode_index: EpisodeIndex, kind: Literal["thumb", "sheet"]
) -> Response:
    """A thumbnail, or a contact sheet."""
    data = media.thumbnail_jpeg(
        visit.explorer.corpus, visit.reader.snapshot(), dataset, episode_index, kind
    )
    return Response(data, media_type="image/jpeg", headers=SHORT)


@router.get("/frames/{frame_index}.jpg")
def frame(
    visit: Visiting,
    dataset: str,
    episode_index: EpisodeIndex,
    frame_index: EpisodeIndex,
    camera: Annotated[str, Query(max_length=200)],
) -> Response:
    """A small picture of what a camera shows at a frame."""
    data = media.moment_jpeg(
        visit.explorer.corpus,
        visit.reader.snapshot(),
        dataset,
        episode_index,
        camera,
        frame_index,
    )
    return Response(data, media_type="image/jpeg", headers=SHORT)

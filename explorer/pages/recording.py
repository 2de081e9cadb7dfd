"""An episode as a recording for Rerun: cameras, labels and curves, made when it is asked for."""

import importlib.util
import tempfile
from contextlib import closing
from pathlib import Path
from threading import Lock
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from core.errors import UserError, install_hint
from core.paths import Workspace
from core.wall import TOO_MUCH, Walled
from explorer.access import PageError
from explorer.episode import EpisodeIndex, find_episode
from explorer.site import explorer_of
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.selection import select_episode
from warehouse.lake import Lake

router = APIRouter()
OPTIONS = EXPORT_KINDS["rerun"].options(pictures_per_s=10, max_px=480)
ONE_AT_A_TIME = Lock()
MEMORY_BYTES, MOST_S = 1 << 32, 600.0  # that making one may take


@router.get("/media/{dataset}/{episode_index}/episode.rrd")
def recording(request: Request, dataset: str, episode_index: EpisodeIndex) -> FileResponse:
    """The episode's .rrd file, of ten pictures a second; `proccorpus export rerun` writes all of them."""
    explorer = explorer_of(request)
    if importlib.util.find_spec("rerun") is None:
        raise PageError(f"recordings need rerun-sdk: {install_hint('exports')}", 501)
    with explorer.corpus.reading() as reader:
        find_episode(reader, dataset, episode_index)
        snapshot = reader.snapshot.number
    # The file is there from its turn on: a server that is ended leaves none of those that wait
    with ONE_AT_A_TIME, tempfile.NamedTemporaryFile(suffix=".rrd", delete=False) as file:
        path = Path(file.name)
        try:
            with Walled(MEMORY_BYTES, __name__) as process:
                process(
                    _write,
                    explorer.space,
                    snapshot,
                    dataset,
                    episode_index,
                    path,
                    cpu_s=MOST_S,
                    wall_s=MOST_S,
                )
        except BaseException as e:
            path.unlink(missing_ok=True)
            if isinstance(e, (UserError, *TOO_MUCH)):
                raise PageError(f"no recording can be made: {e}") from e
            raise
    name = f"{quote(dataset, safe='')}-{episode_index:06d}.rrd"
    headers = {"Cache-Control": "no-store"}
    deleted = BackgroundTask(path.unlink, missing_ok=True)
    return FileResponse(
        path,
        headers=headers,
        media_type="application/octet-stream",
        filename=name,
        background=deleted,
    )


def _write(
    space: Workspace,
    snapshot: int,
    dataset: str,
    episode_index: int,
    path: Path,
) -> None:
    """In a process of its own: Rerun leaves threads behind. Raises UserError."""
    from warehouse.exports.rerun import write_recording

    lake = Lake(space, read_only=True, snapshot=snapshot)
    with closing(lake.con):
        selected = select_episode(lake, dataset, episode_index)
        write_recording(path, selected, selected.episodes[0], OPTIONS)

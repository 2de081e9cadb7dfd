"""An episode as a recording for Rerun: cameras, labels and curves, made when it is asked for."""

import importlib.util
import tempfile
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from core.errors import UserError, install_hint
from explorer.access import PageError
from explorer.episode import EpisodeIndex, find_episode
from explorer.site import explorer_of
from warehouse.exports.options import RerunOptions
from warehouse.exports.selection import select_episode
from warehouse.exports.source_reader import SourceReader
from warehouse.lake import Lake

router = APIRouter()
OPTIONS = RerunOptions(pictures_per_s=10, max_px=480)


def has_rerun() -> bool:
    return importlib.util.find_spec("rerun") is not None


@router.get("/media/{dataset}/{episode_index}/episode.rrd")
def recording(request: Request, dataset: str, episode_index: EpisodeIndex) -> FileResponse:
    """The episode's .rrd file, of ten pictures a second; `proccorpus export rerun` writes all of them."""
    explorer = explorer_of(request)
    if not has_rerun():
        raise PageError(f"recordings need rerun-sdk: {install_hint('exports')}", 501)
    from warehouse.exports.rerun import write_recording

    with explorer.corpus.reading() as reader:
        find_episode(reader, dataset, episode_index)
        snapshot = reader.snapshot.number
    file = tempfile.NamedTemporaryFile(suffix=".rrd", delete=False)  # noqa: SIM115
    file.close()
    path = Path(file.name)
    try:
        lake = Lake(explorer.space, read_only=True, snapshot=snapshot)
        with closing(lake.con):
            selected = select_episode(lake, dataset, episode_index)
            write_recording(path, selected, selected.episodes[0], SourceReader(selected, dataset), OPTIONS)
    except UserError as e:
        path.unlink(missing_ok=True)
        raise PageError(f"no recording can be made: {e}") from e
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    name = f"{quote(dataset, safe='')}-{episode_index:06d}.rrd"
    return FileResponse(
        path,
        media_type="application/octet-stream",
        filename=name,
        headers={"Cache-Control": "no-store"},
        background=BackgroundTask(path.unlink, missing_ok=True),
    )

"""Why a label is what it is: every question to a model about an episode, as sent, with reply, tokens and price."""

import json
import threading
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from annotate.model_client.responses import ResponseStore, StoredReply
from core.paths import Workspace
from explorer.episode import EpisodeIndex, find_episode, keyframes, label_runs
from explorer.site import Visiting

router = APIRouter()
MAX_CALLS = 200
_opening = threading.Lock()


@router.get("/why/{dataset}/{episode_index}")
def page(at: Visiting, dataset: str, episode_index: EpisodeIndex) -> HTMLResponse:
    reader = at.reader
    episode = find_episode(reader, dataset, episode_index)
    rows = reader.dicts(
        "SELECT * FROM vlm_calls WHERE dataset = ? AND episode_index = ? ORDER BY label_run, build_id, stage,"
        " call_key"
        f" LIMIT {MAX_CALLS}",
        dataset,
        episode_index,
    )
    pictures = _pictures_by_hash(keyframes(reader, episode.key))
    # The lake has the facts of each question; words and pictures are in the kept replies, which may be pruned
    store = stored_replies(at.request, at.explorer.space) if rows else None
    calls = []
    for row in rows:
        reply = store.get(row["call_key"]) if store else None
        calls.append(call_shown(row, reply, pictures))
    return at.page(
        "why.html",
        title=f"Why {dataset} {episode_index}",
        episode=episode,
        facts=episode.facts,
        runs=[run | {"parameters": indented(run["about"].get("params"))} for run in label_runs(reader, episode)],
        calls=calls,
        cost_usd=sum(row["cost_usd"] or 0.0 for row in rows),
        max_calls=MAX_CALLS,
    )


def indented(params: str | None) -> str:
    """Parameters as they are stored, a line each."""
    return json.dumps(json.loads(params), indent=2, ensure_ascii=False) if params else ""


def _pictures_by_hash(stored: dict[str, list[dict]]) -> dict[str, dict]:
    """Stored pictures of an episode, given by camera, by the SHA-256 of their bytes: a call names them by it."""
    pictures = {}
    for camera, of_camera in stored.items():
        for picture in of_camera:
            sha256 = picture["url"].rsplit("/", 1)[1].removesuffix(".jpg")
            pictures[sha256] = {"url": picture["url"], "camera": camera, "frame": picture["frame_index"]}
    return pictures


def stored_replies(request: Request, space: Workspace) -> ResponseStore | None:
    """The workspace's response store, opened once; None where there is none."""
    state = request.app.state
    with _opening:
        if not hasattr(state, "responses"):
            state.responses = ResponseStore(space.responses) if space.responses.is_dir() else None
        return state.responses


def call_shown(row: dict[str, Any], reply: StoredReply | None, pictures: dict[str, dict]) -> dict[str, Any]:
    """One call for the page: what was sent in its order, pictures with where they are of, and the reply."""
    content: list[dict[str, Any]] = []
    for part in reply.content if reply else ():
        if isinstance(part, str):
            content.append({"text": part})
        else:
            content.append({"sha256": part["sha256"], "picture": pictures.get(part["sha256"])})
    if reply and not content:  # a reply of a version that did not keep what was asked
        content = [{"sha256": sha256, "picture": pictures.get(sha256)} for sha256 in reply.images]
    return row | {"reply": reply, "content": content}

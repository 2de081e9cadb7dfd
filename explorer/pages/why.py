"""Why a label is what it is: every question to a model about an episode, as sent, with reply, tokens and price."""

import json
from functools import cache
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from annotate.model_client.responses import ResponseStore, StoredReply
from explorer.episode import EpisodeIndex, find_episode, keyframes, label_runs
from explorer.site import Visiting

router = APIRouter()
MAX_CALLS = 200
CALLS_SQL = f"""
    FROM vlm_calls WHERE dataset = ? AND episode_index = ? ORDER BY label_run, build_id, stage, call_key
    LIMIT {MAX_CALLS}"""


@router.get("/why/{dataset}/{episode_index}")
def page(at: Visiting, dataset: str, episode_index: EpisodeIndex) -> HTMLResponse:
    episode = find_episode(at.reader, dataset, episode_index)
    rows = at.reader.dicts(CALLS_SQL, dataset, episode_index)
    # A call names stored pictures by the SHA-256 of their bytes
    pictures = {}
    for camera, of_camera in keyframes(at.reader, episode.key).items():
        for k in of_camera:
            sha256 = k["url"].rsplit("/", 1)[1].removesuffix(".jpg")
            pictures[sha256] = {"url": k["url"], "camera": camera, "frame": k["frame_index"]}
    # The lake has the facts of each question; words and pictures are in the kept replies, which may be pruned
    folder = at.explorer.space.responses
    store = stored_replies(folder) if rows and folder.is_dir() else None
    calls = [call_shown(row, store.get(row["call_key"]) if store else None, pictures) for row in rows]
    return at.page(
        "why.html",
        title=f"Why {dataset} {episode_index}",
        episode=episode,
        facts=episode.facts,
        runs=[run | {"parameters": indented(run["about"].get("params"))} for run in label_runs(at.reader, episode)],
        calls=calls,
        cost_usd=sum(row["cost_usd"] or 0.0 for row in rows),
        max_calls=MAX_CALLS,
    )


def indented(params: str | None) -> str:
    """Parameters as they are stored, a line each."""
    return json.dumps(json.loads(params), indent=2, ensure_ascii=False) if params else ""


stored_replies = cache(ResponseStore)  # of a folder, opened once


def call_shown(row: dict[str, Any], reply: StoredReply | None, pictures: dict[str, dict]) -> dict[str, Any]:
    """One call for the page: what was sent in its order, pictures with where they are of, and the reply."""
    # A reply of a version that did not keep what was asked has its pictures alone
    parts = (reply.content or [{"sha256": sha256} for sha256 in reply.images]) if reply else ()
    content = [
        {"text": part} if isinstance(part, str) else {"sha256": part["sha256"], "picture": pictures.get(part["sha256"])}
        for part in parts
    ]
    return row | {"reply": reply, "content": content}

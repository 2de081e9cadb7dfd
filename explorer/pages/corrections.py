"""Correcting an episode's label: what the editor asks and saves, as JSON."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from core.values import plain
from explorer.access import PageError
from explorer.corrected_labels import correction_state
from explorer.episode import find_episode
from explorer.pages.episode import EpisodeIndex
from explorer.site import explorer_of
from explorer.writing import id_of, json_body, text_of, why_read_only, writing
from warehouse.lake import Lake, corrections
from warehouse.lake.corrections import SAID_LATER, ConflictError, Corrected, CorrectionError, parsed, segments_of

router = APIRouter(prefix="/api/corrections/{dataset}/{episode_index}")
Body = Annotated[dict[str, Any], Depends(json_body)]


@router.get("")
def state(request: Request, dataset: str, episode_index: EpisodeIndex) -> JSONResponse:
    """The corrections of an episode, and whether and as whom one may add another."""
    explorer = explorer_of(request)
    with explorer.corpus.reading() as reader:
        episode = find_episode(reader, dataset, episode_index)
        usable = episode.facts["status"] == "ok" and episode.facts["content_hash"] is not None
        # The editor says beforehand why it cannot save
        why = why_read_only(explorer)
        if why is None and not usable:
            why = "the episode cannot be used, so it has no label"
        facts = {
            "dataset": dataset,
            "episode_index": episode_index,
            "content_hash": episode.facts["content_hash"],
            "why_read_only": why,
            "author": request.state.user or explorer.options.access.author,
            "author_is_known": request.state.user is not None,
        }
        return JSONResponse(plain(facts | correction_state(reader, dataset, episode_index)))


@router.post("")
def save(request: Request, dataset: str, episode_index: EpisodeIndex, body: Body) -> JSONResponse:
    """Save corrected segments; 409 where somebody else was quicker, 422 for what is no label."""
    corrected = _checked(lambda: parsed({k: body[k] for k in ("plan", "segments", *SAID_LATER) if k in body}))

    def write(lake: Lake) -> dict[str, Any]:
        return _save(request, lake, dataset, episode_index, corrected, body)

    return _written(request, dataset, episode_index, write)


@router.post("/accept")
def accept(request: Request, dataset: str, episode_index: EpisodeIndex, body: Body) -> JSONResponse:
    """Say that a label, or a correction that waits for review, is right as it is."""

    def write(lake: Lake) -> dict[str, Any]:
        correction = id_of(body, "correction_id")
        if correction:
            corrected = _waiting(lake, dataset, episode_index, correction)
        else:
            corrected = corrections.stored_label(lake, dataset, episode_index, text_of(body, "base_label_run"))
        facts = corrections.episode_facts(lake, dataset, episode_index)
        seen = {"base_content_hash": facts["content_hash"]} | body
        return _save(request, lake, dataset, episode_index, corrected, seen)

    return _written(request, dataset, episode_index, write)


@router.post("/reject")
def reject(request: Request, dataset: str, episode_index: EpisodeIndex, body: Body) -> JSONResponse:
    """Say that an annotator's label must not be used."""
    run = text_of(body, "base_label_run")

    def write(lake: Lake) -> dict[str, Any]:
        return corrections.reject_label(lake, dataset, episode_index, run, **_judgement(request, body))

    return _written(request, dataset, episode_index, write)


@router.post("/undo")
def undo(request: Request, dataset: str, episode_index: EpisodeIndex, body: Body) -> JSONResponse:
    """Take back what was saved, by a row that says so."""
    correction = text_of(body, "correction_id")

    def write(lake: Lake) -> dict[str, Any]:
        places = lake.rows("SELECT dataset, episode_index FROM corrections WHERE correction_id = ?", [correction])
        if places != [(dataset, episode_index)]:
            raise CorrectionError(f"episode {episode_index} of {dataset} has no correction {correction!r}")
        return corrections.take_back(lake, correction, **_judgement(request, body))

    return _written(request, dataset, episode_index, write)


def _save(
    request: Request, lake: Lake, dataset: str, episode_index: int, corrected: Corrected, body: dict[str, Any]
) -> dict[str, Any]:
    return corrections.save(
        lake,
        dataset,
        episode_index,
        corrected,
        base_label_run=id_of(body, "base_label_run"),
        base_content_hash=id_of(body, "base_content_hash"),
        **_judgement(request, body),
    )


def _judgement(request: Request, body: dict[str, Any]) -> dict[str, Any]:
    """Author, comment, and the newest correction that the author had seen. A proxy's name counts before their own."""
    author = request.state.user or text_of(body, "author", default=explorer_of(request).options.access.author)
    return {"author": author, "comment": text_of(body, "comment", default=""), "follows": id_of(body, "follows")}


def _waiting(lake: Lake, dataset: str, episode_index: int, correction: str) -> Corrected:
    rows = lake.dicts(
        f"SELECT plan, segments, {', '.join(SAID_LATER)} FROM current_corrections "
        "WHERE correction_id = ? AND dataset = ? AND episode_index = ?",
        [correction, dataset, episode_index],
    )
    if not rows or not rows[0]["segments"]:
        raise CorrectionError(f"no correction {correction!r} of episode {episode_index} of {dataset} waits for review")
    fields = ("name", "start_frame", "end_frame", "kind", "completed", "step", "pace")
    segments = [{name: segment.__dict__[name] for name in fields} for segment in segments_of(rows[0])]
    return parsed(rows[0] | {"segments": segments})


def _checked(make: Callable[[], Corrected]) -> Corrected:
    try:
        return make()
    except CorrectionError as e:
        raise PageError(str(e), 422) from e


def _written(
    request: Request, dataset: str, episode_index: int, write: Callable[[Lake], dict[str, Any]]
) -> JSONResponse:
    """The answer to a change: its id, or why it was refused, and the corrections of the episode after it."""
    explorer = explorer_of(request)
    with writing(explorer) as lake:
        try:
            status, outcome = 200, {"saved": write(lake)["correction_id"]}
        except ConflictError as e:
            status, outcome = 409, {"error": str(e)}
        except CorrectionError as e:
            status, outcome = 422, {"error": str(e)}
    # Read again after the change, so that the page shows what is stored and not what it sent
    with explorer.corpus.reading() as reader:
        return JSONResponse(plain(outcome | correction_state(reader, dataset, episode_index)), status)

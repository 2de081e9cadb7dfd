"""What people say of an episode, as pages send it: corrections of its label, tags, and whom it is assigned to."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from annotate.label_run import human_run
from core.values import plain
from explorer.access import LakeReader, PageError
from explorer.corrected_labels import correction_state
from explorer.episode import EpisodeIndex, find_episode
from explorer.site import Explorer, Visiting, explorer_of, id_of, json_body, text_of, writing
from explorer.tags import Place
from warehouse.lake import Lake, corrections
from warehouse.lake.corrections import SAID_LATER, ConflictError, CorrectionError, parsed, segments_of
from warehouse.lake.statements import ASSIGNED, TAG, mark

router = APIRouter()
OF_EPISODE = "/api/corrections/{dataset}/{episode_index}"
SEGMENT = ("name", "start_frame", "end_frame", "kind", "completed", "step", "pace")
Body = Annotated[dict[str, Any], Depends(json_body)]


@router.get(OF_EPISODE)
def state(at: Visiting, dataset: str, episode_index: EpisodeIndex) -> JSONResponse:
    """The corrections of an episode, and whether and as whom one may add another."""
    episode = find_episode(at.reader, dataset, episode_index)
    # The editor says beforehand why it cannot save
    why = at.explorer.options.why_read_only
    if why is None and (episode.facts["status"] != "ok" or episode.facts["content_hash"] is None):
        why = "the episode cannot be used, so it has no label"
    facts = {
        "dataset": dataset,
        "episode_index": episode_index,
        "content_hash": episode.facts["content_hash"],
        "why_read_only": why,
        **at.explorer.author(at.request),
    }
    return JSONResponse(plain(facts | _said(at.explorer, at.reader, dataset, episode_index, why)))


def _said(
    explorer: Explorer, reader: LakeReader, dataset: str, episode_index: int, why_read_only: str | None
) -> dict[str, Any]:
    """The corrections of an episode, and their history in words (`listed`, HTML)."""
    said = correction_state(reader, dataset, episode_index)
    template = explorer.templates.get_template("history.html")
    return said | {"listed": template.render(said, why_read_only=why_read_only)}


@router.post(OF_EPISODE)
@router.post(f"{OF_EPISODE}/{{act}}")
def change(
    request: Request,
    dataset: str,
    episode_index: EpisodeIndex,
    body: Body,
    act: Literal["save", "accept", "reject", "undo"] = "save",
) -> JSONResponse:
    """Save corrected segments; accept a label, or a correction that waits, as it is; reject a label; take one of these
    back. Answers with its id, or why it was refused (409 where somebody else was quicker, 422 for what cannot be), and
    the corrections of the episode after it.
    """
    explorer = explorer_of(request)
    with writing(explorer) as lake:
        try:
            status, outcome = 200, {"saved": _written(request, lake, dataset, episode_index, act, body)}
        except CorrectionError as e:
            status, outcome = 409 if isinstance(e, ConflictError) else 422, {"error": str(e)}
    # Read again after the change, so that the page shows what is stored and not what it sent
    with explorer.corpus.reading() as reader:
        return JSONResponse(plain(outcome | _said(explorer, reader, dataset, episode_index, None)), status)


def _written(request: Request, lake: Lake, dataset: str, episode_index: int, act: str, body: dict[str, Any]) -> str:
    """Write a change; returns its id. Raises CorrectionError, ConflictError."""
    # The newest correction that the author had seen; a proxy's name counts before their own
    judgement = {
        "author": _author(request, body),
        "comment": text_of(body, "comment", default=""),
        "follows": id_of(body, "follows"),
    }
    correction = id_of(body, "correction_id")
    if act == "reject":
        run = text_of(body, "base_label_run")
        return corrections.reject_label(lake, dataset, episode_index, run, **judgement)["correction_id"]
    if act == "undo":
        places = lake.rows("SELECT dataset, episode_index FROM corrections WHERE correction_id = ?", [correction])
        if places != [(dataset, episode_index)]:
            raise CorrectionError(f"episode {episode_index} of {dataset} has no correction {correction!r}")
        return corrections.take_back(lake, text_of(body, "correction_id"), **judgement)["correction_id"]
    run, content = id_of(body, "base_label_run"), id_of(body, "base_content_hash")
    if act == "save":
        corrected = parsed({k: body[k] for k in ("plan", "segments", *SAID_LATER) if k in body})
    else:
        content = content or corrections.episode_facts(lake, dataset, episode_index)["content_hash"]
        if correction:
            corrected = _waiting(lake, dataset, episode_index, correction)
        else:
            run = text_of(body, "base_label_run")
            _check_replaces_nothing(lake, dataset, episode_index, run, judgement["author"])
            corrected = corrections.stored_label(lake, dataset, episode_index, run)
    seen = {"base_label_run": run, "base_content_hash": content}
    return corrections.save(lake, dataset, episode_index, corrected, **seen, **judgement)["correction_id"]


def _check_replaces_nothing(lake: Lake, dataset: str, episode_index: int, run: str, author: str) -> None:
    """Accepting an annotator's label is no way to replace what another person has saved. Raises ConflictError."""
    where = "WHERE dataset = ? AND episode_index = ? AND status = 'accepted' AND author <> ?"
    saved = lake.rows(f"SELECT author FROM current_corrections {where}", [dataset, episode_index, author])
    if saved and run != human_run(dataset):
        raise ConflictError(
            f"{saved[0][0]} has saved a label of episode {episode_index} of {dataset}: open it, compare"
        )


def _author(request: Request, body: dict[str, Any]) -> str:
    return request.state.user or text_of(body, "author", default=explorer_of(request).options.access.author)


def _waiting(lake: Lake, dataset: str, episode_index: int, correction: str) -> corrections.Corrected:
    rows = lake.dicts(
        f"SELECT plan, segments, {', '.join(SAID_LATER)} FROM current_corrections "
        "WHERE correction_id = ? AND dataset = ? AND episode_index = ?",
        [correction, dataset, episode_index],
    )
    if not rows or not rows[0]["segments"]:
        raise CorrectionError(f"no correction {correction!r} of episode {episode_index} of {dataset} waits for review")
    segments = [{name: getattr(segment, name) for name in SEGMENT} for segment in segments_of(rows[0])]
    return parsed(rows[0] | {"segments": segments})


@router.post("/api/marks")
def tag(request: Request, body: Body) -> JSONResponse:
    """`kind` (tag or assigned), `value`, `on`, `author`, and `episodes`: [dataset, episode_index, assignment seen].

    409 where somebody else has assigned one of them meanwhile, 422 for what cannot be.
    """
    kind, is_on = text_of(body, "kind"), body.get("on", True)
    if kind not in (TAG, ASSIGNED):
        raise PageError(f"kind: {TAG} or {ASSIGNED} is needed", 422)
    if not isinstance(is_on, bool):
        raise PageError("on: true or false is needed", 422)
    seen, author = _seen(body), _author(request, body)
    try:
        with writing(explorer_of(request)) as lake:
            rows = mark(lake, [*seen], kind, text_of(body, "value"), author=author, is_on=is_on, follows=seen)
    except CorrectionError as e:
        raise PageError(str(e), 409 if isinstance(e, ConflictError) else 422) from e
    return JSONResponse({"changed": len(rows)})


def _seen(body: dict[str, Any]) -> dict[Place, str | None]:
    """The episodes of a request, each with the assignment that its author has seen. Raises PageError."""
    given = body.get("episodes")
    found: dict[Place, str | None] = {}
    for item in given if isinstance(given, list) else [None]:
        match item:
            case [str(dataset), int(episode), None | str() as seen] if not isinstance(episode, bool) and episode >= 0:
                found[dataset, episode] = seen
            case _:
                raise PageError("episodes: a list of [dataset, episode_index, assignment or null] is needed", 422)
    return found

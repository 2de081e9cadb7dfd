"""What people say of an episode, as pages send it: corrections of its label, tags, and whom it is assigned to."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, StrictBool, StrictInt

from annotate.label_run import human_run
from core.errors import UserError
from core.values import plain
from explorer.access import LakeReader, PageError
from explorer.corrected_labels import correction_state
from explorer.episode import EpisodeIndex, find_episode
from explorer.site import Explorer, Visiting, author_of, explorer_of, writing
from warehouse.lake import Lake, acceptances, corrections
from warehouse.lake.corrections import SAID_LATER, ConflictError, CorrectionError, parsed, segments_of
from warehouse.lake.statements import Kind, mark

router = APIRouter()
OF_EPISODE = "/api/corrections/{dataset}/{episode_index}"
OF_LABEL = ("plan", "segments", *SAID_LATER)


class Said(BaseModel, extra="allow"):
    """What somebody says of an episode's label: who, the newest correction that they had seen (`follows`), of which
    label or correction; with OF_LABEL, where they save one.
    """

    author: str | None = None
    comment: str = ""
    follows: str | None = None
    correction_id: str | None = None
    base_label_run: str | None = None
    base_content_hash: str | None = None


class Marking(BaseModel):
    """A tag, or whom episodes are assigned to: said, or taken back (not `on`); of each the assignment that was seen."""

    kind: Kind
    value: str
    on: StrictBool = True
    author: str | None = None
    episodes: list[tuple[str, Annotated[StrictInt, Field(ge=0, le=2**53)], str | None]]


class Acceptance(BaseModel):
    """The faults that a check found, in a run or (no episode_index) in all of a dataset: known, or told again (not
    `on`)."""

    dataset: str
    check: str
    episode_index: Annotated[StrictInt, Field(ge=0, le=2**53)] | None = None
    why: str = ""
    on: StrictBool = True
    author: str | None = None


@router.get(OF_EPISODE)
def state(at: Visiting, dataset: str, episode_index: EpisodeIndex) -> JSONResponse:
    """The corrections of an episode, and whether and as whom one may add another."""
    episode = find_episode(at.reader, dataset, episode_index)
    # The editor says beforehand why it cannot save
    why = at.explorer.options.why_read_only
    if why is None and (episode.facts["status"] != "ok" or episode.facts["content_hash"] is None):
        why = "the episode cannot be used, so it has no label"
    facts = {"content_hash": episode.facts["content_hash"], "why_read_only": why}
    return JSONResponse(plain(facts | _words(at.explorer, at.reader, dataset, episode_index, why)))


def _words(
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
    said: Said,
    act: Literal["save", "accept", "reject", "undo"] = "save",
) -> JSONResponse:
    """Save corrected segments; accept a label, or a correction that waits, as it is; reject a label; take one of these
    back. Answers with its id, or why it was refused (409 where somebody else was quicker, 422 for what cannot be), and
    the corrections of the episode after it.
    """
    explorer = explorer_of(request)
    with writing(explorer) as lake:
        try:
            status, outcome = 200, {"saved": _written(request, lake, dataset, episode_index, act, said)}
        except CorrectionError as e:
            status, outcome = 409 if isinstance(e, ConflictError) else 422, {"error": str(e)}
    # Read again after the change, so that the page shows what is stored and not what it sent
    with explorer.corpus.reading() as reader:
        return JSONResponse(plain(outcome | _words(explorer, reader, dataset, episode_index, None)), status)


def _written(request: Request, lake: Lake, dataset: str, episode_index: int, act: str, said: Said) -> str:
    """Write a change; returns its id. Raises CorrectionError, ConflictError."""
    judgement = {"author": author_of(request, said.author), "comment": said.comment, "follows": said.follows}
    run, content, correction = said.base_label_run, said.base_content_hash, said.correction_id or ""
    if act == "reject":
        return corrections.reject_label(lake, dataset, episode_index, run or "", **judgement)["correction_id"]
    if act == "undo":
        sql = "SELECT dataset, episode_index FROM current_corrections WHERE correction_id = ?"
        places = lake.rows(sql, [correction])
        if places != [(dataset, episode_index)]:
            raise CorrectionError(f"episode {episode_index} of {dataset} has no correction {correction!r}")
        return corrections.take_back(lake, correction, **judgement)["correction_id"]
    if act == "save":
        corrected = parsed({k: v for k, v in (said.model_extra or {}).items() if k in OF_LABEL})
    else:
        content = content or corrections.episode_facts(lake, dataset, episode_index)["content_hash"]
        if correction:
            corrected = _waiting(lake, dataset, episode_index, correction)
        else:
            run = run or ""
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


def _waiting(lake: Lake, dataset: str, episode_index: int, correction: str) -> corrections.Corrected:
    rows = lake.dicts(
        f"SELECT plan, segments, {', '.join(SAID_LATER)} FROM current_corrections "
        "WHERE correction_id = ? AND dataset = ? AND episode_index = ?",
        [correction, dataset, episode_index],
    )
    if not rows or not rows[0]["segments"]:
        raise CorrectionError(f"no correction {correction!r} of episode {episode_index} of {dataset} waits for review")
    return parsed(rows[0] | {"segments": [*map(corrections.as_said, segments_of(rows[0]))]})


@router.post("/api/marks")
def tag(request: Request, marking: Marking) -> JSONResponse:
    """409 where somebody else has assigned one of them meanwhile, 422 for what cannot be."""
    seen = {(dataset, episode): assignment for dataset, episode, assignment in marking.episodes}
    who = {"author": author_of(request, marking.author), "is_on": marking.on, "follows": seen}
    try:
        with writing(explorer_of(request)) as lake:
            rows = mark(lake, [*seen], marking.kind, marking.value, **who)
    except CorrectionError as e:
        raise PageError(str(e), 409 if isinstance(e, ConflictError) else 422) from e
    return JSONResponse({"changed": len(rows)})


@router.post("/api/acceptances")
def accept_check(request: Request, said: Acceptance) -> JSONResponse:
    """422 for what cannot be: no such fault, no reason."""
    episodes = None if said.episode_index is None else [said.episode_index]
    change = acceptances.accept if said.on else acceptances.take_back
    who = {"why": said.why, "author": author_of(request, said.author)}
    with writing(explorer_of(request)) as lake:
        try:
            rows = change(lake, said.dataset, said.check, episodes, **who)
        except UserError as e:
            raise PageError(str(e), 422) from e
    return JSONResponse({"changed": len(rows)})

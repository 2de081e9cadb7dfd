"""What people say of an episode, as pages send it: corrections of its label, tags, whom it is assigned to.

And how a run ended, said with a click or a key: succeeded, failed (from which moment), unfinished; and taken back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, StrictBool, StrictInt

from core.domain.label import DONE, IDLE, STEP, Episode
from core.domain.label_run import human_run
from core.values import plain
from explorer.access import LakeReader, PageError
from explorer.corrected_labels import correction_state
from explorer.episode import EpisodeIndex, active_run, episode_facts, label_as_said
from explorer.site import (
    Speaking,
    Visiting,
)
from warehouse.lake import acceptances, corrections, outcomes
from warehouse.lake.corrections import (
    SAID_LATER,
    ConflictError,
    CorrectionError,
    as_said,
    parsed,
    segments_of,
)
from warehouse.lake.statements import Kind, mark, take_back
from warehouse.lake.stored import episode_from_row

router = APIRouter()
OF_EPISODE = "/api/corrections/{dataset}/{episode_index}"
# In the body of a request
Index = Annotated[StrictInt, Field(ge=0, le=2**53)]
Snapshot = Annotated[Index | None, Body()]  # that the page shows
Text = Annotated[str | None, Body()]
Flag = Annotated[StrictBool, Body()]
OF_LABEL = ("plan", "segments", *SAID_LATER)


class Said(BaseModel, extra="allow"):
    """What somebody says of an episode's label: who, the newest correction that they had
    seen (`follows`), of which recording, label or correction; with OF_LABEL, where they save one.
    """

    author: str | None = None
    comment: str = ""
    follows: str | None = None
    correction_id: str | None = None
    base_label_run: str | None = None
    base_content_hash: str | None = None
    recording: str | None = None


@router.get(OF_EPISODE)
def state(visit: Visiting, dataset: str, episode_index: EpisodeIndex) -> JSONResponse:
    """The corrections of an episode, their history in words (`listed`, HTML), and whether one may add another."""
    facts = episode_facts(visit.reader, dataset, episode_index)
    # The editor says beforehand why it cannot save
    read_only_reason = visit.explorer.options.why_read_only
    is_usable = facts["status"] == "ok" and facts["content_hash"] is not None
    if read_only_reason is None and not is_usable:
        read_only_reason = "the episode cannot be used, so it has no label"
    content = {"content_hash": facts["content_hash"], "why_read_only": read_only_reason}
    statements = correction_state(visit.reader, dataset, episode_index)
    listed = visit.explorer.templates.get_template("history.html")
    words = listed.render(statements, why_read_only=read_only_reason)
    return JSONResponse(plain(content | statements | {"listed": words}))


@router.post(OF_EPISODE)
@router.post(f"{OF_EPISODE}/{{act}}")
def change(
    speech: Speaking,
    dataset: str,
    episode_index: EpisodeIndex,
    statement: Said,
    act: Literal["save", "accept", "reject", "undo"] = "save",
) -> JSONResponse:
    """Save corrected segments; accept a label, or a correction that waits, as it is;
    reject a label; take one of these back. Answers with its id, or why it was refused
    (409 where somebody else was quicker, 422 for what cannot be).
    """
    author = speech.author(statement.author)

    def written(reader: LakeReader) -> dict[str, str]:
        judged = Judged(reader, dataset, episode_index, author, statement)
        return {"saved": _written_correction(judged, act)}

    return speech.answer(written)


@dataclass(frozen=True)
class Judged:
    """What somebody says of the label of an episode, with what the lake has of it, and
    where it is written.
    """

    reader: LakeReader
    dataset: str
    episode_index: int
    author: str
    said: Said

    @property
    def place(self) -> tuple[str, int]:
        return self.dataset, self.episode_index

    @property
    def judgement(self) -> dict[str, Any]:
        return {
            "author": self.author,
            "comment": self.said.comment,
            "follows": self.said.follows,
            "recording": self.said.recording,
        }

    @cached_property
    def facts(self) -> corrections.Facts:
        """Of the episode, as corrections check them. Raises CorrectionError: it is not
        there, or cannot be used.
        """
        try:
            facts = episode_facts(self.reader, *self.place)
        except PageError as e:
            raise CorrectionError(str(e)) from e
        unusable = (f["reason"] for f in facts["findings"] if f["severity"] == "unusable")
        return corrections.checked_facts(*self.place, facts | {"reason": next(unusable, None)})

    @property
    def episode(self) -> Episode:
        """Raises CorrectionError, as `facts` does."""
        return episode_from_row(self.facts)

    def save(self, label: corrections.Corrected, run: str | None, content_hash: str | None) -> str:
        """Save a label, made from a run's label of the episode with these contents;
        returns the correction's id.

        Raises CorrectionError, ConflictError.
        """
        base = {"base_label_run": run, "base_content_hash": content_hash, "facts": self.facts}
        row = corrections.save(self.reader, *self.place, label, **base, **self.judgement)
        return row["correction_id"]


def _written_correction(judged: Judged, act: str) -> str:
    """Write a change; returns its id. Raises CorrectionError, ConflictError."""
    statement = judged.said
    run = statement.base_label_run
    correction = statement.correction_id or ""
    if act == "undo":
        undone = take_back(judged.reader, correction, place=judged.place, **judged.judgement)
        return undone[0]["statement_id"]
    facts = judged.facts
    if act == "reject":
        row = corrections.reject_label(
            judged.reader, *judged.place, run or "", facts=facts, **judged.judgement
        )
        return row["correction_id"]
    if act == "save":
        fields = statement.model_extra or {}
        label = parsed({name: value for name, value in fields.items() if name in OF_LABEL})
        return judged.save(label, run, statement.base_content_hash)
    if correction:
        label = _waiting_label(judged, correction)
    else:
        label = accepted_label(judged, run or "")
    return judged.save(label, run, statement.base_content_hash or facts["content_hash"])


def accepted_label(judged: Judged, run: str) -> corrections.Corrected:
    """A label as it would be accepted. Raises CorrectionError: there is none;
    ConflictError: it would replace what another person has saved, which accepting an
    annotator's label is no way to do.
    """
    saved = corrections.accepted_label(judged.reader, judged.facts) or {}
    by_another = saved.get("author") not in (None, judged.author)
    if by_another and run != human_run(judged.dataset):
        episode = f"episode {judged.episode_index} of {judged.dataset}"
        raise ConflictError(f"{saved['author']} has saved a label of {episode}: open it, compare")
    label = label_as_said(judged.reader, judged.episode, run)
    if label is None:
        raise CorrectionError(
            f"episode {judged.episode_index} of {judged.dataset} has no label {run}"
        )
    return parsed(label)


def _waiting_label(judged: Judged, correction: str) -> corrections.Corrected:
    rows = judged.reader.dicts(
        f"SELECT plan, segments, {', '.join(SAID_LATER)} FROM current_corrections "
        "WHERE correction_id = ? AND dataset = ? AND episode_index = ?",
        [correction, *judged.place],
    )
    if not rows or not rows[0]["segments"]:
        episode = f"episode {judged.episode_index} of {judged.dataset}"
        raise CorrectionError(f"no correction {correction!r} of {episode} waits for review")
    return parsed(rows[0] | {"segments": [*map(corrections.as_said, segments_of(rows[0]))]})


@router.post("/api/marks")
def tag(
    speech: Speaking,
    kind: Annotated[Kind, Body()],
    value: Annotated[str, Body()],
    episodes: Annotated[list[tuple[str, Index, str | None]], Body()],
    on: Flag = True,
    author: Text = None,
    snapshot: Snapshot = None,
) -> JSONResponse:
    """Say a tag, or whom episodes are assigned to, or take it back (not `on`); of each the
    assignment that was seen. 409 where somebody else has assigned one of them meanwhile,
    422 for what cannot be.
    """
    assignments = {(dataset, episode): assignment for dataset, episode, assignment in episodes}

    def act(reader: LakeReader) -> dict[str, int]:
        statements = mark(
            reader,
            [*assignments],
            kind,
            value,
            author=speech.author(author),
            is_on=on,
            follows=assignments,
            recordings=reader.recordings_shown(assignments, snapshot),
        )
        return {"changed": len(statements)}

    return speech.answer(act)


@router.post("/api/acceptances")
def accept_check(
    speech: Speaking,
    dataset: Annotated[str, Body()],
    check: Annotated[str, Body()],
    episode_index: Annotated[Index | None, Body()] = None,
    whole: Annotated[bool, Body()] = False,
    why: Annotated[str, Body()] = "",
    on: Flag = True,
    author: Text = None,
    snapshot: Snapshot = None,
) -> JSONResponse:
    """The faults that a check found, in a run or (no episode_index, or `whole`) in all of a
    dataset, are known, or told again (not `on`). 422 for what cannot be: no such fault, no reason.
    """
    episodes = None if episode_index is None or whole else [episode_index]
    places = [(dataset, episode) for episode in episodes or ()]

    def act(reader: LakeReader) -> dict[str, int]:
        statements = acceptances.accept(
            reader,
            dataset,
            check,
            episodes,
            why=why,
            author=speech.author(author),
            is_accepted=on,
            recordings=reader.recordings_shown(places, snapshot),
        )
        return {"changed": len(statements)}

    return speech.answer(act)


OF_OUTCOME = "/api/outcomes/{dataset}/{episode_index}"


@router.post(OF_OUTCOME)
def say(
    speech: Speaking,
    dataset: str,
    episode_index: EpisodeIndex,
    outcome: Annotated[Literal["succeeded", "failed", "unfinished"], Body()],
    frame: Annotated[int | None, Body()] = None,
    author: Text = None,
    follows: Text = None,
    follows_correction: Text = None,
    recording: Text = None,
) -> JSONResponse:
    """Say how a run ended, with the newest that one had seen of its outcome (`follows`) and
    of its label; `frame`: of a failure, the first at which nothing is left of what was done.

    A label that was said together with the outcome before, and its moment, is taken back. Answers
    with the ids of what was saved: `saved`, and `correction` of what changes the label; 409 where
    somebody else was quicker, 422 for what cannot be.
    """
    comment = outcome
    if outcome == "failed" and frame is not None:
        comment = f"failed from frame {frame}"
    statement = Said(comment=comment, follows=follows_correction, recording=recording)

    def written(reader: LakeReader) -> dict[str, Any]:
        name = speech.author(author)
        judged = Judged(reader, dataset, episode_index, name, statement)
        # First what can be refused
        content_hash = judged.facts["content_hash"]
        correction = None
        homes = corrections.recording_of(judged.place, judged.facts)
        former = outcomes.standing(reader, *judged.place, homes)
        if frame is not None:
            correction = _label_that_fails(judged, frame, content_hash)
        saved = outcomes.say_outcome(
            reader,
            *judged.place,
            outcome == "succeeded",
            comment,
            author=name,
            follows=follows,
            recording=recording,
            batch=correction,
            known=homes,
        )
        if frame is None and former and outcomes.is_with_label(former):
            correction = take_back(reader, former["batch"], author=name)[0]["statement_id"]
        return {"saved": saved, "correction": correction}

    return speech.answer(written)


@router.post(f"{OF_OUTCOME}/undo")
def undo(
    speech: Speaking,
    dataset: str,
    episode_index: EpisodeIndex,
    import_id: Annotated[str, Body()],
    author: Text = None,
) -> JSONResponse:
    """Take back an outcome, and the label that was said together with it. Answers with the id of
    what says so."""

    def written(reader: LakeReader) -> dict[str, Any]:
        in_force = outcomes.standing(reader, dataset, episode_index)
        if in_force is None or in_force["import_id"] != import_id:
            raise CorrectionError(
                f"episode {episode_index} of {dataset} has no outcome {import_id!r} in force"
            )
        if in_force["file"] != outcomes.BY_CLICK:
            whole = f"proccorpus undo {import_id} takes all of it back"
            raise CorrectionError(f"it came with the file {in_force['file']}: {whole}")
        undone = take_back(reader, import_id, author=speech.author(author))
        return {"saved": undone[0]["batch"]}

    return speech.answer(written)


def _label_that_fails(judged: Judged, frame: int, content_hash: str) -> str | None:
    """Save the label that counts as one that fails from a frame on; returns its id, None
    where there is no label.
    """
    run, label = _label_that_counts(judged)
    if label is None:
        return None
    label |= {"segments": failed_from(label["segments"], frame), "catastrophic_frame": frame}
    return judged.save(parsed(label), run, content_hash)


def _label_that_counts(judged: Judged) -> tuple[str | None, dict[str, Any] | None]:
    """The label run that counts of the episode, and its label as a person could have said
    it; None: there is none.
    """
    row = corrections.accepted_label(judged.reader, judged.facts)
    if row is not None:
        segments = [*map(as_said, segments_of(row))]
        label = {name: row[name] for name in ("plan", "final_progress")}
        return row["base_label_run"], label | {"segments": segments}
    active = active_run(judged.reader, judged.episode)
    if active is None:
        return None, None
    run = active["label_run"]
    return run, label_as_said(judged.reader, judged.episode, run)


def failed_from(segments: Sequence[dict[str, Any]], frame: int) -> list[dict[str, Any]]:
    """Segments of a run that failed at a frame: the step at that moment is not completed,
    nor is any after it; where none is under way any more, the last one is not. Nothing is
    done after it.
    """
    steps = [k for k, segment in enumerate(segments) if segment["kind"] == STEP]
    late = [k for k in steps if segments[k]["end_frame"] > frame] or steps[-1:]
    changed = []
    for k, segment in enumerate(segments):
        if k in late:
            changed.append(segment | {"completed": False})
        elif segment["kind"] == DONE and segment["end_frame"] > frame:
            changed.append(segment | {"kind": IDLE, "name": "Between steps", "completed": False})
        else:
            changed.append(segment)
    return changed

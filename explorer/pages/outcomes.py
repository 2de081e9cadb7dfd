"""How a run ended, said with a click or a key: succeeded, failed (from which moment),
unfinished; and taken back.
"""

from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from core.domain.label import DONE, IDLE, STEP
from explorer.access import LakeReader
from explorer.episode import EpisodeIndex, active_run, label_as_said
from explorer.pages.corrections import Judged, Said
from explorer.site import Speaking
from warehouse.lake import corrections, outcomes
from warehouse.lake.connection import LakeConnection
from warehouse.lake.corrections import CorrectionError, as_said, parsed, segments_of
from warehouse.lake.statements import take_back

router = APIRouter()
OF_EPISODE = "/api/outcomes/{dataset}/{episode_index}"


class Ended(BaseModel):
    """What somebody says of how a run ended, with the newest that they had seen of its
    outcome and of its label.

    frame: of a failure, the first at which nothing is left of what was done; None: the
    moment is not said.
    """

    outcome: Literal["succeeded", "failed", "unfinished"]
    frame: int | None = None
    author: str | None = None
    follows: str | None = None
    follows_correction: str | None = None
    recording: str | None = None


class TakenBack(BaseModel):
    """The outcome that is taken back."""

    import_id: str
    author: str | None = None


@router.post(OF_EPISODE)
def say(speech: Speaking, dataset: str, episode_index: EpisodeIndex, ended: Ended) -> JSONResponse:
    """Answers with the ids of what was saved: `saved`, and `correction` where the label
    says the moment; 409 where somebody else was quicker, 422 for what cannot be.
    """
    comment = ended.outcome
    if ended.outcome == "failed" and ended.frame is not None:
        comment = f"failed from frame {ended.frame}"
    statement = Said(
        author=ended.author,
        follows=ended.follows_correction,
        comment=comment,
        recording=ended.recording,
    )

    def written(reader: LakeReader, lake: LakeConnection) -> dict[str, Any]:
        author = speech.author(ended.author)
        judged = Judged(reader, lake, dataset, episode_index, author, statement)
        # First what can be refused
        content_hash = judged.facts["content_hash"]
        correction = None
        if ended.frame is not None:
            correction = _label_that_fails(judged, ended.frame, content_hash)
        success = ended.outcome == "succeeded"
        saved = outcomes.say_outcome(
            lake,
            *judged.place,
            success,
            statement.comment,
            author=author,
            follows=ended.follows,
            recording=ended.recording,
            batch=correction,
            known=corrections.recording_of(judged.place, judged.facts),
        )
        return {"saved": saved, "correction": correction}

    return speech.answer(written)


@router.post(f"{OF_EPISODE}/undo")
def undo(
    speech: Speaking, dataset: str, episode_index: EpisodeIndex, taken: TakenBack
) -> JSONResponse:
    """Take back an outcome, and the label that was said together with it. Answers with the id of
    what says so."""

    def written(reader: LakeReader, lake: LakeConnection) -> dict[str, Any]:
        in_force = outcomes.standing(lake, dataset, episode_index)
        if in_force is None or in_force["import_id"] != taken.import_id:
            raise CorrectionError(
                f"episode {episode_index} of {dataset} has no outcome {taken.import_id!r} in force"
            )
        if in_force["file"] != outcomes.BY_CLICK:
            whole = f"proccorpus undo {taken.import_id} takes all of it back"
            raise CorrectionError(f"it came with the file {in_force['file']}: {whole}")
        undone = take_back(lake, taken.import_id, author=speech.author(taken.author))
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
    row = corrections.accepted_label(judged.lake, judged.facts)
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

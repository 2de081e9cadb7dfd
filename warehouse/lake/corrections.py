"""What people say of labels: corrected segments, where progress ends, rejections; taken back, but only ever added to.

Saved rows count at once for whoever reads current_corrections; the next build makes the label run human/<dataset> of
them, and progress, samples and shards of their chunks. Spans are half-open, in frames of the episode.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import batched
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from core.domain.label import (
    DONE,
    IDLE,
    STEP,
    Segment,
    StatedEnd,
    check_stated,
    check_tiling,
    is_stated,
)
from core.names import is_name
from core.values import grouped
from warehouse.lake.connection import LakeConnection
from warehouse.lake.lake import Lake
from warehouse.lake.publication import content_key
from warehouse.lake.statements import (
    ConflictError,
    CorrectionError,
    Home,
    Known,
    Row,
    check_newest,
    checked_text,
    newest_row,
    say,
)
from warehouse.lake.stored import labels_of

ACCEPTED = "accepted"
REVIEW = "review"
REJECTED = "rejected"
# Columns of `corrections` that its id is a hash of, in their order
HASHED = (
    "dataset",
    "episode_index",
    "base_label_run",
    "base_content_hash",
    "follows",
    "rejects",
    "author",
    "status",
    "plan",
    "segments",
    "comment",
)
# Columns that `corrections` had not from the beginning
SAID_LATER = ("final_progress", "catastrophic_frame")

# Of kinds of errors that pydantic words for programmers: {type: sentence}
PROBLEMS = {
    "missing": "it is missing",
    "model_type": 'it is no JSON object, such as {"name": "value"}',
    "tuple_type": "it is no list",
    "string_type": "it is no text",
    "int_type": "it is no whole number, such as 3",
}
Name = Annotated[str, AfterValidator(lambda name: checked_text("it", name, 200))]


type Facts = dict[str, Any]  # of an episode: num_frames, content_hash, status, reason


class CorrectedSegment(BaseModel):
    """One corrected segment as people send it; its name says which `step` it attempts where that is not given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    start_frame: int = Field(ge=0, lt=1 << 40, strict=True)
    end_frame: int = Field(ge=0, lt=1 << 40, strict=True)
    kind: Literal["step", "idle", "done"] = STEP
    completed: bool = True
    step: int | None = Field(default=None, ge=0, lt=10_000, strict=True)
    pace: Literal["fast", "slow", "adjust", "mistake"] | None = None


class Corrected(BaseModel):
    """A whole label as a person left it: segments that tile the episode, the planned steps, and how far the run came,
    where they state it (core.domain.label)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plan: tuple[Name, ...] = Field(default=(), max_length=1000)
    segments: tuple[CorrectedSegment, ...] = Field(min_length=1, max_length=5000)
    final_progress: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    catastrophic_frame: int | None = Field(default=None, ge=1, lt=1 << 40, strict=True)

    @property
    def end(self) -> StatedEnd:
        return StatedEnd(self.final_progress, self.catastrophic_frame)

    def settled(self, num_frames: int) -> tuple[list[Segment], tuple[str, ...]]:
        """Segments and plan, where every step is one of the plan. Raises CorrectionError unless they tile the episode.

        Without a plan, the numbers of steps give it. A step without a number is an attempt at the first planned step of
        its name that was not attempted before, else at the last one of its name; a name that the plan does not have
        comes after the step before it.

        Example: of the plan (reach, place), the segments reach, grasp, place are attempts at the steps 0, 1 and 2 of
        the plan (reach, grasp, place).
        """
        plan = list(self.plan) or self._numbered_steps()
        segments = list[Segment]()
        place = list(range(len(plan)))  # where each step of the plan as given stands now
        for s in self.segments:
            step = s.step if s.step is None or s.step >= len(place) else place[s.step]
            if step is None and s.kind == STEP:
                step = _attempted_step(s.name, plan, segments)
            if step is None and s.kind == STEP:
                # Planned right after the step that was attempted last; the later ones move on by one
                attempts = [earlier.step for earlier in segments if earlier.step is not None]
                step = attempts[-1] + 1 if attempts else 0
                plan.insert(step, s.name)
                place = [step_number + (step_number >= step) for step_number in place]
                segments = [
                    b if b.step is None or b.step < step else replace(b, step=b.step + 1)
                    for b in segments
                ]
            completed = {IDLE: False, DONE: True}.get(s.kind, s.completed)
            is_named = is_name(s.name)
            span = s.name, s.start_frame, s.end_frame, s.kind, completed
            segments.append(Segment(*span, step, named=is_named, pace=s.pace))
        self._check(segments, num_frames, len(plan))
        return segments, tuple(plan)

    def _check(self, segments: list[Segment], num_frames: int, num_planned: int) -> None:
        try:
            check_tiling(segments, num_frames, num_planned)
            if num_planned and is_stated(segments, self.end):
                check_stated(segments, num_planned, self.end)
        except ValueError as e:
            raise CorrectionError(str(e)) from e
        if not num_planned:
            raise CorrectionError("the label has no step left: reject the label instead")

    def _numbered_steps(self) -> list[str]:
        """The plan that follows from the numbers of steps: each has the name of the first segment
        that attempts it.

        Raises CorrectionError where a number between them is missing: nothing names that step.
        """
        names = {
            segment.step: segment.name
            for segment in reversed(self.segments)
            if segment.step is not None
        }
        missing = sorted(set(range(max(names, default=-1) + 1)) - set(names))
        if missing:
            raise CorrectionError(
                f"no segment attempts step {missing[0]}, and there is no plan that names it: give plan"
            )
        return [names[step] for step in range(len(names))]

    def columns(self, num_frames: int) -> dict[str, Any]:
        """As columns of `corrections`; raises as `settled` does."""
        segments, plan = self.settled(num_frames)
        # A pace stands there only where one was said: what was said before paces could be is still the same text
        stored = [dict(vars(segment)) for segment in segments]
        for columns in stored:
            if columns["pace"] is None:
                del columns["pace"]
        return {"plan": list(plan), "segments": json.dumps(stored)} | vars(self.end)


def _attempted_step(name: str, plan: Sequence[str], segments: Sequence[Segment]) -> int | None:
    """The first planned step of a name that was not attempted before, else the last one of its name."""
    of_name = [step for step, planned in enumerate(plan) if planned == name]
    attempted = {s.step for s in segments}
    return next(
        (step for step in of_name if step not in attempted), of_name[-1] if of_name else None
    )


def parsed(data: Any) -> Corrected:
    """A correction from JSON values. Raises CorrectionError."""
    return validated(Corrected, data)


def validated[T: BaseModel](model: type[T], data: Any) -> T:
    """What people say, from JSON values. Raises CorrectionError, with the first thing that is wrong and its place."""
    try:
        return model.model_validate(data)
    except ValidationError as e:
        first = e.errors(include_url=False, include_context=False, include_input=False)[0]
        problem = PROBLEMS.get(first["type"]) or first["msg"].removeprefix("Value error, ")
        location = ".".join(map(str, first["loc"]))
        further_errors = f" (and {e.error_count() - 1} more)" if e.error_count() > 1 else ""
        raise CorrectionError(": ".join(filter(None, [location, problem])) + further_errors) from e


def segments_of(row: Mapping[str, Any]) -> list[Segment]:
    """The segments of a row of corrections."""
    # What was saved before steps could be unnamed does not say so
    return [Segment(**s | {"named": is_name(s["name"])}) for s in json.loads(row["segments"])]


def as_said(segment: Segment) -> dict[str, Any]:
    """A segment as people send it."""
    return {name: getattr(segment, name) for name in CorrectedSegment.model_fields}


def stored_label(
    lake: LakeConnection, dataset: str, episode_index: int, label_run: str
) -> Corrected:
    """A label of an episode as people could have said it. Raises CorrectionError where there is none."""
    label = labels_of(
        lake.con, dataset, episodes=[episode_index], label_run=label_run, whole=True
    ).get(episode_index)
    if label is None:
        raise CorrectionError(f"episode {episode_index} of {dataset} has no label {label_run}")
    segments = list(map(as_said, label.segments))
    return parsed({"segments": segments, "plan": label.plan, **vars(label.end)})


# Saving


def save(
    lake: LakeConnection,
    dataset: str,
    episode_index: int,
    corrected: Corrected,
    *,
    author: str,
    base_label_run: str | None,
    base_content_hash: str | None,
    follows: str | None,
    comment: str = "",
    facts: Facts | None = None,
    recording: str | None = None,
) -> dict[str, Any]:
    """Add an accepted correction; returns its row. facts: of the episode, as episode_facts gives them, if at hand.

    `follows` is the episode's newest row that the author has seen, `base_content_hash` the contents, `recording` what
    has the number in their view (None: what has it now). Raises
    ConflictError when there is a newer one, or other contents, and CorrectionError for what cannot be a label.
    """

    def row(facts: Facts) -> dict[str, Any]:
        if base_content_hash != facts["content_hash"]:
            raise ConflictError(
                f"episode {episode_index} of {dataset} was ingested anew since you opened it: reload it and look again"
            )
        return {"status": ACCEPTED, "base_label_run": base_label_run} | corrected.columns(
            facts["num_frames"]
        )

    return _add(lake, dataset, episode_index, author, comment, follows, row, facts, recording)


def reject_label(
    lake: LakeConnection,
    dataset: str,
    episode_index: int,
    label_run: str,
    *,
    author: str,
    follows: str | None,
    comment: str = "",
    facts: Facts | None = None,
    recording: str | None = None,
) -> dict[str, Any]:
    """Say that an annotator's label of an episode must not be used; raises as `save` does."""

    def row(facts: Facts) -> dict[str, Any]:
        have = lake.rows(
            "SELECT correction_id FROM episode_labels WHERE dataset = ? AND episode_index = ? AND label_run = ?",
            [dataset, episode_index, label_run],
        )
        if not have:
            raise CorrectionError(f"episode {episode_index} of {dataset} has no label {label_run}")
        if have[0][0]:
            raise CorrectionError("that label is a person's: undo the correction instead")
        return {"status": REJECTED, "base_label_run": label_run}

    return _add(lake, dataset, episode_index, author, comment, follows, row, facts, recording)


def _add(
    lake: LakeConnection,
    dataset: str,
    episode_index: int,
    author: str,
    comment: str,
    follows: str | None,
    make: Callable[[Facts], dict[str, Any]],
    facts: Facts | None = None,
    recording: str | None = None,
) -> dict[str, Any]:
    statement = {
        "author": checked_text("author", author, 100),
        "follows": follows,
        "comment": checked_text("comment", comment, 2000, empty=True),
    }

    row = {"dataset": dataset, "episode_index": episode_index, "recording": recording}

    def complete(row: dict[str, Any], newest: Row | None) -> dict[str, Any]:
        facts_of_base = checked_facts(
            dataset, episode_index, facts or episode_facts(lake, dataset, episode_index)
        )
        check_newest(row, follows, newest)
        of_base = {"base_content_hash": facts_of_base["content_hash"]}
        return as_statement(row | statement | of_base | make(facts_of_base))

    recordings = recording_of((dataset, episode_index), facts or {})
    [saved] = say(lake, "correction", lambda: [row], recordings, complete=complete)
    return saved | {"correction_id": saved["statement_id"]}


def as_statement(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `corrections` as the table of statements has it."""
    is_rejection = row["status"] == REJECTED and not row.get("rejects")
    return {
        **row,
        "kind": "rejection" if is_rejection else "correction",
        "statement_id": row.get("correction_id") or row_id(row),
        "subject": row["base_label_run"] if is_rejection else None,
        "content_hash": row["base_content_hash"],
        "undoes": row.get("rejects"),
    }


def row_id(row: Mapping[str, Any]) -> str:
    """The id of a row, a hash of all columns but the time: what a person says again after the same row has one id."""
    row_values = [row.get(column) for column in HASHED]
    # What could not be said at first counts only where it is: rows of before keep their ids
    row_values += [[column, row[column]] for column in SAID_LATER if row.get(column) is not None]
    return content_key(json.dumps(row_values))[:16]


# Reading


FACTS = (
    "SELECT episode_index, e.num_frames, e.content_hash, e.fps, status, reason, former_hashes FROM episodes e "
    "LEFT JOIN episode_content USING (dataset, episode_index) WHERE dataset = ?"
)


def episode_facts(lake: LakeConnection, dataset: str, episode_index: int) -> dict[str, Any]:
    """num_frames and content_hash of a usable episode. Raises CorrectionError."""
    rows = lake.dicts(f"{FACTS} AND episode_index = ?", [dataset, episode_index])
    return checked_facts(dataset, episode_index, next(iter(rows), None))


def facts_by_episode(lake: Lake, dataset: str) -> dict[int, dict[str, Any]]:
    """What `checked_facts` checks, of all episodes of a dataset in one question."""
    return {facts["episode_index"]: facts for facts in lake.dicts(FACTS, [dataset])}


def episodes_by_content(lake: LakeConnection, dataset: str) -> dict[str, set[int]]:
    """By each content hash that a dataset knows the present numbers of what has it, or had it; none: it left."""
    rows = lake.rows(
        "SELECT unnest(list_append(former_hashes, content_hash)), episode_index FROM episode_content "
        "WHERE dataset = $1 UNION ALL "
        "SELECT unnest(f.content_hashes), CASE WHEN r.left_at IS NULL THEN r.episode_index END "
        "FROM fingerprints f JOIN recordings r USING (recording) WHERE r.dataset = $1",
        [dataset],
    )
    return {content: {*numbers} - {None} for content, numbers in grouped(rows).items()}


def checked_facts(dataset: str, episode_index: int, facts: Facts | None) -> Facts:
    """The facts of an episode that can be used. Raises CorrectionError for another, and for none."""
    if facts is None:
        raise CorrectionError(f"the corpus has no episode {episode_index} of {dataset!r}")
    # Without a content hash a correction could not say which pictures it was made of
    if facts["status"] != "ok" or facts["content_hash"] is None:
        reason = facts["reason"] or "it was not decoded yet; build it first"
        raise CorrectionError(f"episode {episode_index} of {dataset} cannot be used: {reason}")
    return facts


def recording_of(place: Home, facts: Facts) -> dict[Home, Known] | None:
    """What facts of an episode say of its recording, as `say` takes it; None: nothing."""
    if facts.get("recording") is None:
        return None
    return {place: (facts["recording"], facts["source_id"], facts["content_hash"])}


def accepted_label(lake: LakeConnection, facts: Facts) -> dict[str, Any] | None:
    """The correction in force of an episode: a row of `corrections`. Reads no table of the lake.

    facts: of the episode, as pages have them.
    """
    contents = [facts["content_hash"], *(facts["former_hashes"] or ())]
    rows = lake.dicts(
        "FROM corrections c WHERE recording = ? AND status = 'accepted' AND list_contains(?, base_content_hash) "
        "AND NOT EXISTS (FROM corrections g WHERE g.rejects = c.correction_id) "
        "ORDER BY created_at DESC, correction_id DESC LIMIT 1",
        [facts["recording"], contents],
    )
    return next(iter(rows), None)


def newest_id(lake: Lake, dataset: str, episode_index: int) -> str | None:
    """The correction_id of the newest row of an episode: what somebody who looks at it now has seen."""
    newest = newest_row(lake, "correction", (dataset, episode_index))
    return newest["statement_id"] if newest else None


def correction_stamps(lake: Lake, dataset: str) -> dict[int, str]:
    """By chunk, a hash of its corrections that count now: what the plan depends on. Only chunks ever corrected."""
    if dataset not in lake.datasets_in("correction"):
        return {}
    rows = lake.rows(
        "SELECT chunk, list((status || ' ' || correction_id) ORDER BY correction_id) FILTER (status IS NOT NULL) FROM ("
        "SELECT (c.episode_index // d.chunk_size)::INTEGER AS chunk, NULL AS status, NULL AS correction_id "
        "FROM located_corrections c JOIN datasets d USING (dataset) WHERE c.dataset = $1 "
        "UNION ALL SELECT chunk, status, correction_id FROM current_corrections WHERE dataset = $1) GROUP BY 1",
        [dataset],
    )
    return {chunk: content_key(*(current or [])) for chunk, current in rows}


def chunk_corrections(
    lake: LakeConnection, dataset: str, chunk: int | None
) -> list[dict[str, Any]]:
    """What counts of a chunk, or waits for review: rows of current_corrections by episode."""
    if dataset not in lake.datasets_in("correction"):
        return []
    return lake.dicts(
        "SELECT * FROM current_corrections WHERE dataset = ? AND chunk = ? "
        "ORDER BY episode_index, status, correction_id",
        [dataset, chunk],
    )


IMPORTED_AT_ONCE = 500  # rows: those that were added stay where an import is ended


def add_rows(
    lake: Lake, rows: Sequence[dict[str, Any]], on_rows: Callable[[int], None] = lambda count: None
) -> int:
    """Add whole rows from elsewhere, but for those that are there; returns how many were new.

    Many are added in parts; `on_rows` is told after each how many are done.
    """
    present = set(lake.column("SELECT statement_id FROM statements"))
    statements = {row["statement_id"]: row for row in map(as_statement, rows)}
    new = [row for name, row in statements.items() if name not in present]
    for part in batched(new, IMPORTED_AT_ONCE):
        say(lake, "correction", lambda part=part: [*part], is_batch=False)
        on_rows(len(part))
    return len(new)

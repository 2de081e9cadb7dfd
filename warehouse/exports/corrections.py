"""People's corrections to files and back: JSON lines, whole rows. Tasks of Label Studio are in `label_studio`."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from annotate.conventions.opensarm import OpensarmLine, read_said
from annotate.imported_label import ImportedError
from core.step_names import unnamed_step
from warehouse.lake import Lake
from warehouse.lake.corrections import (
    ACCEPTED,
    REJECTED,
    REVIEW,
    SAID_LATER,
    episode_facts,
    parsed,
    row_id,
    segments_of,
)
from warehouse.lake.statements import CorrectionError, checked_text

SEGMENT_FIELDS = ("name", "start_frame", "end_frame", "kind", "completed", "step", "pace")  # what people correct
TEXT_FIELDS = ("base_label_run", "base_content_hash", "follows", "rejects", "correction_id", "author", "comment")
CLOCK_SLACK = timedelta(minutes=5)  # a clock may be ahead by so much


@dataclass
class ReadCorrections:
    """Rows that a file holds, and what of it was left out and why."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)  # of other contents than the corpus has: for review

    def add(self, where: str, read_row: Callable[[], tuple[dict[str, Any], bool]]) -> None:
        """Add what `read_row` gives: a row, and whether it is of the contents that the episode has by now."""
        try:
            row, fits = read_row()
        except CorrectionError as e:
            self.refused.append(f"{where}: {e}")
            return
        self.rows.append(row)
        if not fits:
            episode = f"episode {row['episode_index']} of {row['dataset']}"
            self.waiting.append(f"{where}: {episode} has other contents by now")


# JSON lines


def to_lines(rows: Iterable[dict[str, Any]]) -> str:
    """One line per row of `corrections`, in the order given."""
    lines = []
    for row in rows:
        stored = segments_of(row) if row["segments"] else []
        segments = [{name: getattr(s, name) for name in SEGMENT_FIELDS} for s in stored] or None
        lines.append(row | {"segments": segments, "created_at": row["created_at"].isoformat()})
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def from_lines(lake: Lake, text: str, author: str) -> ReadCorrections:
    """Rows of JSON lines. A line of ours comes back as it was; one written by hand needs dataset, episode_index and
    segments, and is by `author`, made now, of the contents that the episode has."""
    read = ReadCorrections()
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            read.add(f"line {number}", partial(_row_of_line, lake, author, line))
    return read


def _row_of_line(lake: Lake, author: str, line: str) -> tuple[dict[str, Any], bool]:
    try:
        return row_of(lake, json.loads(line), author)
    except (ValueError, RecursionError) as e:
        raise (e if isinstance(e, CorrectionError) else CorrectionError("it is not JSON")) from e


def row_of(lake: Lake, data: Any, author: str) -> tuple[dict[str, Any], bool]:
    """A row, and whether it is of the contents that the episode has. Raises CorrectionError."""
    dataset, episode = _checked_key(data)
    facts = episode_facts(lake, dataset, episode)
    # A row of other pictures than the episode has now may still be kept, but its frames cannot be checked
    base_content_hash = data.get("base_content_hash") or facts["content_hash"]
    fits = base_content_hash in (facts["content_hash"], *(facts["former_hashes"] or ()))
    row: dict[str, Any] = {
        "dataset": dataset,
        "episode_index": episode,
        "author": checked_text("author", data.get("author") or author, 100),
        "comment": checked_text("comment", data.get("comment") or "", 2000, empty=True),
        "created_at": _created_at(data.get("created_at")),
        "status": data.get("status", ACCEPTED),
        "base_label_run": data.get("base_label_run"),
        "follows": data.get("follows"),
        "rejects": data.get("rejects"),
        "base_content_hash": base_content_hash,
    }
    _check_status(row)
    is_rejection = row["status"] == REJECTED
    # A rejection says that a label is wrong, not what would be right: it has no segments
    if is_rejection:
        row |= {"plan": None, "segments": None} | dict.fromkeys(SAID_LATER)
    else:
        # Of contents that are not there any more: as long as the segments themselves say
        corrected = parsed({"plan": data.get("plan") or []} | {k: data.get(k) for k in ("segments", *SAID_LATER)})
        row |= corrected.columns(facts["num_frames"] if fits else corrected.segments[-1].end_frame)
    row["correction_id"] = row_id(row)
    _check_id(row, data.get("correction_id"))
    return row, fits or is_rejection


def _check_id(row: dict[str, Any], stated: str | None) -> None:
    """The id is a hash of the content: one that does not fit shows a row that was edited by hand."""
    if stated not in (None, row["correction_id"]):
        raise CorrectionError(
            "its content is not that of its correction_id; take that out if you changed it on purpose"
        )


def _check_status(row: dict[str, Any]) -> None:
    if row["status"] not in (ACCEPTED, REVIEW, REJECTED):
        raise CorrectionError(f"status {row['status']!r} is none of accepted, review, rejected")
    if row["status"] == REJECTED and not row["rejects"] and not row["base_label_run"]:
        raise CorrectionError("a rejection says what it is of: rejects, or base_label_run")


def _checked_key(data: Any) -> tuple[str, int]:
    """The episode that a row is of. Raises CorrectionError where it says none, or texts are none."""
    if not isinstance(data, dict):
        raise CorrectionError("it is no JSON object")
    dataset, episode = data.get("dataset"), data.get("episode_index")
    if not isinstance(dataset, str) or type(episode) is not int or not 0 <= episode < 2**63:
        raise CorrectionError("it does not say dataset and episode_index")
    for name in TEXT_FIELDS:
        if not isinstance(data.get(name), str | None):
            raise CorrectionError(f"{name} is no text")
        checked_text(name, data.get(name) or "", 2000, empty=True)
    return checked_text("dataset", dataset, 2000), episode


def from_opensarm(lake: Lake, path: Path, author: str, dataset: str | None) -> ReadCorrections:
    """Rows of a results file of opensarm's labelling tool; `dataset` is that of lines that do not say it.

    The task is one step without a name. A line is by its user, else by `author`. Raises CorrectionError: no such file.
    """
    try:
        lines = read_said(path)
    except ImportedError as e:
        raise CorrectionError(str(e)) from e
    read = ReadCorrections()

    def row(said: OpensarmLine) -> tuple[dict[str, Any], bool]:
        of, index = said.annotation.of or (dataset, said.annotation.episode_index)
        if of is None:
            raise CorrectionError("the line does not say of which dataset it is: add --dataset NAME")
        facts = episode_facts(lake, of, index)
        try:
            label = said.annotation.label(facts["num_frames"], facts["fps"], None)
        except ImportedError as e:
            raise CorrectionError(str(e)) from e
        data = {
            "dataset": of,
            "episode_index": index,
            "author": said.user if isinstance(said.user, str) else author,
            "created_at": said.ts,
            "plan": [unnamed_step(0)],
            "segments": [{name: getattr(s, name) for name in SEGMENT_FIELDS} for s in label.segments],
            "final_progress": label.end.final_progress,
            "catastrophic_frame": label.end.catastrophic_frame,
        }
        return row_of(lake, data, author)

    for said in lines:
        read.add(f"episode {said.annotation.episode_index}", partial(row, said))
    return read


def _created_at(text: Any) -> datetime:
    """UTC; now where nothing is said, and never later than now: a clock ahead must not win for ever."""
    now = datetime.now(UTC)
    if text is None:
        return now
    try:
        time = datetime.fromisoformat(text)
        # a time without a zone is taken for UTC; one at the edge of the calendar may have no UTC
        time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError) as e:
        raise CorrectionError(f"created_at {text!r} is no time such as 2026-01-31T12:00:00+00:00") from e
    if time > now + CLOCK_SLACK:
        raise CorrectionError(f"created_at {text!r} is in the future")
    return time

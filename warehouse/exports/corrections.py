"""People's corrections to files and back: JSON lines, whole rows; and tasks of Label Studio's timeline.

Label Studio counts frames from 1 and includes a range's last one: our frames a to b (b not included) are its a + 1 to
b. A video file may hold several episodes; its frames before the episode are `first_frame`, and ranges count from the
file's start.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from warehouse.lake import Lake
from warehouse.lake.corrections import (
    ACCEPTED,
    CorrectionError,
    checked_text,
    episode_facts,
    parsed,
    row_id,
    segments_of,
)

STEPS, OUTCOME, VIDEO = "steps", "outcome", "video"  # names in Label Studio's configuration
COMPLETED, FAILED = "completed", "failed"
MAX_FILE_BYTES = 1 << 30
SPAN = ("name", "start_frame", "end_frame", "kind", "completed", "step")


@dataclass
class ReadCorrections:
    """Rows that a file says, and what of it was left out and why."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)  # of other contents than the corpus has: for review


# JSON lines


def to_lines(rows: Iterable[dict[str, Any]]) -> str:
    """One line per row of `corrections`, in the order given."""
    return "".join(json.dumps(_told(r), ensure_ascii=False) + "\n" for r in rows)


def _told(row: dict[str, Any]) -> dict[str, Any]:
    segments = [{k: s.__dict__[k] for k in SPAN} for s in segments_of(row)] if row["segments"] else None
    return row | {"segments": segments, "created_at": row["created_at"].isoformat()}


def from_lines(lake: Lake, text: str, author: str) -> ReadCorrections:
    """Rows of JSON lines. A line of ours comes back as it was; one written by hand needs dataset, episode_index and
    segments, and is by `author`, made now, of the contents that the episode has."""
    found = ReadCorrections()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            told = json.loads(line)
        except (ValueError, RecursionError):
            found.refused.append(f"{where}: it is not JSON")
            continue
        _add(found, where, lambda told=told: _row_of_line(lake, told, author))
    return found


def _row_of_line(lake: Lake, told: Any, author: str) -> tuple[dict[str, Any], bool]:
    """A row, and whether it is of the contents that the episode has."""
    if not isinstance(told, dict):
        raise CorrectionError("it is no JSON object")
    dataset, episode = _place(told)
    facts = episode_facts(lake, dataset, episode)
    texts = ("base_label_run", "base_content_hash", "follows", "rejects", "correction_id", "author", "comment")
    for name in texts:
        if told.get(name) is not None and not isinstance(told[name], str):
            raise CorrectionError(f"{name} is no text")
    row: dict[str, Any] = {
        "dataset": dataset,
        "episode_index": episode,
        "author": checked_text("author", told.get("author") or author, 100),
        "comment": checked_text("comment", told.get("comment") or "", 2000, empty=True),
        "created_at": _time(told.get("created_at")),
        "status": told.get("status", ACCEPTED),
    }
    row |= {k: told.get(k) for k in ("base_label_run", "follows", "rejects")}
    row["base_content_hash"] = told.get("base_content_hash") or facts["content_hash"]
    fits = row["base_content_hash"] == facts["content_hash"]
    if row["status"] not in ("accepted", "review", "rejected"):
        raise CorrectionError(f"status {row['status']!r} is none of accepted, review, rejected")
    if row["status"] == "rejected":
        if not row["rejects"] and not row["base_label_run"]:
            raise CorrectionError("a rejection says what it is of: rejects, or base_label_run")
        row |= {"plan": None, "segments": None}
    else:
        row |= _spans(told, facts["num_frames"] if fits else None)
    row["correction_id"] = row_id(row)
    if told.get("correction_id") not in (None, row["correction_id"]):
        raise CorrectionError(
            "its content is not that of its correction_id; take that out if you changed it on purpose"
        )
    return row, fits or row["status"] == "rejected"


# Label Studio


def to_tasks(lake: Lake, rows: Sequence[dict[str, Any]], labels: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One task per episode: accepted corrections as annotations, labels of the corpus as predictions.

    `labels`: dataset, episode_index, label_run, plan, segments (rows of the table, in order).
    """
    by_episode: dict[tuple[str, int], tuple[list, list]] = {}
    for r in rows:
        if r["status"] == ACCEPTED:
            by_episode.setdefault((r["dataset"], r["episode_index"]), ([], []))[0].append(r)
    for x in labels:
        by_episode.setdefault((x["dataset"], x["episode_index"]), ([], []))[1].append(x)
    tasks = []
    for (dataset, episode), (corrections, predictions) in sorted(by_episode.items()):
        [facts] = lake.dicts(
            "SELECT e.num_frames, e.fps, e.content_hash, e.task, f.videos, d.source_uri FROM episodes e "
            "JOIN episode_facts f USING (dataset, episode_index) JOIN datasets d USING (dataset) "
            "WHERE dataset = ? AND episode_index = ?",
            [dataset, episode],
        ) or [None]
        if facts is None:
            continue
        video = (facts["videos"] or [{"uri": None, "start_frame": 0}])[0]
        first = video["start_frame"] or 0
        address = None if video["uri"] is None else f"{str(facts['source_uri']).rstrip('/')}/{video['uri']}"
        latest = corrections[-1]["plan"] if corrections else predictions[0]["plan"]
        told = {k: facts[k] for k in ("num_frames", "fps", "content_hash", "task")}
        data = {"dataset": dataset, "episode_index": episode, VIDEO: address, "first_frame": first, "plan": latest}
        tasks.append(
            {
                "data": data | told,
                "annotations": [_annotation(r, first) for r in corrections],
                "predictions": [
                    {"model_version": x["label_run"], "result": _regions(x["segments"], first)} for x in predictions
                ],
            }
        )
    return tasks


def _annotation(row: dict[str, Any], first: int) -> dict[str, Any]:
    kept = ("correction_id", "author", "comment", "base_label_run", "base_content_hash", "follows", "plan")
    return {
        "created_at": row["created_at"].isoformat(),
        "meta": {k: row[k] for k in kept},
        "result": _regions([s.__dict__ for s in segments_of(row)], first),
    }


def _regions(segments: Sequence[dict[str, Any]], first: int) -> list[dict[str, Any]]:
    found = []
    for k, s in enumerate(segments):
        ranges = [{"start": first + s["start_frame"] + 1, "end": first + s["end_frame"]}]
        region = {"id": f"segment{k}", "to_name": VIDEO}
        state = s["kind"] if s["kind"] != "step" else COMPLETED if s["completed"] else FAILED
        label = {
            "from_name": STEPS,
            "type": "timelinelabels",
            "value": {"ranges": ranges, "timelinelabels": [s["name"]]},
        }
        if s["step"] is not None:
            label["meta"] = {"step": s["step"]}
        found.append(region | label)
        found.append(
            region | {"from_name": OUTCOME, "type": "choices", "value": {"ranges": ranges, "choices": [state]}}
        )
    return found


def labelling_config(tasks: Sequence[dict[str, Any]]) -> str:
    """The labelling interface that the tasks are made for."""
    results = [r for t in tasks for x in (*t["annotations"], *t["predictions"]) for r in x["result"]]
    names = sorted({n for r in results for n in r["value"].get("timelinelabels", ())})
    labels = "\n".join(f"    <Label value={quoteattr(n)}/>" for n in names)
    choices = "\n".join(f'    <Choice value="{c}"/>' for c in (COMPLETED, FAILED, "idle", "done"))
    return (
        f'<View>\n  <Header value="$task"/>\n  <Video name="{VIDEO}" value="$video" frameRate="$fps"/>\n'
        f'  <TimelineLabels name="{STEPS}" toName="{VIDEO}">\n{labels}\n  </TimelineLabels>\n'
        f'  <Choices name="{OUTCOME}" toName="{VIDEO}" perRegion="true">\n{choices}\n  </Choices>\n</View>\n'
    )


def from_tasks(lake: Lake, text: str, author: str) -> ReadCorrections:
    """Rows of Label Studio's JSON: each annotation that was not cancelled. Raises CorrectionError: not such a file."""
    try:
        tasks = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise CorrectionError(
            "the file is not JSON: export it from Label Studio as JSON, not as JSON-MIN or CSV"
        ) from e
    if not isinstance(tasks, list):
        raise CorrectionError("the file is no list of tasks: export it from Label Studio as JSON, not as JSON-MIN")
    found = ReadCorrections()
    for number, task in enumerate(tasks, 1):
        annotations = task.get("annotations") if isinstance(task, dict) else None
        if not isinstance(annotations, list) or not isinstance(task.get("data"), dict):
            found.refused.append(f"task {number}: it has no data with a list of annotations")
            continue
        for annotation in annotations:
            where = f"task {number}"
            if isinstance(annotation, dict) and annotation.get("was_cancelled"):
                found.refused.append(f"{where}: an annotation that was cancelled")
                continue
            _add(found, where, lambda task=task, a=annotation: _row_of_task(lake, task["data"], a, author))
    return found


def _row_of_task(lake: Lake, data: dict, annotation: Any, author: str) -> tuple[dict[str, Any], bool]:
    if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
        raise CorrectionError("an annotation without a result")
    first = data.get("first_frame", 0)
    if not isinstance(first, int) or isinstance(first, bool):
        raise CorrectionError("first_frame is no number")
    meta = annotation.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    spans: dict[str, dict[str, Any]] = {}
    states: dict[str, str] = {}
    for r in annotation["result"]:
        try:
            value, kind, name = r["value"], r.get("type"), r["id"]
            if kind == "timelinelabels":
                [label], [part] = value["timelinelabels"], value["ranges"]
                if name in spans:
                    raise CorrectionError(f"two regions have the id {name!r}")
                start, end = part["start"] - 1 - first, part["end"] - first
                spans[name] = {"name": label, "start_frame": start, "end_frame": end}
                spans[name]["step"] = (r.get("meta") or {}).get("step")
            elif kind == "choices":
                [states[name]] = value["choices"]
        except (KeyError, TypeError, AttributeError) as e:
            raise CorrectionError("a region that is no span with one label and one range") from e
        except ValueError as e:
            raise (
                e
                if isinstance(e, CorrectionError)
                else CorrectionError("a region with several labels or ranges; one each, please")
            ) from e
    for name, span in spans.items():
        state = states.get(name, COMPLETED)
        span |= {"kind": state if state in ("idle", "done") else "step", "completed": state != FAILED}
        if span["kind"] != "step":
            span["step"] = None
    told = {
        "dataset": data.get("dataset"),
        "episode_index": data.get("episode_index"),
        "base_content_hash": data.get("content_hash"),
        "created_at": annotation.get("created_at"),
        "segments": sorted(spans.values(), key=lambda s: (s["start_frame"], s["end_frame"])),
        "plan": data.get("plan") or [],
        "author": _completed_by(annotation.get("completed_by")),
    }
    unchanged = told | {k: v for k, v in meta.items() if k in ("author", "comment", "base_label_run", "plan")}
    unchanged |= {k: meta[k] for k in ("base_content_hash", "follows", "correction_id") if k in meta}
    try:
        return _row_of_line(lake, unchanged, author)
    except CorrectionError:
        if "correction_id" not in meta:
            raise
    return _row_of_line(lake, told, author)  # changed there: a correction of its own


def _completed_by(who: Any) -> str | None:
    if isinstance(who, dict):
        who = who.get("email") or who.get("username") or who.get("id")
    return None if who is None else str(who)


# What both have in common


def _add(found: ReadCorrections, where: str, make: Any) -> None:
    try:
        row, fits = make()
    except CorrectionError as e:
        found.refused.append(f"{where}: {e}")
        return
    found.rows.append(row)
    if not fits:
        found.waiting.append(f"{where}: episode {row['episode_index']} of {row['dataset']} has other contents by now")


def _place(told: dict[str, Any]) -> tuple[str, int]:
    dataset, episode = told.get("dataset"), told.get("episode_index")
    if not isinstance(dataset, str) or not isinstance(episode, int) or isinstance(episode, bool):
        raise CorrectionError("it does not say dataset and episode_index")
    return dataset, episode


def _time(text: Any) -> datetime:
    """UTC; now where nothing is said, and never later than now: a clock ahead must not win for ever."""
    now = datetime.now(UTC)
    if text is None:
        return now
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError) as e:
        raise CorrectionError(f"created_at {text!r} is no time such as 2026-01-31T12:00:00+00:00") from e
    found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    if found > now + timedelta(minutes=5):
        raise CorrectionError(f"created_at {text!r} is in the future")
    return found


def _spans(told: dict[str, Any], num_frames: int | None) -> dict[str, Any]:
    """Plan and segments, settled; `num_frames` None: as long as they themselves say."""
    corrected = parsed({"plan": told.get("plan") or [], "segments": told.get("segments")})
    segments, plan = corrected.settled(corrected.segments[-1].end_frame if num_frames is None else num_frames)
    return {"plan": list(plan), "segments": json.dumps([s.__dict__ for s in segments])}


def read_file(path: Path) -> str:
    """Raises CorrectionError for what cannot be read."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CorrectionError(f"{path} has more than {MAX_FILE_BYTES >> 20} MB")
        return path.read_text()
    except UnicodeDecodeError as e:
        raise CorrectionError(f"{path} is no UTF-8 text") from e
    except OSError as e:
        raise CorrectionError(f"cannot read {path}: {e.strerror}") from e

"""People's corrections as tasks of Label Studio's timeline, and back.

Label Studio counts frames from 1 and includes a range's last one: our frames a to b (b not included) are its a + 1 to
b. A video file may hold several episodes; its frames before the episode are `first_frame`, and ranges count from the
file's start.
"""

import json
from collections.abc import Sequence
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import Any
from xml.sax.saxutils import quoteattr

from annotate.segments import DONE, IDLE, STEP
from warehouse.exports.corrections import ReadCorrections, row_of
from warehouse.lake import Lake
from warehouse.lake.corrections import ACCEPTED, SAID_LATER, segments_of
from warehouse.lake.statements import CorrectionError

STEPS, OUTCOME, VIDEO = "steps", "outcome", "video"  # names in Label Studio's configuration
COMPLETED, FAILED = "completed", "failed"
# Of a correction, what an annotation brings along
META_FIELDS = (
    *("correction_id", "author", "comment", "base_label_run", "base_content_hash", "follows", "plan"),
    *SAID_LATER,
)


def to_tasks(lake: Lake, rows: Sequence[dict[str, Any]], labels: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One task per episode: accepted corrections as annotations, labels of the corpus as predictions.

    `labels`: dataset, episode_index, label_run, plan, segments (rows of the table, in order).
    """
    by_episode: dict[tuple[str, int], tuple[list[dict], list[dict]]] = {}
    for kind, listed in enumerate(([row for row in rows if row["status"] == ACCEPTED], labels)):
        for row in listed:
            by_episode.setdefault((row["dataset"], row["episode_index"]), ([], []))[kind].append(row)
    tasks = [_task(lake, *key, *of_episode) for key, of_episode in sorted(by_episode.items(), key=itemgetter(0))]
    return [task for task in tasks if task is not None]


def _task(
    lake: Lake, dataset: str, episode: int, corrections: Sequence[dict[str, Any]], predictions: Sequence[dict[str, Any]]
) -> dict[str, Any] | None:
    """None for an episode that the corpus does not have."""
    rows = lake.dicts(
        "SELECT e.num_frames, e.fps, e.content_hash, e.task, f.videos, d.source_uri FROM episodes e "
        "JOIN episode_facts f USING (dataset, episode_index) JOIN datasets d USING (dataset) "
        "WHERE dataset = ? AND episode_index = ?",
        [dataset, episode],
    )
    if not rows:
        return None
    [facts] = rows
    video = facts["videos"][0] if facts["videos"] else {"uri": None, "start_frame": 0}
    # Label Studio fetches the video itself, so it needs an address and not a path below the source
    address = video["uri"] and f"{str(facts['source_uri']).rstrip('/')}/{video['uri']}"
    first = video["start_frame"] or 0
    # `meta` keeps what Label Studio has no place for, so that an unchanged correction comes back as it was
    annotations = [
        {
            "created_at": row["created_at"].isoformat(),
            "meta": {name: row[name] for name in META_FIELDS},
            "result": _regions([vars(segment) for segment in segments_of(row)], first),
        }
        for row in corrections
    ]
    return {
        "data": {
            "dataset": dataset,
            "episode_index": episode,
            VIDEO: address,
            "first_frame": first,
            "plan": corrections[-1]["plan"] if corrections else predictions[0]["plan"],
            "num_frames": facts["num_frames"],
            "fps": facts["fps"],
            "content_hash": facts["content_hash"],
            "task": facts["task"],
        },
        "annotations": annotations,
        "predictions": [
            {"model_version": label["label_run"], "result": _regions(label["segments"], first)} for label in predictions
        ],
    }


def _regions(segments: Sequence[dict[str, Any]], first: int) -> list[dict[str, Any]]:
    """Two regions of each segment, with the same id: its span and name, and how it ended."""
    regions = []
    for number, segment in enumerate(segments):
        ranges = [{"start": first + segment["start_frame"] + 1, "end": first + segment["end_frame"]}]
        region = {"id": f"segment{number}", "to_name": VIDEO}
        value = {"ranges": ranges, "timelinelabels": [segment["name"]]}
        span = region | {"from_name": STEPS, "type": "timelinelabels", "value": value}
        kept = {name: segment[name] for name in ("step", "pace") if segment.get(name) is not None}
        if kept:
            span["meta"] = kept
        # How a step ended; of another segment its kind
        ended = segment["kind"] if segment["kind"] != STEP else COMPLETED if segment["completed"] else FAILED
        choice = {"ranges": ranges, "choices": [ended]}
        regions += [span, region | {"from_name": OUTCOME, "type": "choices", "value": choice}]
    return regions


def labelling_config(tasks: Sequence[dict[str, Any]]) -> str:
    """The labelling interface that the tasks are made for."""
    drawn = chain.from_iterable((*task["annotations"], *task["predictions"]) for task in tasks)
    regions = chain.from_iterable(labels["result"] for labels in drawn)
    names = set(chain.from_iterable(region["value"].get("timelinelabels", ()) for region in regions))
    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in sorted(names))
    choices = "\n".join(f'    <Choice value="{outcome}"/>' for outcome in (COMPLETED, FAILED, IDLE, DONE))
    return (
        f'<View>\n  <Header value="$task"/>\n  <Video name="{VIDEO}" value="$video" frameRate="$fps"/>\n'
        f'  <TimelineLabels name="{STEPS}" toName="{VIDEO}">\n{labels}\n  </TimelineLabels>\n'
        f'  <Choices name="{OUTCOME}" toName="{VIDEO}" perRegion="true">\n{choices}\n  </Choices>\n</View>\n'
    )


def from_tasks(lake: Lake, text: str, author: str) -> ReadCorrections:
    """Rows of Label Studio's JSON: each annotation that was not cancelled. Raises CorrectionError: not such a file."""
    how = "export it from Label Studio as JSON, not as JSON-MIN or CSV"
    try:
        tasks = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise CorrectionError(f"the file is not JSON: {how}") from e
    if not isinstance(tasks, list):
        raise CorrectionError(f"the file is no list of tasks: {how}")
    read = ReadCorrections()
    for number, task in enumerate(tasks, 1):
        # One bad task does not spoil the file: it is named, and the others are read
        where = f"task {number}"
        annotations = task.get("annotations") if isinstance(task, dict) else None
        if not isinstance(annotations, list) or not isinstance(task.get("data"), dict):
            read.refused.append(f"{where}: it has no data with a list of annotations")
            continue
        for annotation in annotations:
            read.add(where, partial(_row_of_annotation, lake, task["data"], annotation, author))
    return read


def _row_of_annotation(lake: Lake, data: dict, annotation: Any, author: str) -> tuple[dict[str, Any], bool]:
    """The row of an annotation in a task's `data`. Raises CorrectionError."""
    _check_annotation(data, annotation)
    first = data.get("first_frame", 0)
    drawn = {
        "dataset": data.get("dataset"),
        "episode_index": data.get("episode_index"),
        "base_content_hash": data.get("content_hash"),
        "created_at": annotation.get("created_at"),
        "segments": _segments_of_regions(annotation["result"], first),
        "plan": data.get("plan") or [],
        "author": _completed_by(annotation.get("completed_by")),
    }
    # An annotation that we made brings what it was made of: unchanged, it is that correction again
    meta = annotation["meta"] if isinstance(annotation.get("meta"), dict) else {}
    drawn |= {name: meta[name] for name in SAID_LATER if name in meta}  # Label Studio cannot show or change them
    unchanged = drawn | {name: meta[name] for name in META_FIELDS if name in meta}
    try:
        return row_of(lake, unchanged, author)
    except CorrectionError:
        if "correction_id" not in meta:
            raise
    # It was changed in Label Studio: a correction of its own
    return row_of(lake, drawn, author)


def _completed_by(user: Any) -> str | None:
    """Label Studio names a user by number, or by a record."""
    if isinstance(user, dict):
        user = user.get("email") or user.get("username") or user.get("id")
    return None if user is None else str(user)


def _check_annotation(data: dict, annotation: Any) -> None:
    if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
        raise CorrectionError("an annotation without a result")
    if annotation.get("was_cancelled"):
        raise CorrectionError("an annotation that was cancelled")
    if type(data.get("first_frame", 0)) is not int:
        raise CorrectionError("first_frame is no number")


def _segments_of_regions(regions: Sequence[Any], first: int) -> list[dict[str, Any]]:
    """Segments in order of time; `first`: the frame of the video that the episode begins at."""
    spans: dict[str, dict[str, Any]] = {}
    outcomes: dict[str, str] = {}
    # A region comes from a program of others: whatever it lacks becomes a sentence for its author
    try:
        for region in regions:
            if region.get("type") == "choices":
                [outcomes[region["id"]]] = region["value"]["choices"]
            elif region.get("type") == "timelinelabels":
                # Outcomes refer to spans by id, so an id may stand once only
                if region["id"] in spans:
                    raise CorrectionError(f"two regions have the id {region['id']!r}")
                spans[region["id"]] = _span(region, first)
    except CorrectionError:
        raise
    except (KeyError, TypeError, AttributeError) as e:
        raise CorrectionError("a region that is no span with one label and one range") from e
    except ValueError as e:
        raise CorrectionError("a region with several labels or ranges; one each, please") from e
    # A person may draw a span and choose no outcome: that counts as a step that was completed
    segments = [span | _kind_of(outcomes.get(name, COMPLETED)) for name, span in spans.items()]
    return sorted(segments, key=itemgetter("start_frame", "end_frame"))


def _span(region: dict[str, Any], first: int) -> dict[str, Any]:
    [label], [frames] = region["value"]["timelinelabels"], region["value"]["ranges"]
    kept = {name: (region.get("meta") or {}).get(name) for name in ("step", "pace")}
    return {"name": label, "start_frame": frames["start"] - 1 - first, "end_frame": frames["end"] - first} | kept


def _kind_of(outcome: str) -> dict[str, Any]:
    """What an outcome says of a segment."""
    if outcome in (IDLE, DONE):
        return {"kind": outcome, "completed": True, "step": None}
    return {"kind": STEP, "completed": outcome != FAILED}

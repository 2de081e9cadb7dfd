"""People's corrections to files and back: JSON lines, whole rows; tasks of Label Studio's timeline.

Label Studio counts frames from 1 and includes a range's last one: our frames a to b (b not included) are its a + 1 to
b. A video file may hold several episodes; its frames before the episode are `first_frame`, and ranges count from the
file's start.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from xml.sax.saxutils import quoteattr

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from annotate.conventions.reward_data import OpensarmLine, read_results
from annotate.imported_label import ImportedError
from core.domain.label import DONE, IDLE, STEP
from core.names import unnamed_step
from core.values import grouped
from ingest.formats.side_files import parse_json_lines
from warehouse.lake import Lake
from warehouse.lake.corrections import (
    ACCEPTED,
    REJECTED,
    SAID_LATER,
    as_said,
    checked_facts,
    episodes_by_content,
    facts_by_episode,
    parsed,
    row_id,
    segments_of,
    validated,
)
from warehouse.lake.statements import CorrectionError, checked_text

CLOCK_SLACK = timedelta(minutes=5)  # a clock may be ahead by so much

Text = Annotated[str, AfterValidator(lambda text: checked_text("it", text, 2000, empty=True))]
STEPS, OUTCOME, VIDEO = "steps", "outcome", "video"  # names in Label Studio's configuration
COMPLETED = "completed"
FAILED = "failed"
# Of a correction, what an annotation brings along
META_FIELDS = (
    "correction_id",
    "author",
    "comment",
    "base_label_run",
    "base_content_hash",
    "follows",
    "plan",
    *SAID_LATER,
)


def _created_at(text: Any) -> datetime:
    """UTC; now where nothing is said, and never later than now: a clock ahead must not win for ever."""
    current_time = datetime.now(UTC)
    if text is None:
        return current_time
    try:
        time = datetime.fromisoformat(text)
        # a time without a zone is taken for UTC; one at the edge of the calendar may have no UTC
        time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError) as e:
        raise CorrectionError(f"{text!r} is no time such as 2026-01-31T12:00:00+00:00") from e
    if time > current_time + CLOCK_SLACK:
        raise CorrectionError(f"{text!r} is in the future")
    return time


class CorrectionLine(BaseModel):
    """What a line says beside the label; what it leaves out: by who imports it, made now, accepted."""

    dataset: Text
    episode_index: int = Field(ge=0, lt=1 << 63, strict=True)
    author: (
        Annotated[str, AfterValidator(lambda name: checked_text("it", name, 100, empty=True))]
        | None
    ) = None
    comment: Annotated[Text, BeforeValidator(lambda text: text or "")] = ""
    created_at: Annotated[datetime, BeforeValidator(_created_at)] = Field(
        default=None, validate_default=True
    )
    status: Literal["accepted", "review", "rejected"] = ACCEPTED
    base_label_run: Text | None = None
    follows: Text | None = None
    rejects: Text | None = None
    base_content_hash: Text | None = None
    correction_id: Text | None = None

    @model_validator(mode="after")
    def _says_what_it_rejects(self) -> Self:
        if self.status == REJECTED and not self.rejects and not self.base_label_run:
            raise CorrectionError("a rejection says what it is of: rejects, or base_label_run")
        return self


@dataclass
class ReadCorrections:
    """Rows that a file holds, and what of it was left out and why."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    # Of other contents than the corpus has: for review
    waiting: list[str] = field(default_factory=list)

    def add(self, location: str, read_row: Callable[[], tuple[dict[str, Any], bool]]) -> None:
        """Add what `read_row` gives: a row, and whether it is of the contents that the episode has by now."""
        try:
            row, fits = read_row()
        except CorrectionError as e:
            self.refused.append(f"{location}: {e}")
            return
        self.rows.append(row)
        if not fits:
            episode = f"episode {row['episode_index']} of {row['dataset']}"
            self.waiting.append(f"{location}: {episode} has other contents by now")


# JSON lines


def lines_of(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One JSON object per row of `corrections`, in the order given."""
    lines = []
    for row in rows:
        segments = list(map(as_said, segments_of(row))) if row["segments"] else None
        lines.append(row | {"segments": segments, "created_at": row["created_at"].isoformat()})
    return lines


class KnownEpisodes:
    """What a corpus knows of the episodes that a file speaks of; asked once for each dataset."""

    def __init__(self, lake: Lake) -> None:
        self._facts = cache(partial(facts_by_episode, lake))
        self.contents = cache(partial(episodes_by_content, lake))

    def facts(self, dataset: str, episode_index: int) -> dict[str, Any]:
        """As `episode_facts`. Raises CorrectionError."""
        return checked_facts(dataset, episode_index, self._facts(dataset).get(episode_index))

    def present_index(self, correction: CorrectionLine) -> int:
        """The number that the recording of a line has now; the line's own where nothing knows its
        contents.

        Raises CorrectionError: the recording left the source.
        """
        if correction.base_content_hash is None:
            return correction.episode_index
        numbers = self.contents(correction.dataset).get(
            correction.base_content_hash, {correction.episode_index}
        )
        if not numbers:
            raise CorrectionError(f"the recording that it is of left {correction.dataset}")
        if correction.episode_index in numbers:
            return correction.episode_index
        return min(numbers)


def from_lines(lake: Lake, text: str, author: str) -> ReadCorrections:
    """Rows of JSON lines. A line of ours comes back as it was; one written by hand needs dataset,
    episode_index and segments, and is by `author`, made now, of the contents that the episode
    has."""
    values, errors = parse_json_lines(text)
    episodes = KnownEpisodes(lake)
    read = ReadCorrections(refused=[f"line {number}: it is not JSON" for number, _ in errors])
    for number, value in values:
        read.add(f"line {number}", partial(row_of, episodes, value, author))
    return read


def row_of(episodes: KnownEpisodes, data: Any, author: str) -> tuple[dict[str, Any], bool]:
    """A row, and whether it is of the contents that the episode has. Raises CorrectionError."""
    correction = validated(CorrectionLine, data)
    index = episodes.present_index(correction)
    facts = episodes.facts(correction.dataset, index)
    # A row of other pictures than the episode has now may still be kept, but its frames cannot be checked
    content_hash = correction.base_content_hash or facts["content_hash"]
    fits = index in episodes.contents(correction.dataset).get(content_hash, ())
    row = correction.model_dump(exclude={"correction_id"})
    row |= {
        "author": correction.author or checked_text("author", author, 100),
        "base_content_hash": content_hash,
    }
    is_rejection = correction.status == REJECTED
    # A rejection says that a label is wrong, not what would be right: it has no segments
    if is_rejection:
        row |= {"plan": None, "segments": None} | dict.fromkeys(SAID_LATER)
    else:
        # Of contents that are not there any more: as long as the segments themselves say
        corrected = parsed(
            {"plan": data.get("plan") or []} | {k: data.get(k) for k in ("segments", *SAID_LATER)}
        )
        row |= corrected.columns(facts["num_frames"] if fits else corrected.segments[-1].end_frame)
    row["correction_id"] = correction.correction_id if correction.rejects else row_id(row)
    # The id is a hash of the content: one that does not fit shows a row that was edited by hand
    if correction.correction_id not in (None, row["correction_id"]):
        raise CorrectionError(
            "its content is not that of its correction_id; take that out if you changed it on purpose"
        )
    return row | {"episode_index": index}, fits or is_rejection


def from_opensarm(lake: Lake, path: Path, author: str, dataset: str | None) -> ReadCorrections:
    """Rows of a results file of opensarm's labelling tool; `dataset` is that of lines that do not
    say it.

    The task is one step without a name. A line is by its user, else by `author`. Raises
    CorrectionError: no such file.
    """
    try:
        lines = read_results(path)
    except ImportedError as e:
        raise CorrectionError(str(e)) from e
    read = ReadCorrections()
    episodes = KnownEpisodes(lake)

    def row(line: OpensarmLine) -> tuple[dict[str, Any], bool]:
        line_dataset, index = line.annotation.of or (dataset, line.annotation.episode_index)
        if line_dataset is None:
            raise CorrectionError(
                "the line does not say of which dataset it is: add --dataset NAME"
            )
        facts = episodes.facts(line_dataset, index)
        try:
            label = line.annotation.label(facts["num_frames"], facts["fps"], None)
        except ImportedError as e:
            raise CorrectionError(str(e)) from e
        data = {
            "dataset": line_dataset,
            "episode_index": index,
            "author": line.user if isinstance(line.user, str) else author,
            "created_at": line.ts,
            "plan": [unnamed_step(0)],
            "segments": list(map(as_said, label.segments)),
            **vars(label.end),
        }
        return row_of(episodes, data, author)

    for line in lines:
        read.add(f"episode {line.annotation.episode_index}", partial(row, line))
    return read


def to_tasks(
    lake: Lake, rows: Sequence[dict[str, Any]], labels: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """One task per episode: accepted corrections as annotations, labels of the corpus as predictions.

    `labels`: dataset, episode_index, label_run, plan, segments (rows of the table, in order).
    """
    key_of = itemgetter("dataset", "episode_index")
    corrections = grouped((key_of(row), row) for row in rows if row["status"] == ACCEPTED)
    predictions = grouped((key_of(label), label) for label in labels)
    tasks = []
    for key in sorted(corrections.keys() | predictions.keys()):
        dataset, episode = key
        task = _task(lake, dataset, episode, corrections.get(key, []), predictions.get(key, []))
        if task is not None:
            tasks.append(task)
    return tasks


def _task(
    lake: Lake,
    dataset: str,
    episode: int,
    corrections: Sequence[dict[str, Any]],
    predictions: Sequence[dict[str, Any]],
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
    return {
        "data": {
            "dataset": dataset,
            "episode_index": episode,
            VIDEO: address,
            "first_frame": first,
            "plan": [*predictions[:1], *corrections][-1]["plan"],
            **{name: facts[name] for name in ("num_frames", "fps", "content_hash", "task")},
        },
        "annotations": [_annotation(row, first) for row in corrections],
        "predictions": [
            {"model_version": label["label_run"], "result": _regions(label["segments"], first)}
            for label in predictions
        ],
    }


def _annotation(correction: Mapping[str, Any], first: int) -> dict[str, Any]:
    """`meta` keeps what Label Studio has no place for, so that an unchanged correction comes back
    as it was."""
    return {
        "created_at": correction["created_at"].isoformat(),
        "meta": {name: correction[name] for name in META_FIELDS},
        "result": _regions(list(map(vars, segments_of(correction))), first),
    }


def _regions(segments: Sequence[dict[str, Any]], first: int) -> list[dict[str, Any]]:
    """Two regions of each segment, with the same id: its span and name, and how it ended."""
    regions = []
    for number, segment in enumerate(segments):
        ranges = [
            {"start": first + segment["start_frame"] + 1, "end": first + segment["end_frame"]}
        ]
        region = {"id": f"segment{number}", "to_name": VIDEO}
        value = {"ranges": ranges, "timelinelabels": [segment["name"]]}
        span = region | {"from_name": STEPS, "type": "timelinelabels", "value": value}
        region_meta = {
            name: segment[name] for name in ("step", "pace") if segment.get(name) is not None
        }
        if region_meta:
            span["meta"] = region_meta
        # How a step ended; of another segment its kind
        if segment["kind"] != STEP:
            ended = segment["kind"]
        elif segment["completed"]:
            ended = COMPLETED
        else:
            ended = FAILED
        choice = {"ranges": ranges, "choices": [ended]}
        regions += [span, region | {"from_name": OUTCOME, "type": "choices", "value": choice}]
    return regions


def labelling_config(tasks: Sequence[dict[str, Any]]) -> str:
    """The labelling interface that the tasks are made for."""
    drawn = chain.from_iterable((*task["annotations"], *task["predictions"]) for task in tasks)
    regions = chain.from_iterable(labels["result"] for labels in drawn)
    names = set(chain.from_iterable(r["value"].get("timelinelabels", ()) for r in regions))
    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in sorted(names))
    choices = "\n".join(
        f'    <Choice value="{outcome}"/>' for outcome in (COMPLETED, FAILED, IDLE, DONE)
    )
    return (
        f'<View>\n  <Header value="$task"/>\n  <Video name="{VIDEO}" value="$video" frameRate="$fps"/>\n'
        f'  <TimelineLabels name="{STEPS}" toName="{VIDEO}">\n{labels}\n  </TimelineLabels>\n'
        f'  <Choices name="{OUTCOME}" toName="{VIDEO}" perRegion="true">\n{choices}\n  </Choices>\n</View>\n'
    )


def from_tasks(lake: Lake, text: str, author: str) -> ReadCorrections:
    """Rows of Label Studio's JSON: each annotation that was not cancelled. Raises CorrectionError: not such a file."""
    remedy = "export it from Label Studio as JSON, not as JSON-MIN or CSV"
    try:
        tasks = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise CorrectionError(f"the file is not JSON: {remedy}") from e
    if not isinstance(tasks, list):
        raise CorrectionError(f"the file is no list of tasks: {remedy}")
    read = ReadCorrections()
    episodes = KnownEpisodes(lake)
    for number, task in enumerate(tasks, 1):
        # One bad task does not spoil the file: it is named, and the others are read
        location = f"task {number}"
        annotations = task.get("annotations") if isinstance(task, dict) else None
        if not isinstance(annotations, list) or not isinstance(task.get("data"), dict):
            read.refused.append(f"{location}: it has no data with a list of annotations")
            continue
        for annotation in annotations:
            read.add(
                location, partial(_row_of_annotation, episodes, task["data"], annotation, author)
            )
    return read


def _row_of_annotation(
    episodes: KnownEpisodes, data: dict, annotation: Any, author: str
) -> tuple[dict[str, Any], bool]:
    """The row of an annotation in a task's `data`. Raises CorrectionError."""
    _check_annotation(data, annotation)
    drawn = {
        "dataset": data.get("dataset"),
        "episode_index": data.get("episode_index"),
        "base_content_hash": data.get("content_hash"),
        "created_at": annotation.get("created_at"),
        "segments": _segments_of_regions(annotation["result"], data.get("first_frame", 0)),
        "plan": data.get("plan") or [],
        "author": _completed_by(annotation.get("completed_by")),
    }
    # An annotation that we made brings what it was made of: unchanged, it is that correction again
    meta = annotation["meta"] if isinstance(annotation.get("meta"), dict) else {}
    # Label Studio cannot show or change them
    drawn |= {name: meta[name] for name in SAID_LATER if name in meta}
    unchanged = drawn | {name: meta[name] for name in META_FIELDS if name in meta}
    try:
        return row_of(episodes, unchanged, author)
    except CorrectionError:
        if "correction_id" not in meta:
            raise
    # It was changed in Label Studio: a correction of its own
    return row_of(episodes, drawn, author)


def _completed_by(user: Any) -> str | None:
    """Label Studio names a user by number, or by a record."""
    if isinstance(user, dict):
        user = user.get("email") or user.get("username") or user.get("id")
    if user is None:
        return None
    return str(user)


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
    region_meta = {name: (region.get("meta") or {}).get(name) for name in ("step", "pace")}
    return {
        "name": label,
        "start_frame": frames["start"] - 1 - first,
        "end_frame": frames["end"] - first,
    } | region_meta


def _kind_of(outcome: str) -> dict[str, Any]:
    """What an outcome says of a segment."""
    if outcome in (IDLE, DONE):
        return {"kind": outcome, "completed": True, "step": None}
    return {"kind": STEP, "completed": outcome != FAILED}

"""People's corrections to a file and back: JSON lines, whole rows."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from ingest.formats.side_files import parse_json_lines
from warehouse.lake import Lake
from warehouse.lake.corrections import (
    ACCEPTED,
    REJECTED,
    SAID_LATER,
    as_said,
    checked_facts,
    facts_by_episode,
    parsed,
    row_id,
    segments_of,
    validated,
)
from warehouse.lake.statements import CorrectionError, checked_text

CLOCK_SLACK = timedelta(minutes=5)  # a clock may be ahead by so much

Text = Annotated[str, AfterValidator(lambda text: checked_text("it", text, 2000, empty=True))]


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
        self.contents = cache(partial(_episodes_by_content, lake))

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
        try:
            row, fits = row_of(episodes, value, author)
        except CorrectionError as e:
            read.refused.append(f"line {number}: {e}")
            continue
        read.rows.append(row)
        if not fits:
            episode = f"episode {row['episode_index']} of {row['dataset']}"
            read.waiting.append(f"line {number}: {episode} has other contents by now")
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


def _episodes_by_content(lake: Lake, dataset: str) -> dict[str, set[int]]:
    """By each content hash that a dataset knows the episodes that have it, or had it, now; none: they left."""
    rows = lake.rows(
        "SELECT unnest(list_append(former_hashes, content_hash)), episode_index FROM episode_content "
        "WHERE dataset = $1 UNION ALL "
        "SELECT unnest(f.content_hashes), CASE WHEN r.left_at IS NULL THEN r.episode_index END "
        "FROM fingerprints f JOIN recordings r USING (recording) WHERE r.dataset = $1",
        [dataset],
    )
    by_content: dict[str, set[int]] = {}
    for content, episode in rows:
        episodes = by_content.setdefault(content, set())
        if episode is not None:
            episodes.add(episode)
    return by_content

"""What all that people say of episodes has in common: rows that are only ever added to, their texts, ids and times.

And the smallest of it: tags on episodes, and who is to look at them. The newest row of an episode and a tag says if the
tag is on, the newest assignment of an episode who has it (the views current_tags and current_assignments).
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, create_model

from core.errors import UserError
from core.files import queries_of
from core.values import grouped
from ingest.formats.side_files import parse_csv, parse_json, parse_json_lines
from ingest.recordings import KnownRecording
from warehouse.lake.connection import LakeConnection
from warehouse.lake.lake import Lake
from warehouse.lake.publication import content_key
from warehouse.lake.words import COLUMNS, OF_LABELS, topics


def _model(**fields: Any) -> type[BaseModel]:
    """A model that checks what statements of a kind say; one that takes another back says nothing."""
    return create_model("Statement", __config__=ConfigDict(extra="forbid", frozen=True), **fields)


ABSENT = (str | None, None)
# By kind what a statement says beside its author, comment and place
KINDS = {
    # A label
    "correction": _model(
        status=Literal["accepted", "review"],
        base_label_run=ABSENT,
        plan=(list[str] | None, None),
        segments=ABSENT,
        final_progress=(float | None, None),
        catastrophic_frame=(int | None, None),
    ),
    # The label of the label run `subject` must not be used
    "rejection": _model(),
    # Is an episode the recording `subject`, which it resembles?
    "recording": _model(is_same=bool),
    # How a run ended; null: the row takes an import back
    "outcome": _model(success=bool | None, file=ABSENT),
    # Is a run a reference of its task, by the label of which run?
    "reference": _model(is_reference=bool, label_run=ABSENT),
    # A tag, or the person whom an episode is assigned to: set, or removed
    "tag": _model(value=str, is_on=bool),
    "assigned": _model(value=str, is_on=bool),
    # Are the faults that the check `subject` finds known?
    "acceptance": _model(is_accepted=bool),
    # A recording or dataset that must not be used; its comment is the reason. copy_of: the recording that was taken
    # down, of one that is a copy of it
    "takedown": _model(copy_of=ABSENT),
    # The text that stands for the task text `subject`
    "joined_task": _model(same_as=str),
    # A dataset has this name from now on, for all that was said before
    "renamed": _model(new_name=str),
    # How a dataset is built, as `build_configs` has it: a lost catalog is made again with it
    "build": _model(config_hash=str, config=str),
}
MAX_FILE_BYTES = 1 << 30
ASSIGNED = "assigned"
TAKEDOWN = "takedown"
MOST_EPISODES = 1000  # marked at once
Kind = Literal["tag", "assigned"]
Place = tuple[str, int]  # dataset, episode_index
Home = tuple[str, int | None]  # a place, or (None) a whole dataset
type Known = tuple[str, str, str | None]  # recording, its name in the source, content_hash
type Row = Mapping[str, Any]
STANDING = "AND undoes IS NULL AND NOT EXISTS (FROM statements u WHERE u.undoes = s.batch)"
[TO_UNDO_SQL] = queries_of(__file__)
# Columns that say nothing by which two statements differ
NO_WORDS = (
    "number",
    "statement_id",
    "batch",
    "source_id",
    "content_hash",
    "recording",
    "created_at",
)


class CorrectionError(UserError, ValueError):
    """What a person says and cannot be saved, or read: what is wrong with it, in a sentence."""


class ConflictError(CorrectionError):
    """Somebody else saved something of the episode meanwhile: who and when."""


def newest_row(
    lake: LakeConnection,
    kind: str,
    place: Home,
    known: Mapping[Home, Known] | None = None,
    *,
    standing: bool = False,
) -> dict[str, Any] | None:
    """The newest statement of a kind on the recording that has a number, or on a dataset, with what it says as columns;
    None: there is none. known: what the place holds, if at hand. standing: of those that were not taken back."""
    dataset, episode_index = place
    if known is None and episode_index is not None:
        known = {**lake.recordings_at([(dataset, episode_index)])}
    rows = _newest(lake, kind, [place], known or {}, standing=standing)
    return next(iter(rows.values()), None)


def say(
    lake: LakeConnection,
    kind: str,
    settle: Callable[[], Iterable[dict[str, Any]]],
    known: Mapping[Home, Known] | None = None,
    *,
    complete: Callable[[dict[str, Any], Row | None], dict[str, Any] | None] = lambda row, _: row,
    is_batch: bool = True,
) -> list[dict[str, Any]]:
    """Add the statements of a kind that `settle` gives, while nobody else says anything: what it reads is so until they
    are added. Returns them, with ids and time.

    A row of `settle` has a dataset, an episode_index where it is of one recording, the fields of its kind, and what it
    has of the table's other columns; `recording` is the one that its author meant. complete: makes the statement of a
    row and the newest one before it, None where nothing new is said. known: what some places hold; of others the lake
    is asked. is_batch: the rows are taken back together. Raises ConflictError: the number is another recording's by
    now; and what `settle` and `complete` raise.
    """
    with lake.words.saying() as waiting:
        rows = list(settle())
        places: set[Home] = {(row["dataset"], row.get("episode_index")) for row in rows}
        recordings = {**(known or {})}
        unknown = [(d, e) for d, e in places - recordings.keys() if e is not None]
        recordings |= lake.recordings_at(unknown)
        former = _newest(lake, kind, places, recordings)
        statements = []
        for row in rows:
            place: Home = row["dataset"], row.get("episode_index")
            holds = recordings.get(place)
            check_recording(place, row.get("recording"), holds and holds[0])
            subject = None if kind in OF_LABELS else row.get("subject")
            before = former.get((_home(place, recordings), subject))
            completed = complete(row, before)
            if completed is not None:
                statements.append(_statement(completed.get("kind", kind), completed, holds, before))
        ids = sorted(statement["statement_id"] for statement in statements)
        batch = content_key(*ids)[:16] if is_batch and len(ids) > 1 else None
        for statement in statements:
            statement["batch"] = batch or statement["batch"] or statement["statement_id"]
        waiting.extend(statements)
    return statements


def unless_said(row: dict[str, Any], former: Row | None) -> dict[str, Any] | None:
    """The row; None where the newest statement says the same."""
    words = {name: value for name, value in row.items() if value is not None}
    if former and not former["undoes"] and words.items() <= former.items():
        return None
    return row


def check_recording(place: Home, meant: str | None, present: str | None) -> None:
    """Raises ConflictError: the author meant another recording than that which has the number.
    None: that one."""
    if meant not in (None, present):
        raise ConflictError(
            f"episode {place[1]} of {place[0]} is another recording by now: reload it and look"
        )


def _statement(kind: str, row: Row, holds: Known | None, former: Row | None) -> dict[str, Any]:
    """A row of the table of statements. Raises CorrectionError."""
    model = KINDS[kind]
    fields = {name: row[name] for name in model.model_fields if name in row}
    value = {} if row.get("undoes") else model(**fields).model_dump(exclude_none=True)
    recording, source_id, content_hash = holds or (None, None, None)
    statement: dict[str, Any] = dict.fromkeys(COLUMNS) | {
        "source_id": source_id,
        "content_hash": content_hash,
        "follows": former and former["statement_id"],
        "created_at": time_after(former),
    }
    statement |= {
        name: row[name] for name in COLUMNS if name in row and name not in model.model_fields
    }
    statement |= {
        "kind": kind,
        "recording": recording,
        "value": json.dumps(value, ensure_ascii=False),
        "created_at": statement["created_at"].isoformat(),
    }
    if statement["statement_id"] is None:
        # What is said again, after something else, is another statement
        words = {name: text for name, text in statement.items() if name not in NO_WORDS}
        former_id = former["statement_id"] if former else ""
        statement["statement_id"] = content_key(former_id, json.dumps(words))[:16]
    return statement


def _home(place: Home, recordings: Mapping[Home, Known]) -> str:
    """What statements on a place have in common: their recording; without one, the place."""
    if place in recordings:
        return recordings[place][0]
    dataset, episode_index = place
    return f"{dataset} {-1 if episode_index is None else episode_index}"


def _newest(
    lake: LakeConnection,
    kind: str,
    places: Iterable[Home],
    recordings: Mapping[Home, Known],
    *,
    standing: bool = False,
) -> dict[tuple[str, str | None], dict[str, Any]]:
    """The newest statement of a kind on each place (and subject), with what it says as columns; by `_home` (and
    subject). Reads no table of the lake."""
    rows = lake.dicts(
        "SELECT *, coalesce(recording, dataset || ' ' || coalesce(episode_index, -1)) AS home, "
        f"CASE WHEN kind NOT IN {OF_LABELS} THEN subject END AS topic FROM statements s WHERE list_contains($1, kind) "
        "AND (list_contains($2, recording) OR recording IS NULL AND list_contains($2, home)) "
        f"{STANDING if standing else ''} "
        "QUALIFY row_number() OVER (PARTITION BY home, topic ORDER BY created_at DESC, statement_id DESC) = 1",
        [topics(kind), sorted({_home(place, recordings) for place in places})],
    )
    return {(row["home"], row["topic"]): row | json.loads(row["value"]) for row in rows}


def take_back(
    lake: LakeConnection,
    statement_id: str,
    *,
    author: str,
    comment: str = "",
    place: Place | None = None,
    recording: str | None = None,
    **seen: str | None,
) -> list[dict[str, Any]]:
    """Take back a statement, and those that were said together with it: what was said before counts again.

    place, recording: of which the author means it. seen: `follows`, the newest that the author has seen, if anything
    newer counts. Returns what was said. Raises CorrectionError.
    """
    words = {
        "author": checked_text("author", author, 100),
        "comment": checked_text("comment", comment, 2000, empty=True),
        "recording": recording,
    }
    rows = lake.dicts(TO_UNDO_SQL, [[statement_id]])
    if not rows or place not in (None, (rows[0]["dataset"], rows[0]["episode_index"])):
        raise CorrectionError(
            f"there is no statement {statement_id!r} to take back; proccorpus show statements has all"
        )
    batch = rows[0]["undoes"]

    def complete(row: dict[str, Any], former: Row | None) -> dict[str, Any]:
        if seen and row["kind"] in OF_LABELS:
            check_newest(row, seen["follows"], former)
        return row

    statements: list[dict[str, Any]] = []
    with lake.words.saying():
        for undoing_author, when in lake.rows(
            "SELECT author, created_at FROM statements WHERE undoes = ? LIMIT 1", [batch]
        ):
            raise CorrectionError(
                f"{statement_id} was taken back by {undoing_author} on {when:%Y-%m-%d %H:%M} UTC"
            )
        for kind, of_kind in grouped((row["kind"], row | words) for row in rows).items():
            statements += say(lake, kind, lambda of_kind=of_kind: of_kind, complete=complete)
    return statements


def check_newest(row: Row, follows: str | None, newest: Row | None) -> None:
    """Nothing is replaced unseen. Raises ConflictError: the newest statement is not the one that an
    author has seen."""
    episode = f"episode {row['episode_index']} of {row['dataset']}"
    if newest is None and follows is not None:
        raise ConflictError(f"nothing was said of {episode} that yours could follow: reload it")
    if newest is not None and newest["statement_id"] != follows:
        saved = "changed the person" if newest["kind"] == ASSIGNED else f"saved a {newest['kind']}"
        action = "took something back" if newest["undoes"] else saved
        when = f"on {newest['created_at']:%Y-%m-%d %H:%M:%S} UTC"
        raise ConflictError(
            f"{newest['author']} {action} of {episode} {when}: reload it, compare, save again"
        )


def checked_text(title: str, text: str, max_chars: int, *, empty: bool = False) -> str:
    """Text of a person, stripped. Raises CorrectionError: it is empty, too long, or not all of it
    can be written."""
    text = text.strip()
    if not text and not empty:
        raise CorrectionError(f"{title} is empty")
    if len(text) > max_chars:
        raise CorrectionError(f"{title} is longer than {max_chars} characters")
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", text):
        raise CorrectionError(f"{title} holds control characters or broken ones")
    return text


def time_after(former: Mapping[str, Any] | None) -> datetime:
    """The time of what a person says now: later than the newest row also where this machine's clock
    is behind.

    The order of rows says which one counts.
    """
    current_time = datetime.now(UTC)
    if former and former["created_at"]:
        return max(current_time, former["created_at"] + timedelta(microseconds=1))
    return current_time


def known_episodes(lake: LakeConnection, dataset: str) -> dict[int, str]:
    """The source_id of every episode that a dataset ever had: one that left the source keeps its
    number.

    Raises UserError: there is no such dataset.
    """
    datasets = lake.column("SELECT dataset FROM datasets ORDER BY 1")
    if dataset not in datasets:
        raise UserError(
            f"the corpus has no dataset {dataset!r}; it has {', '.join(datasets) or 'none yet: build it'}"
        )
    return dict(
        lake.rows(
            "SELECT episode_index, source_id FROM ("
            "SELECT dataset, episode_index, source_id, false AS is_here FROM episode_facts UNION ALL "
            "SELECT dataset, episode_index, source_id, left_at IS NULL FROM recordings) "
            "WHERE dataset = $1 ORDER BY is_here",
            [dataset],
        )
    )


def read_text(path: Path) -> str:
    """A file of statements. Raises CorrectionError for what cannot be read."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CorrectionError(f"{path} has more than {MAX_FILE_BYTES >> 20} MB")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise CorrectionError(f"{path} is no UTF-8 text: {e.reason} at byte {e.start}") from e
    except OSError as e:
        raise CorrectionError(f"cannot read {path}: {e.strerror}") from e


def rows_of_text(text: str) -> tuple[str, list[tuple[int, Any]], dict[int, str]]:
    """What its rows are called, `line` of CSV with a header or of JSON, `entry` of a JSON list;
    each with its number; and by number what is wrong with others. A row of CSV that takes several
    lines has the number of its last."""
    begin = text.lstrip()[:1]
    if begin == "{":
        values, errors = parse_json_lines(text)
        return "line", values, {number: f"is no JSON: {error}" for number, error in errors}
    if begin == "[":
        try:
            return "entry", list(enumerate(parse_json(text), 1)), {}
        except ValueError as e:
            return "entry", [], {1: f"the file is no JSON: {e}"}
    rows, errors = parse_csv(text)
    return "line", rows, {number: f"is no CSV from here on: {error}" for number, error in errors}


def mark(
    lake: LakeConnection,
    places: Sequence[Place],
    kind: Kind,
    value: str,
    *,
    author: str,
    is_on: bool = True,
    follows: Mapping[Place, str | None] | None = None,
    recordings: Mapping[Place, str] | None = None,
) -> list[dict[str, Any]]:
    """Put a tag on episodes or take it off, or assign them to a person or to nobody any more;
    returns the new rows.

    Where it is so already, no row is added. follows: of each episode the assignment that the author
    has seen. recordings: what the author has seen in its place; None: what it holds now.

    Tags of two people never conflict: each is put on and taken off by itself. Raises ConflictError
    when somebody else has assigned an episode meanwhile, and CorrectionError for episodes or texts
    that cannot be; then nothing is marked.
    """
    author, value = checked_text("author", author, 100), checked_text(kind, value, 100)
    places = list(dict.fromkeys(places))
    if not 0 < len(places) <= MOST_EPISODES:
        raise CorrectionError(f"{len(places)} episodes: 1 to {MOST_EPISODES} can be marked at once")

    recording_by_place = lake.recordings_at(places)
    for dataset, episode_index in sorted({*places} - recording_by_place.keys()):
        raise CorrectionError(f"the corpus has no episode {episode_index} of {dataset!r}")
    rows = [
        {
            "dataset": dataset,
            "episode_index": episode_index,
            "recording": (recordings or {}).get((dataset, episode_index)),
            "subject": value if kind != ASSIGNED else None,
            "value": value,
            "is_on": is_on,
            "author": author,
        }
        for dataset, episode_index in places
    ]

    def complete(row: dict[str, Any], former: Row | None) -> dict[str, Any] | None:
        if (former is not None and former["is_on"] and former["value"] == value) == is_on:
            return None
        # Of one whom nobody has any more, everybody has seen as much
        is_assigned = former is not None and former["is_on"]
        if kind == ASSIGNED and follows is not None and is_assigned:
            check_newest(row, follows.get((row["dataset"], row["episode_index"])), former)
        return row

    return say(lake, kind, lambda: rows, {**recording_by_place}, complete=complete)


# Taking data down: a mark, which counts at once: releases leave the data out, and the plan sees what was made of it as
# stale. The next build makes its chunks without it, and gc then deletes the bytes that no kept release names. It holds
# for the recording, whatever number it has later


def takedown_marks(lake: Lake, dataset: str | None = None) -> list[dict]:
    """What is taken down, of one dataset or of all, by the present numbers: dataset, episode_index (None: all of it),
    reason, created_at, recording, is_sure."""
    if not lake.datasets_in(TAKEDOWN):
        return []
    return lake.dicts(
        "SELECT dataset, episode_index, reason, created_at, recording, is_sure FROM current_takedowns "
        "WHERE dataset = coalesce(?, dataset) ORDER BY dataset, episode_index NULLS FIRST",
        [dataset],
    )


def withdrawn_reasons(lake: LakeConnection) -> dict[str, str]:
    """The reason of each recording that was taken down, with its dataset or by itself."""
    if not lake.datasets_in(TAKEDOWN):
        return {}
    return dict(
        lake.rows(
            "SELECT r.recording, t.reason FROM takedowns t JOIN recordings r USING (dataset) "
            "WHERE t.episode_index IS NULL UNION ALL "
            "SELECT recording, reason FROM takedowns WHERE recording IS NOT NULL"
        )
    )


def taken_down(lake: Lake) -> dict[str, frozenset[int] | None]:
    """Episodes of now that are taken down, for sure or probably, of each dataset that has some; None: all of them."""
    if not lake.datasets_in(TAKEDOWN):
        return {}
    rows = lake.rows(
        "SELECT dataset, list(episode_index), bool_or(episode_index IS NULL) FROM current_takedowns GROUP BY 1"
    )
    return {dataset: None if whole else frozenset(episodes) for dataset, episodes, whole in rows}


def take_down(
    lake: Lake,
    dataset: str,
    episodes: Collection[int] | None,
    reason: str,
    copies: Mapping[Place, KnownRecording] | None = None,
) -> None:
    """Mark episodes (None: the whole dataset) as not to be used. Raises UserError.

    copies: episodes of any dataset that hold the same recording as one of these, with that one; they are marked, too.
    """
    if unknown := sorted(set(episodes or ()) - known_episodes(lake, dataset).keys()):
        raise UserError(
            f"{dataset} has no episode {unknown[0]}; proccorpus sql lists them in the view episodes"
        )
    reason = reason.strip()
    if not reason:
        raise UserError("give a --reason: the quarantine shows it to people who miss the data")
    numbers = [None] if episodes is None else sorted(set(episodes))
    rows = [{"dataset": dataset, "episode_index": number, "comment": reason} for number in numbers]
    rows += [mark_of_copy(place, copy, reason) for place, copy in sorted((copies or {}).items())]
    say(lake, TAKEDOWN, lambda: rows, complete=unless_said, is_batch=False)


def mark_of_copy(place: Place, original: KnownRecording, reason: str) -> dict[str, Any]:
    """The mark of an episode that holds a recording which was taken down elsewhere; it goes when
    that is undone."""
    number = original.episode_index
    return {
        "dataset": place[0],
        "episode_index": place[1],
        "copy_of": original.recording,
        "comment": f"the same recording as episode {number} of {original.dataset}: {reason}",
    }


def undo_takedown(lake: Lake, dataset: str, episodes: Collection[int] | None) -> Counter[str]:
    """Take marks back: those of some episodes, by their present numbers, or all of the dataset's, and those of their
    copies; returns how many of each dataset.

    Raises UserError.
    """
    numbers = None if episodes is None else sorted(set(episodes))
    ids = lake.column(
        "SELECT statement_id FROM standing_statements s "
        "LEFT JOIN (SELECT recording, episode_index FROM recordings) r USING (recording) "
        "WHERE kind = 'takedown' AND dataset = $1 "
        "AND ($2 IS NULL OR list_contains($2, coalesce(r.episode_index, s.episode_index)))",
        [dataset, numbers],
    )
    if not ids:
        taken_down_text = ", ".join(map(str, sorted(taken_down(lake).get(dataset) or ())))
        if taken_down_text:
            available_text = f"taken down are its episodes {taken_down_text}"
        else:
            available_text = "proccorpus sql 'FROM takedowns' lists what is"
        raise UserError(f"nothing of that is taken down of {dataset}: {available_text}")
    taken_back = lake.dicts(TO_UNDO_SQL, [ids])
    say(lake, TAKEDOWN, lambda: taken_back, is_batch=False)
    return Counter(row["dataset"] for row in taken_back)

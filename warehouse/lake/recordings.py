"""Recordings in the lake: which one each episode holds, what happened to them, and what people decide of unsure ones.

All that people say names the recording that it was said of (`statements.say` adds it); the views current_... and
located_... have it by the present numbers.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from core.files import queries_of
from core.tables import TABLES
from core.values import grouped
from ingest.recordings import (
    MIN_SHARED_ROWS,
    MOMENTS,
    NO_NUMBER,
    VERSION,
    Fingerprint,
    KnownRecording,
    Likeness,
    Match,
    RecordingIndex,
    shared_rows,
)
from warehouse.lake.connection import LakeConnection, literal
from warehouse.lake.lake import Lake
from warehouse.lake.outdated import make_stale
from warehouse.lake.publication import content_key
from warehouse.lake.statements import (
    TAKEDOWN,
    CorrectionError,
    checked_text,
    mark_of_copy,
    say,
    take_down,
    withdrawn_reasons,
)

LISTING, FRAMES, PERSON = "listing", "frames", "person"  # who found a change
# What a change is called, in the order of reports, and its name for people
WHATS = {
    "moved": "moved",
    "gone": "gone",
    "back": "back",
    "new": "new",
    "changed": "recorded anew",
    "probable": "unsure",
    "same": "decided",
    "other": "decided",
}
# Changes that a build finds; of the others a person decides
BUILD_CHANGES = ("moved", "gone", "back", "new", "changed", "probable")
KNOWN, LIKE_SOME, ROWS_APART = queries_of(__file__)
# From where on runs of one dataset that look alike are others: rows in standard deviations; and the cell of a tiny
# picture that differs most, of 255: by up to 25 where a video was encoded anew as coarsely as can be
MIN_ROWS_APART = 0.2
MIN_CELLS_APART = 30
PLACE = ("dataset", "episode_index", "recording")


def known_recordings(
    lake: LakeConnection,
    condition: str,
    values: Sequence[Any],
    contents: str = "false",
) -> list[KnownRecording]:
    """The recordings r that fit a condition, with what they are told by.

    contents: SQL, which decoded contents are looked at, too; without them only what was kept of recordings that moved,
    left or were taken down.
    """
    sql = f"{KNOWN.format(contents)} WHERE {condition} ORDER BY r.dataset, r.episode_index"
    return [_known(row) for row in lake.dicts(sql, [*values])]


def _known(row: Mapping[str, Any]) -> KnownRecording:
    return KnownRecording(
        recording=row["recording"],
        dataset=row["dataset"],
        episode_index=row["episode_index"],
        source_id=row["source_id"],
        is_here=row["left_at"] is None,
        stamp=row["stamp"] or "",
        source_stamp=row["source_stamp"] or "",
        decoded_stamp=row["decoded_stamp"] or "",
        group=row["group"] or "",
        split=row["split"],
        resembles=row["resembles"],
        why=row["why"] or "",
        fingerprint=_fingerprint(row),
    )


def _fingerprint(row: Mapping[str, Any]) -> Fingerprint:
    """The layers of a row; of another version only those that do not depend on it."""
    contents = frozenset(row["content_hashes"] or ())
    if row["version"] != VERSION:
        return Fingerprint(num_frames=row["num_frames"], file=row["file_hash"], contents=contents)
    hashes = row["moments"] or []
    by_camera: dict[str, tuple[int, ...]] = {
        camera: tuple(hashes[k * MOMENTS : (k + 1) * MOMENTS])
        for k, camera in enumerate(row["cameras"] or ())
    }
    return Fingerprint(
        num_frames=row["num_frames"],
        rows=row["rows_hash"],
        times=row["times_hash"],
        sketch=tuple(row["row_sketch"] or ()),
        moments=by_camera,
        file=row["file_hash"],
        contents=contents,
    )


def withdrawn_recordings(lake: LakeConnection) -> list[tuple[KnownRecording, str]]:
    """Every recording that was taken down, alone or with its dataset, and the reason."""
    reasons = withdrawn_reasons(lake)
    if not reasons:
        return []
    recordings = known_recordings(lake, "list_contains(?, r.recording)", [list(reasons)])
    return [(recording, reasons[recording.recording]) for recording in recordings]


def recordings_with_words(lake: LakeConnection, dataset: str) -> set[str]:
    """The recordings of a dataset of which people said anything."""
    return set(lake.column("SELECT recording FROM statements WHERE dataset = ?", [dataset])) - {
        None
    }


# What a listing, or a pass over the pictures, makes of them


@dataclass
class RecordingUpdate:
    """Rows to write of the recordings of a dataset: by the table each row's columns, and what happened."""

    dataset: str
    found_by: str
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    recordings: dict[str, dict[str, Any]] = field(default_factory=dict)
    fingerprints: dict[str, dict[str, Any]] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)

    def put(self, recording: KnownRecording) -> None:
        """The state that a recording has from now on."""
        self.recordings[recording.recording] = {
            "recording": recording.recording,
            "dataset": recording.dataset,
            "episode_index": recording.episode_index,
            "source_id": recording.source_id,
            "stamp": recording.stamp,
            "source_stamp": recording.source_stamp,
            "left_at": None if recording.is_here else self.now,
            "group": recording.group,
            "split": recording.split,
            "resembles": recording.resembles,
            "why": recording.why or None,
        }

    def put_fingerprint(self, recording: KnownRecording) -> None:
        layers = fingerprint_columns(recording.fingerprint, "version")
        contents = sorted(recording.fingerprint.contents)
        row = {"recording": recording.recording, "content_hashes": contents}
        self.fingerprints[recording.recording] = row | layers

    def take_over(
        self, former: KnownRecording, present: KnownRecording, reason: str
    ) -> KnownRecording:
        """A recording is at the address of another one that turned out to be the same: under its own number, or under
        a new one where that is another dataset's."""
        self.put(replace(present, is_here=False, resembles=None, why=reason))
        is_ours = former.dataset == present.dataset
        placed = replace(
            present,
            recording=former.recording,
            episode_index=former.episode_index if is_ours else NO_NUMBER,
            split=former.split,
            resembles=former.resembles,
            why=former.why,
            fingerprint=present.fingerprint.filled(former.fingerprint),
        )
        self.put(placed)
        self.put_fingerprint(placed)
        return placed

    def note(
        self,
        change: str,
        former: KnownRecording | None,
        present: KnownRecording | None,
        reason: str = "",
    ) -> None:
        """Write down what happened to a recording; `former` None: it is new, `present` None: it is gone."""
        recording = present or former
        assert recording is not None
        self.changes.append(
            {
                "recording": recording.recording,
                "dataset": recording.dataset,
                "what": change,
                "former": former.recording
                if former and former.recording != recording.recording
                else None,
                "found_by": self.found_by,
                "from_episode": former and former.episode_index,
                "to_episode": present and present.episode_index,
                "from_source_id": former and former.source_id,
                "to_source_id": present and present.source_id,
                "why": reason or None,
                "created_at": self.now,
            }
        )

    def keep_pictures(self, lake: LakeConnection) -> None:
        """Keep pictures of recordings that leave their place and of which people said something: a
        person who is asked later whether another one is the same sees both. Of one that was taken
        down nothing is kept."""
        leaving = {
            row["recording"]: row["episode_index"]
            for row in self.recordings.values()
            if row["left_at"]
        }
        if not leaving:
            return
        spoken_of = recordings_with_words(lake, self.dataset) - {
            r.recording for r, _ in withdrawn_recordings(lake)
        }
        for recording in spoken_of & leaving.keys() & self.fingerprints.keys():
            pictures = moment_pictures(lake, self.dataset, leaving[recording])
            self.fingerprints[recording]["pictures"] = pictures

    @property
    def numbers(self) -> dict[str, int]:
        """How often each thing happened, for people: recordings_moved and so on."""
        counts = Counter(change["what"] for change in self.changes)
        return {f"recordings_{kind}": counts[kind] for kind in WHATS if counts[kind]}

    def upserts(self) -> dict[str, pa.Table]:
        """The rows by table; tables without rows are left out."""
        rows = {
            "recordings": [*self.recordings.values()],
            "fingerprints": [*self.fingerprints.values()],
            "recording_changes": self.changes,
        }
        return {name: TABLES[name].rows(of_table) for name, of_table in rows.items() if of_table}


def fingerprint_columns(
    fingerprint: Fingerprint, version: str = "fingerprint_version"
) -> dict[str, Any]:
    """The layers as columns, as `fingerprints` and, but for cameras, `episode_content` have them."""
    return {
        version: VERSION,
        "num_frames": fingerprint.num_frames,
        "rows_hash": fingerprint.rows,
        "times_hash": fingerprint.times,
        "row_sketch": list(fingerprint.sketch),
        "cameras": list(fingerprint.moments),
        "moments": list(chain.from_iterable(fingerprint.moments.values())),
        "file_hash": fingerprint.file,
    }


def moment_pictures(lake: LakeConnection, dataset: str, episode_index: int) -> list[bytes]:
    """The tiny pictures of an episode's first camera at MOMENTS evenly spread moments, 16 x 16 bytes of luma each."""
    pictures = lake.column(
        "SELECT luma FROM tiny_pictures WHERE dataset = $1 AND episode_index = $2 AND camera = ("
        "  SELECT usable_cameras[1] FROM episode_content WHERE dataset = $1 AND episode_index = $2) "
        "ORDER BY frame_index",
        [dataset, episode_index],
    )
    moments = range(MOMENTS if pictures else 0)
    return [pictures[int((moment + 0.5) * len(pictures) / MOMENTS)] for moment in moments]


def new_id(dataset: str, source_id: str, used_ids: Collection[str]) -> str:
    """The id of a recording that is seen for the first time at a name of its source; none of those that are taken."""
    number = 0
    while (recording := content_key("recording", dataset, source_id, str(number))[:16]) in used_ids:
        number += 1
    return recording


# For people


def sentence(dataset: str, numbers: Mapping[str, Any]) -> str | None:
    """What happened to a dataset's recordings, by a stage's numbers; None: nothing.

    Example: "recordings: 15 moved, 1 gone; what people said moved along: proccorpus show recording_changes arm".
    """
    counts = {change: int(numbers.get(f"recordings_{change}", 0)) for change in BUILD_CHANGES}
    parts = [f"{count} {WHATS[change]}" for change, count in counts.items() if count]
    if not parts:
        return None
    command = f"proccorpus show recording_changes {dataset}"
    return f"recordings: {', '.join(parts)}; what people said stays with them: {command}"


def sentences(lake: LakeConnection) -> dict[str, str]:
    """Of each dataset what happened to its recordings last, and what a person has to decide; of others nothing."""
    rows = lake.rows(
        "SELECT dataset, what, count(*), max(created_at) FROM recording_changes "
        "SEMI JOIN (SELECT dataset, max(created_at) AS created_at FROM recording_changes GROUP BY 1) "
        "USING (dataset, created_at) GROUP BY 1, 2"
    )
    numbers: dict[str, dict[str, int]] = {}
    dates: dict[str, datetime] = {}
    for dataset, change, count, created_at in rows:
        numbers.setdefault(dataset, {})[f"recordings_{change}"] = count
        dates[dataset] = created_at
    texts: list[tuple[str, str]] = []
    for dataset, counts in numbers.items():
        text = sentence(dataset, counts)
        if text:
            texts.append((dataset, f"on {dates[dataset]:%Y-%m-%d}, {text}"))
    texts += open_questions(lake)
    return {
        dataset: "; ".join(of_dataset) for dataset, of_dataset in sorted(grouped(texts).items())
    }


def open_questions(
    lake: LakeConnection, decoded_datasets: Collection[str] | None = None
) -> Iterator[tuple[str, str]]:
    """(dataset, text): how many words wait for a person; then how many runs have the rows of another one.

    decoded_datasets: those whose copies are named; None: all. Example of a text: "3 words wait for a person: proccorpus
    show words_in_review arm".
    """
    for dataset, count in review_counts(lake).items():
        words = "word waits" if count == 1 else "words wait"
        yield dataset, f"{count} {words} for a person: proccorpus show words_in_review {dataset}"
    if decoded_datasets is not None and not decoded_datasets:
        return  # to look for copies reads all contents
    rows = lake.rows(
        "SELECT dataset, count(*) FROM episode_content SEMI JOIN ("
        "  SELECT rows_hash, num_frames FROM episode_content WHERE rows_hash IS NOT NULL GROUP BY ALL "
        "  HAVING count(*) > 1) USING (rows_hash, num_frames) GROUP BY 1 ORDER BY 1"
    )
    for dataset, count in rows:
        if decoded_datasets is None or dataset in decoded_datasets:
            runs = "run has" if count == 1 else "runs have"
            yield dataset, f'{count} {runs} the rows of another run: proccorpus sql "FROM copies"'


def pictures_in_review(
    lake: LakeConnection, dataset: str, episode_index: int
) -> tuple[list[bytes], list[bytes]]:
    """The tiny pictures of the recording that an episode resembles, and of the episode; empty where none are kept."""
    resembled = lake.rows(
        "SELECT s.dataset, s.episode_index, s.left_at IS NULL, f.pictures FROM recordings r "
        "JOIN recordings s ON r.resembles = s.recording LEFT JOIN fingerprints f ON f.recording = s.recording "
        "WHERE r.dataset = ? AND r.episode_index = ? AND r.left_at IS NULL",
        [dataset, episode_index],
    )
    former = (
        moment_pictures(lake, its_dataset, its_episode) if is_here else kept_pictures or []
        for its_dataset, its_episode, is_here, kept_pictures in resembled
    )
    return next(former, []), moment_pictures(lake, dataset, episode_index)


def review_counts(lake: LakeConnection) -> dict[str, int]:
    """By dataset how many words wait for a person; only of datasets where some do."""
    if not lake.rows(
        "SELECT 1 FROM recordings WHERE resembles IS NOT NULL AND left_at IS NULL LIMIT 1"
    ):
        return {}
    return dict(lake.rows("SELECT dataset, count(*) FROM words_in_review GROUP BY 1 ORDER BY 1"))


def decide(lake: Lake, dataset: str, episode_index: int, *, is_same: bool, author: str) -> str:
    """Say whether an episode is the recording that it resembles; returns that recording.

    Where it is, the next build has it under its own number, and all that was said of it is in force; a copy of one that
    is there keeps its number, and is taken down with it. Raises CorrectionError where there is nothing to decide.
    """
    author = checked_text("author", author, 100)
    condition = "r.dataset = ? AND r.episode_index = ? AND r.left_at IS NULL"
    contents = f"dataset = {literal(dataset)}"
    recordings = known_recordings(lake, condition, [dataset, episode_index], contents)
    if not recordings:
        raise CorrectionError(f"the corpus has no episode {episode_index} of {dataset!r}")
    present = recordings[0]
    if present.resembles is None:
        raise CorrectionError(
            f"episode {episode_index} of {dataset} is like no other recording: there is nothing to decide; proccorpus "
            f"show words_in_review lists what is"
        )
    former = known_recordings(lake, "r.recording = ?", [present.resembles])[0]
    update = RecordingUpdate(dataset, PERSON)
    # Where both are there, each keeps its number
    is_copy = is_same and former.is_here
    if is_same and not is_copy:
        placed = update.take_over(former, present, f"{author} said that it is {former.recording}")
    else:
        relation = "a copy of" if is_copy else "not"
        explanation = f"{author} said that it is {relation} {former.recording}"
        placed = replace(present, resembles=None, why=explanation)
        update.put(placed)
    update.note("same" if is_same else "other", former, placed, f"{author} said so")
    place = dataset, episode_index
    reason = withdrawn_reasons(lake).get(former.recording)
    # A copy of what was taken down is so, too; what is none is taken in by the next build
    if reason and is_copy:
        say(lake, TAKEDOWN, lambda: [mark_of_copy(place, former, reason) | {"author": author}])
    elif reason and not is_same:
        _look_again(lake, place, "is not one that was taken down")
    update.changes[-1]["author"] = author
    decision = _decision(present, former.recording, author, is_same=is_same)
    say(lake, "recording", lambda: [decision])
    lake.upsert(f"recording of {dataset} {episode_index}", **update.upserts())
    return former.recording


def decided_apart(lake: LakeConnection) -> dict[str, frozenset[str]]:
    """By recording those of which a person said that it is not the same."""
    if not lake.datasets_in("recording"):
        return {}
    rows = lake.rows(
        "SELECT recording, list(subject) FROM standing_statements "
        "WHERE kind = 'recording' AND NOT (value->>'is_same')::BOOLEAN GROUP BY 1"
    )
    return {recording: frozenset(formers) for recording, formers in rows}


def _look_again(lake: Lake, place: tuple[str, int], reason: str) -> None:
    """Let the next build list an episode's dataset, and look at the pictures of its chunk."""
    dataset, episode_index = place
    chunks = lake.column(
        "SELECT chunk FROM episode_facts WHERE dataset = ? AND episode_index = ?", [*place]
    )
    with lake.lock(), lake.transaction(f"episode {episode_index} of {dataset} {reason}"):
        make_stale(lake, dataset, chunks, is_listed_anew=True)


def withdraw(
    lake: Lake, dataset: str, episodes: Collection[int] | None, reason: str
) -> list[tuple[str, int, Likeness]]:
    """Take episodes down (None: the whole dataset), and every other episode of the corpus that is
    the same recording. One that may be is not used until a person decides.

    Returns the others, and how sure it is; with them those that look alike and are other recordings by their rows. What
    they are told by is kept, so that they are known wherever they turn up later. Raises UserError as `take_down` does.
    """
    numbers = None if episodes is None else sorted(episodes)
    condition = "r.dataset = $1 AND ($2 IS NULL OR list_contains($2, r.episode_index))"
    contents = f"dataset = {literal(dataset)}"
    withdrawn = known_recordings(lake, condition, [dataset, numbers], contents)
    matches = [*_matches(lake, withdrawn)]
    original_by_copy = {
        (copy.dataset, copy.episode_index): original
        for copy, (original, degree, _) in matches
        if degree == Likeness.SAME
    }
    take_down(lake, dataset, episodes, reason, original_by_copy)
    decisions = [
        _decision(copy, original.recording, "proccorpus", difference, is_same=False)
        for copy, (original, degree, difference) in matches
        if degree == Likeness.OTHER
    ]
    say(lake, "recording", lambda: decisions)
    update = RecordingUpdate(dataset, PERSON)
    for recording in (*withdrawn, *map(itemgetter(0), matches)):
        update.put_fingerprint(recording)
    for copy, (original, degree, match_reason) in matches:
        if degree == Likeness.PROBABLE:
            resembling = replace(copy, resembles=original.recording, why=match_reason)
            update.put(resembling)
            update.note("probable", original, resembling, match_reason)
    if withdrawn:
        lake.upsert(f"recordings taken down of {dataset}", **update.upserts())
    degrees = {(copy.dataset, copy.episode_index): match[1] for copy, match in matches}
    for place in (place for place, degree in degrees.items() if degree == Likeness.PROBABLE):
        _look_again(lake, place, "may be one that was taken down")
    return [(*place, degree) for place, degree in degrees.items()]


def _matches(
    lake: LakeConnection, withdrawn: Sequence[KnownRecording]
) -> Iterator[tuple[KnownRecording, Match]]:
    """Episodes of the whole corpus that are, or may be, one of some recordings, with that one; without those of which
    it was said that they are not. Those that are others by their rows come with each that they look like."""
    ids = [*map(attrgetter("recording"), withdrawn)]
    prints = [*map(attrgetter("fingerprint"), withdrawn)]
    layers = {
        name: [*map(attrgetter(name), prints)] for name in ("rows", "contents", "file", "sketch")
    }
    moments = chain.from_iterable(p.moments.values() for p in prints)
    values = [
        ids,
        [*filter(None, layers["rows"])],
        [*chain.from_iterable(layers["contents"])],
        [*filter(None, layers["file"])],
        [*chain.from_iterable(layers["sketch"])],
        [*chain.from_iterable(moments)],
    ]
    recordings = known_recordings(lake, LIKE_SOME, values, contents="true")
    index = RecordingIndex(withdrawn, of_any_length=True)
    decisions = decided_apart(lake)
    for candidate in recordings:
        separated = {*decisions.get(candidate.recording, ())}
        while match := index.closest(candidate.fingerprint, separated):
            original, degree, _ = match
            difference = _difference(lake, original, candidate)
            if degree == Likeness.SAME or not difference:
                yield candidate, match
                break
            separated.add(original.recording)
            yield candidate, (original, Likeness.OTHER, difference)


def _difference(lake: LakeConnection, first: KnownRecording, second: KnownRecording) -> str:
    """What tells two runs of one dataset apart, though they look alike: rows that are far apart, under pictures that no
    encoding makes so different; empty: nothing."""
    a, b = first.fingerprint, second.fingerprint
    have_one_form = (first.dataset, a.num_frames) == (second.dataset, b.num_frames)
    if not have_one_form or shared_rows(a.sketch, b.sketch) >= MIN_SHARED_ROWS:
        return ""
    episodes = first.episode_index, second.episode_index
    [rows_apart] = lake.column(ROWS_APART, [first.dataset, *episodes, a.num_frames])
    pictures = [moment_pictures(lake, first.dataset, episode) for episode in episodes]
    if not rows_apart or rows_apart < MIN_ROWS_APART or not all(pictures):
        return ""
    cells = np.array([[*map(list, of_run)] for of_run in pictures])
    if np.median(np.abs(cells[0] - cells[1]).max(axis=1)) < MIN_CELLS_APART:
        return ""
    return f"the rows are {rows_apart:.2g} standard deviations apart, and the pictures differ"


def _decision(
    recording: KnownRecording, subject: str, author: str, comment: str | None = None, **value: bool
) -> dict[str, Any]:
    """The statement that a recording is, or is not, one that it looks like."""
    words = {"subject": subject, "author": author, "comment": comment}
    return {name: getattr(recording, name) for name in PLACE} | words | value

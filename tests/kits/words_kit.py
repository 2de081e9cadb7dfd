"""What people say of three recordings, and what has become of it after their dataset has changed.

Which recording lies under which number is read from the source's own files
(`small_sources.serials`) and from the pictures of samples, never from the corpus.
"""

import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from core.paths import Workspace
from tests.kits.changed_sources import (
    INDEX,
    JUDGED,
    LABELLED,
    MOVED,
    WITHDRAWN,
    Change,
)
from tests.kits.cli_kit import DONE, USAGE, Result, command, write_configs
from tests.kits.lake_kit import opened
from tests.kits.made_corpus import put
from tests.kits.small_sources import ENTRIES, decoded, serial_in, serials
from warehouse.lake import open_lake
from warehouse.lake.statements import mark

DATASET = "arm"
LICENCE = ("--allow-licence", "unknown")
STEP = "what a person calls it"  # the name that the correction gives to the first segment
TAG = "never train on it"
PERSON = "ben"
NOTE = "dropped at the end"
# Each word, the recording it was said of, and the numbers at which it is in force
WORDS: Mapping[str, tuple[int, str]] = {
    "takedown": (
        WITHDRAWN,
        "SELECT episode_index FROM current_takedowns WHERE dataset = ? AND is_sure",
    ),
    "outcome": (
        JUDGED,
        f"SELECT episode_index FROM current_outcomes WHERE dataset = ? AND note = '{NOTE}'",
    ),
    "tag": (JUDGED, f"SELECT episode_index FROM current_tags WHERE dataset = ? AND tag = '{TAG}'"),
    "assignment": (
        JUDGED,
        f"SELECT episode_index FROM current_assignments WHERE dataset = ? AND person = '{PERSON}'",
    ),
    "correction": (
        LABELLED,
        "SELECT episode_index FROM current_corrections WHERE dataset = ? AND status = 'accepted' AND author = 'carl'",
    ),
    "reference": (
        LABELLED,
        "SELECT episode_index FROM current_references WHERE dataset = ? AND author = 'rita'",
    ),
}
# What a build makes of words that are in force: each has to be so at the numbers of that recording alone
EFFECTS: Mapping[str, str] = {
    "takedown": "SELECT episode_index FROM episodes WHERE dataset = ? AND reason = 'taken_down'",
    "outcome": "SELECT episode_index FROM episodes WHERE dataset = ? AND starts_with(success_source, 'person: ')",
    # Other runs of the task may follow it; the person's own label is of this one alone
    "correction": (
        "SELECT DISTINCT episode_index FROM active_segments WHERE dataset = ? AND starts_with(label_run, 'human/') "
        f"AND name = '{STEP}'"
    ),
}
# Tables and views in which nothing of a withdrawn run may be
DERIVED = (
    "active_runs", "active_segments", "active_progress", "segments", "progress", "episode_labels", "samples", "frames",
    "states", "keyframes",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A dataset, the config that names it and the workspace it is built into, all below one
    folder."""

    form: str
    folder: Path
    source: Path
    chunk_size: int = 4
    settings: str = ""  # of the config, beside the registry entry

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def config(self) -> Path:
        project = self.folder / "project"
        source = os.path.relpath(self.source, project / "registry")
        entry = f"source: {source}\nchunk_size: {self.chunk_size}\n{ENTRIES.get(self.form, '')}"
        return write_configs(project, {DATASET: entry}, self.settings)

    def run(self, *words: object) -> Result:
        """A command on the workspace; in this process, since to start one costs more than most
        commands do."""
        return command(*words, cwd=self.folder, workspace=self.workspace)

    def build(self, *options: object) -> Result:
        return self.run("build", "--config", self.config, "--workers", 1, *options)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple]:
        return open_lake(Workspace(self.workspace)).rows(sql, [*values])

    def serial_of(self) -> dict[int, int]:
        """The serial of each number: the corpus gives the name in the source, the source's file the
        serial."""
        by_name = serials(self.source, self.form)
        name_rows = self.rows(
            "SELECT episode_index, source_id FROM episode_facts WHERE dataset = ?", [DATASET]
        )
        return {episode: by_name[source_id] for episode, source_id in name_rows}


def prepared(case: Case, source: Path) -> Case:
    """A corpus of a copy of this dataset, in which people said something of three recordings; no
    build has applied it."""
    case.folder.mkdir(parents=True)
    shutil.copytree(source, case.source)
    checked(case.build())
    say_all(case, DATASET)
    return case


def say_all(case: Case, dataset: str) -> None:
    """A takedown of one run; outcome, tag, assignment of another; a reference and a correction of a
    third."""
    withdrawn, judged, labelled = (INDEX[serial] for serial in (WITHDRAWN, JUDGED, LABELLED))
    reason = ("--reason", "withdrawn by the person shown")
    checked(case.run("takedown", dataset, "--episodes", withdrawn, *reason))
    outcomes = case.folder / "outcomes.csv"
    outcomes.write_text(f"episode_index,success,note\n{judged},false,{NOTE}\n")
    checked(case.run("say", "outcome", dataset, "--set", f"file={outcomes}", "--author", "anna"))
    with opened(Workspace(case.workspace)) as lake:
        mark(lake, [(dataset, judged)], "tag", TAG, author="anna")
        mark(lake, [(dataset, judged)], "assigned", PERSON, author="anna")
    checked(case.run("say", "reference", dataset, labelled, "--author", "rita"))
    correct(case, dataset, labelled)


def correct(case: Case, dataset: str, episode: int, author: str = "carl") -> None:
    """A person gives the first step of the active label another name."""
    columns = ("name", "start_frame", "end_frame", "kind", "completed", "step")
    segment_rows = case.rows(
        f"SELECT {', '.join(columns)} FROM active_segments WHERE dataset = ? AND episode_index = ? "
        "ORDER BY segment_index",
        [dataset, episode],
    )
    segments = [dict(zip(columns, row, strict=True)) for row in segment_rows]
    segments[0]["name"] = STEP
    lines = case.folder / "corrections.jsonl"
    lines.write_text(
        json.dumps({"dataset": dataset, "episode_index": episode, "segments": segments}) + "\n"
    )
    checked(case.run("say", "correction", lines, "--author", author))


def changed(pristine: Case, place: Path, changed_source: Path) -> Case:
    """A copy of a case in `place`, always the same folder, so that only what the change changes is
    another; then the changed source takes the source's place, or lies elsewhere if it was moved."""
    put(pristine.folder, place)
    case = replace(pristine, folder=place, source=place / "source")
    shutil.rmtree(case.source)
    if (changed_source / MOVED).exists():
        case = replace(case, source=place / "new disk/data")
    shutil.copytree(changed_source, case.source, ignore=shutil.ignore_patterns(MOVED))
    return case


def rebuilt(case: Case, asks: bool | None) -> Result:
    """Build what has changed; where most runs are elsewhere the build asks first, and changes
    nothing until then."""
    if asks is not False:
        refused = case.build()
        if asks or refused.code:
            assert refused.code == USAGE, (
                f"most runs are elsewhere, and the build did not ask: {refused}"
            )
            assert "--accept-changes" in refused.err, refused
            return checked(case.build("--accept-changes"))
        return checked(refused)
    return checked(case.build())


def checked(result: Result) -> Result:
    assert result.code == DONE, result
    return result


IN_FORCE = "in force"
REVIEW = "review"
GONE = "gone"


type Wrong = list[tuple]  # what is wrong, the word or the table, and values


@dataclass(frozen=True)
class Fates:
    """What has become of each word, in words; and what is wrong."""

    words: dict[str, str]
    wrong: Wrong


def fates(case: Case, splits: Mapping[int, str]) -> Fates:
    """Judge a built case; `splits`: of each serial before the change."""
    serial_of = case.serial_of()
    wrong: Wrong = []
    review = reviews(case, serial_of, wrong)
    fate_by_word: dict[str, str] = {}
    for word, (serial, sql) in WORDS.items():
        numbers = [number for (number,) in case.rows(sql, [DATASET])]
        wrong += misplaced("in force", word, numbers, serial_of)
        if word in EFFECTS:
            numbers_shown = [number for (number,) in case.rows(EFFECTS[word], [DATASET])]
            wrong += misplaced("shown", word, numbers_shown, serial_of)
            if numbers and sorted(numbers) != sorted(numbers_shown):
                wrong.append(("shown elsewhere", word, numbers, numbers_shown))
        if numbers:
            fate_by_word[word] = IN_FORCE
        elif word in review:
            fate_by_word[word] = f"{REVIEW}: {review[word]}"
        elif serial not in serial_of.values():
            fate_by_word[word] = GONE
        else:
            fate_by_word[word] = "LOST"
            wrong.append(("neither in force nor in review", word, serial))
    fate_by_word["split"] = IN_FORCE
    present = splits_of(case)
    for serial in splits.keys() & present.keys():
        if present[serial] != splits[serial]:
            fate_by_word["split"] = "WRONG"
            wrong.append(("another split", serial, splits[serial], present[serial]))
    return Fates(fate_by_word, wrong)


def reviews(case: Case, serial_of: Mapping[int, int], wrong: Wrong) -> dict[str, str]:
    """Words that wait for a person, with the reason; what waits at another recording's number goes
    to `wrong`."""
    reason_by_kind: dict[str, str] = {}
    # A correction waits also where it is clear which recording it was made of, and the frames are others
    waiting = case.rows(
        "SELECT episode_index, kind, why FROM words_in_review WHERE dataset = $1 UNION ALL BY NAME "
        "SELECT episode_index, 'correction' AS kind, 'its frames are others' AS why FROM current_corrections "
        "WHERE dataset = $1 AND status = 'review' ORDER BY why",
        [DATASET],
    )
    for number, kind, reason in waiting:
        if not reason:
            wrong.append(("in review without a reason", kind, number))
        if kind not in WORDS:
            wrong.append(("in review, and no word of these", kind))
        elif serial_of.get(number) != WORDS[kind][0]:
            wrong += misplaced("in review", kind, [number], serial_of)
        else:
            reason_by_kind[kind] = reason
    return reason_by_kind


def misplaced(fate: str, word: str, numbers: Iterable[int], serial_of: Mapping[int, int]) -> Wrong:
    """Numbers of other recordings than the one that a word was said of."""
    serial, _ = WORDS[word]
    title = f"{fate} at another recording"
    wrong_numbers = (number for number in numbers if serial_of.get(number) != serial)
    return [(title, word, number, serial_of.get(number)) for number in wrong_numbers]


def splits_of(case: Case) -> dict[int, str]:
    """The split of each recording, by serial."""
    serial_of = case.serial_of()
    split_rows = case.rows("SELECT episode_index, split FROM splits WHERE dataset = ?", [DATASET])
    return {serial_of[n]: split for n, split in split_rows if n in serial_of}


STATEMENTS = ("corrections", "outcomes", "reference_marks", "episode_marks", "takedowns")


def unfinished(case: Case) -> Wrong:
    """Chunks that one build left undone."""
    listed = checked(case.run("status", "--format", "json")).json["datasets"]
    counts = ((status["dataset"], status["stale_chunks"]) for status in listed)
    return [("stale chunks", dataset, count) for dataset, count in counts if count]


def statements(case: Case) -> dict[str, int]:
    """How many rows each table of what people said has."""
    return {table: case.rows(f"SELECT count(*) FROM {table}")[0][0] for table in STATEMENTS}


def unexpected(word_fates: Fates, fate: str) -> Wrong:
    """Words with another fate than this one."""
    fate_by_word = {word: word_fates.words[word] for word in WORDS}
    pairs = fate_by_word.items()
    return [("not", fate, word, other) for word, other in pairs if not other.startswith(fate)]


def leaks(case: Case) -> Wrong:
    """Everything in which the withdrawn recording still is: tables, shards, releases, exports.

    Where it is undecided whether an episode is that recording, no release may be made.
    """
    serial_of = case.serial_of()
    withdrawn = [number for number, serial in serial_of.items() if serial == WITHDRAWN]
    sql = "SELECT 1 FROM {} WHERE dataset = ? AND episode_index = ? LIMIT 1"
    leaks_found: Wrong = [
        ("rows of the withdrawn recording", table, number)
        for number, table in product(withdrawn, DERIVED)
        if case.rows(sql.format(table), [DATASET, number])
    ]
    shards = case.rows("SELECT split, shard FROM shards WHERE dataset = ?", [DATASET])
    leaks_found += _in_shards(case, "the corpus", shards, serial_of)
    release_result = case.run("release", "create", "after", *LICENCE)
    undecided = case.rows(
        "SELECT 1 FROM current_takedowns WHERE dataset = ? AND NOT is_sure", [DATASET]
    )
    if undecided:
        if release_result.code != USAGE:
            leaks_found.append(("a release while it is undecided", release_result))
        return leaks_found
    if release_result.code:
        return [*leaks_found, ("no release", release_result.err)]
    shards = case.rows("SELECT split, shard FROM release_shards WHERE name = 'after'")
    leaks_found += _in_shards(case, "the release", shards, serial_of)
    return leaks_found + _in_export(case, withdrawn)


@dataclass(frozen=True)
class Shown:
    """A picture in a shard: the entry and the episode that its name says, and the serial that it
    shows.

    serial: None for an edited picture.
    """

    where: str
    dataset: str
    episode: int
    serial: int | None


def shown_in(case: Case, shards: Sequence[tuple[str, str]]) -> Iterator[Shown]:
    """Every picture in shards of (split, name)."""
    for split, shard in shards:
        with tarfile.open(case.workspace / "shards" / split / shard) as tar:
            for member in tar.getmembers():
                # <dataset>-<episode>.<camera>.<frame>.jpg; another episode's has its number before the camera
                key, _, name = member.name.partition(".")
                file = tar.extractfile(member)
                if file is None or not name.endswith(".jpg"):
                    continue
                dataset, _, number = key.rpartition("-")
                match = re.match(r"e(\d{6})\.", name)
                # An edit may cover a part of the strip
                is_edited = not name.split(".")[-2].isdigit()
                serial = None if is_edited else serial_in(decoded(file.read()))
                yield Shown(
                    f"{shard}, {member.name}", dataset, int(match[1] if match else number), serial
                )


def shown_in_release(case: Case, release: str) -> set[int | None]:
    """The serials that the pictures of a release show."""
    shards = case.rows("SELECT split, shard FROM release_shards WHERE name = ?", [release])
    return {picture.serial for picture in shown_in(case, shards)}


def _in_shards(
    case: Case, subject: str, shards: Sequence[tuple[str, str]], serial_of: Mapping[int, int]
) -> Wrong:
    """Pictures of what is withdrawn, and of another recording than the one that has the number in
    the source."""
    problems: Wrong = []
    pictures = [*shown_in(case, shards)]
    if not any(picture.serial for picture in pictures):
        problems.append(("no picture shows a recording", subject))
    for picture in pictures:
        if picture.dataset == DATASET:
            expected = serial_of.get(picture.episode)
        else:
            expected = picture.serial
        if WITHDRAWN in (picture.serial, expected):
            problems.append(("a picture of the withdrawn recording", subject, picture))
        elif picture.serial not in (None, expected):
            problems.append(("a picture of another recording", subject, picture, expected))
    return problems[:5]


def _in_export(case: Case, withdrawn: Sequence[int]) -> Wrong:
    """Signals of frames, which are for LeRobot's datasets; of others a recording for Rerun of each
    episode."""
    is_lerobot = case.form.startswith("lerobot")
    out = case.folder / ("signals.parquet" if is_lerobot else "rerun")
    kind = "frame-signals" if is_lerobot else "rerun"
    checked(case.run("export", kind, "--out", out, "--dataset", DATASET, *LICENCE))
    if is_lerobot:
        written = pq.ParquetFile(out).read(columns=["episode_index"])["episode_index"].to_pylist()
        # The file counts as the source does
        sql = "SELECT coalesce(source_index, episode_index), episode_index FROM episode_facts WHERE dataset = ?"
        ours = dict(case.rows(sql, [DATASET]))
        episodes = {ours[number] for number in written}
    else:
        episodes = {int(path.stem.rpartition("-")[2]) for path in out.rglob("*.rrd")}
        assert episodes, "the export is empty"
    return [("an export of a withdrawn episode", n) for n in withdrawn if n in episodes]


@dataclass(frozen=True)
class Verdict:
    change: Change
    fates: Fates


def judge(change: Change, pristine: Case, place: Path, changed_source: Path) -> Verdict:
    """Apply a change to a prepared case, build again, and look at everything. Raises AssertionError
    where a build does not do what it has to."""
    splits = splits_of(pristine)
    former_counts = statements(pristine)
    case = changed(pristine, place, changed_source)
    rebuilt(case, change.asks)
    fates_found = fates(case, splits)
    wrong = [*fates_found.wrong, *unexpected(fates_found, change.fate), *unfinished(case)]
    for table, count in statements(case).items():
        if count < former_counts[table]:
            wrong.append(("rows lost", table, former_counts[table] - count))
    return Verdict(change, Fates(fates_found.words, wrong + leaks(case)))


def markdown(verdicts: Sequence[Verdict]) -> str:
    """A row for each change, a column for each word; formats in which all is equal share a row."""
    words = [*WORDS, "split"]
    forms: dict[tuple[str, ...], list[str]] = {}
    for verdict in verdicts:
        fates = ["WRONG" if verdict.fates.wrong else verdict.fates.words[word] for word in words]
        forms.setdefault((verdict.change.name, *fates), []).append(verdict.change.form)
    head = ["change", "formats", *words]
    lines = [head, ["---"] * len(head)]
    lines += [
        [change, ", ".join(of_change), *fates] for (change, *fates), of_change in forms.items()
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

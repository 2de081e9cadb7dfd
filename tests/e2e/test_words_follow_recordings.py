"""What people say follows the recording it was said of, whatever people do to their dataset.

Each change of `tests/kits/changed_sources.py` is applied to a corpus in which people said something of three runs. Each
word is then in force on the right recording, or in review there with the reason, or gone with it: never on another.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from core.paths import ROOT
from tests.kits import words_kit
from tests.kits.changed_sources import (
    CHANGES,
    INDEX,
    MOVED_ON,
    SAID_OF,
    V2,
    WITHDRAWN,
    Change,
    folder_of,
    is_by_lerobot,
    make,
    make_in_a_process,
    trimmed,
    without,
    written,
)
from tests.kits.cli_kit import assert_one_error_line
from tests.kits.small_sources import RECORDINGS, write_v2
from tests.kits.words_kit import DATASET, GONE, IN_FORCE, REVIEW, WORDS, Case, Verdict, checked

PAGE = ROOT / "docs/recording_changes.md"
# Tried each time; `make long` tries the others, which take half an hour
EACH_TIME = {f"{V2}: delete a run, renumbered"}


class Workshop:
    """Changed sources and prepared corpora, each made when a test asks first; `tried`: the changes
    of this session."""

    def __init__(self, folder: Path, tried: Sequence[Change]) -> None:
        self.folder = folder
        self.tried = tried
        self.place = folder / "place"
        self.verdicts: dict[str, Verdict] = {}

    def root(self, change: Change) -> Path:
        return self.folder / folder_of(change) / "arm"

    def changed(self, change: Change) -> Path:
        """The source after a change; what LeRobot's tools make of those that are tried, they make
        at once."""
        if self.root(change).exists():
            return self.root(change)
        if is_by_lerobot(change):
            by_lerobot = filter(is_by_lerobot, dict.fromkeys((change, *self.tried)))
            make_in_a_process(self.folder, [c for c in by_lerobot if not self.root(c).exists()])
        else:
            make(self.folder, [change])
        return self.root(change)

    def prepared(self, form: str) -> Case:
        """A corpus with words on three runs; not for changing."""
        folder = self.folder / "said" / form
        case = Case(form, folder, folder / "source")
        if not folder.exists():
            some_change = next(change for change in CHANGES if change.form == form)
            self.changed(some_change)
            checked(words_kit.prepared(case, self.folder / "base" / form).build())
        return case

    def judged(self, change: Change) -> Verdict:
        if change.id not in self.verdicts:
            words = self.prepared(change.form), self.place, self.changed(change)
            self.verdicts[change.id] = words_kit.judge(change, *words)
        return self.verdicts[change.id]


@pytest.fixture(scope="session")
def workshop(request, tmp_path_factory) -> Workshop:
    of_this_file = (item for item in request.session.items if item.path == Path(__file__))
    parameters = [item.callspec.params for item in of_this_file if hasattr(item, "callspec")]
    return Workshop(tmp_path_factory.mktemp("workshop"), [p["change"] for p in parameters])


@pytest.fixture
def altered(workshop: Workshop) -> Callable[[Callable[[Path], object]], Case]:
    """A copy of the corpus of the LeRobot v2.1 dataset, whose source
    a function has written anew."""

    def copied(write: Callable[[Path], object]) -> Case:
        source = workshop.folder / "written"
        write(source)
        return words_kit.changed(workshop.prepared(V2), workshop.place, source)

    return copied


def marks_of(change: Change) -> list[pytest.MarkDecorator]:
    if change.id in EACH_TIME:
        return [pytest.mark.slow]
    return [pytest.mark.long]


@pytest.mark.parametrize("change", [pytest.param(c, id=c.id, marks=marks_of(c)) for c in CHANGES])
def test_words_are_in_force_on_their_recording_or_in_review(workshop, change):
    fates = workshop.judged(change).fates
    assert fates.wrong == [], fates.words


@pytest.mark.long
def test_the_page_shows_what_became_of_each_word(workshop):
    """GOLDEN=anew writes it."""
    head, former = PAGE.read_text().split("\n\n|")
    table = words_kit.markdown([*map(workshop.judged, CHANGES)])
    if os.environ.get("GOLDEN") == "anew":
        PAGE.write_text(f"{head}\n\n{table}")
    assert table == f"|{former}"


@pytest.mark.long
def test_a_recording_that_comes_back_has_its_words_and_its_split(workshop, altered):
    splits = words_kit.splits_of(workshop.prepared(V2))
    case = altered(written(V2, without(*SAID_OF)))
    words_kit.rebuilt(case, None)
    fates_gone = words_kit.fates(case, splits)
    assert fates_gone.wrong == []
    assert words_kit.unexpected(fates_gone, GONE) == []
    left_count = case.rows(
        "SELECT count(*) FROM recordings WHERE dataset = ? AND left_at IS NOT NULL", [DATASET]
    )
    assert left_count == [(len(SAID_OF),)]
    write_v2(case.source, RECORDINGS)
    words_kit.rebuilt(case, None)
    fates_back = words_kit.fates(case, splits)
    assert fates_back.wrong + words_kit.leaks(case) == []
    assert words_kit.unexpected(fates_back, IN_FORCE) == []
    whats = {
        change_kind
        for (change_kind,) in case.rows(
            "SELECT what FROM recording_changes WHERE dataset = ?", [DATASET]
        )
    }
    assert {"gone", "back"} <= whats


@pytest.mark.long
def test_a_copy_of_a_withdrawn_recording_is_left_out_of_another_dataset(altered):
    case = altered(written(V2, RECORDINGS))
    other_source = write_v2(case.folder / "other", MOVED_ON)
    built = checked(case.run("build", "--source", other_source, "--name", "copy", "--workers", 1))
    assert "runs have the rows of another run" in built.out + built.err
    assert "runs have the rows of another run" in checked(case.run("status")).out
    copy_index = [r.serial for r in MOVED_ON].index(WITHDRAWN)
    sure_takedowns = case.rows(
        "SELECT dataset, episode_index FROM current_takedowns WHERE is_sure ORDER BY 1, 2"
    )
    assert sure_takedowns == [(DATASET, INDEX[WITHDRAWN]), ("copy", copy_index)]
    status = case.rows(
        "SELECT episode_index FROM episodes WHERE dataset = 'copy' AND reason = 'taken_down'"
    )
    assert status == [(copy_index,)]
    for table in words_kit.DERIVED:
        copy_rows = case.rows(
            f"SELECT 1 FROM {table} WHERE dataset = 'copy' AND episode_index = ? LIMIT 1",
            [copy_index],
        )
        assert copy_rows == [], f"{table} has rows of the withdrawn recording's copy"
    shards = case.rows("SELECT split, shard FROM shards")
    assert WITHDRAWN not in {picture.serial for picture in words_kit.shown_in(case, shards)}
    # The others are in two datasets, and some in two splits, which no release may have
    refused = case.run("release", "create", "both", *words_kit.LICENCE)
    assert "in more than one split" in assert_one_error_line(refused)


def in_review(case: Case) -> list[int]:
    """Episodes of which a person has to decide: they have numbers
    that nothing had before."""
    episodes = case.rows("SELECT DISTINCT episode_index FROM words_in_review ORDER BY 1")
    assert episodes == [(len(RECORDINGS) + k,) for k in range(len(SAID_OF))]
    return [episode for (episode,) in episodes]


@pytest.mark.long
def test_a_person_decides_of_recordings_that_only_resemble(workshop, altered):
    splits = words_kit.splits_of(workshop.prepared(V2))
    case = altered(written(V2, trimmed()))
    words_kit.rebuilt(case, False)
    assert words_kit.unexpected(words_kit.fates(case, splits), REVIEW) == []
    assert "--accept-changes" not in assert_one_error_line(
        case.run("release", "create", "r", *words_kit.LICENCE)
    )
    listed = checked(case.run("show", "words_in_review", DATASET)).out
    for word in WORDS:
        assert word in listed
    for episode in in_review(case):
        assert f" {episode} " in listed
        checked(case.run("say", "recording", DATASET, episode, "true", "--author", "dora"))
    words_kit.rebuilt(case, None)
    decided = words_kit.fates(case, splits)
    here = "SELECT episode_index FROM recordings WHERE left_at IS NULL ORDER BY 1"
    assert case.rows(here) == [(k,) for k in range(len(RECORDINGS))], "each has its number again"
    # A correction was made of frames that are not there any more: it may still wait for a person
    correction = decided.words.pop("correction")
    assert correction.startswith((IN_FORCE, REVIEW))
    assert [
        word for word in decided.words if word in WORDS and decided.words[word] != IN_FORCE
    ] in ([], ["reference"])
    assert words_kit.leaks(case) == []


@pytest.mark.long
def test_a_person_may_say_that_it_is_another_recording(altered):
    case = altered(written(V2, trimmed()))
    words_kit.rebuilt(case, False)
    for episode in in_review(case):
        checked(case.run("say", "recording", DATASET, episode, "false", "--author", "dora"))
    words_kit.rebuilt(case, None)
    assert case.rows("FROM words_in_review") == []
    for word, (_, sql) in WORDS.items():
        assert case.rows(sql, [DATASET]) == [], (
            f"the {word} is in force on a recording that it was not said of"
        )
    taken_down = case.rows("SELECT episode_index FROM episodes WHERE reason = 'taken_down'")
    assert taken_down == []
    checked(case.run("release", "create", "r", *words_kit.LICENCE))


@pytest.mark.long
def test_recordings_and_their_changes_are_listed(altered):
    case = altered(written(V2, without(2)))
    words_kit.rebuilt(case, None)
    recordings = checked(case.run("show", "recordings", DATASET, "--format", "json")).json
    assert len(recordings) == len(RECORDINGS)
    assert len([r for r in recordings if r["left_at"]]) == 1
    changes = checked(case.run("show", "recording_changes", DATASET, "--format", "json")).json
    moves = {(c["to_episode"], c["to_source_id"]) for c in changes if c["what"] == "moved"}
    assert moves == {(k, f"episode_{k - 1:06d}") for k in range(3, len(RECORDINGS))}
    assert [c["from_episode"] for c in changes if c["what"] == "gone"] == [2]
    numbers = "SELECT episode_index, source_index FROM episode_facts ORDER BY 1"
    assert case.rows(numbers) == [
        (0, None),
        (1, None),
        *((k, k - 1) for k in range(3, len(RECORDINGS))),
    ]
    [(number, seen)] = case.rows("SELECT episode_index, detail FROM quarantine")
    assert number == INDEX[WITHDRAWN]
    assert f"(episode {number - 1} of the source)" in seen

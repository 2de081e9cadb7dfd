"""Whatever is lost of a lake: one sentence from every command, no file deleted, and all that people said comes back."""

import gc
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from core.files import HALF_FILE
from core.paths import Workspace
from tests.kits.cli_kit import DONE, FAILED, USAGE, Result, command, digest_of
from tests.kits.lake_kit import say
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import LENGTHS
from warehouse.lake import Lake, forget_lakes, outcomes, references, statements
from warehouse.lake.catalog import backups
from warehouse.lake.former_words import FORMER_TABLES
from warehouse.lake.schema import SCHEMA_VERSION
from warehouse.lake.statements import take_back, take_down, undo_takedown
from warehouse.lake.words import backups_of_statements

pytestmark = pytest.mark.slow

OLD = 1_600_000_000  # a time before any grace
SAID = (
    "corrections",
    "outcomes",
    "reference_marks",
    "joined_tasks",
    "episode_marks",
    "takedowns",
    "acceptances",
)
COMMANDS = (
    ("doctor",), ("doctor", "--hashes"), ("status",), ("show", "current_corrections"),
    ("show", "current_outcomes"), ("show", "digest"),
    ("doctor", "--repair"), ("gc", "--yes"), ("build", "--dataset", "tiny"), ("explore", "--no-open"),
    ("sql", "FROM datasets"),
)  # fmt: skip


@pytest.fixture(scope="module")
def told(made: Made, tmp_path_factory) -> Made:
    """A corpus of which people said something of each kind, and took some of it back; built with it."""
    told_corpus = made.copy(tmp_path_factory.mktemp("told"))
    lake = Lake(told_corpus.space)
    for episode in (0, 1):
        row = say(
            lake,
            [{"name": "Reach", "start_frame": 0, "end_frame": LENGTHS[episode]}],
            episode,
            author="ann",
        )
    take_back(lake, row["correction_id"], author="bob", follows=row["correction_id"])
    outcomes.add_outcomes(lake, "tiny", "f.csv", [outcomes.StatedOutcome(2, True, None, "ann")])
    references.vouch(lake, "tiny", 0, author="ann", is_reference=False)
    statements.mark(lake, [("tiny", 1)], "tag", "odd", author="ann")
    statements.mark(lake, [("tiny", 2)], "assigned", "bob", author="ann")
    word = {"dataset": "tiny", "episode_index": 1, "subject": "camera_black", "author": "ann"}
    word |= {"is_accepted": True, "comment": "the lamp was off"}
    statements.say(lake, "acceptance", lambda: [word])
    statements.say(lake, "acceptance", lambda: [word | {"is_accepted": False}])
    take_down(lake, "tiny", [3, 4], "privacy")
    undo_takedown(lake, "tiny", [4])
    lake.con.close()
    assert run_in(told_corpus, "build", "--dataset", "tiny", "--workers", "1").code == DONE
    return told_corpus


@pytest.fixture
def lost(told: Made, tmp_path) -> Made:
    copied = told.copy(tmp_path)
    # The configuration that was kept names the source of the first one
    for path in copied.space.root.rglob("*"):
        if path.is_file():
            os.utime(path, (OLD, OLD))
    return copied


def run_in(corpus: Made, *words: str) -> Result:
    """A command in this process, which holds none of the files that are lost any more."""
    forget_lakes()
    gc.collect()
    return command(*words, cwd=corpus.space.root, workspace=corpus.space.root)


def files(space: Workspace) -> set[str]:
    """Whatever a build made, at its place or set aside."""
    names = (
        str(p.relative_to(space.root)).removeprefix(".removed/")
        for p in space.root.rglob("*")
        if p.is_file()
    )
    return {name for name in names if name.startswith(("lake/", "keyframes/", "shards/"))}


def said(corpus: Made) -> dict[str, list[tuple]]:
    return {table: corpus.rows(f"FROM {table} ORDER BY ALL") for table in SAID}


def contents(corpus: Made) -> dict[str, object]:
    """Digests of all tables; findings without the stage: of a run that was taken down either of two may say so."""
    findings = corpus.rows("SELECT * EXCLUDE (stage) FROM findings ORDER BY ALL")
    return digest_of(corpus.space.root) | {"findings": findings}


def zero(path: Path, start: int, size: int) -> None:
    with path.open("r+b") as f:
        f.seek(start)
        f.write(bytes(size))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda catalog: catalog.write_bytes(b""),
    "cut in half": lambda catalog: os.truncate(catalog, catalog.stat().st_size // 2),
    "a zeroed page": lambda catalog: zero(catalog, catalog.stat().st_size // 8192 * 4096, 4096),
    "its beginning zeroed": lambda catalog: zero(catalog, 0, 4096),
    "deleted": Path.unlink,
}


@pytest.mark.parametrize(
    ("damage", "with_backup"),
    [
        pytest.param(damage, k % 2 == 0, id=name, marks=pytest.mark.long if k > 1 else ())
        for k, (name, damage) in enumerate(DAMAGE.items())
    ],
)
def test_a_lost_catalog(told, lost, damage, with_backup):
    if not with_backup:
        shutil.rmtree(lost.space.root / "backups")
        lost.space.committed.unlink()
    damage(lost.space.catalog)
    files_before = files(lost.space)
    commands = COMMANDS if with_backup else COMMANDS[:2]
    answers = {words: run_in(lost, *words) for words in commands}
    assert {words: answer.code for words, answer in answers.items()} == dict.fromkeys(
        commands, USAGE
    )
    [sentence] = {answer.err.splitlines()[-1] for answer in answers.values()}
    assert "proccorpus recover" in sentence
    assert (str(lost.space.root / "backups") if with_backup else "there is no backup") in sentence

    recovered = run_in(lost, "recover")
    assert recovered.code == DONE, recovered
    assert said(lost) == said(told)
    if not with_backup:
        assert "not up to date" in recovered.out
    assert run_in(lost, "build", "--dataset", "tiny", "--workers", "1").code == DONE
    assert contents(lost) == contents(told)
    assert said(lost) == said(told)
    assert files(lost.space) >= files_before
    assert run_in(lost, "doctor", "--hashes").out.count("error") == 0


@pytest.mark.parametrize(
    ("table", "how"),
    [("frames", "zeroed"), pytest.param("samples", "cut", marks=pytest.mark.long)],
)
def test_a_damaged_file_of_rows(told, lost, table, how):
    """As docs/recovery.md says: repair, build."""
    expected = said(lost)
    files_before = files(lost.space)
    listed = f"SELECT data_file FROM ducklake_list_files('lake', '{table}') ORDER BY 1"
    path = Path(lost.rows(listed)[-1][0])
    size = path.stat().st_size
    if how == "cut":
        os.truncate(path, size // 2)
    else:
        zero(path, 0, size)
    assert run_in(lost, "doctor").code == FAILED
    assert "Traceback" not in run_in(lost, "status").err
    # Pictures are missing until they are built
    assert run_in(lost, "doctor", "--repair").code != USAGE
    assert run_in(lost, "build", "--dataset", "tiny", "--workers", "1").code == DONE
    assert run_in(lost, "doctor", "--hashes").code == DONE
    assert said(lost) == expected
    assert files(lost.space) >= files_before
    assert contents(lost) == contents(told)


def test_a_note_of_commits_that_is_lost(told, lost):
    lost.space.committed.unlink()
    files_before = files(lost.space)
    assert run_in(lost, "build", "--dataset", "tiny", "--workers", "1").code == DONE
    assert (files(lost.space), contents(lost)) == (files_before, contents(told))


def test_an_older_copy_of_the_catalog_costs_nothing(told, lost, tmp_path):
    older = shutil.copy2(lost.space.catalog, tmp_path / "older.sqlite")
    lake = Lake(lost.space)
    statements.mark(lake, [("tiny", 3)], "tag", "newer", author="ann")
    take_down(lake, "tiny", [0], "privacy")
    lake.con.close()
    assert run_in(lost, "build", "--dataset", "tiny", "--workers", "1").code == DONE
    expected = said(lost)
    files_before = files(lost.space)
    shutil.copy2(older, lost.space.catalog)
    assert run_in(lost, "gc", "--yes").code == USAGE
    built = run_in(lost, "build", "--dataset", "tiny", "--workers", "1")
    assert "older copy" in built.err
    assert files(lost.space) >= files_before
    assert run_in(lost, "recover").code == DONE
    assert said(lost) == expected
    assert run_in(lost, "gc", "--yes").code == DONE
    assert not any(lost.space.removed.rglob("*.parquet"))


@pytest.mark.parametrize(
    "damage",
    ["its beginning zeroed", pytest.param("cut in half", marks=pytest.mark.long), "deleted"],
)
def test_a_damaged_file_of_statements(told, lost, damage):
    DAMAGE[damage](lost.space.statements)
    for words in (("doctor",), ("status",), ("build", "--dataset", "tiny")):
        answer = run_in(lost, *words)
        assert (answer.code, "Traceback" in answer.err) == (USAGE, False)
        assert "what people said" in answer.err
        assert "proccorpus recover" in answer.err
    assert run_in(lost, "recover").code == DONE
    assert said(lost) == said(told)
    assert run_in(lost, "doctor").code == DONE
    # Numbers that releases noted are not given again
    [(former,)] = told.rows("SELECT max(number) FROM statements")
    lake = Lake(lost.space)
    statements.mark(lake, [("tiny", 3)], "tag", "newer", author="ann")
    assert lake.words.newest > former
    lake.con.close()


def test_statements_that_nobody_has_a_copy_of_are_missed(lost):
    shutil.rmtree(lost.space.root / "backups")
    lost.space.statements.unlink()
    for words in (("doctor",), ("build", "--dataset", "tiny")):
        answer = run_in(lost, *words)
        assert (answer.code, "recover goes on without it" in answer.err) == (USAGE, True)
    answer = run_in(lost, "recover")
    assert (answer.code, "what people said is lost" in answer.out + answer.err) == (DONE, True)
    assert run_in(lost, "status").code == DONE
    assert lost.rows("SELECT count(*) FROM corrections") == [(0,)]


def commit(lake: Lake) -> None:
    with lake.transaction("more"):
        lake.con.execute("INSERT INTO deleted_releases (name) VALUES (1)")


def test_five_backups_are_kept_or_as_many_as_it_is_said(lost):
    lake = Lake(lost.space)
    for keep in (5, 2, 0):
        lost.space.settings.write_text(f"[backup]\nkeep = {keep}\n")
        for tag in range(6):
            statements.mark(lake, [("tiny", 0)], "tag", f"{keep} {tag}", author="ann")
            commit(lake)
            lake.back_up()
        assert len(backups(lost.space)) == len(backups_of_statements(lost.space)) == (keep or 2)
    lake.con.close()
    lost.space.settings.write_text("[backup]\nkeep = -1\n")
    assert "keep = NUMBER" in run_in(lost, "build", "--dataset", "tiny").err


def test_a_backup_that_a_power_cut_left_half_written_is_none(lost):
    half = lost.space.root / "backups" / f"{HALF_FILE}0123.sqlite"
    half.write_bytes(b"SQLite")
    backups_before = backups(lost.space)
    assert half not in backups_before
    lake = Lake(lost.space)
    commit(lake)
    lake.back_up()
    lake.con.close()
    assert backups(lost.space)[1:] == backups_before[: len(backups(lost.space)) - 1]


def test_an_older_lake_is_upgraded_when_somebody_says_so(told, lost):
    """Also where an upgrade was interrupted after the statements were written."""
    lake = Lake(lost.space)
    for name in ("current_tags", "run_checks", *FORMER_TABLES):
        lake.con.execute(f"DROP VIEW {name}")
    lake.con.execute("DELETE FROM schema_versions WHERE version > 8")
    lake.con.close()
    state = lost.space.catalog.read_bytes()
    commands = (*COMMANDS[:6], COMMANDS[-2], COMMANDS[-1], ("upgrade",))
    answers = {words: run_in(lost, *words) for words in commands}
    assert [answer.code for answer in answers.values()] == [USAGE] * (len(commands) - 1) + [DONE]
    assert f"from version 8 to {SCHEMA_VERSION}" in answers["upgrade",].out
    assert {a.err.splitlines()[-1] for words, a in answers.items() if words != ("upgrade",)} == {
        f"error: {lost.space.root}: its lake is of version 8, this proccorpus works with version {SCHEMA_VERSION}: "
        "proccorpus upgrade says what it will do, and brings it there with --yes"
    }
    assert lost.space.catalog.read_bytes() == state
    assert "backups/" in run_in(lost, "upgrade", "--yes").out
    assert "nothing to do" in run_in(lost, "upgrade", "--yes").out
    assert said(lost) == said(told)
    assert run_in(lost, "doctor").code == DONE

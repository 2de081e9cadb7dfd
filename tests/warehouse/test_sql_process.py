"""User SQL in a process of its own: whatever a statement does, a sentence comes of it, and the next one is answered."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import SqlError
from tests.kits.lake_kit import SLOW
from tests.kits.sql_attacks import NAME, SECRETS, state_of, ways_out
from tests.kits.sql_standin import in_lake
from warehouse import sql_process
from warehouse.sql_process import LakeState, SqlProcess, memory_bytes

MEMORY = "400MB"
TIME_S = 1.5  # that a stand-in is let run
# More than MEMORY leaves to a query, and no more than twice that
LARGE = "SELECT count(*) FROM (SELECT DISTINCT range, range * 2 FROM range(20000000))"


@pytest.fixture(scope="module")
def process() -> Iterator[SqlProcess]:
    with SqlProcess(MEMORY) as process:
        yield process


@pytest.fixture
def at(empty_corpus: Path) -> LakeState:
    return LakeState(str(empty_corpus))


def one(process: SqlProcess, lake_state: LakeState) -> int:
    return process.query(lake_state, "SELECT 1 AS a", 60)["a"][0].as_py()


@pytest.fixture
def standins(monkeypatch) -> None:
    """Queries may be stand-ins: what the process is asked by name it then imports from there."""
    monkeypatch.setattr(sql_process, "_in_lake", in_lake)


@pytest.mark.usefixtures("standins")
@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("sleep", "took longer than 1.5 s and was stopped"),
        ("stay busy", "took longer than 1.5 s and was stopped"),
        ("stay in one call", "took longer than 1.5 s and was stopped"),
        ("take memory", "the query needs more memory than it may take"),
        (LARGE, "the query needs more memory than it may take"),
    ],
)
def test_no_statement_takes_more_than_it_may(process, at, sql, words):
    assert one(process, at) == 1
    memory = Most(process)
    start_s = time.monotonic()
    with pytest.raises(SqlError, match=words) as error:
        process.query(
            at, sql, TIME_S if "longer" in words else 60, max_rows=500, max_bytes=16_000_000
        )
    assert "\n" not in str(error.value)
    assert "longer" not in words or time.monotonic() - start_s < TIME_S + 3
    # A tenth more, and what the process that tests fork it from has imported for others
    assert memory.bytes() < memory_bytes(MEMORY) * 1.15
    assert one(process, at) == 1


@pytest.mark.usefixtures("standins")
def test_what_a_query_leaves_behind_ends_with_its_process(process, at):
    assert one(process, at) == 1
    former_pid = process._process.pid
    assert process.query(at, "leave memory behind", 60)["a"].to_pylist() == [1]
    assert one(process, at) == 1
    assert process._process.pid != former_pid


def test_no_statement_finds_a_way_out(tmp_path, empty_corpus, monkeypatch):
    """The 213 of the attack, which look for files, variables and the network, and try to write."""
    space = shutil.copytree(empty_corpus, tmp_path / "workspace")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.csv").write_text(f"a\n{SECRETS[0]}\n")
    monkeypatch.setenv(NAME, SECRETS[1])
    former_state = state_of(tmp_path)
    answered = 0
    with SqlProcess(MEMORY) as process:
        for sql in ways_out(tmp_path):
            try:
                message = str(
                    process.query(LakeState(str(space)), sql, 5, max_rows=500, max_bytes=16_000_000)
                )
                answered += 1
            except SqlError as e:
                message = str(e).replace(sql, "")
            assert not any(secret in message for secret in SECRETS), sql
        assert one(process, LakeState(str(space))) == 1
    assert answered < 40  # what reads the corpus alone
    assert state_of(tmp_path) == former_state


class Most:
    """The most memory that a process held, by the kernel's count."""

    def __init__(self, process: SqlProcess) -> None:
        self._path = Path(f"/proc/{process._process.pid}/status")
        self._most = self._held()
        self._ended = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)
        self._looking.start()

    def _look(self) -> None:
        while not self._ended.wait(0.01):
            self._most = max(self._most, self._held())

    def _held(self) -> int:
        """0 where the process has ended."""
        try:
            lines = self._path.read_text().splitlines()
        except OSError:
            return 0
        return max([0, *(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))])

    def bytes(self) -> int:
        self._ended.set()
        self._looking.join()
        assert self._most > 0
        return self._most


@pytest.mark.usefixtures("standins")
def test_a_signal_that_ends_the_process_is_a_sentence(process, at):
    with pytest.raises(SqlError, match=r"^the query ended its process \(SIGSEGV\)"):
        process.query(at, "end by a signal", 30)
    assert one(process, at) == 1


def test_a_query_ends_when_its_time_is_over(process, at):
    with pytest.raises(SqlError, match=r"^the query took longer than 0.3 s and was stopped$"):
        process.query(at, SLOW, 0.3)
    assert one(process, at) == 1


def test_ctrl_c_ends_the_query_and_the_next_one_is_answered(process, at):
    # What a shell starts in the background ignores Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        process.query(at, SLOW, 60)
    assert one(process, at) == 1


def test_results_are_bounded_in_rows_and_bytes(process, at):
    assert process.query(at, "FROM range(1000000)", 60, max_rows=30_001).num_rows == 30_001
    assert process.query(at, "FROM range(50000)", 60).num_rows == 50_000
    assert process.query(at, "SELECT 1 AS a WHERE false", 60).to_pylist() == []
    with pytest.raises(
        SqlError, match=r"^the result is larger than 1 MB: ask for fewer rows or columns$"
    ):
        process.query(at, "FROM range(1000000)", 60, max_bytes=1_000_000)


def test_nothing_is_spilt_to_disk(at, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with (
        SqlProcess(MEMORY) as process,
        pytest.raises(SqlError, match="needs more memory than it may take"),
    ):
        process.query(at, LARGE, 60)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["lots", "4", "-1GB", "1GB'; SELECT 1", "1 gigabyte"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(SqlError, match="is no size of memory"):
        SqlProcess(text)

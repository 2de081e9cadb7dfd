"""The SQL shell, typed into as a person does, through prompt_toolkit's own pipe."""

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

import warehouse
from cli.sql_shell import complete, shell
from tests.kits.lake_kit import SLOW
from warehouse.lake.schema import columns
from warehouse.sql_process import LakeState, SqlProcess


@dataclass(frozen=True)
class Asked:
    """A process for queries, and the corpus that they are about."""

    process: SqlProcess
    corpus: Path

    def ask(self, text: str) -> pa.Table:
        return self.process.query(LakeState(str(self.corpus)), text, 60)


@pytest.fixture(scope="module")
def process() -> Iterator[SqlProcess]:
    with SqlProcess("1GB") as process:
        yield process


@pytest.fixture
def asked(process: SqlProcess, empty_corpus: Path, tmp_path, monkeypatch) -> Asked:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Asked(process, empty_corpus)


def typed(shell_input: Asked, text: str) -> list[tuple[list[dict], str]]:
    """What the shell shows to a person who types this and leaves."""
    tables_shown: list[tuple[list[dict], str]] = []

    def show(table: pa.Table, style: str) -> None:
        tables_shown.append((table.to_pylist(), style))

    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        keys.send_text(text)
        shell(
            shell_input.ask,
            lambda names: columns(names, warehouse.connect(shell_input.corpus)),
            "a corpus",
            show,
        )
    return tables_shown


def test_what_is_wrong_is_said_and_the_shell_goes_on(asked, capsys):
    wrong = [
        "SELECT nosuch FROM frames;",
        "DROP TABLE frames;",
        ".nosuch",
        ".schema nosuch",
        ".format xml",
        ";",
    ]
    assert typed(asked, "\r".join([*wrong, "SELECT 2 AS a;", ".quit", ""])) == [
        ([{"a": 2}], "table")
    ]
    error_lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in error_lines[:-1]] == ["error"] * 5
    assert error_lines[-1].startswith("(1 row, ")
    assert "the lake is read only" in error_lines[1]
    assert ".help lists them" in error_lines[2]


def test_tables_and_their_columns_are_shown(asked):
    (tables, _), (columns, _) = typed(asked, ".tables\r.schema releases\r.quit\r")
    assert {"episodes", "frames", "leaderboard"} <= {t["name"] for t in tables}
    assert [c["column"] for c in columns] == [
        "name",
        "snapshot",
        "config_hash",
        "created_at",
        "card_sha256",
    ]


def test_ctrl_c_stops_a_query_and_nothing_else(asked, capsys):
    # What a shell starts in the background ignores Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

    class Impatient(Asked):
        def ask(self, text: str) -> pa.Table:
            if text.startswith(SLOW):
                threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            return super().ask(text)

    impatient = Impatient(asked.process, asked.corpus)
    assert typed(impatient, f"{SLOW};\rSELECT 3 AS a;\r\x04") == [([{"a": 3}], "table")]
    assert capsys.readouterr().err.splitlines()[0] == "stopped"


@pytest.mark.parametrize(
    ("text", "ready"),
    [
        ("", True),
        (".tables", True),
        ("exit", True),
        ("\\d episodes", True),
        ("SELECT 1", False),
        ("SELECT 1;", True),
        ("SELECT\n1 ;\n", True),
        ("  ", True),
    ],
)
def test_when_a_line_is_a_whole_statement(text, ready):
    assert complete(text) == ready

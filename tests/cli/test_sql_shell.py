"""The SQL shell, typed into as a person does, through prompt_toolkit's own pipe."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

import warehouse
from cli.sql_shell import NameCompleter, complete, history_file, shell
from tests.kits.lake_kit import FOREVER, Interrupting


@pytest.fixture(scope="module")
def completer() -> NameCompleter:
    return NameCompleter()


@pytest.fixture
def con(empty_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with warehouse.connect(empty_corpus) as con:
        yield con


def typed(con, text: str) -> list[tuple[list[dict], str]]:
    """What the shell shows to a person who types this and leaves."""
    shown: list[tuple[list[dict], str]] = []

    def show(table: pa.Table, style: str) -> None:
        shown.append((table.to_pylist(), style))

    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        keys.send_text(text)
        shell(con, "a corpus", show, 60)
    return shown


def test_queries_take_several_lines_and_are_remembered(con):
    shown = typed(con, "SELECT count(*) AS n\rFROM episodes;\r.format json\rSELECT 1 AS a;\r\x04")
    assert shown == [([{"n": 0}], "table"), ([{"a": 1}], "json")]
    assert "+FROM episodes;" in history_file().read_text()


def test_what_is_wrong_is_said_and_the_shell_goes_on(con, capsys: pytest.CaptureFixture[str]):
    wrong = ["SELECT nosuch FROM frames;", "DROP TABLE frames;", ".nosuch", ".schema nosuch", ".format xml", ";"]
    assert typed(con, "\r".join([*wrong, "SELECT 2 AS a;", ".quit", ""])) == [([{"a": 2}], "table")]
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said] == ["error"] * 5
    assert "only SELECT is allowed" in said[1]
    assert ".help lists them" in said[2]


def test_tables_and_their_columns_are_shown(con):
    (tables, _), (columns, _) = typed(con, ".tables\r.schema releases\r.quit\r")
    assert {"episodes", "frames", "leaderboard"} <= {t["name"] for t in tables}
    assert [c["column"] for c in columns] == ["name", "snapshot", "config_hash", "created_at"]


def test_ctrl_c_stops_a_query_and_nothing_else(con, capsys: pytest.CaptureFixture[str]):
    assert typed(Interrupting(con), f"{FOREVER};\rSELECT 3 AS a;\r\x04") == [([{"a": 3}], "table")]
    assert capsys.readouterr().err.splitlines() == ["stopped"]


@pytest.mark.parametrize(
    ("before", "after", "offered", "not_offered"),
    [
        ("SELECT * FROM fra", "", "frames", "frame_index"),
        ("SELECT gri", " FROM frames", "gripper", "grid"),
        ("SELECT f.gri", " FROM frames f", "gripper", "frames"),
        ("SELECT cou", " FROM frames", "count", "coverage"),
        (".sch", "", ".schema", "shards"),
        (".schema lea", "", "leaderboard", "least"),
    ],
)
def test_names_are_completed(completer: NameCompleter, before: str, after: str, offered: str, not_offered: str):
    found = {c.text for c in completer.get_completions(Document(before + after, len(before)), None)}  # type: ignore[arg-type]
    assert offered in found
    assert not_offered not in found


@pytest.mark.parametrize(
    ("text", "ready"),
    [("", True), (".tables", True), ("SELECT 1", False), ("SELECT 1;", True), ("SELECT\n1 ;\n", True), ("  ", True)],
)
def test_when_a_line_is_a_whole_statement(text: str, ready: bool):
    assert complete(text) == ready

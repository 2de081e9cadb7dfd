"""Names and texts of a dataset come out on a terminal as text."""

import contextlib
import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from cli.output import show
from cli.terminal import ShownText
from core.values import shown
from tests.kits.cli_kit import PROGRAM, environment, proccorpus
from tests.kits.lerobot_writer import write_video

CLIPBOARD = "\x1b]52;c;cm0gLXJmIC8=\x07"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (f"a{CLIPBOARD}b", "a\\u001b]52;c;cm0gLXJmIC8=\\u0007b"),
        ("\x9d0;title\x9c", "\\u009d0;title\\u009c"),
        ("\x1bP+q\x1b\\", "\\u001bP+q\\u001b\\"),
        ("\x1b[31mred\x1b[0m\r\n\t", "\x1b[31mred\x1b[0m\r\n\t"),
        ("\x1b[31", "\\u001b[31"),
        ("gr\u00fc\u00dfe", "gr\u00fc\u00dfe"),
        ("\u202egnp.exe \u2066a\u2069\u200f", "\\u202egnp.exe \\u2066a\\u2069\\u200f"),
    ],
)
def test_commands_are_written_as_text(text: str, written: str) -> None:
    stream = ShownText(buffer := io.BytesIO(), "utf-8", newline="")
    assert stream.write(text) == len(text)
    stream.flush()
    assert buffer.getvalue().decode() == written


def test_errors_hold_no_secrets() -> None:
    stream = ShownText(buffer := io.BytesIO(), "utf-8")
    stream.is_result = False
    stream.write("no answer from http://u:secret@h/")
    stream.flush()
    assert buffer.getvalue() == b"no answer from http://***@h/"


def test_cells_have_no_commands_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    show([{"task": "\x1b[8mhidden"}], "table")
    assert "\\u001b[8mhidden" in capsys.readouterr().out
    assert shown("a\nb") == "a\nb"


def test_names_of_a_dataset(tmp_path: Path) -> None:
    """A file's name that sets the clipboard, shown by inspect."""
    write_video(tmp_path / "d/a.mp4", range(3))
    (tmp_path / f"d/{CLIPBOARD}.mp4").write_text("no video")
    told = proccorpus("inspect", tmp_path / "d", cwd=tmp_path)
    assert "\x1b" not in told.out + told.err
    assert "\\u001b]52" in told.out + told.err
    as_json = proccorpus("inspect", tmp_path / "d", "--format", "json", cwd=tmp_path)
    assert CLIPBOARD in json.dumps(json.loads(as_json.out), ensure_ascii=False).encode().decode("unicode_escape")


def test_a_locale_without_the_characters(tmp_path: Path) -> None:
    folder = tmp_path / "gr\u00fc\u00dfe"
    env = environment(LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    command = [sys.executable, "-m", "proccorpus", "inspect", str(folder)]
    told = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path)
    assert told.returncode == 2
    assert "Traceback" not in told.stderr
    assert told.stderr.startswith("error: ")


def on_terminal(*command: str, env: dict[str, str], columns: int = 100) -> tuple[int, str]:
    """A command on a terminal of its own: exit code, and what it wrote there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [str(PROGRAM), *command], stdin=slave, stdout=slave, stderr=slave, env=environment(**{"TERM": "xterm"} | env)
    )
    os.close(slave)
    said = b""
    # At its end Linux reports that nobody holds the other side
    with contextlib.suppress(OSError):
        while part := os.read(master, 65536):
            said += part
    os.close(master)
    return process.wait(60), said.decode()


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_are_for_terminals_that_want_them(env: dict[str, str], coloured: bool) -> None:
    code, said = on_terminal("status", "--workspace", "/nowhere", env=env)
    assert code == 2
    assert "no workspace" in said or "error:" in said
    assert ("\x1b[31merror:\x1b[0m" in said) == coloured
    assert ("\x1b" in said) == coloured


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    code, said = on_terminal("schema", "episodes", "--workspace", "/nowhere", columns=columns, env={"NO_COLOR": "1"})
    assert code == 0
    assert columns - 20 < max(map(len, said.splitlines())) <= columns


@pytest.mark.parametrize(
    "command", [("schema",), ("schema", "episodes"), ("--help",), ("datasets", "--format", "json")]
)
def test_a_reader_that_goes_away_is_no_failure(command: tuple[str, ...], tmp_path: Path) -> None:
    script = f"{PROGRAM} {' '.join(command)} | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}"
    told = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=60, check=True
    )
    assert (told.stdout.strip(), told.stderr) == ("0", "")


def test_inspect_into_head_is_no_failure_even_with_findings(tmp_path: Path) -> None:
    """Exit code 1 would say that head found something."""
    write_video(tmp_path / "d/a.mp4", range(3))
    (tmp_path / "d/b.mp4").write_text("no video")
    script = f"{PROGRAM} inspect d | true; echo ${{PIPESTATUS[0]}}"
    told = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=60, check=True
    )
    assert (told.stdout.strip(), told.stderr) == ("0", "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_silence(closed: str, tmp_path: Path) -> None:
    script = f"{PROGRAM} schema {closed}"
    told = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment())
    assert (told.returncode, told.stderr) == (0, "")
    assert bool(told.stdout) == (not closed.startswith((">", "<")))

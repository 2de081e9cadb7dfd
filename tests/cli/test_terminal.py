"""Names and texts of a dataset come out on a terminal as text."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli.output import show
from cli.terminal import ShownText, shown
from tests.kits.cli_kit import environment, proccorpus
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
    ],
)
def test_commands_are_written_as_text(text: str, written: str) -> None:
    stream = ShownText(buffer := io.BytesIO(), "utf-8", newline="")
    assert stream.write(text) == len(text)
    stream.flush()
    assert buffer.getvalue().decode() == written


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

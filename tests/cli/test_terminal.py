"""Names and texts of a dataset come out on a terminal as text."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from cli.output import show
from cli.sql import write_result
from cli.terminal import ShownText
from core.rows import encode
from core.values import shown
from tests.kits.cli_kit import PROGRAM, environment, proccorpus
from tests.kits.lerobot_writer import write_video
from tests.kits.patience import PATIENCE_S

CLIPBOARD = "\x1b]52;c;cm0gLXJmIC8=\x07"


def test_errors_hold_no_secrets() -> None:
    stream = ShownText(buffer := io.BytesIO(), "utf-8")
    stream.is_result = False
    stream.write("no answer from http://u:secret@h/")
    stream.flush()
    assert buffer.getvalue() == b"no answer from http://***@h/"


def test_cells_have_no_commands_at_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    show([{"task": "\x1b[8mhidden"}], "table")
    assert "\\u001b[8mhidden" in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    write_result(encode(pa.table({"task": ["\x1b[8mhidden"]}), "csv"), "csv", None)
    assert "\\u001b[8mhidden" in capsys.readouterr().out
    assert shown("a\nb") == "a\nb"


def test_names_of_a_dataset(tmp_path: Path) -> None:
    """A file's name that sets the clipboard, shown by inspect."""
    write_video(tmp_path / "d/a.mp4", range(3))
    (tmp_path / f"d/{CLIPBOARD}.mp4").write_text("no video")
    result = proccorpus("inspect", tmp_path / "d", cwd=tmp_path)
    assert "\x1b" not in result.out + result.err
    assert "\\u001b]52" in result.out + result.err
    as_json = proccorpus("inspect", tmp_path / "d", "--format", "json", cwd=tmp_path)
    assert CLIPBOARD in json.dumps(json.loads(as_json.out), ensure_ascii=False).encode().decode(
        "unicode_escape"
    )


def test_inspect_into_head_is_no_failure_even_with_findings(tmp_path: Path) -> None:
    """Exit code 1 would say that head found something."""
    write_video(tmp_path / "d/a.mp4", range(3))
    (tmp_path / "d/b.mp4").write_text("no video")
    script = f"{PROGRAM} inspect d | true; echo ${{PIPESTATUS[0]}}"
    process = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
        timeout=PATIENCE_S,
        check=True,
    )
    assert (process.stdout.strip(), process.stderr) == ("0", "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_silence(closed: str, tmp_path: Path) -> None:
    script = f"{PROGRAM} show schema {closed}"
    process = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment()
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert bool(process.stdout) == (not closed.startswith((">", "<")))

"""Texts of a dataset come out on a terminal as text; progress; tables for people; `show`."""

import io
import json
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pyarrow as pa
import pytest

import cli.output
from cli.options import AS_RECORDS, QUIET, ShownText, note, warn
from cli.output import progress, show, table_text, training_progress
from cli.sql import write_result
from core.rows import encode
from core.values import shown
from tests.kits.cli_kit import PROGRAM, called, command, environment
from tests.kits.lerobot_writer import write_info, write_v2, write_video
from tests.kits.patience import PATIENCE_S
from warehouse.lake import Lake

CLIPBOARD = "\x1b]52;c;cm0gLXJmIC8=\x07"


def test_errors_hold_no_secrets():
    stream = ShownText(buffer := io.BytesIO(), "utf-8")
    stream.is_result = False
    stream.write("no answer from http://u:secret@h/")
    stream.flush()
    assert buffer.getvalue() == b"no answer from http://***@h/"


def test_cells_have_no_commands_at_all(capsys, monkeypatch):
    show([{"task": "\x1b[8mhidden"}])
    assert "\\u001b[8mhidden" in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    write_result(encode(pa.table({"task": ["\x1b[8mhidden"]}), "csv"), "csv", None)
    assert "\\u001b[8mhidden" in capsys.readouterr().out
    assert shown("a\nb") == "a\nb"


def test_names_of_a_dataset(tmp_path):
    # A file's name that sets the clipboard, shown by inspect
    write_video(tmp_path / "d/a.mp4", range(3))
    (tmp_path / f"d/{CLIPBOARD}.mp4").write_text("no video")
    result = command("inspect", tmp_path / "d", cwd=tmp_path)
    assert "\x1b" not in result.out + result.err
    assert "\\u001b]52" in result.out + result.err
    as_json = command("inspect", tmp_path / "d", "--format", "json", cwd=tmp_path)
    assert CLIPBOARD in json.dumps(json.loads(as_json.out), ensure_ascii=False).encode().decode(
        "unicode_escape"
    )


def test_inspect_into_head_is_no_failure_even_with_findings(tmp_path):
    # Exit code 1 would say that head found something
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


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_silence(closed, tmp_path):
    script = f"{PROGRAM} show schema {closed}"
    process = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment()
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert bool(process.stdout) == (not closed.startswith((">", "<")))


def test_a_log_has_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(cli.output, "LOG_EVERY_S", 0.05)
    monkeypatch.setattr(cli.output, "FIRST_S", 0.01)
    with progress() as report:
        report("sources", detail="looked at and listed")
        time.sleep(0.1)
        report("sources", 1, 1)
        for num_done in (1, 4, 10):
            report("frames", num_done, 30, "episodes", 50)
            time.sleep(0.1)
        report("segments", 30, 30, "episodes")
        time.sleep(0.3)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "sources looked at and listed; 0 of 1 done, 0:00"
    match = re.fullmatch(
        r"frames 10 of 30 episodes, ([\d,]+) frames/s, 0:0\d left; 2 of 3 done, 0:0\d", last
    )
    assert match, last
    assert 100 <= int(match[1].replace(",", "")) <= 9 * 50 / 0.19


def test_quiet_is_quiet(monkeypatch, capsys):
    monkeypatch.setattr(cli.output, "FIRST_S", 0.01)
    token = QUIET.set(True)
    with progress() as report:
        report("frames", 0, 30, "episodes")
        time.sleep(0.1)
    note("read more")
    warn(["an episode"], "left out")
    QUIET.reset(token)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_training_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(cli.output, "LOG_EVERY_S", 0.05)
    monkeypatch.setattr(cli.output, "FIRST_S", 0.01)
    with training_progress() as on_step:
        time.sleep(0.2)
        on_step(SimpleNamespace(done=0.5, step=3, loss=0.25, samples=40))
        time.sleep(0.3)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("training its first step")
    assert last.startswith("training 50 %, step 3, loss 0.250, ")
    assert "samples/s" in last


ROWS = [
    {
        "dataset": "cubes",
        "episode_index": 3,
        "task": "Put the red cube onto the green one",
        "seconds": 4.25,
    },
    {"dataset": "cubes", "episode_index": 12, "task": "Open the drawer", "seconds": 61.5},
]


def lines(rows: list[dict], width: int) -> list[str]:
    return table_text(rows, list(rows[0]), width).splitlines()


def test_names_are_broken_before_texts_and_numbers_are_never_cut(capsys):
    assert lines(ROWS, 50) == [
        "          episode_",
        "dataset      index   task                  seconds",
        "cubes            3   Put the red cube         4.25",
        "                     onto the green one",
        "cubes           12   Open the drawer          61.5",
    ]
    show(
        [
            {"dataset": "cubes", "bytes": 2_500_000, "rows": 3},
            {"dataset": "a", "bytes": 0, "rows": 12},
        ]
    )
    assert capsys.readouterr().out.splitlines() == [
        "dataset   bytes     rows", "cubes     2.5 MB       3", "a         0 bytes     12",
    ]  # fmt: skip


def test_rows_that_have_no_room_are_records():
    wide = [{f"column_{i}": f"a text of {i:02d} or so" for i in range(20)}] * 2
    output_lines = lines(wide, 80)
    assert len(output_lines) == 2 * 21
    assert output_lines[1] == "column_0    a text of 00 or so"
    assert lines(wide[:1], 80) == output_lines[1:21]


def test_records_are_asked_for_by_x():
    token = AS_RECORDS.set(True)
    try:
        output_lines = lines(ROWS, 60)
    finally:
        AS_RECORDS.reset(token)
    assert output_lines[0].startswith("1 ─")
    assert output_lines[1] == "dataset         cubes"
    assert output_lines[3] == "task            Put the red cube onto the green one"
    assert len(output_lines) == 10


def test_reasons_of_a_whole_dataset_have_their_detail(tmp_path, capsys):
    write_info(write_v2(tmp_path / "source", [6]), features=3)
    space = ("--workspace", tmp_path / "ws")
    called(capsys, "build", "--source", tmp_path / "source", *space)
    [row] = called(capsys, "show", "quarantine_reasons", "--format", "json", *space).json
    assert (row["reason"], row["first_episode"]) == ("no_metadata", None)
    assert row["first_detail"].startswith("meta/info.json")
    assert row["remedy"]


def test_odd_demonstrations_are_listed_with_what_is_odd(own, capsys):
    words = ("show", "demonstrations", "tiny", "--workspace", own.space.root)
    assert "5 runs or more of a task show what is usual" in called(capsys, *words).out
    lake = Lake(own.space)
    lake.con.execute("UPDATE episode_facts SET task = 'pick'")
    lake.con.execute(
        "UPDATE demonstration_measures SET duration_s = 10, rest_s = 0.4, end_phash = 0"
    )
    lake.con.execute("UPDATE demonstration_measures SET rest_s = 6 WHERE episode_index = 3")
    lake.con.close()
    text = called(capsys, *words, "--limit", 1).out
    assert "stands still for 60 % of its time, others of its task 4 %" in " ".join(text.split())
    assert len(text.splitlines()) == 2


def test_any_relation_is_narrowed_and_written(own, capsys):
    out = own.space.root / "rows.jsonl"
    words = ("episodes", "--where", "episode_index < 2", "--out", out)
    assert called(capsys, "show", *words, "--workspace", own.space.root).code == 0
    rows = list(map(json.loads, out.read_text().splitlines()))
    assert [row["episode_index"] for row in rows] == [0, 1]
    for words, message in (
        (("episods",), "there is no list 'episods'; did you mean episodes"),
        (("episodes", "tony"), "there is no dataset 'tony'"),
        (("episodes", "--where", "x IN (FROM read_csv('/etc/passwd'))"), "not allowed"),
    ):
        refused = called(capsys, "show", *words, "--workspace", own.space.root)
        assert (refused.code, message in refused.err) == (2, True), refused.err

"""How far a build or a training is, on a terminal and in a log."""

import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

import cli.progress
from cli.progress import BuildProgress, clock, shown, training_lines
from pipeline.build import Moment


def steps(*names: str, chunks: int) -> list[Any]:
    return [
        SimpleNamespace(stage=SimpleNamespace(name=name), dataset="cubes", chunk=chunk)
        for chunk in range(chunks)
        for name in names
    ]


@pytest.fixture
def progress() -> BuildProgress:
    made = BuildProgress(workers=2)
    made.plan(steps("frames", "segments", chunks=3), {("cubes", chunk): (10, 1000) for chunk in range(3)})
    return made


def test_a_stage_says_its_episodes_its_rate_and_what_is_left(progress: BuildProgress):
    assert progress.lines()[-1].startswith("0 of 2 stages done, 0:0")
    progress.note(Moment("cubes", 0, "frames"))
    assert progress.lines()[0].split("  ")[-1] == "now"
    progress.note(Moment("cubes", 0, "frames", 4.0))
    progress.note(Moment("cubes", 1, "frames"))
    # 1,000 frames in 4 s, by two workers: 500 a second, and 2,000 are left
    assert progress.lines()[0].split(None, 1)[1].split("  ") == [
        "10 of 30 episodes", "500 frames/s", "0:04 left", "now"
    ]  # fmt: skip
    progress.note(Moment("cubes", 1, "frames", 4.0))
    progress.note(Moment("cubes", 2, "frames"))
    progress.note(Moment("cubes", 2, "frames", 4.0))
    assert [line.split()[0] for line in progress.lines()[:-1]] == []
    assert progress.lines()[-1].startswith("1 of 2 stages done")


def test_a_log_has_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(cli.progress, "LOG_EVERY_S", 0.05)
    with shown(lambda: ["frames        10 of 30 episodes", "0 of 2 stages done, 0:01"]):
        time.sleep(0.5)
    said = capsys.readouterr().err.splitlines()
    assert 2 <= len(said) <= 10
    assert set(said) == {"frames 10 of 30 episodes; 0 of 2 stages done, 0:01"}


def test_a_short_one_says_nothing_in_a_log(capsys: pytest.CaptureFixture[str]):
    with training_lines() as on_step:
        on_step(SimpleNamespace(done=0.5, step=3, loss=0.25, samples=40))  # type: ignore[arg-type]
    assert capsys.readouterr().err == ""


def test_a_training_says_how_much_is_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(cli.progress, "LOG_EVERY_S", 0.05)
    with training_lines() as on_step:
        time.sleep(0.2)
        on_step(SimpleNamespace(done=0.5, step=3, loss=0.25, samples=40))  # type: ignore[arg-type]
        time.sleep(0.3)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("training: its first step, 0:00")
    assert last.startswith("training: 50 %, step 3, loss 0.250, ")
    assert last.endswith(" left")
    assert "samples/s" in last


def test_on_a_terminal_it_moves_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    counted = iter(range(1000))
    with shown(lambda: [f"line {next(counted)}"]):
        time.sleep(1.2)
    said = capsys.readouterr().err
    assert "line 0" in said
    assert said.endswith("\x1b[2K"), "the last line is taken away"


def test_minutes_and_seconds():
    assert [clock(s) for s in (0, 59.6, 61.4, 3600)] == ["0:00", "1:00", "1:01", "60:00"]

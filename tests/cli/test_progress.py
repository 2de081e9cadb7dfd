"""How far a build or a training is, on a terminal and in a log."""

import re
import time
from types import SimpleNamespace

import pytest

import cli.output
from cli.options import warn
from cli.output import progress, training_progress
from cli.terminal import QUIET, note


def test_a_log_has_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
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


def test_quiet_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
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


def test_a_training_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
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

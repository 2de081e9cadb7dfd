"""Runs without a text are of no task together, until somebody says what they do."""

import json
from pathlib import Path

import pytest

from core.paths import Workspace
from pipeline.suggesting import suggest
from tests.kits.cli_kit import USAGE, assert_one_error_line
from tests.kits.lake_kit import opened
from tests.kits.small_sources import RECORDINGS, write_v2
from tests.kits.words_kit import Case, checked

TASK = "Put it away"
RUNS = 6
FOLLOWERS = "SELECT count(*) FROM active_runs JOIN label_runs USING (label_run) WHERE annotator = 'transfer'"
COMPARED = "SELECT DISTINCT num_usual, main = 'too few runs to compare' FROM demonstration_quality"


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Six runs of which the source says nothing."""
    source = write_v2(tmp_path / "source", RECORDINGS[:RUNS])
    (source / "meta/tasks.jsonl").write_text("")
    episodes = source / "meta/episodes.jsonl"
    listed = [json.loads(line) | {"tasks": []} for line in episodes.read_text().splitlines()]
    episodes.write_text("".join(f"{json.dumps(row)}\n" for row in listed))
    return Case("lerobot_v2", tmp_path, source)


def test_runs_without_a_text_are_compared_with_none_until_their_task_is_said(case: Case) -> None:
    built = checked(case.run("build", "--source", case.source, "--name", "arm", "--workers", 1))
    assert "arm: 6 of 6 runs have no text" in built.out
    assert "show one run" not in built.out
    checked(case.run("say", "reference", "arm", 0, "--author", "rita"))
    checked(case.run("build", "--dataset", "arm", "--workers", 1))
    assert case.rows(FOLLOWERS) == [(0,)]
    assert case.rows(COMPARED) == [(0, True)]
    with opened(Workspace(case.workspace)) as lake:
        [suggestion] = suggest(lake, "arm")
    assert (suggestion.label_next, "--task TEXT" in suggestion.why) == (None, True)

    # What the build advises
    named_build = checked(
        case.run("build", "--dataset", "arm", "--task", f" {TASK} ", "--workers", 1)
    )
    assert "have no text" not in named_build.out
    assert case.rows("SELECT DISTINCT task, tasks FROM episodes") == [(TASK, [TASK])]
    assert case.rows("SELECT count(*) FROM findings WHERE reason = 'no_task'") == [(0,)]
    assert case.rows(COMPARED) == [(RUNS, False)]
    assert case.rows(FOLLOWERS)[0][0] > 0
    second_build = checked(case.run("build", "--dataset", "arm", "--workers", 1))
    assert second_build.out.startswith("Everything is up to date")
    empty = case.run("build", "--dataset", "arm", "--task", " ")
    assert (empty.code, "must say what the episodes do" in assert_one_error_line(empty)) == (
        USAGE,
        True,
    )

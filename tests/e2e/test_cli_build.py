"""`proccorpus build`: from a config or a folder, again, with more workers, moved and copied."""

import shutil
from collections.abc import Callable
from contextlib import closing
from itertools import product
from pathlib import Path

import pytest

from core.paths import Workspace
from pipeline.config import load_config
from tests.kits.cli_kit import (
    DONE,
    FAILED,
    Result,
    assert_one_error_line,
    built_in_process,
    column,
    command,
    digest_of,
    ok,
    proccorpus,
    rows,
    stage_times,
    stages_redone,
    write_config,
    write_configs,
)
from tests.kits.files import hashes_of
from tests.kits.tiny_lerobot import LENGTHS
from warehouse.lake import Lake
from warehouse.lake.acceptances import runs_with

Build = Callable[..., Result]


@pytest.mark.slow
def test_two_workers_make_the_same_bytes_as_one(built, away, tmp_path):
    workspace = tmp_path / "two"
    words = ("build", "--config", built.config, "--workers", 2)
    ok(proccorpus(*words, cwd=away, workspace=workspace))
    assert digest_of(workspace) == digest_of(built.workspace)
    for folder, pattern in (("shards", "*.tar"), ("shards", "*.json"), ("keyframes", "*.jpg")):
        single_hashes = hashes_of(built.workspace / folder, pattern)
        assert hashes_of(workspace / folder, pattern) == single_hashes
        assert single_hashes


def test_a_folder_that_holds_datasets_is_those_datasets(source, away, tmp_path):
    for name in ("cubes", "more/Red Cubes"):
        shutil.copytree(source, away / "held" / name)
    workspace = tmp_path / "workspace"
    build = ("build", "--source", "held", "--episodes", "0", "--workers", 1)
    result = command(*build, cwd=away, workspace=workspace)
    copies = 'note: {}: 1 run has the rows of another run: proccorpus sql "FROM copies"'
    notes = [
        f"note: {away}/held holds 2 datasets: cubes, red_cubes",
        copies.format("cubes"),
        copies.format("red_cubes"),
    ]
    assert (result.code, result.err.splitlines()) == (DONE, notes)
    assert rows(workspace, "SELECT dataset, source_uri FROM datasets ORDER BY 1") == [
        ("cubes", str(away / "held/cubes")),
        ("red_cubes", str(away / "held/more/Red Cubes")),
    ]
    copies = "SELECT dataset, episode_index, other_dataset, other_episode, detail FROM checks WHERE check_name = 'copy'"
    assert rows(workspace, copies) == [
        ("red_cubes", 0, "cubes", 0, "a copy of cubes episode 0: the rows are equal")
    ]
    # What the view says can be left out, and accepted
    for expected in ({("red_cubes", 0): ["copy"]}, {}):
        lake = Lake(Workspace(workspace), read_only=True)
        with closing(lake.con):
            assert runs_with(lake, ["copy"]) == expected
        say = ("say", "acceptance", "red_cubes", "copy", "--comment", "on purpose")
        assert command(*say, cwd=away, workspace=workspace).code == DONE
    inspected = ok(command("inspect", "held", cwd=away)).out
    assert "held holds 2 datasets" in inspected
    assert "proccorpus build --source held" in inspected


def test_recognised_sources_without_a_usable_episode_leave_their_findings(build, tmp_path):
    """A text file named .mp4 (alone, and in a folder) and an empty meta folder."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "run.mp4").write_text("this is no video\n")
    (tmp_path / "empty" / "meta").mkdir(parents=True)
    sources = {
        "alone": tmp_path / "text" / "run.mp4",
        "folder": tmp_path / "text",
        "meta": tmp_path / "empty",
    }
    config = write_configs(
        tmp_path / "project", {name: f"source: {path}\n" for name, path in sources.items()}
    )
    workspace = tmp_path / "workspace"
    result = build(config, workspace, "--workers", 1)
    assert result.code == FAILED
    assert_one_error_line(result)
    quarantined = rows(
        workspace, "SELECT dataset, episode_index, reason, file FROM quarantine ORDER BY 1"
    )
    assert quarantined == [
        ("alone", 0, "undecodable_video", "run.mp4"),
        ("folder", 0, "undecodable_video", "run.mp4"),
        ("meta", None, "no_metadata", "meta/info.json"),
    ]
    assert rows(workspace, "SELECT sum(ok), sum(labelled_frames), sum(samples) FROM coverage") == [
        (0, 0, 0)
    ]


# After something changed only what depends on it is done again


def episodes_with_labels(workspace: Path) -> list[int]:
    return column(workspace, "SELECT DISTINCT episode_index FROM active_progress ORDER BY 1")


@pytest.mark.slow
def test_a_selection_of_episodes_only_grows(built, build, tmp_path):
    workspace = tmp_path / "workspace"
    ok(build(built.config, workspace, "--episodes", "0", "--workers", 1))
    assert episodes_with_labels(workspace) == [0]
    grown = build(built.config, workspace, "--episodes", "1-2,99", "--workers", 1)
    assert (grown.code, grown.err) == (0, "note: tiny: its source has no episodes 99\n")
    assert episodes_with_labels(workspace) == [0, 1, 2]
    assert rows(workspace, "SELECT count(*) FROM episodes") == [(3,)]
    assert built_in_process(load_config(built.config), workspace) == digest_of(built.workspace)
    assert episodes_with_labels(workspace) == list(range(len(LENGTHS)))


def test_new_samples_settings_redo_samples_and_shards_only(own, build, tmp_path):
    times_before = stage_times(own.workspace)
    old = digest_of(own.workspace)
    config = write_config(own.config.parent, own.source, "[samples]\nprogress_per_episode = 3")
    result = ok(build(config, own.workspace, "--workers", 1))
    assert result.out.startswith("6 stages run")
    assert stages_redone(own.workspace, times_before) == {
        (s, c) for s, c in product(("samples", "shards"), range(3))
    }
    new = digest_of(own.workspace)
    assert {t for t in new if new[t] != old[t]} == {"samples", "shards", "sample_location"}
    chunk_rows = rows(
        own.workspace,
        "SELECT DISTINCT count(*) FROM samples WHERE family = 'procvqa_c' GROUP BY episode_index",
    )
    assert chunk_rows == [(3,)]

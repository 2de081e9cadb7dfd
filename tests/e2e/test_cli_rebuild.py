"""`proccorpus build` after something changed: only what depends on it is done again."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from pipeline.config import load_config
from tests.kits.cli_kit import (
    DONE,
    STAGES,
    Built,
    Result,
    built_in_process,
    digest_of,
    ok,
    rows,
    stage_times,
    stages_redone,
    write_config,
)
from tests.kits.tiny_lerobot import LENGTHS, write_rows, write_video

Build = Callable[..., Result]
PER_CHUNK = STAGES[1:]
FOLLOWING = (
    "active_runs",
    "active_segments",
    "active_progress",
    "samples",
)  # what has the label that counts


def label_run(config: Path) -> str:
    return load_config(config)[0].label_run().id


def episodes_with_labels(workspace: Path) -> list[int]:
    return [
        r[0]
        for r in rows(workspace, "SELECT DISTINCT episode_index FROM active_progress ORDER BY 1")
    ]


@pytest.mark.slow
def test_a_selection_of_episodes_only_grows(built: Built, build: Build, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    ok(build(built.config, workspace, "--episodes", "0", "--workers", 1))
    assert episodes_with_labels(workspace) == [0]
    ok(build(built.config, workspace, "--episodes", "1-2", "--workers", 1))
    assert episodes_with_labels(workspace) == [0, 1, 2]
    assert rows(workspace, "SELECT count(*) FROM episodes") == [(3,)]
    assert built_in_process(load_config(built.config), workspace) == digest_of(built.workspace)
    assert episodes_with_labels(workspace) == list(range(len(LENGTHS)))


@pytest.mark.slow
def test_a_changed_episode_redoes_its_chunk_and_no_other(
    own: Built, build: Build, tmp_path: Path
) -> None:
    times_before = stage_times(own.workspace)
    old = digest_of(own.workspace)
    write_video(own.source, 2, LENGTHS[2], grey=120)
    result = build(own.config, own.workspace, "--workers", 1)
    assert result.code == DONE
    assert "recordings: 1 unsure" in result.err, "equal rows below other pictures"
    redone = stages_redone(own.workspace, times_before)
    assert {stage for stage, chunk in redone if chunk == 1} == set(PER_CHUNK)
    # A run of another task is shown by samples of other chunks, too: these alone are made again
    assert {stage for stage, chunk in redone if chunk != 1} <= {"samples", "shards"}

    between = stage_times(own.workspace)
    builds = load_config(own.config)
    write_rows(own.source, 4, LENGTHS[4], scale=3.0)
    new = built_in_process(builds, own.workspace)
    redone = stages_redone(own.workspace, between)
    assert {chunk for stage, chunk in redone if stage not in ("samples", "shards")} == {2}
    assert ("frames", 2) in redone
    assert new == built_in_process(builds, tmp_path / "reference")
    assert new["frames"] != old["frames"]


def test_new_samples_settings_redo_samples_and_shards_only(
    own: Built, build: Build, tmp_path: Path
) -> None:
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


@pytest.mark.slow
def test_each_motion_setting_has_its_own_label_run(own: Built, build: Build) -> None:
    first = label_run(own.config)
    old = stage_times(own.workspace)
    original = digest_of(own.workspace)
    config = write_config(own.config.parent, own.source, "[motion]\nstep_min_s = 1.5")
    second = label_run(config)
    assert first != second
    ok(build(config, own.workspace, "--workers", 1))
    assert {stage for stage, _ in stages_redone(own.workspace, old)} == {
        "segments",
        "progress",
        "samples",
        "shards",
    }
    both = rows(
        own.workspace,
        "SELECT label_run, count(DISTINCT episode_index) FROM progress GROUP BY 1 ORDER BY 1",
    )
    assert both == sorted([(first, len(LENGTHS)), (second, len(LENGTHS))])
    for table in FOLLOWING:
        assert rows(own.workspace, f"SELECT DISTINCT label_run FROM {table}") == [(second,)], table

    ok(build(write_config(own.config.parent, own.source), own.workspace, "--workers", 1))
    for table in FOLLOWING:
        assert rows(own.workspace, f"SELECT DISTINCT label_run FROM {table}") == [(first,)], table
    digest_again = digest_of(own.workspace)
    labels = {"segments", "progress", "episode_labels", "label_quality"}
    assert {t for t in digest_again if digest_again[t] != original[t]} <= labels, (
        "only labels that do not count"
    )

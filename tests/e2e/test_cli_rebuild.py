"""`proccorpus build` after something changed: only what depends on it is done again."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from pipeline.config import load_config
from tests.kits.cli_kit import (
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
from tests.kits.tiny_lerobot import LENGTHS

Build = Callable[..., Result]
PER_CHUNK = STAGES[1:]


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

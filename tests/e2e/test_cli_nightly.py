"""A night through the command line: what is out of reach is told, all else is built, released and scored."""

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from core.paths import ROOT, Workspace
from pipeline.build import run_build
from pipeline.config import load_config
from pipeline.reward_model import closing_steps
from tests.kits.cli_kit import PROGRAM, command, environment, write_configs
from tests.kits.tiny_lerobot import LENGTHS, make_dataset
from tests.pipeline.test_release_cycle import EPISODES, tiny_recipe
from warehouse.lake import Lake

PARTIAL = 3
LICENCES = {"left": "cc-by-4.0", "other": None, "right": "cc-by-nc-4.0"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A build file of three datasets beside the sample, one of which has no licence and one a restricted one."""
    entries = {}
    for k, (name, licence) in enumerate(LICENCES.items()):
        make_dataset(tmp_path / name, LENGTHS[k : k + 3])
        entries[name] = f"source: ../{name}\nchunk_size: 2\n" + (
            f"license: {licence}\n" if licence else ""
        )
    return write_configs(tmp_path, entries, '[release]\nlicences = ["cc-by-nc-4.0"]')


def stages(lake: Lake) -> set[tuple[str, str, int, int]]:
    return set(lake.rows("SELECT dataset, stage, chunk, snapshot FROM stage_runs"))


@pytest.mark.long
def test_a_night_goes_on_without_a_folder_that_is_gone(config: Path, tmp_path: Path) -> None:
    space = Workspace(tmp_path / "w")
    sample = load_config(ROOT / "configs" / "demo.toml")[0].model_copy(
        update={"episodes": EPISODES}
    )
    assert run_build(space, [sample], workers=1).failed == []
    lake = Lake(space)
    model = closing_steps(lake, "r1", tiny_recipe())[1].version
    lake.con.close()

    (tmp_path / "left").rename(tmp_path / "away")
    night = command(
        "nightly", "--config", config, "--workers", 1, cwd=tmp_path, workspace=space.root
    )
    assert night.code == PARTIAL, night
    assert "error: episodes of left failed: SourceError: no such file or folder" in night.err
    assert "left out: other with" in night.err
    lake = Lake(space, read_only=True)
    assert lake.column("SELECT DISTINCT dataset FROM stage_runs ORDER BY 1") == [
        "other",
        "right",
        "sim_short",
    ]
    query = "SELECT DISTINCT dataset FROM release_shards WHERE name = 'nightly' ORDER BY 1"
    assert lake.column(query) == ["right", "sim_short"], (
        "what has no licence is left out, what is allowed is not"
    )
    assert lake.rows("SELECT 1 FROM eval_runs WHERE release = 'nightly' AND model = ?", [model])
    stages_before = stages(lake)
    lake.con.close()

    (tmp_path / "away").rename(tmp_path / "left")
    night = command(
        "nightly", "--config", config, "--workers", 1, cwd=tmp_path, workspace=space.root
    )
    assert night.code == 0, night
    lake = Lake(space, read_only=True)
    assert {dataset for dataset, *_ in stages(lake) - stages_before} == {"left"}
    assert stages_before <= stages(lake), "nothing else was built twice"
    assert lake.column(query) == ["left", "right", "sim_short"]
    lake.con.close()

    # Most of what was read is gone: maybe a disk that is not mounted
    for file in (tmp_path / "right").rglob("*.*"):
        if file.suffix in (".mp4", ".parquet"):
            file.unlink()
    night = command(
        "nightly", "--config", config, "--workers", 1, cwd=tmp_path, workspace=space.root
    )
    assert night.code == PARTIAL, night
    assert "is half there: 6 of 6 files" in night.err
    assert Lake(space, read_only=True).column(query) == ["left", "right", "sim_short"]


def test_a_build_that_is_told_to_end_does_so_soon(tmp_path: Path) -> None:
    source = make_dataset(tmp_path / "tiny")
    workspace = tmp_path / "w"
    words = ["build", "--source", source, "--name", "tiny", "--workspace", workspace]
    popen_options: dict[str, Any] = {
        "env": environment(),
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    with subprocess.Popen([PROGRAM, *words], **popen_options) as running:
        while not (workspace / "catalog.sqlite").exists() and running.poll() is None:
            time.sleep(0.05)
        began_s = time.monotonic()
        running.terminate()
        _, err = running.communicate()
    assert time.monotonic() - began_s < 10
    assert (running.returncode, err.splitlines()[-1]) == (
        143, "interrupted: what was finished is kept, run again to go on",
    )  # fmt: skip
    assert command(*words, cwd=tmp_path).code == 0

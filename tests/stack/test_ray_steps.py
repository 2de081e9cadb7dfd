"""Dagster's steps of a corpus run as jobs of a real Ray head: the same digest and the same shards as built here."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from test_ray import address  # noqa: F401  # the head
from tiny_lerobot import make_dataset

from assets.build import run_build
from assets.config import load_config
from warehouse.lake import Lake, digest
from warehouse.workspace import Workspace, sha256_file

pytestmark = pytest.mark.stack
ROOT = Path(__file__).parents[2]
STAGES = "frames,segments,progress,samples,shards"


def shards(space: Workspace) -> dict[str, str]:
    return {p.name: sha256_file(p) for p in sorted((space.root / "shards").rglob("*.tar"))}


def test_partitions_built_on_ray_are_those_built_here(address: str, tmp_path: Path) -> None:  # noqa: F811
    make_dataset(tmp_path / "tiny")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"name": "tiny", "source": "tiny", "chunk_size": 3}))
    config = tmp_path / "corpus.toml"
    config.write_text('datasets = ["tiny"]\nregistry = ["."]\n')
    here, there = Workspace(tmp_path / "here"), Workspace(tmp_path / "there")
    assert not run_build(here, load_config(config), workers=1).failed

    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    chosen = {"PROCCORPUS_EXECUTOR": "ray", "RAY_ADDRESS": address, "DAGSTER_HOME": str(home)}
    chosen |= {"PROCCORPUS_WORKSPACE": str(there.root), "PROCCORPUS_CONFIG": str(config)}

    def materialize(stages: str, partition: str) -> None:
        command = [Path(sys.executable).parent / "dagster", "asset", "materialize", "-m", "assets.definitions"]
        done = subprocess.run(
            [*command, "--select", stages, "--partition", partition],
            cwd=ROOT,
            env=os.environ | chosen,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        assert "in Ray job dagster-step-" in done.stderr + done.stdout

    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions("datasets", ["tiny"])
        materialize("episodes", "tiny")
        chunks = instance.get_dynamic_partitions("chunks")
    assert sorted(chunks) == ["tiny:00000", "tiny:00001"]
    for chunk in chunks:
        materialize(STAGES, chunk)
    assert digest(Lake(there, read_only=True)) == digest(Lake(here, read_only=True))
    assert shards(there) == shards(here) != {}

"""Dagster's steps of a corpus run as jobs of a real Ray head: the same digest and the same shards as built here."""

import pytest
import yaml

from core.paths import Workspace
from pipeline.build import run_build
from pipeline.config import load_config
from tests.kits.cli_kit import write_config
from tests.kits.files import hashes_of
from tests.kits.ray_kit import StepsOnRay
from tests.kits.tiny_lerobot import make_dataset
from warehouse.lake import Lake, digest

pytestmark = pytest.mark.long
STAGES = "frames,demonstrations,segments,progress,samples,shards"


def test_partitions_built_on_ray_are_those_built_here(address, tmp_path):
    config = write_config(tmp_path, make_dataset(tmp_path / "tiny"), chunk_size=3)
    local_space = Workspace(tmp_path / "here")
    ray_space = Workspace(tmp_path / "there")
    assert not run_build(local_space, load_config(config), workers=1).failed

    steps = StepsOnRay(address, tmp_path / "home", ray_space.root, config)
    with steps.instance() as instance:
        instance.add_dynamic_partitions("datasets", ["tiny"])
        steps.materialize("episodes", "tiny")
        chunks = instance.get_dynamic_partitions("chunks")
    assert sorted(chunks) == ["tiny:00000", "tiny:00001"]
    steps.materialize(STAGES, "tiny:00000")
    # The second one by the job, as a night would: what is left is spread over steps of their own
    (steps.home / "job.yaml").write_text(yaml.safe_dump({"chunks_per_step": 1}))
    output = steps.execute("build", steps.home / "job.yaml")
    assert "build_chunks[0]" in output
    assert "build_chunks[1]" not in output
    assert digest(Lake(ray_space, read_only=True)) == digest(Lake(local_space, read_only=True))
    assert (
        hashes_of(ray_space.root / "shards", "*.tar")
        == hashes_of(local_space.root / "shards", "*.tar")
        != {}
    )

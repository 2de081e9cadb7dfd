"""A real Ray head on this machine takes a job, streams what it reports, tells why it failed, and ends it."""

import re

import pytest

from assets.lib.launch.run import RayLauncher
from tests.kits.launch_kit import (
    allow_programs,
    assert_ends_with_its_run,
    assert_well,
    failure,
    group_interpreter,
    interpreter,
    materialize,
)

pytestmark = pytest.mark.stack


@pytest.fixture(autouse=True)
def allowed_programs(tmp_path_factory, tmp_path, monkeypatch) -> None:
    file = tmp_path_factory.mktemp("operator") / "programs.toml"
    allow_programs(monkeypatch, file, python=[str(tmp_path / "python"), str(tmp_path / "noted")])


def test_a_job_on_a_real_head(address, tmp_path):
    assert_well(RayLauncher(address=address, python=interpreter(tmp_path)), tmp_path)


def test_a_failed_job_tells_its_error_and_last_lines(address, tmp_path):
    launcher = RayLauncher(address=address, python=interpreter(tmp_path))
    described, lines = failure(materialize(launcher, tmp_path, "fails"))
    assert re.fullmatch(
        r"ray job train-fails-\w{8} failed: the loss is nan at step 1: lower lr in the recipe",
        described,
    )
    assert lines.splitlines()[-2:] == [
        "error: the loss is nan at step 1: lower lr in the recipe",
        "```",
    ]
    assert "__dagster_pipes_version" not in lines


@pytest.mark.long
@pytest.mark.parametrize(("nodes", "make"), [(1, interpreter), (2, group_interpreter)])
def test_cancelling_the_run_ends_the_job(address, tmp_path, nodes, make):
    log = tmp_path / "told"  # what the job prints is Ray's; it is written to a file, too
    noted = tmp_path / "noted"
    noted.write_text(f'#!/bin/bash\n{make(tmp_path)} "$@" | tee -a {log}\n')
    noted.chmod(0o755)
    assert_ends_with_its_run(
        RayLauncher(address=address, nodes=nodes, python=str(noted)), tmp_path, log
    )


def test_two_nodes_are_one_group_of_processes(address, tmp_path):
    launcher = RayLauncher(address=address, nodes=2, python=group_interpreter(tmp_path))
    result = materialize(launcher, tmp_path, "together")
    assert result.success
    (materialization,) = result.asset_materializations_for_node("model")
    assert materialization.metadata["sum"].value == 1 + 2


@pytest.mark.long
def test_two_nodes_fail_with_the_error_of_one(address, tmp_path):
    launcher = RayLauncher(address=address, nodes=2, python=group_interpreter(tmp_path))
    described, _ = failure(materialize(launcher, tmp_path, "fails"))
    assert described.endswith("failed: the loss is nan at step 1: lower lr in the recipe")

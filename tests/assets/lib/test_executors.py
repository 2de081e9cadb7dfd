"""Who runs the steps is chosen by the environment, and the choices are what Dagster takes."""

import pytest
from dagster._config import validate_config

from assets.defs.resources import CHOICE, EXECUTORS, PASSED_ON, executor


@pytest.mark.parametrize("name", EXECUTORS)
def test_choice_is_made_and_its_configuration_valid(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(CHOICE, name)
    built_executor = executor()
    assert built_executor.name == name
    assert built_executor.config_schema is not None
    assert validate_config(built_executor.config_schema.config_type, {}).success
    resolved = built_executor.apply_config_mapping({"config": {}})
    assert resolved.success, resolved.errors


def test_unknown_choice_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(CHOICE, "slurm")
    with pytest.raises(
        ValueError, match="PROCCORPUS_EXECUTOR is 'slurm': it may be in_process, ray, kubernetes"
    ):
        executor()


def test_no_secret_is_passed_on_to_ray(monkeypatch: pytest.MonkeyPatch):
    for name in ("PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "DAGSTER_POSTGRES_URL", *PASSED_ON):
        monkeypatch.setenv(name, f"marked-{name}")
    monkeypatch.setenv(CHOICE, "ray")
    resolved = executor().apply_config_mapping({"config": {}})
    assert resolved.value is not None
    ray_config = resolved.value["config"]["ray"]
    assert ray_config["env_vars"] == list(PASSED_ON)
    assert ray_config["num_cpus"] == 1.0

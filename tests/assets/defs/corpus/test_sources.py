"""Sources of datasets in Dagster: there when the code location is loaded, looked at, and with a check of each."""

from pathlib import Path

import dagster as dg
import pytest

from assets.definitions import defs
from assets.defs.corpus import sources
from assets.defs.resources import CorpusResource
from assets.lib.events import UP_TO_DATE, source_key
from tests.kits.cli_kit import write_configs
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import LENGTHS, write_rows


def test_a_dataset_of_the_configuration_is_there_when_it_is_loaded(
    own: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    config = write_configs(tmp_path, {"later": f"source: {own.source}\n"})
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("PROCCORPUS_WORKSPACE", str(own.space.root))
    monkeypatch.setenv("PROCCORPUS_CONFIG", str(config))
    graph = defs().resolve_asset_graph()
    with dg.DagsterInstance.get() as instance:
        assert sorted(instance.get_dynamic_partitions("datasets")) == ["later", "tiny"]
        # No job has to have run: the new partition can be materialised
        job = defs().resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            asset_selection=[dg.AssetKey("episodes")], partition_key="later", instance=instance
        )
    assert result.success
    assert own.rows("SELECT count(*) FROM episode_facts WHERE dataset = 'later'") == [
        (len(LENGTHS),)
    ]
    for name in ("later", "tiny"):
        node = graph.get(source_key(name))
        assert node.is_observable
        assert node.freshness_policy == sources.NIGHTLY
        assert [key.name for key in node.check_keys] == [UP_TO_DATE]


def test_a_source_is_looked_at_and_told_whether_all_is_made_of_it(
    own: Made, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_configs(
        tmp_path,
        {"tiny": f"source: {own.source}\nchunk_size: 2\n", "other": f"source: {tmp_path}/gone\n"},
    )
    monkeypatch.setenv("PROCCORPUS_CONFIG", str(config))
    corpus = CorpusResource(root=str(own.space.root))
    looking = dg.define_asset_job(
        "looking", selection=dg.AssetSelection.assets(*map(source_key, ("other", "tiny")))
    )
    assets = [sources.source_assets(["other", "tiny"])]
    job = dg.Definitions(
        assets=assets, jobs=[looking], resources={"corpus": corpus}
    ).resolve_job_def("looking")

    def looked_at() -> dict[str, tuple[bool, str | None]]:
        """By dataset whether the check passes, and the version that was observed."""
        result = job.execute_in_process(instance=instance)
        assert result.success
        state_by_source = {}
        for check in result.get_asset_check_evaluations():
            event = instance.get_latest_data_version_record(check.asset_key)
            if event and event.asset_observation:
                version = event.asset_observation.data_version
            else:
                version = None
            state_by_source[check.asset_key.path[-1]] = (check.passed, version)
        return state_by_source

    state_before = looked_at()
    assert state_before["other"] == (False, None)
    write_rows(own.source, 2, LENGTHS[2], scale=3.0)
    state_after = looked_at()
    assert not state_after["tiny"][0]
    assert state_after["tiny"][1] != state_before["tiny"][1]

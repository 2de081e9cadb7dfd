"""A night's error has the reasons of both its halves, and one dataset's build is what a build of all would do."""

from pathlib import Path

import dagster as dg
import pytest

from assets.definitions import defs
from assets.defs.resources import CorpusResource, VlmServer
from assets.lib.events import RELEASABLE, UP_TO_DATE, source_key
from tests.kits.cli_kit import write_configs
from tests.kits.made_corpus import Made


def checks_of(instance: dg.DagsterInstance, *keys: dg.AssetCheckKey) -> dict[str, tuple[bool, str]]:
    """By asset whether the newest evaluation of a check passed, and what it says."""
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys))
    check_results = {}
    for key, record in records.items():
        evaluation = record.event.dagster_event.event_specific_data
        check_results[key.asset_key.to_user_string()] = (evaluation.passed, evaluation.description)
    return check_results


@pytest.mark.slow
def test_three_troubles_of_a_night_are_in_its_error_its_checks_and_its_report(
    own: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that is gone, one that holds no dataset, and no licence."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "notes.txt").write_text("they went to another place")
    sources = {"tiny": own.source, "other": tmp_path / "gone", "broken": broken}
    entries = {name: f"source: {source}\n" for name, source in sources.items()}
    config = write_configs(tmp_path, entries)
    monkeypatch.setenv("PROCCORPUS_CONFIG", str(config))
    job = defs().resolve_job_def("corpus")
    resources = {"corpus": CorpusResource(root=str(own.space.root)), "vlm_server": VlmServer()}
    with dg.instance_for_test() as instance:
        result = job.execute_in_process(
            run_config={"release": "nightly", "train": False, "workers": 1},
            instance=instance,
            resources=resources,
            raise_on_error=False,
        )
        keys = [dg.AssetCheckKey(source_key(name), UP_TO_DATE) for name in sources]
        check_results = checks_of(
            instance, *keys, dg.AssetCheckKey(dg.AssetKey("release"), RELEASABLE)
        )
        fresh = [
            name for name in sources if instance.get_latest_materialization_event(source_key(name))
        ]
    assert fresh == ["tiny"]
    assert not result.success
    [failed] = [event for event in result.all_events if event.is_step_failure]
    text = failed.step_failure_data.error_display_string
    assert "partial: 3 failed" in text
    troubles = {
        "sources/other": str(tmp_path / "gone"),
        "sources/broken": str(broken),
        "release": "nothing is left",
    }
    report = str(failed.step_failure_data.user_failure_data.metadata["failed"].records)
    for asset, reason_text in troubles.items():
        assert reason_text in text
        assert reason_text in report
        assert (check_results[asset][0], reason_text in check_results[asset][1]) == (False, True), (
            check_results[asset]
        )
    assert check_results["sources/tiny"][0]

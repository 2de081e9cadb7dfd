"""A night's error has the reasons of both its halves, and one dataset's build is what a build of all would do."""

from pathlib import Path

import dagster as dg
import pytest

from assets.definitions import defs
from assets.defs.resources import CorpusResource, VlmServer
from tests.kits.cli_kit import write_config, write_configs
from tests.kits.made_corpus import Made


@pytest.mark.slow
def test_a_source_that_is_gone_and_no_licence(own: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {name: f"source: {source}\n" for name, source in (("tiny", own.source), ("other", tmp_path / "gone"))}
    config = write_configs(tmp_path, entries)
    monkeypatch.setenv("PROCCORPUS_CONFIG", str(config))
    job = defs().resolve_job_def("corpus")
    resources = {"corpus": CorpusResource(root=str(own.space.root)), "vlm_server": VlmServer()}
    with dg.instance_for_test() as instance:
        done = job.execute_in_process(
            run_config={"release": "nightly", "train": False, "workers": 1},
            instance=instance,
            resources=resources,
            raise_on_error=False,
        )
    assert not done.success
    [failed] = [event for event in done.all_events if event.is_step_failure]
    text = failed.step_failure_data.error_display_string
    assert "partial: 2 failed" in text
    assert str(tmp_path / "gone") in text
    assert "nothing is left for a release" in text


def test_an_asset_builds_what_the_configuration_says(
    own: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = CorpusResource(root=str(own.space.root))
    monkeypatch.delenv("PROCCORPUS_CONFIG", raising=False)
    before = corpus.build("tiny")
    config = write_config(tmp_path, own.source, "[motion]\nstep_min_s = 1.1")
    monkeypatch.setenv("PROCCORPUS_CONFIG", str(config))
    after = corpus.build("tiny")
    assert (before.stages.motion.step_min_s, after.stages.motion.step_min_s) == (0.8, 1.1)
    [of_all] = [build for build in corpus.all_builds() if build.name == "tiny"]
    assert after.stages == of_all.stages
    assert after.dataset == of_all.dataset

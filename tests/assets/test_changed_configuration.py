"""A changed configuration has the same digest by every way in: asset, job, sensor, night and the command line."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from assets.definitions import defs
from assets.defs.corpus.jobs import source_revisions
from tests.assets.defs.corpus.test_assets import ASSETS, materialize, requests
from tests.kits.cli_kit import DONE, digest_of, run_here, write_config
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import LENGTHS, write_rows

pytestmark = pytest.mark.slow
CHUNKS = ("tiny:00000", "tiny:00001", "tiny:00002")


def by_command(own_corpus: Made, config: Path, instance: dg.DagsterInstance) -> None:
    assert (
        run_here("build", "--config", config, "--workspace", own_corpus.space.root, "--workers", 1)
        == DONE
    )


def by_assets(own_corpus: Made, config: Path, instance: dg.DagsterInstance) -> None:
    assert materialize([ASSETS["episodes"]], "tiny", own_corpus, instance).success
    of_chunk = [asset for name, asset in ASSETS.items() if name != "episodes"]
    for chunk in CHUNKS:
        assert materialize(of_chunk, chunk, own_corpus, instance).success


def by_job(own_corpus: Made, config: Path, instance: dg.DagsterInstance) -> None:
    assert defs().resolve_job_def("build").execute_in_process({"workers": 1}, instance).success


def by_sensor(own_corpus: Made, config: Path, instance: dg.DagsterInstance) -> None:
    [request] = requests(source_revisions, instance)
    assert defs().resolve_job_def("build").execute_in_process(request.run_config, instance).success


def by_night(own_corpus: Made, config: Path, instance: dg.DagsterInstance) -> None:
    night = {"release": "nightly", "train": False, "workers": 1}
    assert defs().resolve_job_def("corpus").execute_in_process(night, instance).success


def test_one_digest(
    made: Made, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest_before = digest_of(made.space.root)
    digests = {}
    ways: tuple[Callable[[Made, Path, dg.DagsterInstance], None], ...]
    ways = (by_command, by_assets, by_job, by_sensor, by_night)
    for way in ways:
        own_copy = made.copy(tmp_path / way.__name__)
        config = write_config(
            tmp_path / way.__name__ / "config",
            own_copy.source,
            '[motion]\nstep_min_s = 1.1\n[release]\nlicences = ["unknown"]',
        )
        monkeypatch.setenv("PROCCORPUS_WORKSPACE", str(own_copy.space.root))
        monkeypatch.setenv("PROCCORPUS_CONFIG", str(config))
        # The sensor asks where a source changed; a changed configuration alone waits for what builds next
        write_rows(own_copy.source, 2, LENGTHS[2], scale=3.0)
        way(own_copy, config, instance)
        digests[way.__name__] = digest_of(own_copy.space.root)
    assert digests["by_command"] != digest_before
    for name, digest in digests.items():
        assert digest == digests["by_command"], name

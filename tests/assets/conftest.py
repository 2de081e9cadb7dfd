"""One workspace built from a tiny dataset by the build loop; tests that change it take a copy."""

import os

import pytest
from made_corpus import Made, make


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell that runs the tests has set is not what is tested."""
    for name in [n for n in os.environ if n.startswith(("DAGSTER", "PROCCORPUS"))]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Five episodes in three chunks, up to date, unknown to Dagster; not for changing."""
    return make(tmp_path_factory.mktemp("made"))

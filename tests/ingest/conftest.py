"""Real samples of public datasets lie beside the checkout, where there are any."""

from pathlib import Path

import pytest

from core.paths import ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = (ROOT / ".." / "shared" / "data").resolve()
    if not folder.is_dir():
        pytest.skip("the real sample datasets are not on this machine")
    return folder

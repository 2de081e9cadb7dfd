"""Tests of what lies beside some checkouts and may not be committed: elsewhere there is nothing here to run.

What they protect is protected everywhere by generated datasets with the same quirks, in the tests of the readers.
"""

import pytest

from tests.kits.real_data import BESIDE


@pytest.fixture(autouse=True)
def _is_beside() -> None:
    if not (BESIDE / "data").is_dir():
        pytest.skip("the shared datasets are not here")

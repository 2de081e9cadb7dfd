"""What is exported."""

from collections.abc import Iterator

import pytest

from tests.kits.lake_kit import opened
from tests.kits.made_corpus import Made
from warehouse.lake import Lake


@pytest.fixture(scope="module")
def made_lake(made: Made) -> Iterator[Lake]:
    """The lake of the shared corpus; not for changing."""
    with opened(made.space, read_only=True) as lake:
        yield lake

"""The code location: it loads anywhere, and each asset says what an owner or a reader has to know."""

import dagster as dg
import pytest

from assets.defs.corpus.partitions import parse_chunk_key
from pipeline.stages import STAGES as CORPUS
from tests.kits.staleness import definitions

STAGE_OF_NAME = {stage.name: stage for stage in CORPUS}
STAGES = tuple(STAGE_OF_NAME)


@pytest.fixture(scope="module")
def specs() -> dict[str, dg.AssetSpec]:
    return {s.key.to_user_string(): s for s in definitions().resolve_all_asset_specs()}


# Partition keys


@pytest.mark.parametrize("key", ["", "tiny", "tiny:", "tiny:x", "tiny:-1", "tiny:0001x", "tiny 00001", ":00001"])
def test_a_bad_chunk_key_is_refused_by_name(key: str) -> None:
    with pytest.raises(ValueError, match="chunk key") as refused:
        parse_chunk_key(key)
    assert repr(key) in str(refused.value)


# Conditions

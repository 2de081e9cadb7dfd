"""The code location: it loads anywhere, and each asset says what an owner or a reader has to know."""

import pytest

from assets.defs.corpus.partitions import parse_chunk_key

# Partition keys


@pytest.mark.parametrize("key", ["", "tiny", "tiny:", "tiny:x", "tiny:-1", "tiny:0001x", "tiny 00001", ":00001"])
def test_a_bad_chunk_key_is_refused_by_name(key: str) -> None:
    with pytest.raises(ValueError, match="chunk key") as refused:
        parse_chunk_key(key)
    assert repr(key) in str(refused.value)

"""Encoders with weights are tried where the weights are."""

import pytest

from annotate.embeddings import encoders
from annotate.embeddings.config import EmbeddingsConfig
from annotate.embeddings.encoders import lack


@pytest.fixture
def mobilenet() -> EmbeddingsConfig:
    """mobilenet_v2 on the CPU."""
    config = EmbeddingsConfig(device="cpu")
    if missing := lack(config):
        pytest.skip(missing)
    encoders._load.cache_clear()
    return config

"""Partition keys: `datasets` holds dataset names, `chunks` holds <dataset>:<chunk:05d>."""

import dagster as dg

datasets = dg.DynamicPartitionsDefinition(name="datasets")
chunks = dg.DynamicPartitionsDefinition(name="chunks")


def chunk_key(dataset: str, chunk: int) -> str:
    return f"{dataset}:{chunk:05d}"


def parse_chunk_key(key: str) -> tuple[str, int]:
    """Inverse of chunk_key; raises ValueError."""
    dataset, _, chunk = key.rpartition(":")
    if not dataset or not chunk.isdecimal():
        raise ValueError(f"{key!r} is not a chunk key: expected <dataset>:<number>, such as sim_short:00002")
    return dataset, int(chunk)

"""Batches that made a loss or a gradient which is no number: kept in files, so that they can be looked at."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


@dataclass(frozen=True)
class SpoiltBatch:
    """`number`: of the step's batches of this process, from 0; `keys`: of the samples in it."""

    number: int
    tensors: Mapping[str, torch.Tensor]
    keys: Sequence[str]


def keep_spoilt(steps: Path, step: int, process: int, batches: Sequence[SpoiltBatch], why: str) -> str:
    """Write this process's batches below the folder of a run's checkpoints, and tell of those of all processes.

    All processes call it, and all are given the same words.
    """
    from accelerate.utils import gather_object

    folder = steps / f"spoilt-{step:08d}"
    written = []
    for batch in batches:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"process-{process}-batch-{batch.number}.safetensors"
        facts = {"step": step, "process": process, "batch": batch.number, "why": why, "samples": list(batch.keys)}
        tensors = {name: t.detach().cpu().contiguous().clone() for name, t in batch.tensors.items()}
        save_file(tensors, path, {"facts": json.dumps(facts)})
        written.append((str(path), list(batch.keys)))
    found = sorted(gather_object(written))
    path, keys = found[0]
    more = f" (and {len(found) - 1} more files beside it)" if len(found) > 1 else ""
    samples = ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
    return f"the batch that made it is kept in {path}{more}: training.spoilt.read_spoilt reads it. Samples: {samples}"


def read_spoilt(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A kept batch: its tensors by name, and step, process, batch, why, samples. Raises OSError, SafetensorError."""
    from safetensors import safe_open

    with safe_open(path, "pt") as f:
        return {name: f.get_tensor(name) for name in f.keys()}, json.loads(f.metadata()["facts"])  # noqa: SIM118

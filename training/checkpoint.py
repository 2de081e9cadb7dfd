"""Checkpoints to go on from: a model folder, and beside the model the optimizer, the data's position and all chance.

A folder appears whole or not at all. Safetensors and JSON only, the optimizer's state included.
"""

import json
import random
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from training.backbones import ModelError

OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"


def step_folder(steps: Path, step: int) -> Path:
    return steps / f"step-{step:08d}"


def saved_steps(steps: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first; half-written ones bear other names."""
    return sorted(p for p in steps.glob("step-*") if (p / STATE_FILE).exists())


def remove_old(steps: Path, keep: int) -> None:
    for path in saved_steps(steps)[:-keep]:
        shutil.rmtree(path)


@dataclass(frozen=True)
class TrainerState:
    """Where a run stands after `step` steps: samples drawn, the streams of all processes, the curve so far, and the
    generators' states of all processes."""

    step: int
    drawn: int
    left_out: int
    streams: list[dict]
    chance: list[dict]
    curve: list[dict]


def save_state(folder: Path, state: TrainerState, optimizer: Mapping[str, Any]) -> None:
    """`optimizer` as torch.distributed.checkpoint.state_dict gives it: by names of parameters."""
    tensors, settings = {}, []
    for name, values in optimizer["state"].items():
        for key, value in values.items():
            tensors[f"{name}/{key}"] = torch.as_tensor(value).contiguous()
    for group in optimizer["param_groups"]:
        settings.append({k: list(v) if isinstance(v, tuple) else v for k, v in group.items()})
    save_file(tensors, folder / OPTIMIZER_FILE)
    text = json.dumps(asdict(state) | {"param_groups": settings})
    (folder / STATE_FILE).write_text(text + "\n")


def load_state(folder: Path) -> tuple[TrainerState, dict[str, Any]]:
    """Raises ModelError."""
    try:
        facts = json.loads((folder / STATE_FILE).read_text())
        groups = facts.pop("param_groups")
        state: dict[str, dict[str, torch.Tensor]] = {}
        for key, value in load_file(folder / OPTIMIZER_FILE).items():
            name, _, what = key.rpartition("/")
            state.setdefault(name, {})[what] = value
        for group in groups:
            group["betas"] = tuple(group["betas"])
        return TrainerState(**facts), {"state": state, "param_groups": groups}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as e:
        raise ModelError(f"the checkpoint {folder} cannot be gone on from: {' '.join(str(e).split())[:300]}") from e


def chance_state() -> dict[str, Any]:
    """All generators of this process; JSON."""
    found: dict[str, Any] = {"torch": torch.get_rng_state().numpy().tobytes().hex()}
    version, numbers, gauss = random.getstate()
    found["python"] = [version, list(numbers), gauss]
    kind, keys, *rest = np.random.get_state(legacy=True)
    found["numpy"] = [kind, np.asarray(keys).tolist(), *rest]
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state().numpy().tobytes().hex()
    return found


def set_chance(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(_bytes(state["torch"]))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(tuple(state["numpy"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_bytes(state["cuda"]))


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)

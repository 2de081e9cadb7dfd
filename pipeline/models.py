"""The checkpoints of a workspace, found. Does without what trains or serves them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.names import did_you_mean
from core.paths import Workspace
from training.folder import CARD, ModelError, base_of, checkpoints, read_card


def models_folder(space: Workspace) -> Path:
    return space.root / "models"


def model_folder(space: Workspace, model: str) -> Path:
    """The folder of a model of the workspace (`latest`, a recipe's name: the newest), or of a checkpoint anywhere.

    Raises ModelError, TrainingError.
    """
    # A recipe's name, or `latest`, is a training run's; a folder is not looked for in the lake
    if space.exists() and "/" not in model:
        from training.runs import named_in  # imports the lake

        model = named_in(space, model)
    folders_by_name = {folder.name: folder for folder in checkpoints(models_folder(space))}
    if model in folders_by_name:
        return folders_by_name[model]
    if (Path(model) / CARD).exists():
        return Path(model)
    has = ", ".join(folders_by_name) or "none yet (proccorpus train)"
    near = did_you_mean(model, folders_by_name)
    raise ModelError(
        f"no model {model!r} and no checkpoint of ours there; the workspace has: {has}{near}"
    )


def _is_there(card: Mapping[str, Any], releases: Mapping[str, str]) -> str | None:
    """Is the release there that a model was trained on? None of a model that was trained on none."""
    name = card.get("release")
    # A model that was adapted bears the name of its episode
    if name is None or card.get("adapted_to"):
        return None
    if name not in releases:
        return "deleted"
    if releases[name] == card.get("release_hash"):
        return "there"
    return "another of its name"


def model_rows(space: Workspace) -> list[dict[str, Any]]:
    """What each checkpoint is, for people."""
    rows = []
    contents_by_release: dict[str, str] = {}
    if space.exists():
        from warehouse.lake import Lake  # what finds a model's folder starts without the lake

        lake = Lake(space, read_only=True)
        contents_by_release = dict(lake.rows("SELECT name, config_hash FROM releases"))
    for folder in checkpoints(models_folder(space)):
        card = read_card(folder)
        base = base_of(folder)
        merged = card.get("merged", {})
        if base:
            kind = f"adapter of {base.name}"
        elif merged:
            kind = f"{merged['adapter']} merged"
        else:
            kind = "whole"
        rows.append(
            {
                "model": folder.name,
                "is": kind,
                "head": (card.get("head") or {}).get("pooling", "none"),
                "release": card.get("release"),
                "release_is": _is_there(card, contents_by_release),
                "parameters": card.get("parameters"),
                "bytes": sum(p.stat().st_size for p in folder.glob("*.safetensors")),
            }
        )
    return rows

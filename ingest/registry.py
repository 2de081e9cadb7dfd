"""The registry of datasets: one YAML file each, validated by a typed model."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

BUILT_IN = Path(__file__).parent / "datasets"
FORMATS = ("lerobot", "video")
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]*$"


class RegistryError(Exception):
    """A registry entry that cannot be used: which file, which field, what to do."""


class Cameras(BaseModel):
    """Camera keys by role, as in the source."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    exo: tuple[str, ...] = ()
    ego: tuple[str, ...] = ()
    wrist: tuple[str, ...] = ()

    def ordered(self) -> tuple[str, ...]:
        """By preference for labelling: what sees the whole scene first."""
        return (*self.exo, *self.ego, *self.wrist)


class Gripper(BaseModel):
    """Where the gripper opening is: an index or a name of a state or action dimension."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: Literal["state", "action"] = "state"
    dimension: int | str


class DatasetConfig(BaseModel):
    """One dataset: what its YAML file says. Names are lower-case letters, digits, '_' and '-'."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=NAME_PATTERN)
    title: str | None = None
    robot: str | None = None
    format: Literal["lerobot", "video"] | None = Field(default=None, description="found by looking when not given")
    source: str = Field(description="folder or file; relative to the YAML file")
    revision: str | None = None
    license: str | None = None
    fps: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="overrides what the source says")
    cameras: Cameras = Cameras()
    gripper: Gripper | None = None
    group_field: str | None = Field(default=None, description="episode metadata that names the session or start state")
    success_field: str = "success"
    role: Literal["train", "ood"] = "train"
    chunk_size: int = Field(default=500, ge=1)
    notes: str | None = None

    @field_validator("source")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must name a folder or file")
        return value


def plain_error(e: ValidationError) -> str:
    """A pydantic error in one line: fields and what is wrong with each."""
    parts = []
    for err in e.errors():
        where = ".".join(str(x) for x in err["loc"]) or "the file"
        what = "is not a known field" if err["type"] == "extra_forbidden" else err["msg"].lower()
        parts.append(f"{where}: {what}")
    return "; ".join(parts)


def load_entry(path: Path) -> DatasetConfig:
    """One registry file; `source` becomes absolute. Raises RegistryError."""
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as e:
        raise RegistryError(f"cannot read {path}: {e.strerror}") from e
    except (yaml.YAMLError, ValueError) as e:  # ValueError: not UTF-8, or a date such as 2024-13-45
        raise RegistryError(f"{path} is not valid YAML: {' '.join(str(e).split())}") from e
    if not isinstance(data, dict):
        raise RegistryError(f"{path} must hold a mapping of fields, such as name: and source:")
    try:
        entry = DatasetConfig(**data)
    except ValidationError as e:
        raise RegistryError(f"{path}: {plain_error(e)}") from e
    except TypeError as e:
        raise RegistryError(f"{path}: field names must be words ({e})") from e
    return entry.model_copy(update={"source": str((path.parent / entry.source).resolve())})


def load_registry(folders: list[Path]) -> dict[str, DatasetConfig]:
    """All entries of some folders by name; raises RegistryError for a bad file or a name used twice."""
    entries: dict[str, DatasetConfig] = {}
    for folder in folders:
        if not folder.is_dir():
            raise RegistryError(f"registry folder {folder} does not exist")
        for path in sorted(folder.glob("*.y*ml")):
            entry = load_entry(path)
            if entry.name in entries:
                raise RegistryError(f"{path}: the name {entry.name} is used by another file too")
            entries[entry.name] = entry
    return entries

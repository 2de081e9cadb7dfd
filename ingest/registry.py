"""The registry of datasets: one YAML file each, validated by a typed model."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import pydantic
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.annotators import CHOICES
from core.errors import UserError, checked_address, validation_message
from core.values import imported
from ingest.formats import FORMAT_NAMES
from ingest.reasons import LIMITS, Limits

if TYPE_CHECKING:
    FormatName = str
    AnnotatorChoice = str
else:
    # One of the names, which error messages and the reference page list
    FormatName = Literal[FORMAT_NAMES]
    AnnotatorChoice = Literal[CHOICES]

BUILT_IN = Path(__file__).parent / "datasets"
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]*$"
UNNAMED = "source"  # what a source is called that nothing gives a name


def name_of(text: str) -> str:
    """A dataset's name made of any text, such as a folder's; "" where nothing of it can be one.

    Example: name_of("gr1_unified.PnP Cup") == "gr1_unified_pnp_cup".
    """
    return re.sub(r"[^a-z0-9_-]+", "_", text.lower()).lstrip("_-").rstrip("_")


def _is_empty(value: Any) -> bool:
    """Of a field that entries have not always had: unless it is filled, what was built without it stays current."""
    return not value


class EntryPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cameras(EntryPart):
    """Camera keys by role, as in the source.

    A list alone is `views`: `cameras: [front, wrist]`. So is one name: `camera: front`.
    """

    views: tuple[str, ...] = Field(
        default=(),
        exclude_if=_is_empty,
        description="cameras that annotators look at, the main one first: visual change, VLM questions, embeddings and "
        "transfer use them all; default: only the first usable camera",
    )
    exo: tuple[str, ...] = Field(
        default=(), description="external cameras that see the whole scene"
    )
    ego: tuple[str, ...] = Field(
        default=(), description="cameras on the robot's or a person's head"
    )
    wrist: tuple[str, ...] = Field(default=(), description="cameras on a hand")
    bgr: tuple[str, ...] = Field(
        default=(), description="cameras whose pictures are stored as BGR although RGB is meant"
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _views_alone(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"views": [value]}
        if isinstance(value, list | tuple):
            return {"views": value}
        return value

    @pydantic.field_validator("views")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("names a camera twice")
        return value

    def ordered(self) -> tuple[str, ...]:
        """By preference for labelling: the views, then what sees the whole scene."""
        return tuple(dict.fromkeys((*self.views, *self.exo, *self.ego, *self.wrist)))


class Gripper(EntryPart):
    """Dimensions of state or action that hold an arm's gripper or hand, by index or name; a list for several arms."""

    arm: str = Field(default="", description="left, right, ...; empty: the robot has only one")
    column: Literal["state", "action", "none"] = Field(
        default="state", description="none: there is no gripper"
    )
    dimension: int | str | tuple[int | str, ...] = Field(
        default=(),
        description="index or name; several: the fingers, or the joints of a hand, that close together",
    )
    closed: float | None = Field(
        default=None,
        description="value of a closed gripper; needed with `open` if the range is not 0 to 1",
    )
    open: float | None = Field(default=None, description="value of an open gripper")

    @pydantic.model_validator(mode="after")
    def _both_ends(self) -> Self:
        if (self.closed is None) != (self.open is None) or (
            self.closed is not None and self.closed == self.open
        ):
            raise ValueError("closed and open go together, and differ")
        return self

    def dimensions(self) -> tuple[int | str, ...]:
        if isinstance(self.dimension, tuple):
            return self.dimension
        return (self.dimension,)


# Forms of the field `gripper`; error messages leave out what stands in angle brackets
ONE = "<one>"
SEVERAL = "<several>"


OneOrSeveral = Annotated[
    Annotated[Gripper, pydantic.Tag(ONE)] | Annotated[tuple[Gripper, ...], pydantic.Tag(SEVERAL)],
    pydantic.Discriminator(lambda value: SEVERAL if isinstance(value, list | tuple) else ONE),
]


class Keys(EntryPart):
    """Paths of fields in RLDS steps and HDF5 files; several paths are tried, or joined, in order.

    For LeRobot: columns, for `state`, `action` and `language`. For plain videos: names of the
    arrays beside them, for `state` and `action`.
    """

    state: tuple[str, ...] = Field(default=(), description="joined to one vector")
    action: tuple[str, ...] = Field(default=(), description="joined to one vector")
    language: tuple[str, ...] = Field(
        default=(), description="every path that exists gives one text of the episode"
    )
    episode_id: tuple[str, ...] = Field(default=(), description="joined to the id of the episode")
    success: tuple[str, ...] = Field(default=(), description="the first path that exists is used")

    def joined(self, column: Literal["state", "action"]) -> tuple[str, ...]:
        return self.state if column == "state" else self.action


class Published(EntryPart):
    """Published facts, which a complete copy should match."""

    fps: float | None = None
    episodes: int | None = None
    frames: int | None = None
    tasks: int | None = None
    image_shape: str | None = None
    state_dim: str | None = None
    action_dim: str | None = None


class DatasetConfig(EntryPart):
    """One dataset: what its YAML file says. Names are lower-case letters, digits, '_' and '-'."""

    name: str = Field(
        pattern=NAME_PATTERN,
        description="a-z, 0-9, _ and -; rows refer to it, so it must not change",
    )
    title: str | None = Field(default=None, description="title for people to read")
    robot: str | None = Field(
        default=None, description="robot's name for people to read; default: from the source"
    )
    format: FormatName | None = Field(
        default=None, description="format of the source; default: detected"
    )
    source: str = Field(
        description="folder or file (relative to the YAML file), hf://owner/name, or a gs://, s3:// or https:// address"
    )
    revision: str | None = Field(
        default=None,
        description="hub: commit or branch to read; default: the newest commit at the first build",
    )
    folders: tuple[str, ...] = Field(
        default=(),
        description='folders of the source that are each a dataset, by name or pattern ("*": all): each is built as '
        "<name>-<folder>",
    )
    license: str | None = Field(
        default=None,
        description="licence stated by the publisher; data without a licence is not released",
    )
    citation: str | None = Field(default=None, description="citation for release cards")
    fps: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="frames per second; overrules the source",
    )
    fps_note: str | None = Field(default=None, description="warning about the stated rate")
    cameras: Cameras = Cameras()
    gripper: OneOrSeveral | None = Field(
        default=None,
        description="default: found by names and values; for several arms a list with one entry each",
    )
    keys: Keys = Keys()
    instruction: Literal["given", "paraphrases", "timed_steps", "uninformative"] = Field(
        default="given",
        description="given: the first text; paraphrases: one of several, chosen by hash of the episode; timed_steps: "
        "the whole task's text, and spans with texts of their own; uninformative: the text is kept but not used",
    )
    task: str | None = Field(
        default=None,
        exclude_if=_is_empty,
        min_length=1,
        max_length=1000,
        description="instruction of the episodes for which the source has none: what all of them do",
    )
    annotator: AnnotatorChoice | None = Field(
        default=None, description="annotator of this dataset; overrules the build's"
    )
    bad_episodes: dict[str, str] = Field(
        default={}, description="source_id of each broken episode, and the reason"
    )
    group_field: str | None = Field(
        default=None, description="episode metadata that names the session or start state"
    )
    success_field: str = Field(
        default="success",
        description="metadata or column with the outcome of a run; read before other fields",
    )
    role: Literal["train", "ood"] = Field(
        default="train", description="ood: the whole dataset is held out"
    )
    chunk_size: int = Field(
        default=500, ge=1, description="episodes per partition; never changes once built"
    )
    limits: Limits = LIMITS
    published: Published = Published()
    notes: str | None = Field(default=None, description="remarks for users of the data")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _one_camera(cls, value: Any) -> Any:
        """`camera: front` is a list of one."""
        if not isinstance(value, dict) or "camera" not in value:
            return value
        if "cameras" in value:
            raise ValueError("give camera or cameras, not both")
        return {name: of_name for name, of_name in value.items() if name != "camera"} | {
            "cameras": [value["camera"]]
        }

    @pydantic.field_validator("task")
    @classmethod
    def _one_line(cls, value: str | None) -> str | None:
        """As the texts of sources are: without space around it."""
        if value is not None and not value.strip():
            raise ValueError("must say what the episodes do")
        return value and " ".join(value.split())

    @pydantic.field_validator("source")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must name a folder, a file or an address")
        return checked_address(value)

    @pydantic.field_validator("gripper")
    @classmethod
    def _one_of_each_arm(
        cls, value: Gripper | tuple[Gripper, ...] | None
    ) -> Gripper | tuple[Gripper, ...] | None:
        if isinstance(value, tuple):
            arms = [gripper.arm for gripper in value]
            if not arms or len(set(arms)) < len(arms):
                raise ValueError(
                    "a list holds one gripper of each arm, and each says which (arm: left)"
                )
        return value

    @property
    def is_remote(self) -> bool:
        return "://" in self.source

    @property
    def is_on_hub(self) -> bool:
        """Has it commits?"""
        return self.source.startswith("hf://")

    @property
    def grippers(self) -> tuple[Gripper, ...]:
        """What is registered of its grippers; empty where nothing is."""
        if self.gripper is None:
            return ()
        if isinstance(self.gripper, tuple):
            return self.gripper
        return (self.gripper,)


def load_entry(path: Path) -> DatasetConfig:
    """One registry file; `source` becomes absolute. Raises UserError."""
    try:
        fields = imported("core.yaml_text:parse_yaml")(path.read_text())
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from e
    except ValueError as e:  # also not UTF-8, or a date such as 2024-13-45
        raise UserError(f"{path} is not valid YAML: {' '.join(str(e).split())}") from e
    if not isinstance(fields, dict):
        raise UserError(f"{path} must hold a mapping of fields, such as name: and source:")
    try:
        entry = DatasetConfig(**fields)
    except ValidationError as e:
        raise UserError(f"{path}: {validation_message(e)}") from e
    except TypeError as e:
        raise UserError(f"{path}: field names must be words ({e})") from e
    if entry.is_remote:
        return entry
    # A path counts from the entry's file, so that both can be moved together
    return entry.model_copy(update={"source": str((path.parent / entry.source).resolve())})


def load_registry(folders: list[Path]) -> dict[str, DatasetConfig]:
    """All entries of some folders by name; raises UserError for a bad file or a name used twice."""
    entries: dict[str, DatasetConfig] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"registry folder {folder} does not exist")
        for path in sorted(folder.glob("*.y*ml")):
            entry = load_entry(path)
            if entry.name in entries:
                raise UserError(f"{path}: the name {entry.name} is used by another file too")
            entries[entry.name] = entry
    return entries


# For people and scripts: one row per dataset, and all that is known of one


Built = Mapping[str, Mapping[str, Any]]  # rows of the lake's table `datasets`, by name
COLUMNS = ("dataset", "title", "robot", "format", "role", "license", "episodes", "source")


def overview(entries: Mapping[str, DatasetConfig], built: Built) -> list[dict[str, Any]]:
    """One row per dataset of the registry, then those that only the workspace knows. `episodes` is as published."""
    rows = []
    for name in sorted(built.keys() | entries.keys()):
        if entry := entries.get(name):
            fields = entry.model_dump(mode="json")
            fields |= {"dataset": name, "episodes": entry.published.episodes}
        else:
            fields = {**built[name], "episodes": None, "source": built[name]["source_uri"]}
        row = {column: fields[column] for column in COLUMNS}
        rows.append(row | {"built": name in built})
    return rows


def facts(entry: DatasetConfig | None, row: Mapping[str, Any] | None) -> dict[str, Any]:
    """The registry entry of a dataset, overruled by the configuration that the workspace was built with."""
    fields: dict[str, Any] = {}
    if entry:
        fields = {"dataset": entry.name} | entry.model_dump(mode="json")
        fields |= {"cameras": list(entry.cameras.ordered()), "cameras_by_role": fields["cameras"]}
    return (
        fields
        | {k: v for k, v in (row or {}).items() if v is not None}
        | {"built": row is not None}
    )


def readable(fields: Mapping[str, Any]) -> list[dict[str, str]]:
    """Facts as lines of text: no empty ones, cameras by role, the gripper as an index into its vector, notes last."""
    flat: dict[str, Any] = {}
    for key in sorted(fields, key=lambda k: k == "notes"):
        flat |= _flattened(key, fields)
    filled = {key: value for key, value in flat.items() if value not in (None, "", [])}
    return [{"field": key, "value": _text(value)} for key, value in filled.items()]


def _flattened(key: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A fact as lines: one, or one for each of its parts."""
    value = fields[key]
    # The name is `dataset` too, and roles are shown in the place of the cameras
    if key in ("name", "cameras_by_role"):
        return {}
    if key == "gripper" and value:
        return {key: _grippers(value)}
    # Without a registry entry only the cameras' order is known
    if key == "cameras" and "cameras_by_role" in fields:
        value = fields["cameras_by_role"]
    if isinstance(value, Mapping):
        return {f"{key} {part}": of_part for part, of_part in value.items()}
    return {key: value}


def _grippers(value: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    """Of one arm, or of several. Example: "left: state[7], closed 1, open 0; right: state[15]"."""
    entries = [value] if isinstance(value, Mapping) else value
    return "; ".join(
        f"{entry['arm']}: {_gripper(entry)}" if entry["arm"] else _gripper(entry)
        for entry in entries
    )


def _gripper(entry: Mapping[str, Any]) -> str:
    """Example: "state[7], closed 1, open 0"."""
    if entry["column"] == "none":
        return "none"
    parts = [f"{entry['column']}[{d}]" for d in Gripper.model_validate(entry).dimensions()]
    if entry["open"] is not None:
        parts += [f"closed {entry['closed']:g}", f"open {entry['open']:g}"]
    return ", ".join(parts)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, int):
            return f"{value:,}"
        return f"{value:g}"
    return str(value)

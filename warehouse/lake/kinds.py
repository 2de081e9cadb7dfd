"""The kinds of statements: what each says beside its author, comment and place, as a model that checks it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class StatementValue(BaseModel):
    """What a statement says; a kind adds its fields. One that takes another back says nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Correction(StatementValue):
    """Of a label. status `rejected` without `undoes`: the label of base_label_run must not be used."""

    status: Literal["accepted", "review", "rejected"]
    base_label_run: str | None = None
    plan: list[str] | None = None
    segments: str | None = None
    final_progress: float | None = None
    catastrophic_frame: int | None = None


class Outcome(StatementValue):
    """How a run ended; null: the row takes an import back."""

    success: bool | None
    file: str | None = None


class Reference(StatementValue):
    """Is a run a reference of its task, by the label of which run?"""

    is_reference: bool
    label_run: str | None = None


class Mark(StatementValue):
    """A tag, or the person whom an episode is assigned to: set, or removed."""

    value: str
    is_on: bool


class Acceptance(StatementValue):
    """Are the faults that the check `subject` finds known?"""

    is_accepted: bool


class Takedown(StatementValue):
    """A recording or dataset that must not be used; its comment is the reason."""


class JoinedTask(StatementValue):
    """The text that stands for the task text `subject`."""

    same_as: str


class Renamed(StatementValue):
    """A dataset has the name `to` from now on, for all that was said before."""

    to: str


class Build(StatementValue):
    """How a dataset is built, as `build_configs` has it: a lost catalog is made again with it."""

    config_hash: str
    config: str


KINDS: dict[str, type[StatementValue]] = {
    "correction": Correction,
    "outcome": Outcome,
    "reference": Reference,
    "tag": Mark,
    "assigned": Mark,
    "acceptance": Acceptance,
    "takedown": Takedown,
    "joined_task": JoinedTask,
    "renamed": Renamed,
    "build": Build,
}

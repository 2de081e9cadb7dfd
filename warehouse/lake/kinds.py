"""The kinds of statements: what each says beside its author, comment and place, as a model that checks it."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict


class StatementValue(BaseModel):
    """What a statement says; a kind adds its fields. One that takes another back says nothing.

    by_subject: each subject of a recording has statements of its own, of which the newest counts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    by_subject: ClassVar[bool] = True


class CorrectionValue(StatementValue):
    """Of a label. status `rejected` without `undoes`: the label of base_label_run must not be used."""

    by_subject = False
    status: Literal["accepted", "review", "rejected"]
    base_label_run: str | None = None
    plan: list[str] | None = None
    segments: str | None = None
    final_progress: float | None = None
    catastrophic_frame: int | None = None


class OutcomeValue(StatementValue):
    """How a run ended; null: the row takes an import back."""

    success: bool | None
    file: str | None = None


class ReferenceValue(StatementValue):
    """Is a run a reference of its task, by the label of which run?"""

    is_reference: bool
    label_run: str | None = None


class MarkValue(StatementValue):
    """A tag, or the person whom an episode is assigned to: set, or removed."""

    value: str
    is_on: bool


class AcceptanceValue(StatementValue):
    """Are the faults that the check `subject` finds known?"""

    is_accepted: bool


class TakedownValue(StatementValue):
    """A recording or dataset that must not be used; its comment is the reason."""


class JoinedTaskValue(StatementValue):
    """The text that stands for the task text `subject`."""

    same_as: str


class RenamedValue(StatementValue):
    """A dataset has the name `new_name` from now on, for all that was said before."""

    new_name: str


class BuildValue(StatementValue):
    """How a dataset is built, as `build_configs` has it: a lost catalog is made again with it."""

    config_hash: str
    config: str


KINDS: dict[str, type[StatementValue]] = {
    "correction": CorrectionValue,
    "outcome": OutcomeValue,
    "reference": ReferenceValue,
    "tag": MarkValue,
    "assigned": MarkValue,
    "acceptance": AcceptanceValue,
    "takedown": TakedownValue,
    "joined_task": JoinedTaskValue,
    "renamed": RenamedValue,
    "build": BuildValue,
}

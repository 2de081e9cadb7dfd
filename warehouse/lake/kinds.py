"""The kinds of statements: what each says beside its author, comment and place, as a model that checks it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class StatementValue(BaseModel):
    """What a statement says; a kind adds its fields. One that takes another back says nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CorrectionValue(StatementValue):
    """Of a label."""

    status: Literal["accepted", "review"]
    base_label_run: str | None = None
    plan: list[str] | None = None
    segments: str | None = None
    final_progress: float | None = None
    catastrophic_frame: int | None = None


class RejectionValue(StatementValue):
    """The label of the label run `subject` must not be used."""


class RecordingValue(StatementValue):
    """Is an episode the recording `subject`, which it resembles?"""

    is_same: bool


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
    """A recording or dataset that must not be used; its comment is the reason. copy_of: the recording that was taken
    down, of one that is a copy of it."""

    copy_of: str | None = None


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
    "rejection": RejectionValue,
    "recording": RecordingValue,
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

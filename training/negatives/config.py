"""Which samples of training are changed into others, and how often. Imports no torch."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

AS_RECORDED = "as_recorded"


class NegativesConfig(BaseModel):
    """Samples changed in training, so that counting pictures is not enough for a model. Test splits are never used.

    Each rate is the share of samples that are so changed; what is left is as it was recorded. Samples of other families
    than ProcVQA's c stay as they are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rewound: float = Field(default=0.0, ge=0, le=1, description="plays forward, then backward: progress falls")
    stood_still: float = Field(default=0.0, ge=0, le=1, description="shows one moment again and again: progress stays")
    other_task: float = Field(default=0.0, ge=0, le=1, description="has the instruction of another task: progress 0")
    other_speed: float = Field(default=0.0, ge=0, le=1, description="has pictures 0.5 to 2 times as far apart")

    @property
    def total(self) -> float:
        """Share of samples that are changed in any way."""
        return sum(getattr(self, kind) for kind in KINDS)

    @model_validator(mode="after")
    def _some_is_left(self) -> Self:
        if self.total > 1:
            raise ValueError(f"the rates are {self.total:g} together: at most 1")
        return self


KINDS = tuple(NegativesConfig.model_fields)
OTHER_TASK = "other_task"  # the instruction is changed, and progress is 0

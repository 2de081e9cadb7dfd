"""Settings of the transfer annotator."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

FORMER = ("hz", "failure_at")  # fields of earlier versions, which stored configurations may have


class TransferConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    max_references: int = Field(
        default=5, ge=1, description="most references per episode: those that begin with the most similar scene"
    )

    @model_validator(mode="before")
    @classmethod
    def _without_former(cls, values: Any) -> Any:
        return {k: v for k, v in values.items() if k not in FORMER} if isinstance(values, dict) else values

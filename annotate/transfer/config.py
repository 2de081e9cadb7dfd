"""Settings of the transfer annotator."""

from pydantic import BaseModel, ConfigDict, Field


class TransferConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    hz: float = Field(default=10, gt=0, le=60, description="moments per second at which runs are compared")
    max_references: int = Field(
        default=5, ge=1, description="most references per run: those with the most similar scene"
    )
    failure_at: float = Field(
        default=0.65, ge=0, le=1, description="runs with at least this probability of failure are labelled unfinished"
    )

"""Settings of the transfer annotator."""

from pydantic import BaseModel, ConfigDict, Field


class TransferConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    hz: float = Field(default=10, gt=0, le=60, description="moments per second that runs are compared at")
    max_references: int = Field(default=5, ge=1, description="of a run: those whose scene is the nearest")
    failure_at: float = Field(
        default=0.65, ge=0, le=1, description="a run that is as likely as this to have failed is labelled unfinished"
    )

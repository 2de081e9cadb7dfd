"""Settings of the transfer annotator."""

from typing import ClassVar

from pydantic import Field

from annotate.motion.config import Settings


class TransferConfig(Settings):
    former: ClassVar = ("hz", "failure_at")

    max_references: int = Field(
        default=5, ge=1, description="most references per episode: those that begin with the most similar scene"
    )

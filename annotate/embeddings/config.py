"""Configuration of the embeddings stage, with every default."""

from typing import Literal

from annotate.motion.config import Settings
from pydantic import Field, field_validator

KINDS = "mobilenet_v2, grey, torchvision:NAME or hf:FOLDER-or-NAME"


class EmbeddingsConfig(Settings):
    when: Literal["never", "references", "always"] = Field(
        default="references",
        description="references: for tasks with several runs, one of which a person, the source or an import labelled, "
        "if the encoder is installed",
    )
    encoder: str = Field(default="mobilenet_v2", description=f"encoder of the pictures: {KINDS}")
    hz: float = Field(default=5.0, gt=0, description="most pictures per second")
    cameras: Literal["preferred", "all"] | tuple[str, ...] = Field(
        default="preferred",
        description="preferred: the dataset's `cameras.views`, else the first usable camera; all: all usable "
        "cameras; or names",
    )
    grid: int = Field(default=4, ge=1, le=16, description="cells along each side of a picture")
    size_px: int | None = Field(
        default=None,
        ge=32,
        le=1024,
        description="side of the square that pictures are scaled to; null: the encoder's own",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: a GPU if there is one")

    @field_validator("encoder")
    @classmethod
    def _of_known_kind(cls, encoder: str) -> str:
        kind, _, name = encoder.partition(":")
        if encoder in ("mobilenet_v2", "grey") or (kind in ("torchvision", "hf") and name):
            return encoder
        raise ValueError(f"{encoder} is no encoder; known are {KINDS}")

"""Configuration of the model kind `laptop`. Imports no torch."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from annotate.config import EmbeddingsConfig

MAX_PX = 256  # longer side that pictures are decoded to: encoders see no more of them


class LaptopConfig(BaseModel):
    """A frozen picture encoder, an embedding of the task's words, and a small causal transformer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str = Field(default="mobilenet_v2", description="encoder of the pictures")
    size_px: int | None = Field(
        default=None, ge=32, le=1024, description="side of its pictures; absent: its own"
    )
    hidden: int = Field(default=128, ge=16, le=4096)
    layers: int = Field(default=2, ge=1, le=64)
    heads: int = Field(default=4, ge=1, le=64)
    most_frames: int = Field(default=8, ge=1, le=64, description="most pictures of a window")
    text_buckets: int = Field(
        default=4096, ge=64, le=1 << 20, description="rows that words are hashed into"
    )
    dropout: float = Field(default=0.1, ge=0, lt=1)
    feature_dropout: float = Field(
        default=0.3, ge=0, lt=1, description="dropout of a picture's embedding, in training"
    )
    views: int = Field(
        default=3, ge=1, description="times that a picture is encoded; all but one augmented"
    )
    done_weight: float = Field(default=0.2, ge=0, description="weight of the loss on the end state")
    # Not written where it is 0: runs of recipes without it keep their names
    trend_weight: float = Field(
        default=0.0,
        ge=0,
        exclude_if=lambda weight: not weight,
        description="weight of the loss on the trend (falling, still, rising); 0: no such output",
    )

    @field_validator("encoder")
    @classmethod
    def _known(cls, encoder: str) -> str:
        return EmbeddingsConfig(encoder=encoder).encoder

    @property
    def embeddings(self) -> EmbeddingsConfig:
        """The stage's configuration of the same encoder."""
        return EmbeddingsConfig(encoder=self.encoder, size_px=self.size_px)

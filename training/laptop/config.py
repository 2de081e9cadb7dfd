"""Configuration of the model kind `laptop`. Imports no torch."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from annotate.embeddings.config import EmbeddingsConfig

MAX_PX = 256  # longer side that pictures are decoded to: encoders see no more of them


class LaptopConfig(BaseModel):
    """A frozen picture encoder, a text encoder that is trained with the model, and a small causal transformer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str = Field(
        default="mobilenet_v2", description="encoder of the pictures: one that the stage embeddings knows"
    )
    size_px: int | None = Field(
        default=None, ge=32, le=1024, description="side of the encoder's pictures; absent: its own"
    )
    hidden: int = Field(default=128, ge=16)
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    most_frames: int = Field(
        default=8, ge=1, le=64, description="most pictures of a window; fewer if the release has fewer"
    )
    text_buckets: int = Field(default=4096, ge=64, description="rows of the embedding table that words are hashed into")
    text_encoder: str | None = Field(
        default=None, description="folder of a frozen text encoder for transformers, instead of hashed words"
    )
    dropout: float = Field(default=0.1, ge=0, lt=1)
    feature_dropout: float = Field(default=0.3, ge=0, lt=1, description="dropout of a picture's embedding, in training")
    numbers_from: Literal["shards", "lake"] = Field(
        default="shards",
        description="shards: encode the pictures of shards; lake: use the rows of the stage embeddings",
    )
    cameras: tuple[str, ...] = Field(
        default=(),
        description="several cameras of a run, by their names in the lake; needs numbers_from: lake",
    )
    state: bool = Field(default=False, description="use the robot's state with the pictures, for runs that have one")
    views: int = Field(
        default=3, ge=1, description="number of times that each picture is encoded; all but the first are augmented"
    )
    done_weight: float = Field(
        default=0.2, ge=0, description="weight of the loss on the end state relative to that on progress"
    )
    preference: bool = Field(
        default=False, description="add a head that says which of two runs is better: see data.preferences"
    )

    @field_validator("encoder")
    @classmethod
    def _known(cls, encoder: str) -> str:
        return EmbeddingsConfig(encoder=encoder).encoder

    @model_validator(mode="after")
    def _cameras_are_stored(self) -> Self:
        if self.cameras and self.numbers_from != "lake":
            raise ValueError("cameras: shards show one camera of a run: numbers_from: lake has what several have shown")
        if len(set(self.cameras)) < len(self.cameras):
            raise ValueError("cameras: each name once")
        return self

    @property
    def embeddings(self) -> EmbeddingsConfig:
        """The stage's configuration of the same encoder."""
        return EmbeddingsConfig(encoder=self.encoder, size_px=self.size_px)


class PreferencesConfig(BaseModel):
    """Pairs of runs of one task, one of which is further, or better. Test splits are never used.

    Each rate is how many pairs are drawn for each window of a batch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    further: float = Field(default=0.0, ge=0, le=1, description="pairs of two moments with different labels")
    outcome: float = Field(default=0.0, ge=0, le=1, description="pairs of the ends of a success and a failure")
    quality: float = Field(
        default=0.0, ge=0, le=1, description="pairs of two whole runs, one with a much better demonstration quality"
    )

    @property
    def total(self) -> float:
        return self.further + self.outcome + self.quality

"""What the model kind `laptop` can be told. Imports no torch."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from annotate.embeddings.config import EmbeddingsConfig

MAX_PX = 256  # longer side that pictures are decoded to: encoders see no more of them


class LaptopConfig(BaseModel):
    """A frozen picture encoder, a text encoder that is trained with the model, and a small causal transformer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str = Field(default="mobilenet_v2", description="who looks at the pictures: as the stage embeddings has")
    size_px: int | None = Field(default=None, ge=32, le=1024, description="side of its pictures; absent: its own")
    hidden: int = Field(default=128, ge=16)
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    most_frames: int = Field(default=8, ge=1, le=64, description="pictures of a window at most; the release's if fewer")
    text_buckets: int = Field(default=4096, ge=64, description="rows of the table that words are hashed into")
    text_encoder: str | None = Field(
        default=None, description="folder of a frozen text encoder of transformers in place of hashed words"
    )
    dropout: float = Field(default=0.1, ge=0, lt=1)
    feature_dropout: float = Field(default=0.3, ge=0, lt=1, description="of a picture's numbers, in training")
    numbers_from: Literal["shards", "lake"] = Field(
        default="shards",
        description="pictures of shards, which are looked at; or of what the stage embeddings has seen in the videos",
    )
    cameras: tuple[str, ...] = Field(
        default=(),
        description="several of a run's, by their names in the lake, looked at together; with numbers_from: lake",
    )
    state: bool = Field(default=False, description="the robot's state beside the pictures, of runs that have one")
    views: int = Field(default=3, ge=1, description="how often each picture is looked at; all but once varied")
    done_weight: float = Field(default=0.2, ge=0, description="of the loss on the end state beside that on progress")
    preference: bool = Field(default=False, description="a head that says which of two is better: data.preferences")

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
    """Pairs of runs of one task, one of which is further, or better. Never of a test split.

    Each rate is how many pairs are drawn for each window of a batch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    further: float = Field(default=0.0, ge=0, le=1, description="two moments whose labels are apart")
    outcome: float = Field(default=0.0, ge=0, le=1, description="the ends of a success and a failure")
    quality: float = Field(default=0.0, ge=0, le=1, description="two whole runs, one demonstrated far more as usual")

    @property
    def total(self) -> float:
        return self.further + self.outcome + self.quality

"""The configuration of the shards stage."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from core.errors import checked_address


class ShardsConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    picture_max_px: int = Field(default=256, ge=32, description="longer side of a stored picture")
    jpeg_quality: int = Field(default=90, ge=50, le=100, description="of pictures that are made smaller")
    target_bytes: int = Field(default=256 << 20, ge=1, description="a tar is closed once it has so many")
    store: str | None = Field(
        default=None, description="bucket or folder for shards, such as s3://bucket/corpus; default: the workspace"
    )

    @field_validator("store")
    @classmethod
    def _no_secret(cls, value: str | None) -> str | None:
        return value and checked_address(value)

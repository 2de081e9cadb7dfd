"""Settings of annotators, embeddings and samples, with every default. Those of an annotator are part of the identity of
its label runs."""

from typing import Any, ClassVar

from pydantic import BaseModel, Field, model_validator


class Settings(BaseModel, extra="forbid", frozen=True):
    """`former`: fields of earlier versions, which stored configurations may have."""

    former: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _without_former(cls, values: Any) -> Any:
        return {k: v for k, v in values.items() if k not in cls.former} if isinstance(values, dict) else values


class MotionConfig(Settings):
    """docs/truth.md has what each value is worth on robots that it was not chosen on."""

    former: ClassVar = ("slow_speed", "turn_s", "turn")

    smooth_s: float = Field(default=0.15, gt=0, description="window of the moving averages")
    pause_speed: float = Field(default=0.06, gt=0, description="the arm pauses below this share of its fast speed")
    end_speed: float = Field(
        default=0.15, gt=0, description="an episode counts as ended below this share of its fast speed"
    )
    idle_min_s: float = Field(default=0.7, gt=0, description="a shorter pause is part of a step")
    start_min_s: float = Field(default=0.5, gt=0, description="an arm that rests this long before it starts is waiting")
    end_min_s: float = Field(default=0.25, gt=0, description="a rest of this length at the end is its own segment")
    gripper_swing: float = Field(
        default=0.25, gt=0, le=1, description="a gripper event covers at least this share of the gripper's range"
    )
    step_min_s: float = Field(
        default=0.8, gt=0, description="a grasp that usually takes less time is no step of its own"
    )

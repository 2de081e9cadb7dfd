"""The configuration of the motion annotator. It is part of the identity of every label run."""

from pydantic import BaseModel, ConfigDict, Field


class MotionConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    smooth_s: float = Field(default=0.15, gt=0, description="window of the moving averages")
    pause_speed: float = Field(default=0.06, gt=0, description="the arm pauses below this share of its fast speed")
    end_speed: float = Field(default=0.15, gt=0, description="a run counts as ended below this share of its fast speed")
    idle_min_s: float = Field(default=0.7, gt=0, description="a shorter stand-still is part of a step")
    start_min_s: float = Field(default=0.5, gt=0, description="an arm that rests this long before it starts is waiting")
    end_min_s: float = Field(
        default=0.25, gt=0, description="a stand-still of this length at the end becomes its own segment"
    )
    gripper_swing: float = Field(
        default=0.25, gt=0, le=1, description="a gripper event covers at least this share of the gripper's range"
    )
    slow_speed: float = Field(
        default=0.35, gt=0, description="a dip below this share of the surrounding speed is a boundary between steps"
    )
    step_min_s: float = Field(default=0.8, gt=0, description="shorter pieces are merged with a neighbour")
    turn_s: float = Field(
        default=0.4, gt=0, description="duration of the motion before and after a turn that is compared"
    )
    turn: float = Field(
        default=0.13,
        gt=0,
        description="smallest turn that counts, as a share of the largest possible: straight back at full speed",
    )

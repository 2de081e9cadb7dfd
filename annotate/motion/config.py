"""The configuration of the motion annotator. It is part of the identity of every label run."""

from pydantic import BaseModel, ConfigDict, Field


class MotionConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    smooth_s: float = Field(default=0.15, gt=0, description="window of the moving averages")
    pause_speed: float = Field(default=0.06, gt=0, description="share of the fast speed below which the arm pauses")
    end_speed: float = Field(default=0.15, gt=0, description="share of it below which a run is taken to have ended")
    idle_min_s: float = Field(default=0.7, gt=0, description="a shorter stand-still is part of a step")
    start_min_s: float = Field(default=0.5, gt=0, description="an arm that rests so long before it sets out is waiting")
    end_min_s: float = Field(default=0.25, gt=0, description="a stand-still at the end this long is an end of its own")
    gripper_swing: float = Field(default=0.25, gt=0, le=1, description="share of its range that an event covers")
    slow_speed: float = Field(default=0.35, gt=0, description="a dip below this share of the speed around parts steps")
    step_min_s: float = Field(default=0.8, gt=0, description="shorter pieces join a neighbour")
    turn_s: float = Field(default=0.4, gt=0, description="the arm's ways before and after a turn are this long")
    turn: float = Field(default=0.13, gt=0, description="share of the largest turn, back at full speed, that counts")

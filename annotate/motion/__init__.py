from annotate.motion.annotator import (
    CODE_VERSION,
    GRIPPED,
    LATER,
    TURNED,
    MotionConfig,
    Signals,
    annotate,
    gripper_swings,
    turns,
)

__all__ = [
    "CODE_VERSION",
    "GRIPPED",
    "LATER",
    "TURNED",
    "MotionConfig",
    "Signals",
    "annotate",
    "gripper_swings",
    "turns",
]

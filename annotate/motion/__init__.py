from annotate.motion.annotator import CODE_VERSION, annotate
from annotate.motion.config import MotionConfig
from annotate.motion.gripper_events import GripperCurve
from annotate.motion.signals import Signals

__all__ = ["CODE_VERSION", "GripperCurve", "MotionConfig", "Signals", "annotate"]

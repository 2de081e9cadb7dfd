"""What LeRobot asks of a reward model's configuration (lerobot 0.6.1, configs/rewards.py)."""

from dataclasses import dataclass, field

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.configs.rewards import RewardModelConfig
from lerobot.utils.constants import OBS_IMAGES

OUTPUTS = ("progress", "success")
RULES = ("all", "best", "wrist")


@RewardModelConfig.register_subclass("proccorpus")
@dataclass
class ProccorpusConfig(RewardModelConfig):
    """`pretrained_path`: the folder of a checkpoint that `proccorpus train` made. Or without one `like`: labelled runs,
    DATASET/EPISODE or a task with references, of a `workspace` of proccorpus; image_keys are then their cameras,
    grippers are read from the batch's observation.state and action, and numbers speak `lag` seconds later.

    image_keys: the cameras that the model looks at, judged together by `rule` (all, best or wrist).
    fps: frames a second of the runs. live: a batch holds the next frame of each run, not a run so far.
    output: progress, or the probability of success. steps: the task's, in order, for models that compare a state with a
    demonstration.
    """

    image_keys: list[str] = field(default_factory=lambda: [f"{OBS_IMAGES}.top"])
    fps: float = 10.0
    live: bool = False
    output: str = "progress"
    rule: str = "all"
    steps: list[str] = field(default_factory=list)
    like: list[str] = field(default_factory=list)
    workspace: str = "workspace"
    lag: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError."""
        super().__post_init__()
        if self.output not in OUTPUTS:
            raise ValueError(f"output is {' or '.join(OUTPUTS)}, not {self.output!r}")
        if self.rule not in RULES:
            raise ValueError(f"rule is {', '.join(RULES)}, not {self.rule!r}")
        if not self.image_keys:
            raise ValueError("image_keys names no camera")
        if not self.fps > 0:
            raise ValueError(f"fps is a number above 0, not {self.fps}")
        for key in self.image_keys:
            self.input_features.setdefault(
                key, PolicyFeature(type=FeatureType.VISUAL, shape=(3, 224, 224))
            )
        self.output_features.setdefault(
            "reward", PolicyFeature(type=FeatureType.REWARD, shape=(1,))
        )

"""The configuration of the samples stage."""

from typing import Literal

from annotate.motion.config import Settings
from pydantic import Field

from annotate.label_run import MIN_CONFIDENCE, MIN_NAME_CONFIDENCE, LabelGate


class SamplesConfig(Settings):
    profile: Literal["balanced", "procvlm"] = Field(
        default="balanced",
        description="quotas of the ProcVQA families: balanced: per episode; procvlm: as in the published recipe",
    )
    segmentation_per_episode: int = Field(default=2, ge=0, le=3, description="balanced quota of family a")
    segmentation_frames: int = Field(default=16, ge=2, description="balanced: most pictures of a family a sample")
    actions_per_episode: int = Field(default=6, ge=0, description="balanced quota of family b")
    progress_per_episode: int = Field(default=12, ge=0, description="balanced quota of family c")
    window_frames: int = Field(default=4, ge=1, description="balanced: pictures of a sample of families b and c")
    window_step_s: float = Field(default=0.4, gt=0, description="time between these pictures")
    rare_share: float = Field(
        default=0.125, ge=0, le=0.25, description="share of a balanced quota that each rare state of a run gets"
    )
    text_demo_per_episode: int = Field(default=3, ge=0, description="quota of progresslm_text")
    visual_demo_per_episode: int = Field(default=3, ge=0, description="quota of progresslm_visual")
    cross_view_per_episode: int = Field(default=3, ge=0, description="quota of progresslm_cross_view")
    unanswerable_per_episode: int = Field(default=2, ge=0, description="quota of progresslm_unanswerable")
    think_share: float = Field(
        default=0.5, ge=0, le=1, description="share of ProgressLM samples with reasons in the answer"
    )
    min_confidence: float = Field(
        default=MIN_CONFIDENCE,
        ge=0,
        le=1,
        description="labels of lower confidence make no samples; 0: every label makes samples",
    )
    min_name_confidence: float = Field(
        default=MIN_NAME_CONFIDENCE,
        ge=0,
        le=1,
        description="labels of lower confidence make samples of progress, but none with names of steps",
    )
    image_editor: str | None = Field(
        default=None, description="name of an entry point in proccorpus.image_editors that edits unanswerable pictures"
    )
    seed: int = Field(default=0, description="another seed draws other moments")

    @property
    def gate(self) -> LabelGate:
        """Which labels make samples, and of what."""
        return LabelGate(self.min_confidence, self.min_name_confidence)

    @property
    def most_pictures(self) -> int:
        """Pictures of an episode's preferred camera that its own samples of a balanced profile show, at most."""
        windows = self.actions_per_episode + self.progress_per_episode
        return self.segmentation_per_episode * self.segmentation_frames + windows * self.window_frames

    @property
    def shows_every_frame(self) -> bool:
        """Do samples show nearly every frame of an episode's preferred camera?"""
        return self.profile == "procvlm"

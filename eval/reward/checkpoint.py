"""Open a checkpoint of ours as a scorer. torch is imported when that is asked."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from eval.reward.window import RewardError, Window
from training.folder import is_laptop

if TYPE_CHECKING:
    from eval.reward.laptop import LaptopScorer
    from eval.reward.model import ModelScorer


def open_checkpoint(
    folder: Path,
    window: Window | None = None,
    reasoning: bool = False,
    answer: Literal["auto", "head", "text"] = "auto",
) -> "ModelScorer | LaptopScorer":
    """A checkpoint of ours of whatever kind. Raises ModelError, RewardError; EncoderError for a laptop model's."""
    if is_laptop(folder):
        from eval.reward.laptop import open_laptop

        if reasoning or answer == "text":
            raise RewardError(f"{folder.name} is a laptop model, which has no words: ask it for numbers alone")
        return open_laptop(folder, window)
    from eval.reward.model import open_model

    return open_model(folder, window=window, reasoning=reasoning, answer=answer)

"""Read from a checkpoint's card what it was trained on, without loading it. Imports no torch."""

from pathlib import Path

from eval.reward.window import RewardError, Window
from training.folder import read_card


def trained_window(folder: Path, asked: Window | None) -> Window | None:
    """The window of a checkpoint; None where it was trained on ProgressLM's questions alone. Raises RewardError where
    it is another one than asked for, or unknown."""
    card = read_card(folder)
    known = Window.of_card(card)
    families = ((card.get("recipe") or {}).get("data") or {}).get("families") or {"procvqa_c": 1.0}
    if "procvqa_c" not in families:
        return None
    if known and asked and known != asked:
        raise RewardError(f"{folder.name} was trained on windows of {known}, not of {asked}: leave the window out")
    window = known or asked
    if window is None:
        raise RewardError(
            f"{folder.name} does not say on which window it was trained: give --window-frames, and --window-step "
            "unless they are consecutive"
        )
    return window

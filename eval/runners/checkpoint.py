"""A checkpoint in this process, of whatever kind. What opens one imports torch, and nothing before."""

from pathlib import Path
from typing import Any

from eval.reward.stream import RewardError
from eval.runners.prompt import LocalRunner
from training.folder import is_laptop

BATCH = 32  # views in one forward pass of the language model


def open_local(folder: Path, batch_size: int = BATCH, **options: Any) -> LocalRunner:
    """A checkpoint in this process that answers prompts; `options`: as eval.runners.local.open_runner has it. Raises
    UserError, ModelError; EncoderError for a laptop model's."""
    if not is_laptop(folder):
        from eval.runners.local import open_runner

        return open_runner(folder, batch_size, **options)
    from eval.reward.laptop import LaptopRunner

    if options.get("reasoning") or options.get("answer") == "text":
        raise RewardError(
            f"{folder.name} is a laptop model, which has no words: ask it for numbers alone"
        )
    return LaptopRunner(folder, batch_size)

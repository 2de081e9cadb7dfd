"""Open the scorer that a user asks for: a checkpoint in this process, a server's model, or a baseline."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from annotate.vlm.config import VlmConfig
from eval.reward.baselines import baseline
from eval.reward.scorer import Scorer
from eval.reward.window import RewardError, Window
from training.folder import is_laptop

if TYPE_CHECKING:
    from eval.reward.laptop import LaptopScorer
    from eval.reward.model import ModelScorer

BaselineName = Literal["clock", "visual"]


@dataclass(frozen=True)
class ScorerConfig:
    """One of: `folder` of a checkpoint of ours; `model` by its name at `endpoints`; `baseline`; `shown`.

    `window` is for models that do not say what they were trained on; `responses`: where a server's replies are kept,
    so that none is asked for twice (None: nowhere).
    """

    folder: Path | None = None
    model: str = ""
    endpoints: tuple[str, ...] = ()
    baseline: BaselineName | None = None
    window: Window | None = None
    reasoning: bool = False
    answer: Literal["auto", "head", "text"] = "auto"  # of `folder`
    responses: Path | None = None
    api_key_env: str | None = None
    max_calls: int | None = None
    shown: Callable[[], Scorer] | None = None  # opens what compares with shown runs


@contextmanager
def open_scorer(config: ScorerConfig) -> Iterator[Scorer]:
    """Raises RewardError, ModelError, UserError, VlmError."""
    if config.shown is not None:
        yield config.shown()
    elif config.baseline is not None:
        yield baseline(config.baseline)
    elif config.endpoints:
        from eval.reward.asked import served

        to = {name: getattr(config, name) for name in ("model", "endpoints", "api_key_env", "max_calls")}
        with TemporaryDirectory(prefix="proccorpus-reward-") as spare:
            yield served(VlmConfig(**to), config.responses or Path(spare), config.window)
    elif config.folder is not None:
        yield open_checkpoint(config.folder, config.window, config.reasoning, config.answer)
    else:
        raise RewardError("a reward needs a model, or a baseline: clock or visual")


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

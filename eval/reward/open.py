"""Open the scorer that a user asks for: a checkpoint in this process, a server's model, or a baseline."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from eval.reward.baselines import baseline
from eval.reward.checkpoint import open_checkpoint
from eval.reward.scorer import Scorer
from eval.reward.window import RewardError, Window

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
        yield from _served(config)
    elif config.folder is not None:
        yield open_checkpoint(config.folder, config.window, config.reasoning, config.answer)
    else:
        raise RewardError("a reward needs a model, or a baseline: clock or visual")


def _served(config: ScorerConfig) -> Iterator[Scorer]:
    from eval.reward.asked import RunnerScorer
    from eval.runners.api import Books
    from eval.runners.start import RunnerConfig, started

    asked = RunnerConfig(
        config.model,
        "api",
        endpoints=config.endpoints,
        api_key_env=config.api_key_env,
        max_calls=config.max_calls,
    )
    with TemporaryDirectory(prefix="proccorpus-reward-") as spare:
        books = Books(config.responses or Path(spare), f"reward-{config.model}", "reward")
        with started(asked, books) as runner:
            yield RunnerScorer(runner, config.window)

"""Scorers of rewards as runners: prompts about progress are answered by number, and nothing is generated."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.benchmarks.question import BenchmarkError
from eval.reward.laptop import LaptopScorer
from eval.reward.open import open_checkpoint
from eval.reward.scorer import PictureQuestion
from eval.reward.stream import picture_cache
from eval.reward.window import LAST_PICTURE, Window
from eval.runners.local import answered
from eval.runners.prompt import ModelReply, PictureLimits, Prompt, load_picture
from training.folder import read_card


class ScorerRunner:
    """A head of a checkpoint of ours. A picture that several prompts show is looked at once."""

    has_head = True

    def __init__(self, folder: Path, batch_size: int) -> None:
        """Raises ModelError, EncoderError."""
        self.scorer = open_checkpoint(folder, None if Window.of_card(read_card(folder)) else LAST_PICTURE)
        self.limits, self.batch_size = PictureLimits(longest_px=self.scorer.max_px), batch_size
        known = {k: v for k, v in self.scorer.settings.items() if k != "window"}
        self.settings: Mapping[str, Any] = {**known, "longest_px": self.limits.longest_px}
        self._kept = picture_cache()

    def answer(self, prompts: Sequence[Prompt]) -> Iterator[ModelReply]:
        yield from answered(prompts, self.batch_size, self._question, self._answers)

    def _question(self, prompt: Prompt) -> PictureQuestion:
        """Raises BenchmarkError for a picture that cannot be read, and for what the model cannot be asked."""
        if isinstance(self.scorer, LaptopScorer) and not (prompt.pictures and prompt.task):
            lacks = "names no task" if prompt.pictures else "shows no picture"
            raise BenchmarkError(f"{prompt.key} {lacks}: a laptop model is told both, and nothing else")
        shown = [*prompt.pictures, *([prompt.first] if prompt.first and isinstance(self.scorer, LaptopScorer) else [])]
        seen = [self._kept(load_picture(picture, self.limits)) for picture in shown]
        for picture in seen:
            self.scorer.make_ready(picture)
        count = len(prompt.pictures)
        first = seen[count] if len(seen) > count else None
        return PictureQuestion(prompt.text, tuple(seen[:count]), system=prompt.system, task=prompt.task, first=first)

    def _answers(self, asked: Sequence[tuple[Prompt, PictureQuestion]]) -> list[ModelReply]:
        rewards = self.scorer.ask([question for _, question in asked])
        return [
            ModelReply(prompt.key, progress=r.progress, done=r.done, error=r.failure)
            for (prompt, _), r in zip(asked, rewards, strict=True)
        ]

"""Laptop models as scorers and as runners: each view by itself, and what a prompt says of task, pictures and start."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from core.errors import UserError
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import HeldPicture
from eval.reward.laptop import LaptopRunner
from eval.reward.model import ModelScorer
from eval.reward.open import ScorerConfig, open_checkpoint, open_scorer
from eval.reward.scorer import TOLERANCE, Reward, Success
from eval.reward.stream import RewardError, ViewRule, Window
from eval.runners.prompt import Prompt
from eval.runners.start import RunnerConfig, local_runner
from tests.kits.laptop_kit import TASKS, make_checkpoint, scene

FPS = 10.0
FRAMES = [scene(TASKS[0], k / 19) for k in range(20)]
SUCCESS = Success("done", 1.0, 0.0, 0.4, 0.9, 5, 5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("laptop") / "bars", success=SUCCESS.as_json())


@pytest.fixture
def scorer(checkpoint: Path) -> ModelScorer:
    return open_checkpoint(checkpoint)


def test_several_views_are_judged_each_by_itself(scorer: ModelScorer) -> None:
    def last(rule: ViewRule = "all", **pictures: Sequence[np.ndarray]) -> Reward:
        stream = scorer.stream(TASKS[0], FPS, cameras=tuple(pictures), rule=rule)
        for moment_pictures in zip(*pictures.values(), strict=True):
            moment = stream.append(dict(zip(pictures, moment_pictures, strict=True)))
        assert moment is not None
        return scorer.score([moment])[0]

    other_frames = [scene(TASKS[1], k / 19) for k in range(20)]
    front = last(front=FRAMES)
    two_views = last("wrist", front=FRAMES, wrist=other_frames)
    assert two_views.progress == pytest.approx(front.progress, abs=TOLERANCE)
    assert set(two_views.cameras) == {"front", "wrist"}


def test_what_it_cannot_do_is_said(checkpoint: Path) -> None:
    with pytest.raises(RewardError, match="no words"):
        open_checkpoint(checkpoint, reasoning=True)
    with pytest.raises(
        RewardError, match=r"trained on windows of 4 pictures, 0\.2 s apart, not of 2"
    ):
        open_checkpoint(checkpoint, Window(2, 0.2))
    with open_scorer(ScorerConfig(checkpoint)) as opened:
        assert opened.settings["encoder"] == "grey@64"


# As runners


def held(share: float) -> HeldPicture:
    jpeg = cv2.imencode(".jpg", scene(TASKS[0], share)[..., ::-1])[1].tobytes()
    return HeldPicture(Path(f"{share}.jpg"), data=jpeg)


def prompt(key: str, task: str | None = TASKS[0], first: float | None = 0.0) -> Prompt:
    pictures = tuple(held(k / 4) for k in range(1, 5))
    start = None if first is None else held(first)
    return Prompt(key, "<image>" * 4, pictures, task=task, first=start)


def test_prompts_are_answered_by_their_task_their_pictures_and_their_start(
    checkpoint: Path,
) -> None:
    runner = local_runner(RunnerConfig("bars", EvaluationOptions(batch_size=2)), checkpoint)
    assert isinstance(runner, LaptopRunner)
    prompts_sent = [
        prompt("a"),
        prompt("again"),
        prompt("task", TASKS[1]),
        prompt("start", first=0.9),
        prompt("none", None),
    ]
    prompts_sent.append(prompt("unknown", first=None))
    replies = {r.key: r for r in runner.answer(prompts_sent)}
    progress = {key: r.progress for key, r in replies.items()}
    assert progress["a"] == pytest.approx(progress["again"])
    assert progress["a"] is not None
    for other_key in ("task", "start", "unknown"):
        assert progress[other_key] != pytest.approx(progress["a"], abs=1e-4)
    assert progress["none"] is None
    assert "names no task" in str(replies["none"].error)


def test_what_cannot_be_looked_at_fails_alone(checkpoint: Path) -> None:
    runner = LaptopRunner(checkpoint, 4)
    broken = Prompt(
        "broken", "<image>", (HeldPicture(Path("no.jpg"), data=b"no picture"),), task=TASKS[0]
    )
    blind = Prompt("blind", "How far?", (), task=TASKS[0])
    replies = {r.key: r for r in runner.answer([broken, prompt("a"), blind])}
    assert "no.jpg" in str(replies["broken"].error)
    assert "shows no picture" in str(replies["blind"].error)
    assert replies["a"].progress is not None


def test_it_has_no_words(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="no words"):
        local_runner(RunnerConfig("bars", EvaluationOptions(answer="text")), checkpoint)

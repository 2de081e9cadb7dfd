"""Laptop models as runners."""

from pathlib import Path

import cv2
import pytest

from core.errors import UserError
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import HeldPicture
from eval.runners.prompt import Prompt
from eval.runners.start import RunnerConfig, ScorerRunner, local_runner
from tests.kits.laptop_kit import TASKS, make_checkpoint, scene


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("laptop") / "bars")


def held(share: float) -> HeldPicture:
    jpeg = cv2.imencode(".jpg", scene(TASKS[0], share)[..., ::-1])[1].tobytes()
    return HeldPicture(Path(f"{share}.jpg"), data=jpeg)


def prompt(key: str, task: str | None = TASKS[0], first: float | None = 0.0) -> Prompt:
    pictures = tuple(held(k / 4) for k in range(1, 5))
    start = None if first is None else held(first)
    return Prompt(key, "<image>" * 4, pictures, task=task, first=start)


def test_prompts_are_answered_by_their_task_their_pictures_and_their_start(checkpoint: Path) -> None:
    runner = local_runner(RunnerConfig("bars", EvaluationOptions(batch_size=2)), checkpoint)
    assert isinstance(runner, ScorerRunner)
    asked = [prompt("a"), prompt("again"), prompt("task", TASKS[1]), prompt("start", first=0.9), prompt("none", None)]
    asked.append(prompt("unknown", first=None))
    replies = {r.key: r for r in runner.answer(asked)}
    progress = {key: r.progress for key, r in replies.items()}
    assert progress["a"] == pytest.approx(progress["again"])
    assert progress["a"] is not None
    for other in ("task", "start", "unknown"):
        assert progress[other] != pytest.approx(progress["a"], abs=1e-4)
    assert progress["none"] is None
    assert "names no task" in str(replies["none"].error)


def test_what_cannot_be_looked_at_fails_alone(checkpoint: Path) -> None:
    runner = ScorerRunner(checkpoint, 4)
    broken = Prompt("broken", "<image>", (HeldPicture(Path("no.jpg"), data=b"no picture"),), task=TASKS[0])
    blind = Prompt("blind", "How far?", (), task=TASKS[0])
    replies = {r.key: r for r in runner.answer([broken, prompt("a"), blind])}
    assert "no.jpg" in str(replies["broken"].error)
    assert "shows no picture" in str(replies["blind"].error)
    assert replies["a"].progress is not None


def test_it_has_no_words(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="no words"):
        local_runner(RunnerConfig("bars", EvaluationOptions(answer="text")), checkpoint)

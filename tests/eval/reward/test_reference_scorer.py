"""Rewards by shown runs: bars that grow, as the encoder grey sees them."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from lerobot.rewards import make_reward_model, make_reward_model_config

import lerobot_reward_proccorpus  # noqa: F401  registers itself
from annotate.alignment.engine import HZ
from annotate.alignment.live import Guide, ReferenceRun
from annotate.config import EmbeddingsConfig
from annotate.embeddings.encoders import load_encoder
from core.errors import UserError
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import HeldPicture
from eval.reward.laptop import LaptopRunner
from eval.reward.open import ModelScorer, ScorerConfig, open_checkpoint, open_scorer
from eval.reward.reference_scorer import UNLIKE, ReferenceScorer, openings_of
from eval.reward.scorer import TOLERANCE, Reward, Success
from eval.reward.stream import RewardError, ViewRule, Window
from eval.rl.local import LocalSession
from eval.rl.wrapper import ProgressReward
from eval.runners.prompt import Prompt
from eval.runners.start import RunnerConfig, local_runner
from eval.server.client import RewardClient, RewardServerError
from pipeline.reference_runs import reference_scorer
from pipeline.shown_runs import shown_scorer
from tests.kits.laptop_kit import TASKS, make_checkpoint, scene
from tests.kits.reward_server_kit import Playing, openai_client, png, running
from tests.kits.signal_kit import signal_at
from training.laptop.model import embed

FPS = 10.0
ENCODER = load_encoder(EmbeddingsConfig(encoder="grey"))


def shown(
    name: str, pictures: Sequence[np.ndarray], openings: np.ndarray | None = None
) -> ReferenceRun:
    """A run of even progress, in two steps."""
    progress = np.linspace(0, 1, len(pictures))
    steps = (progress >= 0.5).astype(int)
    seen_vectors = embed(ENCODER, pictures)
    return ReferenceRun(
        name, (seen_vectors,), progress, steps, ("push", "let go"), len(pictures) / HZ, openings
    )


def scorer(lag: float = 0.0) -> ReferenceScorer:
    """By two runs of a bar that grows evenly."""
    guide = Guide.of([shown("bars/0", run(30)), shown("bars/1", run(40))])
    return ReferenceScorer(guide, ENCODER, ("camera",), lag)


GRIPPER = signal_at(2, open=0.08)


def there_and_back(length: int) -> list[tuple[np.ndarray, dict[str, list[float]]]]:
    progress = np.linspace(0, 1, length)
    places = 0.05 + 0.9 * (1 - np.abs(2 * progress - 1))
    openings = np.where(progress < 0.5, 0.08, 0.01)
    return [
        (scene(TASKS[0], place), {"state": [0.3, 0.1, opening]})
        for place, opening in zip(places.tolist(), openings.tolist(), strict=True)
    ]


def gripping() -> ReferenceScorer:
    runs = []
    for length in (30, 40):
        pictures, robots = zip(*there_and_back(length), strict=True)
        openings = np.array([openings_of([GRIPPER], robot) for robot in robots])
        runs.append(shown(f"bars/{length}", pictures, openings))
    return ReferenceScorer(Guide.of(runs), ENCODER, ("camera",), grippers=(GRIPPER,))


def run(length: int, end: int = 0) -> list[np.ndarray]:
    return [
        scene(TASKS[0], 0.05 + 0.9 * share) for share in (*np.linspace(0, 1, length), *np.ones(end))
    ]


def rewards(shown_by: ReferenceScorer, frames: list[np.ndarray]) -> list[Reward]:
    session = LocalSession(shown_by, TASKS[0], FPS)
    return [session.append(rgb) for rgb in frames]


def test_a_run_is_told_where_it_is_and_what_is_done():
    rewards_found = rewards(scorer(), run(70, 10))
    progress = [r.progress for r in rewards_found]
    assert None not in progress
    assert np.abs(np.array(progress[:70], float) - np.linspace(0, 1, 70)).mean() < 0.08
    assert (rewards_found[5].step, rewards_found[5].step_name) == (0, "push")
    assert (rewards_found[-1].step, rewards_found[-1].step_name) == (1, "let go")
    assert {r.source for r in rewards_found} == {"shown"}


@pytest.mark.parametrize("strange", [np.zeros((64, 64, 3), np.uint8), scene(TASKS[1], 0.5)])
def test_a_picture_unlike_everything_shown_earns_nothing(strange):
    rewards_found = rewards(scorer(), [*run(70)[:40], *[strange] * 20, *run(70)[40:]])
    assert {(r.progress, r.success, r.failure, r.unsure) for r in rewards_found[40:60]} == {
        (None, False, UNLIKE, UNLIKE)
    }
    assert rewards_found[60].progress == pytest.approx(rewards_found[39].progress, abs=0.1)


def test_with_a_lag_numbers_are_of_the_second_before():
    rewards_found = rewards(scorer(lag=1.0), run(70))
    assert rewards_found[-1].about_s == pytest.approx(5.8, abs=0.21)


def test_a_run_of_other_cameras_is_refused():
    with pytest.raises(RewardError, match="of a, b, and what is shown of camera"):
        scorer().stream(TASKS[0], FPS, cameras=("a", "b"))


def test_what_looks_alike_is_told_apart_by_the_gripper_from_everywhere():
    scorer = gripping()
    frames = there_and_back(70)
    # It begins at the end of what is shown: by pictures alone it might as well be the beginning
    ends = frames[-20:]
    local, blind = (LocalSession(scorer, TASKS[0], FPS) for _ in range(2))
    local_rewards = [local.append(rgb, robot=robot) for rgb, robot in ends]
    blind_rewards = [blind.append(rgb) for rgb, _ in ends]
    assert local_rewards[0].progress > 0.5 > blind_rewards[0].progress

    pictures, robots = zip(*ends, strict=True)
    with running(scorer) as app, RewardClient(app.state.url) as client:
        whole = client.reward_frames(pictures, TASKS[0], FPS, robots=robots)
        with client.session(TASKS[0], fps=FPS) as session:
            live = [session.append(rgb, robot=robot) for rgb, robot in ends]
        numbers = [r.progress for r in local_rewards]
        assert [r.progress for r in whole] == pytest.approx(numbers)
        assert [r.progress for r in live] == pytest.approx(numbers)
        urls = [f"data:image/png;base64,{base64.b64encode(png(rgb)).decode()}" for rgb in pictures]
        content: Any = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        content.append({"type": "text", "text": TASKS[0]})
        with openai_client(app.state.url) as openai:
            answer = openai.chat.completions.create(
                model="test",
                messages=[{"role": "user", "content": content}],
                extra_body={"proccorpus": {"fps": FPS, "robots": robots}},
            )
        reply_json = json.loads(answer.choices[0].message.content)
        assert (reply_json["progress"], reply_json["spread"]) == pytest.approx(
            (local_rewards[-1].progress, local_rewards[-1].spread)
        )
        with client.session(TASKS[0], fps=FPS) as session:
            bad = [{"state": [0.3, 0.1, 0.08]}, {"state": [0.3, 0.1]}]
            with pytest.raises(RewardServerError, match="state is 3 finite numbers or more"):
                session.append_all(pictures[:2], robots=bad)
            with pytest.raises(RewardServerError, match="1 robots for 2 moments"):
                session.append_all(pictures[:2], robots=bad[:1])
            # Nothing was taken in by halves
            second_rewards = session.append_all(pictures[:2], robots=robots[:2])
            assert [r.progress for r in second_rewards] == pytest.approx(numbers[:2])


def test_an_environment_has_lerobots_numbers(tmp_path):
    scorer = gripping()
    ends = there_and_back(70)[-20:]
    local = LocalSession(scorer, TASKS[0], FPS)
    numbers = [local.append(rgb, robot=robot).progress for rgb, robot in ends]

    shows = Playing([{"seen": {"front": rgb}, "arm": robot["state"]} for rgb, robot in ends])
    pixels = {"camera": "seen/front"}
    env = ProgressReward(
        shows, lambda: LocalSession(scorer, TASKS[0], FPS), pixels=pixels, state="arm"
    )
    infos = [env.reset()[1], *(env.step(np.zeros(3, np.float32))[4] for _ in ends[1:])]
    assert [info["progress"] for info in infos] == pytest.approx(numbers)

    config = make_reward_model_config(
        "proccorpus",
        pretrained_path=str(make_checkpoint(tmp_path / "model")),
        image_keys=["camera"],
        fps=FPS,
    )
    model: Any = make_reward_model(config)
    model.scorer = scorer
    pictures = torch.from_numpy(np.stack([rgb for rgb, _ in ends])).permute(0, 3, 1, 2)[None] / 255
    states = torch.tensor([[robot["state"] for _, robot in ends]])
    batch = {"camera": pictures, "task": TASKS[0], "observation.state": states}
    assert model.compute_reward(batch).tolist() == pytest.approx(numbers[-1:], abs=1e-5)
    with pytest.raises(ValueError, match=r"observation.state is \(B, T, d\)"):
        model.compute_reward(batch | {"observation.state": states[:, :3]})


def test_code_of_users_may_name_it_as_before():
    assert shown_scorer is reference_scorer


FRAMES = [scene(TASKS[0], k / 19) for k in range(20)]
SUCCESS = Success("done", 1.0, 0.0, 0.4, 0.9, 5, 5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("laptop") / "bars", success=SUCCESS.as_json())


@pytest.fixture
def laptop_scorer(checkpoint: Path) -> ModelScorer:
    return open_checkpoint(checkpoint)


def test_several_views_are_judged_each_by_itself(laptop_scorer):
    def last(rule: ViewRule = "all", **pictures: Sequence[np.ndarray]) -> Reward:
        stream = laptop_scorer.stream(TASKS[0], FPS, cameras=tuple(pictures), rule=rule)
        for moment_pictures in zip(*pictures.values(), strict=True):
            moment = stream.append(dict(zip(pictures, moment_pictures, strict=True)))
        return laptop_scorer.score([moment])[0]

    other_frames = [scene(TASKS[1], k / 19) for k in range(20)]
    front = last(front=FRAMES)
    two_views = last("wrist", front=FRAMES, wrist=other_frames)
    assert two_views.progress == pytest.approx(front.progress, abs=TOLERANCE)
    assert set(two_views.cameras) == {"front", "wrist"}


def test_what_it_cannot_do_is_said(checkpoint):
    with pytest.raises(RewardError, match="no words"):
        open_checkpoint(checkpoint, reasoning=True)
    with pytest.raises(RewardError, match=r"of 4 pictures, 0\.2 s apart, not of 2"):
        open_checkpoint(checkpoint, Window(2, 0.2))
    with open_scorer(ScorerConfig(checkpoint)) as opened:
        assert opened.settings["encoder"] == "grey@64"
    with pytest.raises(UserError, match="no words"):
        local_runner(RunnerConfig("bars", EvaluationOptions(answer="text")), checkpoint)


def held(share: float) -> HeldPicture:
    jpeg = cv2.imencode(".jpg", scene(TASKS[0], share)[..., ::-1])[1].tobytes()
    return HeldPicture(Path(f"{share}.jpg"), data=jpeg)


def prompt(key: str, task: str | None = TASKS[0], first: float | None = 0.0) -> Prompt:
    pictures = tuple(held(k / 4) for k in range(1, 5))
    start = None if first is None else held(first)
    return Prompt(key, "<image>" * 4, pictures, task=task, first=start)


def test_prompts_are_answered_by_all_they_say(checkpoint):
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


def test_what_cannot_be_looked_at_fails_alone(checkpoint):
    runner = LaptopRunner(checkpoint, 4)
    broken = Prompt(
        "broken", "<image>", (HeldPicture(Path("no.jpg"), data=b"no picture"),), task=TASKS[0]
    )
    blind = Prompt("blind", "How far?", (), task=TASKS[0])
    replies = {r.key: r for r in runner.answer([broken, prompt("a"), blind])}
    assert "no.jpg" in str(replies["broken"].error)
    assert "shows no picture" in str(replies["blind"].error)
    assert replies["a"].progress is not None

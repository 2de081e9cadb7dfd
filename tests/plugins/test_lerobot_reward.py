"""LeRobot's own factory loads our checkpoints through the plug-in, and scores a batch as our scorer does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.configs.rewards import RewardModelConfig
from lerobot.rewards import (
    make_reward_model,
    make_reward_model_config,
    make_reward_pre_post_processors,
)

import lerobot_reward_proccorpus
from eval.reward.open import open_checkpoint
from eval.reward.scorer import TOLERANCE
from tests.kits import laptop_kit, reward_kit

KEY = "observation.images.front"
FPS = 10.0
FRAMES = 30


def laptop(folder: Path) -> tuple[Path, list[str]]:
    return laptop_kit.make_checkpoint(folder), list(laptop_kit.TASKS)


def qwen(folder: Path) -> tuple[Path, list[str]]:
    return reward_kit.make_checkpoint(folder), [reward_kit.TASK, "pull the bar to the left"]


def runs() -> list[list[np.ndarray]]:
    """Two runs: a bar that grows, and one that shrinks again."""
    forth = reward_kit.bars(FRAMES)
    return [forth, [*forth[: FRAMES // 2], *reversed(forth[: FRAMES // 2])]]


def batch_of(clips: list[list[np.ndarray]], tasks: list[str]) -> dict[str, Any]:
    """As LeRobot gives pictures: float 0..1, channels first."""
    pictures = torch.from_numpy(np.stack([np.stack(c) for c in clips])).permute(0, 1, 4, 2, 3) / 255
    return {KEY: pictures, "task": tasks}


def by_our_scorer(folder: Path, clips: list[list[np.ndarray]], tasks: list[str]) -> np.ndarray:
    """Progress [runs, frames], each frame scored by itself as it comes in."""
    scorer = open_checkpoint(folder)
    progress_rows = []
    for pictures, task in zip(clips, tasks, strict=True):
        stream = scorer.stream(task, FPS, cameras=(KEY,))
        moments = [stream.append({KEY: rgb}) for rgb in pictures]
        progress_rows.append([scorer.score([m])[0].progress for m in moments if m is not None])
    return np.array(progress_rows, np.float64)


@pytest.mark.parametrize("kind", [laptop, qwen])
def test_a_batch_is_scored_as_our_scorer_does(kind, tmp_path):
    folder, tasks = kind(tmp_path / "model")
    clips = runs()
    ours = by_our_scorer(folder, clips, tasks)
    assert np.ptp(ours) > 1e-4, "the model tells frames apart"

    config = make_reward_model_config(
        "proccorpus", pretrained_path=str(folder), image_keys=[KEY], fps=FPS, device="cpu"
    )
    assert isinstance(config, lerobot_reward_proccorpus.ProccorpusConfig)
    model = make_reward_model(config)
    assert type(model).__name__ == "ProccorpusRewardModel"
    preprocess, postprocess = make_reward_pre_post_processors(config)
    for end in (1, 7, FRAMES):
        reward = model.compute_reward(preprocess(batch_of([clip[:end] for clip in clips], tasks)))
        assert (reward.shape, reward.dtype) == ((2,), torch.float32)
        np.testing.assert_allclose(reward, ours[:, end - 1], atol=TOLERANCE)
    assert postprocess(reward) is not None

    # Frame by frame, until reset begins other runs
    live = make_reward_model(
        make_reward_model_config(
            "proccorpus",
            pretrained_path=str(folder),
            image_keys=[KEY],
            fps=FPS,
            live=True,
            device="cpu",
        )
    )
    for _ in range(2):
        step_rewards = []
        for t in range(8):
            step_rewards.append(live.compute_reward(batch_of([[c[t]] for c in clips], tasks)))
        np.testing.assert_allclose(torch.stack(step_rewards, 1), ours[:, :8], atol=TOLERANCE)
        live.reset()
    with pytest.raises(ValueError, match="one frame of each run"):
        live.compute_reward(batch_of(clips, tasks))


def test_a_saved_configuration_opens_the_same_checkpoint(tmp_path):
    folder, tasks = laptop(tmp_path / "model")
    config = make_reward_model_config(
        "proccorpus", pretrained_path=str(folder), image_keys=[KEY], device="cpu"
    )
    model = make_reward_model(config)
    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved/config.json").read_text())["type"] == "proccorpus"
    reopened = make_reward_model(RewardModelConfig.from_pretrained(tmp_path / "saved"))
    batch = batch_of([runs()[0]], tasks[:1])
    assert torch.equal(model.compute_reward(batch), reopened.compute_reward(batch))
    assert not model.is_trainable


@pytest.mark.parametrize(("factor", "shift"), [(255.0, 0.0), (4.0, -2.0), (float("nan"), 0.0)])
def test_floats_that_are_no_pictures_are_refused(factor, shift, tmp_path):
    """Bytes as floats would be white, normalised pictures partly black: transformers 5.23.0 takes both in silence."""
    folder, tasks = laptop(tmp_path / "model")
    config = make_reward_model_config(
        "proccorpus", pretrained_path=str(folder), image_keys=[KEY], device="cpu"
    )
    batch = batch_of([runs()[0]], tasks[:1])
    batch[KEY] = batch[KEY] * factor + shift
    with pytest.raises(ValueError, match=rf"{KEY} has floats from .* to .*: give 0\.\.1"):
        make_reward_model(config).compute_reward(batch)

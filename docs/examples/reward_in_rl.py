"""A reward server in the loop of reinforcement learning.

    proccorpus serve --model laptop-demo-5571386c &
    export PROCCORPUS_REWARD_TOKEN=$(cat workspace/.token-serve)
    .venv/bin/python docs/examples/reward_in_rl.py --url http://127.0.0.1:8700 --video run.mp4 --task "Open the drawer."

The environment is a recorded run: the agent may step on, wait, or step back, and sees only where it is. Its reward is
what the server says of the picture. An agent that learns to play the run to its end has learnt that from the reward
model alone, and from no label. Put your own Gymnasium environment with pictures in its place.
"""

import argparse
from pathlib import Path
from typing import Any

import av
import gymnasium as gym
import numpy as np

from eval.rl.shaping import Shaping
from eval.rl.wrapper import ProgressReward
from eval.server.client import RewardClient

FPS = 4.0  # moments a second that the environment has
STEPS_MORE = 6  # than the shortest way through the run
GAMMA, RATE = 0.8, 0.8


class Replay(gym.Env):
    """A recorded run as an environment: an agent steps back (0), waits (1) or steps on (2), and sees where it is."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    render_mode = "rgb_array"

    def __init__(self, frames: list[np.ndarray]) -> None:
        self.frames, self.at, self.steps = frames, 0, 0
        self.observation_space = gym.spaces.Discrete(len(frames))
        self.action_space = gym.spaces.Discrete(3)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = self.steps = 0
        return self.at, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.at = int(np.clip(self.at + action - 1, 0, len(self.frames) - 1))
        self.steps += 1
        over = self.steps >= len(self.frames) + STEPS_MORE
        return self.at, 0.0, False, over, {}

    def render(self) -> Any:
        return self.frames[self.at]


def frames_of(video: Path) -> list[np.ndarray]:
    """Its pictures, uint8 [h, w, 3], `FPS` a second."""
    pictures: list[np.ndarray] = []
    wanted = 0.0
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time >= wanted:
                pictures.append(frame.to_ndarray(format="rgb24"))
                wanted += 1 / FPS
    return pictures


def learn(env: gym.Env, places: int, episodes: int, seed: int) -> list[int]:
    """Q-learning over so many episodes: where each ended.

    What counts at each moment is the progress so far, the sum of rewards. A model that looks back over some pictures
    notices a change late, and single differences would pay an agent for waiting.
    """
    chance = np.random.default_rng(seed)
    values = np.full(
        (places, 3), 1 / (1 - GAMMA)
    )  # as much as there can be: what is untried is tried
    ends: list[int] = []
    for episode in range(episodes):
        (at, _), progress, over = env.reset(seed=seed + episode), 0.0, False
        while not over:
            best = np.flatnonzero(values[at] == values[at].max())
            action = int(chance.choice(best))
            then, reward, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
            progress += float(reward)
            values[at, action] += RATE * (
                progress + GAMMA * values[then].max() - values[at, action]
            )
            at = then
        ends.append(at)
        print(f"episode {episode}: ended at {at} of {places - 1}, progress {progress:+.2f}")
    return ends


def main() -> None:
    said = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    said.add_argument("--url", default="http://127.0.0.1:8700")
    said.add_argument("--video", type=Path, required=True)
    said.add_argument("--task", required=True)
    said.add_argument("--episodes", type=int, default=40)
    said.add_argument("--seed", type=int, default=0)
    asked = said.parse_args()
    frames = frames_of(asked.video)
    with RewardClient(asked.url) as client:
        env = ProgressReward(
            Replay(frames), lambda: client.session(asked.task, fps=FPS), Shaping("delta")
        )
        ends = learn(env, len(frames), asked.episodes, asked.seed)
        env.close()
    print(
        f"the last ten episodes ended at {np.mean(ends[-10:]):.1f} of {len(frames) - 1} on average"
    )


if __name__ == "__main__":
    main()

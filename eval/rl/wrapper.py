"""A Gymnasium environment whose reward is what a progress reward model sees in its pictures."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, SupportsFloat

import gymnasium as gym
import numpy as np

from eval.rl.shaping import Shaper, Shaping


class Row(Protocol):
    """What the wrapper reads of a reward: `eval.server.protocol.RewardRow` is one."""

    @property
    def progress(self) -> float | None: ...
    @property
    def done(self) -> float | None: ...
    @property
    def failure(self) -> str | None: ...
    @property
    def unsure(self) -> str | None: ...


class Session(Protocol):
    """A run that is scored picture by picture: `eval.server.client.RewardSession`, or `eval.rl.local.LocalSession`."""

    def append(
        self, frame: Mapping[str, np.ndarray], *, robot: Mapping[str, np.ndarray] = ...
    ) -> Row: ...
    def close(self) -> None: ...


class ProgressReward(gym.Wrapper):
    """Adds the shaped progress of a reward model to an environment's reward.

    Each reset() opens a session with `open_session` and scores the first picture; each `every`-th step scores another,
    so the session's fps is the environment's steps per second over `every`. The reward of a step is
    `weight` * Shaper.step(...) + `env_weight` * the environment's own; where nothing was scored, a difference is left
    for the next step that is. Pictures, uint8 [h, w, 3] RGB, come by camera from the observation key that `pixels`
    names (a/b for a key in a key), or from render() where it is None. `state` names the key of the robot's state: it
    and the action go to a session that compares with shown runs, and have to be as in these.

    `info` gets `progress`, `done_probability` (each None where there is none), `progress_failure` (why; absent where
    there is a number), `unsure` (why the number is not to be relied on, else None), `progress_reward` before weighing,
    `env_reward`. A picture without a number earns nothing.

    Raises ValueError for pictures that are none, and what the session raises: a reward that cannot be had is an error,
    not a zero.
    """

    def __init__(
        self,
        env: gym.Env,
        open_session: Callable[[], Session],
        shaping: Shaping | None = None,
        pixels: Mapping[str, str | None] | None = None,
        state: str | None = None,
        every: int = 1,
        weight: float = 1.0,
        env_weight: float = 0.0,
    ) -> None:
        super().__init__(env)
        if every < 1:
            raise ValueError(f"every is at least 1, not {every}")
        self.pixels = {"camera": None} if pixels is None else dict(pixels)
        if None in self.pixels.values() and env.render_mode != "rgb_array":
            raise ValueError(
                "pictures come from render(), so the environment needs render_mode='rgb_array'"
            )
        self.state = state
        self.every = every
        self.weight = weight
        self.env_weight = env_weight
        self._open = open_session
        self._session = None
        self._shaper = Shaper(shaping or Shaping())
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._leave()
        self._session = self._open()
        self._steps = 0
        row = self._append(self._session, observation)
        self._shaper.reset(row.progress)
        return observation, {**info, **_reward_info(row)}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        if self._session is None:
            raise ValueError("step() before reset()")
        observation, env_reward, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        if self._steps % self.every == 0:
            row = self._append(self._session, observation, action)
        else:
            row = None
        shaped = self._shaper.step(None if row is None else row.progress, terminated)
        info = {
            **info,
            **_reward_info(row),
            "progress_reward": shaped,
            "env_reward": float(env_reward),
        }
        return (
            observation,
            self.weight * shaped + self.env_weight * float(env_reward),
            terminated,
            truncated,
            info,
        )

    def close(self) -> None:
        self._leave()
        self.env.close()

    def _leave(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _append(self, session: Session, observation: Any, action: Any = None) -> Row:
        pictures = {
            camera: self._picture(camera, key, observation) for camera, key in self.pixels.items()
        }
        if self.state is None:
            return session.append(pictures)
        robot = {
            "state": _observation_at(observation, self.state, "the robot's state"),
            "action": action,
        }
        return session.append(
            pictures, robot={c: np.asarray(v) for c, v in robot.items() if v is not None}
        )

    def _picture(self, camera: str, key: str | None, observation: Any) -> np.ndarray:
        if key is None:
            picture = self.env.render()
        else:
            picture = _observation_at(observation, key, f"camera {camera}")
        if (
            not isinstance(picture, np.ndarray)
            or picture.dtype != np.uint8
            or picture.shape[2:] != (3,)
        ):
            if isinstance(picture, np.ndarray):
                description = f"{picture.dtype} {list(picture.shape)}"
            else:
                description = type(picture).__name__
            raise ValueError(
                f"camera {camera} gives no uint8 [height, width, 3] picture, but {description}"
            )
        return picture


def _observation_at(observation: Any, key: str, purpose: str) -> Any:
    """Raises ValueError."""
    for part in key.split("/"):
        if not isinstance(observation, Mapping) or part not in observation:
            raise ValueError(f"the observation has no {key!r} for {purpose}")
        observation = observation[part]
    return observation


def _reward_info(row: Row | None) -> dict[str, Any]:
    if row is None:
        return {
            "progress": None,
            "done_probability": None,
            "unsure": None,
            "progress_failure": "not scored at this step",
        }
    info = {"progress": row.progress, "done_probability": row.done, "unsure": row.unsure}
    if row.progress is not None:
        return info
    return {**info, "progress_failure": row.failure}

"""A scorer of proccorpus as a LeRobot reward model (lerobot 0.6.1, rewards/pretrained.py)."""

import math
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from lerobot.configs.rewards import RewardModelConfig
from lerobot.rewards.pretrained import PreTrainedRewardModel
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor

from core.paths import Workspace
from eval.reward.open import open_checkpoint
from eval.reward.scorer import Reward, Scorer
from eval.reward.stream import Moment, Stream, StreamPicture, ViewRule
from lerobot_reward_proccorpus.configuration_proccorpus import ProccorpusConfig
from pipeline.reference_runs import reference_scorer
from training.pixels import device

OVERSHOOT = 0.5  # of 1: pictures that were resized may reach beyond 0..1


class ProccorpusRewardModel(PreTrainedRewardModel):
    """The rewards are those of `proccorpus reward` for the same frames. It is not trained here: `proccorpus train` is.

    The scorer's weights are no parameters of this module: they stay on the device that proccorpus chooses, which has to
    be the configuration's.
    """

    config_class = ProccorpusConfig  # type: ignore[assignment]  # LeRobot declares None
    name = "proccorpus"  # type: ignore[assignment]

    def __init__(self, config: ProccorpusConfig, scorer: Scorer | None = None, **_: Any) -> None:
        """Raises ValueError for a configuration that names no checkpoint, and what open_checkpoint raises."""
        super().__init__(config)
        self.config: ProccorpusConfig = config
        if torch.device(config.device or "cpu").type != torch.device(device()).type:
            raise ValueError(
                f"proccorpus scores on {device()}, and the configuration says {config.device}"
            )
        if scorer is None:
            if config.like:
                space = Workspace(Path(config.workspace))
                scorer = reference_scorer(space, config.like, config.image_keys, config.lag)
            elif config.pretrained_path:
                scorer = open_checkpoint(Path(config.pretrained_path))
            else:
                raise ValueError(
                    "pretrained_path names no checkpoint: give the folder that proccorpus train made, or labelled runs "
                    "as `like`"
                )
        self.scorer = scorer
        self._live: list[Stream] = []

    @classmethod
    def from_pretrained(
        cls,
        pretrained_name_or_path: str | Path,
        *,
        config: RewardModelConfig | None = None,
        **kwargs: Any,
    ) -> Self:
        """A checkpoint's folder, or one that LeRobot saved this configuration to. Nothing is downloaded."""
        folder = Path(pretrained_name_or_path)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder} is no folder: give the folder of a checkpoint that proccorpus train made"
            )
        if config is None:
            config = RewardModelConfig.from_pretrained(folder)
        return cls(cast(ProccorpusConfig, config)).eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        """The configuration alone: the checkpoint stays where it is."""
        self.config._save_pretrained(save_directory)

    def reset(self) -> None:
        """The next frames of a live batch begin new runs."""
        self._live = []

    @torch.no_grad()
    def compute_reward(self, batch: dict[str, Any]) -> Tensor:
        """float32 (B,): of the last frame of each run; NaN where the model gave no number.

        With `like`, observation.state and action (B, T, d) or (B, d), where the batch has them, are compared, too.
        Pictures (B, T, C, H, W), or (B, C, H, W) of one frame: 0..1 or uint8; `task`: B texts, or one for all. Raises
        ValueError for other shapes, and RewardError as a scorer does.
        """
        clips = {key: _pictures(key, batch) for key in self.config.image_keys}
        count = next(iter(clips.values())).shape[0]
        for key, clip in clips.items():
            if clip.shape[:2] != next(iter(clips.values())).shape[:2]:
                raise ValueError(
                    f"{key} has not as many runs and frames as the other cameras: {list(clip.shape)}"
                )
        tasks = _tasks(batch.get("task"), count)
        if self.scorer.follows:
            rows = _robots(batch, *next(iter(clips.values())).shape[:2])
        else:
            rows = {}
        if self.config.live:
            moments = [[moment] for moment in self._next(clips, tasks, rows)]
        else:
            moments = [self._whole(clips, run, task, rows) for run, task in enumerate(tasks)]
        scored = self.scorer.score([moment for of_run in moments for moment in of_run])
        ends = np.cumsum([len(of_run) for of_run in moments]) - 1
        rewards = [self._number(scored[end]) for end in ends.tolist()]
        return torch.tensor(rewards, dtype=torch.float32, device=self.config.device)

    def _stream(self, task: str, **more: Any) -> Stream:
        cameras = tuple(self.config.image_keys)
        rule = cast(ViewRule, self.config.rule)
        return self.scorer.stream(
            task, self.config.fps, tuple(self.config.steps), cameras=cameras, rule=rule, **more
        )

    def _whole(
        self, clips: dict[str, np.ndarray], run: int, task: str, rows: dict[str, np.ndarray]
    ) -> list[Moment]:
        """What the last moment's reward depends on: all moments of a scorer that follows a run, else the last alone.
        Pictures that it does not show are not looked at."""
        num_frames = next(iter(clips.values())).shape[1]
        stream = self._stream(task, num_frames=num_frames)
        if self.scorer.follows:
            return [self._appended(stream, clips, rows, run, frame) for frame in range(num_frames)]
        shown = {
            (frame, key): StreamPicture(self.scorer.fit(clip[run, frame]))
            for frame in stream.frames_for_last(num_frames)
            for key, clip in clips.items()
        }
        return [stream.last_moment(num_frames, lambda frame, key: shown[frame, key])]

    def _appended(
        self,
        stream: Stream,
        clips: dict[str, np.ndarray],
        rows: dict[str, np.ndarray],
        run: int,
        frame: int,
    ) -> Moment:
        robot = {column: of[run, frame] for column, of in rows.items()}
        moment = stream.append({key: clip[run, frame] for key, clip in clips.items()}, robot=robot)
        assert moment is not None, "a stream without score_fps scores each frame"
        return moment

    def _next(
        self, clips: dict[str, np.ndarray], tasks: list[str], rows: dict[str, np.ndarray]
    ) -> list[Moment]:
        """The frame that comes next in each run; the first call after `reset` begins them."""
        if not self._live:
            self._live = [self._stream(task) for task in tasks]
        if len(self._live) != len(tasks):
            raise ValueError(
                f"{len(self._live)} runs are under way, and {len(tasks)} came: reset() begins anew"
            )
        for clip in clips.values():
            if clip.shape[1] != 1:
                raise ValueError(f"a live batch has one frame of each run, not {clip.shape[1]}")
        return [
            self._appended(stream, clips, rows, run, 0) for run, stream in enumerate(self._live)
        ]

    def _number(self, reward: Reward) -> float:
        number = reward.progress if self.config.output == "progress" else reward.done
        if number is None:
            return math.nan
        return number


def _pictures(key: str, batch: dict[str, Any]) -> np.ndarray:
    """uint8 [B, T, H, W, 3]. Raises ValueError."""
    if key not in batch:
        raise ValueError(f"the batch has no {key}; it has {', '.join(sorted(map(str, batch)))}")
    pictures = torch.as_tensor(batch[key]).detach().cpu()
    if pictures.ndim == 4:
        pictures = pictures.unsqueeze(1)
    if pictures.ndim != 5 or 3 not in (pictures.shape[2], pictures.shape[4]):
        raise ValueError(
            f"{key} is (B, T, C, H, W) or (B, C, H, W) with three channels, not {list(pictures.shape)}"
        )
    if pictures.shape[2] == 3:
        pictures = pictures.permute(0, 1, 3, 4, 2)
    if pictures.is_floating_point():
        least, most = map(float, pictures.float().aminmax())
        # Bytes as floats would be white, and normalised pictures partly black
        if not -OVERSHOOT <= least <= most <= 1 + OVERSHOOT:
            raise ValueError(
                f"{key} has floats from {least:g} to {most:g}: give 0..1, before any normalisation, or uint8"
            )
        pictures = (pictures.float() * 255).round().clamp(0, 255)
    return np.ascontiguousarray(pictures.to(torch.uint8).numpy())


def _robots(batch: dict[str, Any], runs: int, frames: int) -> dict[str, np.ndarray]:
    """State and action [B, T, d], of those that the batch has. Raises ValueError."""
    found = {}
    for column, key in (("state", OBS_STATE), ("action", ACTION)):
        if batch.get(key) is not None:
            rows = torch.as_tensor(batch[key]).detach().cpu().double().numpy()
            found[column] = rows[:, None] if rows.ndim == 2 else rows
            if found[column].ndim != 3 or found[column].shape[:2] != (runs, frames):
                raise ValueError(
                    f"{key} is (B, T, d) or (B, d) of as many runs and frames, not {list(rows.shape)}"
                )
    return found


def _tasks(task: Any, count: int) -> list[str]:
    """A text for each run. Raises ValueError."""
    tasks: list[str] = [task] * count if isinstance(task, str) else list(task or ())
    tasks = tasks * count if len(tasks) == 1 else tasks
    if len(tasks) != count or not all(isinstance(t, str) for t in tasks):
        raise ValueError(
            f"task is a text for each of the {count} runs, or one for all; there are {len(tasks)}"
        )
    return tasks

"""What a laptop model makes of what it is given at a moment: of each camera's picture, and of the robot's state."""

from dataclasses import dataclass

import torch
from torch import nn

from training.laptop.familiar import Familiar

LEAST_SPREAD = 1e-3  # of a picture's number over training: below it says nothing
STILL = 1e-6  # of a state's: below it never moved, and says nothing
BEYOND = 1.2  # times as far as in all of training: from there on a number of a state counts as missing
STRANGE = 0.5  # of a picture: from there on it is left out where another camera's is not, or the change alone counts


@dataclass(frozen=True)
class CameraShown:
    """What one camera shows of n windows, their run's first picture before the others. seen: [n, 1 + frames, width],
    normalised, 0 where it shows nothing; there: bool [n, 1 + frames]. strange, by_change: [n, frames], see Familiar."""

    seen: torch.Tensor
    there: torch.Tensor
    strange: torch.Tensor
    by_change: torch.Tensor


class CameraInput(nn.Module):
    """One camera's pictures as parts of tokens [d]."""

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, familiar: Familiar, width: int, d: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.familiar = familiar
        self.look = nn.Linear(width, d)
        self.change = nn.Linear(width, d, bias=False)

    def normalise_by(self, numbers: torch.Tensor) -> None:
        """Take mean and spread of pictures [n, width], without those that are not there."""
        found = numbers[_there(numbers)]
        self.mean.copy_(found.mean(0))
        self.spread.copy_(found.std(0).clamp_min(LEAST_SPREAD))

    def learn_the_familiar(self, numbers: torch.Tensor, first: torch.Tensor, label: torch.Tensor) -> None:
        """Of pictures [n, width], each with its run's first one; label [n], NaN for none."""
        there = _there(numbers) & _there(first)
        self.familiar.learn(self._normalised(numbers[there]), self._normalised(first[there]), label[there])

    def widen_the_familiar(self, numbers: torch.Tensor) -> None:
        there = _there(numbers)
        if there.any():
            self.familiar.widen(self._normalised(numbers[there]))

    def shown(self, numbers: torch.Tensor) -> CameraShown:
        """numbers: [n, 1 + frames, width]"""
        there = _there(numbers)
        seen = self._normalised(numbers)
        if not there.all():
            seen = seen.masked_fill(~there.unsqueeze(-1), 0.0)
        strange = self.familiar.strangeness(seen[:, 1:])
        return CameraShown(seen, there, strange, self.familiar.by_change(seen[:, 1:], seen[:, :1]))

    def token(self, seen: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """[n, frames, d] of normalised pictures; without a first picture nothing is known to have changed."""
        first, window = seen[:, :1], seen[:, 1:]
        changed = self.change(window - first)
        if not there[:, 0].all():
            changed = changed * there[:, :1, None]
        return self.look(window) + changed

    def _normalised(self, numbers: torch.Tensor) -> torch.Tensor:
        return (numbers - self.mean) / self.spread


class StateInput(nn.Module):
    """The robot's state, and what changed of it since the run's first moment, as a part of tokens [d].

    `moves`: 1 of numbers that moved in training, 0 of others, which say nothing. `reach`: how far each got from its
    mean. What is not there adds nothing.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    reach: torch.Tensor
    moves: torch.Tensor

    def __init__(self, width: int, d: int) -> None:
        super().__init__()
        for name in ("mean", "reach", "moves"):
            self.register_buffer(name, torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        # Its first weights take nothing from the chance that the rest of training draws from
        with torch.random.fork_rng(devices=[]):
            self.token = nn.Linear(3 * width, d, bias=False)

    def normalise_by(self, states: torch.Tensor) -> None:
        """Take what is known of numbers of states [n, width] over training; NaN for what is not there."""
        for k in range(states.shape[1]):
            known = states[:, k][~torch.isnan(states[:, k])]
            if len(known) > 1 and (spread := known.std()) > STILL:
                self.mean[k], self.spread[k], self.moves[k] = known.mean(), spread, 1.0
                self.reach[k] = ((known - known.mean()) / spread).abs().max()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[n, frames, d] of states [n, 1 + frames, width], the run's first before the window's."""
        normal = (states - self.mean) / self.spread
        there = (~torch.isnan(states) & (self.moves > 0) & (normal.abs() <= BEYOND * self.reach)).float()
        normal = normal.nan_to_num() * there
        changed = (normal[:, 1:] - normal[:, :1]) * there[:, 1:] * there[:, :1]
        return self.token(torch.cat([normal[:, 1:], changed, there[:, 1:]], -1))


def counted(cameras: list[CameraShown]) -> torch.Tensor:
    """Which cameras count at which picture of windows, float [cameras, n, frames]: those that show something; of
    several, those whose picture is strange do not where another one's is not."""
    there = torch.stack([camera.there[:, 1:] for camera in cameras])
    if len(cameras) == 1:
        return there.float()
    known = there & torch.stack([camera.strange < STRANGE for camera in cameras])
    return torch.where(known.any(0), known, there).float()


def _there(numbers: torch.Tensor) -> torch.Tensor:
    """Of pictures [..., width], which are there: one that is not is NaN throughout."""
    return ~torch.isnan(numbers[..., 0])

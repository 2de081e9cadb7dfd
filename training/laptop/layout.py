"""What the numbers of one moment are, in which order: of each camera's picture, then of the robot's state.

A number that is not there is NaN: a camera that shows nothing, a robot that tells no state. States of another length
are other numbers, and have places of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NO_STATE: tuple[int, ...] = ()


@dataclass(frozen=True)
class Layout:
    """picture: numbers of a picture; cameras: how many; states: lengths of the states that are known, each once."""

    picture: int
    cameras: int = 1
    states: tuple[int, ...] = NO_STATE

    @property
    def pictures(self) -> int:
        """Numbers of all cameras."""
        return self.picture * self.cameras

    @property
    def state(self) -> int:
        """Numbers of all states."""
        return sum(self.states)

    @property
    def width(self) -> int:
        return self.pictures + self.state

    def knows(self, state: np.ndarray) -> bool:
        """Is a state [..., l] of a length that is known?"""
        return state.shape[-1] in self.states

    def placed(self, state: np.ndarray) -> np.ndarray:
        """A state [..., l] among all numbers of states, float32 [..., state]; all NaN where its length is unknown."""
        whole = np.full((*state.shape[:-1], self.state), np.nan, np.float32)
        if self.knows(state):
            at = sum(self.states[: self.states.index(state.shape[-1])])
            whole[..., at : at + state.shape[-1]] = state
        return whole

    def moment(self, pictures: Sequence[np.ndarray | None], state: np.ndarray | None = None) -> np.ndarray:
        """float32 [width] of one moment: the numbers [picture] of each camera in order, and the robot's state [l]."""
        whole = np.full(self.width, np.nan, np.float32)
        for camera, numbers in enumerate(pictures):
            if numbers is not None:
                whole[camera * self.picture : (camera + 1) * self.picture] = numbers
        if state is not None:
            whole[self.pictures :] = self.placed(state)
        return whole

    def filled(self, moments: np.ndarray) -> np.ndarray:
        """Moments [..., k] of pictures of the first camera alone, or of cameras without a state: [..., width]."""
        missing = self.width - moments.shape[-1]
        if not missing:
            return moments
        return np.concatenate([moments, np.full((*moments.shape[:-1], missing), np.nan, moments.dtype)], -1)

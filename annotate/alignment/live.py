"""Laying an episode beside shown ones while it goes on, one picture at a time.

What was seen so far says how likely each moment of each shown episode is now; with a lag, what came next says it of a
moment that is gone by. An episode may be slower or faster than what is shown, and may go back, at a price.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from annotate.alignment.engine import DISTANCE, FLATNESS, onward, softmax
from annotate.alignment.moments import HZ, LEAST, Seen, distances, of_length_1, usual_distances

PASSING, BACK = 1 / 3, 10.0  # costs of passing over a moment that is shown, and of going back, in the engine's unit
SOON_S = 0.75 / HZ  # a picture that comes sooner is looked at, and nothing is concluded from it for the next
NEIGHBOURS_S = 1.5  # moments of one episode that are nearer show the same
WHOLE = 256  # numbers of the whole picture, the first that an encoder gives; the others are of its cells
UNLIKE = 0.3  # cosine distance of whole pictures: one that is farther from all that is shown is of something else
LOST = 0.45  # likewise: one that is farther tells nothing of where the episode is, either
COMPLETE = 0.98  # of the most that an episode comes to: its end


@dataclass(frozen=True)
class Shown:
    """An episode that shows a task, at k moments, HZ a second.

    pictures: float32 [k, d] of each camera, as the encoder gives them: the whole picture, then its cells. progress:
    float64 [k]. steps: int64 [k], the planned step that is done at each, -1 for none; plan: their names.
    """

    name: str
    pictures: tuple[np.ndarray, ...]
    progress: np.ndarray
    steps: np.ndarray
    plan: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Where:
    """Where an episode is, by what is shown. about_s: the moment that is spoken of.

    spread: the standard deviation of progress. at_end: how likely all is done. strangeness: cosine distance of the
    picture to the nearest that is shown; `is_strange`: nothing is known then.
    """

    about_s: float
    progress: float
    spread: float
    step: int | None
    step_name: str
    at_end: float
    strangeness: float

    @property
    def is_strange(self) -> bool:
        return self.strangeness > UNLIKE


@dataclass(frozen=True)
class Guide:
    """Some shown episodes of a task, ready to lay others beside. whole: float32 [moments, d] of each camera, of length
    1: all pictures that are shown."""

    shown: tuple[Shown, ...]
    means: tuple[np.ndarray, ...]
    seen: tuple[Seen, ...]
    usual: tuple[float, float]
    whole: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, shown: Sequence[Shown]) -> "Guide":
        """Raises ValueError where they have not the same cameras."""
        if len({tuple(p.shape[1] for p in s.pictures) for s in shown}) != 1:
            raise ValueError("what is shown is of different cameras or encoders")
        by_camera = [np.concatenate(of_camera) for of_camera in zip(*(s.pictures for s in shown), strict=True)]
        means = tuple(pictures.mean(axis=0) for pictures in by_camera)
        seen = tuple(_seen(s.pictures, means) for s in shown)
        usual = usual_distances(seen) if len(shown) > 1 else (_usual_alone(seen[0]), 1.0)
        return cls(tuple(shown), means, seen, usual, tuple(of_length_1(p[:, :WHOLE]) for p in by_camera))

    def strangeness(self, pictures: Sequence[np.ndarray]) -> float:
        """How far pictures [d] of each camera are from the nearest that are shown."""
        pairs = zip(pictures, self.whole, strict=True)
        return 1 - float(np.mean([(shown @ of_length_1(p[None, :WHOLE])[0]).max() for p, shown in pairs]))

    @property
    def seconds(self) -> float:
        """How long what is shown takes on average."""
        return float(np.mean([s.seconds for s in self.shown]))


def _seen(pictures: Sequence[np.ndarray], means: Sequence[np.ndarray]) -> Seen:
    """The whole picture and its cells count alike."""
    centred = [values - mean for values, mean in zip(pictures, means, strict=True)]
    parts = [part for c in centred for part in (c[:, :WHOLE], c[:, WHOLE:]) if part.shape[1]]
    return Seen(tuple(map(of_length_1, parts)))


def _usual_alone(seen: Seen) -> float:
    """Of a single episode: its own moments some time apart show how far apart those of two usually are."""
    apart = distances(seen, seen, (1.0, 1.0))
    place = np.arange(len(apart))
    apart[np.abs(place[:, None] - place) < NEIGHBOURS_S * HZ] = apart.max()
    return max(float(apart.min(axis=1).mean()), LEAST)


@dataclass
class Following:
    """One episode beside a guide. What it keeps does not grow with the episode: the costs of being at each shown
    moment, and the distances of the last few pictures. lag: moments, HZ a second, by which it speaks later."""

    guide: Guide
    lag: int = 0
    last_s: float | None = None
    costs: list[np.ndarray] = field(default_factory=list)
    recent: deque[tuple[float, list[np.ndarray], list[np.ndarray]]] = field(default_factory=deque)
    doubt: np.ndarray = field(default_factory=lambda: np.zeros(0))
    count: int = 0

    def see(self, pictures: Sequence[np.ndarray], time_s: float) -> Where:
        """Where the episode is at its next picture, [d] of each camera.

        A picture that tells nothing is forgotten: the episode goes on from where it was before.
        """
        guide = self.guide
        now = _seen([p[None] for p in pictures], guide.means)
        apart = [distances(now, other, guide.usual)[0] for other in guide.seen]
        strangeness = guide.strangeness(pictures)
        own = [d * DISTANCE for d in apart]
        costs = [to + here for to, here in zip(self._ways_to(own), own, strict=True)]
        recent = [*self.recent, (time_s, own, costs)][-self.lag - 1 :]
        likely = _likely(recent)
        doubt = np.array([float(p @ d) / DISTANCE for p, d in zip(likely, recent[0][1], strict=True)])
        doubts = (doubt + (self.doubt if self.count else 0.0)) / (self.count + 1)
        where = self._where(likely, doubts, recent[0][0], strangeness)
        is_soon = self.last_s is not None and time_s - self.last_s < SOON_S
        if strangeness <= LOST and not is_soon:
            self.costs, self.last_s, self.recent = costs, time_s, deque(recent, maxlen=self.lag + 1)
            self.doubt, self.count = doubts * (self.count + 1), self.count + 1
        return where

    def _ways_to(self, own: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Of each shown episode the costs of coming to each moment, the new picture apart."""
        if not self.costs:
            return [np.arange(len(of_one)) * PASSING for of_one in own]
        return [onward(before, PASSING, BACK) for before in self.costs]

    def _where(self, likely: Sequence[np.ndarray], doubts: np.ndarray, about_s: float, strangeness: float) -> Where:
        shown = self.guide.shown
        weights = np.exp((doubts.min() - doubts) / FLATNESS)
        weights /= weights.sum()

        def mean(values: Sequence[np.ndarray]) -> float:
            return float(sum(w * (p @ v) for w, p, v in zip(weights, likely, values, strict=True)))

        progress = mean([s.progress for s in shown])
        square = mean([s.progress**2 for s in shown])
        # The step that is likeliest, named by the shown episode that is nearest
        nearest = shown[int(weights.argmax())]
        at = int(np.bincount(nearest.steps + 1, likely[int(weights.argmax())]).argmax()) - 1
        step, step_name = [*enumerate(nearest.plan), (None, "")][at]
        return Where(
            about_s,
            min(max(progress, 0.0), 1.0),
            float(np.sqrt(max(square - progress**2, 0.0))),
            step,
            step_name,
            mean([(s.progress >= COMPLETE * s.progress.max()).astype(np.float64) for s in shown]),
            strangeness,
        )


def _likely(recent: Sequence[tuple[float, list[np.ndarray], list[np.ndarray]]]) -> list[np.ndarray]:
    """Of each shown episode how likely each of its moments is the oldest of some pictures, by what came until then and
    since."""
    _, _, costs = recent[0]
    found = []
    for r, until in enumerate(costs):
        since = np.zeros_like(until)
        for _, own, _ in reversed(list(recent)[1:]):
            since = onward((own[r] + since)[::-1], PASSING, BACK)[::-1]
        found.append(softmax(until + since))
    return found

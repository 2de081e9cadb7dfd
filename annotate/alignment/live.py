"""Laying an episode beside shown ones while it goes on, one picture at a time.

What was seen so far says how likely each moment of each shown episode is now; with a lag, what came
next says it of a moment that is gone by. An episode may be slower or faster than what is shown, and
may go back, at a price. What is unlike everything shown says little, and so does what stands still
for long, since each picture's part in what is believed fades: then the time that has gone by counts
the more.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from annotate.alignment.engine import (
    HZ,
    Seen,
    distances,
    forward_step,
    reference_weights,
    softmax,
    unit_rows,
    usual_distances,
)

# Costs in the engine's unit: of passing over a moment that is shown, of going back, of a usual distance, and of being
# e times as slow or fast as what is shown, the first START_S aside
PASSING = 1 / 3
BACK = 8.0
DISTANCE = 5.0
TEMPO = 8.0
START_S = 2.0
GRIPPING = 0.7  # what grippers count, beside the pictures
ALONE = 0.5  # a usual distance where a single episode shows none: half of what lies between unlike pictures
MEMORY = 0.95  # what each picture still counts when the next one comes
FAR = 0.6  # of usual distances to the nearest moments, on average of late: an episode that is farther is told less
# A picture that comes sooner is looked at, and nothing is concluded from it for the next
SOON_S = 0.75 / HZ
WHOLE = 256  # numbers of the whole picture, the first that an encoder gives; the others are of its cells
# Cosine distance to the nearest shown picture, now or on average of late: beyond it the episode shows something else
UNLIKE = 0.32
LOST = 0.45  # likewise: one that is farther tells nothing of where the episode is, either
COMPLETE = 0.98  # of the most that an episode comes to: its end


@dataclass(frozen=True)
class ReferenceRun:
    """An episode that shows a task, at k moments, HZ a second.

    pictures: float32 [k, d] of each camera, as the encoder gives them: the whole picture, then its
    cells. progress: float64 [k]. steps: int64 [k], the planned step that is done at each, -1 for
    none; plan: their names. openings: float64 [k, grippers], in units of how far they usually are
    apart; None where nobody knows.
    """

    name: str
    pictures: tuple[np.ndarray, ...]
    progress: np.ndarray
    steps: np.ndarray
    plan: tuple[str, ...]
    seconds: float
    openings: np.ndarray | None = None


@dataclass(frozen=True)
class Where:
    """Where an episode is, by what is shown. about_s: the moment that is spoken of.

    spread: the standard deviation of progress. at_end: how likely all is done. is_strange: the
    picture is unlike everything shown, and nothing is known.
    """

    about_s: float
    progress: float
    spread: float
    step: int | None
    step_name: str
    at_end: float
    is_strange: bool


@dataclass(frozen=True)
class Guide:
    """Some shown episodes of a task, ready to lay others beside. whole: float32 [moments, d] of
    each camera, of length 1: all pictures that are shown."""

    references: tuple[ReferenceRun, ...]
    means: tuple[np.ndarray, ...]
    seen: tuple[Seen, ...]
    usual: tuple[float, float]
    whole: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, references: Sequence[ReferenceRun]) -> "Guide":
        """Raises ValueError where they have not the same cameras."""
        pictures_by_run = [reference.pictures for reference in references]
        if len({tuple(map(_width, pictures)) for pictures in pictures_by_run}) != 1:
            raise ValueError("what is shown is of different cameras or encoders")
        by_camera = [np.concatenate(pictures) for pictures in zip(*pictures_by_run, strict=True)]
        means = tuple(pictures.mean(axis=0) for pictures in by_camera)
        features = tuple(_centred_features(s.pictures, means, s.openings) for s in references)
        usual_scales = usual_distances(features) if len(references) > 1 else (ALONE, 1.0)
        return cls(
            tuple(references),
            means,
            features,
            usual_scales,
            tuple(unit_rows(p[:, :WHOLE]) for p in by_camera),
        )

    def strangeness(self, pictures: Sequence[np.ndarray]) -> float:
        """How far pictures [d] of each camera are from the nearest that are shown."""
        pairs = zip(pictures, self.whole, strict=True)
        return 1 - float(
            np.mean(
                [
                    (shown_pictures @ unit_rows(p[None, :WHOLE])[0]).max()
                    for p, shown_pictures in pairs
                ]
            )
        )


def _width(values: np.ndarray) -> int:
    return values.shape[1]


def _centred_features(
    pictures: Sequence[np.ndarray], means: Sequence[np.ndarray], openings: np.ndarray | None
) -> Seen:
    """The whole picture and its cells count alike."""
    centred = [values - mean for values, mean in zip(pictures, means, strict=True)]
    halves = chain.from_iterable((values[:, :WHOLE], values[:, WHOLE:]) for values in centred)
    parts = [half for half in halves if _width(half)]
    return Seen(
        tuple(map(unit_rows, parts)), openings=None if openings is None else GRIPPING * openings
    )


@dataclass
class Following:
    """One episode beside a guide. What it keeps does not grow with the episode: the costs of being
    at each shown moment, and the distances of the last few pictures. lag: moments, HZ a second, by
    which it speaks later."""

    guide: Guide
    lag: int = 0
    first_s: float | None = None
    last_s: float | None = None
    costs: list[np.ndarray] = field(default_factory=list)
    recent: deque[tuple[float, list[np.ndarray], list[np.ndarray]]] = field(default_factory=deque)
    # Sums over pictures, each fading: how many, how far each shown one is, how far the nearest is, their strangeness
    count: float = 0.0
    doubt: np.ndarray | float = 0.0
    far: float = 0.0
    strange: float = 0.0

    def see(
        self, pictures: Sequence[np.ndarray], time_s: float, openings: np.ndarray | None = None
    ) -> Where:
        """Where the episode is at its next picture, [d] of each camera, its grippers [grippers] being so open.

        A picture that tells nothing is forgotten: the episode goes on from where it was before.
        """
        guide = self.guide
        features = _centred_features(
            [p[None] for p in pictures], guide.means, None if openings is None else openings[None]
        )
        moment_distances = [
            distances(features, shown_features, guide.usual)[0] for shown_features in guide.seen
        ]
        strangeness = guide.strangeness(pictures)
        count = MEMORY * self.count + 1
        strange = MEMORY * self.strange + strangeness
        far = MEMORY * self.far + min(float(d.min()) for d in moment_distances)
        moment_costs = [d * (DISTANCE / max(1.0, far / count / FAR) ** 2) for d in moment_distances]
        ways = [
            forward_step(MEMORY * previous_costs, PASSING, BACK) for previous_costs in self.costs
        ]
        start_costs = [np.arange(len(of_one)) * PASSING for of_one in moment_costs]
        costs = [
            arrival_cost + moment_cost
            for arrival_cost, moment_cost in zip(ways or start_costs, moment_costs, strict=True)
        ]
        recent = [*self.recent, (time_s, moment_costs, costs)][-self.lag - 1 :]
        first_s = time_s if self.first_s is None else self.first_s
        probabilities = _moment_likelihoods(recent, first_s)
        apart_now = np.array(
            [float(p @ d) for p, d in zip(probabilities, recent[0][1], strict=True)]
        )
        doubt = MEMORY * self.doubt + apart_now / DISTANCE
        is_strange = max(strangeness, strange / count) > UNLIKE
        position = self._place_in_task(probabilities, doubt / count, recent[0][0], is_strange)
        is_soon = self.last_s is not None and time_s - self.last_s < SOON_S
        if strangeness <= LOST and not is_soon:
            self.costs, self.recent = costs, deque(recent, maxlen=self.lag + 1)
            self.first_s = first_s
            self.last_s = time_s
            self.count = count
            self.doubt = doubt
            self.far = far
            self.strange = strange
        return position

    def _place_in_task(
        self,
        probabilities: Sequence[np.ndarray],
        doubts: np.ndarray,
        about_s: float,
        is_strange: bool,
    ) -> Where:
        references = self.guide.references
        weights = reference_weights(doubts)
        weights /= weights.sum()

        def mean(values: Sequence[np.ndarray]) -> float:
            return float(
                sum(w * (p @ v) for w, p, v in zip(weights, probabilities, values, strict=True))
            )

        progress = mean([s.progress for s in references])
        square = mean([s.progress**2 for s in references])
        # The step that is likeliest, named by the shown episode that is nearest
        nearest = references[int(weights.argmax())]
        step_number = (
            int(np.bincount(nearest.steps + 1, probabilities[int(weights.argmax())]).argmax()) - 1
        )
        step, step_name = [*enumerate(nearest.plan), (None, "")][step_number]
        return Where(
            about_s,
            min(max(progress, 0.0), 1.0),
            float(np.sqrt(max(square - progress**2, 0.0))),
            step,
            step_name,
            mean(
                [(s.progress >= COMPLETE * s.progress.max()).astype(np.float64) for s in references]
            ),
            is_strange,
        )


def _moment_likelihoods(
    recent: Sequence[tuple[float, list[np.ndarray], list[np.ndarray]]], first_s: float
) -> list[np.ndarray]:
    """Of each shown episode how likely each of its moments is the oldest of some pictures, by what
    came until then and since, and by the time since the first one."""
    about_s, _, costs = recent[0]
    probabilities = []
    for r, until in enumerate(costs):
        since = np.zeros_like(until)
        for _, moment_costs, _ in reversed(list(recent)[1:]):
            since = forward_step((moment_costs[r] + since)[::-1], PASSING, BACK)[::-1]
        tempo = np.abs(
            np.log((about_s - first_s + START_S) / (np.arange(len(until)) / HZ + START_S))
        )
        probabilities.append(softmax(until + since + TEMPO * tempo))
    return probabilities

"""How far recorded signals are behind the pictures, measured on a chunk's episodes; and signals in words for people.

A recorder may stamp a gripper's command seconds after its fingers have moved. Where the arm stands
still, pictures change only by the gripper: over many moves, what is seen about each adds up at the
lag.

For the state and the action, their speed is compared with the visual change at all lags: the best
one counts.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

import numpy as np

from core.values import grouped
from ingest.episode import EpisodeData, Finding
from ingest.signals.gripper import GripperSignal, arm_state, opening, way_steps
from ingest.signals.naming import transitions

MAX_LAG_S = 1.5
MAX_GRIPPER_LAG_S = 2.5
STEP_S = 0.1  # between lags that are tried for a gripper
STILL = 0.12  # of its fast speed: a slower arm stands still, so that what is seen to change is the gripper
FAST_PERCENTILE = 90  # of a curve: what is fast
# Times the fast change: more of it in one frame, such as a cut, does not count for more
MAX_CHANGE = 2.0

# A lag is corrected when it is large and sure
MIN_LAG_S = 0.2
MIN_GRIPPER_LAG_S = 0.3
MIN_LIKENESS, MIN_GAIN, MIN_EPISODES = 0.3, 0.05, 5  # correlation, its gain over lag 0
MIN_MOVES = 5
MIN_PROMINENCE = 8.0  # of the peak, in deviations from the other lags
MIN_PEAK = 0.1  # its height
MIN_AGREE, AGREE_S = 0.6, 0.3  # share of moves whose own peak is so near
MIN_SEEN_IN = 3  # episodes with such a move: one recording may stall once
MAX_APART_S = 0.8  # between the lags of closing and of opening

type Direction = Literal["closing", "opening"]


@dataclass(frozen=True)
class Proprioception:
    """Signals of arm and grippers from an episode's rows."""

    state: np.ndarray | None  # [n, d] without grippers and hands; None without a state
    # Of each signal, 0 closed to 1 open; None for one that is not used
    openings: Sequence[np.ndarray | None]


def proprioception(episode: EpisodeData, signals: Sequence[GripperSignal]) -> Proprioception:
    """Raises DataError for values that are not finite."""
    openings = [opening(signal, episode) if signal.is_used else None for signal in signals]
    return Proprioception(arm_state(episode, signals), openings)


@dataclass(frozen=True)
class Lag:
    """One row of the table `signal_lags`, without dataset and chunk."""

    signal: str
    lag_s: float
    likeness: float
    num_observed: int
    is_corrected: bool


# An episode, and the visual change at each lag about one move of a gripper, [offsets]; NaN outside of the episode
LagCurve = tuple[int, np.ndarray]
# Lags in seconds, and the correlation of visual change with the arm's speed at each of them
Correlation = tuple[np.ndarray, np.ndarray]


@dataclass
class LagMeter:
    """Gathers what is seen about the moves of each signal, an episode at a time.

    arm, grippers: by episode, with the name of the signal, or the gripper's number and the direction of its move.
    """

    signals: Sequence[GripperSignal]
    arm: dict[int, list[tuple[str, Correlation]]] = field(default_factory=dict)
    grippers: dict[int, list[tuple[tuple[int, Direction], LagCurve]]] = field(default_factory=dict)

    def add(
        self, episode: EpisodeData, rows: Proprioception, change: np.ndarray, fps: float
    ) -> None:
        """`change` [n]: visual change of the episode's preferred camera."""
        index = episode.record.episode_index
        arm = self.arm[index] = []
        grippers = self.grippers[index] = []
        speeds = {"state": arm_speed(rows.state), "action": arm_speed(episode.action)}
        max_lag = min(round(MAX_LAG_S * fps), len(change) // 3)
        lags_s = np.arange(-max_lag, max_lag + 1) / fps
        motions = {
            name: compressed_curve(speed)
            for name, speed in speeds.items()
            if speed is not None and len(speed) == len(change)
        }
        compressed_motions = np.reshape([*motions.values()], (-1, len(change)))
        [curves] = correlations(compressed_curve(change)[None], compressed_motions, max_lag)
        arm += [(name, (lags_s, curve)) for name, curve in zip(motions, curves, strict=True)]
        by_gripper = _change_by_gripper(change, speeds["state"])
        for number, curve in enumerate(rows.openings):
            if curve is not None and len(curve) == len(change):
                for move in transitions(curve, fps):
                    frames = np.round((move.start + move.end) / 2 + _offsets() * fps).astype(int)
                    is_inside = (frames >= 0) & (frames < len(by_gripper))
                    around = np.full(len(frames), np.nan)
                    around[is_inside] = by_gripper[frames[is_inside]]
                    direction: Direction = "opening" if move.rises else "closing"
                    grippers.append(((number, direction), (index, around)))

    def without(self, episodes: Collection[int]) -> "LagMeter":
        """What was gathered about all other episodes."""
        remaining = [index for index in self.arm if index not in episodes]
        return LagMeter(
            self.signals,
            {index: self.arm[index] for index in remaining},
            {index: self.grippers[index] for index in remaining},
        )

    def lags(self) -> list[Lag]:
        correlations = grouped(chain.from_iterable(self.arm.values()))
        curves = grouped(chain.from_iterable(self.grippers.values()))
        lags = [_lag_of_arm(name, correlations[name]) for name in sorted(correlations)]
        for number, signal in enumerate(self.signals):
            lags += _lags_of_gripper(
                signal,
                curves.get((number, "closing"), []),
                curves.get((number, "opening"), []),
            )
        return [lag for lag in lags if lag is not None]

    def findings(self, lags: Sequence[Lag]) -> list[Finding]:
        """One for each signal whose lag is corrected, at the chunk's first episode."""
        if not (parts := [_lag_words(lag) for lag in lags if lag.is_corrected]):
            return []
        detail = f"{'; '.join(parts)}: labels are corrected by it"
        return [Finding("rows_late", detail, "warning", next(iter(self.arm)))]


def _lag_words(lag: Lag) -> str:
    side = "behind" if lag.lag_s > 0 else "ahead of"
    return (
        f"{lag.signal} is {abs(lag.lag_s):.1f} s {side} the pictures ({lag.num_observed} observed)"
    )


def arm_speed(values: np.ndarray | None) -> np.ndarray | None:
    """How fast rows [n, d] change, in standard deviations per frame [n]; None where nothing moves."""
    if values is None or len(values) < 2 or not np.isfinite(values).all():
        return None
    steps = way_steps(values)
    if steps is None:
        return None
    return np.r_[steps[:1], steps]


def percentile(values: np.ndarray, percent: int) -> float:
    """What np.percentile gives of floats [n] to the last bit, at a tenth of its cost; n > 0, none of them NaN."""
    number = values.dtype.type
    ordered = np.sort(values)
    place = number(len(values) - 1) * (number(percent) / number(100))
    rank = int(place)
    low = ordered[rank]
    high = ordered[min(rank + 1, len(values) - 1)]
    share = place - number(rank)
    if share < 0.5:
        return float(low + (high - low) * share)
    return float(high - (high - low) * (number(1) - share))


def arm_is_still(speed: np.ndarray | None, num_frames: int) -> np.ndarray:
    """At which frames an arm of some speed [n] stands still, bool [n]; at all where its speed is not known."""
    if speed is None:
        return np.ones(num_frames, bool)
    return speed < STILL * percentile(speed, FAST_PERCENTILE)


def compressed_curve(values: np.ndarray) -> np.ndarray:
    """Square roots of values [n] as shares of a high one, none above the root of MAX_CHANGE:
    neither a cut nor a jerk decides how alike two curves are."""
    fast = percentile(values, FAST_PERCENTILE) or 1.0
    return np.sqrt(np.minimum(values / fast, MAX_CHANGE))


def correlations(changes: np.ndarray, motions: np.ndarray, max_lag: int) -> np.ndarray:
    """Correlation of what is seen [c, n] with motions [m, n] k frames later, for each k from -most to most:
    [c, m, 2 * most + 1]."""
    covariances = np.zeros((len(changes), len(motions), 2 * max_lag + 1))
    spreads = np.zeros_like(covariances)
    for lag in range(max_lag + 1):
        n = changes.shape[1] - lag
        # Motion that is so much later than what is seen, and the other way round
        places = [max_lag + lag, max_lag - lag]
        change, change_spread = _deviations(np.stack([changes[:, :n], changes[:, lag:]], axis=1))
        motion, motion_spread = _deviations(np.stack([motions[:, lag:], motions[:, :n]], axis=1))
        products = change[:, None] * motion
        covariances[:, :, places] = np.add.reduce(products, axis=3) / n
        spreads[:, :, places] = change_spread[:, None] * motion_spread
    return np.divide(covariances, spreads, out=np.zeros_like(spreads), where=spreads > 0)


def _deviations(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows [..., n] less their means, and their spreads [...]."""
    n = rows.shape[-1]
    deviations = rows - np.add.reduce(rows, axis=-1, keepdims=True) / n
    return deviations, np.sqrt(np.add.reduce(deviations * deviations, axis=-1) / n)


def _lag_of_arm(name: str, correlations: Sequence[Correlation]) -> Lag | None:
    """The lag at which the mean correlation over the episodes is highest; None where no episode shows one."""
    grid = np.round(np.arange(-MAX_LAG_S, MAX_LAG_S + 1e-9, 0.05), 2)
    curves = [np.interp(grid, lags, values) for lags, values in correlations if len(lags) > 1]
    if not curves:
        return None
    mean = np.mean(curves, axis=0)
    best = int(np.argmax(mean))
    at_zero = float(mean[len(grid) // 2])
    is_sure = (
        mean[best] >= MIN_LIKENESS
        and mean[best] - at_zero >= MIN_GAIN
        and len(curves) >= MIN_EPISODES
    )
    agree = np.mean([abs(grid[int(np.argmax(curve))] - grid[best]) <= AGREE_S for curve in curves])
    # Only the state is corrected: of the action labels use nothing but a gripper, which has a lag of its own
    is_corrected = bool(
        name == "state" and is_sure and abs(grid[best]) >= MIN_LAG_S and agree >= MIN_AGREE
    )
    return Lag(name, float(grid[best]), float(mean[best]), len(curves), is_corrected)


def _change_by_gripper(change: np.ndarray, speed: np.ndarray | None) -> np.ndarray:
    """The visual change where the arm stands still [n], as a share of the fast change; 0 where the arm moves."""
    fast_change = percentile(change, FAST_PERCENTILE) or 1.0
    relative = np.minimum(change / fast_change, MAX_CHANGE)
    still = arm_is_still(speed, len(change))
    noise = float(np.median(relative[still])) if still.any() else 0.0
    return np.where(still, np.maximum(0.0, relative - noise), 0.0)


def _offsets() -> np.ndarray:
    """Times about a move, in seconds; one at which something is seen is minus the signal's lag."""
    steps = round(MAX_GRIPPER_LAG_S / STEP_S)
    return np.arange(-steps, steps + 1) * STEP_S


def _lags_of_gripper(
    signal: GripperSignal, closings: Sequence[LagCurve], openings: Sequence[LagCurve]
) -> list[Lag]:
    """The lags of closing and of opening; both are corrected or neither is.

    They are where both stand out and are nearly alike, and the single moves of one of them agree.
    """
    peaks = [
        (direction, _peak(moves))
        for direction, moves in (("closing", closings), ("opening", openings))
        if moves
    ]
    stand_out = len(peaks) == 2 and all(peak.stands_out for _, peak in peaks)
    is_sure = stand_out and any(
        peak.agreement >= MIN_AGREE and peak.num_seen_in >= MIN_SEEN_IN for _, peak in peaks
    )
    if is_sure:
        lags_s = [peak.lag_s for _, peak in peaks]
        is_sure = (
            min(map(abs, lags_s)) >= MIN_GRIPPER_LAG_S and abs(lags_s[0] - lags_s[1]) <= MAX_APART_S
        )
    return [
        Lag(
            f"{signal.title}: {direction}",
            peak.lag_s,
            peak.prominence,
            peak.num_moves,
            bool(is_sure),
        )
        for direction, peak in peaks
    ]


@dataclass(frozen=True)
class _Peak:
    lag_s: float
    prominence: float
    num_moves: int
    stands_out: bool
    agreement: float  # share of the moves whose own peak is near
    num_seen_in: int  # their episodes


def _peak(moves: Sequence[LagCurve]) -> _Peak:
    """Where the most is seen about moves."""
    around = np.nan_to_num(np.array([change for _, change in moves]))
    mean = np.convolve(around.mean(axis=0), np.ones(3) / 3, "same")
    best = int(np.argmax(mean))
    usual_level = float(np.median(mean))
    deviation = float(np.median(np.abs(mean - usual_level))) + 1e-3
    prominence = (float(mean[best]) - usual_level) / deviation
    peak_places = np.argmax([np.convolve(move, np.ones(3) / 3, "same") for move in around], axis=1)
    agree = np.abs(peak_places - best) * STEP_S <= AGREE_S
    seen_in = {episode for (episode, _), agrees in zip(moves, agree, strict=True) if agrees}
    stands_out = (
        len(moves) >= MIN_MOVES and prominence >= MIN_PROMINENCE and bool(mean[best] >= MIN_PEAK)
    )
    lag_s = float(-np.round(_offsets()[best], 2))
    return _Peak(lag_s, prominence, len(moves), stands_out, float(agree.mean()), len(seen_in))


def opening_without_lag(
    curve: np.ndarray, fps: float, closing_s: float, opening_s: float
) -> np.ndarray:
    """An opening [n] as it would be without its lags: each move is where the pictures show it, float64 [n].

    Between moves the time is stretched evenly, so that no level is lost.
    """
    n = len(curve)
    moves = transitions(curve, fps)
    mean_s = (closing_s + opening_s) / 2
    # Frames of the recorded signal, and where each belongs
    recorded = [0.0]
    shown_frames = [0.0 - mean_s * fps]
    for move in moves:
        lag = (opening_s if move.rises else closing_s) * fps
        for frame in (move.start, move.end):
            recorded.append(float(frame))
            shown_frames.append(max(frame - lag, shown_frames[-1] + 1e-3))
    recorded.append(n - 1.0)
    shown_frames.append(max(n - 1 - mean_s * fps, shown_frames[-1] + 1e-3))
    recorded_frames = np.interp(np.arange(n), shown_frames, recorded)
    return np.interp(recorded_frames, np.arange(n), curve)

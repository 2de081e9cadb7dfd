"""Measures of runs beside one another.

Of their rows: beside the others of their task where there are enough,
else of all of the chunk; of all together, their signs and how late they
are. Of their pictures: a camera that stands otherwise, a text that others
do not fit, a success whose last picture is unlike the ends of the others.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from annotate.checkup.comparer import LIMITS, Measurement
from annotate.checkup.summary import (
    PHASES,
    ColumnSummary,
    RunSummary,
    cameras_of,
    euclidean_distances,
)
from annotate.pictures import BLACK_LUMA
from annotate.signal_lag import percentile
from core.values import grouped

OTHERS = LIMITS["others"]
GRIPPER = LIMITS["gripper_stays"]
CLIPPED = LIMITS["action_clipped"]
SCALE = LIMITS["other_scale"]
OFFSET = LIMITS["other_scale offset"]
SIGN = LIMITS["other_scale sign"]
SIGNS = LIMITS["other_scale sign in all"]
LATE = LIMITS["rows_late"]
IDLE = LIMITS["idle_end"]
MOVED = LIMITS["camera_moved"]
TEXT = LIMITS["text_differs"]
OUTCOME = LIMITS["outcome_differs"]
TINY = 1e-9  # a distance that is none


class Group(NamedTuple):
    """The other runs that a run is compared with, what they are in words, and how much a share of them counts.

    usual_spreads: as `usual_spreads` gives them of these and the run.
    """

    runs: Sequence[RunSummary]
    words: str
    weight: float
    usual_spreads: Mapping[tuple[int, str], np.ndarray]

    def columns(self, name: str, column: ColumnSummary) -> list[ColumnSummary]:
        """The same column of the other runs, where it has the same dimensions."""
        columns = [run.columns[name] for run in self.runs if name in run.columns]
        return [c for c in columns if len(c.largest) == len(column.largest)]


def compared_runs(runs: Sequence[RunSummary]) -> Iterator[tuple[RunSummary, Group]]:
    """Each run that has enough others to be compared with, and these."""
    small = set[str | None]()
    for task, siblings in grouped((run.task, run) for run in runs).items():
        if task and len(siblings) > OTHERS.of_task:
            yield from _beside_others(siblings, siblings, "the other runs of its task", 1.0)
        else:
            small.add(task)
    if small and len(runs) > OTHERS.of_any:
        few = [run for run in runs if run.task in small]
        yield from _beside_others(few, runs, "the other runs", OTHERS.more)


def _beside_others(
    subjects: Iterable[RunSummary], runs: Sequence[RunSummary], words: str, weight: float
) -> Iterator[tuple[RunSummary, Group]]:
    spreads = usual_spreads(runs)
    for run in subjects:
        yield (
            run,
            Group([sibling for sibling in runs if sibling is not run], words, weight, spreads),
        )


def usual_spreads(runs: Iterable[RunSummary]) -> dict[tuple[int, str], np.ndarray]:
    """By run and column, the median of the other runs' standard deviations of each dimension, [d].

    Where there are others with the same dimensions.
    """
    members: dict[tuple[str, int], dict[tuple[int, str], np.ndarray]] = {}
    for run in runs:
        for name, column in run.columns.items():
            same = members.setdefault((name, len(column.spread)), {})
            same[run.episode_index, name] = column.spread
    spread_by_run: dict[tuple[int, str], np.ndarray] = {}
    for spreads in members.values():
        if len(spreads) > 1:
            medians = medians_of_others(np.stack([*spreads.values()]))
            spread_by_run |= zip(spreads, medians, strict=True)
    return spread_by_run


def medians_of_others(values: np.ndarray) -> np.ndarray:
    """The median of all rows but one, of values [n, d], for each of these, [n, d]; n > 1."""
    order = np.argsort(values, axis=0)
    ordered = np.take_along_axis(values, order, axis=0)
    ranks = np.argsort(order, axis=0)
    # Without a row all that are above it are a place lower
    low = (len(values) - 2) // 2
    high = (len(values) - 1) // 2
    of_low = np.where(ranks <= low, ordered[low + 1], ordered[low])
    of_high = np.where(ranks <= high, ordered[high + 1], ordered[high])
    return (of_low + of_high) / 2


def still_gripper(run: RunSummary, group: Group) -> Iterator[Measurement]:
    """A gripper that does not move in a run that is not known to have failed: in how many of the others it does."""
    if run.success is False or 0 not in run.closings or _is_short(run, group):
        return
    for number, (title, closings) in enumerate(zip(run.gripper_titles, run.closings, strict=True)):
        closings_of_all = [sibling.closings[number : number + 1] for sibling in group.runs]
        counts = [count for count in chain.from_iterable(closings_of_all) if count is not None]
        if closings == 0 and counts:
            yield Measurement(
                "gripper_stays",
                run,
                0,
                float(np.median(counts)),
                signal=title,
                size=group.weight * np.count_nonzero(counts) / len(counts),
                words={"others": group.words},
            )


def _is_short(run: RunSummary, group: Group) -> bool:
    """Is a run so short that it may end before what the others do in it?"""
    usual_duration_s = float(np.median([len(sibling) / sibling.fps for sibling in group.runs]))
    return len(run) / run.fps < max(GRIPPER.duration_s, GRIPPER.duration * usual_duration_s)


def clipped_action(run: RunSummary, group: Group) -> Iterator[Measurement]:
    """An action that stays at one largest value in several stretches: how many of the other runs go beyond."""
    action = run.columns.get("action")
    if action is None:
        return
    for d in np.flatnonzero(action.is_clipped).tolist():
        largest = float(action.largest[d])
        limits = np.array([column.largest[d] for column in group.columns("action", action)])
        # A limit that several runs have is theirs, too: the others that are not clipped there have to go beyond it
        free = limits[np.abs(limits - largest) > 1e-6 * largest]
        if len(free) >= CLIPPED.free:
            yield Measurement(
                "action_clipped",
                run,
                largest,
                float(np.median(limits)),
                signal=action.titles[d],
                size=group.weight * float((free >= CLIPPED.beyond * largest).mean()),
                words={"share": 100 * action.at_largest[d], "others": group.words},
            )


def dead_dimensions(run: RunSummary, group: Group) -> Iterator[Measurement]:
    """A dimension that keeps exactly one value, while others of its column move: how many of the other runs move it."""
    for name, column in run.columns.items():
        ranges = column.high - column.low
        is_dead = (ranges == 0) & column.arm
        # Few have any: only those are compared
        other_columns = group.columns(name, column) if is_dead.any() else ()
        if not other_columns or not (ranges > 0).any():
            continue
        other_ranges = np.array([c.high - c.low for c in other_columns])
        usual_ranges = np.median(other_ranges, axis=0)
        shares = (other_ranges > LIMITS["dead_dimension"].moves * usual_ranges).mean(axis=0)
        for d in np.flatnonzero(is_dead & (usual_ranges > 0)).tolist():
            yield Measurement(
                "dead_dimension",
                run,
                0,
                float(usual_ranges[d]),
                signal=column.titles[d],
                size=shares[d],
                words={"value": column.low[d], "others": group.words},
            )


def other_units(run: RunSummary, group: Group) -> Iterator[Measurement]:
    """By how much all dimensions of the arm move farther than usual, where it is one factor for most of them."""
    for name, column in run.columns.items():
        key = run.episode_index, name
        usual_spread = group.usual_spreads.get(key, np.zeros_like(column.spread))
        is_moving = column.arm & (usual_spread > 0) & (column.spread > 0)
        logarithms = np.log(column.spread[is_moving] / usual_spread[is_moving])
        # A median is as far only where half of all are
        num_far = np.count_nonzero(np.abs(logarithms) >= 0.99 * SCALE.minimum)
        if len(logarithms) < 2 or num_far < len(logarithms) // 2:
            continue
        middle = float(np.median(logarithms))
        is_alike = np.abs(logarithms - middle) <= SCALE.same * abs(middle)
        if is_alike.mean() >= SCALE.alike:
            yield Measurement(
                "other_scale",
                run,
                float(np.exp(middle)),
                1.0,
                signal=name,
                size=abs(middle),
                words={"others": group.words},
            )


def offsets(run: RunSummary, group: Group) -> Iterator[Measurement]:
    """Dimensions of which the action is above or below the state by another amount than in the other runs."""
    if run.leads is None or run.follows is None:
        return
    leads = [other_run.leads for other_run in group.runs if other_run.leads is not None]
    other_leads = [lead for lead in leads if len(lead) == len(run.leads)]
    if len(other_leads) < OTHERS.of_task:
        return
    middle = np.median(other_leads, axis=0)
    deviation = np.median(np.abs(other_leads - middle), axis=0)
    state = run.columns["state"]
    extent = state.high - state.low
    is_odd = np.abs(run.leads - middle) >= OFFSET.deviations * deviation
    for d in np.flatnonzero(
        is_odd & (run.follows >= OFFSET.tracks) & (extent > 0) & state.arm
    ).tolist():
        measured = float(run.leads[d])
        usual_lead = float(middle[d])
        yield Measurement(
            "other_scale offset",
            run,
            measured,
            usual_lead,
            signal=state.titles[d],
            size=float(abs(measured - usual_lead) / extent[d]),
            words={"others": group.words},
        )


def idle_ends(run: RunSummary, group: Group) -> Iterator[Measurement]:
    """How long nothing moves at a run's start and at its end."""
    for end, side in (("start", "first"), ("end", "last")):
        seconds = run.idle_s[end]
        if seconds < IDLE.minimum:
            continue
        usual_s = float(
            np.percentile([sibling.idle_s[end] for sibling in group.runs], OTHERS.usual)
        )
        frames = round(seconds * run.fps)
        stretch = (0, frames) if end == "start" else (len(run) - frames, len(run))
        yield Measurement(
            "idle_end",
            run,
            seconds,
            usual_s,
            stretch,
            signal=end,
            words={"side": side, "others": group.words},
        )


def opposite_signs(runs: Sequence[RunSummary]) -> Iterator[Measurement]:
    """How joints' states move with their action, where others' do.

    All runs of the same dimensions are compared, whatever their task: a sign is the robot's.
    """
    groups = grouped(
        ((run.columns["state"].titles, run.follow.shape), run)
        for run in runs
        if run.follow is not None
    )
    for members in groups.values():
        follows = np.stack([run.follow for run in members if run.follow is not None])
        usual_follows = np.median(follows, axis=0)
        if len(members) >= SIGN.runs:
            yield from _signs_of_single_runs(members, follows, usual_follows)
        if len(members) >= SIGNS.runs:
            yield from _signs_of_all_runs(members, usual_follows)


def _signs_of_single_runs(
    runs: Sequence[RunSummary], follows: np.ndarray, usual_follows: np.ndarray
) -> Iterator[Measurement]:
    """`follows`: [runs, 2, d], `usual_follows`: their medians [2, d]."""
    spreads = np.stack([run.columns["state"].spread[: follows.shape[2]] for run in runs])
    moves = spreads >= SIGN.spread * np.median(spreads, axis=0)
    # By either way of following, the one by which it goes more surely against
    correlations = np.where((usual_follows >= SIGN.follows) & moves[:, None], follows, np.inf)
    ways = correlations.argmin(axis=1)
    for number, joint in np.argwhere(correlations.min(axis=1) < 0).tolist():
        way = ways[number, joint]
        yield _sign(
            "other_scale sign",
            runs[number],
            joint,
            float(correlations[number, way, joint]),
            float(usual_follows[way, joint]),
        )


def _signs_of_all_runs(
    runs: Sequence[RunSummary], usual_follows: np.ndarray
) -> Iterator[Measurement]:
    for usual_joints in usual_follows:
        for joint in np.flatnonzero(usual_joints < 0).tolist():
            other_joints = np.delete(usual_joints, joint)
            other_joints = other_joints[np.isfinite(other_joints)]
            if len(other_joints) and (other_joints >= SIGN.follows).mean() >= SIGNS.joints:
                usual_follow = float(np.median(other_joints))
                measured = float(usual_joints[joint])
                for run in runs:
                    yield _sign("other_scale sign in all", run, joint, measured, usual_follow)


def _sign(
    limit: str, run: RunSummary, joint: int, measured: float, usual_follow: float
) -> Measurement:
    title = run.columns["state"].titles[joint]
    return Measurement(limit, run, measured, usual_follow, signal=title, size=-measured)


def late_rows(runs: Sequence[RunSummary]) -> Iterator[Measurement]:
    """Rows that are behind or ahead of the pictures: in all runs, or in single ones."""
    curves = _row_curves(runs)
    lag, is_sure = _common_lag(curves)
    counts = {"num_runs": len(curves), "num_all": len(runs)}
    middle = len(next(iter(curves.values()), ())) // 2
    likeness = [float(curve[lag + middle]) for curve in curves.values()]
    are_comparable = len(curves) >= LATE.runs and np.mean(likeness) >= LATE.likeness_of_all
    for run in filter(lambda run: run.episode_index in curves, runs):
        curve = curves[run.episode_index]
        run_lag = _deviating_lag(run, curve, lag) if are_comparable else None
        words = {"usual_lag": _lag_words(lag, run.fps)}
        if run_lag is not None:
            yield Measurement(
                "rows_late",
                run,
                run_lag,
                lag,
                signal="state",
                size=abs(run_lag - lag),
                words=words | {"lag": _lag_words(run_lag, run.fps)},
            )
        if is_sure:
            yield Measurement(
                "rows_late in all",
                run,
                lag,
                0,
                signal="state",
                size=abs(lag),
                words=words | counts,
            )


def _deviating_lag(run: RunSummary, curve: np.ndarray, lag: int) -> int | None:
    """The lag of a run, in frames, where it surely has another one than all runs together; else None."""
    run_lag = peak_lag(curve)
    middle = len(curve) // 2
    likeness = float(curve[run_lag + middle])
    gain = likeness - float(curve[lag + middle])
    is_compared = abs(run_lag) <= LATE.share * len(run)
    if is_compared and likeness >= LATE.likeness and gain >= LATE.gain:
        return run_lag
    return None


def peak_lag(curve: np.ndarray) -> int:
    """The lag, in frames, at which a curve [2 * most + 1] is highest."""
    return int(np.argmax(curve)) - len(curve) // 2


def common_lag(runs: Sequence[RunSummary]) -> int:
    """The lag of all runs together, in frames, however sure it is; 0 where no run tells any."""
    return _common_lag(_row_curves(runs))[0]


def _row_curves(runs: Sequence[RunSummary]) -> dict[int, np.ndarray]:
    """Those over as many lags as most have, or the most of those: runs of another rate are not compared."""
    curves = {run.episode_index: run.row_curve for run in runs if run.row_curve is not None}
    usual_length = _commonest(map(len, curves.values()))
    return {episode: curve for episode, curve in curves.items() if len(curve) == usual_length}


def _commonest(sizes: Iterable[int]) -> int:
    """The size that most things have, the larger of two that as many have; 0: there are none."""
    counts = Counter(sizes)
    return max(counts, key=lambda size: (counts[size], size), default=0)


def _common_lag(curves: Mapping[int, np.ndarray]) -> tuple[int, bool]:
    """The lag of all runs together, and whether it is sure; 0 without any curve."""
    if not curves:
        return 0, False
    mean = np.mean(list(curves.values()), axis=0)
    max_lag = len(mean) // 2
    lag = peak_lag(mean)
    near = [abs(peak_lag(curve) - lag) <= 1 for curve in curves.values()]
    gain = float(mean[lag + max_lag] - mean[max_lag])
    reached = len(curves), float(mean[lag + max_lag]), gain, float(np.mean(near))
    is_sure = all(
        value >= limit
        for value, limit in zip(reached, LIMITS["rows_late in all"].sureness, strict=True)
    )
    return lag, is_sure and abs(lag) < max_lag


def _lag_words(lag: int, fps: float) -> str:
    side = "behind" if lag > 0 else "ahead of"
    if lag:
        return f"{abs(lag)} frames ({abs(lag) / fps:.2f} s) {side}"
    return "at one time with"


def moved_cameras(runs: Sequence[RunSummary]) -> Iterator[Measurement]:
    """How unlike a camera's resting picture is to that of every other run."""
    for camera in cameras_of(runs):
        camera_runs = [run for run in runs if camera in run.cameras]
        if len(camera_runs) < MOVED.runs:
            continue
        resting = np.stack([_resting_picture(run.cameras[camera].tiny) for run in camera_runs])
        for k, distance, usual_distance in _nearest_others(resting, MOVED.minimum):
            yield Measurement(
                "camera_moved", camera_runs[k], distance, usual_distance, camera=camera
            )


def _nearest_others(
    pictures: np.ndarray, minimum: float = 0.0
) -> Iterator[tuple[int, float, float]]:
    """How far each run's picture, of [runs, ...], is from the nearest others, where it is so far, and how far the
    others' are."""
    flat = pictures.reshape(len(pictures), -1)
    distances = np.stack([np.abs(flat - picture).mean(axis=1) for picture in flat])
    np.fill_diagonal(distances, np.inf)
    nearest = _mean_of_least(distances)
    for k in np.flatnonzero(nearest >= minimum).tolist():
        yield k, float(nearest[k]), percentile(np.delete(nearest, k), OTHERS.usual)


def _resting_picture(phases: np.ndarray) -> np.ndarray:
    """What stays in a camera's pictures [k, 16, 16], float32 [16, 16]; where it is black, that is told by itself."""
    is_lit = phases.reshape(len(phases), -1).max(axis=1) >= BLACK_LUMA
    if is_lit.any():
        phases = phases[is_lit]
    return np.median(phases, axis=0).astype(np.float32)


def _mean_of_least(distances: np.ndarray) -> np.ndarray:
    """The mean of the OTHERS.nearest smallest of each row of distances [n, k], float64 [n]; infinite ones are none."""
    smallest = np.sort(distances, axis=1)[:, : OTHERS.nearest]
    return smallest.mean(axis=1, where=np.isfinite(smallest)).astype(np.float64)


def differing_texts(runs: Sequence[RunSummary]) -> Iterator[Measurement]:
    """A run that looks and moves like those of another text, not of its own."""
    texts = np.array([run.task or "" for run in runs])
    names, counts = np.unique(texts[texts != ""], return_counts=True)
    common = names[counts > TEXT.runs].tolist()
    if len(common) < 2:
        return
    run_distances = _run_distances(runs)
    distances = [_distances_to_text(run_distances, texts == text) for text in common]
    # How far runs of a text are from the nearest ones of their own text
    usual_distances = np.array(
        [np.median(column[texts == text]) for column, text in zip(distances, common, strict=True)]
    )
    for number, text in enumerate(common):
        foreign_distances = np.stack(distances, axis=1)
        text_distances = foreign_distances[:, number].copy()
        foreign_distances[:, number] = np.inf
        nearest = foreign_distances.argmin(axis=1)
        nearest_distances = foreign_distances.min(axis=1)
        is_unlike = text_distances >= TEXT.apart * usual_distances[number]
        is_near = nearest_distances <= TEXT.near * usual_distances[nearest]
        for k in np.flatnonzero((texts == text) & is_unlike & is_near).tolist():
            yield Measurement(
                "text_differs",
                runs[k],
                float(text_distances[k] / max(nearest_distances[k], TINY)),
                signal="text",
                words={"nearest": common[nearest[k]], "text": text},
            )


def _distances_to_text(run_distances: np.ndarray, is_member: np.ndarray) -> np.ndarray:
    """Mean distance of each run to the nearest others of a text, [runs]; is_member: those that have it, bool [runs]."""
    is_other = is_member & ~np.eye(len(is_member), dtype=bool)
    return _mean_of_least(np.where(is_other, run_distances, np.inf))


def _run_distances(runs: Sequence[RunSummary]) -> np.ndarray:
    """How far runs are from one another, [runs, runs]: by what each camera shows and by the state, at their phases.

    Each of these counts by its median over all pairs. Of a camera that a run lacks, and of rows of
    another form, it is as far as the median.
    """
    parts = [_picture_vectors(runs, camera) for camera in cameras_of(runs)]
    parts.append(_state_vectors(runs))
    total = np.zeros((len(runs), len(runs)), np.float32)
    for part in parts:
        members = np.array(sorted(part), int)
        if len(members) < 2:
            continue
        member_distances = euclidean_distances(np.stack([part[k] for k in members.tolist()]))
        middle = float(np.median(member_distances[np.triu_indices(len(members), 1)]))
        if middle > 0:
            whole = np.ones_like(total)
            whole[np.ix_(members, members)] = member_distances / middle
            total += whole
    np.fill_diagonal(total, 0)
    return total


def _picture_vectors(runs: Sequence[RunSummary], camera: str) -> dict[int, np.ndarray]:
    """What a camera shows in each run that has it, as one vector, by the run's place in the list."""
    return {
        k: run.cameras[camera].tiny.reshape(-1).astype(np.float32)
        for k, run in enumerate(runs)
        if camera in run.cameras
    }


def _state_vectors(runs: Sequence[RunSummary]) -> dict[int, np.ndarray]:
    """The states of runs, likewise, in standard deviations of each dimension; of those with the commonest width."""
    states = {
        k: run.columns["state"].phases for k, run in enumerate(runs) if "state" in run.columns
    }
    if not states:
        return {}
    width = _commonest(values.shape[1] for values in states.values())
    states = {k: values for k, values in states.items() if values.shape[1] == width}
    spread = np.maximum(np.concatenate(list(states.values())).std(axis=0), 1e-9)
    return {k: (values / spread).reshape(-1).astype(np.float32) for k, values in states.items()}


def contradicted_outcomes(runs: Sequence[RunSummary]) -> Iterator[Measurement]:
    """A run that is said to have succeeded, and ends like what the others of its task show earlier,
    not like their ends."""
    runs_by_task = grouped((run.task, run) for run in runs if run.task and run.success is not False)
    for siblings in runs_by_task.values():
        cameras = set.intersection(*(set(run.cameras) for run in siblings))
        if len(siblings) > OUTCOME.others and cameras:
            yield from _contradicted_in_task(siblings, sorted(cameras))


def _contradicted_in_task(
    runs: Sequence[RunSummary], cameras: Sequence[str]
) -> Iterator[Measurement]:
    pictures = np.stack([_pictures_at_phases(run, cameras) for run in runs])
    for k, distance, usual_distance in _nearest_others(pictures[:, -1]):
        run = runs[k]
        # Asked first, since what is earlier costs more to look through
        if not run.success or distance < OUTCOME.times * usual_distance:
            continue
        earlier = _distance_to_earlier(pictures, k)
        if distance >= OUTCOME.earlier * earlier:
            yield Measurement(
                "outcome_differs",
                run,
                distance,
                usual_distance,
                (len(run) - 1, len(run)),
                signal="outcome",
                words={"earlier": earlier},
            )


def _pictures_at_phases(run: RunSummary, cameras: Sequence[str]) -> np.ndarray:
    """What cameras show at the phases, float32 [PHASES, pixels]."""
    pictures = [run.cameras[camera].tiny.reshape(PHASES, -1) for camera in cameras]
    return np.concatenate(pictures, axis=1).astype(np.float32)


def _distance_to_earlier(pictures: np.ndarray, run: int) -> float:
    """Mean distance of a run's end to the nearest moments of others, before their end; of [runs, PHASES, pixels]."""
    earlier = np.delete(pictures[:, : -OUTCOME.last], run, axis=0)
    distances = np.abs(earlier - pictures[run, -1]).mean(axis=2).min(axis=1)
    return float(_mean_of_least(distances[None])[0])

"""Faults for benchmarks/checkup.py: each spoils one run of a decoded set, by a size from hardly to plainly visible.

A fault that would change nothing that anybody could see is not made: a camera is frozen where it saw motion, a clipped
action went beyond its limit. Pictures that change are encoded again by a real encoder.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa

from benchmarks.checkup_sets import DecodedRun, DecodedSet
from ingest.episode import StoredStatistics
from ingest.signals.gripper import combined

Rng = np.random.Generator
SEEN = (
    0.5  # share of a stretch in which a camera or an arm has to move for a fault of standing still
)
MOVES = 0.25  # of the fast (90th percentile) speed: more is motion
NOISE = 1.5  # luma, standard deviation: a camera's noise in pictures of a scene that stands still
BLACK = 16  # luma of black in video range
TRACKS = 0.9  # correlation of action and state of one joint, from which on the action is a position


@dataclass(frozen=True)
class Spoilt:
    """A run with a fault in the half-open stretch of frames [start, end). frames_late: by how many frames its rows are
    behind its pictures (negative: ahead). partner: the run that it is a copy of, or has the pictures of."""

    run: DecodedRun
    start: int
    end: int
    frames_late: int = 0
    partner: int | None = None


Size = float | str  # of a fault: a number, or words
# Spoils a run of the set, or says that this run cannot have the fault
Spoil = Callable[[DecodedRun, DecodedSet, Size, Rng], Spoilt | None]


@dataclass(frozen=True)
class Fault:
    """A kind of fault. check: the name of the check that has to name it; None: no fault, nothing may be named.
    everywhere: it is in all runs, not in one. turns: a size is tried times each of these."""

    name: str
    check: str | None
    unit: str
    sizes: Sequence[Size]
    spoil: Spoil
    everywhere: bool = False
    turns: Sequence[int] = (1,)


# Pictures


def encoded_again(pictures: np.ndarray) -> np.ndarray:
    """Luma pictures [n, h, w] as they come back from H.264."""
    height, width = pictures.shape[1:]
    even = np.pad(pictures, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    file = io.BytesIO()
    write_luma(file, even, 10, crf=23)
    file.seek(0)
    with av.open(file, "r") as container:
        decoded = [
            frame.to_ndarray(format="yuv420p")[:height, :width]
            for frame in container.decode(video=0)
        ]
    assert len(decoded) == len(pictures)
    return np.stack(decoded)


def write_luma(file: Path | io.BytesIO, pictures: np.ndarray, fps: float, *, crf: int) -> None:
    """Luma pictures [n, h, w] of even sizes as H.264."""
    height, width = pictures.shape[1:]
    grey = np.full((height // 2, width), 128, np.uint8)
    with av.open(file, "w", format="mp4") as container:
        options = {"crf": str(crf), "preset": "veryfast", "g": "10"}
        stream = container.add_stream("libx264", rate=round(fps), options=options)
        stream.height = height
        stream.width = width
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(
                stream.encode(
                    av.VideoFrame.from_ndarray(np.vstack([picture, grey]), format="yuv420p")
                )
            )
        container.mux(stream.encode())


def noisy(pictures: np.ndarray, rng: Rng) -> np.ndarray:
    return np.clip(np.round(pictures + rng.normal(0, NOISE, pictures.shape)), 0, 255).astype(
        np.uint8
    )


def _all_again(run: DecodedRun) -> DecodedRun:
    for camera, pictures in run.pictures.items():
        run = run.with_pictures(camera, encoded_again(pictures))
    return run


def again(run: DecodedRun, group: DecodedSet, size: Size, rng: Rng) -> Spoilt:
    """No fault: all pictures are encoded again."""
    return _whole(_all_again(run))


def frozen(run: DecodedRun, group: DecodedSet, seconds: Size, rng: Rng) -> Spoilt | None:
    camera = run.cameras[int(rng.integers(len(run.cameras)))]
    place = _where_moving(camera.change, float(seconds) * run.fps, rng)
    if place is None:
        return None
    pictures = np.array(run.pictures[camera.camera])
    pictures[place[0] : place[1]] = pictures[place[0]]
    return Spoilt(run.with_pictures(camera.camera, encoded_again(pictures)), *place)


def black(run: DecodedRun, group: DecodedSet, seconds: Size, rng: Rng) -> Spoilt | None:
    camera = _camera(run, rng)
    count = _frames(seconds, run)
    if count >= len(run) - 2:
        return None
    start = int(rng.integers(1, len(run) - count))
    pictures = np.array(run.pictures[camera])
    pictures[start : start + count] = BLACK
    return Spoilt(run.with_pictures(camera, encoded_again(pictures)), start, start + count)


def moved(run: DecodedRun, group: DecodedSet, size: Size, rng: Rng) -> Spoilt:
    """The camera is shifted by a share of the width, turned by degrees or zoomed, in words such as "shift 0.04"."""
    way, amount = str(size).split()
    camera = _camera(run, rng)
    pictures = run.pictures[camera]
    height, width = pictures.shape[1:]
    turned = float(amount) * int(rng.choice([-1, 1])) if way == "turn" else 0.0
    matrix = cv2.getRotationMatrix2D(
        (width / 2, height / 2), turned, float(amount) if way == "zoom" else 1.0
    )
    if way == "shift":
        angle = rng.uniform(0, 2 * np.pi)
        matrix[:, 2] += float(amount) * width * np.array([np.cos(angle), np.sin(angle)])
    shifted_pictures = np.stack(
        [
            cv2.warpAffine(np.array(p), matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
            for p in pictures
        ]
    )
    return _whole(run.with_pictures(camera, encoded_again(shifted_pictures)))


def brighter(run: DecodedRun, group: DecodedSet, luma: Size, rng: Rng) -> Spoilt:
    """From one frame on a camera's pictures are brighter or darker."""
    camera = _camera(run, rng)
    start = int(rng.integers(len(run) // 4, 3 * len(run) // 4))
    pictures = np.array(run.pictures[camera], np.int16)
    pictures[start:] += round(float(luma)) * int(rng.choice([-1, 1]))
    changed_pictures = encoded_again(np.clip(pictures, 0, 255).astype(np.uint8))
    return Spoilt(run.with_pictures(camera, changed_pictures), start, len(run))


def blurred(run: DecodedRun, group: DecodedSet, share: Size, rng: Rng) -> Spoilt:
    """From one frame on a camera's pictures are out of focus: blurred by a share of their width."""
    camera = _camera(run, rng)
    start = int(rng.integers(len(run) // 4, 3 * len(run) // 4))
    pictures = np.array(run.pictures[camera])
    deviation = float(share) / 100 * pictures.shape[2]
    for number in range(start, len(run)):
        pictures[number] = cv2.GaussianBlur(pictures[number], (0, 0), deviation)
    changed_pictures = encoded_again(pictures)
    return Spoilt(run.with_pictures(camera, changed_pictures), start, len(run))


# Rows


def with_rows(
    run: DecodedRun, state: np.ndarray | None = None, action: np.ndarray | None = None
) -> DecodedRun:
    """The run with other values of state or action [n, d], and no statistics: a recorder makes these of its rows."""
    episode = replace(run.episode, statistics=())
    if state is not None and episode.states is not None:
        episode = replace(episode, states=_named_as(episode.states, state))
    if action is not None and episode.actions is not None:
        episode = replace(episode, actions=_named_as(episode.actions, action))
    return replace(run, episode=episode)


def _named_as(table: pa.Table, values: np.ndarray) -> pa.Table:
    return pa.Table.from_arrays([pa.array(column) for column in values.T], names=table.column_names)


def values_of(run: DecodedRun) -> dict[str, np.ndarray]:
    """The run's rows by column, as copies."""
    columns = {"state": run.episode.state, "action": run.episode.action}
    return {
        name: np.array(values, np.float64) for name, values in columns.items() if values is not None
    }


def late(run: DecodedRun, group: DecodedSet, frames: Size, rng: Rng) -> Spoilt | None:
    """Rows late by some frames, early by some where these are negative; what has no other half is cut off."""
    count = abs(int(frames))
    values = values_of(run)
    if not any(v.shape[1] for v in values.values()) or count >= len(run) // 2:
        return None
    n = len(run) - count
    # The frames that pictures and rows on time have, and those of late rows
    own_start, other_start = (count, 0) if int(frames) > 0 else (0, count)
    cut = kept_frames(run, np.arange(len(run))[own_start : own_start + n])
    shifted = values_of(cut)
    for name, rows in values.items():
        shifted[name][:] = rows[other_start : other_start + n]
    return Spoilt(with_rows(cut, **shifted), 0, n, int(frames))


def gripper_dimensions(run: DecodedRun) -> dict[str, list[int]]:
    """The dimensions by column that move as a gripper in use does: its own, and others that follow it."""
    values = values_of(run)
    chosen = dict[str, list[int]]()
    for signal in run.grippers:
        if not signal.is_used or signal.column not in values:
            continue
        curve = combined(signal, values[signal.column])
        for name, rows in values.items():
            own_dimensions = signal.dimensions if name == signal.column else ()
            similar_dimensions = [
                d
                for d in range(rows.shape[1])
                if d in own_dimensions or _correlation(rows[:, d], curve) > TRACKS
            ]
            chosen[name] = sorted({*chosen.get(name, []), *similar_dimensions})
    return chosen


def _correlation(first_curve: np.ndarray, second_curve: np.ndarray) -> float:
    """Its size; 0 where one of the two does not change."""
    if np.ptp(first_curve) == 0 or np.ptp(second_curve) == 0:
        return 0.0
    return abs(float(np.corrcoef(first_curve, second_curve)[0, 1]))


def clipped(run: DecodedRun, group: DecodedSet, share: Size, rng: Rng) -> Spoilt | None:
    """The arm's action stays within the middle share of its range over the set."""
    values = values_of(run)
    if "action" not in values:
        return None
    arm = run.signals().arm_dimensions("action")
    everywhere = np.concatenate(
        [r.episode.action for r in group.runs if r.episode.action is not None]
    )[:, arm]
    low = everywhere.min(axis=0)
    high = everywhere.max(axis=0)
    margin = (1 - float(share)) / 2 * (high - low)
    former_rows = values["action"][:, arm]
    clipped_rows = np.clip(former_rows, low + margin, high - margin)
    if (former_rows != clipped_rows).any(axis=1).mean() < 0.05:
        return None
    values["action"][:, arm] = clipped_rows
    return _whole(with_rows(run, **values))


def never_closes(run: DecodedRun, group: DecodedSet, size: Size, rng: Rng) -> Spoilt | None:
    """All dimensions of the gripper keep the value that they have where it is widest open."""
    values = values_of(run)
    openings = [
        o
        for o, s in zip(run.openings(), run.grippers, strict=True)
        if o is not None and s.has_polarity
    ]
    closing = [opening for opening in openings if opening.min() < 0.5 < opening.max()]
    if not closing:
        return None
    for opening in closing:
        widest = int(np.argmax(opening))
        for name, dimensions in gripper_dimensions(run).items():
            values[name][:, dimensions] = values[name][widest, dimensions]
    return _whole(with_rows(run, **values))


def jump(run: DecodedRun, group: DecodedSet, times: Size, rng: Rng) -> Spoilt | None:
    """One joint is elsewhere for one frame, by some times its largest step."""
    values = values_of(run)
    joint = _moving_joint(run, rng)
    if joint is None:
        return None
    jump_frame = int(rng.integers(5, len(run) - 5))
    largest = np.abs(np.diff(values["state"][:, joint])).max()
    values["state"][jump_frame, joint] += float(times) * largest * int(rng.choice([-1, 1]))
    return Spoilt(with_rows(run, state=values["state"]), jump_frame, jump_frame + 1)


def stuck(run: DecodedRun, group: DecodedSet, seconds: Size, rng: Rng) -> Spoilt | None:
    """The state keeps one value while the arm moves."""
    speed = run.signals().arm_speed
    place = None if speed is None else _where_moving(speed, float(seconds) * run.fps, rng)
    if place is None:
        return None
    state = values_of(run)["state"]
    state[place[0] : place[1]] = state[place[0]]
    return Spoilt(with_rows(run, state=state), *place)


def dead(run: DecodedRun, group: DecodedSet, column: Size, rng: Rng) -> Spoilt | None:
    """One joint of state or action keeps its first value."""
    values = values_of(run)
    joint = _moving_joint(run, rng, str(column))
    if joint is None:
        return None
    values[str(column)][:, joint] = values[str(column)][0, joint]
    return _whole(with_rows(run, **values))


def scaled(run: DecodedRun, group: DecodedSet, factor: Size, rng: Rng) -> Spoilt | None:
    """All joints of the state are in another unit."""
    values = values_of(run)
    arm = run.signals().arm_dimensions("state")
    if not arm:
        return None
    values["state"][:, arm] *= float(factor)
    return _whole(with_rows(run, state=values["state"]))


def turned(run: DecodedRun, group: DecodedSet, part: Size, rng: Rng) -> Spoilt | None:
    """All joints of the state, or one of state or action that both have, have the other sign."""
    values = values_of(run)
    if len(values) < 2:
        return None
    column, _, how_many = str(part).partition(" ")
    joints = run.signals().arm_dimensions(column)
    if how_many:
        # The same joint in all runs, where the fault is in all
        width = min(rows.shape[1] for rows in values.values())
        joints = [joint for joint in joints if joint < width]
        joints = [int(rng.choice(joints))] if joints else []
    if not joints:
        return None
    values[column][:, joints] *= -1
    return _whole(with_rows(run, **values))


def cut_off(run: DecodedRun, group: DecodedSet, share: Size, rng: Rng) -> Spoilt | None:
    """A run that is not known to have failed ends after a share of its frames, and is said to have succeeded."""
    if run.episode.record.success is False:
        return None
    shortened_run = kept_frames(run, np.arange(len(run)) < float(share) * len(run))
    return _whole(_said_to_succeed(shortened_run))


def said_to_succeed(run: DecodedRun, group: DecodedSet, size: Size, rng: Rng) -> Spoilt | None:
    """A run that failed is said to have succeeded."""
    if run.episode.record.success is not False:
        return None
    return _whole(_said_to_succeed(run))


def _said_to_succeed(run: DecodedRun) -> DecodedRun:
    record = replace(run.episode.record, success=True)
    return replace(run, episode=replace(run.episode, record=record))


def offset(run: DecodedRun, group: DecodedSet, share: Size, rng: Rng) -> Spoilt | None:
    """One joint of the action, where that is a position, is apart from the state by a share of its range in the set."""
    values = values_of(run)
    joint = _moving_joint(run, rng, "action")
    if joint is None or "state" not in values or values["state"].shape != values["action"].shape:
        return None
    if _correlation(values["state"][:, joint], values["action"][:, joint]) < TRACKS:
        return None
    everywhere = np.concatenate(
        [r.episode.action[:, joint] for r in group.runs if r.episode.action is not None]
    )
    values["action"][:, joint] += float(share) * np.ptp(everywhere) * int(rng.choice([-1, 1]))
    return _whole(with_rows(run, **values))


# Whole runs


def copied(run: DecodedRun, group: DecodedSet, size: Size, rng: Rng) -> Spoilt:
    """One more run, which is another one: exact, or with noise in its rows of a share of their range and pictures that
    were encoded again."""
    share = 0.0 if size == "exact" else float(size)
    if share:
        values = values_of(run)
        noise = {
            name: rng.normal(0, share, rows.shape) * np.ptp(rows, axis=0)
            for name, rows in values.items()
        }
        run = _all_again(
            with_rows(run, **{name: rows + noise[name] for name, rows in values.items()})
        )
    new = 1 + max(existing_run.index for existing_run in group.runs)
    record = replace(
        run.episode.record, episode_index=new, source_id=f"{run.episode.record.source_id} again"
    )
    return _whole(replace(run, episode=replace(run.episode, record=record)), run.index)


def other_pictures(run: DecodedRun, group: DecodedSet, size: Size, rng: Rng) -> Spoilt | None:
    """The run has the pictures of another one of its task, or of another task; both are as long as the shorter."""
    task = run.episode.record.task
    other_runs = [
        other_run
        for other_run in group.runs
        if other_run is not run
        and (other_run.episode.record.task == task) == (size == "same task")
        and set(other_run.pictures) == set(run.pictures)
        and len(other_run) >= 0.8 * len(run)
    ]
    if not other_runs:
        return None
    other_run = other_runs[int(rng.integers(len(other_runs)))]
    cut = kept_frames(run, np.arange(len(run)) < len(other_run))
    for camera in cut.pictures:
        cut = cut.with_pictures(camera, other_run.pictures[camera][: len(cut)])
    return _whole(cut, other_run.index)


def kept_frames(run: DecodedRun, kept_mask: np.ndarray) -> DecodedRun:
    """The run's frames of a mask or of places [m]: rows, times and pictures."""
    episode = run.episode
    places = pa.array(np.arange(len(run))[kept_mask])
    times = None if episode.timestamps_s is None else episode.timestamps_s[kept_mask]
    states = episode.states and episode.states.take(places)
    actions = episode.actions and episode.actions.take(places)
    cut_episode = replace(
        episode, timestamps_s=times, statistics=(), states=states, actions=actions
    )
    cut = replace(run, episode=cut_episode)
    for camera, pictures in run.pictures.items():
        cut = cut.with_pictures(camera, pictures[kept_mask])
    return cut


def dropped(run: DecodedRun, group: DecodedSet, frames: Size, rng: Rng) -> Spoilt | None:
    """Frames lack, and the rows' times say so."""
    count = int(frames)
    if run.episode.timestamps_s is None or count >= len(run) // 3:
        return None
    start = int(rng.integers(5, len(run) - count - 5))
    kept_mask = np.ones(len(run), bool)
    kept_mask[start : start + count] = False
    return Spoilt(kept_frames(run, kept_mask), max(0, start - 1), start + 1)


def idle(run: DecodedRun, group: DecodedSet, seconds: Size, rng: Rng) -> Spoilt | None:
    """Nothing moves for some more seconds at the start or at the end; the camera sees its noise."""
    if not values_of(run):
        return None
    n = len(run)
    count = _frames(seconds, run)
    is_head = bool(rng.integers(2))
    longer = kept_frames(
        run, np.r_[np.zeros(count, int), 0:n] if is_head else np.r_[0:n, np.full(count, n - 1)]
    )
    start = 0 if is_head else n
    if (times := run.episode.timestamps_s) is not None:
        longer = replace(
            longer,
            episode=replace(longer.episode, timestamps_s=_more_times(times, count, run, is_head)),
        )
    longer = _at_rest(longer, slice(start, start + count))
    for camera, pictures in longer.pictures.items():
        still = np.array(pictures)
        still[start : start + count] = noisy(still[start : start + count], rng)
        longer = longer.with_pictures(camera, encoded_again(still))
    return Spoilt(longer, start, start + count)


def _more_times(times: np.ndarray, count: int, run: DecodedRun, is_head: bool) -> np.ndarray:
    """The times of a run that is longer by `count` frames."""
    added_times = np.arange(1, count + 1) / run.fps
    if is_head:
        return np.r_[times[0] + added_times - added_times[0], times + added_times[-1]]
    return np.r_[times, times[-1] + added_times]


def _at_rest(run: DecodedRun, stretch: slice) -> DecodedRun:
    """The arm's action, where it is a motion and no position, is 0 in a stretch."""
    values = values_of(run)
    if "action" not in values:
        return run
    for joint in run.signals().arm_dimensions("action"):
        action = values["action"][:, joint]
        state = values.get("state", np.zeros((len(run), 0)))
        is_position = joint < state.shape[1] and _correlation(action, state[:, joint]) > TRACKS
        if not is_position:
            action[stretch] = 0.0
    return with_rows(run, action=values["action"])


def other_text(run: DecodedRun, group: DecodedSet, size: Size, rng: Rng) -> Spoilt | None:
    texts = sorted(
        {r.episode.record.task or "" for r in group.runs} - {run.episode.record.task or "", ""}
    )
    if not texts:
        return None
    text = texts[int(rng.integers(len(texts)))]
    record = replace(run.episode.record, task=text, tasks=(text,))
    return _whole(replace(run, episode=replace(run.episode, record=record)))


def stale(run: DecodedRun, group: DecodedSet, share: Size, rng: Rng) -> Spoilt | None:
    """The stored statistics are those of a share of the set's runs, the first ones; of one run at least."""
    values = values_of(run)
    first = group.runs[: max(1, round(float(share) * len(group.runs)))]
    if not values or len(first) == len(group.runs):
        return None
    statistics = []
    for vector in values:
        rows = np.concatenate([values_of(source_run)[vector] for source_run in first])
        of_rows = rows.min(axis=0), rows.max(axis=0), rows.mean(axis=0), rows.std(axis=0)
        statistics.append(StoredStatistics(vector, "meta/stats.json", *of_rows, False))
    return _whole(replace(run, episode=replace(run.episode, statistics=statistics)))


# What they share


def _whole(run: DecodedRun, partner: int | None = None) -> Spoilt:
    return Spoilt(run, 0, len(run), partner=partner)


def _camera(run: DecodedRun, rng: Rng) -> str:
    return run.cameras[int(rng.integers(len(run.cameras)))].camera


def _frames(seconds: Size, run: DecodedRun) -> int:
    return max(2, round(float(seconds) * run.fps))


def _where_moving(speed: np.ndarray, frames: float, rng: Rng) -> tuple[int, int] | None:
    """A stretch, drawn of those in which something moves for at least a share SEEN of the frames."""
    count = max(2, round(frames))
    if count >= len(speed) - 2:
        return None
    moves = speed > MOVES * np.percentile(speed, 90)
    shares = np.convolve(moves, np.full(count, 1 / count), "valid")
    starts = np.flatnonzero(shares >= SEEN)
    starts = starts[(starts > 0) & (starts + count < len(speed))]
    if not len(starts):
        return None
    start = int(rng.choice(starts))
    return start, start + count


def _moving_joint(run: DecodedRun, rng: Rng, column: str = "state") -> int | None:
    """A joint that is no gripper's and moves in this run by at least a tenth of what the most moving one does."""
    values = values_of(run).get(column)
    arm = run.signals().arm_dimensions(column)
    if values is None or not arm:
        return None
    spread = values[:, arm].std(axis=0)
    moving_joints = [
        joint for joint, s in zip(arm, spread, strict=True) if s > max(1e-9, 0.1 * spread.max())
    ]
    if moving_joints:
        return int(rng.choice(moving_joints))
    return None


SECONDS = (2, 4, 6, 10)
FRAMES = (1, 2, 3, 5, 10)
BOTH = (1, -1)
FAULTS: Sequence[Fault] = (
    Fault("pictures encoded again", None, "", ("crf 23",), again),
    Fault("camera frozen", "camera_frozen", "s", (0.5, 1, 2, 4, 8), frozen),
    Fault("camera black", "camera_black", "s", (0.5, 1, 2, 5, 10), black),
    Fault(
        "camera moved",
        "camera_moved",
        "",
        tuple(f"shift {s}" for s in (0.02, 0.04, 0.08, 0.16)),
        moved,
    ),
    Fault("camera turned", "camera_moved", "°", tuple(f"turn {s}" for s in (2, 5, 10)), moved),
    Fault("camera zoomed", "camera_moved", "", tuple(f"zoom {s}" for s in (1.05, 1.1, 1.2)), moved),
    Fault("brightness jumps", "camera_jumps", "luma of 255", (5, 10, 20, 40), brighter),
    Fault("sharpness jumps", "camera_jumps", "% of the width", (0.4, 0.8, 1.6, 3.2), blurred),
    Fault(
        "rows late or early in all runs",
        "rows_late",
        "frames",
        FRAMES,
        late,
        everywhere=True,
        turns=BOTH,
    ),
    Fault("rows late or early in one run", "rows_late", "frames", FRAMES, late, turns=BOTH),
    Fault("copy", "copy", "noise, of the range", ("exact", 0.0001, 0.001, 0.01), copied),
    Fault(
        "pictures of another run", "other_pictures", "", ("same task", "other task"), other_pictures
    ),
    Fault("action clipped", "action_clipped", "of its range", (0.9, 0.7, 0.5, 0.25), clipped),
    Fault("idle start or end", "idle_end", "s", SECONDS, idle),
    Fault("text of another task", "text_differs", "", ("",), other_text),
    Fault("gripper never closes", "gripper_stays", "", ("",), never_closes),
    Fault(
        "state jumps and comes back",
        "state_jumps",
        "times the largest step",
        (1, 2, 5, 10, 30),
        jump,
    ),
    Fault("state stuck", "state_stuck", "s", (1, 2, 4, 6), stuck),
    Fault("dead joint", "dead_dimension", "", ("state", "action"), dead),
    Fault("other unit", "other_scale", "times", (57.29578, 1000), scaled),
    Fault(
        "other sign in one run", "other_scale", "", ("state", "state joint", "action joint"), turned
    ),
    Fault(
        "other sign in all runs",
        "other_scale",
        "",
        ("state joint", "action joint"),
        turned,
        everywhere=True,
    ),
    Fault(
        "run cut off, said to succeed",
        "outcome_differs",
        "of its frames",
        (0.85, 0.7, 0.5, 0.3),
        cut_off,
    ),
    Fault("failed, said to succeed", "outcome_differs", "", ("",), said_to_succeed),
    Fault(
        "joint offset, action to state",
        "other_scale",
        "of the range",
        (0.05, 0.1, 0.2, 0.5),
        offset,
    ),
    Fault(
        "stale statistics",
        "stale_statistics",
        "of the runs",
        (0.9, 0.5, 0.1),
        stale,
        everywhere=True,
    ),
    Fault("frames dropped", "frames_missing", "frames", (1, 3, 10, 30), dropped),
)

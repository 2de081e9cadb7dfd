"""Steps of the episodes of a task that carry something, by what their grippers show.

The text says how many objects are to be carried, else the number of closings that carried far does.
Of an episode's attempts those that carried the farthest count, as many as there are objects; each
of the others failed. One object that is grasped as slowly as people do it has a step for each part
of the transfer; several objects, or a quick gripper, have two for each.

Example: the text asks for one cup to be put on a plate. The gripper closes at 3 s and opens at 4 s,
closes at 6 s and opens at 9 s, and the arm moves far only in between the last two. The first
attempt failed; the steps are to reach for the cup, to grasp it from 6 s on, to carry it, to place
it up to 9 s, and to let it go.

How sure that is: `n` observations that agree are right again in n of n + 1 cases (the rule of
succession, Laplace 1814, without a case against it). An observation is an object of an episode
whose gripper does what those of the other episodes do at about the same share of the moving time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import median

import numpy as np

from annotate.alignment.engine import LabelReading
from annotate.config import MotionConfig, ProgressConfig
from annotate.motion.observe import LEAST_S, Attempt, Observed, split_at_idle
from annotate.motion.task_text import Transfer, asks_for_other_deeds, transfers
from core.domain.label import DONE, IDLE, STEP, Label, Segment

# Of how far the arm goes out of the straight line to the goal: from there it comes down
OVER_GOAL = 0.9
AGREES = 0.2  # of the moving time: episodes that grasp within it of the task's median agree
MIN_EPISODES = 3  # fewer do not show what is usual


@dataclass(frozen=True)
class TaskSteps:
    """The planned steps of a task: the same parts for each of its transfers, one after the other.

    stays_held: most of its episodes end with the thing in the gripper. name_confidence: how likely
    it is that these deeds are done, 0..1.
    """

    transfers: tuple[Transfer, ...]
    parts: tuple[str, ...]
    sureness: float
    stays_held: bool
    name_confidence: float

    def names(self, transfer: Transfer) -> list[str]:
        thing = transfer.object_name
        name_of = {
            "reach": f"Reach for {thing}",
            "grasp": f"Grasp {thing}",
            "carry": f"Carry {thing}",
            "lift": f"Lift {thing}",
            "place": f"Place {thing} {transfer.destination}"
            if transfer.destination
            else f"Lower {thing}",
            "release": f"Release {thing}",
        }
        return [name_of[part] for part in self.parts]

    @property
    def plan(self) -> tuple[str, ...]:
        return tuple(chain.from_iterable(map(self.names, self.transfers)))


def task_steps(tasks: Sequence[Sequence[Observed]], config: MotionConfig) -> list[TaskSteps | None]:
    """The planned steps of each of some tasks of one robot, each given by its episodes.

    None where grippers do not show them, or the text asks for something else. Tasks of as many
    objects show together how sure their grippers are. Where no text asks for a transfer, several
    episodes have to show it: one agrees with itself.
    """
    wanted_transfers = [_task_transfers(episodes) for episodes in tasks]
    steps_by_task: list[TaskSteps | None] = []
    for episodes, task_transfers in zip(tasks, wanted_transfers, strict=True):
        similar_episodes: list[Observed] = []
        for other_episodes, other_transfers in zip(tasks, wanted_transfers, strict=True):
            if len(other_transfers) == len(task_transfers):
                similar_episodes += other_episodes
        sureness = _sureness(similar_episodes, len(task_transfers)) if task_transfers else 0.0
        is_asked_for = bool(transfers(episodes[0].signals.task))
        if not sureness or not (is_asked_for or len(similar_episodes) >= MIN_EPISODES):
            steps_by_task.append(None)
            continue
        names = _name_confidence(similar_episodes, len(task_transfers), is_asked_for=is_asked_for)
        steps_by_task.append(
            TaskSteps(
                task_transfers,
                _transfer_parts(task_transfers, similar_episodes, config),
                sureness,
                _stay_held(episodes),
                names,
            )
        )
    return steps_by_task


def _task_transfers(episodes: Sequence[Observed]) -> tuple[Transfer, ...]:
    """The transfers of a task, by its text, else by its closings."""
    task = episodes[0].signals.task
    acting_episodes = [e for e in episodes if e.attempts]
    if asks_for_other_deeds(task) or not acting_episodes:
        return ()
    wanted_transfers = transfers(task) or _unnamed_transfers(acting_episodes)
    # An object that is only to be lifted, yet that most let go, is carried somewhere
    if wanted_transfers and wanted_transfers[-1].is_lifted and not _stay_held(acting_episodes):
        wanted_transfers = (replace(wanted_transfers[0], is_lifted=False),)
    return wanted_transfers


def _stay_held(episodes: Sequence[Observed]) -> bool:
    return (
        median(max(e.attempts, key=e.carried).opens is None for e in episodes if e.attempts) >= 0.5
    )


def _sureness(episodes: Sequence[Observed], count: int) -> float:
    """How sure it is that each of `count` objects is an attempt of these episodes, 0..1."""
    finished = _not_failed(episodes)
    agree = _num_agreeing(finished, count) * count
    disagree = len(finished) * count - agree
    # An episode that carried some of several objects stopped before it had carried all
    for stopped in (len(e.attempts) for e in finished if 1 < len(e.attempts) < count):
        agree = agree + stopped
        disagree = disagree - count
    return agree / (agree + disagree + 1)


def _name_confidence(episodes: Sequence[Observed], count: int, *, is_asked_for: bool) -> float:
    """How likely it is that each of `count` objects is grasped and carried, 0..1, by the rule of succession.

    Each episode is one observation, for it where its gripper closes at the usual time; a text that
    asks for it is one more. So a single run without such a text, or a task half of whose runs do
    something else, has no names.
    """
    finished = _not_failed(episodes)
    agree = _num_agreeing(finished, count) + is_asked_for
    return agree / (len(finished) + is_asked_for + 1)


def _not_failed(episodes: Sequence[Observed]) -> Sequence[Observed]:
    """Those that are not known to have failed; all where each has."""
    return [e for e in episodes if not e.failed] or episodes


def _num_agreeing(episodes: Sequence[Observed], count: int) -> int:
    """How many grasp `count` objects at about the same share of their moving time."""
    grasp_shares = [_grasp_share(e, count) for e in episodes if len(e.attempts) >= count]
    middle = median(grasp_shares or [0.0])
    return sum(abs(share - middle) <= AGREES for share in grasp_shares)


def _unnamed_transfers(acting_episodes: Sequence[Observed]) -> tuple[Transfer, ...]:
    """Transfers of objects that no text names: as many as are usually let go again.

    Fingers that close and stay closed may be a fist, or a hand's pose on its way home.
    """
    acting_episodes = [e for e in acting_episodes if not e.failed] or acting_episodes
    count = int(median(sum(a.opens is not None for a in e.attempts) for e in acting_episodes))
    names = ["the object"] if count == 1 else [f"object {k + 1}" for k in range(count)]
    return tuple(Transfer(name) for name in names)


def _stays_s(episode: Observed) -> list[float]:
    return [episode.stay_s(attempt) for attempt in episode.attempts]


def _transfer_parts(
    wanted_transfers: Sequence[Transfer], episodes: Sequence[Observed], config: MotionConfig
) -> tuple[str, ...]:
    last = "lift" if wanted_transfers[-1].is_lifted else "place"
    if (
        len(wanted_transfers) > 1
        or median(chain.from_iterable(map(_stays_s, episodes))) < config.step_min_s
    ):
        return ("grasp", last)
    if wanted_transfers[-1].is_lifted:
        return ("reach", "grasp", last)
    # Where the thing comes down is seen in the arm's state
    carry = ("carry",) if all(e.signals.state is not None for e in episodes) else ()
    # What nobody lets go has no step for that
    release = () if _stay_held([e for e in episodes if e.attempts]) else ("release",)
    return ("reach", "grasp", *carry, last, *release)


def _grasp_share(episode: Observed, count: int) -> float:
    """The share of the moving time at which it grasps, the mean over its objects."""
    chosen = _farthest_attempts(episode, count)
    return float(np.mean([episode.moving_share[min(a.closed, len(episode) - 1)] for a in chosen]))


def _farthest_attempts(episode: Observed, count: int) -> list[Attempt]:
    """The attempts that carried the farthest, in time."""
    ranked = sorted(episode.attempts, key=lambda a: -episode.carried(a))
    return sorted(ranked[:count], key=lambda a: a.closed)


# One episode


def own_label(episode: Observed, steps: TaskSteps) -> LabelReading:
    """What one episode shows by itself: its steps by its own gripper; those that it did not come to have no end.

    The confidence of its label is how sure the steps are; 0: nothing but time shows them.
    """
    n = len(episode)
    chosen = _farthest_attempts(episode, len(steps.transfers))
    segments: list[Segment] = []
    ends: list[int] = []

    def add(
        name: str, step: int | None, end: int, *, completed: bool = True, kind: str = STEP
    ) -> None:
        start = _end(segments)
        if end > start:
            segments.append(Segment(name, start, min(end, n), kind, completed, step))

    for k, attempt in enumerate(chosen):
        names = steps.names(steps.transfers[k])
        first = k * len(steps.parts)
        # An arm that fails to grasp has not reached the thing either
        for failed in episode.attempts:
            if _end(segments) <= failed.closes < attempt.closes:
                if steps.parts[0] == "reach":
                    add(names[0], first, failed.closes, completed=False)
                grasp = steps.parts.index("grasp")
                add(names[grasp], first + grasp, failed.opened or attempt.closes, completed=False)
        # What others let go is not placed while it is in the gripper; nor was the last thing of an episode that failed
        is_kept = attempt.opens is None and not steps.stays_held and episode.signals.success is None
        is_lost = is_kept or (episode.failed and k == len(steps.transfers) - 1)
        for part, (name, end) in enumerate(
            zip(names, _part_ends(episode, attempt, steps.parts), strict=True)
        ):
            start = _end(segments)
            # Parts that each need a frame, too
            num_parts_after = len(steps.plan) - 1 - first - part
            end = min(max(min(end, n - num_parts_after), start + 1), n)
            is_last = steps.parts[part] in ("carry", "place", "lift") and is_lost
            add(name, first + part, end, completed=not is_last)
            if is_last:
                break
            ends.append(end)
    _add_ending(episode, steps.plan, segments, list(range(len(ends), len(steps.plan))))
    parted = split_at_idle(segments, episode.idle, episode.fps)
    curve = _progress_curve(episode, segments, ends, steps)
    shows_end = chosen[-1].opens is not None
    label = Label(parted, len(steps.plan), steps.plan, curve, confidence=steps.sureness)
    return LabelReading(label, dict(enumerate(ends)), shows_end)


def _part_ends(episode: Observed, attempt: Attempt, parts: Sequence[str]) -> list[int]:
    """The frame at which each part of a transfer ends."""
    n = len(episode)
    lift = round(LEAST_S * episode.fps)
    if attempt.opens is None:
        opens = max(attempt.closed + 1, episode.final_rest)
    else:
        opens = attempt.opens
    opened = n if attempt.opened is None else attempt.opened
    lifted = min(episode.lifts(attempt) if "reach" in parts else attempt.closed + lift, opens)
    end_of = {
        "reach": attempt.closes,
        "grasp": lifted,
        "carry": opens
        if episode.signals.state is None
        else frame_over_goal(episode.signals.state, lifted, opens),
        "lift": opens,
        "place": opens if "release" in parts else opened,
        "release": min(opened + lift, n),
    }
    return [min(end_of[part], n) for part in parts]


def frame_over_goal(state: np.ndarray, start: int, end: int) -> int:
    """Where the arm comes down at the end of its way from frame `start` to `end`; `state` [n, d] is its pose.

    An arm that lifts, carries and lowers leaves the straight line between both ends. It comes down
    from the last frame at which it is nearly as far from that line as it ever is.
    """
    start = min(start, len(state) - 1)
    path = np.asarray(state[start : max(end, start) + 1] - state[start], np.float64)
    goal = path[-1]
    along = path @ goal / max(float(goal @ goal), 1e-12)
    aside = np.linalg.norm(path - np.outer(along, goal), axis=1)
    return start + int(np.flatnonzero(aside >= OVER_GOAL * aside.max())[-1])


def _end(segments: Sequence[Segment]) -> int:
    """The frame at which the next segment begins."""
    return segments[-1].end_frame if segments else 0


def segments_by_ends(
    episode: Observed, plan: Sequence[str], ends: Mapping[int, int]
) -> list[Segment]:
    """Segments of an episode whose planned steps ended at these frames, each from the end of the one before."""
    segments: list[Segment] = []
    for k, (step, end) in enumerate(sorted(ends.items(), key=lambda item: item[::-1])):
        start = _end(segments)
        # Each has a frame, where there is room
        end = min(max(end, start + 1), len(episode) - (len(ends) - 1 - k))
        if start < end:
            segments.append(Segment(plan[step], start, end, STEP, True, step))
    _add_ending(episode, plan, segments, [step for step in range(len(plan)) if step not in ends])
    return segments


def _add_ending(
    episode: Observed, plan: Sequence[str], segments: list[Segment], missing: Sequence[int]
) -> None:
    """What follows the last step: the way home, or maybe the way to an object that was not reached.

    missing: the planned steps that were not completed.
    """
    n = len(episode)
    rest_start = episode.final_rest
    start = _end(segments)
    if not missing:
        pieces: list[tuple[str, int | None, int, str]] = [
            ("Withdraw", None, max(rest_start, start), DONE),
            ("Done", None, n, DONE),
        ]
        if rest_start - start < LEAST_S * episode.fps:
            pieces = pieces[1:]
    else:
        pieces = [("Stand still", None, n, IDLE)]
        if rest_start - start >= LEAST_S * episode.fps or not segments:
            pieces.insert(0, (plan[missing[0]], missing[0], rest_start, STEP))
    for name, step, end, kind in pieces:
        if end > start:
            segments.append(Segment(name, start, end, kind, kind == DONE, step))
            start = end


def _progress_curve(
    episode: Observed, segments: Sequence[Segment], ends: Sequence[int], steps: TaskSteps
) -> np.ndarray:
    """Progress [n]: each step earns its budget along the moving time up to its end.

    The budget of a step is `sureness` of an equal share of the whole, and what is left of its share
    of the moving time. Steps that were not completed leave equal shares to all.
    """
    total = len(steps.plan)
    times = np.maximum.accumulate(
        np.r_[0.0, episode.moving[[min(end, len(episode)) - 1 for end in ends]]]
    )
    shares = np.full(len(ends), 1 / total)
    if len(ends) == total and times[-1] > 0:
        shares = steps.sureness * shares + (1 - steps.sureness) * np.diff(times) / times[-1]
    values = np.r_[0.0, np.cumsum(shares)]
    unfinished = [
        s
        for s in segments
        if s.kind == STEP and not s.completed and s.start_frame >= max(ends, default=0)
    ]
    if len(ends) < total and unfinished:
        times = np.r_[times, episode.moving[unfinished[-1].end_frame - 1]]
        values = np.r_[values, values[-1] + ProgressConfig().incomplete_share / total]
    # Steps that are over at the same moment are told apart by nothing: the last of them counts
    keep = np.r_[np.diff(times) > 0, True]
    return np.interp(episode.moving, times[keep], values[keep])

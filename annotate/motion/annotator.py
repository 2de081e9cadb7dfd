"""The `motion` annotator: labels from gripper, state, speed and pictures. Deterministic, on CPU, without a model.

How a label comes about:

1. Each episode is observed: how fast the arm moves, where it is idle, when its gripper closes and opens (`observe`).
2. Where grippers show the steps of the task, each episode has them (`structure`). Else it is one step, and progress
   rises evenly from when the arm sets out until it has done its work (`way_home`).
3. Episodes without sure steps of their own, and failed ones, are labelled by the others of their task: each is
   laid beside those whose labels are sure, or, where there are none, beside all, and its progress is the mean of what
   these say of each of its moments. An episode that failed is laid beside those that did not (`votes`).

It is the embedded default and the yardstick for other annotators.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from annotate.alignment import engine
from annotate.alignment.engine import LabelReading
from annotate.config import MOST_OF_ATTEMPT, MotionConfig, ProgressConfig
from annotate.motion.observe import Observed, Signals, observe, split_at_idle
from annotate.motion.structure import (
    AGREES,
    MIN_EPISODES,
    TaskSteps,
    own_label,
    segments_by_ends,
    task_steps,
)
from annotate.motion.task_text import leaves_things_behind, task_sentence
from core.domain.label import STEP, Label, Segment, plain_label
from core.domain.label_run import MIN_NAME_CONFIDENCE
from core.names import is_name, unnamed_step
from core.values import grouped, spread
from ingest.signals.gripper import moving_dimensions

TURN = 0.1  # of the longest distance to where it ends: an arm that goes away from there by less is on its last way
HOME = 2 / 3  # of how far it was from its start: an arm that ends so near to it has gone home


@dataclass(frozen=True)
class WayHome:
    """The last way of an episode's arm.

    start: its first frame. remoteness: how far from its first pose the arm ends, as a share of how
    far it was when this way began; 0: it ends where the episode began.
    """

    start: int
    remoteness: float


def ends_of_work(task: Sequence[Observed]) -> list[int]:
    """For each episode of a task the frame from which on no work is done: its arm rests, or goes home.

    The way home counts where it is a habit: more than half of the episodes turn at about the same
    share of their time. An episode whose own way differs is then over at the usual share.
    """
    ways = [_empty_handed_way(episode) for episode in task]
    usual_share = _usual_turning_share(ways, task)
    if usual_share is None:
        return [episode.final_rest for episode in task]
    ends = []
    for way, episode in zip(ways, task, strict=True):
        is_usual = way is not None and abs(way.start / len(episode) - usual_share) <= AGREES
        end = way.start if way is not None and is_usual else round(usual_share * len(episode))
        ends.append(min(max(end, 1), episode.final_rest))
    return ends


def _usual_turning_share(ways: Sequence[WayHome | None], task: Sequence[Observed]) -> float | None:
    """The share of their time at which the episodes of a task turn home; None where they have no such habit."""
    turning = [
        (way.start / len(episode), way) for way, episode in zip(ways, task, strict=True) if way
    ]
    if not turning:
        return None
    usual_share = median(share for share, _ in turning)
    num_agreeing = sum(abs(share - usual_share) <= AGREES for share, _ in turning)
    leads_home = median(way.remoteness for _, way in turning) <= HOME
    if leads_home and 2 * num_agreeing > len(task):
        return usual_share
    return None


def _empty_handed_way(episode: Observed) -> WayHome | None:
    """The way home of an episode, from where its gripper lets go; None where the arm may bring a thing along."""
    if episode.signals.state is None or not _shows_what_is_held(episode):
        return None
    way = way_home(episode.signals.state)
    if way is None:
        return None
    open_attempts = [
        a
        for a in episode.attempts
        if a.closed < way.start and (a.opens is None or a.opens > way.start)
    ]
    lets_go = [a.opens for a in open_attempts if a.opens is not None]
    if len(lets_go) < len(open_attempts):
        return None
    if lets_go:
        return replace(way, start=max(lets_go))
    return way


def _shows_what_is_held(episode: Observed) -> bool:
    """Is it known whether a thing comes along: by grippers whose open end is known, or by the text?"""
    leaves_things = leaves_things_behind(episode.signals.task)
    if leaves_things:
        return True
    grippers = episode.signals.grippers
    shows_hands = bool(grippers) and all(gripper.has_polarity for gripper in grippers)
    # Of a text that asks for carrying or pulling, a gripper that never closes has not seen all
    return shows_hands and (leaves_things is None or bool(episode.attempts))


def way_home(state: np.ndarray) -> WayHome | None:
    """The last way of an arm to where it ends; `state` [n, d] is its pose. None where it does not move.

    Example: an arm at 0, 1, 2, 3, 3, 2, 1, 0 goes home from frame 4 on, and ends where it began:
    remoteness 0.
    """
    is_moving, spread = moving_dimensions(state)
    if not is_moving.any():
        return None
    pose = state[:, is_moving] / spread[is_moving]
    to_end = np.linalg.norm(pose - pose[-1], axis=1)
    # Where the arm later is farther from its end than now, it still has other things to do
    farthest_later = np.maximum.accumulate(to_end[::-1])[::-1]
    goes_away = np.flatnonzero(farthest_later - to_end > TURN * to_end.max())
    first = int(goes_away[-1]) + 1 if goes_away.size else 0
    # It waits where it is farthest, until it has gone a part of what counts as going away
    is_far = to_end[first:] >= (1 - TURN / 2) * to_end[first:].max()
    start = first + int(np.flatnonzero(is_far)[-1])
    from_first_pose = np.linalg.norm(pose - pose[0], axis=1)
    return WayHome(start, float(from_first_pose[-1] / max(from_first_pose[start], 1e-9)))


MOST_VOTERS = 12  # more make it slow and say little that is new


def votes(
    episodes: Sequence[Observed], labels: Sequence[LabelReading]
) -> dict[int, engine.Carried]:
    """What the others say, by the place of each episode that needs it; none where nothing can be compared."""
    finished = [i for i, e in enumerate(episodes) if not e.failed]
    sure_episodes = [i for i in finished if labels[i].shows_others]
    by_all = len(sure_episodes) < MIN_EPISODES - 1
    voters = spread(finished if by_all else sure_episodes, MOST_VOTERS)
    wanting = [i for i in range(len(episodes)) if i not in sure_episodes]
    if len(episodes) < MIN_EPISODES or not wanting or len(voters) < MIN_EPISODES - 1:
        return {}
    moments = engine.task_moments(episodes)
    if not moments[0].is_comparable:
        return {}

    episode_voters: dict[int, list[int]] = {}
    for i in sorted({*wanting, *voters}):
        other_voters = [v for v in voters if v != i]
        if len(other_voters) >= MIN_EPISODES - 1:
            episode_voters[i] = other_voters
    transferred_labels = _voted_labels(
        moments, labels, episode_voters, voters, finished if by_all else ()
    )
    return {
        i: carried
        for i, carried in engine.with_usual_limit(transferred_labels, voters).items()
        if i in wanting
    }


def _voted_labels(
    moments: Sequence[engine.Moments],
    labels: Sequence[LabelReading],
    episode_voters: Mapping[int, Sequence[int]],
    voters: Sequence[int],
    own_counts: Container[int],
) -> dict[int, engine.Carried]:
    """What the episodes that each is laid beside say of it; what it says itself where `own_counts`."""
    usual_scales = engine.usual_distances([moments[v] for v in voters])
    transferred_labels = {}
    for i, besides in engine.episodes_beside_references(
        {i: moments[i] for i in episode_voters}, episode_voters, moments, usual_scales
    ):
        references = [(moments[v], labels[v], alignment) for v, alignment in besides.items()]
        transferred_labels[i] = engine.carried_label(
            moments[i], references, labels[i] if i in own_counts else None
        )
    return transferred_labels


BY_TIME = "nothing shows when the parts of its task begin: one step, by the time that the arm moves"
# Of progress: an episode whose outcome nobody says, and which comes so far, is complete
COMPLETE = 0.9
SPREAD = 0.2  # of progress: others that are so far apart say nothing
PRIOR_CONFIDENCE = 0.45  # of a label that only time shows, where all of its task agree


def annotate(episodes: Sequence[Signals], config: MotionConfig) -> list[Label]:
    """Label episodes of one dataset, in their order; those of one task together."""
    observed = [observe(signals, config) for signals in episodes]
    places_of = grouped((episode.signals.task, k) for k, episode in enumerate(observed))
    tasks = list(grouped((episode.signals.task, episode) for episode in observed).values())
    labels: dict[int, Label] = {}
    for places, task, steps in zip(
        places_of.values(), tasks, task_steps(tasks, config), strict=True
    ):
        labels |= zip(places, _task_labels(task, steps), strict=True)
    return [labels[place] for place in range(len(episodes))]


def _task_labels(task: Sequence[Observed], steps: TaskSteps | None) -> list[Label]:
    """The labels of the episodes of one task, in order."""
    # A run shows its own steps by two attempts; by one where its task has one, or where it failed on the way
    few = min(2, len(steps.transfers)) if steps else 0
    work_ends = ends_of_work(task)
    own_labels = []
    for episode, work_end in zip(task, work_ends, strict=True):
        shows_steps = steps is not None and len(episode.attempts) >= (1 if episode.failed else few)
        own_labels.append(
            own_label(episode, steps)
            if steps and shows_steps
            else one_step_reading(episode, work_end)
        )
    by_others = votes(task, own_labels)
    return [
        _label_by_others(episode, by_others[i], steps, work_ends[i])
        if i in by_others
        else _label_by_itself(episode, own_labels[i], steps)
        for i, episode in enumerate(task)
    ]


def one_step_reading(episode: Observed, work_end: int) -> LabelReading:
    """The whole episode as one step; progress rises evenly from when the arm sets out until `work_end`.

    Pauses between count as work: nothing says what is done, so nothing says that it is not.
    """
    text = task_sentence(episode.signals.task)
    name = text if text and is_name(text) else unnamed_step(0)
    ends = {} if episode.failed else {0: work_end}
    sets_out = next((stop for start, stop in episode.idle if start == 0 and stop < work_end), 0)
    share = ((np.arange(len(episode)) + 1 - sets_out) / (work_end - sets_out)).clip(0.0, 1.0)
    curve = share * (ProgressConfig().incomplete_share if episode.failed else 1.0)
    segments = split_at_idle(segments_by_ends(episode, (name,), ends), episode.idle, episode.fps)
    return LabelReading(Label(segments, 1, (name,), curve, confidence=0.0), ends)


def _label_by_itself(episode: Observed, reading: LabelReading, steps: TaskSteps | None) -> Label:
    """The label by what an episode shows by itself."""
    by_itself = reading.label
    if reading.is_complete:
        curve = finished_curve(by_itself.progress, episode.signals.success)
    else:
        curve = np.minimum(by_itself.progress, MOST_OF_ATTEMPT)
    label = label_of(
        episode,
        by_itself.segments,
        by_itself.plan,
        np.maximum.accumulate(curve),
        by_itself.confidence or PRIOR_CONFIDENCE / 2,
        [] if by_itself.confidence else [BY_TIME],
    )
    if steps and by_itself.confidence:
        return with_sure_names(label, steps.name_confidence)
    return label


def _label_by_others(
    episode: Observed, carried: engine.Carried, steps: TaskSteps | None, work_end: int
) -> Label:
    """The label by what the other episodes of its task say."""
    plan = steps.plan if steps else one_step_reading(episode, work_end).label.plan
    earned = carried.earned()
    if not steps:
        # Nothing is earned after the work is over
        earned[work_end:] = earned[work_end - 1]
    curve = finished_curve(earned, episode.signals.success)
    # One step is over where all is earned
    is_over = np.flatnonzero(curve >= 1.0)
    end_of_one = int(is_over[0]) + 1 if is_over.size else len(episode)
    ends = carried.completed() if steps else {0: end_of_one}
    ends = agreed_ends(ends, len(plan), curve, episode)
    strange = float(carried.is_strange.mean())
    agreement = max(0.0, 1 - carried.spread / SPREAD) * (1 - strange)
    confidence = (steps.sureness if steps else PRIOR_CONFIDENCE) * agreement
    notes = ["labelled by the other episodes of its task"] + ([] if steps else [BY_TIME])
    if strange:
        notes.append(f"unlike the others of its task in {strange:.0%} of its time")
    segments = split_at_idle(segments_by_ends(episode, plan, ends), episode.idle, episode.fps)
    label = label_of(episode, segments, plan, np.maximum.accumulate(curve), confidence, notes)
    if steps:
        return with_sure_names(label, steps.name_confidence * agreement)
    return label


def with_sure_names(label: Label, name_confidence: float) -> Label:
    """The label with how sure its steps' names are; where they are no surer than a toss, steps have placeholders."""
    if name_confidence > MIN_NAME_CONFIDENCE:
        segments = [
            replace(s, name_confidence=name_confidence) if s.kind == STEP else s
            for s in label.segments
        ]
        return replace(label, segments=segments)
    plan = tuple(unnamed_step(step) for step in range(label.num_planned))
    segments = [
        s if s.step is None else replace(s, name=plan[s.step], named=False) for s in label.segments
    ]
    notes = [
        *label.notes,
        f"too little shows that its steps are {', '.join(label.plan)}: they have no names",
    ]
    return replace(label, segments=segments, plan=plan, notes=notes)


def label_of(
    episode: Observed,
    segments: Sequence[Segment],
    plan: tuple[str, ...],
    curve: np.ndarray,
    confidence: float,
    notes: list[str],
) -> Label:
    """The label that these make; `curve` [n] is kept within 0..1, and 0 at frame 0."""
    named_segments = [replace(s, confidence=confidence, named=is_name(s.name)) for s in segments]
    label = plain_label(named_segments, len(plan), episode.signals.task, step_names=plan)
    stored = np.clip(curve, 0.0, 1.0).astype(np.float32)
    stored[0] = 0.0
    return replace(label, progress=stored, confidence=confidence, notes=notes)


def agreed_ends(
    ends: Mapping[int, int], num_planned: int, curve: np.ndarray, episode: Observed
) -> dict[int, int]:
    """The ends of steps that agree with progress [n]: all are completed exactly where it ends at 1."""
    agreed = dict(ends)
    missing = [step for step in range(num_planned) if step not in agreed]
    if curve[-1] == 1.0:
        agreed |= dict.fromkeys(missing, max(episode.final_rest, *agreed.values(), 0))
    elif not missing:
        del agreed[max(agreed, key=lambda step: agreed[step])]
    return agreed


def finished_curve(curve: np.ndarray, success: bool | None) -> np.ndarray:
    """Progress that ends at 1 for an episode that is complete, and below for one that failed."""
    if success is False or (success is None and curve[-1] < COMPLETE):
        return np.minimum(curve, MOST_OF_ATTEMPT)
    return curve / max(curve[-1], 1e-9)

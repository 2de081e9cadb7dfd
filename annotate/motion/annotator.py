"""The `motion` annotator: segments from gripper, state, speed and visual change. Deterministic, on CPU, no model.

How a label comes about:

1. The task text is read (`task_text`): it asks for transfers of objects, for one other action, or for nothing clear.
2. Each run is observed (`signals`): activity, stand-stills, closings and openings of the gripper.
3. Each failed run is compared with the successful runs of its task: how far did it come? (`failed_runs`)
4. The runs are labelled. Transfers: each closing of the gripper is an attempt at one of them (`carrying`). One action:
   the arm reaches the object and then acts (`reach_and_act`). Else steps are parted where the arm does something else
   (`unplanned`); so are the runs whose gripper contradicts the text.

It is the embedded default and the yardstick for other annotators.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from annotate.label import EpisodeFrame, EpisodeLabel
from annotate.motion.carrying import carrying_labels, unnamed_carrying_labels
from annotate.motion.confidence import LabelEvidence, label_evidence, with_confidence
from annotate.motion.config import MotionConfig
from annotate.motion.failed_runs import match_failed_runs
from annotate.motion.gripper_events import closings
from annotate.motion.reach_and_act import action_candidates, reach_and_act_labels
from annotate.motion.signals import MotionRun, Signals, observe
from annotate.motion.slivers import without_slivers
from annotate.motion.task_text import TaskPlan, plan_of
from annotate.motion.unplanned import one_step_label, unplanned_labels, without_steps_beyond

CODE_VERSION = "motion-9"


def annotate(episodes: Sequence[Signals], config: MotionConfig) -> list[EpisodeLabel]:
    """Label the runs of one task together: they have the same steps, unless what is seen says otherwise."""
    return [label for label, _ in with_evidence(episodes, config)]


def with_evidence(episodes: Sequence[Signals], config: MotionConfig) -> list[tuple[EpisodeLabel, LabelEvidence]]:
    """The labels, each with what shows its boundaries."""
    plan = plan_of(episodes[0].task)
    runs = compared(episodes, plan, config)
    labelled = []
    for run, label in zip(runs, _labels(runs, plan, config), strict=True):
        label = replace(label, segments=without_slivers(label.segments, run.signals.fps))
        evidence = label_evidence(run, label, config)
        label = replace(with_confidence(label, evidence), as_far_as=_reference_frame(run, episodes))
        labelled.append((label, evidence))
    return labelled


def compared(episodes: Sequence[Signals], plan: TaskPlan, config: MotionConfig) -> list[MotionRun]:
    """Observe the signals of each run of a task, and how far each failed run came."""
    runs = [observe(signals, config) for signals in episodes]
    if plan.action:
        runs = [replace(run, action_candidates=action_candidates(run, config)) for run in runs]
    runs = [replace(run, contact=_contact(run, plan)) for run in runs]
    if any(run.failed for run in runs):
        matches = match_failed_runs(runs, one_object=plan.has_one_object)
        runs = [replace(run, match=match) for run, match in zip(runs, matches, strict=True)]
    return runs


def _contact(run: MotionRun, plan: TaskPlan) -> int | None:
    """Where a successful run first acts on an object: it closes its gripper on it, or begins the task's action."""
    if not run.signals.success:
        return None
    closed = closings(run.gripper_events) if plan.transfers else []
    if closed:
        return closed[0].moment
    return run.action_candidates[-1] if run.action_candidates else None


def _labels(runs: Sequence[MotionRun], plan: TaskPlan, config: MotionConfig) -> list[EpisodeLabel]:
    """The first of these that fits labels a run: what the text says is carried, its one action, what is grasped."""
    labels: dict[int, EpisodeLabel] = {}

    def fill(label: Callable[[Sequence[MotionRun]], Mapping[int, EpisodeLabel]]) -> list[int]:
        """Label the runs that have no label yet; those that got one."""
        left = [i for i in range(len(runs)) if i not in labels]
        new = label([runs[i] for i in left]) if left else {}
        labels.update({left[k]: its_label for k, its_label in new.items()})
        return [left[k] for k in new]

    if plan.transfers:
        fill(lambda left: carrying_labels(left, plan.transfers, config))
    action = plan.action
    if action:
        fill(lambda left: dict(enumerate(reach_and_act_labels(left, action, config))))
    evident = fill(lambda left: unnamed_carrying_labels(left, config))
    if plan.transfers:
        evident += fill(
            lambda left: {i: one_step_label(run, run.signals.task or "", config) for i, run in enumerate(left)}
        )
    evident += fill(lambda left: dict(enumerate(unplanned_labels(left, config))))

    # Such a failed run has not completed what its reference run had not completed yet
    for i in evident:
        match = runs[i].match
        if match:
            labels[i] = without_steps_beyond(labels[i], labels[match.run], match.frame)
    return [labels[i] for i in range(len(runs))]


def _reference_frame(run: MotionRun, episodes: Sequence[Signals]) -> EpisodeFrame | None:
    """The successful run, and its frame, that a failed run came as far as."""
    if run.match is None:
        return None
    return EpisodeFrame(episodes[run.match.run].episode_index, run.match.frame)

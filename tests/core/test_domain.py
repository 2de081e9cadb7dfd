"""Labels: tilings, ids of label runs, which label counts, names of steps, the gate."""

from dataclasses import replace

import numpy as np
import pytest

from annotate.config import MOTION_VERSION, MotionConfig
from core.domain.label import (
    IDLE,
    STEP,
    Label,
    Segment,
    StatedEnd,
    check_stated,
    check_tiling,
    plain_label,
)
from core.domain.label_run import GateCounts, LabelGate, LabelRun, choose_active, resolved


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([Segment("A", 1, 4, step=0)], "covers frames 1-4, expected from 0"),
        (
            [Segment("A", 0, 4, step=0), Segment("B", 5, 10, step=1)],
            "covers frames 5-10, expected from 4",
        ),
        (
            [Segment("A", 0, 4, step=0), Segment("B", 3, 10, step=1)],
            "covers frames 3-10, expected from 4",
        ),
        ([Segment("A", 0, 0, step=0), Segment("B", 0, 10, step=1)], "covers frames 0-0"),
        ([Segment("A", 0, 9, step=0)], "segments end at frame 9, the episode has 10"),
        ([Segment("A", 0, 10, "pause")], "unknown kind 'pause'"),
        ([Segment("A", 0, 10, STEP)], "step None is not one of 2"),
        ([Segment("A", 0, 10, step=2)], "step 2 is not one of 2"),
        ([Segment("A", 0, 10, step=-1)], "step -1 is not one of 2"),
        ([Segment("A", 0, 10, IDLE, step=0)], "step 0 is not one of 2"),
        ([Segment("Unnamed step 1", 0, 10, step=0)], "is a placeholder, so not named"),
        ([Segment("Grasp it", 0, 10, step=0, named=False)], "is a name, so named"),
    ],
)
def test_what_is_no_tiling_is_refused(segments, message):
    with pytest.raises(ValueError, match=message):
        check_tiling(segments, 10, 2)


@pytest.mark.parametrize(
    ("completed", "final_progress", "catastrophic_frame", "message"),
    [
        (True, None, None, ""),
        (True, 1, None, ""),
        (True, 0.9, None, "the run ends at 1"),
        (True, None, 5, "nothing was lost"),
        (False, 0, None, ""),
        (False, 1.1, None, "is not between 0 and 1"),
        (False, -0.1, None, "is not between 0 and 1"),
        (False, 1, None, "a planned step is not completed"),
        (False, 1, 9, ""),  # then all was lost
        (False, None, 1, ""),
        (False, None, 0, "none of the frames 1 to 9"),
        (False, None, 10, "none of the frames 1 to 9"),
    ],
)
def test_a_stated_end_fits_the_segments(completed, final_progress, catastrophic_frame, message):
    segments = [
        Segment("A", 0, 4, step=0),
        Segment("B", 4, 10, step=1, completed=completed),
    ]
    end = StatedEnd(final_progress, catastrophic_frame)
    if not message:
        check_stated(segments, 2, end)
        return
    with pytest.raises(ValueError, match=message):
        check_stated(segments, 2, end)


RUN = LabelRun("vlm", "vlm-1", resolved({"b": 1, "a": 0.5}), "model", "rev", "prompts")


def test_the_id_is_stable():
    assert RUN.id == "1a6abe9d491088ab"
    assert LabelRun("motion", "motion-1", "{}").id == "8bb1cf888db72981"
    assert resolved({"b": 1, "a": 0.5}) == resolved({"a": 0.5, "b": 1}) == '{"a": 0.5, "b": 1}'


@pytest.mark.parametrize(
    "change",
    [
        {"annotator": "native"},
        {"code_version": "vlm-2"},
        {"params": resolved({"b": 1, "a": 0.25})},
        {"model": "other"},
        {"model_revision": None},
        {"prompt_version": "prompts2"},
    ],
)
def test_the_id_changes_with_each_part(change):
    assert replace(RUN, **change).id != RUN.id


def test_the_id_changes_with_each_parameter_of_an_annotator():
    def run_id(config: MotionConfig) -> str:
        return LabelRun("motion", MOTION_VERSION, resolved(config.model_dump(mode="json"))).id

    ids = {run_id(MotionConfig())}
    for name in MotionConfig.model_fields:
        value = getattr(MotionConfig(), name)
        ids.add(run_id(MotionConfig(**{name: value * 0.9})))
    assert len(ids) == 1 + len(MotionConfig.model_fields)


RUNS = [("r1", "motion"), ("r2", "vlm"), ("r3", "native"), ("human/d", "human")]


CORRECTED = ("human/d", "accepted correction")
NAMED = ("r1", "named by the configuration")
SHOWN = ("r4", "shown by reference: episode 3")


@pytest.mark.parametrize(
    ("runs", "preferred", "expected"),
    [
        (RUNS, [CORRECTED, NAMED], CORRECTED),
        (RUNS, [NAMED], NAMED),
        (RUNS, [SHOWN, NAMED], NAMED),  # no reference is like this episode
        ([*RUNS, ("r4", "transfer")], [SHOWN, NAMED], SHOWN),
        ([*RUNS, ("r4", "transfer")], [NAMED, SHOWN], NAMED),
        (RUNS, [], ("r3", "best annotator: native")),
        ([("r4", "transfer"), *RUNS[:2]], [], ("r4", "best annotator: transfer")),
        (RUNS[:2], [], ("r2", "best annotator: vlm")),
        (RUNS[:1], [], ("r1", "best annotator: motion")),
        # Neither is of this episode
        (RUNS[:3], [CORRECTED, ("elsewhere", "")], ("r3", "best annotator: native")),
        ([("b", "vlm"), ("a", "vlm")], [], ("a", "best annotator: vlm")),
        # A correction that is not accepted counts for nothing
        ([("human/d", "human")], [], None),
        ([], [NAMED], None),
    ],
)
def test_which_label_counts(runs, preferred, expected):
    assert choose_active(runs, preferred) == expected
    assert choose_active(runs[::-1], preferred) == expected


GRASP = Segment("Grasp it", 0, 5, step=0)
UNNAMED = Segment("Unnamed step 2", 5, 9, step=1, named=False)


@pytest.mark.parametrize(
    ("segments", "num_planned", "step_names", "plan", "named"),
    [
        ([GRASP], 1, (), ("Grasp it",), True),
        ([GRASP], 2, (), ("Grasp it", "Unnamed step 2"), False),
        ([GRASP], 2, ("Grasp it", "Place it"), ("Grasp it", "Place it"), True),
        ([GRASP, UNNAMED], 2, (), ("Grasp it", "Unnamed step 2"), False),
        ([Segment("Stand still", 0, 9, IDLE)], 1, (), ("Unnamed step 1",), False),
    ],
    ids=[
        "attempted",
        "never attempted",
        "named by the task",
        "attempted without a name",
        "nothing was done",
    ],
)
def test_planned_steps_are_named_by_the_task_or_their_first_attempts(
    segments, num_planned, step_names, plan, named
):
    label = plain_label(segments, num_planned, "task", step_names=step_names)
    assert (label.plan, label.named) == (plan, named)


def test_what_a_label_says_of_itself():
    label = Label([GRASP, Segment("Place it", 5, 9, step=1)], 2, ("Grasp it", "Place it"))
    assert (label.num_frames, label.cuts, label.is_finished, label.has_names) == (
        9,
        [5],
        None,
        True,
    )
    assert not replace(label, progress=np.array([0, 0.9])).is_finished
    assert replace(label, progress=np.array([0, 1.0])).is_finished
    unsure = replace(label, confidence=0.4)
    assert not unsure.with_gate(LabelGate(min_name_confidence=0.5)).has_names
    assert unsure.with_gate(LabelGate(min_name_confidence=0.4)).has_names
    assert (label.with_task("t").task, replace(label, task="t").with_task(None).task) == ("t", "t")
    assert not replace(label, plan=("Grasp it", "Unnamed step 2")).has_names


GATE = LabelGate(0.3, 0.6)


@pytest.mark.parametrize(
    ("confidence", "named", "admitted", "names"),
    [
        (None, True, True, True),
        (None, False, True, False),
        (0.6, True, True, True),
        (0.6, False, True, False),
        (0.59, True, True, False),
        (0.3, True, True, False),
        (0.29, True, False, False),
        (0.0, True, False, False),
    ],
)
def test_a_label_without_a_confidence_passes_and_one_of_nothing_does_not(
    confidence, named, admitted, names
):
    assert GATE.admits(confidence) is admitted
    assert GATE.admits_names(confidence, is_named=named) is names


def test_each_label_is_counted_once():
    labels = [
        (0.1, True),
        (0.1, False),
        (0.4, False),
        (0.4, True),
        (0.4, True),
        (0.7, True),
        (None, True),
    ]
    counts = GateCounts(GATE, labels)
    assert counts.numbers() == {
        "below_min_confidence": 2,
        "unnamed_labels": 1,
        "below_min_name_confidence": 2,
    }
    assert counts.sentences() == [
        "2 of 7 labels are less sure than 0.3 (min_confidence): they are left out",
        "1 of 7 labels have unnamed steps: they give progress alone",
        "2 of 7 labels are less sure than 0.6 (min_name_confidence): they give no names of steps",
    ]
    assert GateCounts(GATE, [(None, True)]).sentences() == []

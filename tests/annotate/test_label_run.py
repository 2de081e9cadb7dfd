"""Label runs: an id for how a label was made, and which label of an episode counts."""

from dataclasses import replace

import pytest

from annotate.label_run import LabelRun, choose_active, resolved
from annotate.motion.annotator import CODE_VERSION
from annotate.motion.config import MotionConfig

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
def test_the_id_changes_with_each_part(change: dict):
    assert replace(RUN, **change).id != RUN.id


def test_the_id_changes_with_each_parameter_of_an_annotator():
    def run_id(config: MotionConfig) -> str:
        return LabelRun("motion", CODE_VERSION, resolved(config.model_dump(mode="json"))).id

    ids = {run_id(MotionConfig())}
    for name in MotionConfig.model_fields:
        value = getattr(MotionConfig(), name)
        ids.add(run_id(MotionConfig(**{name: value * 0.9})))
    assert len(ids) == 1 + len(MotionConfig.model_fields)


RUNS = [("r1", "motion"), ("r2", "vlm"), ("r3", "native"), ("human/d", "human")]


CORRECTED, NAMED = ("human/d", "accepted correction"), ("r1", "named by the configuration")
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
        (RUNS[:3], [CORRECTED, ("elsewhere", "")], ("r3", "best annotator: native")),  # neither is of this episode
        ([("b", "vlm"), ("a", "vlm")], [], ("a", "best annotator: vlm")),
        ([("human/d", "human")], [], None),  # a correction that is not accepted counts for nothing
        ([], [NAMED], None),
    ],
)
def test_which_label_counts(
    runs: list[tuple[str, str]], preferred: list[tuple[str, str]], expected: tuple[str, str] | None
):
    assert choose_active(runs, preferred) == expected
    assert choose_active(runs[::-1], preferred) == expected

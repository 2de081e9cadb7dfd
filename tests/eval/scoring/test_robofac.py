"""RoboFAC's answers: which option a text names, what counts as right, and what is left to a judge."""

import pytest

from eval.benchmarks.load import score_predictions
from eval.benchmarks.question import PredictionLine
from eval.benchmarks.videos import options_of

ERRORS = [
    "Grasping error.",
    "Wrong object.",
    "Position deviation.",
    "Position deviation of the object.",
]
WHICH = f"Which error is it? (one of the following: {ERRORS})"


def line(
    kind: str, answer: str, response: str, question: str = WHICH, video: str = "v1"
) -> PredictionLine:
    row = {
        "id": video,
        "kind": kind,
        "question": question,
        "answer": answer,
        "split": "test_qa_sim",
    }
    return PredictionLine(
        f"{kind} {video} {response}", row | {"task": "LiftCube", "_inference_idx": 0}, response
    )


def accuracy(*lines: PredictionLine) -> dict[str, float]:
    scored = score_predictions("robofac", lines)
    return {name: s.value for (part, name), s in scored.scores().items() if part == "all"}


def test_options_are_the_list_in_the_question() -> None:
    assert options_of(WHICH) == tuple(e.lower().rstrip(".") for e in ERRORS)
    assert options_of("Which? [1, 2]") == ()
    assert options_of("Which? ['cut") == ()
    assert options_of("Which? [__import__('os').getcwd()]") == ()
    assert options_of("[x] Which? (['The robot\\'s hand.', \"A\"])") == ("the robot's hand", "a")


def test_right_and_wrong_by_kind() -> None:
    scored_values = accuracy(
        line("failure_detection", "Yes", "Yes, it failed.", "Did it fail?"),
        line("failure_detection", "No", "Yes", "Did it fail?", "v2"),
        line("failure_detection", "No.", "no", "Did it fail?", "v3"),
        line("failure_identification", "Grasping error.", "The robot makes a grasping error."),
        line("failure_identification", "Wrong object.", "A grasping error", video="v2"),
        line("failure_locating", "Grasping error.", "perhaps", video="v2"),
    )
    assert scored_values["detection_accuracy"] == pytest.approx(2 / 3)
    assert scored_values["detection_balanced"] == pytest.approx((1 + 1 / 2) / 2)
    assert scored_values["identification_accuracy"] == 0.5
    assert scored_values["locating_accuracy"] == 0
    assert scored_values["choice_accuracy"] == 0.5
    assert scored_values["coverage"] == pytest.approx(5 / 6)


def test_an_empty_reply_is_unread_and_a_sentence_may_name_the_option() -> None:
    lines = [
        line("failure_identification", "Grasping error.", ""),
        line("failure_identification", "Grasping error.", "It is a grasping error.", video="v2"),
        line("failure_identification", "Grasping error.", "grasping error", video="v3"),
        line("failure_identification", "Grasping error.", "Wrong object.", video="v4"),
    ]
    scored_values = accuracy(*lines)
    assert (scored_values["identification_accuracy"], scored_values["coverage"]) == (0.5, 0.75)
    assert [accuracy(x)["choice_accuracy"] for x in lines] == [0, 1, 1, 0]

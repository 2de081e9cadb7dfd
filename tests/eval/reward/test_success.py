"""From a score to the probability of success, and the threshold."""

import json

import numpy as np
import pytest

from eval.reward.scorer import Reward, Scorer
from eval.reward.success import Success, calibrate
from eval.reward.window import LAST_PICTURE
from training.card import card_text


def test_one_kind_of_moments_calibrates_nothing() -> None:
    assert calibrate(np.array([0.1, 0.9]), np.array([True, True]), "progress") is None
    assert calibrate(np.array([0.1, 0.9]), np.array([False, False]), "done") is None


class Fixed(Scorer):
    source = "head"

    def __init__(self, reward: Reward, success: Success | None) -> None:
        super().__init__(LAST_PICTURE, success=success)
        self.reward = reward

    def views(self, views: object) -> list[Reward]:
        return [self.reward for _ in views]  # type: ignore[attr-defined]


@pytest.mark.parametrize("of", ["done", "progress"])
def test_a_scorer_says_success_as_its_card_does(of: str) -> None:
    raw = np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9])
    success = calibrate(raw, raw > 0.5, of, "r1", "val")  # type: ignore[arg-type]
    assert success is not None
    kept = Success.of_card(json.loads(json.dumps({"success": success.as_json()})))
    assert kept == success
    assert (success.reached, success.unreached, success.balanced_accuracy) == (3, 3, 1.0)
    told = []
    for value in raw:
        other = 0.5
        reward = Reward("head", value if of == "progress" else other, value if of == "done" else None)
        scorer = Fixed(reward, success)
        moment = scorer.stream("go", 10.0).append({"camera": np.zeros((2, 2, 3), np.uint8)})
        (found,) = scorer.score([moment])  # type: ignore[list-item]
        assert found.done == pytest.approx(success.probability(value))
        told.append(found.success)
    assert told == [False] * 3 + [True] * 3
    card = {"training_run": "t", "release": "r1", "snapshot": 1, "release_hash": "0" * 64, "label_runs": [],
            "recipe": {"name": "n", "model": {"path": None}}}  # fmt: skip
    assert "3 moments at the end state and 3 before it" in card_text(card | {"success": success.as_json()})
    assert "Not calibrated" in card_text(card)

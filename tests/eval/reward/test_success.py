"""From a score to the probability of success, and the threshold."""

import json

import numpy as np
import pytest

from eval.reward.scorer import Reward, Scorer
from eval.reward.success import Success, best_threshold, calibrate, platt
from eval.reward.window import LAST_PICTURE
from training.card import card_text


def test_the_threshold_is_the_largest_of_best_balanced_accuracy() -> None:
    probability = np.array([0.1, 0.2, 0.3, 0.6, 0.8])
    assert best_threshold(probability, np.array([False, False, False, True, True])) == (pytest.approx(0.45), 1.0)
    # one of each kind is told wrong, whether at 0.25 or at 0.7: the larger counts
    ties = np.array([False, True, False, False, True])
    threshold, accuracy = best_threshold(np.array([0.1, 0.2, 0.5, 0.6, 0.8]), ties)
    assert threshold == pytest.approx(0.7)
    assert accuracy == pytest.approx((0.5 + 1.0) / 2)
    # imbalance does not move it: nine times as many of one kind
    many = np.concatenate([np.repeat(probability[:3], 9), probability[3:]])
    assert best_threshold(many, np.repeat([False, True], [27, 2]))[0] == pytest.approx(0.45)


def test_the_sigmoid_is_platts() -> None:
    """Against a search over a grid, on data that overlap; and finite on data that do not."""
    rng = np.random.default_rng(0)
    score = np.concatenate([rng.normal(-1, 1, 60), rng.normal(1, 1, 30)])
    reached = np.repeat([False, True], [60, 30])
    slope, shift = platt(score, reached)
    target = np.where(reached, 31 / 32, 1 / 62)

    def loss(a: float, b: float) -> float:
        x = a * score + b
        return float(np.sum(np.logaddexp(0, x) - target * x))

    around = [loss(slope + da, shift + db) for da in (-0.01, 0, 0.01) for db in (-0.01, 0, 0.01)]
    assert min(around) == around[4]
    apart = platt(np.array([-1.0, -0.9, 0.9, 1.0]), np.array([False, False, True, True]))
    assert np.isfinite(apart).all()
    assert platt(np.zeros(4), np.array([False, True, True, True]))[0] == pytest.approx(0, abs=1e-6)


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


def test_without_calibration_or_number_no_success_is_stated() -> None:
    success = calibrate(np.array([0.1, 0.9]), np.array([False, True]), "done")
    for reward, judged in ((Reward("head", 0.5, 0.9), None), (Reward("head", None, failure="why"), success)):
        scorer = Fixed(reward, judged)
        moment = scorer.stream("go", 10.0).append({"camera": np.zeros((2, 2, 3), np.uint8)})
        (found,) = scorer.score([moment])  # type: ignore[list-item]
        assert found.success is None
        assert found == reward

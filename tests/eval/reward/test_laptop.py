"""Rewards of laptop models: live as at once, a picture looked at once, the run's first picture beside the window."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from eval.reward.laptop import LaptopScorer
from eval.reward.open import ScorerConfig, open_checkpoint, open_scorer
from eval.reward.scorer import TOLERANCE
from eval.reward.success import Success
from eval.reward.views import Reward, ViewRule
from eval.reward.window import RewardError, Window
from tests.kits.laptop_kit import TASKS, make_checkpoint, scene

FPS = 10.0
FRAMES = [scene(TASKS[0], k / 19) for k in range(20)]
SUCCESS = Success("done", 1.0, 0.0, 0.4, 0.9, 5, 5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("laptop") / "bars", success=SUCCESS.as_json())


@pytest.fixture
def scorer(checkpoint: Path) -> LaptopScorer:
    found = open_checkpoint(checkpoint)
    assert isinstance(found, LaptopScorer)
    return found


def test_several_views_are_judged_each_by_itself(scorer: LaptopScorer) -> None:
    def last(rule: ViewRule = "all", **pictures: Sequence[np.ndarray]) -> Reward:
        stream = scorer.stream(TASKS[0], FPS, cameras=tuple(pictures), rule=rule)
        for together in zip(*pictures.values(), strict=True):
            moment = stream.append(dict(zip(pictures, together, strict=True)))
        assert moment is not None
        return scorer.score([moment])[0]

    other = [scene(TASKS[1], k / 19) for k in range(20)]
    front, apart = last(front=FRAMES), last("wrist", front=FRAMES, wrist=other)
    assert apart.progress == pytest.approx(front.progress, abs=TOLERANCE)
    assert set(apart.cameras) == {"front", "wrist"}


def test_what_it_cannot_do_is_said(checkpoint: Path) -> None:
    with pytest.raises(RewardError, match="no words"):
        open_checkpoint(checkpoint, reasoning=True)
    with pytest.raises(RewardError, match=r"trained on windows of 4 pictures, 0\.2 s apart, not of 2"):
        open_checkpoint(checkpoint, Window(2, 0.2))
    with open_scorer(ScorerConfig(checkpoint)) as opened:
        assert opened.settings["encoder"] == "grey@64"

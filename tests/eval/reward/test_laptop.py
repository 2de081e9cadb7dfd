"""Rewards of laptop models: live as at once, a picture looked at once, the run's first picture beside the window."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotate.embeddings.encoders import Encoder
from eval.reward import laptop
from eval.reward.laptop import LaptopScorer
from eval.reward.open import ScorerConfig, open_checkpoint, open_scorer
from eval.reward.scorer import TOLERANCE, asked_of
from eval.reward.stream import Moment
from eval.reward.success import Success
from eval.reward.views import Reward, ViewRule
from eval.reward.window import RewardError, Window
from tests.kits.laptop_kit import TASKS, make_checkpoint, scene
from training.pictures import Item

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


def moments(scorer: LaptopScorer, task: str = TASKS[0]) -> list[Moment]:
    stream = scorer.stream(task, FPS)
    found = [stream.append({"camera": rgb}) for rgb in FRAMES]
    return [m for m in found if m is not None]


def test_moments_one_by_one_are_as_all_at_once(scorer: LaptopScorer) -> None:
    at_once = [r.progress for r in scorer.score(moments(scorer))]
    live = [scorer.score([m])[0].progress for m in moments(scorer)]
    assert len(live) == 20
    assert live == pytest.approx(at_once, abs=TOLERANCE)
    assert len({round(p or 0, 4) for p in live}) > 10


def test_a_picture_is_looked_at_once(scorer: LaptopScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def counting(encoder: Encoder, pictures: Any) -> np.ndarray:
        looked.append(len(pictures))
        return embed(encoder, pictures)

    embed = laptop.embed
    monkeypatch.setattr(laptop, "embed", counting)
    for moment in moments(scorer):
        scorer.score([moment])
    assert looked == [1] * 20


def test_the_task_and_the_start_of_the_run_count(scorer: LaptopScorer) -> None:
    own, other = (scorer.score(moments(scorer, task))[-1].progress for task in TASKS)
    assert own != pytest.approx(other, abs=1e-4)
    late = moments(scorer)[-1]
    late.stream.first = {"camera": late.views["camera"][0]}  # the last one is as even as the first, to grey
    assert scorer.score([late])[0].progress != pytest.approx(own, abs=1e-4)
    late.stream.first = {}  # of a stream that is put together elsewhere: the window's oldest picture stands for it
    assert scorer.score([late])[0].progress is not None


def test_success_is_told_by_the_card_s_threshold(scorer: LaptopScorer) -> None:
    for reward in scorer.score(moments(scorer)):
        assert reward.done is not None
        assert reward.success is (reward.done >= SUCCESS.threshold)


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


def test_questions_are_asked_as_streams_are(scorer: LaptopScorer) -> None:
    last = moments(scorer)[-1]
    pictures = tuple(p.rgb for p in last.views["camera"])
    item = Item("<image>" * 4, pictures, task=TASKS[0], first=FRAMES[0])
    streamed = scorer.score([last])[0]
    assert scorer.ask(asked_of([item]))[0].progress == pytest.approx(streamed.progress, abs=TOLERANCE)


def test_what_it_cannot_do_is_said(checkpoint: Path) -> None:
    with pytest.raises(RewardError, match="no words"):
        open_checkpoint(checkpoint, reasoning=True)
    with pytest.raises(RewardError, match=r"trained on windows of 4 pictures, 0\.2 s apart, not of 2"):
        open_checkpoint(checkpoint, Window(2, 0.2))
    with open_scorer(ScorerConfig(checkpoint)) as opened:
        assert opened.settings["encoder"] == "grey@64"

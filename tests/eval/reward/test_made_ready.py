"""Pictures that are cut before they are scored: the same numbers, nothing cut twice, nothing kept for long."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from eval.reward.model import ModelScorer, open_model
from eval.reward.scorer import TOLERANCE, Reward
from eval.reward.stream import Moment, StreamPicture
from tests.kits.reward_kit import FPS, TASK, bars, make_checkpoint
from training.transform import Transform


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen2_5_vl"])
def scorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelScorer:
    return open_model(make_checkpoint(tmp_path_factory.mktemp("models") / "tiny", request.param))


def moments(scorer: ModelScorer, count: int) -> list[Moment]:
    stream = scorer.stream(TASK, FPS)
    return [m for rgb in bars(count) if (m := stream.append({"camera": rgb})) is not None]


def fresh(given: Sequence[Moment]) -> list[Moment]:
    """The same moments, each with pictures of its own that no scorer has seen."""
    return [replace(m, views={c: tuple(StreamPicture(p.rgb) for p in v) for c, v in m.views.items()}) for m in given]


def pictures(given: Sequence[Moment]) -> list[StreamPicture]:
    return list({id(p): p for m in given for p in m.views["camera"]}.values())


def progress(rewards: Sequence[Reward]) -> list[float]:
    assert [r.failure for r in rewards] == [None] * len(rewards)
    return [r.progress for r in rewards if r.progress is not None]


def test_the_numbers_are_the_same_and_nothing_is_cut_twice(
    scorer: ModelScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = progress(scorer.score(moments(scorer, 12)))
    ready = moments(scorer, 12)
    for picture in pictures(ready):
        scorer.make_ready(picture)
    monkeypatch.setattr(Transform, "patches", lambda transform, given: pytest.fail("a picture is cut again"))
    assert progress(scorer.score(ready)) == known
    # What was made beforehand is thrown away once it is seen, and not made again
    assert {p.cut is None and p.seen is not None for p in pictures(ready)} == {True}
    scorer.make_ready(pictures(ready)[0])
    assert pictures(ready)[0].cut is None


def test_where_a_window_leaves_less_room_patches_are_cut_for_it(
    scorer: ModelScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first windows have fewer pictures, and so the same picture is shown in several sizes."""
    monkeypatch.setattr(scorer.transform.processor, "max_vision_tokens", 6, raising=False)
    given = moments(scorer, 6)
    apart = fresh(given)
    for picture in pictures(apart):
        scorer.make_ready(picture)
    known = progress(scorer.score(fresh(given)))
    assert progress(scorer.score(apart)) == known
    # And those that are shared by windows get the numbers of those that are not
    assert progress(scorer.score(given)) == pytest.approx(known, abs=TOLERANCE)
    assert max(len(p.seen) for p in pictures(given)) > 1

"""Whole laptop runs on bars: they learn, they tell what they were shown, and they refuse what makes no sense."""

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from annotate.config import SamplesConfig
from annotate.samples.procvqa import samples
from core.errors import UserError
from tests.kits.labelled import episode
from tests.kits.laptop_kit import TASKS, make_episode, make_release, recipe
from training.folder import TrainingError
from training.laptop.fit import ClipSource
from training.recipe import NegativesConfig, Recipe, load_recipe
from training.runs import resumable
from training.train import train
from warehouse.lake import Lake
from warehouse.releases.release import Release


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Release]:
    return make_release(tmp_path_factory.mktemp("laptop") / "w")


def test_equal_seeds_give_equal_models(corpus: tuple[Lake, Release]) -> None:
    lake, release = corpus
    short = recipe(train={"steps": 5})
    first_curve, other_curve = (train(lake, release, short).curve for _ in range(2))
    assert [p.loss for p in first_curve] == [p.loss for p in other_curve]
    seeded = train(lake, release, recipe(train={"steps": 5, "seed": 1})).curve
    assert [p.loss for p in seeded] != [p.loss for p in first_curve]


def test_nothing_is_gone_on_from(
    corpus: tuple[Lake, Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, release = corpus
    assert not resumable(lake.workspace, recipe(), release)
    with pytest.raises(TrainingError, match="leave out --resume"):
        train(lake, release, recipe(), resume=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="one process"):
        train(lake, release, recipe())


def test_a_rate_that_is_too_high_is_told(corpus: tuple[Lake, Release]) -> None:
    lake, release = corpus
    with pytest.raises(TrainingError, match=r"loss is nan at step \d+: lower train\.lr"):
        train(lake, release, recipe(train={"lr": 1e30, "clip": 1e30}))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"head": {}}, "model.laptop has heads of its own"),
        ({"data": {"augment": True}}, "data.augment: a laptop model reads"),
        ({"train": {"accumulation": 2}}, "train.accumulation: not for a laptop model"),
        ({"train": {"steps": None, "epochs": 2}}, "train.epochs: not for a laptop model"),
        ({"laptop": {"encoder": "vit"}}, "vit is no encoder"),
    ],
)
def test_a_recipe_that_asks_for_what_it_has_not(sections: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**sections)


def test_a_recipe_s_own_words_are_read_again() -> None:
    built_in = load_recipe("laptop")
    assert Recipe(**built_in.model_dump()) == built_in
    model = built_in.model_dump()["model"] | {"max_vision_tokens": 7}
    with pytest.raises(ValueError, match=r"model\.max_vision_tokens: not for a laptop model"):
        Recipe(**built_in.model_dump() | {"model": model})


def test_the_built_in_recipe(tmp_path: Path) -> None:
    built_in = load_recipe("laptop")
    assert built_in.model.laptop is not None
    assert built_in.data.negatives.total == pytest.approx(0.6)
    with pytest.raises(UserError, match="one of tiny, laptop and path"):
        load_recipe("laptop", tmp_path)


# What training shows


RUNS = (make_episode(TASKS[0]), make_episode(TASKS[1]))


def source(**rates: float) -> ClipSource:
    return ClipSource(RUNS, 4, NegativesConfig(**rates), seed=1)


def test_nothing_that_is_shown_tells_how_long_a_run_will_last():
    """Of 9 and of 45 seconds: shards hold a few frames of a long run, and windows of nearest ones showed that. The
    numbers of a picture say its frame, so what a model can know of a window's times is how far these lie apart."""
    steps_drawn = {}
    questions_by_length = {}
    for seconds in (8.6, 44.9):
        rows = [
            r
            for r in samples(episode(0, 10.0, seconds), SamplesConfig())
            if r["family"] != "procvqa_a"
        ]
        questions_by_length[seconds] = {
            r["frames"][-1]: (r["frames"], r["question"])
            for r in rows
            if r["family"] == "procvqa_c"
        }
        frames = np.unique(list(chain.from_iterable(r["frames"] for r in rows)))
        numbers = np.broadcast_to(frames[None, :, None], (1, len(frames), 2)).astype(np.float16)
        run = replace(RUNS[0], numbers=numbers, frames=frames, label=frames / frames[-1], step=4.0)
        drawn = ClipSource([run], 4, NegativesConfig(), seed=1).draw(300)[0][:, 1:, 0]
        steps_drawn[seconds] = set(map(tuple, np.diff(drawn[drawn[:, -1] >= 12]).tolist()))
    assert steps_drawn[8.6] == steps_drawn[44.9] == {(4.0, 4.0, 4.0)}
    same = questions_by_length[8.6].keys() & questions_by_length[44.9].keys()
    assert same, "moments that were drawn of both"
    assert all(
        questions_by_length[8.6][moment] == questions_by_length[44.9][moment] for moment in same
    ), "what a language model is shown, word for word"


def test_another_task_is_worth_nothing():
    _, tasks, label = source(other_task=1).draw(50)
    assert (label == 0).all()
    assert set(tasks) == {e.task for e in RUNS}

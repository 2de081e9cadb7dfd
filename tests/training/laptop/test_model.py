"""The laptop model by itself, and what a run of it refuses."""

import json
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from annotate.config import SamplesConfig
from annotate.embeddings.encoders import load_encoder
from annotate.samples.procvqa import samples, task_text
from core.errors import UserError
from core.tables import TABLES
from tests.kits.labelled import episode
from tests.kits.laptop_kit import TASKS, make_episode, make_release, recipe, small_config
from training.folder import ModelError, TrainingError, is_laptop
from training.laptop.fit import FAMILIES, ClipSource, read_episodes
from training.laptop.model import (
    ADAPTED,
    NO_TREND,
    OOD,
    LaptopModel,
    OodDetector,
    SeenWindow,
    hashed_text,
    laptop_loss,
    load_laptop,
    read_windows,
    save_laptop,
    trends_of,
)
from training.recipe import NegativesConfig, Recipe, load_recipe
from training.runs import resumable
from training.train import train
from warehouse.lake import Lake
from warehouse.releases.release import Release
from warehouse.shards.shard import read_samples

WIDTH = 6


def make_model() -> LaptopModel:
    torch.manual_seed(0)
    model = LaptopModel(small_config(), WIDTH, 4).eval()
    torch.nn.init.normal_(model.words.weight)
    return model


def test_windows_of_other_lengths():
    model = make_model()
    embeddings = [*np.random.default_rng(1).normal(size=(4, WIDTH)).astype(np.float32)]
    first = embeddings[0]

    def progress(pictures: list[np.ndarray], start: np.ndarray | None = first) -> float:
        return read_windows(model, [SeenWindow(TASKS[0], pictures, start)])[0].progress

    assert progress(embeddings[2:]) == progress([embeddings[2], embeddings[2], *embeddings[2:]])
    assert progress([embeddings[3], *embeddings]) == progress(embeddings)
    assert progress(embeddings, None) == progress(embeddings, embeddings[0])
    assert read_windows(model, []) == []


def test_another_encoder_is_refused(tmp_path):
    config = small_config()
    save_laptop(LaptopModel(config, WIDTH, 4), load_encoder(config.embeddings), tmp_path, {})
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["encoder"]["title"] = "grey@32"
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"grey@32.*bring that encoder"):
        load_laptop(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_laptop(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert not is_laptop(tmp_path)


def test_former_checkpoints_are_refused(tmp_path):
    save_laptop(
        make_model(),
        load_encoder(small_config().embeddings),
        tmp_path,
        {"head": {"pooling": "laptop"}},
    )
    own_tensors = load_file(tmp_path / "model.safetensors")
    old = {k: v for k, v in own_tensors.items() if not k.startswith("ood.")} | {
        "ood.farthest": torch.tensor(1.0)
    }
    save_file(old, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="train it again"):
        load_laptop(tmp_path)


def test_a_trend_is_learnt(tmp_path):
    curve = torch.tensor([[0.1, 0.3, 0.301, 0.2, torch.nan, 0.5]])
    assert trends_of(curve).tolist() == [[NO_TREND, 2, 1, 0, NO_TREND, NO_TREND]]
    assert "trend_weight" not in small_config().model_dump()
    config = small_config().model_copy(update={"trend_weight": 1.0})
    model = LaptopModel(config, WIDTH, 4)
    numbers = torch.randn(8, 5, WIDTH)
    label = torch.rand(8, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss, _ = laptop_loss(model, model(numbers, ["go"] * 8), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_laptop(model, load_encoder(config.embeddings), tmp_path, {})
    output = load_laptop(tmp_path)[0](numbers, ["go"] * 8)
    trends = trends_of(label)[:, 1:]
    assert (output.trend_logits.argmax(-1)[:, 1:] == trends).float().mean() > 0.8


def test_a_texts_rows_stay_the_same():
    assert hashed_text("Open the drawer.", 4096) == hashed_text("open THE drawer", 4096)
    assert sorted(hashed_text("a b", 4096)) != sorted(hashed_text("b a", 4096))
    assert set(hashed_text("open the drawer", 4096)) & set(hashed_text("open the door", 4096))
    assert all(0 < row < 64 for row in hashed_text("push the bar", 64))
    # the word, and parts of <abcd>: checkpoints depend on it
    assert hashed_text("abcd", 4096) == (396, 1936, 690, 2154)


SEEN = 256 + 64 * 4


def runs_of_change(count: int = 6, seed: int = 0, scene: int = 0) -> tuple[torch.Tensor, ...]:
    """Pictures that move away from their run's first one, that one, progress, run."""
    rng = np.random.default_rng(seed)
    start = np.random.default_rng(99 + scene).normal(size=SEEN) + 0.5 * rng.normal(
        size=(count, 1, SEEN)
    )
    way = 0.3 * rng.normal(size=(count, 1, SEEN))
    share = np.linspace(0, 1, 20)[None, :, None]
    embeddings = torch.from_numpy((start + 2 * share * way).reshape(-1, SEEN).astype(np.float32))
    first = torch.from_numpy(np.repeat(start[:, 0], 20, 0).astype(np.float32))
    label = torch.from_numpy(np.tile(share[0, :, 0], count).astype(np.float32))
    return embeddings, first, label, torch.arange(count).repeat_interleave(20)


def test_the_change_is_worth_in_other_runs_what_it_was_worth_in_training():
    detector = OodDetector(SEEN)
    detector.fit(*runs_of_change())
    embeddings, first, label, _ = runs_of_change(seed=1)
    guess = detector.by_change(embeddings, first)
    assert (guess - label).abs().mean() < 0.12
    # Not where it changed: the cells in another order say the same
    order = torch.cat([torch.arange(256), 256 + torch.arange(256).view(4, 64).flip(0).flatten()])
    assert torch.allclose(
        detector.by_change(embeddings[:, order], first[:, order]), guess, atol=1e-6
    )


def test_labels_that_are_missing_teach_nothing():
    embeddings, first, label, run = runs_of_change()
    has_label = torch.arange(len(label)) % 3 == 0
    first_detector = OodDetector(SEEN)
    second_detector = OodDetector(SEEN)
    first_detector.fit(embeddings, first, torch.where(has_label, label, torch.nan), run)
    second_detector.fit(embeddings[has_label], first[has_label], label[has_label], run[has_label])
    assert torch.allclose(first_detector.guess.weight, second_detector.guess.weight, atol=1e-4)


def test_what_lies_farther_than_a_held_out_run_is_ood():
    detector = OodDetector(SEEN)
    other_scene = runs_of_change(scene=1)[0]
    assert detector.score(other_scene).max() == 0
    detector.fit(*runs_of_change(20))
    assert detector.score(runs_of_change(20)[0]).max() == 0
    held_out = detector.score(runs_of_change(20, seed=1)[0]) >= OOD
    assert held_out.float().mean() < 0.15
    assert detector.score(other_scene).min() == 1
    alone = OodDetector(SEEN)
    alone.fit(*runs_of_change(1))
    assert alone.score(other_scene).max() == 0, "of one run nobody knows what is usual"


def shown(*tasks: str) -> LaptopModel:
    """A model that training showed these tasks."""
    torch.manual_seed(0)
    model = LaptopModel(small_config(text_buckets=4096), SEEN, 4).train()
    torch.nn.init.normal_(model.words.weight)
    model(torch.zeros(len(tasks), 5, SEEN), tasks)
    return model.eval()


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ("push the bar to the right", True),
        ("Push the bar!", True),
        ("pull the bar to the right", True),
        ("stack the cubes", False),
        ("put the milk and the bread into their bins, to the right of the sink", False),
        ("", True),
    ],
)
def test_an_instruction_counts_where_training_showed_it(said, understood):
    model = shown(*TASKS)
    embeddings = torch.randn(1, 5, SEEN, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        with_text, untold = (model(embeddings, [text]).progress for text in (said, ""))
    assert torch.equal(with_text, untold) is (not understood or not said)


def test_ood_pictures_are_judged_by_their_change_alone():
    model = shown(*TASKS)
    model.ood.fit(*runs_of_change())
    (of_training, _, _, _), (embeddings, first, _, _) = runs_of_change(), runs_of_change(scene=1)
    window = torch.stack([first[0], *embeddings[[4, 8, 12, 16]]])[None]
    with torch.inference_mode():
        near = model(of_training[None, :5], [TASKS[0]])
        far = model(window, [TASKS[0]])
        other_output = model(window, [TASKS[1]])
    assert torch.equal(near.progress, torch.sigmoid(near.progress_logit))
    assert torch.equal(far.progress, far.by_change)
    assert torch.equal(far.progress, other_output.progress)
    assert bool((far.progress.diff() > 0).all())


def test_a_scene_that_was_learnt_later_is_half_ood():
    detector = OodDetector(SEEN)
    embeddings = runs_of_change()[0]
    new = runs_of_change(scene=1)[0]
    detector.fit(*runs_of_change())
    assert detector.score(new).min() == 1
    detector.widen(new)
    assert torch.equal(detector.score(new), torch.full((len(new),), ADAPTED))
    assert detector.score(embeddings).max() == 0
    assert detector.score(runs_of_change(scene=2)[0]).min() == 1
    detector.widen(runs_of_change(scene=2)[0])
    assert detector.score(new).max() <= ADAPTED


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> tuple[Lake, Release]:
    return make_release(tmp_path_factory.mktemp("laptop") / "w")


def test_equal_seeds_give_equal_models(corpus):
    lake, release = corpus
    short = recipe(train={"steps": 5})
    first_curve, other_curve = (train(lake, release, short).curve for _ in range(2))
    assert [p.loss for p in first_curve] == [p.loss for p in other_curve]
    seeded = train(lake, release, recipe(train={"steps": 5, "seed": 1})).curve
    assert [p.loss for p in seeded] != [p.loss for p in first_curve]


def test_nothing_is_gone_on_from(corpus, monkeypatch):
    lake, release = corpus
    assert not resumable(lake.workspace, recipe(), release)
    with pytest.raises(TrainingError, match="leave out --resume"):
        train(lake, release, recipe(), resume=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="one process"):
        train(lake, release, recipe())


def test_a_rate_that_is_too_high_is_told(corpus):
    lake, release = corpus
    with pytest.raises(TrainingError, match=r"loss is nan at step \d+"):
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
def test_a_recipe_that_asks_for_what_it_has_not(sections, message):
    with pytest.raises(ValueError, match=message):
        recipe(**sections)


def test_the_built_in_recipe(tmp_path):
    built_in = load_recipe("laptop")
    assert built_in.data.negatives.total == pytest.approx(0.6)
    assert Recipe(**built_in.model_dump()) == built_in
    model = built_in.model_dump()["model"] | {"max_vision_tokens": 7}
    with pytest.raises(ValueError, match=r"model.max_vision_tokens: not for"):
        Recipe(**built_in.model_dump() | {"model": model})
    with pytest.raises(UserError, match="one of tiny, laptop and path"):
        load_recipe("laptop", tmp_path)


RUNS = (make_episode(TASKS[0]), make_episode(TASKS[1]))


def source(**rates: float) -> ClipSource:
    return ClipSource(RUNS, 4, NegativesConfig(**rates), seed=1)


def test_nothing_that_is_shown_tells_how_long_a_run_will_last():
    # Of 9 and of 45 seconds: shards hold a few frames of a long run, and windows of nearest ones showed that. The
    # numbers of a picture say its frame, so what a model can know of a window's times is how far these lie apart
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
    assert same
    assert all(
        questions_by_length[8.6][moment] == questions_by_length[44.9][moment] for moment in same
    ), "what a language model is shown, word for word"


def test_a_run_without_a_text_is_no_other_task(tmp_path):
    lake, release = make_release(tmp_path)
    tars = release.paths(lake.workspace, "train")
    dataset = release.shard_list[0].dataset
    facts = {
        "dataset": dataset,
        "chunk": 0,
        "num_rows": 9,
        "fps": 5.0,
        "episode_index": 0,
    }
    lake.upsert("no text", episode_facts=TABLES["episode_facts"].rows([facts]))
    encoder = load_encoder(small_config().embeddings)
    clips = read_samples(tars, FAMILIES)
    runs = read_episodes(lake, lake.snapshot(), clips, [dataset], encoder, 1, 0)
    assert [run.task for run in runs if run.key == (dataset, 0)] == [""]
    tasks = ClipSource(runs, 4, NegativesConfig(other_task=1), seed=1).draw(50)[1]
    assert task_text(None) not in tasks


def test_another_task_is_worth_nothing():
    _, tasks, label = source(other_task=1).draw(50)
    assert (label == 0).all()
    assert set(tasks) == {e.task for e in RUNS}

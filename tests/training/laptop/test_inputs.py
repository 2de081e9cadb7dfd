"""What a model is given beside one camera's pictures: other cameras, the robot's state, and either missing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from annotate.embeddings.encoders import load_encoder
from core.errors import UserError
from tests.kits.laptop_kit import TASKS, make_release, recipe, small_config, state_at, store, view
from training.laptop.clips import WITHOUT_CAMERA, WITHOUT_STATE, ClipSource
from training.laptop.inputs import BEYOND, StateInput
from training.laptop.layout import Layout
from training.laptop.model import LaptopModel, load_laptop, save_laptop
from training.laptop.pictures import embed
from training.laptop.reading import SeenWindow, read_windows, seen_window
from training.laptop.runs import Run
from training.loop import TrainingError
from training.negatives.config import NegativesConfig
from training.recipe import load_recipe
from training.train import train

CAMERAS = ("a.front", "a.wrist")
WIDTH = 6


def moments(count: int, width: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def two_cameras() -> LaptopModel:
    torch.manual_seed(0)
    config = small_config(cameras=CAMERAS, numbers_from="lake")
    return LaptopModel(config, WIDTH, 4).eval()


def progress(model: LaptopModel, shown: np.ndarray) -> float:
    return read_windows(model, [SeenWindow(TASKS[0], list(shown[1:]), shown[0])])[0].progress


def test_states_of_another_length_are_other_numbers():
    layout = Layout(4, 2, (2, 3))
    assert (layout.pictures, layout.state, layout.width) == (8, 5, 13)
    laid = layout.moment([None, np.arange(4)], np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(laid, [*[np.nan] * 4, 0, 1, 2, 3, np.nan, np.nan, 1, 2, 3])
    np.testing.assert_array_equal(layout.placed(np.array([[5.0, 6.0]]))[0], [5, 6, np.nan, np.nan, np.nan])
    assert np.isnan(layout.placed(np.ones((2, 7)))).all()
    assert layout.filled(np.ones((3, 4))).shape == (3, 13)


def test_numbers_that_never_moved_or_lie_far_off_say_nothing():
    known = torch.stack([torch.tensor(state_at(k / 9)) for k in range(10)])
    states = StateInput(3, 8)
    states.normalise_by(torch.cat([known, torch.full((2, 3), torch.nan)]))
    assert states.moves.tolist() == [1, 1, 0]
    shown = known[:5][None]
    token = states(shown)
    still = shown.clone()
    still[..., 2] += 100
    assert torch.equal(states(still), token)
    far, gone = shown.clone(), shown.clone()
    far[..., 0] = states.mean[0] + 1.01 * BEYOND * states.reach[0] * states.spread[0]
    gone[..., 0] = torch.nan
    assert torch.equal(states(far), states(gone))
    assert not torch.equal(states(gone), token)
    assert torch.equal(states(torch.full_like(shown, torch.nan)), torch.zeros_like(token))


def test_a_camera_that_shows_nothing_is_left_out():
    model, both = two_cameras(), moments(5, 2 * WIDTH)
    one, other = both.copy(), both.copy()
    one[:, WIDTH:] = np.nan
    other[:, :WIDTH] = np.nan
    found = [progress(model, shown) for shown in (both, one, other)]
    assert np.isfinite(found).all()
    assert len({round(p, 5) for p in found}) == 3
    # What is said of the first camera alone is what a window without the other says
    assert progress(model, one[:, :WIDTH]) == found[1]


def test_a_strange_picture_counts_as_none_where_another_camera_s_is_known():
    model, shown = two_cameras(), moments(40, 2 * WIDTH)
    model.normalise_by(shown)
    model.learn_the_familiar(shown, np.repeat(shown[:1], 40, 0), np.linspace(0, 1, 40, dtype=np.float32))
    hidden, missing = shown[:5].copy(), shown[:5].copy()
    hidden[1:, :WIDTH] = 50
    missing[1:, :WIDTH] = np.nan
    assert progress(model, hidden) == progress(model, missing)
    (answer,) = read_windows(model, [SeenWindow("", list(hidden[1:]), hidden[0])])
    assert answer.strange == 0
    hidden[1:] = 50
    assert read_windows(model, [SeenWindow("", list(hidden[1:]), hidden[0])])[0].strange == 1


def test_cameras_and_state_are_missing_in_their_share_of_clips_and_a_camera_is_always_left():
    layout = Layout(2, 2, (3,))
    run = Run(
        "d", 0, TASKS[0], np.ones((1, 20, 4), np.float16), np.arange(20), np.linspace(0, 1, 20), 2.0, 4,
        state=np.ones((20, 3), np.float32), layout=layout,
    )  # fmt: skip
    clips = ClipSource([run], 4, NegativesConfig(), 0, layout).draw(600)
    assert clips.numbers.shape == (600, 5, 7)
    first, second, state = (~np.isnan(clips.numbers[:, 0, k]) for k in (0, 2, 4))
    assert (first | second).all()
    for there, share in ((first, WITHOUT_CAMERA), (second, WITHOUT_CAMERA), (state, WITHOUT_STATE)):
        assert 0.6 * share < 1 - there.mean() < 1.2 * share
    # The same windows are drawn as without anything that could be missing
    plain = ClipSource([Run("d", 0, TASKS[0], run.numbers, run.frames, run.label, 2.0, 4)], 4, NegativesConfig(), 0)
    assert np.array_equal(plain.draw(600).label, clips.label)


def test_a_model_learns_from_the_state_what_no_picture_shows_and_does_without(tmp_path: Path):
    lake, release = make_release(tmp_path / "w", hidden=True)
    made = train(lake, store(lake, release, {}), recipe(laptop={"state": True}, train={"steps": 120}))
    model, encoder, _ = load_laptop(made.checkpoint)
    assert model.layout.states == (3,)
    shares = np.linspace(0, 1, 12)
    seen = embed(encoder, [view("front", TASKS[0], 0)])[0]

    def error(states: np.ndarray | None) -> float:
        windows = []
        for k in range(12):
            at = [0, max(0, k - 1), k]
            told = None if states is None else states[at]
            windows.append(seen_window(model, f"{TASKS[0]}: how far?", [{0: seen}] * 3, told))
        return float(np.abs(np.array([a.progress for a in read_windows(model, windows)]) - shares).mean())

    assert error(np.array([state_at(share) for share in shares])) < 0.15
    assert 0.2 < error(None) < 0.6
    # States of another length are another robot's
    assert error(np.ones((12, 5))) == error(None)


def test_a_model_of_two_cameras_is_trained_on_what_the_lake_has(tmp_path: Path):
    lake, release = make_release(tmp_path / "w")
    cameras = {e: ("front", "wrist")[: 1 + e % 3] if e < 5 else ("wrist",) for e in range(6)}
    release = store(lake, release, cameras)
    asked = recipe(laptop={"numbers_from": "lake", "cameras": ["front", "wrist"]}, train={"steps": 120})
    made = train(lake, release, asked)
    model, encoder, card = load_laptop(made.checkpoint)
    assert (card["runs"], card["stored_runs"], model.layout.cameras) == (6, 6, 2)
    shares = np.linspace(0, 1, 12)
    seen = {c: embed(encoder, [view(c, TASKS[1], share) for share in shares]) for c in ("front", "wrist")}

    def error(*cameras: str) -> float:
        number = model.camera_number
        windows = [
            seen_window(
                model,
                f"{TASKS[1]}: how far?",
                [{number(c): seen[c][at] for c in cameras} for at in (0, max(0, k - 1), k)],
            )
            for k in range(12)
        ]
        return float(np.abs(np.array([a.progress for a in read_windows(model, windows)]) - shares).mean())

    assert max(error("front", "wrist"), error("front"), error("wrist")) < 0.25


def test_what_the_lake_does_not_have_is_told(tmp_path: Path):
    lake, release = make_release(tmp_path / "w")
    with pytest.raises(TrainingError, match=r"no run of release bars1 has a state"):
        train(lake, release, recipe(laptop={"state": True}))
    with pytest.raises(TrainingError, match=r"nothing that top showed .*the dataset's cameras"):
        train(lake, release, recipe(laptop={"numbers_from": "lake", "cameras": ["front", "top"]}))
    path = tmp_path / "r.yaml"
    path.write_text("name: x\nmodel: {laptop: {cameras: [front]}}\ntrain: {steps: 1, batch: 1, lr: 1}\n")
    with pytest.raises(UserError, match=r"shards show one camera of a run: numbers_from: lake"):
        load_recipe(str(path))


def test_checkpoints_of_one_camera_from_before_load(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    config = small_config()
    encoder = load_encoder(config.embeddings)
    model = LaptopModel(config, WIDTH, 4).eval()
    save_laptop(model, encoder, tmp_path, {"head": {"pooling": "laptop"}})
    weights = load_file(tmp_path / "model.safetensors")
    save_file({k.removeprefix("cameras.0."): v for k, v in weights.items()}, tmp_path / "model.safetensors")
    shown = moments(5, WIDTH)
    assert progress(load_laptop(tmp_path)[0], shown) == progress(model, shown)

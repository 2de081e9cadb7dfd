"""The model by itself: causal, blind to what lies before its window, and the same after a turn on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from annotate.embeddings.encoders import load_encoder
from tests.kits.laptop_kit import TASKS, small_config
from training.errors import ModelError
from training.folder import is_laptop
from training.laptop.model import LaptopModel, SeenWindow, hashed_text, load_laptop, read_windows, save_laptop

WIDTH = 6


def make_model(frames: int = 4) -> LaptopModel:
    torch.manual_seed(0)
    model = LaptopModel(small_config(), WIDTH, frames).eval()
    torch.nn.init.normal_(model.words.weight)
    return model


def windows(count: int = 3, frames: int = 4) -> torch.Tensor:
    return torch.randn(count, 1 + frames, WIDTH, generator=torch.Generator().manual_seed(1))


def test_short_windows_repeat_their_oldest_picture_and_long_ones_lose_it():
    model, seen = make_model(), list(windows(1)[0, 1:].numpy())
    first = seen[0]

    def progress(pictures: list[np.ndarray], start: np.ndarray | None = first) -> float:
        return read_windows(model, [SeenWindow(TASKS[0], pictures, start)])[0].progress

    assert progress(seen[2:]) == progress([seen[2], seen[2], *seen[2:]])
    assert progress([seen[3], *seen]) == progress(seen)
    assert progress(seen, None) == progress(seen, seen[0])
    assert read_windows(model, []) == []


def test_a_folder_of_another_encoder_or_without_weights_is_refused(tmp_path: Path):
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


def test_checkpoints_of_before_are_to_be_trained_again(tmp_path: Path):
    save_laptop(make_model(), load_encoder(small_config().embeddings), tmp_path, {"head": {"pooling": "laptop"}})
    own = load_file(tmp_path / "model.safetensors")
    old = {k: v for k, v in own.items() if not k.startswith("ood.")} | {"ood.farthest": torch.tensor(1.0)}
    save_file(old, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="strangeness was told by the nearest pictures: train it again"):
        load_laptop(tmp_path)


# Hashed words


def test_case_and_punctuation_do_not_count_and_order_does():
    assert hashed_text("Open the drawer.", 4096) == hashed_text("open THE drawer", 4096)
    assert sorted(hashed_text("a b", 4096)) != sorted(hashed_text("b a", 4096))
    assert set(hashed_text("open the drawer", 4096)) & set(hashed_text("open the door", 4096))


def test_rows_are_of_the_table_and_stay_the_same_from_process_to_process():
    assert all(0 < row < 64 for row in hashed_text("push the bar", 64))
    # the word, and parts of <abcd>: checkpoints depend on it
    assert hashed_text("abcd", 4096) == (396, 1936, 690, 2154)

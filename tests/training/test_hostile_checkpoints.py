"""Checkpoints of strangers: safetensors alone, headers and sizes bounded, no code of theirs; each is one sentence."""

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from annotate.embeddings.encoders import load_encoder
from tests.kits.laptop_kit import small_config
from tests.kits.training_kit import make_items, make_parts
from training.folder import ModelError
from training.laptop import model as laptop_model
from training.laptop.model import LaptopModel, load_laptop, save_laptop
from training.model import load_model, save_model

CODE = "raise SystemExit('code of a checkpoint was run')\n"
MAPPED = {
    "auto_map": {
        f"Auto{what}": "evil.Evil" for what in ("Config", "Model", "Processor", "Tokenizer")
    }
}


def laptop(folder: Path) -> Path:
    config = small_config()
    save_laptop(LaptopModel(config, 6, 4), load_encoder(config.embeddings), folder, {})
    return folder


CLAIM = b'{"w":{"dtype":"F32","shape":[1000],"data_offsets":[0,4000]}}'


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


class Trap:
    def __reduce__(self) -> tuple:
        return exec, (CODE,)


WEIGHTS = {
    "a header of more bytes than the file has": header(b"{}", 1000),
    "a tensor of more bytes than the file has": header(CLAIM),
    "brackets without end": header(b"[" * 3_000),
    "a pickle by this name": pickle.dumps(Trap()),
}  # fmt: skip


@pytest.mark.parametrize("what", WEIGHTS)
def test_weights(tmp_path: Path, what: str) -> None:
    (laptop(tmp_path) / "model.safetensors").write_bytes(WEIGHTS[what])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_laptop(tmp_path)


def test_a_file_that_is_larger_than_any_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (laptop(tmp_path) / "model.safetensors").stat().st_size
    monkeypatch.setattr(laptop_model, "MOST_BYTES", size)
    load_laptop(tmp_path)
    monkeypatch.setattr(laptop_model, "MOST_BYTES", size - 1)
    with pytest.raises(ModelError, match="more than a laptop model has"):
        load_laptop(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden": 4097}, {"layers": 65}, {"text_buckets": (1 << 20) + 1}, {"views": -1}, {"hidden": float("nan")},
        {"encoder": "http://127.0.0.1:9/x"}, {"encoder": "../../../../etc/passwd"},
        {"width": (1 << 16) + 1}, {"frames": 65},
    ],
    ids=str,
)  # fmt: skip
def test_numbers_beyond_what_a_model_has(tmp_path: Path, change: dict[str, Any]) -> None:
    path = laptop(tmp_path) / "config.json"
    settings = json.loads(path.read_text())
    of_model = settings if settings.keys() & change else settings["laptop"]
    of_model |= change
    path.write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"cannot be loaded|bring that encoder"):
        load_laptop(tmp_path)


def of_another_type(folder: Path) -> None:
    (folder / "config.json").write_text(
        json.dumps({"model_type": "evil", "architectures": ["Evil"], **MAPPED})
    )


def of_its_processor(folder: Path) -> None:
    for path in folder.glob("*config.json"):
        if path.name != "config.json":
            classes = {
                "tokenizer_class": "Evil",
                "processor_class": "Evil",
                "image_processor_type": "Evil",
            }
            path.write_text(json.dumps(json.loads(path.read_text()) | classes | MAPPED))


@pytest.mark.parametrize("change", [of_another_type, of_its_processor])
def test_code_that_a_checkpoint_brings_is_not_run(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    model, transform = make_parts(make_items())
    save_model(model, transform.processor, tmp_path, {"max_px": 64})
    (tmp_path / "evil.py").write_text(CODE)
    change(tmp_path)
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_model(tmp_path)

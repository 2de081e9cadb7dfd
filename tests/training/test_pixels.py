"""Pictures in bytes: equal to what the processor of transformers makes, of every size and for every model."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.kits.training_kit import make_items, make_parts
from training.batches import Prepared, placed
from training.pixels import ORIENTATION, byte_patches, normalised, picture_size

SIZES = [(64, 64), (37, 90), (480, 640), (720, 1280), (20, 24), (192, 256)]
NORMS = {
    "half": ([0.5] * 3, [0.5] * 3),
    "clip": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.2613026, 0.2757771]),
}


def picture(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (size[0] // 4 + 1, size[1] // 4 + 1, 3), np.uint8)
    return cv2.resize(noise, size[::-1], interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("patch", [14, 16])
@pytest.mark.parametrize("norm", NORMS)
def test_pixel_values_are_those_of_the_processor(patch: int, norm: str) -> None:
    from transformers import Qwen2VLImageProcessor

    mean, deviation = NORMS[norm]
    size = {"shortest_edge": 4096, "longest_edge": 262144}
    processor = Qwen2VLImageProcessor(patch_size=patch, image_mean=mean, image_std=deviation, size=size)
    pictures = [picture(s, k) for k, s in enumerate(SIZES)]
    theirs = processor(images=pictures, return_tensors="pt")
    processor.size = dict(size)  # as load_processor leaves it
    in_bytes = byte_patches(processor, pictures)
    assert in_bytes["patches"].dtype == torch.uint8
    assert theirs["pixel_values"].nbytes == 8 * in_bytes["patches"].nbytes
    ours = normalised(in_bytes)
    assert ours.keys() == {"pixel_values", "image_grid_thw"}
    assert torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"])
    assert torch.equal(ours["pixel_values"], theirs["pixel_values"])


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_a_batch_is_that_of_the_processor(family: str) -> None:
    items = make_items()
    _, transform = make_parts(items, family)
    images = [p for i in items for p in i.pictures]
    theirs = transform.processor(text=[transform.prompt(i.question) for i in items], images=images, padding=True)
    batch = transform(items)
    assert torch.equal(batch["pixel_values"], torch.as_tensor(np.asarray(theirs["pixel_values"])))
    for row, ids, mask in zip(batch["input_ids"], theirs["input_ids"], theirs["attention_mask"], strict=True):
        prompt = [i for i, m in zip(ids, mask, strict=True) if m]
        assert row[: len(prompt)].tolist() == prompt


def test_batches_are_given_with_what_the_model_takes() -> None:
    items = make_items()
    _, transform = make_parts(items)
    parts = [Prepared(transform.as_bytes(items[k : k + 2]), 2, 0, 2, 99) for k in (0, 2, 4)]
    given = list(placed(parts, torch.device("cpu")))
    assert [part for part, _ in given] == parts
    for k, (_, batch) in zip((0, 2, 4), given, strict=True):
        expected = transform(items[k : k + 2])
        assert batch.keys() == expected.keys()
        assert torch.equal(batch["pixel_values"], expected["pixel_values"])


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_header_tells_the_size_that_is_decoded(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = io.BytesIO()
    Image.fromarray(picture((40, 60))).save(file, kind, exif=exif)
    decoded = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert picture_size(io.BytesIO(file.getvalue())) == decoded.shape[:2]


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="it is no picture"):
        picture_size(io.BytesIO(b"GIF89a, or not"))

"""LeRobot datasets whose pictures are stored in the Parquet rows, and cameras stored as BGR."""

import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from ingest.limits import Limits
from ingest.media.frames import VideoError
from ingest.media.picture import ArrayPicture, array_picture, decode_picture, swapped
from ingest.reasons import DataError
from ingest.source import list_episodes, read_episode
from tests.kits.lerobot_writer import (
    FRONT,
    WRIST,
    edit_info,
    edit_parquet,
    features,
    number,
    picture,
    read_number,
    source_of,
    v2_data,
    write_v2,
)

PICTURES = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encoded(rgb: np.ndarray, format: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, format)
    return out.getvalue()


def declare(root: Path, *cameras: str) -> None:
    image = {"dtype": "image", "shape": [64, 64, 3], "names": ["height", "width", "channel"]}
    edit_info(root, features=features([], 10) | dict.fromkeys(cameras, image))


def numbers(root: Path, episode: int, camera: str) -> list[int]:
    source = source_of(root)
    record = next(r for r in list_episodes(source).records if r.episode_index == episode)
    return [read_number(p.luma()) for _, _, p in read_episode(source, record).frames(camera)]


def test_pictures_in_files_that_the_rows_name(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6], cameras=[])
    declare(root, FRONT)
    folder = f"images/{FRONT}/episode_000000"
    (root / folder).mkdir(parents=True)
    for k in range(6):
        (root / folder / f"frame_{k:06d}.png").write_bytes(encoded(picture(number(0, 0, k))))
    named = [{"bytes": None, "path": f"{folder}/frame_{k:06d}.png"} for k in range(6)]
    edit_parquet(v2_data(root, 0), **{FRONT: pa.array(named, PICTURES)})
    assert numbers(root, 0, FRONT) == [number(0, 0, k) for k in range(6)]


@pytest.mark.parametrize("path", ["/etc/hostname", "../outside.png", "images/none.png", None])
def test_a_picture_that_is_not_in_the_dataset(tmp_path: Path, path: str | None) -> None:
    (tmp_path / "outside.png").write_bytes(encoded(picture(1)))
    root = write_v2(tmp_path / "root", [6], cameras=[])
    declare(root, FRONT)
    edit_parquet(v2_data(root, 0), **{FRONT: pa.array([{"bytes": b"", "path": path}] * 6, PICTURES)})
    with pytest.raises(VideoError, match=r"row 0 of data/chunk-000/episode_000000\.parquet has no picture"):
        numbers(root, 0, FRONT)


def test_a_picture_file_that_is_too_large(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6], cameras=[])
    declare(root, FRONT)
    (root / "a.png").write_bytes(encoded(picture(1)))
    os.truncate(root / "a.png", 1 << 36)  # sparse
    edit_parquet(v2_data(root, 0), **{FRONT: pa.array([{"bytes": None, "path": "a.png"}] * 6, PICTURES)})
    with pytest.raises(DataError, match=r"bytes of a\.png: 68,719,476,736, over the limit of 67,108,864"):
        numbers(root, 0, FRONT)


def test_bgr_is_swapped_once(tmp_path: Path) -> None:
    stored = np.zeros((64, 64, 3), np.uint8)
    stored[:, :] = (200, 100, 0)
    root = write_v2(tmp_path, [6], cameras=[])
    declare(root, FRONT, WRIST)
    pictures = pa.array([{"bytes": encoded(stored), "path": ""}] * 6, PICTURES)
    edit_parquet(v2_data(root, 0), **{FRONT: pictures, WRIST: pictures})
    source = source_of(root, cameras={"exo": [FRONT], "wrist": [WRIST], "bgr": [WRIST]})
    episode = read_episode(source, list_episodes(source).records[0])
    shown = {c: next(p for _, _, p in episode.frames(c)) for c in (FRONT, WRIST)}
    assert shown[FRONT].rgb()[0, 0].tolist() == [200, 100, 0]
    assert shown[WRIST].rgb()[0, 0].tolist() == [0, 100, 200]
    assert (int(shown[FRONT].luma()[0, 0]), int(shown[WRIST].luma()[0, 0])) == (119, 81)  # 0.299 R + 0.587 G + 0.114 B


def test_kinds_of_pictures() -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8)
    np.testing.assert_array_equal(decode_picture(encoded(rgb), "x").rgb(), rgb)
    grey = array_picture(rgb[:, :, :1], "x")
    np.testing.assert_array_equal(grey.luma(), rgb[:, :, 0])
    assert grey.rgb().shape == (8, 12, 3)
    np.testing.assert_array_equal(swapped(ArrayPicture(rgb)).rgb(), rgb[:, :, ::-1])


def test_a_picture_larger_than_the_limit() -> None:
    data = encoded(np.zeros((8, 9, 3), np.uint8))
    assert decode_picture(data, "it", Limits(max_pixels=72)).rgb().shape == (8, 9, 3)
    why = r"it claims to be 9x8 px: pixels: 72, over the limit of 71 \(limits.max_pixels of the registry entry\)"
    with pytest.raises(VideoError, match=why) as e:
        decode_picture(data, "it", Limits(max_pixels=71))
    assert e.value.reason == "over_limit"

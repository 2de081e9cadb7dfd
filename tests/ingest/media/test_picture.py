"""LeRobot datasets whose pictures are stored in the Parquet rows or in files that these name; cameras stored as BGR."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ingest.episode import VideoError
from ingest.media.picture import ArrayPicture, array_picture, decode_picture, swapped
from ingest.reasons import Limits
from ingest.source import list_episodes, read_episode
from tests.kits.lerobot_writer import (
    FRONT,
    WRIST,
    declare,
    edit_parquet,
    number,
    source_of,
    v2_data,
    write_v2,
)
from tests.kits.rlds_writer import png
from tests.kits.told import Told, golden


def written(root: Path, *rows: dict[str, Any], cameras: tuple[str, ...] = (FRONT,)) -> Path:
    write_v2(root, [6], cameras=[])
    image = {"dtype": "image", "shape": [64, 64, 3], "names": ["height", "width", "channel"]}
    declare(root, dict.fromkeys(cameras, image))
    pictures = pa.array((rows * 6)[:6], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    edit_parquet(v2_data(root, 0), **dict.fromkeys(cameras, pictures))
    return root


@golden
def test_pictures_in_files_that_the_rows_name(new) -> Told:
    root = written(new(), *({"bytes": None, "path": f"images/{k}.png"} for k in range(6)))
    (root / "images").mkdir()
    for k in range(6):
        (root / f"images/{k}.png").write_bytes(png(number(0, 0, k)))
    yield "six of them", source_of(root)
    (root.parent / "outside.png").write_bytes(png(1))
    for path in ("/etc/hostname", "../outside.png", "images/none.png", None):
        yield (
            f"{path} is not in the dataset",
            source_of(written(new(), {"bytes": b"", "path": path})),
        )
    root = written(new(), {"bytes": None, "path": "a.png"})
    (root / "a.png").write_bytes(png(1))
    yield "one is too large", source_of(root, limits={"max_chunk_bytes": 100})


def test_bgr_is_swapped_once(tmp_path):
    stored = np.zeros((64, 64, 3), np.uint8)
    stored[:, :] = (200, 100, 0)
    root = written(tmp_path, {"bytes": png(stored), "path": ""}, cameras=(FRONT, WRIST))
    source = source_of(root, cameras={"exo": [FRONT], "wrist": [WRIST], "bgr": [WRIST]})
    episode = read_episode(source, list_episodes(source).records[0])
    first_pictures = {c: next(iter(episode.frames(c)))[2] for c in (FRONT, WRIST)}
    assert first_pictures[FRONT].rgb()[0, 0].tolist() == [200, 100, 0]
    assert first_pictures[WRIST].rgb()[0, 0].tolist() == [0, 100, 200]
    # 0.299 R + 0.587 G + 0.114 B
    assert first_pictures[FRONT].luma()[0, 0] == 119
    assert first_pictures[WRIST].luma()[0, 0] == 81


def test_kinds_of_pictures():
    rgb = np.random.default_rng(0).integers(0, 255, (8, 9, 3), np.uint8)
    np.testing.assert_array_equal(decode_picture(png(rgb), "x", Limits(max_pixels=72)).rgb(), rgb)
    reason = r"it claims to be 9x8 px: pixels: 72, over the limit of 71 \(limits.max_pixels of the registry entry\)"
    with pytest.raises(VideoError, match=reason) as e:
        decode_picture(png(rgb), "it", Limits(max_pixels=71))
    assert e.value.reason == "over_limit"
    grey = array_picture(rgb[:, :, :1], "x")
    np.testing.assert_array_equal(grey.luma(), rgb[:, :, 0])
    assert grey.rgb().shape == (8, 9, 3)
    np.testing.assert_array_equal(swapped(ArrayPicture(rgb)).rgb(), rgb[:, :, ::-1])

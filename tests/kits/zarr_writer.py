"""Zarr replay buffers as UMI and Diffusion Policy lay them out, written by the library zarr."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import imagecodecs.numcodecs
import numcodecs
import numpy as np
import zarr
import zarr.storage

from tests.kits.lerobot_writer import frame_keys, number, picture

CAMERA = "camera0_rgb"
BLOSC = numcodecs.Blosc("zstd", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE)
numcodecs.register_codec(imagecodecs.numcodecs.Jpegxl)


def jpegxl() -> Any:
    """UMI's codec, without loss."""
    return imagecodecs.numcodecs.Jpegxl(lossless=True, effort=1)


def write_replay(
    path: Path,
    lengths: Sequence[int],
    pictures: Any = None,
    rows_per_chunk: int = 1,
    **attributes: Any,
) -> Path:
    """A store with a camera, UMI's state and episodes of some lengths; a ZIP file where the path
    says so.

    Frame k of episode e shows number(0, e, k); the position's x is e, and the gripper's width k /
    100.
    """
    keys = frame_keys(lengths)
    frames = np.stack([picture(number(0, e, k)) for e, k in keys])
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        store = zarr.storage.ZipStore(path, mode="w")
    else:
        store = zarr.storage.LocalStore(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = zarr.open_group(store, mode="w", zarr_format=2, attributes=attributes)
        position = np.array([[e, k, 0] for e, k in keys], np.float32)
        data = root.create_group("data")
        chunks = (rows_per_chunk, *frames.shape[1:])
        add(data, CAMERA, frames, chunks, pictures or jpegxl())
        add(data, "robot0_eef_pos", position, (7, 3), BLOSC)
        add(data, "robot0_eef_rot_axis_angle", np.zeros_like(position), (7, 3), BLOSC)
        add(
            data,
            "robot0_gripper_width",
            np.array([[k / 100] for _, k in keys], np.float32),
            (len(keys), 1),
            BLOSC,
        )
        meta = root.create_group("meta")
        add(meta, "episode_ends", np.cumsum(lengths).astype(np.int64), (len(lengths),), None)
        store.close()
    return path


def add(group: Any, name: str, values: np.ndarray, chunks: tuple[int, ...], codec: Any) -> None:
    array = group.create_array(
        name, shape=values.shape, chunks=chunks, dtype=values.dtype, compressors=codec
    )
    array[...] = values


# Pictures of 12 x 16 pixels, which say by their first pixel which frame of which episode they are

ROWS, COLUMNS = np.mgrid[:12, :16]


def film(count: int, episode: int = 0) -> np.ndarray:
    """uint8 [t, 12, 16, 3]"""
    return np.stack(
        [
            np.stack([COLUMNS * 5 + k * 3 + episode * 40, ROWS * 7 + k, COLUMNS * 0 + 60], -1)
            for k in range(count)
        ]
    ).astype(np.uint8)


def smooth(count: int, width: int, episode: int = 0) -> np.ndarray:
    """float32 [count, width] that moves as an arm does."""
    return np.sin(np.arange(count)[:, None] / 9 + np.arange(width) + episode).astype(np.float32)


ENDS = (5, 12, 18)


def write_zarr(
    folder: Path, arrays: Mapping[str, np.ndarray], filters: Mapping[str, Any], **attributes: Any
) -> Path:
    """A store of three episodes, 18 rows in all."""
    default_arrays = {
        "data/img": film(18),
        "data/state": smooth(18, 5),
        "data/action": smooth(18, 2),
    }
    root = zarr.create_group(folder / "replay.zarr", zarr_format=2, attributes=attributes)
    chosen = {
        name: values for name, values in (default_arrays | dict(arrays)).items() if len(values)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, values in {**chosen, "meta/episode_ends": np.array(ENDS)}.items():
            rows = 1 if values.ndim == 4 else min(4, len(values))
            array = root.create_array(
                name,
                shape=values.shape,
                dtype=values.dtype,
                chunks=(rows, *values.shape[1:]) if name.startswith("data/") else values.shape,
                filters=filters.get(name, "auto"),
            )
            array[...] = values
    return folder

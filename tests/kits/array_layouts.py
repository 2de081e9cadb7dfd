"""Small HDF5 files and Zarr stores of layouts that a reader must not take for others, a function each.

Pictures are 12 x 16 pixels, and say by their first pixel which frame of which episode they are.
"""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import h5py
import numcodecs
import numpy as np
import zarr

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


def one(group: h5py.Group, episode: int = 0, count: int = 20) -> None:
    """An episode of a state, an action and a camera."""
    group["observations/qpos"] = smooth(count, 7, episode)
    group["action"] = smooth(count, 7, episode)
    group["observations/images/front"] = film(count, episode)


def groups(*names: str) -> Callable[[h5py.File], None]:
    def write(file: h5py.File) -> None:
        for k, name in enumerate(names):
            group = file.create_group(name)
            group.attrs["language_instruction"] = f"task {k}"
            one(group, k, 20 + k)

    return write


def with_one(**stored: Any) -> Callable[[h5py.File], None]:
    """An episode beside datasets (by path, with __ for /) and attributes (of names in capitals)."""

    def write(file: h5py.File) -> None:
        one(file)
        for name, value in stored.items():
            if name.isupper():
                file.attrs[name.lower()] = value
            else:
                file[name.replace("__", "/")] = value

    return write


def demos(
    width: int,
    env: Mapping[str, Any],
    obs: Mapping[str, int],
    attributes: Mapping[str, Any],
    switch: int = -1,
) -> Callable[[h5py.File], None]:
    """Three runs of a simulation; action[`switch`] is 1 while something is held, else -1."""

    def write(file: h5py.File) -> None:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(env)
        data.attrs.update(attributes)
        is_held = (np.arange(30) > 8) & (np.arange(30) < 20)
        for k in range(3):
            demo = data.create_group(f"demo_{k}")
            actions = smooth(30, width, k)
            actions[:, switch] = np.where(is_held, 1, -1)
            demo["actions"] = actions
            for name, size in obs.items():
                demo[f"obs/{name}"] = smooth(30, size, k)
            demo["obs/front_image"] = film(30, k)

    return write


def flat(file: h5py.File) -> None:
    file["observations"] = smooth(24, 11)
    file["actions"] = smooth(24, 7)
    file["images"] = film(24)
    file["terminals"] = np.arange(24) == 9
    file["timeouts"] = np.isin(np.arange(24), [16, 23])


def flat_by_index(file: h5py.File) -> None:
    file["observations/state"] = smooth(24, 11)
    file["observations/rgb"] = film(24)
    file["actions"] = smooth(24, 7)
    file["episode_index"] = np.repeat([0, 1, 2], 8)


def stated_rate(file: h5py.File) -> None:
    data = file.create_group("data")
    data.attrs["fps"] = 10
    for k in range(2):
        demo = data.create_group(f"demo_{k}")
        demo["actions"] = smooth(20, 7, k)
        demo["obs/robot0_eef_pos"] = smooth(20, 3, k)
        demo["obs/front_image"] = film(20, k)


def two_arms_of_seven(file: h5py.File, episode: int = 0) -> None:
    """Wrist joints that switch as grippers do; the grippers lie beside them."""
    frame_numbers = np.arange(80)
    qpos = smooth(80, 14, episode)
    for dimension, start in ((6, 20), (13, 30)):
        qpos[:, dimension] = np.clip((frame_numbers - start) / 6, 0, 1) - np.clip(
            (frame_numbers - start - 35) / 6, 0, 1
        )
    file["observations/qpos"] = qpos
    file["observations/gripper"] = np.c_[frame_numbers > 40, frame_numbers > 50].astype(np.float32)
    file["action"] = qpos
    file["timestamp"] = frame_numbers / 20
    file["observations/images/cam"] = film(80, episode)


def isaac_lab(file: h5py.File) -> None:
    """The last action closes below 0; 0.01 s x 2 a step."""
    data = file.create_group("data")
    data.attrs["env_args"] = json.dumps(
        {"env_name": "Lift", "type": 2, "sim_args": {"dt": 0.01, "decimation": 2}}
    )
    frame_numbers = np.arange(150)
    for k in range(4):
        demo = data.create_group(f"demo_{k}")
        demo.attrs.update(num_samples=150, success=True)
        is_closed = frame_numbers >= 70 + k
        width = np.where(is_closed, 0.005, 0.04)
        demo["obs/eef_pos"] = smooth(150, 3, k)
        demo["obs/gripper_pos"] = np.stack([width, -width], 1).astype(np.float32)
        demo["obs/table_cam"] = film(150, k)
        demo["actions"] = np.c_[smooth(150, 6, k), np.where(is_closed, -1.0, 1.0)].astype(
            np.float32
        )


def isaac_lab_without_gripper(file: h5py.File) -> None:
    isaac_lab(file)
    for k in range(4):
        del file[f"data/demo_{k}/obs/gripper_pos"]


def maniskill(file: h5py.File) -> None:
    """One observation more than actions."""
    for k in range(3):
        group = file.create_group(f"traj_{k}")
        frame_numbers = np.arange(60)
        width = np.where((frame_numbers > 20) & (frame_numbers < 45), 0.005, 0.04)
        group["obs/agent/qpos"] = np.c_[smooth(60, 7, k), width, width].astype(np.float32)
        group["obs/agent/qvel"] = smooth(60, 9)
        group["obs/sensor_data/base_camera/rgb"] = film(60, k)
        group["actions"] = smooth(59, 7, k)
        group["success"] = np.arange(59) == 58


def robomind(file: h5py.File) -> None:
    """Two of twenty pictures are bare pixels."""
    file["language_raw"] = np.array([b"put the cube down"])
    file["language_distilbert"] = np.zeros((1, 8), np.float32)
    file["puppet/joint_position"] = smooth(20, 8)
    file["puppet/end_effector"] = smooth(20, 6)
    file["master/joint_position"] = smooth(20, 8, 1)
    pictures = file.create_dataset(
        "observations/rgb_images/camera_top", (20,), h5py.vlen_dtype(np.uint8)
    )
    depth = file.create_dataset(
        "observations/depth_images/camera_top", (20,), h5py.vlen_dtype(np.uint8)
    )
    for k, rgb in enumerate(film(20)):
        packed = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1]
        pictures[k] = rgb.ravel() if k in (0, 11) else packed.ravel()
        depth[k] = np.zeros(4, np.uint8)


def virtual(file: h5py.File) -> None:
    """A camera that is put together of two datasets of the same file."""
    one(file)
    del file["observations/images/front"]
    file["parts/a"] = film(20)[:5]
    file["parts/b"] = film(20)[5:]
    layout = h5py.VirtualLayout((20, 12, 16, 3), np.uint8)
    layout[:5] = h5py.VirtualSource(file["parts/a"])
    layout[5:] = h5py.VirtualSource(file["parts/b"])
    file.create_virtual_dataset("observations/images/front", layout)


def linked(file: h5py.File) -> None:
    one(file)
    file["pictures"] = h5py.SoftLink("/observations/images")
    file["main"] = h5py.SoftLink("/observations/images/front")


def pictures(file: h5py.File) -> None:
    """Cameras whose pictures lie otherwise, and pictures of other things."""
    one(file)
    film_pictures = film(20)
    stored = {
        "rgba": np.concatenate([film_pictures, film_pictures[..., :1]], -1),
        "channels_first": film_pictures.transpose(0, 3, 1, 2),
        "unit_floats": (film_pictures / 255).astype(np.float32),
        "byte_floats": film_pictures.astype(np.float32),
        "signed_floats": (film_pictures / 127.5 - 1).astype(np.float32),
        "two_at_once": np.stack([film_pictures, film_pictures], 1),
        "depth_camera/color": film_pictures,
        "unmasked_view": film_pictures,
        "depth": film_pictures[..., 0].astype(np.uint16),
        "cam_segmentation": film_pictures,
    }
    for name, values in stored.items():
        file[f"observations/images/{name}"] = values
    file["observations/tactile"] = smooth(20, 16)


def exif(file: h5py.File) -> None:
    """JPEG files with an orientation, which PIL leaves."""
    one(file)
    del file["observations/images/front"]
    stored = file.create_dataset("observations/images/front", (20,), h5py.vlen_dtype(np.uint8))
    turned = (
        b"\xff\xe1\x00\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    )
    for k, rgb in enumerate(film(20)):
        packed = cv2.imencode(".jpg", rgb)[1].tobytes()
        stored[k] = np.frombuffer(packed[:2] + turned + packed[2:], np.uint8)


def write_hdf5(folder: Path, write: Callable[..., None], files: int = 1) -> Path:
    for k in range(files):
        with h5py.File(folder / f"episode_{k}.hdf5", "w") as file:
            write(file, k) if files > 1 else write(file)
    return folder


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


DELTA = numcodecs.Delta(dtype="i8")
NONE: Sequence[int] = ()

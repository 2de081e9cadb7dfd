"""LeRobot exports of sources of other formats: opened by LeRobot, with state, action and pictures as in the source, and
trained on for one step by one of its policies."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from core.errors import UserError
from core.paths import Workspace
from pipeline.config import DatasetBuild, source_build
from tests.kits import rlds_writer as rlds
from tests.kits.hdf5_writer import write_aloha
from tests.kits.lerobot_writer import read_number, write_video
from tests.kits.made_corpus import built
from tests.kits.mcap_writer import RATE, SECOND, START, recorder
from tests.kits.zarr_writer import BLOSC, write_replay
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.lerobot_plan import rate_of
from warehouse.exports.options import Selection
from warehouse.lake import Lake

LEROBOT = EXPORT_KINDS["lerobot"]
ANY = Selection(allow=("unknown",))
LENGTH = 24  # frames of each episode
K = np.arange(LENGTH)

Rows = np.ndarray  # float64 [LENGTH, d]
Written = tuple[Rows, Rows, str]  # state, action and a camera of the first episode


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (("HF_HUB_OFFLINE", "1"), ("HF_DATASETS_CACHE", str(tmp_path / "hf"))):
        monkeypatch.setenv(name, value)


def write_mcap(root: Path) -> Written:
    with recorder(root / "run.mcap") as r:
        for k in range(LENGTH):
            time_ns = START + k * SECOND // RATE
            r.move(k / 100, k // 12, time_ns)
            r.command([k / 7, -k, 1], time_ns)
            r.show(k, time_ns)
    state = np.column_stack([K / 100, K // 12])
    action = np.column_stack([K / 7, -K, np.ones(LENGTH)])
    return state, action, "observation.images.front"


def write_hdf5(root: Path) -> Written:
    write_aloha(root / "episode_0.hdf5", 0, LENGTH, timestamps=[k / 20 for k in range(LENGTH)])
    write_aloha(root / "episode_1.hdf5", 1, LENGTH, timestamps=[k / 20 for k in range(LENGTH)])
    with h5py.File(root / "episode_0.hdf5") as file:
        return file["observations/qpos"][:], file["action"][:], "observation.images.cam_high"  # pyright: ignore


def write_rlds(root: Path) -> Written:
    episodes = [rlds.episode(0, LENGTH), rlds.episode(1, LENGTH)]
    rlds.write_dataset(root, {"train": [episodes]})
    state = episodes[0]["steps/observation/state"]
    return state, episodes[0]["steps/action"], "observation.images.image"


def write_zarr(root: Path) -> Written:
    import zarr

    store = write_replay(
        root / "umi.zarr", [LENGTH, LENGTH], BLOSC, 4, task="fold the towel", fps=20
    )
    action = np.column_stack([np.arange(2 * LENGTH) / 3, np.ones(2 * LENGTH)]).astype(np.float32)
    data: Any = zarr.open_group(store, mode="r+")["data"]
    array = data.create_array(
        "action", shape=action.shape, chunks=(7, 2), dtype=action.dtype, compressors=BLOSC
    )
    array[...] = action
    data["robot0_eef_rot_axis_angle"][...] = 0.5
    state = np.column_stack([0 * K, K, 0 * K, np.full((LENGTH, 3), 0.5), K / 100]).astype(
        np.float32
    )
    return state, action[:LENGTH], "observation.images.camera0_rgb"


def write_videos(root: Path) -> Written:
    state = np.column_stack([K / 9, K % 2])
    action = np.column_stack([K / 5, K % 3])
    for episode in range(2):
        write_video(root / f"run_{episode}.mp4", [episode << 6 | k for k in range(LENGTH)])
        np.savez(root / f"run_{episode}.npz", states=state, actions=action)
    return state, action, "observation.images.video"


SOURCES: dict[str, tuple[Callable[[Path], Written], dict[str, Any]]] = {
    "mcap": (write_mcap, {}),
    "hdf5": (write_hdf5, {}),
    "rlds": (write_rlds, {"fps": 5.0}),
    "zarr": (write_zarr, {}),
    "videos": (write_videos, {}),
}


def exported(
    name: str, folder: Path, options: Any = LEROBOT.options()
) -> tuple[Written, Path, Lake]:
    write, fields = SOURCES[name]
    (folder / "source").mkdir()
    written = write(folder / "source")
    build = source_build(folder / "source", name, None, None)
    build = DatasetBuild(dataset=build.dataset.model_copy(update=fields))
    lake = Lake(built(build, Workspace(folder / "workspace")).space, read_only=True)
    LEROBOT.export(lake, ANY, folder / "out", options)
    return written, folder / "out", lake


def opened(root: Path, **dataset_options: Any) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("local/test", root=root, video_backend="pyav", **dataset_options)


def check(root: Path, written: Written) -> None:
    """What LeRobot gives is what was written."""
    state, action, camera = written
    dataset = opened(root)
    rows = dataset.hf_dataset.with_format("numpy")[:LENGTH]
    assert np.array_equal(rows["observation.state"], state.astype(np.float32))
    assert np.array_equal(rows["action"], action.astype(np.float32))
    assert camera in dataset.meta.camera_keys
    assert all(key.startswith("observation.images.") for key in dataset.meta.camera_keys)
    for k in (0, 7, LENGTH - 1):
        luma = dataset[k][camera].numpy().mean(axis=0) * 255
        assert read_number(luma) & 63 == k


def train_one_step(root: Path) -> None:
    """ACT, small and without weights from elsewhere."""
    from lerobot.configs.types import FeatureType
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.utils.collate import lerobot_collate_fn
    from lerobot.utils.feature_utils import dataset_to_policy_features

    dataset = opened(root)
    features = dataset_to_policy_features(dataset.meta.features)
    outputs = {
        name: feature for name, feature in features.items() if feature.type is FeatureType.ACTION
    }
    inputs = {name: feature for name, feature in features.items() if name not in outputs}
    assert outputs
    config = ACTConfig(
        input_features=inputs,
        output_features=outputs,
        chunk_size=4,
        n_action_steps=4,
        dim_model=32,
        n_heads=2,
        dim_feedforward=32,
        n_encoder_layers=1,
        n_vae_encoder_layers=1,
        latent_dim=4,
        pretrained_backbone_weights=None,
        device="cpu",
    )
    policy = ACTPolicy(config)
    time_offsets = {"action": [k / dataset.fps for k in range(config.chunk_size)]}
    # As lerobot-train does it, which has a collation of its own for language columns
    collate = lerobot_collate_fn if dataset.meta.has_language_columns else None
    loader = torch.utils.data.DataLoader(
        opened(root, delta_timestamps=time_offsets), batch_size=2, collate_fn=collate
    )
    batch = next(iter(loader))
    batch = {name: value for name, value in batch.items() if name in (*features, "action_is_pad")}
    optimizer = torch.optim.SGD(policy.parameters(), lr=1e-4)
    former_parameters = [parameter.detach().clone() for parameter in policy.parameters()]
    loss, _ = policy.forward(batch)
    assert torch.isfinite(loss)
    loss.backward()
    optimizer.step()
    assert any(
        not torch.equal(a, b) for a, b in zip(former_parameters, policy.parameters(), strict=True)
    )


def test_an_mcap_recording_becomes_a_dataset_that_lerobot_opens(tmp_path: Path):
    written, out, _ = exported("mcap", tmp_path, LEROBOT.options(plain=True))
    check(out, written)
    info = json.loads((out / "meta/info.json").read_text())
    assert info["features"]["action"]["names"] == ["data_0", "data_1", "data_2"]
    data = next((out / "data").rglob("*.parquet"))
    assert not any(
        name.startswith("language_") for name in (*info["features"], *pq.read_schema(data).names)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_a_policy_of_lerobot_takes_a_training_step(name: str, tmp_path: Path):
    written, out, _ = exported(name, tmp_path)
    check(out, written)
    train_one_step(out)


def test_rows_are_stamped_at_a_rate_that_is_near():
    assert rate_of({18.43, 18.57}, 20.0, may_stamp=True) == 20.0
    with pytest.raises(
        UserError, match=r"18\.43 to 18\.57 frames per second: at 30 they .*; give --fps 18"
    ):
        rate_of({18.43, 18.57}, 30.0, may_stamp=True)
    with pytest.raises(
        UserError, match=r"18\.43 to 18\.6: stamp all rows at one, such as --fps 19, or"
    ):
        rate_of({18.43, 18.6}, None, may_stamp=True)
    with pytest.raises(UserError, match=r"add --where 'fps BETWEEN 29\.900 AND 30\.100'$"):
        rate_of({15.0, 29.9, 30.1}, 30.0, may_stamp=True)

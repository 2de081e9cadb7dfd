"""LeRobot exports of sources of other formats: opened by LeRobot, with state, action and pictures as in the source, and
trained on for one step by one of its policies.

Also: `--verify` holds an export against its source, and finds what was broken on purpose.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from core.paths import Workspace
from ingest.media.video import decode, frame_times
from pipeline.config import DatasetBuild, source_build
from tests.kits import rlds_writer as rlds
from tests.kits.hdf5_writer import write_aloha
from tests.kits.lerobot_writer import edit_parquet, read_number, write_video
from tests.kits.made_corpus import built
from tests.kits.mcap_writer import RATE, SECOND, START, recorder
from tests.kits.small_sources import CAMERA, FPS, RECORDINGS, with_lerobot, write_v3
from tests.kits.zarr_writer import BLOSC, write_replay
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.lerobot_plan import SEGMENT
from warehouse.exports.options import Selection
from warehouse.exports.verify_lerobot import difference, verify
from warehouse.exports.videos import cut, encode
from warehouse.lake import Lake

LEROBOT = EXPORT_KINDS["lerobot"]
ANY = Selection(allow=("unknown",))
LENGTH = 24  # frames of each episode
K = np.arange(LENGTH)

Rows = np.ndarray  # float64 [LENGTH, d]
Written = tuple[Rows, Rows, str]  # state, action and a camera of the first episode


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


def test_an_mcap_recording_becomes_a_dataset_that_lerobot_opens(tmp_path):
    written, out, _ = exported("mcap", tmp_path, LEROBOT.options(plain=True))
    check(out, written)
    info = json.loads((out / "meta/info.json").read_text())
    assert info["features"]["action"]["names"] == ["data_0", "data_1", "data_2"]
    data = next((out / "data").rglob("*.parquet"))
    assert not any(
        name.startswith("language_") for name in (*info["features"], *pq.read_schema(data).names)
    )


# LeRobot opens an export of the first above
BY_POLICY = [
    pytest.param(n, marks=(pytest.mark.slow, pytest.mark.long)[n == "mcap"]) for n in SOURCES
]


@pytest.mark.parametrize("name", BY_POLICY)
def test_a_policy_of_lerobot_takes_a_training_step(name, tmp_path):
    written, out, _ = exported(name, tmp_path)
    check(out, written)
    train_one_step(out)


TRIMMED = 6  # rows taken away at each episode's start, `timestamp` kept
BEGIN = f"videos/{CAMERA}/from_timestamp"


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Lake:
    """A source by LeRobot's own writer, from which an idle filter has taken rows."""
    folder = tmp_path_factory.mktemp("verify")
    source = write_v3(folder / "source", RECORDINGS[:6])
    for path in source.glob("data/*/*.parquet"):
        table = pq.ParquetFile(path).read()
        rows = table.filter(pa.array(table["frame_index"].to_numpy() >= TRIMMED))
        pq.write_table(rows, path)
        frames = rows["frame_index"].to_numpy() - TRIMMED
        edit_parquet(path, frame_index=frames, index=np.arange(rows.num_rows))
    ends = np.cumsum([r.length - TRIMMED for r in RECORDINGS[:6]])
    (path,) = source.glob("meta/episodes/*/*.parquet")
    edit_parquet(
        path,
        length=np.diff(ends, prepend=0),
        dataset_from_index=np.array([0, *ends[:-1]]),
        dataset_to_index=ends,
    )
    return Lake(
        built(source_build(source, "trimmed", None, None), Workspace(folder / "ws")).space,
        read_only=True,
    )


def video(root: Path, file: int) -> Path:
    return root / f"videos/{CAMERA}/chunk-000/file-{file:03d}.mp4"


def show_each_a_frame_late(root: Path) -> None:
    pictures = [frame.rgb() for frame in decode(video(root, 0))]
    encode(iter([*pictures[1:], pictures[-1]]), video(root, 0), FPS, "h264")


def swap_colours(root: Path) -> None:
    pictures = [frame.rgb()[:, :, ::-1].copy() for frame in decode(video(root, 1))]
    encode(iter(pictures), video(root, 1), FPS, "h264")


def leave_out_the_last_frame(root: Path) -> None:
    whole = video(root, 3).rename(root / "whole.mp4")
    cut(whole, range(len(frame_times(whole).ticks) - 1), video(root, 3), FPS, keep_times=True)
    whole.unlink()


def spoil_rows(root: Path) -> None:
    """Of episode 4: a step twice, a time that is off, and a task that is another text."""
    (path,) = root.glob("data/*/*.parquet")
    table = pq.ParquetFile(path).read()
    row = np.flatnonzero(table["episode_index"].to_numpy() == 4)[9]
    state = table["observation.state"].to_pylist()
    state[row] = state[row - 1]
    seconds, tasks = (table[name].to_numpy().copy() for name in ("timestamp", "task_index"))
    seconds[row] += 0.01
    tasks[row] += 1
    column = pa.array(state, table.schema.field("observation.state").type)
    edit_parquet(path, **{"observation.state": column}, timestamp=seconds, task_index=tasks)


@pytest.mark.slow
def test_what_is_broken_is_found(lake, tmp_path, lerobot_in_thread):
    """Each episode in another way; the last one is as it should be."""
    out = tmp_path / "out"
    LEROBOT.export(lake, ANY, out)
    right = verify(lake, ANY, out, LEROBOT.options())
    assert right.problems == ()
    assert right.most_off is not None
    assert right.pictures >= 3 * 6
    assert right.each == sum(r.length - TRIMMED for r in RECORDINGS[:6]), "no video is a copy"
    dataset = with_lerobot()("local/out", root=out, video_backend="pyav")
    assert len(dataset) == sum(r.length - TRIMMED for r in RECORDINGS[:6])

    show_each_a_frame_late(out)
    swap_colours(out)
    shutil.copyfile(video(out, 5), video(out, 2))  # another run's
    leave_out_the_last_frame(out)
    spoil_rows(out)
    wrong = verify(lake, ANY, out, LEROBOT.options()).problems
    for episode in range(4):
        assert any(f"of episode {episode}" in problem for problem in wrong), (episode, wrong)
    for name in ("observation.state", "timestamp", "task_index"):
        assert f"other values of {name} in episode 4" in wrong
    assert not any("episode 5" in problem for problem in wrong)


@pytest.mark.slow
def test_a_single_picture_that_is_another_is_found(lake, tmp_path, lerobot_in_thread):
    """At a frame that LeRobot is not asked for."""
    out = tmp_path / "out"
    LEROBOT.export(lake, ANY, out)
    pictures = [frame.rgb() for frame in decode(video(out, 1))]
    pictures[9] = next(frame.rgb() for frame in decode(video(out, 4), 20, 1))
    encode(iter(pictures), video(out, 1), FPS, "h264")
    verified = verify(lake, ANY, out, LEROBOT.options())
    [problem] = verified.problems
    assert problem.startswith("another picture at frame 9 of episode 1")
    assert verified.each == verified.frames


@pytest.mark.slow
def test_steps_of_another_type_are_found(lake, tmp_path, lerobot_in_thread):
    """LeRobot's `merge` makes doubles of whole numbers that may be null."""
    out = tmp_path / "out"
    LEROBOT.export(lake, ANY, out)
    (path,) = out.glob("meta/episodes/*/*.parquet")
    table = pq.ParquetFile(path).read()
    doubled = pa.struct([f.with_type(pa.float64()) if f.name == "step" else f for f in SEGMENT])
    column_index = table.schema.get_field_index("proccorpus_segments")
    pq.write_table(
        table.set_column(
            column_index, "proccorpus_segments", table.column(column_index).cast(pa.list_(doubled))
        ),
        path,
    )
    (problem,) = verify(lake, ANY, out, LEROBOT.options()).problems
    assert problem.startswith("steps of other types in meta/episodes")


def moving(k: int) -> np.ndarray:
    """uint8 [64, 64, 3]: a square that walks a few pixels a frame."""
    picture = np.full((64, 64, 3), 90, np.uint8)
    picture[10:34, 4 * k : 4 * k + 24] = (200, 60, 60)
    return picture


@pytest.mark.parametrize("noise", [0.0, 6.0])
def test_an_encoders_loss_is_told_from_another_picture(noise):
    loss = np.random.default_rng(0).normal(0, noise, (64, 64, 3))
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "": lambda rgb: rgb,
        "other colours": lambda rgb: rgb - [0, 10, 0],
        "another picture": lambda rgb: rgb[::-1],
    }
    for expected, change in changes.items():
        shown_picture = np.clip(change(moving(4)) + loss, 0, 255).astype(np.uint8)
        assert (
            difference(shown_picture, moving(4), [moving(3), moving(5)], was_encoded=True)[1]
            == expected
        )
    late = np.clip(moving(5) + loss, 0, 255).astype(np.uint8)
    assert difference(late, moving(4), [moving(3), moving(5)], was_encoded=True)[1].startswith(
        "the picture of the frame"
    )

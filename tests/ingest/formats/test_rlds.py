"""RLDS datasets: what is read, what is only skipped, and what each kind of damage does."""

import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.episode import Listing
from ingest.formats import rlds
from ingest.media.frames import VideoError
from ingest.reasons import DataError
from ingest.registry import DatasetConfig
from ingest.signals.gripper import arm_state
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source
from ingest.sources.types import FileStat
from tests.kits.lerobot_writer import number, picture, said, shown, source_of
from tests.kits.rlds_writer import (
    dict_of,
    episode,
    example,
    features_json,
    image,
    png,
    record,
    sequence_of,
    shard,
    tensor,
    text,
    write_dataset,
    write_info,
    write_shard,
)
from tests.kits.signal_kit import places_of


def one(root: Path, found: dict | bytes, features: dict[str, Any] | None = None, **config: Any) -> Listing:
    """The listing of a dataset of one episode."""
    return list_episodes(source_of(write_dataset(root, {"train": [[found]]}, features), fps=5, **config))


def ids(listing: Listing) -> list[str]:
    return [r.source_id for r in listing.records]


def state_of(root: Path, listing: Listing, **config: Any) -> Any:
    """The state of the first episode, as lists."""
    values = read_episode(source_of(root, **config), listing.records[0]).state
    return None if values is None else values.tolist()


# What is read


def test_listing_skips_pictures_and_reading_checks_them(tmp_path: Path) -> None:
    """Damage within a picture is nothing to a listing; the record's CRC finds it when the episode is read."""
    write_dataset(tmp_path, {"train": [[episode(0), episode(1)]]})
    path = shard(tmp_path, "train")
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 9] ^= 0xFF
    path.write_bytes(data)
    source = source_of(tmp_path, fps=5)
    listing = list_episodes(source)
    assert (said(listing), len(listing.records)) == ([], 2)
    with pytest.raises(DataError, match="the record at byte 0 is damaged: its CRC is wrong") as e:
        read_episode(source, listing.records[0])
    assert e.value.reason == "unreadable_data"
    assert len(shown(source, listing.records[1], "image")) == 6


def test_one_file_is_a_dataset(tmp_path: Path) -> None:
    """Without its folder's metadata: types are taken from the records."""
    write_dataset(tmp_path, {"train": [[episode(0)]]})
    source = source_of(shard(tmp_path, "train"), fps=5)
    listing = list_episodes(source)
    assert said(listing) == [("no_metadata", "warning", None, None)] * 2
    assert [f.file for f in listing.findings] == ["dataset_info.json", "features.json"]
    assert shown(source, listing.records[0], "wrist_image") == [(1, 0, k) for k in range(6)]


# Layout


def test_newest_version_of_each_configuration(tmp_path: Path) -> None:
    nameless = {"episode_metadata__file_path": None}
    for folder, version, which in (("a", "0.9.0", 1), ("a", "0.10.0", 2), ("b", "0.2.0", 3)):
        write_dataset(tmp_path / folder, {"train": [[episode(which, changes=nameless)]]}, version=version)
    (tmp_path / "a/2.0.0").mkdir()
    listing = list_episodes(source_of(tmp_path, fps=5))
    assert ids(listing) == [f"{c}/train/toy-train.tfrecord-00000-of-00001/000000" for c in "ab"]
    assert [r.data_uri for r in listing.records] == [
        "a/0.10.0/toy-train.tfrecord-00000-of-00001",
        "b/0.2.0/toy-train.tfrecord-00000-of-00001",
    ]
    assert said(listing) == [("stray_file", "warning", None, None)]
    assert (listing.findings[0].file, listing.findings[0].detail) == (
        "a/0.9.0",
        "an older version beside 0.10.0; not read",
    )


def test_shards_that_the_metadata_does_not_name(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [[episode(0)], [episode(1)]]})
    write_shard(shard(tmp_path, "train", 0, 3), [episode(5)])
    write_shard(shard(tmp_path, "train", 7, 2), [episode(6)])
    write_shard(shard(tmp_path, "test"), [episode(7)])
    listing = list_episodes(source_of(tmp_path, fps=5))
    assert ids(listing) == ["/raw/run.h5#0", "/raw/run.h5#1"]
    assert said(listing) == [("stray_file", "warning", None, None)] * 3
    assert {f.file for f in listing.findings} == {
        "1.0.0/toy-train.tfrecord-00000-of-00003",
        "1.0.0/toy-train.tfrecord-00007-of-00002",
        "1.0.0/toy-test.tfrecord-00000-of-00001",
    }


def test_shards_that_are_not_there(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [[episode(k)] for k in range(8)], "val": [[episode(9)]]})
    for k in (0, 2, 3, 4, 5, 6):
        shard(tmp_path, "train", k, 8).unlink()
    shard(tmp_path, "val").unlink()
    listing = list_episodes(source_of(tmp_path, fps=5))
    assert ids(listing) == ["/raw/run.h5#1", "/raw/run.h5#7"]
    assert said(listing) == [("no_data", "warning", None, None)] * 2
    assert [f.detail for f in listing.findings] == [
        "6 of 8 shards of train are not there: 00000, 00002, 00003, 00004, 00005, ...",
        "no shard of split val is there",
    ]


def test_another_number_of_shards_than_stated(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [[episode(0)], [episode(1)]]})
    write_info(tmp_path / "1.0.0", {"train": [1, 1, 1]})
    listing = list_episodes(source_of(tmp_path, fps=5))
    assert said(listing) == [("length_differs", "warning", None, None)]
    assert listing.findings[0].detail == "names 3 shards of train, the files say 2"
    assert len(listing.records) == 2


@pytest.mark.parametrize(
    "content", [None, "", "nonsense", "[1]", "[" * 100_000, '{"\\ud800": 1}', '{"featuresDict": {"features": 3}}']
)
def test_types_are_taken_from_records_without_features_json(tmp_path: Path, content: str | None) -> None:
    write_dataset(tmp_path, {"train": [[episode(0), episode(1, 7)]]})
    (tmp_path / "1.0.0/features.json").unlink()
    if content is not None:
        (tmp_path / "1.0.0/features.json").write_text(content)
    source = source_of(tmp_path, fps=5)
    listing = list_episodes(source)
    assert said(listing) == [("no_metadata", "warning", None, None)]
    assert [(r.num_rows, r.task, r.cameras) for r in listing.records] == [
        (6, "pick the cup", ["image", "wrist_image"]),
        (7, "pick the cup", ["image", "wrist_image"]),
    ]
    found = read_episode(source, listing.records[1])
    assert found.state is not None
    assert found.state.tolist() == [[1, k, 0, k % 2] for k in range(7)]
    assert shown(source, listing.records[1], "image") == [(0, 1, k) for k in range(7)]


def test_a_tfds_dataset_that_has_no_episodes(tmp_path: Path) -> None:
    features = dict_of(image=image(), label=tensor("int64"))
    listing = one(tmp_path, {"image": [png(0)], "label": [3]}, features)
    assert (listing.records, said(listing)) == ((), [("no_metadata", "unusable", None, None)])
    assert "has no steps: a TFDS dataset, but not of episodes (it has image, label)" in listing.findings[0].detail


def test_metadata_without_shards(tmp_path: Path) -> None:
    listing = list_episodes(source_of(write_dataset(tmp_path, {"train": []}), fps=5))
    assert (listing.records, said(listing)) == ((), [("no_episodes", "unusable", None, None)])


# Damage


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    """The record that is cut is an episode that cannot be used; those before it can."""
    write_dataset(tmp_path, {"train": [[episode(0), episode(1), episode(2)], [episode(3)]]})
    path = shard(tmp_path, "train", 0, 2)
    lengths = [len(record(example(episode(e)))) for e in range(3)]
    path.write_bytes(path.read_bytes()[: lengths[0] + lengths[1] - 100])
    source = source_of(tmp_path, fps=5)
    listing = list_episodes(source)
    cut = "train/toy-train.tfrecord-00000-of-00002/000001"
    assert ids(listing) == ["/raw/run.h5#0", "/raw/run.h5#3", cut]
    assert said(listing) == [("length_differs", "warning", None, None), ("unreadable_data", "unusable", 2, None)]
    assert listing.findings[1].detail == "cut off: 100 bytes are missing"
    with pytest.raises(DataError, match="is cut off"):
        read_episode(source, listing.records[2])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps__is_first": np.zeros(5, bool)}, "is_first 5"),
        ({"steps__action": np.zeros((7, 3), np.float32)}, "action 7"),
        ({"steps__language_instruction": [b"a"]}, "language_instruction 1"),
        ({"steps__observation__state": np.zeros(25, np.float32)}, "25 values, which is no multiple of 4"),
    ],
)
def test_features_of_different_length(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    write_dataset(tmp_path, {"train": [[episode(0), episode(1, changes=changes)]]})
    listing = list_episodes(source_of(tmp_path, fps=5))
    assert ids(listing) == ["/raw/run.h5#0", "/raw/run.h5#1"]
    assert said(listing) == [("unreadable_data", "unusable", 1, None)]
    assert told in listing.findings[0].detail


def test_an_episode_without_steps(tmp_path: Path) -> None:
    empty = {"steps__action": np.zeros(0, np.float32), "steps__observation__wrist_image": [b""]}
    listing = one(tmp_path, episode(0, 0, changes=empty))
    assert said(listing)[-2:] == [("no_data", "unusable", 0, None), ("no_task", "warning", 0, None)]


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    state = np.zeros((6, 4), np.float32)
    state[2, 1] = np.nan
    listing = one(tmp_path, episode(0, steps__observation__state=state))
    with pytest.raises(DataError, match="state is not a finite number in row 2") as e:
        arm_state(read_episode(source_of(tmp_path), listing.records[0]), ())
    assert e.value.reason == "nan_state"


def test_a_shard_rewritten_after_listing(tmp_path: Path) -> None:
    listing = one(tmp_path, episode(0))
    write_shard(shard(tmp_path, "train"), [episode(0, 9)])
    with pytest.raises(DataError, match="9 rows; there were 6"):
        read_episode(source_of(tmp_path), listing.records[0])


# Instructions


def codes(*texts: str) -> np.ndarray:
    """Texts as Language Table stores them: rows of 16 numbers, ended by 0."""
    return np.stack([np.pad(np.frombuffer(t.encode(), np.uint8), (0, 16 - len(t.encode()))) for t in texts]).astype(int)


@pytest.mark.parametrize(
    ("changes", "tasks"),
    [
        ({"language_instruction": [b"a"] * 6}, ("a",)),
        ({"language_instruction": [b" a "] * 3 + [b"b", b"a", b""]}, ("a", "b")),
        (
            {
                "language_instruction": [b""] * 6,
                "language_instruction_2": [b"two"] * 6,
                "language_instruction_3": [b"three"] * 6,
            },
            ("two", "three"),
        ),
        ({"observation__natural_language_instruction": ["öffne".encode()] * 6}, ("öffne",)),
        ({"observation__instruction": codes(*["push ö"] * 6)}, ("push ö",)),
        ({"observation__instruction": codes(*["push"] * 3, *["pull"] * 3)}, ("push", "pull")),
        ({"observation__instruction": np.tile([0x4E2D, 0x6587, 0, 9], (6, 1))}, ("中文",)),
        ({"observation__instruction": np.full((6, 4), -5)}, ()),
        ({"observation__instruction": np.full((6, 4), 1 << 40)}, ()),
        (
            {
                "language_instruction__ragged_flat_values": [b"a", b"b"] * 6,
                "language_instruction__ragged_row_lengths_0": [2] * 6,
            },
            ("a", "b"),
        ),
        ({"language_instruction": [b"\xff\xfe"] * 6}, ()),
        ({"language_instruction": [b"a" * 70_000] * 6}, ()),
        ({"language_instruction": [1, 2, 3, 4, 5, 6]}, ()),
        ({}, ()),
    ],
)
def test_instructions(tmp_path: Path, changes: dict[str, Any], tasks: tuple[str, ...]) -> None:
    steps = {f"steps__{k}": v for k, v in changes.items()}
    features = features_json(
        observation={"instruction": tensor("int32", 4), "natural_language_instruction": text()},
        steps={"language_instruction_2": text(), "language_instruction_3": text()}
        | (
            {"language_instruction": sequence_of(text())}
            if "language_instruction__ragged_flat_values" in changes
            else {}
        ),
    )
    if "observation__instruction" in changes:
        width = changes["observation__instruction"].shape[1]
        features = features_json(observation={"instruction": tensor("int32", width)})
    listing = one(tmp_path, episode(0, changes=({"steps__language_instruction": None} | steps)), features)
    assert (listing.records[0].tasks, listing.records[0].task) == (tasks, tasks[0] if tasks else None)
    assert said(listing) == ([] if tasks else [("no_task", "warning", 0, None)])


# Success


@pytest.mark.parametrize(
    ("changes", "config", "success"),
    [
        ({}, {}, None),
        ({"reward": [0, 0, 0, 0, 0, 1.0]}, {}, True),
        ({"reward": [0, 0, 0, 0, 0, 1.0], "is_terminal": [0, 0, 0, 0, 0, 1]}, {}, True),
        ({"reward": [0, 0, 0, 0, 1.0, 0], "is_terminal": [0, 0, 0, 0, 0, 1]}, {}, True),
        ({"reward": [0, 0, 0, 1.0, 0, 0], "is_terminal": [0, 0, 0, 0, 0, 1]}, {}, None),
        ({"reward": [0.0] * 6, "is_terminal": [0, 0, 0, 0, 0, 1]}, {}, None),
        ({"reward": None, "is_terminal": [0, 0, 0, 0, 0, 1]}, {}, None),
        ({"solved": [0, 0, 1, 1, 1, 1]}, {"keys": {"success": ["solved"]}}, True),
        ({"solved": [1, 1, 1, 1, 1, 0]}, {"keys": {"success": ["lost", "solved"]}}, False),
        ({"solved": [0.5] * 6}, {"keys": {"success": ["solved"]}}, None),
        ({"reward": [1.0] * 6, "is_terminal": [1] * 6}, {"keys": {"success": ["solved"]}}, None),
    ],
)
def test_success(tmp_path: Path, changes: dict, config: dict, success: bool | None) -> None:
    steps = {f"steps__{k}": None if v is None else np.array(v) for k, v in changes.items()}
    assert one(tmp_path, episode(0, changes=steps), **config).records[0].success is success


@pytest.mark.parametrize(
    ("path", "success"),
    [(b"/r/success/2023/t.h5", True), (b"/r/failure/2023/t.h5", False), (b"/r/successful/t.h5", None)],
)
def test_success_that_only_the_path_tells(tmp_path: Path, path: bytes, success: bool | None) -> None:
    """As in DROID."""
    found = episode(0, episode_metadata__file_path=[path])
    assert one(tmp_path, found, keys={"success": ["file_path"]}).records[0].success is success


# Cameras


def test_order_of_cameras(tmp_path: Path) -> None:
    names = ["a_hand_image", "b_wrist", "side", "image", "eye_in_hand_rgb", "gripper_cam", "top"]
    features = features_json(observation={n: image() for n in names} | {"wrist_image": None})
    pictures = {f"steps__observation__{n}": [png(0)] * 6 for n in names} | {"steps__observation__wrist_image": None}
    listing = one(tmp_path, episode(0, changes=pictures), features)
    assert listing.cameras == ("image", "side", "top", "a_hand_image", "b_wrist", "eye_in_hand_rgb", "gripper_cam")
    listing = one(
        tmp_path, episode(0, changes=pictures), features, cameras={"exo": ["top", "lost"], "wrist": ["b_wrist"]}
    )
    assert listing.cameras[:3] == ("top", "b_wrist", "image")
    assert listing.records[0].cameras == list(listing.cameras)


def test_missing_cameras(tmp_path: Path) -> None:
    none = {"steps__observation__image": None, "steps__observation__wrist_image": []}
    episodes = [episode(0), episode(1, steps__observation__image=None), episode(2, changes=none)]
    write_dataset(tmp_path, {"train": [episodes]})
    source = source_of(tmp_path, fps=5)
    listing = list_episodes(source)
    assert [r.cameras for r in listing.records] == [["image", "wrist_image"], ["wrist_image"], []]
    assert said(listing) == [("missing_camera", "warning", 1, "image"), ("no_video", "unusable", 2, None)]
    with pytest.raises(VideoError, match="no pictures of image") as e:
        list(read_episode(source, listing.records[1]).frames("image"))
    assert e.value.reason == "missing_camera"


def raw_pictures(encoding: str) -> Any:
    stack = np.stack([picture(number(0, 0, k)) for k in range(6)])
    if encoding == "none":
        return stack
    return [p.tobytes() if encoding == "bytes" else zlib.compress(p.tobytes()) for p in stack]


@pytest.mark.parametrize("encoding", ["none", "bytes", "zlib"])
def test_raw_pictures(tmp_path: Path, encoding: str) -> None:
    features = features_json({"image": tensor("uint8", 64, 64, 3, encoding=encoding), "wrist_image": None})
    listing = one(tmp_path, episode(0, steps__observation__image=raw_pictures(encoding)), features)
    assert (listing.cameras, said(listing)) == (("image",), [])
    assert shown(source_of(tmp_path), listing.records[0], "image") == [(0, 0, k) for k in range(6)]
    (first, *_) = read_episode(source_of(tmp_path), listing.records[0]).frames("image")
    assert np.array_equal(first[2].rgb(), picture(number(0, 0, 0)))


@pytest.mark.parametrize("shape", [(-1, -1, 3), (1 << 20, 1 << 20, 3), (0, 64, 3)])
def test_raw_pictures_of_no_known_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    features = features_json({"image": tensor("uint8", *shape), "wrist_image": None})
    listing = one(tmp_path, episode(0, steps__observation__image=raw_pictures("none")), features)
    with pytest.raises(DataError, match=r"unknown shape|over the limit of 100,663,296 \(3 x limits.max_pixels of"):
        list(read_episode(source_of(tmp_path), listing.records[0]).frames("image"))


# State and gripper


def test_keys_of_the_registry(tmp_path: Path) -> None:
    other = {"extra": tensor("float32", 2), "count": tensor("int32"), "blob": tensor("int16", 2, encoding="zlib")}
    changes = {
        "steps__observation__extra": np.arange(12, dtype=np.float32),
        "steps__observation__count": np.arange(6) - 3,
        "steps__observation__blob": [zlib.compress(np.array([k, -k], "<i2").tobytes()) for k in range(6)],
    }
    keys = {
        "state": ["observation/count", "observation/extra", "observation/blob", "observation/none"],
        "action": ["no"],
    }
    listing = one(tmp_path, episode(0, changes=changes), features_json(other), keys=keys)
    assert state_of(tmp_path, listing, keys=keys) == [[k - 3, 2 * k, 2 * k + 1, k, -k] for k in range(6)]
    last = source_of(tmp_path, keys=keys, gripper={"column": "state", "dimension": -1})
    assert places_of(last) == [("gripper", "state", (4,))]


@pytest.mark.parametrize(
    "names",
    [
        "observation/proprio", "observation/robot_state", "observation/robot_obs", "robot_state",
        "observation/joint_position observation/gripper_position",
        "observation/base_pose_tool_reached observation/gripper_closed",
        "observation/clip_function_input/base_pose_tool_reached observation/gripper_closed",
        "observation/eef_pose observation/state_gripper_pose", "observation/EEF_state observation/gripper_state",
        "observation/joint_states observation/gripper_states", "observation/end_effector_cartesian_pos",
        "observation/joint_pos observation/gripper", "observation/effector_translation",
    ],
)  # fmt: skip
def test_state_as_public_datasets_name_it(tmp_path: Path, names: str) -> None:
    paths = names.split()
    stated: dict[str, Any] = {"observation": {"state": None}, "steps": {}}
    for path in paths:
        *above, name = path.split("/")
        of = stated["observation"] if above else stated["steps"]
        of |= {above[1]: dict_of(**{name: tensor("float32", 1)})} if above[1:] else {name: tensor("float32", 1)}
    changes: dict[str, Any] = {
        f"steps/{path}": np.arange(6, dtype=np.float32) + 10 * at for at, path in enumerate(paths)
    }
    found = episode(0) | changes
    del found["steps/observation/state"]
    listing = one(tmp_path, found, features_json(**stated))
    assert state_of(tmp_path, listing) == [[k + 10 * at for at in range(len(paths))] for k in range(6)]


def test_state_of_another_size_than_stated(tmp_path: Path) -> None:
    """The listing compares lengths of one dimension at a time; reading knows how long the episode is."""
    features = features_json({"state": tensor("float32", -1)})
    listing = one(tmp_path, episode(0, steps__observation__state=np.zeros(25, np.float32)), features)
    with pytest.raises(DataError, match="has 25 values, which does not fit 6 steps"):
        read_episode(source_of(tmp_path), listing.records[0])


# A remote source


@dataclass(frozen=True)
class Bucket(Source):
    """A folder that says it is remote, and remembers what was asked for."""

    folder: Path = Path()
    asked: list[str] = field(default_factory=list)

    @cached_property
    def files(self) -> dict[str, FileStat]:  # type: ignore[override]
        return source_of(self.folder).files

    def resolve(self, uri: str) -> Path:
        self.asked.append(uri.rsplit("/", 1)[-1])
        return self.folder / uri

    def fetch(self, uris: Any) -> None:
        for uri in uris:
            self.resolve(uri)


def bucket(folder: Path, *selected: int) -> Bucket:
    config = DatasetConfig(name="toy", source="gs://toy/toy", format="rlds", fps=5)
    return Bucket(config, frozenset(selected) or None, folder=folder)


def shards_asked(source: Bucket) -> set[str]:
    return {name for name in source.asked if "tfrecord" in name}


def test_remote_selection_fetches_only_its_shards(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [[episode(0), episode(1)], [episode(2)], [episode(3), episode(4)]]})
    source = bucket(tmp_path, 2, 77)
    listing = rlds.list_episodes(source)
    assert shards_asked(source) == {"toy-train.tfrecord-00001-of-00003"}
    name = "train/toy-train.tfrecord-{:05d}-of-00003/{:06d}"
    assert [(r.episode_index, r.source_id, r.num_rows, r.task, r.cameras) for r in listing.records] == [
        (0, name.format(0, 0), None, None, ["image", "wrist_image"]),
        (1, name.format(0, 1), None, None, ["image", "wrist_image"]),
        (2, name.format(1, 0), 6, "pick the cup", ["image", "wrist_image"]),
        (3, name.format(2, 0), None, None, ["image", "wrist_image"]),
        (4, name.format(2, 1), None, None, ["image", "wrist_image"]),
    ]
    assert said(listing) == []
    assert shown(source, listing.records[2], "image") == [(0, 2, k) for k in range(6)]
    with pytest.raises(DataError, match="was not read when the dataset was listed"):
        rlds.read_episode(source, listing.records[0])


def test_remote_names_do_not_depend_on_the_selection(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [[episode(0), episode(1)], [episode(2)]], "test": [[episode(3)]]})
    every = bucket(tmp_path)
    listing = rlds.list_episodes(every)
    assert len(shards_asked(every)) == 3
    for chosen in ((0,), (1, 3), (2,)):
        part = rlds.list_episodes(bucket(tmp_path, *chosen))
        assert ids(part) == ids(listing)
        assert [part.records[i] for i in chosen] == [listing.records[i] for i in chosen]


# Episodes that never end


def test_an_episode_that_never_ends_is_named(tmp_path: Path) -> None:
    """One whose steps are all marked as not the last; is_terminal alone is an end, and no marks at all say nothing."""
    last = np.array([0, 0, 0, 0, 0, 1], bool)
    whole, cut = episode(0), episode(1, steps__is_last=np.zeros(6, bool))
    terminal = episode(2, steps__is_last=None, steps__is_terminal=last)
    unmarked = episode(3, steps__is_last=None, steps__is_terminal=None)
    write_dataset(tmp_path, {"train": [[whole, cut, terminal, unmarked]]})
    listing = list_episodes(source_of(tmp_path, fps=5.0))
    assert said(listing) == [("never_ends", "warning", 1, None)]
    assert listing.findings[0].detail == "none of its 6 steps is marked as its end"

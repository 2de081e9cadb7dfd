"""RLDS datasets: what is read, what is only skipped, and what each kind of damage does."""

import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.formats import rlds
from ingest.formats.rlds_files import Record, byte_spans, example, numbers
from ingest.reasons import DataError
from ingest.registry import DatasetConfig
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source
from ingest.sources.types import FileStat
from tests.kits.lerobot_writer import number, picture, said, shown, source_of
from tests.kits.rlds_writer import (
    dict_of,
    episode,
    features_json,
    image,
    message,
    png,
    record,
    sequence_of,
    shard,
    tensor,
    text,
    varint,
    write_dataset,
    write_info,
    write_shard,
)
from tests.kits.rlds_writer import example as written
from tests.kits.rlds_writer import (
    example as written_example,
)
from tests.kits.told import New, Told, golden

FLAGS = np.arange(6) == 5


def of(
    new: New, *episodes: dict[str, Any], features: dict[str, Any] | None = None, **config: Any
) -> Source:
    """A dataset of one shard."""
    return source_of(write_dataset(new(), {"train": [list(episodes)]}, features), fps=5, **config)


@golden
def test_layout(new) -> Told:
    root = write_dataset(new(), {"train": [[episode(0)]]})
    yield (
        "a file without its folder's metadata: types are taken from the records",
        source_of(shard(root, "train")),
    )
    root = new()
    nameless = {"episode_metadata__file_path": None}
    for folder, version, serial in (("a", "0.9.0", 1), ("a", "0.10.0", 2), ("b", "0.2.0", 3)):
        write_dataset(
            root / folder, {"train": [[episode(serial, changes=nameless)]]}, version=version
        )
    (root / "a/2.0.0").mkdir()
    yield "the newest version of each configuration", source_of(root, fps=5)
    root = write_dataset(new(), {"train": [[episode(0)], [episode(1)]]})
    for split, k, count in (("train", 0, 3), ("train", 7, 2), ("test", 0, 1)):
        write_shard(shard(root, split, k, count), [episode(5 + k)])
    yield "shards that the metadata does not name", source_of(root, fps=5)
    root = write_dataset(new(), {"train": [[episode(k)] for k in range(8)], "val": [[episode(9)]]})
    for path in (*(shard(root, "train", k, 8) for k in (0, 2, 3, 4, 5, 6)), shard(root, "val")):
        path.unlink()
    yield "shards that are not there", source_of(root, fps=5)
    root = write_dataset(new(), {"train": [[episode(0)], [episode(1)]]})
    write_info(root / "1.0.0", {"train": [1, 1, 1]})
    yield "another number of shards than stated", source_of(root, fps=5)
    contents = (
        None,
        "",
        "nonsense",
        "[1]",
        "[" * 3_000,
        '{"\\ud800": 1}',
        '{"featuresDict": {"features": 3}}',
    )
    for content in contents:
        root = write_dataset(new(), {"train": [[episode(0), episode(1, 7)]]})
        (root / "1.0.0/features.json").unlink()
        if content is not None:
            (root / "1.0.0/features.json").write_text(content)
        yield (
            f"types are taken from records where features.json is {str(content)[:20]}",
            source_of(root, fps=5),
        )
    features = dict_of(image=image(), label=tensor("int64"))
    yield "TFDS without episodes", of(new, {"image": [png(0)], "label": [3]}, features=features)
    yield "metadata without shards", source_of(write_dataset(new(), {"train": []}), fps=5)


@golden
def test_damage(new) -> Told:
    source = of(new, episode(0), episode(1))
    path = shard(Path(source.config.source), "train")
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 9] ^= 0xFF
    path.write_bytes(data)
    yield (
        "a picture: nothing to a listing, and the record's CRC finds it when the episode is read",
        source,
    )
    root = write_dataset(new(), {"train": [[episode(0), episode(1), episode(2)], [episode(3)]]})
    path = shard(root, "train", 0, 2)
    path.write_bytes(
        path.read_bytes()[: sum(len(record(written_example(episode(e)))) for e in range(2)) - 100]
    )
    yield (
        "cut off: the record that is cut cannot be used, those before it can",
        source_of(root, fps=5),
    )
    for changes in (
        {"is_first": np.zeros(5, bool)},
        {"action": np.zeros((7, 3), np.float32)},
        {"language_instruction": [b"a"]},
        {"observation__state": np.zeros(25, np.float32)},
    ):
        ((name, values),) = changes.items()
        yield (
            f"another length of {name}",
            of(new, episode(0), episode(1, changes={f"steps__{name}": values})),
        )
    empty = {"steps__action": np.zeros(0, np.float32), "steps__observation__wrist_image": [b""]}
    yield "an episode without steps", of(new, episode(0, 0, changes=empty))
    state = np.zeros((6, 4), np.float32)
    state[2, 1] = np.nan
    yield "values that are not finite", of(new, episode(0, steps__observation__state=state))
    features = features_json({"state": tensor("float32", -1)})
    wrong = episode(0, steps__observation__state=np.zeros(25, np.float32))
    yield (
        "a state that fits no number of steps, which reading finds",
        of(new, wrong, features=features),
    )
    # is_terminal alone is an end, and no marks at all say nothing
    terminal = episode(2, steps__is_last=None, steps__is_terminal=FLAGS)
    unmarked = episode(3, steps__is_last=None, steps__is_terminal=None)
    never = episode(1, steps__is_last=np.zeros(6, bool))
    yield "an episode that never ends is named", of(new, episode(0), never, terminal, unmarked)


def test_a_shard_rewritten_after_listing(tmp_path):
    source = of(lambda: tmp_path, episode(0))
    (listed,) = list_episodes(source).records
    write_shard(shard(tmp_path, "train"), [episode(0, 9)])
    with pytest.raises(DataError, match="9 rows; there were 6"):
        read_episode(source_of(tmp_path), listed)


def codes(*texts: str) -> np.ndarray:
    """Texts as Language Table stores them: rows of 16 numbers, ended by 0."""
    return np.stack(
        [np.pad(np.frombuffer(t.encode(), np.uint8), (0, 16 - len(t.encode()))) for t in texts]
    ).astype(int)


@golden
def test_instructions(new) -> Told:
    written = "observation__natural_language_instruction"
    words: dict[str, Any] = {"language_instruction_2": text(), "language_instruction_3": text()}
    ragged = {"language_instruction__ragged_flat_values": [b"a", b"b"] * 6}
    ragged |= {"language_instruction__ragged_row_lengths_0": [2] * 6}
    for title, changes, features in (
        ("one", {"language_instruction": [b"a"] * 6}, {}),
        ("several", {"language_instruction": [b" a "] * 3 + [b"b", b"a", b""]}, {}),
        (
            "of DROID",
            {"language_instruction": [b""] * 6} | {n: [n[-1].encode()] * 6 for n in words},
            {"steps": words},
        ),
        (
            "beside the pictures",
            {written: ["öffne".encode()] * 6},
            {"observation": {written[13:]: text()}},
        ),
        ("ragged", ragged, {"steps": {"language_instruction": sequence_of(text())}}),
        ("no UTF-8", {"language_instruction": [b"\xff\xfe"] * 6}, {}),
        ("too long", {"language_instruction": [b"a" * 70_000] * 6}, {}),
        ("numbers", {"language_instruction": [1, 2, 3, 4, 5, 6]}, {}),
        ("none", {}, {}),
    ):
        steps = {"steps__language_instruction": None} | {
            f"steps__{k}": v for k, v in changes.items()
        }
        yield title, of(new, episode(0, changes=steps), features=features_json(**features))
    for title, values in (
        ("codes", codes(*["push ö"] * 6)),
        ("two texts in codes", codes(*["push"] * 3, *["pull"] * 3)),
        ("codes beyond a byte", np.tile([0x4E2D, 0x6587, 0, 9], (6, 1))),
        ("codes below 0", np.full((6, 4), -5)),
        ("codes beyond all letters", np.full((6, 4), 1 << 40)),
    ):
        features = features_json({"instruction": tensor("int32", values.shape[1])})
        episode_read = episode(
            0, steps__language_instruction=None, steps__observation__instruction=values
        )
        yield title, of(new, episode_read, features=features)


@golden
def test_success(new) -> Told:
    solved = {"success": ["lost", "solved"]}
    terminal = {"is_terminal": FLAGS}
    for title, changes, keys in (
        ("none", {}, {}),
        ("a last reward", {"reward": [0, 0, 0, 0, 0, 1.0]}, {}),
        ("a reward at the end", {"reward": [0, 0, 0, 0, 0, 1.0]} | terminal, {}),
        ("a reward just before the end", {"reward": [0, 0, 0, 0, 1.0, 0]} | terminal, {}),
        ("a reward long before the end", {"reward": [0, 0, 0, 1.0, 0, 0]} | terminal, {}),
        ("no reward at the end", {"reward": [0.0] * 6} | terminal, {}),
        ("an end without rewards", {"reward": None} | terminal, {}),
        ("a flag", {"solved": [0, 0, 1, 1, 1, 1]}, solved),
        ("a flag that goes", {"solved": [1, 1, 1, 1, 1, 0]}, solved),
        ("a flag that is none", {"solved": [0.5] * 6}, solved),
        (
            "a flag that is not there counts before rewards",
            {"reward": [1.0] * 6, "is_terminal": [1] * 6},
            solved,
        ),
        ("a flag without the registry", {"is_success": FLAGS}, {}),
    ):
        steps = {f"steps__{k}": None if v is None else np.array(v) for k, v in changes.items()}
        yield title, of(new, episode(0, changes=steps), keys=keys)
    for keys in ({}, {"success": ["file_path"]}):
        paths = ("success/2023/t.h5", "failure/2023/t.h5", "successful/t.h5")
        episodes_read = [
            episode(k, episode_metadata__file_path=[f"/r/{p}".encode()])
            for k, p in enumerate(paths)
        ]
        yield f"paths, {keys}", of(new, *episodes_read, keys=keys)
    yield (
        "beside the steps",
        of(new, *(episode(k, episode_metadata__episode_success=[k]) for k in range(2))),
    )


@golden
def test_cameras(new) -> Told:
    names = ["a_hand_image", "b_wrist", "side", "image", "eye_in_hand_rgb", "gripper_cam", "top"]
    features = features_json({n: image() for n in names} | {"wrist_image": None})
    pictures = {f"steps__observation__{n}": [png(0)] * 6 for n in names} | {
        "steps__observation__wrist_image": None
    }
    cameras = {"exo": ["top", "lost"], "wrist": ["b_wrist"]}
    for title, config in (
        ("in the order of names", {}),
        ("in the registry's order", {"cameras": cameras}),
    ):
        yield title, of(new, episode(0, changes=pictures), features=features, **config)
    none = {"steps__observation__image": None, "steps__observation__wrist_image": []}
    yield (
        "missing",
        of(new, episode(0), episode(1, steps__observation__image=None), episode(2, changes=none)),
    )
    stack = np.stack([picture(number(0, 0, k)) for k in range(6)])
    raw = {
        "none": stack,
        "bytes": [p.tobytes() for p in stack],
        "zlib": [zlib.compress(p.tobytes()) for p in stack],
    }
    for encoding, values in raw.items():
        features = features_json(
            {"image": tensor("uint8", 64, 64, 3, encoding=encoding), "wrist_image": None}
        )
        yield (
            f"raw, {encoding}",
            of(new, episode(0, steps__observation__image=values), features=features),
        )
    for shape in ((-1, -1, 3), (1 << 13, 1 << 13, 3), (0, 64, 3)):
        features = features_json({"image": tensor("uint8", *shape), "wrist_image": None})
        yield (
            f"raw, claims {shape}",
            of(new, episode(0, steps__observation__image=stack), features=features),
        )


@golden
def test_state(new) -> Told:
    other_features = {
        "extra": tensor("float32", 2),
        "count": tensor("int32"),
        "blob": tensor("int16", 2, encoding="zlib"),
    }
    changes = {
        "steps__observation__extra": np.arange(12, dtype=np.float32),
        "steps__observation__count": np.arange(6) - 3,
        "steps__observation__blob": [
            zlib.compress(np.array([k, -k], "<i2").tobytes()) for k in range(6)
        ],
    }
    paths = ["observation/count", "observation/extra", "observation/blob", "observation/none"]
    config = {
        "keys": {"state": paths, "action": ["no"]},
        "gripper": {"column": "state", "dimension": -1},
    }
    yield (
        "as the registry says",
        of(new, episode(0, changes=changes), features=features_json(other_features), **config),
    )
    for names in (
        "observation/proprio",
        "observation/robot_state",
        "observation/robot_obs",
        "robot_state",
        "observation/joint_position observation/gripper_position",
        "observation/base_pose_tool_reached observation/gripper_closed",
        "observation/clip_function_input/base_pose_tool_reached observation/gripper_closed",
        "observation/eef_pose observation/state_gripper_pose",
        "observation/EEF_state observation/gripper_state",
        "observation/joint_states observation/gripper_states",
        "observation/end_effector_cartesian_pos",
        "observation/joint_pos observation/gripper",
        "observation/effector_translation",
    ):
        stated_features: dict[str, Any] = {"observation": {"state": None}, "steps": {}}
        episode_read = episode(0, steps__observation__state=None)
        for index, path in enumerate(names.split()):
            *above, name = path.split("/")
            of_steps = stated_features["observation"] if above else stated_features["steps"]
            innermost = {name: tensor("float32", 1)}
            of_steps |= {above[1]: dict_of(**innermost)} if above[1:] else innermost
            episode_read[f"steps/{path}"] = np.arange(6, dtype=np.float32) + 10 * index
        yield (
            f"as public datasets name it: {names}",
            of(new, episode_read, features=features_json(**stated_features)),
        )


@dataclass(frozen=True)
class Bucket(Source):
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


def test_a_remote_selection_fetches_only_its_shards(tmp_path):
    write_dataset(
        tmp_path,
        {"train": [[episode(0), episode(1)], [episode(2)]], "test": [[episode(3), episode(4)]]},
    )
    all_shards = bucket(tmp_path)
    listing = rlds.list_episodes(all_shards)
    assert len(shards_asked(all_shards)) == 3
    for chosen, shards in (((0, 77), 1), ((1, 3), 2), ((2,), 1)):
        source = bucket(tmp_path, *chosen)
        part = rlds.list_episodes(source)
        assert (len(shards_asked(source)), said(part)) == (shards, [])
        for whole_record, part_record in zip(listing.records, part.records, strict=True):
            assert (part_record.source_id, part_record.cameras) == (
                whole_record.source_id,
                ["image", "wrist_image"],
            )
            if part_record.episode_index in chosen:
                assert part_record == whole_record
                assert len(shown(source, part_record, "image")) == 6
        unread = [r for r in part.records if r.num_rows is None]
        assert {r.task for r in unread} == {None}
        with pytest.raises(DataError, match="was not read when the dataset was listed"):
            rlds.read_episode(source, unread[0])


FEATURES = {
    "a/text": [b"one", b"", b"three"],
    "b": np.array([1, -2.5], np.float32),
    "c": [3, -1, 300],
    "empty": [],
}


def parsed(message_bytes: bytes) -> dict[str, list]:
    """Values of an Example by key, all read."""
    values_by_key = {}
    for key, values in example(message_bytes, Record(0, 0, len(message_bytes))).items():
        if values.kind == "bytes":
            values_by_key[key] = [message_bytes[s:e] for s, e in byte_spans(message_bytes, values)]
        else:
            values_by_key[key] = numbers(message_bytes, values).tolist()
    return values_by_key


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (message(2, message(1, b"12345")), "not a list of numbers"),
        (message(2, varint(1 << 3 | 0) + varint(1)), "not a list of numbers"),
        (message(3, message(1, b"\x80")), "an integer is cut off"),
        (message(3, message(1, b"\x80" * 10 + b"\x01")), "more than 10 bytes"),
        (message(1, varint(1 << 3 | 0) + varint(1)), "unexpected wire type 0"),
    ],
)
def test_values_that_are_damaged(content, problem):
    with pytest.raises(DataError, match=problem):
        parsed(message(1, message(1, message(1, b"k") + message(2, content))))


@given(st.data())
def test_damage_is_noticed_or_harmless(data):
    whole = written(FEATURES)
    cut_at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:cut_at] + bytes([data.draw(st.integers(0, 255))]) + whole[cut_at + 1 :]
    for damaged in (changed, whole[:cut_at], data.draw(st.binary(max_size=60))):
        try:
            parsed(damaged)
        except DataError:
            continue

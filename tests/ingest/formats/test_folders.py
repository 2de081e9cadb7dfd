"""RH20T, Table30, Robo-Dopamine and MCAP: what can be wrong with their folders and files."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from ingest.source import list_episodes, read_episode
from tests.kits.files import Trap
from tests.kits.lerobot_writer import (
    LFS_POINTER,
    number,
    read_number,
    source_of,
    write_json_lines,
    write_video,
)
from tests.kits.mcap_writer import FRAMES, RATE, SECOND, START, record, recorder
from tests.kits.rh20t_writer import write_scene, write_texts
from tests.kits.table30_writer import frame, write_task
from tests.kits.told import New, Told, golden


@golden
def test_rh20t(new: New) -> Told:
    cfg = (root := new()) / "RH20T_cfg3"
    write_scene(cfg, 1, cameras={"cam_2": 5, "cam_10": 6}, metadata={"rating": 9, "calib": 17})
    write_scene(cfg, 1, 2, metadata={"rating": 1})
    write_scene(cfg, 2, metadata={"rating": 0})
    write_scene(cfg, 2, suffix="_human")
    write_scene(cfg, 1, suffix="_human")
    write_texts(root / "task_description.json", {1: "press the button", 2: "pull the plug"})
    yield "a configuration", source_of(root, cameras={"wrist": ["cam_10"]})
    root = new()
    write_scene(root, 1, metadata={"rating": 2}, plain=4)
    np.save(
        write_scene(root, 2, metadata={"rating": 2}, plain=6) / "transformed/gripper.npy",
        np.zeros(5),
    )
    yield "plain arrays that do not fit", source_of(root)
    ratings: list[Any] = [{"rating": rating} for rating in (0, 1, 2, 9, 10, -1, True, "9")]
    for metadata in (*ratings, {"rating": 9, "success": False}, [9], "{broken", None):
        root = new()
        write_scene(root, 1, metadata=metadata)
        write_texts(root / "task_description.json", {1: "press"})
        yield f"metadata {metadata}", source_of(root)
    root = new()
    write_scene(root, 1, suffix="_human")
    yield "only people's demonstrations", source_of(root)
    root = new()
    trap = Trap(root / "sprung")
    folder = write_scene(root / "a", 1, metadata={"rating": 3})
    np.save(folder / "transformed/tcp_base.npy", np.array([trap], dtype=object), allow_pickle=True)
    whole = write_scene(root / "a", 2, metadata={"rating": 3})
    (whole / "transformed/tcp_base.npy").write_bytes(pickle.dumps(trap))
    yield "no pickle is loaded, in an array or as a whole file", source_of(root)
    assert not (root / "sprung").exists()


@golden
def test_table30(new: New) -> Told:
    write_task(root := new(), "task", "arx5", {0: 6})
    yield "a root that is one task", source_of(root / "task", format="table30")
    write_task(root := new(), "task", "arx5", {0: 6}, "one way")
    (root / "task/task_desc.json").write_text(json.dumps({"prompt": " another way "}))
    write_task(root, "unsaid", "arx5", {0: 6}, None)
    yield "both files may have an instruction: the first of task_info.json counts", source_of(root)
    states = "task/data/episode_000000/states"
    write_task(root := new(), "task", "aloha", {0: 6})
    write_json_lines(root / states / "right_states.jsonl", [frame("aloha", k) for k in range(5)])
    yield "arms of different length", source_of(root)
    untimed = [frame("arx5", k) for k in range(6)]
    for row in untimed:
        del row["timestamp"]
    first = json.dumps(frame("arx5", 0))
    for title, text in {
        "without times": "".join(json.dumps(row) + "\n" for row in untimed),
        "without a line": "",
        "a pointer": LFS_POINTER,
        "a list": "[1]\n",
        "nothing": "{}\n",
        "too deep": f"{first}\n" + "[" * 3_000,
        "too long": f"{first}\n" + "x" * ((1 << 20) + 1),
        "nothing in the second line": f"{first}\n{{}}\n",
        "a joint less": f"{first}\n" + first.replace("[0.0, 0.1,", "["),
        "a text": first.replace("[0.0, 0.1,", '["0", 0.1,'),
        "no UTF-8": "\x80\n",
    }.items():
        write_task(root := new(), "task", "arx5", {0: 6, 1: 6})
        (root / states / "states.jsonl").write_bytes(text.encode("latin-1"))
        yield f"rows {title}: the episode beside it is read", source_of(root)


@golden
def test_robo_dopamine(new: New) -> Told:
    """Keyframes that are broken lose no episode."""
    cameras = ("cam_high", "cam_left_wrist", "cam_right_wrist")
    good = [("pick", 1, 4), ("place", 4, 8)]
    for spans in (good, [("a", 0, 5), ("b", 4, 8)], [("a", 0, 11)], [(None, 0, 3)], "{}", "[1]"):
        root = new()
        for episode, episode_cameras in enumerate((cameras, cameras[:2])):
            for c, camera in enumerate(episode_cameras):
                numbers = [number(c, episode, k) for k in range(10)]
                write_video(root / f"episode_00{episode + 1}/{camera}.mp4", numbers)
        keys = ("anotation", "start_frame_id", "end_frame_id")
        if isinstance(spans, str):
            text = spans
        else:
            text = json.dumps([dict(zip(keys, s, strict=True)) for s in spans])
        (root / "episode_001/annotated_keyframes.json").write_text(text)
        (root / "task_instruction.json").write_text(json.dumps(["clear the table", "tidy up"]))
        yield f"keyframes {text}", source_of(root)


# MCAP


@golden
def test_mcap(new: New) -> Told:
    yield (
        "a topic that the registry names and the file lacks",
        source_of(record(new(), joints=False), keys={"state": ["/joint_states"]}),
    )
    yield "a message that stands late in the file", source_of(record(new(), backwards=True))
    root = new()
    with recorder(root / "run.mcap") as r:
        for k in range(2 * FRAMES):
            time_ns = START + k * SECOND // RATE
            r.show(k, time_ns, time_ns - SECOND if k == FRAMES else time_ns)
    yield "a message whose header is late is left out and said", source_of(root)
    root = new()
    with recorder(root / "run.mcap", chunk_size=2000) as r:
        for k in range(FRAMES):
            r.show(k, START + k * SECOND // RATE)
    for path, title in (
        (root / "run.mcap", "a recording whose end is missing is used as far as it goes"),
        (record(new()) / "run.mcap", "cut off inside its only chunk"),
    ):
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 5])
        yield title, source_of(path.parent)
    (root := new()).joinpath("a.mcap").write_bytes(b"not at all" * 100)
    yield "no recording", source_of(root)
    packed = zstandard.ZstdCompressor().compress((record(root := new()) / "run.mcap").read_bytes())
    (root / "other.mcap.zstd").write_bytes(packed)
    (root / "run.mcap.zstd").write_bytes(packed)
    (root / "short.mcap.zstd").write_bytes(packed[: len(packed) // 2])
    yield "packed files beside a plain one", source_of(root)


@golden
def test_mcap_is_read_in_order_of_time(new: New) -> Told:
    """As the library mcap gives messages. Recorders may write a chunk late, or flush several messages at a time."""

    def shown(
        order: Callable[[int], float] = float, per_chunk: int = 1, stamp: int | None = None
    ) -> Path:
        """Two seconds of pictures and joints, which stand in the file by `order`; so many have one time `per_chunk`."""
        with recorder((root := new()) / "run.mcap", chunk_size=20_000) as r:
            for k in sorted(range(2 * FRAMES), key=order):
                # Messages that come until the recorder writes
                flushed = per_chunk - 1 - k % per_chunk
                r.show(k, time_ns := START + (k + flushed) * SECOND // RATE, stamp)
                r.move(k / 100, k // FRAMES, time_ns, stamp)
        return root

    def by_topic() -> Path:
        with recorder((root := new()) / "run.mcap", chunk_size=20_000) as r:
            for k in range(2 * FRAMES):
                r.move(k / 100, k // FRAMES, START + k * SECOND // RATE)
            for k in range(2 * FRAMES):
                r.show(k, START + k * SECOND // RATE)
        return root

    yield "by topic", source_of(by_topic())
    yield (
        "half a second is written after the next one",
        source_of(shown(lambda k: k + 10.5 * (5 <= k < 10))),
    )
    yield "backwards", source_of(shown(lambda k: -k))
    yield "four at a time, without stamps in headers", source_of(shown(per_chunk=4, stamp=0))
    yield "headers of whole seconds", source_of(shown(stamp=START))
    yield "all at once", source_of(shown(per_chunk=2 * FRAMES, stamp=0))


@pytest.mark.parametrize("seed", range(6))
def test_jitter_loses_no_frame_of_a_recording(seed: int, tmp_path: Path) -> None:
    """Pictures and joints are each up to 2 ms early or late; 60 pictures at 30 a second."""
    rng = np.random.default_rng(seed)
    with recorder(tmp_path / "run.mcap") as r:
        for k in range(60):
            early, late = np.sort(rng.integers(-2_000_000, 2_000_000, 2)).tolist()
            r.move(k / 100, 0, START + k * SECOND // 30 + late)
            r.show(k, START + k * SECOND // 30 + early)
    source = source_of(tmp_path)
    [episode] = list_episodes(source).records
    read = read_episode(source, episode)
    assert [read_number(picture.luma()) for _, _, picture in read.frames("front")] == list(
        range(60)
    )
    assert read.state is not None
    assert np.array_equal(read.state[:, 0], np.arange(60) / 100)


def test_frames_and_numbers_of_mcap_are_put_on_one_clock(tmp_path: Path) -> None:
    """The joints' message that is nearest to a picture came 1 ms before it."""
    source = source_of(record(tmp_path))
    listing = list_episodes(source)
    assert (listing.format, listing.fps, listing.records[0].task) == ("mcap", RATE, "pick the cup")
    read = read_episode(source, listing.records[0])
    assert (read.state_names, len([*read.frames("front")])) == (("j0", "gripper"), FRAMES)
    assert read.state is not None
    assert np.array_equal(
        read.state, np.column_stack([np.arange(FRAMES) / 10, np.arange(FRAMES) // 5])
    )

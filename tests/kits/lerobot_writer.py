"""Tiny robot datasets for tests: real videos and Parquet files whose every picture says which frame
it is.

A picture is 4x4 blocks, dark or bright: 16 bits that survive lossy coding. They hold (camera,
episode, frame).
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.episode import EpisodeRecord, Finding, Listing
from ingest.registry import DatasetConfig
from ingest.source import read_episode
from ingest.sources.files import Source

SIDE = 64  # px
RATE = 10  # frames per second
V2_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V2_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
FRONT = "observation.images.front"
WRIST = "observation.images.wrist"
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
# One key picture, then B-frames as far as the encoder likes; what decoders find hardest to enter in the middle
LONG_GOP = {"g": "250", "bf": "3", "preset": "veryfast"}
CODECS = {
    "h264": ("libx264", LONG_GOP),
    "av1": ("libsvtav1", {"preset": "8", "crf": "12", "g": "8"}),
    "mpeg4": ("mpeg4", {"g": "12", "bf": "2"}),
}


def number(camera: int, episode: int, frame: int) -> int:
    return camera << 12 | episode << 6 | frame


def film_of(camera: int, episode: int, count: int) -> list[int]:
    """The numbers of the first frames of an episode."""
    return [number(camera, episode, frame) for frame in range(count)]


def frame_keys(lengths: Iterable[int]) -> list[tuple[int, int]]:
    """(episode, frame) of all frames of episodes of such lengths, in order."""
    keys: list[tuple[int, int]] = []
    for episode, length in enumerate(lengths):
        keys += [(episode, frame) for frame in range(length)]
    return keys


def numbers(lengths: Iterable[int]) -> list[int]:
    """The numbers that camera 0 shows in episodes of such lengths, one after the other."""
    return [number(0, episode, frame) for episode, frame in frame_keys(lengths)]


def picture(bits: int, side: int = SIDE) -> np.ndarray:
    """uint8 [side, side, 3]"""
    blocks = np.array([220 if bits >> b & 1 else 40 for b in range(16)], np.uint8).reshape(4, 4)
    return np.repeat(
        np.kron(blocks, np.ones((side // 4, side // 4), np.uint8))[..., None], 3, axis=2
    )


def read_number(luma: np.ndarray) -> int:
    """Inverse of picture; from the middle of each block."""
    step = luma.shape[0] // 4
    blocks = luma.reshape(4, step, 4, step)[
        :, step // 4 : -step // 4, :, step // 4 : -step // 4
    ].mean(axis=(1, 3))
    return sum(1 << b for b, bright in enumerate(blocks.reshape(-1) > 128) if bright)


def write_video(
    path: Path,
    pictures: Iterable[np.ndarray | int],
    codec: str = "h264",
    fps: int = 10,
    times: Sequence[int] | None = None,
    options: Mapping[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    container: Mapping[str, str] | None = None,
) -> Path:
    """`times` are presentation times in frames; default 0, 1, 2, ...; `container`: options of the
    file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoder, default_options = CODECS[codec]
    with av.open(str(path), "w", options=dict(container or {})) as out:
        stream = None
        for k, content in enumerate(pictures):
            rgb = picture(content) if isinstance(content, int) else content
            if stream is None:
                stream = out.add_stream(encoder, rate=fps)
                stream.height, stream.width = rgb.shape[:2]
                stream.pix_fmt = pix_fmt
                stream.options = {"threads": "1"} | dict(
                    default_options if options is None else options
                )
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = (k if times is None else times[k]), Fraction(1, fps)
            out.mux(stream.encode(frame))
        assert stream is not None
        out.mux(stream.encode())
    # SVT-AV1, where it may, makes the thread that calls it a real-time one, which starves all that runs beside it
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return path


def write_parquet(path: Path, columns: Mapping[str, Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path, **options)
    return path


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def write_info(root: Path, **info: Any) -> None:
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta/info.json").write_text(json.dumps(info))


def edit_info(root: Path, **changes: Any) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    write_info(root, **info | changes)


def declare(root: Path, features: Mapping[str, Any]) -> None:
    """More features of info.json, or others of their names."""
    info = json.loads((root / "meta/info.json").read_text())
    write_info(root, **info | {"features": info["features"] | dict(features)})


def edit_parquet(path: Path, **columns: Any) -> None:
    """Replace or add columns; None drops one."""
    table = pq.ParquetFile(path).read()
    old = {n: table[n] for n in table.schema.names if columns.get(n, 0) is not None}
    write_parquet(path, old | {n: c for n, c in columns.items() if c is not None})


def features(cameras: Sequence[str], fps: float) -> dict[str, Any]:
    video = {"dtype": "video", "shape": [SIDE, SIDE, 3], "names": None, "info": {"video.fps": fps}}
    state = {"dtype": "float32", "shape": [3], "names": ["x", "y", "gripper.pos"]}
    return {"observation.state": state, "action": state} | dict.fromkeys(cameras, video)


def episode_rows(episode: int, length: int, fps: float, task_index: int) -> dict[str, Any]:
    """State of row k: (episode, k, k mod 2), the last one being the gripper."""
    k = np.arange(length)
    state = np.stack([np.full(length, episode), k, k % 2], axis=1).astype(np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(state.reshape(-1)), 3)
    return {
        "observation.state": vectors,
        "action": vectors,
        "timestamp": (k / fps).astype(np.float32),
        "frame_index": k,
        "episode_index": np.full(length, episode),
        "task_index": np.full(length, task_index),
    }


def by_episode(lengths: Sequence[int] | Mapping[int, int]) -> dict[int, int]:
    return dict(lengths if isinstance(lengths, Mapping) else enumerate(lengths))


def write_v2(
    root: Path,
    lengths: Sequence[int] | Mapping[int, int],
    cameras: Sequence[str] = (FRONT,),
    tasks: Sequence[str] = ("pick the cup",),
) -> Path:
    """A whole v2.1 dataset of ten frames a second; episode k has the task k mod len(tasks)."""
    lengths = by_episode(lengths)
    write_v2_meta(root, lengths, tasks, features=features(cameras, RATE))
    write_json_lines(
        root / "meta/episodes_stats.jsonl", [{"episode_index": e, "stats": {}} for e in lengths]
    )
    for episode, length in lengths.items():
        write_parquet(
            v2_data(root, episode), episode_rows(episode, length, RATE, episode % len(tasks))
        )
        for c, camera in enumerate(cameras):
            write_video(v2_video(root, camera, episode), film_of(c, episode, length))
    return root


def write_v2_meta(
    root: Path, lengths: Mapping[int, int], tasks: Sequence[str], **info: Any
) -> None:
    """What a v2 dataset says of itself; `info` replaces and adds fields of info.json."""
    about = {"codebase_version": "v2.1", "robot_type": "toy", "fps": RATE, "chunks_size": 1000}
    write_info(root, **about | {"data_path": V2_DATA, "video_path": V2_VIDEO} | info)
    write_json_lines(
        root / "meta/tasks.jsonl", [{"task_index": i, "task": t} for i, t in enumerate(tasks)]
    )
    write_json_lines(
        root / "meta/episodes.jsonl",
        [
            {"episode_index": e, "tasks": [tasks[e % len(tasks)]], "length": n}
            for e, n in lengths.items()
        ],
    )


def v2_data(root: Path, episode: int) -> Path:
    return root / V2_DATA.format(episode_chunk=episode // 1000, episode_index=episode)


def v2_video(root: Path, camera: str, episode: int) -> Path:
    return root / V2_VIDEO.format(
        episode_chunk=episode // 1000, video_key=camera, episode_index=episode
    )


def write_v3(
    root: Path,
    lengths: Sequence[int] | Mapping[int, int],
    cameras: Mapping[str, int] | None = None,
    tasks: Sequence[str] = ("pick the cup",),
    per_data_file: int = 2,
) -> Path:
    """A whole v3.0 dataset; `cameras` says how many episodes a video file of each camera holds."""
    lengths = by_episode(lengths)
    cameras = {FRONT: 3} if cameras is None else cameras
    write_info(
        root,
        **{"codebase_version": "v3.0", "robot_type": "toy", "fps": RATE, "chunks_size": 1000},
        data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        video_path="videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        features=features(list(cameras), RATE),
    )
    write_parquet(
        root / "meta/tasks.parquet", {"task_index": range(len(tasks)), "task": list(tasks)}
    )
    episodes = list(lengths)
    meta: dict[str, list[Any]] = {
        "episode_index": episodes,
        "tasks": [[tasks[e % len(tasks)]] for e in episodes],
        "length": [lengths[e] for e in episodes],
        "stats/action/mean": [[0.0] * 3 for _ in episodes],
    }
    for start in range(0, len(episodes), per_data_file):
        parts = [
            pa.table(episode_rows(e, lengths[e], RATE, e % len(tasks)))
            for e in episodes[start : start + per_data_file]
        ]
        path = v3_data(root, start // per_data_file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(path, parts[0].schema) as writer:
            for part in parts:
                writer.write_table(part)  # one row group per episode
    for c, (camera, per_file) in enumerate(cameras.items()):
        files = []
        starts_s = []
        for start in range(0, len(episodes), per_file):
            file_episodes = episodes[start : start + per_file]
            frames_before = 0
            for e in file_episodes:
                files.append(start // per_file)
                starts_s.append(frames_before / RATE)
                frames_before += lengths[e]
            file_numbers: list[int] = []
            for e in file_episodes:
                file_numbers += film_of(c, e, lengths[e])
            write_video(v3_video(root, camera, start // per_file), file_numbers)
        meta[f"videos/{camera}/chunk_index"] = [0] * len(episodes)
        meta[f"videos/{camera}/file_index"] = files
        meta[f"videos/{camera}/from_timestamp"] = starts_s
        meta[f"videos/{camera}/to_timestamp"] = [
            s + lengths[e] / RATE for s, e in zip(starts_s, episodes, strict=True)
        ]
    write_parquet(v3_meta(root), meta)
    return root


def v3_data(root: Path, file: int) -> Path:
    return root / f"data/chunk-000/file-{file:03d}.parquet"


def v3_video(root: Path, camera: str, file: int) -> Path:
    return root / f"videos/{camera}/chunk-000/file-{file:03d}.mp4"


def v3_meta(root: Path) -> Path:
    return root / "meta/episodes/chunk-000/file-000.parquet"


def source_of(path: Path, **fields: Any) -> Source:
    return Source(DatasetConfig(name="toy", source=str(path), **fields))


def shown(source: Source, record: EpisodeRecord, camera: str) -> list[tuple[int, int, int]]:
    """(camera, episode, frame) as the pictures say that an episode yields for one camera."""
    numbers = [
        read_number(frame.luma()) for _, _, frame in read_episode(source, record).frames(camera)
    ]
    return [(n >> 12, n >> 6 & 63, n & 63) for n in numbers]


def said(
    findings_or_listing: Listing | Iterable[Finding], **only: Any
) -> list[tuple[str, str, int | None, str | None]]:
    """(reason, severity, episode, camera) of findings, in order; `only` some of a reason, episode,
    ..."""
    if isinstance(findings_or_listing, Listing):
        findings = findings_or_listing.findings
    else:
        findings = findings_or_listing
    matching = [finding for finding in findings if only.items() <= vars(finding).items()]
    return [(f.reason, f.severity, f.episode_index, f.camera) for f in matching]

"""What the generators of simulated runs share: how a scene is drawn, and how runs and what is true of them are written.

They run in environments of their own (requirements.txt), so nothing of the project is imported here.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import av
import mujoco  # pyright: ignore[reportMissingImports]
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SIZE = 256  # pixels of a picture's sides
FLOATS = pa.list_(pa.float32())
Columns = Mapping[
    str, tuple[str, pa.DataType]
]  # of frames.parquet: name in a measured row, and type
Rows = Sequence[Mapping[str, Any]]  # what was measured at each frame


class Eye:
    """Draws a scene by a free camera, which is always the right way up."""

    def __init__(self, model: Any, view: Mapping[str, Any], side_px: int = SIZE) -> None:
        model.vis.quality.shadowsize = 1024  # the default 4096 makes software rendering 10x slower
        model.vis.global_.offwidth = model.vis.global_.offheight = side_px
        self.renderer = mujoco.Renderer(model, side_px, side_px)
        self.camera = mujoco.MjvCamera()
        self.camera.lookat[:] = view["lookat"]
        self.camera.azimuth, self.camera.elevation, self.camera.distance = view["from"]
        self.option = mujoco.MjvOption()

    def picture(self, data: Any, camera: Any = None, *, shadows: bool = True) -> np.ndarray:
        """uint8 [side, side, 3], without reflections. `camera`: another one, by its name in the scene."""
        self.renderer.update_scene(data, self.camera if camera is None else camera, self.option)
        flags = self.renderer.scene.flags
        flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        if not shadows:
            flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        return self.renderer.render().copy()


@dataclass(frozen=True)
class Recorded:
    """A run: its line of episodes.jsonl less the number, its rows, and the pictures of each folder of videos."""

    facts: dict[str, Any]
    rows: Rows
    pictures: Mapping[str, Sequence[np.ndarray]]


@dataclass(frozen=True)
class Form:
    """How a set is written: folders of videos, columns, frames a second, quality, frames from key to key frame."""

    videos: tuple[str, ...]
    columns: Columns
    fps: int
    crf: int
    group: int


def arguments(doc: str | None, file: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(file).parent / "data")
    parser.add_argument("--check", action="store_true", help="only verify what --out holds")
    return parser


def write(out: Path, form: Form, runs: Iterable[Recorded]) -> None:
    """episodes.jsonl, frames.parquet and a video of each run and camera, each run as soon as it is there."""
    for folder in form.videos:
        (out / folder).mkdir(parents=True, exist_ok=True)
    all_rows = []
    with open(out / "episodes.jsonl", "w") as file:
        for k, run in enumerate(runs):
            file.write(json.dumps({"episode": k} | run.facts) + "\n")
            for folder, pictures in run.pictures.items():
                write_video(
                    out / folder / f"episode_{k:03d}.mp4", pictures, form.fps, form.crf, form.group
                )
            all_rows.append(run.rows)
            tell(k, run)
    pq.write_table(table(form.columns, all_rows, form.fps), out / "frames.parquet")


def tell(number: int, run: Recorded) -> None:
    facts = run.facts
    p = np.array([r["progress"] for r in run.rows])
    phases = (
        f"{s['name']} {s['start']}-{s['end']} {s.get('outcome', '')}".rstrip()
        for s in facts["segments"]
    )
    print(
        f"{number:3d} {facts['env']} seed {facts['seed']} {facts['policy']}: {len(p)} frames, success "
        f"{facts['success']}, {', '.join(phases)}; largest drop {max(0, -np.diff(p).min()):.3f}, "
        f"largest rise {np.diff(p).max():.3f}, last {p[-1]:.2f}",
        flush=True,
    )


def table(columns: Columns, runs: Sequence[Rows], fps: int) -> pa.Table:
    """frames.parquet: a row a frame, run after run."""
    frame_keys: list[tuple[int, int]] = []
    for episode, rows in enumerate(runs):
        frame_keys += [(episode, frame) for frame in range(len(rows))]
    arrays = {
        "episode_index": pa.array([episode for episode, _ in frame_keys], pa.int64()),
        "frame_index": pa.array([frame for _, frame in frame_keys], pa.int64()),
        "timestamp": pa.array([frame / fps for _, frame in frame_keys], pa.float32()),
    }
    for name, (key, kind) in columns.items():
        values = [row[key] for row in chain.from_iterable(runs)]
        arrays[name] = pa.array(
            [v.tolist() if isinstance(v, np.ndarray) else v for v in values], kind
        )
    return pa.table(arrays)


def write_video(path: Path, pictures: Sequence[np.ndarray], fps: int, crf: int, group: int) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": "slow", "g": str(group)}
        for rgb in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())


def check(
    out: Path, form: Form, of_run: Callable[[dict[str, Any], dict[str, np.ndarray]], None]
) -> None:
    """Decode every video and compare everything in `out` with everything else; `of_run` looks at a run's facts and its
    columns."""
    columns = pq.read_table(out / "frames.parquet").to_pydict()
    assert list(columns) == ["episode_index", "frame_index", "timestamp", *form.columns]
    episode = np.array(columns["episode_index"])
    total = count = 0
    for line in (out / "episodes.jsonl").read_text().splitlines():
        facts = json.loads(line)
        row_indices = np.flatnonzero(episode == facts["episode"])
        n = facts["num_frames"]
        rows = {}
        for name, values in columns.items():
            rows[name] = np.array([values[k] for k in row_indices])
        assert rows["frame_index"].tolist() == list(range(n))
        for folder in form.videos:
            path = out / folder / f"episode_{facts['episode']:03d}.mp4"
            with av.open(str(path)) as container:
                video = container.streams.video[0]
                times = [float(f.pts * video.time_base) for f in container.decode(video)]  # type: ignore[operator]
                assert (video.codec_context.name, video.codec_context.pix_fmt) == (
                    "h264",
                    "yuv420p",
                )
                assert (video.average_rate, video.width, video.height) == (form.fps, SIZE, SIZE)
            assert len(times) == n, path
            assert np.abs(np.array(times) - rows["timestamp"]).max() < 1e-4, path
        s = facts["segments"]
        assert (s[0]["start"], s[-1]["end"]) == (0, n)
        assert all(a["end"] == b["start"] and a["end"] > a["start"] for a, b in pairwise(s))
        assert ((rows["true_progress"] >= 0) & (rows["true_progress"] <= 1)).all()
        of_run(facts, rows)
        total = total + n
        count = count + 1
    assert total == len(episode)
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    print(f"check ok: {total} frames in {count} episodes, {size / 1e6:.2f} MB")

"""Do labels say that the grape was placed when it was let go? 55 real runs whose gripper closes again on the way home.

    python -m benchmarks.piper_placing [--data ../shared/data/piper_v3_no_videos] [--workspace W] [--json FILE]

The runs have rows and no pictures. They are built by the product's own command with pictures that show a bar moving
evenly, so all that labels can go by is the arm and its gripper. When the grape is let go is told by the rows: the
gripper closes on something (it stays off its empty level), later opens. A label is right when a completed step that
places something ends within a second of that opening, and none ends elsewhere.
"""

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import pyarrow.parquet as pq

from annotate.segments import STEP, Segment
from benchmarks.trial import SHARED, build, trial_workspace
from core.paths import ROOT
from eval.annotators.labels import stored_labels
from warehouse.lake import Lake

FIGURES = ROOT / "docs" / "data" / "piper_placing.json"
CAMERA = "observation.images.front"
SIDE, BAR_STEP = 64, 3  # px; a bar that moves BAR_STEP per frame
WIDE, CLOSES = 0.5, 0.25  # of the gripper's largest opening in the run: open before a grasp; how far it then closes
EMPTY = 1.5  # the gripper's unit: closed on nothing it comes to 0.7 to 1.2
LET_GO = 0.2  # of the largest opening: so far above its level while it holds
MIN_HOLD_S = 1.5  # what is let go sooner was not grasped
NEAR_S = 1.0


@dataclass(frozen=True)
class Placing:
    """One run: where the grape is let go, and where completed steps that place something end."""

    let_go: int | None  # None: it is held to the end, or nothing ever was
    placed: tuple[int, ...]

    def is_right(self, fps: float) -> bool:
        if self.let_go is None:
            return not self.placed
        return len(self.placed) == 1 and abs(self.placed[0] - self.let_go) <= NEAR_S * fps


def let_go(gripper: np.ndarray, fps: float) -> int | None:
    """The frame at which a gripper [n] that holds something begins to open; None where it never does.

    Example: at 10 fps, ten frames at 50, twenty at 10 and ten at 50 give 29, and with 0.8 for 10 give None.
    """
    top = float(gripper.max())
    frame = 0
    while True:
        # Open, then closed by a good part of its way
        opened = _first(gripper > WIDE * top, frame)
        if opened is None:
            return None
        widest = np.maximum.accumulate(np.where(np.arange(len(gripper)) < opened, 0.0, gripper))
        closed = _first(gripper < widest - CLOSES * top, opened)
        if closed is None:
            return None

        # The level to which it closes, until it opens from there
        lowest = np.minimum.accumulate(gripper[closed:])
        opens = _first(gripper[closed:] > lowest + LET_GO * top, 0)
        if opens is None:
            return None
        if lowest[opens] > EMPTY and opens >= MIN_HOLD_S * fps:
            return closed + opens - 1
        frame = closed + opens


def _first(is_so: np.ndarray, start: int) -> int | None:
    """The first frame from `start` on at which it is so."""
    later = np.flatnonzero(is_so[start:])
    return start + int(later[0]) if len(later) else None


def rows_of(dataset: Path) -> Iterator[tuple[Path, int, np.ndarray]]:
    """Each file of rows with its number of rows, and its episodes' gripper."""
    for file in sorted((dataset / "data").rglob("*.parquet")):
        table = pq.read_table(file, columns=["episode_index", "observation.state"])
        state = np.stack(table["observation.state"].to_numpy(zero_copy_only=False))
        yield file, table.num_rows, np.column_stack([table["episode_index"].to_numpy(), state[:, -1]])


def with_pictures(dataset: Path, out: Path, fps: int) -> Path:
    """A copy of the dataset at `out` with one camera, whose pictures say nothing of what is done."""
    shutil.copytree(dataset, out)
    for file, frames, _ in rows_of(dataset):
        write_bar(out / "videos" / CAMERA / file.relative_to(dataset / "data").with_suffix(".mp4"), frames, fps)
    return out


def write_bar(file: Path, frames: int, fps: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.options = {"g": "10", "preset": "veryfast", "threads": "1"}
        for k in range(frames):
            picture = np.full((SIDE, SIDE, 3), 60, np.uint8)
            picture[:, np.arange(k * BAR_STEP, k * BAR_STEP + 8) % SIDE] = 220
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def placed(segments: Sequence[Segment]) -> tuple[int, ...]:
    """Where completed steps that place something end."""
    return tuple(s.end_frame for s in segments if s.kind == STEP and s.completed and s.name.startswith("Place"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "piper_v3_no_videos")
    parser.add_argument("--workspace", type=Path, help="keep what is built there")
    parser.add_argument("--json", type=Path, default=FIGURES)
    asked = parser.parse_args()
    fps = json.loads((asked.data / "meta" / "info.json").read_text())["fps"]
    grippers = np.concatenate([rows for _, _, rows in rows_of(asked.data)])
    with TemporaryDirectory(prefix="proccorpus-piper-") as folder, trial_workspace(asked.workspace) as space:
        build(space, with_pictures(asked.data, Path(folder) / "piper", fps), "piper")
        labels = stored_labels(Lake(space, read_only=True), "piper")
    runs = {
        episode: Placing(let_go(grippers[grippers[:, 0] == episode, 1], fps), placed(label.segments))
        for episode, label in sorted(labels.items())
    }
    for episode, run in runs.items():
        if not run.is_right(fps):
            print(
                f"episode {episode}: let go at {run.let_go}, placed at {', '.join(map(str, run.placed)) or 'no frame'}"
            )
    right = sum(run.is_right(fps) for run in runs.values())
    print(f"{right} of {len(runs)} runs are right")
    asked.json.write_text(json.dumps({"runs": len(runs), "right": right}, indent=1) + "\n")


if __name__ == "__main__":
    main()

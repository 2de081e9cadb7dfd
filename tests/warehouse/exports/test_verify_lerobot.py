"""`--verify` holds an export against its source, and finds what was broken on purpose."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.paths import Workspace
from ingest.media.video import decode
from pipeline.config import source_build
from tests.kits.lerobot_writer import edit_parquet
from tests.kits.made_corpus import built
from tests.kits.small_sources import CAMERA, FPS, RECORDINGS, with_lerobot, write_v3
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.lerobot_plan import SEGMENT
from warehouse.exports.options import Selection
from warehouse.exports.verify_lerobot import difference, verify
from warehouse.exports.videos import Packets, encode
from warehouse.lake import Lake

pytestmark = pytest.mark.slow

ANY = Selection(allow=("unknown",))
LEROBOT = EXPORT_KINDS["lerobot"]
TRIMMED = 6  # rows taken away at each episode's start, `timestamp` kept
BEGIN = f"videos/{CAMERA}/from_timestamp"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
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
    packets = Packets.read(whole)
    packets.cut(range(len(packets.times_s) - 1), whole, video(root, 3), FPS, keep_times=True)
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


def test_what_is_broken_is_found(lake: Lake, tmp_path: Path) -> None:
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


def test_a_single_picture_that_is_another_is_found(lake: Lake, tmp_path: Path) -> None:
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


def test_steps_of_another_type_are_found(lake: Lake, tmp_path: Path) -> None:
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
def test_an_encoders_loss_is_told_from_another_picture(noise: float) -> None:
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

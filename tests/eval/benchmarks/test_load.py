"""Loaders of benchmarks: the hub's files, releases' shards, and any LeRobot dataset with labels."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from eval.benchmarks.question import BenchmarkError, PictureFile
from tests.kits.bench_kit import by_part, make_progress_bench, questions_of
from tests.kits.files import files_of
from tests.kits.hub_server import Hub, public_hub
from tests.kits.lerobot_writer import write_v3

REPO = "someone/bench"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_progress_bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def hub() -> Iterator[Hub]:
    with public_hub(REPO) as hub:
        yield hub


# ProgressLM's, from the hub


def test_a_pinned_commit_is_read_and_only_what_is_asked_for_is_fetched(bench: Path, hub: Hub, tmp_path: Path) -> None:
    commit = hub.commit(files_of(bench))
    hub.commit({"README.md": b"all gone"})
    questions = questions_of(
        "progress-bench", f"hf://{REPO}@{commit}", cache=tmp_path, part=["visual_same_view"], limit=1
    )
    assert by_part(questions) == {"visual_same_view": 1}
    pictures = {p for p in hub.fetched() if p.endswith(".jpg")}
    assert hub.fetched() - pictures == {"prog-bench/visual_same_view.jsonl"}
    assert len(pictures) == len(questions[0].pictures) == 5
    local = questions_of("progress-bench", str(bench), part=["visual_same_view"], limit=1)
    assert [p.read() for p in questions[0].pictures] == [p.read() for p in local[0].pictures]
    assert questions[0].key == local[0].key


def test_what_cannot_be_loaded_says_why(bench: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"unknown benchmark 'x'; known: progress-bench"):
        questions_of("x")
    with pytest.raises(BenchmarkError, match=r"has no part 'visual'; it has text-normal"):
        questions_of("progress-bench", str(bench), part=["visual"])
    with pytest.raises(BenchmarkError, match=r"--image-root .*nowhere is no folder"):
        questions_of("progress-bench", str(bench), image_root=tmp_path / "nowhere")
    with pytest.raises(BenchmarkError, match="give a workspace and a release"):
        questions_of("procvqa-id")
    lines = (bench / "prog-bench" / "text-normal.jsonl").read_text().splitlines()
    outside = lines[1].replace("camera_top", "../../../../camera_top")
    (tmp_path / "rows.jsonl").write_text(f"{lines[0]}\n{outside}")
    with pytest.raises(BenchmarkError, match="outside the folder of pictures"):
        questions_of("progress-bench", str(tmp_path / "rows.jsonl"), image_root=tmp_path)
    (tmp_path / "rows.jsonl").write_text(f"{lines[0]}\n{{")
    with pytest.raises(BenchmarkError, match=r"rows\.jsonl line 2 is not JSON"):
        questions_of("progress-bench", str(tmp_path / "rows.jsonl"))


# Any dataset


def labelled(root: Path, column: str = "progress", bad: bool = False) -> Path:
    """Progress and success on a v3 dataset whose episodes have 20, 30 and 12 frames; the last one is not labelled."""
    write_v3(root, (20, 30, 12))
    for path in sorted((root / "data").rglob("*.parquet")):
        table = pq.read_table(path)
        episode, frame = (table[c].to_numpy() for c in ("episode_index", "frame_index"))
        length = np.array([20, 30, 12])[episode]
        share = np.where(episode == 2, 7.0 if bad else np.nan, frame / (length - 1) * 0.8)
        table = table.append_column(column, [share.astype(np.float32)])
        pq.write_table(table.append_column("success", [episode == 0]), path)
    return root


def test_a_datasets_progress_and_success(tmp_path: Path) -> None:
    root = labelled(tmp_path / "data" / "toy")
    questions = questions_of("dataset", str(root), image_root=tmp_path / "frames")
    assert by_part(questions) == {"progress": 32, "success": 3}
    assert [(q.trajectory, q.truth.success) for q in questions if q.part == "success"] == [
        ("0", True), ("1", False), ("2", False),
    ]  # fmt: skip
    run = [q for q in questions if q.part == "progress" and q.trajectory == "1"]
    assert [q.frame_index for q in run][:: len(run) - 1] == [0, 29]
    assert [q.truth.score for q in run] == pytest.approx([q.frame_index / 29 * 0.8 for q in run], abs=1e-6)
    assert all(q.text.count("<image>") == len(q.pictures) for q in questions)
    picture = cv2.imdecode(np.frombuffer(run[0].pictures[-1].read(), np.uint8), cv2.IMREAD_COLOR)
    assert picture.ndim == 3
    (frame,) = (tmp_path / "frames").rglob("000000/000000.jpg")
    frame.write_bytes(b"kept")
    again = questions_of("dataset", str(root), image_root=tmp_path / "frames", num_inferences=2, limit=1)
    assert frame.read_bytes() == b"kept"  # nothing is decoded twice
    assert len({q.key for q in again}) == 34
    assert {q.key for q in again if q.inference == 0} <= {q.key for q in questions}


# Pictures


def test_a_picture_inside_a_file_and_one_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    path.write_bytes(b"0123456789")
    assert PictureFile(path, 2, 3).read() == b"234"
    with pytest.raises(BenchmarkError, match="cut off"):
        PictureFile(path, 8, 3).read()
    with pytest.raises(BenchmarkError, match="No such file"):
        PictureFile(tmp_path / "none.jpg").read()

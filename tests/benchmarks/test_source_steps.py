"""Motion's labels beside the steps that datasets bring: made files of the layouts of WGO-Bench, AgiBot and RoboCOIN."""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import source_steps
from tests.kits import step_forms
from tests.kits.agibot_writer import write_agibot
from tests.kits.lerobot_writer import number, write_v2, write_video

SPANS = (
    (0.0, 1.0, "reach for the pear"),
    (1.0, 1.8, "pick up the pear"),
    (1.8, 3.0, "place the pear in the bowl"),
)
SEGMENT = pa.struct(
    [("start_sec", pa.float64()), ("end_sec", pa.float64()), ("subtask", pa.string())]
)


def wgo_file(folder: Path, names: tuple[str, ...] = ("droid_1", "homer_2")) -> Path:
    """WGO-Bench's one table: a row per episode, with its video inside and its segments in seconds."""
    videos = []
    for k, _ in enumerate(names):
        write_video(folder / "one.mp4", [number(0, k, frame) for frame in range(30)], fps=10)
        videos.append((folder / "one.mp4").read_bytes())
    steps = [{"start_sec": a, "end_sec": b, "subtask": text} for a, b, text in SPANS]
    segments = [steps] * len(names)
    columns = {
        "id": pa.array(names),
        "video": pa.array(videos, pa.binary()),
        "instruction": pa.array(["put the pear in the bowl", ""][: len(names)]),
        "segments": pa.array(segments, pa.list_(SEGMENT)),
        "metadata": pa.array(["{}"] * len(names)),
    }
    path = folder / "annotations.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def scored(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> dict[str, list[str]]:
    """The cells of each dataset of the table that the script prints."""
    monkeypatch.setattr(sys, "argv", ["source_steps", *words])
    assert source_steps.main() == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    rows = [
        list(map(str.strip, line.strip("|").split("|"))) for line in lines if line.startswith("|")
    ]
    return {dataset: cells for dataset, *cells in rows}


def test_a_file_of_wgo_bench_becomes_videos_with_their_steps(tmp_path: Path):
    assert source_steps.unpack_wgo(wgo_file(tmp_path), tmp_path / "out") == 2
    assert sorted(f.name for f in (tmp_path / "out").glob("*.mp4")) == [
        "droid_1.mp4",
        "homer_2.mp4",
    ]
    side = json.loads((tmp_path / "out/droid_1.json").read_text())
    assert side["task"] == "put the pear in the bowl"
    assert side["steps"][1] == {"name": "pick up the pear", "start_s": 1.0, "end_s": 1.8}
    assert json.loads((tmp_path / "out/homer_2.json").read_text())["task"] is None


def test_an_id_that_is_a_path_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="is no name of a file"):
        source_steps.unpack_wgo(wgo_file(tmp_path, ("../homer_2",)), tmp_path / "out")
    assert not list(tmp_path.glob("*.mp4")) or [f.name for f in tmp_path.glob("*.mp4")] == [
        "one.mp4"
    ]


@pytest.mark.slow
def test_labels_are_scored_on_the_steps_of_each_layout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    wgo = wgo_file(tmp_path)
    agibot = tmp_path / "agibot"
    robocoin = tmp_path / "robocoin"
    write_agibot(agibot, lengths={648642: 60, 648649: 60})
    write_v2(robocoin, {0: 24, 1: 24})
    step_forms.robocoin(robocoin)
    rows = scored(capsys, monkeypatch, "--wgo", str(wgo), "--source", str(agibot), str(robocoin))
    assert {name: cells[:2] for name, cells in rows.items()} == {
        "wgo_bench": ["2", "6"],
        "agibot": ["2", "4"],
        "robocoin": ["1", "3"],
    }
    # One step of a run that people cut in three is no segment of theirs
    assert float(rows["wgo_bench"][2]) < float(rows["wgo_bench"][3])
    for cells in rows.values():
        assert all(0 <= float(cell) <= 1 for cell in cells[2:])

"""An episode as a recording for Rerun, read back with its own reader."""

from pathlib import Path

from tests.kits.tiny_lerobot import CAMERA, LENGTHS


def test_a_recording_has_pictures_labels_and_curves(client, tmp_path: Path):
    from rerun.chunk import RrdReader

    def writers() -> int:
        """Threads of Rerun's in this process."""
        return sum(
            "Recording" in name.read_text() for name in Path("/proc/self/task").glob("*/comm")
        )

    writers_before = writers()  # other tests' exports
    answer = client.get("/media/tiny/1/episode.rrd")
    assert answer.status_code == 200, answer.text
    assert writers() == writers_before
    assert 'filename="tiny-000001.rrd"' in answer.headers["content-disposition"]
    path = tmp_path / "one.rrd"
    path.write_bytes(answer.content)
    rows: dict[str, int] = {}
    for chunk in RrdReader(path).store().stream():
        rows[chunk.entity_path] = rows.get(chunk.entity_path, 0) + chunk.num_rows
    assert sum(name.startswith("/segments/") for name in rows) == 2  # of both label runs
    assert [rows[name] for name in rows if name.endswith("/ours")] == [LENGTHS[1]] * 2
    assert rows[f"/cameras/{CAMERA}"] == LENGTHS[1]
    # what was made is not kept
    assert client.get("/media/tiny/1/episode.rrd").status_code == 200

"""Recordings for Rerun, opened with its own reader."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from core.errors import UserError
from ingest.sources.files import Source
from tests.kits.files import hashes_of
from tests.kits.made_corpus import Made
from tests.kits.signal_kit import give_two_arms, signal
from tests.kits.tiny_lerobot import CAMERA, FPS, LENGTHS, write_video
from warehouse.exports import EXPORT_KINDS, source_reader
from warehouse.exports import rerun as exporter
from warehouse.exports.folder import MANIFEST, PARTIAL, Exported
from warehouse.exports.options import RerunOptions, Selection
from warehouse.lake import Lake

ALL = Selection(allow=("unknown",))


def export(lake: Lake, out: Path, selection: Selection = ALL, **options: float | int | None) -> Exported:
    return EXPORT_KINDS["rerun"].export(lake, selection, out, RerunOptions.model_validate(options))


@pytest.fixture(scope="module")
def recordings(made_lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rerun") / "out"
    export(made_lake, out)
    return out


def rows(path: Path) -> dict[str, int]:
    """Rows of each entity, by way of the index that the file ends with."""
    from rerun.chunk import RrdReader

    found: dict[str, int] = {}
    for chunk in RrdReader(path).store().stream():
        found[chunk.entity_path] = found.get(chunk.entity_path, 0) + chunk.num_rows
    return found


def columns(path: Path, entity: str) -> dict[str, list]:
    from rerun.chunk import RrdReader

    [chunk] = [c for c in RrdReader(path).stream() if c.entity_path == entity]
    return chunk.to_record_batch().to_pydict()


def test_every_entity_has_its_rows(recordings: Path, made_lake: Lake):
    from rerun.chunk import RrdReader

    for episode, n in enumerate(LENGTHS):
        path = recordings / f"tiny/{episode:06d}.rrd"
        [entry] = RrdReader(path).recordings()
        assert (entry.application_id, entry.recording_id) == ("proccorpus", f"tiny-{episode:06d}")
        [(run, count)] = made_lake.rows(
            "SELECT label_run, count(*) FROM segments WHERE episode_index = ? GROUP BY 1", [episode]
        )
        assert rows(path) == {
            "/__properties/episode": 1,
            "/task": 1,
            f"/segments/motion-{run}": count,
            f"/progress/motion-{run}/ours": n,
            f"/progress/motion-{run}/procvlm": n,
            "/gripper": n,
            f"/visual_change/{CAMERA}": n,
            f"/cameras/{CAMERA}": n,
        }


def test_values_are_those_of_the_lake(recordings: Path, made_lake: Lake):
    path = recordings / "tiny/000001.rrd"
    [(run,)] = made_lake.rows("SELECT label_run FROM active_runs WHERE episode_index = 1")
    for name, column in (("ours", "progress"), ("procvlm", "progress_procvlm")):
        found = columns(path, f"/progress/motion-{run}/{name}")
        wanted = made_lake.rows(f"SELECT {column} FROM active_progress WHERE episode_index = 1 ORDER BY frame_index")
        assert [v[0] for v in found["Scalars:scalars"]] == [r[0] for r in wanted]
        assert found["frame"] == list(range(LENGTHS[1]))
        assert [t.total_seconds() for t in found["time"]] == pytest.approx([k / FPS for k in range(LENGTHS[1])])
    log = columns(path, f"/segments/motion-{run}")
    segments = made_lake.rows("SELECT start_frame, name FROM active_segments WHERE episode_index = 1 ORDER BY 1")
    assert log["frame"] == [s[0] for s in segments]
    assert all(text[0].startswith(name) for text, (_, name) in zip(log["TextLog:text"], segments, strict=True))
    assert columns(path, "/task")["TextDocument:text"] == [["open the drawer"]]


def test_each_arm_has_a_gripper_of_its_own(own: Made, tmp_path: Path):
    lake = Lake(own.space)
    give_two_arms(lake, "tiny", signal(arm="third", is_used=False, closings_per_episode=None))
    one = Selection(datasets=("tiny",), episodes=(1,), allow=("unknown",))
    export(lake, tmp_path / "out", one, pictures_per_s=0)
    path = tmp_path / "out/tiny/000001.rrd"
    assert [name for name in sorted(rows(path)) if "gripper" in name] == ["/gripper/left", "/gripper/right"]
    opening = lake.column("SELECT gripper FROM frames WHERE episode_index = 1 ORDER BY frame_index")
    left, right = (columns(path, f"/gripper/{arm}") for arm in ("left", "right"))
    assert left["frame"] == right["frame"] == list(range(LENGTHS[1]))
    assert [v[0] for v in left["Scalars:scalars"]] == opening
    assert [v[0] for v in right["Scalars:scalars"]] == pytest.approx([1 - value for value in opening])
    assert len(set(opening)) > 2
    lake.con.close()


def test_pictures_are_the_frames(recordings: Path):
    import cv2
    import numpy as np

    found = columns(recordings / "tiny/000000.rrd", f"/cameras/{CAMERA}")
    assert found["frame"] == list(range(LENGTHS[0]))
    pictures = [
        cv2.imdecode(np.frombuffer(bytes(b[0]), np.uint8), cv2.IMREAD_COLOR) for b in found["EncodedImage:blob"]
    ]
    pictures = [picture for picture in pictures if picture is not None]
    assert len(pictures) == LENGTHS[0]
    assert {p.shape for p in pictures} == {(48, 64, 3)}
    reds = [np.argwhere((p[..., 2] > 150) & (p[..., 1] < 90))[:, 1].mean() for p in pictures]
    assert reds[0] < reds[len(reds) // 2] < reds[-1] + 30, "the square moves to the right"


def test_fewer_pictures_or_none(made_lake: Lake, tmp_path: Path):
    one = Selection(datasets=("tiny",), episodes=(0,), allow=("unknown",))
    export(made_lake, tmp_path / "few", one, pictures_per_s=1.25, max_px=32)
    assert columns(tmp_path / "few/tiny/000000.rrd", f"/cameras/{CAMERA}")["frame"] == [0, 4, 8, 12, 16, 20, 23]
    export(made_lake, tmp_path / "none", one, pictures_per_s=0)
    assert f"/cameras/{CAMERA}" not in rows(tmp_path / "none/tiny/000000.rrd")


def test_broken_off_it_goes_on(made_lake: Lake, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write, done = exporter.write_recording, []

    def broken(path: Path, *rest: Any) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(path)
        write(path, *rest)

    with monkeypatch.context() as m:
        m.setattr(exporter, "write_recording", broken)
        with pytest.raises(KeyboardInterrupt):
            export(made_lake, tmp_path / "out")
    assert (tmp_path / "out" / PARTIAL).exists()
    kept = {path: path.read_bytes() for path in tmp_path.glob("out/tiny/*.rrd")}
    assert len(kept) == 2
    export(made_lake, tmp_path / "out")
    assert {path: path.read_bytes() for path in kept} == kept, "what was whole is not written again"
    for path in recordings.glob("tiny/*.rrd"):
        assert rows(tmp_path / "out/tiny" / path.name) == rows(path)


def test_the_manifest_names_files_and_label_runs(recordings: Path, made_lake: Lake):
    told = json.loads((recordings / MANIFEST).read_text())
    assert {f["path"]: f["sha256"] for f in told["files"]} == {
        k: v for k, v in hashes_of(recordings).items() if k != MANIFEST
    }
    assert (told["release"], told["episodes"], told["frames"]) == (None, 5, sum(LENGTHS))
    runs = [r[0] for r in made_lake.rows("SELECT DISTINCT label_run FROM progress ORDER BY 1")]
    assert [r["label_run"] for r in told["label_runs"]] == runs


def test_a_source_that_changed_is_named(own: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lake = Lake(own.space, read_only=True)
    write_video(own.source, 2, 7)
    copied = Source(own.build.dataset, None, None)  # the copied lake still names the source that was copied
    monkeypatch.setattr(source_reader.SourceReader, "source", copied)
    with pytest.raises(UserError, match=r"tiny episode 2, .*front: its source"):
        export(lake, tmp_path / "out")
    lake.con.close()


@pytest.mark.parametrize("options", [{"pictures_per_s": -1}, {"max_px": 3}])
def test_options_that_make_no_sense(made_lake: Lake, tmp_path: Path, options: dict):
    with pytest.raises(ValidationError):
        export(made_lake, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()

"""What `inspect` measured is taken by a build, as long as nothing changed."""

import os
import tempfile
from pathlib import Path

import pytest

from annotate.config import FramesConfig
from annotate.frames import FramesResult, Measure, frames_stage
from annotate.measured_files import MeasuredFiles, delete_oldest, own_folder
from ingest.episodes import settled_listing
from tests.kits.lerobot_writer import FRONT, WRIST, source_of, v2_video, write_v2


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return write_v2(tmp_path / "data", [6, 7], cameras=[FRONT, WRIST])


def measured(root: Path, way: str) -> tuple[FramesResult, dict[str, bytes]]:
    source = source_of(root)
    records = settled_listing(source).records
    measure: Measure = getattr(MeasuredFiles(source), way)
    jpegs: dict[str, bytes] = {}
    config = FramesConfig(keyframe_interval_s=0.2)
    return frames_stage(source, records, 0, config, jpegs.__setitem__, measure=measure), jpegs


def test_what_was_measured_is_not_decoded_again(root):
    first, jpegs = measured(root, "measured")
    assert (first.decoded_frames, len(jpegs) > 0) == (26, True)
    repeated_result, same_jpegs = measured(root, "taken")
    assert repeated_result.decoded_frames == 0
    assert repeated_result.tables == first.tables
    assert same_jpegs == jpegs
    assert repeated_result.findings == first.findings
    assert repeated_result.fingerprints == first.fingerprints
    # A file that was written anew is another one, and half a file is none
    os.utime(v2_video(root, FRONT, 1), (1, 1))
    assert measured(root, "taken")[0].decoded_frames == 14
    folder = own_folder()
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert measured(root, "taken")[0].decoded_frames == 26


def test_a_folder_that_others_can_write_to_is_not_used(root):
    measured(root, "measured")
    folder = own_folder()
    folder.chmod(0o777)
    assert own_folder() is None
    assert measured(root, "taken")[0].decoded_frames == 26


def test_the_oldest_go(root, monkeypatch):
    measured(root, "measured")
    folder = own_folder()
    paths = sorted(folder.iterdir())
    for age, path in enumerate(paths):
        os.utime(path, (100 - age, 100 - age))
    newest_bytes = sum(path.stat().st_size for path in paths[:2])
    monkeypatch.setattr("annotate.measured_files.MAX_BYTES", newest_bytes)
    delete_oldest()
    assert sorted(folder.iterdir()) == paths[:2]

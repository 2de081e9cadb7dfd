"""The real sample datasets, with all that is wrong with them: exact counts."""

from collections import Counter
from pathlib import Path

import pytest
from lerobot_writer import said, source_of

from annotate.frames import FramesConfig, FramesResult, frames_stage
from ingest.episode import EpisodeRecord, Listing
from ingest.files import Source, SourceError
from ingest.source import list_episodes, read_episode

EGO = "observation.images.ego_view"
CAM0, CAM1 = "observation.images.cam0", "observation.images.cam1"


def usable(listing: Listing) -> list[EpisodeRecord]:
    lost = {f.episode_index for f in listing.findings if f.severity == "unusable"}
    return [r for r in listing.records if r.episode_index not in lost]


def kinds(listing: Listing) -> Counter:
    return Counter((f.reason, f.severity, f.camera) for f in listing.findings)


def measured(source: Source, records: list[EpisodeRecord]) -> FramesResult:
    return frames_stage(source, records, 0, FramesConfig(keyframe_interval_s=100), lambda sha256, jpeg: None)


def test_gr1(real_data: Path) -> None:
    source = source_of(real_data / "gr1_pick_place")
    listing = list_episodes(source)
    assert (listing.format, listing.fps, listing.robot, listing.cameras) == (
        "lerobot_v2.0",
        20.0,
        "GR1ArmsOnly",
        (EGO,),
    )
    assert kinds(listing) == {
        ("path_template", "warning", None): 2,
        ("camera_without_files", "warning", "observation.images.egoview"): 1,
    }
    assert [r.num_rows for r in usable(listing)] == [416, 470, 470, 412, 328]
    tasks = {t for r in listing.records for t in r.tasks}
    assert tasks == {
        f"pick the {thing} from the counter and place it in the plate"
        for thing in ("pear", "sweet potato", "meat", "salt", "cupcake")
    }
    result = measured(source, usable(listing))
    assert (result.findings, result.decoded_frames, result.tables["frames"].num_rows) == ([], 2096, 2096)
    assert result.tables["episode_content"]["num_frames"].to_pylist() == [416, 470, 470, 412, 328]
    assert len(set(result.tables["episode_content"]["content_hash"].to_pylist())) == 5
    first = read_episode(source, listing.records[0])
    assert first.state is not None
    assert first.timestamps_s is not None
    assert (first.state.shape, round(float(first.timestamps_s[0]), 6)) == ((416, 44), 0.05)


def test_so101(real_data: Path) -> None:
    source = source_of(real_data / "so101_bimanual_cloth")
    listing = list_episodes(source)
    assert (listing.format, listing.cameras, len(listing.records)) == ("lerobot_v2.1", (CAM0, CAM1), 25)
    assert kinds(listing) == {("no_video", "unusable", None): 21}
    assert [r.episode_index for r in usable(listing)] == [0, 10, 23, 24]
    assert sum(r.num_rows or 0 for r in usable(listing)) == 916
    assert {r.task for r in listing.records} == {"bimanual cloth manipulation"}
    result = measured(source, usable(listing))
    assert said(result.findings, reason="black_video") == [("black_video", "warning", 0, CAM0)]
    assert said(result.findings, episode_index=0) == [
        ("black_video", "warning", 0, CAM0),
        ("timestamp_drift", "warning", 0, None),
    ]
    assert {f.severity for f in result.findings} == {"warning"}
    content = result.tables["episode_content"].to_pylist()
    assert [c["usable_cameras"] for c in content] == [[CAM1], *[[CAM0, CAM1]] * 3]
    assert sum(c["num_frames"] for c in content) == 916
    assert result.decoded_frames == 2 * 916


def test_piper(real_data: Path) -> None:
    listing = list_episodes(source_of(real_data / "piper_v3_no_videos"))
    assert (listing.format, listing.cameras, len(listing.records)) == ("lerobot_v3.0", (), 55)
    assert said(listing) == [("no_video", "unusable", e, None) for e in range(55)]
    assert sum(r.num_rows or 0 for r in listing.records) == 13331
    assert [r.data_uri for r in listing.records][7:9] == [f"data/chunk-000/file-00{k}.parquet" for k in (0, 1)]
    assert {r.task for r in listing.records} == {"Put the grape on the white plate."}


def test_franka(real_data: Path) -> None:
    listing = list_episodes(source_of(real_data / "franka_pickplace_v3_no_data"))
    assert (listing.format, len(listing.records), usable(listing)) == ("lerobot_v3.0", 10, [])
    assert said(listing, severity="unusable") == [("no_data", "unusable", e, None) for e in range(10)]
    assert said(listing, severity="warning") == [("stray_file", "warning", None, None)]


@pytest.mark.parametrize("name", ["xarm_hdf5_no_images"])
def test_formats_that_are_not_read_here(real_data: Path, name: str) -> None:
    with pytest.raises(SourceError, match="in no format that is read here"):
        list_episodes(source_of(real_data / name))

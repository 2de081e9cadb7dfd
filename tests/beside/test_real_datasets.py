"""Whole real datasets, with all that is wrong with them: exact counts."""

from collections import Counter
from pathlib import Path

import pytest

from ingest.episode import EpisodeRecord
from ingest.identity import settle
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source
from tests.kits.cli_kit import ok, proccorpus, rows
from tests.kits.lerobot_writer import said, source_of
from tests.kits.real_data import BESIDE, kinds, measured, usable
from tests.kits.signal_kit import only_signal

DATA = BESIDE / "data"
EGO = "observation.images.ego_view"
CAM0, CAM1 = "observation.images.cam0", "observation.images.cam1"


def test_gr1() -> None:
    source = source_of(DATA / "gr1_pick_place")
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


@pytest.mark.slow
def test_gr1_is_built_in_full(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    ok(proccorpus("build", "--source", DATA / "gr1_pick_place", "--name", "gr1", cwd=tmp_path, workspace=workspace))
    (row,) = ok(proccorpus("status", "--format", "json", cwd=tmp_path, workspace=workspace)).json["datasets"]
    counts = {"episodes": 5, "ok": 5, "quarantined": 0, "frames": 2096, "labelled_frames": 2096}
    assert {k: row[k] for k in counts} == counts
    assert rows(workspace, "SELECT count(*) FROM episodes WHERE 'valid' = ANY(tasks)") == [(0,)]


def test_so101() -> None:
    source = source_of(DATA / "so101_bimanual_cloth")
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
        ("frame_rate", "warning", 0, None),
    ]
    assert {f.severity for f in result.findings} == {"warning"}
    content = result.tables["episode_content"].to_pylist()
    assert [c["usable_cameras"] for c in content] == [[CAM1], *[[CAM0, CAM1]] * 3]
    assert sum(c["num_frames"] for c in content) == 916
    assert result.decoded_frames == 2 * 916
    # wall-clock times: 18.5 fps where 20 is stated. By the measured rate rows leave their frame by 0.02 s at most, by
    # the stated one by 1.4 s
    assert [c["fps"] for c in content] == [18.543, 18.571, 18.469, 18.431]
    assert max(c["max_drift_s"] for c in content) < 0.021


def test_piper() -> None:
    listing = list_episodes(source_of(DATA / "piper_v3_no_videos"))
    assert (listing.format, listing.cameras, len(listing.records)) == ("lerobot_v3.0", (), 55)
    assert said(listing) == [("no_video", "unusable", e, None) for e in range(55)]
    assert sum(r.num_rows or 0 for r in listing.records) == 13331
    assert [r.data_uri for r in listing.records][7:9] == [f"data/chunk-000/file-00{k}.parquet" for k in (0, 1)]
    assert {r.task for r in listing.records} == {"Put the grape on the white plate."}


def test_franka() -> None:
    listing = list_episodes(source_of(DATA / "franka_pickplace_v3_no_data"))
    assert (listing.format, len(listing.records), usable(listing)) == ("lerobot_v3.0", 10, [])
    assert said(listing, severity="unusable") == [("no_data", "unusable", e, None) for e in range(10)]
    assert said(listing, severity="warning") == [("stray_file", "warning", None, None)]


def test_bridge() -> None:
    """Train and val hold the same 25 episodes, and the fourth camera is black."""
    source = source_of(DATA / "bridge_rlds")
    listing = settle(list_episodes(source), source.config, {})
    assert (listing.format, len(listing.records), len(usable(listing))) == ("rlds", 50, 25)
    assert kinds(listing) == {
        ("duplicate_episode", "unusable", None): 25,
        ("no_frame_rate", "warning", None): 1,
        ("never_ends", "warning", None): 1,
    }
    assert Counter(r.task for r in usable(listing)) == {
        "put carrot on plate": 8,
        "put cup from counter or drying rack into sink": 6,
        "turn lever vertical to front": 6,
        "flip pot upright which is in sink": 5,
    }
    assert {(r.num_rows, r.success, r.fps) for r in listing.records} == {(10, None, 10.0)}
    result = measured(source, usable(listing))
    assert Counter((f.reason, f.severity, f.camera) for f in result.findings) == {
        ("black_video", "warning", "image_3"): 25
    }
    content = result.tables["episode_content"].to_pylist()
    assert {(c["num_frames"], *c["usable_cameras"]) for c in content} == {(10, "image_0", "image_1", "image_2")}
    assert (result.decoded_frames, len({c["content_hash"] for c in content})) == (25 * 4 * 10, 25)
    first = read_episode(source, usable(listing)[0])
    assert first.state is not None
    assert first.state.shape == (10, 7)


def test_xarm() -> None:
    source = source_of(DATA / "xarm_hdf5_no_images")
    listing = list_episodes(source)
    assert (listing.format, len(listing.records), usable(listing)) == ("hdf5", 1, [])
    assert said(listing, severity="unusable") == [("no_video", "unusable", 0, None)]
    assert listing.findings[0].detail == (
        "no pictures that can be read among its 6 datasets: end_position, gripper_state, step, timestamp, "
        "transformed_hand_coords, transformed_hand_frames"
    )
    # The recorder wrote 1 for its gripper in every row
    episode = read_episode(source, listing.records[0])
    assert episode.state is not None
    assert episode.state.shape == (158, 7)
    assert (episode.state[:, 6] == 1).all()


def test_bridge_widowx() -> None:
    """Videos with an array of actions each. Their headers say 20 fps; the robot was recorded at 5."""
    source = source_of(DATA / "bridge_widowx_mp4npz", fps=5)
    listing = list_episodes(source)
    assert (listing.format, kinds(listing)) == ("video", {("no_task", "warning", None): 10})
    assert sum(r.num_rows or 0 for r in listing.records) == 355
    assert all(shape_of_action(source, record) == (record.num_rows, 10) for record in listing.records)
    # 1 closes; of ten runs one closes and never opens, two never close
    signal = only_signal(source)
    assert (signal.column, signal.dimensions, signal.polarity) == ("action", (6,), "high_is_closed")
    assert (signal.closings_per_episode, signal.is_used) == (0.8, True)


def shape_of_action(source: Source, record: EpisodeRecord) -> tuple[int, ...]:
    action = read_episode(source, record).action
    assert action is not None
    return action.shape

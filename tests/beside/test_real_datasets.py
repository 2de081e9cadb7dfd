"""Whole real datasets, with all that is wrong with them: exact counts."""

from ingest.source import list_episodes, read_episode
from tests.kits.lerobot_writer import said, source_of
from tests.kits.real_data import BESIDE, kinds, measured, usable

DATA = BESIDE / "data"
CAM0 = "observation.images.cam0"
CAM1 = "observation.images.cam1"


def test_so101():
    source = source_of(DATA / "so101_bimanual_cloth")
    listing = list_episodes(source)
    assert (listing.format, listing.cameras, len(listing.records)) == (
        "lerobot_v2.1",
        (CAM0, CAM1),
        25,
    )
    assert kinds(listing) == {("no_video", "unusable", None): 21}
    assert [r.episode_index for r in usable(listing)] == [0, 10, 23, 24]
    assert sum(r.num_rows or 0 for r in usable(listing)) == 916
    assert {r.task for r in listing.records} == {"bimanual cloth manipulation"}
    result = measured(source, usable(listing))
    assert said(result.findings, reason="camera_black") == [("camera_black", "warning", 0, CAM0)]
    assert said(result.findings, episode_index=0) == [
        ("camera_black", "warning", 0, CAM0),
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


def test_franka():
    listing = list_episodes(source_of(DATA / "franka_pickplace_v3_no_data"))
    assert (listing.format, len(listing.records), usable(listing)) == ("lerobot_v3.0", 10, [])
    assert said(listing, severity="unusable") == [
        ("no_data", "unusable", e, None) for e in range(10)
    ]
    assert said(listing, severity="warning") == [("stray_file", "warning", None, None)]


def test_xarm():
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

"""Real bytes of other people's datasets, with all that is odd in them: exact counts."""

from collections import Counter

from ingest.identity import settle
from ingest.source import list_episodes, read_episode
from tests.kits.lerobot_writer import source_of
from tests.kits.real_data import BRIDGE, GR1, kinds, measured, usable
from tests.kits.signal_kit import only_signal, places_of, signals_of

EGO = "observation.images.ego_view"


def test_gr1() -> None:
    """One of five episodes, whose path templates lead elsewhere; the task "valid" is a mark of quality."""
    source = source_of(GR1)
    listing = settle(list_episodes(source), source.config, {})
    assert (listing.format, listing.fps, listing.robot, listing.cameras) == (
        "lerobot_v2.0",
        20.0,
        "GR1ArmsOnly",
        (EGO,),
    )
    assert kinds(listing) == {
        ("path_template", "warning", None): 2,
        ("camera_without_files", "warning", "observation.images.egoview"): 1,
        ("index_gap", "warning", None): 1,
    }
    (record,) = usable(listing)
    assert (record.episode_index, record.num_rows) == (4, 328)
    assert record.tasks == ("pick the cupcake from the counter and place it in the plate",)
    result = measured(source, [record])
    assert (result.findings, result.decoded_frames, result.tables["frames"].num_rows) == ([], 328, 328)
    assert result.tables["episode_content"]["num_frames"].to_pylist() == [328]
    episode = read_episode(source, record)
    assert episode.state is not None
    assert episode.timestamps_s is not None
    assert (episode.state.shape, round(float(episode.timestamps_s[0]), 6)) == ((328, 44), 0.05)
    # Of the two hands the right one grasps, once; the left one is at rest. modality.json says where they are
    left, right = signals_of(source)
    assert (left.title, left.dimensions, left.is_used) == ("left hand", (*range(7, 13),), False)
    assert (right.title, right.dimensions, right.is_used) == ("right hand", (*range(29, 35),), True)
    assert (right.located_by, right.polarity, right.closings_per_episode) == ("modality.json", "high_is_closed", 1.0)


def test_bridge() -> None:
    """Train and val hold the same four episodes, has_image_* are 0 although there are pictures; one camera is black."""
    source = source_of(BRIDGE, gripper={"column": "action", "dimension": 6})
    listing = list_episodes(source)
    cameras = ("image_0", "image_1", "image_2", "image_3")
    assert (listing.format, listing.fps, listing.cameras) == ("rlds", 10.0, cameras)
    assert (len(listing.records), len({r.source_id for r in listing.records})) == (8, 4)
    assert {(r.num_rows, r.success, r.fps) for r in listing.records} == {(10, None, 10.0)}
    settled = settle(listing, source.config, {})
    assert kinds(settled) == {
        ("duplicate_episode", "unusable", None): 4,
        ("no_frame_rate", "warning", None): 1,
        ("never_ends", "warning", None): 1,
    }
    kept = usable(settled)
    assert Counter(r.task for r in kept) == {
        "put carrot on plate": 1,
        "put cup from counter or drying rack into sink": 1,
        "turn lever vertical to front": 1,
        "flip pot upright which is in sink": 1,
    }
    result = measured(source, kept)
    assert Counter((f.reason, f.severity, f.camera) for f in result.findings) == {
        ("black_video", "warning", "image_3"): 4
    }
    content = result.tables["episode_content"].to_pylist()
    assert {(c["num_frames"], *c["usable_cameras"]) for c in content} == {(10, "image_0", "image_1", "image_2")}
    assert (result.decoded_frames, len({c["content_hash"] for c in content})) == (4 * 4 * 10, 4)
    first = read_episode(source, kept[0])
    assert first.state is not None
    assert first.action is not None
    assert (first.state.shape, first.action.shape) == ((10, 7), (10, 7))
    assert places_of(source) == [("gripper", "action", (6,))]
    assert {*first.action[:, 6]} <= {0.0, 1.0}
    # Without the entry it is found by its values; SOURCE.md says from whom it is that 1 is open
    signal = only_signal(source_of(BRIDGE))
    assert (signal.column, signal.dimensions, signal.located_by) == ("state", (6,), "values")
    assert (signal.polarity, signal.open > signal.closed) == ("high_is_open", True)
    assert next(first.frames("image_0"))[2].rgb().shape == (64, 64, 3)

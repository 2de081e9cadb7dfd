"""A source that moved, was corrected, was half away for a night, or is another one: what a build makes of it."""

import json
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.kits import lerobot_writer as le
from tests.kits import words_kit
from tests.kits.cli_kit import USAGE, Result, assert_one_error_line, write_configs
from tests.kits.kept_workspaces import FOLDER, KEPT
from tests.kits.small_sources import (
    NAMES,
    RECORDINGS,
    Recording,
    write_v2,
    write_videos,
)
from tests.kits.words_kit import LICENCE, Case, checked

pytestmark = pytest.mark.slow

SEGMENTS = (
    "SELECT episode_index, segment_index, name, start_frame, end_frame, kind, completed FROM active_segments "
    "WHERE dataset = ? ORDER BY 1, 2"
)
FEW = RECORDINGS[:6]
NIGHT = '[release]\nlicences = ["unknown"]'
ASKED = 3  # exit code of a night that left a dataset as it was


@pytest.fixture
def case(tmp_path) -> Case:
    """An empty workspace; the source is still to be written."""
    return Case("lerobot_v2", tmp_path, tmp_path / "source")


def built(case: Case, *words: object) -> Result:
    return checked(case.run("build", *words, "--workers", 1))


def build_first(case: Case, name: str = "arm") -> Result:
    return built(case, "--source", case.source, "--name", name)


def a_night(case: Case, config: Path) -> None:
    """A night's run builds what changed and releases it."""
    checked(case.run("nightly", "--config", config, "--workers", 1))
    assert case.rows("SELECT name FROM releases") == [("nightly",)]


def night_config(case: Case, source: Path) -> Path:
    return write_configs(case.folder / "night", {"arm": f"source: {source}\n"}, NIGHT)


def say_outcome(case: Case, column: str, value: object, dataset: str = "arm") -> None:
    path = case.folder / "seen.csv"
    path.write_text(f"{column},success,note\n{value},false,dropped\n")
    checked(case.run("say", "outcome", dataset, "--set", f"file={path}", "--author", "anna"))


def outcomes(case: Case, dataset: str = "arm") -> list[tuple]:
    """Episode and name in the source of each run of which a person's
    outcome is shown."""
    return case.rows(
        "SELECT episode_index, source_id FROM episodes WHERE dataset = ? AND starts_with(success_source, 'person: ') "
        "AND NOT success ORDER BY 1",
        [dataset],
    )


def test_a_moved_folder_is_read_where_it_lies_now(case):
    first = case.folder / "first disk/data"
    second = case.folder / "second disk/data"
    write_v2(first, FEW)
    built(case, "--source", first, "--name", "arm")
    say_outcome(case, "episode_index", 1)
    built(case, "--dataset", "arm")
    digest = checked(case.run("show", "digest")).out
    second.parent.mkdir()
    first.rename(second)
    absent = case.run("build", "--dataset", "arm", "--workers", 1)
    assert absent.code
    assert "no such file or folder" in absent.err

    built(case, "--source", second, "--name", "arm")
    second_build = built(case, "--dataset", "arm")
    assert "no such file" not in second_build.out + second_build.err
    assert case.rows("SELECT source_uri FROM datasets") == [(str(second),)]
    [(config,)] = case.rows("SELECT config FROM build_configs WHERE dataset = 'arm'")
    assert str(second) in config
    assert str(first) not in config
    assert outcomes(case) == [(1, "episode_000001")]
    assert checked(case.run("show", "digest")).out == digest
    checked(
        case.run("export", "lerobot", "--dataset", "arm", "--out", case.folder / "export", *LICENCE)
    )
    doctor = checked(case.run("doctor"))
    assert str(first) not in doctor.out + doctor.err


def reverse_state(root: Path) -> None:
    """The columns of the state in the other order, and their names
    in info.json with them."""
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["observation.state"]["names"].reverse()
    le.write_info(root, **info)
    for path in sorted((root / "data").glob("*/*.parquet")):
        rows = np.array(pq.ParquetFile(path).read()["observation.state"].to_pylist(), np.float32)
        column = pa.array(rows[:, ::-1].tolist(), pa.list_(pa.float32(), len(NAMES)))
        le.edit_parquet(path, **{"observation.state": column})


def test_reordered_columns_are_surveyed_anew(case):
    write_v2(case.source, FEW)
    build_first(case)
    signals = 'SELECT signal_index, "column", dimensions, names, closed, open FROM signals WHERE dataset = ? ORDER BY 1'
    segments_before = case.rows(SEGMENTS, ["arm"])
    assert any("gripper" in str(row) for row in case.rows(signals, ["arm"])), (
        "without a gripper nothing is tested"
    )
    reverse_state(case.source)
    built(case, "--dataset", "arm", *accepted(case))
    fresh = Case("lerobot_v2", case.folder / "fresh", case.source)
    fresh.folder.mkdir()
    build_first(fresh)
    assert case.rows(signals, ["arm"]) == fresh.rows(signals, ["arm"])
    # Recordings with other rows have numbers of their own
    segments = case.rows(SEGMENTS, ["arm"])
    first = segments[0][0]
    from_zero = [(number - first, *values) for number, *values in segments]
    assert from_zero == fresh.rows(SEGMENTS, ["arm"])
    assert len(segments_before) == len(from_zero)
    progress = "SELECT episode_index, frame_index, progress FROM active_progress ORDER BY 1, 2"
    assert [(number - first, *values) for number, *values in case.rows(progress)] == fresh.rows(
        progress
    )


def accepted(case: Case) -> Sequence[str]:
    """The option that a build asks for, if it does."""
    refusal = case.run("build", "--dataset", "arm", "--workers", 1)
    if refusal.code == 0:
        return ()
    assert refusal.code == USAGE, refusal
    assert "--accept-changes" in refusal.err, refusal
    return ("--accept-changes",)


def put_videos(case: Case, everything: Path, names: Sequence[str]) -> None:
    """The source has these videos of a folder of all, and no others."""
    case.source.mkdir(exist_ok=True)
    for path in case.source.glob("*.mp4"):
        if path.name not in names:
            path.unlink()
    for name in names:
        if not (case.source / name).exists():
            shutil.copy2(everything / name, case.source / name)


def test_videos_that_are_away_for_a_build_come_back_to_their_splits(case):
    runs = [Recording(40 + k, 36 + k % 3 * 4) for k in range(8)]
    everything = write_videos(case.folder / "all", runs)
    names = sorted(path.name for path in everything.glob("*.mp4"))
    put_videos(case, everything, names[:6])
    build_first(case)
    put_videos(case, everything, names)
    built(case, "--dataset", "arm")
    say_outcome(case, "source_id", names[3])
    built(case, "--dataset", "arm")
    splits = "SELECT e.episode_index, e.source_id, s.split FROM episodes e JOIN splits s USING (dataset, episode_index)"
    splits_before = sorted(case.rows(splits))
    assert len({split for _, _, split in splits_before}) > 1

    put_videos(case, everything, [*names[1:4], *names[5:6]])
    built(case, "--dataset", "arm", *accepted(case))
    away = sorted(case.rows(splits))
    assert {*away} < {*splits_before}, "those that stay keep number and split"
    put_videos(case, everything, names)
    built(case, "--dataset", "arm", *accepted(case))
    assert sorted(case.rows(splits)) == splits_before
    assert outcomes(case) == [(3, names[3])]


def assert_nothing_left(case: Case, withdrawn: int) -> None:
    """No label run of the only dataset has a row of an episode."""
    for table in words_kit.DERIVED:
        withdrawn_rows = case.rows(
            f"SELECT 1 FROM {table} WHERE episode_index = ? LIMIT 1", [withdrawn]
        )
        assert withdrawn_rows == [], f"{table} has rows of the withdrawn run"


def assert_released(case: Case, withdrawn: int | None = None) -> None:
    """A release can be made, the doctor finds nothing wrong, and no
    label run has a row of a withdrawn episode."""
    if withdrawn is not None:
        assert_nothing_left(case, withdrawn)
    checked(case.run("doctor"))
    checked(case.run("release", "create", "after", *LICENCE))
    if withdrawn is not None:
        assert words_kit.shown_in_release(case, "after").isdisjoint({RECORDINGS[withdrawn].serial})


@pytest.mark.parametrize(
    "later", [pytest.param("takedown", marks=pytest.mark.long), "shorter recording"]
)
def test_a_release_can_be_made_after_an_import_and(case, later):
    write_v2(case.source, FEW)
    build_first(case)
    signals = case.folder / "signals.parquet"
    checked(case.run("export", "frame-signals", "--out", signals, "--dataset", "arm", *LICENCE))
    checked(case.run("import", "frame-signals", signals, "--name", "arm"))
    imported = case.rows("SELECT count(*) FROM episode_labels l JOIN label_runs USING (label_run) WHERE l.dataset = "
                         "'arm' AND annotator = 'imported' AND episode_index = 4")  # fmt: skip
    assert imported == [(1,)]
    if later == "takedown":
        checked(case.run("takedown", "arm", "--episodes", 4, "--reason", "withdrawn"))
    else:
        write_v2(case.source, [*FEW[:4], FEW[4].without_last(12), *FEW[5:]])
    a_night(case, night_config(case, case.source))
    assert_released(case, 4 if later == "takedown" else None)


# The upgrade of the first takes all steps of the others
@pytest.mark.parametrize(
    "version", [pytest.param(v, marks=[pytest.mark.long] * (k > 0)) for k, v in enumerate(KEPT)]
)
def test_a_release_can_be_made_after_an_upgrade_and_a_takedown(tmp_path, version):
    with tarfile.open(FOLDER / f"{version}.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    case = Case("lerobot_v2", tmp_path, tmp_path / "source")
    checked(case.run("upgrade"))
    checked(case.run("takedown", "tiny", "--episodes", 1, "--reason", "withdrawn"))
    a_night(case, write_configs(tmp_path / "night", {"tiny": f"source: {case.source}\n"}, NIGHT))
    assert len(case.rows("SELECT DISTINCT label_run FROM progress")) > 1
    assert_nothing_left(case, 1)
    checked(case.run("doctor"))
    checked(case.run("release", "create", "after", *LICENCE))


def another_robot(root: Path) -> Path:
    """Five runs of a robot with other rows, other pictures and another name."""
    le.write_v2(root, [24, 30, 26, 22, 28], tasks=("pick the cup", "place it"))
    return root


def test_a_name_in_use_is_not_taken_by_another_robot_unasked(case):
    write_v2(case.source, FEW)
    build_first(case)
    say_outcome(case, "episode_index", 1)
    checked(case.run("takedown", "arm", "--episodes", 3, "--reason", "withdrawn"))
    built(case, "--dataset", "arm")
    digest_before = checked(case.run("show", "digest")).out
    other_source = another_robot(case.folder / "other")
    refused = case.run("build", "--source", other_source, "--name", "arm", "--workers", 1)
    assert refused.code == USAGE, refused
    assert "--accept-changes" in assert_one_error_line(refused)
    night = case.run("nightly", "--config", night_config(case, other_source), "--workers", 1)
    assert night.code == ASKED, night
    assert "--accept-changes" in night.err
    assert checked(case.run("show", "digest")).out == digest_before, (
        "nothing is changed until a person accepts it"
    )

    built(case, "--source", other_source, "--name", "arm", "--accept-changes")
    episode_rows = case.rows(
        "SELECT episode_index, status, success, reason FROM episodes ORDER BY 1"
    )
    first = len(FEW)
    assert [row[0] for row in episode_rows] == [*range(first, first + 5)], (
        "new recordings, new numbers"
    )
    assert [row for row in episode_rows if row[1] != "ok" or row[2] is not None] == []
    assert case.rows("FROM current_outcomes") == []
    assert case.rows("FROM current_takedowns") == []
    fresh = Case("lerobot_v2", case.folder / "fresh", other_source)
    fresh.folder.mkdir()
    build_first(fresh)
    segments = [(number - first, *rest) for number, *rest in case.rows(SEGMENTS, ["arm"])]
    assert segments == fresh.rows(SEGMENTS, ["arm"]), "another robot's grippers label these runs"

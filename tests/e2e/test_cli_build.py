"""`proccorpus build`: from a config or a folder, again, with more workers, moved and copied."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import source_build
from tests.kits.cli_kit import (
    DONE,
    FAILED,
    STAGES,
    Built,
    Result,
    assert_one_error_line,
    built_in_process,
    digest_of,
    files_sha256,
    ok,
    proccorpus,
    rows,
    snapshot_of,
    write_config,
)
from tests.kits.tiny_lerobot import LENGTHS, TASKS, rows_path, video_path
from warehouse.shards import read_samples

Build = Callable[..., Result]


def test_a_config_with_a_registry_folder_is_built_chunk_by_chunk(built: Built) -> None:
    done = rows(built.workspace, "SELECT stage, chunk FROM stage_runs")
    for stage in STAGES[1:]:
        assert sorted(chunk for s, chunk in done if s == stage) == [0, 1, 2]
    assert sorted(chunk for s, chunk in done if s == "episodes") == [-1, 0, 1, 2]
    assert f"{len(done) - 3} stages run, 0 were up to date." in built.result.out
    assert "tiny: gripper: state[2] gripper, 0..1, " in built.result.out
    frames = rows(built.workspace, "SELECT episode_index, num_frames, task FROM episodes ORDER BY 1")
    assert frames == [(e, n, TASKS[e % 2]) for e, n in enumerate(LENGTHS)]


def test_every_frame_is_labelled_once_and_every_sample_can_be_read(built: Built) -> None:
    labelled = rows(
        built.workspace,
        "SELECT episode_index, count(DISTINCT frame_index), count(*), min(progress) >= 0, max(progress) <= 1 "
        "FROM active_progress GROUP BY 1 ORDER BY 1",
    )
    assert labelled == [(e, n, n, True, True) for e, n in enumerate(LENGTHS)]
    assert_every_sample_can_be_read(built.workspace)


def assert_every_sample_can_be_read(workspace: Path) -> None:
    wanted = {r[0] for r in rows(workspace, "SELECT sample_id FROM samples")}
    found = list(read_samples(sorted((workspace / "shards").rglob("*.tar"))))
    assert {s.row["sample_id"] for s in found} == wanted
    assert wanted
    assert all(p.startswith(b"\xff\xd8") for s in found for p in s.pictures), "JPEGs"


def test_building_again_does_nothing(own: Built, build: Build, away: Path) -> None:
    before, snapshot = digest_of(own.workspace), snapshot_of(own.workspace)
    again = ok(build(own.config, own.workspace))
    assert again.out.startswith("Everything is up to date")
    digest = ok(proccorpus("digest", "--format", "json", cwd=away, workspace=own.workspace))
    assert digest.json == before
    assert snapshot_of(own.workspace) == snapshot, "nothing was published again"


@pytest.mark.slow
def test_two_workers_make_the_same_bytes_as_one(built: Built, build: Build, away: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "two"
    ok(build(built.config, workspace, "--workers", 2))
    digest = ok(proccorpus("digest", "--format", "json", cwd=away, workspace=workspace)).json
    assert digest == digest_of(built.workspace)
    for folder, pattern in (("shards", "*.tar"), ("shards", "*.json"), ("keyframes", "*.jpg")):
        one = files_sha256(built.workspace / folder, pattern)
        assert files_sha256(workspace / folder, pattern) == one
        assert one


def test_source_and_name_make_a_dataset_wherever_the_source_lies(source: Path, away: Path, tmp_path: Path) -> None:
    """Here of plain video files, one of them with a task; the camera's name sorts behind that of the samples."""
    (away / "videos").mkdir()
    for episode, name in ((0, "first"), (1, "second")):
        shutil.copy(video_path(source, episode), away / "videos" / f"{name}.mp4")
    (away / "videos" / "first.json").write_text('{"task": "wipe the table"}')
    elsewhere = (source_build(shutil.copytree(away / "videos", tmp_path / "copied"), "mine", None, None),)
    workspace = tmp_path / "workspace"
    ok(proccorpus("build", "--source", "videos", "--name", "mine", "--workers", 1, cwd=away, workspace=workspace))
    assert digest_of(workspace) == built_in_process(elsewhere, tmp_path / "reference")
    assert rows(workspace, "SELECT dataset, source_uri FROM datasets") == [("mine", str(away / "videos"))]
    found = rows(workspace, "SELECT source_id, task, num_frames, status FROM episodes ORDER BY episode_index")
    assert found == [("first.mp4", "wipe the table", LENGTHS[0], "ok"), ("second.mp4", None, LENGTHS[1], "ok")]
    assert_every_sample_can_be_read(workspace)


def test_a_folder_that_holds_datasets_is_those_datasets(source: Path, away: Path, tmp_path: Path) -> None:
    for name in ("cubes", "more/Red Cubes"):
        shutil.copytree(source, away / "held" / name)
    workspace = tmp_path / "workspace"
    build = ("build", "--source", "held", "--episodes", "0", "--workers", 1)
    result = proccorpus(*build, cwd=away, workspace=workspace)
    assert (result.code, result.err) == (DONE, f"note: {away}/held holds 2 datasets: cubes, red_cubes\n")
    assert rows(workspace, "SELECT dataset, source_uri FROM datasets ORDER BY 1") == [
        ("cubes", str(away / "held/cubes")),
        ("red_cubes", str(away / "held/more/Red Cubes")),
    ]
    shown = ok(proccorpus("inspect", "held", cwd=away)).out
    assert "held holds 2 datasets" in shown
    assert "proccorpus build --source held" in shown


def test_a_moved_workspace_answers_and_is_up_to_date(built: Built, build: Build, away: Path, tmp_path: Path) -> None:
    before, digest = built.workspace, digest_of(built.workspace)
    hidden = before.rename(before.with_name("hidden"))  # so that nothing can be read from where it was built
    try:
        moved = shutil.copytree(hidden, tmp_path / "moved" / "deeper")
        assert ok(proccorpus("digest", "--format", "json", cwd=away, workspace=moved)).json == digest
        assert ok(
            proccorpus("sql", "SELECT count(*) AS n FROM frames", "--format", "json", cwd=away, workspace=moved)
        ).json == [{"n": sum(LENGTHS)}]
        assert ok(build(built.config, moved)).out.startswith("Everything is up to date")
        assert not before.exists()
    finally:
        hidden.rename(before)


def test_the_workspace_comes_from_the_environment_or_the_folder(built: Built, away: Path) -> None:
    (away / "workspace").symlink_to(built.workspace)
    expected = ok(proccorpus("status", "--format", "json", cwd=away, workspace=built.workspace)).json
    named = ok(proccorpus("status", "--format", "json", cwd=away.parent, PROCCORPUS_WORKSPACE=str(built.workspace)))
    assert named.json == expected
    assert ok(proccorpus("status", "--format", "json", cwd=away)).json == expected


@pytest.fixture(scope="module")
def spoiled(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A dataset with a text file for the video of episode 1 and half a Parquet file for episode 4, built."""
    folder = tmp_path_factory.mktemp("spoiled")
    bad = shutil.copytree(source, folder / "source")
    video_path(bad, 1).write_text("this is no video\n")
    rows_path(bad, 4).write_bytes(rows_path(bad, 4).read_bytes()[:200])
    workspace = folder / "workspace"
    result = proccorpus("build", "--source", bad, "--name", "spoiled", "--workers", 1, cwd=folder, workspace=workspace)
    return result, workspace


def test_bad_episodes_do_not_stop_a_build(spoiled: tuple[Result, Path]) -> None:
    result, workspace = spoiled
    ok(result)
    labelled = rows(workspace, "SELECT episode_index, count(*) FROM active_progress GROUP BY 1 ORDER BY 1")
    assert labelled == [(e, LENGTHS[e]) for e in (0, 2, 3)]
    status = ok(proccorpus("status", "--format", "json", cwd=workspace.parent, workspace=workspace)).json
    good = sum(LENGTHS[e] for e in (0, 2, 3))
    (row,) = status["datasets"]
    counts = {"episodes": 5, "ok": 3, "quarantined": 2, "frames": good, "labelled_frames": good}
    assert {k: row[k] for k in counts} == counts


def test_quarantine_names_each_bad_episode_with_its_reason(spoiled: tuple[Result, Path]) -> None:
    _, workspace = spoiled
    found = ok(proccorpus("quarantine", "--format", "json", cwd=workspace.parent, workspace=workspace)).json
    assert [set(r) for r in found] == [{"dataset", "episode_index", "camera", "reason", "detail", "file"}] * 2
    assert [(r["dataset"], r["episode_index"], r["reason"]) for r in found] == [
        ("spoiled", 1, "undecodable_video"),
        ("spoiled", 4, "unreadable_data"),
    ]
    assert found[0]["camera"] == "observation.images.front"
    assert [Path(r["file"]).name for r in found] == ["episode_000001.mp4", "episode_000004.parquet"]
    assert all(r["detail"] for r in found)


def test_recognised_sources_without_a_usable_episode_leave_their_findings(build: Build, tmp_path: Path) -> None:
    """A text file named .mp4 (alone, and in a folder) and an empty meta folder."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "run.mp4").write_text("this is no video\n")
    (tmp_path / "empty" / "meta").mkdir(parents=True)
    sources = {"alone": tmp_path / "text" / "run.mp4", "folder": tmp_path / "text", "meta": tmp_path / "empty"}
    for name, path in sources.items():
        config = write_config(tmp_path / "project", path, name=name)
    config.write_text(f'datasets = {list(sources)}\nregistry = ["registry"]\n')
    workspace = tmp_path / "workspace"
    result = build(config, workspace, "--workers", 1)
    assert result.code == FAILED
    assert_one_error_line(result)
    found = rows(workspace, "SELECT dataset, episode_index, reason, file FROM quarantine ORDER BY 1")
    assert found == [
        ("alone", 0, "undecodable_video", "run.mp4"),
        ("folder", 0, "undecodable_video", "run.mp4"),
        ("meta", None, "no_metadata", "meta/info.json"),
    ]
    assert rows(workspace, "SELECT sum(ok), sum(labelled_frames), sum(samples) FROM coverage") == [(0, 0, 0)]

"""What the query commands print: shapes that scripts rely on, complete answers, and every output format."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from core.paths import ROOT, Workspace
from tests.kits.cli_kit import (
    PROGRAM,
    Built,
    Result,
    command,
    environment,
    ok,
    rows,
    snapshot_of,
)
from tests.kits.embedded import embed
from tests.kits.lerobot_writer import frame_keys
from tests.kits.patience import PATIENCE_S
from tests.kits.tiny_lerobot import CAMERA, FPS, LENGTHS, TASKS, rows_path, video_path
from warehouse.lake import Lake

FRAMES = sum(LENGTHS)
Ask = Callable[..., Result]


@pytest.fixture
def ask(built: Built, away: Path) -> Ask:
    """A command on the built workspace that has to answer."""

    def run(*arguments: object) -> Result:
        return ok(command(*arguments, cwd=away, workspace=built.workspace))

    return run


def test_status(built, ask):
    samples, shards, assumed = rows(
        built.workspace,
        "SELECT (SELECT count(*) FROM samples), (SELECT count(*) FROM shards), "
        "(SELECT count(*) FROM label_quality WHERE end_by = 'assumed')",
    )[0]
    assert ask("status", "--format", "json").json == {
        "workspace": str(built.workspace),
        "snapshot": snapshot_of(built.workspace),
        "datasets": [
            {
                "dataset": "tiny",
                "episodes": 5,
                "ok": 5,
                "quarantined": 0,
                "unlabelled": 0,
                "frames": FRAMES,
                "labelled_frames": FRAMES,
                "labels": "motion: 5 of 5 episodes",
                "samples": samples,
                "shards": shards,
                "outcomes_known": 0,
                "assumed_complete": assumed,
                "look_unfinished": 5 - assumed,
                "stale_chunks": 0,
                "revision": None,
                "embeddings": None,
            }
        ],
    }
    assert samples > 0
    assert shards > 0


def test_datasets_lists_registry_and_workspace(ask):
    listed = ask("datasets", "--format", "json").json
    listed_by_name = {r["dataset"]: r for r in listed}
    assert len(listed) == len(listed_by_name) == 45, "42 published, two of ours, and tiny"
    assert list(listed_by_name) == sorted(listed_by_name)
    keys = {"dataset", "title", "robot", "format", "role", "license", "episodes", "source", "built"}
    assert all(set(r) == keys for r in listed)
    assert listed_by_name["tiny"]["built"] is True
    assert (listed_by_name["tiny"]["robot"], listed_by_name["tiny"]["episodes"]) == (
        "tiny_arm",
        None,
    )
    assert (listed_by_name["sim_long"]["built"], listed_by_name["sim_long"]["role"]) == (
        False,
        "ood",
    )
    assert (listed_by_name["droid"]["episodes"], listed_by_name["droid"]["source"]) == (
        95658,
        "hf://lerobot/droid_1.0.1",
    )


def test_datasets_show(built, ask):
    tiny = ask("datasets", "show", "tiny", "--format", "json").json
    expected = {
        "dataset": "tiny",
        "chunk_size": 2,
        "fps": FPS,
        "format": "lerobot_v2.0",
        "role": "train",
        "built": True,
    }
    assert {k: tiny[k] for k in expected} == expected
    assert (tiny["cameras"], tiny["source_uri"]) == ([CAMERA], str(built.source))
    assert ask("datasets", "show", "sim_short", "--format", "json").json["chunk_size"] == 66


def test_inspect(source, away):
    inspected = ok(command("inspect", source, "--format", "json", cwd=away)).json
    expected = {
        "format": "lerobot_v2.0",
        "robot": "tiny_arm",
        "fps": FPS,
        "episodes": len(LENGTHS),
        "rows": FRAMES,
        "shortest": min(LENGTHS),
        "longest": max(LENGTHS),
        "cameras": [CAMERA],
        "tasks": sorted(TASKS),
        "findings": [],
    }
    assert {k: inspected[k] for k in expected} == expected
    (gripper,) = inspected["signals"]
    assert (gripper["arm"], gripper["names"], gripper["dimensions"]) == ("", ["gripper"], [2])
    assert {row["signal"] for row in inspected["signal_lags"]} >= {"state"}
    table = ok(command("inspect", source, cwd=away)).out
    (line,) = [line.split() for line in table.splitlines() if line.split()[:1] == ["gripper"]]
    assert line[1:4] == ["state[2]", "gripper", "0..1"]
    assert list(away.iterdir()) == []


def test_inspect_ends_with_one_when_something_is_worse_than_a_warning(own, away):
    video_path(own.source, 1).write_text("this is no video\n")
    rows_path(own.source, 4).write_bytes(rows_path(own.source, 4).read_bytes()[:200])
    result = command("inspect", own.source, "--format", "json", cwd=away)
    assert (result.code, result.err) == (1, "")
    findings = {f["episode_index"]: f for f in result.json["findings"]}
    assert {"detail", "camera", "file"} <= findings[1].keys()
    worst = {k: (findings[k]["reason"], findings[k]["severity"]) for k in (1, 4)}
    assert worst == {1: ("undecodable_video", "unusable"), 4: ("unreadable_data", "unusable")}


def test_json_is_complete_and_a_table_shows_a_hundred_rows(built, away, ask):
    query = "SELECT episode_index, frame_index, timestamp_s FROM frames ORDER BY 1, 2"
    query_rows = ask("sql", query, "--format", "json").json
    assert query_rows == [
        {"episode_index": e, "frame_index": k, "timestamp_s": pytest.approx(k / FPS)}
        for e, k in frame_keys(LENGTHS)
    ]
    table = command("sql", query, cwd=away, workspace=built.workspace)
    assert table.code == 0
    assert (
        sum(
            line.split()[:1] in (["0"], ["1"], ["2"], ["3"], ["4"])
            for line in table.out.splitlines()
        )
        == 100
    )
    assert str(FRAMES) in table.err


def test_parquet_to_a_file_and_to_a_pipe(built, away, ask):
    query = "SELECT * FROM frames ORDER BY episode_index, frame_index"
    ask("sql", query, "--format", "parquet", "--out", "frames.parquet")
    table = pq.read_table(away / "frames.parquet")
    assert table.num_rows == FRAMES
    assert str(table.schema.field("visual_change").type) == "float"
    redirected = (
        f'"$0" sql "{query}" --format parquet --workspace "{built.workspace}" > piped.parquet'
    )
    subprocess.run(
        ["sh", "-c", redirected, PROGRAM],
        cwd=away,
        env=environment(),
        check=True,
        timeout=PATIENCE_S,
    )
    assert pq.read_table(away / "piped.parquet").equals(table)


def test_likeness_for_people_and_scripts(built, away, tmp_path):
    space = Workspace(shutil.copytree(built.workspace, tmp_path / "w"))
    lake = Lake(space)
    embed(lake, "b", {0: {"front": [0.0, 40.0]}, 1: {"front": [39.0, 80.0]}})
    lake.con.close()

    def ask(*arguments: object) -> Result:
        return ok(command("show", "similar", "b", 0, *arguments, cwd=away, workspace=space.root))

    output = ask(3).out
    assert "b episode 0 by front, as grey@64 sees it." in output
    assert "did not look at frame 3: compared is the nearest that it did, 2." in output
    (row,) = ask(2, "--format", "json").json
    assert (row["dataset"], row["episode_index"], row["frame_index"]) == ("b", 1, 0)
    assert row["likeness"] == pytest.approx(0.99985, abs=1e-4)
    assert [r["episode_index"] for r in ask("--format", "json").json] == [1]


@pytest.mark.parametrize("name", ["status", "build --config {}", "show episodes"])
def test_what_is_asked_often_does_without_pandas(name, own, away):
    """DuckDB imports it for the first value that it is given as a parameter."""
    words = name.format(own.config).split()
    # A source that stands elsewhere than it was built from: after this there is nothing to do
    ok(command(*words, cwd=away, workspace=own.workspace))
    report = "lambda: print('pandas' in sys.modules, file=sys.stderr)"
    code = f"import sys, atexit, proccorpus\natexit.register({report})\nproccorpus.main()"
    output = subprocess.check_output(
        [sys.executable, "-c", code, *words, "--workspace", str(own.workspace)],
        cwd=away,
        env=environment(PYTHONPATH=str(ROOT)),
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
    )
    assert output.splitlines()[-1] == "False"

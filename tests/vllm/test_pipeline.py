"""The whole of annotation against the real server: its stages, filled tables, no call repeated."""

import subprocess
import sys
from pathlib import Path

import pytest

from core.domain.label import Segment, check_tiling
from core.paths import Workspace
from tests.kits.cli_kit import without_progress
from tests.kits.vllm_kit import SAMPLES, VllmServer
from warehouse.lake import Lake

PROGRAM = Path(sys.executable).parent / "proccorpus"
EPISODES = (0, 5)


def command(server: VllmServer, workspace: Path) -> list[str]:
    build = [
        "build",
        "--source",
        str(SAMPLES / "sim_short"),
        "--name",
        "short",
        "--episodes",
        "0,5",
        "--workers",
        "1",
    ]
    model = ["--annotator", "vlm", "--vlm-endpoint", server.url, "--vlm-model", server.name]
    return [str(PROGRAM), *build, *model, "--workspace", str(workspace)]


def build(server: VllmServer, workspace: Path) -> str:
    return run(command(server, workspace), workspace.parent)


def run(command: list[str], folder: Path) -> str:
    process = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=folder,
    )
    assert (process.returncode, without_progress(process.stderr)) == (0, ""), process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def built(vllm_server: VllmServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("pipeline") / "workspace"
    build(vllm_server, workspace)
    return workspace


def test_all_stages_fill_the_tables(built: Path, vllm_server: VllmServer) -> None:
    lake = Lake(Workspace(built), read_only=True)
    rows = lake.rows(
        "SELECT stage, count(*), sum(prompt_tokens), sum(completion_tokens), round(avg(latency_s), 3) "
        "FROM vlm_calls WHERE status = 'ok' GROUP BY 1"
    )
    calls = {stage: numbers for stage, *numbers in rows}
    for stage, (count, prompt, completion, latency) in calls.items():
        print(
            f"{stage}: {count} calls, {prompt} prompt and {completion} reply tokens, {latency} s each"
        )
    # One look finds no boundary that another puts elsewhere, so none is refined
    assert set(calls) == {"plan", "segment", "verify", "reason"}
    assert all(prompt > 0 and completion > 0 for _, prompt, completion, _ in calls.values())
    segments: dict[int, list[Segment]] = {}
    planned: dict[int, int] = {}
    for episode, count, *fields in lake.rows(
        "SELECT episode_index, num_planned, name, start_frame, end_frame, kind, completed, step FROM segments "
        "ORDER BY episode_index, segment_index"
    ):
        planned[episode] = count
        segments.setdefault(episode, []).append(Segment(*fields))
    frames = dict(lake.rows("SELECT episode_index, num_frames FROM episodes WHERE status = 'ok'"))
    assert set(segments) == set(frames) == set(EPISODES)
    for episode, found_segments in segments.items():
        check_tiling(found_segments, frames[episode], planned[episode])
    for table in ("progress", "reasoning", "episode_labels", "samples"):
        labelled = {r[0] for r in lake.rows(f"SELECT DISTINCT episode_index FROM {table}")}
        assert labelled == set(EPISODES), table


def test_a_rerun_sends_nothing(built: Path, vllm_server: VllmServer) -> None:
    requests_before = vllm_server.requests()
    assert requests_before > 0
    assert "nothing was done again" in build(vllm_server, built)
    assert vllm_server.requests() == requests_before


def test_windows_are_as_large_as_the_server_holds(vllm_server: VllmServer, tmp_path: Path) -> None:
    """40 pictures, each by itself, are more than 4096 tokens."""
    config = tmp_path / "build.toml"
    config.write_text(
        f'datasets = ["sim_long"]\nannotator = "vlm"\n[vlm]\nmodel = "{vllm_server.name}"\n'
        f'endpoints = ["{vllm_server.url}"]\npictures_per_s = 5\ncontact_sheet = false\n'
    )
    options = ("--config", str(config), "--episodes", "0,1", "--workers", "1")
    refused_before = vllm_server.requests(400)
    run([str(PROGRAM), "build", *options, "--workspace", str(tmp_path / "workspace")], tmp_path)
    assert vllm_server.requests(400) == refused_before
    query = "SELECT episode_index, notes[1] FROM episode_labels"
    notes = dict(Lake(Workspace(tmp_path / "workspace"), read_only=True).rows(query))
    note = "segment: a question shows 1/2 of the usual pictures, more do not fit the server"
    assert notes == {0: note, 1: note}

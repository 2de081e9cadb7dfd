"""What takes too much is a finding, and the next one goes on."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any
from unittest.mock import Mock

import pytest

from annotate.config import FramesConfig
from annotate.frames import frames_stage
from core.paths import ROOT
from core.wall import Walled, memory_wall
from ingest.media import video
from ingest.reasons import Limits
from ingest.registry import DatasetConfig
from ingest.source import list_episodes
from ingest.sources.files import Source
from tests.kits.cli_kit import PROGRAM
from tests.kits.lerobot_writer import write_video
from tests.kits.patience import PATIENCE_S
from tests.kits.standins import stay_busy, take_memory


@pytest.mark.parametrize(
    ("standin", "limits", "words"),
    [
        (partial(take_memory, 1 << 28), {"max_memory_bytes": 1 << 26}, "a.mp4 cannot be decoded"),
        (
            partial(stay_busy, cpu_s=0.1),
            {"max_cpu_s": 0.05, "max_cpu_s_per_mb": 0},
            "a.mp4: its pictures take more than 0 s of CPU",
        ),
    ],
)
def test_the_next_episode_goes_on(tmp_path, monkeypatch, standin, limits, words):
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, range(6))
    play = video.play

    def dear(container: Any, stream: Any) -> Iterator[Any]:
        for picture in play(container, stream):
            if container.name.endswith("a.mp4"):
                standin()
            yield picture

    monkeypatch.setattr(video, "play", dear)
    source = Source(DatasetConfig(name="d", source=str(tmp_path), fps=10, limits=Limits(**limits)))
    records = list_episodes(source).records
    measured = frames_stage(source, records, 0, FramesConfig(), lambda sha256, jpeg: None)
    [finding] = measured.findings
    assert (finding.reason, finding.episode_index) == ("over_limit", 0)
    assert words in finding.detail
    assert measured.tables["episode_content"]["episode_index"].to_pylist() == [1]


def test_walls_stand_as_long_as_their_work():
    former_limit = resource.getrlimit(resource.RLIMIT_DATA)
    with memory_wall(1 << 30):
        with pytest.raises(MemoryError), memory_wall(1 << 26):
            take_memory(1 << 28)
        take_memory(1 << 28)
    assert resource.getrlimit(resource.RLIMIT_DATA) == former_limit


def test_a_process_that_could_not_be_started_is_later(monkeypatch):
    with Walled(None) as walled:
        walled.close()
        monkeypatch.setattr(BaseProcess, "start", Mock(side_effect=OSError("no more processes")))
        with pytest.raises(OSError, match="no more"):
            walled(abs, -1, wall_s=60)
        monkeypatch.undo()
        assert walled(abs, -1, wall_s=60) == 1


STUCK = """
import sys
from core import wall
from core.wall import begin_anew, is_left_out, time_wall
from tests.kits.standins import sleep, stay_in_one_call
wall.WAITING = 2  # not 40 s
begin_anew()
with time_wall("the first") as within, within(0):
    pass
for name, stay in {"busy": stay_in_one_call, "waiting": sleep}.items():
    if not is_left_out(name):
        with time_wall("round it") as within, within(100), time_wall(name) as within, within(-1.9):
            stay()
sys.exit(7)
"""


def test_a_command_begins_anew_without_what_stays_in_one_call(tmp_path):
    # Also where that holds Python's lock, so that no other thread runs, or takes no CPU
    (tmp_path / "stuck.py").write_text(STUCK)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    stuck = [sys.executable, tmp_path / "stuck.py"]
    result = subprocess.run(
        stuck, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert (result.returncode, result.stderr) == (
        7,
        2 * "note: something takes too long to read: begun anew without it\n",
    )


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_build_goes_on_without_what_takes_too_long(tmp_path, workers):
    # A list of episodes, and a picture of a camera, each in one call
    for name in ("m/stuck_when_listed.mp4", "v/stuck_when_decoded.mp4", "v/then.mp4"):
        write_video(tmp_path / name, range(8))
    for name, extra_lines in {"m": "", "v": "fps: 10\nchunk_size: 1\n"}.items():
        limits = "limits: {max_cpu_s: 0.2, max_cpu_s_per_mb: 0}\n"
        (tmp_path / f"{name}.yaml").write_text(
            f"name: {name}\nsource: {tmp_path / name}\n{limits}{extra_lines}"
        )
    (tmp_path / "b.toml").write_text(
        f'datasets = ["m", "v"]\nregistry = ["{tmp_path}"]\nannotator = "motion"\n'
    )
    build = [PROGRAM, "build", "--config", "b.toml", "--workspace", "ws", "--workers", workers]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'tests/kits/stuck'}:{ROOT}"}
    result = subprocess.run(
        build, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 3, result.stderr
    # For the list, and of one worker for the picture, too; several begin anew by themselves
    assert result.stderr.count("begun anew without it") == (2 if workers == "1" else 1)
    assert (
        "m: the list of its episodes takes more than 0.2 s of CPU; the rest was built"
        in result.stderr
    )
    sql = "SELECT episode_index, status, reason FROM episodes ORDER BY 1"
    sql_command = [PROGRAM, "sql", "--workspace", "ws", "--format", "csv", sql]
    output = subprocess.run(
        sql_command, cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert [line.replace('"', "") for line in output.splitlines()[1:]] == [
        "0,quarantined,over_limit",
        "1,ok,",
    ]

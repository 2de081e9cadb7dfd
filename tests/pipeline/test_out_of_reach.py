"""Sources that are slow, or may not be read, are built as soon as that is over."""

import os
import subprocess
import threading
from pathlib import Path

import pytest

from core.paths import Workspace
from ingest.registry import DatasetConfig
from ingest.sources import files
from pipeline import sources
from pipeline.build import run_build
from pipeline.config import DatasetBuild
from tests.kits.cli_kit import PROGRAM, environment, rows, write_configs
from tests.kits.tiny_lerobot import LENGTHS, make_dataset

PARTIAL = 3
# Root may read everything, unless it gives that up
WITHOUT_RIGHTS = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
)


def test_a_source_that_never_answers_holds_up_no_other(tmp_path, monkeypatch):
    source_folders = {name: make_dataset(tmp_path / name, LENGTHS[:1]) for name in ("far", "near")}
    builds = [
        DatasetBuild(dataset=DatasetConfig(name=name, source=str(source)))
        for name, source in source_folders.items()
    ]
    walk, answers = files._walk, threading.Event()

    def slow(root: Path) -> files.FolderContents:
        if root == source_folders["far"]:
            answers.wait()
        return walk(root)

    monkeypatch.setattr(files, "_walk", slow)
    monkeypatch.setattr(sources, "SLOW_S", 1.0)
    report = run_build(Workspace(tmp_path / "w"), builds, 1)
    assert [(f.dataset, f.message) for f in report.failed] == [
        ("far", "TimeoutError: the source showed nothing within 1 s")
    ]
    assert {stage_report.run.dataset for stage_report in report.done} == {"near"}
    answers.set()
    report = run_build(Workspace(tmp_path / "w"), builds, 1)
    assert (report.failed, {stage_report.run.dataset for stage_report in report.done}) == (
        [],
        {"far"},
    )


@pytest.mark.slow
def test_what_may_not_be_read_is_read_once_it_may(tmp_path):
    sources = {name: make_dataset(tmp_path / name, LENGTHS[:3]) for name in ("bad", "good")}
    write_configs(tmp_path, {name: f"source: {source}\n" for name, source in sources.items()})
    videos = sorted((tmp_path / "bad").rglob("*.mp4"))
    (tmp_path / "bad" / "lost+found").mkdir(mode=0)

    def built() -> tuple[int, str, list[tuple]]:
        words = [PROGRAM, "build", "--config", "build.toml", "--workers", "1", "--workspace", "w"]
        process = subprocess.run(
            [*WITHOUT_RIGHTS, *words],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
        )
        usable = (
            "SELECT episode_index FROM episodes WHERE dataset = 'bad' AND status = 'ok' ORDER BY 1"
        )
        return (
            process.returncode,
            process.stderr,
            [episode for (episode,) in rows(tmp_path / "w", usable)],
        )

    videos[0].chmod(0)
    assert built()[::2] == (0, [1, 2]), "one episode is in quarantine"
    videos[0].chmod(0o600)
    assert built()[::2] == (0, [0, 1, 2])
    runs = rows(
        tmp_path / "w", "SELECT stage, dataset, chunk, snapshot FROM stage_runs ORDER BY ALL"
    )
    for path, reason_text in (
        (tmp_path / "bad" / "meta", "SourceError: cannot look into"),
        (tmp_path / "bad", "SourceError: cannot look into"),
    ):
        path.chmod(0)
        code, err, usable = built()
        assert (code, usable) == (PARTIAL, [0, 1, 2])
        assert f"episodes of bad failed: {reason_text} {path}: Permission denied" in err
        path.chmod(0o755)
    for path in (tmp_path / "bad").rglob("*.[mp]*"):  # videos and rows
        path.chmod(0)
    code, err, usable = built()
    assert (code, usable) == (PARTIAL, [0, 1, 2])
    assert (
        "is half there: 6 of 6 files that episodes were read from are gone or may not be read"
        in err
    )
    for path in (tmp_path / "bad").rglob("*.[mp]*"):
        path.chmod(0o600)
    assert built()[0] == 0
    assert (
        rows(tmp_path / "w", "SELECT stage, dataset, chunk, snapshot FROM stage_runs ORDER BY ALL")
        == runs
    )

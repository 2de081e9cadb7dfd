"""How many cores a process may use."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core import cores as of_cores
from core.cores import IS_OURS, THREADS, cores, cpu_limit, tell_libraries, told_to_children
from core.paths import ROOT

V1 = "4:memory:/jobs/one\n3:cpu,cpuacct:/jobs/one\n"


def written(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_a_group_may_use_no_more_than_those_above_it(tmp_path: Path):
    written(tmp_path, cpu__max="max 100000\n")
    written(tmp_path / "jobs", cpu__max="150000 100000\n")
    written(tmp_path / "jobs" / "one", cpu__max="400000 100000\n")
    assert cpu_limit("0::/jobs/one\n", tmp_path) == 1.5
    assert cpu_limit("0::/\n", tmp_path) == math.inf


def test_in_a_container_the_root_is_its_own_group(tmp_path: Path):
    written(tmp_path, cpu__max="200000 100000\n")
    assert cpu_limit("0::/docker/4f2a\n", tmp_path) == 2.0


def test_version_1(tmp_path: Path):
    group = tmp_path / "cpu,cpuacct" / "jobs" / "one"
    written(group, **{"cpu__cfs_quota_us": "50000\n", "cpu__cfs_period_us": "100000\n"})
    assert cpu_limit(V1, tmp_path) == 0.5
    written(group, **{"cpu__cfs_quota_us": "-1\n"})
    assert cpu_limit(V1, tmp_path) == math.inf


@pytest.mark.parametrize("own", ["", "0::/nothing/there\n"])
def test_where_nothing_says_so_there_is_no_limit(tmp_path: Path, own: str):
    assert cpu_limit(own, tmp_path) == math.inf


def test_no_more_than_the_machine_has_and_at_least_one():
    assert 1 <= cores() <= (os.cpu_count() or 1)
    if hasattr(os, "sched_getaffinity"):
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(before)})
        try:
            assert cores() == 1
        finally:
            os.sched_setaffinity(0, before)


# Threads of a process with BLAS, and of a database of the lake
LIBRARIES = """
import os
import numpy as np
np.ones((300, 300)) @ np.ones((300, 300))
begun = len(os.listdir("/proc/self/task"))
from pathlib import Path
from core.paths import Workspace
from warehouse.lake import database
con = database(Workspace(Path("nowhere")))
print(begun, con.execute("SELECT current_setting('threads')").fetchone()[0])
"""


def threads_begun(limit: float, **env: str) -> tuple[int, int]:
    """Threads of a process with BLAS, and of its DuckDB, in a control group that is given so many cores."""
    told = f"import core.cores as c; c.cpu_limit = lambda own, root: float('{limit}'); c.tell_libraries()"
    done = subprocess.run(
        [sys.executable, "-c", told + LIBRARIES],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != THREADS} | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    begun, of_duckdb = map(int, done.stdout.split())
    return begun, of_duckdb


@pytest.mark.skipif(cores() < 2, reason="one core: no library begins more than one thread")
def test_libraries_begin_no_more_threads_than_their_control_group_has_cores():
    assert threads_begun(1.0) == (1, 1)
    begun, of_duckdb = threads_begun(math.inf)
    assert begun > 1
    assert of_duckdb == cores()


def test_workers_share_what_their_parent_may_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(THREADS, raising=False)
    monkeypatch.delenv(IS_OURS, raising=False)
    with told_to_children(3):
        assert os.environ[THREADS] == "3"
    assert THREADS not in os.environ
    # What the user says counts; what we said for this process is no word of the user's
    monkeypatch.setattr(of_cores, "cores", lambda: 0)
    for by_user in (True, False):
        if by_user:
            monkeypatch.setenv(THREADS, "7")
        else:
            monkeypatch.delenv(THREADS)
        tell_libraries()
        assert os.environ[THREADS] == ("7" if by_user else "0")
        with told_to_children(3):
            assert os.environ[THREADS] == ("7" if by_user else "3")
        assert os.environ[THREADS] == ("7" if by_user else "0")
    monkeypatch.delenv(THREADS)
    monkeypatch.delenv(IS_OURS)

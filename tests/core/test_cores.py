"""How many cores a process may use."""

import math
import os
from pathlib import Path

import pytest

from core import cores as of_cores
from core.cores import IS_OURS, THREADS, cpu_limit, tell_libraries, told_to_children


@pytest.mark.parametrize("own", ["", "0::/nothing/there\n"])
def test_where_nothing_says_so_there_is_no_limit(tmp_path: Path, own: str):
    assert cpu_limit(own, tmp_path) == math.inf


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

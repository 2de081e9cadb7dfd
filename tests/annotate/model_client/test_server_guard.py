"""A guarded command ends with all that it started, whichever process of the guard or above it is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotate.model_client.server import GUARD
from tests.kits.processes import alive

# A shell that waits for a pipeline, as wrappers do; in it a process that starts another one in a session of its own
COMMAND = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL, start_new_session=True)
open(sys.argv[1] + ".part", "w").write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(1000)
"""
ASKER = """
import os, subprocess, sys
guard, grace_s, script = sys.argv[1:]
print(subprocess.Popen([sys.executable, "-I", guard, str(os.getpid()), grace_s, script]).pid, flush=True)
sys.stdin.read()
"""


class Guarded:
    def __init__(self, folder: Path) -> None:
        told = folder / "pids"
        (script := folder / "command").write_text(f"#!/bin/sh\n{sys.executable} -c '{COMMAND}' {told} | cat\n")
        script.chmod(0o755)
        asked = [sys.executable, "-c", ASKER, str(GUARD), "2", str(script)]
        self.asker = subprocess.Popen(asked, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.asker.stdout is not None
        self.outer = int(self.asker.stdout.readline())
        limit = time.monotonic() + 60
        while not told.exists():
            assert time.monotonic() < limit, "the command does not start"
            time.sleep(0.02)
        self.pids = [int(word) for word in told.read_text().split()]
        (self.inner,) = map(int, Path(f"/proc/{self.outer}/task/{self.outer}/children").read_text().split())

    def left(self) -> list[int]:
        """Processes that live on after a while that is long enough for all of them to end."""
        pids = [self.outer, self.inner, *self.pids]
        limit = time.monotonic() + 30
        while alive(pids) and time.monotonic() < limit:
            time.sleep(0.05)
        return alive(pids)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    made = Guarded(tmp_path)
    yield made
    for pid in alive([made.outer, made.inner, *made.pids]):
        os.kill(pid, signal.SIGKILL)
    made.asker.kill()
    made.asker.communicate()


@pytest.mark.parametrize("who", ["outer", "inner", "asker"])
def test_one_is_killed(guarded: Guarded, who: str) -> None:
    os.kill(guarded.asker.pid if who == "asker" else getattr(guarded, who), signal.SIGKILL)
    assert guarded.left() == []


def test_it_is_asked_to_end(guarded: Guarded) -> None:
    os.kill(guarded.outer, signal.SIGTERM)
    assert guarded.left() == []


def test_its_command_ends(guarded: Guarded) -> None:
    os.kill(guarded.pids[0], signal.SIGTERM)
    assert guarded.left() == []

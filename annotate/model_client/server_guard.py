"""Runs one command in a session of its own and never outlives it, or lets it outlive the program that asked for it.

A script of the standard library only: server_guard.py PARENT_PID GRACE_S COMMAND... It ends all
that the command started, in whatever group or session: on SIGTERM, when the parent is gone (also by
SIGKILL), and when the command itself ends. It is two processes, since a program that ends may kill
its children first, as Ray's workers do: whichever of the two is killed, the other one ends the
command.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.1
KILLED_S = 5.0  # that processes may take to go after SIGKILL

asked_to_stop = False


def die_with_parent() -> None:
    """For the child: a guard that is killed takes its command along."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def children() -> set[int]:
    """Processes whose parent we are, without ended ones. Orphans below us are among them."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    pids = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                pids.add(int(folder.name))
    return pids


def end_all(grace_s: float) -> None:
    """SIGTERM to all below us, group by group as they become ours, and SIGKILL to what is left after grace_s."""
    for ending_signal, limit_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILLED_S)):
        limit = time.monotonic() + limit_s
        signalled = set()
        while remaining := children():
            if time.monotonic() > limit:
                break
            for pid in remaining - signalled:
                with suppress(ProcessLookupError):
                    group = os.getpgid(pid)
                    if group == os.getpgrp():  # before it has a session of its own
                        os.kill(pid, ending_signal)
                    else:
                        os.killpg(group, ending_signal)
            signalled |= remaining
            time.sleep(0.05)
        else:
            return


def wait_while_wanted(poll: Callable[[], int | None], parent: int) -> int | None:
    """Wait for an end: its code, or None where SIGTERM or the parent's end came first."""
    while (code := poll()) is None and not asked_to_stop and os.getppid() == parent:
        time.sleep(POLL_S)
    return code


def run(parent: int, grace_s: float, command: list[str]) -> int:
    """The inner process: its child is the command."""
    try:
        child = subprocess.Popen(command, start_new_session=True, preexec_fn=die_with_parent)
    except OSError as e:
        print(f"{command[0]}: {e.strerror}", flush=True)
        return 127
    code = wait_while_wanted(child.poll, parent)
    end_all(grace_s)
    if code is None:
        return 0
    return code


def watch(inner: int, parent: int, grace_s: float) -> int:
    """The outer process: its child is the inner one, or what the command started."""

    def poll() -> int | None:
        pid, status = os.waitpid(inner, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        return None

    code = wait_while_wanted(poll, parent)
    if code is None:
        os.kill(inner, signal.SIGTERM)
        limit = time.monotonic() + grace_s + 2 * KILLED_S
        while (code := poll()) is None and time.monotonic() < limit:
            time.sleep(POLL_S)
    end_all(grace_s)
    if code is None:
        return 0
    return code


def main(parent: int, grace_s: float, command: list[str]) -> int:
    def stop(*_: object) -> None:
        global asked_to_stop
        asked_to_stop = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    outer = os.getpid()
    if inner := os.fork():
        return watch(inner, parent, grace_s)
    os.setsid()
    # What was said to the outer one reaches this one too; a subreaper's children are none
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    return run(outer, grace_s, command)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))

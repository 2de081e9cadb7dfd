"""Runs one command in a session of its own and never outlives it, or lets it outlive the program that asked for it.

A script of the standard library only: server_guard.py PARENT_PID GRACE_S COMMAND... It ends the command's whole
process group on SIGTERM, when the parent is gone (also by SIGKILL), and when the command itself ends.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
POLL_S = 0.1


def die_with_parent() -> None:
    """For the child: a guard that is killed takes its command along."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def gone(group: int, limit_s: float) -> bool:
    """Wait until no process of the group is left, at most limit_s."""
    limit = time.monotonic() + limit_s
    while True:
        with suppress(ChildProcessError):  # orphans come to us to be reaped, or they would count as alive
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not group_lives(group) or time.monotonic() > limit:
            return not group_lives(group)
        time.sleep(0.05)


def end_group(group: int, grace_s: float) -> None:
    """SIGTERM to the group, SIGKILL to what of it is left after grace_s."""
    for how, limit_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            os.killpg(group, how)
        if gone(group, limit_s):
            return


def main(parent: int, grace_s: float, command: list[str]) -> int:
    asked_to_stop = False

    def stop(*_: object) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child = subprocess.Popen(command, start_new_session=True, preexec_fn=die_with_parent)
    except OSError as e:
        print(f"{command[0]}: {e.strerror}", flush=True)
        return 127
    while child.poll() is None and not asked_to_stop and os.getppid() == parent:
        time.sleep(POLL_S)
    code = child.poll()
    end_group(child.pid, grace_s)
    return 0 if code is None else code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))

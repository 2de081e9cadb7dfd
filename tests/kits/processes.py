"""Several processes of one training, as torchrun starts them; and how much memory a process held."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from core.paths import ROOT


def run_processes(script: str, arguments: Sequence[str] = (), count: int = 2, timeout_s: float = 600) -> str:
    """What the first of them writes; each must end well."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    common = os.environ | {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            cwd=ROOT,
            env=common | {"RANK": str(k), "LOCAL_RANK": str(k), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(count)
    ]
    try:
        said = [p.communicate(timeout=timeout_s) for p in started]
    finally:
        for p in started:
            p.kill()
    assert [p.returncode for p in started] == [0] * count, "\n".join(errors[-2000:] for _, errors in said)
    return said[0][0]


def own_peak_mb() -> int:
    """The most memory that this process held; getrusage's figure has also that of the process which started it."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) >> 10

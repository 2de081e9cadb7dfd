"""Several processes of one training, as torchrun starts them; and how much memory a process held."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from core.paths import ROOT

# What each would take eight seconds of CPU to import
PACKAGES = (
    "torch", "pandas", "accelerate", "training.train", "training.loop",
    "transformers.models.qwen3_vl.modeling_qwen3_vl", "transformers.models.qwen3_vl.processing_qwen3_vl",
)  # fmt: skip

FORKING = """
import os, sys
from importlib import import_module
for name in {packages!r}:
    import_module(name)
started = []
for rank in range({count}):
    started.append(os.fork())
    if started[-1] == 0:
        os.environ |= {{"RANK": str(rank), "LOCAL_RANK": str(rank)}}
        if rank:
            sys.stdout = open(os.devnull, "w")
        break
else:
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in started))
"""


# A fork's libraries would take down threads that it does not have
ENDING = """
sys.stdout.flush()
os._exit(0)
"""


def run_processes(script: str, arguments: Sequence[str] = (), count: int = 2, timeout_s: float = 600) -> str:
    """What the first of them writes; each must end well. They are forked from a process that has imported PACKAGES."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    code = FORKING.format(packages=PACKAGES, count=count) + script + ENDING
    started = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *arguments],
        cwd=ROOT,
        env=os.environ | common,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, errors = started.communicate(timeout=timeout_s)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
    assert started.returncode == 0, errors[-4000:]
    return said


def own_peak_mb() -> int:
    """The most memory that this process held; getrusage's figure has also that of the process which started it."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) >> 10

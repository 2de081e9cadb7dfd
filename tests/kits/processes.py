"""Several processes of one training, as torchrun starts them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.paths import ROOT
from tests.kits.servers import free_port

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
for rank in range(2):
    started.append(os.fork())
    if started[-1] == 0:
        os.environ |= {{"RANK": str(rank), "LOCAL_RANK": str(rank)}}
        if rank:
            sys.stdout = open(os.devnull, "w")
        break
else:
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in started))
"""


# Forks that hang are told apart by where they do
DOING = """
import faulthandler, json
from pathlib import Path
import torch
torch.set_num_threads(1)
faulthandler.dump_traceback_later(240, exit=True)
from {module} import {function}
print(json.dumps({function}(*map(Path, sys.argv[1:]))))
torch.distributed.destroy_process_group()
"""

# A fork's libraries would take down threads that it does not have
ENDING = """
sys.stdout.flush()
os._exit(0)
"""


def in_two_processes(function: Callable[..., dict[str, Any]], *paths: Path) -> dict[str, Any]:
    """What a function of a module of tests gives in the first of two processes of a group; each
    must end well.

    They are forked from a process that has imported PACKAGES.
    """
    common = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    doing = DOING.format(module=function.__module__, function=function.__name__)
    code = FORKING.format(packages=PACKAGES) + doing + ENDING
    started = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *map(str, paths)],
        cwd=ROOT, env=os.environ | common, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, errors = started.communicate(timeout=600)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
    assert started.returncode == 0, errors[-4000:]
    return json.loads(output.splitlines()[-1])


def own_peak_mb() -> int:
    """The most memory that this process held."""
    (line,) = (
        x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")
    )
    return int(line.split()[1]) >> 10


def alive(pids: Iterable[int]) -> list[int]:
    """Those that live; zombies do not: they wait for whoever adopted them."""
    alive_pids = []
    for pid in pids:
        with suppress(OSError):  # it may end while its file is read
            alive_pids += [pid] * (
                Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
            )
    return alive_pids

"""What tests of a real server share: its configuration, its log, and which processes are its."""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from annotate.model_client.server import ServerConfig
from core.paths import ROOT

SAMPLES = ROOT / "samples"
NAME = "tiny"
CONTEXT_TOKENS = 4096
MARK = "PROCCORPUS_TEST_RUN"  # in the environment of every process of a server
REQUEST = re.compile(r'"POST /v1/chat/completions HTTP/[\d.]+" (\d{3})')


def requests_in_log(path: Path, status: int | None = None) -> int:
    """How many chat completions a server's log says it was asked for (and answered with
    `status`)."""
    codes = [
        int(m[1]) for m in map(REQUEST.search, path.read_text(errors="replace").splitlines()) if m
    ]
    if status is None:
        return len(codes)
    return codes.count(status)


@dataclass(frozen=True)
class VllmServer:
    url: str  # base, ends in /v1
    log: Path
    model_dir: Path
    name: str = NAME

    def requests(self, status: int | None = None) -> int:
        """Chat completions it was asked for so far, by its own log."""
        return requests_in_log(self.log, status)


def tiny_config(model: Path, logs: Path) -> ServerConfig:
    return ServerConfig(
        model=str(model),
        served_name=NAME,
        port=0,
        device="cpu",
        max_model_len=CONTEXT_TOKENS,
        max_num_seqs=8,
        cpu_kvcache_gib=1,
        log_dir=logs,
        ready_timeout_s=300,
    )


def marked(mark: str) -> list[int]:
    """The processes of this machine that were started under a mark, zombies left out."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                pids.append(int(folder.name))
        except OSError:
            continue
    return [pid for pid in pids if pid != os.getpid()]


def eventually_gone(mark: str, limit_s: float = 40) -> bool:
    """Do all processes of a mark end? A helper of Python's multiprocessing outlives what it served
    by a moment."""
    limit = time.monotonic() + limit_s
    while marked(mark) and time.monotonic() < limit:
        time.sleep(0.2)
    return not marked(mark)

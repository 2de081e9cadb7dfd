"""SIGKILL of the processes that answer an explorer's queries."""

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from core.paths import Workspace
from tests.kits.fault_kit import errors, wait_for
from tests.kits.lake_kit import SLOW
from tests.kits.patience import PATIENCE_S
from tests.kits.sql_attacks import below
from tests.kits.visitor import serving


def querying(server: int) -> list[int]:
    """The processes of an explorer that answer queries."""
    query_pids = []
    for pid in below(server):
        with suppress(OSError):  # it has ended
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                query_pids.append(pid)
    return query_pids


def test_processes_of_queries_are_killed(reference, tally, server_kills, seed):
    """As when memory runs out, and the kernel chooses one: the page says so, and the next query is answered."""
    rng = random.Random(seed + 9)
    fault = "a query's process killed"
    with serving(Workspace(reference)) as (client, server), ThreadPoolExecutor() as pool:
        for _ in range(server_kills):
            pending = pool.submit(client.get, "/sql", params={"q": SLOW})
            wait_for(
                lambda a=pending: bool(querying(server.pid)) or a.done(), "a process for the query"
            )
            time.sleep(rng.uniform(0, 3))
            assert not pending.done(), pending.result().text
            for pid in querying(server.pid):
                os.kill(pid, signal.SIGKILL)
            tally.add(fault, tried=1)
            page = pending.result(PATIENCE_S)
            assert page.status_code == 200
            assert "the query ended its process (SIGKILL)" in page.text
            assert ">42<" in client.get("/sql", params={"q": "SELECT 41 + 1 AS answer"}).text
            tally.add(fault, recovered=1)
        assert server.poll() is None
    assert errors(reference) == []

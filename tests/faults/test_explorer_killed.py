"""SIGKILL of the explorer amid what it saves, and of the processes that answer its queries."""

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx

from core.paths import Workspace
from tests.kits.cli_kit import rows, without_progress
from tests.kits.fault_kit import Corpus, Tally, Whole, errors, unfinished, wait_for
from tests.kits.lake_kit import SLOW
from tests.kits.patience import PATIENCE_S
from tests.kits.sql_attacks import below
from tests.kits.visitor import post, serving

SAVED_BY_PAGES = {"episode_marks"}  # the only table that a build does not write


class Tagging(threading.Thread):
    """Tags episode 0 again and again until nobody answers; `saved`: the tags that were answered for."""

    def __init__(self, client: httpx.Client, prefix: str) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.prefix = prefix
        self.saved = list[str]()
        self.start()

    def run(self) -> None:
        with suppress(
            httpx.TransportError, IndexError
        ):  # it was killed, maybe before the page was whole
            while True:
                tag = f"{self.prefix}-{len(self.saved)}"
                body = {
                    "kind": "tag",
                    "value": tag,
                    "author": "ada",
                    "episodes": [["long", 0, None]],
                }
                answer = post(self.client, "/api/marks", body)
                assert answer.status_code == 200, answer.text
                self.saved.append(tag)


def test_the_explorer_is_killed(
    corpus: Corpus, whole: Whole, tally: Tally, server_kills: int, seed: int, tmp_path: Path
) -> None:
    """While it commits beside a build: what it said was saved is there, and the build comes to the same end."""
    rng = random.Random(seed + 8)
    fault = "the explorer killed"
    for number in range(server_kills):
        workspace = tmp_path / f"workspace{number}"
        with corpus.building(workspace) as build:
            listed = workspace / "lake/main/episode_facts"
            wait_for(
                lambda at=listed, b=build: any(at.rglob("*.parquet")) or b.poll() is not None,
                "it lists",
            )
            with serving(Workspace(workspace)) as (client, server):
                wait_for(
                    lambda c=client: c.get("/episode/long/0").status_code == 200,
                    "the explorer shows the episode",
                )
                tagging = Tagging(client, f"kill-{number}")
                num_wanted = rng.randint(2, 6)
                wait_for(
                    lambda t=tagging, n=num_wanted: len(t.saved) >= n or not t.is_alive(),
                    "tags are saved",
                )
                assert tagging.is_alive()
                time.sleep(rng.uniform(0, 0.3))
                server.kill()
                tagging.join(PATIENCE_S)
            tally.add(fault, tried=1)
            _, output = build.communicate(timeout=PATIENCE_S)
        assert (build.returncode, without_progress(output)) == (0, "")
        assert errors(workspace, hashes=True) == []
        assert unfinished(workspace) == []
        stored_tags = {tag for (tag,) in rows(workspace, "SELECT tag FROM current_tags")}
        assert stored_tags >= set(tagging.saved)
        assert len(stored_tags) <= len(tagging.saved) + 1, (
            "more than the one tag that was under way"
        )
        differences = set(whole.differences(workspace)) - SAVED_BY_PAGES
        tally.add(fault, recovered=1, differences=len(differences))
        assert differences == set()
        with serving(Workspace(workspace)) as (client, _):
            assert tagging.saved[-1] in client.get("/episodes").text


def querying(server: int) -> list[int]:
    """The processes of an explorer that answer queries."""
    query_pids = []
    for pid in below(server):
        with suppress(OSError):  # it has ended
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                query_pids.append(pid)
    return query_pids


def test_processes_of_queries_are_killed(
    reference: Path, tally: Tally, server_kills: int, seed: int
) -> None:
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

"""SIGKILL of what a build asks: the model's server, and the Postgres that holds the catalog."""

import random
import time

from tests.kits.cli_kit import ok, proccorpus
from tests.kits.fault_kit import (
    PATIENCE_S,
    Corpus,
    Repeats,
    assert_recovers,
    errors,
    serving_model,
    wait_for,
)
from tests.kits.servers import postgres


def test_the_model_is_killed(whole, tally, server_kills, seed, tmp_path):
    """It comes back only after the build has given up, and the next time at once."""
    rng = random.Random(seed + 1)
    fault = "the model's server killed"
    workspace = tmp_path / "workspace0"
    repeats = Repeats()
    with serving_model(tmp_path, "--latency", "0.1") as server:
        corpus = Corpus.make(tmp_path / "corpus", server.url)

        def answers() -> int:
            return len(server.events("answered"))

        for k in range(server_kills):
            moment = answers() + rng.randint(1, 8)
            with corpus.building(workspace) as build:
                wait_for(
                    lambda at=moment, b=build: answers() >= at or b.poll() is not None, "an answer"
                )
                assert build.poll() is None, build.communicate()
                server.kill()
                repeats.note(workspace)
                tally.add(fault, tried=1)
                if k % 2:
                    server.start()
                _, output = build.communicate(timeout=PATIENCE_S)
            if not k % 2:
                assert build.returncode == 1
                assert "server" in output
                assert "Traceback" not in output
                server.start()
            assert errors(workspace) == []
            repeats.note(workspace)
            tally.add(fault, recovered=1)
            if k % 2 or k == server_kills - 1:
                assert_recovers(corpus, workspace, whole, repeats, tally, fault)
                workspace = tmp_path / f"workspace{k + 1}"
                repeats = Repeats()


def test_postgres_is_killed(corpus, whole, tally, server_kills, seed, tmp_path):
    """As a pulled plug: all of its processes at once, in the middle of a build."""
    rng = random.Random(seed + 2)
    fault = "Postgres killed"
    workspace = tmp_path / "workspace"
    repeats = Repeats()
    with postgres() as server:
        server.execute("CREATE DATABASE lake")
        ok(
            proccorpus(
                "workspace",
                "create",
                "--catalog",
                server.url("lake"),
                cwd=tmp_path,
                workspace=workspace,
            )
        )
        for _ in range(server_kills):
            files = list((workspace / "lake").rglob("*.parquet"))
            num_wanted = len(files) + rng.randint(1, 8)
            with corpus.building(workspace) as build:
                wait_for(
                    lambda n=num_wanted, b=build: (
                        len(list((workspace / "lake").rglob("*.parquet"))) >= n
                        or b.poll() is not None
                    ),
                    "rows are written",
                )
                assert build.poll() is None, build.communicate()
                time.sleep(rng.uniform(0, 0.5))
                server.kill()
                tally.add(fault, tried=1)
                _, output = build.communicate(timeout=PATIENCE_S)
            assert build.returncode != 0
            assert "Traceback" not in output
            server.start()
            assert errors(workspace) == []
            repeats.note(workspace)
            tally.add(fault, recovered=1)
        assert_recovers(corpus, workspace, whole, repeats, tally, fault)

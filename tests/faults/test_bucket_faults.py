"""A bucket that answers 503 SlowDown, or slowly, at moments that a seed chooses: a build comes to the same end."""

import http.client
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.kits.cli_kit import ok, proccorpus, without_progress
from tests.kits.fault_kit import errors, unfinished
from tests.kits.http_server import Answering, serving
from tests.kits.patience import PATIENCE_S
from tests.kits.servers import postgres, s3

BUSY = 0.06
SLOW = 0.06
SLOWEST_S = 1.0
MOST_BUILDS = 6
SLOW_DOWN = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>'


@dataclass
class Chance:
    rng: random.Random
    refused: int = 0
    slowed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def draw(self) -> tuple[bool, float]:
        with self.lock:
            busy = self.rng.random() < BUSY
            slow = self.rng.random() < SLOW
            self.refused += busy
            self.slowed += slow
            return busy, self.rng.uniform(0, SLOWEST_S) if slow else 0.0


@contextmanager
def proxy(to: str, chance: Chance) -> Iterator[str]:
    """In front of a server; hands on what it does not spoil."""
    target = urlsplit(to).netloc

    class Handler(Answering):
        def hand_on(self) -> None:
            body = self.body()
            busy, wait_s = chance.draw()
            time.sleep(wait_s)
            if busy:
                self.answer(SLOW_DOWN, 503, {"Content-Type": "application/xml"})
                return
            connection = http.client.HTTPConnection(target, timeout=PATIENCE_S)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in (
                    "transfer-encoding",
                    "connection",
                    "content-length",
                    "date",
                    "server",
                ):
                    self.send_header(name, value)
            if self.command == "HEAD":
                length = answer.getheader("Content-Length")
            else:
                length = str(len(data))
            if length is not None:
                self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(data)
            connection.close()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = hand_on

    with serving(Handler) as address:
        yield address


def test_a_bucket_that_slows_down(corpus, whole, tally, seed, tmp_path, monkeypatch):
    chance = Chance(random.Random(seed + 6))
    workspace = tmp_path / "workspace"
    with (
        postgres() as database,
        s3() as settings,
        proxy(settings["AWS_ENDPOINT_URL"], chance) as url,
    ):
        database.execute("CREATE DATABASE lake")
        spoilt = settings | {"AWS_ENDPOINT_URL": url}
        place = ("--catalog", database.url("lake"), "--data", "s3://corpora/lake")
        ok(proccorpus("workspace", "create", *place, cwd=tmp_path, workspace=workspace, **settings))
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        for _ in range(MOST_BUILDS):
            result = corpus.build(workspace, **spoilt)
            assert "Traceback" not in result.stderr
            assert errors(workspace) == []
            if result.returncode == 0:
                break
        assert (result.returncode, without_progress(result.stderr)) == (0, "")
        assert chance.refused
        assert chance.slowed
        assert unfinished(workspace) == []
        differences = whole.differences(workspace)
    tally.add(
        "the bucket says 503",
        tried=chance.refused,
        recovered=chance.refused,
        differences=len(differences),
    )
    tally.add("the bucket is slow", tried=chance.slowed, recovered=chance.slowed)
    assert differences == []

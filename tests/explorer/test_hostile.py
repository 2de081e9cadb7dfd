"""Hostile statements and requests: refused, and nothing of the corpus or its folder changed.

Statements go to the SQL page, those of tests/warehouse/lake/test_sql.py and more; requests go byte by byte to a
server in a process of its own.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from core.paths import Workspace
from tests.kits.made_corpus import Made
from tests.kits.visitor import csrf, raw, serving
from warehouse.lake import Lake

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"
SECRET = "the-secret"


@pytest.fixture(scope="module")
def space(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace whose texts are hostile, and a secret beside it."""
    own = made.copy(tmp_path_factory.mktemp("hostile"))
    lake = Lake(own.space)
    lake.con.execute("UPDATE episode_facts SET task = ?, source_id = ?", [HOSTILE, HOSTILE])
    lake.con.execute("UPDATE segments SET name = ?, notes = ?", [HOSTILE, HOSTILE])
    lake.con.execute("UPDATE episode_labels SET plan = [?], notes = [?], needs_review = true", [HOSTILE, HOSTILE])
    lake.con.execute(
        "INSERT INTO findings BY NAME SELECT 'tiny' AS dataset, 4 AS episode_index, 2 AS chunk, 'frames' AS stage, "
        "'black_video' AS reason, ? AS detail, 'unusable' AS severity",
        [HOSTILE],
    )
    lake.con.execute(
        "INSERT INTO reasoning BY NAME SELECT dataset, episode_index, label_run, 0 AS frame_index, chunk, ? AS text "
        "FROM active_runs",
        [HOSTILE],
    )
    lake.con.close()
    (own.space.root.parent / "secret.txt").write_text(SECRET)
    return own.space


# SQL


# HTTP


@dataclass(frozen=True)
class Served:
    url: str
    token: str

    def ask(self, line: str, *headers: str, body: bytes = b"") -> tuple[int, bytes]:
        """`line` is method and path. Host, and with a body its length, are given unless `headers` have them."""
        names = {h.split(":")[0].lower() for h in headers}
        given = [*headers]
        if "host" not in names:
            given.append("Host: HOST")
        if body and not names & {"content-length", "transfer-encoding"}:
            given.append(f"Content-Length: {len(body)}")
        head = "\r\n".join([f"{line} HTTP/1.1", *given, "Connection: close", "", ""])
        return raw(self.url, head.encode("latin-1") + body)

    def post(self, path: str, body: bytes, *headers: str) -> tuple[int, bytes]:
        own = (f"Origin: {self.url}", f"X-CSRF-Token: {self.token}", "Content-Type: application/json")
        names = {h.split(":")[0].lower() for h in headers}
        return self.ask(f"POST {path}", *headers, *(h for h in own if h.split(":")[0].lower() not in names), body=body)


@pytest.fixture(scope="module")
def served(space: Workspace) -> Iterator[Served]:
    with serving(space) as url, httpx.Client(base_url=url) as client:
        yield Served(url, csrf(client))


UP = [
    "../",
    "..%2f",
    "%2e%2e/",
    "%2e%2e%2f",
    "..%5c",
    "..\\",
    "%252e%252e%252f",
    "%c0%ae%c0%ae/",
    "..%00/",
    "....//",
    "..;/",
]
PATHS = [
    f"{root}{up * 4}{leaf}"
    for up in UP
    for root, leaf in (("/static/", "secret.txt"), ("/media/tiny/0/video/", "secret.txt"))
]
PATHS += [
    "/media/..%2f..%2f/0/thumb.jpg",
    "/media/tiny/0/keyframes/..%2f..%2f..%2fsecret.txt",
    "/media/tiny/0/keyframes/%2fetc%2fpasswd",
    "/media/%2fetc%2fpasswd/0/video/0",
    "/media/tiny/0/video/0%00.mp4",
    "//etc/passwd",
    "/static//etc/passwd",
    "/static/%2fetc%2fpasswd",
    "/static/c:%5cwindows",
    "/releases/..%2f..%2fsecret.txt",
    "/why/tiny/0/..%2f..%2fsecret.txt",
    "/api/episode/..%2fsecret.txt/0",
    "/api/corrections/%2e%2e/0",
    "/episode/tiny/0/../../../secret.txt",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out(served: Served, path: str):
    status, answer = served.ask(f"GET {path}")
    assert 400 <= status < 500
    assert SECRET.encode() not in answer
    assert b"root:" not in answer
    assert b"Traceback" not in answer


VIDEO = "/media/tiny/0/video/0"
SEGMENT = {"name": "x", "start_frame": 0, "end_frame": 24}


def correction(**changes: object) -> bytes:
    return json.dumps({"segments": [SEGMENT], "author": "eve", "base_content_hash": "0" * 64} | changes).encode()

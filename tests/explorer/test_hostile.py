"""Hostile statements and requests: refused, and nothing of the corpus or its folder changed.

Requests go byte by byte to a server in a process of its own.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import pytest
import yaml

from core.paths import ROOT, Workspace
from explorer.pages import sql
from tests.kits.lake_kit import SLOW
from tests.kits.made_corpus import Made
from tests.kits.visitor import csrf, fingerprint, raw, serving, visit
from tests.warehouse.lake.test_sql import REFUSED
from warehouse.lake import Lake

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"
SECRET = "the-secret"


@pytest.fixture(scope="module")
def space(made: Made, tmp_path_factory) -> Workspace:
    """A workspace whose texts are hostile, and a secret beside it."""
    own_corpus = made.copy(tmp_path_factory.mktemp("hostile"))
    lake = Lake(own_corpus.space)
    lake.con.execute("UPDATE episode_facts SET task = ?, source_id = ?", [HOSTILE, HOSTILE])
    lake.con.execute("UPDATE segments SET name = ?, notes = ?", [HOSTILE, HOSTILE])
    lake.con.execute(
        "UPDATE episode_labels SET plan = [?], notes = [?], needs_review = true", [HOSTILE, HOSTILE]
    )
    lake.con.execute(
        "INSERT INTO findings BY NAME SELECT 'tiny' AS dataset, 4 AS episode_index, 2 AS chunk, 'frames' AS stage, "
        "'camera_black' AS reason, ? AS detail, 'unusable' AS severity",
        [HOSTILE],
    )
    lake.con.execute(
        "INSERT INTO reasoning BY NAME SELECT dataset, episode_index, label_run, 0 AS frame_index, chunk, ? AS text "
        "FROM active_runs",
        [HOSTILE],
    )
    lake.con.close()
    (own_corpus.space.root.parent / "secret.txt").write_text(SECRET)
    return own_corpus.space


MORE = [
    "SELECT * FROM read_text('{data}/../catalog.sqlite')",
    "COPY (FROM frames) TO '{data}/main/frames/x.parquet' (FORMAT parquet)",
    "ATTACH '{catalog}' AS c (TYPE sqlite)",
    "FROM sqlite_scan('{catalog}', 'ducklake_data_file')",
    "FROM ducklake_table_insertions('lake', 'main', 'corrections', 0, 99)",
    "CALL ducklake_merge_adjacent_files('lake')",
    "INSERT INTO corrections DEFAULT VALUES",
    "UPDATE corrections SET status = 'accepted'",
    "DELETE FROM lake.main.corrections",
]


@pytest.mark.slow
def test_hostile_statements_change_nothing(space, monkeypatch):
    statements = [*MORE, SLOW, *REFUSED]
    assert len(statements) >= 60
    monkeypatch.setattr(sql, "TIME_S", 0.3)
    state_before = fingerprint(space)
    places = {"{out}": space.root.parent, "{data}": space.data, "{catalog}": space.catalog}
    for mark, place in places.items():
        statements = [s.replace(mark, str(place)) for s in statements]
    with visit(space) as client:
        for statement in statements:
            answer = client.get("/sql/download", params={"q": statement})
            assert answer.status_code == 400, statement
            assert SECRET not in answer.text
            assert "Traceback" not in answer.text
        page = client.get("/sql", params={"q": "FROM read_text('/etc/passwd')"}).text
        assert "not allowed here" in page
        assert client.get("/sql/download", params={"q": "SELECT 1 AS a"}).text == '"a"\n1\n'
    assert fingerprint(space) == state_before


@dataclass(frozen=True)
class Served:
    url: str
    token: str

    def ask(self, line: str, *headers: str, body: bytes = b"") -> tuple[int, bytes]:
        """`line` is method and path. Host, and with a body its length,
        are given unless `headers` have them."""
        names = {h.split(":")[0].lower() for h in headers}
        header_lines = [*headers]
        if "host" not in names:
            header_lines.append("Host: HOST")
        if body and not names & {"content-length", "transfer-encoding"}:
            header_lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join([f"{line} HTTP/1.1", *header_lines, "Connection: close", "", ""])
        return raw(self.url, head.encode("latin-1") + body)

    def post(self, path: str, body: bytes, *headers: str) -> tuple[int, bytes]:
        own_headers = (
            f"Origin: {self.url}",
            f"X-CSRF-Token: {self.token}",
            "Content-Type: application/json",
        )
        names = {h.split(":")[0].lower() for h in headers}
        return self.ask(
            f"POST {path}",
            *headers,
            *(h for h in own_headers if h.split(":")[0].lower() not in names),
            body=body,
        )


@pytest.fixture(scope="module")
def served(space: Workspace) -> Iterator[Served]:
    with serving(space) as (client, _):
        yield Served(str(client.base_url).rstrip("/"), csrf(client))


UP = (
    "../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%5c", "..\\", "%252e%252e%252f", "%c0%ae%c0%ae/", "..%00/", "....//",
    "..;/",
)  # fmt: skip
PATHS = [
    f"{root}{up * 4}secret.txt" for up, root in product(UP, ("/static/", "/media/tiny/0/video/"))
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
def test_no_path_leads_out(served, path):
    status, answer = served.ask(f"GET {path}")
    assert 400 <= status < 500
    assert SECRET.encode() not in answer
    assert b"root:" not in answer
    assert b"Traceback" not in answer


VIDEO = "/media/tiny/0/video/0"
SAVE = "/api/corrections/tiny/0"
SEGMENT = {"name": "x", "start_frame": 0, "end_frame": 24}


def correction(**changes: object) -> bytes:
    return json.dumps(
        {"segments": [SEGMENT], "author": "eve", "base_content_hash": "0" * 64} | changes
    ).encode()


REQUESTS: dict[str, Callable[[Served], tuple[int, bytes]]] = {
    "an origin that begins alike": lambda s: s.post(SAVE, correction(), f"Origin: {s.url}.evil.example"),
    "no JSON": lambda s: s.post(SAVE, b"\x80\x03}q\x00."),
    "deep JSON": lambda s: s.post(SAVE, b"[" * 3_000),
    "deep objects": lambda s: s.post(SAVE, b'{"a":' * 3_000 + b"1" + b"}" * 3_000),
    "a huge number": lambda s: s.post(SAVE, correction(segments=[SEGMENT | {"end_frame": 10**4000}])),
    "too many segments": lambda s: s.post(SAVE, correction(segments=[SEGMENT] * 6000)),
    "a long name": lambda s: s.post(SAVE, correction(segments=[SEGMENT | {"name": "x" * 201}])),
    "a long author": lambda s: s.post(SAVE, correction(author="x" * 1000)),
    "an oversize correction": lambda s: s.post(SAVE, correction(comment="x" * (2 << 20))),
    "an oversize body in parts": lambda s: s.post(
        SAVE, b"80000\r\n" + b"x" * 0x80000 + b"\r\n" + b"80001\r\n" + b"x" * 0x80001 + b"\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked",
    ),
    "a long query": lambda s: s.post("/api/queries", json.dumps({"name": "x", "sql": "x" * 100_000}).encode()),
    "no host": lambda s: raw(s.url, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"),
    "a broken header": lambda s: s.ask("GET /", "X: a\r\n b: c\r\nd : e"),
    "long headers": lambda s: s.ask("GET /", "X: " + "a" * (1 << 20)),
    "a null in a header": lambda s: s.ask("GET /", "X: a\0b"),
    "a long address": lambda s: s.ask("GET /episodes?q=" + "a" * 20_000),
    "no HTTP": lambda s: raw(s.url, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "ranges without end": lambda s: s.ask(f"GET {VIDEO}", "Range: bytes=" + "0-1," * 2000),
}  # fmt: skip
LISTED = yaml.safe_load((ROOT / "tests/data/hostile_requests.yaml").read_text())


def listed(server: Served, args: Sequence[str]) -> tuple[int, bytes]:
    kind, target, text, *headers = args
    body = text.replace("CORRECTION", correction().decode()).encode()
    if kind == "post":
        return server.post(target, body, *headers)
    return server.ask(target, *headers, body=body)


def test_hostile_requests_are_refused_and_change_nothing(served, space):
    requests = REQUESTS | {name: partial(listed, args=args) for name, args in LISTED.items()}
    assert len(requests) >= 60
    state_before = fingerprint(space)
    for name, request in requests.items():
        status, answer = request(served)
        assert status == 0 or 400 <= status < 500 or (status == 200 and "ranges without" in name), (
            name,
            status,
        )
        assert b"Traceback" not in answer, name
        assert SECRET.encode() not in answer, name
    state_after = fingerprint(space)
    assert state_after == state_before
    status, answer = served.ask("GET /review")
    assert status == 200, "the server goes on"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/episodes",
        "/episode/tiny/0",
        "/episode/tiny/4",
        "/compare/tiny/0",
        "/why/tiny/0",
        "/review",
        "/review?kind=quarantined",
        "/sql?q=SELECT+name,+notes+FROM+segments",
        "/sql?q=" + "%3C/script%3E%3Cscript%3Ealert('x')%3C/script%3E",
        "/episodes?q=%3Cscript%3Ealert",
        "/review?kind=%3Cscript%3Ealert(1)",
        "/nothing/%3Cscript%3Ealert(1)",
    ],
)
def test_texts_of_data_and_of_addresses_are_never_markup(served, path):
    _, answer = served.ask(f"GET {path}")
    text = answer.decode()
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "content-security-policy: default-src 'none'" in text

"""Hostile statements and requests: refused, and nothing of the corpus or its folder changed.

Statements go to the SQL page, those of tests/warehouse/lake/test_sql.py and more; requests go byte by byte to a
server in a process of its own.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import pytest

from core.errors import SqlError
from core.paths import Workspace
from explorer.pages import sql
from tests.kits.lake_kit import SLOW
from tests.kits.made_corpus import Made
from tests.kits.visitor import csrf, fingerprint, raw, serving, visit
from tests.warehouse.lake.test_sql import REFUSED
from warehouse.lake import Lake
from warehouse.sql_process import LakeState, SqlProcess

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"
SECRET = "the-secret"


@pytest.fixture(scope="module")
def space(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
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


# SQL

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
@pytest.mark.parametrize("way", ["the command", "the SQL page"])
def test_hostile_statements_change_nothing(
    space: Workspace, way: str, monkeypatch: pytest.MonkeyPatch
):
    statements = [*MORE, SLOW]  # the others: tests/warehouse/lake/test_sql.py has them
    if way == "the SQL page":
        statements += REFUSED
        assert len(statements) >= 60
    monkeypatch.setattr(sql, "TIME_S", 0.3)
    state_before = fingerprint(space)
    places = {"{out}": space.root.parent, "{data}": space.data, "{catalog}": space.catalog}
    for mark, place in places.items():
        statements = [s.replace(mark, str(place)) for s in statements]
    if way == "the command":
        with SqlProcess("400MB") as process:
            for statement in statements:
                with pytest.raises(SqlError) as caught:
                    process.query(LakeState(str(space.root)), statement, 0.3)
                assert SECRET not in str(caught.value)
    else:
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


# HTTP


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
def test_no_path_leads_out(served: Served, path: str):
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


REQUESTS = {
    "no origin": lambda s: s.ask(f"POST {SAVE}", "Content-Type: application/json", body=correction()),
    "another origin": lambda s: s.post(SAVE, correction(), "Origin: http://evil.example"),
    "a null origin": lambda s: s.post(SAVE, correction(), "Origin: null"),
    "an origin that begins alike": lambda s: s.post(SAVE, correction(), f"Origin: {s.url}.evil.example"),
    "a wrong token": lambda s: s.post(SAVE, correction(), "X-CSRF-Token: 0"),
    "a token that is no text": lambda s: s.post(SAVE, correction(), "X-CSRF-Token: \xff\xfe"),
    "a form": lambda s: s.post(SAVE, b"a=b", "Content-Type: application/x-www-form-urlencoded"),
    "text": lambda s: s.post(SAVE, correction(), "Content-Type: text/plain"),
    "a form with files": lambda s: s.post(SAVE, b"--x", "Content-Type: multipart/form-data; boundary=x"),
    "half of some JSON": lambda s: s.post(SAVE, correction()[:-5]),
    "no JSON": lambda s: s.post(SAVE, b"\x80\x03}q\x00."),
    "a list": lambda s: s.post(SAVE, b"[]"),
    "deep JSON": lambda s: s.post(SAVE, b"[" * 3_000),
    "deep objects": lambda s: s.post(SAVE, b'{"a":' * 3_000 + b"1" + b"}" * 3_000),
    "a huge number": lambda s: s.post(SAVE, correction(segments=[SEGMENT | {"end_frame": 10**4000}])),
    "no number": lambda s: s.post(SAVE, correction().replace(b"24", b"NaN")),
    "a fraction": lambda s: s.post(SAVE, correction().replace(b"24", b"24.5")),
    "no segments": lambda s: s.post(SAVE, correction(segments=[])),
    "too many segments": lambda s: s.post(SAVE, correction(segments=[SEGMENT] * 6000)),
    "a long name": lambda s: s.post(SAVE, correction(segments=[SEGMENT | {"name": "x" * 201}])),
    "an unknown field": lambda s: s.post(SAVE, correction(segments=[SEGMENT | {"__class__": "x"}])),
    "an author that is no text": lambda s: s.post(SAVE, correction(author={"a": 1})),
    "a long author": lambda s: s.post(SAVE, correction(author="x" * 1000)),
    "a comment with nulls": lambda s: s.post(SAVE, correction(comment="\0")),
    "an oversize correction": lambda s: s.post(SAVE, correction(comment="x" * (2 << 20))),
    "an oversize body in parts": lambda s: s.post(
        SAVE, b"80000\r\n" + b"x" * 0x80000 + b"\r\n" + b"80001\r\n" + b"x" * 0x80001 + b"\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked",
    ),
    "a length that is a lie": lambda s: s.post(SAVE, correction(), "Content-Length: 99999999999"),
    "a length below nothing": lambda s: s.post(SAVE, correction(), "Content-Length: -1"),
    "two lengths": lambda s: s.post(SAVE, correction(), "Content-Length: 5", "Content-Length: 50"),
    "length and parts": lambda s: s.post(SAVE, correction(), "Content-Length: 5", "Transfer-Encoding: chunked"),
    "another episode's correction": lambda s: s.post(f"{SAVE}/undo", b'{"correction_id": "\' OR 1=1"}'),
    "a label with a quote": lambda s: s.post(f"{SAVE}/reject", b'{"base_label_run": "\'; DROP TABLE x"}'),
    "an episode that is none": lambda s: s.post("/api/corrections/tiny/99", correction()),
    "a dataset that is none": lambda s: s.post("/api/corrections/a'b/0", correction()),
    "a model that is a path": lambda s: s.post("/api/running/adapt", b'{"model": "/etc"}'),
    "a query without a name": lambda s: s.post("/api/queries", b'{"name": "", "sql": "SELECT 1"}'),
    "a long query": lambda s: s.post("/api/queries", json.dumps({"name": "x", "sql": "x" * 100_000}).encode()),
    "PUT": lambda s: s.ask(f"PUT {SAVE}", body=correction()),
    "PATCH": lambda s: s.ask(f"PATCH {SAVE}", body=correction()),
    "DELETE": lambda s: s.ask(f"DELETE {SAVE}"),
    "TRACE": lambda s: s.ask("TRACE /"),
    "OPTIONS": lambda s: s.ask("OPTIONS *", "Origin: http://evil.example"),
    "CONNECT": lambda s: s.ask("CONNECT evil.example:80"),
    "a made-up method": lambda s: s.ask("PROPFIND /"),
    "POST to a page": lambda s: s.post("/episodes", b"{}"),
    "another host": lambda s: s.ask("GET /", "Host: evil.example"),
    "no host": lambda s: raw(s.url, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"),
    "two hosts": lambda s: s.ask("GET /", "Host: HOST", "Host: evil.example"),
    "a host with a user": lambda s: s.ask("GET /", "Host: 127.0.0.1@evil.example"),
    "another host in the line": lambda s: s.ask("GET http://evil.example/", "Host: evil.example"),
    "a broken header": lambda s: s.ask("GET /", "X: a\r\n b: c\r\nd : e"),
    "long headers": lambda s: s.ask("GET /", "X: " + "a" * (1 << 20)),
    "a null in a header": lambda s: s.ask("GET /", "X: a\0b"),
    "a long address": lambda s: s.ask("GET /episodes?q=" + "a" * 20_000),
    "no HTTP": lambda s: raw(s.url, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "a page that is none": lambda s: s.ask("GET /review?page=x"),
    "a huge page": lambda s: s.ask("GET /review?page=99999999999999999999"),
    "a range that ends before it begins": lambda s: s.ask(f"GET {VIDEO}", "Range: bytes=9-1"),
    "a range behind the end": lambda s: s.ask(f"GET {VIDEO}", "Range: bytes=999999999-"),
    "a range of letters": lambda s: s.ask(f"GET {VIDEO}", "Range: bytes=a-b"),
    "a range of nothing": lambda s: s.ask(f"GET {VIDEO}", "Range: bytes="),
    "ranges without end": lambda s: s.ask(f"GET {VIDEO}", "Range: bytes=" + "0-1," * 2000),
    "an image on another site": lambda s: s.ask("GET /sql?q=SELECT+1", "Sec-Fetch-Site: cross-site"),
    "a socket of another site": lambda s: s.ask("GET /", "Upgrade: websocket", "Host: evil.example"),
}  # fmt: skip


def test_hostile_requests_are_refused_and_change_nothing(served: Served, space: Workspace):
    assert len(REQUESTS) + len(PATHS) >= 40
    state_before = fingerprint(space)
    for name, request in REQUESTS.items():
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
def test_texts_of_data_and_of_addresses_are_never_markup(served: Served, path: str):
    _, answer = served.ask(f"GET {path}")
    text = answer.decode()
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "content-security-policy: default-src 'none'" in text

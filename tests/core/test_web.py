"""The middleware of all servers, as the explorer uses it, and where a token comes from."""

import re
import signal
import stat
import subprocess
import sys
import time
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.responses import PlainTextResponse

from core.errors import UserError
from core.paths import ROOT, Workspace
from core.web import LOOPBACK_NAMES, TOKENS, Guard, access_for, token_for
from explorer.site import Options
from tests.kits.patience import PATIENCE_S
from tests.kits.visitor import HOME, csrf, visit

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def local(made, tmp_path_factory):
    with visit(made.copy(tmp_path_factory.mktemp("local")).space) as client:
        yield client


HOSTS = (
    "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7680", "", "[::1", "evil.example@localhost",
    "localhost:80:80", "[::1].evil", "localhost#evil.example", "localhost/evil", "localhost:-1",
)  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_a_name_that_is_not_ours_is_refused(local, host):
    answer = local.get("/", headers={"host": host})
    assert answer.status_code in (400, 421)
    assert "snapshot" not in answer.text


def test_a_workspace_keeps_a_token_that_its_owner_alone_may_read(tmp_path, monkeypatch, capsys):
    for variable in TOKENS.values():
        monkeypatch.delenv(variable, raising=False)
    space = Workspace(tmp_path)
    token_text = token_for("explore", space)
    token_file = space.token("explore")
    assert token_text == token_for("explore", space) == (token_file.read_text(),) * 2
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    assert token_for("serve", space) != token_text
    assert [p.name for p in sorted(tmp_path.iterdir())] == [".token-explore", ".token-serve"]
    token_file.chmod(0o644)
    with pytest.raises(UserError, match="read by every user of this machine"):
        token_for("explore", space)
    # Given ones are used, and no link repeats them
    monkeypatch.setenv(TOKENS["explore"], TOKEN)
    assert token_for("explore", space) == (TOKEN, None)
    (tmp_path / "given").write_text("from a file of some length\n")
    (tmp_path / "given").chmod(0o600)
    assert token_for("explore", space, tmp_path / "given") == ("from a file of some length", None)
    with pytest.raises(UserError, match="exclude each other"):
        token_for("explore", space, tmp_path / "given", none=True)
    assert capsys.readouterr().err == ""
    assert token_for("explore", space, none=True) == (None, None)
    assert "every user of this machine" in capsys.readouterr().err


def test_where_no_token_can_be_kept_each_start_has_its_own(tmp_path):
    nowhere = Workspace(tmp_path / "nothing")
    assert len({*token_for("serve", nowhere), *token_for("serve", nowhere)}) == 2
    assert not nowhere.root.exists()


def test_a_proxy_names_the_user_and_nobody_else_does(own):
    trusted = access_for(
        "0.0.0.0", user_header="X-Remote-User", proxies=("127.0.0.0/8",), hosts=("corpus.example",)
    )
    with visit(own.space, Options(access=trusted)) as client:
        client._transport.client = ("127.0.0.1", 1)
        assert client.get("/review").status_code == 401
        assert client.get("/review", headers={"x-remote-user": " "}).status_code == 401
        ada = {"x-remote-user": "ada"}
        page = client.get("/review", headers=ada).text
        assert '<meta name="author" content="ada" data-known>' in page
        token = re.findall(r'csrf-token" content="(\w+)"', page)[0]
        body = {
            "base_label_run": client.get("/api/episode/tiny/0", headers=ada).json()["runs"][0][
                "label_run"
            ]
        }
        own_headers = {"origin": HOME, "x-csrf-token": token}
        answer = client.post(
            "/api/corrections/tiny/0/accept",
            json=body | {"author": "grace"},
            headers=own_headers | ada,
        )
        assert answer.status_code == 200
        said = client.get("/api/corrections/tiny/0", headers=ada).json()
        assert said["history"][0]["author"] == "ada"
        grace = {"x-remote-user": "grace"}
        assert (
            client.post(
                "/api/corrections/tiny/0/accept", json=body, headers=own_headers | grace
            ).status_code
            == 403
        )
        client._transport.client = ("10.1.2.3", 1)
        assert client.get("/review", headers=ada).status_code == 401


def test_settings_that_cannot_be_meant_are_refused():
    assert access_for("127.0.0.1").is_open
    assert access_for("localhost").hosts == LOOPBACK_NAMES
    assert access_for("::", token=TOKEN).hosts is None
    assert access_for("127.0.0.1", token=TOKEN).is_open is False
    local = [
        access_for("127.0.0.1", token=TOKEN, hosts=hosts).is_local
        for hosts in ((), ("corpus.example",))
    ]
    assert [*local, access_for("0.0.0.0", token=TOKEN).is_local] == [True, False, False]
    assert TOKEN not in repr(access_for("127.0.0.1", token=TOKEN))
    wrongs: list[dict[str, Any]] = [
        {},
        {"token": "ein Schlüssel mit Umlaut"},
        {"token": "x" * 5000},
        {"token": "short"},
        {"user_header": "X-User"},
        {"proxies": ("10.0.0.1",)},
        {"user_header": "X-User", "proxies": ("nowhere",)},
    ]
    for wrong in wrongs:
        with pytest.raises(UserError):
            access_for("0.0.0.0", **wrong)


def test_a_body_says_how_long_it_is_and_may_not_be_too_long(local):
    token = csrf(local)
    own_headers = {"origin": HOME, "x-csrf-token": token}
    announced = local.post(
        "/api/queries", content=b"x", headers=own_headers | {"content-length": str(2 << 20)}
    )
    assert announced.status_code == 413
    assert (
        local.post(
            "/api/queries", content=b"x", headers=own_headers | {"content-length": "-1"}
        ).status_code
        == 400
    )

    def parts():
        yield from [bytes(1 << 16)] * 20

    assert local.post("/api/queries", content=parts(), headers=own_headers).status_code == 411


def guarded(**access: Any) -> TestClient:
    """An app with nothing of its own behind the middleware, as it comes by default."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("well")(scope, receive, send)

    return TestClient(
        Guard(app, access_for("127.0.0.1", **access)), base_url=HOME, follow_redirects=False
    )


LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("GET", LINK, 200),
        ("GET", LINK | {"sec-fetch-dest": "iframe"}, 403),
        ("GET", LINK | {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, 403),
        ("GET", LINK | {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, 200),
        ("POST", LINK, 403),
        ("POST", {}, 200),
        ("POST", {"origin": HOME, "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, 200),
        ("POST", {"origin": "http://evil.example"}, 403),
        ("POST", {"origin": "null"}, 403),
    ],
)
def test_pages_of_other_sites_may_only_link_here(method, headers, status):
    assert guarded().request(method, "/", headers=headers).status_code == status


def test_a_login_is_a_cookie_for_a_month_and_the_token_leaves_the_address():
    client = guarded(token=TOKEN)
    assert (
        client.get("/x").status_code
        == client.get("/x?token=another-of-some-length").status_code
        == 401
    )
    for home, is_secure in ((HOME, False), (HOME.replace("http", "https"), True)):
        answer = client.get(f"{home}/x?token={TOKEN}&a=1")
        assert (answer.status_code, answer.headers["location"]) == (303, "/x?a=1")
        cookie = answer.headers["set-cookie"].lower()
        assert ("secure" in cookie, "httponly; max-age=2592000; " in cookie) == (is_secure, True)
    client = guarded()
    assert client.get(f"/x?token={TOKEN}").status_code == 200


# A route that holds a thread for a minute, as a decoder in C does
SERVER = """
import time
from fastapi import FastAPI
from core.web import listen, serve
app = FastAPI()
app.get("/")(lambda: time.sleep(60))
serve(app, listen("127.0.0.1", 0), lambda url: print(url, flush=True))
"""


@pytest.mark.slow
def test_it_ends_within_ten_seconds_of_sigterm():
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as server:
        url = server.stdout.readline().strip()
        request_code = f"import urllib.request; urllib.request.urlopen({url!r})"
        with subprocess.Popen([sys.executable, "-c", request_code], stderr=subprocess.DEVNULL):
            time.sleep(2)
            start_s = time.monotonic()
            server.send_signal(signal.SIGTERM)
            server.wait(PATIENCE_S)
            assert time.monotonic() - start_s < 10

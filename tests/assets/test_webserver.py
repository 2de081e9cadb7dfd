"""Dagster's UI answers its own pages, programs, and who shows the token: no other site, by no other name."""

import json
from typing import Any
from urllib.parse import quote

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from core.errors import UserError
from core.web import Access

SECRET = "a token of more than sixteen characters"
CHANGE = "mutation { setNuxSeen }"
OWN = "http://127.0.0.1:3000"


def ui_access(host: str, **variables: str) -> Access:
    """Who may see the UI, by variables of its environment.

    Imported here, since Dagster's webserver takes two seconds.
    """
    from assets import webserver

    return webserver.ui_access(
        host, {getattr(webserver, name): value for name, value in variables.items()}
    )


@pytest.fixture(scope="module")
def context(tmp_path_factory) -> Any:
    with (
        dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance,
        WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as context,
    ):
        yield context


def client(context: Any, access: Access) -> TestClient:
    from assets.webserver import guarded

    return TestClient(
        guarded(access)(context).create_asgi_app(), base_url=OWN, follow_redirects=False
    )


@pytest.fixture
def ui(context: Any) -> TestClient:
    return client(context, ui_access("127.0.0.1", TOKEN=""))


def asked(ui: TestClient, headers: dict[str, str] | None = None) -> int:
    return ui.post("/graphql", json={"query": CHANGE}, headers=headers).status_code


def test_its_own_page_and_programs(ui):
    assert ui.post("/graphql", json={"query": CHANGE}).json() == {"data": {"setNuxSeen": True}}
    assert asked(ui, {"Origin": OWN, "Sec-Fetch-Site": "same-origin"}) == 200
    typed = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    page = ui.get("/runs", headers=typed)
    assert page.status_code == 200
    assert page.headers["x-frame-options"] == "DENY"
    first = ui.get("/", headers=typed)
    from assets.webserver import FIRST_PAGE

    assert (first.status_code, first.headers["location"]) == (302, FIRST_PAGE)
    assert ui.get(first.headers["location"], headers=typed).status_code == 200


def test_an_image_on_a_page_starts_nothing(ui):
    """A mutation in an address: an <img> of any web page ran the job export."""
    address = f"/graphql?query={quote(CHANGE)}"
    image = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    assert ui.get(address, headers=image).status_code == 403
    link = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    # A link to it, and a browser or program that says nothing of where it comes from
    assert {
        ui.get(address, headers=request_headers).status_code
        for request_headers in (link, {}, {"Accept": "text/html"})
    } == {405}
    assert ui.request("PUT", address).status_code == 405
    # A link to a page is no more than a link
    assert ui.get("/runs", headers=link).status_code == 200


def test_sockets(ui):
    own_headers = {"Host": "127.0.0.1:3000", "Origin": OWN}
    with ui.websocket_connect(
        "/graphql", headers=own_headers, subprotocols=["graphql-ws"]
    ) as socket:
        socket.send_text(json.dumps({"type": "connection_init"}))
        assert json.loads(socket.receive_text())["type"] == "connection_ack"
    for foreign_header in (
        {"Origin": "http://evil.example"},
        {"Host": "evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        with (
            pytest.raises(WebSocketDisconnect),
            ui.websocket_connect("/graphql", headers=own_headers | foreign_header),
        ):
            pass


def test_a_token_elsewhere_than_on_this_machine(context):
    for host in ("0.0.0.0", "192.0.2.1", "::"):
        with pytest.raises(UserError, match="PROCCORPUS_UI_TOKEN"):
            ui_access(host, TOKEN="")
    with pytest.raises(UserError, match="PROCCORPUS_UI_TOKEN"):
        ui_access("127.0.0.1")
    with pytest.raises(UserError, match="characters"):
        ui_access("127.0.0.1", TOKEN="short")
    ui = client(context, ui_access("0.0.0.0", TOKEN=SECRET))
    assert asked(ui) == asked(ui, {"Authorization": "Bearer guessed"}) == 401
    assert {ui.get(path).status_code for path in ("/", "/runs", "/graphql")} == {401}
    assert asked(ui, {"Authorization": f"Bearer {SECRET}"}) == 200
    # A cluster's probe has no token
    assert ui.get("/server_info").status_code == 200

    login = ui.get(f"/runs?a=b&token={quote(SECRET)}")
    assert (login.status_code, login.headers["location"]) == (303, "/runs?a=b")
    assert asked(ui) == 200  # by the cookie
    assert asked(ui, {"Origin": "http://evil.example"}) == 403


def test_names_of_a_reverse_proxy(context):
    ui = client(context, ui_access("0.0.0.0", TOKEN=SECRET, HOSTS="corpus.example, Other.example"))
    key = {"Authorization": f"Bearer {SECRET}"}
    assert asked(ui, key | {"Host": "other.example", "Origin": "https://other.example"}) == 200
    assert asked(ui, key | {"Host": "evil.example"}) == 421


def test_prometheus_is_told_of_the_lake_and_of_runs(context, own, tmp_path, monkeypatch):
    (own.space.root / "metrics").mkdir()
    (own.space.root / "metrics" / "backup.prom").write_text(
        'proccorpus_scheduled_exit_code{task="backup"} 3\n'
    )
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("PROCCORPUS_WORKSPACE", str(own.space.root))
    ui = client(context, ui_access("0.0.0.0", TOKEN=SECRET))
    assert ui.get("/metrics").status_code == 401
    page = ui.get("/metrics", headers={"Authorization": f"Bearer {SECRET}"})
    families = {family.name: family for family in text_string_to_metric_families(page.text)}
    values_by_metric = {}
    for family in families.values():
        values = {tuple(sample.labels.values()): sample.value for sample in family.samples}
        values_by_metric[family.name] = values
    assert values_by_metric["proccorpus_stage_partitions"]["tiny", "shards"] == 3
    assert values_by_metric["proccorpus_stale_chunks"]["tiny",] == 0
    (publishes,) = own.rows("SELECT id FROM ducklake_current_snapshot('lake')")
    assert (
        families["proccorpus_publishes"].type,
        values_by_metric["proccorpus_publishes"][()],
    ) == (
        "counter",
        publishes[0],
    )
    assert values_by_metric["proccorpus_episodes"]["tiny", "usable"] == 5
    assert values_by_metric["proccorpus_runs"]["QUEUED",] == 0
    assert values_by_metric["proccorpus_scheduled_exit_code"]["backup",] == 3
    monkeypatch.setenv("PROCCORPUS_WORKSPACE", str(tmp_path / "nothing"))
    assert ui.get("/metrics", headers={"Authorization": f"Bearer {SECRET}"}).status_code == 503

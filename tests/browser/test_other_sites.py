"""A page of another site, in a real browser, against the explorer, Dagster's UI and the reward server: nothing happens.

For each server the same is then asked by its own page, and happens: so the attack would have been seen.
"""

import asyncio
import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from playwright.sync_api import Browser, Page

from assets.webserver import TOKEN, guarded, ui_access
from core.web import Access, listen
from tests.kits.browser_kit import SCRIPTS, served
from tests.kits.http_server import Answering, serving
from tests.kits.patience import PATIENCE_S
from tests.kits.reward_server_kit import TASK, Pixels, running
from warehouse.sql_process import SqlProcess

# A web page of another site, which tries every way that a page has to make a server on this machine do somethin


@dataclass(frozen=True)
class Wish:
    """What the page wants asked: an address with what is asked for in it, or a body to post there."""

    url: str
    fields: dict[str, str]
    method: str = "POST"

    @property
    def address(self) -> str:
        if self.fields:
            return f"{self.url}?{urlencode(self.fields)}"
        return self.url

    @property
    def body(self) -> str:
        return json.dumps(
            {n: json.loads(v) if v.startswith("{") else v for n, v in self.fields.items()}
        )


def attacking(wishes: Sequence[Wish], number: int) -> str:
    """The page. What its script began and was answered is in `window.tried`; `number` of wishes at
    all is its title."""
    parts = []
    for k, wish in enumerate(wishes):
        address = escape(wish.address)
        parts += [
            f'<img src="{address}">',
            f'<iframe hidden src="{address}"></iframe>',
            f'<script src="{address}"></script>',
            f'<link rel=stylesheet href="{address}">',
            f'<video src="{address}"></video>',
            f'<object data="{address}"></object>',
        ]
        hidden = "".join(
            f'<input name="{escape(n)}" value="{escape(v)}">' for n, v in wish.fields.items()
        )
        # What a form sends as text/plain can be JSON, with the "=" between its name and value inside a text
        start = escape(wish.body[:-1] + (', "x": "' if wish.fields else '"x": "'))
        text = f'<input name="{start}" value="{escape(chr(34) + "}")}">'
        for verb, inner in (
            ("get", hidden),
            ("post", hidden),
            ('post" enctype="text/plain', text),
            ('post" enctype="multipart/form-data', hidden),
        ):
            parts.append(f'<iframe hidden name="f{k}{len(parts)}"></iframe>')
            parts.append(
                f'<form hidden class=sent target="f{k}{len(parts) - 1}" action="{escape(wish.url)}" method="{verb}">'
                f"{inner}</form>"
            )
    wishes_json = json.dumps([[w.url, w.address, w.body, w.method] for w in wishes])
    script = f"const wishes = {wishes_json};\n{(SCRIPTS / 'attack.js').read_text()}"
    return f"<!doctype html><meta charset=utf-8><title>{number}</title>{''.join(parts)}<script>{script}</script>"


@contextmanager
def other_site(pages: dict[str, str]) -> Iterator[str]:
    """Serves pages, by their paths, as `localhost`: another site than 127.0.0.1, as a public one is."""

    class Handler(Answering):
        def do_GET(self) -> None:
            text = pages.get(urlsplit(self.path).path, "")
            self.answer(text, 200 if text else 404)

    with serving(Handler) as address:
        yield address.replace("127.0.0.1", "localhost")


pytestmark = pytest.mark.browser
QUERY = "SELECT 41 + 1 AS answer"
JOB = """
import dagster as dg

@dg.op
def write(): ...

@dg.job
def export():
    write()

defs = dg.Definitions(jobs=[export])
"""
LAUNCH = """mutation($run: ExecutionParams!) {
  launchPipelineExecution(executionParams: $run) { __typename } }"""
ASK = """async ([url, how]) => { const r = await fetch(url, how); return [r.status, await r.text()]; }"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(120_000)
    yield context.new_page()
    context.close()


def attack(page: Page, wishes: list[Wish]) -> None:
    """Show another site's page and wait until all that it tries was answered, or failed."""
    pages = {"/": attacking(wishes, len(wishes))}
    # What takes the whole window along: a link, and a page that sends its form from the top
    for k, wish in enumerate(wishes):
        pages[f"/go{k}"] = f"<!doctype html><script>location = {json.dumps(wish.address)}</script>"
        inner = "".join(f"<input name={n}>" for n in wish.fields)
        send = "<script>document.forms[0].submit()</script>"
        pages[f"/send{k}"] = (
            f"<!doctype html><form method=post action='{wish.url}'>{inner}</form>{send}"
        )
    with other_site(pages) as site:
        page.goto(site)
        # 16 fetches and a socket for each wish
        page.wait_for_function(f"window.tried >= {17 * len(wishes)}")
        assert page.evaluate("window.read") == []  # nothing that was answered could be read
        page.wait_for_timeout(1000)  # forms and beacons tell nobody of their end
        for k in range(len(wishes)):
            for way in ("go", "send"):
                page.goto(f"{site}/{way}{k}")
                page.wait_for_url(lambda url: not url.startswith(site))
                page.wait_for_load_state()


def own(page: Page, url: str, target: str, **fetch_options: Any) -> tuple[int, str]:
    """What a page of the server itself is answered."""
    page.goto(url)
    status, text = page.evaluate(ASK, [target, fetch_options])
    return status, text


def files(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()
    }


def test_the_explorer(page, made, tmp_path, monkeypatch):
    statements: list[str] = []
    query = SqlProcess.query
    monkeypatch.setattr(
        SqlProcess,
        "query",
        lambda self, at, sql, *more: statements.append(sql) or query(self, at, sql, *more),
    )
    space = made.copy(tmp_path).space
    with served(space) as url:
        files_before = files(space.root)
        saved = {"name": "mine", "sql": QUERY}
        episode = f"{url}/api/corrections/tiny/0"
        attack(
            page,
            [
                Wish(f"{url}/sql", {"q": QUERY}),
                Wish(f"{url}/sql/download", {"q": QUERY, "form": "csv"}),
                Wish(f"{url}/api/queries", saved),
                Wish(f"{url}/api/queries/mine", {}, "DELETE"),
                Wish(f"{episode}/accept", {"base_label_run": "x", "author": "evil"}),
                Wish(f"{episode}/undo", {"author": "evil"}),
                Wish(f"{url}/api/running/label", {"what": "embeddings"}),
            ],
        )
        assert statements == []
        assert files(space.root) == files_before
        # Its own page may
        page.goto("about:blank")
        page.goto(Wish(f"{url}/sql", {"q": QUERY}).address)
        assert len(statements) == 1
        assert page.get_by_text("42", exact=True).count()
        token = page.locator("meta[name=csrf-token]").get_attribute("content")
        headers = {"Content-Type": "application/json", "X-CSRF-Token": token}
        fetch_options = {"method": "POST", "headers": headers, "body": json.dumps(saved)}
        assert own(page, url, "/api/queries", **fetch_options)[0] == 200
        assert files(space.root) != files_before


@contextmanager
def dagster_ui(folder: Path) -> Iterator[tuple[str, DagsterInstance]]:
    """Dagster's webserver behind our guard, with one job, and what knows its runs."""
    (folder / "jobs.py").write_text(JOB)
    (folder / "home").mkdir()
    target = PythonFileTarget(str(folder / "jobs.py"), None, str(folder), "jobs")
    home = str(folder / "home")
    with (
        DagsterInstance.local_temp(home) as instance,
        WorkspaceProcessContext(instance, target) as process_context,
    ):
        app = guarded(ui_access("127.0.0.1", {TOKEN: ""}))(process_context).create_asgi_app()
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        with listen("127.0.0.1", 0) as socket:
            thread = threading.Thread(
                target=lambda: asyncio.run(server.serve([socket])), daemon=True
            )
            thread.start()
            try:
                yield f"http://127.0.0.1:{socket.getsockname()[1]}", instance
            finally:
                server.should_exit = True
                thread.join(PATIENCE_S)


def test_dagsters_ui(page, tmp_path):
    job_selector = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "jobs",
        "pipelineName": "export",
    }
    variables = {"run": {"selector": job_selector, "mode": "default"}}
    with dagster_ui(tmp_path) as (url, instance):
        attack(
            page, [Wish(f"{url}/graphql", {"query": LAUNCH, "variables": json.dumps(variables)})]
        )
        assert instance.get_runs_count() == 0
        body = json.dumps({"query": LAUNCH, "variables": variables})
        fetch_options = {
            "method": "POST",
            "headers": {"Content-Type": "application/json"},
            "body": body,
        }
        status, text = own(page, url, "/graphql", **fetch_options)
        assert (status, "LaunchRunSuccess" in text) == (200, True), text
        assert instance.get_runs_count() == 1


def test_the_reward_server(page):
    scorer = Pixels()
    with running(scorer, access=Access()) as app:
        url = app.state.url
        session = {"task": TASK, "fps": "4"}
        attack(
            page,
            [
                Wish(f"{url}/v1/sessions", session),
                Wish(f"{url}/v1/frames", session),
                Wish(f"{url}/v1/videos", session),
                Wish(f"{url}/v1/chat/completions", {"model": "test"}),
                Wish(f"{url}/v1/sessions/none", {}, "DELETE"),
            ],
        )
        counted = own(page, f"{url}/healthz", "/metrics")[1]
        assert scorer.batches == []
        # What was answered at all, by endpoint, and in no case as asked for
        ends = re.findall(
            r'requests_total\{endpoint="(/v1/[^"]+)",method="\w+",status="(\d+)"\}', counted
        )
        assert {status for _, status in ends} <= {"403", "404", "405"}, ends
        fetch_options = {"method": "POST", "headers": {"Content-Type": "application/json"}}
        assert (
            own(
                page,
                f"{url}/healthz",
                "/v1/sessions",
                **fetch_options,
                body=json.dumps({"task": TASK, "fps": 4}),
            )[0]
            == 201
        )

"""What browser tests hold in their hands: an explorer that is served, and a page that is
watched."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

from core.paths import ROOT, Workspace
from explorer.app import create_app
from explorer.site import Options
from tests.kits.http_server import listening

# Of Chromium
SCRIPTS = ROOT / "tests/browser/scripts"  # what is run in pages
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]


def chromium() -> str:
    """The program; without it tests are skipped, or fail where PROCCORPUS_BROWSER=required."""
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("PROCCORPUS_BROWSER") == "required":
            give_up = pytest.fail
        else:
            give_up = pytest.skip
        give_up("there is no Chromium on this machine: make browser installs it")
    return str(program)


@contextmanager
def served(space: Workspace, options: Options = Options()) -> Iterator[str]:
    """The address of an explorer in a thread of this process."""
    with listening(create_app(space, options)) as app:
        yield app.state.url


class Watched:
    """A page of the browser that remembers what went wrong in it."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page: Page = context.new_page()
        self.url = url
        self.problems: list[str] = []
        self.allowed: tuple[str, ...] = ()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda e: self.problems.append(f"error: {e}"))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(
            a in message.text for a in self.allowed
        ):
            self.problems.append(f"{message.type}: {message.text} at {message.location}")

    def open(self, path: str) -> Page:
        self.page.goto(self.url + path)
        return self.page


@contextmanager
def watching(
    browser: Browser, space: Workspace, options: Options = Options(), height: int = 900
) -> Iterator[Watched]:
    """A page at an explorer of its own, both closed afterwards."""
    with served(space, options) as url:
        context = browser.new_context(viewport={"width": 1280, "height": height})
        context.set_default_timeout(30_000)
        watched = Watched(context, url)
        yield watched
        context.close()
    assert watched.problems == [], watched.problems

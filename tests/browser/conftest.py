"""The explorer in real headless Chromium: a browser for each file, and one furnished workspace for all.

Without Chromium these tests are skipped; where PROCCORPUS_BROWSER=required they fail instead. `make browser` installs
it.
"""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.kits.browser_kit import Served, Watched
from tests.kits.explorer_kit import furnish
from tests.kits.made_corpus import Made, make

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="session")
def chromium() -> str:
    program = shutil.which("chromium")
    if program is None:
        say = pytest.fail if os.environ.get("PROCCORPUS_BROWSER") == "required" else pytest.skip
        say("there is no Chromium on this machine: make browser installs it")
    return str(program)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """One for each file: while Playwright is there the main thread has an event loop that runs, which tests of other
    files in this process would stumble over."""
    expect.set_options(timeout=30_000)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def made(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Furnished; not for changing."""
    made = make(tmp_path_factory.mktemp("browser"))
    furnish(made)
    return made


@pytest.fixture(scope="session")
def site(made: Made) -> Iterator[Served]:
    served = Served(made.space)
    yield served
    served.stop()


@pytest.fixture
def watched(browser: Browser, site: Served) -> Iterator[Watched]:
    """A page at the furnished explorer; the test fails for what its console says, unless that is in `allowed`."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, color_scheme="light")
    context.set_default_timeout(60_000)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    found = Watched(context, site.url)
    yield found
    context.close()
    assert found.problems == []

"""The explorer in real headless Chromium: a browser for each file, and one furnished workspace for all.

Without Chromium these tests are skipped; where PROCCORPUS_BROWSER=required they fail instead. `make browser` installs
it.
"""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.kits.browser_kit import FLAGS, Watched, chromium, served
from tests.kits.explorer_kit import furnish
from tests.kits.made_corpus import Made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for each file: while Playwright is there the main thread has an event loop that runs, which tests of other
    files in this process would stumble over."""
    expect.set_options(timeout=30_000)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def made(made: Made, tmp_path_factory) -> Made:
    """Furnished; not for changing."""
    chromium()
    own = made.copy(tmp_path_factory.mktemp("browser"))
    furnish(own)
    return own


@pytest.fixture(scope="session")
def site(made: Made) -> Iterator[str]:
    """Its address."""
    with served(made.space) as url:
        yield url


@pytest.fixture
def watched(browser: Browser, site: str) -> Iterator[Watched]:
    """A page at the furnished explorer; the test fails for what its console says, unless that is in `allowed`."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, color_scheme="light")
    context.set_default_timeout(60_000)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    watched_context = Watched(context, site)
    yield watched_context
    context.close()
    assert watched_context.problems == []

"""Dagster's UI in headless Chromium, by clicks alone: a chunk, a training run, ended."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from core.paths import ROOT, Workspace
from pipeline.build import run_build
from pipeline.config import load_config
from pipeline.release import release_step
from tests.kits.browser_kit import FLAGS, chromium
from tests.kits.fault_kit import wait_for
from tests.kits.lake_kit import opened
from tests.kits.servers import end, free_port

pytestmark = pytest.mark.stack
EPISODES = (0, 1, 2, 3, 36, 37, 38, 39)
PARTITION = "sim_short:00000"
WAIT_MS = 240_000
LAUNCHING = re.compile(r"mutation Launch")


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> Workspace:
    """A part of the sample, built and released as the command line does it, without a model."""
    space = Workspace(tmp_path_factory.mktemp("ui") / "w")
    build = load_config(ROOT / "configs" / "demo.toml")[0]
    facts = build.dataset.model_copy(update={"chunk_size": 20})
    report = run_build(
        space, [build.model_copy(update={"episodes": EPISODES, "dataset": facts})], workers=1
    )
    assert report.failed == []
    with opened(space) as lake:
        release_step(lake, "demo")
    return space


@pytest.fixture(scope="module")
def url(space: Workspace) -> Iterator[str]:
    port = free_port()
    command = [
        Path(sys.executable).parent / "proccorpus",
        "ui",
        "--workspace",
        space.root,
        "--port",
        str(port),
        "--no-token",
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with (space.root.parent / "ui.log").open("wb") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _answers(address), "the UI answers")
        yield address
    finally:
        end(server)


@pytest.fixture(scope="module")
def page(url: str) -> Iterator[Page]:
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 850})
        page.set_default_timeout(120_000)
        page.goto(f"{url}/overview")
        yield page
        browser.close()


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/server_info", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def newest_run(page: Page, url: str) -> Locator:
    """Open the newest run; its status."""
    page.goto(f"{url}/runs")
    page.locator("a[href^='/runs/']").first.click()
    page.wait_for_url(re.compile("/runs/[0-9a-f]{8}"))
    return page.get_by_text(
        re.compile("^(Queued|Starting|Started|Success|Failure|Canceling|Canceled)$")
    ).first


def launch(page: Page, button: Locator) -> None:
    """Click, and wait until the server has said that what it asks for is launched."""
    with page.expect_response(lambda r: LAUNCHING.search(r.request.post_data or "") is not None):
        button.click()


def insist(attempt: Callable[[], None], failure: str) -> None:
    """Dagster draws a page anew whenever it polls its server, which closes a menu that is being clicked."""
    for _ in range(6):
        try:
            return attempt()
        except PlaywrightTimeoutError:
            continue
    pytest.fail(failure)


def terminate(page: Page) -> None:
    """By the dialog. Dagster asks whether a run can be terminated when its page is loaded, which may have been while
    the run was starting: the button stays disabled until the page is loaded again."""

    def attempt() -> None:
        page.reload()
        page.get_by_role("button", name="Terminate").first.click(timeout=30_000)
        page.get_by_role("button", name="Terminate").last.click(timeout=30_000)

    insist(attempt, "the page never let the run be terminated")


def materialise(page: Page, url: str) -> None:
    """The dialog of an asset's partitions, as far as one of them."""

    def attempt() -> None:
        page.goto(f"{url}/assets/progress?view=partitions")
        page.get_by_text(PARTITION).first.wait_for()
        page.get_by_role("button", name="Materialize").first.click(timeout=30_000)
        # Nobody corrected a chunk of this sample or showed a run of it: Dagster asks whether it shall go on without
        page.get_by_role("button", name="Confirm").click(timeout=30_000)
        page.get_by_text("Select a partition or create one").first.click(timeout=30_000)
        # The page behind the dialog names the partition too: on a busy machine its list is drawn before the menu is
        page.get_by_role("menuitem").filter(has_text=PARTITION).click(timeout=30_000)
        page.get_by_text("Launch runs to materialize").click(timeout=30_000)

    insist(attempt, "the dialog never let the partition be chosen")
    launch(page, page.get_by_role("button", name=re.compile("^Launch")).last)


def test_a_chunk_is_materialised_and_shows_its_picture(page, url):
    materialise(page, url)
    expect(newest_run(page, url)).to_have_text("Success", timeout=WAIT_MS)
    page.goto(f"{url}/assets/progress?view=partitions&partition={PARTITION}")
    page.get_by_text("[Show Markdown]").first.click()
    picture = page.locator("img[src^='data:image/'][alt*='progress']").first
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 300
    page.goto(f"{url}/assets/progress?view=checks")
    for name in ("follows_schema", "label_coverage", "label_drift"):
        page.get_by_text(name, exact=True).first.wait_for()
    expect(page.get_by_text("Succeeded")).to_have_count(4)


def test_training_is_launched_and_ended(page, url, space):
    page.goto(f"{url}/assets/reward_model")
    page.get_by_role("button", name="Materialize").first.click(modifiers=["Shift"])
    # A recipe that is not over before it can be ended
    page.locator(".CodeMirror").get_by_text("laptop", exact=True).dblclick()
    recipe = space.root.parent / "long.yaml"
    recipe.write_text("like: tiny_cpu\nname: long\ntrain: {steps: 100000}\n")
    page.keyboard.type(str(recipe))
    page.locator(".CodeMirror").get_by_text(str(recipe), exact=True).wait_for()
    launch(page, page.get_by_role("button", name="Materialize").last)
    status = newest_run(page, url)
    expect(status).to_have_text("Started", timeout=WAIT_MS)
    page.get_by_text(re.compile("loss")).first.wait_for(timeout=WAIT_MS)
    terminate(page)
    expect(status).to_have_text("Canceled", timeout=WAIT_MS)
    wait_for(lambda: not _processes("proccorpus train", str(space.root)), "the job has ended")
    assert list((space.root / "models").glob("*/card.json")) == []


def _processes(*words: str) -> list[int]:
    pids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended
        if all(w in line for w in words):
            pids.append(int(path.parent.name))
    return pids

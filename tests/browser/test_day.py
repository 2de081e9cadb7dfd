"""A labeller's day in a real browser, from a dataset that nobody labelled to a model whose curve is watched.

Whatever is sent is answered half a second late: by then the page has said that it is on its way.
"""

import io
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import yaml
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from annotate.config import EmbeddingsConfig
from core.paths import ROOT, Workspace
from ingest.media.curve_panel import LABEL, LINE, PANEL_PX, STEPS
from pipeline.build import run_build
from pipeline.config import source_build
from tests.kits.browser_kit import SCRIPTS, Watched, served
from tests.kits.cli_kit import command
from tests.kits.made_corpus import with_stages
from training.recipe import load_recipe

pytestmark = pytest.mark.browser
RUNS = (
    *range(30, 36),
    *range(61, 66),
)  # of sim_short: one task; the later ones stop, stall or miss
HELD_OUT = 35
BUILD_MS = 240_000
# What is sent waits; what the page shows by then is kept for the end, over all pages
LATE = (SCRIPTS / "late.js").read_text()
PLAYED = (SCRIPTS / "played.js").read_text()


@pytest.fixture
def space(tmp_path) -> Workspace:
    build = source_build(ROOT / "samples/sim_short", "arm", None, None).model_copy(
        update={"episodes": RUNS}
    )
    build = with_stages(build, embeddings=EmbeddingsConfig(when="never"))
    space = Workspace(tmp_path / "workspace")
    assert not run_build(space, [build], workers=1).failed
    return space


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.set_default_timeout(120_000)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.add_init_script(LATE)
    yield context
    context.close()


def said(page: Page, text: str) -> None:
    expect(page.locator("#editor-state")).to_contain_text(text)


def centre(locator: Locator) -> tuple[float, float]:
    box = locator.bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def correct_by_mouse(page: Page) -> None:
    """Three runs of the queue: a boundary is dragged, a step failed, saved; the next one comes."""
    page.get_by_role("link", name="Review", exact=True).click()
    expect(page.locator("#queue tbody tr").first).to_contain_text("the annotator is unsure")
    page.locator("#queue [data-act=fix]").first.click()
    for _ in range(3):
        page.locator("#editor[data-ready]").wait_for()
        heading = page.locator("h1").inner_text()
        x, y = centre(page.locator(".editor-edge").first)
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 60, y, steps=4)
        page.mouse.up()
        page.locator("#editor-lane [data-segment='0']").click()
        page.get_by_label("completed", exact=True).click()
        said(page, "Changed, not saved yet")
        page.get_by_role("button", name="Save and next").click()
        said(page, "Saving")
        expect(page.locator("h1")).not_to_have_text(heading)


def correct_by_keys(page: Page, url: str) -> None:
    """Three ordinary runs, one after the other: a boundary and a name, saved."""
    page.goto(f"{url}/episode/arm/30")
    for name in ("Grasp it", "Grasp it", "Grasp it"):
        page.locator("#editor[data-ready]").wait_for()
        heading = page.locator("h1").inner_text()
        page.keyboard.press("e")
        page.keyboard.press("Enter")
        page.keyboard.type(name)
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")
        said(page, "Changed, not saved yet")
        page.keyboard.press("Control+s")
        said(page, "Saved. This label is active now.")
        page.keyboard.press("n")
        expect(page.locator("h1")).not_to_have_text(heading)


def carry_over(page: Page, url: str) -> None:
    page.goto(f"{url}/review?dataset=arm")
    page.get_by_role("button", name="Label the other 5 runs of this task like these 6").click()
    box = page.locator(".label-others")
    expect(box).to_contain_text("arm")
    expect(box).to_contain_text("labelled like", timeout=BUILD_MS)
    box.get_by_role("link", name="Old and new labels, where they differ most").click()


def accept_by_difference(page: Page) -> None:
    """One, and one that is ticked; the others keep waiting."""
    changed = page.locator("#queue tbody tr")
    total = changed.count()
    assert total >= 3
    for row in changed.all():
        expect(row.locator(".old-new svg.spans")).to_have_count(2)
    differ = [float(text.split()[-3]) for text in page.locator(".old-new").all_inner_texts()]
    assert differ == sorted(differ, reverse=True)
    changed.first.get_by_role("button", name="Accept the new").click()
    expect(changed).to_have_count(total - 1)
    changed.nth(1).locator(".tick").check()
    page.get_by_role("button", name="those ticked").click()
    expect(changed).to_have_count(total - 2)


def assign(page: Page, url: str, person: str) -> None:
    page.goto(f"{url}/episodes")
    page.get_by_role("checkbox", name="Pick arm 61").check()
    page.locator("#picked [name=assigned]").fill(person)
    page.get_by_role("button", name="Assign", exact=True).click()
    expect(page.locator(".gallery .marks")).to_contain_text(f"for {person}")


def judge_as_another(page: Page, url: str, person: str) -> None:
    """What is assigned is in that person's queue; two people who judge one run see how far they agree."""
    page.goto(f"{url}/review?person={person}")
    page.get_by_label("Your name").fill(person)
    page.get_by_label("Your name").press("Tab")
    expect(page.locator("#queue tbody tr")).to_have_count(1)
    page.locator("#queue [data-act=fix]").click()
    page.locator("#editor[data-ready]").wait_for()
    said(page, "Yours would replace it")
    page.locator(".editor-edge").first.press("ArrowRight")
    page.keyboard.press("Control+s")
    expect(page.locator("#queue-state, .empty").first).to_be_visible()
    page.goto(f"{url}/episode/arm/61")
    said(page, "agree")
    page.goto(f"{url}/review")
    expect(page.locator("#pace")).to_contain_text(f"{person} 1")


def export_and_train(page: Page, url: str, space: Workspace, folder: Path) -> None:
    """The command that the page gives for what it shows is done as it stands; then a model is trained."""
    page.goto(f"{url}/episodes?dataset=arm")
    page.get_by_text("This selection as a command").click()
    [line] = [
        c for c in page.locator(".commands code").all_inner_texts() if " export lerobot " in c
    ]
    exported = command(
        *shlex.split(line)[1:], "--allow-licence", "unknown", "--format", "json", cwd=folder
    )
    assert exported.json["episodes"] == len(RUNS), exported
    recipe = load_recipe("laptop").model_dump(mode="json", exclude_none=True)
    recipe["model"]["laptop"]["encoder"] = "grey"
    recipe["train"] |= {"steps": 30, "batch": 8}
    (folder / "quick.yaml").write_text(yaml.safe_dump(recipe | {"name": "quick"}))
    trained = command("train", "--recipe", folder / "quick.yaml", cwd=folder, workspace=space.root)
    assert trained.code == 0, trained


def near(rgb: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where a picture has a colour, as far as yuv420p keeps it: bool [h, w]."""
    return np.abs(rgb.astype(int) - colour).max(-1) < 40


def watch_overlay(page: Page, space: Workspace, folder: Path) -> None:
    """It plays to its end; the label's curve and steps are there from the first frame, the model's up to this one."""
    run = (
        "--dataset",
        "arm",
        "--episode",
        HELD_OUT,
        "--model",
        "latest",
        "--overlay",
        "overlay.mp4",
    )
    scored = command("reward", *run, cwd=folder, workspace=space.root)
    assert scored.code == 0, scored
    page.goto((folder / "overlay.mp4").as_uri())
    played = page.locator("video").evaluate(PLAYED)
    assert played["times"] == sorted(played["times"])
    assert played["times"][-1] == pytest.approx(played["duration"])
    assert len(set(played["times"])) > 1
    video_pixels = np.asarray(
        Image.open(io.BytesIO(page.locator("video").screenshot())).convert("RGB")
    )
    with av.open(str(folder / "overlay.mp4")) as video:
        first, *_, last = (
            frame.to_ndarray(format="rgb24")[-PANEL_PX + 30 :, 32:]
            for frame in video.decode(video=0)
        )
    assert played["size"] == [video_pixels.shape[1], video_pixels.shape[0]] == [320, 320 + PANEL_PX]
    assert near(first, LABEL).any(0).mean() > 0.9
    assert not near(first, LINE)[:, 40:].any()
    for panel in (last, video_pixels[-PANEL_PX + 30 :, 32:]):
        assert near(panel, LINE).any(0).mean() > 0.9
        assert sum(near(panel, colour).any() for colour in STEPS) >= 2


def test_a_day(browser, context, space, tmp_path):
    with served(space) as url:
        watched_site = Watched(context, url)
        page = watched_site.open("/")
        correct_by_mouse(page)
        correct_by_keys(page, watched_site.url)
        carry_over(page, watched_site.url)
        accept_by_difference(page)
        assign(page, watched_site.url, "grace")
        judge_as_another(page, watched_site.url, "grace")
        export_and_train(page, watched_site.url, space, tmp_path)
        sent = json.loads(page.evaluate("localStorage.getItem('sent')"))
    watch_overlay(page, space, tmp_path)
    assert [path for path, _ in sent[:3]] == [f"/api/corrections/arm/{e}" for e in (65, 63, 61)]
    assert len(sent) >= 11
    assert {told_text for _, told_text in sent} == {'"Sending…"'}
    assert watched_site.problems == []

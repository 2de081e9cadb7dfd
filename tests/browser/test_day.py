"""A labeller's day in a real browser, from a dataset that nobody labelled to a model whose curve is watched.

Whatever is sent is answered half a second late: by then the page has said that it is on its way; but for ten accepts in
a row. How long pages, answers and each part of the day took, and how many clicks and keys, is printed (pytest -s).
"""

import io
import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
import yaml
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from core.paths import ROOT, Workspace
from eval.reward.overlay import LABEL, LINE, PANEL_PX, STEPS
from pipeline.build import run_build
from pipeline.config import source_build
from tests.kits.browser_kit import Served, Watched
from tests.kits.cli_kit import proccorpus
from tests.kits.lake_kit import opened
from training.recipe import load_recipe

pytestmark = pytest.mark.browser
RUNS = (
    *range(30, 36),
    *range(61, 66),
)  # of sim_short: one task; the later ones stop, stall or miss
HELD_OUT = 35
COUNT = 10  # runs that are accepted one after the other
BUILD_MS = 240_000
# What is sent waits; what the page shows by then is kept for the end, over all pages
LATE = """
  const ask = window.fetch;
  const kept = (name) => JSON.parse(localStorage.getItem(name) ?? "[]");
  const keep = (name, said) => localStorage.setItem(name, JSON.stringify([...kept(name), said]));
  const isPrompt = () => localStorage.getItem("prompt") !== null;
  for (const kind of ["click", "keydown"])
    addEventListener(kind, (event) => {
      if (event.isTrusted) localStorage.setItem("acts", Number(localStorage.getItem("acts")) + 1);
    }, true);
  window.fetch = async (url, how) => {
    // The curve of what is edited is asked for without a word: nobody waits for it
    if (!how?.method || how.method === "GET" || String(url).startsWith("/api/curves/")) return ask(url, how);
    if (isPrompt()) return ask(url, how);
    await new Promise((go) => setTimeout(go, 500));
    keep("sent", [String(url), getComputedStyle(document.body, "::before").content]);
    const begun = performance.now();
    const answer = await ask(url, how);
    keep("answered", [String(url), performance.now() - begun]);
    return answer;
  };
  addEventListener("load", () => {
    const [page] = performance.getEntriesByType("navigation");
    keep("pages", [location.pathname, page.responseEnd - page.requestStart]);
  });"""
PLAYED = """async video => {
  video.muted = true; video.controls = false;
  const times = [];
  video.ontimeupdate = () => times.push(video.currentTime);
  const ended = new Promise((done, fail) => { video.onended = done; video.onerror = () => fail(video.error.message); });
  await video.play();
  await ended;
  return {times, duration: video.duration, size: [video.videoWidth, video.videoHeight]};
}"""


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    build = source_build(ROOT / "samples/sim_short", "arm", None, None).model_copy(
        update={"episodes": RUNS}
    )
    space = Workspace(tmp_path / "workspace")
    assert not run_build(space, [build], workers=1).failed
    return space


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.set_default_timeout(30_000)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.add_init_script(LATE)
    yield context
    context.close()


class Day:
    """The parts of the day: how long each took, and how many clicks and keys."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def part(self, what: str, page: Page | None = None) -> Iterator[None]:
        """Only pages of one address count together."""
        acts = self._acts(page)
        start_s = time.perf_counter()
        yield
        took = time.perf_counter() - start_s
        self.lines.append(f"{what}: {self._acts(page) - acts} clicks and keys, {took:.1f} s")

    def _acts(self, page: Page | None) -> int:
        if page is None:
            return 0
        return int(page.evaluate("Number(localStorage.getItem('acts'))"))


def accept_ten(page: Page, url: str) -> None:
    """Ten runs of the queue by one key each, the next on the screen."""
    page.goto(f"{url}/review")
    page.locator("#start").click()
    page.evaluate("localStorage.setItem('prompt', '')")
    for _ in range(COUNT):
        page.locator("#editor[data-ready]").wait_for(state="attached")
        heading = page.locator("h1").inner_text()
        page.keyboard.press("a")
        expect(page.locator("h1")).not_to_have_text(heading)
    page.evaluate("localStorage.removeItem('prompt')")


def say_how_it_ended(page: Page, url: str) -> None:
    """Unfinished, taken back; then failed from the moment at the cursor, which the label shows."""
    page.goto(f"{url}/episode/arm/63")
    page.locator("#editor[data-ready]").wait_for(state="attached")
    page.keyboard.press("u")
    expect(page.locator("#outcome-words b")).to_have_text("unfinished")
    page.get_by_role("button", name="Take it back").click()
    expect(page.locator("#outcome-words b")).not_to_have_text("unfinished")
    page.locator("#editor[data-ready]").wait_for(state="attached")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("b")
    expect(page.locator("#outcome-words b")).to_contain_text("failed from frame")


def find_the_worst(page: Page, url: str) -> None:
    page.goto(f"{url}/episodes?dataset=arm&sort=confidence")
    page.locator(".gallery a").first.click()
    expect(page.locator("h1")).to_contain_text("arm")


def said(page: Page, text: str) -> None:
    expect(page.locator("#editor-state")).to_contain_text(text)


def centre(locator: Locator) -> tuple[float, float]:
    box = locator.bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def correct_by_mouse(page: Page) -> None:
    """Three runs of the queue: a boundary is dragged, a step failed, saved."""
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
    """What is assigned is in that person's queue."""
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
    """The command that the page gives for what it shows is done as it stands."""
    page.goto(f"{url}/episodes?dataset=arm")
    page.get_by_text("This selection as a command").click()
    [command] = [
        c for c in page.locator(".commands code").all_inner_texts() if " export lerobot " in c
    ]
    exported = proccorpus(
        *shlex.split(command)[1:], "--allow-licence", "unknown", "--format", "json", cwd=folder
    )
    assert exported.json["episodes"] == len(RUNS), exported
    recipe = load_recipe("laptop").model_dump(mode="json", exclude_none=True)
    recipe["model"]["laptop"]["encoder"] = "grey"
    recipe["train"] |= {"steps": 30, "batch": 8}
    (folder / "quick.yaml").write_text(yaml.safe_dump(recipe | {"name": "quick"}))
    trained = proccorpus(
        "train", "--recipe", folder / "quick.yaml", cwd=folder, workspace=space.root
    )
    assert trained.code == 0, trained
    page.get_by_role("link", name="Lists", exact=True).click()
    page.get_by_role("link", name="Training runs", exact=True).click()
    page.locator("#result tbody a").first.click()
    expect(page.locator("figure svg path")).to_have_count(1)


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
    scored = proccorpus("reward", *run, cwd=folder, workspace=space.root)
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


def test_a_day(browser: Browser, context: BrowserContext, space: Workspace, tmp_path: Path) -> None:
    served = Served(space)
    watched_site = Watched(context, served.url)
    page = watched_site.open("/")
    day = Day()
    with day.part("three labels corrected by mouse", page):
        correct_by_mouse(page)
    with day.part("three labels corrected by keys", page):
        correct_by_keys(page, watched_site.url)
    with day.part("the others follow", page):
        carry_over(page, watched_site.url)
    with day.part("two accepted by difference", page):
        accept_by_difference(page)
    assign(page, watched_site.url, "grace")
    judge_as_another(page, watched_site.url, "grace")
    with day.part("exported and trained", page):
        export_and_train(page, watched_site.url, space, tmp_path)
    stored_times = {
        k: json.loads(v)
        for k, v in page.evaluate("({...localStorage})").items()
        if v.startswith("[")
    }
    served.stop()
    with day.part("a video scored"):
        watch_overlay(page, space, tmp_path)
    print("", *day.lines, sep="\n")

    sent = [path for path, _ in stored_times["sent"]]
    assert sent[:3] == [f"/api/corrections/arm/{e}" for e in (65, 63, 61)]
    assert len(sent) >= 11
    assert {told_text for _, told_text in stored_times["sent"]} == {'"Sending…"'}
    assert watched_site.problems == []
    for name in ("answered", "pages"):
        path, max_ms = max(stored_times[name], key=lambda row: row[1])
        median = np.median([ms for _, ms in stored_times[name]])
        print(
            f"\n{len(stored_times[name])} {name}: median {median:.0f} ms, at most {max_ms:.0f} ms ({path})"
        )


def test_a_quick_day(browser: Browser, context: BrowserContext, tmp_path: Path) -> None:
    """Two commands to labels, then what takes seconds each: ten accepts, an outcome, the worst run, weights."""
    day = Day()
    space = Workspace(tmp_path / "workspace")
    with day.part("two commands to labels"):
        source = ROOT / "samples/sim_short"
        assert proccorpus("inspect", source, cwd=tmp_path).code == 0
        built = proccorpus(
            "build", "--source", source, "--name", "arm", cwd=tmp_path, workspace=space.root
        )
        assert built.code == 0, built
    served = Served(space)
    watched_site = Watched(context, served.url)
    page = watched_site.open("/")
    with day.part("ten runs accepted", page):
        accept_ten(page, watched_site.url)
    page.keyboard.press("z")
    expect(page.locator("#last")).to_contain_text("taken back")
    with day.part("an outcome said, taken back, said", page):
        say_how_it_ended(page, watched_site.url)
    with day.part("the worst-labelled run", page):
        find_the_worst(page, watched_site.url)
    served.stop()
    with day.part("weights exported"):
        export_options = ("--dataset", "arm", "--allow-licence", "unknown", "--out", "weights")
        weights = proccorpus("export", "rabc", *export_options, cwd=tmp_path, workspace=space.root)
        assert weights.code == 0, weights
    print("", *day.lines, sep="\n")
    with opened(space, read_only=True) as lake:
        [(judged, taken_back)] = lake.rows(
            "SELECT count(*) FILTER (rejects IS NULL), count(rejects) FROM corrections WHERE author = 'somebody'"
        )
        ended = lake.rows("SELECT episode_index, success, file FROM current_outcomes")
    assert (judged, taken_back) == (COUNT + 1, 1)
    assert ended == [(63, False, "explorer")]
    assert watched_site.problems == []

"""Film the README's tour in the real explorer: `make demo`, then `python docs/make_tour.py`.

usage: make_tour.py [--workspace ./workspace] [--out docs/images/tour.webp]
A gallery, an episode that plays, a boundary that is dragged, a label that is saved. It works on a copy of the
workspace, since it saves a correction. Needs Chromium (make browser).
"""

import argparse
import io
import re
import shutil
import tempfile
from pathlib import Path

from make_explorer_screens import FLAGS, ROOT, explorer
from PIL import Image, ImageDraw
from playwright.sync_api import Page, sync_playwright

from core.paths import Workspace

EPISODE = "sim_short/8"
SIZE = {"width": 1280, "height": 800}
SHOWN = (960, 600)
FRAME_MS = 125
POINTER = ((0, 0), (0, 17), (4, 13), (7, 19), (10, 18), (7, 12), (12, 12))


class Film:
    """Pictures of a page, one per `FRAME_MS`, with the pointer drawn where it is."""

    def __init__(self, page: Page) -> None:
        self.page, self.frames, self.at = page, list[Image.Image](), (640.0, 400.0)

    def hold(self, frames: int = 1) -> None:
        for _ in range(frames):
            taken = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
            x, y = self.at
            shape = [(x + 1.4 * dx, y + 1.4 * dy) for dx, dy in POINTER]
            ImageDraw.Draw(taken).polygon(shape, fill="black", outline="white")
            self.frames.append(taken.resize(SHOWN, Image.Resampling.LANCZOS))

    def move(self, x: float, y: float, frames: int) -> None:
        """In a straight line, with a picture after each part of it."""
        (x0, y0), steps = self.at, max(1, frames)
        for step in range(1, steps + 1):
            self.at = (x0 + (x - x0) * step / steps, y0 + (y - y0) * step / steps)
            self.page.mouse.move(*self.at)
            self.page.wait_for_timeout(60)
            self.hold()

    def to(self, selector: str, frames: int, nth: int = 0) -> None:
        """To the middle of an element."""
        box = self.page.locator(selector).nth(nth).bounding_box()
        assert box is not None, selector
        self.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, frames)

    def save(self, out: Path) -> None:
        first, *rest = self.frames
        first.save(
            out,
            "WEBP",
            save_all=True,
            append_images=rest,
            duration=FRAME_MS,
            loop=0,
            quality=60,
            method=6,
        )


def tour(page: Page, url: str) -> Film:
    film = Film(page)
    # The gallery: a picture shows its run while the pointer passes over it
    page.goto(url + "/episodes?dataset=sim_short")
    page.wait_for_load_state("networkidle")
    film.hold(4)
    film.to(".picture", 6)
    picture = page.locator(".picture").first.bounding_box()
    assert picture is not None
    film.move(picture["x"] + picture["width"] - 12, film.at[1], 6)
    # The episode plays
    page.goto(f"{url}/episode/{EPISODE}")
    page.wait_for_load_state("networkidle")
    page.locator("#editor[data-ready]").wait_for()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(120)
        film.hold()
    # A boundary is dragged, the picture of it beside it
    page.keyboard.press("e")
    film.to("#editor-lane [role=slider]", 5)
    x, y = film.at
    page.mouse.down()
    film.move(x + 60, y, 10)
    film.move(x + 44, y, 4)
    page.mouse.up()
    film.hold(2)
    # And saved
    page.locator("#editor-save [name=author]").fill("ada")
    film.to("#editor-save [type=submit]", 5)
    page.mouse.click(*film.at)
    page.locator("#editor-state").filter(has_text=re.compile("[Ss]aved[.:, ]")).filter(
        has_not_text="not saved"
    ).wait_for()
    film.hold(10)
    return film


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=ROOT / "workspace")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "tour.webp")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(asked.workspace.resolve(), Path(folder) / "workspace")
        with explorer(Workspace(copy)) as url, sync_playwright() as p:
            browser = p.chromium.launch(executable_path=asked.chromium, args=FLAGS)
            page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
            film = tour(page, url)
            browser.close()
    film.save(asked.out)
    print(f"{asked.out}: {len(film.frames)} pictures, {asked.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

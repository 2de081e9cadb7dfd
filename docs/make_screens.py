"""Take the screenshots of docs/images from a running UI, by clicking as a person would.

usage: proccorpus ui --port 3111 --no-token &
       python docs/make_screens.py --url http://127.0.0.1:3111 [--only NAME ...]
Needs Chromium (Debian: apt-get install chromium). For leak.png: spoil the splits of a workspace by hand, run
`dg launch --job close` on it, then `--only run`. For training_run.png: materialise reward_model, then `--only
training_run` while it trains.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]


def lineage(page: Page, url: str) -> None:
    """The first page: the whole graph, once the state of every asset is there."""
    page.goto(url)
    page.get_by_text("leaderboard", exact=True).locator("visible=true").last.wait_for(timeout=60000)
    page.wait_for_timeout(20000)


def run(page: Page, url: str) -> None:
    """The newest run, its steps and events."""
    page.goto(f"{url}/runs")
    page.wait_for_timeout(8000)
    page.locator("a[href^='/runs/']").first.click()
    page.wait_for_timeout(9000)


def automation(page: Page, url: str) -> None:
    """Schedules and sensors."""
    page.goto(f"{url}/automation")
    page.get_by_text("source_revisions").first.wait_for(timeout=60000)
    page.wait_for_timeout(3000)


SCREENS: dict[str, Callable[[Page, str], None]] = {
    "lineage": lineage,
    "run": run,
    "automation": automation,
    "training_run": run,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:3000")
    parser.add_argument("--only", nargs="+", choices=SCREENS, default=list(SCREENS))
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    asked = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=asked.chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 850})
        for name in asked.only:
            try:
                SCREENS[name](page, asked.url)
            finally:
                page.screenshot(path=IMAGES / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()

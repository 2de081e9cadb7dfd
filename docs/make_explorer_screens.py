"""Take the screenshots of docs/correcting.md from a real run: `make demo`, then `python docs/make_explorer_screens.py`.

usage: make_explorer_screens.py [--workspace ./workspace] [--out docs/images/explorer] [--only NAME ...] [--all]
`--all` takes every page three times, also in the dark and at a phone's width: for looking at, not for the docs.
Needs Chromium (make browser).
"""

import argparse
import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from core.paths import Workspace
from warehouse.lake import Lake

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
EPISODE = "sim_long/15"
QUERY = """SELECT lower(split_part(name, ' ', 1)) AS verb, count(*) AS steps
FROM active_segments WHERE kind = 'step'
GROUP BY verb ORDER BY steps DESC LIMIT 12"""
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
VARIANTS = {"": (DESKTOP, "light"), "_dark": (DESKTOP, "dark"), "_phone": (PHONE, "light")}
HEIGHTS = {"episodes": 760, "episode": 1060, "editor": 860}  # where the rest says nothing new
MAX_BYTES = 150_000
IN_DOCS = ("episode_dark", "episode_phone")  # beside every page as it is on a desk


def pages(space: Workspace) -> dict[str, str]:
    """Addresses by the names of their pictures."""
    lake = Lake(space, read_only=True)
    run = lake.rows(
        "SELECT eval_run FROM eval_scores JOIN eval_runs USING (eval_run) WHERE metric = 'mae' AND slice = 'all'"
        " AND benchmark LIKE '%(truth)' ORDER BY value, model LIMIT 1"
    )
    lake.con.close()
    return {
        "corpus": "/",
        "episodes": "/episodes?dataset=sim_short&split=train",
        "episode": f"/episode/{EPISODE}?t=6",
        "editor": f"/episode/{EPISODE}?t=6#editor",
        "compare": f"/compare/{EPISODE}?t=6",
        "why": f"/why/{EPISODE}",
        "review": "/review",
        "sql": "/sql?" + urlencode({"q": QUERY, "chart": "bars"}),
        "training": "/training",
        "releases": "/releases",
        "release": "/releases/demo",
        "leaderboard": "/leaderboard?" + urlencode({"benchmark": "held-out (truth)", "metric": "mae"}),
        "score": f"/leaderboard/{run[0][0]}" if run else "/leaderboard",
    }


@contextmanager
def explorer(space: Workspace) -> Iterator[str]:
    command = [sys.executable, str(ROOT / "proccorpus.py"), "explore", "--no-open", "--no-token", "--port", "0"]
    server = subprocess.Popen([*command, "--workspace", str(space.root)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().split(" is at ")[1].split()[0]
    finally:
        server.terminate()
        server.wait(30)


def settle(page: Page, name: str) -> None:
    """What the page shows when it is at rest; of a hover, the contact sheet."""
    page.wait_for_load_state("networkidle")
    if name == "episodes":
        page.locator(".picture").nth(1).hover()
    if name == "editor":
        page.locator("#editor[data-ready]").wait_for()
        page.locator("#editor-lane").scroll_into_view_if_needed()
    page.wait_for_timeout(700)


def take(browser: Browser, url: str, name: str, variant: str, out: Path) -> None:
    size, scheme = VARIANTS[variant]
    context = browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(url)
    settle(page, name)
    taken = Image.open(io.BytesIO(page.screenshot(full_page=name != "editor", animations="disabled")))
    taken = taken.convert("RGB").crop((0, 0, taken.width, min(taken.height, HEIGHTS.get(name, 1300))))
    for colours in (256, 128, 64, 32):
        buffer = io.BytesIO()
        taken.quantize(colours).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= MAX_BYTES:
            break
    (out / f"{name}{variant}.png").write_bytes(buffer.getvalue())
    context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=ROOT / "workspace")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "explorer")
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    asked = parser.parse_args()
    space = Workspace(asked.workspace.resolve())
    asked.out.mkdir(parents=True, exist_ok=True)
    with explorer(space) as url, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=asked.chromium, args=FLAGS)
        for name, path in pages(space).items():
            for variant in VARIANTS:
                wanted = asked.all or not variant or f"{name}{variant}" in IN_DOCS
                if wanted and (not asked.only or name in asked.only):
                    take(browser, url + path, name, variant, asked.out)
        browser.close()


if __name__ == "__main__":
    main()

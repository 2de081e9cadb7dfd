"""Take the screenshots of docs/correcting.md from a real run: `make demo`, then `python -m docs.make_explorer_screens`.

usage: python -m docs.make_explorer_screens [--workspace ./workspace] [--out docs/images/explorer] [--only NAME ...]
       [--all]
`--all` takes every page three times, also in the dark and at a phone's width: for looking at, not for the docs.
The page beside shows runs that are made for it. Needs Chromium (make browser).
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from core.paths import Workspace
from pipeline.build import run_build
from pipeline.config import source_build
from tests.kits.retimed_runs import REAL, make_runs, paces
from warehouse.lake import Lake
from warehouse.lake.corrections import episode_facts, parsed, save

ROOT = Path(__file__).resolve().parents[1]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]
EPISODE = "sim_long/15"
QUERY = """SELECT lower(split_part(name, ' ', 1)) AS verb, count(*) AS steps
FROM active_segments WHERE kind = 'step'
GROUP BY verb ORDER BY steps DESC LIMIT 12"""
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
VARIANTS = {"": (DESKTOP, "light"), "_dark": (DESKTOP, "dark"), "_phone": (PHONE, "light")}
HEIGHTS = {
    "beside": 860,
    "episodes": 760,
    "episode": 1060,
    "editor": 860,
}  # where the rest says nothing new
MAX_BYTES = 150_000
IN_DOCS = ("beside", "editor", "episode", "episodes", "review")
TRUTH = ROOT / "benchmarks" / "real_truth" / "gr1_pick_place" / f"{REAL:06d}.json"


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
        "why": f"/episode/{EPISODE}?calls=1",
        "review": "/review",
        "sql": "/sql?" + urlencode({"q": QUERY, "chart": "bars"}),
        "training": "/training",
        "releases": "/releases",
        "lists": "/t",
        "leaderboard": "/leaderboard?"
        + urlencode({"benchmark": "held-out (truth)", "metric": "mae"}),
        "score": f"/leaderboard/{run[0][0]}" if run else "/leaderboard",
    }


def followed(folder: Path) -> Workspace:
    """Four runs of one task, of a real one at other paces: the first has its true steps, the others are labelled so."""
    space = Workspace(folder / "workspace")
    build = source_build(make_runs(folder / "cupcake"), "cupcake", None, None)
    run_build(space, [build], workers=1)
    shown = paces()[0].tolist()  # every other frame of the real run
    segments = [
        {
            "name": step["name"].capitalize(),
            "start_frame": sum(frame < step["start_frame"] for frame in shown),
            "end_frame": sum(frame < step["end_frame"] for frame in shown),
            "kind": "step" if step["kind"] == "step" else "done",
        }
        for step in json.loads(TRUTH.read_text())["pass_a"]
    ]
    lake = Lake(space)
    seen = {
        "base_label_run": None,
        "base_content_hash": episode_facts(lake, "cupcake", 0)["content_hash"],
    }
    save(lake, "cupcake", 0, parsed({"segments": segments}), author="ada", follows=None, **seen)
    lake.con.close()
    run_build(space, [build], workers=1)
    return space


@contextmanager
def explorer(space: Workspace) -> Iterator[str]:
    command = [
        sys.executable,
        str(ROOT / "proccorpus.py"),
        "explore",
        "--no-open",
        "--no-token",
        "--port",
        "0",
    ]
    server = subprocess.Popen(
        [*command, "--workspace", str(space.root)], stdout=subprocess.PIPE, text=True
    )
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
    taken = Image.open(
        io.BytesIO(page.screenshot(full_page=name != "editor", animations="disabled"))
    )
    taken = taken.convert("RGB").crop(
        (0, 0, taken.width, min(taken.height, HEIGHTS.get(name, 1300)))
    )
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
    addresses = pages(space)
    wanted = asked.only or ([*addresses, "beside"] if asked.all else IN_DOCS)
    variants = VARIANTS if asked.all else ("",)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=asked.chromium, args=FLAGS)
        with explorer(space) as url:
            for name, path in addresses.items():
                for variant in variants if name in wanted else ():
                    take(browser, url + path, name, variant, asked.out)
        if "beside" in wanted:
            with tempfile.TemporaryDirectory() as folder, explorer(followed(Path(folder))) as url:
                for variant in variants:
                    take(
                        browser,
                        f"{url}/episode/cupcake/1?queue=follows&of=cupcake&t=11",
                        "beside",
                        variant,
                        asked.out,
                    )
        browser.close()


if __name__ == "__main__":
    main()

"""What a judgement costs the explorer: server CPU and seconds, in a browser, beside another checkout.

    python -m benchmarks.judging [--against CHECKOUT] [--accepts 10] [--rounds 2] [--in-a-row 1000] [--store]

--store writes the figures to docs/data/judging.json, from where `python docs/make_stated.py` takes them into pages.

Chromium presses A in the queue of the shipped sample, and the next run has to stand on the screen with its editor
ready: all that a page asks for counts, and the commit to the lake that follows. The checkouts take turns, each on a
copy of what it built. Then judgements are sent over HTTP, one after another, and the first hundred are compared with
the last.
"""

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from playwright.sync_api import Browser, sync_playwright

from benchmarks.harness import (
    Figure,
    arguments,
    cpu_s,
    exit_code,
    machine,
    serving,
    table,
    write_json,
)
from core.paths import ROOT
from tests.kits.browser_kit import FLAGS, chromium
from tests.kits.visitor import csrf

FIGURES = ROOT / "docs" / "data" / "judging.json"
WANTED_CPU_S = 0.1
WANTED_RATIO = 8.0
WANTED_TEN_S = 6.0  # on an idle machine
THIS = "this"
SETTLED_S = 8.0  # after the last judgement: by then it is in the lake
NUM_EPISODES = 60  # that are judged again and again
PART = 100  # judgements that are compared


def explorer_of(checkout: Path, workspace: Path) -> tuple[str, ...]:
    options = ("explore", "--no-open", "--no-token", "--port", "0", "--workspace", str(workspace))
    return str(checkout / "proccorpus.py"), *options


def made(checkout: Path, workspace: Path) -> Path:
    """The shipped sample, built by a checkout: each has its own version of the lake."""
    source = ("--source", str(ROOT / "samples/sim_short"), "--name", "sim_short")
    words = ("build", *source, "--workers", "1", "--workspace", str(workspace))
    program = [sys.executable, str(checkout / "proccorpus.py"), *words]
    subprocess.run(program, cwd=checkout, check=True, capture_output=True)
    return workspace


def accepted(
    browser: Browser, checkout: Path, workspace: Path, count: int
) -> tuple[float, list[float]]:
    """Server CPU of an accept, and the seconds until the next run stood on the screen."""
    with serving(*explorer_of(checkout, workspace), folder=checkout) as (line, pid):
        page = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
        page.set_default_timeout(120_000)
        page.goto(line.split(" is at ")[1].split()[0] + "/review")
        page.locator("#start").click()
        page.locator("#editor[data-ready]").wait_for(state="attached")
        page.wait_for_load_state("networkidle")
        start_cpu_s = cpu_s(pid)
        took = []
        for _ in range(count):
            address = page.url
            since = time.perf_counter()
            page.keyboard.press("a")
            page.wait_for_url(lambda url, here=address: url.split("?")[0] != here.split("?")[0])
            page.locator("#editor[data-ready]").wait_for(state="attached")
            took.append(time.perf_counter() - since)
        time.sleep(SETTLED_S)
        page.context.close()
        return (cpu_s(pid) - start_cpu_s) / count, took


def in_a_row(workspace: Path, count: int) -> list[float]:
    """Server CPU of each hundred judgements, by one."""
    with serving(*explorer_of(ROOT, workspace)) as (line, pid):
        url = line.split(" is at ")[1].split()[0]
        with httpx.Client(base_url=url, timeout=120) as client:
            headers = {"origin": url, "x-csrf-token": csrf(client)}
            episode_views = [
                client.get(f"/api/episode/sim_short/{episode}").json()
                for episode in range(NUM_EPISODES)
            ]
            runs = [episode["runs"][0]["label_run"] for episode in episode_views]
            newest: dict[int, str | None] = {}
            costs = []
            for part in range(count // PART):
                start_cpu_s = cpu_s(pid)
                for number in range(part * PART, (part + 1) * PART):
                    episode = number % NUM_EPISODES
                    body = {
                        "author": "ada",
                        "comment": str(number),
                        "brief": True,
                        "base_label_run": runs[episode],
                    }
                    path = f"/api/corrections/sim_short/{episode}/accept"
                    answer = client.post(
                        path, json=body | {"follows": newest.get(episode)}, headers=headers
                    )
                    newest[episode] = answer.raise_for_status().json()["saved"]
                costs.append((cpu_s(pid) - start_cpu_s) / PART)
            return costs


def stated(
    cpu: Mapping[str, Sequence[float]],
    took: Mapping[str, Sequence[float]],
    costs: Sequence[float],
) -> dict[str, Any]:
    """What pages state of each checkout, and of judgements in a row."""
    checkouts = {
        name: {
            "cpu_s": round(statistics.mean(cpu[name]), 3),
            "median_s": round(statistics.median(took[name]), 2),
            "most_s": round(max(took[name]), 2),
            "ten_s": round(10 * statistics.mean(took[name]), 1),
        }
        for name in cpu
    }
    other_costs = [row["cpu_s"] for name, row in checkouts.items() if name != THIS]
    return {
        "checkouts": checkouts,
        "ratio": round(other_costs[0] / checkouts[THIS]["cpu_s"], 1) if other_costs else None,
        "in_a_row_cpu_s": [round(cost, 3) for cost in costs],
    }


def main() -> int:
    parser = arguments(__doc__, check=True)
    parser.add_argument("--against", type=Path, help="another checkout of proccorpus")
    parser.add_argument("--accepts", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--in-a-row", type=int, default=1000)
    parser.add_argument("--store", action="store_true", help="write the figures that pages state")
    args = parser.parse_args()
    checkouts = {THIS: ROOT} | ({"the other": args.against.resolve()} if args.against else {})
    cpu: dict[str, list[float]] = {name: [] for name in checkouts}
    took: dict[str, list[float]] = {name: [] for name in checkouts}
    with TemporaryDirectory() as folder, sync_playwright() as p:
        built = {
            name: made(checkout, Path(folder) / f"made by {name}")
            for name, checkout in checkouts.items()
        }
        browser = p.chromium.launch(executable_path=chromium(), args=FLAGS)
        for number in range(args.rounds):
            for name, checkout in checkouts.items():
                copy = shutil.copytree(built[name], Path(folder) / f"{name} {number}")
                cost, seconds = accepted(browser, checkout, copy, args.accepts)
                cpu[name].append(cost)
                took[name] += seconds
        browser.close()
        costs = in_a_row(shutil.copytree(built[THIS], Path(folder) / "row"), args.in_a_row)
    figures = stated(cpu, took, costs)
    print(f"{machine()}\n")
    head = ("checkout", "server CPU s an accept", "median s", "most s", "ten accepts s")
    lines = [[name, *map(str, row.values())] for name, row in figures["checkouts"].items()]
    table(head, lines)
    in_a_row_s = ", ".join(f"{cost:.3f}" for cost in costs)
    print(f"\n{args.in_a_row} in a row, server CPU s each, by the hundred: {in_a_row_s}")
    this_checkout = figures["checkouts"][THIS]
    goals = [
        Figure("server CPU of an accept", this_checkout["cpu_s"], WANTED_CPU_S, "s", smaller=True),
        Figure("ten accepts", this_checkout["ten_s"], WANTED_TEN_S, "s", smaller=True),
        Figure("server CPU of one of many", max(costs), WANTED_CPU_S, "s", smaller=True),
    ]
    if figures["ratio"]:
        print(f"\nThe other takes {figures['ratio']} times the CPU.")
        goals.append(Figure("the other's CPU beside ours", figures["ratio"], WANTED_RATIO))
    if args.store:
        write_json(FIGURES, figures | {"machine": machine()})
    return exit_code(goals, args.check)


if __name__ == "__main__":
    raise SystemExit(main())

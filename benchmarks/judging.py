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
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from playwright.sync_api import Browser, sync_playwright

from benchmarks.explorer import exploring
from benchmarks.harness import Figure, cpu_s, machine, measure, write_json
from core.paths import ROOT
from tests.kits.browser_kit import FLAGS, chromium
from tests.kits.visitor import csrf

FIGURES = ROOT / "docs" / "data" / "judging.json"
WANTED_CPU_S = 0.1
WANTED_RATIO = 8.0
THIS = "this"
# Of an accept, by the server; and of ten of them, on an idle machine
WANTED_S = {THIS: (WANTED_CPU_S, 6.0)}
SETTLED_S = 8.0  # after the last judgement: by then it is in the lake
NUM_EPISODES = 60  # that are judged again and again
PART = 100  # judgements that are compared


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
    with exploring(workspace, checkout) as (url, pid, _):
        page = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
        page.set_default_timeout(120_000)
        page.goto(f"{url}/review")
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
    with exploring(workspace) as (url, pid, _), httpx.Client(base_url=url, timeout=120) as client:
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


def figures(args: Namespace) -> Iterator[Figure]:
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
    facts = stated(cpu, took, costs)
    for name, row in facts["checkouts"].items():
        cpu_goal, ten_goal = WANTED_S.get(name, (None, None))
        note = f"until the next stands there: {row['median_s']} s (median), {row['most_s']} (most)"
        title = f"{name}: server CPU of an accept"
        yield Figure(title, row["cpu_s"], cpu_goal, "s", smaller=True, note=note)
        yield Figure(f"{name}: ten accepts", row["ten_s"], ten_goal, "s", smaller=True)
    note = f"each of {args.in_a_row}, by the hundred: {facts['in_a_row_cpu_s']}"
    title = "server CPU of one of many"
    yield Figure(title, max(costs), WANTED_CPU_S, "s", smaller=True, note=note)
    if facts["ratio"]:
        yield Figure("the other's CPU beside ours", facts["ratio"], WANTED_RATIO)
    if args.store:
        write_json(FIGURES, facts | {"machine": machine()})


if __name__ == "__main__":
    measure(__doc__, figures, against=None, accepts=10, rounds=2, in_a_row=1000, store=False)

"""What a judgement costs the explorer: server CPU and seconds, in a browser, beside another checkout.

    python -m benchmarks.judging [--against CHECKOUT] [--accepts 10] [--rounds 2] [--in-a-row 1000]

Chromium presses A in the queue of the shipped sample, and the next run has to stand on the screen with its editor
ready: all that a page asks for counts, and the commit to the lake that follows. The checkouts take turns, each on a
copy of one workspace. Then judgements are sent over HTTP, one after another, and the first hundred are compared with
the last.
"""

import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from playwright.sync_api import Browser, sync_playwright

from benchmarks.harness import arguments, cpu_s, exit_code, is_missed, machine, serving
from core.paths import ROOT, Workspace
from pipeline.build import run_build
from pipeline.config import source_build
from tests.kits.browser_kit import FLAGS, chromium
from tests.kits.visitor import csrf

WANTED_CPU_S = 0.1
WANTED_RATIO = 8.0
SETTLED_S = 8.0  # after the last judgement: by then it is in the lake
NUM_EPISODES = 60  # that are judged again and again
PART = 100  # judgements that are compared


def explorer_of(checkout: Path, workspace: Path) -> tuple[str, ...]:
    options = ("explore", "--no-open", "--no-token", "--port", "0", "--workspace", str(workspace))
    return str(checkout / "proccorpus.py"), *options


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


def row(name: str, cpu: Sequence[float], took: Sequence[float]) -> str:
    ten = 10 * statistics.mean(took)
    return f"| {name} | {statistics.mean(cpu):.3f} | {statistics.median(took):.2f} | {max(took):.2f} | {ten:.1f} |"


def main() -> int:
    parser = arguments(__doc__, check=True)
    parser.add_argument("--against", type=Path, help="another checkout of proccorpus")
    parser.add_argument("--accepts", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--in-a-row", type=int, default=1000)
    args = parser.parse_args()
    checkouts = {"this": ROOT} | ({"the other": args.against.resolve()} if args.against else {})
    cpu: dict[str, list[float]] = {name: [] for name in checkouts}
    took: dict[str, list[float]] = {name: [] for name in checkouts}
    with TemporaryDirectory() as folder, sync_playwright() as p:
        built_workspace = Workspace(Path(folder) / "made")
        assert not run_build(
            built_workspace, [source_build(ROOT / "samples/sim_short", "sim_short", None, None)], 1
        ).failed
        browser = p.chromium.launch(executable_path=chromium(), args=FLAGS)
        for number in range(args.rounds):
            for name, checkout in checkouts.items():
                copy = shutil.copytree(built_workspace.root, Path(folder) / f"{name} {number}")
                cost, seconds = accepted(browser, checkout, copy, args.accepts)
                cpu[name].append(cost)
                took[name] += seconds
        browser.close()
        costs = in_a_row(shutil.copytree(built_workspace.root, Path(folder) / "row"), args.in_a_row)
    print(
        f"{machine()}\n\n| checkout | server CPU s an accept | median s | most s | ten accepts s |"
    )
    print("|---|---|---|---|---|")
    for name in checkouts:
        print(row(name, cpu[name], took[name]))
    print(
        f"\n{args.in_a_row} in a row, server CPU s each, by the hundred: {', '.join(f'{c:.3f}' for c in costs)}"
    )
    missed = []
    if is_missed(own_cpu_s := statistics.mean(cpu["this"]), WANTED_CPU_S, smaller_is_better=True):
        missed.append(f"{own_cpu_s:.3f} s of server CPU an accept, {WANTED_CPU_S} wanted")
    if args.against:
        ratio = statistics.mean(cpu["the other"]) / own_cpu_s
        print(f"\nThe other takes {ratio:.1f} times the CPU.")
        if is_missed(ratio, WANTED_RATIO):
            missed.append(f"{ratio:.1f} times less CPU, {WANTED_RATIO:.0f} wanted")
    return exit_code(missed, args.check)


if __name__ == "__main__":
    raise SystemExit(main())

"""How much of a server's speed the annotation pipeline uses: its output tokens per second over the bare server's.

    python -m benchmarks.vlm_pipeline --endpoint http://127.0.0.1:8000/v1 --model tiny [--episodes 60]

The shipped sim_short episodes are annotated (segments and reasoning stages, after a build by motion) on a running
server, and the very requests that this sent are then sent again by a bare client: raw bodies, as many at once, nothing
looked at, nothing stored. Each of the two runs has a salt at the beginning of its prompts,
so that none profits from what the server has cached of another. The ratio's floor is 0.8 (--check exits 1 below it).
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import aiohttp

from annotate.model_client.endpoints import Endpoint
from annotate.vlm import prompts
from benchmarks.harness import arguments, exit_code
from core.paths import Workspace
from ingest.registry import BUILT_IN, load_registry
from pipeline.build import run_build
from pipeline.config import DatasetBuild, with_annotator
from warehouse.lake import Lake

FLOOR = 0.8
bodies: list[bytes] = []  # of all requests sent
chat = Endpoint.chat


async def _recorded(self: Endpoint, body: bytes, timeout_s: float) -> bytes:
    bodies.append(body)
    return await chat(self, body, timeout_s)


render = prompts.render


def pipeline(endpoint: str, model: str, episodes: tuple[int, ...], salt: str) -> tuple[int, float]:
    """Output tokens, and the seconds of the stages that ask."""
    entry = load_registry([BUILT_IN])["sim_short"].model_copy(update={"chunk_size": 500})
    build = DatasetBuild(dataset=entry, episodes=episodes)
    with tempfile.TemporaryDirectory() as folder:
        space = Workspace(Path(folder))
        run_build(space, [build], workers=1)
        asking = with_annotator(build, "vlm", [endpoint], model)
        with mock.patch.object(
            prompts, "render", lambda name, **v: salt * (name == "system") + render(name, **v)
        ):
            report = run_build(space, [asking], workers=1)
        assert not report.failed, report.failed
        seconds = sum(
            d.run.duration_s for d in report.done if d.run.stage in ("segments", "reasoning")
        )
        tokens = Lake(space, read_only=True).rows("SELECT sum(completion_tokens) FROM vlm_calls")[
            0
        ][0]
    return tokens, seconds


async def bare(endpoint: str, sent: list[bytes], at_once: int) -> tuple[int, float]:
    slots = asyncio.Semaphore(at_once)
    tokens = 0
    async with aiohttp.ClientSession() as session:

        async def one(body: bytes) -> int:
            async with (
                slots,
                session.post(
                    f"{endpoint}/chat/completions",
                    data=body,
                    headers={"Content-Type": "application/json"},
                ) as answer,
            ):
                return (await answer.json())["usage"]["completion_tokens"]

        start = time.perf_counter()
        tokens = sum(await asyncio.gather(*(one(b) for b in sent)))
        return tokens, time.perf_counter() - start


def main() -> int:
    parser = arguments(__doc__, check=True)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument(
        "--at-once", type=int, default=16, help="of the bare client; the pipeline's own bound is 16"
    )
    args = parser.parse_args()
    Endpoint.chat = _recorded
    episodes = tuple(range(args.episodes))
    pipeline(args.endpoint, args.model, episodes[:1], "warm ")
    ratios = []
    for run in range(2):
        bodies.clear()
        prefix = f"run {run} "
        ours = pipeline(args.endpoint, args.model, episodes, prefix)
        salted = [b.replace(prefix.encode(), f"again {run} ".encode()) for b in bodies]
        theirs = asyncio.run(bare(args.endpoint, salted, args.at_once))
        rates = ours[0] / ours[1], theirs[0] / theirs[1]
        ratios.append(rates[0] / rates[1])
        print(
            f"pipeline: {ours[0]} tokens in {ours[1]:.1f} s = {rates[0]:.0f}/s; bare server: {theirs[0]} in "
            f"{theirs[1]:.1f} s = {rates[1]:.0f}/s; ratio {ratios[-1]:.2f} ({len(salted)} calls)"
        )
    return exit_code(
        [f"{min(ratios):.2f}, wanted {FLOOR}"] if min(ratios) < FLOOR else [], args.check
    )


if __name__ == "__main__":
    sys.exit(main())

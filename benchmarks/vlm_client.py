"""How busy the VLM client keeps a server, and what CPU a call costs.

    python -m benchmarks.vlm_client [--calls N]

A stand-in in a process of its own answers after 200 ms, 32 requests at a time, and does not look at bodies. It is asked
N questions (default 2,000) of 16 distinct pictures of 256 x 256 px and about 15 kB each, through store and ledger;
then 50 by a client that asks one at a time. Exits 1 when less than 90 % of the server's slots were busy between the
first request and the last answer, or a reply is lost.
"""

import asyncio
import io
import json
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as Pictures

from annotate.model_client.calls import Image, Request
from annotate.model_client.client import Client
from annotate.model_client.responses import ResponseStore
from annotate.vlm.config import VlmConfig
from benchmarks.harness import arguments, machine, serving

SLOTS, LATENCY_S, IMAGES, ONE_BY_ONE = 32, 0.2, 16, 50
LEAST_BUSY = 0.9
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Run:
    wall_s: float
    cpu_s: float  # of the client's process
    busy: float  # share of the server's slots
    replies: int


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    args = parser.parse_args()
    images = pictures(args.calls * IMAGES)
    size = sum(len(i.jpeg) for i in images) / len(images)
    with tempfile.TemporaryDirectory() as folder:
        many = measure(Path(folder) / "many", images, SLOTS)
        one = measure(Path(folder) / "one", images[: ONE_BY_ONE * IMAGES], 1)
    print(f"{args.calls} calls of {IMAGES} pictures of {size / 1000:.1f} kB; {machine()}")
    for name, run in ((f"{SLOTS} at a time", many), ("one at a time", one)):
        rate = run.replies / run.wall_s
        print(
            f"{name}: {run.busy:.1%} of {SLOTS} slots busy, {rate:.1f} calls/s of {SLOTS / LATENCY_S:.0f} possible, "
            f"{1000 * run.cpu_s / run.replies:.2f} ms CPU per call ({run.cpu_s / run.wall_s:.0%} of a core)"
        )
    whole = (many.replies, one.replies) == (args.calls, min(ONE_BY_ONE, args.calls))
    if not whole:
        print("error: replies were lost", file=sys.stderr)
    return int(not whole or many.busy < LEAST_BUSY)


def pictures(number: int) -> list[Image]:
    """Distinct by a comment: drawing 32,000 would take minutes."""
    noise = np.random.default_rng(0)
    bases = []
    for _ in range(16):
        coarse = noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        base = Pictures.fromarray(coarse).resize((256, 256), Pictures.Resampling.BICUBIC)
        grain = noise.normal(0, 7, (256, 256, 3))
        data = io.BytesIO()
        Pictures.fromarray(np.clip(np.asarray(base) + grain, 0, 255).astype(np.uint8)).save(data, "JPEG", quality=70)
        bases.append(data.getvalue())
    return [Image.of(comment(bases[n % 16], n)) for n in range(number)]


def comment(jpeg: bytes, number: int) -> bytes:
    text = b"%08d" % number
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2) + text + jpeg[2:]


def measure(folder: Path, images: list[Image], concurrency: int) -> Run:
    words = ("-m", "tests.kits.vlm_standin", "--no-parse", "--latency", str(LATENCY_S), "--slots", str(SLOTS))
    with serving(*words) as (url, _):
        wall_s, cpu_s, replies = asyncio.run(ask(folder, url, images, concurrency))
        with urllib.request.urlopen(url.removesuffix("/v1") + "/stats", timeout=10) as response:
            stats = json.load(response)
    return Run(wall_s, cpu_s, stats["busy_s"] / (SLOTS * stats["span_s"]), replies)


async def ask(folder: Path, url: str, images: list[Image], concurrency: int) -> tuple[float, float, int]:
    config = VlmConfig(model="stand-in", endpoints=(url,), max_concurrency=concurrency)
    store = ResponseStore(folder)
    requests = [
        Request("plan", "You look.", (*images[n : n + IMAGES], "What is done?"), SCHEMA, max_tokens=100)
        for n in range(0, len(images), IMAGES)
    ]
    client = Client(config, store, build_id="b", dataset="d", label_run="r", prompt_version="v")
    async with client:
        await client.check()
        start, cpu = time.perf_counter(), time.process_time()
        replies = await asyncio.gather(*(client.ask(request, n) for n, request in enumerate(requests)))
        wall_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    stored = len(store.keys())
    store.close()
    return wall_s, cpu_s, min(stored, sum(not reply.cached for reply in replies))


if __name__ == "__main__":
    sys.exit(main())

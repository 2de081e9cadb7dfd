"""The whole pipeline, from raw video to verified shards, as a share of the speed of decoding alone.

    python -m benchmarks.pipeline [--episodes 24] [--frames 600] [--runs 2] [--codec h264 AV1] [--workers 1 2]

Plain videos of 640x480 px at 20 a second, made of the shipped samples and encoded as LeRobot does (two frames a group,
crf 30), by h264 and AV1; one camera, two chunks, labels by `motion`. For each codec, sample
profile and number of workers, in turns within one run:

- decode: as many processes as workers decode every frame once with PyAV, the cores shared out as a build does;
- build: `run_build` on an empty workspace, then every shard is checked as `release verify` does.

The ratio is the time of decoding over that of building, less what a build of as many episodes with hardly any frames
takes (starting workers, importing, planning and publishing: next to nothing with chunks of the usual 500 episodes).
Each of the three is the least of several runs, since whatever disturbs a run makes it longer. Beside wall-clock time
the same ratio in CPU time, which says more where others share the machine: it may be 0.1 less.
Wrong counts exit 1.
"""

import json
import os
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice, product
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("SVT_LOG", "1")  # errors only

import cv2
import numpy as np

from annotate.config import SamplesConfig
from benchmarks.harness import Figure, apart, expect, measure, own_cpu_s
from core.paths import Workspace
from ingest.episode import DecodeOptions
from ingest.media.video import decode
from ingest.registry import DatasetConfig
from pipeline.build import BuildListener, run_build
from pipeline.config import DatasetBuild, StageConfigs
from pipeline.stage import StageMoment
from tests.kits.lerobot_writer import write_video
from warehouse.lake import Lake
from warehouse.shards.check import check_shard

SAMPLES = Path(__file__).parents[1] / "samples"
VIDEOS = sorted(SAMPLES.glob("sim_*/videos/observation.images.front/*/*.mp4"))
CODECS = {
    "h264": {"preset": "veryfast", "crf": "30", "g": "2"},
    "AV1": {"preset": "8", "crf": "30", "g": "2"},
}
FPS = 20
CHUNKS = 2
CLIPS = 4
PROFILES = ("balanced", "procvlm")
# Of decoding, by the clock, of so many workers; in CPU time so much less
GOALS = {
    ("h264", "balanced", 2): 0.75,
    ("AV1", "balanced", 2): 0.85,
    ("h264", "procvlm", 2): 0.6,
    ("AV1", "procvlm", 2): 0.75,
}
LESS_IN_CPU = 0.1
STAGES_SHOWN = ("decoding alone", "frames", "samples", "shards", "checking shards", "all")
CORES = len(os.sched_getaffinity(0))


def pictures(skip: int) -> Iterator[np.ndarray]:
    """640x480 RGB of the shipped videos, one after another, from some frame on, without end."""
    while True:
        for path in VIDEOS:
            for frame in decode(path):
                if skip > 0:
                    skip -= 1
                else:
                    yield cv2.resize(frame.rgb(), (640, 480), interpolation=cv2.INTER_CUBIC)


def encode(codec: str, path: Path, skip: int, frames: int) -> None:
    """So many frames of the shipped videos from the frame `skip` on."""
    encode_all(codec, path, islice(pictures(skip), frames))


def encode_all(codec: str, path: Path, rgb_pictures: Iterable[np.ndarray]) -> None:
    """A video of RGB pictures of one size, two from key frame to key frame."""
    write_video(path, rgb_pictures, codec.lower(), FPS, options=CODECS[codec])


def make(codec: str, folder: Path, episodes: int, frames: int) -> None:
    """Raw data: videos with a task each; a few clips, again and again."""
    folder.mkdir()
    for k in range(episodes):
        path = folder / f"episode_{k:03d}.mp4"
        if k < CLIPS:
            encode(codec, path, 900 * k, frames)
        else:
            os.link(folder / f"episode_{k % CLIPS:03d}.mp4", path)
        path.with_suffix(".json").write_text(
            json.dumps({"task": f"put block {k} into the tray", "fps": FPS})
        )


def decoded(paths: list[Path], threads: int) -> tuple[int, float]:
    """Frames, and CPU seconds."""
    start_s = time.process_time()
    count = 0
    for path in paths:
        count += sum(1 for _ in decode(path, options=DecodeOptions(threads)))
    return count, time.process_time() - start_s


def decode_only(folder: Path, workers: int) -> dict[str, float]:
    paths = sorted(folder.glob("*.mp4"))
    shares = [paths[k::workers] for k in range(workers)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(
            pool.map(decoded, [[p[0]] for p in shares], [1] * workers)
        )  # all are started, and have imported
        start = time.perf_counter()
        decoded_shares = list(pool.map(decoded, shares, [max(1, CORES // workers)] * workers))
        seconds = time.perf_counter() - start
    return {
        "frames": sum(n for n, _ in decoded_shares),
        "s": seconds,
        "cpu": sum(c for _, c in decoded_shares),
    }


def build(folder: str, space: str, profile: str, workers: str) -> dict:
    """Run in a process of its own: what the build took, by stage, and what it made."""
    samples = SamplesConfig(profile=profile)  # type: ignore[arg-type]
    size = len(list(Path(folder).glob("*.mp4"))) // CHUNKS
    config = DatasetConfig(name="videos", source=folder, chunk_size=size)
    start_cpu_s = own_cpu_s()
    start = time.perf_counter()
    workspace = Workspace(Path(space))
    of_stage: dict[str, float] = {}

    class ProcessTimes(BuildListener):
        def moment(self, moment: StageMoment) -> None:
            # One worker is this process: what it has used when a stage begins, and when it ends
            if moment.episodes:
                sign = 0
            elif moment.duration_s is None:
                sign = -1
            else:
                sign = 1
            of_stage[moment.stage] = of_stage.get(moment.stage, 0.0) + sign * time.process_time()

    builds = [DatasetBuild(dataset=config, stages=StageConfigs(samples=samples))]
    report = run_build(workspace, builds, int(workers), ProcessTimes())
    lake = Lake(workspace, read_only=True)
    built_cpu = time.process_time()
    for split, shard, sha256, size in lake.rows("SELECT split, shard, sha256, bytes FROM shards"):
        if wrong := check_shard(workspace.shard(split, shard), sha256, size):
            sys.exit(f"{shard} {wrong[0]}")
    end = time.perf_counter()
    of_stage["checking shards"] = time.process_time() - built_cpu
    if report.failed:
        sys.exit(report.failed[0].trace)
    frames, stored = lake.rows(
        "SELECT (SELECT count(*) FROM frames), (SELECT count(DISTINCT (p.episode_index, p.frame_index)) "
        "FROM (SELECT unnest(pictures) AS p FROM samples))"
    )[0]
    return {
        "s": end - start,
        "cpu": own_cpu_s() - start_cpu_s,
        "stages": of_stage,
        "frames": frames,
        "stored": stored,
    }


def built(folder: Path, profile: str, workers: int) -> dict:
    with tempfile.TemporaryDirectory(dir=folder.parent) as space:
        return apart(build, str(folder), space, profile, str(workers))


def least(runs: list[dict]) -> dict:
    """Of several runs that with the least CPU time, with the least time by the clock of any of them."""
    return min(runs, key=lambda run: run["cpu"]) | {"s": min(run["s"] for run in runs)}


def _ms_a_frame(bare: dict[str, float], fixed: dict, whole: dict, frames: int) -> str:
    """CPU milliseconds a frame: of decoding, of stages, of the build."""
    took = {s: v - fixed["stages"].get(s, 0.0) for s, v in whole["stages"].items()}
    took |= {"decoding alone": bare["cpu"], "all": whole["cpu"] - fixed["cpu"]}
    parts = [f"{name} {1000 * took.get(name, 0.0) / frames:.2f}" for name in STAGES_SHOWN]
    return f"CPU ms a frame: {', '.join(parts)}"


def figures(args: Namespace) -> Iterator[Figure]:
    num_wanted = args.episodes * args.frames
    with tempfile.TemporaryDirectory() as name:
        for codec in args.codec or CODECS:
            folder = Path(name) / codec
            tiny = Path(name) / f"{codec}-tiny"
            make(codec, folder, args.episodes, args.frames)
            make(codec, tiny, args.episodes, 10)
            for profile, workers in product(PROFILES, map(int, args.workers or (1, 2))):
                bares = []
                tinies = []
                wholes = []
                for _ in range(args.runs):
                    bares.append(decode_only(folder, workers))
                    tinies.append(built(tiny, profile, workers))
                    wholes.append(built(folder, profile, workers))
                    frames = {bares[-1]["frames"], wholes[-1]["frames"]}
                    expect(frames, {num_wanted}, f"{codec}: frames decoded, and measured")
                bare, fixed, whole = map(least, (bares, tinies, wholes))
                clock, cpu = (bare[k] / (whole[k] - fixed[k]) for k in ("s", "cpu"))
                rates = (num_wanted / bare["s"], num_wanted / (whole["s"] - fixed["s"]))
                goal = GOALS.get((codec, profile, workers))
                cpu_goal = goal and goal - LESS_IN_CPU
                title = f"{codec}, {profile}, {workers} at once"
                stored = f"{whole['stored'] / num_wanted:.0%} of frames stored"
                note = f"{rates[0]:.0f} frames/s decoded, {rates[1]:.0f} built; {stored}"
                yield Figure(f"{title}, ratio", clock, goal, note=note)
                # One worker is this process alone, whose stages are known
                note = _ms_a_frame(bare, fixed, whole, num_wanted) * (workers == 1)
                yield Figure(f"{title}, ratio in CPU time", cpu, cpu_goal, note=note)


if __name__ == "__main__":
    measure(__doc__, figures, episodes=24, frames=600, runs=2, codec=(), workers=())

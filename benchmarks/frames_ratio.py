"""What the frames stage costs over bare decoding, on the shipped samples, as a ratio that holds on any machine.

    python benchmarks/frames_ratio.py [--runs N] [--floor R] [--published-frames N]

Three ways over the same videos, in turns, in one process and on one thread, timed in processor seconds:

- decode: every frame is decoded and left alone;
- measure: the frames stage (annotate.frames.measure_camera): change, fast hash, luma; no keyframes are kept;
- published: what the published formula needs: each frame to RGB, then imagehash's pHash. Slow, so on fewer frames.

Each is given in frames per second and as decode's time over its own. Exits 1 when measure falls below the floor, or
when the frames are not as many as they must be.
"""

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import cv2

from annotate.frames import FramesConfig, measure_camera
from annotate.visual_change import published_phash
from ingest.episode import Episode
from ingest.files import Source
from ingest.registry import BUILT_IN, load_registry
from ingest.source import list_episodes, read_episode

EXPECTED_FRAMES = {"sim_short": 4216, "sim_long": 2 * 4549}  # over all cameras
NO_KEYFRAMES = FramesConfig(keyframe_interval_s=1e6)  # but the first of an episode
FLOOR = 0.45  # 0.52 to 0.57 measured on h264 of 256 x 256 px


def videos(name: str) -> list[tuple[Episode, str]]:
    """Every camera of every episode of a shipped dataset."""
    source = Source(load_registry([BUILT_IN])[name])
    episodes = [read_episode(source, r) for r in list_episodes(source).records]
    return [(e, camera) for e in episodes for camera in e.record.cameras]


def decode(episode: Episode, camera: str) -> int:
    return sum(1 for _ in episode.frames(camera))


def measure(episode: Episode, camera: str) -> int:
    return len(measure_camera(episode, camera, NO_KEYFRAMES, lambda sha256, jpeg: None))


def published(episode: Episode, camera: str) -> int:
    return sum(published_phash(frame) >= 0 for _, _, frame in episode.frames(camera))


def ratio(
    way: Callable[[Episode, str], int], chosen: list[tuple[Episode, str]], runs: int
) -> tuple[set[int], float, float]:
    """Frame counts seen, median seconds of a way, and the median over the runs of decode's seconds over it."""
    counts, seconds, ratios = set(), [], []
    for _ in range(runs):
        frames, spent_s = [0, 0], [0.0, 0.0]
        for episode, camera in chosen:
            for i, work in enumerate((decode, way)):
                start = time.process_time()
                frames[i] += work(episode, camera)
                spent_s[i] += time.process_time() - start
        counts |= set(frames)
        seconds.append(spent_s[1])
        ratios.append(spent_s[0] / spent_s[1])
    return counts, statistics.median(seconds), statistics.median(ratios)


def first_frames(all_videos: list[tuple[Episode, str]], at_least: int) -> list[tuple[Episode, str]]:
    """The first videos that hold so many frames by their rows."""

    def until() -> Iterator[tuple[Episode, str]]:
        frames = 0
        for video in all_videos:
            if frames >= at_least:
                return
            frames += video[0].record.num_rows or 0
            yield video

    return list(until())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="alternating runs; the median counts (default 3)")
    parser.add_argument("--floor", type=float, default=FLOOR, help=f"least ratio of measure (default {FLOOR})")
    parser.add_argument("--published-frames", type=int, default=300, help="frames for the slow way; 0: leave it out")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    failed = False
    if args.published_frames and importlib.util.find_spec("imagehash") is None:
        print("imagehash is not installed (the extra `phash`): the published way is left out", file=sys.stderr)
        args.published_frames = 0
    print(f"{'dataset':<10} {'way':<10} {'frames':>7} {'frames/s':>9} {'decode time / its time':>23}")
    for name, expected in EXPECTED_FRAMES.items():
        everything = videos(name)
        few = first_frames(everything, args.published_frames)
        rows_of_few = sum(e.record.num_rows or 0 for e, _ in few)
        for way, chosen, frames in ((measure, everything, expected), (published, few, rows_of_few)):
            if not chosen:
                continue
            counts, seconds, share = ratio(way, chosen, args.runs)
            low = way is measure and share < args.floor
            wrong = counts != {frames}
            failed |= low or wrong
            note = f"  below the floor {args.floor:g}" if low else ""
            note += f"  got {sorted(counts)} frames, not {frames}" if wrong else ""
            print(f"{name:<10} {way.__name__:<10} {frames:>7} {frames / seconds:>9.0f} {share:>23.3f}{note}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""What ingest costs over bare decoding, and over the published method, as ratios that hold on any machine.

    python -m benchmarks.decoding [--runs N] [--seconds S] [--check]

Over the same frames, in turns, in one process, in wall-clock time:

- decode: PyAV decodes every frame with threads (one per core) and leaves it alone: the limit;
- measure: the frames stage (annotate.frames.measure_camera) with as many threads: change, hash, black frames;
- measure + keyframes: the same with a JPEG keyframe a second, as builds keep them;
- published: the reference method as published: each frame to RGB by PIL, imagehash's pHash of both pictures of each
  pair, and for each frame's progress the sums over all frames before. Slow, so on the first frames only.

Two videos, made of the shipped sample: h264 of 256x256 px as shipped, and AV1 of 640x480 px encoded here as LeRobot
does (two frames a group, crf 30). `--check` exits 1 when a goal is missed by more than 15 %; wrong frame counts always
do.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image

from annotate.config import FramesConfig
from annotate.frames import measure_camera
from annotate.progress import procvlm_labels
from benchmarks.harness import Figure, arguments, exit_code
from benchmarks.pipeline import encode_all
from core.domain.label import Segment
from ingest.episode import CameraVideo, EpisodeData, EpisodeRecord, TimedPicture, timed
from ingest.media.frames import DECODE_ALL, DecodeOptions
from ingest.media.video import decode

SAMPLE = (
    Path(__file__).parents[1]
    / "samples/sim_short/videos/observation.images.front/chunk-000/file-000.mp4"
)
SAMPLE_FRAMES = 1484
AV1_FRAMES = 600
FPS = 20
CORES = len(os.sched_getaffinity(0))
NO_KEYFRAMES = FramesConfig(keyframe_interval_s=1e6)  # but the first
KEYFRAMES = FramesConfig()
GOALS = {
    ("h264 256x256", "measure"): 0.85,
    ("h264 256x256", "measure + keyframes"): 0.65,
    ("AV1 640x480", "measure"): 0.95,
    ("AV1 640x480", "measure + keyframes"): 0.8,
}
PUBLISHED_GOAL = 4.0  # times as fast as the published method


@dataclass(frozen=True)
class Clip:
    name: str
    path: Path
    num_frames: int

    def episode(self, num_frames: int | None = None) -> EpisodeData:
        def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
            return timed(decode(self.path, 0, num_frames, options=options), FPS)

        record = EpisodeRecord(
            0, self.name, float(FPS), None, videos=(CameraVideo("video", str(self.path), 0),)
        )
        return EpisodeData(record, None, None, None, frames)


def large_pictures(count: int) -> Iterator[np.ndarray]:
    for frame in decode(SAMPLE, 0, count):
        yield cv2.resize(frame.rgb(), (640, 480), interpolation=cv2.INTER_CUBIC)


def repeat_video(source: Path, path: Path, times: int) -> None:
    """The packets of a video many times over, in one file; nothing is encoded anew."""
    with av.open(str(source)) as input_video, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(input_video.streams.video[0])
        packets = [p for p in input_video.demux(input_video.streams.video[0]) if p.dts is not None]
        step = max((p.pts or 0) + (p.duration or 0) for p in packets)
        for _ in range(times):
            for packet in packets:
                packet.stream = stream
                out.mux(packet)
                packet.pts = (packet.pts or 0) + step
                packet.dts = (packet.dts or 0) + step


# The ways


def decode_only(clip: Clip) -> int:
    container = av.open(str(clip.path))
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = CORES
    count = sum(1 for _ in container.decode(stream))
    container.close()
    return count


def measure(clip: Clip, config: FramesConfig = NO_KEYFRAMES) -> int:
    options = DecodeOptions(CORES)
    return len(
        measure_camera(clip.episode(), "video", config, lambda sha256, jpeg: None, options=options)
    )


def measure_keyframes(clip: Clip) -> int:
    return measure(clip, KEYFRAMES)


def published(clip: Clip, num_frames: int) -> int:
    """As published: both pictures of each pair hashed, and every prefix summed anew."""
    import imagehash

    frames = clip.episode(num_frames).frames("video", DecodeOptions(CORES))
    pictures = [Image.fromarray(p.rgb()) for _, _, p in frames]
    n = len(pictures)
    labels = procvlm_labels([Segment("one step", 0, n, step=0)], 1, n)
    change = [0.0]
    for former_picture, next_picture in pairwise(pictures):
        similarity = 1 - (imagehash.phash(former_picture) - imagehash.phash(next_picture)) / 64
        change.append(1.5 - similarity)
    progress = [sum(change[:i]) / sum(change) for i in range(n)]
    assert len(progress) == len(labels)
    return n


# Timing


def ratio(
    limit: Callable[[], int], way: Callable[[], int], runs: int
) -> tuple[set[int], float, float]:
    """Frame counts of a way, its median seconds, and the median over the runs of the limit's seconds over its own."""
    counts = set()
    seconds = []
    ratios = []
    for _ in range(runs):
        start = time.perf_counter()
        limit()
        middle = time.perf_counter()
        counts.add(way())
        end = time.perf_counter()
        seconds.append(end - middle)
        ratios.append((middle - start) / (end - middle))
    return counts, statistics.median(seconds), statistics.median(ratios)


def main() -> int:
    parser = arguments(__doc__, check=True)
    parser.add_argument(
        "--runs", type=int, default=5, help="alternating runs; the median counts (default 5)"
    )
    parser.add_argument(
        "--published-frames", type=int, default=200, help="frames for the published method"
    )
    args = parser.parse_args()
    cv2.setNumThreads(1)
    figures = []
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "av1.mp4"
        encode_all("AV1", large, large_pictures(AV1_FRAMES))
        clips = Clip("h264 256x256", SAMPLE, SAMPLE_FRAMES), Clip("AV1 640x480", large, AV1_FRAMES)
        print(f"{CORES} cores, {args.runs} runs, medians\n")
        print(
            "| video | way | frames | frames/s | decode time / its time | wanted |\n|---|---|---|---|---|---|"
        )
        for clip in clips:
            ways = {"measure": measure, "measure + keyframes": measure_keyframes}
            rates = {}
            for name, way in ways.items():
                counts, seconds, share = ratio(
                    lambda c=clip: decode_only(c), lambda c=clip, w=way: w(c), args.runs
                )
                rates[name] = clip.num_frames / seconds
                goal = GOALS[clip.name, name]
                print(
                    f"| {clip.name} | {name} | {clip.num_frames} | {rates[name]:.0f} | {share:.2f} | {goal} |"
                )
                figures.append(Figure(f"{clip.name}, {name}", share, goal))
                wrong += [name] if counts != {clip.num_frames} else []
            start = time.perf_counter()
            count = published(clip, args.published_frames)
            rate = count / (time.perf_counter() - start)
            times = rates["measure"] / rate
            faster = f"measure: {times:.1f} times as fast"
            print(
                f"| {clip.name} | published | {count} | {rate:.0f} | {faster} | {PUBLISHED_GOAL} |"
            )
            figures.append(Figure("times as fast as published", times, PUBLISHED_GOAL))
            wrong += ["published"] if count != args.published_frames else []
    for name in wrong:
        print(f"error: {name}: not as many frames as there are", file=sys.stderr)
    return int(bool(wrong)) or exit_code(figures, args.check)


if __name__ == "__main__":
    sys.exit(main())

"""What ingest costs over bare decoding, and over the published method, as ratios that hold on any machine.

    python -m benchmarks.decoding [--runs N] [--published-frames N]

Over the same frames, in turns, in one process, in wall-clock time:

- decode: PyAV decodes every frame with threads (one per core) and leaves it alone: the limit;
- measure: the frames stage (annotate.frames.measure_camera) with as many threads: change, hash, black frames;
- measure + keyframes: the same with a JPEG keyframe a second, as builds keep them;
- published: the reference method as published: each frame to RGB by PIL, imagehash's pHash of both pictures of each
  pair, and for each frame's progress the sums over all frames before. Slow, so on the first frames only.

Two videos, made of the shipped sample: h264 of 256x256 px as shipped, and AV1 of 640x480 px encoded here as LeRobot
does (two frames a group, crf 30). Wrong counts exit 1.
"""

import os
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image

from annotate.config import FramesConfig
from annotate.frames import measure_camera
from annotate.progress import procvlm_labels
from benchmarks.harness import Figure, expect, in_turns, measure, ratio
from benchmarks.pipeline import encode_all
from core.domain.label import Segment
from ingest.episode import (
    DECODE_ALL,
    CameraVideo,
    DecodeOptions,
    EpisodeData,
    EpisodeRecord,
    TimedPicture,
    timed,
)
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
    with av.open(str(clip.path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = CORES
        count = sum(1 for _ in container.decode(stream))
    return count


def measured(clip: Clip, config: FramesConfig = NO_KEYFRAMES) -> int:
    options = DecodeOptions(CORES)
    return len(
        measure_camera(clip.episode(), "video", config, lambda sha256, jpeg: None, options=options)
    )


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


def figures(args: Namespace) -> Iterator[Figure]:
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "av1.mp4"
        encode_all("AV1", large, large_pictures(AV1_FRAMES))
        clips = Clip("h264 256x256", SAMPLE, SAMPLE_FRAMES), Clip("AV1 640x480", large, AV1_FRAMES)
        for clip in clips:
            ways = {"measure": measured, "measure + keyframes": partial(measured, config=KEYFRAMES)}
            rates = {}
            for name, way in ways.items():
                turns = {"decode": partial(decode_only, clip), name: partial(way, clip)}
                seconds, counts = in_turns(turns, args.runs)
                expect({*counts.values()}, {clip.num_frames}, f"{clip.name}, {name}: frames")
                rates[name] = clip.num_frames / statistics.median(seconds[name])
                share = ratio(seconds, "decode", name)
                title = f"{clip.name}, {name}: decode time / its time"
                yield Figure(
                    title, share, GOALS[clip.name, name], note=f"{rates[name]:.0f} frames/s"
                )
            start = time.perf_counter()
            count = published(clip, args.published_frames)
            expect(count, args.published_frames, f"{clip.name}, published: frames")
            rate = count / (time.perf_counter() - start)
            title = f"{clip.name}, measure: times as fast as published"
            yield Figure(
                title, rates["measure"] / rate, PUBLISHED_GOAL, note=f"{rate:.0f} frames/s"
            )


if __name__ == "__main__":
    measure(__doc__, figures, runs=5, published_frames=200)

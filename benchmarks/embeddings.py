"""What embeddings cost, as a ratio to decoding the same video alone.

    python -m benchmarks.embeddings [--runs N] [--hz HZ] [--encoder NAME ...] [--size PX ...]

Over the frames of the shipped sample (h264 of 256x256 px), in turns, in one process, on one thread, in CPU time:

- decode: PyAV decodes every frame and leaves it alone;
- frames: the frames stage measures every frame (annotate.frames.measure_camera);
- frames + embeddings: the same pass with an encoder that looks at pictures a few times a second.

What embeddings cost is the difference of the last two. How many pictures there are a frame depends on the frame rate,
so the ratio is given for 20 frames a second, at which the sample was recorded, and for 30.
"""

import statistics
import time
from collections.abc import Callable

import av
import cv2

from annotate.config import EmbeddingsConfig
from annotate.embeddings.passing import EmbeddingPass
from annotate.frames import every_nth, measure_camera
from benchmarks.decoding import NO_KEYFRAMES, SAMPLE, SAMPLE_FRAMES, Clip
from benchmarks.harness import arguments

RATES = (20, 30)  # frames a second


def decode_only() -> None:
    with av.open(str(SAMPLE)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for _ in container.decode(video=0):
            pass


def frames_stage(clip: Clip, into: EmbeddingPass | None = None, nth: int = 0) -> None:
    keepers = [(into, nth)] if into else []
    measure_camera(clip.episode(), "video", NO_KEYFRAMES, lambda sha256, jpeg: None, keepers)
    if into:
        into.take(0, "video")


def cpu_s(work: Callable[[], None]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def costs(config: EmbeddingsConfig, runs: int) -> dict[int, tuple[float, float]]:
    """By frame rate: milliseconds a picture, and the cost of embeddings over that of decoding; medians."""
    clip = Clip("h264 256x256", SAMPLE, SAMPLE_FRAMES)
    by_rate = {}
    with EmbeddingPass(config) as into:
        frames_stage(clip, into, 50)  # what the first calls cost is no picture's
        for rate in RATES:
            nth = every_nth(config.hz, rate)
            pictures = -(-SAMPLE_FRAMES // nth)
            ms = []
            ratios = []
            for _ in range(runs):
                decoding = cpu_s(decode_only)
                without = cpu_s(lambda: frames_stage(clip))
                looking = cpu_s(lambda n=nth: frames_stage(clip, into, n)) - without
                ms.append(1000 * looking / pictures)
                ratios.append(looking / decoding)
            by_rate[rate] = statistics.median(ms), statistics.median(ratios)
    return by_rate


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--runs", type=int, default=5, help="alternating runs; the median counts (default 5)"
    )
    parser.add_argument("--hz", type=float, default=5.0, help="pictures a second (default 5)")
    parser.add_argument(
        "--encoder", nargs="+", default=["mobilenet_v2", "grey"], help="which encoders"
    )
    parser.add_argument(
        "--size", type=int, nargs="+", help="sides of pictures; default: the encoder's own"
    )
    args = parser.parse_args()
    cv2.setNumThreads(1)

    decoding = (
        statistics.median(cpu_s(decode_only) for _ in range(args.runs)) * 1000 / SAMPLE_FRAMES
    )
    print(f"decoding alone: {decoding:.2f} ms of CPU a frame\n")
    print(
        "| encoder | CPU ms a picture | over decoding, 20 frames/s | 30 frames/s |\n|---|---|---|---|"
    )
    for name in args.encoder:
        for size in args.size or [None]:
            config = EmbeddingsConfig(encoder=name, hz=args.hz, size_px=size, device="cpu")
            by_rate = costs(config, args.runs)
            with EmbeddingPass(config) as into:
                title = into.encoder.title
            ms = statistics.mean(ms for ms, _ in by_rate.values())
            print(
                f"| {title} | {ms:.2f} | {by_rate[20][1]:.2f} | {by_rate[30][1]:.2f} |", flush=True
            )


if __name__ == "__main__":
    main()

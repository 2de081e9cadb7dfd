"""Reading some frames of a video, or all: our reader on PyAV beside decord2 and torchcodec, which keep an index.

    python -m benchmarks.random_access [--runs N]

CPU milliseconds for each picture that was asked for, as RGB, on one thread, each reader opened anew; medians. What is
asked for: every frame; one in six, by chance, as samples show them; and one a second, as keyframes. Videos of 640x480
px made of the shipped samples: as LeRobot encodes (two frames a group) and with long groups, by h264 and by AV1.

decord2 and torchcodec are no part of proccorpus: where one is not installed, or does not find FFmpeg's libraries, its
rows say so. torchcodec wants those of the system, by their plain names; links to the ones that PyAV brings do as well.
"""

import argparse
import importlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pipeline import CODECS, FPS, encode
from benchmarks.tables import table
from ingest.media.frames import DECODE_ALL, DecodeOptions
from ingest.media.video import Frame, decode

FRAMES = 600
GROUPS = (2, 250)
SAME = 4.0  # mean difference of two readers' pictures, of 255: they turn YUV to RGB in ways of their own

Reader = Callable[[Path, Sequence[int]], list[np.ndarray]]


def by_pyav(path: Path, wanted: Sequence[int]) -> list[np.ndarray]:
    options = DECODE_ALL if len(wanted) == FRAMES else DecodeOptions(wanted=frozenset(wanted))
    frames, last = [], max(wanted)
    chosen = set(wanted)
    for index, frame in enumerate(decode(path, options=options)):
        if index in chosen:
            assert isinstance(frame, Frame)
            frames.append(frame.rgb())
        if index == last:
            break
    return frames


def by_decord(path: Path, wanted: Sequence[int]) -> list[np.ndarray]:
    decord: Any = importlib.import_module("decord")
    return list(decord.VideoReader(str(path), num_threads=1).get_batch(list(wanted)).asnumpy())


def by_torchcodec(path: Path, wanted: Sequence[int]) -> list[np.ndarray]:
    decoders: Any = importlib.import_module("torchcodec.decoders")
    decoder = decoders.VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
    return list(decoder.get_frames_at(indices=list(wanted)).data.numpy())


READERS: dict[str, Reader] = {"PyAV": by_pyav, "decord2": by_decord, "torchcodec": by_torchcodec}


def lacking(name: str, path: Path) -> str:
    """Why a reader cannot be measured; empty where it can."""
    try:
        READERS[name](path, [0])
    except ImportError:
        return "not installed"
    except RuntimeError as e:
        return str(e).strip().splitlines()[0][:60]
    return ""


def cpu_ms(reader: Reader, path: Path, wanted: Sequence[int], runs: int) -> tuple[float, list[np.ndarray]]:
    """Median CPU ms for each picture, and the pictures."""
    took, pictures = [], []
    for _ in range(runs):
        start = time.process_time()
        pictures = reader(path, wanted)
        took.append(1000 * (time.process_time() - start) / len(wanted))
    return statistics.median(took), pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="medians of so many")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    asked = {
        "all": list(range(FRAMES)),
        "one in six": sorted(rng.choice(FRAMES, FRAMES // 6, replace=False).tolist()),
        "one a second": list(range(0, FRAMES, FPS)),
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for codec in CODECS:
            for group in GROUPS:
                path = Path(folder) / f"{codec}-{group}.mp4"
                encode(codec, path, 0, FRAMES, group)
                reasons = {name: lacking(name, path) for name in READERS}
                for what, wanted in asked.items():
                    shown, ours = [], []
                    for name, reader in READERS.items():
                        if reasons[name]:
                            shown.append(reasons[name])
                            continue
                        ms, pictures = cpu_ms(reader, path, wanted, args.runs)
                        ours = ours or pictures
                        apart = max(np.abs(a.astype(int) - b).mean() for a, b in zip(ours, pictures, strict=True))
                        other = "" if apart < SAME else f", **other pictures** ({apart:.0f} apart)"
                        shown.append(f"{ms:.2f}{other}")
                    rows.append([codec, str(group), what, *shown])
    table(["codec", "frames a group", "asked for", *(f"{name}: ms a picture" for name in READERS)], rows)


if __name__ == "__main__":
    main()

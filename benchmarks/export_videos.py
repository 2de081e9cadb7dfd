"""How large the videos of exports are and what encoding costs in pixels, beside forge-robotics.

    python -m benchmarks.export_videos [--frames N] [--codec h264] [--forge PYTHON] [--check]

The first frames of shipped and, where they lie beside the checkout, real videos are encoded as `export lerobot` encodes
pictures that are in no video file. Loss is the difference of a pixel's level, of 255, to the picture that went in: its
mean, and the largest. A random frame is read by seeking, in one thread.

`--forge` names the Python of an environment with `forge-robotics[video]==0.2.0`, which encodes the same pictures by its
defaults. The goals are at most 2 times its bytes, and no larger loss. `--check` exits 1 where one is missed.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.harness import SHARED, arguments, exit_code, machine
from core.paths import ROOT
from ingest.media.video import decode
from warehouse.exports.videos import ENCODERS, encode

FPS = 30
MOST_BYTES = 2.0  # times forge's
SEEKS = 40
DATA = SHARED / "data"
VIDEOS = {
    "simulated, 256x256": ROOT
    / "samples/sim_short/videos/observation.images.front/chunk-000/file-000.mp4",
    "simulated, long": SHARED / "sim_long/data/videos/episode_000.mp4",
    "simulated, long, wrist": SHARED / "sim_long/data/videos_wrist/episode_000.mp4",
    "GR1, simulated": DATA
    / "gr1_pick_place/videos/chunk-000/observation.images.ego_view/episode_000000.mp4",
    "SO101, wrist, 224x224": DATA
    / "so101_bimanual_cloth/videos/chunk-000/observation.images.cam1/episode_000010.mp4",
    "CR5, 640x480": DATA / "cr5_banana/videos/chunk-000/observation.images.top/episode_000040.mp4",
    "Piper, wrist": DATA / "piper_pen/videos/observation.images.wrist/chunk-000/file-000.mp4",
    "DROID": DATA / "droid_chips/episode_000000.mp4",
    "Robo-Dopamine, wrist": DATA / "robo_dopamine/episode_001/cam_left_wrist.mp4",
}
FORGE = """
import sys
import numpy
from forge.video.encoder import VideoEncoder
pictures = numpy.load(sys.argv[1])
VideoEncoder().encode_from_arrays(iter(pictures), sys.argv[2], float(sys.argv[3]), pictures.shape[2], pictures.shape[1])
"""


@dataclass(frozen=True)
class Encoded:
    size: int  # bytes
    mean_loss: float
    most_loss: int
    seek_ms: float

    @classmethod
    def measure(cls, path: Path, pictures: Sequence[np.ndarray]) -> "Encoded":
        """Raises ValueError where the file does not show as many pictures."""
        losses = [
            np.abs(decoded_frame.rgb().astype(np.int16) - picture)
            for decoded_frame, picture in zip(decode(path), pictures, strict=True)
        ]
        mean_loss = float(np.mean([loss.mean() for loss in losses]))
        most_loss = max(int(loss.max()) for loss in losses)
        return cls(path.stat().st_size, mean_loss, most_loss, _seek_ms(path, len(pictures)))

    def cells(self) -> str:
        return f"{self.size / 1000:.0f} kB | {self.mean_loss:.2f}, {self.most_loss} | {self.seek_ms:.1f} ms"


def _seek_ms(path: Path, num_frames: int) -> float:
    places = np.random.default_rng(0).integers(0, num_frames, SEEKS)
    begin = time.process_time()
    for place in places:
        next(decode(path, int(place), 1)).rgb()
    return (time.process_time() - begin) / SEEKS * 1000


def main() -> int:
    parser = arguments(__doc__, check=True)
    parser.add_argument("--frames", type=int, default=150, help="most frames of each video")
    parser.add_argument("--codec", choices=sorted(ENCODERS), default="h264")
    parser.add_argument(
        "--forge", metavar="PYTHON", help="of an environment with forge-robotics[video]==0.2.0"
    )
    options = parser.parse_args()
    print(f"{machine()}; {options.codec}: {ENCODERS[options.codec][1]}\n")
    print(
        "| video | ours: bytes | loss: mean, largest | a random frame | forge: bytes | loss | a frame | bytes, times |"
    )
    print("|---|---|---|---|---|---|---|---|")
    missed = list[str]()
    for name, path in VIDEOS.items():
        if not path.exists():
            print(f"| {name} | is not beside this checkout |")
            continue
        pictures = [frame.rgb() for frame in decode(path, 0, options.frames)]
        with TemporaryDirectory() as scratch:
            ours_file = Path(scratch) / "ours.mp4"
            encode(iter(pictures), ours_file, FPS, options.codec)
            ours = Encoded.measure(ours_file, pictures)
            if options.forge is None:
                print(f"| {name} | {ours.cells()} |")
                continue
            theirs = Encoded.measure(_by_forge(options.forge, pictures, Path(scratch)), pictures)
        ratio = ours.size / theirs.size
        print(f"| {name} | {ours.cells()} | {theirs.cells()} | {ratio:.2f} |", flush=True)
        if ratio > MOST_BYTES:
            missed.append(f"{name}: {ratio:.2f} times the bytes")
        if ours.mean_loss > theirs.mean_loss or ours.most_loss > theirs.most_loss:
            missed.append(f"{name}: a larger loss")
    return exit_code(missed, options.check)


def _by_forge(python: str, pictures: Sequence[np.ndarray], scratch: Path) -> Path:
    arrays = scratch / "pictures.npy"
    out = scratch / "forge.mp4"
    np.save(arrays, np.stack(pictures))
    subprocess.run([python, "-c", FORGE, str(arrays), str(out), str(FPS)], check=True)
    return out


if __name__ == "__main__":
    sys.exit(main())

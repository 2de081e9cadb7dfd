"""What shards cost to write, to keep and to read, as ratios within one run.

    python -m benchmarks.shards [--episodes N] [--runs N] [--check]

Samples of ProcVQA's family c at its published quotas: of an episode of 300 frames, each frame with probability 0.8
(of the 20 finished ones at the end no more than 10), showing with probability 0.3 that frame alone and else the 4 to 16
frames before it as well. The pictures are frames of the shipped samples, as JPEG. Against: the same samples as records
of WebDataset, by its own writer and reader, each with its own copies of its pictures; and bare tars.

`--check` exits 1 when a target is missed by more than 15 %; wrong counts always do.
"""

import argparse
import io
import json
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np

import warehouse.shards.shard
from annotate.stored_pictures import JPEG_QUALITY, shard_jpeg
from benchmarks.tables import is_missed
from core.values import IMAGE_MARK
from ingest.media.video import decode
from warehouse.shards import Index, Sample, ShardEpisode, index_path, pack, picture_name, read_samples
from warehouse.shards.loader import Loader, LoaderConfig

SAMPLES = Path(__file__).parents[1] / "samples"
CAMERA = "observation.images.front"
VIDEOS = sorted(SAMPLES.glob(f"sim_*/videos/{CAMERA}/*/*.mp4"))
FRAMES, FINISHED, MAX_FINISHED = 300, 20, 10
SHARDS = 4
MAX_PX = 512  # pictures are smaller: as they are
DELAY_S = 0.03
TIMES_SMALLER, LOADER_SPEED = 4.0, 0.8  # targets
MB = 1e6
ROW = {
    "family": "procvqa_c",
    "answer": "The remaining actions are:\n1. Lift the red block.\n2. Put the red block into the tray.\n"
    "Therefore the progress is <progress>43.17%</progress>",
}
QUESTION = (
    "These are consecutive pictures of a robot at work on: put the red block into the tray. Which actions remain?"
)


def pictures(episodes: int) -> list[list[bytes]]:
    """JPEGs of so many episodes; the shipped videos one after another, and again from the start."""
    wanted = episodes * FRAMES
    found: list[bytes] = []
    for frame in chain.from_iterable(decode(path) for path in VIDEOS):
        found.append(shard_jpeg(frame, MAX_PX, JPEG_QUALITY))
        if len(found) == wanted:
            break
    found = [found[k % len(found)] for k in range(wanted)]
    return [found[k : k + FRAMES] for k in range(0, wanted, FRAMES)]


def episode(number: int, jpegs: list[bytes]) -> ShardEpisode:
    rng = np.random.default_rng(number)
    kept = [f for f in range(FRAMES) if rng.random() < 0.8]
    done = [f for f in kept if f >= FRAMES - FINISHED]
    kept = [f for f in kept if f < FRAMES - FINISHED] + sorted(rng.permutation(done)[:MAX_FINISHED].tolist())
    rows = []
    for f in kept:
        before = 0 if rng.random() < 0.3 else int(rng.integers(4, 17))
        frames = range(max(0, f - before), f + 1)
        shown = [{"camera": CAMERA, "episode_index": number, "frame_index": k, "edit": None} for k in frames]
        question = f"{IMAGE_MARK} " * len(shown) + QUESTION
        row = {"sample_id": f"{number:08x}{f:08x}", "dataset": "sim", "episode_index": number, "pictures": shown}
        rows.append(ROW | row | {"question": question, "num_tokens": 80 + 64 * len(shown)})
    names = {picture_name(number, p): p["frame_index"] for row in rows for p in row["pictures"]}
    return ShardEpisode("sim", number, rows, {name: jpegs[f] for name, f in names.items()})


# The ways to write and to read


def write_ours(folder: Path, episodes: list[ShardEpisode]) -> list[Path]:
    tars = []
    for k in range(SHARDS):
        tar = folder / f"ours-{k}.tar"
        with tar.open("wb") as f:
            sha256, entries = pack(f, episodes[k::SHARDS])
        index = Index(tar.name, "sim", k, "train", sha256, tar.stat().st_size, tuple(entries))
        index_path(tar).write_bytes(index.text().encode())
        tars.append(tar)
    return tars


def write_records(folder: Path, episodes: list[ShardEpisode]) -> list[Path]:
    from webdataset.writer import TarWriter

    tars = []
    for k in range(SHARDS):
        tar = folder / f"records-{k}.tar"
        with TarWriter(str(tar)) as writer:
            for e in episodes[k::SHARDS]:
                for row in e.samples:
                    names = [picture_name(e.episode_index, p) for p in row["pictures"]]
                    record = {f"{i:03d}.jpg": e.pictures[name] for i, name in enumerate(names)}
                    writer.write({"__key__": row["sample_id"], "json": {**row, "pictures": names}, **record})
        tars.append(tar)
    return tars


def write_bare(folder: Path, members: list[list[tuple[str, bytes]]]) -> list[Path]:
    tars = [folder / f"bare-{k}.tar" for k in range(SHARDS)]
    for path, some in zip(tars, members, strict=True):
        with tarfile.open(path, "w") as tar:
            for name, data in some:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return tars


def members_of(tar: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(tar, "r|") as opened:
        return [(m.name, handle.read()) for m in opened if (handle := opened.extractfile(m))]


def read_bare(tars: list[Path]) -> int:
    return sum(len(members_of(tar)) for tar in tars)


def read_records(tars: list[Path]) -> int:
    from webdataset.compat import WebDataset

    count = 0
    for record in WebDataset([str(t) for t in tars], shardshuffle=False):
        json.loads(record["json"])
        count += 1
    return count


def decode_all(samples: Iterable[Sample]) -> int:
    count = 0
    for sample in samples:
        for jpeg in sample.pictures:
            count += cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) is not None
    return count


# Measuring


def with_decoding(tars: list[Path], config: LoaderConfig) -> tuple[float, float]:
    """Pictures per second that come out of the loader decoded, and that over those of decoding alone.

    Sample by sample: loaded and decoded, then decoded again from memory; so both meet the same disturbances.
    """
    loading = alone = 0.0
    count, samples = 0, iter(Loader(tars, config))
    while True:
        start = time.perf_counter()
        sample = next(samples, None)
        shown = decode_all([sample]) if sample else 0
        middle = time.perf_counter()
        loading += middle - start
        if sample is None:
            return count / loading, alone / loading
        expect(shown, len(sample.pictures), "pictures decoded")
        decode_all([sample])
        alone += time.perf_counter() - middle
        count += shown


def late(tars: list[Path], ahead: int) -> None:
    """Decode batches, 8 samples an episode, where each read takes longer, as of a bucket."""
    read = warehouse.shards.shard._range

    def range_(path: Path, offset: int, size: int) -> bytes:
        time.sleep(DELAY_S)
        return read(path, offset, size)

    with patch.object(warehouse.shards.shard, "_range", range_):
        for batch in Loader(tars, LoaderConfig(per_visit=8, buffer=2), ahead=ahead).batches(8):
            decode_all(batch)


def in_turns[T](ways: dict[str, Callable[[], T]], runs: int) -> tuple[dict[str, list[float]], dict[str, T]]:
    """Seconds of each way in each round, so that what disturbs one round disturbs all ways alike; and last results."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results = {}
    for _ in range(runs):
        for name, way in ways.items():
            start = time.perf_counter()
            results[name] = way()
            seconds[name].append(time.perf_counter() - start)
    return seconds, results


def ratio(seconds: dict[str, list[float]], base: str, name: str) -> float:
    return statistics.median(b / s for b, s in zip(seconds[base], seconds[name], strict=True))


def table(title: str, seconds: dict[str, list[float]], facts: dict[str, tuple[int, int]], base: str, unit: str) -> None:
    print(f"\n## {title}\n\n| way | {unit}/s | MB/s | speed / that of {base} |\n|---|---|---|---|")
    for name, (count, size) in facts.items():
        s = statistics.median(seconds[name])
        print(f"| {name} | {count / s:,.0f} | {size / MB / s:,.0f} | {ratio(seconds, base, name):.2f} |")


def expect(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        sys.exit(f"{what}: {found} instead of {wanted}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    args = parser.parse_args()
    import webdataset  # noqa: F401  # before anything is timed

    episodes = [episode(k, jpegs) for k, jpegs in enumerate(pictures(args.episodes))]
    count = sum(len(e.samples) for e in episodes)
    slots = sum(len(row["pictures"]) for e in episodes for row in e.samples)
    frames = sum(len(e.pictures) for e in episodes)
    jpeg_bytes = sum(len(p) for e in episodes for p in e.pictures.values())
    print("# Shards\n")
    print(
        f"{count} samples of {len(episodes)} episodes of {FRAMES} frames: {slots / count:.1f} pictures a sample,",
        end=" ",
    )
    print(f"{jpeg_bytes / frames / 1e3:.1f} KB a picture; medians of {args.runs} runs in turns.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        members = [members_of(t) for t in write_ours(folder, episodes)]
        seconds, written = in_turns(
            {
                "bare tar": lambda: write_bare(folder, members),
                "shards": lambda: write_ours(folder, episodes),
                "WebDataset records": lambda: write_records(folder, episodes),
            },
            args.runs,
        )
        tars, records = written["shards"], written["WebDataset records"]
        size, records_size = (sum(t.stat().st_size for t in some) for some in (tars, records))
        with_indexes = size + sum(index_path(t).stat().st_size for t in tars)
        facts = {"bare tar": (count, size), "shards": (count, size), "WebDataset records": (count, records_size)}
        table("Writing", seconds, facts, "bare tar", "samples")

        seconds, found = in_turns(
            {
                "bare tar": lambda: read_bare(tars),
                "shards, in order": lambda: sum(1 for _ in read_samples(tars)),
                "shards, the loader": lambda: sum(1 for _ in Loader(tars)),
                "WebDataset records": lambda: read_records(records),
            },
            args.runs,
        )
        expect(found, dict.fromkeys(found, count) | {"bare tar": sum(map(len, members))}, "samples read")
        facts = {"bare tar": (count, size), "shards, in order": (count, size), "shards, the loader": (count, size)}
        table("Reading", seconds, facts | {"WebDataset records": (count, records_size)}, "bare tar", "samples")

        smaller = records_size / with_indexes
        print("\n## Size\n\n| | bytes a sample |\n|---|---|")
        print(f"| shards and indexes | {with_indexes / count:,.0f} |")
        print(f"| WebDataset records | {records_size / count:,.0f}: {smaller:.1f} times as many |")

        speeds = {}
        print("\n## Loading with decoding, in one process\n")
        print("| | pictures/s | speed / that of decoding alone |\n|---|---|---|")
        for label, config in (("every sample", LoaderConfig()), ("8 of an episode", LoaderConfig(per_visit=8))):
            each, speeds[label] = with_decoding(tars, config)
            print(f"| {label} | {each:,.0f} | {speeds[label]:.2f} |")
        seconds, _ = in_turns({f"{k}": lambda k=k: late(tars, k) for k in (0, 4)}, args.runs)
        print(f"\nWhere each read takes {DELAY_S * 1e3:.0f} ms more, 8 of an episode: `ahead=4` batches", end=" ")
        print(f"is {ratio(seconds, '0', '4'):.1f} times as fast as none.")

        half = Loader(tars)
        for _ in zip(range(count // 2), half, strict=False):
            pass
        resumed = Loader(tars)
        resumed.load_state_dict(half.state_dict())
        start = time.perf_counter()
        next(iter(resumed))
        print(f"\nResumed in the middle, {count // 2} samples on: {(time.perf_counter() - start) * 1e3:.0f} ms.")

    missed = []
    if is_missed(smaller, TIMES_SMALLER):
        missed.append(f"{smaller:.1f} times as small, wanted {TIMES_SMALLER}")
    if is_missed(speeds["every sample"], LOADER_SPEED):
        missed.append(f"the loader has {speeds['every sample']:.2f} of the speed of decoding, wanted {LOADER_SPEED}")
    for line in missed:
        print(f"\nMissed: {line}")
    if args.check and missed:
        sys.exit(1)


if __name__ == "__main__":
    main()

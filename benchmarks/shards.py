"""What shards cost to write, to keep and to read, as ratios within one run.

    python -m benchmarks.shards [--episodes N] [--runs N]

Samples of ProcVQA's family c at its published quotas: of an episode of 300 frames, each frame with probability 0.8
(of the 20 finished ones at the end no more than 10), showing with probability 0.3 that frame alone and else the 4 to 16
frames before it as well. The pictures are frames of the shipped samples, as JPEG. Against: the same samples as records
of WebDataset, by its own writer and reader, each with its own copies of its pictures; and bare tars.

Wrong counts exit 1.
"""

import io
import json
import statistics
import tarfile
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from annotate.pictures import JPEG_QUALITY, shard_jpeg
from benchmarks.harness import Figure, expect, in_turns, measure, ratio
from core.values import IMAGE_MARK
from ingest.media.video import decode
from tests.kits.shard_kit import write
from warehouse.shards.loader import Loader
from warehouse.shards.shard import EntryContent, Sample, index_path, picture_name, read_samples

SAMPLES = Path(__file__).parents[1] / "samples"
CAMERA = "observation.images.front"
VIDEOS = sorted(SAMPLES.glob(f"sim_*/videos/{CAMERA}/*/*.mp4"))
FRAMES = 300
FINISHED = 20
MAX_FINISHED = 10
SHARDS = 4
MAX_PX = 512  # pictures are smaller: as they are
TIMES_SMALLER, LOADER_SPEED = 4.0, 0.8  # targets
MB = 1e6
ROW = {
    "family": "procvqa_c",
    "answer": "The remaining actions are:\n1. Lift the red block.\n2. Put the red block into the tray.\n"
    "Therefore the progress is <progress>43.17%</progress>",
}
QUESTION = (
    "These are consecutive pictures of a robot at work on: put the red block into the tray. Which actions "
    "remain?"
)


def pictures(episodes: int) -> list[list[bytes]]:
    """JPEGs of so many episodes; the shipped videos one after another, and again from the start."""
    num_wanted = episodes * FRAMES
    jpegs: list[bytes] = []
    for frame in chain.from_iterable(decode(path) for path in VIDEOS):
        jpegs.append(shard_jpeg(frame, MAX_PX, JPEG_QUALITY))
        if len(jpegs) == num_wanted:
            break
    jpegs = [jpegs[k % len(jpegs)] for k in range(num_wanted)]
    return [jpegs[k : k + FRAMES] for k in range(0, num_wanted, FRAMES)]


def episode(number: int, jpegs: list[bytes]) -> EntryContent:
    rng = np.random.default_rng(number)
    kept_frames = [f for f in range(FRAMES) if rng.random() < 0.8]
    finished_frames = [f for f in kept_frames if f >= FRAMES - FINISHED]
    kept_frames = [f for f in kept_frames if f < FRAMES - FINISHED] + sorted(
        rng.permutation(finished_frames)[:MAX_FINISHED].tolist()
    )
    rows = []
    for f in kept_frames:
        num_before = 0 if rng.random() < 0.3 else int(rng.integers(4, 17))
        frames = range(max(0, f - num_before), f + 1)
        picture_rows = [
            {"camera": CAMERA, "episode_index": number, "frame_index": k, "edit": None}
            for k in frames
        ]
        question = f"{IMAGE_MARK} " * len(picture_rows) + QUESTION
        row = {
            "sample_id": f"{number:08x}{f:08x}",
            "dataset": "sim",
            "episode_index": number,
            "pictures": picture_rows,
        }
        rows.append(ROW | row | {"question": question, "num_tokens": 80 + 64 * len(picture_rows)})
    row_pictures = chain.from_iterable(row["pictures"] for row in rows)
    jpegs_by_name = {picture_name(number, p): jpegs[p["frame_index"]] for p in row_pictures}
    return EntryContent("sim", number, rows, jpegs_by_name)


# The ways to write and to read


def write_ours(folder: Path, episodes: list[EntryContent]) -> list[Path]:
    return [write(folder, episodes[k::SHARDS], f"ours-{k}.tar") for k in range(SHARDS)]


def write_records(folder: Path, episodes: list[EntryContent]) -> list[Path]:
    from webdataset.writer import TarWriter

    tars = []
    for k in range(SHARDS):
        tar = folder / f"records-{k}.tar"
        with TarWriter(str(tar)) as writer:
            for e in episodes[k::SHARDS]:
                for row in e.samples:
                    names = [picture_name(e.episode_index, p) for p in row["pictures"]]
                    record = {f"{i:03d}.jpg": e.pictures[name] for i, name in enumerate(names)}
                    writer.write(
                        {"__key__": row["sample_id"], "json": {**row, "pictures": names}, **record}
                    )
        tars.append(tar)
    return tars


def write_bare(folder: Path, members: list[list[tuple[str, bytes]]]) -> list[Path]:
    tars = [folder / f"bare-{k}.tar" for k in range(SHARDS)]
    for path, tar_members in zip(tars, members, strict=True):
        with tarfile.open(path, "w") as tar:
            for name, data in tar_members:
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


def with_decoding(tars: list[Path]) -> tuple[float, float]:
    """Pictures per second that come out of the loader decoded, and that over those of decoding alone.

    Sample by sample: loaded and decoded, then decoded again from memory; so both meet the same disturbances.
    """
    loading = alone = 0.0
    count = 0
    samples = iter(Loader(tars))
    while True:
        start = time.perf_counter()
        sample = next(samples, None)
        num_pictures = decode_all([sample]) if sample else 0
        middle = time.perf_counter()
        loading += middle - start
        if sample is None:
            return count / loading, alone / loading
        expect(num_pictures, len(sample.pictures), "pictures decoded")
        decode_all([sample])
        alone += time.perf_counter() - middle
        count += num_pictures


def speeds(
    title: str, seconds: dict[str, list[float]], facts: dict[str, tuple[int, int]], base: str
) -> Iterator[Figure]:
    """Samples a second of each way, of so many samples and bytes."""
    for name, (count, size) in facts.items():
        s = statistics.median(seconds[name])
        note = f"{size / MB / s:,.0f} MB/s, {ratio(seconds, base, name):.2f} of {base}'s speed"
        yield Figure(f"{title}, {name}", count / s, unit="samples/s", note=note)


def figures(args: Namespace) -> Iterator[Figure]:
    import webdataset  # noqa: F401  # before anything is timed

    episodes = [episode(k, jpegs) for k, jpegs in enumerate(pictures(args.episodes))]
    samples = list(chain.from_iterable(e.samples for e in episodes))
    count = len(samples)
    slots = sum(len(row["pictures"]) for row in samples)
    frames = sum(len(e.pictures) for e in episodes)
    jpeg_bytes = sum(map(len, chain.from_iterable(e.pictures.values() for e in episodes)))
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
        tars = written["shards"]
        records = written["WebDataset records"]
        size = sum(tar.stat().st_size for tar in tars)
        records_size = sum(tar.stat().st_size for tar in records)
        with_indexes = size + sum(index_path(t).stat().st_size for t in tars)
        of_records = {"WebDataset records": (count, records_size)}
        ways = dict.fromkeys(("bare tar", "shards"), (count, size))
        yield from speeds("writing", seconds, ways | of_records, "bare tar")
        seconds, samples_read = in_turns(
            {
                "bare tar": lambda: read_bare(tars),
                "shards, in order": lambda: sum(1 for _ in read_samples(tars)),
                "shards, the loader": lambda: sum(1 for _ in Loader(tars)),
                "WebDataset records": lambda: read_records(records),
            },
            args.runs,
        )
        num_members = {"bare tar": sum(map(len, members))}
        expect(samples_read, dict.fromkeys(samples_read, count) | num_members, "samples read")
        ways = dict.fromkeys(samples_read, (count, size))
        yield from speeds("reading", seconds, ways | of_records, "bare tar")
        note = (
            f"{slots / count:.1f} pictures a sample, {jpeg_bytes / frames / 1e3:.1f} KB a picture"
        )
        yield Figure("bytes a sample", with_indexes / count, note=note)
        note = f"WebDataset records: {records_size / count:,.0f}"
        yield Figure("times as small", records_size / with_indexes, TIMES_SMALLER, note=note)
        pictures_per_s, speed = with_decoding(tars)
        title = "speed of the loader beside decoding"
        yield Figure(title, speed, LOADER_SPEED, note=f"{pictures_per_s:,.0f} pictures/s")


if __name__ == "__main__":
    measure(__doc__, figures, episodes=8, runs=3)

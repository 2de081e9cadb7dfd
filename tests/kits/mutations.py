"""Ways to spoil a dataset: seeded, so that a base's name and a number say all of it.

Each mutation takes a Site and says what it did, or None where it could not be done. Files that a hostile dataset would
like to have read, or written, are in a folder beside it: `outside`.
"""

import random
import shutil
import tarfile
from fnmatch import fnmatch
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.kits import rlds_writer as rlds
from tests.kits.lerobot_writer import write_video
from tests.kits.mutate_archives import ARRAYS, TAR, TFRECORD
from tests.kits.mutate_files import BYTES, FOLDERS, TREE, Mutation, Site
from tests.kits.mutate_hdf5 import HDF5
from tests.kits.mutate_parquet import PARQUET
from tests.kits.mutate_text import CSV, JSON, JSON_LINES

BY_PATH: dict[str, tuple[Mutation, ...]] = {
    "*": (*BYTES, *TREE),
    "*/*": FOLDERS,
    "*.json*": JSON,
    "*.zarray": JSON,
    "*.jsonl": JSON_LINES,
    "*.csv": CSV,
    "*.parquet": PARQUET,
    "*.h*5": HDF5,
    "*.tar": TAR,
    "*.tfrecord*": TFRECORD,
    "*.npy": ARRAYS,
}


def applicable(root: Path) -> list[tuple[str, Mutation]]:
    """(pattern of paths, mutation) of all that can be done to a dataset."""
    paths = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()]
    return [
        (pattern, m) for pattern, ms in BY_PATH.items() if any(fnmatch(path, pattern) for path in paths) for m in ms
    ]


def mutate(root: Path, outside: Path, base: str, number: int) -> dict[str, str]:
    """Spoil a fresh copy of a base in one to three ways; what was done by the mutation's name.

    The first is number `number` of those that apply, so that as many numbers as there are try each of them.
    """
    rng, known = random.Random(f"{base} {number}"), applicable(root)
    site, done = Site(root, outside, rng), {}
    others = rng.choices(known, k=rng.choice([0, 0, 1, 2]))
    for count, (pattern, mutation) in enumerate([known[number % len(known)], *others]):
        for _ in range(10 if count == 0 else 1):
            site.pattern = pattern
            try:
                said = mutation(site)
            except Exception:
                if not done:
                    raise
                continue  # what another mutation has spoilt cannot be read to spoil it further
            if said:
                done[mutation.__name__] = said
                break
    assert done, f"{base} {number}: {known[number % len(known)]} did nothing"
    return done


def write_outside(folder: Path) -> None:
    """Files that a dataset must never make anybody read: each of its kind, and usable."""
    folder.mkdir()
    write_video(folder / "secret.mp4", range(6))
    for copy in ("chunk-000", "videos", "cam_1"):
        (folder / copy).mkdir()
        shutil.copyfile(folder / "secret.mp4", folder / copy / "episode_000000.mp4")
    (folder / "secret.png").write_bytes(rlds.png(1))
    (folder / "secret.bin").write_bytes(bytes(1 << 16))
    pq.write_table(
        pa.table({"episode_index": [0] * 6, "timestamp": [0.1 * k for k in range(6)]}), folder / "secret.parquet"
    )
    (folder / "secret.json").write_text('{"task": "secret"}')
    (folder / "secret.jsonl").write_text('{"task": "secret"}\n')
    (folder / "secret.csv").write_text("file,task\nsecret.mp4,secret\n")
    np.save(folder / "secret.npy", np.zeros((6, 7)))
    with h5py.File(folder / "secret.h5", "w") as file:
        file["pictures"], file["numbers"] = np.zeros((6, 64, 64, 3), np.uint8), np.zeros((6, 7))
    shutil.copyfile(folder / "secret.h5", folder / "secret.hdf5")
    with tarfile.open(folder / "secret.tar", "w") as archive:
        archive.add(folder / "secret.mp4", "secret.mp4")

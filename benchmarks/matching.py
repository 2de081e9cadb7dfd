"""Which recording each listed episode holds: CPU time and memory by the number of recordings.

    python -m benchmarks.matching [--recordings N ...] [--check]

Made recordings with 32 row hashes and 8 pictures of two cameras each. Three listings: nothing changed; one run was
deleted and all behind it have other numbers and files; all runs lost some rows. `--check` exits 1 when the time for one
recording grows by more than 2.5 times from the smallest to the largest number: what no cache holds costs as much.
"""

import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.harness import arguments, exit_code, machine, table
from ingest.episode import EpisodeRecord
from ingest.recordings import (
    MOMENTS,
    SKETCH,
    Address,
    Fingerprint,
    KnownRecording,
    Placement,
    place,
)

CAMERAS = ("front", "wrist")
NUM_FRAMES, CUT_ROWS = 300, 8  # rows of a sketch that a cut takes away
MOST_GROWTH = 2.5  # of the time for one recording, from the smallest number to the largest
Listing = Callable[[Sequence[KnownRecording]], tuple[list[Address], dict[str, Fingerprint]]]


def made_fingerprint(randoms: random.Random) -> Fingerprint:
    def numbers(count: int, bits: int) -> tuple[int, ...]:
        return tuple(randoms.getrandbits(bits) for _ in range(count))

    return Fingerprint(
        num_frames=NUM_FRAMES,
        rows=f"{randoms.getrandbits(64):016x}",
        sketch=tuple(sorted(numbers(SKETCH, 63))),
        moments={camera: numbers(MOMENTS, 64) for camera in CAMERAS},
    )


def made_recordings(count: int) -> list[KnownRecording]:
    randoms = random.Random(count)
    return [
        KnownRecording(
            f"{k:016x}",
            "arm",
            k,
            f"episode_{k:06d}",
            True,
            f"stamp {k}",
            fingerprint=made_fingerprint(randoms),
        )
        for k in range(count)
    ]


def address(number: int, stamp: str) -> Address:
    return Address(EpisodeRecord(number, f"episode_{number:06d}", fps=30.0, task=None), stamp)


def unchanged(recordings: Sequence[KnownRecording]) -> tuple[list[Address], dict[str, Fingerprint]]:
    return [address(recording.episode_index, recording.stamp) for recording in recordings], {}


def renumbered(
    recordings: Sequence[KnownRecording],
) -> tuple[list[Address], dict[str, Fingerprint]]:
    """The first run is gone."""
    addresses = [address(k, f"new stamp {k}") for k in range(len(recordings) - 1)]
    fingerprints = {
        source_address.record.source_id: next_recording.fingerprint
        for source_address, next_recording in zip(addresses, recordings[1:], strict=True)
    }
    return addresses, fingerprints


def cut(recordings: Sequence[KnownRecording]) -> tuple[list[Address], dict[str, Fingerprint]]:
    """Each run lost some rows, and with them the hash over all of them."""
    addresses = [address(k, f"new stamp {k}") for k in range(len(recordings))]
    fingerprints = {
        address.record.source_id: replace(
            former.fingerprint, num_frames=NUM_FRAMES - 1, rows=f"cut {former.recording}",
            sketch=former.fingerprint.sketch[:-CUT_ROWS], moments={},
        )
        for address, former in zip(addresses, recordings, strict=True)
    }  # fmt: skip
    return addresses, fingerprints


LISTINGS: dict[str, tuple[Listing, Callable[[KnownRecording, Placement], bool]]] = {
    "nothing changed": (unchanged, lambda known, placement: placement.known is known),
    "one deleted, all behind it moved": (
        renumbered,
        lambda known, placement: placement.known is known,
    ),
    "all lost rows": (cut, lambda known, placement: placement.resembles is known),
}


def measured(name: str, count: int) -> tuple[float, float]:
    """CPU seconds and megabytes of placing `count` recordings. Raises SystemExit where one is placed wrongly."""
    change, is_right = LISTINGS[name]
    recordings = made_recordings(count)
    addresses, fingerprints = change(recordings)
    begin = time.process_time()
    placed = place(recordings, addresses, lambda record: fingerprints[record.source_id])
    cpu_s = time.process_time() - begin
    expected = recordings[len(recordings) - len(placed) :]
    placements = [placed[address.record.source_id] for address in addresses]
    if not all(map(is_right, expected, placements)):
        sys.exit(f"{name}, {count} recordings: some are placed wrongly")
    del placed, placements
    tracemalloc.start()
    place(recordings, addresses, lambda record: fingerprints[record.source_id])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return cpu_s, peak / 1e6


def main() -> int:
    parser = arguments(__doc__, check=True)
    parser.add_argument("--recordings", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    args = parser.parse_args()
    rows = []
    missed = []
    for name in LISTINGS:
        figures = {count: measured(name, count) for count in sorted(args.recordings)}
        rows += [
            [name, f"{count:,}", f"{cpu_s:.2f}", f"{1e6 * cpu_s / count:.0f}", f"{megabytes:.0f}"]
            for count, (cpu_s, megabytes) in figures.items()
        ]
        of_one = [cpu_s / count for count, (cpu_s, _) in figures.items()]
        if of_one[-1] > MOST_GROWTH * of_one[0]:
            missed.append(f"{name}: {of_one[-1] / of_one[0]:.2f} times the time for one recording")
    table(["listing", "recordings", "CPU s", "µs for each", "MB"], rows)
    print(machine())
    return exit_code(missed, args.check)


if __name__ == "__main__":
    sys.exit(main())

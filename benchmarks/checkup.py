"""Which faults the checkup names, at which sizes: the tables of docs/checkup.md.

    python -m benchmarks.checkup [--only WORD] [--seed N] [--data FOLDER] [--page]

Each run of two simulated and four real sets is decoded once and kept in a temporary folder. Then each fault is put into
a run, or into all runs, in memory: its pictures are encoded again and measured by the product's own meter, and the
checkup looks at the whole set. A fault is named where the right check names the right run and a stretch that
overlaps it. What the checkup says of the sets as they are is listed: each is a false alarm, unless the set has it.

Prints Markdown; with --page also writes docs/data/checkup.json and the tables between the markers of docs/checkup.md.
"""

import json
import sys
import tracemalloc
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from tempfile import gettempdir
from time import process_time
from typing import Any
from zlib import crc32

import numpy as np

from annotate.checkup.checks import Checkup
from annotate.checkup.faults import RunFault
from annotate.checkup.signals import RunSignals
from benchmarks.checkup_faults import FAULTS, Fault, Spoilt
from benchmarks.checkup_peers import PEERS, peer_rows
from benchmarks.checkup_sets import DecodedSet, decoded_set
from benchmarks.harness import SHARED, arguments, machine, table_text, with_tables, write_json
from core.paths import ROOT

SIMULATED = ("sim_long", "sim_short")
SPOILT = ("cr5_banana", "cr5_flash_drive", "g1_yellow_bottle", "so101_bimanual_cloth")
CLEAN = ("gr1_pick_place", "droid_chips", "bridge_rlds", "piper_pen", "robo_dopamine", "roboc_franka_buttons")
PAGE, FIGURES = ROOT / "docs" / "checkup.md", ROOT / "docs" / "data" / "checkup.json"
KEPT = Path(gettempdir()) / "proccorpus-checkup"
RUNS = 3  # of each set that have a fault, one at a time


@dataclass(frozen=True)
class Trial:
    """One fault in one run, or in all. is_exact: of late rows, whether the time was right to one frame."""

    fault: Fault
    size: float | str
    dataset: str
    spoilt: Spoilt
    is_named: bool
    is_exact: bool
    false_alarms: tuple[RunFault, ...]

    def words(self) -> str:
        run = "all runs" if self.fault.everywhere else f"run {self.spoilt.run.index}"
        size = f"{self.size} {self.fault.unit}".strip()
        late = f", {self.spoilt.frames_late:+d} frames" if self.spoilt.frames_late else ""
        return f"{self.fault.name} ({size}): {self.dataset} {run}, {self.spoilt.start} to {self.spoilt.end}{late}"


def checkup_of(decoded: DecodedSet) -> Checkup:
    checkup = Checkup(decoded.name)
    for run in decoded.runs:
        checkup.add(run.signals())
    return checkup


def trials(decoded: DecodedSet, faults: Iterable[Fault], seed: int) -> Iterator[Trial]:
    """Each fault at each size: in up to RUNS runs of a set, one at a time, or in all of them at once.

    The runs and the places are the same for all sizes, as far as these can have them.
    """
    clean = checkup_of(decoded)
    before = {_key(fault) for fault in clean.faults()}
    for fault in faults:
        drawn = (seed, crc32(f"{decoded.name} {fault.name}".encode()))
        for size, turn in product(fault.sizes, fault.turns):
            spoil = _everywhere if fault.everywhere else _in_some_runs
            for spoilt, said in spoil(decoded, fault, size if turn == 1 else -float(size), drawn, clean):
                yield _judged(decoded, fault, size, spoilt, said, before)


def _everywhere(
    decoded: DecodedSet, fault: Fault, size: float | str, drawn: Sequence[int], clean: Checkup
) -> Iterator[tuple[Spoilt, list[RunFault]]]:
    """A fault of all runs at once, and what is said then."""
    spoilt = [fault.spoil(decoded, k, size, np.random.default_rng(drawn)) for k in range(len(decoded.runs))]
    runs = [one.run if one else run for one, run in zip(spoilt, decoded.runs, strict=True)]
    first = next((one for one in spoilt if one), None)
    if first is not None:
        yield first, checkup_of(replace(decoded, runs=runs)).faults()


def _in_some_runs(
    decoded: DecodedSet, fault: Fault, size: float | str, drawn: Sequence[int], clean: Checkup
) -> Iterator[tuple[Spoilt, list[RunFault]]]:
    """A fault of one run after the other, and what is said of the set each time."""
    order = map(int, np.random.default_rng(drawn).permutation(len(decoded.runs)))
    tried = (fault.spoil(decoded, k, size, np.random.default_rng([*drawn, k])) for k in order)
    for spoilt in islice(filter(None, tried), RUNS):
        yield spoilt, _faults_with(clean, spoilt)


def _faults_with(clean: Checkup, spoilt: Spoilt) -> list[RunFault]:
    """What the checkup says of a set in which one run is another, or is there in addition."""
    checkup = clean.without([spoilt.run.index])
    checkup.add(spoilt.run.signals())
    return checkup.faults()


def _judged(
    decoded: DecodedSet, fault: Fault, size: float | str, spoilt: Spoilt, said: Sequence[RunFault], before: set[tuple]
) -> Trial:
    new = [one for one in said if _key(one) not in before]
    named = [one for one in new if is_meant(one, fault, spoilt)]
    # What was said of a run before may be said of other frames now
    runs = {key[:2] for key in before}
    new = [one for one in new if _key(one)[:2] not in runs]
    if fault.everywhere:
        strangers = [one for one in new if one.check_name != fault.check]
    else:
        strangers = [one for one in new if one.episode_index not in (spoilt.run.index, spoilt.partner)]
    # Where nothing is wrong, whatever is named is a false alarm
    false = new if fault.check is None else strangers
    exact = any(is_right_time(one, spoilt) for one in named)
    return Trial(fault, size, decoded.name, spoilt, bool(named), exact, tuple(false))


def is_meant(said: RunFault, fault: Fault, spoilt: Spoilt) -> bool:
    """Does what was said name a fault: the right check, run and an overlapping stretch?"""
    if said.check_name != fault.check:
        return False
    if fault.everywhere:
        return True
    is_run = said.episode_index in (spoilt.run.index, spoilt.partner)
    return is_run and said.start_frame < spoilt.end and said.end_frame > spoilt.start


def is_right_time(said: RunFault, spoilt: Spoilt) -> bool:
    """Are late rows told with the right sign, to one frame, beyond what is usual in the set?"""
    return said.unit == "frames" and abs(said.measured - said.usual - spoilt.frames_late) <= 1


def _key(fault: RunFault) -> tuple:
    return fault.check_name, fault.episode_index, fault.start_frame, fault.end_frame, fault.camera, fault.signal


# Tables


def recall_rows(done: Sequence[Trial]) -> list[list[str]]:
    """For each fault, how often it is named at each size, over all sets; and the sets in which the plainest one is
    not always named."""
    rows = []
    for fault in FAULTS:
        own = [trial for trial in done if trial.fault is fault]
        if not own or fault.check is None:
            continue
        sizes = [_of_size([t for t in own if t.size == size], size) for size in fault.sizes]
        rows.append([fault.name, f"`{fault.check}`", fault.unit, "; ".join(filter(None, sizes)), _missed_in(own)])
    return rows


def _missed_in(own: Sequence[Trial]) -> str:
    plainest = [trial for trial in own if trial.size == trial.fault.sizes[-1]]
    by_set: dict[str, list[bool]] = {}
    for trial in plainest:
        by_set.setdefault(trial.dataset, []).append(trial.is_named)
    return ", ".join(f"`{name}`" for name, named in by_set.items() if not all(named))


def _of_size(own: Sequence[Trial], size: float | str) -> str:
    if not own:
        return ""
    named = sum(trial.is_named for trial in own)
    exact = f" ({sum(trial.is_exact for trial in own)})" if own[0].spoilt.frames_late else ""
    return f"{size}: {named}{exact}/{len(own)}".removeprefix(": ")


def clean_rows(sets: Sequence[DecodedSet], said: Mapping[str, Sequence[RunFault]], done: Sequence[Trial]) -> list:
    """For each set: what is said of it as it is, and of other runs than those with a fault."""
    rows = []
    for decoded in sets:
        checks = defaultdict(int)
        for fault in said[decoded.name]:
            checks[fault.check_name] += 1
        own = [trial for trial in done if trial.dataset == decoded.name]
        false = sum(len(trial.false_alarms) for trial in own)
        words = ", ".join(f"`{check}` {count}" for check, count in sorted(checks.items())) or "nothing"
        beside = f"{false} beside {len(own)}" if own else "–"
        rows.append([f"`{decoded.name}`", str(len(decoded.runs)), words, beside])
    return rows


def cost_row(decoded: DecodedSet) -> list[str]:
    """What the checkup takes beside decoding, and what it keeps of a run until all are compared."""
    signals = [run.signals() for run in decoded.runs]
    before, checkup = process_time(), Checkup(decoded.name)
    for run in signals:
        checkup.add(run)
    checkup.faults()
    share = (process_time() - before) / decoded.decoding_s
    tracemalloc.start()
    kept = Checkup(decoded.name)
    for run in signals:
        kept.add(run)
    kept_kb = tracemalloc.get_traced_memory()[0] / len(signals) / 1024
    tracemalloc.stop()
    return [f"`{decoded.name}`", f"{decoded.decoding_s:.1f}", f"{share:.1%}", f"{kept_kb:.0f}"]


def many_rows(decoded: DecodedSet, counts: Sequence[int]) -> list[list[str]]:
    """What so many runs take: those of a set over and over, each with noise of its own, so that none is a copy."""
    rng, rows = np.random.default_rng(0), []
    signals = [run.signals() for run in decoded.runs]
    for count in counts:
        checkup, looked_s = Checkup(decoded.name), 0.0
        for index in range(count):
            run = _varied(signals[index % len(signals)], index, rng)
            before = process_time()
            checkup.add(run)
            looked_s += process_time() - before
        before = process_time()
        checkup.faults()
        compared_s = process_time() - before
        tracemalloc.start()
        checkup.faults()
        peak_mb = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        rows.append([f"{count:,}", *(f"{1000 * s / count:.2f}" for s in (looked_s, compared_s)), f"{peak_mb:.0f}"])
    return rows


def _varied(run: RunSignals, index: int, rng: np.random.Generator) -> RunSignals:
    """The run as another one: rows by a share of their range, pictures by luma and a quarter of their hashes' bits."""
    cameras = []
    for camera in run.cameras:
        tiny = np.clip(camera.tiny + rng.normal(0, 6, camera.tiny.shape), 0, 255).astype(np.uint8)
        bits = rng.integers(0, 2**63, (2, len(camera.phash)), dtype=np.uint64)
        cameras.append(replace(camera, tiny=tiny, phash=camera.phash ^ (bits[0] & bits[1])))
    state, action = (
        None if values is None else values + rng.normal(0, 0.03, values.shape) * np.ptp(values, axis=0)
        for values in (run.state, run.action)
    )
    return replace(run, episode_index=index, state=state, action=action, cameras=cameras)


HEADS = {
    "faults": [
        "fault",
        "check",
        "size in",
        "named at each size, of those tried",
        "sets in which the last size is missed",
    ],
    "clean": ["set", "runs", "said of it as it is", "said of others beside faults"],
    "cost": ["set", "CPU s of decoding and measuring", "CPU of the checkup, of that", "kB kept of a run"],
    "many": ["runs", "CPU ms of each, looked at", "CPU ms of each, compared", "MB for comparing"],
    "peers": ["fault", "ours", *(peer.name for peer in PEERS)],
}


def tables_of(data: Mapping[str, Any]) -> dict[str, str]:
    return {name: table_text(head, data[name]) for name, head in HEADS.items() if name in data}


def details(said: Mapping[str, Sequence[RunFault]], done: Sequence[Trial]) -> Iterator[str]:
    """What is said of sets as they are, each fault that is not named, and what is said of runs without one."""
    yield "## Said of sets as they are"
    for name, faults in said.items():
        yield from (f"- {name}: {_in_words(fault)}" for fault in faults)
    yield "\n## Not named"
    yield from (f"- {trial.words()}" for trial in done if trial.fault.check and not trial.is_named)
    yield "\n## Named with another time"
    yield from (f"- {t.words()}" for t in done if t.spoilt.frames_late and t.is_named and not t.is_exact)
    yield "\n## Said of runs without the fault"
    for trial in done:
        for check in sorted({fault.check_name for fault in trial.false_alarms}):
            own = [fault for fault in trial.false_alarms if fault.check_name == check]
            yield f"- {trial.words()} -> {len(own)} x {_in_words(own[0])}"


def _in_words(fault: RunFault) -> str:
    where = f"run {fault.episode_index}, {fault.start_frame} to {fault.end_frame}"
    return f"{fault.check_name}: {where}: {fault.detail}"


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--only", metavar="WORD", default="", help="only faults and checks that have it in their names")
    parser.add_argument("--seed", type=int, default=0, help="draws the runs and places of faults")
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="where the real sets lie")
    parser.add_argument("--sets", nargs="+", help="only these, all of them with faults")
    parser.add_argument(
        "--details", action="store_true", help="list each fault that is not named, and each false alarm"
    )
    parser.add_argument("--peers", action="store_true", help="run other checkers on copies of the first set, too")
    parser.add_argument("--many", nargs="*", type=int, default=[], metavar="N", help="also what so many runs take")
    parser.add_argument("--page", action="store_true", help="write the tables of docs/checkup.md, too")
    asked = parser.parse_args()
    places = [ROOT / "samples" / name for name in SIMULATED] + [asked.data / name for name in (*SPOILT, *CLEAN)]
    places = [p for p in places if p.is_dir() and (not asked.sets or p.name in asked.sets)]
    sets = [decoded_set(place, KEPT) for place in places]
    faults = [fault for fault in FAULTS if asked.only in f"{fault.name} {fault.check}"]
    said = {decoded.name: checkup_of(decoded).faults() for decoded in sets}
    spoilt = [decoded for decoded in sets if asked.sets or decoded.name not in CLEAN]
    done = [trial for decoded in spoilt for trial in trials(decoded, faults, asked.seed)]
    data: dict[str, Any] = {"seed": asked.seed}
    data |= {"faults": recall_rows(done), "clean": clean_rows(sets, said, done), "cost": list(map(cost_row, spoilt))}
    if asked.many:
        data["many"] = many_rows(sets[0], asked.many)
    if asked.peers:
        data["peers"] = peer_rows(sets[0], asked.seed, KEPT)
    for name, text in tables_of(data).items():
        print(f"## {name}\n\n{text}")
    print(machine())
    if asked.details:
        print("\n".join(details(said, done)))
    if asked.page:
        write_page(data, is_whole=not (asked.only or asked.sets))
    return 0


def write_page(data: Mapping[str, Any], *, is_whole: bool) -> None:
    """The figures and the page; of a run of some faults or sets only the tables that need no more."""
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    figures |= data if is_whole else {name: data[name] for name in ("many", "peers") if name in data}
    write_json(FIGURES, figures)
    PAGE.write_text(with_tables(PAGE.read_text(), tables_of(figures), "benchmarks.checkup", "docs/checkup.md"))


if __name__ == "__main__":
    sys.exit(main())

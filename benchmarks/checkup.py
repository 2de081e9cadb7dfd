"""Which faults the checkup names, at which sizes: the tables of docs/checkup.md.

    python -m benchmarks.checkup [--only WORD] [--seed N] [--data FOLDER] [--sets NAME ...] [--details] [--many N ...]
                                 [--page]

Each run of two simulated and four real sets is decoded once and kept in a temporary folder. Then each fault is put into
a run, or into all runs, in memory: its pictures are encoded again and measured by the product's own meter, and the
checkup looks at the whole set. A fault is named where the right check names the right run and a stretch that
overlaps it. What the checkup says of the sets as they are is listed: each is a false alarm, unless the set has it.

--only: faults and checks by a word of their names; --seed draws runs and places; --data: where the real sets lie;
--sets: these alone, with faults; --details: each fault not named, each false alarm; --many: what so many runs take.
Prints Markdown; with --page also writes docs/data/checkup.json and the tables of docs/checkup.md.
"""

import json
import tracemalloc
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, product
from pathlib import Path
from tempfile import gettempdir
from time import process_time
from typing import Any
from zlib import crc32

import numpy as np

from annotate.checkup.checks import Checkup
from annotate.checkup.single_runs import RunSignals
from benchmarks.checkup_faults import FAULTS, Fault, Spoilt
from benchmarks.checkup_sets import DecodedSet, decoded_set
from benchmarks.harness import SHARED, machine, options, table_text, write_json, write_tables
from core.paths import ROOT
from ingest.episode import Finding

SIMULATED = ("sim_long", "sim_short")
SPOILT = ("cr5_banana", "cr5_flash_drive", "g1_yellow_bottle", "so101_bimanual_cloth")
CLEAN = (
    "gr1_pick_place",
    "droid_chips",
    "bridge_rlds",
    "piper_pen",
    "robo_dopamine",
    "roboc_franka_buttons",
)
PAGE = ROOT / "docs" / "checkup.md"
FIGURES = ROOT / "docs" / "data" / "checkup.json"
KEPT = Path(gettempdir()) / "proccorpus-checkup"
MOST_LISTED = 2  # sets by name in a cell
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
    false_alarms: tuple[Finding, ...]

    def words(self) -> str:
        run = "all runs" if self.fault.everywhere else f"run {self.spoilt.run.index}"
        size = f"{self.size} {self.fault.unit}".strip()
        late = f", {self.spoilt.frames_late:+d} frames" if self.spoilt.frames_late else ""
        return f"{self.fault.name} ({size}): {self.dataset} {run}, {self.spoilt.start} to {self.spoilt.end}{late}"


def checkup_of(name: str, runs: Iterable[RunSignals]) -> Checkup:
    checkup = Checkup(name)
    for run in runs:
        checkup.add(run)
    return checkup


def checked(decoded: DecodedSet) -> Checkup:
    return checkup_of(decoded.name, (run.signals() for run in decoded.runs))


def trials(decoded: DecodedSet, faults: Iterable[Fault], seed: int) -> Iterator[Trial]:
    """Each fault at each size: in up to RUNS runs of a set, one at a time, or in all of them at once.

    The runs and the places are the same for all sizes, as far as these can have them.
    """
    clean = checked(decoded)
    former_keys = {_key(fault) for fault in clean.faults()}
    for fault in faults:
        drawn = (seed, crc32(f"{decoded.name} {fault.name}".encode()))
        for size, turn in product(fault.sizes, fault.turns):
            spoil = _everywhere if fault.everywhere else _in_some_runs
            for spoilt, run_faults in spoil(
                decoded, fault, size if turn == 1 else -float(size), drawn, clean
            ):
                yield _judged(decoded, fault, size, spoilt, run_faults, former_keys)


def _everywhere(
    decoded: DecodedSet, fault: Fault, size: float | str, drawn: Sequence[int], clean: Checkup
) -> Iterator[tuple[Spoilt, list[Finding]]]:
    """A fault of all runs at once, and what is said then."""
    spoilt = [fault.spoil(run, decoded, size, np.random.default_rng(drawn)) for run in decoded.runs]
    runs = [
        spoilt_run.run if spoilt_run else run
        for spoilt_run, run in zip(spoilt, decoded.runs, strict=True)
    ]
    first = next((spoilt_run for spoilt_run in spoilt if spoilt_run), None)
    if first is not None:
        yield first, checked(replace(decoded, runs=runs)).faults()


def _in_some_runs(
    decoded: DecodedSet, fault: Fault, size: float | str, drawn: Sequence[int], clean: Checkup
) -> Iterator[tuple[Spoilt, list[Finding]]]:
    """A fault of one run after the other, and what is said of the set each time."""
    order = map(int, np.random.default_rng(drawn).permutation(len(decoded.runs)))
    tried = (
        fault.spoil(decoded.runs[k], decoded, size, np.random.default_rng([*drawn, k]))
        for k in order
    )
    for spoilt in islice(filter(None, tried), RUNS):
        yield spoilt, _faults_with(clean, spoilt)


def _faults_with(clean: Checkup, spoilt: Spoilt) -> list[Finding]:
    """What the checkup says of a set in which one run is another, or is there in addition."""
    checkup = clean.without([spoilt.run.index])
    checkup.add(spoilt.run.signals())
    return checkup.faults()


def _judged(
    decoded: DecodedSet,
    fault: Fault,
    size: float | str,
    spoilt: Spoilt,
    run_faults: Sequence[Finding],
    former_keys: set[tuple],
) -> Trial:
    new = [run_fault for run_fault in run_faults if _key(run_fault) not in former_keys]
    named_faults = [run_fault for run_fault in new if is_meant(run_fault, fault, spoilt)]
    # What was said of a run before may be said of other frames now
    runs = {key[:2] for key in former_keys}
    new = [run_fault for run_fault in new if _key(run_fault)[:2] not in runs]
    if fault.everywhere:
        strangers = [run_fault for run_fault in new if run_fault.reason != fault.check]
    else:
        strangers = [
            run_fault
            for run_fault in new
            if run_fault.episode_index not in (spoilt.run.index, spoilt.partner)
        ]
    # Where nothing is wrong, whatever is named is a false alarm
    false = new if fault.check is None else strangers
    exact = any(is_right_time(run_fault, spoilt) for run_fault in named_faults)
    return Trial(fault, size, decoded.name, spoilt, bool(named_faults), exact, tuple(false))


def is_meant(run_fault: Finding, fault: Fault, spoilt: Spoilt) -> bool:
    """Does what was said name a fault: the right check, run and an overlapping stretch?"""
    if run_fault.reason != fault.check:
        return False
    if fault.everywhere:
        return True
    is_run = run_fault.episode_index in (spoilt.run.index, spoilt.partner)
    return is_run and run_fault.start_frame < spoilt.end and run_fault.end_frame > spoilt.start


def is_right_time(run_fault: Finding, spoilt: Spoilt) -> bool:
    """Are late rows told with the right sign, to one frame, beyond what is usual in the set?"""
    return (
        run_fault.unit == "frames"
        and abs(run_fault.measured - run_fault.usual - spoilt.frames_late) <= 1
    )


def _key(fault: Finding) -> tuple:
    return (
        fault.reason,
        fault.episode_index,
        fault.start_frame,
        fault.end_frame,
        fault.camera,
        fault.signal,
    )


# Tables


def recall_rows(all_trials: Sequence[Trial]) -> list[list[str]]:
    """For each fault, how often it is named at each size, over all sets; and the sets in which the plainest one is
    not always named."""
    rows = []
    for fault in FAULTS:
        fault_trials = [trial for trial in all_trials if trial.fault is fault]
        if not fault_trials or fault.check is None:
            continue
        sizes = []
        for size in fault.sizes:
            sizes.append(_of_size([t for t in fault_trials if t.size == size], size))
        rows.append(
            [
                fault.name,
                f"`{fault.check}`",
                fault.unit,
                "; ".join(filter(None, sizes)),
                _missed_in(fault_trials),
            ]
        )
    return rows


def _missed_in(fault_trials: Sequence[Trial]) -> str:
    plainest = [trial for trial in fault_trials if trial.size == trial.fault.sizes[-1]]
    by_set: dict[str, list[bool]] = {}
    for trial in plainest:
        by_set.setdefault(trial.dataset, []).append(trial.is_named)
    missed = [f"`{name}`" for name, trial_names in by_set.items() if not all(trial_names)]
    if len(missed) > MOST_LISTED:
        return f"{len(missed)} of {len(by_set)}"
    return ", ".join(missed)


def _of_size(size_trials: Sequence[Trial], size: float | str) -> str:
    if not size_trials:
        return ""
    num_named = sum(trial.is_named for trial in size_trials)
    if size_trials[0].spoilt.frames_late:
        exact = f" ({sum(trial.is_exact for trial in size_trials)})"
    else:
        exact = ""
    return f"{size}: {num_named}{exact}/{len(size_trials)}".removeprefix(": ")


def clean_rows(
    sets: Sequence[DecodedSet],
    faults_by_set: Mapping[str, Sequence[Finding]],
    all_trials: Sequence[Trial],
) -> list:
    """For each set: what is said of it as it is, and of other runs than those with a fault."""
    rows = []
    for decoded in sets:
        checks = defaultdict(int)
        for fault in faults_by_set[decoded.name]:
            checks[fault.reason] += 1
        set_trials = [trial for trial in all_trials if trial.dataset == decoded.name]
        false = sum(len(trial.false_alarms) for trial in set_trials)
        words = (
            ", ".join(f"`{check}` {count}" for check, count in sorted(checks.items())) or "nothing"
        )
        comparison = f"{false} beside {len(set_trials)}" if set_trials else "–"
        rows.append([f"`{decoded.name}`", str(len(decoded.runs)), words, comparison])
    return rows


def cost_row(decoded: DecodedSet) -> list[str]:
    """What the checkup takes beside decoding, and what it keeps of a run until all are compared."""
    signals = [run.signals() for run in decoded.runs]
    start_s = process_time()
    checkup_of(decoded.name, signals).faults()
    share = (process_time() - start_s) / decoded.decoding_s
    tracemalloc.start()
    _checkup = checkup_of(decoded.name, signals)
    kept_kb = tracemalloc.get_traced_memory()[0] / len(signals) / 1024
    tracemalloc.stop()
    return [f"`{decoded.name}`", f"{decoded.decoding_s:.1f}", f"{share:.1%}", f"{kept_kb:.0f}"]


def many_rows(decoded: DecodedSet, counts: Sequence[int]) -> list[list[str]]:
    """What so many runs take: those of a set over and over, each with noise of its own, so that none is a copy."""
    rng = np.random.default_rng(0)
    rows = []
    signals = [run.signals() for run in decoded.runs]
    for count in counts:
        checkup = Checkup(decoded.name)
        looked_s = 0.0
        for index in range(count):
            run = _varied(signals[index % len(signals)], index, rng)
            start_s = process_time()
            checkup.add(run)
            looked_s += process_time() - start_s
        start_s = process_time()
        checkup.faults()
        compared_s = process_time() - start_s
        tracemalloc.start()
        checkup.faults()
        peak_mb = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        rows.append(
            [
                f"{count:,}",
                *(f"{1000 * s / count:.2f}" for s in (looked_s, compared_s)),
                f"{peak_mb:.0f}",
            ]
        )
    return rows


def _varied(run: RunSignals, index: int, rng: np.random.Generator) -> RunSignals:
    """The run as another one: rows by a share of their range, pictures by luma and a quarter of their hashes' bits."""
    cameras = []
    for camera in run.cameras:
        tiny = np.clip(camera.tiny + rng.normal(0, 6, camera.tiny.shape), 0, 255).astype(np.uint8)
        bits = rng.integers(0, 2**63, (2, len(camera.phash)), dtype=np.uint64)
        cameras.append(replace(camera, tiny=tiny, phash=camera.phash ^ (bits[0] & bits[1])))
    state, action = (
        None
        if values is None
        else values + rng.normal(0, 0.03, values.shape) * np.ptp(values, axis=0)
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
    "cost": [
        "set",
        "CPU s of decoding and measuring",
        "CPU of the checkup, of that",
        "kB kept of a run",
    ],
    "many": ["runs", "CPU ms of each, looked at", "CPU ms of each, compared", "MB for comparing"],
}


def tables_of(data: Mapping[str, Any]) -> dict[str, str]:
    return {name: table_text(head, data[name]) for name, head in HEADS.items() if name in data}


def details(
    faults_by_set: Mapping[str, Sequence[Finding]], all_trials: Sequence[Trial]
) -> Iterator[str]:
    """What is said of sets as they are, each fault that is not named, and what is said of runs without one."""
    yield "## Said of sets as they are"
    for name, faults in faults_by_set.items():
        yield from (f"- {name}: {_in_words(fault)}" for fault in faults)
    yield "\n## Not named"
    yield from (
        f"- {trial.words()}" for trial in all_trials if trial.fault.check and not trial.is_named
    )
    yield "\n## Named with another time"
    yield from (
        f"- {t.words()}"
        for t in all_trials
        if t.spoilt.frames_late and t.is_named and not t.is_exact
    )
    yield "\n## Said of runs without the fault"
    for trial in all_trials:
        for check in sorted({fault.reason for fault in trial.false_alarms}):
            alarms = [fault for fault in trial.false_alarms if fault.reason == check]
            yield f"- {trial.words()} -> {len(alarms)} x {_in_words(alarms[0])}"


def _in_words(fault: Finding) -> str:
    location = f"run {fault.episode_index}, {fault.start_frame} to {fault.end_frame}"
    return f"{fault.reason}: {location}: {fault.detail}"


def main() -> None:
    data_folder = SHARED / "data"
    args = options(
        __doc__, only="", seed=0, data=data_folder, sets=(), details=False, many=(), page=False
    )
    places = [ROOT / "samples" / name for name in SIMULATED] + [
        args.data / name for name in (*SPOILT, *CLEAN)
    ]
    places = [p for p in places if p.is_dir() and (not args.sets or p.name in args.sets)]
    sets = [decoded_set(place, KEPT) for place in places]
    faults = [fault for fault in FAULTS if args.only in f"{fault.name} {fault.check}"]
    faults_by_set = {decoded.name: checked(decoded).faults() for decoded in sets}
    spoilt = [decoded for decoded in sets if args.sets or decoded.name not in CLEAN]
    all_trials = list(chain.from_iterable(trials(decoded, faults, args.seed) for decoded in spoilt))
    data: dict[str, Any] = {"seed": args.seed}
    data |= {
        "faults": recall_rows(all_trials),
        "clean": clean_rows(sets, faults_by_set, all_trials),
        "cost": list(map(cost_row, spoilt)),
    }
    if args.many:
        data["many"] = many_rows(sets[0], list(map(int, args.many)))
    for name, text in tables_of(data).items():
        print(f"## {name}\n\n{text}")
    print(machine())
    if args.details:
        print("\n".join(details(faults_by_set, all_trials)))
    if args.page:
        write_page(data, is_whole=not (args.only or args.sets))


def write_page(data: Mapping[str, Any], *, is_whole: bool) -> None:
    """The figures and the page; of a run of some faults or sets only the tables that need no more."""
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    figures |= data if is_whole else {name: data[name] for name in ("many",) if name in data}
    write_json(FIGURES, figures)
    write_tables(PAGE, tables_of(figures))


if __name__ == "__main__":
    main()

"""Gripper events of real robots against what people saw, and the signal report against what is in the files.

    python -m benchmarks.signal_truth [--dataset cr5_banana ...] [--workspace W] [--json FILE]

Builds the datasets that have a hand-labelled truth (`label_truth --real` has the same workspace). The first table:
of the closings and openings that are detected, the share within 0.5 s of a labelled grasp, release or other event of a
gripper; and of the labelled grasps and releases the share that is detected. Each event counts once, the nearest pairs
first; `right way`: closings at grasps, openings at releases. Intervals are 95 % of a bootstrap over episodes.

The second table puts what a person sees in the rows (SEEN) beside the signals that `proccorpus inspect` reports.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from annotate.motion import MotionConfig
from annotate.motion.signals import grasps_of_arms, observe
from benchmarks.real_truth import SIMULATED
from benchmarks.tables import score_json, table
from benchmarks.trial import SHARED, build, own_code_first, trial_workspace
from core.paths import ROOT
from eval.annotators.scoring import EVENTS
from eval.annotators.truth import NEAR_S, EpisodeTruth, TruthEvent, corpus_truth, nearest_pairs
from eval.metrics.score import Score, ratio_of, scores
from pipeline.reading import chunk_signals
from warehouse.lake import Lake

CLOSE, OPEN = "close", "open"
FIGURES = ROOT / "docs" / "data" / "real_signals.json"
WAY = {"grasp": CLOSE, "release": OPEN}  # what a gripper does at an event of the truth


@dataclass(frozen=True)
class Detected:
    """A closing, dated to the frame at which the fingers hold, or an opening, to that at which they let go."""

    arm: str  # its place among the signals that are used
    frame: int
    kind: str  # close or open


@dataclass(frozen=True)
class EventCounts:
    """One episode. Those of the truth are grasps and releases; what is near may be another event of a gripper."""

    detected: int
    near_truth: int
    near_truth_or_boundary: int
    labelled: int
    near_detected: int
    right_way: int  # of `near_detected`: closings at grasps, openings at releases
    seconds_off: float  # sum over `near_detected`


def detected_events(lake: Lake, dataset: str) -> dict[int, list[Detected]]:
    """The gripper events of each episode, of all arms, in time: what the motion annotator sees of them."""
    config = MotionConfig()
    events: dict[int, list[Detected]] = {}
    for (chunk,) in lake.rows("SELECT DISTINCT chunk FROM episode_content WHERE dataset = ? ORDER BY 1", [dataset]):
        for e in chunk_signals(lake, dataset, chunk):
            signals = e.signals()
            own = grasps_of_arms(signals, observe(signals, config).activity, config)
            events[e.episode_index] = [Detected(str(event.arms[0]), event.moment, event.kind) for event in own]
    return events


def of_a_gripper(event: TruthEvent) -> bool:
    """Is it an event at which a gripper moves? An `other` one may be of a button, which its note tells."""
    return event.kind in EVENTS or (event.kind == "other" and (event.note is None or "gripper" in event.note))


def count_events(detected: Sequence[Detected], truth: EpisodeTruth) -> EventCounts:
    """Compare what is detected in an episode with what people saw."""
    within = NEAR_S * truth.fps
    frames = [event.frame for event in detected]
    of_grippers = [event.frame for event in truth.events if of_a_gripper(event)]
    labelled = [event for event in truth.events if event.kind in EVENTS]
    pairs = nearest_pairs([event.frame for event in labelled], frames, within)
    boundaries = [s.start_frame for one_pass in truth.passes for s in one_pass[1:]]
    either = [*of_grippers, *boundaries]
    return EventCounts(
        detected=len(detected),
        near_truth=len(nearest_pairs(frames, of_grippers, within)),
        near_truth_or_boundary=sum(any(abs(frame - e) <= within for e in either) for frame in frames),
        labelled=len(labelled),
        near_detected=len(pairs),
        right_way=sum(WAY[labelled[i].kind] == detected[j].kind for i, j in pairs),
        seconds_off=sum(abs(labelled[i].frame - frames[j]) for i, j in pairs) / truth.fps,
    )


def event_scores(counts: Sequence[EventCounts]) -> dict[str, Score]:
    """Shares over the events of all episodes, with intervals over episodes."""

    def column(name: str) -> np.ndarray:
        return np.array([getattr(c, name) for c in counts], np.float64)

    shares = {
        "detected ones near the truth": ("near_truth", "detected"),
        "or near any boundary": ("near_truth_or_boundary", "detected"),
        "labelled ones detected": ("near_detected", "labelled"),
        "of these the right way": ("right_way", "near_detected"),
        "seconds off": ("seconds_off", "near_detected"),
    }
    return scores({name: ratio_of(column(of), column(all_)) for name, (of, all_) in shares.items()})


def total_counts(counts: Sequence[EventCounts]) -> dict[str, float]:
    """The sums over episodes."""
    rows = [asdict(c) for c in counts]
    return {name: round(sum(row[name] for row in rows), 4) for name in rows[0]} if rows else {}


# The signal report


@dataclass(frozen=True)
class SeenSignal:
    """A gripper or hand as a person sees it in rows and pictures."""

    what: str
    places: Mapping[str, tuple[int, ...]] | None  # its dimensions in state and action; None: the adapter counts them
    closed_is: str | None  # low or high; None: cannot be seen
    is_used: bool = True


HAND = "hand, 6 joints in radians"
LEFT_HAND, RIGHT_HAND = tuple(range(7, 13)), tuple(range(29, 35))
SEEN: Mapping[str, tuple[SeenSignal, ...]] = {
    "cr5_banana": (
        SeenSignal(
            "gripper command 0 or 1, 0.9 to 1.6 s after the pictures; none in the state", {"action": (6,)}, "high"
        ),
    ),
    "piper_pen": (SeenSignal("gripper, 0 to 100", {"state": (6,), "action": (6,)}, "low"),),
    "so101_bimanual_cloth": (
        SeenSignal("first gripper, servo counts: opens, closes, twice", {"state": (5,), "action": (5,)}, "low"),
        SeenSignal("second gripper, the same", {"state": (11,), "action": (11,)}, "low"),
    ),
    "roboc_franka_buttons": (SeenSignal("gripper's width in metres: closes empty, opens at the end", None, "low"),),
    "robo_dopamine": (),
    "gr1_pick_place": (
        SeenSignal(
            f"left {HAND}: takes its pose, then rests", {"state": LEFT_HAND, "action": LEFT_HAND}, "high", False
        ),
        SeenSignal(f"right {HAND}: closes once", {"state": RIGHT_HAND, "action": RIGHT_HAND}, "high"),
    ),
    "piper_v3_no_videos": (SeenSignal("gripper, 0 to 70", {"state": (6,), "action": (5,)}, "low"),),
    "bridge_rlds": (SeenSignal("gripper, 0 to 1, 1 is open", {"state": (6,), "action": (6,)}, "low"),),
    "bridge_widowx_mp4npz": (SeenSignal("gripper command -1 to 1, 1 is closed", {"action": (6,)}, "high"),),
    "xarm_hdf5_no_images": (SeenSignal("gripper_state is 1 in every row", None, None, False),),
    "franka_pickplace_v3_no_data": (),
}


def reported_signals(path: Path) -> list[dict[str, Any]] | None:
    """The field `signals` of `proccorpus inspect --format json`; None where it reports nothing of the kind."""
    command = [sys.executable, "-m", "proccorpus", "inspect", str(path), "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, env=own_code_first(), capture_output=True, text=True)
    try:
        return json.loads(done.stdout).get("signals")
    except json.JSONDecodeError:
        return None  # refused before anything was read


def agrees(seen: SeenSignal, reported: Sequence[Mapping[str, Any]]) -> str:
    """What is right and wrong about a signal in the report, in a few words."""
    of_same = [r for r in reported if _same_place(seen, r)]
    if not of_same:
        return "not reported"
    signal = of_same[0]
    if not seen.is_used:
        return "right" if not signal["is_used"] else "said to be used"
    if not signal["is_used"]:
        return "said to be unused"
    if signal["polarity"] == "unknown":
        return "right, polarity unknown"
    return "right" if signal["polarity"] == f"high_is_{_high_end(seen)}" else "polarity inverted"


def _same_place(seen: SeenSignal, reported: Mapping[str, Any]) -> bool:
    if seen.places is None:
        return True
    return not set(seen.places.get(reported["column"], ())).isdisjoint(reported["dimensions"])


def _high_end(seen: SeenSignal) -> str:
    return "closed" if seen.closed_is == "high" else "open"


def report_rows(data: Path, datasets: Sequence[str]) -> list[list[str]]:
    """What a person sees, what is reported, and whether it is the same; a row per signal."""
    rows = []
    for dataset in datasets:
        reported, seen = reported_signals(data / dataset), SEEN[dataset]
        if reported is None:
            rows.append([dataset, "; ".join(s.what for s in seen) or "none", "no report", "–"])
            continue
        for signal in seen:
            own = [r for r in reported if _same_place(signal, r)]
            rows.append([dataset, signal.what, "; ".join(map(_words, own)) or "nothing", agrees(signal, reported)])
        extra = [r for r in reported if not any(_same_place(s, r) for s in seen)]
        rows += [[dataset, "none", _words(r), "not there"] for r in extra]
        if not seen and not reported:
            rows.append([dataset, "none", "none", "right"])
    return rows


def _words(signal: Mapping[str, Any]) -> str:
    """A signal of the report in a line."""
    dimensions = ", ".join(map(str, signal["dimensions"]))
    where = f"{signal['column']} {dimensions} ({signal['unit']})"
    ends = f"{_figure(signal['closed'])} closed, {_figure(signal['open'])} open"
    sure = f"{signal['polarity']} ({signal['confidence']:.2f})"
    use = f"closes {_figure(signal['closings_per_episode'])} times" if signal["is_used"] else "unused"
    return "; ".join((f"{signal['arm']} {signal['kind']}".strip(), where, ends, sure, use))


def _figure(value: float | None) -> str:
    return "?" if value is None else f"{value:g}"


# Tables


def event_rows(counts: Mapping[str, Sequence[EventCounts]]) -> list[list[str]]:
    rows = []
    together = {"all real robots": [c for d, its in counts.items() if d not in SIMULATED for c in its]}
    for name, its_counts in [*counts.items(), *together.items()]:
        shares = event_scores(its_counts)
        sums = [str(sum(getattr(c, field) for c in its_counts)) for field in ("detected", "labelled")]
        rows.append([name, str(len(its_counts)), *sums, *(share.text() for share in shares.values())])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", nargs="+")
    parser.add_argument("--workspace", type=Path, help="keep the built datasets there")
    parser.add_argument("--truth", type=Path, default=SHARED / "real_truth")
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    parser.add_argument("--json", type=Path, default=FIGURES)
    asked = parser.parse_args()
    labelled = [d for d in asked.dataset or SEEN if (asked.truth / d).is_dir() and SEEN[d]]
    events: dict[str, dict[int, list[Detected]]] = {}
    counts: dict[str, list[EventCounts]] = {}
    with trial_workspace(asked.workspace) as space:
        for dataset in labelled:
            build(space, asked.data / dataset, dataset)
            lake = Lake(space, read_only=True)
            events[dataset] = detected_events(lake, dataset)
            truth = corpus_truth(lake, asked.truth, dataset)
            counts[dataset] = [count_events(events[dataset].get(e, []), known) for e, known in sorted(truth.items())]
    head = ["set", "episodes", "detected", "grasps and releases", *event_scores([])]
    table(head, event_rows(counts))
    report = report_rows(asked.data, [d for d in asked.dataset or SEEN if (asked.data / d).exists()])
    table(["set", "what a person sees", "what is reported", "same"], report)
    figures = {
        dataset: {
            "figures": {name: score_json(share) for name, share in event_scores(counts[dataset]).items()},
            "counts": total_counts(counts[dataset]),
            "detected": {str(e): [asdict(event) for event in own] for e, own in events[dataset].items()},
        }
        for dataset in labelled
    }
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps({"events": figures, "signals": report}, indent=1) + "\n")


if __name__ == "__main__":
    main()

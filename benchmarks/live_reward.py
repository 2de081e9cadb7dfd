"""Live rewards by shown runs, on robots that nothing was chosen on: the table of docs/rewards.md.

    python -m benchmarks.live_reward [--data FOLDER] [--truth FOLDER] [--workspace W] [--dataset NAME ...]

Each hand-labelled run is laid beside three other finished ones of its set (of a small set as many as there are; drawn
several times), picture by picture, as `proccorpus reward --like` does it, without training: with the robot's grippers,
where it has any, and by pictures alone.
Beside it stands a running clock: time over the mean length of the shown runs. Every constant of `CHOICES` is chosen on
all other robots. Prints a Markdown table and writes it between the markers of the page with --page.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from annotate.alignment import live
from annotate.alignment.live import Following, Guide, Shown, Where
from annotate.embeddings.config import EmbeddingsConfig
from annotate.embeddings.encoders import load_encoder
from benchmarks.label_truth import TRUTH, robot_of
from benchmarks.tables import table_text
from benchmarks.trial import SHARED, build, trial_workspace
from core.paths import ROOT, Workspace
from eval.annotators.truth import corpus_truth
from eval.reward.shown import MOST_SPREAD, SURE_END
from pipeline.episode_rewards import episode_clip
from pipeline.shown_runs import openings_at, pictures_of
from warehouse.lake import Lake
from warehouse.lake.signals import stored_signals

PAGE = ROOT / "docs" / "rewards.md"
CHOICES: Mapping[str, Sequence[float]] = {"DISTANCE": (3.0, 5.0, 8.0), "TEMPO": (4.0, 8.0, 12.0)}
DRAWS, REFERENCES, HOLD_S = 3, 3, 0.5
LAG_S = 1.0
NEAR_END = 0.9  # of the true way: a success that is told before is too early


@dataclass(frozen=True)
class Run:
    """One run as it would be shown, with its true progress; `success` is None where nobody can say."""

    shown: Shown
    times_s: np.ndarray
    success: bool | None


def runs_of(space: Workspace, data: Path, truth: Path, name: str) -> list[Run]:
    """The hand-labelled runs of a set by all cameras that all of them have."""
    build(space, data / name, name)
    lake = Lake(space, read_only=True)
    known, encoder, runs = corpus_truth(lake, truth, name), load_encoder(EmbeddingsConfig()), []
    rows = lake.rows("SELECT episode_index, fps, cameras FROM episodes WHERE dataset = ? AND status = 'ok'", [name])
    rows = [row for row in sorted(rows) if row[0] in known]
    grippers = [g for g in stored_signals(lake.con, name) if g.is_used]
    cameras = [c for c in rows[0][2] if all(c in row[2] for row in rows)]
    for episode, fps, _ in rows:
        clip, _ = episode_clip(space, name, episode, cameras)
        at, pictures = pictures_of(clip, encoder)
        progress = known[episode].progress()
        steps = np.full(len(at), -1)
        opened = openings_at(clip, at, grippers)
        shown = Shown(f"{name}/{episode}", pictures, progress[at], steps, (), len(progress) / fps, opened)
        runs.append(Run(shown, at / fps, known[episode].success))
    lake.con.close()
    return runs


def drawn(runs: Sequence[Run], count: int = REFERENCES) -> Iterator[tuple[Run, list[Run]]]:
    """Each run beside some finished other ones, several times."""
    rng = np.random.default_rng(0)
    finished = [run for run in runs if run.success is not False]
    for run in runs:
        for _ in range(DRAWS):
            others = [finished[k] for k in rng.permutation(len(finished)) if finished[k] is not run]
            if others:
                yield run, others[: min(count, num_shown(runs))]


def num_shown(runs: Sequence[Run]) -> int:
    """Of a set with few finished runs fewer are shown."""
    return max(1, min(REFERENCES, sum(run.success is not False for run in runs) - 1))


def followed(run: Run, others: Sequence[Run], lag_s: float) -> list[Where]:
    following = Following(Guide.of([other.shown for other in others]), round(lag_s * live.HZ))
    opened = [None] * len(run.times_s) if run.shown.openings is None else run.shown.openings
    moments = zip(run.times_s.tolist(), zip(*run.shown.pictures, strict=True), opened, strict=True)
    return [following.see(pictures, time_s, openings) for time_s, pictures, openings in moments]


def measured(runs: Sequence[Run], lag_s: float = 0.0, count: int = REFERENCES) -> dict[str, float]:
    """Means over runs and draws."""
    found: dict[str, list[float]] = {}
    for run, others in drawn(runs, count):
        places = followed(run, others, lag_s)
        true = np.interp([w.about_s for w in places], run.times_s, run.shown.progress)
        clock = np.clip(run.times_s / np.mean([other.shown.seconds for other in others]), 0, 1)
        told = told_at(places)
        values = {
            "error": np.mean(
                [abs(w.progress - t) for w, t in zip(places, true, strict=True) if not w.is_strange] or [1.0]
            ),
            "clock": np.abs(clock - run.shown.progress).mean(),
            "strange": np.mean([w.is_strange for w in places]),
        }
        if run.success is False:
            values["failed_told"] = told is not None
        else:
            values["told"] = told is not None
            if told is not None:
                values["early"] = np.interp(told, run.times_s, run.shown.progress) < NEAR_END
        for name, value in values.items():
            found.setdefault(name, []).append(float(value))
    return {name: float(np.mean(values)) for name, values in found.items()}


def told_at(places: Sequence[Where]) -> float | None:
    """The second of which success is said first."""
    since = None
    for w in places:
        is_at_end = not w.is_strange and w.spread <= MOST_SPREAD and w.at_end >= SURE_END
        since = (w.about_s if since is None else since) if is_at_end else None
        if since is not None and w.about_s - since >= HOLD_S:
            return w.about_s
    return None


def chosen_elsewhere(errors: Mapping[tuple[float, ...], Mapping[str, float]], robot: str) -> dict[str, float]:
    """The values, in the order of CHOICES, that are best together on all robots but one."""
    others = [name for name in next(iter(errors.values())) if robot_of(name) != robot]
    best = min(errors, key=lambda values: np.mean([errors[values][s] for s in others]))
    return dict(zip(CHOICES, best, strict=True))


def with_values(values: Mapping[str, float], runs: Sequence[Run], *of: Any) -> dict[str, float]:
    before = {name: getattr(live, name) for name in values}
    try:
        for name, value in values.items():
            setattr(live, name, value)
        return measured(runs, *of)
    finally:
        for name, value in before.items():
            setattr(live, name, value)


def rows_of(sets: Mapping[str, Sequence[Run]]) -> list[list[str]]:
    errors = {
        values: {s: with_values(dict(zip(CHOICES, values, strict=True)), runs)["error"] for s, runs in sets.items()}
        for values in product(*CHOICES.values())
    }
    rows = []
    for name, runs in sets.items():
        values = chosen_elsewhere(errors, robot_of(name))
        blind = [replace(run, shown=replace(run.shown, openings=None)) for run in runs]
        now, later, one = (with_values(values, runs, *of) for of in ((0.0,), (LAG_S,), (0.0, 1)))
        unseen = with_values(values, blind)
        shares: dict[str, Any] = {
            k: f"{now[k]:.0%}" if k in now else "–" for k in ("told", "early", "failed_told", "strange")
        }
        numbers = [f"{now['clock']:.3f}", *(f"{m['error']:.3f}" for m in (now, unseen, one, later))]
        rows.append([f"`{name}`", str(len(runs)), str(num_shown(runs)), *numbers, *shares.values()])
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="where the hand-labelled datasets lie")
    parser.add_argument("--truth", type=Path, default=TRUTH, help="what people said of them")
    parser.add_argument("--dataset", nargs="+", help="only these")
    parser.add_argument("--workspace", type=Path, help="keep what is built in this folder")
    parser.add_argument("--page", action="store_true", help="write the table of docs/rewards.md, too")
    asked = parser.parse_args()
    names = asked.dataset or sorted(f.name for f in asked.truth.iterdir() if (asked.data / f.name).is_dir())
    with trial_workspace(asked.workspace) as space:
        sets = {name: runs_of(space, asked.data, asked.truth, name) for name in names}
    sets = {name: runs for name, runs in sets.items() if any(drawn(runs))}
    head = ["set", "runs", "shown", "clock", "error", "pictures alone", "one shown", "lag 1 s"]
    head += ["told success", "too early", "failed told", "unlike all"]
    text = table_text(head, rows_of(sets))
    print(text)
    if asked.page:
        begin, end = "<!-- made by `python -m benchmarks.live_reward` -->", "<!-- end -->"
        page = PAGE.read_text()
        PAGE.write_text(f"{page.split(begin)[0]}{begin}\n\n{text}\n{end}{page.split(end)[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

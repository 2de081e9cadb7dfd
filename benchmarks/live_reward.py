"""Live rewards by shown runs, on robots that nothing was chosen on: the table of docs/rewards.md.

    python -m benchmarks.live_reward [--data FOLDER] [--workspace W] [--dataset NAME ...]

Each hand-labelled run is laid beside three other finished ones of its set (of a small set as many as there are; drawn
several times), picture by picture, as `proccorpus reward --like` does it, without training: with the robot's grippers,
where it has any, and by pictures alone.
Beside it stands a running clock: time over the mean length of the shown runs. Every constant of `CHOICES` is chosen on
all other robots, which count alike; one of them is simulated, and many of its runs fail. The model `laptop` is
trained on all other robots' runs. Prints a Markdown table and writes it between the markers of the page with --page.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from annotate.alignment import live
from annotate.alignment.live import Following, Guide, ReferenceRun, Where
from annotate.config import EmbeddingsConfig
from annotate.embeddings.encoders import load_encoder
from benchmarks.harness import build, table_text, trial_workspace, write_tables
from benchmarks.label_truth import TRUTH, hand_labelled, names, robot_of
from core.paths import ROOT, Workspace
from eval.annotators.truth import corpus_truth
from eval.reward.reference_scorer import HOLD_S, MOST_SPREAD, FollowedRun
from pipeline.episode_rewards import episode_clip
from pipeline.reference_runs import openings_at, pictures_of
from training.laptop.fit import ClipSource, EncodedPictures, fitted_model, learn_step
from training.laptop.model import SeenWindow, read_windows
from training.recipe import load_recipe
from warehouse.lake import Lake
from warehouse.lake.stored import stored_signals

PAGE = ROOT / "docs" / "rewards.md"
SAMPLES = ROOT / "samples"
CHOICES: Mapping[str, Sequence[float]] = {"DISTANCE": (3.0, 5.0, 8.0), "TEMPO": (4.0, 8.0, 12.0)}
DRAWS = 3
REFERENCES = 3
SOME = 6  # runs of another robot that are looked at
LAG_S = 1.0
WINDOW, WINDOW_S = 4, 0.4  # pictures that a laptop model sees, and seconds between them
NEAR_END = 0.9  # of the true way: a success that is told before is too early


@dataclass(frozen=True)
class Run:
    """One run as it would be shown to others of its task, with its true progress; `success`: None where nobody can
    say."""

    task: str
    reference: ReferenceRun
    times_s: np.ndarray
    success: bool | None


def runs_of(space: Workspace, data: Path, truth: Path, name: str) -> list[Run]:
    """The hand-labelled runs of a set by all cameras that all of them have."""
    build(space, data / name, name)
    lake = Lake(space, read_only=True)
    truths = corpus_truth(lake, truth, name)
    encoder = load_encoder(EmbeddingsConfig())
    runs = []
    query = (
        "SELECT episode_index, fps, cameras, task FROM episodes WHERE dataset = ? AND status = 'ok'"
    )
    rows = lake.rows(query, [name])
    rows = [row for row in sorted(rows) if row[0] in truths]
    grippers = [g for g in stored_signals(lake.con, name) if g.is_used]
    common_cameras = set.intersection(*(set(cameras) for _, _, cameras, _ in rows))
    cameras = [camera for camera in rows[0][2] if camera in common_cameras]
    for episode, fps, _, task in rows:
        clip, _ = episode_clip(space, name, episode, cameras)
        frame_indices, pictures = pictures_of(clip, encoder)
        progress = truths[episode].progress()
        steps = np.full(len(frame_indices), -1)
        opened = openings_at(clip, frame_indices, grippers)
        shown_run = ReferenceRun(
            f"{name}/{episode}",
            pictures,
            progress[frame_indices],
            steps,
            (),
            len(progress) / fps,
            opened,
        )
        # People named one task in many ways
        task = name if truths[episode].curve is None else task
        runs.append(Run(task, shown_run, frame_indices / fps, truths[episode].success))
    lake.con.close()
    return runs


def drawn(runs: Sequence[Run], count: int = REFERENCES) -> Iterator[tuple[Run, list[Run]]]:
    """Each run beside some finished other ones, several times."""
    rng = np.random.default_rng(0)
    finished = [run for run in runs if run.success is not False]
    for run in runs:
        for _ in range(DRAWS):
            drawn = [finished[k] for k in rng.permutation(len(finished))]
            other_runs = [
                other_run
                for other_run in drawn
                if other_run is not run and other_run.task == run.task
            ]
            if other_runs:
                yield run, other_runs[: min(count, num_shown(runs))]


def num_shown(runs: Sequence[Run]) -> int:
    """Of a set with few finished runs fewer are shown."""
    return max(1, min(REFERENCES, sum(run.success is not False for run in runs) - 1))


def followed(run: Run, other_runs: Sequence[Run], lag_s: float) -> list[Where]:
    follower = Following(
        Guide.of([other_run.reference for other_run in other_runs]), round(lag_s * live.HZ)
    )
    opened = [None] * len(run.times_s) if run.reference.openings is None else run.reference.openings
    moments = zip(
        run.times_s.tolist(), zip(*run.reference.pictures, strict=True), opened, strict=True
    )
    return [follower.see(pictures, time_s, openings) for time_s, pictures, openings in moments]


def measured(runs: Sequence[Run], lag_s: float = 0.0, count: int = REFERENCES) -> dict[str, float]:
    """Means over runs and draws."""
    figures: dict[str, list[float]] = {}
    for run, other_runs in drawn(runs, count):
        places = followed(run, other_runs, lag_s)
        true = np.interp([w.about_s for w in places], run.times_s, run.reference.progress)
        clock = np.clip(
            run.times_s / np.mean([other_run.reference.seconds for other_run in other_runs]), 0, 1
        )
        stop_time = told_at(places)
        values = {
            "error": np.mean(
                [abs(w.progress - t) for w, t in zip(places, true, strict=True) if not w.is_strange]
                or [1.0]
            ),
            "clock": np.abs(clock - run.reference.progress).mean(),
            "unsure": unsure(places),
        }
        if run.success is False:
            values["failed_told"] = stop_time is not None
        else:
            values["told"] = stop_time is not None
            if stop_time is not None:
                values["early"] = (
                    np.interp(stop_time, run.times_s, run.reference.progress) < NEAR_END
                )
        for name, value in values.items():
            figures.setdefault(name, []).append(float(value))
    return {name: float(np.mean(values)) for name, values in figures.items()}


def told_at(places: Sequence[Where]) -> float | None:
    """The second of which success is said first."""
    run = FollowedRun(Following(Guide((), (), (), (1.0, 1.0), ())))
    return next((w.about_s for w in places if run.has_held(w, is_sure(w)) >= HOLD_S), None)


def is_sure(place: Where) -> bool:
    return not place.is_strange and place.spread <= MOST_SPREAD


def unsure(places: Sequence[Where]) -> float:
    return 1 - float(np.mean([is_sure(w) for w in places]))


def unsure_of_others(name: str, sets: Mapping[str, Sequence[Run]]) -> str:
    """Of the other robots' runs beside three of a set: the share of pictures that is unsure, the least of any set of as
    many cameras."""
    finished = [run for run in sets[name] if run.success is not False][:REFERENCES]
    cameras = len(finished[0].reference.pictures)
    shares = []
    for other_name, runs in sets.items():
        if robot_of(other_name) != robot_of(name) and len(runs[0].reference.pictures) == cameras:
            places = [
                followed(run, pictures_alone(finished), 0.0) for run in pictures_alone(runs[:SOME])
            ]
            shares.append(np.mean(list(map(unsure, places))))
    if shares:
        return f"{min(shares):.0%}"
    return "–"


def pictures_alone(runs: Sequence[Run]) -> list[Run]:
    return [replace(run, reference=replace(run.reference, openings=None)) for run in runs]


def chosen_elsewhere(
    errors: Mapping[tuple[float, ...], Mapping[str, float]], robot: str
) -> dict[str, float]:
    """The values, in the order of CHOICES, that are best together on all robots but one."""
    names = [name for name in next(iter(errors.values())) if robot_of(name) != robot]
    robots: dict[str, list[str]] = defaultdict(list)
    for name in names:
        robots[robot_of(name)].append(name)

    def error(values: tuple[float, ...]) -> float:
        means = []
        for of_one in robots.values():
            means.append(np.mean([errors[values][name] for name in of_one]))
        return float(np.mean(means))

    return dict(zip(CHOICES, min(errors, key=error), strict=True))


def laptop_error(name: str, sets: Mapping[str, Sequence[Run]]) -> float:
    """Of the recipe `laptop`, trained on the true progress of all other robots' runs, by the first camera."""
    recipe = load_recipe("laptop")
    config = recipe.model.laptop
    train = recipe.train
    assert config is not None
    assert train.steps is not None
    other_sets = (runs for n, runs in sets.items() if robot_of(n) != robot_of(name))
    other_runs = list(chain.from_iterable(other_sets))
    episodes = [
        EncodedPictures(
            ("", k),
            run.task,
            run.reference.pictures[0][None].astype(np.float16),
            np.arange(len(run.times_s)),
            run.reference.progress.astype(np.float32),
            WINDOW_S * live.HZ,
            WINDOW,
        )
        for k, run in enumerate(other_runs)
    ]
    torch.manual_seed(0)
    model = fitted_model(config, episodes, WINDOW).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=train.lr, weight_decay=train.weight_decay)
    source = ClipSource(episodes, WINDOW, recipe.data.negatives, 0)
    for step in range(train.steps):
        learn_step(model, optimizer, source, recipe, step, train.steps)
    model.eval()
    errors = []
    for run in sets[name]:
        pictures = run.reference.pictures[0]
        step = round(WINDOW_S * live.HZ)
        windows = [
            SeenWindow(run.task, list(pictures[k % step : k + 1 : step][-WINDOW:]), pictures[0])
            for k in range(len(pictures))
        ]
        progress = np.array([answer.progress for answer in read_windows(model, windows)])
        errors.append(np.abs(progress - run.reference.progress).mean())
    return float(np.mean(errors))


def with_values(
    values: Mapping[str, float], runs: Sequence[Run], *arguments: Any
) -> dict[str, float]:
    with ExitStack() as changed:
        for name, value in values.items():
            changed.enter_context(mock.patch.object(live, name, value))
        return measured(runs, *arguments)


def rows_of(sets: Mapping[str, Sequence[Run]]) -> list[list[str]]:
    errors: dict[tuple[float, ...], dict[str, float]] = {}
    for values in product(*CHOICES.values()):
        chosen = dict(zip(CHOICES, values, strict=True))
        errors[values] = {s: with_values(chosen, runs)["error"] for s, runs in sets.items()}
    rows = []
    for name, runs in sets.items():
        values = chosen_elsewhere(errors, robot_of(name))
        current, later, from_one = (
            with_values(values, runs, *arguments) for arguments in ((0.0,), (LAG_S,), (0.0, 1))
        )
        unseen = with_values(values, pictures_alone(runs))
        shares: dict[str, Any] = {
            k: f"{current[k]:.0%}" if k in current else "–"
            for k in ("told", "early", "failed_told", "unsure")
        }
        numbers = [
            f"{current['clock']:.3f}",
            *(f"{m['error']:.3f}" for m in (current, unseen, from_one, later)),
        ]
        last = unsure_of_others(name, sets)
        numbers.insert(1, f"{laptop_error(name, sets):.3f}")
        rows.append([f"`{name}`", str(num_shown(runs)), *numbers, *shares.values(), last])
    return rows


def main() -> None:
    args = hand_labelled(__doc__, page=False)
    with trial_workspace(args.workspace) as space:
        sets = {name: runs_of(space, args.data, TRUTH, name) for name in names(args)}
        sets["sim_short"] = runs_of(space, SAMPLES, SAMPLES / "truth", "sim_short")
    sets = {name: runs for name, runs in sets.items() if any(drawn(runs))}
    head = ["set", "shown", "clock", "`laptop`", "error", "pictures alone", "one shown", "lag 1 s"]
    head += ["told success", "too early", "failed told", "unsure", "of other robots"]
    text = table_text(head, rows_of(sets))
    print(text)
    if args.page:
        write_tables(PAGE, {"made": text})


if __name__ == "__main__":
    main()

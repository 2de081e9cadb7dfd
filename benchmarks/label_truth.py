"""How true labels are on robots that nothing was chosen on: the tables of docs/truth.md.

    python -m benchmarks.label_truth [--data FOLDER] [--dataset NAME ...] [--sets samples ...] [--workspace W] [--page]

Hand-labelled sets (benchmarks/real_truth; their pictures and signals in FOLDER, see benchmarks/real_truth/fetch.py) are
built by the product's own command, and labelled without their outcomes. Every constant that decides a label is in
`CHOICES`, with other values that it could have. For each robot the values that are best on all *other* robots are
chosen, and the robot is labelled by these: that is the figure which the page quotes. Simulated sets (what
samples/make_samples.py writes) are labelled with and without their outcomes.

Error of progress: mean absolute difference to equal budgets of people's steps, or to what the simulator knows. Prints
Markdown, writes docs/data/truth.json (--json FILE), with --page also docs/truth.md. --workspace keeps what is built.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, pairwise, starmap
from operator import itemgetter
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

import annotate.alignment.engine as engine
import annotate.motion.annotator as motion
import annotate.motion.observe as observe
import annotate.motion.structure as structure
from annotate.config import MOTION_VERSION, TRANSFER_VERSION, MotionConfig, TransferConfig
from annotate.motion.observe import Signals
from annotate.transfer import Reference, Transferred
from annotate.transfer import annotate as transfer
from benchmarks.harness import (
    SHARED,
    build,
    json_number,
    options,
    table_text,
    trial_workspace,
    write_json,
    write_tables,
)
from core.domain.label import DONE, IDLE, STEP, Label, Segment
from core.paths import ROOT, Workspace
from eval.annotators.scoring import cuts_f1, even_cuts
from eval.annotators.truth import NEAR_S, EpisodeTruth, corpus_truth, load_truth
from pipeline.reading import by_task, chunk_signals, task_signals
from warehouse.lake import Lake

TRUTH = ROOT / "benchmarks" / "real_truth"
FIGURES = ROOT / "docs" / "data" / "truth.json"
PAGE = ROOT / "docs" / "truth.md"
ROBOT = {"cr5_banana": "cr5", "cr5_flash_drive": "cr5"}  # every other set is of a robot of its own
BINS = (0.0, 0.2, 0.35, 0.5, 0.8, 1.01)
GOOD = 0.1  # of progress: a label that is nearer to the truth on average is good
SHOWN_FROM = 0.001  # change of the mean error: the page lists the choices of which another value makes as much

# Every number that decides a label, and what else it could be
CHOICES: Mapping[str, tuple[ModuleType | None, str, Sequence[Any]]] = {
    "window of the moving averages, s": (None, "smooth_s", (0.05, 0.3)),
    "pauses below this share of the fast speed": (None, "pause_speed", (0.001, 0.03, 0.12)),
    "rests below this share of the fast speed": (None, "end_speed", (0.07, 0.3)),
    "shortest pause, s": (None, "idle_min_s", (0.35, 1.4)),
    "shortest rest at the start, s": (None, "start_min_s", (0.25, 1.0)),
    "shortest rest at the end, s": (None, "end_min_s", (0.12, 0.5)),
    "smallest gripper event": (None, "gripper_swing", (0.15, 0.5)),
    "shortest grasp that is a step, s": (None, "step_min_s", (0.01, 1.6, 9.0)),
    "speed that is fast, percentile": (observe, "FAST_PERCENTILE", (75, 98)),
    "stirring that is none, s": (observe, "LEAST_S", (0.15, 0.6)),
    "an arm has set out after this share of its way": (observe, "STARTED", (0.0, 0.1)),
    "and after this time, s": (observe, "STARTED_S", (0.0, 1.0)),
    "a gripper moves above this share of its speed": (observe, "MOVING_SHARE", (0.1, 0.5)),
    "hands that close together, s": (observe, "TOGETHER_S", (0.0, 1.5)),
    "comes down from": (structure, "OVER_GOAL", (0.7, 1.0)),
    "episodes agree within": (structure, "AGREES", (0.1, 0.4)),
    "fewest episodes that show what is usual": (structure, "MIN_EPISODES", (2, 5, 99)),
    "an arm turns for its last way by this share": (motion, "TURN", (0.05, 0.2)),
    "a way home leads back to this share": (motion, "HOME", (0.0, 0.4, 0.9)),
    "most episodes that vote": (motion, "MOST_VOTERS", (5,)),
    "complete from": (motion, "COMPLETE", (0.0, 0.8, 2.0)),
    "to stay, in units of passing over": (engine, "STAY", (0.1, 1.0)),
    "a usual distance, likewise": (engine, "DISTANCE", (0.8, 3.0)),
    "flatness of the references' weights": (engine, "FLATNESS", (0.1, 1.0, 9.0)),
    "moments a second": (engine, "HZ", (2.5,)),
    "openings that are the same": (engine, "OPENING", (0.1, 0.5)),
    "references that show what is followed": (engine, "FOLLOWS", (1, 4)),
    "share of moments that is usual": (engine, "USUAL_SHARE", (0.9, 0.97, 1.0)),
}
Values = Mapping[str, Any]  # of CHOICES, by their names


@dataclass(frozen=True)
class Known:
    """One episode, without its outcome, and what is true of it. kind: of a simulated one, what its policy does."""

    signals: Signals
    success: bool | None
    progress: np.ndarray
    boundaries: tuple[int, ...]
    segments: tuple[Segment, ...]
    passes_apart: float
    kind: str = ""

    def error(self, curve: np.ndarray) -> float:
        return float(np.abs(np.asarray(curve, np.float64) - self.progress).mean())

    def f1(self, segments: Sequence[Segment]) -> float:
        return cuts_f1(
            [s.start_frame for s in segments[1:]], self.boundaries, NEAR_S * self.signals.fps
        )

    @property
    def uniform_f1(self) -> float:
        cuts = even_cuts(len(self.boundaries), len(self.signals))
        return cuts_f1(cuts, self.boundaries, NEAR_S * self.signals.fps)


# The sets


def true_runs(
    space: Workspace, source: Path, truth: Path, dataset: str
) -> list[tuple[Signals, EpisodeTruth]]:
    """The runs of a set with a known truth, without outcomes; the set is built."""
    build(space, source, dataset)
    lake = Lake(space, read_only=True)
    truths = corpus_truth(lake, truth, dataset)
    signals = signals_without_outcomes(lake, dataset)
    lake.con.close()
    return [(s, truths[s.episode_index]) for s in signals if s.episode_index in truths]


def real_sets(
    space: Workspace, data: Path, truth: Path, names: Sequence[str]
) -> dict[str, list[Known]]:
    return {
        name: list(starmap(_of_person, true_runs(space, data / name, truth, name)))
        for name in names
    }


def signals_without_outcomes(lake: Lake, dataset: str) -> list[Signals]:
    """The usable episodes of a dataset as annotators are given them; outcomes are left out."""
    chunks = lake.rows("SELECT DISTINCT chunk FROM frames WHERE dataset = ? ORDER BY 1", [dataset])
    of_chunks = (chunk_signals(lake, dataset, chunk) for (chunk,) in chunks)
    episodes = list(chain.from_iterable(of_chunks))
    signals = chain.from_iterable(map(task_signals, by_task(episodes).values()))
    return [
        replace(episode_signals, success=None)
        for episode_signals in sorted(signals, key=lambda s: s.episode_index)
    ]


def _of_person(signals: Signals, truth: EpisodeTruth) -> Known:
    curves = truth.pass_curves()
    if len(curves) > 1:
        pass_difference = float(np.abs(curves[0] - curves[1]).mean())
    else:
        pass_difference = float("nan")
    return Known(
        signals, truth.success, truth.progress(), truth.boundaries, truth.passes[0], pass_difference
    )


def simulated_set(space: Workspace, folder: Path, dataset: str) -> list[Known]:
    policies = load_truth(folder / "truth", dataset)
    assert policies, f"no truth of {dataset} in {folder}"
    runs = true_runs(space, folder / dataset, folder / "truth", dataset)
    return [replace(_of_person(s, t), kind=policies[s.episode_index]["policy"]) for s, t in runs]


# Labels under other values


@contextmanager
def chosen(values: Values) -> Iterator[MotionConfig]:
    """The annotators with other values of CHOICES."""
    config: dict[str, Any] = {}
    with ExitStack() as changed:
        for name, value in values.items():
            module, attribute, _ = CHOICES[name]
            if module is None:
                config[attribute] = value
                continue
            # Whoever has imported it by its name has it, too
            for owner in [
                m
                for n, m in sys.modules.items()
                if n.startswith("annotate.") and hasattr(m, attribute)
            ]:
                changed.enter_context(mock.patch.object(owner, attribute, value))
        yield MotionConfig(**{**MotionConfig().model_dump(), **config})


def motion_error(episodes: Sequence[Known], values: Values) -> float:
    with chosen(values) as config:
        labels = motion.annotate([episode.signals for episode in episodes], config)
    return float(
        np.mean(
            [episode.error(label.progress) for episode, label in zip(episodes, labels, strict=True)]
        )
    )


def errors_of_values(
    sets: Mapping[str, Sequence[Known]],
) -> dict[tuple[str, Any], dict[str, float]]:
    """By (choice, value) the error of each set, all other choices as they are; ("", None): nothing is changed."""
    tried: list[tuple[str, Any]] = [("", None)]
    for name, (_, _, other_values) in CHOICES.items():
        tried += [(name, value) for value in other_values]
    errors: dict[tuple[str, Any], dict[str, float]] = {}
    for name, value in tried:
        values = {name: value} if name else {}
        errors[name, value] = {s: motion_error(episodes, values) for s, episodes in sets.items()}
    return errors


def best_elsewhere(
    errors: Mapping[tuple[str, Any], Mapping[str, float]], robot: str
) -> dict[str, Any]:
    """The values that are best on all robots but one, each with all others as they are; those of the code left out."""
    other_sets = [name for name in errors["", None] if robot_of(name) != robot]

    def mean(name: str, value: Any) -> float:
        return float(np.mean([errors[name, value][s] for s in other_sets]))

    best = {}
    for name, (_, _, values) in CHOICES.items():
        value = min(values, key=lambda v: mean(name, v))
        if mean(name, value) < mean("", None) - 1e-4:
            best[name] = value
    return best


def robot_of(dataset: str) -> str:
    return ROBOT.get(dataset, dataset)


# Tables


def real_rows(
    sets: Mapping[str, Sequence[Known]], errors: Mapping[tuple[str, Any], Mapping[str, float]]
) -> list[dict]:
    rows = []
    for name, episodes in sets.items():
        values = best_elsewhere(errors, robot_of(name))
        labels = motion.annotate([episode.signals for episode in episodes], MotionConfig())
        row: dict[str, Any] = {
            "set": name,
            "episodes": len(episodes),
            "passes_apart": mean_of(
                k.passes_apart for k in episodes if not np.isnan(k.passes_apart)
            ),
            "clock": np.mean([k.error(np.linspace(0, 1, len(k.signals))) for k in episodes]),
            "one_step": np.mean(
                [k.error(observe.observe(k.signals, MotionConfig()).moving_share) for k in episodes]
            ),
            "left_out": motion_error(episodes, values),
            "as_it_is": errors["", None][name],
            "f1": np.mean(
                [k.f1(label.segments) for k, label in zip(episodes, labels, strict=True)]
            ),
            "uniform_f1": np.mean([k.uniform_f1 for k in episodes]),
            "confidence": mean_of(_sure(label.confidence) for label in labels),
            "other_values": values,
        }
        for count in (1, 3):
            labelled_runs = [(k, t.label) for k, t in transferred(episodes, count) if t.label]
            row[f"shown_{count}"] = mean_of(k.error(label.progress) for k, label in labelled_runs)
            row[f"shown_{count}_f1"] = mean_of(k.f1(label.segments) for k, label in labelled_runs)
        rows.append(row)
    return rows


def transferred(
    episodes: Sequence[Known], count: int, draws: int = 10
) -> Iterator[tuple[Known, Transferred]]:
    """Episodes labelled by `count` finished ones that a person labelled, drawn several times."""
    finished = [k for k in episodes if k.success is not False]
    if len(finished) <= count:
        return
    rng = np.random.default_rng(0)
    draws_of_runs = [[k] for k in range(len(finished))]
    if count > 1:
        draws_of_runs = [rng.permutation(len(finished))[:count].tolist() for _ in range(draws)]
    for drawn in draws_of_runs:
        shown_episodes = [finished[k] for k in drawn]
        references = [_reference(episode) for episode in shown_episodes]
        shown_ids = set(map(id, shown_episodes))
        other_episodes = [episode for episode in episodes if id(episode) not in shown_ids]
        transfers = transfer(
            [episode.signals for episode in other_episodes],
            references,
            TransferConfig(),
            MotionConfig(),
        )
        yield from zip(other_episodes, transfers, strict=True)


def _reference(known_episode: Known) -> Reference:
    """What a person says of an episode."""
    segments = finished_label(known_episode)
    num_steps = 1 + max(s.step or 0 for s in segments)
    plan = tuple(f"step {number}" for number in range(num_steps))
    label = Label(segments, len(plan), plan, known_episode.progress)
    return known_episode.signals, label


def finished_label(known_episode: Known) -> list[Segment]:
    """What a person says of an episode, its steps numbered in order; nothing is earned on the way home."""
    steps = [s.name if s.step is None else s.step for s in known_episode.segments if s.kind == STEP]
    numbers = {step: number for number, step in enumerate(dict.fromkeys(steps))}
    return [
        replace(s, step=numbers[s.name if s.step is None else s.step])
        if s.kind == STEP
        else replace(s, kind=s.kind if s.kind == IDLE else DONE, step=None)
        for s in known_episode.segments
    ]


def simulated_rows(folder: Path, space: Workspace) -> list[dict]:
    rows = []
    for dataset in sorted(f.name for f in (folder / "truth").iterdir() if f.is_dir()):
        episodes = simulated_set(space, folder, dataset)
        errors_by_kind: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for way, outcome in (("left out", lambda _: None), ("in the source", lambda k: k.success)):
            labels = motion.annotate(
                [replace(k.signals, success=outcome(k)) for k in episodes], MotionConfig()
            )
            for episode, label in zip(episodes, labels, strict=True):
                errors_by_kind[episode.kind][way].append(episode.error(label.progress))
        for episode in episodes:
            errors_by_kind[episode.kind]["clock"].append(
                episode.error(np.linspace(0, 1, len(episode.signals)))
            )
        for kind, errors_by_way in sorted(errors_by_kind.items()):
            count = len(errors_by_way["clock"])
            row = {"set": f"{folder.name} {dataset}", "kind": kind, "episodes": count}
            rows.append(row | {way: float(np.mean(e)) for way, e in errors_by_way.items()})
    return rows


def reliability(sets: Mapping[str, Sequence[Known]]) -> list[dict]:
    """How good labels are, by their confidence: of motion, and of those shown one episode."""
    confidence_errors: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for episodes in sets.values():
        labels = motion.annotate([episode.signals for episode in episodes], MotionConfig())
        shown_labels = [(k, t.label) for k, t in transferred(episodes, 1) if t.label]
        for way, labelled in (
            ("motion", zip(episodes, labels, strict=True)),
            ("one shown", shown_labels),
        ):
            confidence_errors[way] += [
                (_sure(label.confidence), k.error(label.progress)) for k, label in labelled
            ]
    rows = []
    for way, pairs in confidence_errors.items():
        for low, high in pairwise(BINS):
            errors = np.array([error for confidence, error in pairs if low <= confidence < high])
            if len(errors):
                row = {"labels": way, "from": low, "to": min(high, 1.0), "episodes": len(errors)}
                rows.append(
                    row | {"error": float(errors.mean()), "good": float((errors <= GOOD).mean())}
                )
    return rows


def mean_of(values: Iterable[float]) -> float:
    """NaN without any."""
    values_list = list(values)
    if values_list:
        return float(np.mean(values_list))
    return float("nan")


def _sure(confidence: float | None) -> float:
    assert confidence is not None, "annotators here state a confidence"
    return confidence


def ablation_rows(errors: Mapping[tuple[str, Any], Mapping[str, float]]) -> list[dict]:
    """Each choice: its value, and what the mean over all sets becomes with others."""
    current_error = float(np.mean(list(errors["", None].values())))
    rows = []
    for name, (module, attribute, values) in CHOICES.items():
        value = getattr(MotionConfig() if module is None else module, attribute)
        differences = {
            str(v): float(np.mean(list(errors[name, v].values()))) - current_error for v in values
        }
        worse = 0
        for s, error in errors["", None].items():
            worse += min(errors[name, v][s] for v in values) < error - 1e-3
        rows.append(
            {
                "choice": name,
                "value": value,
                "others": differences,
                "sets_that_prefer_another": worse,
            }
        )
    return rows


# The page


def counts(choice: Mapping[str, Any]) -> bool:
    """Is the row of a choice shown: does another value change the mean error, or do two sets prefer another?"""
    largest = max(abs(round(difference, 4)) for difference in choice["others"].values())
    return largest >= SHOWN_FROM or choice["sets_that_prefer_another"] > 1


def tables_of(data: Mapping[str, Any]) -> dict[str, str]:
    def f(value: float | None) -> str:
        if value is None or np.isnan(value):
            return "–"
        return f"{value:.3f}"

    def better(value: float, than: float) -> str:
        if value <= than:
            return f(value)
        return f"**{f(value)}**"

    real = [
        [
            f"`{r['set']}`",
            str(r["episodes"]),
            f(r["passes_apart"]),
            f(r["clock"]),
            f(r["one_step"]),
            better(r["left_out"], r["clock"]),
            f"{r['f1']:.2f}; {r['uniform_f1']:.2f}",
            f(r["shown_1"]),
            f(r["shown_3"]),
            f(r["shown_1_f1"]),
        ]
        for r in data["real"]
    ]
    columns = ("clock", "one_step", "left_out")
    means = [f(mean_of(map(itemgetter(column), data["real"]))) for column in columns]
    real.append(["mean", "", "", *means, "", "", "", ""])
    head = [
        "set",
        "episodes",
        "two people apart",
        "clock",
        "one step",
        "motion, chosen on the other robots",
    ]
    head += [
        "boundaries within 0.5 s (F1); uniform cuts",
        "one shown",
        "three shown",
        "F1, one shown",
    ]
    ablation = []
    for r in filter(counts, data["ablation"]):
        difference_text = ", ".join(
            f"{value}: {difference:+.4f}" for value, difference in r["others"].items()
        )
        ablation.append(
            [r["choice"], str(r["value"]), difference_text, str(r["sets_that_prefer_another"])]
        )
    simulated = [
        [
            f"`{r['set']}`",
            r["kind"],
            str(r["episodes"]),
            f(r["clock"]),
            better(r["left out"], r["clock"]),
            better(r["in the source"], r["clock"]),
        ]
        for r in data["simulated"]
    ]
    reliability_table = [
        [
            r["labels"],
            f"{r['from']:.2f} to {r['to']:.2f}",
            str(r["episodes"]),
            f(r["error"]),
            f"{r['good']:.0%}",
        ]
        for r in data["reliability"]
    ]
    heads = {
        "ablation": [
            "choice",
            "value",
            "error with another, less that with it",
            "sets that prefer another",
        ],
        "simulated": [
            "set",
            "policy",
            "episodes",
            "clock",
            "outcomes left out",
            "outcomes in the source",
        ],
        "reliability": ["labels", "confidence", "episodes", "error", "within 0.1"],
    }
    bodies = {"ablation": ablation, "simulated": simulated, "reliability": reliability_table}
    return {"real": table_text(head, real)} | {
        name: table_text(heads[name], rows) for name, rows in bodies.items()
    }


def plain(value: Any) -> Any:
    """Numbers as JSON keeps them."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return json_number(float(value))
    return value


def hand_labelled(doc: str | None, **defaults: Any) -> argparse.Namespace:
    """Of a script on the hand-labelled sets; `names` says which it asks for."""
    return options(doc, data=SHARED / "data", dataset=(), workspace=None, **defaults)


def names(args: argparse.Namespace) -> list[str]:
    return args.dataset or sorted(f.name for f in TRUTH.iterdir() if (args.data / f.name).is_dir())


def main() -> None:
    samples = (str(ROOT / "samples"),)
    args = hand_labelled(__doc__, sets=samples, json=FIGURES, page=False)
    with trial_workspace(args.workspace) as space:
        sets = real_sets(space, args.data, TRUTH, names(args))
        simulated = []
        for folder in map(Path, args.sets):
            simulated += simulated_rows(folder, Workspace(space.root / folder.resolve().name))
    errors = errors_of_values(sets)
    data = plain(
        {
            "motion": MOTION_VERSION,
            "transfer": TRANSFER_VERSION,
            "real": real_rows(sets, errors),
            "ablation": ablation_rows(errors),
            "reliability": reliability(sets),
            "simulated": simulated,
        }
    )
    write_json(args.json, data)
    tables = tables_of(data)
    for name, text in tables.items():
        print(f"## {name}\n\n{text}")
    if args.page:
        write_tables(PAGE, tables)


if __name__ == "__main__":
    main()

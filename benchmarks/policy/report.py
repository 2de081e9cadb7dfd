"""What came out: success by arm with intervals, best of several runs, and the tables of docs/policy.md.

Intervals are of a bootstrap over seeds and start states within each task; tasks are what they are.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import table
from benchmarks.policy.protocol import ARMS, BASELINE, CODE_VERSION, GROUPS, QUALITIES, Protocol
from benchmarks.policy.rollouts import chosen

RESAMPLES = 4000
# Whose weights are shown by how the runs went
WEIGHED = ("labels", "segments", "awr", "weights", "truth")
Interval = tuple[float, float, float]  # the figure and the ends of its 95 %, to four digits
CHOICES = {
    "chance": "any of them",
    "progress": "the live reward: progress",
    "done": "the live reward: probability of the end state",
    "own": "Meta-World's own reward",
    "success": "did it succeed? (sparse)",
}
LEARNT_FROM = {
    "before": "nothing: as it is",
    "live": "the live reward: progress",
    "own": "Meta-World's own reward",
    "sparse": "did it succeed? (sparse)",
}


def report(folder: Path, protocol: Protocol) -> dict[str, Any]:
    """All figures of a finished folder, as docs/data/policy.json has them."""
    figures = of_arms(folder, protocol, list(ARMS), list(GROUPS))
    best_of = {
        task: _best_of(_read(folder / "best_of" / f"{task}.json"))
        for task in protocol.best_of.tasks
    }
    return figures | {"best_of": best_of, "learned": learned(folder, protocol)}


def report_by_labels(folder: Path, protocol: Protocol, former: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a folder without what needs a model, whose rows are those of `former` figures; `former` among the
    code versions says which those are."""
    groups = [group for group in GROUPS if group != "rewarded"]
    arms = [arm for arm in ARMS if arm not in GROUPS["rewarded"]]
    figures = of_arms(folder, protocol, arms, groups)
    figures["code_versions"]["former"] = former["code_versions"] | {
        "arms": list(GROUPS["rewarded"])
    }
    extended_keys = {
        "success",
        "by_seed",
        "weight_by_quality",
        "above_nothing",
        "above_successes",
        "above_labels",
    }
    merged = dict(former) | figures | {key: former[key] | figures[key] for key in extended_keys}
    merged["by_task"] = {
        task: former["by_task"][task] | rows for task, rows in figures["by_task"].items()
    }
    return merged


def of_arms(
    folder: Path, protocol: Protocol, arms: Sequence[str], groups: Sequence[str]
) -> dict[str, Any]:
    """Success of some arms, and the weights of some groups of arms."""
    success: dict[str, np.ndarray] = {}
    for arm in arms:
        files = [folder / "rollouts" / t / f"{arm}.json" for t in protocol.tasks]
        success[arm] = np.array([_read(file)["success"] for file in files], bool)
    by_task: dict[str, dict[str, float]] = {}
    for k, task in enumerate(protocol.tasks):
        by_task[task] = {a: round(float(values[k].mean()), 4) for a, values in success.items()}
    weight_by_quality: dict[str, Any] = {}
    for group in groups:
        weight_by_quality |= _read(folder / "weights" / f"{group}.json")
    compared = [
        arm
        for arm in (BASELINE, "successes", "labels", "weights", "laptop_unseen")
        if arm in success
    ]
    return {
        "code_versions": {"policy": CODE_VERSION} | _read(folder / "code_versions.json"),
        "protocol": _read(folder / "protocol.json"),
        "success": rates(success),
        **{f"above_{than}": differences(success, than) for than in compared},
        "by_task": by_task,
        "by_seed": {arm: values.mean((0, 2)).round(4).tolist() for arm, values in success.items()},
        "weight_by_quality": weight_by_quality,
    }


def learned(folder: Path, protocol: Protocol) -> dict[str, Any]:
    """Success after reinforcement learning by what was learnt from, by task and over all tasks, with how far each is
    above the sparse reward; and of the runs while it learnt, by iteration."""
    plan = protocol.learning
    places = list(product(plan.tasks, plan.seeds))
    records = [_read(folder / "learned" / t / f"{s}.json") for t, s in places]

    def by_task_and_seed(values: list) -> np.ndarray:
        """Of each run's record a value, [tasks, seeds, ...]."""
        return np.array(values).reshape(len(plan.tasks), len(plan.seeds), *np.shape(values[0]))

    success = {"before": by_task_and_seed([record["before"] for record in records])}
    course: dict[str, list[float]] = {}
    for reward in [name for name in LEARNT_FROM if name != "before"]:
        success[reward] = by_task_and_seed([record[reward]["after"] for record in records])
        of_runs = by_task_and_seed([record[reward]["while"] for record in records])
        course[reward] = of_runs.mean((0, 1, 3)).round(4).tolist()
    success = {name: success[name] for name in LEARNT_FROM}
    learnt_rates: dict[str, Any] = {}
    for k, task in enumerate(plan.tasks):
        learnt_rates[task] = rates({reward: v[None, k] for reward, v in success.items()})
    learnt_rates |= {"all": rates(success), "above_sparse": differences(success, "sparse")}
    return learnt_rates | {"while": course}


def _best_of(run_records: Mapping[str, Any]) -> dict[str, Interval]:
    """Success of the chosen run, by what chooses, with the interval of a bootstrap over start states."""
    success = np.array(run_records["success"], bool)
    said_by = {
        name: np.array(run_records[name], np.float64)
        for name in ("progress", "done", "own", "success")
    }
    picked = {name: chosen(success, values) for name, values in said_by.items()}
    picked["chance"] = np.asarray(success.mean(1))
    return rates({name: picked[name][None, None] for name in CHOICES})


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def print_tables(figures: Mapping[str, Any]) -> None:
    tasks = list(figures["by_task"])
    head = ["weights", "success, %", f"above {BASELINE}, points", *tasks]
    table(head, [_arm_row(figures, arm, tasks) for arm in ARMS if arm in figures["success"]])
    by_quality = figures["weight_by_quality"]
    weighed = [arm for arm in ARMS if arm in WEIGHED]
    rows = []
    for arm in weighed:
        rows.append([ARMS[arm], *(f"{by_quality[arm][q]:.2f}" for q in QUALITIES)])
    table(["weights", *QUALITIES], rows)
    chosen = figures["best_of"]
    table(["chosen by", *chosen], _percent_rows(CHOICES, list(chosen.values())))
    learnt = figures["learned"]
    tasks = [name for name in learnt if name not in ("all", "above_sparse", "while")]
    sources = [learnt[source] for source in (*tasks, "all")]
    table(["learnt from", *tasks, "both"], _percent_rows(LEARNT_FROM, sources))


def _percent_rows(
    texts: Mapping[str, str], columns: Sequence[Mapping[str, Interval]]
) -> list[list[str]]:
    """A row of percentages for each text."""
    rows = []
    for name, text in texts.items():
        rows.append([text, *(_percent(column[name]) for column in columns)])
    return rows


def _above(three: Sequence[float] | None) -> str:
    if three:
        return _percent(three, sign="+")
    return "–"


def _arm_row(figures: Mapping[str, Any], arm: str, tasks: Sequence[str]) -> list[str]:
    above = figures["above_nothing"].get(arm)
    by_task = [f"{100 * figures['by_task'][task][arm]:.0f}" for task in tasks]
    return [ARMS[arm], _percent(figures["success"][arm]), _above(above), *by_task]


def _percent(three: Sequence[float], sign: str = "") -> str:
    return "{:{s}.1f} ({:{s}.1f} to {:{s}.1f})".format(*(100 * v for v in three), s=sign)


def rates(success: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    """Of each arm, with `success` bool [tasks, seeds, starts] of each: the mean over tasks of the rate."""
    return {arm: _interval(drawn) for arm, drawn in _resampled(success).items()}


def differences(success: Mapping[str, np.ndarray], baseline: str) -> dict[str, Interval]:
    """Of each other arm its rate less the baseline's, resampled together: seeds and starts are the same for all."""
    drawn = _resampled(success)
    return {
        arm: _interval(values - drawn[baseline]) for arm, values in drawn.items() if arm != baseline
    }


def _resampled(success: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """float64 [1 + RESAMPLES] of each arm: the rate itself, then those of the resamples."""
    shapes = {values.shape for values in success.values()}
    if len(shapes) != 1:
        raise ValueError(f"arms of different sizes cannot be compared: {sorted(shapes)}")
    ((tasks, seeds, starts),) = shapes
    rng = np.random.default_rng(0)
    names = list(success)
    stacked = np.stack([success[name] for name in names]).astype(
        np.float64
    )  # [arms, tasks, seeds, starts]
    means = [stacked.mean((1, 2, 3))]
    for _ in range(RESAMPLES):
        of_tasks = []
        for task in range(tasks):
            of_seeds = np.bincount(rng.integers(0, seeds, seeds), minlength=seeds) / seeds
            of_starts = np.bincount(rng.integers(0, starts, starts), minlength=starts) / starts
            of_tasks.append(np.einsum("ast,s,t->a", stacked[:, task], of_seeds, of_starts))
        means.append(np.mean(of_tasks, 0))
    return dict(zip(names, np.array(means).T, strict=True))


def _interval(drawn: np.ndarray) -> Interval:
    low, high = np.percentile(drawn[1:], [2.5, 97.5])
    return round(float(drawn[0]), 4), round(float(low), 4), round(float(high), 4)

"""What came out: success by arm with intervals, best of several runs, and the tables of docs/policy.md."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.policy.intervals import Interval, differences, rates
from benchmarks.policy.protocol import ARMS, BASELINE, CODE_VERSION, GROUPS, Protocol
from benchmarks.policy.rollouts import chosen
from benchmarks.tables import table

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
    success = {
        arm: np.array([_read(folder / "rollouts" / t / f"{arm}.json")["success"] for t in protocol.tasks], bool)
        for arm in ARMS
    }
    return {
        "code_versions": {"policy": CODE_VERSION} | _read(folder / "code_versions.json"),
        "protocol": _read(folder / "protocol.json"),
        "success": {arm: _three(v) for arm, v in rates(success).items()},
        "above_nothing": {arm: _three(v) for arm, v in differences(success, BASELINE).items()},
        "by_task": {
            task: {arm: round(float(values[k].mean()), 4) for arm, values in success.items()}
            for k, task in enumerate(protocol.tasks)
        },
        "by_seed": {arm: values.mean((0, 2)).round(4).tolist() for arm, values in success.items()},
        "weight_by_quality": {a: s for g in GROUPS for a, s in _read(folder / "weights" / f"{g}.json").items()},
        "best_of": {task: _best_of(_read(folder / "best_of" / f"{task}.json")) for task in protocol.best_of.tasks},
        "learned": learned(folder, protocol),
    }


def learned(folder: Path, protocol: Protocol) -> dict[str, Any]:
    """Success after reinforcement learning by what was learnt from, by task and over all tasks, with how far each is
    above the sparse reward; and of the runs while it learnt, by iteration."""
    plan = protocol.learning
    said = {t: [_read(folder / "learned" / t / f"{s}.json") for s in plan.seeds] for t in plan.tasks}
    success = {
        reward: np.array([[r[reward] if reward == "before" else r[reward]["after"] for r in said[t]] for t in said])
        for reward in LEARNT_FROM
    }
    found: dict[str, Any] = {
        task: {r: _three(rates({r: v[None, k]})[r]) for r, v in success.items()} for k, task in enumerate(said)
    }
    found["all"] = {r: _three(v) for r, v in rates(success).items()}
    found["above_sparse"] = {r: _three(v) for r, v in differences(success, "sparse").items()}
    found["while"] = {
        r: np.mean([[of[r]["while"] for of in runs] for runs in said.values()], (0, 1, 3)).round(4).tolist()
        for r in LEARNT_FROM
        if r != "before"
    }
    return found


def _best_of(said: Mapping[str, Any]) -> dict[str, list[float]]:
    """Success of the chosen run, by what chooses, with the interval of a bootstrap over start states."""
    success = np.array(said["success"], bool)
    said_by = {name: np.array(said[name], np.float64) for name in ("progress", "done", "own", "success")}
    picked = {name: chosen(success, values) for name, values in said_by.items()}
    picked["chance"] = np.asarray(success.mean(1))
    return {name: _three(rates({name: picked[name][None, None]})[name]) for name in CHOICES}


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _three(interval: Interval) -> list[float]:
    return [round(v, 4) for v in interval]


def print_tables(figures: Mapping[str, Any]) -> None:
    tasks = list(figures["by_task"])
    head = ["weights", "success, %", f"above {BASELINE}, points", *tasks]
    table(head, [_arm_row(figures, arm, tasks) for arm in ARMS])
    chosen = figures["best_of"]
    table(
        ["chosen by", *chosen],
        [[text, *(_percent(chosen[task][name]) for task in chosen)] for name, text in CHOICES.items()],
    )
    learnt = figures["learned"]
    tasks = [name for name in learnt if name not in ("all", "above_sparse", "while")]
    rows = [[text, *(_percent(learnt[of][name]) for of in (*tasks, "all"))] for name, text in LEARNT_FROM.items()]
    table(["learnt from", *tasks, "both"], rows)


def _above(three: Sequence[float] | None) -> str:
    return _percent(three, sign="+") if three else "–"


def _arm_row(figures: Mapping[str, Any], arm: str, tasks: Sequence[str]) -> list[str]:
    above = figures["above_nothing"].get(arm)
    by_task = [f"{100 * figures['by_task'][task][arm]:.0f}" for task in tasks]
    return [ARMS[arm], _percent(figures["success"][arm]), _above(above), *by_task]


def _percent(three: Sequence[float], sign: str = "") -> str:
    return "{:{s}.1f} ({:{s}.1f} to {:{s}.1f})".format(*(100 * v for v in three), s=sign)

"""Reinforcement learning in closed loop: a robot whose eyes are off learns a correction from the reward of its runs.

The robot is the scripted expert that sees the object beside where it is, by an error of its seed. The cross-entropy
method looks for the shift [3] (m) that makes up for it: candidates are drawn, each acts once, the best say where the
next are drawn. The arms differ only in what a run is worth.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.policy.protocol import FPS, LEARNING_STARTS, PICTURE_PX, TESTED_STARTS, Learning, Protocol
from benchmarks.policy.rollouts import UNSEEN_PX, best_stretch

if TYPE_CHECKING:
    from benchmarks.policy.cell import Cell

REWARDS = ("live", "own", "sparse")


def error_of(seed: int) -> np.ndarray:
    """How far beside the object a robot sees it, float64 [3] (m): as far as a demonstration that aims beside it."""
    rng = np.random.default_rng([7, seed])
    return np.array([rng.choice([-1.0, 1.0]) * rng.uniform(0.08, 0.14), rng.uniform(-0.04, 0.04), 0.0])


def learn(protocol: Protocol, task: str, seed: int, model: Path) -> dict[str, Any]:
    """Success from each held-out start before and after learning, by reward, and of the runs that were learnt from.

    Lists: `before` [starts]; of each reward `after` [starts], `while` [iterations, candidates] and `shift` [3], the
    correction that it came to. All rewards share the first candidates, the start states and the error. Needs
    Meta-World.
    """
    from benchmarks.policy.cell import Cell
    from eval.reward.laptop import open_laptop

    plan, scorer = protocol.learning, open_laptop(model)
    cell, blind = Cell(task, PICTURE_PX), Cell(task, UNSEEN_PX)
    error = error_of(seed)
    starts = range(TESTED_STARTS, TESTED_STARTS + plan.starts)

    def tested(shift: np.ndarray) -> list[bool]:
        return [bool(tried(blind, error + shift, start, protocol.horizon, plan)["success"]) for start in starts]

    def taught(reward: str) -> dict[str, Any]:
        watched = (cell, scorer) if reward == "live" else (blind, None)
        successes = []

        def worth(iteration: int, shifts: np.ndarray) -> np.ndarray:
            start = LEARNING_STARTS + 100 * seed + iteration
            runs = [tried(watched[0], error + s, start, protocol.horizon, plan, watched[1]) for s in shifts]
            successes.append([bool(r["success"]) for r in runs])
            return np.array([r[reward] for r in runs], np.float64)

        shift = searched(worth, plan, seed)
        return {"after": tested(shift), "while": successes, "shift": shift.round(4).tolist()}

    found: dict[str, Any] = {"error": error.tolist(), "before": tested(np.zeros(3))}
    found |= {reward: taught(reward) for reward in REWARDS}
    cell.close()
    blind.close()
    return found


def searched(worth: Callable[[int, np.ndarray], np.ndarray], plan: Learning, seed: int) -> np.ndarray:
    """The cross-entropy method: where the candidates have come to, float64 [3]. `worth` says [n] of an iteration's
    candidates [n, 3]."""
    rng = np.random.default_rng([11, seed])
    mean, spread = np.zeros(3), np.array(plan.spread)
    for iteration in range(plan.iterations):
        shifts = mean + spread * rng.standard_normal((plan.candidates, 3))
        mean, spread = moved(mean, spread, shifts, worth(iteration, shifts), plan)
    return mean


def moved(
    mean: np.ndarray, spread: np.ndarray, shifts: np.ndarray, worth: np.ndarray, plan: Learning
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread [3] of the next candidates: those of the best of these [n, 3], by what each was worth [n].

    Of several that are worth as much as the last of the best all count. Where all are worth the same nothing was
    learnt, and the next are drawn as these were.
    """
    is_more = worth > worth.min()
    if not is_more.any():
        return mean, spread
    best = shifts[is_more & (worth >= np.sort(worth)[-plan.best])]
    return best.mean(0), np.maximum(best.std(0), plan.least_spread)


def tried(
    cell: "Cell", shift: np.ndarray, start: int, horizon: int, plan: Learning, scorer: Any = None
) -> dict[str, float | bool]:
    """One run of the expert that sees the object `shift` (m) beside itself: `success`, at any time, and what it is
    worth by each reward. `live`: as in best_of, where a `scorer` is given; none ends before the horizon."""
    stream = scorer.stream(cell.spec["text"], FPS / plan.reward_every) if scorer else None
    cell.restart(start)
    moments = [stream.append({"camera": cell.picture()})] if stream else []
    success, own = False, 0.0
    for frame in range(horizon):
        cell.act(cell.expert(shift))
        success, own = success or cell.succeeded, own + float(cell.info["unscaled_reward"])
        if stream and (frame + 1) % plan.reward_every == 0:
            moments.append(stream.append({"camera": cell.picture()}))
    worth: dict[str, float | bool] = {"success": success, "sparse": float(success), "own": own}
    # Scored together, which gives the numbers of a live session: a moment's own does not hang on those after it
    return worth | {"live": best_stretch([r.progress for r in scorer.score(moments)])} if stream else worth

"""At work in the cell: policies from held-out start states, several runs of one start to choose among, and an expert
whose eyes are off, who learns a correction from the reward of its runs.

The last sees the object beside where it is, by an error of its seed. The cross-entropy method looks for the shift [3]
(m) that makes up for it: candidates are drawn, each acts once, the best say where the next are drawn. The arms differ
only in what a run is worth.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.policy.cloning import Policies, Policy
from benchmarks.policy.protocol import FPS, PICTURE_PX, REWARD_EVERY, Learning, Protocol

if TYPE_CHECKING:
    from benchmarks.policy.cell import Cell

EVALUATION_STARTS = 1000  # from here on: start states of no demonstration
BEST_OF_STARTS = 2000
TESTED_STARTS, LEARNING_STARTS = 3000, 4000  # of reinforcement learning
UNSEEN_PX = 32  # of pictures that nobody looks at
REWARDS = {
    "live": "progress",
    "own": "own",
    "sparse": "sparse",
}  # to learn from, as `watched` names them


def evaluate(protocol: Protocol, task: str, arm: int, policies: Policies) -> dict[str, Any]:
    """Success from each held-out start, by seed: lists [seeds, starts]. Needs Meta-World."""
    from benchmarks.policy.cell import Cell

    cell = Cell(task, UNSEEN_PX)
    starts = range(EVALUATION_STARTS, EVALUATION_STARTS + protocol.starts)
    seeds = range(len(protocol.seeds))
    success: list[list[bool]] = []
    for seed in seeds:
        policy = policies.one(arm, seed)
        success.append([_succeeds(cell, policy, start, protocol.horizon) for start in starts])
    cell.close()
    return {"success": success}


def _succeeds(cell: "Cell", policy: Policy, start: int, horizon: int) -> bool:
    observation = cell.restart(start)
    for _ in range(horizon):
        cell.act(policy.action(observation))
        if cell.succeeded:
            return True
        observation = cell.seen()
    return False


def best_of(
    protocol: Protocol, task: str, arm: int, policies: Policies, model: Path
) -> dict[str, Any]:
    """Runs of each start, and what was said of each: lists [starts, runs] of what `watched` says. Needs Meta-World."""
    from benchmarks.policy.cell import Cell
    from eval.reward.open import open_checkpoint

    cell = Cell(task, PICTURE_PX)
    scorer = open_checkpoint(model)
    plan = protocol.best_of
    results: dict[str, Any] = {k: [] for k in ("success", "progress", "done", "own")}
    for start in range(BEST_OF_STARTS, BEST_OF_STARTS + plan.starts):
        runs = []
        for k in range(plan.runs):
            policy, rng = (
                policies.one(arm, k % len(protocol.seeds)),
                np.random.default_rng([start, k]),
            )

            def act(
                observation: np.ndarray, policy: Policy = policy, rng: np.random.Generator = rng
            ) -> np.ndarray:
                return policy.action(observation) + np.r_[rng.normal(0, plan.noise, 3), 0]

            runs.append(watched(cell, act, start, protocol.horizon, scorer))
        for name in results:
            results[name].append([run[name] for run in runs])
    cell.close()
    return results


def watched(
    cell: "Cell",
    act: Callable[[np.ndarray], np.ndarray],
    start: int,
    horizon: int,
    scorer: Any = None,
) -> dict[str, Any]:
    """A run whose actions `act` says of what is seen; none ends before the horizon, so that its length says nothing.

    `success`: was the task ever solved? `own`: the sum of Meta-World's own reward. Where a `scorer` is given,
    `progress` and `done`: what the live reward said, the highest mean of three answers that follow each other.
    """
    stream = scorer.stream(cell.spec["text"], FPS / REWARD_EVERY) if scorer else None
    observation = cell.restart(start)
    success = False
    own_reward = 0.0
    moments = [stream.append({"camera": cell.picture()})] if stream else []
    for frame in range(horizon):
        cell.act(act(observation))
        observation = cell.seen()
        success = success or cell.succeeded
        own_reward = own_reward + float(cell.info["unscaled_reward"])
        if stream and (frame + 1) % REWARD_EVERY == 0:
            moments.append(stream.append({"camera": cell.picture()}))
    # Scored together, which gives the numbers of a live session: a moment's own does not hang on those after it
    rewards = scorer.score(moments) if stream else []
    facts = {"success": success, "sparse": float(success), "own": own_reward}
    if rewards:
        facts["progress"] = best_stretch([reward.progress for reward in rewards])
        facts["done"] = best_stretch([reward.done for reward in rewards])
    return facts


def best_stretch(values: Sequence[float | None], length: int = 3) -> float:
    """The highest mean of `length` answers that follow each other; one without a number counts as 0."""
    numbers = np.array([v or 0.0 for v in values])
    return float(np.convolve(numbers, np.ones(length) / length, "valid").max())


def chosen(success: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Success of the run that is said to be best, of each start: float64 [starts], of arrays [starts, runs].

    Of several that are said to be equally good, any may be taken: their mean counts.
    """
    best = scores == scores.max(1, keepdims=True)
    return (success * best).sum(1) / best.sum(1)


def error_of(seed: int) -> np.ndarray:
    """How far beside the object a robot sees it, float64 [3] (m): as far as a demonstration that aims beside it."""
    rng = np.random.default_rng([7, seed])
    return np.array(
        [rng.choice([-1.0, 1.0]) * rng.uniform(0.08, 0.14), rng.uniform(-0.04, 0.04), 0.0]
    )


def learn(protocol: Protocol, task: str, seed: int, model: Path) -> dict[str, Any]:
    """Success from each held-out start before and after learning, by reward, and of the runs that were learnt from.

    Lists: `before` [starts]; of each reward `after` [starts], `while` [iterations, candidates] and `shift` [3], the
    correction that it came to. All rewards share the first candidates, the start states and the error. Needs
    Meta-World.
    """
    from benchmarks.policy.cell import Cell
    from eval.reward.open import open_checkpoint

    plan, scorer = protocol.learning, open_checkpoint(model)
    cell, blind = Cell(task, PICTURE_PX), Cell(task, UNSEEN_PX)
    error = error_of(seed)
    starts = range(TESTED_STARTS, TESTED_STARTS + plan.starts)

    def tried(cell: Cell, shift: np.ndarray, start: int, scorer: Any = None) -> dict[str, Any]:
        return watched(cell, lambda _: cell.expert(error + shift), start, protocol.horizon, scorer)

    def tested(shift: np.ndarray) -> list[bool]:
        return [tried(blind, shift, start)["success"] for start in starts]

    def taught(reward: str) -> dict[str, Any]:
        eyes = (cell, scorer) if reward == "live" else (blind, None)
        successes = []

        def worth(iteration: int, shifts: np.ndarray) -> np.ndarray:
            start = LEARNING_STARTS + 100 * seed + iteration
            runs = [tried(eyes[0], s, start, eyes[1]) for s in shifts]
            successes.append([r["success"] for r in runs])
            return np.array([r[REWARDS[reward]] for r in runs], np.float64)

        shift = searched(worth, plan, seed)
        return {"after": tested(shift), "while": successes, "shift": shift.round(4).tolist()}

    results: dict[str, Any] = {"error": error.tolist(), "before": tested(np.zeros(3))}
    results |= {reward: taught(reward) for reward in REWARDS}
    cell.close()
    blind.close()
    return results


def searched(
    worth: Callable[[int, np.ndarray], np.ndarray], plan: Learning, seed: int
) -> np.ndarray:
    """The cross-entropy method: where the candidates have come to, float64 [3]. `worth` says [n] of an iteration's
    candidates [n, 3]."""
    rng = np.random.default_rng([11, seed])
    mean = np.zeros(3)
    spread = np.array(plan.spread)
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

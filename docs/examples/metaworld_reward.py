"""A scripted Meta-World robot inside ProgressReward: the model's progress beside the simulator's own, and what an agent
would be given for each step.

    .venv/bin/uv pip install -e '.[sim]'; apt-get install -y libosmesa6
    .venv/bin/python docs/examples/metaworld_reward.py --model FOLDER [--out FILE.png]
    .venv/bin/python docs/examples/metaworld_reward.py --url http://127.0.0.1:8700

Runs of one task from a start state that no training saw: the expert, and one that aims beside the object. The scene,
the camera, the calmed expert and the formula of the true progress are those of benchmarks/sim_short/generate.py.
"""

import argparse
import os
import sys
from collections.abc import Callable
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "osmesa")
ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

if os.environ["MUJOCO_GL"] == "osmesa" and find_library("OSMesa") is None:
    sys.exit(
        "error: MuJoCo draws with libosmesa6 here: apt-get install -y libosmesa6, or set MUJOCO_GL=egl"
    )
try:
    from benchmarks.sim_short import generate
except ModuleNotFoundError as e:
    sys.exit(
        f"error: the simulator is not installed (no module {e.name}): .venv/bin/uv pip install -e '.[sim]'"
    )
import gymnasium as gym
import matplotlib
import numpy as np

from eval.rl.shaping import Shaper, Shaping
from eval.rl.wrapper import ProgressReward, Session
from eval.server.client import RewardClient

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OpenSession = Callable[[], Session]
GAMMA = 0.99


class MetaWorld(gym.Env):
    """One task from one start state, at 20 steps a second; an action holds for all control steps of a step."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": generate.FPS}  # noqa: RUF012
    render_mode = "rgb_array"
    action_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    observation_space = gym.spaces.Box(-np.inf, np.inf, (39,), np.float64)

    def __init__(self, task: str, seed: int, shift: np.ndarray | None = None) -> None:
        self.task, self.start, self.shift = task, seed, shift
        self.spec = generate.TASKS[task]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.sim, self.steps, self.after = generate.Sim(self.task, self.spec, self.start), 0, 0
        return self.sim.obs, {"measured": self._measured()}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        own = 0.0
        for _ in range(generate.SUBSTEPS):
            self.sim.obs, own, _, _, self.sim.info = self.sim.env.step(action)
        self.steps += 1
        self.after += bool(self.after) or bool(self.sim.info["success"])
        is_over = self.after > generate.HOLD
        too_long = self.steps >= generate.MAX_FRAMES // 2
        return (
            self.sim.obs,
            float(own),
            is_over,
            too_long and not is_over,
            {"measured": self._measured()},
        )

    def render(self) -> Any:
        return self.sim.picture()

    def expert(self) -> np.ndarray:
        return np.zeros(4, np.float32) if self.after else self.sim.expert(self.shift)

    def close(self) -> None:
        self.sim.eye.renderer.close()

    def _measured(self) -> dict[str, Any]:
        """What generate.annotate makes the true progress of."""
        sim = self.sim
        return {
            "goal": sim.goal_distance(),
            "hand": float(np.linalg.norm(sim.env.tcp_center - sim.obs[4:7])),
            "object": sim.obs[4:7].copy(),
            "success": bool(sim.info["success"]),
            "contact": sim.touching(),
        }


@dataclass(frozen=True)
class Run:
    """Per step, the first picture included: times, progress as seen and as it was, done; and rewards after each."""

    name: str
    time_s: np.ndarray
    seen: np.ndarray
    true: np.ndarray
    done: np.ndarray
    terminated: bool

    def gained(self, shaping: Shaping) -> np.ndarray:
        """Sum of rewards so far (discounted for the potential, which promises that sum)."""
        shaper = Shaper(shaping)
        values = [None if np.isnan(p) else float(p) for p in self.seen]
        shaper.reset(values[0])
        last = len(values) - 1
        rewards = [shaper.step(p, self.terminated and k == last) for k, p in enumerate(values) if k]
        discount = GAMMA ** np.arange(last) if shaping.kind == "potential" else np.ones(last)
        return np.concatenate([[0], np.cumsum(discount * rewards)])


def run(name: str, env: MetaWorld, open_session: OpenSession) -> Run:
    """One episode of the script through the wrapper."""
    wrapped = ProgressReward(env, open_session, Shaping())
    _, info = wrapped.reset(seed=0)
    infos, over, terminated = [info], False, False
    while not over:
        _, _, terminated, truncated, info = wrapped.step(env.expert())
        infos.append(info)
        over = terminated or truncated
    wrapped.close()
    measured = [i["measured"] for i in infos]
    generate.annotate(measured, env.spec)
    seen, done = (np.array([i[k] for i in infos], float) for k in ("progress", "done_probability"))
    print(
        f"{name}: {len(infos)} frames, success {measured[-1]['success']}, sum of delta {wrapped_sum(infos):.3f}"
    )
    return Run(
        name,
        np.arange(len(infos)) / generate.FPS,
        seen,
        np.array([m["progress"] for m in measured]),
        done,
        terminated,
    )


def wrapped_sum(infos: list[dict[str, Any]]) -> float:
    return sum(i["progress_reward"] for i in infos[1:])


def draw(runs: list[Run], title: str, out: Path) -> None:
    figure, axes = plt.subplots(
        2, len(runs), figsize=(5 * len(runs), 5.6), sharex="col", sharey="row", squeeze=False
    )
    for (upper, lower), r in zip(axes.T, runs, strict=True):
        upper.plot(r.time_s, r.true, color="0.45", lw=2, label="simulator")
        upper.plot(r.time_s, r.seen, color="C0", label="model, live")
        if not np.isnan(r.done).all():
            upper.plot(r.time_s, r.done, color="C2", lw=1, ls=":", label="model: done")
        error = np.nanmean(np.abs(r.seen - r.true))
        upper.set(title=f"{r.name}: mean error {error:.2f}", ylim=(-0.03, 1.03), ylabel="progress")
        for kind, colour in (("delta", "C1"), ("ema", "C3"), ("potential", "C4")):
            lower.plot(
                r.time_s, r.gained(Shaping(kind, gamma=GAMMA)), color=colour, label=kind, lw=1.3
            )
        lower.axhline(0, color="0.8", lw=0.8)
        lower.set(xlabel="seconds", ylabel="sum of rewards")
    axes[0, 0].legend(loc="lower right", fontsize=8)
    axes[1, 0].legend(loc="lower left", fontsize=8)
    for axis in axes.flat:
        axis.label_outer()
    figure.suptitle(title)
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model", type=Path, help="a checkpoint's folder, for rewards in this process"
    )
    source.add_argument("--url", help="a reward server, for rewards over the network")
    parser.add_argument("--task", choices=generate.TASKS, default="drawer-open")
    parser.add_argument(
        "--seed", type=int, default=7, help="of the start state; 0 to 5 are in the shipped sample"
    )
    parser.add_argument("--out", type=Path, default=Path("rl_metaworld.png"))
    asked = parser.parse_args()
    text = generate.TASKS[asked.task]["text"]
    kinds = {"expert": None, "aims beside the object": np.array(generate.MISS)}
    envs = {name: MetaWorld(asked.task, asked.seed, shift) for name, shift in kinds.items()}
    if asked.url:
        with RewardClient(asked.url) as client:
            runs = [
                run(n, e, lambda: client.session(text, fps=generate.FPS)) for n, e in envs.items()
            ]
    else:
        from eval.reward.open import open_checkpoint
        from eval.rl.local import LocalSession

        scorer = open_checkpoint(asked.model)
        runs = [
            run(n, e, lambda: LocalSession(scorer, text, generate.FPS)) for n, e in envs.items()
        ]
    draw(runs, f"{asked.task}, start state {asked.seed}: “{text}”", asked.out)


if __name__ == "__main__":
    main()

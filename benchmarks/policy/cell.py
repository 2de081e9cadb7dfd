"""Meta-World as a robot cell: one task, any start state, pictures when asked. The only file here that needs Meta-World.

The scene, the calmed expert and the formula of the true progress are those of benchmarks/sim_short/generate.py.
"""

import os
from typing import Any

# One thread draws: software rendering would spread over all cores and be no faster, and would be another per machine
os.environ.setdefault("MUJOCO_GL", "osmesa")
os.environ.setdefault("LP_NUM_THREADS", "0")

import metaworld  # pyright: ignore[reportMissingImports]
import numpy as np

from benchmarks.policy.protocol import FPS
from benchmarks.sim_short import generate

TASKS: dict[str, dict[str, Any]] = {**generate.TASKS, **generate.MORE_TASKS}
CONTROL_HZ = 80
SUBSTEPS = CONTROL_HZ // FPS
STARTS_A_LIST = 50  # Meta-World draws start states in lists of 50, each by its own seed
FIRST_LIST = 142  # the seed of the list that start states 0 to 49 are of; sim_short has others
HOLD = np.array([0, 0, 0, 0], np.float32)


class Cell(generate.Sim):
    """One task. `restart` before anything else."""

    def __init__(self, task: str, side_px: int) -> None:
        super().__init__(task, TASKS[task], 0, side_px)
        self.task = task
        self._lists = dict[int, list[Any]]()

    def restart(self, start: int) -> np.ndarray:
        """Begin at a start state, 0 or more; what a policy sees of it, float32 [SEEN]."""
        list_number = start // STARTS_A_LIST
        if list_number not in self._lists:
            self._lists[list_number] = metaworld.MT1(
                f"{self.task}-v3", seed=FIRST_LIST + list_number
            ).train_tasks
        self.env.set_task(self._lists[list_number][start % STARTS_A_LIST])
        self.policy = generate.ENV_POLICY_MAP[f"{self.task}-v3"]()
        self.obs, _ = self.env.reset()
        for _ in range(generate.SUBSTEPS * self.spec.get("settle", 0)):
            generate.Sim.step(self, np.array([0, 0, 0, -1], np.float32))
        self.info = self.env.evaluate_state(self.obs, HOLD)[1]
        return self.seen()

    def seen(self) -> np.ndarray:
        """Hand, gripper, object and goal, and how the first two lie to the next: float32 [16]."""
        hand = self.obs[:3]
        grip = self.obs[3:4]
        thing = self.obs[4:7]
        goal = np.asarray(self.env._target_pos)
        return np.concatenate([hand, grip, thing, goal, thing - hand, goal - thing]).astype(
            np.float32
        )

    def measured(self) -> dict[str, Any]:
        """A row of sim_short's frames.parquet, less its action and progress."""
        return {
            "state": self.obs[:4].astype(np.float32),
            "goal": self.goal_distance(),
            "hand": float(np.linalg.norm(self.env.tcp_center - self.obs[4:7])),
            "object": self.obs[4:7].copy(),
            "success": self.succeeded,
            "contact": self.touching(),
        }

    @property
    def succeeded(self) -> bool:
        return bool(self.info["success"])

    def act(self, action: np.ndarray) -> None:
        """Hold an action for one frame: x, y, z and the gripper, -1 to 1.

        Only after the last control step is Meta-World asked what it sees and whether that is a success, which takes
        most of the time of a step.
        """
        action = np.clip(action, -1, 1).astype(np.float32)
        for _ in range(SUBSTEPS - 1):
            self.env.set_xyz_action(action[:3])
            self.env.do_simulation([action[3], -action[3]], n_frames=self.env.frame_skip)
        self.step(action)

    def picture(self) -> np.ndarray:
        """uint8 [side, side, 3]; without shadows and reflections, which take most of the time of drawing."""
        return self.eye.picture(self.env.data, shadows=False)

    def close(self) -> None:
        self.eye.renderer.close()

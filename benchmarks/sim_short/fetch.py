"""Five short tasks of a Fetch arm with one block, and their scripted experts, in the form of Meta-World's environments.

The scene, robot and control are those of gymnasium-robotics (MIT licence); where block, target and hand begin is drawn
here, so that each task has its own direction. Observations are [10]: hand x, y, z (m), opening 0..1, block x, y, z,
target x, y, z. Actions are as Meta-World's: x, y, z in -1..1 (1.0 moves the hand's goal 5 cm), gripper (1 closes).
"""

from typing import Any

import mujoco
import numpy as np

HEIGHT = 0.425  # of the block on the table (m)
WIDE = 0.1  # between open fingers (m)
BEHIND = 0.085  # where the hand begins to push (m from the block)
ABOVE = 0.1  # where it travels (m over the block)

# block:  where it lies, ((x low, y low), (x high, y high)) in metres
# way:    from there to the target, ((low), (high)) in metres
TASKS = {
    "fetch-push": {
        "text": "Push the black block away to the red marker.",
        "block": ((1.20, 0.62), (1.30, 0.88)),
        "way": ((0.14, -0.05, 0.0), (0.20, 0.05, 0.0)),
        "miss": (0.0, 0.14, 0.0),
    },
    "fetch-pull": {
        "text": "Pull the black block back to the red marker.",
        "block": ((1.34, 0.62), (1.41, 0.88)),
        "way": ((-0.22, -0.05, 0.0), (-0.15, 0.05, 0.0)),
        "miss": (0.0, -0.14, 0.0),
    },
    "fetch-slide-side": {
        "text": "Slide the black block sideways to the red marker.",
        "block": ((1.24, 0.60), (1.40, 0.68)),
        "way": ((-0.04, 0.16, 0.0), (0.04, 0.24, 0.0)),
        "miss": (0.14, 0.0, 0.0),
    },
    "fetch-lift": {
        "text": "Lift the black block to the red marker.",
        "block": ((1.22, 0.62), (1.42, 0.88)),
        "way": ((-0.02, -0.02, 0.17), (0.02, 0.02, 0.25)),
        "miss": (-0.14, 0.0, 0.0),
    },
    "fetch-pick-place": {
        "text": "Pick up the black block and move it to the red marker.",
        "block": ((1.22, 0.78), (1.42, 0.90)),
        "way": ((-0.06, -0.28, 0.05), (0.06, -0.18, 0.15)),
        "miss": (0.14, 0.0, 0.0),
    },
}
HAND_STARTS = ((-0.08, -0.12, 0.1), (0.06, 0.12, 0.16))  # beside where Fetch's own begins (m)


class Env:
    """One task; what Meta-World's environments have and the recorder uses."""

    def __init__(self, task: str) -> None:
        # late: those who import the recorder for Meta-World's tasks need not have it
        from gymnasium_robotics.envs.fetch.pick_and_place import MujocoFetchPickAndPlaceEnv
        from gymnasium_robotics.envs.fetch.push import MujocoFetchPushEnv

        self.task = TASKS[task]
        self.grips = self.task["way"][1][2] > 0  # a block that is pushed is pushed with closed fingers
        self.sim = (MujocoFetchPickAndPlaceEnv if self.grips else MujocoFetchPushEnv)()
        self.sim.n_substeps = 25  # 50 ms, a frame
        self.model, self.data = self.sim.model, self.sim.data
        self.model.geom_rgba[self.model.geom_bodyid == self.model.body("robot0:mocap").id, 3] = 0  # axes of the control

    def reset(self, seed: int) -> np.ndarray:
        """Block, target and hand where the seed has them."""
        rng = np.random.default_rng(seed)
        self.sim.reset(seed=seed)
        hand = self.tcp_center + rng.uniform(*HAND_STARTS)
        for _ in range(40):
            self.step(np.array([*np.clip((hand - self.tcp_center) / 0.05, -0.3, 0.3), -1.0]))
        at = np.array([*rng.uniform(*self.task["block"]), HEIGHT])
        joint = self.model.joint("object0:joint")
        self.data.qpos[joint.qposadr[0] :][:7] = (*at, 1.0, 0.0, 0.0, 0.0)
        self.data.qvel[joint.dofadr[0] :][:6] = 0.0
        self.sim.goal = at + rng.uniform(*self.task["way"])
        self.model.site("target0").pos[:] = self.sim.goal - self.model.body("floor0").pos
        mujoco.mj_forward(self.model, self.data)
        return self.observed()

    @property
    def tcp_center(self) -> np.ndarray:
        return self.data.site("robot0:grip").xpos.copy()

    def observed(self) -> np.ndarray:
        fingers = sum(float(self.data.joint(f"robot0:{side}_gripper_finger_joint").qpos[0]) for side in "lr")
        block = self.data.site("object0").xpos
        return np.array([*self.tcp_center, np.clip(fingers / WIDE, 0, 1), *block, *self.sim.goal])

    def evaluate(self) -> dict[str, Any]:
        off = float(np.linalg.norm(self.data.site("object0").xpos - self.sim.goal))
        return {"success": off < self.sim.distance_threshold, "obj_to_target": off}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        self.sim.step(np.array([*action[:3], -action[3]], np.float32))  # its gripper opens with 1
        return self.observed(), self.evaluate()

    def get_action(self, obs: np.ndarray) -> np.ndarray:
        """The expert's action for what it sees."""
        return (_carry if self.grips else _push)(obs[:3], obs[3], obs[4:7], obs[7:10])


def _push(hand: np.ndarray, opening: float, block: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Over the block to the far side of its way, down, and on to the target; it comes back up if it slips off."""
    way = (goal - block)[:2] / max(1e-6, float(np.linalg.norm((goal - block)[:2])))
    start = np.array([*(block[:2] - BEHIND * way), HEIGHT])
    off = hand[:2] - block[:2]
    aside = off - (off @ way) * way
    if hand[2] < HEIGHT + 0.03 and np.linalg.norm(aside) < 0.03 and off @ way < 0:
        target = np.array([*(hand[:2] + 0.05 * way - aside), HEIGHT])
    elif np.linalg.norm(hand[:2] - start[:2]) < 0.015:
        target = start
    else:
        target = np.array([*start[:2], HEIGHT + ABOVE])
    return np.array([*((target - hand) / 0.05), 1.0])


def _carry(hand: np.ndarray, opening: float, block: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Above the block, down, close, and to the target."""
    off = hand - block
    if np.linalg.norm(off) < 0.02:
        held = opening < 0.055 / WIDE
        return np.array([*((goal - block) / 0.05 if held else -off / 0.05), 1.0])
    target = block if np.linalg.norm(off[:2]) < 0.015 else block + np.array([0, 0, ABOVE])
    return np.array([*((target - hand) / 0.05), -1.0])

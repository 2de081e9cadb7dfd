"""Short tasks of a Fetch arm with one thing, and their scripted experts, in the form of Meta-World's environments.

The scene, robot and control are those of gymnasium-robotics (MIT licence); where thing, target and hand begin is drawn
here, so that each task has its own direction. A thing is the scene's block, or a gate on a hinge that is fixed to the
table. Observations are [10]: hand x, y, z (m), opening 0..1, thing x, y, z, target x, y, z. Actions are as
Meta-World's: x, y, z in -1..1 (1.0 moves the hand's goal 5 cm), gripper (1 closes).
"""

from typing import Any

import mujoco
import numpy as np

HEIGHT = 0.425  # of the block on the table (m)
WIDE = 0.1  # between open fingers (m)
THING, BASE = (
    "thing",
    "base",
)  # body, joint and site of what is fixed to the table, and what it is fixed to
BEHIND = 0.085  # where the hand begins to push (m from the block)
ABOVE = 0.1  # where it travels (m over the block)

# block:   where it lies, ((x low, y low), (x high, y high)) in metres
# way:     from there to the target, ((low), (high)) in metres; of what has a joint, the joint's (m, rad) at the target
# size:    half of the block's sides (m), if they are not the scene's; colour: red, green, blue
# joint:   what is fixed to the table instead of the block
# done:    how near the target it is done (m), if not 5 cm
TASKS = {
    "fetch-bring-over": {
        "text": "Bring the orange block over to the red marker.",
        "block": ((1.24, 0.60), (1.40, 0.70)),
        "way": ((-0.06, 0.18, 0.05), (0.06, 0.26, 0.13)),
        "colour": (1.0, 0.45, 0.0),
        "miss": (-0.14, 0.0, 0.0),
    },
    "fetch-take": {
        "text": "Take the white post to the red marker.",
        "block": ((1.20, 0.64), (1.28, 0.86)),
        "way": ((0.12, -0.08, 0.05), (0.18, 0.08, 0.12)),
        "size": (0.02, 0.02, 0.04),
        "colour": (0.9, 0.9, 0.9),
        "miss": (0.0, 0.14, 0.0),
    },
    "fetch-shove": {
        "text": "Shove the pink box to the red marker.",
        "block": ((1.18, 0.80), (1.26, 0.90)),
        "way": ((0.10, -0.18, 0.0), (0.16, -0.12, 0.0)),
        "size": (0.03, 0.03, 0.03),
        "colour": (0.9, 0.4, 0.6),
        "miss": (0.1, 0.1, 0.0),
    },
    "fetch-gate": {
        "text": "Push the red gate open.",
        "block": ((1.22, 0.62), (1.30, 0.74)),
        "way": (0.8, 0.8),
        "joint": "gate",
        "done": 0.03,
        "miss": (-0.04, 0.14, 0.0),
    },
}
# Half of the gate's sides, where its middle is and the point that is aimed at, from its hinge (m)
GATE_SIZE = (0.012, 0.09, 0.025)
GATE_MIDDLE = (0.0, 0.09, 0.0)
GATE_POINT = (0.0, 0.15, 0.0)
FAR = (1.08, 0.44)  # where the scene's block lies, unseen, while something else is there
HAND_STARTS = ((-0.08, -0.12, 0.1), (0.06, 0.12, 0.16))  # beside where Fetch's own begins (m)


class Env:
    """One task; what Meta-World's environments have and the recorder uses."""

    def __init__(self, task: str) -> None:
        # late: those who import the recorder for Meta-World's tasks need not have it
        from gymnasium_robotics.envs.fetch.pick_and_place import MujocoFetchPickAndPlaceEnv
        from gymnasium_robotics.envs.fetch.push import MujocoFetchPushEnv

        self.task = TASKS[task]
        joint = self.task.get("joint")
        way = self.task["way"][1]
        self.point = THING if joint else "object0"
        self.grips = (
            not joint and way[2] > 0
        )  # what stays on the table it pushes, with closed fingers
        base = MujocoFetchPickAndPlaceEnv if self.grips else MujocoFetchPushEnv
        self.sim = (_with_gate(base) if joint else base)()
        self.sim.n_substeps = 25  # 50 ms, a frame
        self.model = self.sim.model
        self.data = self.sim.data
        self.model.geom_rgba[self.model.geom_bodyid == self.model.body("robot0:mocap").id, 3] = (
            0  # axes of the control
        )
        block = self.model.geom("object0")
        if "colour" in self.task or joint:
            block.matid = -1
            block.rgba = (*self.task.get("colour", (0, 0, 0)), 0.0 if joint else 1.0)
        block.size = self.task.get("size", block.size)

    def reset(self, seed: int) -> np.ndarray:
        """Thing, target and hand where the seed has them."""
        rng = np.random.default_rng(seed)
        self.sim.reset(seed=seed)
        hand = self.tcp_center + rng.uniform(*HAND_STARTS)
        for _ in range(40):
            self.step(np.array([*np.clip((hand - self.tcp_center) / 0.05, -0.3, 0.3), -1.0]))
        position = np.array([*rng.uniform(*self.task["block"]), HEIGHT])
        way = rng.uniform(*self.task["way"])
        joint = self.model.joint("object0:joint")
        if "joint" in self.task:
            lies = (*FAR, HEIGHT)
        else:
            lies = (*position[:2], 0.4 + self.model.geom("object0").size[2])
        self.data.qpos[joint.qposadr[0] :][:7] = (*lies, 1.0, 0.0, 0.0, 0.0)
        self.data.qvel[joint.dofadr[0] :][:6] = 0.0
        if "joint" in self.task:
            self.model.body(BASE).pos[:] = position
            self.sim.goal = self._point_at(way)
            self._point_at(0.0)
        else:
            self.sim.goal = np.array(lies) + way
        self.model.site("target0").pos[:] = self.sim.goal - self.model.body("floor0").pos
        mujoco.mj_forward(self.model, self.data)
        return self.observed()

    def _point_at(self, value: float) -> np.ndarray:
        """Put the thing's joint there, at rest; where the point aimed at then is."""
        joint = self.model.joint(THING)
        self.data.qpos[joint.qposadr[0]] = value
        self.data.qvel[joint.dofadr[0]] = 0.0
        mujoco.mj_forward(self.model, self.data)
        return self.data.site(THING).xpos.copy()

    @property
    def tcp_center(self) -> np.ndarray:
        return self.data.site("robot0:grip").xpos.copy()

    def observed(self) -> np.ndarray:
        fingers = sum(
            float(self.data.joint(f"robot0:{side}_gripper_finger_joint").qpos[0]) for side in "lr"
        )
        block = self.data.site(self.point).xpos
        return np.array([*self.tcp_center, np.clip(fingers / WIDE, 0, 1), *block, *self.sim.goal])

    def evaluate(self) -> dict[str, Any]:
        off = float(np.linalg.norm(self.data.site(self.point).xpos - self.sim.goal))
        return {
            "success": off < self.task.get("done", self.sim.distance_threshold),
            "obj_to_target": off,
        }

    def step(self, action: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        self.sim.step(np.array([*action[:3], -action[3]], np.float32))  # its gripper opens with 1
        return self.observed(), self.evaluate()

    def get_action(self, obs: np.ndarray) -> np.ndarray:
        """The expert's action for what it sees."""
        hand = obs[:3]
        opening = obs[3]
        thing = obs[4:7]
        goal = obs[7:10]
        if self.grips:
            return _carry(hand, opening, thing, goal)
        return _push(hand, thing, goal)


def thing(task: str) -> str:
    """The body that the task is about."""
    if "joint" in TASKS[task]:
        return THING
    return "object0"


def _with_gate(env: type) -> type:
    """The environment with a gate on its table."""

    class Fixed(env):
        def _initialize_simulation(self) -> None:
            scene = mujoco.MjSpec.from_file(self.fullpath)
            body = scene.worldbody.add_body(name=BASE).add_body(name=THING, gravcomp=1.0)
            body.add_joint(
                name=THING,
                type=mujoco.mjtJoint.mjJNT_HINGE,
                axis=(0, 0, -1),
                damping=2.0,
                frictionloss=0.1,
            )
            box = mujoco.mjtGeom.mjGEOM_BOX
            red = (0.8, 0.1, 0.1, 1.0)
            body.add_geom(type=box, size=GATE_SIZE, pos=GATE_MIDDLE, rgba=red, density=300)
            body.add_site(name=THING, pos=GATE_POINT)
            self.model = scene.compile()
            self.data = mujoco.MjData(self.model)
            self._model_names = self._utils.MujocoModelNames(self.model)
            self._env_setup(initial_qpos=self.initial_qpos)
            self.initial_time = self.data.time
            self.initial_qpos, self.initial_qvel = self.data.qpos.copy(), self.data.qvel.copy()

    return Fixed


def _push(hand: np.ndarray, block: np.ndarray, goal: np.ndarray) -> np.ndarray:
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
        is_held = opening < 0.055 / WIDE
        return np.array([*((goal - block) / 0.05 if is_held else -off / 0.05), 1.0])
    target = block if np.linalg.norm(off[:2]) < 0.015 else block + np.array([0, 0, ABOVE])
    return np.array([*((target - hand) / 0.05), -1.0])

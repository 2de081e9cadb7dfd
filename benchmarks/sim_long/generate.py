#!/usr/bin/env python3
"""Record long robot episodes of several steps, with exact ground truth, from robosuite (MuJoCo).

usage: python -m benchmarks.sim_long.generate [--out data] [--only 3 8] [--check]
Python 3.12: pip install -r benchmarks/sim_long/requirements.txt ; libosmesa6 for headless rendering.

A Panda arm sorts groceries into bins and stacks cubes with a scripted policy; some runs miss a grasp, lose an object,
pause or stop. README.md has the schema, the step rules and the formula.
"""


# ruff: noqa: RUF005  array + tuple adds vectors here; it does not join lists

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise, product
from typing import Any

os.environ.setdefault("MUJOCO_GL", "osmesa")
warnings.filterwarnings("ignore")

import numpy as np
import pyarrow as pa
import robosuite
from scipy.spatial.transform import Rotation

from benchmarks import simulated
from benchmarks.simulated import FLOATS, Eye, Form, Recorded

logging.getLogger("robosuite_logs").setLevel(logging.ERROR)

FPS = 10  # frames per second = control steps per second, in simulated time
LIFTED = 0.03  # metres above its resting place from which a gripped object counts as grasped
CLEAR = 0.05  # metres between hand and grasp point from which a released object counts as placed
W_MOVE = 0.8  # share of a step that the motion is worth; the rest is lifting, or letting go
IDLE = 20  # frames of a pause: 2 s
TAIL = 12  # frames after the last step, or after the arm has given up
OPEN = -1.0
CLOSED = 1.0
MAX_FRAMES = 600


@dataclass
class Thing:
    """An object that the task moves, and where it has to go."""

    key: str  # robosuite's name of the object
    words: str  # its name in step names
    where: str  # "into its bin", "onto the green cube"
    grip: tuple  # grasp point: offset from the body's origin, turned by its yaw
    turn: float  # a turn by this angle about z gives the same shape
    support: str = ""  # what it is put on, when that is another object
    near: float = 0.02  # at its goal: within this distance of it, sideways,
    level: float = 0.03  # and in height
    box: tuple = ()  # or, sideways, anywhere within ((x low, y low), (x high, y high))
    goal_xy: np.ndarray | None = None
    goal_z: float = 0.0  # height of its origin at the goal (above the support's origin)
    above: float = 0.05  # height over the goal from which the hand lowers it slowly

    def names(self) -> list[str]:
        return [f"Grasp {self.words}", f"Place {self.words} {self.where}"]


# the bins 8 cm nearer than by default: the arm cannot reach the middle of the farthest one there
OPTIONS = {"PickPlace": {"bin1_pos": (0.02, -0.32, 0.8), "bin2_pos": (0.02, 0.21, 0.8)}}
HIGH = {"PickPlace": (1.11, 1.13), "Stack": (0.99, 1.02)}  # travel height of the hand
PACE = {"PickPlace": (0.9, 1.0), "Stack": (0.5, 0.65)}  # share of full speed
CAMERAS = {  # azimuth, elevation, distance
    "PickPlace": {"lookat": (-0.02, -0.05, 0.96), "from": (160, -38, 1.34)},
    "Stack": {"lookat": (-0.04, 0.0, 0.92), "from": (150, -30, 0.94)},
}
GROCERIES = {  # words, grasp point, symmetry
    "Milk": ("the milk carton", (0, 0, 0.055), np.pi / 2),
    "Bread": ("the bread", (0, 0, 0.0), np.pi),
    "Cereal": ("the cereal box", (0, 0, 0.045), np.pi),
    "Can": ("the can", (0, 0, 0.015), np.pi / 2),
}


def listing(words: list[str]) -> str:
    if len(words) == 1:
        return words[0]
    return ", ".join(words[:-1]) + " and " + words[-1]


class Sim:
    """robosuite, two cameras, and the simulator's own knowledge of what has been done."""

    def __init__(self, env_name: str, seed: int) -> None:
        self.name = env_name
        self.rng = np.random.default_rng(seed)
        config = robosuite.load_composite_controller_config(controller="BASIC", robot="Panda")
        self.env = robosuite.make(
            env_name,
            robots="Panda",
            controller_configs=config,
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            control_freq=FPS,
            initialization_noise=None,
            ignore_done=True,
            horizon=10**9,
            seed=0,
            **OPTIONS.get(env_name, {}),
        )
        self.obs = self.env.reset()
        self.m = self.env.sim.model._model
        self.d = self.env.sim.data._data
        self.site = self.env.robots[0].eef_site_id["right"]
        self.gripper = self.env.robots[0].gripper["right"]
        m = self.m
        for g in range(m.ngeom):  # see-through copies of the objects at their goals
            if m.body(m.geom_bodyid[g]).name.startswith("Visual"):
                m.geom_rgba[g, 3] = 0
                m.geom_matid[g] = -1
        self.eye = Eye(m, CAMERAS[env_name])
        self.eye.option.geomgroup[0] = 0  # collision shapes
        self.eye.option.sitegroup[:] = 0
        objects = getattr(self.env, "objects", None) or [self.env.cubeA, self.env.cubeB]
        self.models = {o.name: o for o in objects}

    # what the policy observes
    def hand(self) -> np.ndarray:
        return self.d.site_xpos[self.site].copy()

    def turned(self) -> np.ndarray:
        return self.d.site_xmat[self.site].reshape(3, 3).copy()

    def pos(self, key: str) -> np.ndarray:
        return self.obs[key + "_pos"].copy()

    def yaw(self, key: str) -> float:
        return float(Rotation.from_quat(self.obs[key + "_quat"]).as_euler("ZYX")[0])

    def grip_point(self, t: Thing) -> np.ndarray:
        return self.pos(t.key) + Rotation.from_euler("z", self.yaw(t.key)).apply(t.grip)

    def goal(self, t: Thing) -> np.ndarray:
        if t.support:
            return self.pos(t.support) + (0, 0, t.goal_z)
        return np.array([*t.goal_xy, t.goal_z])

    # what only the simulator knows
    def touching(self, key: str) -> bool:
        return self.env.check_contact(self.gripper, self.models[key])

    def gripped(self, key: str) -> bool:
        return self.env._check_grasp(self.gripper, self.models[key])

    def at_goal(self, t: Thing) -> bool:
        off = self.pos(t.key) - self.goal(t)
        position = self.pos(t.key)[:2]
        if t.box:
            side = ((t.box[0] < position) & (position < t.box[1])).all()
        else:
            side = np.linalg.norm(off[:2]) < t.near
        return bool(side and abs(off[2]) < t.level)

    def put(self, key: str, xy: np.ndarray, z: float, yaw: float) -> None:
        """Move an object before the recording starts."""
        q = Rotation.from_euler("z", yaw).as_quat()[[3, 0, 1, 2]]
        self.env.sim.data.set_joint_qpos(self.models[key].joints[0], np.array([*xy, z, *q]))

    def settle(self) -> None:
        self.env.sim.forward()
        for _ in range(FPS):
            self.step(np.array([0, 0, 0, 0, 0, 0, OPEN]))

    def step(self, action: np.ndarray) -> None:
        self.obs = self.env.step(action)[0]

    def pictures(self) -> list[np.ndarray]:
        return [self.eye.picture(self.d), self.eye.picture(self.d, "robot0_eye_in_hand")]

    def state(self) -> np.ndarray:
        q = Rotation.from_matrix(self.turned()).as_quat()
        q *= np.sign(q[np.argmax(np.abs(q))])
        opening = np.clip(np.abs(self.obs["robot0_gripper_qpos"]).sum() / 0.08, 0, 1)
        return np.array([*self.hand(), *q, opening], np.float32)


def groceries(seed: int, keys: Sequence[str]) -> tuple[Sim, list[Thing], str]:
    """All four objects lie in the left bin; `keys` are the ones to move, in this order."""
    s = Sim("PickPlace", seed)
    slots = s.rng.permutation(list(product((-0.05, 0.10), (-0.43, -0.22))))
    for (x, y), key in zip(slots, GROCERIES, strict=True):
        xy = np.array([x, y]) + s.rng.uniform((-0.015, -0.03), (0.015, 0.03))
        s.put(key, xy, s.pos(key)[2], s.rng.uniform(-0.3, 0.3))
    s.settle()
    plan = []
    for key in keys:
        words, grip, turn = GROCERIES[key]
        i = s.env.obj_names.index(key)
        middle = s.env.target_bin_placements[i, :2]
        plan.append(
            Thing(
                key,
                words,
                "into its bin",
                grip,
                turn,
                goal_xy=middle,
                goal_z=s.pos(key)[2],
                box=(middle - (0.1, 0.125), middle + (0.1, 0.125)),
                level=0.08,
            )
        )
    if len(plan) == 1:
        return s, plan, f"Put {plan[0].words} into its bin."
    return s, plan, f"Put {listing([t.words for t in plan])} into their bins, in this order."


def cubes(seed: int) -> tuple[Sim, list[Thing], str]:
    """A red and a green cube on a table, to the left and to the right."""
    s = Sim("Stack", seed)
    side = s.rng.choice([-1, 1])
    a = np.array([s.rng.uniform(-0.08, 0.04), side * s.rng.uniform(0.09, 0.16)])
    b = np.array([s.rng.uniform(-0.04, 0.08), -side * s.rng.uniform(0.06, 0.14)])
    s.put("cubeA", a, 0.825, s.rng.uniform(-0.4, 0.4))
    s.put("cubeB", b, 0.83, s.rng.uniform(-0.4, 0.4))
    s.settle()
    red = Thing(
        "cubeA",
        "the red cube",
        "onto the green cube",
        (0, 0, 0),
        np.pi / 2,
        support="cubeB",
        goal_z=0.045,
        level=0.01,
    )
    return s, [red], "Stack the red cube onto the green cube."


@dataclass
class Truth:
    """How far each object is: 0 not grasped, 1 grasped and lifted, 2 placed and let go."""

    sim: Sim
    plan: list[Thing]
    done: dict = field(default_factory=dict)  # key -> 0, 1, 2
    rest: dict = field(default_factory=dict)  # key -> height when nothing touched it last
    reach0: dict = field(default_factory=dict)  # key -> hand distance when it came up first
    move0: dict = field(default_factory=dict)  # key -> goal distance when it was grasped last

    def update(self) -> None:
        s = self.sim
        for t in self.plan:
            k = t.key
            state = self.done.get(t.key, 0)
            touched = s.touching(k)
            is_at_goal = s.at_goal(t)
            if not touched:
                self.rest[k] = s.pos(k)[2]
            if state == 0 and s.gripped(k) and self.lift(t) >= LIFTED:
                state = 1
                self.move0[k] = np.linalg.norm(s.pos(k) - s.goal(t))
            elif state == 1 and not touched:
                if not is_at_goal:
                    state = 0
                elif np.linalg.norm(s.hand() - s.grip_point(t)) >= CLEAR:
                    state = 2
            elif state == 2 and not is_at_goal:
                state = 0
            self.done[k] = state
        t = self.current()
        if t and t.key not in self.reach0:
            self.reach0[t.key] = np.linalg.norm(s.hand() - s.grip_point(t))

    def lift(self, t: Thing) -> float:
        return self.sim.pos(t.key)[2] - self.rest[t.key]

    def current(self) -> Thing | None:
        return next((t for t in self.plan if self.done.get(t.key, 0) < 2), None)

    def stage(self) -> int:
        """Index of the current step in planned_steps; their number when all are done."""
        t = self.current()
        if t is None:
            return 2 * len(self.plan)
        return 2 * self.plan.index(t) + self.done[t.key]

    def progress(self) -> float:
        s = self.sim
        t = self.current()
        n = 2 * len(self.plan)
        if t is None:
            return 1.0
        k = t.key
        gap = np.linalg.norm(s.hand() - s.grip_point(t))
        if self.done[k] == 0:
            move = 1 - gap / self.reach0[k]
            step_share = self.lift(t) / LIFTED if s.gripped(k) else 0
        else:
            move = 1 - np.linalg.norm(s.pos(k) - s.goal(t)) / self.move0[k]
            step_share = gap / CLEAR if s.at_goal(t) and not s.touching(k) else 0
        part = W_MOVE * np.clip(move, 0, 1) + (1 - W_MOVE) * np.clip(step_share, 0, 1)
        return float((sum(self.done.values()) + part) / n)


class Policy:
    """The script: a generator of actions. Trouble is written into it by the episode's plan:

    trouble = {step index: what}: "high" or "beside" (the grasp misses), "slip" (the object falls back before it is
    lifted), "drop" (lost on the way, picked up again), "lose" (lost, the arm gives up), "before" and "pause" (2 s of
    stillness before the step or in the middle of it), "stop" (the arm stops before it, for good).
    """

    def __init__(self, sim: Sim, plan: list[Thing], truth: Truth, trouble: dict[int, Any]) -> None:
        self.s = sim
        self.plan = plan
        self.truth = truth
        self.trouble = {
            k: list(v) if isinstance(v, (list, tuple)) else [v] for k, v in trouble.items()
        }
        self.still = False
        self.attempt = 0
        self.failed = {}
        self.grip = OPEN
        r = sim.rng
        self.high = r.uniform(*HIGH[sim.name])
        self.pace = r.uniform(*PACE[sim.name])
        self.home = sim.hand()

    def fail(self, reason: str) -> None:
        self.failed[self.attempt] = reason
        self.attempt += 1

    def action(self, target: np.ndarray, yaw: float, cap: float) -> np.ndarray:
        """One control step towards `target` and `yaw`, at no more than `cap` of this run's pace."""
        s = self.s
        move = 1.3 * (target - s.hand()) / 0.05
        move *= min(1.0, cap * self.pace / max(1e-9, np.abs(move).max()))
        down = Rotation.from_euler("z", yaw).as_matrix() @ [[0, 1, 0], [1, 0, 0], [0, 0, -1]]
        spin = Rotation.from_matrix(down @ s.turned().T).as_rotvec() / 0.5
        spin *= min(1.0, 0.5 / max(1e-9, np.abs(spin).max()))
        return np.clip(np.array([*move, *spin, self.grip]), -1, 1)

    def go(
        self,
        target: np.ndarray | Callable[[], np.ndarray],
        yaw: float,
        cap: float = 1.0,
        near: float = 0.01,
        limit: int = 40,
    ) -> Iterator[np.ndarray]:
        """target may be a function, to follow an object."""
        for _ in range(limit):
            p = target() if callable(target) else target
            if np.linalg.norm(p - self.s.hand()) < near:
                return
            yield self.action(p, yaw, cap)

    def wait(self, frames: int, still: bool = True) -> Iterator[np.ndarray]:
        self.still = still
        for _ in range(frames):
            yield np.array([0, 0, 0, 0, 0, 0, self.grip])
        self.still = False

    def above(self, p: np.ndarray, z: float | None = None) -> np.ndarray:
        return np.array([p[0], p[1], self.high if z is None else z])

    def hold_yaw(self, t: Thing) -> float:
        """The smallest hand yaw that fits the object as it lies."""
        y = self.s.yaw(t.key)
        return y - t.turn * np.round(y / t.turn)

    def aim(self, t: Thing, trouble: str | None) -> tuple[np.ndarray, float]:
        """Where the gripper closes, and the hand's yaw there."""
        side_offset = 0.085 if t.key == "Cereal" else 0.065
        off = {"high": (0, 0, 0.075), "beside": (side_offset, 0, 0)}.get(trouble, (0, 0, 0))
        yaw = self.hold_yaw(t)
        return self.s.grip_point(t) + Rotation.from_euler("z", yaw).apply(off), yaw

    def grasp(self, t: Thing, trouble: str | None) -> Iterator[np.ndarray]:
        s = self.s
        point, yaw = self.aim(t, trouble)
        self.grip = OPEN
        if s.hand()[2] < self.high - 0.03:
            yield from self.go(self.above(s.hand()), yaw, near=0.04)
        yield from self.go(self.above(point), yaw, near=0.035)
        if trouble == "pause":
            yield from self.wait(IDLE)
        point, yaw = self.aim(t, trouble)  # again: a lost object may have been falling
        yield from self.go(self.above(point, point[2] + 0.06), yaw, cap=0.8, near=0.015)
        yield from self.go(point, yaw, cap=0.5, near=0.006)
        self.grip = CLOSED
        yield from self.wait(6, still=False)
        if trouble == "slip":
            yield from self.go(point + (0, 0, 0.018), yaw, cap=0.25, near=0.006)
            self.grip = OPEN
            yield from self.wait(5, still=False)
            self.fail("slipped")
        elif trouble in ("high", "beside"):
            yield from self.go(self.above(point, point[2] + 0.12), yaw, cap=0.8, near=0.02)
            self.fail("missed")
        else:
            yield from self.go(
                self.above(point, min(self.high, point[2] + 0.08)), yaw, cap=0.5, near=0.02
            )
            if self.truth.done[t.key] == 0:
                self.fail("missed")

    def place(self, t: Thing, trouble: str | None) -> Iterator[np.ndarray]:
        s = self.s
        yaw = self.hold_yaw(t)
        start = s.hand()
        lost_share = {"drop": 0.13, "lose": 0.45}.get(trouble, 2.0)

        def over() -> np.ndarray:  # where the hand has to be for the object to be at its goal
            return s.goal(t) + s.hand() - s.pos(t.key)

        if trouble == "drop":  # low, so that it falls back upright
            yield from self.go(self.above(start, start[2] + 0.02), yaw, near=0.02)
        else:
            yield from self.go(self.above(start), self.turn_now(), near=0.03)
        way = np.linalg.norm(over()[:2] - s.hand()[:2])
        turn0 = self.turn_now()
        for frame in range(1, 81):
            target = self.above(over(), s.hand()[2] if trouble == "drop" else None)
            distance_left = np.linalg.norm(target[:2] - s.hand()[:2])
            if 1 - distance_left / way >= lost_share:
                self.grip = OPEN
                for _ in range(FPS):
                    if self.truth.done[t.key] == 0:
                        return
                    yield np.array([0, 0, 0, 0, 0, 0, self.grip])
                raise RuntimeError("the object was not lost")
            if trouble == "pause" and 1 - distance_left / way >= 0.5:
                trouble = None
                yield from self.wait(IDLE)
            if distance_left < 0.012:
                break
            share = min(1.0, frame / 12)
            yield self.action(
                target, turn0 + share * (yaw - turn0), 0.4 if trouble == "drop" else 1.0
            )
            if self.truth.done[t.key] == 0:
                return
        yield from self.go(lambda: over() + (0, 0, t.above), yaw, cap=0.8, near=0.015)
        yield from self.go(lambda: over() + (0, 0, 0.004), yaw, cap=0.35, near=0.006, limit=25)
        self.grip = OPEN
        yield from self.wait(4, still=False)
        for _ in range(12):
            if self.truth.done[t.key] == 2:
                return
            yield self.action(s.hand() + (0, 0, 0.1), yaw, 0.7)

    def turn_now(self) -> float:
        return float(np.arctan2(self.s.turned()[1, 1], self.s.turned()[0, 1]))

    def run(self) -> Iterator[np.ndarray]:
        for i, t in enumerate(self.plan):
            for _ in range(6):
                step = 2 * i + self.truth.done[t.key]
                if self.truth.done[t.key] == 2:
                    break
                trouble = self.trouble[step].pop(0) if self.trouble.get(step) else None
                if trouble == "stop":
                    yield from self.wait(TAIL + 6)
                    return
                if trouble == "before":
                    yield from self.wait(IDLE)
                    continue
                yield from (self.place if self.truth.done[t.key] else self.grasp)(t, trouble)
                if trouble == "lose":
                    yield from self.wait(TAIL + 3)
                    return
            else:
                raise RuntimeError(f"gave up on {t.words}")
        home = self.above(0.5 * (self.home + self.s.hand()))
        for _ in range(TAIL):
            yield self.action(home, 0.0, 0.8)


def record(
    sim: Sim, plan: list[Thing], trouble: dict[int, Any]
) -> tuple[list[dict], list[np.ndarray], list[np.ndarray], dict[int, str]]:
    """Measurements, front and wrist picture of each frame, and why each failed attempt failed."""
    truth = Truth(sim, plan)
    policy = Policy(sim, plan, truth, trouble)
    rows = []
    front = []
    wrist = []
    truth.update()
    actions = policy.run()
    while len(rows) < MAX_FRAMES:
        action = next(actions, None)
        last = action is None
        if last:
            action = np.array([0, 0, 0, 0, 0, 0, policy.grip])
            policy.still = policy.still or bool(rows and rows[-1]["kind"] == "idle")
        t = truth.current()
        a, b = sim.pictures()
        front.append(a)
        wrist.append(b)
        rows.append(
            {
                "state": sim.state(),
                "action": action.astype(np.float32),
                "stage": truth.stage(),
                "kind": "done" if t is None else "idle" if policy.still else "step",
                "attempt": policy.attempt,
                "progress": truth.progress(),
                "success": t is None,
                "contact": any(sim.touching(k) for k in sim.models),
                "held": next((i for i, x in enumerate(plan) if sim.gripped(x.key)), -1),
                "hand": float(np.linalg.norm(sim.hand() - sim.grip_point(t))) if t else 0.0,
                "goal": float(np.linalg.norm(sim.pos(t.key) - sim.goal(t))) if t else 0.0,
                "objects": np.concatenate([sim.pos(x.key) for x in plan]),
            }
        )
        if last:
            break
        sim.step(action)
        truth.update()
    return rows, front, wrist, policy.failed


def ending(later_rows: list[dict], step: int, attempt: int, failed: dict[int, str]) -> str:
    """How an attempt at a step ended, by the rows that come after it."""
    stage = later_rows[0]["stage"] if later_rows else step
    if stage != step:
        if stage > step:
            return "completed"
        return "dropped"
    if later_rows and later_rows[0]["attempt"] > attempt:
        return failed[attempt]
    if any(r["kind"] == "step" for r in later_rows):
        return "interrupted"
    return "unfinished"


def segments(rows: list[dict], steps: list[str], failed: dict[int, str]) -> list[dict[str, Any]]:
    """Runs of equal (kind, step, attempt), named, with how each one ended."""
    keys = [
        (
            r["kind"],
            r["stage"] if r["kind"] == "step" else -1,
            r["attempt"] if r["kind"] == "step" else -1,
        )
        for r in rows
    ]
    cuts = [0] + [i for i in range(1, len(keys)) if keys[i] != keys[i - 1]] + [len(keys)]
    out = []
    for a, b in pairwise(cuts):
        kind, step, attempt = keys[a]
        if kind != "step":
            name = kind.capitalize()
            outcome = kind
        else:
            name = steps[step]
            outcome = ending(rows[b:], step, attempt, failed)
        out.append(
            {
                "name": name,
                "kind": kind,
                "start": a,
                "end": b,
                "completed": outcome in ("completed", "done"),
                "outcome": outcome,
            }
        )
    return out


G = groceries
PLAN = [  # (scene, its arguments, what goes wrong, in a word)
    (cubes, (1,), {}, "expert"),
    (cubes, (2,), {}, "expert"),
    (cubes, (3,), {0: "high"}, "retry"),
    (cubes, (4,), {1: "drop"}, "drop_retry"),
    (cubes, (5,), {1: "lose"}, "dropped"),
    (G, (11, ("Milk", "Can")), {}, "expert"),
    (G, (12, ("Bread", "Cereal")), {}, "expert"),
    (G, (13, ("Can", "Bread", "Milk")), {}, "expert"),
    (G, (14, ("Cereal", "Milk", "Bread")), {}, "expert"),
    (G, (15, ("Milk", "Bread", "Cereal", "Can")), {}, "expert"),
    (G, (16, ("Can", "Cereal", "Bread", "Milk")), {}, "expert"),
    (G, (17, ("Bread", "Can")), {0: "beside"}, "retry"),
    (G, (18, ("Cereal", "Milk")), {2: ["slip", "high"]}, "retry"),
    (G, (19, ("Can", "Milk", "Cereal")), {3: "lose"}, "dropped"),
    (G, (20, ("Cereal", "Can", "Bread", "Milk")), {4: "stop"}, "stopped"),
    (G, (21, ("Bread", "Milk")), {2: "before"}, "paused"),
    (G, (22, ("Can", "Cereal", "Milk")), {3: "pause"}, "paused"),
    (G, (23, ("Bread", "Can", "Cereal")), {1: "drop"}, "drop_retry"),
]
FAILS = ("dropped", "stopped")
COLUMNS = {
    "observation.state": ("state", FLOATS),
    "action": ("action", FLOATS),
    "true_progress": ("progress", pa.float32()),
    "stage": ("stage", pa.int64()),
    "kind": ("kind", pa.string()),
    "sim.success": ("success", pa.bool_()),
    "sim.contact": ("contact", pa.bool_()),
    "sim.held": ("held", pa.int64()),
    "sim.object_to_goal": ("goal", pa.float32()),
    "sim.hand_to_object": ("hand", pa.float32()),
    "sim.object_positions": ("objects", FLOATS),
}
FORM = Form(("videos", "videos_wrist"), COLUMNS, FPS, crf=27, group=2 * FPS)


def check_run(facts: dict[str, Any], rows: dict[str, np.ndarray]) -> None:
    n = facts["num_frames"]
    steps = facts["planned_steps"]
    s = facts["segments"]
    assert (rows["observation.state"].shape, rows["action"].shape) == ((n, 8), (n, 7))
    assert np.isfinite(rows["observation.state"]).all()
    assert np.abs(rows["action"]).max() <= 1
    for x in s:
        assert set(rows["kind"][x["start"] : x["end"]]) == {x["kind"]}
        if x["kind"] == "step":
            assert set(rows["stage"][x["start"] : x["end"]]) == {steps.index(x["name"])}
    p = rows["true_progress"]
    stage = rows["stage"]
    good = rows["sim.success"]
    assert ((p == 1) == good).all()
    assert (good == (stage == len(steps))).all()
    assert (p * len(steps) >= stage - 1e-5).all()
    assert (p * len(steps) <= stage + 1 + 1e-5).all()
    assert bool(good[-1]) == facts["success"] == (s[-1]["kind"] == "done")
    completed_names = [x["name"] for x in s if x["completed"] and x["kind"] == "step"]
    assert facts["success"] <= (set(completed_names) == set(steps)), facts["episode"]


def episode(
    scene: Callable[..., tuple[Sim, list[Thing], str]],
    args: tuple,
    trouble: dict[int, Any],
    kind: str,
) -> Recorded:
    """Record one entry of a plan, and close its simulator."""
    sim, plan, text = scene(*args)
    steps = list(chain.from_iterable(t.names() for t in plan))
    rows, front, wrist, failed = record(sim, plan, trouble)
    success = rows[-1]["success"]
    if scene is cubes or (scene is groceries and len(plan) == 4):
        assert bool(sim.env._check_success()) == success, "robosuite does not agree"
    sim.eye.renderer.close()
    sim.env.close()
    facts = {
        "task": text,
        "env": sim.name,
        "seed": args[0],
        "policy": kind,
        "success": success,
        "fps": FPS,
        "num_frames": len(rows),
        "planned_steps": steps,
        "segments": segments(rows, steps, failed),
    }
    return Recorded(facts, rows, {"videos": front, "videos_wrist": wrist})


def recorded(plan: Sequence[tuple], only: Sequence[int] | None) -> Iterator[Recorded]:
    """The runs that ended as planned."""
    for place, (scene, args, trouble, kind) in enumerate(plan):
        if only and place not in only:
            continue
        try:
            run = episode(scene, args, trouble, kind)
        except (AssertionError, RuntimeError) as error:
            print(f"left out: {place} {kind}: {error}", flush=True)
            continue
        if run.facts["success"] == (kind not in FAILS):
            yield run
        else:
            print(f"left out: {place} did not end as {kind} does", flush=True)


def main() -> None:
    parser = simulated.arguments(__doc__, __file__)
    parser.add_argument("--only", type=int, nargs="+", help="these entries of the plan only")
    args = parser.parse_args()
    if not args.check:
        simulated.write(args.out, FORM, recorded(PLAN, args.only))
    simulated.check(args.out, FORM, check_run)


if __name__ == "__main__":
    main()

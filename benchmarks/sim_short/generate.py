#!/usr/bin/env python3
"""Record short robot episodes with exact ground truth from Meta-World (MuJoCo).

usage: python -m benchmarks.sim_short.generate [--out data] [--only TASK] [--check]
Python 3.12: pip install -r benchmarks/sim_short/requirements.txt ; libosmesa6 for headless rendering.

6 tasks x 6 start states with the scripted expert policies, and of each task further runs that stop half-way, stall
and go on, or miss the object. README.md has the schema, the progress formula and the segment rules.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

os.environ.setdefault("MUJOCO_GL", "osmesa")
warnings.filterwarnings("ignore")

import metaworld
import mujoco
import numpy as np
import pyarrow as pa
from metaworld.policies import ENV_POLICY_MAP

from benchmarks import simulated
from benchmarks.simulated import FLOATS, SIZE, Eye, Form, Recorded

FPS = 20  # frames per second of the recording, in simulated time
SUBSTEPS = 4  # 80 Hz control steps per frame: 4 x 12.5 ms = 50 ms, so real time
HOLD = 8  # frames held still after success
MAX_FRAMES = 160
CONTACT = 0.003  # metres between hand and object that count as touching
MOVED = 0.005  # metres of object motion since first contact that count as moving
W_REACH = 0.3  # share of the progress that the approach is worth
MIN_CONTACT = 2  # a contact phase shorter than this many frames joins the next one
TASK_SEED = (
    42  # the seed of Meta-World's list of 50 start states; seeds from 50 on are of the next list
)
START = (
    0,
    2,
    5,
    8,
    11,
    14,
    1,
    4,
    7,
    10,
    13,
    16,
    3,
    6,
    9,
    12,
    15,
    *range(17, 50),
)  # which of them each seed takes
STALL = 40  # frames that a stalled run stands still (2 s)
STALL_AT = 0.5  # share of the object's way after which a stalled run stands still
STOP_AT = (0.3, 0.5, 0.7)  # and after which a stopped run freezes, by seed
VIEW = {"lookat": (0.03, 0.72, 0.10), "from": (140, -32, 1.15)}  # azimuth, elevation, distance
MISS = (0.14, 0.0, 0.0)  # how far beside the object a missed run aims (m)

VERBS = ("reach", "contact", "move", "hold")  # the phases of a run, in words


def task(text: str, verbs: str, **fields: Any) -> dict[str, Any]:
    """What is said of a task: its text, its phases in words, and what stands in the comment below."""
    return {"text": text, "verbs": dict(zip(VERBS, verbs.split("; "), strict=True)), **fields}


# limit: cap on |x|,|y|,|z| of the expert's action, so that the arm moves at a calm speed
# done:  the object-to-goal distance at which Meta-World calls the task solved
# miss:  instead of MISS, where that would touch something or lead the hand away from the start
# settle: frames before the first recorded one, where the object would move by itself at first
# grip:  the gripper stays open until the hand is this near to what it aims at (m); a calm hand would close too soon
# thing: the body that contact counts with, where it is not among the others or they do not count
# other: where the second missed run of a task aims, if not on the other side of the object
TASKS = {
    "drawer-open": task(
        "Open the green drawer.",
        "reach for the drawer handle; hook the drawer handle; pull the drawer open; hold the drawer open",
        limit=0.25,
        done=0.03,
    ),
    "button-press-topdown": task(
        "Press the red button from above.",
        "move above the button and down to it; touch the button; push the button down; keep the button pressed",
        limit=0.30,
        done=0.024,
    ),
    "window-open": task(
        "Slide the window open by its handle.",
        "reach for the window handle; touch the window handle; slide the window open; stay at the open window",
        limit=0.35,
        done=0.05,
    ),
    "faucet-open": task(
        "Turn the faucet handle.",
        "reach for the faucet handle; touch the faucet handle; turn the faucet handle; stay at the turned faucet",
        limit=0.25,
        done=0.07,
    ),
    "plate-slide": task(
        "Slide the black plate into the goal.",
        "reach for the plate; touch the plate; slide the plate into the goal; stay at the plate in the goal",
        limit=0.20,
        done=0.07,
    ),
    "pick-place": task(
        "Pick up the red cylinder and move it to the blue marker.",
        "reach for the cylinder; grasp the cylinder; carry the cylinder to the blue marker; "
        "hold the cylinder at the marker",
        limit=0.20,
        done=0.07,
        sites=True,
    ),
}


MORE_TASKS = {  # of benchmarks/policy
    "door-close": task(
        "Close the door.",
        "reach for the open door; touch the door; push the door shut; stay at the closed door",
        limit=0.25,
        done=0.08,
        settle=12,
        miss=(-0.14, 0.0, 0.0),
    ),
    "plate-slide-side": task(
        "Slide the black plate sideways into the goal.",
        "reach for the plate; touch the plate; slide the plate into the goal; stay at the plate in the goal",
        limit=0.20,
        done=0.07,
        miss=(-0.14, 0.0, 0.0),
    ),
    "coffee-push": task(
        "Push the mug under the coffee machine.",
        "reach for the mug; grasp the mug; push the mug under the machine; hold the mug under the machine",
        limit=0.25,
        done=0.07,
        grip=0.08,
        thing="obj",
    ),
}


Run = tuple[
    str, int, str, float
]  # task, seed, kind of run, and the share of the way at which it stops or stalls


def shipped_plan() -> list[Run]:
    plan = [(t, s, "expert", 1.0) for t, s in product(TASKS, range(6))]
    for t in TASKS:
        plan += [(t, s, "stopped", STOP_AT[s % 3]) for s in (0, 1)]
        plan += [(t, s, "stalled", STALL_AT) for s in (2, 3)]
        plan += [(t, 4, "missed", 1.0)]
    return plan


class Sim:
    """One task from one start state: the simulator, its scripted expert and a camera."""

    env: Any  # Meta-World's, or one in its form
    policy: Any

    def __init__(self, task: str, spec: dict[str, Any], seed: int, side_px: int = SIZE) -> None:
        self.spec = spec
        thing = spec.get("thing")
        name = task + "-v3"
        mt = metaworld.MT1(name, seed=TASK_SEED + seed // len(START))
        self.env = mt.train_classes[name]()
        self.env.set_task(mt.train_tasks[START[seed % len(START)]])
        self.env.max_path_length = 10**9
        self.policy = ENV_POLICY_MAP[name]()
        m = self.env.model
        self.eye = Eye(m, VIEW, side_px)
        if not self.spec.get("sites"):
            self.eye.option.sitegroup[:] = 0  # no goal markers in the picture

        # collision geoms of the hand, and of everything that is not robot or table
        def below(root: str) -> set[int]:
            ids = {m.body(root).id}
            for b in range(m.nbody):
                if m.body_parentid[b] in ids:
                    ids.add(b)
            return ids

        hand = below("right_hand")
        objects = below(thing) if thing else set(range(m.body("mocap").id + 1, m.nbody))
        solid = [g for g in range(m.ngeom) if m.geom_contype[g] or m.geom_conaffinity[g]]
        of_hand = [g for g in solid if m.geom_bodyid[g] in hand]
        of_objects = [g for g in solid if m.geom_bodyid[g] in objects]
        self.pairs = list(product(of_hand, of_objects))
        self.obs, _ = self.env.reset()
        for _ in range(SUBSTEPS * self.spec.get("settle", 0)):
            self.step(np.array([0, 0, 0, -1], np.float32))
        self.info = self.env.evaluate_state(self.obs, np.zeros(4, np.float32))[1]

    def touching(self) -> bool:
        m = self.env.model
        d = self.env.data
        return any(
            mujoco.mj_geomDistance(m, d, a, b, 2 * CONTACT, None) <= CONTACT for a, b in self.pairs
        )

    def picture(self) -> np.ndarray:
        return self.eye.picture(self.env.data)

    def expert(self, shift: np.ndarray | None = None) -> np.ndarray:
        """The expert's action, calmed down; `shift` (m) makes it see the object elsewhere."""
        obs = self.obs.copy()
        if shift is not None:
            obs[4:7] += shift
        a = np.clip(self.policy.get_action(obs), -1, 1)
        a[:3] = np.clip(a[:3], -self.spec["limit"], self.spec["limit"])
        if (
            "grip" in self.spec
            and np.linalg.norm(self.env.tcp_center - obs[4:7]) > self.spec["grip"]
        ):
            a[3] = -1.0
        return a.astype(np.float32)

    def step(self, action: np.ndarray) -> None:
        self.obs, *_, self.info = self.env.step(action)

    def goal_distance(self) -> float:
        return float(self.info["obj_to_target"])


def record(
    task: str, spec: dict[str, Any], seed: int, kind: str, share: float
) -> tuple[list[dict], list[np.ndarray]]:
    """Measurements and picture of each frame; `spec` is the task's entry in the plan's tasks.

    kind: 'expert'; 'stopped' (freezes for good after this share of the way); 'stalled' (there stands still for STALL
    frames, then goes on); 'missed' (aims beside the object).
    """
    s = Sim(task, spec, seed)
    rows = []
    images = []
    still, grip = 0, -1.0  # frames since the arm froze at the end; the last gripper command
    stalled = None  # number of frames when the stall began
    start_distance = s.goal_distance()
    miss = None
    if kind == "missed":
        miss = np.array(s.spec.get("miss", MISS))
    while True:
        row = {
            "state": s.obs[:4].astype(np.float32),
            "goal": s.goal_distance(),
            "hand": float(np.linalg.norm(s.env.tcp_center - s.obs[4:7])),
            "object": s.obs[4:7].copy(),
            "success": bool(s.info["success"]),
            "contact": s.touching(),
        }
        images.append(s.picture())
        rows.append(row)
        way = (start_distance - row["goal"]) / (start_distance - s.spec["done"])
        if kind == "stalled" and stalled is None and way >= share:
            stalled = len(rows)
        if kind == "stopped":
            still += bool(still) or way >= share
        elif kind == "missed":
            still += bool(still) or len(rows) >= 48
        else:
            still += bool(still) or row["success"]
        if still > HOLD or len(rows) >= MAX_FRAMES:
            row["action"] = np.array([0, 0, 0, grip], np.float32)
            break
        actions = []
        for _ in range(SUBSTEPS):
            if still or (stalled is not None and len(rows) < stalled + STALL):
                a = np.array([0, 0, 0, grip], np.float32)
            else:
                a = s.expert(miss)
                grip = float(a[3])
            s.step(a)
            actions.append(a)
            row["contact"] |= s.touching()
        row["action"] = np.mean(actions, axis=0).astype(np.float32)
    s.eye.renderer.close()
    return rows, images


def annotate(rows: list[dict], spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Adds each row's progress in [0, 1]; returns the phases, half-open. The README states the rules."""
    n = len(rows)
    hand = np.array([r["hand"] for r in rows])
    goal = np.array([r["goal"] for r in rows])
    touch = np.flatnonzero([r["contact"] for r in rows])
    good = np.flatnonzero([r["success"] for r in rows])
    first = int(touch[0]) if len(touch) else n
    done_frame = int(good[0]) if len(good) else n
    reference = goal[first] if first < n else goal[0]
    near = hand[first] if first < n else 0.0
    reach = np.clip((hand[0] - hand) / (hand[0] - near), 0, 1)
    reach[first:] = 1.0
    moved_share = np.clip((reference - goal) / (reference - spec["done"]), 0, 1)
    moved_share[:first] = 0.0
    progress = W_REACH * reach + (1 - W_REACH) * moved_share
    for r, p in zip(rows, progress, strict=True):
        r["progress"] = 1.0 if r["success"] else float(p)

    cuts = []
    if first < n:
        shift = np.linalg.norm([r["object"] - rows[first]["object"] for r in rows], axis=1)
        moving_frames = np.flatnonzero((shift > MOVED) & (np.arange(n) >= first))
        move = min(
            int(moving_frames[0]) if len(moving_frames) else n,
            done_frame if done_frame < n else n - 1 - HOLD,
        )
        if move - first < MIN_CONTACT:
            move = first
        cuts = [("reach", 0, first), ("contact", first, move)]
        if done_frame < n:
            cuts += [("move", move, done_frame), ("hold", done_frame, n)]
        else:
            stop = max(
                move, n - 1 - HOLD
            )  # a hand that missed may touch the thing as it stands still
            cuts += [("move", move, stop), ("stop", stop, n)]
    else:
        near_frame = int(np.argmin(hand)) + 1
        cuts = [("reach", 0, near_frame), ("miss", near_frame, n)]
    words = dict(
        spec["verbs"],
        stop="stop before the task is done",
        miss="pull back without having touched the object",
    )
    return [{"name": k, "text": words[k], "start": a, "end": b} for k, a, b in cuts if b > a]


COLUMNS = {
    "observation.state": ("state", FLOATS),
    "action": ("action", FLOATS),
    "true_progress": ("progress", pa.float32()),
    "sim.success": ("success", pa.bool_()),
    "sim.contact": ("contact", pa.bool_()),
    "sim.object_to_goal": ("goal", pa.float32()),
    "sim.hand_to_object": ("hand", pa.float32()),
}
FORM = Form(("videos",), COLUMNS, FPS, crf=23, group=FPS)


def recorded(plan: Sequence[Run]) -> Iterator[Recorded]:
    """The runs that went as planned."""
    for task, seed, kind, share in plan:
        spec = TASKS[task]
        rows, images = record(task, spec, seed, kind, share)
        ok = rows[-1]["success"]
        if ok != (kind in ("expert", "stalled")):
            print(f"left out: {task} seed {seed} {kind}: success is {ok}", flush=True)
            continue
        facts = {
            "task": spec["text"],
            "env": task + "-v3",
            "seed": seed,
            "start_state": START[seed % len(START)],
            "policy": kind,
            "success": ok,
            "fps": FPS,
            "num_frames": len(rows),
            "segments": annotate(rows, spec),
        }
        yield Recorded(facts, rows, {"videos": images})


def check_run(facts: dict[str, Any], rows: dict[str, np.ndarray]) -> None:
    assert rows["observation.state"].shape == rows["action"].shape == (facts["num_frames"], 4)
    assert bool(rows["true_progress"][-1] == 1.0) == facts["success"]


def main() -> None:
    parser = simulated.arguments(__doc__, __file__)
    parser.add_argument("--only", choices=TASKS, help="this task only")
    args = parser.parse_args()
    if not args.check:
        plan = [run for run in shipped_plan() if args.only in (None, run[0])]
        simulated.write(args.out, FORM, recorded(plan))
    simulated.check(args.out, FORM, check_run)


if __name__ == "__main__":
    main()

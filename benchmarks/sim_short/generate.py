#!/usr/bin/env python3
"""Record short robot episodes with exact ground truth from Meta-World and Fetch (MuJoCo).

usage: MUJOCO_GL=osmesa python generate.py [--out data] [--plan PLAN] [--only TASK] [--check]
Python 3.12: pip install -r requirements.txt ; system package libosmesa6 for headless rendering.

6 tasks x 6 start states with the scripted expert policies, and of each task further runs that stop half-way, stall
and go on, or miss the object. The plans held_out, fresh and confirm have other tasks, start states and shares; the plan
last has other start states, shares and speeds of the tasks of the first two, the plan sixth of the rest of the
held_out ones, the plan seventh of half of the fresh and confirm ones; the plan eighth has other texts and another
camera for four; with Fetch (fetch.py) these three have new tasks.
README.md has the schema, the progress formula and the segment rules.
"""

import argparse
import json
import os
import pathlib
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

os.environ.setdefault("MUJOCO_GL", "osmesa")
warnings.filterwarnings("ignore")

import av
import fetch
import metaworld
import mujoco
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from metaworld.policies import ENV_POLICY_MAP

FPS = 20  # frames per second of the recording, in simulated time
SUBSTEPS = 4  # 80 Hz control steps per frame: 4 x 12.5 ms = 50 ms, so real time
SIZE = 256
HOLD = 8  # frames held still after success
MAX_FRAMES = 160
CONTACT = 0.003  # metres between hand and object that count as touching
MOVED = 0.005  # metres of object motion since first contact that count as moving
W_REACH = 0.3  # share of the progress that the approach is worth
MIN_CONTACT = 2  # a contact phase shorter than this many frames joins the next one
TASK_SEED = 42  # the seed of Meta-World's list of 50 start states; seeds from 50 on are of the next list
START = (0, 2, 5, 8, 11, 14, 1, 4, 7, 10, 13, 16)  # which of them seeds 0 to 11 take; from 6 on: held out
START += (3, 6, 9, 12, 15, *range(17, 50))  # seeds 12 to 49: the fresh plan
STALL = 40  # frames that a stalled run stands still (2 s)
STALL_AT = 0.5  # share of the object's way after which a stalled run stands still
STOP_AT = (0.3, 0.5, 0.7)  # and after which a stopped run freezes, by seed
VIEW = {"lookat": (0.03, 0.72, 0.10), "from": (140, -32, 1.15)}  # azimuth, elevation, distance
FETCH_VIEW = {"lookat": (1.32, 0.75, 0.48), "from": (132, -30, 1.25)}
MISS = (0.14, 0.0, 0.0)  # how far beside the object a missed run aims (m)

VERBS = ("reach", "contact", "move", "hold")  # the phases of a run, in words


def task(text: str, verbs: str, **more: Any) -> dict[str, Any]:
    """What is said of a task: its text, its phases in words, and what stands in the comment below."""
    return {"text": text, "verbs": dict(zip(VERBS, verbs.split("; "), strict=True)), **more}


# limit: cap on |x|,|y|,|z| of the expert's action, so that the arm moves at a calm speed
# done:  the object-to-goal distance at which Meta-World calls the task solved
# miss:  instead of MISS, where that would touch something or lead the hand away from the start
# settle: frames before the first recorded one, where the object would move by itself at first
# grip:  the gripper stays open until the hand is this near to what it aims at (m); a calm hand would close too soon
# goal:  the site that has to get to the goal ("" for the object's own point), where Meta-World reports no obj_to_target
# away:  the hand begins this far from where Meta-World begins (m), where it would touch the object from the start
# along: weights of x, y and z in the distance to the goal, where success looks at one of them
# thing: the body that contact counts with, where it is not among the others or they do not count
# other: where the second missed run of a plan aims, if not on the other side of the object
# seeds: instead of FRESH_SEEDS or CONFIRM_SEEDS, where from some of those start states the expert fails, a miss does
#        not come nearer or the goal is hidden
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


HELD_OUT = {  # other tasks, for measuring what was tuned on the six above
    "window-close": task(
        "Slide the window shut by its handle.",
        "reach for the window handle; touch the window handle; slide the window shut; stay at the closed window",
        limit=0.22,
        done=0.05,
        settle=1,
    ),
    "door-close": task(
        "Close the door.",
        "reach for the open door; touch the door; push the door shut; stay at the closed door",
        limit=0.25,
        done=0.08,
        settle=12,
        miss=(-0.14, 0.0, 0.0),
    ),
    "faucet-close": task(
        "Close the faucet by turning its handle.",
        "reach for the faucet handle; touch the faucet handle; turn the faucet handle to the back; "
        "stay at the closed faucet",
        limit=0.25,
        done=0.07,
    ),
    "button-press": task(
        "Push the red button in from the front.",
        "move in front of the button and up to it; touch the button; push the button in; keep the button pushed in",
        limit=0.25,
        done=0.02,
    ),
    "handle-press-side": task(
        "Press the red handle down.",
        "move above the handle and down to it; touch the handle; press the handle down; hold the handle down",
        limit=0.15,
        done=0.02,
        miss=(-0.14, 0.0, 0.0),
    ),
    "handle-pull-side": task(
        "Lift the red handle.",
        "reach under the handle; hook the handle; lift the handle; hold the handle up",
        limit=0.25,
        done=0.08,
    ),
    "plate-slide-back": task(
        "Pull the black plate back to the red marker.",
        "reach behind the plate; touch the plate; pull the plate to the red marker; stay at the plate on the marker",
        limit=0.20,
        done=0.07,
        sites=True,
    ),
    "plate-slide-side": task(
        "Slide the black plate sideways into the goal.",
        "reach for the plate; touch the plate; slide the plate into the goal; stay at the plate in the goal",
        limit=0.20,
        done=0.07,
        miss=(-0.14, 0.0, 0.0),
    ),
    "push": task(
        "Push the red cylinder to the green marker.",
        "reach for the cylinder; grasp the cylinder; push the cylinder to the green marker; "
        "hold the cylinder at the marker",
        limit=0.35,
        done=0.05,
        sites=True,
    ),
    "handle-pull": task(
        "Pull the red handle of the box up.",
        "reach under the handle; hook the handle; lift the handle; hold the handle up",
        limit=0.50,
        done=0.05,
    ),
    "bin-picking": task(
        "Pick up the green block and put it into the blue bin.",
        "reach for the block; grasp the block; carry the block into the blue bin; hold the block in the blue bin",
        limit=0.25,
        done=0.05,
    ),
    "sweep": task(
        "Sweep the wooden block to the right edge of the table.",
        "reach for the block; grasp the block; drag the block to the edge; hold the block at the edge",
        limit=0.70,
        done=0.05,
        settle=12,
        miss=(-0.14, 0.0, 0.0),
    ),
    "push-back": task(
        "Pull the wooden block back to the green marker.",
        "reach for the block; grasp the block; pull the block back to the green marker; hold the block at the marker",
        limit=0.30,
        done=0.07,
        sites=True,
    ),
}


FRESH = {  # again others, looked at once, when the rules tuned on the above were final
    "push-wall": task(
        "Push the red cylinder around the wall to the green marker.",
        "reach for the cylinder; grasp the cylinder; push the cylinder around the wall; "
        "hold the cylinder at the marker",
        limit=0.30,
        done=0.07,
        sites=True,
        seeds=(14, 15, 17, 24, 28, 34, 18, 19, 29, 26, 31),
    ),
    "pick-place-wall": task(
        "Lift the red cylinder over the wall to the blue marker.",
        "reach for the cylinder; grasp the cylinder; carry the cylinder over the wall; hold the cylinder at the marker",
        limit=0.30,
        done=0.07,
        settle=1,
        grip=0.04,
        sites=True,
    ),
    "hand-insert": task(
        "Put the wooden block into the hole, at the blue marker.",
        "reach for the block; grasp the block; carry the block into the hole; hold the block in the hole",
        limit=0.25,
        done=0.05,
        settle=12,
        grip=0.04,
        sites=True,
        seeds=(12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23),
    ),
    "sweep-into": task(
        "Sweep the wooden block into the hole in the table.",
        "reach for the block; grasp the block; drag the block to the hole; hold the block in the hole",
        limit=0.25,
        done=0.05,
        settle=12,
        grip=0.04,
        miss=(0.0, -0.14, 0.0),
        other=(0.14, 0.0, 0.0),
        seeds=(12, 13, 14, 15, 16, 20, 19, 21, 23, 22, 18),
    ),
    "box-close": task(
        "Put the lid onto the wooden box.",
        "reach for the handle of the lid; grasp the handle of the lid; carry the lid onto the box; "
        "hold the lid on the box",
        limit=0.25,
        done=0.08,
        settle=12,
        goal="",
        seeds=(12, 13, 14, 15, 16, 17, 18, 20, 24, 22, 23),
    ),
    "assembly": task(
        "Put the ring onto the red peg.",
        "reach for the green handle of the ring; grasp the green handle; carry the ring onto the peg; "
        "hold the ring on the peg",
        limit=0.40,
        done=0.008,
        goal="RoundNut",
        other=(0.0, -0.14, 0.0),
    ),
    "basketball": task(
        "Carry the ball to the hoop.",
        "reach for the ball; grasp the ball; carry the ball to the hoop; hold the ball in the hoop",
        limit=0.40,
        done=0.08,
        grip=0.02,
        miss=(-0.14, 0.0, 0.0),
        other=(0.0, -0.14, 0.0),
        seeds=(12, 13, 14, 15, 16, 17, 21, 23, 24, 22, 19),
    ),
    "plate-slide-back-side": task(
        "Pull the black plate out of the goal to the red marker.",
        "reach behind the plate; touch the plate; pull the plate to the red marker; stay at the plate on the marker",
        limit=0.20,
        done=0.07,
        sites=True,
        other=(0.0, -0.14, 0.0),
        seeds=(12, 13, 14, 15, 16, 17, 20, 21, 22, 18, 19),
    ),
    "button-press-wall": task(
        "Reach over the wall and push the red button in.",
        "move over the wall and up to the button; touch the button; push the button in; keep the button pushed in",
        limit=0.20,
        done=0.03,
        seeds=(12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23),
    ),
    "button-press-topdown-wall": task(
        "Press the red button behind the wall from above.",
        "move above the button and down to it; touch the button; push the button down; keep the button pressed",
        limit=0.25,
        done=0.024,
    ),
}
FRESH_SEEDS = tuple(range(12, 23))


CONFIRM = {  # and again others, for one look at the final labels
    "handle-press": task(
        "Press the handle of the box down.",
        "move above the handle and down to it; touch the handle; press the handle down; hold the handle down",
        limit=0.20,
        done=0.02,
        away=(0.0, -0.12, 0.08),
        seeds=(0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3),
    ),
    "coffee-push": task(
        "Push the mug under the coffee machine.",
        "reach for the mug; grasp the mug; push the mug under the machine; hold the mug under the machine",
        limit=0.25,
        done=0.07,
        grip=0.08,
        thing="obj",
    ),
    "coffee-pull": task(
        "Pull the mug away from the coffee machine to the green marker.",
        "reach for the mug; grasp the mug; pull the mug to the green marker; hold the mug at the marker",
        limit=0.30,
        done=0.07,
        grip=0.08,
        thing="obj",
        sites=True,
    ),
    "door-lock": task(
        "Turn the knob of the door to lock it.",
        "move above the knob and down to it; touch the knob; turn the knob; stay at the turned knob",
        limit=0.20,
        done=0.02,
        away=(0.0, -0.08, 0.08),
        seeds=(1, 4, 5, 6, 10, 20, 40, 7, 8, 9, 2, 3),
    ),
    "drawer-close": task(
        "Push the green drawer shut.",
        "reach in front of the drawer; touch the drawer; push the drawer shut; stay at the closed drawer",
        limit=0.25,
        done=0.065,
        away=(0.0, -0.1, 0.2),
    ),
    "disassemble": task(
        "Lift the ring off the red peg.",
        "reach for the green handle of the ring; grasp the green handle; lift the ring off the peg; "
        "hold the ring above the peg",
        limit=0.30,
        done=0.0,
        goal="",
        along=(0, 0, 1),
        other=(0.0, -0.14, 0.0),
        seeds=(2, 3, 4, 5, 6, 7, 9, 10, 20, 11, 12, 14),
    ),
    "pick-out-of-hole": task(
        "Take the red cylinder out of the hole to the blue marker.",
        "reach into the hole; grasp the cylinder; carry the cylinder to the blue marker; "
        "hold the cylinder at the marker",
        limit=0.30,
        done=0.07,
        grip=0.03,
        thing="obj",
        sites=True,
    ),
    "lever-pull": task(
        "Pull the lever up.",
        "reach under the lever; touch the lever; pull the lever up; hold the lever up",
        limit=0.25,
        done=0.026,
        goal="",
        miss=(-0.14, 0.0, 0.0),
        other=(0.0, -0.14, 0.0),
        seeds=(0, 2, 3, 4, 5, 6, 8, 10, 30, 7, 15, 16),
    ),
    "door-open": task(
        "Swing the door open by its handle.",
        "reach for the door handle; hook the door handle; swing the door open; stay at the open door",
        limit=0.30,
        done=0.08,
        goal="",
        along=(1, 0, 0),
        miss=(-0.14, 0.0, 0.0),
        other=(0.0, -0.14, 0.0),
        seeds=(2, 3, 4, 5, 6, 7, 8, 15, 16, 18, 19, 9),
    ),
}
CONFIRM_SEEDS = tuple(range(12))

# No usable task is left: the first of the first two plans, which had the fewest runs, with another speed of the arm
LAST = {
    t: {**spec, "limit": round(spec["limit"] * (0.8, 1.25)[place % 2], 3), "other": (0.0, -0.14, 0.0)}
    for place, (t, spec) in enumerate([*(TASKS | HELD_OUT).items()][:12])
}
LAST_SEEDS = tuple(range(23, 31))

# The tasks of the held-out plan that the last one does not have, with another speed again, and those of Fetch
SIXTH = {
    t: {**spec, "limit": round(spec["limit"] * (1.2, 0.85)[place % 2], 3), "other": (0.0, -0.14, 0.0)}
    for place, (t, spec) in enumerate([*HELD_OUT.items()][6:])
}
SIXTH["bin-picking"] |= {"thing": "obj", "other": (-0.14, 0.0, 0.0)}  # a miss touches the bins


def of_fetch(tasks: Sequence[str], limits: tuple[float, float]) -> dict[str, dict[str, Any]]:
    """Fetch's tasks as the others are described, with their speeds in turn."""
    found = {}
    for place, t in enumerate(tasks):
        spec = fetch.TASKS[t]
        thing = spec.get("joint", "block")
        where = f"move the {thing} to the red marker", f"stay at the {thing} on the marker"
        moved, held = (f"move the {thing}", f"stay at the {thing}") if "joint" in spec else where
        found[t] = {
            "text": spec["text"],
            "limit": limits[place % 2] * spec.get("slow", 1.0),
            "done": spec.get("done", 0.05),
            "sites": "joint" not in spec,
            "miss": spec["miss"],
            "verbs": {"reach": f"reach for the {thing}", "contact": f"touch the {thing}", "move": moved, "hold": held},
        }
    return found


SIXTH_FETCH = ("fetch-push", "fetch-pull", "fetch-slide-side", "fetch-lift", "fetch-pick-place")
SIXTH |= of_fetch(SIXTH_FETCH, (0.32, 0.25))
SIXTH_SEEDS = tuple(range(31, 42))

# Other things under the Fetch arm, and of the fresh and the confirm plan every other task, with another speed
EIGHTH_FETCH = ("fetch-bring-over", "fetch-take", "fetch-shove", "fetch-gate")
SEVENTH_FETCH = [t for t in fetch.TASKS if t not in SIXTH_FETCH + EIGHTH_FETCH]
SEVENTH = of_fetch(SEVENTH_FETCH, (0.30, 0.36)) | {
    t: {**spec, "limit": round(spec["limit"] * (1.2, 0.85)[place % 2], 3)}
    for place, (t, spec) in enumerate([*(FRESH | CONFIRM).items()][::2])
}
SEVENTH_SEEDS = tuple(range(42, 50))
FETCH_SEEDS = tuple(range(42, 54))

# Again others under the Fetch arm; of Meta-World four with another text, speed and camera, from a new list of starts
OTHER_VIEW = {"lookat": (0.03, 0.70, 0.08), "from": (168, -42, 1.2)}
EIGHTH = of_fetch(EIGHTH_FETCH, (0.28, 0.34)) | {
    t: {**spec, "text": text, "limit": limit, "view": OTHER_VIEW, "other": other}
    for t, spec, text, limit, other in (
        ("pick-place", TASKS["pick-place"], "Bring the red cylinder to the blue marker.", 0.26, (0.0, -0.14, 0.0)),
        ("drawer-open", TASKS["drawer-open"], "Pull the green drawer out.", 0.32, (-0.14, 0.0, 0.0)),
        ("coffee-push", CONFIRM["coffee-push"], "Place the mug under the coffee machine.", 0.30, (-0.14, 0.0, 0.0)),
        ("plate-slide-side", HELD_OUT["plate-slide-side"], "Move the plate to the goal.", 0.24, (0.0, -0.14, 0.0)),
    )
}
EIGHTH_SEEDS = tuple(range(54, 65))


Run = tuple[str, int, str, float]  # task, seed, kind of run, and the share of the way at which it stops or stalls
Troubles = list[tuple[str, float]]  # kinds of runs that go wrong, with the share; of a missed one -1: the other way


def planned(
    tasks: Sequence[str],
    seeds: Sequence[int] | dict[str, Sequence[int]],
    experts: int,
    troubles: Callable[[int], Troubles],
) -> list[Run]:
    """Task by task: so many runs of the expert, then those with the troubles of the task's place."""
    plan = []
    for place, t in enumerate(tasks):
        runs = [("expert", 1.0)] * experts + troubles(place)
        of_task = seeds[t] if isinstance(seeds, dict) else seeds
        plan += [(t, seed, kind, share) for seed, (kind, share) in zip(of_task, runs, strict=False)]
    return plan


def experts_first(plan: list[Run]) -> list[Run]:
    return sorted(plan, key=lambda run: run[2] != "expert")


def shipped_plan() -> list[Run]:
    plan = [(t, s, "expert", 1.0) for t in TASKS for s in range(6)]
    for t in TASKS:
        plan += [(t, s, "stopped", STOP_AT[s % 3]) for s in (0, 1)]
        plan += [(t, s, "stalled", STALL_AT) for s in (2, 3)]
        plan += [(t, 4, "missed", 1.0)]
    return plan


def trouble_of_each(stops: Sequence[tuple[float, float]], stalls: tuple[float, float]) -> Callable[[int], Troubles]:
    """Two stops, a stall and two misses, by the place of the task."""
    misses: Troubles = [("missed", 1.0), ("missed", -1.0)]
    return lambda k: [*(("stopped", at) for at in stops[k % 3]), ("stalled", stalls[k % 2]), *misses]


def seeds_of(specs: dict[str, dict[str, Any]], seeds: Sequence[int]) -> dict[str, Sequence[int]]:
    return {t: spec.get("seeds", seeds) for t, spec in specs.items()}


def held_out_troubles(k: int) -> Troubles:
    return [("stopped", (0.2, 0.4, 0.6, 0.8)[k % 4]), ("stalled", (0.35, 0.65)[k % 2]), ("missed", 1.0)]


def last_troubles(k: int) -> Troubles:
    stop, stall = (0.18, 0.5, 0.28, 0.62, 0.38, 0.72)[k % 6], (0.45, 0.7)[k % 2]
    return [("stopped", stop), ("stalled", stall), ("missed", (1.0, -1.0)[k // 2 % 2])]


def seventh_plan() -> list[Run]:
    """Of Fetch's tasks 7 experts, 2 stops, a stall and 2 misses of each; of the others 5, 1, 1 and 1."""
    stops, stalls = ((0.22, 0.58), (0.34, 0.68), (0.46, 0.74)), (0.6, 0.35)
    all_troubles = trouble_of_each(stops, stalls)

    def few(k: int) -> Troubles:
        return [("stopped", stops[k % 3][k // 2 % 2]), ("stalled", stalls[k % 2]), ("missed", (1.0, -1.0)[k % 2])]

    of_fetch = planned([*SEVENTH], FETCH_SEEDS, 7, all_troubles)
    others = planned([*SEVENTH], SEVENTH_SEEDS, 5, few)
    return [run for run in of_fetch if run[0] in fetch.TASKS] + [run for run in others if run[0] not in fetch.TASKS]


def eighth_troubles(k: int) -> Troubles:
    """A stall and 3 failures, two of them stops or two of them misses."""
    low, high = ((0.25, 0.62), (0.38, 0.7))[k // 2 % 2]
    first, second = (high, ("stopped", low)) if k % 2 else (low, ("missed", -1.0))
    return [("stalled", (0.4, 0.6)[k % 2]), ("stopped", first), second, ("missed", 1.0)]


CONFIRM_TROUBLES = trouble_of_each(((0.15, 0.55), (0.33, 0.68), (0.42, 0.75)), (0.28, 0.55))
FRESH_TROUBLES = trouble_of_each(((0.25, 0.60), (0.35, 0.65), (0.45, 0.70)), (0.6, 0.3))
SIXTH_TROUBLES = trouble_of_each(((0.2, 0.55), (0.36, 0.65), (0.48, 0.72)), (0.4, 0.65))
PLANS = {  # what is done, and what is said of its tasks
    "shipped": (shipped_plan(), TASKS),
    "held_out": (experts_first(planned([*HELD_OUT], range(6, 12), 3, held_out_troubles)), HELD_OUT),
    "fresh": (experts_first(planned([*FRESH], seeds_of(FRESH, FRESH_SEEDS), 6, FRESH_TROUBLES)), FRESH),
    "confirm": (experts_first(planned([*CONFIRM], seeds_of(CONFIRM, CONFIRM_SEEDS), 7, CONFIRM_TROUBLES)), CONFIRM),
    "last": (planned([*LAST], LAST_SEEDS, 5, last_troubles), LAST),
    "sixth": (planned([*SIXTH], SIXTH_SEEDS, 6, SIXTH_TROUBLES), SIXTH),
    "seventh": (seventh_plan(), SEVENTH),
    "eighth": (planned([*EIGHTH], EIGHTH_SEEDS, 7, eighth_troubles), EIGHTH),
}


class Sim:
    """One task from one start state: the simulator, its scripted expert and a camera."""

    def __init__(self, task: str, spec: dict[str, Any], seed: int) -> None:
        self.spec = spec
        if task in fetch.TASKS:
            self.substeps, hand_body, thing, view = 1, "robot0:gripper_link", fetch.thing(task), FETCH_VIEW
            self.env = self.policy = fetch.Env(task)
        else:
            self.substeps, hand_body, thing, view = SUBSTEPS, "right_hand", spec.get("thing"), spec.get("view", VIEW)
            name = task + "-v3"
            mt = metaworld.MT1(name, seed=TASK_SEED + seed // len(START))
            self.env = mt.train_classes[name]()
            self.env.set_task(mt.train_tasks[START[seed % len(START)]])
            self.env.max_path_length = 10**9
            self.policy = ENV_POLICY_MAP[name]()
        m = self.env.model
        m.vis.quality.shadowsize = 1024  # the default 4096 makes software rendering 10x slower
        m.vis.global_.offwidth = m.vis.global_.offheight = SIZE
        self.renderer = mujoco.Renderer(m, SIZE, SIZE)
        self.camera = mujoco.MjvCamera()  # a free camera: always the right way up
        self.camera.lookat[:] = view["lookat"]
        self.camera.azimuth, self.camera.elevation, self.camera.distance = view["from"]
        self.option = mujoco.MjvOption()
        if not self.spec.get("sites"):
            self.option.sitegroup[:] = 0  # no goal markers in the picture

        # collision geoms of the hand, and of everything that is not robot or table
        def below(root: str) -> set[int]:
            ids = {m.body(root).id}
            for b in range(m.nbody):
                if m.body_parentid[b] in ids:
                    ids.add(b)
            return ids

        hand = below(hand_body)
        objects = below(thing) if thing else set(range(m.body("mocap").id + 1, m.nbody))
        solid = [g for g in range(m.ngeom) if m.geom_contype[g] or m.geom_conaffinity[g]]
        self.pairs = [(a, b) for a in solid if m.geom_bodyid[a] in hand for b in solid if m.geom_bodyid[b] in objects]
        if task in fetch.TASKS:
            self.obs, self.info = self.env.reset(seed), self.env.evaluate()
            return
        self.obs, _ = self.env.reset()
        away = np.array(self.spec.get("away", (0, 0, 0)), np.float32)
        steps = int(np.ceil(100 * np.abs(away).max()))
        for _ in range(steps):
            self.step(np.array([*(100 * away / steps), -1], np.float32))
        for _ in range(self.substeps * self.spec.get("settle", 0)):
            self.step(np.array([0, 0, 0, -1], np.float32))
        self.info = self.env.evaluate_state(self.obs, np.zeros(4, np.float32))[1]

    def touching(self) -> bool:
        m, d = self.env.model, self.env.data
        return any(mujoco.mj_geomDistance(m, d, a, b, 2 * CONTACT, None) <= CONTACT for a, b in self.pairs)

    def picture(self) -> np.ndarray:
        self.renderer.update_scene(self.env.data, self.camera, self.option)
        self.renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        return self.renderer.render().copy()

    def expert(self, shift: np.ndarray | None = None) -> np.ndarray:
        """The expert's action, calmed down; `shift` (m) makes it see the object elsewhere."""
        obs = self.obs.copy()
        if shift is not None:
            obs[4:7] += shift
        a = np.clip(self.policy.get_action(obs), -1, 1)
        a[:3] = np.clip(a[:3], -self.spec["limit"], self.spec["limit"])
        if "grip" in self.spec and np.linalg.norm(self.env.tcp_center - obs[4:7]) > self.spec["grip"]:
            a[3] = -1.0
        return a.astype(np.float32)

    def step(self, action: np.ndarray) -> None:
        self.obs, *_, self.info = self.env.step(action)

    def goal_distance(self) -> float:
        if "goal" in self.spec:
            site = self.spec["goal"]
            point = self.env.data.site(site).xpos if site else self.obs[4:7]
            off = (point - self.env._target_pos) * self.spec.get("along", (1, 1, 1))
            return float(np.linalg.norm(off))
        if "obj_to_target" not in self.info:
            raise SystemExit("this task does not report obj_to_target")
        return float(self.info["obj_to_target"])


def record(task: str, spec: dict[str, Any], seed: int, kind: str, share: float) -> tuple[list[dict], list[np.ndarray]]:
    """Measurements and picture of each frame; `spec` is the task's entry in the plan's tasks.

    kind: 'expert'; 'stopped' (freezes for good after this share of the way); 'stalled' (there stands still for STALL
    frames, then goes on); 'missed' (aims beside the object; with share -1 in the other direction).
    """
    s = Sim(task, spec, seed)
    rows, images = [], []
    still, grip = 0, -1.0  # frames since the arm froze at the end; the last gripper command
    stalled = None  # number of frames when the stall began
    start_distance = s.goal_distance()
    miss = None
    if kind == "missed":
        miss = np.array(s.spec.get("miss", MISS))
        if share < 0:
            miss = np.array(s.spec.get("other", -miss))
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
        taken = []
        for _ in range(s.substeps):
            if still or (stalled is not None and len(rows) < stalled + STALL):
                a = np.array([0, 0, 0, grip], np.float32)
            else:
                a = s.expert(miss)
                grip = float(a[3])
            s.step(a)
            taken.append(a)
            row["contact"] |= s.touching()
        row["action"] = np.mean(taken, axis=0).astype(np.float32)
    s.renderer.close()
    return rows, images


def annotate(rows: list[dict], spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Adds each row's progress in [0, 1]; returns the phases, half-open. The README states the rules."""
    n = len(rows)
    hand, goal = np.array([r["hand"] for r in rows]), np.array([r["goal"] for r in rows])
    touch = np.flatnonzero([r["contact"] for r in rows])
    good = np.flatnonzero([r["success"] for r in rows])
    first = int(touch[0]) if len(touch) else n
    done = int(good[0]) if len(good) else n
    reference = goal[first] if first < n else goal[0]
    near = hand[first] if first < n else 0.0
    reach = np.clip((hand[0] - hand) / (hand[0] - near), 0, 1)
    reach[first:] = 1.0
    moved = np.clip((reference - goal) / (reference - spec["done"]), 0, 1)
    moved[:first] = 0.0
    progress = W_REACH * reach + (1 - W_REACH) * moved
    for r, p in zip(rows, progress, strict=True):
        r["progress"] = 1.0 if r["success"] else float(p)

    cuts = []
    if first < n:
        shift = np.linalg.norm([r["object"] - rows[first]["object"] for r in rows], axis=1)
        going = np.flatnonzero((shift > MOVED) & (np.arange(n) >= first))
        move = min(int(going[0]) if len(going) else n, done if done < n else n - 1 - HOLD)
        if move - first < MIN_CONTACT:
            move = first
        cuts = [("reach", 0, first), ("contact", first, move)]
        if done < n:
            cuts += [("move", move, done), ("hold", done, n)]
        else:
            stop = max(move, n - 1 - HOLD)  # a hand that missed may touch the thing as it stands still
            cuts += [("move", move, stop), ("stop", stop, n)]
    else:
        near_frame = int(np.argmin(hand)) + 1
        cuts = [("reach", 0, near_frame), ("miss", near_frame, n)]
    words = dict(spec["verbs"], stop="stop before the task is done", miss="pull back without having touched the object")
    return [{"name": k, "text": words[k], "start": a, "end": b} for k, a, b in cuts if b > a]


COLUMNS = {  # of frames.parquet
    "episode_index": pa.int64(),
    "frame_index": pa.int64(),
    "timestamp": pa.float32(),
    "observation.state": pa.list_(pa.float32()),
    "action": pa.list_(pa.float32()),
    "true_progress": pa.float32(),
    "sim.success": pa.bool_(),
    "sim.contact": pa.bool_(),
    "sim.object_to_goal": pa.float32(),
    "sim.hand_to_object": pa.float32(),
}


def row_of(episode: int, frame: int, r: dict) -> dict[str, Any]:
    """One row of frames.parquet."""
    return {
        "episode_index": episode,
        "frame_index": frame,
        "timestamp": frame / FPS,
        "observation.state": r["state"].tolist(),
        "action": r["action"].tolist(),
        "true_progress": r["progress"],
        "sim.success": r["success"],
        "sim.contact": r["contact"],
        "sim.object_to_goal": r["goal"],
        "sim.hand_to_object": r["hand"],
    }


def write_video(path: pathlib.Path, images: list[np.ndarray]) -> None:
    with av.open(str(path), "w") as c:
        st = c.add_stream("libx264", rate=FPS)
        st.width = st.height = SIZE
        st.pix_fmt = "yuv420p"
        st.options = {"crf": "23", "preset": "slow", "g": str(FPS)}
        for im in images:
            for p in st.encode(av.VideoFrame.from_ndarray(im, format="rgb24")):
                c.mux(p)
        for p in st.encode():
            c.mux(p)


def check(out: pathlib.Path) -> None:
    """Decode every video and compare everything in `out` with everything else."""
    table = pq.read_table(out / "frames.parquet").to_pydict()
    episode = np.array(table["episode_index"])
    total = 0
    for line in (out / "episodes.jsonl").read_text().splitlines():
        e = json.loads(line)
        rows = {k: np.array(v)[episode == e["episode"]] for k, v in table.items()}
        n = e["num_frames"]
        path = out / "videos" / f"episode_{e['episode']:03d}.mp4"
        with av.open(str(path)) as c:
            v = c.streams.video[0]
            frames = list(c.decode(v))
            assert (v.codec_context.name, v.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert (v.average_rate, v.width, v.height) == (FPS, SIZE, SIZE)
            times = [float(f.pts * v.time_base) for f in frames]
        assert len(frames) == len(rows["frame_index"]) == n, path
        assert np.abs(np.array(times) - rows["timestamp"]).max() < 1e-4, path
        assert rows["frame_index"].tolist() == list(range(n))
        assert rows["observation.state"].shape == rows["action"].shape == (n, 4)
        s = e["segments"]
        assert (s[0]["start"], s[-1]["end"]) == (0, n)
        assert all(a["end"] == b["start"] and a["end"] > a["start"] for a, b in pairwise(s))
        p = rows["true_progress"]
        assert (p >= 0).all()
        assert (p <= 1).all()
        assert bool(p[-1] == 1.0) == e["success"]
        total += n
    assert total == len(episode)
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    print(f"check ok: {total} frames in {e['episode'] + 1} episodes, {size / 1e6:.2f} MB")


def main() -> None:
    here = pathlib.Path(__file__).resolve().parent
    p = argparse.ArgumentParser()
    p.add_argument("--out", type=pathlib.Path, default=here / "data")
    p.add_argument("--plan", choices=PLANS, default="shipped", help="which tasks, start states and failures")
    p.add_argument(
        "--only", choices=TASKS | HELD_OUT | FRESH | CONFIRM | SIXTH | SEVENTH | EIGHTH, help="this task only"
    )
    p.add_argument("--check", action="store_true", help="only verify what --out holds")
    a = p.parse_args()
    if a.check:
        return check(a.out)
    (a.out / "videos").mkdir(parents=True, exist_ok=True)
    plan, specs = PLANS[a.plan]
    if a.only:
        plan = [x for x in plan if x[0] == a.only]
        if not plan:
            p.error(f"{a.only} is not in the {a.plan} plan")
    columns: dict[str, list] = {name: [] for name in COLUMNS}
    with open(a.out / "episodes.jsonl", "w") as f:
        i = -1
        for task, seed, kind, share in plan:
            spec = specs[task]
            rows, images = record(task, spec, seed, kind, share)
            ok = rows[-1]["success"]
            if ok != (kind in ("expert", "stalled")):
                print(f"left out: {task} seed {seed} {kind}: success is {ok}", flush=True)
                continue
            i += 1
            segments = annotate(rows, spec)
            f.write(
                json.dumps(
                    {
                        "episode": i,
                        "task": spec["text"],
                        "env": task if task in fetch.TASKS else task + "-v3",
                        "seed": seed,
                        "start_state": seed if task in fetch.TASKS else START[seed % len(START)],
                        "policy": kind,
                        "success": ok,
                        "fps": FPS,
                        "num_frames": len(rows),
                        "segments": segments,
                    }
                )
                + "\n"
            )
            write_video(a.out / "videos" / f"episode_{i:03d}.mp4", images)
            for k, r in enumerate(rows):
                for name, value in row_of(i, k, r).items():
                    columns[name].append(value)
            prog = np.array([r["progress"] for r in rows])
            print(
                f"{i:3d} {task} seed {seed} {kind}: {len(rows)} frames, success {ok}, "
                + ", ".join(f"{s['name']} {s['start']}-{s['end']}" for s in segments)
                + f"; largest drop {max(0, float(-np.diff(prog).min())):.3f},"
                f" largest rise {float(np.diff(prog).max()):.3f}, last {prog[-1]:.2f}",
                flush=True,
            )
    table = pa.table({name: pa.array(columns[name], kind) for name, kind in COLUMNS.items()})
    pq.write_table(table, a.out / "frames.parquet")
    check(a.out)


if __name__ == "__main__":
    main()

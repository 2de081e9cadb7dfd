"""The parts of the benchmark, each done once and kept in a folder."""

import itertools
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.policy import product
from benchmarks.policy.cloning import Policies, clone
from benchmarks.policy.protocol import BASELINE, GROUPS, Protocol
from benchmarks.policy.recording import read_frames, record_task, write_lerobot
from benchmarks.policy.rollouts import best_of, evaluate, learn
from benchmarks.policy.weights import arm_weights, share_by_quality
from core.files import write_file
from core.paths import Workspace


class Work:
    """A folder of parts that are done once. The protocol that they were done by stands in it."""

    def __init__(self, folder: Path, protocol: Protocol) -> None:
        """Raises SystemExit for a folder of another protocol."""
        self.folder = folder
        self.protocol = protocol
        folder.mkdir(parents=True, exist_ok=True)
        mine = json.loads(json.dumps(asdict(protocol)))
        protocol_file = folder / "protocol.json"
        if protocol_file.exists() and json.loads(protocol_file.read_text()) != mine:
            sys.exit(f"{folder} holds runs of another protocol: give another --out, or delete it")
        self.keep(protocol_file, mine)

    def keep(self, path: Path, value: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, (json.dumps(value, indent=1) + "\n").encode())

    def once(self, name: Sequence[str], function: Callable[..., Any], *values: Any) -> None:
        """Keep what a function says of the protocol and some values, where it is not kept already."""
        path = self.folder.joinpath(*name[:-1], f"{name[-1]}.json")
        if not path.exists():
            self.keep(path, function(self.protocol, *values))

    @contextmanager
    def logged(self, part: str) -> Iterator[None]:
        print(f"{time.strftime('%H:%M:%S')} {part}", flush=True)
        start_time = time.time()
        yield
        line = {
            "part": part,
            "began": round(start_time),
            "seconds": round(time.time() - start_time, 1),
        }
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")


def weigh(
    work: Work, group: str, files: Mapping[str, Path], segments: np.ndarray | None = None
) -> None:
    """Keep the weights of the arms of a group, float64 [arms, frames], and how much of them each quality has."""
    frames = read_frames(work.protocol, work.folder / "recorded")
    weights_folder = work.folder / "weights"
    weights = arm_weights(frames, GROUPS[group], files, work.protocol.chunk, segments)
    weights_folder.mkdir(exist_ok=True)
    np.save(weights_folder / f"{group}.npy", np.stack(list(weights.values())))
    work.keep(
        weights_folder / f"{group}.json",
        {arm: share_by_quality(frames, values) for arm, values in weights.items()},
    )


def clone_and_act(work: Work, group: str, task: str) -> None:
    """Train the policies of a group for a task, and have each act from the held-out starts."""
    path = work.folder / "policies" / group / f"{task}.npz"
    if not path.exists():
        frames = read_frames(work.protocol, work.folder / "recorded")
        task_mask = frames.task == task
        weights = np.load(work.folder / "weights" / f"{group}.npy", allow_pickle=False)[
            :, task_mask
        ]
        learnt_policies = clone(
            frames.seen[task_mask],
            frames.action[task_mask],
            weights,
            work.protocol.seeds,
            work.protocol.cloning,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".half.npz")
        learnt_policies.save(half)
        half.rename(path)
    policies = Policies.load(path)
    for k, arm in enumerate(GROUPS[group]):
        work.once(("rollouts", task, arm), evaluate, task, k, policies)


def choose(work: Work, task: str, model: Path) -> None:
    """Several runs of each start by the baseline's policies, and what is said of them."""
    policies = Policies.load(work.folder / "policies" / "known" / f"{task}.npz")
    work.once(("best_of", task), best_of, task, GROUPS["known"].index(BASELINE), policies, model)


def reinforce(work: Work, task: str, seed: int, model: Path) -> None:
    """Learn a correction from each reward, and keep what came of it."""
    work.once(("learned", task, str(seed)), learn, task, seed, model)


def run(work: Work, workers: int, *, by_labels_alone: bool = False) -> None:
    """Everything that is missing, part after part; `by_labels_alone`: what needs no model. Raises SystemExit where a
    part of the product fails."""
    protocol = work.protocol
    recorded = work.folder / "recorded"
    dataset = work.folder / "dataset"
    space = Workspace(work.folder / "workspace")
    progress = work.folder / "progress"
    progress.mkdir(exist_ok=True)
    work.keep(work.folder / "code_versions.json", product.code_versions())
    with ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=one_thread
    ) as pool:

        def begin(
            function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]
        ) -> list[Future[Any]]:
            return [pool.submit(function, *job) for job in jobs]

        def finish(jobs: Sequence[Future[Any]]) -> None:
            for job in jobs:
                job.result()

        with work.logged("demonstrations"):
            finish(
                begin(record_task, [(t, protocol.demonstrations, recorded) for t in protocol.tasks])
            )
            if not dataset.exists():
                write_lerobot(protocol, recorded, dataset)
        frames = read_frames(protocol, recorded)
        with work.logged("policies of the known arms, beside labels and rewards"):
            weigh(work, "known", product.known_progress(frames, progress, protocol.chunk))
            known_parts = begin(clone_and_act, [(work, "known", t) for t in protocol.tasks])
            with work.logged("labels and laptop"):
                product.label(space, dataset)
                if by_labels_alone:
                    model = None
                else:
                    model = product.train_laptop(space, dataset, progress)
            files = product.labelled_progress(space, frames, progress, protocol.chunk)
            weigh(work, "labelled", files, product.segment_kinds(space, frames))
            labelled = begin(clone_and_act, [(work, "labelled", t) for t in protocol.tasks])
            if model is None:
                return finish(known_parts + labelled)
            with work.logged("rewards"):
                files = product.rewarded_progress(
                    space, dataset, frames, progress, protocol.chunk, model
                )
            weigh(work, "rewarded", files)
            finish(known_parts)
        with work.logged("policies of the other arms, best of several, and reinforcement learning"):
            plan = protocol.learning
            jobs = begin(clone_and_act, [(work, "rewarded", t) for t in protocol.tasks])
            jobs += begin(choose, [(work, t, model) for t in protocol.best_of.tasks])
            learners = itertools.product(plan.tasks, plan.seeds)
            jobs += begin(reinforce, [(work, t, s, model) for t, s in learners])
            finish(labelled + jobs)


def one_thread() -> None:
    """So that sums are added in one order, and processes do not wait for each other."""
    torch.set_num_threads(1)

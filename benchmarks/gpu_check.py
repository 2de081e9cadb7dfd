"""Training at true size on a GPU: what `proccorpus train` does, its speed, memory, and whether what must hold does.

    python -m benchmarks.gpu_check [--recipe NAME] [--shape Qwen3-VL-2B] [--pictures 256x192] [--out FILE.json] [--tiny]
    torchrun --nproc-per-node 8 -m benchmarks.gpu_check

Needs no data and no network: a checkpoint of the shape's size with random weights is written, and a release of shards
with pictures and questions as ProcVQA has them, 1 to 17 pictures each. Each row of the table is a run of
`training.train.train` on the recipe named, for a few steps: loader, trainer and saving are those of every other run.
Rows that would begin after `--minutes` (7) are left out, and named. `--tiny` is the same code with a model of two
layers on a CPU.

The exit code is 1 where something does not hold, and the failed rows are named: a run that fails, a loss that packing
changes, a resumed run that differs, rewards that sharing changes. Speeds are told, and those beside a goal as well.
"""

import argparse
import gc
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.harness import table
from benchmarks.reward import make_scorers, ours, timed, write_moving
from benchmarks.true_size import SHAPES, write_checkpoint
from core.paths import Workspace
from tests.kits.fault_kit import wait_for
from tests.kits.training_kit import killed_and_resumed, release_of
from training.attention import chosen
from training.backbones import read_config
from training.model import load_model, pool
from training.plan import Machine, card_here, plan
from training.recipe import Recipe, load_recipe
from training.rollouts import with_vllm
from training.runs import TrainingRun
from training.train import train
from warehouse.lake import Lake
from warehouse.releases.release import Release, get_release
from warehouse.shards.shard import EntryContent, picture_name

GOAL_MFU = 0.4
GOAL_TIMES = 2.0
GOAL_SHARED = 1.5
RATIO_OFF = 0.05  # of vLLM's probabilities to the model's, from 1
KERNELS = {
    "varlen": "torch",
    "flash_attention_2": "flash_attn",
    "flash_attention_3": "flash_attn_interface",
}
NUMBERS = {
    "tokens_per_s": "{:,.0f}",
    "mfu": "{:.1%}",
    "memory_gb": "{:.1f}",
    "planned_gb": "{:.1f}",
    "loss": "{:.3f}",
    "differs_by": "{:.1e}",
}
WARM_STEPS = 2  # not measured: kernels are chosen, memory is taken, workers fill their queues
FEW = 6  # samples whose loss is compared, packed and padded
EPISODES = 16
MOMENTS = 16
WORDS = [
    "grip",
    "lift",
    "turn",
    "push",
    "slide",
    "open",
    "close",
    "cup",
    "lid",
    "box",
    "arm",
    "left",
    "right",
    "near",
    "under",
    "above",
    "slowly",
    "then",
    "until",
    "table",
]


@dataclass(frozen=True)
class Load:
    """How much is done, beside what the recipe says. picture: width and height."""

    picture: tuple[int, int]
    large_picture: tuple[int, int]
    completion: int  # tokens of an answer in GRPO
    moments: int  # scored as rewards
    tolerance: float  # of a loss, relative, where the same is calculated another way
    resume_tolerance: float


TINY = Load((64, 64), (96, 64), 8, 9, tolerance=1e-5, resume_tolerance=1e-6)
FULL = Load(
    (256, 192), (640, 480), 256, 48, tolerance=2e-2, resume_tolerance=1e-3
)  # bfloat16, sums in any order


@dataclass(frozen=True)
class Bench:
    """What all rows share. `folder` is seen by all processes; the first of them prepares it."""

    lake: Lake
    recipe: Recipe
    load: Load
    device: str
    rank: int
    world: int
    until: float = float("inf")  # by time.monotonic: no row begins later

    def is_late(self) -> bool:
        """Are the minutes over? All processes go by the first one's clock."""
        is_over = [time.monotonic() > self.until]
        if torch.distributed.is_initialized():
            torch.distributed.broadcast_object_list(is_over)
        return is_over[0]

    def release(self, name: str) -> Release:
        return get_release(self.lake, name)


# What is trained on


def jpeg(rng: np.random.Generator, size: tuple[int, int]) -> bytes:
    """Something between noise and a plain wall, as photographs are."""
    coarse = rng.integers(30, 220, (size[1] // 16, size[0] // 16, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC))[
        1
    ].tobytes()


def episodes(count: int, moments: int, size: tuple[int, int]) -> Iterator[tuple[str, EntryContent]]:
    """As many pictures a sample as ProcVQA's family c has: one in three in ten samples, else 5 to 17."""
    rng = np.random.default_rng(0)
    for e in range(count):
        pictures = {}
        rows = []
        frames = [
            {"episode_index": e, "camera": "front", "frame_index": t, "edit": None}
            for t in range(17)
        ]
        pictures = {picture_name(e, picture_frame): jpeg(rng, size) for picture_frame in frames}
        for t in range(moments):
            n = 1 if rng.random() < 0.3 else int(rng.integers(5, 18))
            words = " ".join(rng.choice(WORDS, 40))
            rows.append(
                {
                    "sample_id": f"{e:08x}{t:08x}",
                    "family": "procvqa_c",
                    "num_tokens": 60 + n * size[0] * size[1] // 1024,
                    "question": "<image>\n" * n + f"The task: {words}. How far is it?",
                    "answer": f"<progress>{100 * t / moments:.2f}%</progress>",
                    "progress": t / moments,
                    "form": "no_think",
                    "pictures": frames[:n],
                }
            )
        yield "train", EntryContent("made", e, rows, pictures)


def write_prompts(folder: Path, size: tuple[int, int]) -> Path:
    """Rows of RL as ProgressLM publishes them: a demonstration in pictures and one to place."""
    rng = np.random.default_rng(1)
    names = [f"camera_front_{k:04d}.jpg" for k in range(6)]
    rows = []
    for k in range(16):
        (folder / f"run{k}").mkdir(parents=True)
        for name in names:
            (folder / f"run{k}" / name).write_bytes(jpeg(rng, size))
        row = {
            "id": f"run{k}",
            "task_goal": " ".join(rng.choice(WORDS, 6)),
            "visual_demo": names[:-1],
        }
        row |= {
            "stage_to_estimate": names[-1:],
            "total_steps": 4,
            "closest_idx": "2",
            "progress_score": "42%",
        }
        rows.append(json.dumps(row))
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    return folder / "rows.jsonl"


def changed(recipe: Recipe, name: str, **sections: dict[str, Any] | None) -> Recipe:
    """A recipe with other values in some sections; validated."""
    values = recipe.model_dump(exclude_unset=True)
    for section, section_values in sections.items():
        if section_values is None:
            values[section] = None
        else:
            values[section] = (values.get(section) or {}) | section_values
    return Recipe.model_validate(values | {"name": name})


def base_recipe(recipe: Recipe, tiny: bool) -> Recipe:
    """The recipe named, for a few steps on what was made here."""
    train: dict[str, Any] = {
        "epochs": None,
        "steps": WARM_STEPS + 4,
        "accumulation": min(2, recipe.train.accumulation),
    }
    # Compiled where a row says so: each run would compile anew what it has by itself
    train |= {"save_every": None, "evaluate_every": 0, "warmup": 0.0, "compile": False}
    data: dict[str, Any] = {"longer_length": None} if recipe.kind == "sft" else {}
    data |= {"workers": min(recipe.data.workers, os.cpu_count() or 1)}
    if recipe.kind == "sft":
        data |= {"families": {"procvqa_c": 1.0}, "jsonl": (), "image_root": None, "think": None}
    if tiny:
        train |= {"dtype": "float32", "steps": WARM_STEPS + 1, "batch": 1, "accumulation": 1}
        data |= {"sequence_length": 384, "workers": 0} | (
            {"window": 64} if recipe.kind == "sft" else {}
        )
    return changed(recipe, "gpu_check", train=train, data=data)


# One row each


def run_of(bench: Bench, recipe: Recipe, release: str) -> tuple[TrainingRun, dict[str, Any]]:
    """A run to its end, and its figures; the rates are those after the first steps."""
    cuda = bench.device != "cpu"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    run = train(bench.lake, bench.release(release), recipe)
    points = run.curve[WARM_STEPS:] or run.curve
    former_tokens = [0, *(p.tokens for p in run.curve)][-1 - len(points) : -1]
    seconds = sum(
        (p.tokens - n) / p.tokens_per_s for p, n in zip(points, former_tokens, strict=True)
    )
    counted = [p.mfu * (1 / p.tokens_per_s) for p in points if p.mfu is not None]
    figures = {
        "attention": own_attention(recipe),
        "layout": "packed" if recipe.data.packing else "padded",
        "loss": points[-1].loss,
        "tokens_per_s": (points[-1].tokens - former_tokens[0]) / seconds,
        "mfu": sum(counted) / sum(1 / p.tokens_per_s for p in points) if counted else None,
        "memory_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else None,
    }
    return run, figures


def speed(bench: Bench, release: str = "made", **sections: dict[str, Any] | None) -> dict[str, Any]:
    run, figures = run_of(bench, changed(bench.recipe, "speed", **sections), release)
    if bench.rank == 0 and bench.recipe.lora is None and "lora" not in sections:
        load_model(run.checkpoint)  # raises where what was saved is not whole
    return figures


def same_loss(bench: Bench, attention: str) -> dict[str, Any]:
    """The loss of the first step on a few samples: in one packed row, and padded."""
    length = bench.recipe.data.sequence_length * 4
    train = {"steps": 1, "accumulation": 1}
    packed, figures = run_of(
        bench,
        changed(
            bench.recipe,
            "packed",
            model={"attention": attention},
            train=train | {"batch": 1},
            **_still(bench),
            data={"packing": True, "window": FEW, "sequence_length": length, "workers": 0},
        ),
        "few",
    )
    padded, _ = run_of(
        bench,
        changed(
            bench.recipe,
            "padded",
            model={"attention": "sdpa"},
            train=train | {"batch": FEW},
            **_still(bench),
            data={"packing": False, "window": FEW, "sequence_length": length, "workers": 0},
        ),
        "few",
    )
    packed_point = packed.curve[0]
    two = padded.curve[0]
    if packed_point.samples != two.samples:
        raise ValueError(
            f"a packed step held {packed_point.samples} samples, a padded one {two.samples}"
        )
    pairs = [
        (packed_point.loss, two.loss),
        (packed_point.text, two.text),
        (packed_point.progress, two.progress),
    ]
    off = max(abs(a - b) / max(1e-3, abs(b)) for a, b in pairs if a is not None and b is not None)
    shared_figures = {k: figures[k] for k in ("attention", "loss")}
    return shared_figures | {
        "layout": "both",
        "differs_by": off,
        "holds": off <= bench.load.tolerance,
    }


# Layers as they were, and what makes them faster, one after the other: as a GPU of 141 GB has room for
LADDER: dict[str, dict[str, Any]] = {
    "eager, all calculated anew": {"compile": False, "recompute": "all"},
    "compiled": {"compile": True, "recompute": "all"},
    "compiled, products kept": {"compile": True, "recompute": "matmul"},
    "compiled, weights in bfloat16": {
        "compile": True,
        "recompute": "matmul",
        "distributed": "fsdp",
        "dtype": "bfloat16",
    },
}
ROWS = 4  # of a step of the ladder, one at once


def ladder(bench: Bench) -> Iterator[dict[str, Any]]:
    """The same samples by each way: speed, memory beside what is planned, and the loss of the first step beside that of
    layers as they were."""
    first_losses: list[float] = []
    for name, settings in LADDER.items():
        yield tried(
            bench,
            f"packed, {name}",
            lambda settings=settings: rung(bench, settings, first_losses),
            spare=True,
        )


def rung(bench: Bench, settings: dict[str, Any], first_losses: list[float]) -> dict[str, Any]:
    train = {
        "batch": 1,
        "accumulation": ROWS,
        "distributed": bench.recipe.train.distributed,
    } | settings
    data = {"packing": True, "window": bench.recipe.data.window or 512}
    recipe = changed(bench.recipe, "ladder", train=train, data=data, **_still(bench))
    run, figures = run_of(bench, recipe, "made")
    first_losses.append(run.curve[0].loss)
    off = abs(first_losses[-1] - first_losses[0]) / max(1e-3, abs(first_losses[0]))
    tolerance = FULL.tolerance if recipe.train.dtype == "bfloat16" else bench.load.tolerance
    if bench.device != "cpu":
        memory = torch.cuda.get_device_properties(0).total_memory
    else:
        memory = 141e9
    planned = (
        sum(plan(recipe, Machine(bench.world, memory, card_here() or "H100")).bytes.values()) / 1e9
    )
    return figures | {"differs_by": off, "holds": off <= tolerance, "planned_gb": planned}


def _still(bench: Bench) -> dict[str, dict[str, Any]]:
    """A head without chance of its own."""
    if bench.recipe.head:
        return {"head": {"dropout": 0.0, "noise": 0.0}}
    return {}


def resumed(bench: Bench) -> dict[str, Any]:
    """A run of four steps; and one that is killed in its third and goes on from its second."""
    settings = {"steps": 4, "save_every": 2, "accumulation": 1}
    whole, figures = run_of(bench, changed(bench.recipe, "whole", train=settings), "made")
    recipe = changed(bench.recipe, "killed", train=settings)
    resumed_run = killed_and_resumed(bench.lake, bench.release("made"), recipe, 2)
    off = max(
        abs(a.loss - b.loss) / max(1e-3, abs(a.loss))
        for a, b in zip(whole.curve, resumed_run.curve, strict=True)
    )
    shared_figures = {k: figures[k] for k in ("attention", "layout", "loss", "memory_gb")}
    return shared_figures | {"differs_by": off, "holds": off <= bench.load.resume_tolerance}


def grpo_recipe(
    recipe: Recipe, checkpoint: Path, prompts: Path, load: Load, tiny: bool, world: int
) -> Recipe:
    """One step of GRPO on prompts that were made here."""
    base_grpo = recipe if recipe.kind == "grpo" else load_recipe("progresslm_grpo", checkpoint)
    train = {"epochs": None, "steps": 1, "batch": 4, "accumulation": 1, "save_every": None}
    train |= {
        "dtype": "float32" if tiny else "bfloat16",
        "distributed": "fsdp" if world > 1 else "none",
    }
    data = {
        "jsonl": (prompts,),
        "image_root": prompts.parent,
        "sequence_length": 4096,
        "workers": 0,
    }
    grpo = {
        "generations": 4,
        "max_completion": load.completion,
        "rollouts": "transformers",
        "validate_every": None,
    }
    return changed(
        base_grpo,
        "grpo",
        train=train,
        data=data,
        grpo=grpo,
        model={"max_pixels": recipe.model.max_pixels},
    )


def rewards(bench: Bench) -> dict[str, Any]:
    """Rewards of a video at windows of 8 pictures, with vision shared between windows and seen anew by each."""
    shared, unshared, *_ = make_scorers(bench.device)
    with tempfile.TemporaryDirectory() as spare:
        write_moving(Path(spare) / "run.mp4", bench.load.moments)
        ours(shared, Path(spare) / "run.mp4")
        shared_s, first = timed(bench.device, lambda: ours(shared, Path(spare) / "run.mp4"))
        two, second = timed(bench.device, lambda: ours(unshared, Path(spare) / "run.mp4"))
    off = float(np.abs(np.array(first) - np.array(second)).max())
    rewards_hold = len(first) == len(second) == bench.load.moments and off <= bench.load.tolerance
    return {
        "attention": "sdpa",
        "differs_by": off,
        "holds": rewards_hold,
        "rewards_per_s": len(first) / shared_s,
        "shared_over_unshared": two / shared_s,
    }


# The table


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def tried(
    bench: Bench, name: str, work: Callable[[], dict[str, Any]], spare: bool = False
) -> dict[str, Any]:
    """A row; one that fails says why, and the others go on. `spare`: a lack of memory is no failure."""
    started = time.perf_counter()
    if bench.is_late():
        return {"what": name, "took_s": 0.0, "holds": True, "error": "left out: --minutes are over"}
    try:
        row = {"holds": True} | work()
    except (
        Exception
    ) as e:  # whatever a kernel, a package or the trainer raises: this row's own failure
        traceback.print_exc()
        message = " ".join(f"{type(e).__name__}: {e}".split())[:200]
        row = {"error": message, "holds": spare and "out of memory" in message.lower()}
    free()
    row = {"what": name, "took_s": round(time.perf_counter() - started, 1), **row}
    if bench.rank == 0:
        shutil.rmtree(bench.lake.workspace.root / "models", ignore_errors=True)
        print(
            f"  {name}: {row.get('error') or 'done'} ({row['took_s']} s)",
            file=sys.stderr,
            flush=True,
        )
    return row


def attentions(bench: Bench) -> list[str]:
    """The recipe's own and sdpa; on a GPU all whose package is here."""
    available_kernels = [
        n
        for n, package in KERNELS.items()
        if bench.device != "cpu" and importlib.util.find_spec(package)
    ]
    return list(dict.fromkeys([own_attention(bench.recipe), "sdpa", *available_kernels]))


def own_attention(recipe: Recipe) -> str:
    return chosen(recipe.model.attention, recipe.train.dtype)


def sft_rows(bench: Bench) -> Iterator[dict[str, Any]]:
    recipe = bench.recipe
    row = lambda name, **more: tried(bench, name, lambda: speed(bench, **more))  # noqa: E731
    yield from ladder(bench)
    yield tried(
        bench,
        f"packed as padded, {own_attention(recipe)}",
        lambda: same_loss(bench, own_attention(recipe)),
    )
    window = {"window": recipe.data.window or 512, "packing": True}
    padded = {"batch": ROWS * samples_of_a_row(bench), "recompute": "all", "accumulation": 1}
    yield row("plain padding", data={"packing": False, "window": None}, train=padded)
    for name in attentions(bench)[1:]:
        yield tried(bench, f"packed as padded, {name}", lambda name=name: same_loss(bench, name))
    if recipe.lora is None:
        rates = {"merger_lr": None, "vision_lr": None}
        yield row("packed, LoRA", lora={"rank": 16, "alpha": 32.0}, data=window, train=rates)
    large = bench.load.large_picture[0], bench.load.large_picture[1]
    yield row(f"packed, pictures {large[0]}x{large[1]}", data=window, release="large")


def samples_of_a_row(bench: Bench) -> int:
    """About as many as a packed row holds."""
    mean_pictures = 0.3 * 1 + 0.7 * 11
    of_picture = bench.load.picture[0] * bench.load.picture[1] / 1024
    return max(1, round(bench.recipe.data.sequence_length / (80 + mean_pictures * of_picture)))


def grpo_rows(bench: Bench, recipe: Recipe) -> Iterator[dict[str, Any]]:
    """A step of GRPO by vLLM, and the room that a head takes. What a server is shown, how often pictures are cut and
    control tokens in texts need no GPU: tests/training sees to them."""
    by_vllm = changed(recipe, "grpo", grpo={"rollouts": "auto"})
    if with_vllm(by_vllm.grpo):  # type: ignore[arg-type]
        yield tried(bench, "GRPO, a step, answers by vLLM", lambda: grpo_step(bench, by_vllm))
    yield tried(bench, "head, a long sample beside short ones", lambda: pooling(bench, recipe))


def grpo_step(bench: Bench, recipe: Recipe) -> dict[str, Any]:
    """Where vLLM answers, tokens are as probable to it as to the model that learns."""
    run, figures = run_of(bench, recipe, "made")
    off = abs(run.curve[0].extra.get("sampling_ratio", 1.0) - 1)
    return {k: figures[k] for k in ("attention", "loss", "memory_gb")} | {
        "differs_by": off,
        "holds": off <= RATIO_OFF,
    }


def pooling(bench: Bench, recipe: Recipe) -> dict[str, Any]:
    """A sample of 4,000 tokens beside 78 of 350: as a softmax of each alone, and without a place for padding."""
    width = read_config(recipe.model.path)["text_config"]["hidden_size"]  # type: ignore[arg-type]
    lengths = torch.tensor([4000, *[350] * 78], device=bench.device)
    item = torch.arange(len(lengths), device=bench.device).repeat_interleave(lengths)
    states = torch.randn(len(item), width, device=bench.device)
    scores = torch.randn(len(item), 1, device=bench.device)
    start_memory = torch.cuda.memory_allocated() if bench.device != "cpu" else 0
    if start_memory:
        torch.cuda.reset_peak_memory_stats()
    pooled = pool(states, scores, item)
    added_memory = torch.cuda.max_memory_allocated() - start_memory if start_memory else 0
    parts = zip(states.split(lengths.tolist()), scores.split(lengths.tolist()), strict=True)
    off = float((pooled - torch.stack([(s * w.softmax(0)).sum(0) for s, w in parts])).abs().max())
    return {
        "memory_gb": added_memory / 1e9 or None,
        "differs_by": off,
        "holds": off <= 1e-5 and added_memory <= 3 * states.nbytes,
    }


def prepare(folder: Path, shape: str, load: Load, device: str) -> int:
    """Checkpoint, releases and prompts; returns the number of parameters. The other processes wait for `ready`."""
    lake = Lake(Workspace(folder / "workspace"))
    sizes = {
        "made": (EPISODES, MOMENTS, load.picture),
        "large": (EPISODES, MOMENTS, load.large_picture),
        "few": (1, FEW, load.picture),
    }
    for name, size in sizes.items():
        # Shards of about a megabyte, so that each of eight workers has some
        release_of(lake, episodes(*size), 1 << 20, name)
    write_prompts(folder / "prompts", load.picture)
    texts = [" ".join(WORDS), "The task: How far is it? <progress>0123456789.%</progress>"]
    parameters = write_checkpoint(folder / "model", SHAPES[shape], texts, device)
    free()
    (folder / "ready").write_text(str(parameters))
    return parameters


def prepared_parameters(folder: Path) -> int:
    """What the first process has written, once it has."""
    wait_for((folder / "ready").exists, f"{folder} is prepared", 900)
    return int((folder / "ready").read_text())


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    started = time.perf_counter()
    until = time.monotonic() + 60 * args.minutes
    rank = int(os.environ.get("RANK", 0))
    world = int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = "cpu" if args.tiny else f"cuda:{local}"
    named_recipe = load_recipe(args.recipe, folder / "model")
    load = TINY if args.tiny else replace(FULL, picture=args.pictures)
    shape = "tiny" if args.tiny else args.shape or shape_of(named_recipe)
    parameters = prepare(folder, shape, load, device) if rank == 0 else prepared_parameters(folder)
    bench = Bench(
        Lake(Workspace(folder / "workspace")),
        base_recipe(named_recipe, args.tiny),
        load,
        device,
        rank,
        world,
        until,
    )
    of_grpo = grpo_recipe(
        named_recipe, folder / "model", folder / "prompts" / "rows.jsonl", load, args.tiny, world
    )
    # First what was wrong on a GPU once, and was not seen there since: see what they say of themselves
    if named_recipe.kind == "sft":
        rows = [tried(bench, "resume", lambda: resumed(bench))]
    else:
        rows = []
    rows.append(
        tried(bench, "GRPO, a step, answers by transformers", lambda: grpo_step(bench, of_grpo))
    )
    rows += sft_rows(bench) if named_recipe.kind == "sft" else []
    rows += grpo_rows(bench, of_grpo)
    if rank == 0:
        rows.append(tried(bench, "rewards, window 8", lambda: rewards(bench)))
    return {
        "device": "CPU" if args.tiny else torch.cuda.get_device_name(),
        "gpus": 0 if args.tiny else world,
        "processes": world,
        "torch": torch.__version__,
        "recipe": args.recipe,
        "model": shape,
        "parameters": parameters,
        "seconds": round(time.perf_counter() - started, 1),
        "rows": rows,
    }


def shape_of(recipe: Recipe) -> str:
    """The size of the model that a recipe is meant for."""
    return next((shape for shape in SHAPES if shape in recipe.model.base), "Qwen3-VL-2B")


def show(report: dict[str, Any]) -> None:
    count = report["parameters"]
    size = f"{count / 1e9:.2f} B" if count > 1e8 else f"{count / 1e6:.2f} M"
    machine_text = f"{report['device']}, torch {report['torch']}"
    print(f"{report['recipe']} on {report['model']} ({size} parameters, random), {machine_text}")
    print()
    rows = []
    gpus = str(report["gpus"])
    for row in report["rows"]:
        numbers = [
            form.format(row[k]) if row.get(k) is not None else "" for k, form in NUMBERS.items()
        ]
        rows.append(
            [
                row["what"],
                row.get("error") or row.get("attention", ""),
                row.get("layout", ""),
                gpus,
                *numbers,
            ]
        )
    table(
        [
            "what",
            "attention",
            "layout",
            "GPUs",
            "tokens/s",
            "MFU",
            "GB",
            "planned",
            "loss",
            "differs by",
        ],
        rows,
    )
    print(f"{'; '.join(goals(report['rows']))}; {report['seconds']} s in all")


def goals(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What was wanted, and what came of it; speeds do not make a check fail."""
    by_name = {row["what"]: row for row in rows}
    first, *faster = [by_name.get(f"packed, {name}", {}) for name in LADDER]
    faster = [row for row in faster if "tokens_per_s" in row]
    if faster and "tokens_per_s" in first:
        best = max(faster, key=lambda row: row["tokens_per_s"])
        if best["mfu"] is not None:
            yield f"MFU {best['mfu']:.1%}, {best['what'].removeprefix('packed, ')} (goal {GOAL_MFU:.0%})"
        times = best["tokens_per_s"] / first["tokens_per_s"]
        yield f"{times:.2f} times the tokens a second of layers as they were (goal {GOAL_TIMES:.0f})"
    plain = by_name.get("plain padding", {}).get("tokens_per_s")
    if plain and "tokens_per_s" in first:
        yield f"packed is {first['tokens_per_s'] / plain:.2f} times plain padding (pictures are never padded)"
    reward = by_name.get("rewards, window 8", {})
    if "shared_over_unshared" in reward:
        times = reward["shared_over_unshared"]
        yield f"{reward['rewards_per_s']:.1f} rewards/s, {times:.2f} times unshared (goal {GOAL_SHARED})"


def size_of(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--recipe", default="procvlm_sft", help="a built-in recipe's name, or a YAML file"
    )
    parser.add_argument(
        "--shape", choices=sorted(SHAPES), help="default: the size that the recipe is meant for"
    )
    parser.add_argument(
        "--pictures",
        type=size_of,
        default=FULL.picture,
        metavar="WxH",
        help="as the shards hold them",
    )
    parser.add_argument("--tiny", action="store_true", help="a model of two layers, on the CPU")
    parser.add_argument(
        "--minutes", type=float, default=7.0, help="no row begins later than this after the start"
    )
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    args = parser.parse_args(arguments)
    if not args.tiny and not torch.cuda.is_available():
        print(
            "error: there is no GPU; --tiny shows on the CPU that the script works", file=sys.stderr
        )
        return 2
    # Processes of torchrun share a folder, whose name they all know
    folder = Path(tempfile.gettempdir()) / f"gpu-check-{os.environ.get('MASTER_PORT', os.getpid())}"
    first = os.environ.get("RANK", "0") == "0"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "compiled"))
    try:
        report = measure(args, folder)
    finally:
        if first:
            shutil.rmtree(folder, ignore_errors=True)
    if not first:
        return 0
    show(report)
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")
    failed = [row["what"] for row in report["rows"] if not row["holds"]]
    if failed:
        print(f"error: failed: {'; '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

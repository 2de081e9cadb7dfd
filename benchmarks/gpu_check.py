"""Training at true size on a GPU: what `proccorpus train` does, its speed, memory, and whether what must hold does.

    python -m benchmarks.gpu_check [--recipe NAME] [--shape Qwen3-VL-2B] [--pictures 256x192] [--out FILE.json] [--tiny]
    torchrun --nproc-per-node 8 -m benchmarks.gpu_check

Needs no data and no network: a checkpoint of the shape's size with random weights is written, and a release of shards
with pictures and questions as ProcVQA has them, 1 to 17 pictures each. Each row of the table is a run of
`training.train.train` on the recipe named, for a few steps: loader, trainer and saving are those of every other run.
In at most 25 minutes on one GPU. `--tiny` is the same code with a model of two layers on a CPU.

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
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pydantic import ValidationError

from benchmarks.reward import make_scorers, ours, timed, write_video
from benchmarks.true_size import SHAPES, write_checkpoint
from core.paths import Workspace
from core.tables import TABLES
from training.model import load_model
from training.points import Point
from training.recipe import Recipe, load_recipe
from training.runs import TrainingRun
from training.train import train
from warehouse.lake import Lake
from warehouse.releases import Release, get_release
from warehouse.releases.contents import ShardFile
from warehouse.shards import ShardEpisode, picture_name, shards_stage

GOAL_MFU, GOAL_PACKED, GOAL_SHARED = 0.45, 2.0, 1.5
ATTENTIONS = ("sdpa", "flash_attention_2", "flash_attention_3")
PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
WARM_STEPS = 2  # not measured: kernels are chosen, memory is taken, workers fill their queues
FEW = 6  # samples whose loss is compared, packed and padded
EPISODES, MOMENTS = 16, 16
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
SHAPE_OF = {"Qwen3-VL-4B": "Qwen3-VL-4B", "Qwen2.5-VL-3B": "Qwen2.5-VL-3B", "Qwen2.5-VL-7B": "Qwen2.5-VL-7B"}


@dataclass(frozen=True)
class Load:
    """How much is done. picture: width and height; each row trains `steps` steps of `accumulation` batches."""

    picture: tuple[int, int]
    large_picture: tuple[int, int]
    sequence_length: int
    window: int | None  # samples that are looked through for rows of like length
    batch: int
    accumulation: int
    steps: int
    workers: int
    completion: int  # tokens of an answer in GRPO
    moments: int  # scored as rewards
    tolerance: float  # of a loss, relative, where the same is calculated another way
    resume_tolerance: float


def full_load(recipe: Recipe, picture: tuple[int, int]) -> Load:
    data, train = recipe.data, recipe.train
    return Load(
        picture=picture,
        large_picture=(640, 480),
        sequence_length=data.sequence_length,
        window=data.window,
        batch=train.batch,
        accumulation=min(2, train.accumulation),
        steps=WARM_STEPS + 4,
        workers=min(data.workers, os.cpu_count() or 1),
        completion=256,
        moments=48,
        tolerance=2e-2,  # bfloat16
        resume_tolerance=1e-3,  # kernels add up in any order
    )


TINY = Load((64, 64), (96, 64), 384, 64, 1, 1, WARM_STEPS + 1, 0, 8, 9, tolerance=1e-5, resume_tolerance=1e-6)


@dataclass(frozen=True)
class Bench:
    """What all rows share. `folder` is seen by all processes; the first of them prepares it."""

    lake: Lake
    recipe: Recipe
    load: Load
    device: str
    rank: int
    world: int

    def release(self, name: str) -> Release:
        return get_release(self.lake, name)


# What is trained on


def jpeg(rng: np.random.Generator, size: tuple[int, int]) -> bytes:
    """Something between noise and a plain wall, as photographs are."""
    coarse = rng.integers(30, 220, (size[1] // 16, size[0] // 16, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC))[1].tobytes()


def episodes(count: int, moments: int, size: tuple[int, int]) -> Iterator[tuple[str, ShardEpisode]]:
    """As many pictures a sample as ProcVQA's family c has: one in three in ten samples, else 5 to 17."""
    rng = np.random.default_rng(0)
    for e in range(count):
        pictures, rows = {}, []
        frames = [{"episode_index": e, "camera": "front", "frame_index": t, "edit": None} for t in range(17)]
        pictures = {picture_name(e, shown): jpeg(rng, size) for shown in frames}
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
        yield "train", ShardEpisode("made", e, rows, pictures)


def write_release(lake: Lake, name: str, count: int, moments: int, size: tuple[int, int]) -> None:
    """Shards of about a megabyte, so that each of eight workers has some."""
    tables = shards_stage(lake.workspace, name, 0, episodes(count, moments, size), target_bytes=1 << 20)
    columns = ShardFile.__dataclass_fields__
    files = [ShardFile(**{k: row[k] for k in columns}) for row in tables["shards"].to_pylist()]
    release = {"name": name, "config_hash": name.ljust(64, "0"), "created_at": datetime.now(UTC)}
    lake.freeze(release=release, shards=TABLES["release_shards"].rows([asdict(f) | {"name": name} for f in files]))


def write_prompts(folder: Path, size: tuple[int, int]) -> Path:
    """Rows of RL as ProgressLM publishes them: a demonstration in words and a picture to place."""
    rng = np.random.default_rng(1)
    rows = []
    for k in range(16):
        (folder / f"run{k}").mkdir(parents=True)
        (folder / f"run{k}" / "camera_front_0001.jpg").write_bytes(jpeg(rng, size))
        steps = [" ".join(rng.choice(WORDS, 6)) for _ in range(4)]
        row = {"id": f"run{k}", "task_goal": steps[0], "text_demo": steps, "total_steps": 4}
        row |= {"stage_to_estimate": ["camera_front_0001.jpg"], "closest_idx": "2", "progress_score": "42%"}
        rows.append(json.dumps(row))
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    return folder / "rows.jsonl"


def changed(recipe: Recipe, name: str, **sections: dict[str, Any] | None) -> Recipe:
    """A recipe with other values in some sections; validated."""
    values = recipe.model_dump(exclude_unset=True)
    for section, of in sections.items():
        values[section] = None if of is None else (values.get(section) or {}) | of
    return Recipe.model_validate(values | {"name": name})


def base_recipe(recipe: Recipe, load: Load, tiny: bool) -> Recipe:
    """The recipe named, for a few steps on what was made here."""
    train = {"epochs": None, "steps": load.steps, "batch": load.batch, "accumulation": load.accumulation}
    train |= {"save_every": None, "evaluate_every": 0, "warmup": 0.0} | ({"dtype": "float32"} if tiny else {})
    data: dict[str, Any] = {"sequence_length": load.sequence_length, "workers": load.workers}
    if recipe.kind == "sft":
        data |= {"families": {"procvqa_c": 1.0}, "jsonl": (), "image_root": None, "think": None}
        data["window"] = load.window
    return changed(recipe, "gpu_check", train=train, data=data)


# One row each


def run_of(bench: Bench, recipe: Recipe, release: str) -> tuple[TrainingRun, dict[str, Any]]:
    """A run to its end, and its figures; the rates are those after the first steps."""
    cuda = bench.device != "cpu"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    run = train(bench.lake, bench.release(release), recipe)
    points = run.curve[WARM_STEPS:] or run.curve
    seconds = sum((p.tokens - before) / p.tokens_per_s for p, before in zip(points, _before(run.curve), strict=True))
    tokens = points[-1].tokens - _before(run.curve)[0]
    counted = [p.mfu * (1 / p.tokens_per_s) for p in points if p.mfu is not None]
    figures = {
        "attention": recipe.model.attention,
        "layout": "packed" if recipe.data.packing else "padded",
        "loss": points[-1].loss,
        "tokens_per_s": tokens / seconds,
        "mfu": sum(counted) / sum(1 / p.tokens_per_s for p in points) if counted else None,
        "memory_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else None,
    }
    return run, figures


def _before(curve: tuple[Point, ...]) -> list[int]:
    """Tokens before each of the measured steps."""
    counts = [0, *(p.tokens for p in curve)]
    return counts[WARM_STEPS:-1] if len(curve) > WARM_STEPS else counts[:-1]


def speed(bench: Bench, release: str = "made", **sections: dict[str, Any] | None) -> dict[str, Any]:
    run, figures = run_of(bench, changed(bench.recipe, "speed", **sections), release)
    if bench.rank == 0 and bench.recipe.lora is None and "lora" not in sections:
        load_model(run.checkpoint)  # raises where what was saved is not whole
    return figures


def same_loss(bench: Bench, attention: str) -> dict[str, Any]:
    """The loss of the first step on a few samples: in one packed row, and padded."""
    length = bench.load.sequence_length * 4
    train = {"steps": 1, "accumulation": 1}
    packed, figures = run_of(
        bench,
        changed(
            bench.recipe, "packed", model={"attention": attention}, train=train | {"batch": 1}, **_still(bench),
            data={"packing": True, "window": FEW, "sequence_length": length, "workers": 0},
        ), "few",
    )  # fmt: skip
    padded, _ = run_of(
        bench,
        changed(
            bench.recipe, "padded", model={"attention": "sdpa"}, train=train | {"batch": FEW}, **_still(bench),
            data={"packing": False, "window": FEW, "sequence_length": length, "workers": 0},
        ), "few",
    )  # fmt: skip
    one, two = packed.curve[0], padded.curve[0]
    if one.samples != two.samples:
        raise ValueError(f"a packed step held {one.samples} samples, a padded one {two.samples}")
    pairs = [(one.loss, two.loss), (one.text, two.text), (one.progress, two.progress)]
    off = max(abs(a - b) / max(1e-3, abs(b)) for a, b in pairs if a is not None and b is not None)
    kept = {k: figures[k] for k in ("attention", "loss")}
    return kept | {"layout": "both", "differs_by": off, "holds": off <= bench.load.tolerance}


def _still(bench: Bench) -> dict[str, dict[str, Any]]:
    """A head without chance of its own."""
    return {"head": {"dropout": 0.0, "noise": 0.0}} if bench.recipe.head else {}


class KilledError(Exception):
    pass


def resumed(bench: Bench) -> dict[str, Any]:
    """A run of four steps; and one that is killed in its third and goes on from its second."""
    settings = {"steps": 4, "save_every": 2, "accumulation": 1}
    whole, figures = run_of(bench, changed(bench.recipe, "whole", train=settings), "made")

    def kill(point: Point) -> None:
        if point.step == 2:
            raise KilledError

    recipe = changed(bench.recipe, "killed", train=settings)
    try:
        train(bench.lake, bench.release("made"), recipe, kill)
    except KilledError:
        free()
    again = train(bench.lake, bench.release("made"), recipe, resume=True)
    off = max(abs(a.loss - b.loss) / max(1e-3, abs(a.loss)) for a, b in zip(whole.curve, again.curve, strict=True))
    kept = {k: figures[k] for k in ("attention", "layout", "loss", "memory_gb")}
    return kept | {"differs_by": off, "holds": off <= bench.load.resume_tolerance}


def grpo_recipe(recipe: Recipe, checkpoint: Path, prompts: Path, load: Load, tiny: bool, world: int) -> Recipe:
    """One step of GRPO on prompts that were made here."""
    own = recipe if recipe.kind == "grpo" else load_recipe("progresslm_grpo", checkpoint)
    train = {"epochs": None, "steps": 1, "batch": 4, "accumulation": 1, "save_every": None}
    train |= {"dtype": "float32" if tiny else "bfloat16", "distributed": "fsdp" if world > 1 else "none"}
    data = {"jsonl": (prompts,), "image_root": prompts.parent, "sequence_length": 4096, "workers": 0}
    grpo = {"generations": 4, "max_completion": load.completion, "rollouts": "auto"}
    grpo |= {"validate_every": None} | ({"rollouts": "transformers"} if tiny else {})
    return changed(own, "grpo", train=train, data=data, grpo=grpo, model={"max_pixels": recipe.model.max_pixels})


def rewards(bench: Bench) -> dict[str, Any]:
    """Rewards of a video at windows of 8 pictures, with vision shared between windows and seen anew by each."""
    shared, unshared, _ = make_scorers(bench.device)
    with tempfile.TemporaryDirectory() as spare:
        write_video(Path(spare) / "run.mp4", bench.load.moments)
        ours(shared, Path(spare) / "run.mp4")
        one, first = timed(bench.device, lambda: ours(shared, Path(spare) / "run.mp4"))
        two, second = timed(bench.device, lambda: ours(unshared, Path(spare) / "run.mp4"))
    off = float(np.abs(np.array(first) - np.array(second)).max())
    held = len(first) == len(second) == bench.load.moments and off <= bench.load.tolerance
    return {
        "attention": "sdpa",
        "differs_by": off,
        "holds": held,
        "rewards_per_s": len(first) / one,
        "shared_over_unshared": two / one,
    }


# The table


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def tried(bench: Bench, name: str, work: Callable[[], dict[str, Any]], spare: bool = False) -> dict[str, Any]:
    """A row; one that fails says why, and the others go on. `spare`: a lack of memory is no failure."""
    started = time.perf_counter()
    try:
        row = {"holds": True} | work()
    except Exception as e:  # whatever a kernel, a package or the trainer raises: this row's own failure
        traceback.print_exc()
        told = " ".join(f"{type(e).__name__}: {e}".split())[:200]
        row = {"error": told, "holds": spare and "out of memory" in told.lower()}
    free()
    row = {"what": name, "took_s": round(time.perf_counter() - started, 1), **row}
    if bench.rank == 0:
        shutil.rmtree(bench.lake.workspace.root / "models", ignore_errors=True)
        print(f"  {name}: {row.get('error') or 'done'} ({row['took_s']} s)", file=sys.stderr, flush=True)
    return row


def attentions(bench: Bench) -> list[str]:
    """The recipe's own, and all others that it may name and whose package is here."""
    names = [bench.recipe.model.attention]
    for name in ATTENTIONS:
        package = PACKAGES.get(name)
        absent = package and not importlib.util.find_spec(package)
        if name in names or absent or (bench.device == "cpu" and package):
            continue
        try:
            changed(bench.recipe, "speed", model={"attention": name})
        except ValidationError:  # not for this recipe: its precision, or a name that is no longer there
            continue
        names.append(name)
    return names


def sft_rows(bench: Bench) -> Iterator[dict[str, Any]]:
    own, recipe = bench.recipe.model.attention, bench.recipe
    row = lambda name, spare=False, **more: tried(bench, name, lambda: speed(bench, **more), spare)  # noqa: E731
    window = {"window": recipe.data.window or 512, "packing": True}
    names = attentions(bench)
    for name in names:
        yield row(f"packed, {name}", model={"attention": name}, data=window)
    large = {"data": window, "release": "large"}
    yield row(f"packed, {own}, pictures {bench.load.large_picture[0]}x{bench.load.large_picture[1]}", **large)
    other = not recipe.train.gradient_checkpointing
    small = {"batch": 1, "accumulation": bench.load.batch, "gradient_checkpointing": other}
    words = "recomputed" if other else "nothing recomputed"
    yield row(f"packed, {own}, rows one by one, {words}", spare=True, data=window, train=small)
    padded = {"batch": bench.load.batch * samples_of_a_row(bench.load)}
    yield row("like length", data={"packing": False, "window": window["window"]}, train=padded)
    yield row("plain padding", data={"packing": False, "window": None}, train=padded)
    if recipe.lora is None:
        rates = {"merger_lr": None, "vision_lr": None}
        yield row(f"packed, {own}, LoRA", lora={"rank": 16, "alpha": 32.0}, data=window, train=rates)
    for name in names:
        yield tried(bench, f"packed as padded, {name}", lambda name=name: same_loss(bench, name))


def samples_of_a_row(load: Load) -> int:
    """About as many as a packed row holds."""
    mean_pictures = 0.3 * 1 + 0.7 * 11
    return max(1, round(load.sequence_length / (80 + mean_pictures * load.picture[0] * load.picture[1] / 1024)))


def grpo_row(bench: Bench, recipe: Recipe) -> dict[str, Any]:
    engine = "vLLM" if bench.device != "cpu" and importlib.util.find_spec("vllm") else "transformers"

    def step() -> dict[str, Any]:
        _, figures = run_of(bench, recipe, "made")
        return {k: figures[k] for k in ("attention", "loss", "memory_gb")}  # vLLM's answers are compared within

    return tried(bench, f"GRPO, a step, answers by {engine}", step)


def prepare(folder: Path, shape: str, load: Load, device: str) -> int:
    """Checkpoint, releases and prompts; returns the number of parameters. The other processes wait for `ready`."""
    lake = Lake(Workspace(folder / "workspace"))
    write_release(lake, "made", EPISODES, MOMENTS, load.picture)
    write_release(lake, "large", EPISODES, MOMENTS, load.large_picture)
    write_release(lake, "few", 1, FEW, load.picture)
    write_prompts(folder / "prompts", load.picture)
    texts = [" ".join(WORDS), "The task: How far is it? <progress>0123456789.%</progress>"]
    parameters = write_checkpoint(folder / "model", SHAPES[shape], texts, device)
    free()
    (folder / "ready").write_text(str(parameters))
    return parameters


def wait_for(folder: Path, seconds: float = 900.0) -> int:
    limit = time.monotonic() + seconds
    while not (folder / "ready").exists():
        if time.monotonic() > limit:
            raise TimeoutError(f"the first process has not prepared {folder} for {seconds:.0f} s")
        time.sleep(0.2)
    return int((folder / "ready").read_text())


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    started = time.perf_counter()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = "cpu" if args.tiny else f"cuda:{local}"
    named = load_recipe(args.recipe, folder / "model")
    load = TINY if args.tiny else full_load(named, args.pictures)
    shape = "tiny" if args.tiny else args.shape or shape_of(named)
    parameters = prepare(folder, shape, load, device) if rank == 0 else wait_for(folder)
    bench = Bench(Lake(Workspace(folder / "workspace")), base_recipe(named, load, args.tiny), load, device, rank, world)
    of_grpo = grpo_recipe(named, folder / "model", folder / "prompts" / "rows.jsonl", load, args.tiny, world)
    rows = list(sft_rows(bench)) if named.kind == "sft" else []
    if named.kind == "sft":
        rows.append(tried(bench, "resume", lambda: resumed(bench)))
    rows.append(grpo_row(bench, of_grpo))
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
    return next((shape for begins, shape in SHAPE_OF.items() if begins in recipe.model.base), "Qwen3-VL-2B")


def show(report: dict[str, Any]) -> None:
    count = report["parameters"]
    size = f"{count / 1e9:.2f} B" if count > 1e8 else f"{count / 1e6:.2f} M"
    where = f"{report['device']}, torch {report['torch']}"
    print(f"{report['recipe']} on {report['model']} ({size} parameters, random), {where}")
    print("\n| what | attention | layout | GPUs | tokens/s | MFU | GB | loss | differs by |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in report["rows"]:
        if "error" in row:
            print(f"| {row['what']} | {row['error']} |" + " |" * 7)
            continue
        numbers = [
            f"{row['tokens_per_s']:,.0f}" if row.get("tokens_per_s") else "",
            f"{row['mfu']:.1%}" if row.get("mfu") else "",
            f"{row['memory_gb']:.1f}" if row.get("memory_gb") else "",
            f"{row['loss']:.3f}" if "loss" in row else "",
            f"{row['differs_by']:.1e}" if "differs_by" in row else "",
        ]
        told = [row["what"], row.get("attention", ""), row.get("layout", ""), str(report["gpus"]), *numbers]
        print("| " + " | ".join(told) + " |")
    print(f"\n{'; '.join(goals(report['rows']))}; {report['seconds']} s in all")


def goals(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What was wanted, and what came of it; speeds do not make a check fail."""
    by_name = {row["what"]: row for row in rows}
    packed = [r for r in rows if r["what"].startswith("packed, ") and "tokens_per_s" in r and "," not in r["what"][8:]]
    if packed:
        best = max(packed, key=lambda r: r["tokens_per_s"])
        if best["mfu"] is not None:
            yield f"MFU {best['mfu']:.1%} with {best['attention']} (goal {GOAL_MFU:.0%})"
        plain = by_name["plain padding"].get("tokens_per_s")
        if plain:
            yield f"packed is {best['tokens_per_s'] / plain:.2f} times plain padding (goal {GOAL_PACKED:.0f})"
    reward = by_name.get("rewards, window 8", {})
    if "shared_over_unshared" in reward:
        times = reward["shared_over_unshared"]
        yield f"{reward['rewards_per_s']:.1f} rewards/s, {times:.2f} times unshared (goal {GOAL_SHARED})"


def size_of(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="procvlm_sft", help="a built-in recipe's name, or a YAML file")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="default: the size that the recipe is meant for")
    parser.add_argument("--pictures", type=size_of, default=(256, 192), metavar="WxH", help="as the shards hold them")
    parser.add_argument("--tiny", action="store_true", help="a model of two layers, on the CPU")
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    args = parser.parse_args(arguments)
    if not args.tiny and not torch.cuda.is_available():
        print("error: there is no GPU; --tiny shows on the CPU that the script works", file=sys.stderr)
        return 2
    # Processes of torchrun share a folder, whose name they all know
    folder = Path(tempfile.gettempdir()) / f"gpu-check-{os.environ.get('MASTER_PORT', os.getpid())}"
    first = os.environ.get("RANK", "0") == "0"
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
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

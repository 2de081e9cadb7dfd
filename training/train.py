"""Training: from a release's shards to a checkpoint, recorded in the lake."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from core.files import whole_folder
from core.paths import Workspace
from core.tables import TABLES
from training.attention import set_attention
from training.backbones import add_adapter, empty_backbone, freeze, load_backbone, load_processor, quantized, use_liger
from training.batches import NO_LABELS, needs_labels, open_batches
from training.card import make_card
from training.checkpoint import StepWriter, load_state, saved_steps
from training.errors import TrainingError
from training.folder import read_card
from training.heads import Head, head_kind, make_head
from training.held_out import BEST, HeldOutCheck, Scorer
from training.labels import read_labels
from training.laptop.kind import is_laptop
from training.loop import Point, Trainer
from training.model import HEAD_CONFIG, ProgressModel, load_head, save_model
from training.recipe import DataConfig, Recipe
from training.tiny import make_backbone, make_processor, make_tokenizer
from training.transform import Transform
from warehouse.lake import Lake
from warehouse.releases import Release
from warehouse.shards import read_entries

if TYPE_CHECKING:
    from training.grpo import GrpoTrainer
    from training.laptop.fit import Fitted

CODE_VERSION = "training-9"  # 9: laptop models tell what is strange to them
VOCABULARY_ENTRIES = 500  # episodes whose texts a tiny model's tokenizer is made from


@dataclass(frozen=True)
class TrainingRun:
    id: str
    checkpoint: Path
    curve: tuple[Point, ...]
    parameters: int
    samples: int
    seconds: float


def training_run_id(recipe: Recipe, release: Release) -> str:
    """Equal for equal recipe, release content and code."""
    text = "\0".join([recipe.model_dump_json(), release.config_hash, CODE_VERSION])
    return f"{recipe.name}-{release.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _checked_shards(lake: Lake, release: Release, recipe: Recipe, scorer: Scorer | None) -> Sequence[Path]:
    """The shards to train on. Raises TrainingError for a recipe that cannot be trained on this release."""
    if recipe.model.path and is_laptop(recipe.model.path):
        raise TrainingError(
            f"{recipe.model.path.name} is a laptop model: train one from the start by the recipe laptop, or go on with "
            "this one by proccorpus adapt"
        )
    shards = release.paths(lake.workspace, "train")
    if not shards and not recipe.data.jsonl:
        raise TrainingError(f"release {release.name} has no train split")
    if recipe.train.evaluate_every and scorer is None:
        raise TrainingError("train.evaluate_every: this run has no held-out episodes; set it to 0")
    return shards


def train(
    lake: Lake,
    release: Release,
    recipe: Recipe,
    on_step: Callable[[Point], None] = lambda point: None,
    resume: bool = False,
    scorer: Scorer | None = None,
) -> TrainingRun:
    """Train on the train split of a release, save the checkpoint, record run and checkpoint.

    The checkpoint folder `models/<run>` appears whole or not at all; those to go on from (train.save_every) lie in
    `models/<run>.steps`. Where the recipe evaluates within the run, by `scorer`, the best model is `models/<run>.best`.
    With `resume`, training goes on from the newest of these. In a group of processes (torchrun)
    each calls this; the first saves and records. Raises TrainingError, ModelError or ShardError.
    """
    if recipe.model.laptop:
        return _train_laptop(lake, release, recipe, on_step, resume)
    started = time.monotonic()
    run = training_run_id(recipe, release)
    folder = lake.workspace.root / "models" / run
    steps = _steps(lake.workspace, run)
    last = _to_resume(steps) if resume else None
    shards = _checked_shards(lake, release, recipe, scorer)
    rank, _ = _place()
    # Divided, the weights are given by the first process, which alone reads them.
    given = rank > 0 and recipe.kind == "sft" and recipe.train.distributed == "fsdp"
    model, processor = start_model(recipe, folder, _texts(shards, recipe.data), main=rank == 0, given=given)
    freeze(model, recipe.train)
    trainer = _trainer(lake, release, recipe, model, processor, last, steps)
    # What goes on beside the weights: the curve, the optimizer and all chance.
    if last:
        trainer.load(last, load_state(last))
    elif trainer.accelerator.is_main_process:
        # Steps left by a killed run would be gone on from by the next --resume, though this run begins anew.
        shutil.rmtree(steps, ignore_errors=True)
    parameters = sum(p.numel() for p in model.parameters())
    card = make_card(lake, release, recipe, run, CODE_VERSION) | _base(recipe, folder) | {"parameters": parameters}

    def write_model(to: Path) -> None:
        facts = {"samples": trainer.drawn, "left_out": trainer.left_out, "final": asdict(trainer.curve[-1])}
        if recipe.data.negatives.total and isinstance(trainer, Trainer):
            facts["negatives"] = {kind: count for kind, count in trainer.made.items() if count}
        _write_model(trainer, processor, card | facts, to)

    check = None
    if scorer is not None and isinstance(trainer, Trainer):
        check = HeldOutCheck(trainer.accelerator, scorer, write_model, steps / "held-out", _best(folder))
        check.begin(load_state(last).best if last else None, resumed=last is not None)
        trainer.check = check
    writer = StepWriter(steps, recipe.train.keep, recipe.train.keep_gb)
    try:
        trainer.run(on_step, lambda: writer.write(trainer.state(), trainer.tensors()))
        writer.wait()
    except BaseException:
        writer.settle()
        raise

    best = check.best if check else None
    if best:
        card |= {"best": {"model": _best(folder).name, **best}}
    write_model(folder)
    if trainer.accelerator.is_main_process:
        _record(lake, run, release, recipe, trainer.curve, folder, best)
    trainer.accelerator.wait_for_everyone()
    seconds = time.monotonic() - started
    return TrainingRun(run, folder, tuple(trainer.curve), parameters, trainer.drawn, seconds)


def _best(folder: Path) -> Path:
    return folder.with_name(folder.name + BEST)


def _train_laptop(
    lake: Lake, release: Release, recipe: Recipe, on_step: Callable[[Point], None], resume: bool
) -> TrainingRun:
    """The same for the kind `laptop`, which is trained by one process in one go. Raises TrainingError, EncoderError."""
    from training.laptop.fit import fit

    if resume:
        raise TrainingError("a laptop model trains in seconds, and keeps nothing to go on from: leave out --resume")
    if _place()[1] > 1:
        raise TrainingError("a laptop model is trained by one process: start it without torchrun")
    started = time.monotonic()
    return keep_laptop(lake, release, recipe, fit(lake, release, recipe, on_step), started)


def keep_laptop(
    lake: Lake,
    release: Release,
    recipe: Recipe,
    fitted: "Fitted",
    started: float,
    more: Mapping[str, Any] | None = None,
) -> TrainingRun:
    """Save a laptop model that was fitted, and record its run; `more` is for its card, `started` by the monotonic
    clock."""
    from training.laptop.model import save_laptop

    run = training_run_id(recipe, release)
    folder = lake.workspace.root / "models" / run
    parameters = sum(p.numel() for p in fitted.model.parameters())
    card = make_card(lake, release, recipe, run, CODE_VERSION) | {
        "head": {"pooling": "laptop"},
        "parameters": parameters,
        "samples": fitted.samples,
        "left_out": 0,
        "final": asdict(fitted.curve[-1]),
        "negatives": fitted.made,
        "preferences": fitted.pairs,
        "runs": fitted.runs,
        "stored_runs": fitted.stored_runs,
        "pictures": fitted.pictures,
        "cpu_s": {name: round(seconds, 1) for name, seconds in fitted.cpu_s.items()},
    }
    with whole_folder(folder) as half:
        save_laptop(fitted.model, fitted.encoder, half, card | dict(more or {}))
        (half / "curve.json").write_text(json.dumps([asdict(p) for p in fitted.curve]) + "\n")
    _record(lake, run, release, recipe, fitted.curve, folder, None)
    return TrainingRun(run, folder, fitted.curve, parameters, fitted.samples, time.monotonic() - started)


def _trainer(
    lake: Lake, release: Release, recipe: Recipe, model: ProgressModel, processor: Any, last: Path | None, steps: Path
) -> "Trainer | GrpoTrainer":
    if recipe.kind == "grpo":
        from training.grpo import GrpoTrainer, held_out_prompts, prompts  # slow to import

        samples, held_out = (ask(lake.workspace, release, recipe) for ask in (prompts, held_out_prompts))
        return GrpoTrainer(model, processor, samples, recipe, last, held_out, steps)
    rank, world = _place()
    shards = release.paths(lake.workspace, "train")
    labels = read_labels(lake, release, shards) if needs_labels(recipe) else NO_LABELS
    batches = open_batches(shards, Transform(processor), recipe, rank, world, labels)
    return Trainer(model, batches, recipe, load_state(last).begun_by if last else None, steps)


def _write_model(trainer: "Trainer | GrpoTrainer", processor: Any, card: dict[str, Any], folder: Path) -> None:
    """The model as it is now, with its curve; all processes call it, the main one writes. Training can go on.

    A model that is trained in bfloat16 is stored in it, except for its head.
    """
    recipe, plain, weights = trainer.recipe, trainer.plain, trainer.weights()
    # All processes had to give their parts of the weights; one alone writes.
    if not trainer.accelerator.is_main_process:
        return
    if recipe.train.dtype == "bfloat16" and recipe.lora is None:
        weights = _rounded(weights or plain.state_dict())
    with whole_folder(folder) as half:
        save_model(plain, processor, half, card, weights)
        (half / "curve.json").write_text(json.dumps([asdict(p) for p in trainer.curve]) + "\n")


def _rounded(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies in bfloat16, but for the head; weights that were one tensor stay one."""
    made: dict[tuple[int, torch.Size], torch.Tensor] = {}
    rounded = {}
    for name, tensor in weights.items():
        if name.startswith("head."):
            rounded[name] = tensor
            continue
        place = tensor.data_ptr(), tensor.shape
        if place not in made:
            made[place] = tensor.detach().to("cpu", torch.bfloat16)
        rounded[name] = made[place]
    return rounded


def start_model(
    recipe: Recipe, folder: Path, texts: Iterable[str], main: bool = True, given: bool = False
) -> tuple[ProgressModel, Any]:
    """The model that a recipe begins with, and its processor. `texts`: what a tiny model's tokenizer is made from;
    `given`: another process gives a checkpoint's weights, they are not read.

    A tiny model under an adapter, or whose distance from its start counts, is kept beside `folder`, as the base (by the
    `main` process). GRPO puts an adapter on the model by itself. Raises ModelError.
    """
    tiny, seed = recipe.model.tiny, recipe.train.seed
    if tiny:
        tokenizer = make_tokenizer(texts, tiny.vocabulary)
        processor = make_processor(tokenizer, tiny)
        backbone = make_backbone(tokenizer, tiny, seed)
        set_attention(backbone, recipe.model.attention)
        if recipe.lora or recipe.kind == "grpo":
            base = _tiny_base(folder)
            if main:
                with whole_folder(base) as half:
                    save_model(ProgressModel(backbone, None), processor, half, {"head": None})
            backbone.name_or_path = str(base)
            for parameter in backbone.parameters():  # as it will be when it is loaded
                parameter.data = parameter.data.to(_options(recipe)["dtype"])
    else:
        assert recipe.model.path is not None
        options = _options(recipe)
        if given and "quantization_config" not in options:
            backbone = empty_backbone(recipe.model.path, options["attention"], options["dtype"])
        else:
            backbone = load_backbone(recipe.model.path, **options)
        processor = load_processor(recipe.model.path, recipe.model.min_pixels, recipe.model.max_pixels)
        # What is new on a checkpoint, adapter and head, is drawn at random, and by the recipe's seed.
        torch.manual_seed(seed)
    if recipe.model.liger:
        use_liger(backbone)
    if recipe.lora and recipe.kind == "sft":
        add_adapter(backbone, recipe.lora)
    processor.max_vision_tokens = recipe.model.max_vision_tokens
    hidden = backbone.config.get_text_config().hidden_size
    return ProgressModel(backbone, _start_head(recipe, hidden)), processor


def _start_head(recipe: Recipe, hidden: int) -> Head | None:
    """A new head; the checkpoint's own where it has one of the recipe's kind. Raises ModelError."""
    if recipe.head is None:
        return None
    head, path = make_head(recipe.head, hidden), recipe.model.path
    if path and (path / HEAD_CONFIG).exists():
        kept = load_head(path, read_card(path))
        if kept and head_kind(kept) == head_kind(head):
            own = head.state_dict()
            head.load_state_dict(own | {k: v for k, v in kept.state_dict().items() if k in own})
    return head


def _options(recipe: Recipe) -> dict[str, Any]:
    """How a checkpoint is loaded to be trained: what learns in float32, what an adapter is put on in train.dtype."""
    frozen = recipe.lora is not None
    dtype = getattr(torch, recipe.train.dtype) if frozen else torch.float32
    more = quantized() if recipe.lora and recipe.lora.quantize else {}
    return {"attention": recipe.model.attention, "dtype": dtype, **more}


def _tiny_base(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.base")


def _base(recipe: Recipe, folder: Path) -> dict[str, str]:
    if recipe.lora is None:
        return {}
    return {"base": str(recipe.model.path.resolve() if recipe.model.path else _tiny_base(folder))}


def _place() -> tuple[int, int]:
    """Rank and number of the processes, as the launcher says."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def resumable(space: Workspace, recipe: Recipe, release: Release) -> bool:
    """Is there a checkpoint that this run could go on from?"""
    return bool(saved_steps(_steps(space, training_run_id(recipe, release))))


def forget_steps(space: Workspace, run: str) -> None:
    """Take away what a run could go on from, so that it begins anew."""
    shutil.rmtree(_steps(space, run), ignore_errors=True)


def _steps(space: Workspace, run: str) -> Path:
    return space.root / "models" / f"{run}.steps"


def _to_resume(steps: Path) -> Path:
    found = saved_steps(steps)
    if not found:
        raise TrainingError(
            f"there is no checkpoint to go on from in {steps}: begin without --resume "
            "(train.save_every in the recipe says how often one is written; another recipe or release is another run)"
        )
    return found[-1]


def _texts(shards: Sequence[Path], data: DataConfig) -> Iterable[str]:
    """Questions and answers of the recipe's rows, else of a corpus's first episodes."""
    if data.jsonl:
        from training.progresslm_data import read_rows

        yield from read_rows(data.jsonl, data.image_root).texts
        return
    entries = (rows for path in shards for rows, _ in read_entries(path))
    for rows in islice(entries, VOCABULARY_ENTRIES):
        for row in rows:
            yield from (row["question"], row["answer"] or "")


def _record(
    lake: Lake,
    run: str,
    release: Release,
    recipe: Recipe,
    curve: Sequence[Point],
    folder: Path,
    best: dict[str, float] | None,
) -> None:
    now = datetime.now(UTC)
    row = {
        "training_run": run,
        "recipe": recipe.name,
        "release": release.name,
        "config_hash": release.config_hash,
        "config": recipe.model_dump_json(),
        "code_version": CODE_VERSION,
        "steps": len(curve),
        "final_loss": curve[-1].loss,
        "created_at": now,
    }
    made = [(folder, len(curve))]
    if best is not None:
        made.append((_best(folder), int(best["step"]) + 1))
    checkpoints = [
        {
            "training_run": path.name,
            "step": steps,
            "path": path.relative_to(lake.workspace.root).as_posix(),
            "created_at": now,
        }
        for path, steps in made
    ]
    lake.upsert(
        f"training run {run}",
        training_runs=TABLES["training_runs"].rows([row]),
        checkpoints=TABLES["checkpoints"].rows(checkpoints),
    )

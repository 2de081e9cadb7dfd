"""Training: from a release's shards to a checkpoint, recorded in the lake."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from core.files import whole_folder
from core.logs import TOLD
from training import backbones, runs
from training.attention import chosen, set_attention
from training.batches import NO_LABELS, Batches, open_batches
from training.card import check_shards, make_card
from training.checkpoint import CheckpointScorer, HeldOutCheck, StepWriter, load_state
from training.folder import TrainingError, is_laptop, read_card, write_card
from training.laptop.fit import adapt_laptop, train_laptop
from training.loop import Trainer, noticed
from training.model import HEAD_CONFIG, Head, ProgressModel, load_head, make_head, save_model
from training.negatives.samples import read_labels
from training.plan import of_this_machine
from training.progresslm_data import read_rows, write_conversations
from training.recipe import OF_LAPTOPS, HeadConfig, Recipe
from training.trained_on import seen_before, seen_of
from training.transform import Transform
from warehouse.lake import Lake, content_key
from warehouse.releases.release import Release
from warehouse.shards.shard import Sample, read_entries

COMPILED = ".compiled"  # in models: layers as they were compiled, for the next run
VOCABULARY_ENTRIES = 500  # episodes whose texts a tiny model's tokenizer is made from


def train(
    lake: Lake,
    release: Release,
    recipe: Recipe,
    on_step: Callable[[runs.Point], None] = lambda point: None,
    resume: bool = False,
    scorer: CheckpointScorer | None = None,
) -> runs.TrainingRun:
    """Train on the train split of a release, save the checkpoint, record run and checkpoint.

    The checkpoint folder `models/<run>` appears whole or not at all; those to resume from (train.save_every) lie in
    `models/<run>.steps`. Where the recipe evaluates within the run, by `scorer`, the best model is `models/<run>.best`.
    With `resume`, training goes on from the newest of these. In a group of processes (torchrun)
    each calls this; the first saves and records. Raises TrainingError, ModelError or ShardError.
    """
    if recipe.model.laptop:
        return train_laptop(lake, release, recipe, on_step, resume)
    started = time.monotonic()
    run = runs.training_run_id(recipe, release)
    folder = runs.run_folder(lake.workspace, run)
    steps = runs.steps_folder(lake.workspace, run)
    last = _to_resume(steps) if resume else None
    _check_start(lake, release, recipe, scorer)
    # It raises where the state cannot fit
    of_this_machine(recipe, int(os.environ.get("WORLD_SIZE", 1)))
    model, processor, trainer = _start(lake, release, recipe, folder, steps, last)
    parameters = sum(p.numel() for p in model.parameters())
    # Said of itself: a recipe leaves the one to the machine, and the other follows from the number of processes
    rows = recipe.train.batch * trainer.accumulation * trainer.accelerator.num_processes
    facts_here = {
        "attention": chosen(recipe.model.attention, recipe.train.dtype),
        "rows_a_step": rows,
    }
    TOLD.get()(
        "training",
        0,
        1,
        f"its first step: attention {facts_here['attention']}, {rows:,} rows a step",
    )
    card = make_card(lake, release, recipe, run) | {"parameters": parameters} | facts_here
    if recipe.lora is not None:
        card["base"] = str(recipe.model.path.resolve() if recipe.model.path else _tiny_base(folder))

    def write_model(path: Path) -> None:
        facts = {
            "samples": trainer.drawn,
            "left_out": trainer.left_out,
            "final": asdict(trainer.curve[-1]),
        }
        negatives = {"negatives": dict(+trainer.made)} if recipe.data.negatives.total else {}
        _write_model(trainer, processor, card | facts | negatives, path)

    check = None
    if scorer is not None and recipe.kind == "sft":
        check = HeldOutCheck(
            trainer.accelerator, scorer, write_model, steps / "held-out", runs.best_folder(folder)
        )
        check.begin(load_state(last).best if last else None, resumed=last is not None)
        trainer.check = check
    _run(trainer, StepWriter(steps, recipe.train.keep), on_step)
    best = check.best if check else None
    if best:
        card |= {"best": {"model": runs.best_folder(folder).name, **best}}
    write_model(folder)
    if trainer.accelerator.is_main_process:
        runs.record(lake, run, release, recipe, trainer.curve, int(best["step"]) if best else None)
    trainer.accelerator.wait_for_everyone()
    trainer.close()
    seconds = time.monotonic() - started
    return runs.TrainingRun(run, folder, tuple(trainer.curve), parameters, trainer.drawn, seconds)


def _run(trainer: Any, writer: StepWriter, on_step: Callable[[runs.Point], None]) -> None:
    """Train to the end, with checkpoints. Raises TrainingError, ModelError, ShardError;
    KeyboardInterrupt, or whatever else the signal does, once a checkpoint of the last whole step is
    written, where the process is asked to end."""

    def proven(point: runs.Point) -> None:
        writer.prove()
        on_step(point)

    def save() -> None:
        trainer.check_weights()
        writer.write(trainer.state(), trainer.tensors())

    with noticed() as request_to_end:
        trainer.asked = request_to_end
        try:
            trainer.run(proven, save)
            if not trainer.ends:
                trainer.check_weights()
            elif trainer.curve:
                save()
            writer.wait()
        except TrainingError as e:
            writer.settle()
            aside = None
            if trainer.accelerator.is_main_process:
                aside = writer.set_aside(trainer.step)
            if aside is None:
                raise
            raise TrainingError(
                f"{e} The checkpoint of this step is set aside as {aside.name}"
            ) from e
        except BaseException:
            writer.settle()
            raise
        if trainer.ends and trainer.accelerator.is_main_process:
            kept_note = f"the checkpoint of step {trainer.step} is kept, --resume goes on from it"
            print(
                f"note: {kept_note if trainer.curve else 'ended before the first step'}",
                file=sys.stderr,
                flush=True,
            )


def _start(
    lake: Lake, release: Release, recipe: Recipe, folder: Path, steps: Path, last: Path | None
) -> tuple[ProgressModel, Any, Any]:
    """The model, its processor and its trainer, as they begin or as they were in the checkpoint `last`."""
    # As the launcher says
    rank = int(os.environ.get("RANK", 0))
    world = int(os.environ.get("WORLD_SIZE", 1))
    # Divided, the weights are given by the first process, which alone reads them.
    receives_weights = rank > 0 and recipe.kind == "sft" and recipe.train.distributed == "fsdp"
    model, processor = start_model(
        recipe,
        folder,
        _texts(lake, release, recipe),
        main=rank == 0,
        receives_weights=receives_weights,
    )
    backbones.freeze(model, recipe.train)
    state = load_state(last) if last else None
    if recipe.kind == "grpo":
        from training.grpo import GrpoTrainer  # imports TRL: slow

        trainer: Any = GrpoTrainer(lake.workspace, release, model, processor, recipe, last, steps)
    else:
        shards = release.paths(lake.workspace, "train")
        labels = NO_LABELS
        if recipe.data.negatives.total:
            labels = read_labels(lake, release, shards)

        def opened(length: int) -> Batches:
            data = recipe.data.model_copy(update={"sequence_length": length})
            stage = recipe.model_copy(update={"data": data})
            return open_batches(
                shards,
                Transform(processor),
                stage,
                rank,
                world,
                labels,
            )

        trainer = Trainer(
            model,
            opened(recipe.data.sequence_length),
            recipe,
            begun_by=state.begun_by if state else None,
            compiled=folder.parent / COMPILED,
            longer=partial(opened, recipe.data.longest),
        )
    # What goes on beside the weights: the curve, the optimizer and all chance.
    if state:
        trainer.load(last, state)
    elif trainer.accelerator.is_main_process:
        # Steps left by a killed run would be gone on from by the next --resume, though this run begins anew.
        shutil.rmtree(steps, ignore_errors=True)
    return model, processor, trainer


def _check_start(
    lake: Lake, release: Release, recipe: Recipe, scorer: CheckpointScorer | None
) -> None:
    """Raises TrainingError for a recipe that cannot be trained on this release, ModelError for one whose adapter could
    not be saved."""
    path = recipe.model.path
    if path and is_laptop(path):
        raise TrainingError(
            f"{path.name} is a laptop model: train one from the start by the recipe laptop, or go on with this one by "
            "proccorpus adapt"
        )
    if recipe.lora:
        backbones.check_adapters_can_be_saved()
    if not recipe.data.jsonl and not release.paths(lake.workspace, "train"):
        raise TrainingError(f"release {release.name} has no train split")
    check_shards(lake, release, recipe)
    if recipe.train.evaluate_every and scorer is None:
        raise TrainingError("train.evaluate_every: this run has no held-out episodes; set it to 0")


def _to_resume(steps: Path) -> Path:
    saved = runs.saved_steps(steps)
    if not saved:
        raise TrainingError(
            f"there is no checkpoint to go on from in {steps}: begin without --resume "
            "(train.save_every in the recipe says how often one is written; another recipe or release is another run)"
        )
    return saved[-1]


def _texts(lake: Lake, release: Release, recipe: Recipe) -> Iterable[str]:
    """Questions and answers of the recipe's rows, else of a corpus's first episodes."""
    if recipe.data.jsonl:
        yield from read_rows(recipe.data.jsonl, recipe.data.image_root).texts
        return
    entries = chain.from_iterable(map(read_entries, release.paths(lake.workspace, "train")))
    for rows, _ in islice(entries, VOCABULARY_ENTRIES):
        for row in rows:
            yield from (row["question"], row["answer"] or "")


def _write_model(trainer: Any, processor: Any, card: dict[str, Any], folder: Path) -> None:
    """The model as it is now, with its curve; all processes call it, the main one writes. Training
    can go on.

    A model that is trained in bfloat16 is stored in it, except for its head.
    """
    recipe = trainer.recipe
    plain = trainer.plain
    weights = trainer.weights()
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
    copies: dict[tuple[int, torch.Size], torch.Tensor] = {}
    rounded = dict(weights)
    for name, tensor in weights.items():
        place = tensor.data_ptr(), tensor.shape
        if not name.startswith("head.") and place not in copies:
            copies[place] = tensor.detach().to("cpu", torch.bfloat16)
        rounded[name] = copies.get(place, tensor)
    return rounded


def _tiny_base(folder: Path) -> Path:
    """Where the model is kept that a tiny run's adapter is for."""
    return folder.with_name(f"{folder.name}.base")


def start_model(
    recipe: Recipe,
    folder: Path,
    texts: Iterable[str],
    main: bool = True,
    receives_weights: bool = False,
) -> tuple[ProgressModel, Any]:
    """The model that a recipe begins with, and its processor. `texts`: what a tiny model's tokenizer is made from;
    `receives_weights`: another process gives a checkpoint's weights, they are not read.

    A tiny model under an adapter, or whose distance from its start counts, is kept beside `folder`, as the base (by the
    `main` process). GRPO puts an adapter on the model by itself. Raises ModelError.
    """
    tiny = recipe.model.tiny
    seed = recipe.train.seed
    attention = chosen(recipe.model.attention, recipe.train.dtype)
    # What learns is in float32; what an adapter is put on in train.dtype.
    dtype = getattr(torch, recipe.train.dtype) if recipe.lora else torch.float32
    if tiny:
        tokenizer = backbones.make_tokenizer(texts, tiny.vocabulary)
        processor = backbones.make_processor(tokenizer, tiny)
        backbone = backbones.make_backbone(tokenizer, tiny, seed)
        set_attention(backbone, attention)
        if recipe.lora or recipe.kind == "grpo":
            base = _tiny_base(folder)
            if main:
                with whole_folder(base) as half:
                    save_model(ProgressModel(backbone, None), processor, half, {"head": None})
            backbone.name_or_path = str(base)
            for parameter in backbone.parameters():  # as it will be when it is loaded
                parameter.data = parameter.data.to(dtype)
    else:
        assert recipe.model.path is not None
        start = backbones.empty_backbone if receives_weights else backbones.load_backbone
        backbone = start(recipe.model.path, attention, dtype=dtype)
        processor = backbones.load_processor(
            recipe.model.path, recipe.model.min_pixels, recipe.model.max_pixels
        )
        # What is new on a checkpoint, adapter and head, is drawn at random, and by the recipe's seed.
        torch.manual_seed(seed)
    if recipe.lora and recipe.kind == "sft":
        backbones.add_adapter(backbone, recipe.lora)
    processor.max_vision_tokens = recipe.model.max_vision_tokens
    head = _start_head(recipe, backbone.config.get_text_config().hidden_size)
    return ProgressModel(backbone, head), processor


def _start_head(recipe: Recipe, hidden: int) -> Head | None:
    """A new head; the checkpoint's own where it has one of the recipe's kind. Raises ModelError."""
    if recipe.head is None:
        return None
    head = make_head(recipe.head, hidden)
    path = recipe.model.path
    if path and (path / HEAD_CONFIG).exists():
        stored_head = load_head(path, read_card(path))
        # Heads of one kind take each other's weights, but for the end state's, which one of them may lack
        if stored_head and (type(stored_head), stored_head.hidden_size) == (
            type(head),
            head.hidden_size,
        ):
            state = head.state_dict()
            head.load_state_dict(
                state | {k: v for k, v in stored_head.state_dict().items() if k in state}
            )
    return head


# Adaptation


def adapt(
    lake: Lake,
    samples: Sequence[Sample],
    subject: str,
    recipe: Recipe,
    on_step: Callable[[runs.Point], None] = lambda point: None,
    resume: bool = False,
) -> runs.TrainingRun:
    """Train the recipe, whose model.path is the model to adapt, on samples of one episode, called
    `subject`.

    They are kept beside the run, in `models/<subject>.rows`. A head goes on from the model's own,
    of any kind. A laptop model, which has no adapters, learns with all of its weights. Raises
    TrainingError, ModelError, and of a laptop model EncoderError.
    """
    model, head, for_laptop = _model_to_adapt(recipe)
    if not samples:
        raise TrainingError(
            f"there is nothing to learn from {subject}: it has no moment with a label and pictures"
        )
    # What the run is recorded to have learnt from: equal for equal samples
    content = content_key(*(json.dumps(dict(s.row), sort_keys=True, default=str) for s in samples))
    release = Release(subject, lake.snapshot(), content, ())
    learnt = {(s.row["dataset"], s.row["episode_index"]) for s in samples}
    facts = {
        "adapted_to": subject,
        "trained_on": (seen_of(lake, learnt) | seen_before(lake, model)).as_json(),
    }
    if for_laptop:
        return adapt_laptop(lake, model, samples, release, recipe, on_step, resume, facts)
    folder = lake.workspace.root / "models" / f"{subject}.rows"
    conversations = ((s, s.row["answer"], {"progress": s.row["progress"]}) for s in samples)
    data = recipe.data.model_copy(
        update={"jsonl": (write_conversations(conversations, folder),), "image_root": folder}
    )
    if head is not None and (model / HEAD_CONFIG).exists():
        head = head.model_copy(
            update={"pooling": json.loads((model / HEAD_CONFIG).read_text())["pooling"]}
        )
    run = train(
        lake, release, recipe.model_copy(update={"data": data, "head": head}), on_step, resume
    )
    write_card(run.checkpoint, read_card(run.checkpoint) | facts)
    return run


def _model_to_adapt(recipe: Recipe) -> tuple[Path, HeadConfig | None, bool]:
    """The recipe's model and head, and whether it is a laptop model. Raises TrainingError where the recipe is not for
    it."""
    model = recipe.model.path
    for_laptop = model is not None and is_laptop(model)
    if model is None or not (for_laptop or recipe.lora):
        raise TrainingError(
            f"recipe {recipe.name} is not for adaptation: it needs a checkpoint and a section lora"
        )
    if for_laptop and (recipe.lora or recipe.head):
        raise TrainingError(
            f"{model.name} is a laptop model, which has heads of its own and no adapters: take the recipe {OF_LAPTOPS}"
        )
    if not for_laptop and recipe.data.negatives.total:
        raise TrainingError(
            f"recipe {recipe.name} has data.negatives: one episode has no other tasks; leave them out"
        )
    return model, recipe.head, for_laptop

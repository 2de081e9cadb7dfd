"""The training loop, on Accelerate: one process or many, one device each; a model may be divided among them (FSDP 2),
on GPUs, and on a CPU as well, so that it is tested where there is none."""

import math
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, gather_object
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from training.backbones import layers, parameter_groups, prepare_layers
from training.batches import Batches, Prepared, placed, together
from training.checkpoint import (
    PATIENCE,
    HeldOutCheck,
    TrainerState,
    chance_state,
    learning_tensors,
    read_tensors,
    set_chance,
)
from training.folder import TrainingError
from training.model import ProgressModel, losses
from training.plan import PEAK, card_here, cost, less
from training.recipe import AS_RECORDED, KINDS, Recipe, TrainConfig
from training.runs import Point


class AskedToEnd:
    """Which signal asked this process to end; 0: none yet."""

    signal = 0

    def __bool__(self) -> bool:
        return self.signal > 0


@contextmanager
def noticed() -> Iterator[AskedToEnd]:
    """Within it a first signal is only noted, and a second one does what it would have done. When
    it is left, what the noted signal would have done comes to pass. Outside the main thread, which
    alone hears signals, nothing is noted."""
    request_to_end = AskedToEnd()
    if threading.current_thread() is not threading.main_thread():
        yield request_to_end
        return

    def note(number: int, frame: FrameType | None) -> None:
        if request_to_end:
            signal.signal(number, former_handlers[signal.Signals(number)])
            signal.raise_signal(number)
        request_to_end.signal = number

    former_handlers = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)
    }
    for number in former_handlers:
        signal.signal(number, note)
    try:
        yield request_to_end
    finally:
        for number, handler in former_handlers.items():
            signal.signal(number, handler)
        if request_to_end:
            signal.raise_signal(request_to_end.signal)


def is_divided(recipe: Recipe, world: int) -> bool:
    """Does each of `world` processes hold a part of the model? One alone, too, where layers calculate with copies of
    its weights in bfloat16."""
    train = recipe.train
    return train.distributed == "fsdp" and (
        world > 1 or (train.dtype == "bfloat16" and recipe.kind == "sft")
    )


def fresh_state(divided: bool) -> Any:
    """Accelerate's view of the processes, without what a run before this one in the same process has left there.

    `divided`: the model will be, also on a CPU. Accelerate takes its FSDP plugin for GPUs alone, so it is told that
    these are some; it looks at the device for all else.
    """
    gpu = torch.cuda.is_available()
    AcceleratorState._reset_state()
    state = PartialState(cpu=not gpu, timeout=PATIENCE)
    if state.num_processes > 1:
        if gpu or divided:
            state.distributed_type = DistributedType.MULTI_GPU
        else:
            state.distributed_type = DistributedType.MULTI_CPU
    return state


def precision(dtype: str) -> MixedPrecisionPolicy:
    """Parameters are gathered and calculated with in the recipe's train.dtype; gradients are added up in float32."""
    if dtype == "float32":
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(param_dtype=getattr(torch, dtype), reduce_dtype=torch.float32)


def mesh_of(device: torch.device, world: int, local: int) -> Any:
    """How a model is divided among `world` processes, `local` of them on each machine: among those of a machine, each
    machine a whole model, so that layers are not gathered over the network. Of one machine, or of machines with one
    process each: among all."""
    if 1 < local < world and world % local == 0:
        return init_device_mesh(
            device.type, (world // local, local), mesh_dim_names=("machines", "parts")
        )
    return init_device_mesh(device.type, (world,))


def shard(model: ProgressModel, dtype: str, device: torch.device) -> ProgressModel:
    """Leave each process a part of every parameter. In place. The weights are those of the first process: the others
    may hold any. One process alone holds all of them: in float32, of which each layer gets a copy in `dtype` when it is
    due.

    Each layer of the towers is gathered by itself. The head is a unit of its own, in float32.
    """
    if not torch.distributed.is_initialized():
        kind = "nccl" if device.type == "cuda" else "gloo"
        store = torch.distributed.HashStore()  # pyright: ignore[reportPrivateImportUsage]
        torch.distributed.init_process_group(kind, store=store, rank=0, world_size=1)
    world = torch.distributed.get_world_size()
    mesh = mesh_of(device, world, int(os.environ.get("LOCAL_WORLD_SIZE", world)))
    whole = {name: p.detach() for name, p in model.named_parameters()}
    if model.head is not None:
        fully_shard(model.head, mesh=mesh, mp_policy=precision("float32"))
    for layer in layers(model.backbone):
        fully_shard(layer, mesh=mesh, mp_policy=precision(dtype))
    fully_shard(model, mesh=mesh, mp_policy=precision(dtype))
    _give(model, whole, mesh, device)
    # Where the layers are gathered, all processes have to come by.
    model.always_sees = world > 1
    return model


@torch.no_grad()
def _give(
    model: nn.Module, whole: dict[str, torch.Tensor], mesh: Any, device: torch.device
) -> None:
    """Each process gets its part of the first one's weights, and all of its buffers."""
    for name, part in model.named_parameters():
        shard: Any = part
        part.copy_(
            distribute_tensor(whole.pop(name).to(device), mesh, shard.placements, src_data_rank=0)
        )
    for buffer in model.buffers():
        received = buffer.to(device)
        torch.distributed.broadcast(received, 0)
        buffer.copy_(received)


def make_optimizer(model: Any, recipe: Recipe) -> torch.optim.Optimizer:
    """Of what learns, at the rates of its parts. Raises TrainingError where nothing does."""
    groups = list(parameter_groups(model, recipe.train))
    if not groups:
        raise TrainingError(f"recipe {recipe.name} trains nothing: all rates are 0")
    return torch.optim.AdamW(
        groups, betas=(0.9, recipe.train.beta2), fused=torch.cuda.is_available() or None
    )


def batches_each(recipe: Recipe, begun_by: int, world: int) -> int:
    """Batches a step for each of `world` processes, such that a step is what it was. Raises TrainingError."""
    of_step = recipe.train.accumulation * begun_by
    if of_step % world:
        fitting = ", ".join(str(n) for n in range(1, of_step + 1) if of_step % n == 0)
        raise TrainingError(
            f"the run was begun by {begun_by} processes with train.accumulation {recipe.train.accumulation}: the "
            f"{of_step} batches of a step cannot be divided among {world} processes; take one of {fitting}"
        )
    return of_step // world


def chance_of(seed: int, batch: int) -> int:
    """The seed of noise and dropout on a batch of a run: the same in whichever process the batch is learnt from."""
    return int(np.random.SeedSequence([seed, batch]).generate_state(1, np.uint64)[0])


def share_of_rate(share_done: float, train: TrainConfig) -> float:
    """Share of the learning rate at a share of the run: linear warm-up, then as the schedule says."""
    if share_done < train.warmup:
        return share_done / train.warmup
    decay = min(1.0, (share_done - train.warmup) / (1 - train.warmup))
    if train.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * decay))
    if train.schedule == "linear":
        return 1 - decay
    return 1.0


@dataclass(frozen=True)
class StepLosses:
    """Sums of a step over all processes: the weighed loss, both losses unweighed, and FLOPs.

    per_batch: the loss of each of this process's batches.
    """

    total: float
    text: float
    progress: float
    flops: float
    per_batch: Sequence[float]


class Trainer:
    """One process's part of a run: model, optimizer, data, and where it stands. `begun_by`: so many processes began
    it, where it goes on; `compiled`: folder where compiled layers are kept for the next run; `longer` makes the
    batches of the second stage, whose rows are longer, where the recipe has one.

    Equal seeds and data give equal curves, resumed or not, and by whatever number of processes: noise and dropout are
    drawn by a batch's number in the run.
    """

    def __init__(
        self,
        model: ProgressModel,
        batches: Batches,
        recipe: Recipe,
        begun_by: int | None = None,
        compiled: Path | None = None,
        longer: Callable[[], Batches] | None = None,
    ) -> None:
        self.recipe = recipe
        self.batches = batches
        self.head = model.head
        self.longer = longer if recipe.data.longer_length else None
        prepare_layers(model.backbone, recipe.train, compiled)
        # What goes from layer to layer is in the precision of the embeddings, which autocast leaves as they are.
        if recipe.train.dtype == "bfloat16" and (
            recipe.train.recompute != "none" or recipe.train.compile
        ):
            model.backbone.get_input_embeddings().register_forward_hook(
                lambda _, __, made: made.to(torch.bfloat16)
            )
        self.cost = cost(model.backbone)
        self.card = card_here()
        fresh_state(divided=False)
        precision = "bf16" if recipe.train.dtype == "bfloat16" else "no"
        # Parts that a batch does not touch; gradients lie where they are exchanged, not there as well
        exchange: dict[str, Any] = {"find_unused_parameters": True, "gradient_as_bucket_view": True}
        handlers: list[Any] = [DistributedDataParallelKwargs(**exchange)]
        self.accelerator: Any = Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision=precision,
            kwargs_handlers=handlers,
        )
        world = self.accelerator.num_processes
        self.begun_by = begun_by or world
        self.accumulation = batches_each(recipe, self.begun_by, world)
        self.divided = is_divided(recipe, world)
        if self.divided:
            self.model: Any = shard(model, recipe.train.dtype, self.accelerator.device)
        else:
            self.model = self.accelerator.prepare_model(model)
        self.optimizer = make_optimizer(self.plain, recipe)
        self.peak: float = max(g["peak"] for g in self.optimizer.param_groups)
        self.step = self.drawn = self.left_out = self.samples = self.tokens = 0
        self.made: Counter[str] = Counter()
        self.curve: list[Point] = []
        self.check: HeldOutCheck | None = None
        self.asked = AskedToEnd()
        self.ends = False
        self.streams = batches.state_dict()  # as of the last whole step

    @property
    def plain(self) -> ProgressModel:
        return self.accelerator.unwrap_model(self.model)

    @property
    def done(self) -> float:
        """Share of the run that is behind it, by steps or by samples."""
        train = self.recipe.train
        if train.steps is not None:
            return self.step / train.steps
        assert train.epochs is not None
        return self.drawn / (train.epochs * self.batches.per_epoch)

    def run(self, on_step: Callable[[Point], None], save: Callable[[], None]) -> None:
        """To the end, or to where it `ends` because a process was `asked` to; `save` is called each `save_every` steps.
        Raises TrainingError or ShardError."""
        self.model.train()
        save_every = self.recipe.train.save_every
        check_every = self.recipe.train.evaluate_every
        while self.done < 1 and not self.ends:
            point = self._step()
            if point is None:
                break
            self.curve.append(point)
            # The last step is always evaluated
            if self.check and check_every and (self.step % check_every == 0 or self.done >= 1):
                point = self.curve[-1] = replace(point, extra=point.extra | self.check(point.step))
            if self.accelerator.is_main_process:
                on_step(point)
            if save_every and self.step % save_every == 0 and self.done < 1:
                save()
        self.model.eval()

    def _step(self) -> Point | None:
        """One step of the optimizer, on so many batches of each process; None where it was not done, because a process
        was asked to end."""
        started = perf_counter()
        train = self.recipe.train
        if self.longer and self.done >= self.recipe.data.longer_from:
            self._lengthen(together(gather_object([self.streams])))
        rate = share_of_rate(self.done, train)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["peak"]
        # All of the step's batches are fetched before any is learnt from: each is weighed by its share of the whole.
        parts = [next(self.batches) for _ in range(self.accumulation)]
        totals = self._held(parts)
        self.ends = totals["asked"] > 0
        if self.ends:
            return None
        with self._memory(parts):
            sums = self._backward(parts, totals)
            if sums is None:
                self.ends = True
                return None
            # Loss and gradient are looked at before the optimizer moves any weight: such a step could not be undone.
            self._refuse(sums.total, "loss", parts, sums.per_batch)
            clipped: Any = torch.nn.utils.clip_grad_norm_(self.model.parameters(), train.clip)
            norm = float(clipped.full_tensor() if self.divided else clipped)
            self._refuse(norm, "norm of the gradient", parts, sums.per_batch)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.streams = self.batches.state_dict()
        self.drawn += totals["drawn"]
        self.left_out += totals["left_out"]
        self.made.update({kind: totals[kind] for kind in (AS_RECORDED, *KINDS)})
        self.samples += totals["samples"]
        self.tokens += totals["tokens"]
        seconds = perf_counter() - started
        return Point(
            step=self.step - 1,
            loss=sums.total,
            text=_mean(sums.text, totals["answer_tokens"]),
            progress=_mean(sums.progress, totals["labels"]),
            learning_rate=rate * self.peak,
            gradient_norm=norm,
            done=min(1.0, self.done),
            samples=self.samples,
            tokens=self.tokens,
            samples_per_s=totals["samples"] / seconds,
            tokens_per_s=totals["tokens"] / seconds,
            mfu=sums.flops / seconds / self.accelerator.num_processes / PEAK[self.card]
            if self.card
            else None,
        )

    def _lengthen(self, streams: dict) -> None:
        """Begin the second stage, with the window of samples where the first one is."""
        assert self.longer is not None
        self.batches = self.longer()
        self.longer = None
        self.batches.load_state_dict(streams)
        self.streams = self.batches.state_dict()

    def _held(self, parts: Sequence[Prepared]) -> dict[str, int]:
        """What this step's batches hold, over all processes: each batch is weighed by its part of it."""
        counts = Counter(dict.fromkeys(("answer_tokens", "labels", AS_RECORDED, *KINDS), 0))
        counts["asked"] = int(bool(self.asked))
        for part in parts:
            if self._with_text:
                counts["answer_tokens"] += int((part.batch["labels"][:, 1:] >= 0).sum())
            if self.head:
                counts["labels"] += int((~torch.isnan(part.batch["progress"])).sum())
            counts.update(
                {name: getattr(part, name) for name in ("drawn", "left_out", "samples", "tokens")}
            )
            counts.update(part.made)
        return dict(zip(counts, map(int, self._sum(*counts.values())), strict=True))

    def _backward(self, parts: Sequence[Prepared], totals: Mapping[str, int]) -> StepLosses | None:
        """Add up the gradients of this process's batches. None where a process that is alone was asked to end
        meanwhile; of several each would have to know."""
        train = self.recipe.train
        head_weight = self.recipe.head.weight if self.recipe.head else 0.0
        flops = 0.0
        batch_losses = []
        for number, (part, batch) in enumerate(placed(parts, self.accelerator.device), 1):
            if self.asked and self.accelerator.num_processes == 1:
                return None
            flops += self.cost.of(part.batch)
            # Processes exchange gradients with the last batch only. Those of a divided model do so with each: whole
            # gradients would not fit beside it.
            is_last = number == len(parts) or self.divided
            with nullcontext() if is_last else self.accelerator.no_sync(self.model):
                torch.manual_seed(chance_of(train.seed, part.number))
                with self.accelerator.autocast():
                    output = self.model(batch, self._with_text)
                of_text, of_head, error = losses(self.head, output, batch)
                progress = head_weight * of_head / max(1, totals["labels"])
                loss = train.text_weight * of_text / max(1, totals["answer_tokens"]) + progress
                # Processes average their gradients; the losses are parts of a sum.
                (loss * self.accelerator.num_processes).backward()
            batch_losses.append(torch.stack([loss.detach(), of_text.detach(), error.detach()]))
        # Read once a step: the device is not waited for between batches.
        part_losses, texts, errors = zip(*torch.stack(batch_losses).tolist(), strict=True)
        sums = self._sum(sum(part_losses), sum(texts), sum(errors), flops)
        return StepLosses(*sums, per_batch=part_losses)

    @property
    def _with_text(self) -> bool:
        """Does the recipe train words? Then the answers' tokens have a loss."""
        return self.recipe.train.text_weight > 0

    def _sum(self, *values: float) -> list[float]:
        """Over all processes."""
        if self.accelerator.num_processes == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        return self.accelerator.reduce(summed, "sum").tolist()

    def _refuse(
        self, value: float, quantity: str, parts: Sequence[Prepared], part_losses: Sequence[float]
    ) -> None:
        """End the run where a number of the step is none; all processes have the same number. `part_losses`: the
        losses of
        this process's batches. Raises TrainingError."""
        if math.isfinite(value):
            return
        # Where every loss is finite, the gradient cannot tell which batch of the step it was.
        suspects = [
            part for part, loss in zip(parts, part_losses, strict=True) if not math.isfinite(loss)
        ]
        if self._sum(len(suspects)) == [0]:
            suspects = list(parts)
        keys = list(chain.from_iterable(part.keys for part in suspects))
        raise TrainingError(
            f"the {quantity} is {value} at step {self.step}: lower train.lr (now {self.recipe.train.lr:g}) or "
            "train.clip in the recipe, or look for samples without sense; checkpoints before it are kept. "
            f"{samples_of_step(keys)}"
        )

    @contextmanager
    def _memory(self, parts: Sequence[Prepared]) -> Iterator[None]:
        """Raises TrainingError of a step without enough memory, with all settings that lower the need of it."""
        try:
            yield
        except RuntimeError as e:
            if not (isinstance(e, torch.OutOfMemoryError) or "can't allocate memory" in str(e)):
                raise
            # The largest of the step's batches is most likely the one that did not fit.
            rows, length = max((tuple(p.batch["input_ids"].shape) for p in parts), key=math.prod)
            raise TrainingError(
                f"out of memory at step {self.step} on a batch of {rows} x {length} tokens: {less(self.recipe)}"
            ) from e

    # Where it stands

    def state(self) -> TrainerState:
        """All processes call it."""
        return TrainerState(
            step=self.step,
            drawn=self.drawn,
            left_out=self.left_out,
            begun_by=self.begun_by,
            streams=together(gather_object([self.streams])),
            chance=gather_object([chance_state()]),
            curve=[asdict(p) for p in self.curve],
            best=self.check.best if self.check else None,
            made=dict(self.made),
            is_longer=bool(self.recipe.data.longer_length) and self.longer is None,
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """What learns and the optimizer's state, for a checkpoint to go on from: this process's part."""
        return learning_tensors(self.plain, self.optimizer)

    def load(self, folder: Path, state: TrainerState) -> None:
        """Go on from a checkpoint. Raises ModelError or ShardError."""
        read_tensors(folder, self.plain, self.optimizer)
        self.step = state.step
        self.drawn = state.drawn
        self.left_out = state.left_out
        self.made = Counter(state.made)
        self.curve = [Point(**p) for p in state.curve]
        self.samples = self.curve[-1].samples
        self.tokens = self.curve[-1].tokens
        # A run that was saved before its second stage begins that one itself, at its next step
        if self.longer and state.is_longer:
            self._lengthen(state.streams)
        self.batches.load_state_dict(state.streams)
        self.streams = self.batches.state_dict()
        go_on_with_chance(state, self.accelerator.process_index, self.recipe.train.seed)

    def check_weights(self) -> None:
        """Raises TrainingError where the weights are worth nothing, though the loss that they came of was finite: they
        would be kept, and gone on with. All processes call it."""
        check_norm(self.plain, self.step, self.recipe.train.lr)

    def close(self) -> None:
        """Leave the group that a process alone made for a model that is divided."""
        if self.divided and self.accelerator.num_processes == 1:
            torch.distributed.destroy_process_group()

    def weights(self) -> dict[str, torch.Tensor] | None:
        """Of the whole model, on the main process, where each has only a part of it; None where they have it all."""
        if not self.divided:
            return None
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights: dict[str, Any] = get_model_state_dict(self.model, options=options)
        return weights


def check_norm(model: nn.Module, step: int, rate: float) -> None:
    """Raises TrainingError where the norm of what learns is not finite after so many steps."""
    total: Any = torch.nn.utils.get_total_norm(
        [p.detach() for p in model.parameters() if p.requires_grad]
    )
    norm = float(total.full_tensor() if isinstance(total, DTensor) else total)
    if not math.isfinite(norm):
        raise TrainingError(
            f"the weights are too large after step {step - 1} (their norm is {norm}): lower train.lr (now {rate:g}) in "
            "the recipe; checkpoints before it are kept"
        )


def _mean(total: float, count: int) -> float | None:
    if count:
        return total / count
    return None


def samples_of_step(keys: Sequence[str]) -> str:
    """The samples of a step that went wrong, in words: `keys` are those of this process, which all others call, too."""
    sample_keys = sorted(set(chain.from_iterable(gather_object([list(keys)]))))
    return f"Its samples: {', '.join(sample_keys[:8])}" + (
        f" and {len(sample_keys) - 8} more" if len(sample_keys) > 8 else ""
    )


def go_on_with_chance(state: TrainerState, rank: int, seed: int) -> None:
    """Each process goes on with its own generators; one that was not there before begins new ones."""
    if rank < len(state.chance):
        set_chance(state.chance[rank])
    else:
        torch.manual_seed(seed + rank + (state.step << 32))

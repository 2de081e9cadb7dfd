"""The training loop, on Accelerate: one process or many, one device each."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from training.backbones import parameter_groups
from training.batches import Batches
from training.checkpoint import TrainerState, chance_state, learning_tensors, read_tensors, set_chance
from training.data import Prepared, placed, together
from training.errors import TrainingError
from training.flops import cost, peak_flops
from training.held_out import HeldOutCheck
from training.model import Losses, ProgressModel, losses
from training.negatives.config import AS_RECORDED, KINDS
from training.recipe import Recipe, TrainConfig
from training.sharding import fresh_state, layers, shard
from training.spoilt import SpoiltBatch, keep_spoilt
from training.transform import Batch


@dataclass(frozen=True)
class Point:
    """One training step of all processes together.

    text: mean cross entropy of answer tokens; progress: mean |progress - label|; None where there is no such loss.
    done: share of the run, 0..1. samples and tokens (without padding) since the start. Rates are of this step alone;
    mfu is the share of the devices' arithmetic that training.flops counts, None where it was not counted. extra: what
    only one kind of training has, by name, such as the reward.
    """

    step: int
    loss: float
    text: float | None
    progress: float | None
    learning_rate: float
    gradient_norm: float
    done: float
    samples: int
    tokens: int
    samples_per_s: float
    tokens_per_s: float
    mfu: float | None
    extra: dict[str, float] = field(default_factory=dict)


def make_accelerator(recipe: Recipe) -> Any:
    from accelerate import Accelerator, DistributedDataParallelKwargs

    fresh_state(divided=False)
    precision = "bf16" if recipe.train.dtype == "bfloat16" else "no"
    handlers: list[Any] = [
        DistributedDataParallelKwargs(find_unused_parameters=True)
    ]  # parts that a batch does not touch
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=precision, kwargs_handlers=handlers)


def compile_layers(model: ProgressModel) -> None:
    """Norms and MLPs of all layers by torch.compile, in place.

    Attention stays as it is: it asks for the lengths of each batch, and under recomputation one break in a layer would
    leave all of it uncompiled.
    """
    for layer in layers(model.backbone):
        for name, part in layer.named_modules():
            if name == "mlp" or "norm" in name:
                part.compile()


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


def share_of_rate(done: float, train: TrainConfig) -> float:
    """Share of the learning rate at a share of the run: linear warm-up, then as the schedule says."""
    if done < train.warmup:
        return done / train.warmup
    rest = min(1.0, (done - train.warmup) / (1 - train.warmup))
    if train.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * rest))
    return 1 - rest if train.schedule == "linear" else 1.0


@dataclass(frozen=True)
class _Held:
    """What the batches of one step hold, over all processes."""

    answer_tokens: int
    labels: int
    drawn: int
    left_out: int
    samples: int
    tokens: int
    made: Counter[str]


@dataclass(frozen=True)
class _StepSums:
    """Sums over the batches of one step and over all processes; `loss` is weighed, `text` and `error` are
    not. `losses`: of each of this process's batches."""

    loss: float
    text: float
    error: float
    flops: float
    losses: tuple[float, ...]


class Trainer:
    """One process's part of a run: model, optimizer, data, and where it stands. `begun_by`: so many processes began
    it, where it goes on. `steps`: folder of its checkpoints, where a batch that spoils it is kept.

    Equal seeds, data and number of processes give equal curves, resumed or not, and by whatever number of processes.
    """

    def __init__(
        self,
        model: ProgressModel,
        batches: Batches,
        recipe: Recipe,
        begun_by: int | None = None,
        steps: Path | None = None,
    ) -> None:
        self.recipe, self.batches, self.head, self.steps = recipe, batches, model.head, steps
        if recipe.train.gradient_checkpointing:
            model.backbone.activation_checkpointing_enable({"use_reentrant": False})
        self.cost = cost(model.backbone)
        if recipe.train.compile:
            compile_layers(model)
        self.accelerator = make_accelerator(recipe)
        world = self.accelerator.num_processes
        self.begun_by = begun_by or world
        self.accumulation = batches_each(recipe, self.begun_by, world)
        self.divided = recipe.train.distributed == "fsdp" and world > 1
        if self.divided:
            self.model: Any = shard(model, recipe.train.dtype, self.accelerator.device)
        else:
            self.model = self.accelerator.prepare_model(model)
        groups = list(parameter_groups(self.plain, recipe.train))
        if not groups:
            raise TrainingError(f"recipe {recipe.name} trains nothing: all rates are 0")
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, recipe.train.beta2))
        self.step = self.drawn = self.left_out = 0
        self.made: Counter[str] = Counter()
        self.curve: list[Point] = []
        self.check: HeldOutCheck | None = None
        torch.manual_seed(recipe.train.seed + self.accelerator.process_index)

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
        """To the end; `save` is called each `save_every` steps. Raises TrainingError or ShardError."""
        self.model.train()
        every = self.recipe.train.save_every
        while self.done < 1:
            point = self._step()
            self.curve.append(point)
            if self._is_evaluated:
                assert self.check is not None
                point = self.curve[-1] = replace(point, extra=point.extra | self.check(point.step))
            if self.accelerator.is_main_process:
                on_step(point)
            if every and self.step % every == 0 and self.done < 1:
                save()
        self.model.eval()

    @property
    def _is_evaluated(self) -> bool:
        """Is the step that was just made one of those that are evaluated? The last one always is."""
        every = self.recipe.train.evaluate_every
        return self.check is not None and every > 0 and (self.step % every == 0 or self.done >= 1)

    def _step(self) -> Point:
        """One step of the optimizer, on so many batches of each process."""
        started, train = perf_counter(), self.recipe.train
        rate = share_of_rate(self.done, train)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["peak"]
        # All of the step's batches are fetched before any is learnt from: each is weighed by its share of the whole.
        parts = [next(self.batches) for _ in range(self.accumulation)]
        held = self._held(parts)
        with self._memory(parts):
            sums = self._backward(parts, held)
            # Loss and gradient are looked at before the optimizer moves any weight: such a step could not be undone.
            self._refuse(sums.loss, "loss", parts, sums.losses)
            norm = self._clip()
            self._refuse(norm, "norm of the gradient", parts, sums.losses)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.drawn += held.drawn
        self.left_out += held.left_out
        self.made.update(held.made)
        return self._point(held, sums, rate, norm, perf_counter() - started)

    def _clip(self) -> float:
        """Shrink the gradient to the recipe's norm; the norm that it had, over all processes."""
        norm: Any = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.train.clip)
        return float(norm.full_tensor() if self.divided else norm)

    def _held(self, parts: Sequence[Prepared]) -> _Held:
        """What this step's batches hold: each batch is weighed by its part of it."""
        answer_tokens = labels = 0
        if self._with_text:
            answer_tokens = sum(int((p.batch["labels"][:, 1:] >= 0).sum()) for p in parts)
        if self.head:
            labels = sum(int((~torch.isnan(p.batch["progress"])).sum()) for p in parts)
        drawn, left_out = sum(p.drawn for p in parts), sum(p.left_out for p in parts)
        samples, tokens = sum(p.samples for p in parts), sum(p.tokens for p in parts)
        made = Counter[str]()
        for part in parts:
            made.update(part.made)
        kinds = (AS_RECORDED, *KINDS)
        held = (answer_tokens, labels, drawn, left_out, samples, tokens)
        counts = [int(n) for n in self._sum(*held, *(made[kind] for kind in kinds))]
        return _Held(*counts[: len(held)], made=Counter(dict(zip(kinds, counts[len(held) :], strict=True))))

    def _backward(self, parts: Sequence[Prepared], held: _Held) -> _StepSums:
        """Add up the gradients of this process's batches; the sums are of all processes."""
        text_weight = self.recipe.train.text_weight
        head_weight = self.recipe.head.weight if self.recipe.head else 0.0
        text_sum = error_sum = flops = 0.0
        own: list[float] = []
        for number, (part, batch) in enumerate(placed(parts, self.accelerator.device), 1):
            flops += self.cost.of(part.batch)
            # Processes exchange gradients with the last batch only.
            with self._unsynced(number < len(parts)):
                batch_losses = self._losses(batch, self._with_text)
                text = batch_losses.text / max(1, held.answer_tokens)
                progress = head_weight * batch_losses.progress / max(1, held.labels)
                loss = text_weight * text + progress
                # Processes average their gradients; the losses are parts of a sum.
                (loss * self.accelerator.num_processes).backward()
            own.append(float(loss.detach()))
            text_sum += float(batch_losses.text.detach())
            error_sum += float(batch_losses.error.detach())
        return _StepSums(*self._sum(sum(own), text_sum, error_sum, flops), losses=tuple(own))

    def _point(self, held: _Held, sums: _StepSums, rate: float, norm: float, seconds: float) -> Point:
        """The point of the step that was just made; `rate` is the share of the peak learning rates."""
        samples, tokens = held.samples, held.tokens
        # Counts of the curve run on from its last point, also after a resume.
        if self.curve:
            samples, tokens = samples + self.curve[-1].samples, tokens + self.curve[-1].tokens
        devices_flops = self.accelerator.num_processes * peak_flops(str(self.accelerator.device))
        return Point(
            step=self.step - 1,
            loss=sums.loss,
            text=sums.text / held.answer_tokens if held.answer_tokens else None,
            progress=sums.error / held.labels if held.labels else None,
            learning_rate=rate * max(g["peak"] for g in self.optimizer.param_groups),
            gradient_norm=norm,
            done=min(1.0, self.done),
            samples=samples,
            tokens=tokens,
            samples_per_s=held.samples / seconds,
            tokens_per_s=held.tokens / seconds,
            mfu=sums.flops / seconds / devices_flops,
        )

    @property
    def _with_text(self) -> bool:
        """Does the recipe train words? Then the answers' tokens have a loss."""
        return self.recipe.train.text_weight > 0

    def _losses(self, batch: Batch, with_text: bool) -> Losses:
        with self.accelerator.autocast():
            output = self.model(batch, with_text)
        return losses(self.head, output, batch)

    def _unsynced(self, wanted: bool) -> Any:
        """Of a divided model each batch's gradients are exchanged: whole ones would not fit beside it."""
        return self.accelerator.no_sync(self.model) if wanted and not self.divided else nullcontext()

    def _sum(self, *values: float) -> list[float]:
        """Over all processes."""
        if self.accelerator.num_processes == 1:
            return list(values)
        together = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        return self.accelerator.reduce(together, "sum").tolist()

    def _refuse(self, value: float, what: str, parts: Sequence[Prepared], own: Sequence[float]) -> None:
        """End the run where a number of the step is none; all processes have the same number. `own`: the losses of
        this process's batches."""
        if math.isfinite(value):
            return
        why = f"the {what} is {value} at step {self.step}"
        kept = ""
        if self.steps is not None:
            # Where every loss is finite, the gradient cannot tell which batch of the step it was.
            suspects = [k for k, loss in enumerate(own) if not math.isfinite(loss)]
            if self._sum(len(suspects)) == [0]:
                suspects = list(range(len(parts)))
            batches = [SpoiltBatch(k, parts[k].batch, parts[k].keys) for k in suspects]
            kept = f"; {keep_spoilt(self.steps, self.step, self.accelerator.process_index, batches, why)}"
        raise TrainingError(
            f"{why}: lower train.lr (now {self.recipe.train.lr:g}) or train.clip in the recipe, or look for samples "
            f"without sense; checkpoints before it are kept{kept}"
        )

    @contextmanager
    def _memory(self, parts: list[Prepared]) -> Iterator[None]:
        try:
            yield
        except RuntimeError as e:
            if not (isinstance(e, torch.OutOfMemoryError) or "can't allocate memory" in str(e)):
                raise
            raise TrainingError(self._out_of_memory(parts)) from e

    def _out_of_memory(self, parts: Sequence[Prepared]) -> str:
        """The message of a step without enough memory, with all settings that lower the need of it."""
        train, data = self.recipe.train, self.recipe.data
        # The largest of the step's batches is most likely the one that did not fit.
        rows, length = max((tuple(p.batch["input_ids"].shape) for p in parts), key=math.prod)
        knobs: list[str] = []
        if train.batch > 1:
            knobs.append(f"lower train.batch (now {train.batch}) and raise train.accumulation")
        if not train.gradient_checkpointing:
            knobs.append("set train.gradient_checkpointing")
        knobs.append(f"lower data.sequence_length (now {data.sequence_length}) or model.max_pixels")
        if train.distributed == "none":
            knobs.append("train.distributed: fsdp")
        return f"out of memory at step {self.step} on a batch of {rows} x {length} tokens: {', or '.join(knobs)}"

    # Where it stands

    def state(self) -> TrainerState:
        """All processes call it."""
        from accelerate.utils import gather_object

        streams = together(gather_object([self.batches.state_dict()]))
        chance, curve = gather_object([chance_state()]), [asdict(p) for p in self.curve]
        best = self.check.best if self.check else None
        made = dict(self.made)
        return TrainerState(self.step, self.drawn, self.left_out, self.begun_by, streams, chance, curve, best, made)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What learns and the optimizer's state, for a checkpoint to go on from: this process's part."""
        return learning_tensors(self.plain, self.optimizer)

    def load(self, folder: Path, state: TrainerState) -> None:
        """Go on from a checkpoint. Raises ModelError or ShardError."""
        read_tensors(folder, self.plain, self.optimizer)
        self.step, self.drawn, self.left_out = state.step, state.drawn, state.left_out
        self.made = Counter(state.made)
        self.curve = [Point(**p) for p in state.curve]
        self.batches.load_state_dict(state.streams)
        go_on_with_chance(state, self.accelerator.process_index, self.recipe.train.seed)

    def weights(self) -> dict[str, torch.Tensor] | None:
        """Of the whole model, on the main process, where each has only a part of it; None where they have it all."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        if not self.divided:
            return None
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights: dict[str, Any] = get_model_state_dict(self.model, options=options)
        return weights


def go_on_with_chance(state: TrainerState, rank: int, seed: int) -> None:
    """Each process goes on with its own generators; one that was not there before begins new ones."""
    if rank < len(state.chance):
        set_chance(state.chance[rank])
    else:
        torch.manual_seed(seed + rank + (state.step << 32))

"""The training loop, on Accelerate: one process or many, one device each."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import torch

from core.errors import OperationFailedError
from training.backbones import parameter_groups
from training.batches import Batches
from training.checkpoint import TrainerState, chance_state, set_chance
from training.data import Prepared
from training.flops import cost, peak_flops
from training.model import Losses, ProgressModel, losses
from training.recipe import Recipe, TrainConfig
from training.transform import Batch


class TrainingError(OperationFailedError):
    """A training run that cannot start or has gone wrong."""


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


def make_accelerator(recipe: Recipe, model: ProgressModel) -> Any:
    """Raises TrainingError where the recipe asks for what is not here."""
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()  # of a run before this one in the same process
    train = recipe.train
    options: dict[str, Any] = {"mixed_precision": "bf16" if train.dtype == "bfloat16" else "no"}
    if train.distributed == "fsdp":
        from accelerate.utils import FullyShardedDataParallelPlugin

        options["fsdp_plugin"] = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=sorted(model.backbone._no_split_modules),
        )
    elif train.distributed == "deepspeed":
        options["deepspeed_plugin"] = _deepspeed(train)
    handlers: list[Any] = [
        DistributedDataParallelKwargs(find_unused_parameters=True)
    ]  # parts that a batch does not touch
    return Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=handlers, **options)


def _deepspeed(train: TrainConfig) -> Any:
    import importlib.util

    if importlib.util.find_spec("deepspeed") is None:
        raise TrainingError("train.distributed: deepspeed needs that package (uv pip install deepspeed), or take fsdp")
    from accelerate.utils import DeepSpeedPlugin

    return DeepSpeedPlugin(zero_stage=3, gradient_accumulation_steps=train.accumulation, gradient_clipping=train.clip)


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


@dataclass(frozen=True)
class _StepSums:
    """Sums over the batches of one step and over all processes; `loss` is weighed, `text` and `error` are not."""

    loss: float
    text: float
    error: float
    flops: float


class Trainer:
    """One process's part of a run: model, optimizer, data, and where it stands.

    Equal seeds, data and number of processes give equal curves, resumed or not.
    """

    def __init__(self, model: ProgressModel, batches: Batches, recipe: Recipe) -> None:
        self.recipe, self.batches, self.head = recipe, batches, model.head
        if recipe.train.gradient_checkpointing:
            model.backbone.activation_checkpointing_enable({"use_reentrant": False})
        groups = list(parameter_groups(model, recipe.train))
        if not groups:
            raise TrainingError(f"recipe {recipe.name} trains nothing: all rates are 0")
        self.cost = cost(model.backbone)
        self.accelerator = make_accelerator(recipe, model)
        optimizer = torch.optim.AdamW(groups, betas=(0.9, recipe.train.beta2))
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.step = self.drawn = self.left_out = 0
        self.curve: list[Point] = []
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
            if self.accelerator.is_main_process:
                on_step(point)
            if every and self.step % every == 0 and self.done < 1:
                save()
        self.model.eval()

    def _step(self) -> Point:
        """One step of the optimizer, on `train.accumulation` batches of each process."""
        started, train = perf_counter(), self.recipe.train
        rate = share_of_rate(self.done, train)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["peak"]
        # All of the step's batches are fetched before any is learnt from: each is weighed by its share of the whole.
        parts = [next(self.batches) for _ in range(train.accumulation)]
        held = self._held(parts)
        with self._memory(parts):
            sums = self._backward(parts, held)
            # Loss and gradient are looked at before the optimizer moves any weight: such a step could not be undone.
            self._refuse(sums.loss, "loss")
            norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), train.clip) or 0.0)
            self._refuse(norm, "norm of the gradient")
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.drawn += held.drawn
        self.left_out += held.left_out
        return self._point(held, sums, rate, norm, perf_counter() - started)

    def _held(self, parts: Sequence[Prepared]) -> _Held:
        """What this step's batches hold: each batch is weighed by its part of it."""
        answer_tokens = labels = 0
        if self._with_text:
            answer_tokens = sum(int((p.batch["labels"][:, 1:] >= 0).sum()) for p in parts)
        if self.head:
            labels = sum(int((~torch.isnan(p.batch["progress"])).sum()) for p in parts)
        drawn, left_out = sum(p.drawn for p in parts), sum(p.left_out for p in parts)
        samples, tokens = sum(p.samples for p in parts), sum(p.tokens for p in parts)
        counts = self._sum(answer_tokens, labels, drawn, left_out, samples, tokens)
        return _Held(*map(int, counts))

    def _backward(self, parts: Sequence[Prepared], held: _Held) -> _StepSums:
        """Add up the gradients of this process's batches; the sums are of all processes."""
        text_weight = self.recipe.train.text_weight
        head_weight = self.recipe.head.weight if self.recipe.head else 0.0
        loss_sum = text_sum = error_sum = flops = 0.0
        for number, part in enumerate(parts, 1):
            flops += self.cost.of(part.batch)
            batch = {name: tensor.to(self.accelerator.device) for name, tensor in part.batch.items()}
            # Processes exchange gradients with the last batch only.
            with self._unsynced(number < len(parts)):
                batch_losses = self._losses(batch, self._with_text)
                text = batch_losses.text / max(1, held.answer_tokens)
                progress = head_weight * batch_losses.progress / max(1, held.labels)
                loss = text_weight * text + progress
                self.accelerator.backward(loss * self._scale)
            loss_sum += float(loss.detach())
            text_sum += float(batch_losses.text.detach())
            error_sum += float(batch_losses.error.detach())
        return _StepSums(*self._sum(loss_sum, text_sum, error_sum, flops))

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

    @property
    def _scale(self) -> float:
        """Gradients of processes are averaged, and DeepSpeed's of a step's batches; the losses are parts of a sum."""
        deepspeed = self.recipe.train.distributed == "deepspeed"
        return self.accelerator.num_processes * (self.recipe.train.accumulation if deepspeed else 1)

    def _unsynced(self, wanted: bool) -> Any:
        return self.accelerator.no_sync(self.model) if wanted else nullcontext()

    def _sum(self, *values: float) -> list[float]:
        """Over all processes."""
        if self.accelerator.num_processes == 1:
            return list(values)
        together = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        return self.accelerator.reduce(together, "sum").tolist()

    def _refuse(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"the {what} is {value} at step {self.step}: lower train.lr (now {self.recipe.train.lr:g}) or "
                "train.clip in the recipe, or look for samples without sense; checkpoints before it are kept"
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

    def state(self) -> tuple[TrainerState, dict[str, Any]]:
        """All processes call it; the optimizer's state is whole on the main one."""
        from accelerate.utils import gather_object
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

        inner = self.optimizer.optimizer
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        optimizer = get_optimizer_state_dict(self.model, inner, options=options)
        streams, chance = gather_object([self.batches.state_dict()]), gather_object([chance_state()])
        curve = [asdict(p) for p in self.curve]
        return TrainerState(self.step, self.drawn, self.left_out, streams, chance, curve), optimizer

    def load(self, state: TrainerState, optimizer: dict[str, Any]) -> None:
        """Go on from there; the model must hold its weights already. Raises TrainingError or ShardError."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        # Each process goes on with its own stream: another number of processes would see other samples.
        if len(state.streams) != world:
            raise TrainingError(f"the run was begun by {len(state.streams)} processes and cannot go on with {world}")
        options = StateDictOptions(full_state_dict=True)
        set_optimizer_state_dict(self.model, self.optimizer.optimizer, optimizer, options=options)
        self.step, self.drawn, self.left_out = state.step, state.drawn, state.left_out
        self.curve = [Point(**p) for p in state.curve]
        self.batches.load_state_dict(state.streams[rank])
        set_chance(state.chance[rank])

    def weights(self) -> dict[str, torch.Tensor] | None:
        """Of the whole model, on the main process, where each has only a part of it; None where they have it all."""
        if self.recipe.train.distributed == "none":
            return None
        return self.accelerator.get_state_dict(self.model)

"""Checkpoints of a run: to go on from (what learns, the optimizer, the data's position, all chance), and the best one.

Each process writes its own part (torch.distributed.checkpoint, in safetensors), while training goes on. What any number
of processes wrote, any other number can read. A folder appears whole or not at all; safetensors and JSON only.

Each `train.evaluate_every` steps the model is written as a checkpoint, and that is asked about held-out episodes as
`proccorpus eval` would ask it: what is scored is what is kept. All processes load it and take a part of the episodes.
Evaluation leaves training unchanged: model, data position and generators are as they were.
"""

import json
import random
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch import distributed, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from core.errors import FailedError, UserError
from core.files import sync, take_place
from training.folder import CARD, ModelError, read_card, write_card
from training.runs import STATE_FILE, saved_steps

FILE_BYTES = 4 << 30  # of one file of a process: so much is held a second time while it is written
# That one process alone writes, or reads, is as it should be.
warnings.filterwarnings("ignore", message="torch.distributed is disabled")
# How long a process waits for the others: as long as one of them may take to gather and write a model of 7 B.
PATIENCE = timedelta(hours=2)
LAST_WRITE_S = 900.0  # that a run which failed waits for the checkpoint that it was just writing


def step_folder(steps: Path, step: int) -> Path:
    return steps / f"step-{step:08d}"


def remove_old(steps: Path, keep: int) -> None:
    """Let the newest `keep` stay."""
    for path in saved_steps(steps)[:-keep]:
        shutil.rmtree(path)


@dataclass(frozen=True)
class TrainerState:
    """Where a run stands after `step` steps: samples drawn, the processes that it was begun by, the streams of all
    processes, the generators' states of those that wrote this, the curve so far, the best evaluation, how many
    samples were made how, and whether the run's second stage has begun."""

    step: int
    drawn: int
    left_out: int
    begun_by: int
    streams: dict
    chance: list[dict]
    curve: list[dict]
    best: dict | None = None
    made: dict[str, int] = field(default_factory=dict)
    is_longer: bool = False


# Tensors


def learning_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What learns, as model/NAME, and the optimizer's state of it, as optimizer/NAME/KEY; this process's parts where
    it has only a part. `model`: without a wrapper."""
    parameters = _learning(model)
    tensors = {f"model/{name}": p.detach() for name, p in parameters.items()}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = value
    return tensors


def read_tensors(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Fill what learns, and the optimizer's state, from a checkpoint; all processes call it. Raises ModelError."""
    reader = HuggingFaceStorageReader(str(folder))
    parameters = _learning(model)
    targets: dict[str, Any] = {f"model/{name}": p.detach() for name, p in parameters.items()}
    try:
        stored: Any = reader.read_metadata().state_dict_metadata
        sizes = {key: tuple(tensor.size) for key, tensor in stored.items()}
        _check(folder, targets, sizes)
        # The optimizer has no state yet: it gets that of the checkpoint, divided as the parameters are.
        for key in sorted(sizes.keys() - targets.keys()):
            name, _, state_name = key.removeprefix("optimizer/").rpartition("/")
            parameter = parameters[name].detach()
            if sizes[key] == tuple(parameter.shape):
                state = torch.zeros_like(parameter)
            else:
                state = torch.zeros(sizes[key])
            targets[key] = optimizer.state[parameters[name]][state_name] = state
        load(targets, storage_reader=reader, no_dist=not distributed.is_initialized())
    except (OSError, ValueError, KeyError, SafetensorError, CheckpointException) as e:
        raise _unusable(folder, _cause(e)) from e
    # torch puts the steps where its kernels count them
    optimizer.load_state_dict(optimizer.state_dict())


def _learning(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _check(
    folder: Path, targets: Mapping[str, torch.Tensor], sizes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises ModelError where a checkpoint is not of this model."""
    shapes = {key: tuple(tensor.shape) for key, tensor in targets.items()}
    stored_shapes = {key: size for key, size in sizes.items() if key.startswith("model/")}
    for key in sorted(stored_shapes.keys() | shapes.keys()):
        if (stored_shape := stored_shapes.get(key, "missing")) != (
            model_shape := shapes.get(key, "missing")
        ):
            name = key.removeprefix("model/")
            raise _unusable(
                folder,
                f"it is of another model: {name} is {stored_shape} there, {model_shape} here",
            )


def _unusable(folder: Path, reason: object) -> ModelError:
    return ModelError(
        f"cannot resume from the checkpoint {folder}: {' '.join(str(reason).split())[:300]}"
    )


def _cause(e: BaseException) -> BaseException:
    """What went wrong in the first of the processes where something did."""
    if isinstance(e, CheckpointException):
        return next(iter(e.failures.values()))[0]
    return e


# Writing


class StepWriter:
    """Writes the checkpoints of a run, one at a time, beside the training. All processes have one.

    Older ones than the newest `keep` go once a step has been learnt from the newest: before that nobody knows whether
    it is sound.
    """

    def __init__(self, steps: Path, keep: int) -> None:
        self._steps = steps
        self._keep = keep
        self._pending: Future | None = None
        self._folder = steps
        self._proven = False
        # The processes talk about a checkpoint apart from the training, on the CPU.
        self._group: Any = None
        if distributed.is_initialized():
            self._group = distributed.new_group(backend="gloo", timeout=PATIENCE)
        self._is_first = self._group is None or distributed.get_rank() == 0

    def write(self, state: TrainerState, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take a copy of the tensors, and write it from now on; waits for the checkpoint before. Raises ModelError."""
        self.wait()
        self._folder = step_folder(self._steps, state.step)
        half = self._folder.with_name(f".{self._folder.name}.half")
        if self._is_first:
            # What a killed run left half-written
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir(parents=True)
        if self._group is not None:
            distributed.barrier(self._group)
        writer = _Writer(half, self._folder, state, _files(tensors))
        self._proven = False
        self._pending = async_save(  # type: ignore[assignment]
            dict(tensors),
            storage_writer=writer,
            process_group=self._group,
            no_dist=self._group is None,
        )

    def wait(self) -> None:
        """Until the last checkpoint is whole. Raises ModelError where it could not be written."""
        pending = self._pending
        self._pending = None
        if pending is None:
            return
        try:
            pending.result()
        except (OSError, RuntimeError, ValueError, CheckpointException) as e:
            reason = " ".join(str(_cause(e)).split())[:300]
            raise ModelError(f"the checkpoint {self._folder} could not be written: {reason}") from e
        self._remove_old()

    def prove(self) -> None:
        """A step was learnt from the weights of the newest checkpoint. The first process calls it."""
        self._proven = True
        if self._pending is None or self._pending.done():
            self._remove_old()

    def _remove_old(self) -> None:
        if self._is_first and self._proven:
            remove_old(self._steps, self._keep)

    def set_aside(self, step: int) -> Path | None:
        """Call the checkpoint of `step`, from which no step can be learnt, unsound-N: a run goes on
        from the one before. Nothing where there is none before. The first process calls it, after
        `settle`. Returns the folder."""
        saved = saved_steps(self._steps)
        if len(saved) < 2 or saved[-1] != step_folder(self._steps, step):
            return None
        aside = saved[-1].with_name(saved[-1].name.replace("step-", "unsound-"))
        return saved[-1].rename(aside)

    def settle(self) -> None:
        """Let the last checkpoint become whole if it can, after the run itself went wrong."""
        if self._pending is not None:
            wait_for([self._pending], timeout=LAST_WRITE_S)


def _files(tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """In which of a process's files each tensor stands, from 1 on."""
    filled = 0
    numbers = {}
    for key, tensor in tensors.items():
        filled += tensor.numel() * tensor.element_size()
        numbers[key] = 1 + filled // FILE_BYTES
    return numbers


class _Writer(HuggingFaceStorageWriter):
    """Writes into `half`, which takes the name `folder` when all processes have written their files."""

    def __init__(
        self, half: Path, folder: Path, state: TrainerState, files: dict[str, int]
    ) -> None:
        super().__init__(str(half), fqn_to_index_mapping=files, save_distributed=True)
        self._half = half
        self._folder = folder
        self._text = json.dumps(asdict(state)) + "\n"

    def finish(self, metadata: Any, results: Sequence[Sequence[Any]]) -> None:
        """Called in the first process, once all have written and synced."""
        for name in {r.storage_data.relative_path for r in chain.from_iterable(results)}:
            if not (self._half / name).exists():
                raise OSError(
                    f"{self._half} lacks {name}: all machines must write to one shared disk"
                )
        (self._half / STATE_FILE).write_text(self._text)
        sync(self._half / STATE_FILE)
        take_place(self._half, self._folder)


# Where a run stands


def load_state(folder: Path) -> TrainerState:
    """Raises ModelError."""
    try:
        return TrainerState(**json.loads((folder / STATE_FILE).read_text()))
    except (OSError, ValueError, TypeError) as e:
        raise _unusable(folder, e) from e


def chance_state() -> dict[str, Any]:
    """All generators of this process; JSON."""
    states: dict[str, Any] = {"torch": torch.get_rng_state().numpy().tobytes().hex()}
    version, numbers, gauss = random.getstate()
    states["python"] = [version, list(numbers), gauss]
    kind, keys, *position = np.random.get_state(legacy=True)
    states["numpy"] = [kind, np.asarray(keys).tolist(), *position]
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state().numpy().tobytes().hex()
    return states


def set_chance(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(_bytes(state["torch"]))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(tuple(state["numpy"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_bytes(state["cuda"]))


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


FACTS = "held_out"  # what the card of a best model says of its evaluation
PREFIX = "held_out_"  # of the scores in a point of the curve
BY = "mae"  # the best has least of it: answers that cannot be read count as wrong as can be


class CheckpointScorer(Protocol):
    """Held-out episodes, and how a checkpoint's answers about them are scored (eval.within)."""

    def predict(self, folder: Path, part: int, parts: int) -> Any:
        """The answers of the checkpoint in `folder` for one of `parts` parts of the episodes, as JSON."""
        ...

    def scores(self, predicted: Sequence[Any]) -> dict[str, float]:
        """Of the answers about all parts in order: `mae`, less is better, and others by name."""
        ...


class HeldOutCheck:
    """Scores the model between two steps. All processes have one, and call it at the same steps.

    `write` puts the model that is learning into a folder as a checkpoint; all processes call it, the main one writes.
    `candidate`: the folder where it lies while it is scored; `best`: where the best stays.
    """

    def __init__(
        self,
        accelerator: Any,
        scorer: CheckpointScorer,
        write: Callable[[Path], None],
        candidate: Path,
        best: Path,
    ) -> None:
        self._accelerator = accelerator
        self._scorer = scorer
        self._write = write
        self._candidate = candidate
        self._folder = best
        self.best: dict[str, float] | None = None

    def begin(self, best: dict[str, float] | None, resumed: bool) -> None:
        """Where the run stands: `best` of the state that it goes on from.

        A best model that a killed run wrote after that state was is still the best one; without its folder there is
        none.
        """
        if resumed and (self._folder / CARD).exists():
            self.best = read_card(self._folder).get(FACTS) or best
        self._accelerator.wait_for_everyone()
        if not resumed and self._accelerator.is_main_process:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __call__(self, step: int) -> dict[str, float]:
        """Scores by name, for the curve's point `step`. Raises FailedError."""
        chance = chance_state()
        self._write(self._candidate)
        self._accelerator.wait_for_everyone()
        scores = self._scores(step)
        if self.best is None or scores[BY] < self.best[BY]:
            self.best = {"step": step, **scores}
            if self._accelerator.is_main_process:
                write_card(self._candidate, read_card(self._candidate) | {FACTS: self.best})
                take_place(self._candidate, self._folder)
        elif self._accelerator.is_main_process:
            shutil.rmtree(self._candidate)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # what the second model took
        set_chance(chance)
        return {PREFIX + name: value for name, value in scores.items()}

    def _scores(self, step: int) -> dict[str, float]:
        """Of all processes' answers: the same in each."""
        answers = None
        failure = None
        # The others wait for this process, so they have to be told.
        try:
            answers = self._scorer.predict(
                self._candidate,
                self._accelerator.process_index,
                self._accelerator.num_processes,
            )
        except (FailedError, UserError, RuntimeError, OSError, ValueError) as e:
            failure = e
        outcomes = gather_object(
            [(answers, failure and f"{type(failure).__name__}: {' '.join(str(failure).split())}")]
        )
        for _, problem in outcomes:
            if problem:
                raise FailedError(
                    f"the model of step {step} could not be evaluated: {problem[:300]}"
                ) from failure
        return self._scorer.scores([process_answers for process_answers, _ in outcomes])

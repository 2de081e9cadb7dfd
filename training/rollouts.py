"""What GRPO's rollouts begin with and leave behind: prompts with pictures, vLLM's settings, and the completions' log.

TRL asks for a generation batch once for each micro-step, and once for each answer to a prompt, and uses the first of
these alone. So the sampler says which ask is the first: in it a prompt's pictures are decoded and cut into patches,
once, by the loader's workers; in the others a row is empty.
"""

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from torch.utils.data import DataLoader, Sampler
from transformers import TrainerCallback
from trl.trainer.grpo_trainer import GRPOTrainer

from training.data import item_of, length_of, row_at
from training.folder import TrainingError
from training.loop import make_optimizer, share_of_rate
from training.model import save_processor
from training.pictures import chat
from training.pixels import Batch, joined, on_device
from training.plan import GB, of_this_machine
from training.progresslm import REWARDS, WEIGHTS
from training.progresslm_data import truth_of
from training.recipe import GrpoConfig, Recipe
from training.transform import IGNORE, Transform
from warehouse.shards.shard import Sample

PIXELS_AT_ONCE = GB  # of pictures that transformers generates from

# Prompts


@dataclass(frozen=True)
class ShownPrompt:
    """A prompt as the model takes it: its token ids with as many marks as each picture takes, its pictures as bytes
    (training.pixels), and for vLLM, which cuts them itself, as they are."""

    ids: list[int]
    pixels: Batch
    pictures: tuple[np.ndarray, ...]

    @property
    def float_bytes(self) -> int:
        """Of its pixels once they are float32 on the device."""
        return self.pixels["patches"].nbytes * len(self.pixels["patch_norm"]) * 4


def marked_once(ids: Sequence[int], mark: int) -> list[int]:
    """A prompt as vLLM takes it beside its pictures: one mark for each, which it makes as many of
    as the picture takes.

    It would do so with each of a picture's marks, too (trl#6294)."""
    return [token for former, token in pairwise([-1, *ids]) if token != mark or former != mark]


def pixels_of(
    prompts: Sequence[ShownPrompt], ids: torch.Tensor, mark: int, labels: torch.Tensor | None = None
) -> Batch:
    """What a model is given beside `ids` [b, t], whose answers alone have labels, on their device: floats are made of
    bytes there."""
    marked = (ids == mark) & (True if labels is None else labels == IGNORE)
    return on_device(joined([s.pixels for s in prompts]), ids.device) | {
        "mm_token_type_ids": marked.long()
    }


def prompt_rows(
    samples: Sequence[Sample],
    transform: Transform,
    recipe: Recipe,
    chosen: Sequence[int],
    repeated: bool = True,
) -> Dataset:
    """Rows by number: of n chosen samples, row k < n is one with its pictures; where they are asked for repeatedly, row
    n + k stands for it without."""
    assert recipe.grpo is not None
    for_vllm = with_vllm(recipe.grpo)

    def rows(batch: Mapping[str, list[int]]) -> dict[str, list[Any]]:
        # All answers to a prompt share its pictures.
        places = [k for k in dict.fromkeys(batch["index"]) if k < len(chosen)]
        rows_by_place = {
            k: _asked(samples[chosen[k]], transform, recipe.model.max_px, for_vllm) for k in places
        }
        empty = {"prompt": [], "shown": None, "truth": None, "sample_id": ""}
        batch_rows = [rows_by_place.get(k, empty) for k in batch["index"]]
        return {name: list(map(itemgetter(name), batch_rows)) for name in empty}

    return Dataset.from_dict(
        {"index": list(range((2 if repeated else 1) * len(chosen)))}
    ).with_transform(rows)


def _asked(sample: Sample, transform: Transform, max_px: int, for_vllm: bool) -> dict[str, Any]:
    item = replace(item_of(sample, max_px), answer=None)
    batch = transform.as_bytes([item])
    pixels = {name: batch[name] for name in ("patches", "image_grid_thw", "patch_norm")}
    return {
        "prompt": chat(item.question),
        "shown": ShownPrompt(
            batch["input_ids"][0].tolist(), pixels, transform.pictures(item) if for_vllm else ()
        ),
        "truth": truth_of(sample),
        "sample_id": str(sample.row["sample_id"]),
    }


@dataclass(frozen=True)
class GenerationSampler(Sampler[int]):
    """Numbers of `prompt_rows`, as TRL's RepeatSampler: `at_once` of `count` prompts, each `generations` times, and all
    of that `repeats` times, of which the first alone is with pictures; for some of a run's steps. An epoch's order
    follows from seed and epoch."""

    count: int
    at_once: int
    generations: int
    repeats: int
    seed: int
    steps: range

    def __len__(self) -> int:
        return len(self.steps) * self.at_once * self.generations * self.repeats

    def __iter__(self) -> Iterator[int]:
        for step in self.steps:
            epoch, place = divmod(step, self.count // self.at_once)
            order = np.random.default_rng([self.seed, epoch]).permutation(self.count).tolist()
            prompts = order[place * self.at_once : (place + 1) * self.at_once]
            for repeat in range(self.repeats):
                for k in prompts:
                    yield from [k if repeat == 0 else self.count + k] * self.generations


def fitting(
    samples: Sequence[Sample], transform: Transform, recipe: Recipe, rank: int, world: int
) -> list[int]:
    """The prompts of at most data.sequence_length tokens: longer ones would end a run in its midst.

    No picture is decoded; processes share the work. Raises TrainingError, ShardError.
    """
    lengths = {
        k: length_of(row_at(samples, k), transform, recipe, None)
        for k in range(rank, len(samples), world)
    }
    return sorted(
        gather_object([k for k, n in lengths.items() if n <= recipe.data.sequence_length])
    )


# vLLM


def with_vllm(config: GrpoConfig) -> bool:
    """Does vLLM generate? Raises TrainingError where it should and cannot."""
    can = importlib.util.find_spec("vllm") is not None
    if config.rollouts == "vllm" and not can:
        raise TrainingError(
            "grpo.rollouts: vllm needs vLLM (uv pip install vllm): take auto, which goes without where there is none"
        )
    return can and (
        config.rollouts == "vllm" or (config.rollouts == "auto" and torch.cuda.is_available())
    )


def served(base: Path, processor: Any, folder: Path) -> Path:
    """The checkpoint as vLLM is to read it: its weights with the run's processor, which makes pictures as large."""
    folder.mkdir()
    for file in chain(base.glob("*.safetensors*"), base.glob("*config.json")):
        if "processor" not in file.name and "tokenizer" not in file.name:
            (folder / file.name).symlink_to(file.resolve())
    save_processor(processor, folder)
    return folder


def vllm_settings(recipe: Recipe, config: GrpoConfig) -> dict[str, Any]:
    """Rollouts by vLLM, in this process; on a GPU it sleeps while there is learning. Raises TrainingError."""
    settings = {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_max_model_length": recipe.data.sequence_length + config.max_completion,
        "vllm_importance_sampling_mode": "token_truncate",
    }
    machine_plan = of_this_machine(recipe, PartialState().num_processes)
    if machine_plan:
        shared = {
            "vllm_gpu_memory_utilization": machine_plan.vllm_share(),
            "vllm_enable_sleep_mode": True,
        }
    else:
        shared = {}
    return settings | shared


# Completions


def reward_functions(name: str) -> list[Callable[..., list[float]]]:
    """One for each part, so that TRL weighs them and tells of each."""
    whole = REWARDS[name]

    def of_part(part: str) -> Callable[..., list[float]]:
        def reward(**columns: Any) -> list[float]:
            """By what TRL tells of completions: their texts, our columns, and where to log."""
            rewards = [
                whole(text_of(c), t)
                for c, t in zip(columns["completions"], columns["truth"], strict=True)
            ]
            if part == "format":
                columns["log_extra"]("sample_id", list(columns["sample_id"]))
            else:  # reference and score have a distance to the label, which is logged as well
                columns["log_metric"](
                    f"{part}_error",
                    sum(getattr(r, f"{part}_error") for r in rewards) / len(rewards),
                )
            return [getattr(r, part) for r in rewards]

        reward.__name__ = part  # by which TRL logs it; only a plain function has one for it
        return reward

    return [of_part(part) for part in WEIGHTS]


def write_completions(
    path: Path, step: int, split: str, logs: Mapping[str, Any], last: int, is_new: bool
) -> None:
    """What was answered, one JSON line each: step, split, sample_id, prompt, completion, rewards by part, advantage.

    `logs`: TRL's, with a list for each column, of which the `last` rows are written. `is_new`: by a run that begins or
    resumes at this step; later lines are from a run that was killed after its last checkpoint, and are dropped.
    """
    columns = dict(logs["rewards"]) | dict(logs["extra"]) | {"advantage": logs["advantages"]}
    columns |= {name: list(map(text_of, logs[name])) for name in ("prompt", "completion")}
    rows = list(zip(*map(list, columns.values()), strict=True))[-last:]
    if is_new:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The last line of a killed run may be a part of one
        *lines, _ = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
        path.write_text(
            "".join(f"{x}\n" for x in lines if json.loads(x)["step"] < step), encoding="utf-8"
        )
    with path.open("a", encoding="utf-8") as f:
        for row in rows:
            fields = {"step": step, "split": split} | dict(zip(columns, row, strict=True))
            f.write(json.dumps(fields, ensure_ascii=False) + "\n")


def text_of(messages: Any) -> str:
    """The text of TRL's messages, of which there is one; pictures are left out."""
    content = messages[0]["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content)


# TRL


class Trl(GRPOTrainer):
    """TRL's trainer with our loader, optimizer and schedule. The model is given its pictures whenever TRL asks it for
    probabilities: TRL would cut them itself, once for each answer, and keep the floats of all."""

    def __init__(self, ours: Any, **options: Any) -> None:
        self.ours = ours
        super().__init__(**options)
        models: list[Any] = [self.model, self.ref_model]
        for model in filter(None, models):
            model.register_forward_pre_hook(self.with_pictures, with_kwargs=True, prepend=True)

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        self.shown: list[ShownPrompt] = [row["shown"] for row in inputs]
        output = super()._generate_and_score_completions(inputs)
        if self.use_vllm and self.model.training and not self.ours.matched:  # type: ignore[union-attr]
            self.ours.match(output)
        return output | {"shown": self.shown}

    def with_pictures(
        self, model: Any, args: Any, given: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]] | None:
        """What a model is given, with the pictures of its rows; None where it generates. Rows come in order, some at a
        time, and each time all of them."""
        if given.get("labels") is None:
            return None
        n = len(given["input_ids"])
        rows = self.shown[:n]
        self.shown = [*self.shown[n:], *self.shown[:n]]
        return args, given | pixels_of(
            rows, given["input_ids"], self.ours.image_token, given["labels"]
        )

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **keywords: Any) -> Any:
        self.shown = inputs["shown"]
        return super().compute_loss(model, inputs, *arguments, **keywords)

    def learning(self) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        """What learns, and its optimizer, both without wrappers."""
        return self.accelerator.unwrap_model(self.model_wrapped), getattr(
            self.optimizer, "optimizer", self.optimizer
        )

    def get_train_dataloader(self) -> Any:
        """Of all steps that are left, whatever the epoch."""
        args: Any = self.args
        n = self.ours.config.generations
        repeats = self.num_iterations * args.steps_per_generation
        steps = range(self.ours.first, self.ours.steps_in_all)
        at_once = args.generation_batch_size // n
        sampler = GenerationSampler(self.ours.prompts, at_once, n, repeats, args.seed, steps)
        batch = args.per_device_train_batch_size * args.steps_per_generation
        data: Any = self.train_dataset
        return self.accelerator.prepare(
            DataLoader(
                data,
                batch,
                sampler=sampler,
                collate_fn=self.data_collator,
                num_workers=args.dataloader_num_workers,
            )
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = make_optimizer(model or self.model_wrapped, self.ours.recipe)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            ours = self.ours
            train = self.ours.recipe.train
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.learning()[1],
                lambda step: share_of_rate((ours.first + step) / ours.steps_in_all, train),
            )
        return self.lr_scheduler


class StepLog(TrainerCallback):
    """Passes on where TRL is and what it logs of each step, and of each validation; not the summary at the end."""

    def __init__(self, ours: Any) -> None:
        self.ours = ours

    def on_step_begin(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        if state.global_step == 0:  # after the loader has drawn a number of chance
            self.ours.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        control.should_training_stop |= self.ours.asked_anywhere()
        control.should_evaluate = self.ours.validates()

    def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: Mapping[str, float] | None = None,
        **keywords: Any,
    ) -> None:
        if "reward" in (logs or {}):
            self.ours.stepped(logs or {})
        elif "eval_reward" in (logs or {}):
            self.ours.validated(logs or {})

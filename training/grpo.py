"""GRPO on ProgressLM's format, by TRL's trainer: prompts with pictures, groups of completions, the reward of each.

TRL generates, compares and learns; this module gives it prompts and rewards, and takes from it what `training.train`
needs of every trainer: points of the curve, and checkpoints of safetensors and JSON that a run resumes from. vLLM
generates where it is installed and there is a GPU (its weights follow each step), transformers elsewhere.
"""

import math
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from huggingface_hub import constants
from PIL import Image
from transformers.trainer_callback import PrinterCallback
from trl.trainer.grpo_config import GRPOConfig

from core.paths import Workspace
from training import rollouts
from training.backbones import adapter_settings
from training.checkpoint import (
    PATIENCE,
    TrainerState,
    chance_state,
    learning_tensors,
    load_state,
    read_tensors,
)
from training.folder import TrainingError, backbone_kind
from training.loop import (
    AskedToEnd,
    batches_each,
    check_norm,
    fresh_state,
    go_on_with_chance,
    precision,
    samples_of_step,
)
from training.model import ProgressModel
from training.plan import less
from training.progresslm import WEIGHTS
from training.progresslm_data import drawn_samples, read_rows
from training.recipe import Recipe
from training.runs import Point
from training.transform import Transform
from warehouse.releases.release import Release
from warehouse.shards.shard import Sample

LONG = 20  # steps one after the other in which no answer was better than another: that is said
COMPLETIONS = "completions.jsonl"  # in the folder of a run's checkpoints


class GrpoTrainer:
    """A GRPO run, as training.loop.Trainer is one of SFT. `last`: the checkpoint folder that it resumes from; `steps`:
    folder of its checkpoints, where completions are written. Raises TrainingError, ShardError."""

    def __init__(
        self,
        workspace: Workspace,
        release: Release,
        model: ProgressModel,
        processor: Any,
        recipe: Recipe,
        last: Path | None,
        steps: Path,
    ) -> None:
        assert recipe.grpo is not None
        if not backbone_kind(model.backbone).free_size:
            raise TrainingError(
                f"recipe {recipe.name} is grpo, which a model of the type {model.backbone.config.model_type} cannot be "
                "trained by: take a Qwen model, or a recipe of the kind sft"
            )
        self.recipe = recipe
        self.config = recipe.grpo
        self.last = last
        self.steps = steps
        self.curve: list[Point] = []
        self.waiting: Point | None = None  # for the rewards on held-out prompts
        self.matched = 0.0  # how near vLLM's probabilities are to ours, once that is known
        self.counted = 0  # tokens by TRL, in this process's life
        self.asked = AskedToEnd()
        self.ends = False
        self.logged = False  # have completions been written since the run began or resumed?
        self.resumed = load_state(last) if last else None
        # TRL is given the steps that are left, as a run of its own: it counts them from 0
        self.first = self.resumed.step if self.resumed else 0
        processes = fresh_state(divided=recipe.train.distributed == "fsdp")
        rank = processes.process_index
        world = processes.num_processes
        self.divided = recipe.train.distributed == "fsdp" and world > 1
        self.begun_by = self.resumed.begun_by if self.resumed else world
        self.accumulation = batches_each(recipe, self.begun_by, world)
        self.completions = recipe.train.batch * self.accumulation * world  # a step
        transform = Transform(processor)
        samples = self._samples(workspace, release, "train")
        chosen = rollouts.fitting(samples, transform, recipe, rank, world)
        self.left_out = len(samples) - len(chosen)
        self.prompts = len(chosen)
        self._check_step()
        at_once = self.completions // self.config.generations  # prompts of a step
        self.steps_in_all = recipe.train.steps or math.ceil(
            (recipe.train.epochs or 1) * (self.prompts // at_once)
        )
        if self.config.validate_every:
            held_out = self._samples(workspace, release, "val")
        else:
            held_out = ()
        held_out_prompts = rollouts.fitting(held_out, transform, recipe, rank, world)[
            : self.config.validation_prompts
        ]
        # Cut to whole batches, so that a mean over these is one over prompts
        held_batch = min(recipe.train.batch, len(held_out_prompts) // world)
        if self.config.validate_every and not held_batch:
            raise TrainingError(
                f"grpo.validate_every: {len(held_out_prompts)} held-out prompts are too few for {world} processes"
            )
        if held_batch:
            self.held_out = len(held_out_prompts) // (held_batch * world) * held_batch * world
        else:
            self.held_out = 0
        # Completions follow the prompts, so all prompts of a batch must end at one place.
        processor.tokenizer.padding_side = "left"
        backbone = model.backbone
        # Where TRL loads the model to keep near to from
        backbone.config._name_or_path = str(backbone.name_or_path)
        adapter = adapter_settings(backbone, recipe.lora) if recipe.lora else None
        self.image_token = transform.image_token
        # TRL wants a folder to write to; what we keep is in checkpoints of our own.
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)
            # Both would tell their makers that they are used; nothing leaves this machine.
            constants.HF_HUB_DISABLE_TELEMETRY = True
            os.environ["VLLM_NO_USAGE_STATS"] = "1"
            if rollouts.with_vllm(self.config):
                backbone.name_or_path = str(
                    rollouts.served(Path(backbone.name_or_path), processor, Path(folder) / "served")
                )
            self.trl = rollouts.Trl(
                self,
                model=backbone,
                args=self._arguments(folder, backbone, held_batch),
                reward_funcs=rollouts.reward_functions(self.config.reward),
                train_dataset=rollouts.prompt_rows(samples, transform, recipe, chosen),
                eval_dataset=rollouts.prompt_rows(
                    held_out, transform, recipe, held_out_prompts[: self.held_out], False
                ),
                processing_class=processor,
                peft_config=adapter,
                callbacks=[rollouts.StepLog(self)],
                rollout_func=self._answers,
            )
        backbone.name_or_path = backbone.config._name_or_path
        self.trl.remove_callback(PrinterCallback)
        self.accelerator = self.trl.accelerator

    def _samples(self, workspace: Workspace, release: Release, split: str) -> Sequence[Sample]:
        """What is asked: rows of the recipe's files, else what its profile draws of the release's split."""
        data = self.recipe.data
        if files := data.jsonl if split == "train" else data.validation_jsonl:
            rows = read_rows(files, data.image_root, "think")
            rows.check_labels()
            return rows
        samples = drawn_samples(
            workspace, release, self.config.profile, self.recipe.train.seed, split
        )
        if split == "val" and not samples:
            raise TrainingError(
                f"grpo.validate_every: release {release.name} has no prompts in its split val"
            )
        return samples

    def _check_step(self) -> None:
        """Raises TrainingError where the prompts do not make whole steps."""
        n = self.config.generations
        if self.completions % n:
            raise TrainingError(
                f"a step has {self.completions} completions (train.batch x train.accumulation x processes), which is "
                f"no multiple of grpo.generations ({n})"
            )
        if self.prompts < self.completions // n:
            longer = f" of at most {self.recipe.data.sequence_length} tokens ({self.left_out} are longer)"
            raise TrainingError(
                f"there are {self.prompts} prompts{longer if self.left_out else ''}, and a step takes "
                f"{self.completions // n}: lower train.accumulation (now {self.recipe.train.accumulation})"
            )

    def _arguments(self, folder: str, backbone: Any, held_batch: int) -> GRPOConfig:
        """TRL's settings; `held_batch`: prompts of a batch of the validation, 0 where there is none."""
        recipe = self.recipe
        config = self.config
        train = self.recipe.train
        longest = backbone.config.get_text_config().max_position_embeddings
        if recipe.data.sequence_length + config.max_completion > longest:
            raise TrainingError(
                f"a prompt of {recipe.data.sequence_length} tokens (data.sequence_length) and an answer of "
                f"{config.max_completion} (grpo.max_completion) are more than the model's context of {longest}"
            )
        settings: dict[str, Any] = {
            "per_device_train_batch_size": train.batch,
            "gradient_accumulation_steps": self.accumulation,
            "max_steps": self.steps_in_all - self.first,
            "max_grad_norm": train.clip,
            "bf16": train.dtype == "bfloat16",
            "activation_checkpointing": train.recompute == "all",
            "activation_checkpointing_kwargs": {"use_reentrant": False},
            "seed": train.seed,
            "use_cpu": not torch.cuda.is_available(),
            "ddp_timeout": int(PATIENCE.total_seconds()),
            "dataloader_num_workers": recipe.data.workers,
            "num_generations": config.generations,
            "max_completion_length": config.max_completion,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "epsilon": config.clip_low,
            "epsilon_high": config.clip_high,
            "delta": config.dual_clip,
            "beta": config.kl_coef,
            "reward_weights": list(WEIGHTS.values()),
            # Dropout would give a completion other probabilities when it is learnt from than when it was made.
            "disable_dropout": True,
            "logging_steps": 1,
            "report_to": "none",
            "disable_tqdm": True,
            "save_strategy": "no",  # what we keep is in checkpoints of our own
        }
        if held_batch:
            settings |= {"per_device_eval_batch_size": held_batch, "num_generations_eval": 1}
        if rollouts.with_vllm(config):
            settings |= rollouts.vllm_settings(recipe, config)
        if self.divided:
            settings |= {
                "fsdp": True,
                "fsdp_config": {
                    "version": 2,
                    "transformer_layer_cls_to_wrap": sorted(backbone._no_split_modules),
                },
            }
        arguments: Any = GRPOConfig(output_dir=folder, **settings)
        # transformers has no setting for it; without one, gradients would be added up in bfloat16.
        if self.divided:
            arguments.fsdp_plugin_args["mixed_precision_policy"] = precision(train.dtype)
        return arguments

    @property
    def step(self) -> int:
        return self.first + self.trl.state.global_step

    @property
    def drawn(self) -> int:
        """Prompts given so far."""
        return self.step * self.completions // self.config.generations

    @property
    def plain(self) -> ProgressModel:
        return ProgressModel(self.accelerator.unwrap_model(self.trl.model), None)

    def run(self, on_step: Callable[[Point], None], save: Callable[[], None]) -> None:
        """To the end; `save` is called each `save_every` steps. Raises TrainingError, ShardError."""
        self.on_step = on_step
        self.save = save
        try:
            self.trl.train()
        except torch.OutOfMemoryError as e:
            raise TrainingError(
                f"out of memory at step {self.step}: lower grpo.max_completion, or {less(self.recipe)}"
            ) from e
        except RuntimeError as e:
            if "probability tensor" not in str(e):  # torch.multinomial's words
                raise
            raise TrainingError(
                f"the model's probabilities are not finite at step {self.step}: lower train.lr (now "
                f"{self.recipe.train.lr:g}) in the recipe; checkpoints before it are kept"
            ) from e

    # Where it stands

    def state(self) -> TrainerState:
        """All processes call it."""
        return TrainerState(
            step=self.step,
            drawn=self.drawn,
            left_out=self.left_out,
            begun_by=self.begun_by,
            streams={},
            chance=gather_object([chance_state()]),
            curve=[asdict(p) for p in self.curve],
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """What learns and the optimizer's state, for a checkpoint to resume from: this process's part."""
        return learning_tensors(*self.trl.learning())

    def load(self, folder: Path, state: TrainerState) -> None:
        """The weights come from `last` in `begin`: TRL makes the optimizer only then."""
        self.curve = [Point(**p) for p in state.curve]

    def check_weights(self) -> None:
        """Raises TrainingError where the weights are worth nothing. All processes call it."""
        check_norm(self.trl.learning()[0], self.step, self.recipe.train.lr)

    def close(self) -> None:
        """TRL's processes end by themselves."""

    def weights(self) -> dict[str, torch.Tensor] | None:
        """Of the whole model, on the main process, where each has only a part of it; None where they have it all."""
        if not self.divided:
            return None
        weights: dict[str, Any] = self.accelerator.get_state_dict(self.trl.model_wrapped)
        return {f"backbone.{k}": v for k, v in weights.items()}

    # What TRL asks for and logs

    def begin(self) -> None:
        """Go on from `last`, before the first step."""
        if self.last:
            read_tensors(self.last, *self.trl.learning())
        if self.resumed:
            go_on_with_chance(self.resumed, self.accelerator.process_index, self.recipe.train.seed)

    def stepped(self, logs: Mapping[str, float]) -> None:
        """Make a point of a step. TRL has counted it already; points of the curve begin at 0."""
        former = self.curve[-1] if self.curve else None
        config = self.config
        step = self.step - 1
        seconds = logs["step_time"]
        of_step = int(logs["num_tokens"]) - self.counted
        norm = float(logs.get("grad_norm", 0.0))
        self.counted += of_step
        self._write_completions(step, "train", self.completions)
        # Weights after such a step are worth nothing: the run ends before a checkpoint is made of them.
        for name, value in (("loss", logs["loss"]), ("norm of the gradient", norm)):
            if not math.isfinite(value):
                keys = list(map(str, self.trl._logs["extra"]["sample_id"]))
                raise TrainingError(
                    f"the {name} is {value} at step {step}: lower train.lr or train.clip in the recipe; checkpoints "
                    f"before it are kept, and {self.steps / COMPLETIONS} has the answers. {samples_of_step(keys)}"
                )
        point = Point(
            step=step,
            loss=float(logs["loss"]),
            learning_rate=float(logs["learning_rate"]),
            gradient_norm=norm,
            done=self.step / self.steps_in_all,
            samples=self.drawn,
            tokens=of_step + (former.tokens if former else 0),
            samples_per_s=self.completions / config.generations / seconds,
            tokens_per_s=of_step / seconds,
            extra=_extra(logs) | {"kl_coef": config.kl_coef},
        )
        if self.validates():
            self.waiting = point
        else:
            self._give(point)

    def asked_anywhere(self) -> bool:
        """Was a process asked to end? All processes call it after each step."""
        self.ends = any(gather_object([bool(self.asked)]))
        return self.ends

    def validates(self) -> bool:
        """Are held-out prompts asked after the step that was just done? Also after the last."""
        interval = self.config.validate_every
        return bool(interval) and (self.step % interval == 0 or self.step == self.steps_in_all)

    def validated(self, logs: Mapping[str, float]) -> None:
        """Complete the step's point, which waits for this."""
        point = self.waiting
        self.waiting = None
        assert point is not None
        self._write_completions(point.step, "validation", self.held_out)
        names = {"reward": "reward", "completion_tokens": "completions/mean_length"}
        names |= {f"reward_{part}": f"rewards/{part}/mean" for part in WEIGHTS}
        extra = {
            f"validation_{name}": float(logs[f"eval_{of_trl}"]) for name, of_trl in names.items()
        }
        self._give(replace(point, extra=point.extra | extra))

    def _give(self, point: Point) -> None:
        self.curve.append(point)
        if self.accelerator.is_main_process:
            if len(self.curve) % LONG == 0 and all(
                p.extra.get("no_contrast", 0) >= 1 for p in self.curve[-LONG:]
            ):
                print(
                    f"warning: for {LONG} steps all answers to each prompt had one reward, up to step {point.step}: "
                    "nothing is learnt; raise grpo.temperature or grpo.generations, or begin with a model that knows "
                    f"the format ({self.steps / COMPLETIONS} has the answers)",
                    file=sys.stderr,
                    flush=True,
                )
            self.on_step(point)
        interval = self.recipe.train.save_every
        if interval and self.step % interval == 0 and self.step < self.steps_in_all:
            self.save()

    def _write_completions(self, step: int, split: str, last: int) -> None:
        """TRL keeps as many as a step has: before those of the validation there may be some of the step."""
        if self.accelerator.is_main_process:
            rollouts.write_completions(
                self.steps / COMPLETIONS, step, split, self.trl._logs, last, is_new=not self.logged
            )
            self.logged = True

    def _answers(self, prompts: list, trl: Any) -> dict[str, Any]:
        """Ids of the prompts as the loader's workers made them, ids of the answers, and vLLM's log-probabilities of
        these, else None. Raises TrainingError."""
        ids = [prompt.ids for prompt in trl.shown]
        if trl.use_vllm:
            completions, logs = self._by_vllm(ids, trl)
        else:
            with (
                self.accelerator.autocast()
            ):  # the precision that is learnt in: flash kernels take no other
                completions = self._by_transformers(ids, trl)
                logs = None
        return {"prompt_ids": ids, "completion_ids": completions, "logprobs": logs}

    def _by_transformers(self, prompts: list[list[int]], trl: Any) -> list[list[int]]:
        # As many parts in each process: a model that is divided is gathered by all
        parts = max(
            gather_object(
                [math.ceil(sum(s.float_bytes for s in trl.shown) / rollouts.PIXELS_AT_ONCE)]
            )
        )
        completions: list[list[int]] = []
        fill = trl.processing_class.tokenizer.pad_token_id
        for rows in np.array_split(np.arange(len(prompts)), min(parts, len(prompts))):
            padded = torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(prompts[k]) for k in rows], True, fill, "left"
            )
            chosen_prompts = [trl.shown[k] for k in rows]
            pixels = rollouts.pixels_of(
                chosen_prompts, padded.to(self.accelerator.device), self.image_token
            )
            completions += trl._generate_single_turn([prompts[k] for k in rows], None, pixels, 1)[0]
        return completions

    def _by_vllm(
        self, prompts: list[list[int]], trl: Any
    ) -> tuple[list[list[int]], list[list[float]]]:
        prompts_seen, answers, probabilities, _ = trl.vllm_generation.generate(
            prompts=[rollouts.marked_once(ids, self.image_token) for ids in prompts],
            images=[list(map(Image.fromarray, prompt.pictures)) for prompt in trl.shown],
            num_generations=1,
        )
        if list(map(list, prompts_seen)) != prompts:
            ids = [*chain(*prompts)]
            of_vllm = [*chain(*prompts_seen)]
            mark = self.image_token
            raise TrainingError(
                f"vLLM reads prompts of {len(ids)} tokens as {len(of_vllm)}, pictures of {ids.count(mark)} as "
                f"{of_vllm.count(mark)}: its processor has another size of pictures (model.max_pixels), or expands "
                "marks otherwise; take grpo.rollouts: transformers"
            )
        return answers, [list(map(itemgetter(0), answer)) for answer in probabilities]

    def match(self, scored: Mapping[str, Any]) -> None:
        """Does vLLM draw from what the model learns? Raises TrainingError where probabilities of answers differ."""
        off = scored["old_per_token_logps"] - scored["sampling_per_token_logps"]
        ratios: Any = self.accelerator.gather(off[scored["completion_mask"].bool()].nanmean().exp())
        self.matched = float(ratios.mean())
        low = 0.9 * self.config.top_p
        if not low < self.matched < 1.1:
            raise TrainingError(
                f"a token of vLLM's answers is {self.matched:.3f} times as probable to the model that learns as to vLLM"
                f" (geometric mean of the first batch; right is {low:.2f} to 1.10): vLLM was shown something else, or "
                "has other weights; take grpo.rollouts: transformers"
            )


def _extra(logs: Mapping[str, float]) -> dict[str, float]:
    """The parts of TRL's log that only GRPO has, by our names."""
    names = {
        "reward": "reward", "reward_std": "reward_std", "kl": "kl", "entropy": "entropy",
        "no_contrast": "frac_reward_zero_std", "completion_tokens": "completions/mean_length",
        "cut_off": "completions/clipped_ratio", **{f"reward_{k}": f"rewards/{k}/mean" for k in WEIGHTS},
        "ref_error": "ref_error", "score_error": "score_error",
        "sampling_ratio": "sampling/importance_sampling_ratio/mean",
        "sampling_ratio_min": "sampling/importance_sampling_ratio/min",
        "sampling_ratio_max": "sampling/importance_sampling_ratio/max",
        "sampling_difference": "sampling/sampling_logp_difference/mean",
        "clipped_low": "clip_ratio/low_mean", "clipped_high": "clip_ratio/high_mean",
    }  # fmt: skip
    return {
        name: float(logs[of_trl]) for name, of_trl in names.items() if logs.get(of_trl) is not None
    }

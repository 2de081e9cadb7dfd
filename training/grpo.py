"""GRPO on ProgressLM's format, by TRL's trainer: prompts with pictures, groups of completions, the reward of each.

TRL generates, compares and learns; this module gives it prompts and rewards, and takes from it what `training.train`
needs of every trainer: points of the curve, and checkpoints of safetensors and JSON that a run resumes from. vLLM
generates where it is installed and there is a GPU (its weights follow each step), transformers elsewhere.
"""

import math
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from PIL import Image
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_callback import TrainerState as HfState
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from core.paths import Workspace
from training.backbones import adapter_settings
from training.checkpoint import TrainerState, chance_state, learning_tensors, load_state, read_tensors
from training.errors import TrainingError
from training.loop import batches_each, go_on_with_chance, make_optimizer, samples_of_step, share_of_rate
from training.model import ProgressModel
from training.points import Point
from training.progresslm_data import drawn_samples, read_rows
from training.recipe import Recipe
from training.rewards import WEIGHTS
from training.rollouts import (
    PIXELS_AT_ONCE,
    GenerationSampler,
    Shown,
    fitting,
    marked_once,
    pixels_of,
    prompt_rows,
    reward_functions,
    served,
    vllm_settings,
    with_vllm,
    write_completions,
)
from training.sharding import PATIENCE, fresh_state, precision
from training.transform import Transform
from warehouse.releases import Release
from warehouse.shards import Sample

COMPLETIONS = "completions.jsonl"  # in the folder of a run's checkpoints


class GrpoTrainer:
    """A GRPO run, as training.loop.Trainer is one of SFT. `last`: the checkpoint folder that it resumes from; `steps`:
    folder of its checkpoints, where completions are written. Raises RowError, ShardError, TrainingError."""

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
        self.recipe, self.config, self.last, self.steps = recipe, recipe.grpo, last, steps
        self.curve: list[Point] = []
        self.waiting: Point | None = None  # for the rewards on held-out prompts
        self.logged = False  # have completions been written since the run began or resumed?
        self.resumed = load_state(last) if last else None
        processes = fresh_state(divided=recipe.train.distributed == "fsdp")
        rank, world = processes.process_index, processes.num_processes
        self.divided = recipe.train.distributed == "fsdp" and world > 1
        self.begun_by = self.resumed.begun_by if self.resumed else world
        self.accumulation = batches_each(recipe, self.begun_by, world)
        self.completions = recipe.train.batch * self.accumulation * world  # a step
        transform = Transform(processor)
        samples = self._samples(workspace, release, "train")
        chosen = fitting(samples, transform, recipe, rank, world)
        self.left_out, self.prompts = len(samples) - len(chosen), len(chosen)
        self._check_step()
        held_out = self._samples(workspace, release, "val") if self.config.validate_every else ()
        held = fitting(held_out, transform, recipe, rank, world)[: self.config.validation_prompts]
        # Cut to whole batches, so that a mean over these is one over prompts
        held_batch = min(recipe.train.batch, len(held) // world)
        if self.config.validate_every and not held_batch:
            raise TrainingError(f"grpo.validate_every: {len(held)} held-out prompts are too few for {world} processes")
        self.held_out = len(held) // (held_batch * world) * held_batch * world if held_batch else 0
        # Completions follow the prompts, so all prompts of a batch must end at one place.
        processor.tokenizer.padding_side = "left"
        backbone = model.backbone
        backbone.config._name_or_path = str(backbone.name_or_path)  # where TRL loads the model to keep near to from
        adapter = adapter_settings(backbone, recipe.lora) if recipe.lora else None
        self.image_token = transform.image_token
        # TRL wants a folder to write to; what we keep is in checkpoints of our own.
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)
            if with_vllm(self.config):
                backbone.name_or_path = str(served(Path(backbone.name_or_path), processor, Path(folder) / "served"))
            self.trl = _Trl(
                self,
                model=backbone,
                args=self._arguments(folder, backbone, held_batch),
                reward_funcs=reward_functions(self.config.reward),
                train_dataset=prompt_rows(samples, transform, recipe, chosen),
                eval_dataset=prompt_rows(held_out, transform, recipe, held[: self.held_out], False),
                processing_class=processor,
                peft_config=adapter,
                callbacks=[_Points(self)],
            )
        backbone.name_or_path = backbone.config._name_or_path
        self.trl.remove_callback(PrinterCallback)
        self.accelerator = self.trl.accelerator

    def _samples(self, workspace: Workspace, release: Release, split: str) -> Sequence[Sample]:
        """What is asked: rows of the recipe's files, else what its profile draws of the release's split."""
        data, config = self.recipe.data, self.config
        if files := data.jsonl if split == "train" else data.validation_jsonl:
            rows = read_rows(files, data.image_root, "think")
            rows.check_labels()
            return rows
        samples = drawn_samples(workspace, release, config.profile, self.recipe.train.seed, split)
        if split == "val" and not samples:
            raise TrainingError(f"grpo.validate_every: release {release.name} has no prompts in its split val")
        return samples

    def _check_step(self) -> None:
        """Raises TrainingError where the prompts do not make whole steps."""
        train, n = self.recipe.train, self.config.generations
        if self.completions % n:
            raise TrainingError(
                f"a step has {self.completions} completions (train.batch x train.accumulation x processes), which is "
                f"no multiple of grpo.generations ({n})"
            )
        if self.prompts < self.completions // n:
            longer = f" of at most {self.recipe.data.sequence_length} tokens ({self.left_out} are longer)"
            raise TrainingError(
                f"there are {self.prompts} prompts{longer if self.left_out else ''}, and a step takes "
                f"{self.completions // n}: lower train.accumulation (now {train.accumulation})"
            )

    def _arguments(self, folder: str, backbone: Any, held_batch: int) -> GRPOConfig:
        """TRL's settings; `held_batch`: prompts of a batch of the validation, 0 where there is none."""
        recipe, config, train, gpu = self.recipe, self.config, self.recipe.train, torch.cuda.is_available()
        longest = backbone.config.get_text_config().max_position_embeddings
        if recipe.data.sequence_length + config.max_completion > longest:
            raise TrainingError(
                f"a prompt of {recipe.data.sequence_length} tokens (data.sequence_length) and an answer of "
                f"{config.max_completion} (grpo.max_completion) are more than the model's context of {longest}"
            )
        settings: dict[str, Any] = {
            "per_device_train_batch_size": train.batch,
            "gradient_accumulation_steps": self.accumulation,
            # max_steps, unless -1, goes before epochs.
            "num_train_epochs": train.epochs or 1.0,
            "max_steps": train.steps or -1,
            "max_grad_norm": train.clip,
            "bf16": train.dtype == "bfloat16",
            "activation_checkpointing": train.gradient_checkpointing,
            "activation_checkpointing_kwargs": {"use_reentrant": False},
            "seed": train.seed,
            "use_cpu": not gpu,
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
            "save_strategy": "steps" if train.save_every else "no",
            "save_steps": train.save_every or 500,
        }
        if held_batch:
            settings |= {"eval_strategy": "steps", "eval_steps": config.validate_every}
            settings |= {"per_device_eval_batch_size": held_batch, "num_generations_eval": 1}
        if with_vllm(config):
            settings |= vllm_settings(recipe, config, sum(p.numel() for p in backbone.parameters()))
        if self.divided:
            layers = sorted(backbone._no_split_modules)
            settings |= {"fsdp": True, "fsdp_config": {"version": 2, "transformer_layer_cls_to_wrap": layers}}
        arguments: Any = GRPOConfig(output_dir=folder, **settings)
        # transformers has no setting for it; without one, gradients would be added up in bfloat16.
        if self.divided:
            arguments.fsdp_plugin_args["mixed_precision_policy"] = precision(train.dtype)
        return arguments

    @property
    def step(self) -> int:
        return self.trl.state.global_step

    @property
    def drawn(self) -> int:
        """Prompts given so far."""
        return self.step * self.completions // self.config.generations

    @property
    def plain(self) -> ProgressModel:
        return ProgressModel(self.accelerator.unwrap_model(self.trl.model), None)

    def run(self, on_step: Callable[[Point], None], save: Callable[[], None]) -> None:
        """To the end; `save` is called each `save_every` steps. Raises TrainingError, RowError, ShardError."""
        self.on_step, self.save = on_step, save
        train = self.recipe.train
        try:
            if self.last is None:
                self.trl.train()
                return
            with tempfile.TemporaryDirectory() as folder:  # all else comes from our own checkpoint
                state = HfState(
                    global_step=len(self.curve),
                    num_input_tokens_seen=self.curve[-1].tokens,
                    train_batch_size=train.batch,
                    logging_steps=1,
                    save_steps=train.save_every or 500,
                )
                state.save_to_json(str(Path(folder) / "trainer_state.json"))
                self.trl.train(resume_from_checkpoint=folder)
        except torch.OutOfMemoryError as e:
            raise TrainingError(
                f"out of memory at step {self.step}: lower train.batch (now {train.batch}) and raise "
                f"train.accumulation, or lower grpo.max_completion or model.max_vision_tokens"
            ) from e
        except RuntimeError as e:
            if "probability tensor" not in str(e):  # torch.multinomial's words
                raise
            raise TrainingError(
                f"the model's probabilities are not finite at step {self.step}: lower train.lr (now {train.lr:g}) in "
                "the recipe; checkpoints before it are kept"
            ) from e

    # Where it stands

    def state(self) -> TrainerState:
        """All processes call it."""
        chance, curve = gather_object([chance_state()]), [asdict(p) for p in self.curve]
        return TrainerState(self.step, self.drawn, self.left_out, self.begun_by, {}, chance, curve)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What learns and the optimizer's state, for a checkpoint to resume from: this process's part."""
        return learning_tensors(*self.trl.learning())

    def load(self, folder: Path, state: TrainerState) -> None:
        """The weights come from `last` when it runs: TRL makes the optimizer only then."""
        self.curve = [Point(**p) for p in state.curve]

    def weights(self) -> dict[str, torch.Tensor] | None:
        """Of the whole model, on the main process, where each has only a part of it; None where they have it all."""
        if not self.divided:
            return None
        weights: dict[str, Any] = self.accelerator.get_state_dict(self.trl.model_wrapped)
        return {f"backbone.{k}": v for k, v in weights.items()}

    # What TRL logs

    def stepped(self, state: Any, logs: Mapping[str, float]) -> None:
        """Make a point of a step. TRL has counted it already; points of the curve begin at 0."""
        before, config = self.curve[-1] if self.curve else None, self.config
        step, seconds = state.global_step - 1, logs["step_time"]
        tokens, norm = int(logs["num_tokens"]), float(logs.get("grad_norm", 0.0))
        self._write_completions(step, "train", self.completions, state)
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
            text=None,
            progress=None,
            learning_rate=float(logs["learning_rate"]),
            gradient_norm=norm,
            done=state.global_step / state.max_steps,
            samples=self.drawn,
            tokens=tokens,
            samples_per_s=self.completions / config.generations / seconds,
            tokens_per_s=(tokens - (before.tokens if before else 0)) / seconds,
            mfu=None,
            extra=_extra(logs) | {"kl_coef": config.kl_coef},
        )
        every = config.validate_every
        # Validated also after the last step.
        if every and (state.global_step % every == 0 or state.global_step == state.max_steps):
            self.waiting = point
        else:
            self._give(point, state)

    def validated(self, state: Any, logs: Mapping[str, float]) -> None:
        """Complete the step's point, which waits for this."""
        point, self.waiting = self.waiting, None
        assert point is not None
        self._write_completions(point.step, "validation", self.held_out, state)
        names = {"reward": "reward", "completion_tokens": "completions/mean_length"}
        names |= {f"reward_{part}": f"rewards/{part}/mean" for part in WEIGHTS}
        extra = {f"validation_{name}": float(logs[f"eval_{of_trl}"]) for name, of_trl in names.items()}
        self._give(replace(point, extra=point.extra | extra), state)

    def _give(self, point: Point, state: Any) -> None:
        self.curve.append(point)
        if state.is_world_process_zero:
            self.on_step(point)

    def _write_completions(self, step: int, split: str, last: int, state: Any) -> None:
        """TRL keeps as many as a step has: before those of the validation there may be some of the step."""
        if state.is_world_process_zero:
            write_completions(self.steps / COMPLETIONS, step, split, self.trl._logs, last, anew=not self.logged)
            self.logged = True


class _Trl(GRPOTrainer):
    """TRL's trainer with our optimizer, schedule and checkpoints; it tells nobody that it is used."""

    def __init__(self, ours: GrpoTrainer, **options: Any) -> None:
        self.ours, self.matched = ours, 0.0
        super().__init__(**options)

    def _send_telemetry(self) -> None:
        """TRL would ask its makers' server; nothing leaves this machine."""

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        self.shown: list[Shown] = [row["shown"] for row in inputs]
        output = super()._generate_and_score_completions(inputs)
        if self.use_vllm and self.model.training and not self.matched:  # type: ignore[union-attr]
            self._match(output)
        return output | {"shown": self.shown}

    def _match(self, scored: dict[str, Any]) -> None:
        """Does vLLM draw from what the model learns? Raises TrainingError where probabilities of answers differ."""
        off = scored["old_per_token_logps"] - scored["sampling_per_token_logps"]
        ratios: Any = self.accelerator.gather(off[scored["completion_mask"].bool()].nanmean().exp())
        self.matched, low = float(ratios.mean()), 0.9 * self.ours.config.top_p
        if not low < self.matched < 1.1:
            raise TrainingError(
                f"a token of vLLM's answers is {self.matched:.3f} times as probable to the model that learns as to vLLM"
                f" (geometric mean of the first batch; right is {low:.2f} to 1.10): vLLM was shown something else, or "
                "has other weights; take grpo.rollouts: transformers"
            )

    def _tokenize_prompts(self, prompts: list) -> tuple[list[list[int]], None, dict]:
        """As training and evaluation do, in the loader's workers; pictures come where they are needed."""
        return [shown.ids for shown in self.shown], None, {}

    def _generate_single_turn(self, prompt_ids: Any, images: Any, fields: Any, count: int, *more: Any) -> Any:
        """Token ids of the answers, and vLLM's log-probabilities of them, else None. Raises TrainingError."""
        if self.use_vllm:
            return self._by_vllm(prompt_ids, count)
        # As many parts in each process: a model that is divided is gathered by all
        parts = max(gather_object([math.ceil(sum(s.float_bytes for s in self.shown) / PIXELS_AT_ONCE)]))
        made: list[list[int]] = []
        for rows in np.array_split(np.arange(len(prompt_ids)), min(parts, len(prompt_ids))):
            ids = [torch.tensor(prompt_ids[k]) for k in rows]
            fill: Any = self._tokenizer.pad_token_id
            padded = torch.nn.utils.rnn.pad_sequence(ids, True, fill, "left")
            pixels = pixels_of(
                [self.shown[k] for k in rows], padded.to(self.accelerator.device), self.ours.image_token, 0
            )
            del pixels["num_images"]
            made += super()._generate_single_turn([prompt_ids[k] for k in rows], None, pixels, count)[0]
        return made, None

    def _by_vllm(self, prompt_ids: list[list[int]], count: int) -> tuple[list[list[int]], list[list[float]]]:
        if self.state.global_step != self._last_loaded_step:
            self.vllm_generation.sync_weights()
            self._last_loaded_step = self.state.global_step
        seen, answers, probabilities, _ = self.vllm_generation.generate(
            prompts=[marked_once(ids, self.ours.image_token) for ids in prompt_ids],
            images=[[Image.fromarray(p) for p in shown.pictures] for shown in self.shown],
            num_generations=count,
        )
        if list(map(list, seen)) != prompt_ids:
            ids, of_vllm, mark = [*chain(*prompt_ids)], [*chain(*seen)], self.ours.image_token
            raise TrainingError(
                f"vLLM reads prompts of {len(ids)} tokens as {len(of_vllm)}, pictures of {ids.count(mark)} as "
                f"{of_vllm.count(mark)}: its processor has another size of pictures (model.max_pixels), or expands "
                "marks otherwise; take grpo.rollouts: transformers"
            )
        return answers, [[token[0] for token in answer] for answer in probabilities]

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, mask: Any, keep: int, batch_size: int | None = None, **more: Any
    ) -> Any:
        """With the pictures of `batch_size` rows at once on the device."""
        size, found = batch_size or len(input_ids), []
        for k in range(0, len(input_ids), size):
            ids = input_ids[k : k + size]
            pixels = pixels_of(self.shown[k : k + size], ids, self.ours.image_token, keep)
            of_rows = super()._get_per_token_logps_and_entropies
            found.append(of_rows(model, ids, mask[k : k + size], keep, **{**more, **pixels}))
        return (
            found[0] if len(found) == 1 else [c[0] if c[0] is None else torch.cat(c) for c in zip(*found, strict=True)]
        )

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        self.shown = inputs["shown"]
        return super()._compute_loss(model, inputs)

    def learning(self) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        """What learns, and its optimizer, both without wrappers."""
        return self.accelerator.unwrap_model(self.model_wrapped), getattr(self.optimizer, "optimizer", self.optimizer)

    def _get_train_sampler(self, dataset: Any = None) -> GenerationSampler:
        args: Any = self.args
        n = self.ours.config.generations
        repeats = self.num_iterations * args.steps_per_generation
        return GenerationSampler(self.ours.prompts, args.generation_batch_size // n, n, repeats, args.seed)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = make_optimizer(model or self.model_wrapped, self.ours.recipe)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            train = self.ours.recipe.train
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.learning()[1], lambda step: share_of_rate(step / num_training_steps, train)
            )
        return self.lr_scheduler

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.state.global_step < self.state.max_steps:
            self.ours.save()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Weights come with the optimizer, once there is one."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.ours.last is None:
            return
        model, optimizer = self.learning()
        read_tensors(self.ours.last, model, optimizer)
        for group, base in zip(optimizer.param_groups, self.lr_scheduler.base_lrs, strict=True):
            group["initial_lr"] = base
        self.lr_scheduler.last_epoch = self.state.global_step - 1
        self.lr_scheduler.step()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.ours.resumed is not None:
            go_on_with_chance(self.ours.resumed, self.accelerator.process_index, self.ours.recipe.train.seed)


class _Points(TrainerCallback):
    """Passes on what TRL logs of each step, and of each validation; not the summary after the last step."""

    def __init__(self, ours: GrpoTrainer) -> None:
        self.ours = ours

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **more: Any) -> None:
        if "reward" in (logs or {}):
            self.ours.stepped(state, logs or {})
        elif "eval_reward" in (logs or {}):
            self.ours.validated(state, logs or {})


def _extra(logs: Mapping[str, float]) -> dict[str, float]:
    """The parts of TRL's log that only GRPO has, by our names."""
    named = {
        "reward": "reward", "reward_std": "reward_std", "kl": "kl", "entropy": "entropy",
        "no_contrast": "frac_reward_zero_std", "completion_tokens": "completions/mean_length",
        "cut_off": "completions/clipped_ratio", **{f"reward_{k}": f"rewards/{k}/mean" for k in WEIGHTS},
        "ref_error": "ref_error", "score_error": "score_error",
        # How far what vLLM drew from is from what learns, and how often a ratio of probabilities is clipped.
        "sampling_ratio": "sampling/importance_sampling_ratio/mean",
        "sampling_ratio_min": "sampling/importance_sampling_ratio/min",
        "sampling_ratio_max": "sampling/importance_sampling_ratio/max",
        "sampling_difference": "sampling/sampling_logp_difference/mean",
        "clipped_low": "clip_ratio/low_mean", "clipped_high": "clip_ratio/high_mean",
    }  # fmt: skip
    return {name: float(logs[of_trl]) for name, of_trl in named.items() if logs.get(of_trl) is not None}

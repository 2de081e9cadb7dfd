"""GRPO on ProgressLM's format, by TRL's trainer: prompts with pictures, groups of completions, the reward of each.

TRL generates, compares and learns; this module gives it prompts and rewards, and takes from it what `training.train`
needs of every trainer: points of the curve, and checkpoints of safetensors and JSON that a run goes on from. vLLM
generates where it is installed and there is a GPU (its weights follow each step), transformers elsewhere.
"""

import importlib.util
import math
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import gather_object
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_callback import TrainerState as HfState
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from core.paths import Workspace
from training.backbones import adapter_settings, parameter_groups
from training.checkpoint import TrainerState, chance_state, learning_tensors, load_state, read_tensors
from training.errors import TrainingError
from training.loop import Point, batches_each, go_on_with_chance, share_of_rate
from training.model import ProgressModel
from training.progresslm_data import drawn_samples, read_rows
from training.recipe import GrpoConfig, Recipe
from training.rewards import REWARDS, WEIGHTS, Truth
from training.rollouts import (
    MOST_OF_GPU,
    CompletionLog,
    GenerationSampler,
    fitting,
    prompt_rows,
    text_of,
    vllm_settings,
    vllm_share,
)
from training.sharding import PATIENCE, fresh_state, precision
from training.spoilt import SpoiltBatch, keep_spoilt
from training.transform import Transform
from warehouse.releases import Release
from warehouse.shards import Sample

COMPLETIONS = "completions.jsonl"  # in the folder of a run's checkpoints
STEEREST = 0.2  # of an adaptive KL controller's relative error


def prompts(workspace: Workspace, release: Release, recipe: Recipe) -> Sequence[Sample]:
    """What a recipe asks: rows of its files, else what its profile draws of a release. RowError, ShardError."""
    assert recipe.grpo is not None
    if not recipe.data.jsonl:
        return drawn_samples(workspace, release, recipe.grpo.profile, recipe.train.seed)
    rows = read_rows(recipe.data.jsonl, recipe.data.image_root, "think")
    rows.check_labels()
    return rows


def held_out_prompts(workspace: Workspace, release: Release, recipe: Recipe) -> Sequence[Sample]:
    """What a recipe is validated on: rows of its files, else what its profile draws of the release's split val; nothing
    where it asks for no validation. Raises RowError, ShardError, TrainingError."""
    config = recipe.grpo
    assert config is not None
    if config.validate_every is None:
        return ()
    if recipe.data.validation_jsonl:
        rows = read_rows(recipe.data.validation_jsonl, recipe.data.image_root, "think")
        rows.check_labels()
        return rows
    samples = drawn_samples(workspace, release, config.profile, recipe.train.seed, "val")
    if not samples:
        raise TrainingError(f"grpo.validate_every: release {release.name} has no prompts in its split val")
    return samples


def next_kl_coef(coef: float, kl: float, completions: int, config: GrpoConfig) -> float:
    """The weight of the KL term after a step of so many completions, measured KL in nats a token.

    Adaptive: Ziegler et al. 2019 (arXiv 1909.08593), section 2.2; TRL's trainer keeps its weight, so it is set from
    outside between steps. Fixed, as ProgressLM was trained, leaves kl_target without effect.
    """
    if config.kl_control == "fixed":
        return coef
    error = min(STEEREST, max(-STEEREST, kl / config.kl_target - 1))
    return coef * (1 + error * completions / config.kl_horizon)


class GrpoTrainer:
    """A GRPO run, as training.loop.Trainer is one of SFT. `last`: the checkpoint folder that it goes on from;
    `held_out`: prompts that it is validated on; `steps`: folder of its checkpoints, where completions are written."""

    def __init__(
        self,
        model: ProgressModel,
        processor: Any,
        samples: Sequence[Sample],
        recipe: Recipe,
        last: Path | None = None,
        held_out: Sequence[Sample] = (),
        steps: Path | None = None,
    ) -> None:
        assert recipe.grpo is not None
        self.recipe, self.config, self.last = recipe, recipe.grpo, last
        self.curve: list[Point] = []
        self.steps = steps
        self.log: CompletionLog | None = None
        self.held_out = 0  # prompts of a validation
        self.waiting: Point | None = None  # for the rewards on held-out prompts
        self.resumed = load_state(last) if last else None
        processes = fresh_state(divided=recipe.train.distributed == "fsdp")
        rank, world = processes.process_index, processes.num_processes
        self.divided = recipe.train.distributed == "fsdp" and world > 1
        self.begun_by = self.resumed.begun_by if self.resumed else world
        self.accumulation = batches_each(recipe, self.begun_by, world)
        self.completions = recipe.train.batch * self.accumulation * world  # a step
        transform = Transform(processor)
        chosen = fitting(samples, transform, recipe, rank, world)
        self.left_out, self.prompts = len(samples) - len(chosen), len(chosen)
        self._check()
        held = fitting(held_out, transform, recipe, rank, world)
        held, validation = self._validation(held[: self.config.validation_prompts], world)
        self.held_out = len(held)
        # Completions follow the prompts, so all prompts of a batch must end at one place.
        processor.tokenizer.padding_side = "left"
        backbone = model.backbone
        backbone.config._name_or_path = str(backbone.name_or_path)  # where TRL loads the model to keep near to from
        adapter = adapter_settings(backbone, recipe.lora) if recipe.lora else None
        # TRL wants a folder to write to; what we keep is in checkpoints of our own.
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)
            self.trl = _Trl(
                self,
                model=backbone,
                args=self._arguments(folder, backbone, validation),
                reward_funcs=_reward_functions(self.config.reward),
                train_dataset=prompt_rows(samples, transform, recipe.model.max_px, chosen),
                eval_dataset=prompt_rows(held_out, transform, recipe.model.max_px, held, repeated=False),
                processing_class=processor,
                peft_config=adapter,
                callbacks=[_Points(self)],
            )
        self.trl.remove_callback(PrinterCallback)
        self.accelerator = self.trl.accelerator

    def _validation(self, held: list[int], world: int) -> tuple[list[int], dict[str, Any]]:
        """The held-out prompts, cut to whole batches so that a mean over these is one over prompts; TRL's settings."""
        if not self.config.validate_every:
            return [], {}
        batch = min(self.recipe.train.batch, len(held) // world)
        if not batch:
            raise TrainingError(f"grpo.validate_every: {len(held)} held-out prompts are too few for {world} processes")
        return held[: len(held) // (batch * world) * batch * world], {
            "eval_strategy": "steps",
            "eval_steps": self.config.validate_every,
            "per_device_eval_batch_size": batch,
            "num_generations_eval": 1,
        }

    def _arguments(self, folder: str, backbone: Any, validation: dict[str, Any]) -> GRPOConfig:
        settings: dict[str, Any] = _settings(self.recipe, self.config, backbone) | validation
        settings["gradient_accumulation_steps"] = self.accumulation
        if self.divided:
            layers = sorted(backbone._no_split_modules)
            settings |= {"fsdp": True, "fsdp_config": {"version": 2, "transformer_layer_cls_to_wrap": layers}}
        arguments: Any = GRPOConfig(output_dir=folder, **settings)
        # transformers has no setting for it; without one, gradients would be added up in bfloat16.
        if self.divided:
            arguments.fsdp_plugin_args["mixed_precision_policy"] = precision(self.recipe.train.dtype)
        return arguments

    def _check(self) -> None:
        count = self.prompts
        train, n = self.recipe.train, self.config.generations
        if self.completions % n:
            raise TrainingError(
                f"a step has {self.completions} completions (train.batch x train.accumulation x processes), which is "
                f"no multiple of grpo.generations ({n})"
            )
        if count < self.completions // n:
            left_out = ""
            if self.left_out:
                left_out = f" of at most {self.recipe.data.sequence_length} tokens ({self.left_out} are longer)"
            raise TrainingError(
                f"there are {count} prompts{left_out}, and a step takes {self.completions // n}: lower "
                f"train.accumulation (now {train.accumulation})"
            )

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
        try:
            if self.last is None:
                self.trl.train()
                return
            with tempfile.TemporaryDirectory() as folder:  # all else comes from our own checkpoint
                state = HfState(
                    global_step=len(self.curve),
                    num_input_tokens_seen=self.curve[-1].tokens,
                    train_batch_size=self.recipe.train.batch,
                    logging_steps=1,
                    save_steps=self.recipe.train.save_every or 500,
                )
                state.save_to_json(str(Path(folder) / "trainer_state.json"))
                self.trl.train(resume_from_checkpoint=folder)
        except torch.OutOfMemoryError as e:
            raise TrainingError(
                f"out of memory at step {self.step}: lower train.batch (now {self.recipe.train.batch}) and raise "
                f"train.accumulation, or lower grpo.max_completion, grpo.vllm_memory or model.max_vision_tokens"
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
        chance, curve = gather_object([chance_state()]), [asdict(p) for p in self.curve]
        return TrainerState(self.step, self.drawn, self.left_out, self.begun_by, {}, chance, curve)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What learns and the optimizer's state, for a checkpoint to go on from: this process's part."""
        return learning_tensors(self.trl.learning, self.trl.plain_optimizer)

    def load(self, folder: Path, state: TrainerState) -> None:
        """Go on from `last` when it runs: TRL makes the optimizer only then."""
        self.curve = [Point(**p) for p in state.curve]
        extra = self.curve[-1].extra
        self.trl.beta = next_kl_coef(extra["kl_coef"], extra.get("kl", 0.0), self.completions, self.config)

    def weights(self) -> dict[str, torch.Tensor] | None:
        """Of the whole model, on the main process, where each has only a part of it; None where they have it all."""
        if not self.divided:
            return None
        weights: dict[str, Any] = self.accelerator.get_state_dict(self.trl.wrapped)
        return {f"backbone.{k}": v for k, v in weights.items()}


class _Trl(GRPOTrainer):
    """TRL's trainer with our optimizer, schedule and checkpoints; it tells nobody that it is used."""

    def __init__(self, ours: GrpoTrainer, **options: Any) -> None:
        self.ours = ours
        super().__init__(**options)

    def _send_telemetry(self) -> None:
        """TRL would ask its makers' server; nothing leaves this machine."""

    @property
    def wrapped(self) -> torch.nn.Module:
        assert self.model_wrapped is not None
        return self.model_wrapped

    @property
    def learning(self) -> torch.nn.Module:
        return self.accelerator.unwrap_model(self.wrapped)

    @property
    def plain_optimizer(self) -> torch.optim.Optimizer:
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def _get_train_sampler(self, dataset: Any = None) -> GenerationSampler:
        args: Any = self.args
        return GenerationSampler(
            self.ours.prompts,
            args.generation_batch_size // self.ours.config.generations,
            self.ours.config.generations,
            self.num_iterations * args.steps_per_generation,
            args.seed,
        )

    @property
    def answered(self) -> Mapping[str, Any]:
        """Prompts, completions and rewards of the last generation batch, a list for each column."""
        return self._logs

    @property
    def learnt_from(self) -> Sequence[Mapping[str, Any]]:
        """The batches of this process's last step, as the model was given them."""
        return self._buffered_inputs or ()

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            train = self.ours.recipe.train
            groups = list(parameter_groups(model or self.wrapped, train))
            if not groups:
                raise TrainingError(f"recipe {self.ours.recipe.name} trains nothing: all rates are 0")
            self.optimizer = torch.optim.AdamW(groups, betas=(0.9, train.beta2))
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            train = self.ours.recipe.train
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.plain_optimizer, lambda step: share_of_rate(step / num_training_steps, train)
            )
        return self.lr_scheduler

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.state.global_step < self.state.max_steps:
            self.ours.save()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Weights come with the optimizer, once there is one."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        assert self.ours.last is not None
        read_tensors(self.ours.last, self.learning, self.plain_optimizer)
        done = self.state.global_step
        for group, base in zip(self.plain_optimizer.param_groups, self.lr_scheduler.base_lrs, strict=True):
            group["initial_lr"] = base
        self.lr_scheduler.last_epoch = done - 1
        self.lr_scheduler.step()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.ours.resumed is not None:
            go_on_with_chance(self.ours.resumed, self.accelerator.process_index, self.ours.recipe.train.seed)


class _Points(TrainerCallback):
    """Makes a point of what TRL logs each step, and steers the KL term."""

    def __init__(self, ours: GrpoTrainer) -> None:
        self.ours = ours

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **more: Any) -> None:
        if logs is None:
            return
        if "reward" in logs:
            self._step(state, logs)
        elif "eval_reward" in logs:
            self._validated(state, logs)
        # Neither: the summary after the last step.

    def _validated(self, state: Any, logs: Mapping[str, float]) -> None:
        """Complete the step's point, which waits for this."""
        point = self.ours.waiting
        assert point is not None
        self.ours.waiting = None
        self._record(point.step, "validation", state)
        names = {"reward": "reward", "completion_tokens": "completions/mean_length"}
        names |= {f"reward_{part}": f"rewards/{part}/mean" for part in WEIGHTS}
        extra = {f"validation_{name}": float(logs[f"eval_{of_trl}"]) for name, of_trl in names.items()}
        self._give(replace(point, extra=point.extra | extra), state)

    def _give(self, point: Point, state: Any) -> None:
        self.ours.curve.append(point)
        if state.is_world_process_zero:
            self.ours.on_step(point)

    def _record(self, step: int, split: str, state: Any) -> None:
        """Write down what was answered."""
        ours = self.ours
        if ours.steps is None or not state.is_world_process_zero:
            return
        if ours.log is None:
            ours.log = CompletionLog(ours.steps / COMPLETIONS, begins=step)
        # TRL keeps as many as a step has: before those of the validation there may be some of the step.
        last = ours.held_out if split == "validation" else ours.completions
        ours.log.write(step, split, ours.trl.answered, last)

    def _step(self, state: Any, logs: Mapping[str, float]) -> None:
        ours, trl = self.ours, self.ours.trl
        before = ours.curve[-1] if ours.curve else None
        # TRL has counted this step already; points of the curve begin at 0.
        step, seconds = state.global_step - 1, logs["step_time"]
        tokens, tokens_before = int(logs["num_tokens"]), before.tokens if before else 0
        self._record(step, "train", state)
        # Weights after such a step are spoilt: the run ends before a checkpoint is made of them.
        for name, value in (("loss", logs["loss"]), ("norm of the gradient", logs.get("grad_norm", 0.0))):
            if not math.isfinite(value):
                raise TrainingError(self._spoilt(step, f"the {name} is {value} at step {step}"))
        extra = _extra(logs)
        point = Point(
            step=step,
            loss=float(logs["loss"]),
            text=None,
            progress=None,
            learning_rate=float(logs["learning_rate"]),
            gradient_norm=float(logs.get("grad_norm", 0.0)),
            done=state.global_step / state.max_steps,
            samples=ours.drawn,
            tokens=tokens,
            samples_per_s=ours.completions / ours.config.generations / seconds,
            tokens_per_s=(tokens - tokens_before) / seconds,
            mfu=None,
            extra=extra | {"kl_coef": trl.beta},
        )
        # The point has the weight that the step was made with; the next step gets one by the KL just measured.
        trl.beta = next_kl_coef(trl.beta, extra.get("kl", 0.0), ours.completions, ours.config)
        every = ours.config.validate_every
        # Validated also after the last step.
        if every and (state.global_step % every == 0 or state.global_step == state.max_steps):
            ours.waiting = point
        else:
            self._give(point, state)

    def _spoilt(self, step: int, why: str) -> str:
        """What is said of a step whose numbers are none; its batches are kept. All processes call it."""
        ours, trl = self.ours, self.ours.trl
        text = f"{why}: lower train.lr or train.clip in the recipe; checkpoints before it are kept"
        if ours.steps is None:
            return text
        keys = sorted(set(map(str, trl.answered["extra"]["sample_id"])))
        batches = [
            SpoiltBatch(k, {name: v for name, v in part.items() if isinstance(v, torch.Tensor)}, keys)
            for k, part in enumerate(trl.learnt_from)
        ]
        kept = keep_spoilt(ours.steps, step, trl.accelerator.process_index, batches, why)
        return f"{text}; {kept}, and {ours.steps / COMPLETIONS} has the answers"


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


# What TRL is given


def _settings(recipe: Recipe, config: GrpoConfig, backbone: Any) -> dict[str, Any]:
    train, gpu = recipe.train, torch.cuda.is_available()
    # With a server on other machines, vLLM itself need not be on this one.
    has_vllm = config.vllm_server is not None or importlib.util.find_spec("vllm") is not None
    if config.rollouts == "vllm" and not (gpu and has_vllm):
        raise TrainingError(
            "grpo.rollouts: vllm needs a GPU and vLLM (uv pip install vllm): take auto, which goes without"
        )
    settings: dict[str, Any] = {
        "per_device_train_batch_size": train.batch,
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
    if gpu and has_vllm and config.rollouts != "transformers":
        settings |= vllm_settings(recipe, config, _vllm_memory(recipe, config, backbone))
    return settings


def _vllm_memory(recipe: Recipe, config: GrpoConfig, backbone: Any) -> float:
    """The recipe's share of a GPU for vLLM, or what the training's state leaves. Raises TrainingError."""
    if config.vllm_memory is not None or config.vllm_server:
        return config.vllm_memory or MOST_OF_GPU
    weights, adapted = sum(p.numel() for p in backbone.parameters()), recipe.lora is not None
    divided = recipe.train.distributed == "fsdp"
    try:
        return vllm_share(
            gpu=torch.cuda.get_device_properties(0).total_memory,
            learning=0 if adapted else weights,
            frozen=weights if adapted else 0,
            processes=PartialState().num_processes if divided else 1,
            reference=config.kl_coef > 0 and not adapted,
            tensor_parallel=config.vllm_tensor_parallel,
        )
    except ValueError as e:
        raise TrainingError(f"{e}: take more GPUs with train.distributed: fsdp, or grpo.vllm_server") from e


def _reward_functions(name: str) -> list[Callable[..., list[float]]]:
    """One for each part, so that TRL weighs them and tells of each."""
    whole = REWARDS[name]

    def function(part: str) -> Callable[..., list[float]]:
        def reward(
            completions: Sequence[Any],
            truth: Sequence[Truth],
            sample_id: Sequence[str],
            log_metric: Any = None,
            log_extra: Any = None,
            **_: Any,
        ) -> list[float]:
            found = [whole(text_of(c), t) for c, t in zip(completions, truth, strict=True)]
            if log_extra is not None and part == "format":
                log_extra("sample_id", list(sample_id))
            # Reference and score have a distance to the label, which is logged as well; the format has none.
            if log_metric is not None and part != "format":
                log_metric(f"{part}_error", sum(getattr(r, f"{part}_error") for r in found) / len(found))
            return [getattr(r, part) for r in found]

        # TRL logs a reward by its function's name.
        reward.__name__ = part
        return reward

    return [function(part) for part in WEIGHTS]

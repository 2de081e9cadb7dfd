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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from PIL import Image
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_callback import TrainerState as HfState
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from core.paths import Workspace
from training.backbones import adapter_settings, has_adapter, load_backbone, parameter_groups
from training.checkpoint import TrainerState, chance_state, set_chance
from training.data import item_of
from training.loop import Point, TrainingError, share_of_rate
from training.model import ProgressModel
from training.progresslm_data import drawn_samples, read_rows, truth_of
from training.recipe import GrpoConfig, Recipe
from training.rewards import REWARDS, WEIGHTS, Truth
from training.transform import Item, Transform, chat
from warehouse.releases import Release
from warehouse.shards import Sample

STEEREST = 0.2  # of an adaptive KL controller's relative error


def prompts(workspace: Workspace, release: Release, recipe: Recipe) -> Sequence[Sample]:
    """What a recipe asks: rows of its files, else what its profile draws of a release. RowError, ShardError."""
    assert recipe.grpo is not None
    if not recipe.data.jsonl:
        return drawn_samples(workspace, release, recipe.grpo.profile, recipe.train.seed)
    rows = read_rows(recipe.data.jsonl, recipe.data.image_root, "think")
    rows.check_labels()
    return rows


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
    """A GRPO run, as training.loop.Trainer is one of SFT. `last`: the checkpoint folder that it goes on from."""

    def __init__(
        self, model: ProgressModel, processor: Any, samples: Sequence[Sample], recipe: Recipe, last: Path | None = None
    ) -> None:
        assert recipe.grpo is not None
        self.recipe, self.config, self.last = recipe, recipe.grpo, last
        self.curve: list[Point] = []
        self.left_out = 0
        self.optimizer_state: dict[str, Any] | None = None
        self.chance: Mapping[str, Any] | None = None
        AcceleratorState._reset_state()  # of a run before this one in the same process
        world = PartialState().num_processes
        self.completions = recipe.train.batch * recipe.train.accumulation * world  # a step
        self._check(len(samples))
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
                args=GRPOConfig(output_dir=folder, **_settings(recipe, self.config, backbone)),
                reward_funcs=_reward_functions(self.config.reward),
                train_dataset=_dataset(samples, Transform(processor), recipe),
                processing_class=processor,
                peft_config=adapter,
                callbacks=[_Points(self)],
            )
        self.trl.remove_callback(PrinterCallback)
        self.accelerator = self.trl.accelerator

    def _check(self, count: int) -> None:
        train, n = self.recipe.train, self.config.generations
        if self.completions % n:
            raise TrainingError(
                f"a step has {self.completions} completions (train.batch x train.accumulation x processes), which is "
                f"no multiple of grpo.generations ({n})"
            )
        if count < self.completions // n:
            raise TrainingError(
                f"there are {count} prompts, and a step takes {self.completions // n}: lower train.accumulation "
                f"(now {train.accumulation})"
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

    def state(self) -> tuple[TrainerState, dict[str, Any]]:
        """All processes call it; the optimizer's state is whole on the main one."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        optimizer = get_optimizer_state_dict(self.trl.wrapped, self.trl.plain_optimizer, options=options)
        curve = [asdict(p) for p in self.curve]
        return TrainerState(self.step, self.drawn, 0, [], gather_object([chance_state()]), curve), optimizer

    def load(self, state: TrainerState, optimizer: dict[str, Any]) -> None:
        """Go on from there when it runs. Raises TrainingError."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        if len(state.chance) != world:
            raise TrainingError(f"the run was begun by {len(state.chance)} processes and cannot go on with {world}")
        self.curve = [Point(**p) for p in state.curve]
        self.optimizer_state, self.chance = optimizer, state.chance[rank]
        extra = self.curve[-1].extra
        self.trl.beta = next_kl_coef(extra["kl_coef"], extra.get("kl", 0.0), self.completions, self.config)

    def weights(self) -> dict[str, torch.Tensor] | None:
        """Of the whole model, on the main process, where each has only a part of it; None where they have it all."""
        if self.recipe.train.distributed == "none":
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
    def plain_optimizer(self) -> torch.optim.Optimizer:
        return getattr(self.optimizer, "optimizer", self.optimizer)

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
        folder, target = self.ours.last, model or self.wrapped
        assert folder is not None
        if has_adapter(self.accelerator.unwrap_model(self.model)):
            from peft import load_peft_weights, set_peft_model_state_dict

            set_peft_model_state_dict(target, load_peft_weights(str(folder), device="cpu"))
            return
        saved = load_backbone(folder, dtype=torch.float32).state_dict()
        set_model_state_dict(target, saved, options=StateDictOptions(full_state_dict=True))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        assert self.ours.optimizer_state is not None
        options = StateDictOptions(full_state_dict=True)
        set_optimizer_state_dict(self.wrapped, self.plain_optimizer, self.ours.optimizer_state, options=options)
        done = self.state.global_step
        for group, base in zip(self.plain_optimizer.param_groups, self.lr_scheduler.base_lrs, strict=True):
            group["initial_lr"] = base
        self.lr_scheduler.last_epoch = done - 1
        self.lr_scheduler.step()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.ours.chance is not None:
            set_chance(self.ours.chance)


class _Points(TrainerCallback):
    """Makes a point of what TRL logs each step, and steers the KL term."""

    def __init__(self, ours: GrpoTrainer) -> None:
        self.ours = ours

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **more: Any) -> None:
        if logs is None or "reward" not in logs:
            return  # the summary after the last step
        ours, trl = self.ours, self.ours.trl
        before = ours.curve[-1] if ours.curve else None
        # TRL has counted this step already; points of the curve begin at 0.
        step, seconds = state.global_step - 1, logs["step_time"]
        tokens, tokens_before = int(logs["num_tokens"]), before.tokens if before else 0
        # Weights after such a step are spoilt: the run ends before a checkpoint is made of them.
        for name, value in (("loss", logs["loss"]), ("norm of the gradient", logs.get("grad_norm", 0.0))):
            if not math.isfinite(value):
                raise TrainingError(f"the {name} is {value} at step {step}: lower train.lr or train.clip in the recipe")
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
        ours.curve.append(point)
        # The point has the weight that the step was made with; the next step gets one by the KL just measured.
        trl.beta = next_kl_coef(trl.beta, extra.get("kl", 0.0), ours.completions, ours.config)
        if state.is_world_process_zero:
            ours.on_step(point)


def _extra(logs: Mapping[str, float]) -> dict[str, float]:
    """The parts of TRL's log that only GRPO has, by our names."""
    named = {
        "reward": "reward", "reward_std": "reward_std", "kl": "kl", "entropy": "entropy",
        "no_contrast": "frac_reward_zero_std", "completion_tokens": "completions/mean_length",
        "cut_off": "completions/clipped_ratio", **{f"reward_{k}": f"rewards/{k}/mean" for k in WEIGHTS},
        "ref_error": "ref_error", "score_error": "score_error",
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
        "gradient_accumulation_steps": train.accumulation,
        # max_steps, unless -1, goes before epochs.
        "num_train_epochs": train.epochs or 1.0,
        "max_steps": train.steps or -1,
        "max_grad_norm": train.clip,
        "bf16": train.dtype == "bfloat16",
        "activation_checkpointing": train.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        "seed": train.seed,
        "use_cpu": not gpu,
        "dataloader_num_workers": recipe.data.workers,
        "num_generations": config.generations,
        "max_completion_length": config.max_completion,
        "temperature": config.temperature,
        "top_p": config.top_p,
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
    if train.distributed == "fsdp":
        settings["fsdp"] = "full_shard auto_wrap"
        settings["fsdp_config"] = {
            "version": 2,
            "transformer_layer_cls_to_wrap": sorted(backbone._no_split_modules),
        }
    if gpu and has_vllm and config.rollouts != "transformers":
        settings |= _vllm_settings(recipe, config)
    return settings


def _vllm_settings(recipe: Recipe, config: GrpoConfig) -> dict[str, Any]:
    """Rollouts by vLLM: on the given server, else in this process."""
    return {
        "use_vllm": True,
        "vllm_mode": "server" if config.vllm_server else "colocate",
        "vllm_server_base_url": config.vllm_server,
        "vllm_gpu_memory_utilization": config.vllm_memory,
        "vllm_tensor_parallel_size": config.vllm_tensor_parallel,
        "vllm_max_model_length": recipe.data.sequence_length + config.max_completion,
    }


def _dataset(samples: Sequence[Sample], transform: Transform, recipe: Recipe) -> Dataset:
    """Rows by number; a sample's pictures are read when it is due."""

    def rows(batch: Mapping[str, list[int]]) -> dict[str, list[Any]]:
        found = [_asked(samples[k], transform, recipe.model.max_px) for k in batch["index"]]
        return {name: [row[name] for row in found] for name in ("prompt", "images", "truth")}

    return Dataset.from_dict({"index": list(range(len(samples)))}).with_transform(rows)


def _asked(sample: Sample, transform: Transform, max_px: int) -> dict[str, Any]:
    item: Item = item_of(sample, max_px)
    pictures = [Image.fromarray(p) for p in transform.pictures(item)]
    return {"prompt": chat(item.question), "images": pictures, "truth": truth_of(sample)}


def _reward_functions(name: str) -> list[Callable[..., list[float]]]:
    """One for each part, so that TRL weighs them and tells of each."""
    whole = REWARDS[name]

    def function(part: str) -> Callable[..., list[float]]:
        def reward(completions: Sequence[Any], truth: Sequence[Truth], log_metric: Any = None, **_: Any) -> list[float]:
            found = [whole(_text(c), t) for c, t in zip(completions, truth, strict=True)]
            # Reference and score have a distance to the label, which is logged as well; the format has none.
            if log_metric is not None and part != "format":
                log_metric(f"{part}_error", sum(getattr(r, f"{part}_error") for r in found) / len(found))
            return [getattr(r, part) for r in found]

        # TRL logs a reward by its function's name.
        reward.__name__ = part
        return reward

    return [function(part) for part in WEIGHTS]


def _text(completion: Any) -> str:
    """TRL gives completions to prompts of messages as messages."""
    content = completion[0]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)

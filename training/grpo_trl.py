"""TRL's GRPO trainer as training.grpo runs it, and what it tells of its steps."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from trl.trainer.grpo_trainer import GRPOTrainer

from training.loop import make_optimizer, share_of_rate
from training.rollouts import GenerationSampler, ShownPrompt, pixels_of


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

    def with_pictures(self, model: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """What a model is given, with the pictures of its rows; None where it generates. Rows come in order, some at a
        time, and each time all of them."""
        if given.get("labels") is None:
            return None
        n = len(given["input_ids"])
        rows, self.shown = self.shown[:n], [*self.shown[n:], *self.shown[:n]]
        return args, given | pixels_of(rows, given["input_ids"], self.ours.image_token, given["labels"])

    def compute_loss(self, model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
        self.shown = inputs["shown"]
        return super().compute_loss(model, inputs, *more, **named)

    def learning(self) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        """What learns, and its optimizer, both without wrappers."""
        return self.accelerator.unwrap_model(self.model_wrapped), getattr(self.optimizer, "optimizer", self.optimizer)

    def get_train_dataloader(self) -> Any:
        """Of all steps that are left, whatever the epoch."""
        args: Any = self.args
        n, repeats = self.ours.config.generations, self.num_iterations * args.steps_per_generation
        steps = range(self.ours.first, self.ours.steps_in_all)
        at_once, workers = args.generation_batch_size // n, args.dataloader_num_workers
        sampler = GenerationSampler(self.ours.prompts, at_once, n, repeats, args.seed, steps)
        batch = args.per_device_train_batch_size * args.steps_per_generation
        data: Any = self.train_dataset
        return self.accelerator.prepare(
            DataLoader(data, batch, sampler=sampler, collate_fn=self.data_collator, num_workers=workers)
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = make_optimizer(model or self.model_wrapped, self.ours.recipe)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            ours, train = self.ours, self.ours.recipe.train
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.learning()[1],
                lambda step: share_of_rate((ours.first + step) / ours.steps_in_all, train),
            )
        return self.lr_scheduler


class StepLog(TrainerCallback):
    """Passes on where TRL is and what it logs of each step, and of each validation; not the summary at the end."""

    def __init__(self, ours: Any) -> None:
        self.ours = ours

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == 0:  # after the loader has drawn a number of chance
            self.ours.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        control.should_evaluate = self.ours.validates()

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **more: Any) -> None:
        if "reward" in (logs or {}):
            self.ours.stepped(state, logs or {})
        elif "eval_reward" in (logs or {}):
            self.ours.validated(logs or {})

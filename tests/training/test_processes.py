"""Two processes learn as one does, and either goes on with what the other began."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from core.paths import Workspace
from tests.kits.processes import in_two_processes
from tests.kits.progresslm_rows import teach
from tests.kits.training_kit import KilledError, make_release, recipe, small
from training.checkpoint import StepWriter, TrainerState, load_state
from training.recipe import Recipe
from training.runs import Point, saved_steps, training_run_id
from training.train import train
from warehouse.lake import Lake
from warehouse.releases.release import Release, get_release

# Answers drawn alike by one process and by several: chance hangs on an answer's place in the batch of all


def sample_by_place(monkeypatch: pytest.MonkeyPatch, rank: int = 0) -> None:
    """Draw each token by its answer's place and its own."""
    from training.grpo import GrpoTrainer

    generate = GrpoTrainer._by_transformers
    position = {"token": 0, "round": 0}

    def from_the_first_token_on(self: Any, *args: Any, **kwargs: Any) -> Any:
        position.update(token=0, round=self.step)
        return generate(self, *args, **kwargs)

    def multinomial(probabilities: torch.Tensor, num_samples: int, **_: Any) -> torch.Tensor:
        rows = len(probabilities)
        drawn = torch.Generator().manual_seed(1000 * position["round"] + position["token"])
        numbers = torch.rand(64, generator=drawn)[rank * rows : (rank + 1) * rows]
        position["token"] += 1
        return (
            (probabilities.cumsum(-1) < numbers[:, None])
            .sum(-1, keepdim=True)
            .clamp(max=probabilities.shape[1] - 1)
        )

    monkeypatch.setattr(GrpoTrainer, "_by_transformers", from_the_first_token_on)
    monkeypatch.setattr(torch, "multinomial", multinomial)


SETTINGS: dict[str, Any] = {"steps": 4, "batch": 2, "save_every": 2, "accumulation": 2}
NAMES = ("full", "lora", "copies", "grpo", "procvlm_sft_sharded", "progresslm_sft_full")
LORA = {"rank": 4, "alpha": 8}


def recipe_of(name: str, taught: Path) -> Recipe:
    if name == "grpo":
        home = taught.parents[2]
        sections = {
            "model": {"path": taught},
            "data": {"jsonl": [home / "rl.jsonl"], "image_root": home / "images"},
            "train": {
                "lr": 1e-3,
                "schedule": "constant",
                "distributed": "fsdp",
                **SETTINGS,
                "batch": 4,
            },
            "grpo": {"generations": 4, "max_completion": 24, "temperature": 1.0},
        }
        return Recipe.model_validate({"name": name, "kind": "grpo"} | sections)
    if name not in NAMES[:4]:
        base_recipe = small(name, distributed="fsdp", lr=1e-3)
        return base_recipe.model_copy(update={"lora": None})
    distributed = "none" if name == "copies" else "fsdp"
    lora = LORA | {"dropout": 0.1} if name == "lora" else None
    head = {"noise": 0.1, "dropout": 0.1}
    return recipe(name, lora=lora, head=head, train={**SETTINGS, "distributed": distributed})


def curve(lake: Lake, release: Release, run_recipe: Recipe, resume: bool = False) -> list[Point]:
    return list(train(lake, release, run_recipe, resume=resume).curve)


def killed_curve(lake: Lake, release: Release, run_recipe: Recipe) -> list[Point]:
    points: list[Point] = []

    def write(writer: StepWriter, state: TrainerState, tensors: dict[str, torch.Tensor]) -> None:
        points.extend(Point(**p) for p in state.curve)
        wrote(writer, state, tensors)
        for tensor in tensors.values():
            # Training goes on meanwhile, in the same memory
            torch.zero_(getattr(tensor, "_local_tensor", tensor))
        raise KilledError

    wrote = StepWriter.write
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KilledError):
        patch.setattr(StepWriter, "write", write)
        train(lake, release, run_recipe)
    return points


def numbers(points: list[Point]) -> list[list[float]]:
    return [[p.loss, p.gradient_norm, p.samples, p.extra.get("reward", 0.0)] for p in points]


def of_two(space: Path, taught: Path) -> dict[str, Any]:
    from torch.distributed.tensor import DTensor

    from training import loop

    sample_by_place(pytest.MonkeyPatch(), int(os.environ["RANK"]))
    kinds = []
    prepare = loop.learning_tensors

    def noted(*parts: Any) -> dict[str, torch.Tensor]:
        tensors = prepare(*parts)
        kinds.append(isinstance(next(iter(tensors.values())), DTensor))
        return tensors

    loop.learning_tensors = noted
    lake = Lake(Workspace(space))
    result = {}
    release = get_release(lake)
    for name in NAMES:
        run_recipe = recipe_of(name, taught)
        alone = curve(lake, release, run_recipe, resume=True)
        steps = lake.workspace.root / "models" / f"{training_run_id(run_recipe, release)}.steps"
        whole = curve(lake, release, run_recipe)
        killed = killed_curve(lake, release, run_recipe)
        torch.distributed.barrier()
        if torch.distributed.get_rank() == 0:
            shutil.copytree(steps, steps.with_name(f"{name}-kept.steps"))
        torch.distributed.barrier()
        resumed = curve(lake, release, run_recipe, resume=True)
        result[name] = [numbers(points) for points in (alone, whole, killed, resumed)]
    return result | {"divided": kinds}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Lake, Release, Path]:
    folder = tmp_path_factory.mktemp("processes")
    return *make_release(folder / "w", moments=24), teach(folder)


@pytest.mark.long
def test_two_processes_learn_as_one_does(made):
    lake, release, taught = made
    with pytest.MonkeyPatch.context() as patch:
        sample_by_place(patch)
        first_curves = {
            name: killed_curve(lake, release, recipe_of(name, taught)) for name in NAMES
        }
        results = in_two_processes(of_two, lake.workspace.root, taught)
        for name in NAMES:
            run_recipe = recipe_of(name, taught)
            alone, whole, killed, resumed = results[name]
            assert resumed == whole, name
            assert killed == whole[:2], name
            # Two go on with what one began: the first steps are those of one.
            assert alone[:2] == numbers(first_curves[name]), name
            close(alone, numbers(curve(lake, release, run_recipe)), name)
            # One goes on with what two began.
            steps = lake.workspace.root / "models" / f"{training_run_id(run_recipe, release)}.steps"
            shutil.rmtree(steps)
            steps.with_name(f"{name}-kept.steps").rename(steps)
            assert load_state(saved_steps(steps)[-1]).begun_by == 2
            close(numbers(curve(lake, release, run_recipe, resume=True)), whole, name)
    assert results["divided"].count(True) > results["divided"].count(False) > 0


def close(a: list[list[float]], b: list[list[float]], name: str) -> None:
    assert len(a) == len(b) == SETTINGS["steps"]
    for actual, expected in zip(a, b, strict=True):
        assert actual == pytest.approx(expected, abs=1e-5), name

"""What a recipe takes of a machine: on steps of tiny models, and by the audit's table."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu_check
from benchmarks.true_size import SHAPES, make_backbone
from core.yaml_text import parse_yaml
from tests.kits.cli_kit import FAILED, assert_one_error_line, called, command, ok
from tests.kits.laptop_kit import GREY_RECIPE, make_checkpoint
from tests.kits.training_kit import FAMILIES, make_items, make_parts, make_release
from training import backbones, loop
from training.backbones import add_adapter, make_tokenizer
from training.folder import TrainingError
from training.laptop.model import load_laptop
from training.model import ProgressModel, losses
from training.plan import GB, SLOWER, Machine, cost, plan, plan_facts, plan_on
from training.recipe import BUILT_IN, LoraConfig, Recipe, load_recipe
from training.train import train
from warehouse.lake import Lake
from warehouse.releases.release import Release


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> tuple[Lake, Release]:
    return make_release(tmp_path_factory.mktemp("plan") / "w", moments=24)


@pytest.mark.parametrize("name", ["tiny_qwen2_5", "tiny_lora", "tiny_head"])
def test_bytes_of_state_are_those_of_a_step(name, corpus, monkeypatch):
    bytes_by_part: dict[str, int] = {}
    make = loop.make_optimizer

    def measured(model: Any, recipe: Recipe) -> torch.optim.Optimizer:
        optimizer = make(model, recipe)
        step = optimizer.step

        def counted(*args: Any) -> Any:
            bytes_by_part["weights"] = sum(p.nbytes for p in model.parameters())
            bytes_by_part["gradients"] = sum(
                p.grad.nbytes for p in model.parameters() if p.grad is not None
            )
            step_result = step(*args)
            states = chain.from_iterable(state.values() for state in optimizer.state.values())
            bytes_by_part["optimizer"] = sum(state.nbytes for state in states)
            return step_result

        monkeypatch.setattr(optimizer, "step", counted)
        return optimizer

    monkeypatch.setattr(loop, "make_optimizer", measured)
    recipe = load_recipe(name)
    run = train(*corpus, recipe)
    planned = plan(recipe, Machine(1, 80 * GB))
    assert sum(planned.parameters.values()) == pytest.approx(run.parameters, rel=0.05)
    for part, count in bytes_by_part.items():
        assert planned.bytes[part] == pytest.approx(count, rel=0.05), part


def as_it_was(base: str, **train: Any) -> Recipe:
    """The settings of the audits' figures: batches of four rows of 8,192 tokens."""
    recipe = load_recipe("procvlm_sft", begins=False)
    settings = {
        "batch": 4,
        "accumulation": 16,
        "recompute": "all",
        "compile": False,
        "distributed": "none",
    } | train
    changes = {
        "model": recipe.model.model_copy(update={"base": base}),
        "data": recipe.data.model_copy(update={"longer_length": None}),
        "train": recipe.train.model_copy(update=settings),
        "head": None,
    }
    return recipe.model_copy(update=changes)


def test_seconds_and_bytes_are_those_that_an_h200_took():
    # Measured: 32,768 tokens in 2.49 s, in 2.09 where nothing was calculated anew; then 66 GB for a row of 8,192
    h200 = Machine(1, 141 * GB, "H200")
    assert plan(as_it_was("Qwen3-VL-2B", accumulation=1), h200).seconds == pytest.approx(
        2.49, rel=0.15
    )
    kept_plan = plan(as_it_was("Qwen3-VL-2B", recompute="none", batch=1, accumulation=4), h200)
    assert kept_plan.seconds == pytest.approx(2.09, rel=0.15)
    activations = (
        kept_plan.bytes["activations of text"] + kept_plan.bytes["activations of pictures"]
    )
    assert activations / GB == pytest.approx(66, rel=0.15)


def test_all_choices_of_what_is_calculated_anew_are_told():
    for name, gpus, memory, card, fastest in (
        ("procvlm_sft", 4, 80, "H100", "matmul"),
        ("procvlm_sft:one_gpu", 1, 80, "H100", "all"),
        ("procvlm_sft:h200", 1, 141, "H200", "matmul"),
        ("procvlm_sft:h200", 1, 192, "B200", "none"),
        ("procvlm_sft:h200", 1, 24, "4090", None),
    ):
        recipe_plan = plan(load_recipe(name, begins=False), Machine(gpus, memory * GB, card))
        choices = [
            recipe_plan.choices[recompute_kind] for recompute_kind in ("none", "matmul", "all")
        ]
        assert [c.bytes for c in choices] == sorted((c.bytes for c in choices), reverse=True)
        assert [c.seconds for c in choices] == sorted(c.seconds for c in choices)
        assert recipe_plan.fastest() == fastest, name
        assert recipe_plan.rows == 256
        assert recipe_plan.facts()["train.recompute, fastest here"] == (fastest or "none fits")


@pytest.mark.parametrize(
    ("base", "parameters", "copied", "shared", "text", "vision", "seconds"),
    [
        ("Qwen3-VL-2B", 2.12, 42.5, 4.2, 3.8, 5.8, 2.14),
        ("Qwen3-VL-4B", 4.43, 88.7, 8.9, 6.0, 5.8, 3.56),
        ("Qwen3-VL-8B", 8.76, 175, 17.5, 9.7, 7.3, 5.43),
    ],
)
def test_the_audits_table(base, parameters, copied, shared, text, vision, seconds):
    # Batches of 4 x 8192 tokens: GB of state under DDP and under FSDP by eight, of what is kept between layers
    run_recipe = as_it_was(base)
    ddp = plan(run_recipe, Machine(8, 80 * GB))
    fsdp = plan(
        run_recipe.model_copy(
            update={"train": run_recipe.train.model_copy(update={"distributed": "fsdp"})}
        ),
        ddp.machine,
    )
    state = ("weights", "gradients", "optimizer", "copies for exchange")
    assert sum(ddp.parameters.values()) / 1e9 == pytest.approx(parameters, rel=0.01)
    assert sum(ddp.bytes[name] for name in state) / GB == pytest.approx(copied, rel=0.01)
    assert sum(fsdp.bytes[name] for name in state) / GB == pytest.approx(shared, rel=0.02)
    assert 0 < ddp.bytes["activations of text"] / GB - text < 0.8 * text
    assert 0 < ddp.bytes["activations of pictures"] / GB - vision < vision
    # As counted, kernel by kernel, of one batch on an H200; rows may be one sample each here
    one_gpu = plan(as_it_was(base, accumulation=1), Machine(1, 141 * GB, "H200"))
    assert one_gpu.seconds / SLOWER == pytest.approx(seconds, rel=0.15)
    assert (ddp.wrong() is None) == (base == "Qwen3-VL-2B")
    assert fsdp.wrong() is None


def shipped() -> Iterator[str]:
    for path in sorted(BUILT_IN.glob("*.yaml")):
        if "laptop" not in path.stem and path.stem != "tiny_oneshot":
            yield from (
                path.stem,
                *(
                    f"{path.stem}:{variant}"
                    for variant in parse_yaml(path.read_text()).get("variants", ())
                ),
            )


@pytest.mark.parametrize("name", shipped())
def test_every_recipe_fits_on_the_machine_that_it_names(name):
    recipe = load_recipe(name, begins=False)
    planned = plan_on(recipe, None)
    assert planned.wrong() is None
    assert planned.machine.gpus == recipe.machine.gpus
    if recipe.grpo and not recipe.model.tiny:
        for memory in (80, 141):
            machine_plan = plan(recipe, Machine(recipe.machine.gpus, memory * GB))
            state = 16 * sum(machine_plan.parameters.values()) / recipe.machine.gpus
            weights = 2 * sum(machine_plan.parameters.values())
            assert (
                weights + 2 * GB
                <= machine_plan.vllm_share() * memory * GB
                <= memory * GB - state - 6 * GB
            )


def test_without_room_for_vllm_it_is_said():
    recipe = load_recipe("progresslm_grpo:7b", begins=False)
    with pytest.raises(TrainingError, match="133 GB are the training's, 19 GB it needs"):
        plan(recipe, Machine(1, 80 * GB)).vllm_share()


def test_a_start_that_cannot_fit_is_refused(corpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA L4")
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=5 * GB)
    )
    with pytest.raises(TrainingError, match="6 GB are needed of each of 1 GPUs with 5"):
        train(*corpus, load_recipe("tiny_head"))


@pytest.mark.long
def test_the_command_says_what_fits_and_what_does_not(tmp_path):
    plan_command = ["train", "--recipe", "procvlm_sft_sharded", "--plan", "--format", "json"]
    fits = ok(command(*plan_command, cwd=tmp_path)).json
    assert (fits["rows a step"], fits["fits"], fits["machine"]) == (
        256,
        "yes",
        "8 x H100, 80 GB each",
    )
    one_gpu = command(*plan_command, "--machine", "1x80xA100", cwd=tmp_path)
    assert one_gpu.code == FAILED
    assert one_gpu.json["fits"].startswith("109 GB are needed of each of 1 GPUs with 80")
    assert list(tmp_path.iterdir()) == []
    wrong = command(*plan_command, "--machine", "8xH100", cwd=tmp_path)
    assert "'8xH100' is no machine: 8x80xH100 are eight of 80 GB" in assert_one_error_line(wrong)
    unknown = command(*plan_command[:2], "progresslm_grpo:8b", "--plan", cwd=tmp_path)
    assert "has no variant '8b'; it has: 7b, nodes, 7b_nodes" in assert_one_error_line(unknown)


@pytest.mark.parametrize("learns", ["nothing", "all", "adapter"])
@pytest.mark.parametrize("family", FAMILIES)
def test_counts_are_torchs(family, learns):
    item = make_items(3)[2:]
    whole, transform = make_parts(item, family, attention="eager")
    model = ProgressModel(whole.backbone, None)
    model.backbone.requires_grad_(learns == "all")
    if learns == "adapter":
        add_adapter(model.backbone, LoraConfig(rank=4, alpha=8))
    batch = transform(item)
    costs = cost(model.backbone)
    # Eager attention calculates what the causal mask then hides.
    costs = replace(costs, language_attention=2 * costs.language_attention)
    with FlopCounterMode(display=False) as counter:
        text, *_ = losses(None, model(batch, with_text=True), batch)
        if learns != "nothing":
            text.backward()
    # What layers with a state multiply beside their weights is much of so small a model
    tolerance = {"qwen3_5": 0.17}.get(family, 0.03)
    assert costs.of(batch) == pytest.approx(counter.get_total_flops(), rel=tolerance)


@pytest.mark.parametrize("name", ["laptop_oneshot", "tiny_oneshot"])
def test_a_recipe_that_begins_with_any_model_says_what_it_can(name, capsys):
    result = called(capsys, "train", "--recipe", name, "--plan", "--format", "json")
    assert result.code == 0
    recipe = load_recipe(name, begins=False)
    assert result.json["steps"] == recipe.train.steps
    assert recipe.train.batch in (
        result.json.get("windows a step"),
        result.json.get("rows a step of one GPU"),
    )
    assert result.json["parameters"] == "not known: --model PATH says it, of a checkpoint"


def test_a_laptop_model_has_its_own_figures_and_fits(tmp_path):
    path = tmp_path / "grey.yaml"
    path.write_text(GREY_RECIPE)
    facts, fits = plan_facts(load_recipe(str(path), begins=False), None)
    assert fits
    assert facts["encoder, which does not learn"] == "grey"
    learning = facts["parameters that learn"]
    assert facts["MB of weights, gradients and optimizer"] == pytest.approx(
        16 * learning / 1e6, abs=0.05
    )

    # As the message says, --model has what the recipe has not
    checkpoint = make_checkpoint(tmp_path / "bars")
    facts, fits = plan_facts(load_recipe("laptop_oneshot", checkpoint, begins=False), None)
    model, *_ = load_laptop(checkpoint)
    assert (facts["parameters that learn"], fits) == (
        sum(p.numel() for p in model.parameters() if p.requires_grad),
        True,
    )
    with pytest.raises(TrainingError, match="is no machine"):
        plan_facts(load_recipe("laptop_oneshot", begins=False), "8xH100")


def checked(folder: Path, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code = gpu_check.main(["--tiny", "--out", str(folder / "figures.json"), *options])
    report = json.loads((folder / "figures.json").read_text())
    return code, {row["what"]: row for row in report["rows"]}


# What compiles the four layers of the first rung, and those of the others: to trace is what takes long
BACKENDS = [
    pytest.param("aot_eager", None, marks=pytest.mark.slow),
    pytest.param("inductor", "aot_eager", marks=pytest.mark.long),
]


@pytest.mark.parametrize(("first_backend", "next_backend"), BACKENDS)
def test_all_of_it_holds(tmp_path, capsys, monkeypatch, first_backend, next_backend):
    plain: Any = torch.compile
    backends = chain(repeat(first_backend, 4), repeat(next_backend))

    def compiled(forward: Any, **options: Any) -> Any:
        backend = next(backends)
        return plain(forward, backend=backend, **options) if backend else forward

    monkeypatch.setattr(backbones.torch, "compile", compiled)
    code, rows = checked(tmp_path, "--minutes", "60")
    assert next(backends) == next_backend
    written = capsys.readouterr()
    assert code == 0, written.err[-3000:]
    assert list(rows)[:2] == ["resume", "GRPO, a step, answers by transformers"]
    ladder = [rows[f"packed, {name}"] for name in gpu_check.LADDER]
    assert all(row["differs_by"] < 2e-2 and row["planned_gb"] > 0 for row in ladder)
    assert max(row["differs_by"] for row in ladder[:3]) < 1e-5
    assert {
        "plain padding",
        "packed, LoRA",
        "rewards, window 8",
        "packed as padded, sdpa",
    } <= rows.keys()
    assert rows["head, a long sample beside short ones"]["differs_by"] < 1e-6
    assert rows["resume"]["differs_by"] == 0
    assert rows["packed as padded, sdpa"]["differs_by"] < 1e-5
    assert all(
        r["tokens_per_s"] > 0 and r["mfu"] is None for r in rows.values() if "tokens_per_s" in r
    )
    assert "| packed, compiled | sdpa | packed |" in written.out


def test_rows_after_the_last_minute_are_left_out_and_named(tmp_path):
    code, rows = checked(tmp_path, "--minutes", "0")
    assert code == 0
    assert {row["error"] for row in rows.values()} == {"left out: --minutes are over"}
    assert len(rows) >= len(gpu_check.LADDER) + 8


@pytest.mark.slow
def test_what_does_not_hold_is_named(tmp_path, capsys, monkeypatch):
    forward = ProgressModel.forward

    def leaking(
        self: ProgressModel, batch: dict[str, torch.Tensor], *args: Any, **kwargs: Any
    ) -> Any:
        output = forward(self, batch, *args, **kwargs)
        if "item_mask" in batch:
            output = replace(output, progress=output.progress + 0.01)
        return output

    monkeypatch.setattr(ProgressModel, "forward", leaking)
    # Of all rows, the two that tell and that do not: the whole table is the other test's
    monkeypatch.setattr(
        gpu_check,
        "sft_rows",
        lambda b: iter(
            [gpu_check.tried(b, "packed as padded, sdpa", lambda: gpu_check.same_loss(b, "sdpa"))]
        ),
    )
    monkeypatch.setattr(gpu_check, "resumed", lambda bench: {"differs_by": 0.0})
    monkeypatch.setattr(gpu_check, "rewards", lambda bench: {"differs_by": 0.0})
    monkeypatch.setattr(gpu_check, "grpo_rows", lambda bench, recipe: iter(()))
    monkeypatch.setattr(gpu_check, "goals", lambda rows: iter(()))
    code, rows = checked(tmp_path)
    assert code == 1
    assert not rows["packed as padded, sdpa"]["holds"]
    assert rows["resume"]["holds"]
    assert capsys.readouterr().err.splitlines()[-1] == "error: failed: packed as padded, sdpa"


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main([]) == 2
    assert "there is no GPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shape", "billions"),
    [
        ("Qwen3-VL-2B", 2.13),
        ("Qwen3-VL-4B", 4.44),
        ("Qwen2.5-VL-3B", 3.75),
        ("Qwen2.5-VL-7B", 8.29),
    ],
)
def test_shapes_are_as_large_as_the_published_models(shape, billions):
    model = make_backbone(SHAPES[shape], make_tokenizer(["a"], 800), "meta")
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, abs=0.006)

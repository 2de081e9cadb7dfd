"""GRPO on tiny models in their real classes: groups of answers to pictures, rewarded, learnt from, gone on from."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.kits.progresslm_rows import TINY, conversations, empty_corpus, source_rows, write_rows
from training.checkpoint import saved_steps
from training.loop import Point, TrainingError
from training.model import load_model
from training.progresslm_data import RowError
from training.recipe import GrpoConfig, Recipe, RecipeError, load_recipe
from training.train import TrainingRun, train


def teach(folder: Path, family: str, steps: int) -> Path:
    """A tiny model that answers in the format, about at random; and its folder has the rows it was taught."""
    rows = source_rows(folder / "images")
    write_rows(folder / "rl.jsonl", rows)
    sft = Recipe(
        name="taught",
        model={"tiny": TINY | {"family": family}},
        data={"jsonl": [write_rows(folder / "sft.jsonl", conversations(rows))], "image_root": folder / "images"},
        train={"steps": steps, "batch": 4, "lr": 1e-2, "warmup": 0.1},
    )
    return train(*empty_corpus(folder), sft).checkpoint


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teach(tmp_path_factory.mktemp("taught"), "qwen3_vl", 40)


def rewarded(taught: Path, folder: Path, on_step: Callable[[Point], None] = lambda p: None, **more) -> TrainingRun:
    home = taught.parents[2]
    settings = {"steps": 2, "batch": 8, "lr": 1e-3, "schedule": "constant", "seed": 3} | more.pop("train", {})
    recipe = Recipe(
        name="rewarded",
        kind="grpo",
        model={"path": taught},
        data={"jsonl": [more.pop("jsonl", home / "rl.jsonl")], "image_root": home / "images"},
        train=settings,
        grpo={"generations": 4, "max_completion": 48, "temperature": 1.0} | more.pop("grpo", {}),
        lora=more.pop("lora", None),
    )
    return train(*empty_corpus(folder), recipe, on_step, **more)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for f in sorted(folder.glob("*.safetensors")) for k, v in load_file(f).items()}


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_answers_are_learnt_from_also_by_a_run_that_was_killed(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    begin = request.getfixturevalue("taught") if family == "qwen3_vl" else teach(tmp_path, family, 70)
    settings = {"steps": 3, "save_every": 1, "batch": 4, "accumulation": 2}
    seen: list[Point] = []
    whole = rewarded(begin, tmp_path / "whole", seen.append, train=settings)
    assert list(whole.curve) == seen
    first, last = seen[0], seen[-1]
    assert [p.samples for p in seen] == [2, 4, 6]
    assert any(p.extra["reward_std"] > 0 and p.gradient_norm > 0 for p in seen), "answers of a group differ"
    parts = {"format": 0.2, "ref": 0.5, "score": 0.3}
    assert first.extra["reward"] == pytest.approx(
        sum(w * first.extra[f"reward_{k}"] for k, w in parts.items()), abs=1e-5
    )
    assert first.extra["kl"] == pytest.approx(0, abs=1e-6), "it begins where it is measured from"
    assert last.extra["kl"] > 0
    before, after = weights(begin), weights(whole.checkpoint)
    assert any("visual" in k and not torch.equal(v, before[k]) for k, v in after.items()), "vision learns, too"
    assert {p.suffix for p in whole.checkpoint.iterdir()} == {".json", ".safetensors"}
    card = json.loads((whole.checkpoint / "card.json").read_text())
    assert (card["head"], card["recipe"]["grpo"]["generations"]) == (None, 4)
    assert load_model(whole.checkpoint)[0].head is None

    with pytest.raises(KeyboardInterrupt):
        rewarded(begin, tmp_path / "killed", kill_at(1), train=settings)
    (steps,) = (tmp_path / "killed").glob("workspace/models/*.steps")
    assert [p.name for p in saved_steps(steps)] == ["step-00000001"]
    assert {p.suffix for p in saved_steps(steps)[0].iterdir()} == {".json", ".safetensors"}
    resumed = rewarded(begin, tmp_path / "killed", train=settings, resume=True)
    assert [p.step for p in resumed.curve] == [0, 1, 2]
    for a, b in zip(whole.curve, resumed.curve, strict=True):
        for name in ("loss", "gradient_norm", "learning_rate", "extra", "samples", "tokens"):
            assert getattr(b, name) == pytest.approx(getattr(a, name), abs=1e-6), name
    again = weights(resumed.checkpoint)
    assert all(torch.allclose(v, again[k], atol=1e-6) for k, v in after.items())


def kill_at(step: int) -> Callable[[Point], None]:
    def kill(point: Point) -> None:
        if point.step == step:
            raise KeyboardInterrupt

    return kill


def test_an_adapter_learns_alone_and_goes_on(taught: Path, tmp_path: Path) -> None:
    settings = {"steps": 2, "save_every": 1, "batch": 4, "lr": 1e-2}
    lora = {"rank": 4, "alpha": 8}
    whole = rewarded(taught, tmp_path / "whole", train=settings, lora=lora)
    assert not (whole.checkpoint / "model.safetensors").exists()
    assert json.loads((whole.checkpoint / "card.json").read_text())["base"] == str(taught.resolve())
    model, _, _ = load_model(whole.checkpoint)
    assert any("lora" in name for name, _ in model.named_parameters())
    learnt = weights(whole.checkpoint)
    assert any(v.abs().max() > 0 for k, v in learnt.items() if "lora_B" in k)

    with pytest.raises(KeyboardInterrupt):
        rewarded(taught, tmp_path / "killed", kill_at(1), train=settings, lora=lora)
    resumed = rewarded(taught, tmp_path / "killed", train=settings, lora=lora, resume=True)
    again = weights(resumed.checkpoint)
    assert all(torch.allclose(v, again[k], atol=1e-6) for k, v in learnt.items())


def test_a_loss_that_is_not_finite_stops_the_run(taught: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"(is nan|is inf|not finite) at step \d: lower train.lr"):
        rewarded(taught, tmp_path, train={"lr": 1e30, "steps": 3})


def test_steps_must_come_out_even(taught: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"a step has 6 completions .* no multiple of grpo.generations \(4\)"):
        rewarded(taught, tmp_path, train={"batch": 6})
    with pytest.raises(TrainingError, match="there are 8 prompts, and a step takes 16"):
        rewarded(taught, tmp_path, train={"batch": 16, "accumulation": 4})


def test_what_has_no_label_cannot_be_rewarded(taught: Path, tmp_path: Path) -> None:
    with pytest.raises(RowError, match=r"sft.jsonl:1: a conversation has no reference and score"):
        rewarded(taught, tmp_path, jsonl=taught.parents[2] / "sft.jsonl")


def test_vllm_is_not_promised_without_a_gpu(taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match=r"grpo.rollouts: vllm needs a GPU"):
        rewarded(taught, tmp_path, grpo={"rollouts": "vllm"})


def test_the_kl_term_is_steered_where_it_is_asked_for() -> None:
    from training.grpo import next_kl_coef

    fixed, adaptive = GrpoConfig(), GrpoConfig(kl_control="adaptive")
    assert next_kl_coef(0.01, 5.0, 256, fixed) == 0.01
    assert next_kl_coef(0.01, 0.1, 256, adaptive) == pytest.approx(0.01)
    assert next_kl_coef(0.01, 0.11, 10_000, adaptive) == pytest.approx(0.01 * 1.1)
    assert next_kl_coef(0.01, 9.0, 10_000, adaptive) == pytest.approx(0.01 * 1.2)  # at the most
    assert next_kl_coef(0.01, 0.0, 500, adaptive) == pytest.approx(0.01 * 0.99)


@pytest.mark.parametrize("name", ["progresslm_grpo_3b", "progresslm_grpo_7b", "progresslm_grpo_3b_nodes"])
def test_recipes_have_the_published_values(name: str) -> None:
    recipe = load_recipe(name, model=Path("/models/sft"))
    assert recipe.grpo is not None
    assert recipe.grpo.generations == (16 if name.endswith("nodes") else 4)
    assert (recipe.grpo.temperature, recipe.grpo.kl_coef, recipe.grpo.kl_target) == (0.6, 0.01, 0.1)
    assert (recipe.train.lr, recipe.train.epochs, recipe.train.clip) == (1e-6, 2, 1.0)
    assert recipe.lora is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: grpo\n", "kind: grpo and the section grpo go together"),
        ("grpo: {}\n", "kind: grpo and the section grpo go together"),
        ("kind: grpo\ngrpo: {}\nhead: {}\n", "grpo rewards words"),
        ("kind: grpo\ngrpo: {}\ndata: {families: {procvqa_c: 1}}\n", "data.families: grpo draws its prompts"),
        ("kind: grpo\ngrpo: {generation: 3}\n", "did you mean generations"),
        ("kind: grpo\ngrpo: {temperature: 0}\n", "grpo.temperature: input should be greater than 0"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"name: r\nmodel: {{tiny: {{}}}}\ntrain: {{steps: 1, batch: 4, lr: 1.0e-3}}\n{text}")
    with pytest.raises(RecipeError, match=says):
        load_recipe(str(path))

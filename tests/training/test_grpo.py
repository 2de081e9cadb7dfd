"""GRPO on tiny models in their real classes, also resumed."""

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2VLImageProcessor

from pipeline.reward_model import chained_steps
from tests.kits.cli_kit import command, ok
from tests.kits.progresslm_rows import empty_corpus, teach, write_rows
from tests.kits.training_kit import TINY, KilledError, kill_at, make_release
from tests.kits.varlen_kernel import varlen_by_sdpa
from training import attention, grpo, rollouts, transform
from training.backbones import load_processor
from training.folder import TrainingError, read_card
from training.model import load_model
from training.plan import GB, Machine, plan
from training.published import MERGED
from training.recipe import Recipe, load_recipe
from training.rollouts import vllm_settings
from training.runs import (
    Point,
    TrainingRun,
    newest_model,
    saved_steps,
    trained,
    training_run_id,
)
from training.train import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> Path:
    return teach(tmp_path_factory.mktemp("taught"), "qwen3_vl", 40)


def rewarded(
    taught: Path, folder: Path, on_step: Callable[[Point], None] = lambda p: None, **settings_given
) -> TrainingRun:
    home = taught.parents[2]
    settings = {
        "steps": 2,
        "batch": 8,
        "lr": 1e-3,
        "schedule": "constant",
        "seed": 3,
    } | settings_given.pop("train", {})
    recipe = Recipe.model_validate(
        {
            "name": "rewarded",
            "kind": "grpo",
            "model": {"path": taught} | settings_given.pop("model", {}),
            "data": {
                "jsonl": [settings_given.pop("jsonl", home / "rl.jsonl")],
                "validation_jsonl": settings_given.pop("validation", ()),
                "image_root": home / "images",
                "sequence_length": settings_given.pop("length", 8192),
                "workers": settings_given.pop("workers", 0),
            },
            "train": settings,
            "grpo": {"generations": 4, "max_completion": 48, "temperature": 1.0}
            | settings_given.pop("grpo", {}),
            "lora": settings_given.pop("lora", None),
        }
    )
    return train(*empty_corpus(folder), recipe, on_step, **settings_given)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    weights = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights |= load_file(file)
    return weights


@pytest.mark.parametrize("family", ["qwen3_vl", pytest.param("qwen2_5_vl", marks=pytest.mark.long)])
def test_answers_are_learnt_from_also_by_a_run_that_was_killed(family, request, tmp_path):
    if family == "qwen3_vl":
        begin = request.getfixturevalue("taught")
    else:
        begin = teach(tmp_path, family, 70)
    settings = {"steps": 3, "save_every": 1, "batch": 4, "accumulation": 2}
    points_seen: list[Point] = []
    whole = rewarded(begin, tmp_path / "whole", points_seen.append, train=settings)
    assert list(whole.curve) == points_seen
    first = points_seen[0]
    last = points_seen[-1]
    assert [p.samples for p in points_seen] == [2, 4, 6]
    assert any(p.extra["reward_std"] > 0 and p.gradient_norm > 0 for p in points_seen)
    parts = {"format": 0.2, "ref": 0.5, "score": 0.3}
    assert first.extra["reward"] == pytest.approx(
        sum(w * first.extra[f"reward_{k}"] for k, w in parts.items()), abs=1e-5
    )
    assert first.extra["kl"] == pytest.approx(0, abs=1e-6), "it begins where it is measured from"
    assert last.extra["kl"] > 0
    assert {"clipped_low", "clipped_high"} <= first.extra.keys()
    assert_completions(tmp_path / "whole", steps=3, first=first)
    weights_before = weights(begin)
    weights_after = weights(whole.checkpoint)
    assert any(
        "visual" in k and not torch.equal(v, weights_before[k]) for k, v in weights_after.items()
    ), "vision learns, too"
    assert {p.suffix for p in whole.checkpoint.iterdir()} == {".json", ".safetensors"}
    card = json.loads((whole.checkpoint / "card.json").read_text())
    assert (card["head"], card["recipe"]["grpo"]["generations"]) == (None, 4)
    assert load_model(whole.checkpoint)[0].head is None

    with pytest.raises(KilledError):
        rewarded(begin, tmp_path / "killed", kill_at(1), train=settings)
    (steps,) = (tmp_path / "killed").glob("workspace/models/*.steps")
    assert [p.name for p in saved_steps(steps)] == ["step-00000001"]
    assert {p.suffix for p in saved_steps(steps)[0].iterdir()} == {".json", ".safetensors"}
    resumed = rewarded(begin, tmp_path / "killed", train=settings, resume=True)
    assert [p.step for p in resumed.curve] == [0, 1, 2]
    for a, b in zip(whole.curve, resumed.curve, strict=True):
        for name in ("loss", "gradient_norm", "learning_rate", "extra", "samples", "tokens"):
            assert getattr(b, name) == pytest.approx(getattr(a, name), abs=1e-6), name
    weights_again = weights(resumed.checkpoint)
    assert all(torch.allclose(v, weights_again[k], atol=1e-6) for k, v in weights_after.items())
    assert completions(tmp_path / "killed") == completions(tmp_path / "whole")


def completions(folder: Path) -> list[dict]:
    (path,) = folder.glob("workspace/models/*.steps/completions.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_completions(folder: Path, steps: int, first: Point) -> None:
    rows = completions(folder)
    assert [row["step"] for row in rows] == sorted([*range(steps)] * 8)
    of_first = [row for row in rows if row["step"] == 0]
    assert len({row["sample_id"] for row in of_first}) == 2
    assert all("<ref>" in row["prompt"] for row in rows)
    assert any("<score>" in row["completion"] for row in rows)
    for part in ("format", "ref", "score"):
        mean = sum(row[part] for row in of_first) / 8
        assert mean == pytest.approx(first.extra[f"reward_{part}"], abs=1e-5)


def test_answers_are_made_in_the_precision_that_is_learnt_in(taught, tmp_path, monkeypatch):
    # As flash kernels ask, which take half precision alone
    kinds = set()

    def kernel(q, *args, **kwargs) -> torch.Tensor:
        kinds.add(q.dtype)
        return varlen_by_sdpa(q, *args, **kwargs)

    monkeypatch.setattr(attention, "varlen_attn", kernel)
    train = {"steps": 1, "batch": 2, "accumulation": 4, "dtype": "bfloat16"}
    rewarded(taught, tmp_path, train=train, model={"attention": "varlen"})
    assert kinds == {torch.bfloat16}


def test_workers_change_nothing(taught, tmp_path):
    settings = {"steps": 2, "batch": 4, "accumulation": 2, "lr": 1e-4}
    none, two = (rewarded(taught, tmp_path / str(n), train=settings, workers=n) for n in (0, 2))
    assert [p.loss for p in two.curve] == pytest.approx([p.loss for p in none.curve], abs=1e-7)
    assert completions(tmp_path / "2") == completions(tmp_path / "0")


def test_each_picture_is_cut_once_and_is_floats_with_its_rows_alone(taught, tmp_path, monkeypatch):
    # Two steps of two prompts with four answers: TRL's own way was 8 passes of each picture, all floats at once
    cut: list[int] = []
    at_once: list[int] = []
    patches = transform.byte_patches
    floats = rollouts.on_device
    monkeypatch.setattr(
        transform, "byte_patches", lambda p, shown: cut.append(len(shown)) or patches(p, shown)
    )
    monkeypatch.setattr(
        rollouts, "on_device", lambda b, d: at_once.append(len(b["image_grid_thw"])) or floats(b, d)
    )
    monkeypatch.setattr(Qwen2VLImageProcessor, "preprocess", None)
    monkeypatch.setattr(rollouts, "PIXELS_AT_ONCE", 1)
    reads: list[str] = []
    item_of = rollouts.item_of
    monkeypatch.setattr(
        rollouts, "item_of", lambda s, px: reads.append(s.row["sample_id"]) or item_of(s, px)
    )
    rewarded(taught, tmp_path, train={"batch": 2, "accumulation": 4})
    assert len(cut) == len(reads) == 4
    assert max(at_once) <= 2 * max(cut)


class Engine:
    """Stands in for TRL's vLLM: expands marks, and answers by the model itself."""

    off = 1.0  # what its logits are multiplied by

    def __init__(self, model: Any, **engine_options: Any) -> None:
        self.model = model
        self.told = engine_options
        self.processor = load_processor(Path(model.name_or_path))

    def sync_weights(self) -> None:
        pass

    @torch.no_grad()
    def generate(
        self, prompts: list, images: list, num_generations: int, profiler: Any = None
    ) -> tuple:
        mark = self.processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        prompts_seen = []
        answers = []
        probabilities = []
        learns = self.model.training
        self.model.eval()  # layers that are calculated anew keep nothing to go on from
        for ids, pictures in zip(prompts, images, strict=True):
            pixels = self.processor.image_processor(images=pictures, return_tensors="pt")
            counts = iter((pixels["image_grid_thw"].prod(-1) // 4).tolist())
            prompts_seen.append(
                list(chain.from_iterable([i] * (next(counts, 1) if i == mark else 1) for i in ids))
            )
            batch = torch.tensor([prompts_seen[-1]])
            generated = self.model.generate(
                input_ids=batch, mm_token_type_ids=(batch == mark).long(), **pixels, do_sample=True, top_k=0, top_p=1.0,
                max_new_tokens=self.told["max_completion_length"], output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
            answer = generated.sequences[0, batch.shape[1] :]
            logs = (torch.cat(generated.logits).float() * self.off).log_softmax(-1)
            answers.append(answer.tolist())
            probabilities.append([[p] for p in logs.gather(1, answer[:, None])[:, 0].tolist()])
        self.model.train(learns)
        return prompts_seen, answers, probabilities, None


def by_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trl.trainer.grpo_trainer.VLLMGeneration", Engine)
    monkeypatch.setattr(rollouts, "with_vllm", lambda config: True)


# Of a picture, at least; the checkpoint says otherwise
FOUR_TOKENS = {"min_pixels": 64 * 64, "max_pixels": 96 * 64}


def test_vllm_is_shown_what_the_model_learns_from(taught, tmp_path, monkeypatch):
    by_engine(monkeypatch)
    run = rewarded(
        taught, tmp_path, model=FOUR_TOKENS, train={"batch": 4, "accumulation": 2, "steps": 1}
    )
    extra = run.curve[0].extra
    assert extra["sampling_ratio"] == pytest.approx(1, abs=1e-3)
    assert extra["sampling_difference"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        (
            {"off": 3.0},
            r"a token of vLLM's answers is \d\.\d+ times as probable .* take grpo.rollouts: transformers",
        ),
        (
            {"processor": None},
            r"vLLM reads prompts of \d+ tokens as \d+, pictures of \d+ as \d+: its processor",
        ),
    ],
)
def test_vllm_that_is_shown_something_else_is_refused_before_a_step(
    engine, says, taught, tmp_path, monkeypatch
):
    by_engine(monkeypatch)
    monkeypatch.setattr(Engine, "off", engine.get("off", 1.0))
    if "processor" in engine:
        monkeypatch.setattr(
            Engine,
            "processor",
            property(lambda _: load_processor(taught), lambda *_: None),
            raising=False,
        )
    points_seen: list[Point] = []
    with pytest.raises(TrainingError, match=says):
        rewarded(
            taught,
            tmp_path,
            points_seen.append,
            model=FOUR_TOKENS,
            train={"batch": 4, "accumulation": 2},
        )
    assert points_seen == []


def test_a_second_epoch_goes_on_where_it_was_killed(taught, tmp_path):
    # Eight prompts, four a step: the third step is the first of the second epoch, the fourth its other half
    train = {"steps": 4, "batch": 4, "accumulation": 2, "save_every": 3, "lr": 1e-4}
    settings = {"train": train, "grpo": {"generations": 2}}
    whole = rewarded(taught, tmp_path / "whole", **settings)
    ids_by_step: list[set[str]] = [set() for _ in range(4)]
    for row in completions(tmp_path / "whole"):
        ids_by_step[row["step"]].add(row["sample_id"])
    assert ids_by_step[0] | ids_by_step[1] == ids_by_step[2] | ids_by_step[3]
    assert not ids_by_step[2] & ids_by_step[3]
    with pytest.raises(KilledError):
        rewarded(taught, tmp_path / "killed", kill_at(3), **settings)
    resumed = rewarded(taught, tmp_path / "killed", **settings, resume=True)
    assert resumed.curve[-1].loss == pytest.approx(whole.curve[-1].loss, abs=1e-6)
    assert completions(tmp_path / "killed") == completions(tmp_path / "whole")


def test_held_out_prompts_are_rewarded_in_the_run(taught, tmp_path):
    points_seen: list[Point] = []
    validation_settings = {"validate_every": 2, "validation_prompts": 7}
    rows = [taught.parents[2] / "rl.jsonl"]
    run = rewarded(
        taught,
        tmp_path,
        points_seen.append,
        train={"steps": 3, "batch": 4},
        grpo=validation_settings,
        validation=rows,
    )
    assert list(run.curve) == points_seen
    assert ["validation_reward" in p.extra for p in points_seen] == [False, True, True]
    rows = [row for row in completions(tmp_path) if row["split"] == "validation"]
    assert [row["step"] for row in rows] == [1] * 4 + [2] * 4
    extra = points_seen[1].extra
    mean = sum(0.2 * row["format"] + 0.5 * row["ref"] + 0.3 * row["score"] for row in rows[:4]) / 4
    assert extra["validation_reward"] == pytest.approx(mean, abs=1e-5)
    long = write_rows(
        tmp_path / "long.jsonl", [r | {"task_goal": "bar " * 400} for r in rows_of(taught)]
    )
    with pytest.raises(TrainingError, match="0 held-out prompts are too few"):
        rewarded(
            taught,
            tmp_path / "none",
            grpo=validation_settings,
            validation=[long],
            train={"batch": 4},
            length=400,
        )


def rows_of(taught: Path) -> list[dict]:
    return [json.loads(line) for line in (taught.parents[2] / "rl.jsonl").read_text().splitlines()]


def test_long_prompts_are_left_out(taught, tmp_path):
    rows = rows_of(taught)
    for row in rows[:3]:
        row["task_goal"] = "fill the bar " * 200
    jsonl = write_rows(tmp_path / "long.jsonl", rows)
    run = rewarded(taught, tmp_path, jsonl=jsonl, length=400, train={"steps": 5, "batch": 4})
    assert json.loads((run.checkpoint / "card.json").read_text())["left_out"] == 3
    assert not any("fill the bar fill" in row["prompt"] for row in completions(tmp_path))
    with pytest.raises(TrainingError, match=r"5 prompts of at most 400 tokens \(3 are"):
        rewarded(taught, tmp_path / "few", jsonl=jsonl, length=400, train={"batch": 24})


def test_an_adapter_learns_alone_and_goes_on(taught, tmp_path):
    settings = {"steps": 2, "save_every": 1, "batch": 4, "lr": 1e-2}
    lora = {"rank": 4, "alpha": 8}
    whole = rewarded(taught, tmp_path / "whole", train=settings, lora=lora)
    assert not (whole.checkpoint / "model.safetensors").exists()
    assert json.loads((whole.checkpoint / "card.json").read_text())["base"] == str(taught.resolve())
    model, _, _ = load_model(whole.checkpoint)
    assert any("lora" in name for name, _ in model.named_parameters())
    learnt = weights(whole.checkpoint)
    assert any(v.abs().max() > 0 for k, v in learnt.items() if "lora_B" in k)

    with pytest.raises(KilledError):
        rewarded(taught, tmp_path / "killed", kill_at(1), train=settings, lora=lora)
    resumed = rewarded(taught, tmp_path / "killed", train=settings, lora=lora, resume=True)
    weights_again = weights(resumed.checkpoint)
    assert all(torch.allclose(v, weights_again[k], atol=1e-6) for k, v in learnt.items())


def test_the_samples_of_a_step_that_went_wrong_are_named(taught, tmp_path, monkeypatch):
    # A gradient that is none, which the loss does not show
    monkeypatch.setattr(
        "accelerate.Accelerator.clip_grad_norm_", lambda *_, **__: torch.tensor(float("nan"))
    )
    with pytest.raises(TrainingError, match=r"^the norm of the gradient is nan at step 0") as e:
        rewarded(taught, tmp_path, train={"batch": 4, "accumulation": 2})
    answered = {row["sample_id"] for row in completions(tmp_path) if row["step"] == 0}
    assert len(answered) == 2
    assert str(e.value).endswith(f"has the answers. Its samples: {', '.join(sorted(answered))}")


def test_many_steps_without_contrast_are_said(taught, tmp_path, monkeypatch, capsys):
    plain = grpo._extra
    monkeypatch.setattr(grpo, "LONG", 2)
    rewarded(taught, tmp_path / "some")
    assert "had one reward" not in capsys.readouterr().err
    monkeypatch.setattr(grpo, "_extra", lambda logs: plain(logs) | {"no_contrast": 1.0})
    rewarded(taught, tmp_path / "none")
    assert (
        "for 2 steps all answers to each prompt had one reward, up to step 1"
        in capsys.readouterr().err
    )


def test_one_command_trains_merges_and_rewards(taught, tmp_path):
    home = taught.parents[2]
    lake, release = make_release(tmp_path / "w")
    model = f"{{tiny: {TINY}}}"
    (tmp_path / "sft.yaml").write_text(
        f"name: sft\nmodel: {model}\nlora: {{rank: 4, alpha: 8}}\ntrain: {{steps: 2, batch: 2, lr: 1.0e-3}}\n"
    )
    (tmp_path / "rl.yaml").write_text(
        f"name: rl\nkind: grpo\nmodel: {{base: the merged one}}\ngrpo: {{generations: 2, max_completion: 8}}\n"
        f"data: {{jsonl: [{tmp_path / 'rl.jsonl'}], image_root: {home / 'images'}}}\n"
        "train: {steps: 1, batch: 4, lr: 1.0e-4}\n"
    )
    (tmp_path / "rl.jsonl").write_text((home / "rl.jsonl").read_text())
    names = [str(tmp_path / name) for name in ("sft.yaml", "rl.yaml")]
    words = ["train", "--recipe", names[0], "--then", names[1], "--release", release.name]
    first = ok(command(*words, cwd=tmp_path, workspace=lake.workspace.root))
    sft, rl = (trained(lake, newest_model(lake, name)) for name in ("sft", "rl"))
    assert f"{rl}" in first.out
    begun_with = Path(read_card(rl)["recipe"]["model"]["path"])
    assert begun_with == sft.with_name(sft.name + MERGED)
    times_before = {path: path.stat().st_mtime_ns for path in (sft, rl, begun_with)}
    assert [o.files[0] for o in chained_steps(lake, release, names, None)] == [sft, rl]
    assert {path: path.stat().st_mtime_ns for path in times_before} == times_before
    # Other rows in a file are another training
    recipe = load_recipe(names[1], begun_with)
    assert training_run_id(recipe, release) == rl.name
    recipe.data.jsonl[0].write_text(recipe.data.jsonl[0].read_text() * 2)
    assert training_run_id(recipe, release) != rl.name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 32760}, "a prompt of 32760 tokens .* the model's context of 32768"),
        ({"train": {"lr": 1e30, "steps": 3}}, r"(is nan|is inf|not finite) at step \d: lower"),
        ({"train": {"batch": 6}}, r"6 completions .* no multiple of grpo.generations \(4\)"),
        ({"train": {"batch": 16, "accumulation": 4}}, "there are 8 prompts, and a step takes 16"),
        ({"grpo": {"rollouts": "vllm"}}, "grpo.rollouts: vllm needs vLLM"),
    ],
)
def test_what_cannot_be_done_is_told(settings, message, taught, tmp_path):
    with pytest.raises(TrainingError, match=message):
        rewarded(taught, tmp_path, **settings)


def test_vllm_sleeps_and_corrects_by_token(monkeypatch):
    recipe = load_recipe("progresslm_grpo", begins=False)
    monkeypatch.setattr(rollouts, "of_this_machine", lambda r, _: plan(r, Machine(4, 80 * GB)))
    settings = vllm_settings(recipe, recipe.grpo)
    # 80 GB but 16 bytes x 3.75 G / 4, and 6 GB
    assert settings["vllm_gpu_memory_utilization"] == 0.73
    assert recipe.grpo.top_p == 1
    assert settings["vllm_enable_sleep_mode"]
    assert settings["vllm_max_model_length"] == 28192
    assert settings["vllm_importance_sampling_mode"] == "token_truncate"
    from trl.trainer.grpo_config import GRPOConfig

    GRPOConfig(**settings, use_cpu=True, epsilon=0.2, epsilon_high=0.3, delta=3.0)


@pytest.mark.parametrize(
    ("variant", "generations", "prompts", "pictures"),
    [("", 4, 64, 50), (":nodes", 16, 64, 50), (":7b", 4, 8, 24), (":7b_nodes", 8, 8, 24)],
)
def test_recipes_have_the_published_values(variant, generations, prompts, pictures):
    recipe = load_recipe(f"progresslm_grpo{variant}", model=Path("/models/sft"))
    assert recipe.name == f"progresslm_grpo{variant}".replace(":", "_")
    assert recipe.grpo.generations == generations
    assert (
        recipe.machine.gpus * recipe.train.batch * recipe.train.accumulation
        == generations * prompts
    )
    assert (recipe.data.max_pictures, recipe.model.min_pixels, recipe.model.max_pixels) == (
        pictures,
        3136,
        12845056,
    )
    assert (recipe.grpo.temperature, recipe.grpo.kl_coef) == (0.6, 0.01)
    assert (recipe.grpo.clip_low, recipe.grpo.clip_high, recipe.grpo.dual_clip) == (0.2, 0.3, 3.0)
    assert (recipe.train.lr, recipe.train.epochs, recipe.train.clip) == (1e-6, 2, 1.0)
    assert recipe.lora is None

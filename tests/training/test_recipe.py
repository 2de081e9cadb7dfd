"""Recipes: what is built in, and what is said of one that is wrong."""

from pathlib import Path

import pytest

from core.errors import UserError
from training.recipe import BUILT_IN, load_recipe

BASE = "name: r\nmodel: {tiny: {}}\nhead: {}\ntrain: {steps: 1, batch: 1, lr: 1}\n"
GRPO = BASE.replace("head: {}\n", "") + "kind: grpo\n"
FLASH = "kernels-community/vllm-flash-attn3"


@pytest.mark.parametrize("name", sorted(p.stem for p in BUILT_IN.glob("*.yaml")))
def test_every_built_in_recipe_is_valid_and_begins_somewhere(name: str) -> None:
    if name == "laptop":
        assert load_recipe(name).model.laptop is not None
        return
    if name.startswith("tiny") and name != "tiny_oneshot":
        assert load_recipe(name).model.tiny is not None
        return
    with pytest.raises(
        UserError, match=r"begins with a checkpoint: say --model PATH, a folder with \S"
    ):
        load_recipe(name)
    assert load_recipe(name, Path("/models/base")).model.path == Path("/models/base")


def test_published_values() -> None:
    model = Path("/m")
    sft, oneshot, lora = (
        load_recipe(n, model)
        for n in ("procvlm_sft", "procvlm_oneshot_lora", "progresslm_sft_lora")
    )
    assert (sft.train.lr, sft.train.merger_lr, sft.train.vision_lr, sft.train.epochs) == (
        1e-5,
        2e-5,
        5e-6,
        3,
    )
    assert (sft.train.schedule, sft.train.warmup, sft.train.weight_decay) == ("cosine", 0.03, 0.01)
    assert oneshot.lora is not None
    assert (oneshot.lora.rank, oneshot.lora.alpha, oneshot.lora.dropout) == (64, 128, 0.05)
    assert lora.lora is not None
    assert (lora.lora.rank, lora.lora.alpha, lora.train.lr, lora.train.epochs) == (8, 16, 1e-4, 3)
    assert (lora.train.batch, lora.train.accumulation) == (2, 8)
    assert load_recipe("progresslm_sft_lora_7b", model).train.epochs == 2
    # Not published: a head that begins at random has a rate of its own.
    assert oneshot.train.head_lr == sft.train.head_lr == 10 * oneshot.train.lr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BASE + "lr: 2\n", "lr: no such field; did you mean train.lr?"),
        (BASE.replace("batch:", "bacth:"), "train.bacth: no such field; did you mean batch?"),
        (
            BASE.replace("head: {}", "head: {poolin: prompt}"),
            "head.poolin: no such field; did you mean pooling?",
        ),
        (
            BASE.replace("tiny: {}", "tiny: {hiden: 64}"),
            "model.tiny.hiden: no such field; did you mean hidden?",
        ),
        (BASE + "zzz: 1\n", "zzz: no such field; known: name, kind, model"),
        (BASE.replace("steps: 1", "steps: 1, epochs: 2"), "train: exactly one of epochs and steps"),
        (
            BASE.replace("tiny: {}", "tiny: {}, path: /m"),
            "model: one of tiny, laptop and path, not several",
        ),
        (BASE.replace("lr: 1", "lr: high"), "train.lr: input should be a valid number"),
        (
            BASE.replace("lr: 1", "lr: 1, text_weight: 0").replace("head: {}\n", ""),
            "nothing to learn",
        ),
        (
            BASE + "data: {jsonl: [a], per_visit: 2}\n",
            "data: dataset_rates and per_visit are for shards",
        ),
        (
            BASE + "data: {dataset_rates: {a: -1}}\n",
            "data.dataset_rates.a: input should be greater than or equal to 0",
        ),
        (
            BASE.replace("lr: 1", "lr: 1, evaluate_every: 2") + "data: {jsonl: [a]}\n",
            "data.validation_jsonl: with train.",
        ),
        (BASE.replace("tiny: {}", "tiny: {}, liger: true"), "model.liger: no such field"),
        ("like: tiny_head\ntrain: {lrs: 1}\n", "train.lrs: no such field; did you mean lr?"),
        ("like: r.yaml\n", "is not a YAML mapping of recipe fields: nested too deeply"),
        (
            BASE + "data: {jsonl: [a], negatives: {rewound: 0.1}}\n",
            "data.negatives: rows of data.jsonl name no",
        ),
        (
            BASE + "data: {families: {procvqa_b: 1}, negatives: {rewound: 0.1}}\n",
            "data.negatives: they are made of",
        ),
        (
            BASE + "data: {negatives: {rewound: 0.6, other_task: 0.5}}\n",
            "data.negatives: the rates are 1.1 together",
        ),
        ("- a\n", "is not a YAML mapping of recipe fields"),
        (
            BASE.replace("{tiny", "{attention: flash, tiny"),
            "unknown attention 'flash'; known: auto, sdpa, varlen",
        ),
        (
            BASE.replace("{tiny", f"{{attention: {FLASH}, tiny"),
            "calculates in train.dtype: bfloat16 only",
        ),
        (GRPO, "kind: grpo and the section grpo go together"),
        (GRPO.replace("kind: grpo", "grpo: {}"), "kind: grpo and the section grpo go together"),
        (GRPO + "grpo: {}\nhead: {}\n", "grpo rewards words"),
        (
            GRPO + "grpo: {}\ndata: {families: {procvqa_c: 1}}\n",
            "data.families: grpo draws its prompts",
        ),
        (GRPO + "grpo: {}\ndata: {per_visit: 2}\n", "data.per_visit: grpo draws its prompts"),
        (
            GRPO + "grpo: {validate_every: 2}\ndata: {jsonl: [a]}\n",
            "data.validation_jsonl: with grpo.validate_every",
        ),
        (
            GRPO + "grpo: {validation_jsonl: [a]}\n",
            "no such field; did you mean data.validation_jsonl?",
        ),
        (GRPO + "grpo: {generation: 3}\n", "did you mean generations"),
        (GRPO + "grpo: {temperature: 0}\n", "grpo.temperature: input should be greater than 0"),
    ],
)
def test_a_wrong_recipe_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as e:
        load_recipe(str(path))
    assert told in str(e.value)
    assert str(path) in str(e.value)
    assert "\n" not in str(e.value)


def test_an_unknown_name_is_told_with_those_that_there_are() -> None:
    with pytest.raises(
        UserError, match=r"unknown recipe 'tiny'; known: laptop, laptop_oneshot, .*tiny_cpu"
    ):
        load_recipe("tiny")


def test_a_recipe_may_be_like_another(tmp_path: Path) -> None:
    base = tmp_path / "a.yaml"
    other_file = tmp_path / "b.yaml"
    base.write_text("like: tiny_lora\nname: a\ntrain: {lr: 0.5}\n")
    other_file.write_text("like: a.yaml\nname: b\nlora: null\nhead: {noise: 0.5}\n")
    derived = load_recipe(str(other_file))
    start = load_recipe("tiny_lora")
    assert (derived.name, derived.lora, derived.train.lr) == ("b", None, 0.5)
    assert derived.train.schedule == start.train.schedule == "linear"
    other_file.write_text(
        other_file.read_text() + f"model: {{attention: {FLASH}}}\ntrain: {{dtype: bfloat16}}\n"
    )
    assert load_recipe(str(other_file)).model.attention == FLASH
    assert derived.head == start.head.model_copy(update={"noise": 0.5})  # type: ignore[union-attr]

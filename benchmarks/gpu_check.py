"""Training at true size on a GPU: speed, memory and whether what must work does, in under eight minutes.

    python benchmarks/gpu_check.py [--out FILE.json] [--tiny]

Needs torch, transformers, numpy and safetensors alone (peft is used where it is there), no data and no network: a model
of Qwen3-VL-2B's size with random weights, and samples made of random pixels and tokens, as long as ProcVQA's (1 to 17
pictures of 64 tokens). `--tiny` runs the same on a CPU, on a model of two layers, to show that the script works.

Compared are three ways to lay out the same samples: packed rows, batches of like length, and batches as they come,
padded to their longest. Only real tokens are counted. The exit code is 1 when a check fails.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn

from training.backbones import attention_of
from training.checkpoint import TrainerState, chance_state, load_state, save_state, set_chance
from training.flops import cost, peak_flops
from training.heads import make_head
from training.model import ProgressModel, losses
from training.transform import Batch, Tokens, Transform, pack

SEED = 0
IMAGE, VIDEO, VISION_START, VISION_END, PAD = 4, 5, 6, 7, 0
FIRST_WORD = 16
HEAD = {"loss": "l1", "done_weight": 0.1, "dropout": 0.0, "noise": 0.0, "bins": 20, "huber_beta": 0.05}


@dataclass(frozen=True)
class Size:
    """A model and a load. grid: patches of a picture's side; row: tokens of a packed row."""

    text: dict[str, Any]
    vision: dict[str, Any]
    grid: int
    row: int
    samples: int
    steps: int


# Qwen3-VL-2B-Instruct's config.json; ids of special tokens are ours
TRUE = Size(
    text={
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5000000.0,
            "mrope_section": [24, 20, 20],
            "mrope_interleaved": True,
        },
    },
    vision={
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "out_hidden_size": 2048,
        "patch_size": 16,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [5, 11, 17],
    },
    grid=16,
    row=8192,
    samples=48,
    steps=6,
)
TINY = Size(
    text=TRUE.text
    | {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16}
    | {"num_attention_heads": 4, "num_key_value_heads": 2}
    | {"rope_parameters": TRUE.text["rope_parameters"] | {"mrope_section": [4, 2, 2]}},
    vision=TRUE.vision
    | {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": 64}
    | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
    grid=4,
    row=512,
    samples=8,
    steps=1,
)


def make_model(size: Size, attention: str, pooling: str, device: str) -> ProgressModel:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    config = Qwen3VLConfig(
        text_config=size.text | {"pad_token_id": PAD, "bos_token_id": None, "eos_token_id": 1},  # type: ignore[arg-type]
        vision_config=size.vision | {"spatial_merge_size": 2, "temporal_patch_size": 2},  # type: ignore[arg-type]
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=True,
    )
    config._attn_implementation = attention_of(attention)  # type: ignore[assignment]
    torch.manual_seed(SEED)
    with torch.device(device):
        backbone = Qwen3VLForConditionalGeneration(config)
        settings: Any = SimpleNamespace(pooling=pooling, has_done=pooling == "prompt", **HEAD)
        head = make_head(settings, size.text["hidden_size"])
    return ProgressModel(backbone, head)


@dataclass(frozen=True)
class Made:
    """A sample without a meaning."""

    tokens: Tokens
    pictures: int


def make_samples(size: Size) -> list[Made]:
    """As many pictures as ProcVQA's family c has: one in three in ten samples, else 5 to 17."""
    rng = np.random.default_rng(SEED)
    each = (size.grid // 2) ** 2
    made = []
    for _ in range(size.samples):
        n = 1 if rng.random() < 0.3 else int(rng.integers(5, 18))
        words = [rng.integers(FIRST_WORD, size.text["vocab_size"], k).tolist() for k in (60, 60)]
        prompt = [t for _ in range(n) for t in (VISION_START, *[IMAGE] * each, VISION_END)] + words[0]
        made.append(Made(Tokens(torch.tensor(prompt + words[1]), len(prompt)), n))
    return made


def layouts(samples: list[Made], size: Size) -> dict[str, list[list[list[Made]]]]:
    """Steps of rows of samples: about as many tokens in a step whichever way."""
    lengths = [len(s.tokens.ids) for s in samples]
    rows = [[samples[k] for k in row] for row in pack(range(len(samples)), lengths, size.row)]
    each = max(1, round(len(samples) / len(rows)))  # samples a step
    alike = sorted(samples, key=lambda s: len(s.tokens.ids))

    def cut(of: list[Made]) -> list[list[list[Made]]]:
        return [[[s] for s in of[k : k + each]] for k in range(0, len(of), each)]

    return {"packed": [[row] for row in rows], "like length": cut(alike), "plain padding": cut(samples)}


def make_batch(rows: list[list[Made]], size: Size, packed: bool, device: str) -> Batch:
    samples = [s for row in rows for s in row]
    pictures = sum(s.pictures for s in samples)
    g = torch.Generator().manual_seed(SEED)
    pixels = {
        "pixel_values": torch.randn(pictures * size.grid**2, 3 * 2 * size.vision["patch_size"] ** 2, generator=g),
        "image_grid_thw": torch.tensor([[1, size.grid, size.grid]] * pictures),
    }
    tokenizer = SimpleNamespace(pad_token_id=PAD, convert_tokens_to_ids=lambda token: IMAGE)
    transform = Transform(
        SimpleNamespace(tokenizer=tokenizer, image_token="image", image_processor=SimpleNamespace(merge_size=2))
    )
    tokens = [s.tokens for s in samples]
    batch = transform.packed(tokens, [len(r) for r in rows], pixels) if packed else transform.padded(tokens)
    labels = {"progress": torch.rand(len(samples), generator=g)}
    return {k: v.to(device) for k, v in (batch | pixels | labels).items()}


def add_lora(model: ProgressModel, rank: int = 16) -> None:
    """An adapter on the language model's attention, peft's where it is there; all but it and the head is frozen."""
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    try:
        import peft
    except ImportError:
        for p in model.backbone.parameters():
            p.requires_grad_(False)
        for layer in model.backbone.model.language_model.layers:
            for name in names:
                setattr(layer.self_attn, name, _Lora(getattr(layer.self_attn, name), rank))
        return
    targets = rf".*language_model\..*\.({'|'.join(names)})"
    model.backbone.add_adapter(peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))


class _Lora(nn.Module):
    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        where = base.weight.device
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features, device=where) / base.in_features**0.5)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=where))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + 2 * nn.functional.linear(nn.functional.linear(x, self.lora_A), self.lora_B)


class Run:
    """A model in training, as training.loop does a step, without processes and data of its own."""

    def __init__(self, model: ProgressModel, device: str, lr: float = 1e-5, checkpointing: bool = False) -> None:
        self.model, self.device = model.train(), device
        if checkpointing:
            model.backbone.activation_checkpointing_enable({"use_reentrant": False})
        learns = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learns, lr=lr, fused=device.startswith("cuda"))
        self.cost = cost(model.backbone)

    def step(self, batch: Batch) -> float:
        cuda = self.device.startswith("cuda")
        with torch.autocast("cuda", dtype=torch.bfloat16) if cuda else nullcontext():
            output = self.model(batch, with_text=True)
        found = losses(self.model.head, output, batch)
        loss = found.text / max(1, found.tokens) + 0.2 * found.progress / max(1, found.labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def measure(run: Run, batches: list[Batch], size: Size) -> dict[str, Any]:
    """Speed over some steps after each batch was seen once, and memory at its highest."""
    cuda = run.device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    found = [run.step(b) for b in batches]
    turns = [batches[k % len(batches)] for k in range(max(size.steps, len(batches)))]
    wait(run.device)
    started = time.perf_counter()
    found += [run.step(b) for b in turns]
    wait(run.device)
    seconds = time.perf_counter() - started
    held = [b["item_mask" if "item_mask" in b else "attention_mask"] for b in turns]
    tokens = sum(int(m.sum()) for m in held)
    return {
        "loss": found[-1],
        "finite": all(map(math.isfinite, found)),
        "tokens_per_s": tokens / seconds,
        "samples_per_s": sum(len(b["progress"]) for b in turns) / seconds,
        "mfu": sum(run.cost.of(b) for b in turns) / seconds / peak_flops(run.device),
        "filled": tokens / sum(b["input_ids"].numel() for b in turns),
        "memory_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else None,
    }


def tried(name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A row of the table; what fails for want of memory or of a kernel says so, and the others go on."""
    started = time.perf_counter()
    try:
        row = work()
    except (RuntimeError, ImportError, ValueError) as e:
        row = {"error": f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"}
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    row = {"what": name, "took_s": round(time.perf_counter() - started, 1), **row}
    print(f"  {name}: {row.get('error') or 'done'} ({row['took_s']} s)", file=sys.stderr, flush=True)
    return row


def check_resume(size: Size, batches: list[Batch], device: str) -> dict[str, Any]:
    """An adapter and a head trained for four steps, and again from what was kept after two."""
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_model_state_dict,
        get_optimizer_state_dict,
        set_model_state_dict,
        set_optimizer_state_dict,
    )

    def fresh() -> Run:
        model = make_model(size, "sdpa", "prompt", device)
        add_lora(model)
        return Run(model, device, lr=1e-3)

    turns = [batches[k % len(batches)] for k in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        run = fresh()
        whole = [run.step(b) for b in turns[:2]]
        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
        optimizer = get_optimizer_state_dict(run.model, run.optimizer, options=options)
        save_state(Path(folder), TrainerState(2, 0, 0, [], [chance_state()], []), optimizer)
        kept: dict[str, Any] = get_model_state_dict(run.model, options=options)
        weights = {k: v.clone() for k, v in kept.items()}
        whole += [run.step(b) for b in turns[2:]]
        del run
        again = fresh()
        options = StateDictOptions(full_state_dict=True, strict=False)
        set_model_state_dict(again.model, weights, options=options)
        state, optimizer = load_state(Path(folder))
        options = StateDictOptions(full_state_dict=True)
        set_optimizer_state_dict(again.model, again.optimizer, optimizer, options=options)
        set_chance(state.chance[0])
        off = max(abs(a - again.step(b)) for a, b in zip(whole[2:], turns[2:], strict=True))
    return {"loss": whole[-1], "finite": all(map(math.isfinite, whole)), "resumed_differs_by": off, "same": off < 1e-3}


def attentions(device: str) -> Iterator[str]:
    yield "sdpa"
    if device.startswith("cuda"):
        import importlib.util

        yield "flex_attention"
        if importlib.util.find_spec("flash_attn"):
            yield "flash_attention_2"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a model of two layers, on the CPU")
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    args = parser.parse_args()
    size, device = (TINY, "cpu") if args.tiny else (TRUE, "cuda:0")
    if not args.tiny and not torch.cuda.is_available():
        print("error: there is no GPU; --tiny shows on the CPU that the script works", file=sys.stderr)
        return 2
    started = time.perf_counter()
    samples = make_samples(size)
    steps = layouts(samples, size)
    packed = [make_batch(rows, size, True, device) for rows in steps["packed"]]
    table = []

    def full(attention: str, batches: list[Batch], checkpointing: bool, pooling: str = "prompt") -> dict[str, Any]:
        model = make_model(size, attention, pooling, device)
        return measure(Run(model, device, checkpointing=checkpointing), batches, size)

    def adapter() -> dict[str, Any]:
        model = make_model(size, "sdpa", "prompt", device)
        add_lora(model)
        return measure(Run(model, device, lr=1e-4), packed, size)

    for attention in attentions(device):
        for checkpointing in (False, True) if attention == "sdpa" else (False,):
            name = f"packed, {attention}{', recomputed' if checkpointing else ''}"
            table.append(tried(name, lambda a=attention, c=checkpointing: full(a, packed, c)))
    for name in ("like length", "plain padding"):
        batches = [make_batch(rows, size, False, device) for rows in steps[name]]
        table.append(tried(name, lambda b=batches: full("sdpa", b, False)))
    table.append(tried("packed, published head", lambda: full("sdpa", packed[:1], False, "published")))
    table.append(tried("packed, LoRA and head", adapter))
    table.append(tried("resume", lambda: check_resume(size, packed, device)))

    rate = {row["what"]: row.get("tokens_per_s", 0.0) for row in table}
    best = max(rate[n] for n in rate if n.startswith("packed, ") and "LoRA" not in n)
    plain = rate["plain padding"]
    report = {
        "device": torch.cuda.get_device_name() if device != "cpu" else "CPU",
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in make_model(size, "sdpa", "prompt", "meta").parameters()),
        "samples": {"number": len(samples), "tokens": [len(s.tokens.ids) for s in samples]},
        "peak_flops": peak_flops(device),
        "packed_to_plain_padding": best / plain if plain else None,
        "seconds": round(time.perf_counter() - started, 1),
        "size": {k: v for k, v in asdict(size).items() if k in ("grid", "row", "steps")},
        "rows": table,
    }
    show(report)
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")
    failed = [row["what"] for row in table if "error" in row or not row["finite"] or not row.get("same", True)]
    if failed:
        print(f"error: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def show(report: dict[str, Any]) -> None:
    print(f"{report['device']}, torch {report['torch']}, {report['parameters'] / 1e9:.2f} B parameters")
    head = ("what", "tokens/s", "samples/s", "MFU", "filled", "GB", "loss")
    lines: list[tuple[str, ...]] = [head]
    for row in report["rows"]:
        if "error" in row:
            lines.append((row["what"], row["error"], *[""] * 5))
            continue
        memory = row.get("memory_gb")
        numbers = (
            (f"{row['tokens_per_s']:,.0f}", f"{row['samples_per_s']:.1f}", f"{row['mfu']:.1%}", f"{row['filled']:.0%}")
            if "tokens_per_s" in row
            else ("differs by", f"{row['resumed_differs_by']:.1e}", "", "")
        )
        lines.append((row["what"], *numbers, f"{memory:.1f}" if memory else "", f"{row['loss']:.3f}"))
    for line in lines:
        print("| " + " | ".join(line) + " |")
    ratio = report["packed_to_plain_padding"]
    print(f"packed is {ratio:.2f} times as fast as plain padding; {report['seconds']} s in all" if ratio else "")


if __name__ == "__main__":
    sys.exit(main())

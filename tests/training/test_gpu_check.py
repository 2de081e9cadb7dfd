"""The GPU's check, tiny on a CPU: the real loader, trainer and saving; a row that does not hold is named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.true_size import SHAPES, make_backbone
from training.backbones import make_tokenizer
from training.model import ProgressModel


def checked(folder: Path, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code = gpu_check.main(["--tiny", "--out", str(folder / "figures.json"), *options])
    report = json.loads((folder / "figures.json").read_text())
    return code, {row["what"]: row for row in report["rows"]}


@pytest.mark.slow
def test_all_of_it_holds(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    code, rows = checked(tmp_path, "--minutes", "60")
    written = capsys.readouterr()
    assert code == 0, written.err[-3000:]
    assert list(rows)[:2] == ["resume", "GRPO, a step, answers by transformers"]
    ladder = [rows[f"packed, {name}"] for name in gpu_check.LADDER]
    assert all(row["differs_by"] < 2e-2 and row["planned_gb"] > 0 for row in ladder)
    assert max(row["differs_by"] for row in ladder[:3]) < 1e-5, "compiled and not"
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
    assert "times plain padding (pictures are never padded)" in written.out


def test_rows_after_the_last_minute_are_left_out_and_named(
    tmp_path: Path,
) -> None:
    code, rows = checked(tmp_path, "--minutes", "0")
    assert code == 0
    assert {row["error"] for row in rows.values()} == {"left out: --minutes are over"}
    assert len(rows) >= len(gpu_check.LADDER) + 8


@pytest.mark.slow
def test_what_does_not_hold_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that says something else of packed samples, as one to which all of a row are one sample would."""
    forward = ProgressModel.forward

    def leaking(
        self: ProgressModel, batch: dict[str, torch.Tensor], *args: Any, **kwargs: Any
    ) -> Any:
        output = forward(self, batch, *args, **kwargs)
        if "item_mask" in batch:
            assert output.progress is not None
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


def test_without_a_gpu_it_says_so(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_shapes_are_as_large_as_the_published_models(shape: str, billions: float) -> None:
    model = make_backbone(SHAPES[shape], make_tokenizer(["a"], 800), "meta")
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, abs=0.006)

"""A vision-language model with a progress head that reads before it answers.

The head pools, by learned attention, the hidden states of vision and question tokens only. A causal model's states
there cannot see the answer, so a reward is one prefill with no decoding and cannot copy the answer's number.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from training.transform import IGNORE, Batch

HEAD_FILE = "progress_head.safetensors"
HEAD_CONFIG = "progress_head.json"


class ModelError(Exception):
    """A checkpoint that cannot be used: which folder, what is wrong."""


@dataclass(frozen=True)
class Output:
    """progress [b] in 0..1; logits [b, t, vocabulary] when labels were given, else None."""

    progress: torch.Tensor
    logits: torch.Tensor | None


class ProgressHead(nn.Module):
    """Attention pooling and a small network to one logit; hidden states [b, t, h], mask [b, t] -> [b]."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(hidden_size, hidden_size // 4), nn.GELU(), nn.Linear(hidden_size // 4, 1))
        self.value = nn.Sequential(
            nn.LayerNorm(hidden_size), nn.Linear(hidden_size, hidden_size), nn.GELU(), nn.Linear(hidden_size, 1)
        )

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores = self.score(states).squeeze(-1).float().masked_fill(mask == 0, float("-inf"))
        weights = scores.softmax(-1).to(states.dtype)
        return self.value(torch.einsum("bt,bth->bh", weights, states)).squeeze(-1).float()


class ProgressModel(nn.Module):
    """A transformers vision-language model (Qwen3-VL) and the progress head."""

    def __init__(self, backbone: Any, head: ProgressHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, batch: Batch, with_text: bool = False) -> Output:
        """Progress from the prompt's states; with_text also gives logits for the answer's loss."""
        inputs = {
            k: batch[k]
            for k in ("input_ids", "attention_mask", "mm_token_type_ids", "pixel_values", "image_grid_thw")
            if k in batch
        }
        states = self.backbone.model(**inputs).last_hidden_state
        progress = torch.sigmoid(self.head(states, batch["prompt_mask"]))
        return Output(progress, self.backbone.lm_head(states) if with_text else None)


@dataclass(frozen=True)
class Losses:
    total: torch.Tensor
    text: torch.Tensor
    progress: torch.Tensor


def losses(output: Output, batch: Batch, text_weight: float, progress_weight: float) -> Losses:
    """text_weight x cross entropy on answer tokens + progress_weight x mean |progress - label|."""
    zero = output.progress.sum() * 0.0
    known = ~torch.isnan(batch["progress"])
    off = (output.progress - torch.nan_to_num(batch["progress"])).abs()
    progress = (off * known).sum() / known.sum().clamp(min=1)
    text = zero
    if output.logits is not None:
        wanted = batch["labels"][:, 1:]
        text = nn.functional.cross_entropy(
            output.logits[:, :-1].float().flatten(0, 1), wanted.flatten(), ignore_index=IGNORE
        )
    return Losses(text_weight * text + progress_weight * progress, text.detach(), progress.detach())


def save_model(model: ProgressModel, processor: Any, folder: Path, card: dict[str, Any]) -> None:
    """Write a checkpoint folder: safetensors and JSON only."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # one of ours is on the terminal already
    folder.mkdir(parents=True, exist_ok=True)
    model.backbone.save_pretrained(folder, safe_serialization=True)
    processor.save_pretrained(folder)
    # transformers writes the chat template as a Jinja file; its older JSON form is read as well
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": processor.chat_template}) + "\n")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    save_file({k: v.contiguous() for k, v in model.head.state_dict().items()}, folder / HEAD_FILE)
    head = {"hidden_size": model.backbone.config.text_config.hidden_size, "pooling": "attention over prompt"}
    (folder / HEAD_CONFIG).write_text(json.dumps(head, indent=1) + "\n")
    (folder / "card.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")


def load_model(folder: Path) -> tuple[ProgressModel, Any, dict[str, Any]]:
    """Model, processor and card of a checkpoint folder; nothing is unpickled, no remote code. Raises ModelError."""
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    missing = [n for n in ("config.json", HEAD_FILE, HEAD_CONFIG, "card.json") if not (folder / n).exists()]
    if missing:
        raise ModelError(f"{folder} is not a checkpoint of a progress model: {', '.join(missing)} missing")
    try:
        head = ProgressHead(json.loads((folder / HEAD_CONFIG).read_text())["hidden_size"])
        head.load_state_dict(load_file(folder / HEAD_FILE))
        backbone = Qwen3VLForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        card = json.loads((folder / "card.json").read_text())
    except (OSError, ValueError, KeyError, RuntimeError) as e:
        raise ModelError(f"the checkpoint {folder} cannot be loaded: {' '.join(str(e).split())[:300]}") from e
    return ProgressModel(backbone, head).eval(), processor, card

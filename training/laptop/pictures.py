"""Pictures through the frozen encoder of the embeddings stage: numbers that are kept, so that each is seen once."""

from collections.abc import Sequence

import numpy as np

from annotate.embeddings.encoders import Encoder, encoder_input


def embed(encoder: Encoder, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """float32 [n, d] of RGB pictures uint8 [h, w, 3]; in the encoder's own batches, the last filled up with black.

    Up to two small batches take the place of a large one, which costs more than both.
    """
    small = [encoder_input(rgb, encoder.size_px) for rgb in pictures]
    found, at = [], 0
    while at < len(small):
        size = encoder.batch if len(small) - at > 2 * encoder.small_batch else encoder.small_batch
        batch = np.zeros((size, encoder.size_px, encoder.size_px, 3), np.uint8)
        part = small[at : at + size]
        batch[: len(part)] = part
        found.append(encoder.embed(batch)[: len(part)])
        at += len(part)
    return np.concatenate(found) if found else np.zeros((0, 0), np.float32)

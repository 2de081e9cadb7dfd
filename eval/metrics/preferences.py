"""Which of two is further, or better? The share of pairs of runs of one task that a model orders as they are."""

from collections.abc import Mapping, Sequence

import numpy as np

from annotate.preferences import WHYS, Pair
from eval.metrics.score import Measure, ratio_of

Key = tuple[str, int]


def preference_measures(
    pairs: Sequence[Pair], scores: Mapping[Key, np.ndarray], episodes: Sequence[Key], name: str = "preference"
) -> dict[str, Measure]:
    """Accuracy over all pairs, `<name>_accuracy`, and of each kind that there are, `<name>_further` and so on.

    `scores`: what a model says of each moment of an episode [t], of which the frames of a pair's parts are the numbers.
    The greater mean is the model's choice; equal ones are half right, a score that is missing (NaN) is wrong. A pair
    counts half for each of its two episodes, so that resampling episodes resamples pairs. (Christiano 2017 and
    Robometer, arXiv 2603.02115, report it; a clock has 0.5 on outcomes.)
    """
    by_name = {f"{name}_accuracy": list(pairs)} if pairs else {}
    by_name |= {f"{name}_{why}": found for why in WHYS if (found := [p for p in pairs if p.why == why])}
    return {metric: _accuracy(found, scores, episodes) for metric, found in by_name.items()}


def _accuracy(pairs: Sequence[Pair], scores: Mapping[Key, np.ndarray], episodes: Sequence[Key]) -> Measure:
    number = {key: k for k, key in enumerate(episodes)}
    right, count, read = (np.zeros(len(episodes)) for _ in range(3))
    for pair in pairs:
        chosen, rejected = (float(np.mean(scores[p.key][list(p.frames)])) for p in (pair.chosen, pair.rejected))
        is_read = not np.isnan(chosen - rejected)
        at = [number[pair.chosen.key], number[pair.rejected.key]]
        np.add.at(count, at, 0.5)
        np.add.at(read, at, 0.5 * is_read)
        np.add.at(right, at, 0.5 * ((chosen > rejected) + 0.5 * (chosen == rejected)))
    return ratio_of(right, count, np.stack([read, count], 1))

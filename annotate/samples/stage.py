"""The samples stage: question-answer samples of the labelled episodes of a chunk.

Everything random is seeded per (seed, dataset, episode, family), so samples do not depend on the order of work or on
the number of workers. Quotas per episode and windows in seconds make them independent of the frame rate. What a sample
compares an episode with comes from the same chunk and the same split.
"""

from collections import defaultdict
from collections.abc import Sequence

import pyarrow as pa

from annotate.samples import procvqa, progresslm
from annotate.samples.config import SamplesConfig
from annotate.samples.labelled_episode import LabelledEpisode
from core.tables import TABLES

CODE_VERSION = "samples-3"


def samples_stage(episodes: Sequence[LabelledEpisode], config: SamplesConfig) -> pa.Table:
    """The table samples."""
    by_split: dict[str, list[LabelledEpisode]] = defaultdict(list)
    for e in sorted(episodes, key=lambda e: e.episode_index):
        by_split[e.split].append(e)
    rows = []
    for e in episodes:
        rows += procvqa.samples(e, config)
        rows += progresslm.samples(e, by_split[e.split], config)
    unique = {r["sample_id"]: r for r in rows}  # a draw may come out twice
    return TABLES["samples"].rows(list(unique.values()))

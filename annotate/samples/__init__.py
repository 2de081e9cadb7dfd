"""The samples stage: question-answer samples of the labelled episodes of a chunk.

Everything random is seeded per (seed, dataset, episode, family), so samples do not depend on the
order of work or on the number of workers. Quotas per episode and windows in seconds make them
independent of the frame rate. What a sample compares an episode with comes from the same split:
from the same chunk, or of another task from what the listing names beyond it. Labels of steps
without names, and those that are not sure of them, make samples of their progress alone.
"""

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

import annotate.samples.procvqa as procvqa
import annotate.samples.progresslm as progresslm
from annotate.config import SamplesConfig
from annotate.samples.labelled_episode import LabelledEpisode
from core.domain.label import Episode
from core.tables import TABLES
from core.values import grouped


def samples_stage(
    episodes: Sequence[LabelledEpisode],
    config: SamplesConfig,
    listed_episodes: Sequence[Episode] = (),
) -> pa.Table:
    """The table samples, of the labels that are sure enough; `listed_episodes`: what pictures may also be of."""
    gate = config.gate
    confident_episodes = [
        replace(e, label=e.label.with_gate(gate))
        for e in episodes
        if gate.admits(e.label.confidence)
    ]
    # By their index, whatever order they came in: samples are drawn from among the others of the split
    in_order = sorted(confident_episodes, key=lambda e: e.episode.episode_index)
    by_split = grouped((e.episode.split, e) for e in in_order)
    samples = []
    for e in confident_episodes:
        samples += procvqa.samples(e, config)
        split_episodes = by_split[e.episode.split]
        samples += progresslm.samples(e, split_episodes, listed_episodes, config)
    # A draw may come out twice: the later one takes the earlier one's place
    return TABLES["samples"].rows(
        list({sample["sample_id"]: sample for sample in samples}.values())
    )

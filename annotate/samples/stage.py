"""The samples stage: question-answer samples of the labelled episodes of a chunk.

Everything random is seeded per (seed, dataset, episode, family), so samples do not depend on the order of work or on
the number of workers. Quotas per episode and windows in seconds make them independent of the frame rate. What a sample
compares an episode with comes from the same split: from the same chunk, or of another task from what the listing names
beyond it. Labels of steps without names, and those that are not sure of them, make samples of their progress alone.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

import annotate.samples.procvqa as procvqa
import annotate.samples.progresslm as progresslm
from annotate.label_gate import LabelGate
from annotate.samples.config import SamplesConfig
from annotate.samples.labelled_episode import LabelledEpisode
from annotate.samples.sample_row import SampleRow
from annotate.samples.unanswerable import Stranger
from core.tables import TABLES

CODE_VERSION = "samples-4"


def samples_stage(
    episodes: Sequence[LabelledEpisode], config: SamplesConfig, strangers: Sequence[Stranger] = ()
) -> pa.Table:
    """The table samples, of the labels that are sure enough; `strangers`: what pictures may also be of."""
    episodes = [_sure_of(e, config.gate) for e in episodes if config.gate.admits(e.confidence)]
    by_split = _by_split(episodes)
    samples: list[SampleRow] = []
    for e in episodes:
        samples += procvqa.samples(e, config)
        samples += progresslm.samples(e, by_split[e.split], strangers, config)
    # A draw may come out twice: the later one takes the earlier one's place
    by_id = {sample.sample_id: sample for sample in samples}
    return TABLES["samples"].rows([sample.as_row() for sample in by_id.values()])


def _sure_of(e: LabelledEpisode, gate: LabelGate) -> LabelledEpisode:
    """The episode, without names where its label's may not be used."""
    return replace(e, named=gate.admits_names(e.confidence, named=e.named))


def _by_split(episodes: Sequence[LabelledEpisode]) -> dict[str, list[LabelledEpisode]]:
    """The episodes of each split by their index, whatever order they came in: samples are drawn from these lists."""
    by_split: dict[str, list[LabelledEpisode]] = defaultdict(list)
    for e in sorted(episodes, key=lambda e: e.episode_index):
        by_split[e.split].append(e)
    return by_split

"""The tables of the lake, in one place. Imports nothing of ours. The views over them stand in warehouse/lake/views/.

Indices: `episode_index` counts episodes of one dataset, `frame_index` counts frames of one episode
from 0, `chunk` = episode_index // chunk_size. Spans are half-open: `end_frame` is the first frame
after the segment. Content tables are equal for equal inputs, configuration and seed; event tables
carry times and run ids.
"""

from itertools import chain

from core.tables.definition import Column, Table, without_episodes
from core.tables.episodes import EPISODE_TABLES
from core.tables.events import EVENT_TABLES, STATEMENTS
from core.tables.labels import LABEL_TABLES, SPLITS

__all__ = [
    "SPLITS",
    "STAGED_TABLES",
    "STAGE_TABLES",
    "STATEMENTS",
    "TABLES",
    "Column",
    "Table",
    "without_episodes",
]

TABLES: dict[str, Table] = {t.name: t for t in (*EPISODE_TABLES, *LABEL_TABLES, *EVENT_TABLES)}

# The tables that each stage of the corpus writes into its partition, the one that it is known by first; beside findings
STAGE_TABLES = {
    "episodes": ("episode_facts", "splits", "other_tasks"),
    "frames": (
        "frames",
        "tiny_pictures",
        "episode_content",
        "states",
        "keyframes",
        "signal_lags",
    ),
    "demonstrations": ("demonstration_measures",),
    "embeddings": ("embeddings",),
    "segments": ("segments", "episode_labels", "keyframes", "alignments"),
    "transfer": ("segments", "episode_labels", "progress", "label_quality", "alignments"),
    "corrections": ("segments", "episode_labels", "progress", "label_quality"),
    "progress": ("progress", "label_quality", "label_disagreement", "active_runs"),
    "reasoning": ("reasoning",),
    "samples": ("samples",),
    "shards": ("shards", "sample_location"),
}
STAGED_TABLES = tuple(sorted(set(chain.from_iterable(STAGE_TABLES.values()))))

"""The labels of a release's episodes at every frame: for moments that no sample asks about."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from annotate.samples.labelled_episode import LabelledEpisode
from warehouse.lake import Lake
from warehouse.lake.labels import active_labels_of, dataset_gates
from warehouse.lake.sql import open_for_users
from warehouse.releases import Release
from warehouse.shards import read_index

# By dataset and episode
Labels = Mapping[tuple[str, int], LabelledEpisode]

EPISODES = """
WITH p AS (
  SELECT episode_index, list(progress::FLOAT ORDER BY frame_index) AS progress FROM active_progress
  WHERE dataset = $dataset AND list_contains($episodes, episode_index) GROUP BY 1)
SELECT e.episode_index, e.chunk, e.fps, coalesce(e.task, l.task) AS task, e.cameras, a.label_run, l.plan, l.confidence,
       l.named, p.progress
FROM episodes e JOIN active_runs a USING (dataset, episode_index) JOIN p USING (episode_index)
LEFT JOIN episode_labels l USING (dataset, episode_index, label_run)
WHERE e.dataset = $dataset AND e.status = 'ok' ORDER BY 1
"""


def read_labels(lake: Lake, release: Release, shards: Sequence[Path], split: str = "train") -> Labels:
    """The episodes that lie in some shards of a split, by their labels at the release's snapshot; those without one
    are missing. Four bytes for each frame, and the names of segments. Raises ShardError."""
    con = open_for_users(lake.workspace, release.snapshot)
    episodes: dict[str, set[int]] = {}
    for index in map(read_index, shards):
        episodes.setdefault(index.dataset, set()).update(int(e.key.rpartition("-")[2]) for e in index.entries)
    found, gates = {}, dataset_gates(con)
    for dataset, of_dataset in sorted(episodes.items()):
        segments = active_labels_of(con, dataset, sorted(of_dataset))
        table = con.execute(EPISODES, {"dataset": dataset, "episodes": sorted(of_dataset)}).to_arrow_table()
        for facts, curve in zip(table.drop_columns("progress").to_pylist(), table["progress"], strict=True):
            if label := segments.get(facts["episode_index"]):
                facts["cameras"] = dict.fromkeys(facts["cameras"] or (), (0, 0))
                # Names are used as far as samples use them
                facts["plan"], named = tuple(facts["plan"] or ()), facts["named"] is not False
                facts["named"] = gates[dataset].admits_names(facts["confidence"], named=named)
                facts["progress"] = curve.values.to_numpy(zero_copy_only=False)
                episode = LabelledEpisode(dataset=dataset, split=split, segments=label.segments, **facts)
                found[dataset, episode.episode_index] = episode
    return found

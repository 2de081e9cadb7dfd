"""Which of some episodes a model was trained on, by what its release held."""

from collections.abc import Collection, Mapping
from contextlib import closing
from typing import Any

from warehouse.lake import Lake
from warehouse.releases.contents import held_episodes_sql
from warehouse.releases.release import find_release

# The contents that an episode has, or had when it was encoded otherwise
CONTENTS = """
SELECT dataset, episode_index, unnest(list_append(former_hashes, content_hash)) FROM episode_content
WHERE content_hash IS NOT NULL AND list_contains($1, dataset || ' ' || episode_index)"""


def seen_in_training(
    lake: Lake, model_card: Mapping[str, Any], episodes: Collection[tuple[str, int]]
) -> set[tuple[str, int]] | None:
    """Those of some episodes (dataset, episode_index) whose contents the model's training samples show.

    None: it cannot be told, since the release that the model was trained on is gone, or another one has its name now.
    """
    release = find_release(lake, model_card.get("release"))
    if release is None or release.config_hash != model_card.get("release_hash"):
        return None
    then = Lake(lake.workspace, read_only=True, snapshot=release.snapshot)
    shards = [shard.shard for shard in release.shards("train")]
    with closing(then.con):
        sql = (
            f"SELECT content_hash FROM episode_content SEMI JOIN ({held_episodes_sql()}) USING (dataset, episode_index)"
        )
        trained_on = set(then.column(sql, [shards]))
    contents = lake.rows(CONTENTS, [[f"{dataset} {index}" for dataset, index in episodes]])
    return {(dataset, index) for dataset, index, content in contents if content in trained_on}


def held_out_text(num_episodes: int, seen: Collection[tuple[str, int]] | None, trained_release: str | None) -> str:
    """What a report says of its episodes: new to the model, or not."""
    if seen is None:
        return (
            f"{num_episodes} held-out episodes; whether training saw them cannot be told: the release that the model "
            f"was trained on ({trained_release or 'none is stated'}) is gone, or another one has its name"
        )
    if not seen:
        return f"held-out episodes that training never saw ({num_episodes})"
    return (
        f"{len(seen)} of the {num_episodes} held-out episodes were trained on, by release {trained_release}: their "
        "scores say nothing of new runs"
    )

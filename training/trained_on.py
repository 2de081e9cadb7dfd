"""What a model saw in training, kept in its card, and which of some episodes that is.

A recording is known by its id and by its contents: either may change alone, as where videos are encoded anew, or where
another dataset holds a copy. Imports no torch.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from training.folder import CARD, read_card
from training.recipe import Recipe
from warehouse.lake import Lake
from warehouse.releases.release import Release, find_release

Episode = tuple[str, int]  # dataset, episode_index
# Episodes whose pictures the samples of some shards show: their own, and others that they are compared with
SHOWN = """
SELECT DISTINCT s.dataset, unnest(list_append(list_transform(s.pictures, lambda p: p.episode_index), s.episode_index))
FROM samples s JOIN sample_location l USING (dataset, chunk, sample_id) WHERE list_contains(?, l.shard)"""
# Earlier versions had some of these columns only
CONTENTS = """
SELECT dataset, episode_index, COLUMNS(c -> c IN ('content_hash', 'former_hashes', 'rows_hash'))
FROM episode_content WHERE list_contains($1, dataset || ' ' || episode_index)"""
RECORDINGS = """
SELECT dataset, episode_index, recording FROM recordings
WHERE left_at IS NULL AND list_contains($1, dataset || ' ' || episode_index)"""


@dataclass(frozen=True)
class TrainedOn:
    """`ids`: of recordings and of their contents. `is_all`: False where the model saw more, of which nothing is known,
    such as what the checkpoint saw that it began with."""

    ids: frozenset[str]
    is_all: bool = True

    def __or__(self, right: "TrainedOn") -> "TrainedOn":
        return TrainedOn(self.ids | right.ids, self.is_all and right.is_all)

    def as_json(self) -> dict[str, Any]:
        return {"ids": sorted(self.ids), "is_all": self.is_all}


UNKNOWN = TrainedOn(frozenset(), is_all=False)


def ids_of(lake: Lake, episodes: Iterable[Episode]) -> dict[Episode, set[str]]:
    """By episode of a lake, as it is or was: the ids of its recording and its contents."""
    ids: dict[Episode, set[str]] = {episode: set() for episode in episodes}
    places = [f"{dataset} {index}" for dataset, index in ids]
    for row in lake.dicts(CONTENTS, [places]):
        contents = [row["content_hash"], row.get("rows_hash"), *(row.get("former_hashes") or ())]
        ids[row["dataset"], row["episode_index"]].update(filter(None, contents))
    if lake.rows(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = 'lake' AND table_name = 'recordings'"
    ):
        for dataset, index, recording in lake.rows(RECORDINGS, [places]):
            ids[dataset, index].add(recording)
    return ids


def seen_by_release(lake: Lake, release: Release) -> TrainedOn:
    """What the train split of a release shows."""
    frozen_lake = Lake(lake.workspace, read_only=True, snapshot=release.snapshot)
    with closing(frozen_lake.con):
        episodes = frozen_lake.rows(SHOWN, [[shard.shard for shard in release.shards("train")]])
        return seen_of(frozen_lake, episodes)


def seen_of(lake: Lake, episodes: Iterable[Sequence[Any]]) -> TrainedOn:
    """What a model sees that is trained on some episodes of a lake."""
    ids = ids_of(lake, [(dataset, index) for dataset, index in episodes])
    return TrainedOn(frozenset(chain.from_iterable(ids.values())))


def seen_by_run(lake: Lake, release: Release, recipe: Recipe) -> TrainedOn:
    """What a model will have seen that a recipe trains on a release; what rows of files show cannot be told."""
    release_runs = UNKNOWN if recipe.data.jsonl else seen_by_release(lake, release)
    return release_runs | seen_before(lake, recipe.model.path)


def seen_before(lake: Lake, start: Path | None) -> TrainedOn:
    """What the checkpoint saw that a training begins with. One that is not ours is taken to know no recording."""
    if start is None or not (start / CARD).exists():
        return TrainedOn(frozenset())
    return seen_by_model(lake, read_card(start))


def seen_by_model(lake: Lake, card: Mapping[str, Any]) -> TrainedOn:
    """What a model saw, by its card; of one that an earlier version trained, by its release, while that is there."""
    card_runs = card.get("trained_on")
    if card_runs is not None:
        return TrainedOn(frozenset(card_runs["ids"]), card_runs["is_all"])
    release = find_release(lake, card["release"]) if card.get("release") else None
    if release is None or release.config_hash != card.get("release_hash"):
        return UNKNOWN
    return seen_by_release(lake, release)


@dataclass(frozen=True)
class SeenEpisodes:
    """The episodes among some that a model was trained on. `is_all`: False: it may be more."""

    episodes: frozenset[Episode]
    is_all: bool = True

    def by_slice(self, episodes_by_slice: Mapping[str, Collection[Episode]]) -> dict[str, int]:
        """Of each slice of episodes how many; without slices of which it cannot be told."""
        counts = {
            part: len(self.episodes.intersection(slice_episodes))
            for part, slice_episodes in episodes_by_slice.items()
        }
        return {part: count for part, count in counts.items() if count or self.is_all}


def seen_among(
    lake: Lake, card: Mapping[str, Any], release: Release, episodes: Iterable[Episode]
) -> SeenEpisodes:
    """Those of a release's episodes that a model was trained on, whatever release or split that was in."""
    trained_on = seen_by_model(lake, card)
    frozen_lake = Lake(lake.workspace, read_only=True, snapshot=release.snapshot)
    with closing(frozen_lake.con):
        by_episode = ids_of(frozen_lake, episodes)
    return SeenEpisodes(
        frozenset(
            e
            for e, recording_ids in by_episode.items()
            if not recording_ids.isdisjoint(trained_on.ids)
        ),
        trained_on.is_all,
    )


NOTHING_SEEN = SeenEpisodes(frozenset())  # of what is not trained


def seen_text(seen_episodes: SeenEpisodes, num_episodes: int, trained_release: str | None) -> str:
    """What a report says of its episodes: new to the model, or not."""
    unknown = (
        "cannot be told: the model's card does not list all that it saw, and the release that it was trained on "
        f"({trained_release or 'none is stated'}) is gone, or another one has its name"
    )
    if seen_episodes.episodes:
        text = f"{len(seen_episodes.episodes)} of the {num_episodes} held-out episodes were trained on: "
        text += "their scores say nothing of new runs"
        if seen_episodes.is_all:
            return text
        return f"{text}; whether training saw the others {unknown}"
    if seen_episodes.is_all:
        return f"held-out episodes that training never saw ({num_episodes})"
    return f"{num_episodes} held-out episodes; whether training saw them {unknown}"

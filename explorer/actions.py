"""What the source alone has: actions at each frame, and the names of dimensions. It is read when somebody looks."""

import json
from dataclasses import replace
from functools import lru_cache

from explorer.access import LakeReader, PageError
from explorer.episode import OF_EPISODE, LakeEpisode
from ingest.episode import Episode, RowsError, record_from_row
from ingest.registry import DatasetConfig
from ingest.source import read_episode
from ingest.sources.files import Source
from ingest.sources.types import SourceError


@lru_cache(maxsize=8)
def _source(config: str) -> Source:
    """Of a dataset's configuration, as the lake has it; kept, since it lists the dataset's files once."""
    return Source(DatasetConfig(**json.loads(config)["dataset"]), None, None)


def recorded(reader: LakeReader, episode: LakeEpisode) -> Episode:
    """An episode as its source has it; `action` is float64 [frames, dimensions], or None where there are none.

    Raises PageError: the source is not on this machine, or cannot be read.
    """
    where = f"the actions of {episode.dataset} {episode.episode_index}"
    # The source is opened as the last build opened it, so that frames are counted alike
    configured = reader.row("SELECT config FROM build_configs WHERE dataset = ?", episode.dataset)
    if configured is None:
        raise PageError(f"{where} cannot be read: the lake does not know the source of the dataset")
    source = _source(configured[0])
    # A page must not wait for a download
    if source.config.is_remote:
        raise PageError(f"{where} are at {source.config.source}: a page does not download them")
    (row,) = reader.dicts(f"SELECT * FROM episode_facts {OF_EPISODE}", *episode.key)
    try:
        read = read_episode(source, record_from_row(row))
    except (RowsError, SourceError, OSError) as e:
        raise PageError(f"{where} cannot be read: {e}") from e
    has_actions = read.action is not None and len(read.action) > 0
    return read if has_actions else replace(read, action=None)

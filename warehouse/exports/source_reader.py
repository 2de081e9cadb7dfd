"""The sources of selected episodes, read again for their pictures and rows."""

import json
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

from core.errors import UserError
from ingest.episode import EpisodeData, EpisodeRecord, record_from_row
from ingest.formats import LEROBOT, Format
from ingest.formats.lerobot_meta import read_info
from ingest.reasons import DataError
from ingest.registry import DatasetConfig
from ingest.source import format_of, read_episode
from ingest.sources.files import Source, cache_folder
from warehouse.exports.selection import ExportEpisode, Selected


class SourceReader:
    """What is read of one dataset's source. Raises UserError where the source is not there or has changed."""

    def __init__(self, selected: Selected, dataset: str) -> None:
        self.dataset, self._lake = dataset, selected.lake
        self.records = lru_cache(maxsize=2)(self._records)

    @cached_property
    def source(self) -> Source:
        """What the dataset was built from, to read only."""
        rows = self._lake.rows("SELECT config FROM build_configs WHERE dataset = ?", [self.dataset])
        if not rows:
            raise UserError(f"the lake does not say what {self.dataset} was built from: build it again")
        build = json.loads(rows[0][0])
        config = DatasetConfig(**build["dataset"])
        return Source(config, None, cache_folder(self._lake.workspace.sources, config), build.get("commit"))

    @cached_property
    def format(self) -> Format:
        return format_of(self.source)

    @cached_property
    def info(self) -> dict[str, Any] | None:
        """info.json of a LeRobot source; None of others."""
        if self.format != LEROBOT:
            return None
        try:
            return read_info(self.source)
        except DataError as e:
            raise UserError(f"the source of {self.dataset} has changed ({e}): build it again") from e

    def record(self, e: ExportEpisode) -> EpisodeRecord:
        return self.records(e.chunk)[e.episode_index]

    def episode(self, e: ExportEpisode) -> EpisodeData:
        return read_episode(self.source, self.record(e))

    def _records(self, chunk: int) -> Mapping[int, EpisodeRecord]:
        """Of a chunk's episodes."""
        rows = self._lake.dicts("SELECT * FROM episode_facts WHERE dataset = ? AND chunk = ?", [self.dataset, chunk])
        return {row["episode_index"]: record_from_row(row) for row in rows}

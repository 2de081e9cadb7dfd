"""What embeddings will cost: `proccorpus dry-run`. By the listing; nothing is decoded and no encoder is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from annotate.embeddings.passing import every_nth
from annotate.embeddings.projection import CELL, WHOLE
from ingest.episode import EpisodeRecord
from pipeline.config import DatasetBuild
from pipeline.plan import CURRENT, plan
from pipeline.prediction import listed_records
from pipeline.stages import stage_specs
from warehouse.lake import Lake

BYTES_A_NUMBER = 1.9  # as measured in the lake's files
# CPU ms a picture on one thread, as `python -m benchmarks.embeddings` measures them (docs/performance.md)
MS_A_PICTURE: Mapping[str, float] = {"mobilenet_v2": 1.6, "grey": 0.4}


@dataclass(frozen=True)
class EmbeddingCost:
    """What a build will have an encoder look at; `cpu_s` on one thread, None where no rate of it was measured."""

    dataset: str
    encoder: str
    episodes: int
    pictures: int
    bytes: int
    cpu_s: float | None
    embedded: int  # episodes that are done
    left_out: int  # episodes whose length nothing says

    def facts(self) -> dict[str, Any]:
        """For scripts."""
        return {"dataset": self.dataset, "embeddings": {k: v for k, v in vars(self).items() if k != "dataset"}}

    def summary(self) -> str:
        """For people, in a sentence."""
        time = "at a rate that nobody measured" if self.cpu_s is None else f"some {self.cpu_s:.0f} s of one CPU core"
        done = f"; {self.embedded} episodes are done" if self.embedded else ""
        unknown = f"; {self.left_out} left out: nothing says how long they are" if self.left_out else ""
        return (
            f"{self.dataset}: {self.encoder} looks at {self.pictures} pictures of {self.episodes} episodes: {time}, "
            f"{self.bytes / 1e6:.1f} MB{done}{unknown}"
        )


def embedding_cost(lake: Lake | None, build: DatasetBuild, sources: Path, *, again: bool = False) -> EmbeddingCost:
    """`again`: as if nothing had been looked at yet. Chunks whose embeddings are up to date cost nothing."""
    config = build.embeddings
    records = listed_records(lake, build, sources)
    done = set() if again or lake is None else _current_chunks(lake, build, sources)
    size = build.dataset.chunk_size
    wanted = [record for index, record in records.items() if index // size not in done]
    counts = [_pictures(record, build) for record in wanted]
    pictures = sum(count for count in counts if count)

    numbers = WHOLE + CELL * config.grid**2
    ms = MS_A_PICTURE.get(config.encoder) if config.size_px is None else None
    return EmbeddingCost(
        dataset=build.name,
        encoder=config.encoder,
        episodes=len(wanted),
        pictures=pictures,
        bytes=round(pictures * numbers * BYTES_A_NUMBER),
        cpu_s=None if ms is None else pictures * ms / 1000,
        embedded=len(records) - len(wanted),
        left_out=sum(count is None for count in counts),
    )


def _pictures(record: EpisodeRecord, build: DatasetBuild) -> int | None:
    """Pictures of an episode that are looked at, as if all its cameras can be used; None: its length is unknown."""
    if not record.num_rows:
        return None
    config = build.embeddings
    cameras = config.cameras
    named = [camera for camera in record.cameras if cameras == "all" or camera in cameras]
    count = min(1, len(record.cameras)) if cameras == "preferred" else len(named)
    return count * ceil(record.num_rows / every_nth(config.hz, record.fps))


def _current_chunks(lake: Lake, build: DatasetBuild, sources: Path) -> set[int]:
    """The chunks whose embeddings are as a build would make them."""
    fingerprint = build.source(sources).fingerprint()
    steps = plan(lake, {build.name: stage_specs(build)}, {build.name: fingerprint})
    chunks = [step.chunk for step in steps if step.stage.name == "embeddings" and step.status == CURRENT]
    return {chunk for chunk in chunks if chunk is not None}

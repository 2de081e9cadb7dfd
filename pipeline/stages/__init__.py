"""The corpus from top to bottom: every stage, once, in the order in which a chunk goes through them."""

from pipeline.config import DatasetBuild
from pipeline.stage import Stage, StageSpec
from pipeline.stages import (
    corrections,
    demonstrations,
    embeddings,
    episodes,
    frames,
    progress,
    reasoning,
    samples,
    segments,
    shards,
    transfer,
)

STAGES: tuple[Stage, ...] = (
    episodes.STAGE,
    frames.STAGE,
    demonstrations.STAGE,
    embeddings.STAGE,
    segments.STAGE,
    transfer.STAGE,
    corrections.STAGE,
    progress.STAGE,
    reasoning.STAGE,
    samples.STAGE,
    shards.STAGE,
)
LISTING = episodes.STAGE  # works on a dataset as a whole, and says which chunks there are; the others on a chunk


def stage_specs(build: DatasetBuild) -> tuple[StageSpec, ...]:
    """The stages that a build has, in order, each under its configuration: what `plan` asks for."""
    return tuple(stage.spec(build) for stage in STAGES if stage.applies(build))

"""Which columns of an asset's main table come from which columns upstream, as Dagster draws it."""

from collections.abc import Mapping

import dagster as dg

from core.tables import TABLES
from pipeline.stage import Stage
from pipeline.stages import STAGES

# Columns that are handed down as they are, wherever an upstream table has them
HANDED_DOWN = ("dataset", "episode_index", "chunk", "camera", "frame_index", "label_run")
# What else is computed from what: columns by asset, as asset.column
COMPUTED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "frames": {
        "camera": ("episodes.cameras",),
        "timestamp_s": ("episodes.videos", "episodes.fps"),
        **dict.fromkeys(("visual_change", "phash", "luma_mean", "is_black"), ("episodes.videos",)),
        **dict.fromkeys(("gripper", "grippers", "speed"), ("episodes.data_uri", "episodes.row_start")),
    },
    "demonstrations": {
        "duration_s": ("frames.timestamp_s",),
        "gripper_moves": ("frames.gripper",),
        "end_phash": ("frames.phash",),
    },
    "segments": {
        "name": ("episodes.task", "episodes.steps"),
        "start_frame": ("frames.visual_change", "frames.gripper", "frames.speed", "episodes.steps"),
        "end_frame": ("frames.visual_change", "frames.gripper", "frames.speed", "episodes.steps"),
    },
    "transfer": dict.fromkeys(("name", "start_frame", "end_frame"), ("embeddings.embedding",)),
    "progress": {
        "segment_index": ("segments.segment_index", "transfer.segment_index", "corrections.segment_index"),
        "progress": (
            *(f"{labels}.{c}" for labels in ("segments", "transfer", "corrections") for c in ("start_frame", "step")),
            "frames.visual_change",
        ),
    },
    "samples": {
        "progress": ("progress.progress",),
        "answer": ("progress.progress", "segments.name"),
        "reason": ("reasoning.text",),
    },
    "shards": {
        "split": ("samples.split",),
        "episodes": ("samples.episode_index",),
        "samples": ("samples.sample_id",),
    },
}
BY_NAME = {stage.name: stage for stage in STAGES}


def column_lineage(stage: Stage) -> dg.TableColumnLineage:
    """Of each column that comes from upstream: the columns there."""
    upstream = {name: TABLES[BY_NAME[name].tables[0]].schema.names for name in stage.upstream}
    deps = {}
    for column in TABLES[stage.tables[0]].schema.names:
        named = [tuple(source.split(".", 1)) for source in COMPUTED.get(stage.name, {}).get(column, ())]
        # A key is that of the first stage that has it: the others have theirs from there
        keys = [(name, column) for name, theirs in upstream.items() if column in theirs and column in HANDED_DOWN]
        if found := named or keys[:1]:
            deps[column] = [dg.TableColumnDep(dg.AssetKey(asset), of) for asset, of in found]
    return dg.TableColumnLineage(deps)

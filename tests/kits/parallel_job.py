"""A job of the corpus's assets on Dagster's multiprocess executor: its steps run side by side, each in a process."""

import os

import dagster as dg

from assets.defs.corpus.assets import corpus_assets
from assets.defs.corpus.partitions import chunks
from assets.defs.resources import CorpusResource
from assets.lib.vlm_server import VlmServer

MODEL_URL = "STAND_IN_URL"  # of the model's server, in the environment


def after_segments() -> dg.JobDefinition:
    """What a chunk goes through once it has segments, as far as its samples."""
    job = dg.define_asset_job(
        "after_segments",
        selection=dg.AssetSelection.assets("progress", "reasoning", "samples"),
        partitions_def=chunks,
        executor_def=dg.multiprocess_executor,
    )
    resources = {"corpus": CorpusResource(), "vlm_server": VlmServer(urls=[os.environ[MODEL_URL]])}
    return dg.Definitions(assets=corpus_assets, jobs=[job], resources=resources).resolve_job_def("after_segments")

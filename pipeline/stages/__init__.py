"""The corpus from top to bottom: every stage, once, in the order in which a chunk goes through them.

A stage is the module of its name beside this one; `STAGE_TABLES` names them in order.
"""

from importlib import import_module

from core.tables import STAGE_TABLES
from pipeline.config import DatasetBuild
from pipeline.stage import Stage, StageSpec

STAGES: tuple[Stage, ...] = tuple(
    import_module(f"pipeline.stages.{name}").STAGE for name in STAGE_TABLES
)
LISTING = STAGES[
    0
]  # works on a dataset as a whole, and says which chunks there are; the others on a chunk


def stage_specs(build: DatasetBuild) -> tuple[StageSpec, ...]:
    """The stages that a build has, in order, each under its configuration: what `plan` asks for."""
    return tuple(stage.spec(build) for stage in STAGES if stage.applies(build))

"""What the tests of the assets share: a workspace that the build loop made, with its source and its report."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from annotate.embeddings.config import EmbeddingsConfig
from core.paths import Workspace
from pipeline.build import BuildReport
from pipeline.config import DatasetBuild, source_build
from warehouse.lake import Lake

CHUNK_SIZE = 2


def build_of(source: Path) -> DatasetBuild:
    """The dataset `tiny` in chunks of two episodes, at whose pictures no encoder looks."""
    build = source_build(source, "tiny", None, None)
    stages = build.stages.model_copy(update={"embeddings": EmbeddingsConfig(when="never")})
    dataset = build.dataset.model_copy(update={"chunk_size": CHUNK_SIZE})
    return build.model_copy(update={"dataset": dataset, "stages": stages})


@dataclass(frozen=True)
class Made:
    """A workspace, the build that made it and what that reported."""

    space: Workspace
    build: DatasetBuild
    report: BuildReport

    @property
    def source(self) -> Path:
        return Path(self.build.dataset.source)

    def rows(self, sql: str) -> list[tuple]:
        lake = Lake(self.space, read_only=True)
        try:
            return lake.rows(sql)
        finally:
            lake.con.close()

    def copy(self, folder: Path) -> "Made":
        """Source and workspace of one's own; times of files are kept, so nothing is stale."""
        source = shutil.copytree(self.source, folder / "source")
        space = Workspace(shutil.copytree(self.space.root, folder / "workspace"))
        return Made(space, build_of(source), self.report)


def make(folder: Path) -> Made:
    """Five episodes in three chunks, in three splits, without a licence, built by one worker."""
    from pipeline.build import run_build
    from tests.kits.tiny_lerobot import make_dataset

    build = build_of(make_dataset(folder / "source"))
    space = Workspace(folder / "workspace")
    report = run_build(space, [build], workers=1)
    assert not report.failed
    return Made(space, build, report)


OF_EPISODES = ("episode_facts", "episode_content", "splits", "segments", "episode_labels", "progress", "label_quality",
               "active_runs", "frames", "keyframes")  # fmt: skip
APART = 10  # between an episode and its next copy


def repeat(made: Made, times: int) -> list[int]:
    """Add each episode's rows so many times again, as further episodes of its videos; returns their indices."""
    lake = Lake(made.space)
    for table in OF_EPISODES:
        for k in range(1, times + 1):
            moved = f"episode_index + {k * APART} AS episode_index, chunk + {k * APART // CHUNK_SIZE} AS chunk"
            lake.con.execute(
                f"INSERT INTO {table} SELECT * REPLACE ({moved}) FROM {table} WHERE episode_index < {APART}"
            )
    added = lake.column(f"SELECT episode_index FROM episode_facts WHERE episode_index >= {APART} ORDER BY 1")
    lake.con.close()
    return added

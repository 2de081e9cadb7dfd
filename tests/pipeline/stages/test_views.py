"""Datasets whose labels are made by several cameras: what is stored of each, and by which they are labelled."""

from pathlib import Path

import pytest

from annotate.embeddings.config import EmbeddingsConfig
from core.paths import Workspace
from pipeline.build import run_build
from pipeline.config import DatasetBuild, StageConfigs
from tests.kits.lerobot_writer import FRONT, WRIST, source_of, write_v2
from tests.kits.made_corpus import Made

SIDE = "observation.images.side"


def build_of(root: Path, cameras: object) -> DatasetBuild:
    config = source_of(root, cameras=cameras).config
    return DatasetBuild(
        dataset=config, stages=StageConfigs(embeddings=EmbeddingsConfig(when="always", encoder="grey", grid=2))
    )


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two runs by three cameras, labelled by two, the wrist's first; of the second run its pictures are lost."""
    folder = tmp_path_factory.mktemp("views")
    root = write_v2(folder / "source", [20, 20], cameras=(FRONT, SIDE, WRIST))
    (root / f"videos/chunk-000/{WRIST}/episode_000001.mp4").unlink()
    space, build = Workspace(folder / "workspace"), build_of(root, [WRIST, FRONT])
    report = run_build(space, [build], workers=1)
    assert not report.failed
    return Made(space, build, report)


def test_rows_of_each_camera(by_two: Made):
    cameras = "SELECT episode_index, list(DISTINCT camera ORDER BY camera) FROM {} GROUP BY 1 ORDER BY 1"
    every = [(0, [FRONT, SIDE, WRIST]), (1, [FRONT, SIDE])]
    assert by_two.rows(cameras.format("frames")) == every
    assert by_two.rows(cameras.format("keyframes")) == every
    assert by_two.rows(cameras.format("embeddings")) == [(0, [FRONT, WRIST]), (1, [FRONT])]


def test_the_main_camera_comes_first(by_two: Made):
    main = by_two.rows("SELECT episode_index, usable_cameras[1] FROM episode_content ORDER BY 1")
    assert main == [(0, WRIST), (1, FRONT)]


def test_an_encoder_looks_by_the_views_unless_it_is_told_otherwise(tmp_path: Path):
    root = write_v2(tmp_path, [6], cameras=(FRONT, WRIST))
    assert build_of(root, [WRIST, FRONT]).embeddings.cameras == (WRIST, FRONT)
    assert build_of(root, [WRIST]).embeddings.cameras == "preferred"
    assert build_of(root, {"exo": [FRONT], "wrist": [WRIST]}).embeddings.cameras == "preferred"
    told = StageConfigs(embeddings=EmbeddingsConfig(cameras="all"))
    assert build_of(root, [WRIST, FRONT]).model_copy(update={"stages": told}).embeddings.cameras == "all"

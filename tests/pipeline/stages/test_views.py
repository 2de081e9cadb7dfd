"""Datasets whose labels are made by several cameras: what is stored of each, and by which they are labelled."""

import base64
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from annotate.embeddings.config import EmbeddingsConfig
from annotate.vlm.config import VlmConfig
from annotate.vlm.pictures import size_beside
from annotate.vlm.prompts import prompt_version
from core.paths import Workspace
from pipeline.build import run_build
from pipeline.config import DatasetBuild, StageConfigs
from pipeline.plan import CURRENT, plan
from pipeline.prediction import dataset_cost
from pipeline.reading import chunk_signals, labelled_by, most_change
from pipeline.stages import stage_specs
from tests.kits import vlm_standin
from tests.kits.lerobot_writer import FRONT, WRIST, source_of, write_v2
from tests.kits.made_corpus import Made
from warehouse.lake import Lake

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


def test_an_episode_is_labelled_by_the_views_that_it_has():
    assert labelled_by((WRIST, FRONT), [WRIST, FRONT, SIDE]) == (WRIST, FRONT)
    assert labelled_by((WRIST, FRONT), [FRONT, SIDE]) == (FRONT,)
    assert labelled_by((WRIST, FRONT), [SIDE]) == (SIDE,)
    assert labelled_by((), [SIDE, FRONT]) == (SIDE,)


def test_change_is_that_of_the_view_in_which_most_changes():
    seen, hidden = np.array([0, 0.25, 0.0, 0.5]), np.array([0, 0.125, 0.125, 0.0])
    assert most_change([seen, hidden]).tolist() == [0, 0.25, 0.125, 0.5]
    assert most_change([hidden]) is hidden


def test_labels_are_made_by_the_views_that_an_episode_has(by_two: Made):
    lake = Lake(by_two.space, read_only=True)
    first, second = chunk_signals(lake, "toy", 0)
    assert (first.camera, first.views, second.camera, second.views) == (WRIST, (WRIST, FRONT), FRONT, (FRONT,))
    of_camera = {
        camera: lake.arrow(
            "SELECT visual_change FROM frames WHERE episode_index = 0 AND camera = ? ORDER BY frame_index", [camera]
        )["visual_change"].to_numpy()
        for camera in (FRONT, WRIST)
    }
    assert (first.change == np.maximum(of_camera[FRONT], of_camera[WRIST])).all()
    [(params,)] = lake.rows("SELECT DISTINCT params FROM label_runs JOIN active_runs USING (label_run)")
    assert f'"views": ["{WRIST}", "{FRONT}"]' in params
    lake.con.close()


def test_other_views_make_labels_stale(by_two: Made):
    build = by_two.build
    lake = Lake(by_two.space, read_only=True)
    fingerprint = build.source(lake.workspace.sources).fingerprint()
    not_current = {}
    for cameras in ([WRIST, FRONT], [WRIST, SIDE]):
        changed = build.model_copy(update={"dataset": build_of(Path(build.dataset.source), cameras).dataset})
        steps = plan(lake, {"toy": stage_specs(changed)}, {"toy": fingerprint})
        not_current[cameras[1]] = {step.stage.name for step in steps if step.status != CURRENT}
    assert not_current[FRONT] == set()
    assert {"episodes", "embeddings", "segments", "progress", "demonstrations"} <= not_current[SIDE]
    lake.con.close()


def test_a_model_is_shown_all_views_of_a_moment_in_one_picture(by_two: Made, tmp_path: Path):
    space = Workspace(shutil.copytree(by_two.space.root, tmp_path / "workspace"))
    with vlm_standin.serving(vlm_standin.StandIn()) as server:
        vlm = VlmConfig(model="stand-in", endpoints=(server.url,))
        stages = by_two.build.stages.model_copy(update={"annotator": "vlm", "vlm": vlm})
        build = by_two.build.model_copy(update={"stages": stages})
        lake = Lake(space, read_only=True)
        predicted = dataset_cost(lake, build, space.sources)
        lake.con.close()
        report = run_build(space, [build], workers=1)
    assert not report.failed

    # Of the first run two cameras are named, and stand side by side; the second has one of them
    side_by_side, alone = size_beside([(64, 64), (64, 64)]), (64, 64)
    names = f'side by side, from left to right: "{WRIST}", "{FRONT}".'
    shown = {(names in question, size) for question, sizes in map(asked, server.seen) for size in sizes}
    assert shown == {(True, side_by_side), (False, alone)}
    assert predicted.prediction.total.images > 0

    # What was decoded to find boundaries is kept of each camera by itself
    made = Made(space, build, report)
    boundary = made.rows(
        "SELECT frame_index, list(camera ORDER BY camera) FROM keyframes WHERE purpose = 'boundary' AND "
        "episode_index = 0 GROUP BY 1"
    )
    assert boundary
    assert {tuple(cameras) for _, cameras in boundary} == {(FRONT, WRIST)}
    [(version,)] = made.rows("SELECT prompt_version FROM label_runs WHERE annotator = 'vlm'")
    assert version == prompt_version(several_views=True) != prompt_version()


def asked(body: dict) -> tuple[str, set[tuple[int, int]]]:
    """The first text of a request, and the sizes of its pictures."""
    parts = body["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    pictures = [cv2.imdecode(np.frombuffer(base64.b64decode(u.split(",")[1]), np.uint8), 1) for u in urls]
    return parts[0]["text"], {(p.shape[1], p.shape[0]) for p in pictures if p is not None}

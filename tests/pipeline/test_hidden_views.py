"""Runs of which each camera hides a step: one camera alone misses it, both find it. Against the simulator's truth."""

import numpy as np
import pytest

from annotate.embeddings.config import EmbeddingsConfig
from core.paths import Workspace
from eval.annotators.labels import LabelledEpisode, stored_labels
from ingest.registry import Cameras, DatasetConfig
from pipeline.build import run_build
from pipeline.config import DatasetBuild, StageConfigs
from tests.kits.hidden_views import FRONT, WRIST, HiddenRun, share_worked, write_hidden_views
from warehouse.lake import Lake

RUNS = (2, 5)
VIEWS = {"front": (FRONT,), "wrist": (WRIST,), "both": (FRONT, WRIST)}
Labels = dict[int, LabelledEpisode]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[HiddenRun], dict[str, Labels]]:
    """The runs, and their labels by each camera alone and by both."""
    folder = tmp_path_factory.mktemp("hidden")
    (folder / "source").mkdir()
    runs = write_hidden_views(folder / "source", RUNS)
    stages = StageConfigs(annotator="motion", embeddings=EmbeddingsConfig(when="never"))
    builds = [
        DatasetBuild(
            dataset=DatasetConfig(name=name, source=str(folder / "source"), cameras=Cameras(views=views)), stages=stages
        )
        for name, views in VIEWS.items()
    ]
    space = Workspace(folder / "workspace")
    assert not run_build(space, builds, workers=1).failed
    lake = Lake(space, read_only=True)
    labels = {name: stored_labels(lake, name) for name in VIEWS}
    lake.con.close()
    return runs, labels


@pytest.mark.parametrize(("hidden_from", "other"), [(FRONT, WRIST), (WRIST, FRONT)])
def test_a_step_that_one_camera_hides_is_found_by_both(
    labelled: tuple[list[HiddenRun], dict[str, Labels]], hidden_from: str, other: str
) -> None:
    runs, labels = labelled
    for index, run in enumerate(runs):
        step = run.hidden[hidden_from]
        worked = {name: share_worked(labels[name][index].segments, step) for name in VIEWS}
        assert worked[hidden_from] < 0.1, "the camera that shows nothing of it sees a stand-still"
        assert worked[other] > 0.95
        assert worked["both"] > 0.95


def test_neither_camera_alone_finds_every_step_and_both_do(
    labelled: tuple[list[HiddenRun], dict[str, Labels]],
) -> None:
    runs, labels = labelled
    found = {
        name: sum(
            share_worked(labels[name][index].segments, step) >= 0.5
            for index, run in enumerate(runs)
            for step in run.hidden.values()
        )
        for name in VIEWS
    }
    assert found == {"front": len(RUNS), "wrist": len(RUNS), "both": 2 * len(RUNS)}


def test_progress_is_nearer_to_the_truth_by_both(labelled: tuple[list[HiddenRun], dict[str, Labels]]) -> None:
    runs, labels = labelled
    errors = {}
    for name in VIEWS:
        of_runs = []
        for index, run in enumerate(runs):
            progress = labels[name][index].progress
            assert progress is not None
            of_runs.append(np.abs(progress - run.progress).mean())
        errors[name] = float(np.mean(of_runs))
    assert errors["both"] < min(errors["front"], errors["wrist"])
    assert errors["both"] < 0.1

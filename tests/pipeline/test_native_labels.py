"""Labels of the source's own steps: the default where there are any, and motion for the episodes without."""

import shutil
from pathlib import Path

import pytest

from assets.defs.resources import CorpusResource
from core.paths import Workspace
from pipeline.build import run_build
from pipeline.config import DatasetBuild, source_build, stored_build, with_annotator
from tests.kits.lerobot_writer import write_v2, write_v3
from tests.kits.step_forms import SPANS, V2_FORMS, V3_FORMS
from warehouse.lake import Lake, digest, open_lake

pytestmark = pytest.mark.slow


LENGTHS = (24, 18)
LABEL = [
    ("Between steps", 0, 2, "idle", False),
    *((name, start, end, "step", True) for name, start, end in SPANS),
    ("Done", 21, 24, "done", True),
]
SEGMENTS = (
    "SELECT name, start_frame, end_frame, kind, completed FROM active_segments "
    "WHERE dataset = ? AND episode_index = ? ORDER BY segment_index"
)
# tests/ingest/formats/test_lerobot_steps.py reads each in both layouts
V2, V3 = [form for form in V2_FORMS if form != "visualizer_v1"], ["robomind", "sarm"]
FROM = {
    "v2_robocoin": "subtask_annotation",
    "v2_annotation": "annotation.human.fine_action",
    "v3_robomind": "action_config",
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two episodes for each form, whose second episode has no steps; and one without any steps."""
    root = tmp_path_factory.mktemp("sources")
    write_v2(root / "none", LENGTHS)
    write_v3(root / "v3", LENGTHS, per_data_file=1)
    for form in V2:
        V2_FORMS[form](Path(shutil.copytree(root / "none", root / f"v2_{form}")))
    for form in V3:
        V3_FORMS[form](Path(shutil.copytree(root / "v3", root / f"v3_{form}")))
    return root


def build_of(sources: Path, name: str) -> DatasetBuild:
    return source_build(sources / name, name, None, None)


@pytest.fixture(scope="module")
def space(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    space = Workspace(tmp_path_factory.mktemp("native") / "workspace")
    builds = [build_of(sources, folder.name) for folder in sorted(sources.iterdir()) if folder.name != "v3"]
    report = run_build(space, builds, workers=1)
    assert not report.failed
    return space


@pytest.fixture
def lake(space: Workspace) -> Lake:
    return open_lake(space)


def test_motion_is_the_way_back_also_for_dagster(sources: Path, space: Workspace, tmp_path: Path) -> None:
    """An explicit annotator stays until the next build says otherwise; the default comes back with the default."""
    own = Workspace(shutil.copytree(space.root, tmp_path / "workspace"))
    build = build_of(sources, "v2_subtask_index")
    corpus = CorpusResource(root=str(own.root))
    assert corpus.build(build.name).annotator == "native"

    report = run_build(own, [with_annotator(build, "motion")], workers=1)
    assert "segments" in {done.run.stage for done in report.done}
    lake = open_lake(own)
    assert dict(lake.rows("SELECT dataset, labels FROM coverage"))[build.name] == "motion: 2 of 2 episodes"
    assert corpus.build(build.name).annotator == "motion"
    stored = stored_build(lake, build.name)
    assert stored is not None
    assert stored.stated_annotator != "auto"

    # Nothing is segmented again on the way to the default: the labels are there and count again
    again = run_build(own, [build], workers=1)
    assert "segments" not in {done.run.stage for done in again.done}
    assert corpus.build(build.name).annotator == "native"
    assert lake.rows(SEGMENTS, [build.name, 0]) == LABEL
    before = digest(lake), lake.snapshot()
    assert run_build(own, [build], workers=1).done == []
    assert (digest(lake), lake.snapshot()) == before

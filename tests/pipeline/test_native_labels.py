"""Labels of the source's own steps: the default; motion for episodes without."""

from pathlib import Path

import pytest

from assets.defs.resources import CorpusResource
from core.paths import Workspace
from pipeline.build import run_build
from pipeline.config import source_build, stored_build, with_annotator
from tests.kits.lerobot_writer import write_v2
from tests.kits.step_forms import SPANS, V2_FORMS
from warehouse.lake import digest, open_lake

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


def test_motion_is_the_way_back_also_for_dagster(tmp_path: Path) -> None:
    """An explicit annotator stays until the next build says otherwise."""
    source = write_v2(tmp_path / "source", LENGTHS)
    workspace = Workspace(tmp_path / "workspace")
    V2_FORMS["subtask_index"](source)  # tests/ingest/formats/test_lerobot_steps.py reads each form
    build = source_build(source, "named", None, None)
    assert not run_build(workspace, [build], workers=1).failed
    corpus = CorpusResource(root=str(workspace.root))
    assert corpus.build(build.name).annotator == "native"

    report = run_build(workspace, [with_annotator(build, "motion")], workers=1)
    assert "segments" in {stage_report.run.stage for stage_report in report.done}
    lake = open_lake(workspace)
    assert (
        dict(lake.rows("SELECT dataset, labels FROM coverage"))[build.name]
        == "motion: 2 of 2 episodes"
    )
    assert corpus.build(build.name).annotator == "motion"
    stored = stored_build(lake, build.name)
    assert stored is not None
    assert stored.stated_annotator != "auto"

    # Nothing is segmented again on the way to the default: the labels are there and count again
    second_report = run_build(workspace, [build], workers=1)
    assert "segments" not in {stage_report.run.stage for stage_report in second_report.done}
    assert corpus.build(build.name).annotator == "native"
    assert lake.rows(SEGMENTS, [build.name, 0]) == LABEL
    state_before = digest(lake), lake.snapshot()
    assert run_build(workspace, [build], workers=1).done == []
    assert (digest(lake), lake.snapshot()) == state_before

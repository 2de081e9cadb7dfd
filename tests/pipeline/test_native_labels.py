"""Labels of the source's own steps: the default where there are any, and motion for the episodes without."""

import shutil
from pathlib import Path

import pytest

from assets.defs.resources import Corpus
from core.paths import Workspace
from pipeline.build import run_build
from pipeline.config import DatasetBuild, resolve, source_build, stored_build, with_annotator
from tests.kits.lerobot_writer import write_v2, write_v3
from tests.kits.made_corpus import Made
from tests.kits.step_forms import SPANS, V2_FORMS, V3_FORMS, action_config
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.options import Selection
from warehouse.lake import Lake, digest, open_lake

LEROBOT = EXPORT_KINDS["lerobot"]

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


@pytest.mark.parametrize("name", [*(f"v2_{form}" for form in V2), *(f"v3_{form}" for form in V3)])
def test_each_form_is_built_into_its_steps(lake: Lake, name: str) -> None:
    assert lake.rows(SEGMENTS, [name, 0]) == LABEL
    form = FROM.get(name, name[3:])
    of_first = "dataset = ? AND episode_index = 0"
    assert lake.rows(f"SELECT steps_from, notes, plan FROM episode_labels WHERE {of_first}", [name]) == [
        (form, [], [step for step, _, _ in SPANS])
    ]
    ends = (
        f"SELECT frame_index, round(progress, 6) FROM active_progress WHERE {of_first} AND frame_index IN (0, 20, 23)"
    )
    assert lake.rows(f"{ends} ORDER BY 1", [name]) == [(0, 0.0), (20, 1.0), (23, 1.0)]


def test_motion_labels_an_episode_without_steps_within_the_run(lake: Lake) -> None:
    name = "v2_language"
    by_native = "label_run IN (SELECT label_run FROM label_runs WHERE annotator = 'native')"
    assert lake.rows(
        f"SELECT steps_from, notes[-1] FROM episode_labels WHERE dataset = ? AND episode_index = 1 AND {by_native}",
        [name],
    ) == [(None, "labelled by motion: no subtask spans in the source")]
    # The episode with steps shows the other one what the task is: that label counts
    runs = (
        "SELECT a.episode_index, r.annotator FROM active_runs a JOIN label_runs r USING (label_run) WHERE dataset = ?"
    )
    assert lake.rows(f"{runs} ORDER BY 1", [name]) == [(0, "native"), (1, "transfer")]
    # Beside the gripper of the writer's rows, which goes to and fro in each frame
    findings = "SELECT reason, episode_index, severity FROM findings WHERE dataset = ? AND reason != 'gripper_unused'"
    assert lake.rows(findings, [name]) == [("no_steps", 1, "warning")]
    own = SEGMENTS.replace("active_segments", "segments").replace("ORDER", f"AND {by_native} ORDER")
    assert lake.rows(own, [name, 1]) == lake.rows(SEGMENTS, ["none", 1])
    [(params,)] = lake.rows(
        f"SELECT DISTINCT params FROM label_runs JOIN active_runs USING (label_run) WHERE dataset = ? AND {by_native}",
        [name],
    )
    assert '"step_min_s"' in params
    assert '"motion-' in params


def test_status_says_who_made_the_labels(lake: Lake) -> None:
    labels = dict(lake.rows("SELECT dataset, labels FROM coverage"))
    assert labels.pop("none") == "motion: 2 of 2 episodes"
    assert set(labels.values()) == {"steps of the source: 1 of 2 episodes, transfer: 1"}


def test_a_dataset_without_steps_keeps_the_label_run_it_had(sources: Path, lake: Lake) -> None:
    build = build_of(sources, "none")
    by_motion = with_annotator(build, "motion").label_run()
    assert resolve(lake, build).label_run() == by_motion
    assert lake.rows("SELECT DISTINCT label_run FROM active_runs WHERE dataset = 'none'") == [(by_motion.id,)]


def test_motion_is_the_way_back_also_for_dagster(sources: Path, space: Workspace, tmp_path: Path) -> None:
    """An explicit annotator stays until the next build says otherwise; the default comes back with the default."""
    own = Workspace(shutil.copytree(space.root, tmp_path / "workspace"))
    build = build_of(sources, "v2_subtask_index")
    corpus = Corpus(root=str(own.root))
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


def test_broken_steps_cost_no_label(tmp_path: Path) -> None:
    root = write_v2(tmp_path / "source", LENGTHS)
    action_config(root, [("a", 0, 10), ("b", 8, 20)])
    space = Workspace(tmp_path / "workspace")
    # Without one usable step in the dataset motion labels it, as it does every dataset without steps
    assert not run_build(space, [source_build(root, "broken", None, None)], workers=1).failed
    lake = open_lake(space)
    assert lake.rows("SELECT DISTINCT annotator FROM label_runs") == [("motion",)]
    findings = "SELECT reason, episode_index FROM findings WHERE reason != 'gripper_unused'"
    assert lake.rows(findings) == [("bad_steps", 0)]
    assert lake.rows("SELECT count(DISTINCT episode_index) FROM active_progress") == [(2,)]

    # Asked for steps by name, it says that there are none
    run_build(space, [with_annotator(source_build(root, "broken", None, None), "native")], workers=1)
    assert lake.rows(f"{findings} ORDER BY ALL") == [
        ("bad_steps", 0),
        ("no_steps", 0),
        ("no_steps", 1),
    ]
    assert lake.rows("SELECT count(DISTINCT episode_index) FROM active_progress") == [(2,)]


def test_steps_that_come_later_are_the_labels_then(tmp_path: Path) -> None:
    """Somebody draws steps into a dataset that was built: the next build takes them."""
    root = write_v2(tmp_path / "source", LENGTHS)
    space, build = Workspace(tmp_path / "workspace"), source_build(root, "drawn", None, None)
    run_build(space, [build], workers=1)
    V2_FORMS["visualizer"](root)
    report = run_build(space, [build], workers=1)
    assert {"episodes", "segments", "progress", "samples"} <= {done.run.stage for done in report.done}
    lake = open_lake(space)
    assert lake.rows(SEGMENTS, ["drawn", 0]) == LABEL
    by = lake.rows("SELECT annotator FROM label_runs ORDER BY 1")
    assert by == [("motion",), ("native",), ("transfer",)]


def test_an_export_of_ours_is_built_into_the_labels_it_had(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "exported"
    LEROBOT.export(Lake(made.space, read_only=True), Selection(allow=("unknown",)), out)
    space = Workspace(tmp_path / "workspace")
    assert not run_build(space, [source_build(out, "again", None, None)], workers=1).failed
    lake = open_lake(space)
    columns = "episode_index, segment_index, name, named, start_frame, end_frame, kind, completed, step, num_planned"
    query = f"SELECT {columns}, confidence FROM active_segments ORDER BY 1, 2"
    assert lake.rows(query) == made.rows(query)
    plans = "SELECT episode_index, plan FROM episode_labels ORDER BY 1"
    assert lake.rows(plans) == made.rows(plans)
    assert lake.rows("SELECT labels FROM coverage") == [("steps of the source: 5 of 5 episodes",)]
    assert lake.rows("FROM findings WHERE reason IN ('bad_steps', 'steps_differ')") == []

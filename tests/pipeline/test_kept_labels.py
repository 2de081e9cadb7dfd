"""Labels of a former version of the vlm annotator stay while the settings do."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter
from pathlib import Path

import pytest

from annotate.config import VLM_VERSION, MotionConfig, VlmConfig
from core.domain.label_run import LabelRun, resolved
from core.paths import Workspace
from pipeline.build import BuildReport
from pipeline.config import DatasetBuild
from pipeline.plan import CURRENT, plan
from pipeline.prediction import model_cost
from pipeline.stages import stage_specs
from tests.kits.lake_kit import opened
from tests.kits.made_corpus import Made, build_of, built, restored, with_stages
from tests.kits.tiny_lerobot import make_dataset
from tests.kits.vlm_standin import StandIn, serving

LENGTHS = (24, 18, 30)  # in chunks of two
OF_LABEL_RUNS = (
    "segments",
    "episode_labels",
    "progress",
    "reasoning",
    "label_quality",
    "keyframes",
    "active_runs",
)
# What vlm-1 wrote into label_runs for a build with its defaults; its id there
FORMER_ID = "e2b1a040aa58dbb6"
VOCABULARY = [
    "Reach for", "Grasp", "Lift", "Move", "Place", "Insert", "Push", "Pull", "Slide", "Press", "Turn",
    "Tilt", "Pour", "Open", "Close", "Fold", "Hang", "Wipe", "Release", "Retract",
]  # fmt: skip
FORMER_SETTINGS = {
    "contact_sheet": False,
    "gate_tolerance_s": None,
    "max_images": 24,
    "max_steps": 8,
    "overlap_images": 6,
    "passes": 1,
    "reason": True,
    "reason_interval_s": 2.0,
    "refine": True,
    "refine_images": 8,
    "runs_per_task": 3,
    "seed": 0,
    "strong_model": None,
    "temperature": 0.0,
    "verify": True,
    "vocabulary": VOCABULARY,
    "follow": [
        "motion-11",
        "transfer-4",
        "progress-6",
        {
            "end_min_s": 0.25,
            "end_speed": 0.15,
            "gripper_swing": 0.25,
            "idle_min_s": 0.7,
            "pause_speed": 0.06,
            "smooth_s": 0.15,
            "start_min_s": 0.5,
            "step_min_s": 0.8,
        },
        {"max_references": 5},
        {"incomplete_share": 0.5, "noise_floor_per_s": 0.015},
    ],
}


def of_vlm(build: DatasetBuild, **settings: object) -> DatasetBuild:
    vlm = VlmConfig.model_validate({"model": "stand-in", **settings})
    return with_stages(build, annotator="vlm", vlm=vlm)


def former(**settings: object) -> LabelRun:
    params = resolved(FORMER_SETTINGS | settings)
    return LabelRun("vlm", "vlm-1", params, "stand-in", None, "89a935f153daad48")


@pytest.mark.parametrize(
    ("now", "then", "stays"),
    [
        ({}, {}, True),
        ({"max_images": 24}, {}, True),  # a former default that the file states
        (
            {"contact_sheet": True},
            {"contact_sheet": True},
            True,
        ),  # what is the default now was stated then
        ({"keep_labels": False}, {}, False),
        ({"max_images": 32}, {}, False),
        ({"max_images": 32}, {"max_images": 32}, True),
        ({"refine": False}, {}, False),
        ({}, {"refine": False}, False),  # a person had decided otherwise
        ({"pictures_per_s": 1.0}, {}, False),
        ({"extra_body": {"reasoning_effort": "low"}}, {}, False),
        ({"model": "another"}, {}, False),
        ({"cheap_models": ["small"]}, {}, False),
        ({"max_concurrency": 2, "server": "vllm"}, {}, True),  # no label depends on it
    ],
)
def test_a_former_label_run_counts_as_far_as_a_person_changed_nothing(tmp_path, now, then, stays):
    assert former().id == FORMER_ID
    build = of_vlm(build_of(tmp_path), **now)
    assert (former(**then).id in {run.id for run in build.former_runs()}) == stays
    assert build.label_run().code_version == VLM_VERSION
    assert ("cheap" in build.identity()) == ("cheap_models" in now)


@pytest.mark.parametrize("runs", [3, "all"])
def test_settings_of_motion_are_part_of_the_label_run(tmp_path, runs):
    build = of_vlm(build_of(tmp_path), runs_per_task=runs)
    by_motion = with_stages(build, motion=MotionConfig(smooth_s=0.5))
    assert by_motion.label_run().id != build.label_run().id
    assert "motion" not in json.loads(build.label_run().params)


@dataclass(frozen=True)
class Kept:
    """A workspace as a former version left it, and the server that its build would ask."""

    made: Made
    server: StandIn
    build: DatasetBuild
    run: LabelRun

    def asked_about(self) -> int:
        """Requests since the last time."""
        sent = len(self.server.seen)
        self.server.seen.clear()
        return sent

    def not_current(self, build: DatasetBuild) -> list[tuple[str, int | None]]:
        with opened(self.made.space, read_only=True) as lake:
            source = build.source(lake.workspace.sources).fingerprint()
            steps = plan(lake, {build.name: stage_specs(build)}, {build.name: source})
            return [(step.stage.name, step.chunk) for step in steps if step.status != CURRENT]

    def runs(self) -> list[tuple]:
        sql = "SELECT episode_index, label_run FROM active_runs ORDER BY 1"
        return self.made.rows(sql)


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with serving(StandIn()) as serving_server:
        yield serving_server


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kept") / "place"


@pytest.fixture(params=[pytest.param("vlm-1", marks=pytest.mark.slow), "vlm-2"])
def kept(place: Path, server: StandIn, request) -> Kept:
    build = of_vlm(build_of(place / "source"), endpoints=[server.url])

    def make(folder: Path) -> None:
        make_dataset(folder / "source", LENGTHS)
        built(build, Workspace(folder / "workspace"))

    space = Workspace(restored(place, make) / "workspace")
    corpus = Made(space, build, BuildReport())
    run = former()
    if request.param != "vlm-1":
        run = replace(build.label_run(), code_version=request.param)
    rewrite(corpus, build, run)
    server.seen.clear()
    return Kept(corpus, server, build, run)


def rewrite(made_corpus: Made, build: DatasetBuild, run: LabelRun) -> None:
    """Give the labels the label run of a former version; no reply is on disk."""
    shutil.rmtree(made_corpus.space.responses)
    label_run_now = build.label_run().id
    specs = [
        spec
        for spec in chain.from_iterable(map(attrgetter("former"), stage_specs(build)))
        if spec.label_run == run.id
    ]
    assert {spec.name for spec in specs} == {"segments", "reasoning", "progress"}
    with opened(made_corpus.space) as lake:
        for table in (*OF_LABEL_RUNS, "label_runs", "stage_runs", "vlm_calls"):
            lake.con.execute(
                f"UPDATE {table} SET label_run = '{run.id}' WHERE label_run = '{label_run_now}'"
            )
        for name in ("code_version", "params", "prompt_version"):
            lake.con.execute(f"UPDATE label_runs SET {name} = ?", [getattr(run, name)])
        source = build.source(lake.workspace.sources).fingerprint()
        for _ in specs:  # the input of each follows from the stages above it
            for step in plan(lake, {build.name: stage_specs(build)}, {build.name: source}):
                if step.spec in specs and step.input_hash:
                    sql = "UPDATE stage_runs SET input_hash = ?, code_version = ? WHERE stage = ? AND chunk = ?"
                    lake.con.execute(
                        sql, [step.input_hash, step.spec.code_version, step.stage.name, step.chunk]
                    )


def test_a_workspace_of_a_former_version_plans_and_asks_nothing(kept):
    assert kept.not_current(kept.build) == []
    assert kept.made.rebuild(kept.build) == []
    with opened(kept.made.space, read_only=True) as lake:
        cost = model_cost(lake, kept.build, lake.workspace.sources)
    assert (cost.labelled, cost.episodes, kept.asked_about()) == (len(LENGTHS), 0, 0)

    # A setting that a person changes makes all labels anew, under a run of their own
    for changed in ({"pictures_per_s": 4.0}, {"keep_labels": False}):
        build = of_vlm(kept.build, endpoints=[kept.server.url], **changed)
        assert {("segments", 0), ("segments", 1)} <= set(kept.not_current(build))
    kept.made.rebuild(build)
    assert kept.asked_about() > len(LENGTHS)
    assert kept.runs() == [(k, build.label_run().id) for k in range(len(LENGTHS))]


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param("vlm-1", marks=pytest.mark.long),
        pytest.param("vlm-2", marks=pytest.mark.slow),
    ],
    indirect=True,
)
def test_labels_stay_where_a_chunk_is_made_anew_and_new_episodes_join_them(kept):
    """As where another stage has a new version: each row is as it was."""
    tables = ("segments", "episode_labels", "progress", "reasoning", "findings", "keyframes")
    rows_before = {table: sorted(kept.made.rows(f"FROM {table}"), key=repr) for table in tables}
    for _ in range(2):  # the hash of what it made is not known here before the first time
        with opened(kept.made.space) as lake:
            lake.con.execute(
                "UPDATE stage_runs SET input_hash = 'of another version' WHERE stage = 'segments'"
            )
        stages_done = kept.made.rebuild(kept.build)
    assert stages_done == [("segments", 0), ("segments", 1)]
    assert {
        table: sorted(kept.made.rows(f"FROM {table}"), key=repr) for table in tables
    } == rows_before
    assert (kept.asked_about(), kept.not_current(kept.build)) == (0, [])

    with opened(kept.made.space) as lake:
        lake.con.execute("DELETE FROM vlm_calls")

    # One more in the last chunk, which has one episode so far, and one in a chunk of its own
    make_dataset(Path(kept.build.dataset.source), [*LENGTHS, 22, 28])
    kept.made.rebuild(kept.build)
    assert set(kept.made.rows("SELECT DISTINCT episode_index FROM vlm_calls")) == {(3,), (4,)}
    assert kept.runs() == [*((k, kept.run.id) for k in range(4)), (4, kept.build.label_run().id)]
    notes = dict(kept.made.rows("SELECT episode_index, notes FROM episode_labels"))
    version_note = f"made by {VLM_VERSION}: a run of {kept.run.code_version} goes on"
    assert [version_note in notes[k] for k in range(5)] == [False] * 3 + [True, False]
    rows_after = sorted(kept.made.rows("FROM segments WHERE episode_index < 3"), key=repr)
    assert rows_after == rows_before["segments"]
    assert kept.made.rebuild(kept.build) == []

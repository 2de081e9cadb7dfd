"""Labels of the source's own steps: the default; motion for episodes without.

Also: the comparison of annotators as an asset; what a listing says of a chunk, by field; the curve that an editor
draws is the one that the next build stores, of our formula and of the published one; suggestions of what to label
next; runs without a text are of no task together, until somebody says what they do.
"""

import json
from dataclasses import asdict, replace

import pytest

from assets.defs.resources import CorpusResource
from core.paths import Workspace
from core.tables import TABLES
from eval.annotators.compare import AnnotatorComparison
from eval.benchmarks.question import PredictionLine, Question
from ingest.registry import DatasetConfig
from ingest.sources.files import Source
from pipeline.build import run_build
from pipeline.comparison import conclusions
from pipeline.config import source_build, stored_build, with_annotator
from pipeline.labelled import label_curves
from pipeline.stage import chunk_runs
from pipeline.suggesting import TaskSuggestion, suggest
from tests.kits.cli_kit import USAGE, assert_one_error_line
from tests.kits.lake_kit import opened, say, stage_run
from tests.kits.lerobot_writer import write_v2
from tests.kits.made_corpus import Made
from tests.kits.small_sources import RECORDINGS
from tests.kits.small_sources import write_v2 as write_arm
from tests.kits.step_forms import SPANS, V2_FORMS
from tests.kits.words_kit import Case, checked
from warehouse.lake import Lake, open_lake, references
from warehouse.lake.corrections import CorrectionError, parsed, save, stored_label

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


@pytest.mark.slow
def test_motion_is_the_way_back_also_for_dagster(tmp_path):
    """An explicit annotator stays until the next build says otherwise."""
    source = write_v2(tmp_path / "source", LENGTHS)
    workspace = Workspace(tmp_path / "workspace")
    V2_FORMS["subtask_index"](source)  # tests/ingest/formats/test_lerobot.py reads each form
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
    snapshot_before = lake.snapshot()
    assert run_build(workspace, [build], workers=1).done == []
    assert lake.snapshot() == snapshot_before


TASK = "Put it away"
RUNS = 6
FOLLOWERS = "SELECT count(*) FROM active_runs JOIN label_runs USING (label_run) WHERE annotator = 'transfer'"
COMPARED = "SELECT DISTINCT num_usual, main = 'too few runs to compare' FROM demonstration_quality"


@pytest.fixture
def case(tmp_path) -> Case:
    """Six runs of which the source says nothing."""
    source = write_arm(tmp_path / "source", RECORDINGS[:RUNS])
    (source / "meta/tasks.jsonl").write_text("")
    episodes = source / "meta/episodes.jsonl"
    listed = [json.loads(line) | {"tasks": []} for line in episodes.read_text().splitlines()]
    episodes.write_text("".join(f"{json.dumps(row)}\n" for row in listed))
    return Case("lerobot_v2", tmp_path, source)


@pytest.mark.slow
def test_runs_without_a_text_are_compared_with_none_until_their_task_is_said(case):
    built = checked(case.run("build", "--source", case.source, "--name", "arm", "--workers", 1))
    assert "arm: 6 of 6 runs have no text" in built.out
    assert "show one run" not in built.out
    checked(case.run("say", "reference", "arm", 0, "--author", "rita"))
    checked(case.run("build", "--dataset", "arm", "--workers", 1))
    assert case.rows(FOLLOWERS) == [(0,)]
    assert case.rows(COMPARED) == [(0, True)]
    with opened(Workspace(case.workspace)) as lake:
        [suggestion] = suggest(lake, "arm")
    assert (suggestion.label_next, "--task TEXT" in suggestion.why) == (None, True)

    # What the build advises
    named_build = checked(
        case.run("build", "--dataset", "arm", "--task", f" {TASK} ", "--workers", 1)
    )
    assert "have no text" not in named_build.out
    assert case.rows("SELECT DISTINCT task, tasks FROM episodes") == [(TASK, [TASK])]
    assert case.rows("SELECT count(*) FROM findings WHERE reason = 'no_task'") == [(0,)]
    assert case.rows(COMPARED) == [(RUNS, False)]
    assert case.rows(FOLLOWERS)[0][0] > 0
    second_build = checked(case.run("build", "--dataset", "arm", "--workers", 1))
    assert second_build.out.startswith("Everything is up to date")
    empty = case.run("build", "--dataset", "arm", "--task", " ")
    assert (empty.code, "must say what the episodes do" in assert_one_error_line(empty)) == (
        USAGE,
        True,
    )


EPISODE = 2
# Of three runs: what is said of the last segment, and of the label
STATED: dict[int, tuple[dict, dict]] = {
    0: ({}, {}),
    EPISODE: ({"completed": False, "pace": "mistake"}, {"final_progress": 0.4}),
    4: ({"completed": False}, {}),
}


def changed(undivided: Made, episode: int, last: dict, **stated) -> dict:
    """The label that counts, its first boundary moved by three frames, as a person sends it."""
    with opened(undivided.space, read_only=True) as lake:
        run = lake.rows(f"SELECT label_run FROM active_runs WHERE episode_index = {episode}")[0][0]
        label = stored_label(lake, "tiny", episode, run).model_dump() | stated
    segments = list(label["segments"])
    segments[0] |= {"end_frame": segments[0]["end_frame"] + 3}
    segments[1] |= {"start_frame": segments[1]["start_frame"] + 3}
    segments[-1] |= last
    return label | {"base_label_run": run}


def test_what_is_drawn_is_what_the_next_build_stores(undivided):
    active = "SELECT progress FROM active_progress WHERE episode_index = {} ORDER BY frame_index"
    stored = (
        "SELECT progress, progress_procvlm FROM progress WHERE label_run = 'human/tiny' "
        "AND episode_index = {} ORDER BY frame_index"
    )
    content = "SELECT content_hash FROM episode_content WHERE episode_index = {}"
    drawn = {}
    for episode, (last, stated) in STATED.items():
        label = changed(undivided, episode, last, **stated)
        run = label.pop("base_label_run")
        with opened(undivided.space) as lake:
            drawn[episode] = label_curves(
                undivided.space, "tiny", episode, lake.snapshot(), parsed(label)
            )
            save_options = {
                "base_label_run": run,
                "base_content_hash": lake.rows(content.format(episode))[0][0],
                "author": "ada",
                "comment": "",
                "follows": None,
            }
            save(lake, "tiny", episode, parsed(label), **save_options)
    rows_before = {episode: undivided.rows(active.format(episode)) for episode in STATED}
    undivided.rebuild()
    for episode, curves in drawn.items():
        built = undivided.rows(stored.format(episode))
        assert [*zip(curves["progress"], curves["progress_procvlm"], strict=True)] == built
        assert [value for (value,) in rows_before[episode]] != curves["progress"]


def test_a_label_that_contradicts_itself_has_no_curve(undivided):
    label = changed(undivided, EPISODE, {}, final_progress=0.3)
    label.pop("base_label_run")
    with opened(undivided.space, read_only=True) as lake:
        snapshot = lake.snapshot()
    with pytest.raises(CorrectionError, match="the run ends at 1"):
        label_curves(undivided.space, "tiny", EPISODE, snapshot, parsed(label))


METRICS = {"f1": "boundary_f1@0.5s", "mae": "mae", "unnamed": "unnamed"}


def labeller(name: str, run: str = "", **values: list[float]) -> AnnotatorComparison:
    """Of a dataset `a` of three episodes, with a value by metric."""
    blank = Question("annotators", "a", "label", "", "a", "", "", "", ())
    questions = [replace(blank, row={"episode": e}, unit=("a", str(e))) for e in range(3)]
    lines = {
        q.key: PredictionLine(q.key, {}, measured={METRICS[k]: v[e] for k, v in values.items()})
        for e, q in enumerate(questions)
    }
    return AnnotatorComparison("a", run, name, "truth", run == "r1", questions, lines, ("",))


GOOD = labeller("motion", "r1", f1=[0.9, 0.8, 1.0], mae=[0.1, 0.1, 0.2], unnamed=[0.0, 0.5, 1.0])
OTHER = labeller("vlm", "r2", f1=[0.4, 0.4, 0.5], mae=[0.2, 0.05, 0.2], unnamed=[0.0, 0.0, 0.0])
UNIFORM = labeller("uniform cuts", f1=[0.1, 0.2, 0.3])
CLOCK = labeller("clock", mae=[0.05, 0.06, 0.1])


def test_what_the_figures_say_in_words():
    assert conclusions([OTHER, GOOD, UNIFORM, CLOCK]) == [
        "motion r1, boundaries within 0.5 s: nearer than uniform cuts by 0.700 (0.600 to 0.800)",
        "motion r1, progress: farther than clock by 0.063 (0.040 to 0.100)",
        "vlm r2, boundaries within 0.5 s: nearer than uniform cuts by 0.233 (0.200 to 0.300)",
        "vlm r2, progress: not clearly nearer than clock: -0.080 (-0.150 to 0.010)",
        "motion r1, boundaries within 0.5 s: nearer than vlm r2 by 0.467 (0.400 to 0.500)",
        "motion r1, progress: not clearly nearer than vlm r2: 0.017 (-0.050 to 0.100)",
    ]


PLATE = "put the cube on the plate"  # the task of episodes 0, 2, 4


def by_task(lake: Lake) -> dict[str | None, TaskSuggestion]:
    suggestions = suggest(lake, "tiny")
    assert json.loads(json.dumps([asdict(suggestion) for suggestion in suggestions]))
    return {suggestion.task: suggestion for suggestion in suggestions}


def test_what_is_labelled_is_not_suggested_again(own, corpus):
    say(corpus)
    plate = by_task(corpus)[PLATE]
    assert plate.references == (2,)
    assert plate.label_next in (0, 4)
    assert "to label" not in plate.why
    references.vouch(corpus, "tiny", 0, author="ada")
    plate = by_task(corpus)[PLATE]
    assert (plate.references, plate.label_next) == ((0, 2), 4)
    assert plate.measured is not None
    references.vouch(corpus, "tiny", 4, author="ada")
    plate = by_task(corpus)[PLATE]
    assert (plate.label_next, plate.then, plate.expected) == (None, (), ())
    assert "nothing is left to label" in plate.why


def test_of_many_runs_some_are_looked_at(own, corpus, monkeypatch):
    monkeypatch.setattr("pipeline.suggesting.MOST_RUNS", 2)
    monkeypatch.setattr("pipeline.suggesting.FEWEST_RUNS", 2)
    plate = by_task(corpus)[PLATE]
    assert {plate.label_next, *plate.then} == {0, 4}
    assert any(caveat.startswith("2 of its 3 runs were looked at") for caveat in plate.caveats)


LISTED = ("episode_facts", "findings", "other_tasks", "signals", "splits")
FACTS = {"dataset": "a", "episode_index": 0, "chunk": 0, "task": "put", "videos": [], "fps": 10.0}
CHANGES = {
    "": {},
    "rows": {"fps": 20.0},
    "pictures": {"cameras": ["wrist"]},
    "text": {"tasks": ["lay"]},
    "outcome": {"success": True},
}
BY_EARLIER_VERSIONS = "aed45d000217efe2"  # output hash, by which what they made is recognised


def test_a_change_changes_its_field_alone(tmp_path):
    source = Source(DatasetConfig(name="a", source=str(tmp_path)))
    runs = {}
    fields = {}
    for name, change in CHANGES.items():
        tables = {table: TABLES[table].empty() for table in LISTED}
        tables["episode_facts"] = TABLES["episode_facts"].rows([FACTS | change])
        [runs[name]] = chunk_runs(stage_run(chunk=None), source, tables)
        fields[name] = json.loads(runs[name].inputs).items()
        assert {field for field, _ in fields[name] - fields[""]} == {name} - {""}
    for name in ("", "outcome"):
        assert runs[name].output_hash.startswith(BY_EARLIER_VERSIONS)

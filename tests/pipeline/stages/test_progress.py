"""What the labelling stages publish beside segments and progress: states, signs of a wrong label, the review queue."""

from datetime import UTC, datetime
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.tables import TABLES
from pipeline.config import DatasetBuild
from pipeline.reading import chunk_signals
from pipeline.stages import stage_named
from tests.kits.lake_kit import put_rows
from tests.kits.made_corpus import Made, stage_output
from warehouse.lake import Lake, StageRun


def test_states_are_those_of_the_source(made):
    lake = Lake(made.space, read_only=True)
    source = {}
    for path in sorted(made.source.glob("data/**/*.parquet")):
        for row in pq.read_table(path).to_pylist():
            source.setdefault(row["episode_index"], []).append(row["observation.state"])
    chunk_episodes = list(
        chain.from_iterable(chunk_signals(lake, made.build.name, chunk) for chunk in range(3))
    )
    assert [e.episode_index for e in chunk_episodes] == sorted(source) == list(range(5))
    for e in chunk_episodes:
        assert e.state is not None
        source_states = np.array(source[e.episode_index], np.float32)
        equal_columns = [
            k
            for k in range(source_states.shape[1])
            if np.array_equal(source_states[:, k], e.state[:, 0])
        ]
        assert equal_columns, "the first dimension is one of the source's"
        assert e.state.shape[0] == len(source_states)
        for frames, pixels in e.tiny.values():
            assert pixels.shape == (len(frames), 256)
            assert pixels.min() < pixels.max()


@pytest.fixture
def other(own: Made) -> Made:
    """With a second label run, by another annotator, of the episodes of chunk 0: progress 0 throughout."""
    lake = Lake(own.space)
    mine = lake.arrow("SELECT * FROM progress WHERE chunk = 0")
    run = {
        "label_run": "other",
        "annotator": "vlm",
        "model": "m",
        "params": "{}",
        "code_version": "1",
    }
    put_rows(lake, label_runs=[run | {"created_at": datetime.now(UTC)}])
    labels = TABLES["progress"].rows(
        [row | {"label_run": "other", "progress": 0.0} for row in mine.to_pylist()]
    )
    published = StageRun(
        "progress", own.build.name, 0, "other", "in", "1", labels.num_rows, "out", 0.0
    )
    lake.publish(published, {"progress": labels})
    lake.con.close()
    return own


def progress_tables(lake: Lake, build: DatasetBuild, chunk: int) -> dict[str, pa.Table]:
    return stage_output(stage_named("progress"), lake, build, chunk).tables


def test_labels_of_two_annotators_are_compared(other):
    lake = Lake(other.space)
    tables = progress_tables(lake, other.build, 0)
    rows = tables["label_disagreement"].to_pylist()
    assert [(r["episode_index"], r["other_run"]) for r in rows] == [(0, "other"), (1, "other")]
    means = dict(
        lake.rows(
            "SELECT episode_index, avg(progress) FROM active_progress WHERE chunk = 0 GROUP BY 1"
        )
    )
    assert {r["episode_index"]: r["mean_difference"] for r in rows} == pytest.approx(means)
    assert progress_tables(lake, other.build, 1)["label_disagreement"].num_rows == 0


@pytest.mark.parametrize(("shown_by", "unknown"), [({0: 1, 1: 0}, 0), ({0: 1, 1: 7}, 1)])
def test_runs_that_are_measured_against_each_other_have_progress(own, shown_by, unknown):
    """In a circle, or against a run that itself is measured against one without a label."""
    lake = Lake(own.space)
    for episode, reference in shown_by.items():
        lake.con.execute(
            "UPDATE episode_labels SET as_far_as_episode = ?, as_far_as_frame = 3 WHERE episode_index = ?",
            [reference, episode],
        )
    output = stage_output(stage_named("progress"), lake, own.build, 0)
    assert set(output.tables["progress"]["episode_index"].to_pylist()) == {0, 1}
    assert [(f.reason, f.episode_index) for f in output.findings or ()] == [("bad_steps", unknown)]


def test_the_queue_lists_what_is_odd_with_its_reasons(other):
    reasons = set(
        chain.from_iterable(
            row_reasons
            for _, row_reasons in other.rows("SELECT episode_index, why FROM review_queue")
        )
    )
    assert reasons == {"the annotator is unsure"}, "it knows the moving time alone"
    lake = Lake(other.space)
    tables = progress_tables(lake, other.build, 0)
    quality = tables["label_quality"].to_pylist()
    quality = [row | {"end_by": "assumed", "end_progress": 1.0} for row in quality]
    quality[0] |= {"length_z": -4.5, "contradicts": True, "jump": 0.6}
    tables["label_quality"] = TABLES["label_quality"].rows(quality)
    run = lake.rows("SELECT DISTINCT label_run FROM active_runs")[0][0]
    lake.publish(StageRun("progress", other.build.name, 0, run, "in", "1", 0, "out", 0.0), tables)
    queue_rows = lake.rows(
        "SELECT episode_index, round(score, 2), why FROM review_queue WHERE episode_index < 2"
    )
    lake.con.close()
    assert {e: sorted(row_reasons) for e, _, row_reasons in queue_rows} == {
        0: [
            "label and source contradict each other about success",
            "labels of two runs disagree",
            "odd length",
            "progress jumps",
            "the annotator is unsure",
        ],
        1: ["labels of two runs disagree", "the annotator is unsure"],
    }
    assert [score for _, score, _ in queue_rows] == sorted(
        (score for _, score, _ in queue_rows), reverse=True
    )


def test_labels_say_what_their_end_rests_on(own):
    ends = {
        (end_basis, end < 1, p)
        for end_basis, end, p in own.rows(
            "SELECT end_by, end_progress, p_failure FROM label_quality"
        )
    }
    assert ends == {("assumed", False, None)}, "nothing tells how they end"
    lake = Lake(own.space)
    lake.con.execute(
        "UPDATE episode_facts SET success = true, success_source = CASE episode_index WHEN 0 THEN 'folder name' "
        "ELSE 'person: seen.csv' END WHERE chunk = 0"
    )
    rows = progress_tables(lake, own.build, 0)["label_quality"].to_pylist()
    assert [row["end_by"] for row in rows] == ["source", "person"]
    lake.con.execute(
        "UPDATE episode_facts SET success = NULL, success_source = NULL WHERE chunk = 0"
    )
    # A label without a curve of its own, by a step that was not completed
    lake.con.execute("UPDATE segments SET completed = false WHERE chunk = 0 AND kind = 'step'")
    lake.con.execute("UPDATE episode_labels SET curve = NULL WHERE chunk = 0")
    rows = progress_tables(lake, own.build, 0)["label_quality"].to_pylist()
    assert [row["end_by"] for row in rows] == ["label", "label"]


def test_the_queue_ranks_by_all_signs_together(corpus):
    corpus.con.execute("UPDATE episode_labels SET confidence = 0.9")
    corpus.con.execute(
        "UPDATE label_quality SET jump = 0, shortest_step_s = 1, end_by = 'assumed', end_progress = 1"
    )
    assert corpus.rows("FROM review_queue") == []
    corpus.con.execute("UPDATE label_quality SET p_failure = 0.6 WHERE episode_index < 3")
    corpus.con.execute("UPDATE episode_labels SET confidence = 0.5 WHERE episode_index = 1")
    corpus.con.execute("UPDATE label_quality SET shortest_step_s = 0.1 WHERE episode_index = 2")
    queue_rows = corpus.rows("SELECT episode_index, score, why FROM review_queue")
    assert [(episode, round(score, 3)) for episode, score, _ in queue_rows] == [
        (2, 0.856),
        (1, 0.8),
        (0, 0.64),
    ]
    assert [row_reasons for *_, row_reasons in queue_rows] == [
        ["a step of a moment", "looks unfinished"],
        ["looks unfinished", "the annotator is unsure"],
        ["looks unfinished"],
    ]

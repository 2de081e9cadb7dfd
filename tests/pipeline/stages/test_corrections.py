"""Corrections down to the shard: what a build makes of what people said, of which chunks, and nothing else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.annotators.compare import ACTIVE, compare
from eval.annotators.labels import label_runs
from pipeline.build import run_build
from pipeline.config import with_annotator
from pipeline.plan import CURRENT, plan
from pipeline.stages import stage_specs
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import write_video
from warehouse.exports.corrections import from_lines, from_tasks, to_lines, to_tasks
from warehouse.lake import Lake, corrections, digest
from warehouse.lake.corrections import SAID_LATER, ConflictError, CorrectionError, parsed, row_id

EPISODE = 2  # in chunk 1
STEPS = [
    {"name": "Reach for the cube", "start_frame": 0, "end_frame": 11},
    {"name": "Put it on the plate", "start_frame": 11, "end_frame": 30},
]


def say(lake: Lake, segments: list[dict[str, Any]] = STEPS, episode: int = EPISODE, author: str = "ada", **more: Any):
    """Save a correction as somebody does who has seen everything that was said so far."""
    newest = corrections.newest_row(lake, "tiny", episode)
    options = {
        "author": author,
        "base_label_run": lake.rows("SELECT any_value(label_run) FROM segments")[0][0],
        "base_content_hash": corrections.episode_facts(lake, "tiny", episode)["content_hash"],
        "follows": newest["correction_id"] if newest else None,
    }
    stated = {name: more.pop(name) for name in SAID_LATER if name in more}
    label = parsed({"segments": segments, "plan": more.pop("plan", [])} | stated)
    return corrections.save(lake, "tiny", episode, label, **options | more)


def rebuilt(own: Made) -> list[tuple[str, int | None]]:
    """(stage, chunk) of all that a build runs."""
    report = run_build(own.space, [own.build], workers=1)
    assert not report.failed
    return [(r.run.stage, r.run.chunk) for r in report.done]


def stale(lake: Lake, own: Made) -> list[tuple[str, int | None]]:
    fingerprint = own.build.source(own.space.sources).fingerprint()
    steps = plan(lake, {"tiny": stage_specs(own.build)}, {"tiny": fingerprint})
    return [(s.stage.name, s.chunk) for s in steps if s.status != CURRENT]


def active(lake: Lake, episode: int = EPISODE) -> list[tuple]:
    return lake.rows(
        "SELECT name, start_frame, end_frame, completed FROM active_segments WHERE episode_index = ? "
        "ORDER BY segment_index",
        [episode],
    )


REDONE = [("corrections", 1), ("progress", 1), ("samples", 1), ("shards", 1)]


def by_motion(own: Made) -> Made:
    """The same, whose other runs are not labelled like the one that was corrected (test_transfer.py)."""
    return replace(own, build=with_annotator(own.build, "motion"))


def test_a_correction_rebuilds_its_chunk_alone_down_to_the_shard(own: Made, corpus: Lake):
    own = by_motion(own)
    assert rebuilt(own) == []
    assert stale(corpus, own) == []
    before = dict(corpus.rows("SELECT split || chunk, shard FROM shards"))
    say(corpus)
    assert corrections.pending(corpus) == {"tiny": 1}
    assert stale(corpus, own) == REDONE
    assert rebuilt(own) == REDONE
    assert stale(corpus, own) == [] == rebuilt(own)
    assert corrections.pending(corpus) == {}

    assert active(corpus) == [("Reach for the cube", 0, 11, True), ("Put it on the plate", 11, 30, True)]
    why = corpus.rows("SELECT label_run, why FROM active_runs WHERE episode_index = ?", [EPISODE])
    assert why == [("human/tiny", "accepted correction")]
    ends = corpus.rows("SELECT arg_max(progress, frame_index), count(*) FROM active_progress WHERE episode_index = 2")
    assert ends == [(1.0, 30)]
    after = dict(corpus.rows("SELECT split || chunk, shard FROM shards"))
    changed = {k for k in before if before[k] != after.get(k)}
    assert changed
    assert all(k.endswith("1") for k in changed)
    texts = [r[0] for r in corpus.rows("SELECT question || answer FROM samples WHERE episode_index = ?", [EPISODE])]
    assert any("Put it on the plate" in t for t in texts)
    [shard] = {r[0] for r in corpus.rows("SELECT shard FROM sample_location JOIN samples USING (sample_id) "
                                       "WHERE samples.episode_index = ?", [EPISODE])}  # fmt: skip
    [tar] = own.space.root.rglob(shard)
    assert b"Put it on the plate" in tar.read_bytes()


def test_a_second_correction_replaces_the_first_until_undone(own: Made, corpus: Lake):
    own = by_motion(own)
    first = say(corpus)
    assert rebuilt(own) == REDONE
    moved = [STEPS[0] | {"end_frame": 15}, STEPS[1] | {"start_frame": 15, "completed": False}]
    second = say(corpus, moved, author="grace")
    # which label counts is as it was, so nothing but the correction itself tells samples that they are stale
    assert rebuilt(own) == REDONE
    assert active(corpus)[1] == ("Put it on the plate", 15, 30, False)
    assert corpus.rows("SELECT max(progress) < 1 FROM active_progress WHERE episode_index = 2") == [(True,)]

    corrections.take_back(corpus, second["correction_id"], author="grace", follows=second["correction_id"])
    assert [r["status"] for r in corrections.history(corpus, "tiny", EPISODE)] == ["accepted", "accepted", "rejected"]
    assert rebuilt(own) == REDONE
    assert active(corpus)[0] == ("Reach for the cube", 0, 11, True)

    newest = corrections.newest_row(corpus, "tiny", EPISODE)
    assert newest
    corrections.take_back(corpus, first["correction_id"], author="ada", follows=newest["correction_id"])
    assert corrections.pending(corpus) == {"tiny": 1}
    assert rebuilt(own) == REDONE
    assert corpus.rows("SELECT count(*) FROM segments WHERE label_run = 'human/tiny'") == [(0,)]
    assert active(corpus) == Made(own.space, own.build, own.report).rows(
        "SELECT name, start_frame, end_frame, completed FROM segments WHERE episode_index = 2 ORDER BY segment_index"
    )
    redo = say(corpus)  # the same again, by the same person: a row of its own
    assert redo["correction_id"] not in (first["correction_id"], second["correction_id"])
    assert rebuilt(own) == REDONE
    assert active(corpus)[0][0] == "Reach for the cube"


def test_what_a_person_states_of_the_end_is_the_curve(own: Made, corpus: Lake):
    own = by_motion(own)
    failed = [
        STEPS[0] | {"completed": False, "pace": "fast"},
        {"name": "Drop it", "start_frame": 11, "end_frame": 20, "kind": "idle", "pace": "mistake"},
        {"name": "Put it on the plate", "start_frame": 20, "end_frame": 30, "completed": False},
    ]
    row = say(corpus, failed, final_progress=0.4)
    assert rebuilt(own) == REDONE
    curve = np.array([p for (p,) in corpus.rows(
        "SELECT progress FROM active_progress WHERE episode_index = 2 ORDER BY frame_index")])  # fmt: skip
    # 10 frames up by 2, 9 down by 1, 10 up by 1: 21 parts make 0.4
    np.testing.assert_allclose(curve[[0, 10, 19, 29]], np.array([0, 20, 11, 21]) * 0.4 / 21, atol=1e-6)
    assert corpus.rows("SELECT pace FROM active_segments WHERE episode_index = 2 ORDER BY 1 NULLS LAST") == [
        ("fast",), ("mistake",), (None,)]  # fmt: skip
    told = "SELECT final_progress, catastrophic_frame FROM episode_labels WHERE label_run = 'human/tiny'"
    assert corpus.rows(told) == [(0.4, None)]

    lost = [failed[0] | {"pace": None}, failed[1] | {"pace": None}, failed[2]]
    say(corpus, lost, catastrophic_frame=20, final_progress=0.3)
    assert rebuilt(own) == REDONE
    values = corpus.rows("SELECT progress FROM active_progress WHERE episode_index = 2 ORDER BY frame_index")
    assert [round(values[k][0], 6) for k in (0, 19, 20, 29)] == [0.0, 0.3, 0.0, 0.0]
    assert corpus.rows(told) == [(0.3, 20)]

    # What was said comes back of a file as it was said, and a label vouched for keeps it
    text = to_lines(corrections.history(corpus, "tiny", EPISODE))
    read = from_lines(corpus, text, "nobody")
    assert (read.refused, read.rows[0]["correction_id"]) == ([], row["correction_id"])
    assert [(r["final_progress"], r["catastrophic_frame"]) for r in read.rows] == [(0.4, None), (0.3, 20)]
    kept = corrections.stored_label(corpus, "tiny", EPISODE, "human/tiny")
    assert (kept.final_progress, kept.catastrophic_frame) == (0.3, 20)
    tasks = to_tasks(corpus, corrections.history(corpus, "tiny", EPISODE), [])
    back = from_tasks(corpus, json.dumps(tasks), "nobody")
    assert [r["correction_id"] for r in back.rows] == [r["correction_id"] for r in read.rows]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"final_progress": 0.5}, "mark the step that failed"),
        ({"catastrophic_frame": 12}, "so nothing was lost"),
        ({"catastrophic_frame": 0}, "greater than or equal to 1"),
        ({"final_progress": float("nan")}, "finite number"),
    ],
)
def test_a_stated_end_that_contradicts_the_segments_is_refused(corpus: Lake, more: dict[str, Any], why: str):
    with pytest.raises(CorrectionError, match=why):
        say(corpus, **more)


def test_rows_of_before_paces_keep_their_ids():
    row = {"dataset": "d", "episode_index": 1, "author": "ada", "segments": "[]", "status": "accepted"}
    assert row_id(row) == row_id(row | {"final_progress": None, "catastrophic_frame": None}) == "72aa61d01c98fa24"
    assert row_id(row | {"final_progress": 0.5}) != row_id(row)


def test_a_rejected_label_is_not_used(own: Made, corpus: Lake):
    run = corpus.rows("SELECT label_run FROM active_runs WHERE episode_index = 2")[0][0]
    row = corrections.reject_label(
        corpus, "tiny", EPISODE, run, author="ada", follows=None, comment="the robot is idle"
    )
    assert corrections.pending(corpus) == {"tiny": 1}
    assert rebuilt(own) == REDONE
    assert active(corpus) == []
    assert corpus.rows("SELECT count(*) FROM samples WHERE episode_index = 2") == [(0,)]
    rejected = "SELECT episode_index, stage, severity, detail FROM findings WHERE reason = 'label_rejected'"
    assert corpus.rows(rejected) == [(2, "corrections", "warning", f"label {run}: the robot is idle")]
    corrections.take_back(corpus, row["correction_id"], author="ada", follows=row["correction_id"])
    assert rebuilt(own) == REDONE
    assert active(corpus) != []


def test_contents_that_changed_send_a_correction_to_review(own: Made, corpus: Lake):
    own = by_motion(own)
    say(corpus)
    rebuilt(own)
    write_video(own.source, EPISODE, 30, grey=90)
    done = rebuilt(own)
    assert ("corrections", 1) in done
    [c] = corrections.listed(corpus)
    assert (c["status"], c["episode_index"]) == ("review", EPISODE)
    assert corpus.rows("SELECT episode_index FROM findings WHERE reason = 'correction_outdated'") == [(2,)]
    assert corpus.rows("SELECT label_run LIKE 'human/%' FROM active_runs WHERE episode_index = 2") == [(False,)]
    say(corpus)  # the same for the new contents
    assert [c["status"] for c in corrections.listed(corpus)] == ["accepted"]
    assert rebuilt(own) == REDONE
    assert active(corpus)[0][0] == "Reach for the cube"


def test_the_second_of_two_people_is_told(corpus: Lake):
    say(corpus, author="ada")
    with pytest.raises(ConflictError, match=r"^ada saved a correction of episode 2 of tiny on 20\d\d-.* UTC: reload"):
        say(corpus, author="grace", follows=None)
    with pytest.raises(ConflictError, match="ingested anew"):
        say(corpus, author="grace", base_content_hash="0" * 64)
    assert len(corrections.history(corpus, "tiny", EPISODE)) == 1


BAD = [
    ([], "segments: Tuple should have at least 1 item"),
    ([STEPS[0]], "segments end at frame 11, the episode has 30"),
    ([STEPS[0], STEPS[1] | {"start_frame": 10}], "expected from 11: an overlap"),
    ([STEPS[0], STEPS[1] | {"start_frame": 12}], "expected from 11: a gap"),
    ([STEPS[0], STEPS[1] | {"end_frame": 31}], "covers frames 11-31, the episode has 30"),
    ([STEPS[0], STEPS[1] | {"end_frame": 11}], "it is empty"),
    ([STEPS[0], STEPS[1] | {"name": "  "}], "segments.1.name: String should have at least 1 character"),
    ([STEPS[0], STEPS[1] | {"name": "x" * 201}], "segments.1.name: String should have at most 200 characters"),
    ([STEPS[0], STEPS[1] | {"kind": "pause"}], "segments.1.kind: Input should be 'step', 'idle' or 'done'"),
    ([STEPS[0], STEPS[1] | {"step": 7}], "no segment attempts step 0, and there is no plan that names it: give plan"),
    ([STEPS[0], STEPS[1] | {"start_frame": -1}], "segments.1.start_frame: Input should be greater than or equal to 0"),
    ([STEPS[0], STEPS[1] | {"start_frame": 11.5}], "segments.1.start_frame: Input should be a valid integer"),
    ([STEPS[0], STEPS[1] | {"script": "x"}], "segments.1.script: Extra inputs are not permitted"),
    ([{"name": "Rest", "start_frame": 0, "end_frame": 30, "kind": "idle"}], "has no step left"),
]


@pytest.mark.parametrize(("segments", "message"), BAD, ids=[m for _, m in BAD])
def test_what_is_no_label_is_refused_in_a_line(corpus: Lake, segments: list[dict], message: str):
    with pytest.raises(CorrectionError) as e:
        say(corpus, segments)
    assert message in str(e.value)
    assert "\n" not in str(e.value)
    assert corrections.history(corpus, "tiny", EPISODE) == []


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"episode": 99}, "the corpus has no episode 99 of 'tiny'"),
        ({"author": " "}, "author is empty"),
        ({"author": "a" * 101}, "author is longer than 100"),
        ({"comment": "a\x00b"}, "comment holds control characters"),
    ],
)
def test_what_else_is_refused(corpus: Lake, what: dict, message: str):
    with pytest.raises(CorrectionError, match=message):
        say(corpus, **what)


STEP_NUMBERS = [
    # names, plan given -> steps, plan
    (["A", "B"], [], [0, 1], ["A", "B"]),
    (["A", "B", "A"], [], [0, 1, 0], ["A", "B"]),
    (["A", "A"], ["A", "A", "B"], [0, 1], ["A", "A", "B"]),
    (["A", "A", "A"], ["A", "A"], [0, 1, 1], ["A", "A"]),
    (["A", "New", "B"], ["A", "B"], [0, 1, 2], ["A", "New", "B"]),
    (["New", "A"], ["A", "B"], [0, 1], ["New", "A", "B"]),
]


@pytest.mark.parametrize(("names", "plan", "steps", "settled"), STEP_NUMBERS)
def test_steps_are_known_by_their_names(names: list[str], plan: list[str], steps: list[int], settled: list[str]):
    spans = [{"name": n, "start_frame": k, "end_frame": k + 1} for k, n in enumerate(names)]
    segments, found = parsed({"segments": spans, "plan": plan}).settled(len(names))
    assert ([s.step for s in segments], list(found)) == (steps, settled)


def test_a_new_step_moves_the_numbers_behind_it():
    spans = [("A", 0), ("New", None), ("B", 1), ("A", 0)]
    given = [{"name": n, "start_frame": k, "end_frame": k + 1, "step": s} for k, (n, s) in enumerate(spans)]
    segments, plan = parsed({"segments": given, "plan": ["A", "B", "C"]}).settled(4)
    assert ([s.step for s in segments], plan) == ([0, 1, 2, 0], ("A", "New", "B", "C"))


def test_without_a_plan_the_numbers_of_steps_give_it():
    spans = [("A", 1), ("B", 0), ("A again", 1), ("C", None)]
    given = [{"name": n, "start_frame": k, "end_frame": k + 1, "step": s} for k, (n, s) in enumerate(spans)]
    segments, plan = parsed({"segments": given}).settled(4)
    assert ([s.step for s in segments], plan) == ([1, 0, 1, 2], ("B", "A", "C"))
    with pytest.raises(CorrectionError, match="no segment attempts step 0, and there is no plan that names it"):
        parsed({"segments": given[:1]}).settled(1)


def test_a_placeholder_that_a_person_leaves_is_no_name(own: Made, corpus: Lake):
    left = [STEPS[0] | {"name": "Unnamed step 1"}, STEPS[1] | {"name": "Unnamed step 1, part 2"}]
    say(corpus, [left[0], STEPS[1]])
    rebuilt(own)
    named = "SELECT named FROM active_segments WHERE episode_index = ? ORDER BY segment_index"
    of_label = "SELECT named FROM episode_labels WHERE episode_index = ? AND starts_with(label_run, 'human/')"
    families = "SELECT DISTINCT family FROM samples WHERE episode_index = ? AND starts_with(family, 'procvqa')"
    assert corpus.rows(named, [EPISODE]) == [(False,), (True,)]
    assert corpus.rows(of_label, [EPISODE]) == [(False,)]
    assert corpus.rows(families, [EPISODE]) == [("procvqa_c",)]
    assert not any(s.named for s in parsed({"segments": left}).settled(30)[0])

    # Once every step has a name, the label has words again
    say(corpus)
    rebuilt(own)
    assert corpus.rows(of_label, [EPISODE]) == [(True,)]
    assert len(corpus.rows(families, [EPISODE])) == 3


def test_the_same_said_in_another_order_makes_the_same_corpus(made: Made, tmp_path: Path):
    """Rows brought from elsewhere, and built at once or one by one, last first."""
    first, second = made.copy(tmp_path / "a"), made.copy(tmp_path / "b")
    lake = Lake(first.space)
    say(lake)
    say(lake, [STEPS[0] | {"end_frame": 20}, STEPS[1] | {"start_frame": 20}], author="grace")
    say(lake, [{"name": "Open", "start_frame": 0, "end_frame": 24}], episode=0)
    rows = [r for e in (EPISODE, 0) for r in corrections.history(lake, "tiny", e)]
    rebuilt(first)
    other = Lake(second.space)
    for row in reversed(rows):
        assert corrections.add_rows(other, [row]) == 1
        rebuilt(second)
    assert corrections.add_rows(other, rows) == 0
    assert digest(lake) == digest(other)
    lake.con.close()
    other.con.close()


def test_people_join_the_comparison_of_annotators(own: Made, corpus: Lake):
    say(corpus)
    rebuilt(by_motion(own))
    assert label_runs(corpus)["tiny"]["human/tiny"] == "human"
    agreement = corpus.rows(
        "SELECT episode_index, run_b LIKE 'human/%' OR run_a LIKE 'human/%', mae FROM label_agreement"
    )
    assert [(e, human) for e, human, _ in agreement] == [(EPISODE, True)]
    assert 0 < agreement[0][2] < 1
    against_people = compare(corpus, None, against="human/tiny", embedded=lambda names: np.eye(len(names)))
    (motion,) = [c for c in against_people.labellers if c.label_run]
    assert (motion.annotator, motion.against) == ("motion", "human/tiny")
    assert motion.scores["all", "segment_iou"].n == motion.scores["all", "mae"].n == 1
    by_active = compare(corpus, None, embedded=lambda names: np.eye(len(names))).labellers
    assert {c.annotator for c in by_active if c.label_run} == {"motion", "human"}
    assert all(c.against == ACTIVE for c in by_active)

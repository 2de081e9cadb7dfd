"""Checks of what stages wrote: each fault is named, a sound corpus passes, and a release of a broken one is refused."""

from collections.abc import Callable
from threading import Thread

import pyarrow as pa
import pytest

from core.tables import STAGE_TABLES, TABLES
from tests.kits.lake_kit import opened
from warehouse.lake import Lake, checks
from warehouse.lake.checks import (
    CheckScope,
    corpus_is_sound,
    follows_schema,
    label_drift,
    queried,
)
from warehouse.lake.chunk_rows import ChunkRows

# The first two change places: together they still cover the episode
SWAPPED = "UPDATE segments SET segment_index = 1 - segment_index WHERE segment_index < 2"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "fault", "named"),
    [
        (
            "progress",
            "UPDATE progress SET progress = 1.5 WHERE frame_index = 3",
            "against progress BETWEEN 0 AND 1",
        ),
        ("progress", "UPDATE progress SET progress = 'nan'", "against progress BETWEEN 0 AND 1"),
        ("progress", "INSERT INTO progress FROM progress WHERE frame_index = 0", "rows of one key"),
        # as many rows as before, and as many frames: one twice, one not at all
        (
            "progress",
            "UPDATE progress SET frame_index = 4 WHERE frame_index = 3",
            "rows of one key",
        ),
        (
            "frames",
            "UPDATE frames SET frame_index = frame_index + 1 WHERE frame_index = 5",
            "rows of one key",
        ),
        ("frames", "INSERT INTO keyframes FROM keyframes WHERE frame_index = 0", "rows of one key"),
        ("samples", "INSERT INTO samples FROM samples LIMIT 1", "rows of one key"),
        ("samples", "UPDATE samples SET label_run = 'x'", "runs that are not known"),
        ("progress", "DELETE FROM label_runs", "runs that are not known"),
        ("segments", "UPDATE segments SET end_frame = start_frame", "end_frame > start_frame"),
        (
            "segments",
            "UPDATE segments SET end_frame = end_frame - 1",
            "do not begin where",
        ),
        ("segments", SWAPPED, "do not begin where"),
        (
            "frames",
            "UPDATE frames SET visual_change = -1 WHERE frame_index = 2",
            "visual_change BETWEEN 0 AND 1",
        ),
        (
            "frames",
            "DELETE FROM episode_facts WHERE episode_index = 0",
            "that are not listed",
        ),
        (
            "samples",
            "ALTER TABLE samples DROP COLUMN state",
            "other columns than the schema's: state",
        ),
        ("shards", "UPDATE shards SET split = 'holdout'", "split IN"),
    ],
)
def test_a_fault_is_named(corpus: Lake, stage: str, fault: str, named: str) -> None:
    corpus.con.execute(fault)
    outcome = follows_schema(corpus, CheckScope(stage, "tiny"))
    assert not outcome.passed
    assert named in outcome.detail
    # Rows that are about to be published are told by their episode
    written = {
        name: corpus.arrow(f"FROM {name} WHERE dataset = 'tiny' AND chunk = 0")
        for name in STAGE_TABLES[stage]
    }
    rows = ChunkRows(corpus, "tiny", 0)
    assert named in str(checks.broken_episodes(rows, "tiny", written, ()))
    # The same is found in the rows that a chunk's stages share
    assert follows_schema(rows, CheckScope(stage, "tiny")).detail == outcome.detail
    whole = corpus_is_sound(corpus)
    assert not whole.passed
    assert f"{outcome.detail.split(':')[0]} of tiny" in whole.detail


@pytest.mark.parametrize("check", [follows_schema, corpus_is_sound])
def test_rows_of_another_build_are_of_a_known_run(
    corpus: Lake, check: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is compared is of one state."""
    rows = corpus.arrow("FROM keyframes LIMIT 1").to_pylist()
    keyframes = TABLES["keyframes"].rows([row | {"label_run": "new"} for row in rows])
    runs = TABLES["label_runs"].rows([{"label_run": "new", "annotator": "motion"}])

    def publish() -> None:
        with opened(corpus.workspace) as lake:
            lake.upsert("another build", label_runs=runs, keyframes=keyframes)

    other_build = Thread(target=publish)

    def read_runs(lake: Lake) -> pa.Table:
        known_runs = lake.arrow("SELECT label_run FROM label_runs")
        other_build.start()
        other_build.join(timeout=1)
        return known_runs

    monkeypatch.setattr(checks, "_known_runs", read_runs)
    scope = CheckScope("frames", "tiny") if check is follows_schema else None
    outcome = check(corpus, scope)
    other_build.join()
    assert outcome.passed, outcome.detail
    assert corpus.column("SELECT count(*) FROM keyframes WHERE label_run = 'new'") == [1]


def judged(lake: Lake, name: str, budget_usd: float | None = None) -> tuple[bool, str]:
    finding = queried(name, lake, CheckScope("", "tiny", 0, budget_usd))
    assert finding.numbers
    return finding.passed, finding.detail


def test_labels_that_differ_are_warned_of(corpus: Lake) -> None:
    assert judged(corpus, "label_agreement") == (True, "labels of one annotator only")
    for episode, difference in ((0, 0.1), (1, 0.3)):
        row = f"SELECT 'tiny', {episode}, 'a', 'b', 0, {difference}"
        corpus.con.execute(f"INSERT INTO label_disagreement {row}")
    detail = "2 pairs of labels differ by 0.200 on average, at most 0.300 (episode 1)"
    assert judged(corpus, "label_agreement") == (False, detail)


def test_a_budget_that_chunks_use_up_is_warned_of(corpus: Lake) -> None:
    """Three chunks at half a dollar."""
    corpus.con.execute(
        "INSERT INTO vlm_calls BY NAME SELECT 'tiny' AS dataset, 0 AS episode_index, 0.5 AS cost_usd"
    )
    outcomes = [judged(corpus, "cost_within_budget", usd) for usd in (None, 1.5, 1.4)]
    assert [passed for passed, _ in outcomes] == [True, True, False]
    assert "3 chunks at that price: 1.50 USD, of a budget of 1.4 USD" in outcomes[2][1]


def test_labels_that_drift_are_warned_of(corpus: Lake) -> None:
    """The release has ten episodes more."""
    former = "SELECT * REPLACE ({} AS episode_index, 0 AS chunk) FROM {} WHERE episode_index = 0"
    for table in ("active_runs", "label_quality", "episode_labels"):
        for k in range(5, 15):
            corpus.con.execute(f"INSERT INTO {table} {former.format(k, table)}")
    corpus.con.execute(
        "INSERT INTO releases (name, snapshot, config_hash, created_at) SELECT 'r1', ?, 'hash', now()",
        [corpus.snapshot()],
    )
    corpus.con.execute("UPDATE label_quality SET end_progress = end_progress / 2 WHERE chunk = 0")
    outcome = label_drift(corpus, CheckScope("progress", "tiny"))
    assert not outcome.passed
    assert outcome.detail.startswith("against release r1: end progress")

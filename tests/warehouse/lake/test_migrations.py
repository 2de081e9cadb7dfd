"""A lake of an earlier version is brought forward, one of a later version is refused."""

import shutil
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from core.paths import ROOT, Workspace
from core.tables import TABLES
from ingest.episode import Finding
from pipeline.build import run_build
from pipeline.config import source_build
from pipeline.plan import STALE, plan
from pipeline.stages import stage_specs
from tests.kits.lake_kit import change, restate
from tests.kits.lake_kit import opened as opened_lake
from warehouse.lake import Lake, LakeError, forget_lakes
from warehouse.lake.catalog import backups
from warehouse.lake.checks import CheckScope, follows_schema
from warehouse.lake.connection import connect
from warehouse.lake.former_words import FORMER_TABLES
from warehouse.lake.publication import content_key
from warehouse.lake.recordings import decided_apart
from warehouse.lake.schema import SCHEMA_VERSION, migrate, schema_version, upgraded
from warehouse.lake.sql import open_for_users
from warehouse.lake.statements import say
from warehouse.lake.views import VIEWS

SAMPLE = ROOT / "samples" / "sim_short"
FINDING = {"dataset": "sim_short", "episode_index": 1, "chunk": 0, "severity": "warning"}
# Made with the third commit of this repository: build --source samples/sim_short --episodes 0,1,2
OLD = Path(__file__).parent / "lake_schema_0.tar.gz"


@pytest.fixture
def old(tmp_path: Path) -> Workspace:
    with tarfile.open(OLD) as tar:
        tar.extractall(tmp_path / "old", filter="data")
    return Workspace(tmp_path / "old")


@pytest.fixture(scope="module")
def made_upgraded(tmp_path_factory) -> Workspace:
    folder = tmp_path_factory.mktemp("upgraded")
    with tarfile.open(OLD) as tar:
        tar.extractall(folder / "old", filter="data")
    upgraded(Workspace(folder / "old"), dry=False)
    forget_lakes()
    return Workspace(folder / "old")


@pytest.fixture
def current(made_upgraded: Workspace, tmp_path: Path) -> Workspace:
    """The old workspace, brought forward."""
    return Workspace(shutil.copytree(made_upgraded.root, tmp_path / "old"))


def test_a_changed_schema_has_a_new_version():
    tables = [
        (t.name, t.key, t.partition, [(c.name, str(c.type)) for c in t.columns])
        for t in TABLES.values()
    ]
    views = [f"{view.name} {' '.join(view.sql.split())}" for view in VIEWS]
    schema_key = content_key(repr(tables), *views)[:16]
    assert (SCHEMA_VERSION, schema_key) == (25, "4b0835f598e32d4f"), (
        "core/tables or views have changed: warehouse/lake/schema.py says what to do"
    )


def test_a_workspace_of_an_earlier_commit_is_built_on(old: Workspace):
    with pytest.raises(LakeError, match=r"is of version 0, .*proccorpus upgrade"):
        open_for_users(old)
    con = connect(old, read_only=True)
    frames = con.execute("SELECT count(*), sum(luma_mean) FROM frames").fetchall()
    assert (schema_version(con), frames[0][0]) == (0, 169)
    con.close()

    state = old.catalog.read_bytes()
    assert upgraded(old, dry=True)["version"] == 0
    assert old.catalog.read_bytes() == state
    assert upgraded(old, dry=False)["backup"] == str(old.root / "backups" / backups(old)[0].name)
    lake = Lake(old)
    assert schema_version(lake.con) == SCHEMA_VERSION
    assert lake.rows("SELECT count(*), sum(luma_mean) FROM frames") == frames
    assert lake.rows("SELECT count(*), count(label_run) FROM keyframes WHERE label_run = ''")[
        0
    ] == (9, 9)
    assert lake.rows("SELECT labelled_frames FROM coverage") == [(169,)]
    for stage in ("episodes", "frames", "segments", "progress", "samples", "shards"):
        outcome = follows_schema(lake, CheckScope(stage, "sim_short", None))
        assert outcome.passed, (stage, outcome.detail)

    build = source_build(SAMPLE, "sim_short", None, (0, 1, 2))
    fingerprint = build.source(old.sources).fingerprint()
    first = plan(lake, {"sim_short": stage_specs(build)}, {"sim_short": fingerprint})[0]
    assert (first.stage.name, first.status) == ("episodes", STALE)
    lake.con.close()

    report = run_build(old, [build], workers=1)
    assert not report.failed, report.failed
    stages = {"episodes", "frames", "demonstrations", "segments", "progress", "samples", "shards"}
    assert {r.run.stage for r in report.done} == stages
    lake = Lake(old, read_only=True)
    assert lake.rows("SELECT count(*) FROM frames")[0][0] == 169
    # A table that the old lake had not
    assert lake.rows("SELECT count(*) FROM states")[0][0] == 169
    assert lake.rows("SELECT arm, is_used FROM signals") == [("", True)]
    assert lake.rows("SELECT count(*) FROM frames WHERE grippers = [gripper]") == [(169,)]
    assert lake.rows("SELECT count(*) FROM samples WHERE pictures IS NULL")[0][0] == 0
    forget_lakes()


def test_a_stage_without_some_answers_is_asked_again(current: Workspace):
    """Before, it counted as done."""
    sql = "SELECT stage, starts_with(input_hash, 'unanswered ') FROM stage_runs WHERE stage IN ('segments', 'frames')"
    with opened_lake(current) as lake:
        lake.con.execute("DELETE FROM schema_versions WHERE version >= 19")
        for name in (*FORMER_TABLES, "run_checks"):
            lake.con.execute(f"DROP VIEW {name}")
        finding = FINDING | {"stage": "segments", "reason": "bad_reply"}
        lake.upsert("a finding", findings=TABLES["findings"].rows([finding]))
    upgraded(current, dry=False)
    with opened_lake(current) as lake:
        assert sorted(lake.rows(sql)) == [("frames", False), ("segments", True)]


def test_stretches_beside_the_findings_are_theirs(current: Workspace):
    row = FINDING | {"stage": "frames", "reason": "camera_black", "camera": "c"}
    stretches = [Finding("no_video", "", start_frame=k).stretch for k in (3, 9)]
    rows = TABLES["findings"].rows([row | {"stretches": stretches}, row | {"camera": None}])
    with opened_lake(current) as lake:
        lake.upsert("findings", findings=rows)
        former_checks = lake.arrow("FROM run_checks ORDER BY ALL")
        lake.con.execute("DROP VIEW run_checks")
        lake.con.register("former_checks", former_checks)
        lake.con.execute("CREATE TABLE run_checks AS FROM former_checks")
        lake.con.execute("UPDATE findings SET stretches = NULL")
        lake.con.execute("DELETE FROM schema_versions WHERE version >= 23")
    forget_lakes()
    upgraded(current, dry=False)
    with opened_lake(current) as lake:
        assert lake.arrow("FROM run_checks ORDER BY ALL") == former_checks
        assert lake.column("SELECT start_frame FROM checks ORDER BY 1") == [3, 9]


def test_former_words_are_of_kinds_of_their_own(current: Workspace):
    """Before, they were corrections and changes."""
    row = {"dataset": "sim_short", "episode_index": 1, "author": "ada"}
    label = row | {"status": "accepted", "plan": ["reach"]}
    decided = {"recording": "r", "former": "f", "what": "other", "to_episode": 1, "author": "dora"}
    with opened_lake(current) as lake:
        lake.con.execute("DELETE FROM schema_versions WHERE version >= 22")
        lake.con.execute("DROP VIEW run_checks")
        say(lake, "correction", lambda: [label, row | label | {"episode_index": 2}])
        say(lake, "rejection", lambda: [row | {"subject": "motion-1"}])
        restate(
            lake,
            "UPDATE {} SET kind = 'correction', value = '{{\"status\":\"rejected\"}}' WHERE subject IS NOT NULL",
        )
        change_row = decided | {"dataset": "sim_short", "created_at": datetime.now(UTC)}
        lake.upsert("a decision", recording_changes=TABLES["recording_changes"].rows([change_row]))
    forget_lakes()
    upgraded(current, dry=False)
    sql = "SELECT kind, subject, author, value->>'status', value->>'is_same', batch = statement_id FROM statements"
    with opened_lake(current) as lake:
        assert sorted(lake.rows(f"{sql} WHERE kind <> 'build'"), key=str) == [
            ("correction", None, "ada", "accepted", None, True),
            ("correction", None, "ada", "accepted", None, True),
            ("recording", "f", "dora", None, "false", True),
            ("rejection", "motion-1", "ada", None, None, True),
        ]
        rejected = "SELECT base_label_run FROM corrections WHERE status = 'rejected'"
        assert lake.column(rejected) == ["motion-1"]
        assert decided_apart(lake) == {"r": frozenset("f")}


def test_opening_again_migrates_nothing(current: Workspace):
    lake = Lake(current)
    snapshot = lake.snapshot()
    migrate(lake)
    lake.con.close()
    assert Lake(current).snapshot() == snapshot


@pytest.mark.parametrize(
    "opened",
    [partial(Lake, read_only=True), Lake, open_for_users],
    ids=["to read", "to write", "to ask"],
)
def test_a_newer_lake_is_refused(tmp_path: Path, opened: Callable[[Workspace], object]):
    space = Workspace(tmp_path)
    change(space, "INSERT INTO schema_versions VALUES (?, now(), '9.0.0')", SCHEMA_VERSION + 1)
    with pytest.raises(LakeError, match=f"works with version {SCHEMA_VERSION}: update proccorpus"):
        opened(space)

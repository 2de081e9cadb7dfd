"""Workspaces of earlier versions (tests/kits/kept_workspaces.py) keep what people said."""

import json
import shutil
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from core.paths import Workspace
from core.tables import TABLES
from explorer.access import CorpusView
from pipeline.build import BuildReport, run_build
from pipeline.config import source_build
from tests.kits.cli_kit import DONE, command
from tests.kits.fault_kit import killing
from tests.kits.kept_workspaces import FOLDER, KEPT
from warehouse.lake import Lake
from warehouse.lake.connection import has
from warehouse.lake.sql import RELATIONS, open_for_users

PEOPLE = (
    "corrections",
    "reference_marks",
    "joined_tasks",
    "outcomes",
    "episode_marks",
    "takedowns",
)
IN_FORCE = {
    "current_corrections": "episode_index, status, correction_id, author, comment, base_label_run",
    "current_outcomes": "episode_index, success, note, author",
    "current_tags": "episode_index, tag, author",
    "current_assignments": "episode_index, person, author",
    "current_references": "episode_index, author, origin",
    "current_joined_tasks": "task, same_as",
}
SPLITS = "SELECT episode_index, split FROM splits ORDER BY 1"
LABELS = (
    "SELECT episode_index, name, start_frame, end_frame FROM active_segments "
    "WHERE label_run LIKE 'human/%' ORDER BY 1, 3"
)
# The other version takes all of its steps, and more
MARKS = {"0.2.0-schema-12": pytest.mark.long}
CUTS = {0: 11, 2: 13}  # where the corrected runs change steps; episode 0 was corrected twice


@pytest.fixture(params=[pytest.param(v, marks=MARKS.get(v, ())) for v in KEPT])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with tarfile.open(FOLDER / f"{request.param}.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path


def rows(lake: Lake, names: dict[str, str] | tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """Rows of those tables or views that the lake has, in one order."""
    columns = names if isinstance(names, dict) else dict.fromkeys(names, "*")
    rows_by_table = {
        name: lake.dicts(f"SELECT {columns[name]} FROM {name}")
        for name in columns
        if has(lake.con, name)
    }
    return {name: sorted(table_rows, key=repr) for name, table_rows in rows_by_table.items()}


def build(folder: Path) -> BuildReport:
    builds = [source_build(folder / "source", "tiny", None, None)]
    report = run_build(Workspace(folder / "workspace"), builds, workers=1)
    assert report.failed == []
    return report


def test_what_people_said_outlives_an_upgrade(kept: Path) -> None:
    lake = Lake(Workspace(kept / "workspace"), read_only=True)
    said_rows = rows(lake, PEOPLE)
    in_force = rows(lake, IN_FORCE)
    snapshot = lake.snapshot()
    labels = lake.rows(LABELS)
    splits = lake.rows(SPLITS)
    assert said_rows["corrections"]
    assert said_rows["takedowns"]
    assert [(episode, end) for episode, name, _, end in labels if name == "reach"] == list(
        CUTS.items()
    )
    lake.con.close()
    # Versions between kept it once more in lines, which name no recording
    lines = [{"table": "takedowns", "row": row} for row in said_rows["takedowns"]]
    (kept / "workspace" / "people.jsonl").write_text(
        "\n".join(json.dumps(x, default=str) for x in lines)
    )

    build(kept)
    lake = Lake(Workspace(kept / "workspace"))
    current_rows = rows(lake, PEOPLE)
    for table, former_rows in said_rows.items():
        # Columns may be added; each row says which recording it is of
        for former, row in zip(former_rows, current_rows[table], strict=True):
            assert {name: row[name] for name in former} == former, table
        assert all(
            row["recording"] for row in current_rows[table] if row.get("episode_index") is not None
        ), table
    assert {
        view: view_rows for view, view_rows in rows(lake, IN_FORCE).items() if view in in_force
    } == in_force
    assert lake.rows(LABELS) == labels
    assert lake.rows(SPLITS) == splits
    assert lake.rows("SELECT episode_index FROM active_runs ORDER BY 1") == [
        (episode,) for episode in (0, 1, 2, 4)
    ]
    assert lake.rows("SELECT reason FROM quarantine") == [("taken_down",)]
    assert lake.rows("FROM pending_corrections") == []
    lake.con.close()
    # At its snapshot all that this version knows is found, and what was said then as it was said
    with CorpusView(lake.workspace, snapshot).reading() as reader:
        for name in RELATIONS:
            reader.rows(f"FROM {name}")
    with closing(open_for_users(lake.workspace, snapshot)) as con:
        for table in {*said_rows} - {"takedowns"}:
            queried = con.execute(f"FROM {table}").to_arrow_table().to_pylist()
            columns = said_rows[table][0]
            assert said_rows[table] == sorted(
                ({name: row[name] for name in columns} for row in queried), key=repr
            )

    assert build(kept).done == []


EACH_TIME = 6  # what people said is taken over, and stands in both places


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(k, marks=pytest.mark.slow if k == EACH_TIME else pytest.mark.long)
        for k in range(1, 11)
    ],
)
def test_an_interrupted_upgrade_goes_on(kept: Path, moment: int) -> None:
    spaces = kept / "workspace", kept / "whole"
    shutil.copytree(*spaces)
    with killing("upgrade", "--yes") as is_killed:
        assert is_killed(moment, spaces[0])
    tables = ("statements", *PEOPLE, *IN_FORCE, *(TABLES.keys() - {"schema_versions"}))
    states = []
    for space in spaces:
        assert command("upgrade", "--yes", cwd=kept, workspace=space).code == DONE
        lake = Lake(Workspace(space), read_only=True)
        states.append(rows(lake, tables))
        lake.con.close()
    for table, of_whole in states[1].items():
        assert states[0][table] == of_whole, table

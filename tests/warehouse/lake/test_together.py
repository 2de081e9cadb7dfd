"""Publications that share a commit; turns of readers and committers."""

import fcntl
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import duckdb
import pyarrow as pa
import pytest

from core.paths import Workspace
from core.tables import TABLES
from tests.kits.lake_kit import frames, segments, stage_run
from warehouse.lake import Lake, place
from warehouse.lake.place import committing_turn, locked, reading_turn
from warehouse.lake.publication import DIGITS, OFFERS


def until(space: Workspace, offers: int) -> None:
    while (
        sum(path.read_bytes()[:DIGITS].endswith(b"0") for path in (space.root / OFFERS).glob("*"))
        < offers
    ):
        time.sleep(0.01)


def test_who_commits_brings_those_who_wait_and_nothing_else(tmp_path):
    """Nothing of processes that died, that still write, or that are of other code."""
    space = Workspace(tmp_path)
    lakes = [Lake(space) for _ in range(4)]
    snapshots_by_chunk = {}
    lakes[0].publish(stage_run(chunk=1), {"frames": frames(chunk=1, value=0.25)})  # is replaced
    snapshot_before = lakes[0].snapshot()
    run = TABLES["label_runs"].rows([{"label_run": "r1", "annotator": "motion"}])

    def write(chunk: int) -> None:
        rows = frames(chunk=chunk, episodes=(chunk,))
        snapshots_by_chunk[chunk] = [lakes[chunk].publish(stage_run(chunk=chunk), {"frames": rows})]
        rows = segments(chunk=chunk, label_run="r1")
        of_run = stage_run(stage="segments", chunk=chunk, label_run="r1")
        snapshots_by_chunk[chunk].append(
            lakes[chunk].publish(of_run, {"segments": rows}, registered={"label_runs": run})
        )

    writers = [threading.Thread(target=write, args=(chunk,)) for chunk in range(4)]
    with locked(space), ExitStack() as living:
        for writer in writers:
            writer.start()
        until(space, 4)
        offered = (
            next((space.root / OFFERS).glob("*")).read_bytes().replace(b'"chunk": ', b'"chunk": 9')
        )
        (space.root / OFFERS / "dead").write_bytes(offered)
        other_contents = {"half": b" " * DIGITS + offered[DIGITS:], "cut": offered[:-200]}
        other_contents["other code"] = offered.replace(b'"rows"', b'"lines"')
        for name, content in other_contents.items():
            file = living.enter_context((space.root / OFFERS / name).open("xb"))
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(content)
            file.flush()
        living = living.pop_all()
    for writer in writers:
        writer.join()
    assert {path.name for path in (space.root / OFFERS).iterdir()} == {*other_contents}
    living.close()
    assert [snapshots[0] for snapshots in snapshots_by_chunk.values()] == [snapshot_before + 1] * 4
    assert lakes[0].column("SELECT DISTINCT snapshot FROM stage_runs WHERE stage = 'frames'") == [
        snapshot_before + 1
    ]
    assert lakes[0].rows("SELECT chunk, count(*) FROM frames GROUP BY 1 ORDER BY 1") == [
        (k, 4) for k in range(4)
    ]
    assert lakes[0].rows("SELECT count(*), count(DISTINCT chunk) FROM segments") == [(8, 4)]
    assert lakes[0].rows("SELECT label_run FROM label_runs") == [("r1",)]


def test_an_offer_that_cannot_be_committed_harms_its_process_alone(tmp_path):
    space = Workspace(tmp_path)
    failed = []
    much = pa.array(["much"] * 4)

    def write(lake: Lake, chunk: int) -> None:
        rows = frames(chunk=chunk)
        if chunk == 1:
            rows = rows.set_column(
                rows.schema.get_field_index("visual_change"), "visual_change", much
            )
        try:
            lake.publish(stage_run(chunk=chunk), {"frames": rows})
        except duckdb.Error as e:
            failed.append((chunk, "much" in str(e)))

    lakes = [Lake(space) for _ in range(3)]
    writers = [
        threading.Thread(target=write, args=(lake, chunk)) for chunk, lake in enumerate(lakes)
    ]
    with locked(space):
        for writer in writers:
            writer.start()
        until(space, 3)
    for writer in writers:
        writer.join()
    assert failed == [(1, True)]
    assert lakes[0].column("SELECT DISTINCT chunk FROM frames ORDER BY 1") == [0, 2]


Turn = Callable[[Workspace], AbstractContextManager[None]]


@pytest.mark.parametrize(
    ("first", "second", "waits"),
    [
        (reading_turn, reading_turn, False),
        (reading_turn, committing_turn, True),
        (committing_turn, reading_turn, True),
        (committing_turn, committing_turn, True),
    ],
)
def test_who_waits(workspace, first, second, waits):
    has_turn = threading.Event()

    def take() -> None:
        with second(workspace):
            has_turn.set()

    other_thread = threading.Thread(target=take)
    with first(workspace):
        other_thread.start()
        assert has_turn.wait(0.1 if waits else 5) is not waits
    start_s = time.monotonic()
    other_thread.join(5)
    assert has_turn.is_set()
    assert time.monotonic() - start_s < 0.5, "SQLite would have slept for a second"


def test_nobody_waits_for_ever(workspace, monkeypatch):
    """SQLite's own locks decide then."""
    monkeypatch.setattr(place, "PATIENCE_S", 0.05)
    with committing_turn(workspace), reading_turn(workspace):
        pass

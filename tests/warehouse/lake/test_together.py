"""Publications that share a commit: those of a chunk in one process, and those of processes that wait at once."""

from contextlib import suppress
from pathlib import Path

import pytest

from core.paths import Workspace
from core.tables import TABLES
from tests.kits.lake_kit import frames, segments, stage_run
from warehouse.lake import Lake, LakeError, digest

SEEN = "SELECT min(visual_change), count(*) FROM frames WHERE dataset = 'a' AND chunk = 0"


def labels(label_run: str):
    return {
        "tables": {
            "segments": segments(label_run=label_run),
            "active_runs": TABLES["active_runs"].rows(
                [{"dataset": "a", "episode_index": 0, "chunk": 0, "label_run": label_run}]
            ),
        },
        "registered": {"label_runs": TABLES["label_runs"].rows([{"label_run": label_run, "annotator": "motion"}])},
    }


def test_a_chunk_is_seen_by_its_process_and_committed_at_once(tmp_path: Path):
    lake, reader = Lake(Workspace(tmp_path)), Lake(Workspace(tmp_path))
    lake.publish(stage_run(), {"frames": frames(value=0.25)})
    lake.publish(stage_run(chunk=1), {"frames": frames(chunk=1, episodes=(9,))})
    before, held = lake.snapshot(), digest(lake)
    with lake.together("a", 0):
        lake.publish(stage_run(), {"frames": frames(n=3, value=0.5)})
        lake.publish(stage_run(stage="segments", label_run="r1"), **labels("r1"))
        assert lake.rows(SEEN) == [(0.5, 3)]
        # views of the lake see it, too
        assert lake.rows("SELECT count(*) FROM active_segments JOIN label_runs USING (label_run)") == [(2,)]
        assert lake.rows("SELECT count(*) FROM stage_runs") == [(3,)]
        assert reader.rows(SEEN) == [(0.25, 4)]
        assert digest(reader) == held
        with pytest.raises(LakeError, match="another partition"):
            lake.publish(stage_run(stage="other"), {"frames": frames("b")})
    assert reader.rows(SEEN) == lake.rows(SEEN) == [(0.5, 3)]
    assert reader.rows("SELECT count(*) FROM frames") == [(7,)]
    assert lake.snapshot() == before + 1
    assert reader.rows("SELECT count(*) FROM stage_runs WHERE snapshot = ?", [before + 1]) == [(2,)]


def test_what_was_published_before_an_error_is_kept_and_long_work_is_not_held_back(tmp_path: Path):
    lake, reader = Lake(Workspace(tmp_path)), Lake(Workspace(tmp_path))
    with suppress(ZeroDivisionError), lake.together("a", 0):
        lake.publish(stage_run(duration_s=3.0), {"frames": frames()})
        assert reader.rows(SEEN) == [(None, 0)]
        lake.publish(stage_run(stage="segments", label_run="r1", duration_s=3.0), **labels("r1"))
        lake.commit_draft(6.5)
        assert reader.rows(SEEN) == [(None, 0)]
        lake.commit_draft(6.0)
        assert reader.rows(SEEN)[0][1] == 4, "it took six seconds to make"
        lake.publish(stage_run(stage="segments", label_run="r2"), **labels("r2"))
        raise ZeroDivisionError
    assert reader.rows("SELECT label_run FROM label_runs ORDER BY 1") == [("r1",), ("r2",)]
    lake.publish(stage_run(), {"frames": frames(value=0.75)})
    assert reader.rows(SEEN) == [(0.75, 4)]

"""A takedown reaches copies that are in the corpus already, whatever was made of their pictures."""

from pathlib import Path

from core.paths import Workspace
from core.tables import TABLES
from ingest.recordings import MOMENTS, VERSION
from tests.kits.lake_kit import opened
from warehouse.lake import Lake
from warehouse.lake.recordings import decide, withdraw
from warehouse.lake.statements import undo_takedown

SHOWN = [(k * 0x9E3779B97F4A7C15) % 2**64 for k in range(1, MOMENTS + 1)]
ENCODED_ANEW = [SHOWN[0], *(picture ^ 5 for picture in SHOWN[1:])]
OTHER = [picture ^ 0xFFFFFFFF for picture in SHOWN]
# By dataset the hash of the rows, frames and pictures of its episode 4
RUNS = {
    "arm": ("rows", 40, SHOWN),
    "copied": ("rows", 40, ENCODED_ANEW),
    "half_rate": (None, 20, ENCODED_ANEW),
    "other": (None, 40, OTHER),
    "other_rows": ("others", 20, ENCODED_ANEW),
    "video": (None, 40, ENCODED_ANEW),
}
DOWN_SQL = "SELECT dataset, is_sure FROM current_takedowns ORDER BY 1"


def put_runs(lake: Lake) -> None:
    rows = {"datasets": [], "episode_facts": [], "episode_content": [], "recordings": []}
    for dataset, (rows_hash, frames, moments) in RUNS.items():
        place = {"dataset": dataset, "episode_index": 4}
        of_recording = {"recording": f"r {dataset}"}
        layers = {"rows_hash": rows_hash, "num_frames": frames, "moments": moments}
        of_content = {"fingerprint_version": VERSION, "usable_cameras": ["front"]}
        rows["datasets"].append({"dataset": dataset, "chunk_size": 8})
        rows["episode_facts"].append(place | {"chunk": 0})
        content = place | {"chunk": 0, "content_hash": dataset} | of_recording
        rows["episode_content"].append(content | layers | of_content)
        rows["recordings"].append(place | of_recording | {"source_id": "4"})
    lake.upsert("runs", **{name: TABLES[name].rows(of_table) for name, of_table in rows.items()})


def test_copies_are_taken_down_or_not_used_until_a_person_decides(tmp_path: Path):
    with opened(Workspace(tmp_path)) as lake:
        put_runs(lake)
        assert withdraw(lake, "arm", [4], "withdrawn") == [
            ("copied", 4, True),
            ("half_rate", 4, False),
            ("video", 4, False),
        ]
        unsure = [("half_rate", False), ("video", False)]
        assert lake.rows(DOWN_SQL) == [("arm", True), ("copied", True), *unsure]

        decide(lake, "video", 4, is_same=True, author="dora")
        decide(lake, "half_rate", 4, is_same=False, author="dora")
        assert lake.rows(DOWN_SQL) == [("arm", True), ("copied", True), ("video", True)]
        numbers = "SELECT episode_index FROM recordings WHERE left_at IS NULL"
        assert lake.column(numbers) == [4] * len(RUNS), "each keeps its number"

        # What a person said of it holds when it is taken down again
        # With it, marks of its copies go, the one that a person named included
        assert undo_takedown(lake, "arm", None) == 3
        assert lake.rows(DOWN_SQL) == []
        assert ("half_rate", 4, False) not in withdraw(lake, "arm", [4], "again")

"""A takedown reaches copies that are in the corpus already, whatever was made of their pictures."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from core.paths import Workspace
from core.tables import TABLES
from ingest.recordings import MOMENTS, VERSION, Likeness
from tests.kits.lake_kit import opened, put_rows
from warehouse.lake import Lake
from warehouse.lake.recordings import decide, decided_apart, withdraw
from warehouse.lake.statements import undo_takedown

SHOWN = [(k * 0x9E3779B97F4A7C15) % 2**64 for k in range(1, MOMENTS + 1)]
ENCODED_ANEW = [SHOWN[0], *(picture ^ 5 for picture in SHOWN[1:])]
OTHER = [picture ^ 0xFFFFFFFF for picture in SHOWN]
# By dataset and episode the hash of the rows, frames and pictures
RUNS = {
    ("arm", 4): ("rows", 40, SHOWN),
    ("copied", 4): ("rows", 40, ENCODED_ANEW),
    ("half_rate", 4): (None, 20, ENCODED_ANEW),
    ("other", 4): (None, 40, OTHER),
    ("other_rows", 4): ("others", 20, ENCODED_ANEW),
    ("video", 4): (None, 40, ENCODED_ANEW),
}
DOWN_SQL = "SELECT dataset, is_sure FROM current_takedowns ORDER BY 1"


def put_runs(lake: Lake, runs: Mapping[tuple[str, int], tuple], **rows: list[dict]) -> None:
    tables = {"datasets": [{"dataset": name, "chunk_size": 8} for name in {d for d, _ in runs}]}
    for (dataset, number), (rows_hash, frames, moments) in runs.items():
        place = {"dataset": dataset, "episode_index": number}
        of_recording = place | {"recording": f"r {dataset} {number}", "source_id": str(number)}
        layers = {"rows_hash": rows_hash, "num_frames": frames, "moments": moments}
        layers |= {"fingerprint_version": VERSION, "usable_cameras": ["front"]}
        content = of_recording | layers | {"chunk": 0, "content_hash": str(place)}
        for table in ("episode_facts", "episode_content", "recordings"):
            columns = TABLES[table].schema.names
            tables.setdefault(table, []).append({k: v for k, v in content.items() if k in columns})
    tables |= rows
    put_rows(lake, **tables)


def test_copies_are_taken_down_or_not_used_until_a_person_decides(tmp_path: Path):
    with opened(Workspace(tmp_path)) as lake:
        put_runs(lake, RUNS)
        assert withdraw(lake, "arm", [4], "withdrawn") == [
            ("copied", 4, Likeness.SAME),
            ("half_rate", 4, Likeness.PROBABLE),
            ("video", 4, Likeness.PROBABLE),
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
        assert "half_rate" not in {name for name, _, _ in withdraw(lake, "arm", [4], "again")}


@pytest.mark.parametrize(
    ("of_rows", "of_cells", "degree"),
    [
        (0.5, 60, Likeness.OTHER),
        (0.5, 10, Likeness.PROBABLE),
        (0.0, 60, Likeness.PROBABLE),
        (None, 60, Likeness.PROBABLE),
    ],
    ids=["another start", "pictures encoded anew", "the same rows", "no rows"],
)
def test_of_one_dataset_rows_decide_where_pictures_differ_by_more_than_encoding(
    tmp_path: Path, of_rows: float | None, of_cells: int, degree: Likeness
) -> None:
    frames = [
        {"dataset": "arm", "chunk": 0, "episode_index": k // 40, "frame_index": k % 40}
        for k in range(80)
    ]
    pictures = [
        frame | {"camera": "front", "luma": bytes([of_cells * frame["episode_index"]] * 256)}
        for frame in frames
    ]
    states = [
        frame | {"state": [frame["frame_index"] / 40 + of_rows * frame["episode_index"], 1.0]}
        for frame in frames
        if of_rows is not None
    ]
    with opened(Workspace(tmp_path)) as lake:
        runs = {("arm", number): (f"rows {number}", 40, SHOWN) for number in (0, 1)}
        put_runs(lake, runs, states=states, tiny_pictures=pictures)
        assert withdraw(lake, "arm", [0], "withdrawn") == [("arm", 1, degree)]
        unsure = lake.column("SELECT episode_index FROM current_takedowns WHERE NOT is_sure")
        assert unsure == [1] * (degree == Likeness.PROBABLE)
        # A build that looks at its pictures again is told so, too
        assert ("r arm 1" in decided_apart(lake)) == (degree == Likeness.OTHER)

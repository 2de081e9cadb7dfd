"""Tables read in parts: what is in them, whatever their columns are."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.formats.tables import batches, ranges

STEPS = [[{"role": "user", "content": f"step {k} of {n}"} for k in range(n)] for n in range(12)]
TABLE = pa.table(
    {
        "task": [f"task {n % 3}" for n in range(12)],
        "tasks": [[f"task {k}" for k in range(n % 4)] for n in range(12)],
        "language": STEPS,
    }
)


@pytest.mark.parametrize("rows_of_a_group", [3, 12])
@pytest.mark.parametrize("size", [2, 5, 100])
def test_texts_within_lists_and_structs_are_read_from_several_row_groups(
    tmp_path: Path, rows_of_a_group: int, size: int
) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(TABLE, path, row_group_size=rows_of_a_group)
    with pq.ParquetFile(path) as file:
        assert pa.Table.from_batches(batches(file, TABLE.column_names, size)).to_pylist() == TABLE.to_pylist()
        places = [(0, 2), (2, 1), (5, 6), (11, 1)]
        parts = list(ranges(file, places, TABLE.column_names, size))
    assert [part.to_pylist() for part in parts] == [TABLE.slice(*place).to_pylist() for place in places]

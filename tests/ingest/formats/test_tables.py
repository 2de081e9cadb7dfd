"""Tables read in parts: what is in them, whatever their columns are."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.episode import RowsError
from ingest.formats.tables import batches
from ingest.limits import Limits

STEPS = [[{"role": "user", "content": f"step {k} of {n}"} for k in range(n)] for n in range(12)]
TABLE = pa.table(
    {
        "task": [f"task {n % 3}" for n in range(12)],
        "tasks": [[f"task {k}" for k in range(n % 4)] for n in range(12)],
        "language": STEPS,
    }
)


def read(path: Path, limits: Limits, size: int = 100) -> list[dict]:
    with pq.ParquetFile(path) as file:
        return [row for part in batches(file, path, file.schema_arrow.names, limits, size) for row in part.to_pylist()]


@pytest.mark.parametrize("rows_of_a_group", [3, 12])
@pytest.mark.parametrize("size", [2, 5, 100])
def test_texts_within_lists_and_structs_are_read_from_several_row_groups(
    tmp_path: Path, rows_of_a_group: int, size: int
) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(TABLE, path, row_group_size=rows_of_a_group)
    assert read(path, Limits(), size) == TABLE.to_pylist()


def test_a_long_text_within_lists_is_refused_before_all_of_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    long = pa.table(TABLE.to_pydict() | {"tasks": [["x" * 1000] * 100] * 12})
    pq.write_table(long, path)
    with pytest.raises(RowsError, match=r"rows.parquet: bytes of one row: 100,\d+, over the limit of 20,000"):
        read(path, Limits(max_bytes=20_000))


def test_a_text_that_a_list_repeats_is_refused_before_it_is_written_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"tasks": [["x" * 1000] * 10_000]}), path)  # 10 MB in 2 kB
    with pytest.raises(RowsError, match=r"rows.parquet: bytes of one row: 10,000,000, over the limit of 1,000,000"):
        read(path, Limits(max_bytes=1_000_000))

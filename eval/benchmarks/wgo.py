"""WGO-Bench (macrodata/WGO-Bench on the hub): its one table of videos as plain videos with steps, which a build reads.

    python -m eval.benchmarks.wgo annotations.parquet FOLDER

People's segments become labels; `annotators compare` scores others against them. Robot states (`perception_state`) are
left out: the names of their channels are not published.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field

from core.errors import UserError
from core.files import write_file
from eval.benchmarks.question import BenchmarkError, read_row


class WgoSegment(BaseModel):
    start_sec: Annotated[float, Field(ge=0)]
    end_sec: float
    subtask: str


class WgoRow(BaseModel):
    id: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    video: bytes
    instruction: str
    segments: list[WgoSegment]


def unpack(table: Path, folder: Path) -> Counter[str]:
    """A folder for each source of its runs (droid, galaxea, homer), with how many it has. Raises BenchmarkError, which
    names the file or the row."""
    num_videos = Counter[str]()
    columns = list(WgoRow.model_fields)
    try:
        file = pq.ParquetFile(table)
    except (pa.ArrowException, OSError) as e:
        raise BenchmarkError(f"{table} cannot be read as Parquet: {e}") from e
    # A video has some 14 MB
    with file:
        for number, batch in enumerate(file.iter_batches(batch_size=1, columns=columns), 1):
            (raw,) = batch.to_pylist()
            row = read_row(WgoRow.model_validate, raw, f"{table.name} row {number}")
            name = row.id.split("_")[0]
            num_videos[name] += 1
            steps = [
                {"name": s.subtask, "start_s": s.start_sec, "end_s": s.end_sec}
                for s in row.segments
            ]
            texts = {"task": row.instruction, "steps": steps}
            write_file(folder / name / f"{row.id}.mp4", row.video)
            write_file(folder / name / f"{row.id}.json", json.dumps(texts).encode())
    return num_videos


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", type=Path, help="annotations.parquet")
    parser.add_argument("folder", type=Path, help="where the videos are put")
    arguments = parser.parse_args()
    try:
        for name, count in unpack(arguments.table, arguments.folder).items():
            print(f"{count} videos in {arguments.folder / name}")
    except UserError as e:
        sys.exit(f"error: {e}")

"""WGO-Bench (macrodata/WGO-Bench on the hub): its one table of videos as plain videos with steps, which a build reads.

    python -m eval.benchmarks.wgo annotations.parquet FOLDER

People's segments become labels; `annotators compare` scores others against them. Robot states (`perception_state`) are
left out: the names of their channels are not published.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
from pydantic import BaseModel, Field

from core.files import write_file
from eval.benchmarks.question import read_row


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
    names the row."""
    num_videos = Counter[str]()
    columns = list(WgoRow.model_fields)
    # A video has some 14 MB
    with pq.ParquetFile(table) as file:
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
    for name, count in unpack(Path(sys.argv[1]), Path(sys.argv[2])).items():
        print(f"{count} videos in {Path(sys.argv[2]) / name}")

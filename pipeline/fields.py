"""What a listing says of each chunk, by field. A stage names the fields that it reads (`Stage.reads`), and a change of
another one leaves it current: `frames` reads no texts, so that a corrected text decodes nothing."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from core.tables import TABLES
from core.values import grouped
from ingest.sources.files import Source
from warehouse.lake import StageRun, content_key, output_hash
from warehouse.lake.publication import NO_ROWS, chunk_hashes

FACTS = TABLES["episode_facts"]
# Fields that are columns of episode_facts; `rows` and `pictures` are also the files that they are read from
COLUMNS = {
    "rows": ("source_id", "num_rows", "fps", "data_uri", "data_key", "row_start", "source_stamp"),
    "pictures": ("cameras", "videos"),
    "text": ("task", "tasks"),
    "steps": ("steps", "steps_from", "plan", "as_far_as"),
}
OUTCOME = ("success", "success_source")
READ = ["chunk", "episode_index", "success", "data_uri", "videos"]
PUBLISHED = (
    "episode_facts",
    "findings",
    "splits",
)  # with chunks, by which a chunk's output is hashed
type Rows = Sequence[Mapping[str, Any]]


def chunk_runs(run: StageRun, source: Source, tables: Mapping[str, pa.Table]) -> list[StageRun]:
    """One line of stage_runs per chunk of a listing: `inputs` has a hash of each field, by its name.

    tables: what the listing publishes. `output_hash` is over all but outcomes and other chunks' runs, as versions that
    knew no fields had it: by it a plan recognises what they made.
    """
    facts = tables["episode_facts"]
    # A video need not be decoded again because somebody says how its run ended
    without_outcomes = [FACTS.empty(), facts.drop_columns([*OUTCOME])]
    published = dict(
        tables, episode_facts=pa.concat_tables(without_outcomes, promote_options="default")
    )
    of_columns = {name: chunk_hashes(FACTS, facts, columns) for name, columns in COLUMNS.items()}
    of_tables = {name: chunk_hashes(TABLES[name], published[name]) for name in PUBLISHED}
    num_rows = Counter(chain.from_iterable(tables[name]["chunk"].to_pylist() for name in PUBLISHED))
    findings = tables["findings"]
    unusable = findings.filter(findings["severity"].to_numpy() == "unusable")
    of_unusable = chunk_hashes(TABLES["findings"], unusable, ("chunk",))
    # Where the grippers are concerns every chunk, and is stored once
    signals = output_hash({"signals": tables["signals"]})
    chunks = grouped(
        (row["chunk"], row) for row in facts.select(READ).sort_by("episode_index").to_pylist()
    )
    runs = []
    for chunk, rows in sorted(chunks.items()):
        outcomes = [
            f"{r['episode_index']} {r['success']}" for r in rows if r["success"] is not None
        ]
        fields = {name: hashes[chunk] for name, hashes in of_columns.items()} | {
            "rows": content_key(of_columns["rows"][chunk], signals, *_stamps(_data(rows), source)),
            "pictures": content_key(of_columns["pictures"][chunk], *_stamps(_videos(rows), source)),
            "splits": of_tables["splits"].get(chunk, NO_ROWS),
            "unusable": of_unusable.get(chunk, ""),
            "outcome": content_key(*outcomes) if outcomes else "",
            "others": _others(published, chunk, source),
        }
        parts = [(name, of_tables[name].get(chunk, NO_ROWS)) for name in PUBLISHED]
        stamps = _stamps(_data(rows) | _videos(rows), source)
        changes = {
            "rows": num_rows[chunk],
            "output_hash": content_key(content_key(*chain.from_iterable(parts)), signals, *stamps),
            "inputs": json.dumps({name: value for name, value in fields.items() if value}),
        }
        runs.append(replace(run, chunk=chunk, numbers="", **changes))
    return runs


def _others(published: Mapping[str, pa.Table], chunk: int, source: Source) -> str:
    """Over the runs of other chunks that samples may show: what is listed of them, and the state of their files."""
    other_tasks = _where(published["other_tasks"], "chunk", [chunk])
    if not other_tasks.num_rows:
        return ""
    episodes = other_tasks["episode_index"].to_pylist()
    listed = _where(published["episode_facts"], "episode_index", episodes)
    rows = listed.to_pylist()
    hashed = output_hash({"other_tasks": other_tasks, "episode_facts": listed})
    return content_key(hashed, *_stamps(_data(rows) | _videos(rows), source))


def _where(table: pa.Table, column: str, values: Sequence[int]) -> pa.Table:
    return table.filter(np.isin(table[column].to_numpy(), values))


def _data(rows: Rows) -> set[str]:
    return {row["data_uri"] for row in rows}


def _videos(rows: Rows) -> set[str]:
    return {video["uri"] for row in rows for video in row["videos"]}


def _stamps(files: set[str], source: Source) -> list[str]:
    """The state of each file of the source; None is a file of no episode."""
    return [f"{uri} {source.files[uri]}" for uri in sorted(files & source.files.keys())]

"""What a listing says of a chunk, by field."""

import json
from pathlib import Path

from core.tables import TABLES
from ingest.registry import DatasetConfig
from ingest.sources.files import Source
from pipeline.fields import chunk_runs
from tests.kits.lake_kit import stage_run

LISTED = ("episode_facts", "findings", "other_tasks", "signals", "splits")
FACTS = {"dataset": "a", "episode_index": 0, "chunk": 0, "task": "put", "videos": [], "fps": 10.0}
CHANGES = {
    "": {},
    "rows": {"fps": 20.0},
    "pictures": {"cameras": ["wrist"]},
    "text": {"tasks": ["lay"]},
    "outcome": {"success": True},
}
BY_EARLIER_VERSIONS = "aed45d000217efe2"  # output hash, by which what they made is recognised


def test_a_change_changes_its_field_alone(tmp_path: Path) -> None:
    source = Source(DatasetConfig(name="a", source=str(tmp_path)))
    runs = {}
    fields = {}
    for name, change in CHANGES.items():
        tables = {table: TABLES[table].empty() for table in LISTED}
        tables["episode_facts"] = TABLES["episode_facts"].rows([FACTS | change])
        [runs[name]] = chunk_runs(stage_run(chunk=None), source, tables)
        fields[name] = json.loads(runs[name].inputs).items()
        assert {field for field, _ in fields[name] - fields[""]} == {name} - {""}
    for name in ("", "outcome"):
        assert runs[name].output_hash.startswith(BY_EARLIER_VERSIONS)

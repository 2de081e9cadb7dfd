"""A folder that Hugging Face's `datasets.load_dataset` opens, here or as a repository of the hub.

The configuration `samples` has one split per split of ours, questions with their pictures; `episodes`, `segments` and
`progress` are the labels of the same episodes as tables. README.md says so in its head, which is where the hub and
`load_dataset` look.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from core.tables import TABLES
from warehouse.exports.hub import PICTURE, README, card_head
from warehouse.exports.samples import ParquetSampleExport, SamplePart, shown_pictures
from warehouse.lake.connection import literal
from warehouse.releases.card import markdown_table
from warehouse.releases.publish import LABELS

LABEL_TABLES = ("episodes", "segments", "progress")
COLUMNS = (
    *("sample_id", "dataset", "episode_index", "family", "variant", "form", "question", "answer", "progress"),
    *("reference", "state", "reason", "label_run", "camera", "frames", "num_tokens"),
)


class DatasetsExport(ParquetSampleExport):
    schema = pa.schema([*(TABLES["samples"].schema.field(c) for c in COLUMNS), pa.field("images", pa.list_(PICTURE))])
    place = "samples/"

    def rows(self, part: SamplePart) -> Iterator[list[dict[str, Any]]]:
        for episode in self.read(part):
            yield [{c: s.row[c] for c in COLUMNS} | {"images": shown_pictures(s)} for s in episode]

    def write_rest(self) -> Mapping[str, Any]:
        """The labels, and the card."""
        # the queries of LABELS are over the episodes in the table `held`
        self.lake.con.execute(
            "CREATE OR REPLACE TEMP TABLE held AS SELECT DISTINCT dataset, episode_index FROM export_samples "
            "WHERE NOT withheld"
        )
        for name in LABEL_TABLES:
            self.folder.part(name, self._write_labels, name)
        self.folder.write(README, self._readme())
        return self.sample_facts

    def _write_labels(self, name: str) -> None:
        path = literal(str(self.folder.path(f"{name}/part-000.parquet")))
        self.lake.con.execute(f"COPY ({LABELS[name]}) TO {path} (FORMAT parquet, COMPRESSION zstd)")

    def _readme(self) -> str:
        # The labels have the split of an episode in a column, or are joined with `episodes`
        files = {"samples": {split: f"samples/{split}/*.parquet" for split in self.splits}}
        files |= {table: {"all_splits": f"{table}/*.parquet"} for table in LABEL_TABLES}
        facts, selected = self.sample_facts, self.selected
        of_all = "FROM export_samples WHERE NOT withheld GROUP BY ALL ORDER BY ALL"
        kinds = self.lake.rows(f"SELECT split, family, coalesce(form, ''), count(*) {of_all}")
        datasets = [
            (dataset, selected.licences.get(dataset) or "none is stated", episodes, samples)
            for dataset, episodes, samples in self.lake.rows(
                f"SELECT dataset, count(DISTINCT episode_index), count(*) {of_all}"
            )
        ]
        notes = "".join(f"- {note}\n" for note in facts["notes"])
        runs = ", ".join(f"{r['label_run']} ({r['annotator']}, {r['code_version']})" for r in facts["label_runs"])
        state = f"Snapshot {selected.snapshot}, content {json.dumps(selected.content)}"
        return f"""{card_head(selected, files, selected.title)}
# {selected.title}

{facts["samples"]} samples of {len(selected.episodes)} episodes, with the labels they rest on.

```python
from datasets import load_dataset

samples = load_dataset("THIS_FOLDER")
progress = load_dataset("THIS_FOLDER", "progress")["all_splits"]
```

{markdown_table(("dataset", "licence", "episodes", "samples"), datasets)}

{markdown_table(("split", "family", "form", "samples"), kinds)}

{notes}{"" if not notes else chr(10)}Label runs: {runs}. {state}.
"""

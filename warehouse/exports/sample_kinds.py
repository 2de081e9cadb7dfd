"""The kinds of exports of samples: for Hugging Face's `load_dataset`, for EasyR1 and verl, for LLaMA-Factory."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import chain, count
from typing import Any

import pyarrow as pa

from core.errors import UserError
from core.tables import TABLES
from warehouse.exports.hub import PICTURE, README, card_head
from warehouse.exports.options import Selection
from warehouse.exports.samples import ParquetSampleExport, SampleExport, SamplePart, shown_pictures
from warehouse.exports.selection import Selected, outcome_assumed
from warehouse.lake import Lake
from warehouse.lake.connection import literal
from warehouse.releases.publish import LABELS
from warehouse.releases.release import markdown_table
from warehouse.shards.progresslm import ground_truth
from warehouse.shards.shard import Sample, ShardError

LABEL_TABLES = ("episodes", "segments", "progress")
COLUMNS = (
    *(
        "sample_id",
        "dataset",
        "episode_index",
        "family",
        "variant",
        "form",
        "question",
        "answer",
        "progress",
    ),
    *("reference", "state", "reason", "label_run", "camera", "frames", "num_tokens"),
)


class DatasetsExport(ParquetSampleExport):
    """A folder that `datasets.load_dataset` opens, here or as a repository of the hub.

    The configuration `samples` has one split per split of ours, questions with their pictures; `episodes`, `segments`
    and `progress` are the labels of the same episodes as tables. README.md says so in its head, which is where the hub
    and `load_dataset` look.
    """

    schema = pa.schema(
        [
            *(TABLES["samples"].schema.field(c) for c in COLUMNS),
            pa.field("outcome_assumed", pa.bool_()),
            pa.field("images", pa.list_(PICTURE)),
        ]
    )
    place = "samples/"

    def rows(self, part: SamplePart) -> Iterator[list[dict[str, Any]]]:
        # A sample of a label whose end rests on no stated outcome says so
        assumed = {e.key: outcome_assumed(e) for e in self.selected.episodes}

        def row(sample: Sample) -> dict[str, Any]:
            key = (sample.row["dataset"], sample.row["episode_index"])
            added = {"outcome_assumed": assumed.get(key), "images": shown_pictures(sample)}
            return {c: sample.row[c] for c in COLUMNS} | added

        for episode in self.read(part):
            yield list(map(row, episode))

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
        files = {
            "samples": {split: f"samples/{split}/*.parquet" for split in self.splits},
            **{table: {"all_splits": f"{table}/*.parquet"} for table in LABEL_TABLES},
        }
        facts = self.sample_facts
        selected = self.selected
        of_all = "FROM export_samples WHERE NOT withheld GROUP BY ALL ORDER BY ALL"
        kinds = self.lake.rows(f"SELECT split, family, coalesce(form, ''), count(*) {of_all}")
        datasets = [
            (dataset, selected.licences.get(dataset) or "none is stated", episodes, samples)
            for dataset, episodes, samples in self.lake.rows(
                f"SELECT dataset, count(DISTINCT episode_index), count(*) {of_all}"
            )
        ]
        notes = "".join(f"- {note}\n" for note in facts["notes"])
        runs = ", ".join(
            f"{r['label_run']} ({r['annotator']}, {r['code_version']})" for r in facts["label_runs"]
        )
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


STR = pa.string()
MESSAGE = pa.struct([("role", STR), ("content", STR)])
REWARD = pa.struct([("style", STR), ("ground_truth", STR)])
EXTRA = pa.struct(
    [
        ("index", pa.int64()),
        ("split", STR),
        ("sample_id", STR),
        ("dataset", STR),
        ("episode_index", pa.int64()),
    ]
    + [(name, STR) for name in ("variant", "form", "label_run")]
)


class EasyR1Export(ParquetSampleExport):
    """Parquet with a prompt, its pictures and what a reward function compares an answer with; a folder per split. Where
    no families or forms are named: ProgressLM's, in think form.

    Both trainers' names for things stand side by side: EasyR1 reads `problem` (text) and `answer`, verl reads `prompt`
    (messages) and `reward_model`. The ground truth is the same JSON in both, keys and types as ProgressLM's reward
    function reads them: numbers are strings, since a column of numbers and "n/a" is none that Arrow has, but for
    `demo_count`.
    """

    families = (
        "progresslm_text",
        "progresslm_visual",
        "progresslm_cross_view",
        "progresslm_unanswerable",
    )
    forms = ("think",)
    schema = pa.schema(
        [
            ("problem", STR),
            ("prompt", pa.list_(MESSAGE)),
            ("images", pa.list_(PICTURE)),
            ("answer", STR),
            ("reward_model", REWARD),
            ("data_source", STR),
            ("ability", STR),
            ("extra_info", EXTRA),
        ]
    )

    def select(self, lake: Lake, selection: Selection) -> Selected:
        misfits = [family for family in self.which.families if family not in self.families]
        if misfits:
            raise UserError(
                f"{misfits[0]} has no reference and score to reward: an easyr1 export takes {', '.join(self.families)}"
            )
        return super().select(lake, selection)

    def rows(self, part: SamplePart) -> Iterator[list[dict[str, Any]]]:
        # Rows are counted through a split: those of the parts before this one come first
        [(num_earlier_rows,)] = self.lake.rows(
            "SELECT count(*) FROM export_samples WHERE NOT withheld AND split = ? AND (dataset, chunk) < (?, ?)",
            [part.split, part.dataset, part.chunk],
        )
        numbers = count(num_earlier_rows)
        for episode in self.read(part):
            yield [_row(sample, next(numbers)) for sample in episode]


def _row(sample: Sample, index: int) -> dict[str, Any]:
    row = sample.row
    truth = json.dumps(ground_truth(sample), sort_keys=True, ensure_ascii=False)
    return {
        "problem": row["question"],
        "prompt": [{"role": "user", "content": row["question"]}],
        "images": shown_pictures(sample),
        "answer": truth,
        "reward_model": {"style": "rule", "ground_truth": truth},
        "data_source": row["family"],
        "ability": "progress",
        "extra_info": {"index": index} | {f.name: row[f.name] for f in EXTRA if f.name != "index"},
    }


INFO = "dataset_info.json"
PREFIX = "proccorpus_"  # of the names of datasets
ROLES = (("user", "question"), ("assistant", "answer"))


class LlamaFactoryExport(SampleExport):
    """Conversations in ShareGPT's form, a folder of JSON files per split, with the pictures beside.

    `dataset_info.json` at the root names each split as a dataset of its own, so the root is what LLaMA-Factory calls
    `dataset_dir`. It reads every file of a folder that an entry names, so a chunk is a file. In memory: one episode's
    pictures, and the hashes of a chunk's.
    """

    def write_part(self, part: SamplePart) -> None:
        """A sample as one turn of question and answer, after its pictures were written. Parts share no episode."""
        written: dict[str, str] = {}  # the hash of each picture
        with self.folder.path(f"{part.split}/part-{part.number:05d}.json").open(
            "w", encoding="utf-8"
        ) as f:
            separator = "[\n"
            for sample in chain.from_iterable(self.read(part)):
                images = [self._keep(part, picture, written) for picture in shown_pictures(sample)]
                messages = [{"role": role, "content": sample.row[name]} for role, name in ROLES]
                f.write(
                    separator
                    + json.dumps({"messages": messages, "images": images}, ensure_ascii=False)
                )
                separator = ",\n"
            f.write("\n]\n")

    def _keep(self, part: SamplePart, picture: Mapping[str, Any], written: dict[str, str]) -> str:
        """A picture's path, and its file where it is new."""
        path = f"images/{part.split}/{picture['path']}"
        sha256 = hashlib.sha256(picture["bytes"]).hexdigest()
        if path not in written:
            self.folder.path(path).write_bytes(picture["bytes"])
        if written.setdefault(path, sha256) != sha256:
            raise ShardError(
                f"the shards of {part.name} hold two different pictures of {path}: build the dataset again"
            )
        return path

    def write_rest(self) -> Mapping[str, Any]:
        """What LLaMA-Factory has to know of each dataset: its folder, and what its columns and roles are called."""
        tags = {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        }
        columns = {"messages": "messages", "images": "images"}
        info = {
            PREFIX + split: {
                "file_name": split,
                "formatting": "sharegpt",
                "columns": columns,
                "tags": tags,
            }
            for split in self.splits
        }
        self.folder.write(INFO, json.dumps(info, indent=2) + "\n")
        return self.sample_facts

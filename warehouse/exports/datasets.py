"""A folder that Hugging Face's `datasets.load_dataset` opens, here or as a repository of the hub.

The configuration `samples` has one split per split of ours, questions with their pictures; `episodes`, `segments` and
`progress` are the labels of the same episodes as tables. README.md says so in its head, which is where the hub and
`load_dataset` look.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from core.files import write_file
from core.tables import TABLES
from warehouse.exports.common import Exported, ExportFolder
from warehouse.exports.options import SampleFileOptions, Selection
from warehouse.exports.parquet import PICTURE, write_rows
from warehouse.exports.samples import SampleKind, SamplePart, Samples, shown_frame, splits
from warehouse.lake import Lake, literal
from warehouse.releases.licences import hub_licence
from warehouse.releases.publish import LABELS
from warehouse.shards import Sample

README = "README.md"
LABEL_TABLES = ("episodes", "segments", "progress")
COLUMNS = (
    *("sample_id", "dataset", "episode_index", "family", "variant", "form", "question", "answer", "progress"),
    *("reference", "state", "reason", "label_run", "camera", "frames", "num_tokens"),
)
SCHEMA = pa.schema([*(TABLES["samples"].schema.field(c) for c in COLUMNS), pa.field("images", pa.list_(PICTURE))])


def export(
    lake: Lake, selection: Selection, out: Path, options: SampleFileOptions, *, overwrite: bool = False
) -> Exported:
    """Write samples and labels; an export that broke off goes on. Raises ExportError, ShardError."""
    return KIND.export(lake, selection, out, options, overwrite)


def _write_rest(folder: ExportFolder, samples: Samples) -> None:
    """The labels, and the card."""
    con = samples.selected.lake.con
    # the queries of LABELS are over the episodes in the table `held`
    con.execute(
        "CREATE OR REPLACE TEMP TABLE held AS SELECT DISTINCT dataset, episode_index FROM export_samples "
        "WHERE NOT withheld"
    )
    for name in LABEL_TABLES:
        if folder.done(name) is None:
            file = f"{name}/part-000.parquet"
            path = literal(str(folder.path(file)))
            con.execute(f"COPY ({LABELS[name]}) TO {path} (FORMAT parquet, COMPRESSION zstd)")
            folder.finish_part(name, [file])
    if folder.done(README) is None:
        write_file(folder.path(README), _readme(samples, samples.facts()).encode())
        folder.finish_part(README, [README])


def _write_part(folder: ExportFolder, samples: Samples, part: SamplePart, options: SampleFileOptions) -> None:
    count = 0

    def groups() -> Iterator[list[dict]]:
        nonlocal count
        for episode in samples.read(part):
            count += len(episode)
            yield [_row(sample) for sample in episode]

    stem = f"samples/{part.split}/part-{part.number:05d}"
    names = write_rows(folder, stem, SCHEMA, groups(), file_bytes=options.file_bytes)
    folder.finish_part(part.name, names, {"samples": count})


def _row(sample: Sample) -> dict:
    row = {name: sample.row[name] for name in COLUMNS}
    named = zip(sample.row["pictures"], sample.pictures, strict=True)
    row["images"] = [{"bytes": data, "path": shown_frame(sample.row, name).path} for name, data in named]
    return row


def _readme(samples: Samples, facts: dict[str, Any]) -> str:
    selected = samples.selected
    name = selected.selection.release or f"snapshot {selected.snapshot}"
    licence, licence_names = hub_licence([selected.licences.get(dataset) for dataset in selected.datasets])
    notes = facts["notes"]
    head: dict[str, Any] = {"license": licence}
    if licence_names:
        head["license_name"] = licence_names
    head |= {"pretty_name": name, "task_categories": ["robotics"], "configs": _configs(samples)}
    runs = ", ".join(f"{run['label_run']} ({run['annotator']}, {run['code_version']})" for run in facts["label_runs"])
    return "\n".join(
        [
            "---",
            yaml.safe_dump(head, sort_keys=False).rstrip(),
            "---",
            "",
            f"# {name}",
            "",
            f"{facts['samples']} samples of {len(selected.episodes)} episodes, with the labels they rest on.",
            "",
            "```python",
            "from datasets import load_dataset",
            "",
            'samples = load_dataset("THIS_FOLDER")',
            'progress = load_dataset("THIS_FOLDER", "progress")["all_splits"]',
            "```",
            "",
            *_dataset_table(samples, facts["counts"]),
            "",
            *_sample_table(facts["counts"]),
            "",
            *(f"- {note}" for note in notes),
            *([""] if notes else []),
            f"Label runs: {runs}. Snapshot {selected.snapshot}, content {json.dumps(selected.content)}.",
            "",
        ]
    )


def _dataset_table(samples: Samples, counts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Licence, episodes and samples of each dataset, as lines of Markdown."""
    selected = samples.selected
    num_episodes = Counter(e.dataset for e in selected.episodes)
    num_samples = Counter[str]()
    for count in counts:
        num_samples[count["dataset"]] += count["samples"]
    lines = ["| dataset | licence | episodes | samples |", "|---|---|---|---|"]
    for dataset in selected.datasets:
        licence = selected.licences.get(dataset) or "none is stated"
        lines.append(f"| {dataset} | {licence} | {num_episodes[dataset]} | {num_samples[dataset]} |")
    return lines


def _sample_table(counts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Samples by split, family and form over all datasets, as lines of Markdown."""
    num_samples = Counter[tuple[str, str, str]]()
    for count in counts:
        num_samples[(count["split"], count["family"], count["form"])] += count["samples"]
    lines = ["| split | family | form | samples |", "|---|---|---|---|"]
    for (split, family, form), number in sorted(num_samples.items()):
        lines.append(f"| {split} | {family} | {form} | {number} |")
    return lines


def _configs(samples: Samples) -> list[dict[str, Any]]:
    """What `load_dataset` may open: the samples by split, and each table of labels as a whole.

    The labels have the split of an episode in a column, or are joined with `episodes`.
    """
    files = [{"split": split, "path": f"samples/{split}/*.parquet"} for split in splits(samples)]
    configs: list[dict[str, Any]] = [{"config_name": "samples", "default": True, "data_files": files}]
    for table in LABEL_TABLES:
        files = [{"split": "all_splits", "path": f"{table}/*.parquet"}]
        configs.append({"config_name": table, "data_files": files})
    return configs


KIND = SampleKind("datasets", _write_part, _write_rest)
begin, export_chunk = KIND.begin, KIND.export_chunk

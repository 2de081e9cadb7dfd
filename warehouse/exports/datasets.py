"""A folder that Hugging Face's `datasets.load_dataset` opens, here or as a repository of the hub.

The configuration `samples` has one split per split of ours, questions with their pictures; `episodes`, `segments` and
`progress` are the labels of the same episodes as tables. README.md says so in its head, which is where the hub and
`load_dataset` look.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from core.files import write_file
from core.tables import TABLES
from warehouse.exports.common import Exported, ExportFolder, Selection
from warehouse.exports.parquet import FILE_BYTES, PICTURE, write_rows
from warehouse.exports.samples import SampleKind, SampleOptions, SamplePart, Samples, shown_frame, splits
from warehouse.lake import Lake, literal
from warehouse.releases.licences import hub_licence
from warehouse.releases.publish import LABELS
from warehouse.shards import Sample

README = "README.md"
TOLD = ("episodes", "segments", "progress")  # tables of labels
COLUMNS = (
    *("sample_id", "dataset", "episode_index", "family", "variant", "form", "question", "answer", "progress"),
    *("reference", "state", "reason", "label_run", "camera", "frames", "num_tokens"),
)
SCHEMA = pa.schema([*(TABLES["samples"].schema.field(c) for c in COLUMNS), pa.field("images", pa.list_(PICTURE))])


@dataclass(frozen=True)
class DatasetsOptions:
    samples: SampleOptions = field(default_factory=SampleOptions)
    file_bytes: int = FILE_BYTES


def export(
    lake: Lake, selection: Selection, out: Path, options: DatasetsOptions, *, overwrite: bool = False
) -> Exported:
    """Write samples and labels; an export that broke off goes on. Raises ExportError, ShardError."""
    return KIND.export(lake, selection, out, options, overwrite)


def _write_rest(folder: ExportFolder, samples: Samples) -> None:
    """The labels, and the card."""
    con = samples.selected.lake.con
    con.execute(  # what LABELS asks for
        "CREATE OR REPLACE TEMP TABLE held AS SELECT DISTINCT dataset, episode_index FROM export_samples "
        "WHERE NOT withheld"
    )
    for name in TOLD:
        if folder.done(name) is None:
            file = f"{name}/part-000.parquet"
            path = literal(str(folder.path(file)))
            con.execute(f"COPY ({LABELS[name]}) TO {path} (FORMAT parquet, COMPRESSION zstd)")
            folder.finish_part(name, [file])
    if folder.done(README) is None:
        write_file(folder.path(README), _readme(samples, samples.facts()).encode())
        folder.finish_part(README, [README])


def _write_part(folder: ExportFolder, samples: Samples, part: SamplePart, options: DatasetsOptions) -> None:
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
    row = sample.row
    named = zip(row["pictures"], sample.pictures, strict=True)
    images = [{"bytes": data, "path": shown_frame(row, name).path} for name, data in named]
    return {c: row[c] for c in COLUMNS} | {"images": images}


def _readme(samples: Samples, facts: dict[str, Any]) -> str:
    selected = samples.selected
    name = selected.selection.release or f"snapshot {selected.snapshot}"
    licence, names = hub_licence([selected.licences.get(d) for d in selected.datasets])
    head: dict[str, Any] = {"license": licence} | ({"license_name": names} if names else {})
    head |= {"pretty_name": name, "task_categories": ["robotics"], "configs": _configs(samples)}
    lines = ["---", yaml.safe_dump(head, sort_keys=False).rstrip(), "---", "", f"# {name}", ""]
    lines += [
        f"{facts['samples']} samples of {len(selected.episodes)} episodes, with the labels they rest on.",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        'samples = load_dataset("THIS_FOLDER")',
        'progress = load_dataset("THIS_FOLDER", "progress")["all_splits"]',
        "```",
        "",
        "| dataset | licence | episodes | samples |",
        "|---|---|---|---|",
    ]
    for d in selected.datasets:
        episodes = sum(e.dataset == d for e in selected.episodes)
        count = sum(c["samples"] for c in facts["counts"] if c["dataset"] == d)
        lines.append(f"| {d} | {selected.licences.get(d) or 'none is stated'} | {episodes} | {count} |")
    lines += ["", "| split | family | form | samples |", "|---|---|---|---|"]
    by: dict[tuple[str, str, str], int] = {}
    for c in facts["counts"]:
        key = (c["split"], c["family"], c["form"])
        by[key] = by.get(key, 0) + c["samples"]
    lines += [f"| {' | '.join(key)} | {n} |" for key, n in sorted(by.items())]
    runs = ", ".join(f"{r['label_run']} ({r['annotator']}, {r['code_version']})" for r in facts["label_runs"])
    lines += ["", f"Label runs: {runs}. Snapshot {selected.snapshot}, content {json.dumps(selected.content)}.", ""]
    return "\n".join(lines)


def _configs(samples: Samples) -> list[dict[str, Any]]:
    files = [{"split": s, "path": f"samples/{s}/*.parquet"} for s in splits(samples)]
    return [
        {"config_name": "samples", "default": True, "data_files": files},
        # these say the split of an episode in a column, or are joined with `episodes`
        *({"config_name": t, "data_files": [{"split": "all_splits", "path": f"{t}/*.parquet"}]} for t in TOLD),
    ]


KIND = SampleKind("datasets", _write_part, _write_rest)
begin, export_chunk = KIND.begin, KIND.export_chunk

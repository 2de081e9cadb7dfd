"""EasyR1 and verl: Parquet with a prompt, its pictures and what a reward function compares an answer with.

Both trainers' names for things stand side by side: EasyR1 reads `problem` (text) and `answer`, verl reads `prompt`
(messages) and `reward_model`. The ground truth is the same JSON in both, keys and types as ProgressLM's reward function
reads them: numbers are strings, since a column of numbers and "n/a" is none that Arrow has, but for `demo_count`.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from warehouse.exports.common import Exported, ExportError, ExportFolder
from warehouse.exports.options import SampleFileOptions, SampleOptions, Selection
from warehouse.exports.parquet import PICTURE, write_rows
from warehouse.exports.samples import SampleKind, SamplePart, Samples, first_index, shown_frame
from warehouse.lake import Lake
from warehouse.shards import Sample
from warehouse.shards.ground_truth import ground_truth

FAMILIES = ("progresslm_text", "progresslm_visual", "progresslm_cross_view", "progresslm_unanswerable")

STR = pa.string()
MESSAGE = pa.struct([("role", STR), ("content", STR)])
REWARD = pa.struct([("style", STR), ("ground_truth", STR)])
EXTRA = pa.struct(
    [("index", pa.int64()), ("split", STR), ("sample_id", STR), ("dataset", STR), ("episode_index", pa.int64())]
    + [(name, STR) for name in ("variant", "form", "label_run")]
)
SCHEMA = pa.schema(
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


def export(
    lake: Lake, selection: Selection, out: Path, options: SampleFileOptions, *, overwrite: bool = False
) -> Exported:
    """Write a folder of Parquet per split; an export that broke off goes on. Raises ExportError, ShardError."""
    return KIND.export(lake, selection, out, options, overwrite)


def _check(options: SampleOptions) -> None:
    odd = [f for f in options.families if f not in FAMILIES]
    if odd:
        raise ExportError(
            f"{odd[0]} has no reference and score to reward: an easyr1 export takes {', '.join(FAMILIES)}"
        )


def _write_part(folder: ExportFolder, samples: Samples, part: SamplePart, options: SampleFileOptions) -> None:
    index = first_index(samples, part)

    def groups() -> Iterator[list[dict]]:
        nonlocal index
        for episode in samples.read(part):
            yield [_row(sample, index + k) for k, sample in enumerate(episode)]
            index += len(episode)

    # a file's name must not sound like a split: `datasets` would take it for one
    begin = index
    names = write_rows(folder, f"{part.split}/part-{part.number:05d}", SCHEMA, groups(), file_bytes=options.file_bytes)
    folder.finish_part(part.name, names, {"samples": index - begin})


def _row(sample: Sample, index: int) -> dict:
    row, truth = sample.row, json.dumps(ground_truth(sample), sort_keys=True, ensure_ascii=False)
    named = zip(row["pictures"], sample.pictures, strict=True)
    return {
        "problem": row["question"],
        "prompt": [{"role": "user", "content": row["question"]}],
        "images": [{"bytes": data, "path": shown_frame(row, name).path} for name, data in named],
        "answer": truth,
        "reward_model": {"style": "rule", "ground_truth": truth},
        "data_source": row["family"],
        "ability": "progress",
        "extra_info": {"index": index} | {f.name: row[f.name] for f in EXTRA if f.name != "index"},
    }


KIND = SampleKind("easyr1", _write_part, lambda folder, samples: None, FAMILIES, ("think",), _check)
begin, export_chunk = KIND.begin, KIND.export_chunk

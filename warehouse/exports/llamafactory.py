"""LLaMA-Factory: conversations in ShareGPT's form, a folder of JSON files per split, with the pictures beside.

`dataset_info.json` at the root names each split as a dataset of its own, so the root is what LLaMA-Factory calls
`dataset_dir`. It reads every file of a folder that an entry names, so a chunk is a file, and nothing is put together in
memory or copied at the end.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from core.files import write_file
from warehouse.exports.common import Exported, ExportFolder
from warehouse.exports.options import SampleOptions, Selection
from warehouse.exports.samples import SampleKind, SamplePart, Samples, shown_frame, splits
from warehouse.lake import Lake
from warehouse.shards import Sample, ShardError

INFO = "dataset_info.json"
PREFIX = "proccorpus_"  # of the names of datasets


def export(lake: Lake, selection: Selection, out: Path, options: SampleOptions, *, overwrite: bool = False) -> Exported:
    """Write conversations and pictures; an export that broke off goes on. Raises ExportError, ShardError.

    In memory: one episode's pictures, and the hashes of a chunk's.
    """
    return KIND.export(lake, selection, out, options, overwrite)


def _write_info(folder: ExportFolder, samples: Samples) -> None:
    if folder.done(INFO) is None:
        text = json.dumps(_info(splits(samples)), indent=2)
        write_file(folder.path(INFO), text.encode() + b"\n")
        folder.finish_part(INFO, [INFO])


def _write_part(folder: ExportFolder, samples: Samples, part: SamplePart, options: SampleOptions) -> None:
    name = f"{part.split}/part-{part.number:05d}.json"
    written: dict[str, str] = {}  # pictures: path and hash
    count = 0
    with folder.path(name).open("w", encoding="utf-8") as f:
        for row in _rows(folder, samples, part, written):
            f.write(("[\n" if count == 0 else ",\n") + json.dumps(row, ensure_ascii=False))
            count += 1
        f.write("\n]\n")
    folder.finish_part(part.name, [name, *written], {"samples": count, "pictures": len(written)})


def _rows(folder: ExportFolder, samples: Samples, part: SamplePart, written: dict[str, str]) -> Iterator[dict]:
    """Conversations, whose pictures were written just before they come."""
    for episode in samples.read(part):
        for sample in episode:
            yield conversation(
                sample.row, [_keep(folder, part, sample, k, written) for k in range(len(sample.pictures))]
            )


def conversation(row: Mapping, images: list[str]) -> dict:
    """A sample as one turn of question and answer."""
    messages = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
    return {"messages": messages, "images": images}


def _keep(folder: ExportFolder, part: SamplePart, sample: Sample, k: int, written: dict[str, str]) -> str:
    """The k-th picture's path, and its file where it is new. Parts share no episode, and write below their split."""
    path = f"images/{part.split}/{shown_frame(sample.row, sample.row['pictures'][k]).path}"
    data = sample.pictures[k]
    sha256 = hashlib.sha256(data).hexdigest()
    if path not in written:
        folder.path(path).write_bytes(data)
        written[path] = sha256
    elif written[path] != sha256:
        raise ShardError(f"the shards of {part.name} hold two different pictures of {path}: build the dataset again")
    return path


def _info(names: list[str]) -> dict:
    """What LLaMA-Factory has to know of each dataset: its folder, and what its columns and roles are called."""
    return {
        PREFIX + split: {
            "file_name": split,
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
        }
        for split in names
    }


KIND = SampleKind("llamafactory", _write_part, _write_info)
begin, export_chunk = KIND.begin, KIND.export_chunk

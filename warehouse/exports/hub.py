"""What Hugging Face's `load_dataset` opens: Parquet with pictures, and the card that says which files are what.

A picture is stored as `datasets` stores it: a struct of bytes and path, and its features in the schema's metadata, so
that `load_dataset` gives decoded images wherever the file lies. The pictures of an episode's samples are largely the
same ones: a row group holds each distinct picture once, in its dictionary page.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from warehouse.exports.export import ExportFolder
from warehouse.exports.options import FILE_BYTES
from warehouse.exports.selection import Selected
from warehouse.releases.contents import hub_licence

README = "README.md"
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
GROUP_BYTES = 32 << 20  # of distinct pictures, in a row group
GROUP_ROWS = 1000
SHOWN_BYTES = 128 << 20  # of pictures as often as they are shown: what a row group takes in memory
# The dictionary is never given up for plain pages
WRITTEN: dict[str, Any] = {
    "compression": "zstd",
    "dictionary_pagesize_limit": 1 << 30,
    "write_statistics": False,
}


def with_features(schema: pa.Schema) -> pa.Schema:
    """The schema, with what `datasets` calls its features."""
    features = {field.name: _feature(field.type) for field in schema}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _feature(type: pa.DataType) -> Any:
    if type == PICTURE:
        return {"_type": "Image"}
    if pa.types.is_struct(type):
        return {f.name: _feature(f.type) for f in type}
    if pa.types.is_list(type):
        item = _feature(type.value_type)
        # `Sequence` is read by old and new versions; but of a struct it would make a struct of lists
        if "_type" in item:
            return {"_type": "Sequence", "feature": item}
        return [item]
    name = {pa.float32(): "float32", pa.float64(): "float64"}.get(type, str(type))
    return {"_type": "Value", "dtype": name}


def write_rows(
    folder: ExportFolder,
    stem: str,
    schema: pa.Schema,
    groups: Iterable[list[dict]],
    *,
    file_bytes: int = FILE_BYTES,
) -> None:
    """Write rows, given an episode's at a time, to `<stem>-000.parquet` and so on.

    Equal rows, equal bytes. In memory: a row group, which ends with the episode that fills it, or after GROUP_ROWS
    rows, or where it shows SHOWN_BYTES.
    """
    schema = with_features(schema)
    row_groups = _row_groups(groups)
    for number, group in enumerate(row_groups):
        path = folder.path(f"{stem}-{number:03d}.parquet")
        with path.open("wb") as file, pq.ParquetWriter(file, schema, **WRITTEN) as writer:
            # Once the file is large enough the next row group begins another
            while group:
                writer.write_table(
                    pa.Table.from_pylist(group, schema=schema), row_group_size=len(group)
                )
                group = next(row_groups, []) if file.tell() < file_bytes else []


def _row_groups(groups: Iterable[list[dict]]) -> Iterator[list[dict]]:
    """The rows of some episodes, cut into row groups."""
    rows: list[dict] = []
    distinct: set[bytes] = set()
    shown_bytes = 0
    for episode in groups:
        for row in episode:
            rows.append(row)
            pictures = [picture["bytes"] for picture in row.get("images") or ()]
            # A picture counts once for the bytes of the file, but each time for the memory that rows take
            distinct.update(pictures)
            shown_bytes += sum(map(len, pictures))
            # a group may end inside an episode only to keep the memory it takes in bounds
            if len(rows) >= GROUP_ROWS or shown_bytes >= SHOWN_BYTES:
                yield rows
                rows = []
                distinct = set()
                shown_bytes = 0
        if sum(map(len, distinct)) >= GROUP_BYTES:
            yield rows
            rows = []
            distinct = set()
            shown_bytes = 0
    if rows:
        yield rows


# Cards


def card_head(
    selected: Selected, files: Mapping[str, Mapping[str, str]], pretty_name: str | None = None
) -> str:
    """The head of a card, where `load_dataset` and the hub look. `files`: of each configuration, the first of which is
    the default, the pattern of the files of each split."""
    licence, names = hub_licence([selected.licences.get(dataset) for dataset in selected.datasets])
    configs: list[dict[str, Any]] = []
    for name, of_splits in files.items():
        default = {} if configs else {"default": True}
        data_files = [{"split": split, "path": path} for split, path in of_splits.items()]
        configs.append({"config_name": name, **default, "data_files": data_files})
    head = {
        "license": licence,
        "license_name": names,
        "pretty_name": pretty_name,
        "task_categories": ["robotics"],
        "configs": configs,
    }
    head_fields = {name: value for name, value in head.items() if value is not None}
    return f"---\n{yaml.safe_dump(head_fields, sort_keys=False).rstrip()}\n---\n"

"""A published release as Croissant metadata: what other tools find, check and load it by. By mlcroissant."""

import json
from collections.abc import Iterable
from pathlib import PurePosixPath

import mlcroissant as mlc
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.releases.places import OutgoingFile

FORMATS = {".tar": "application/x-tar", ".parquet": "application/x-parquet"}
# Of columns with one value a row; lists and structures are in the file alone
TYPES = (
    (pa.types.is_boolean, mlc.DataType.BOOL),
    (pa.types.is_integer, mlc.DataType.INTEGER),
    (pa.types.is_floating, mlc.DataType.FLOAT),
    (pa.types.is_string, mlc.DataType.TEXT),
)


def croissant(name: str, licence: str, items: Iterable[OutgoingFile]) -> str:
    """JSON-LD of a release: its shards and tables with their hashes, and a record set for each table."""
    files = [item for item in items if PurePosixPath(item.path).suffix in FORMATS]
    metadata = mlc.Metadata(
        name=name,
        description=f"Progress labels and samples of robot demonstrations: release {name} of proccorpus",
        license=[licence],
        distribution=[_file(item) for item in files],
        record_sets=[_record_set(item) for item in files if item.path.startswith("labels/")],
    )
    return json.dumps(metadata.to_json(), indent=1)


def _file(item: OutgoingFile) -> mlc.FileObject:
    return mlc.FileObject(
        id=item.path,
        name=item.path,
        content_url=item.path,
        content_size=f"{item.bytes} B",
        encoding_formats=[FORMATS[PurePosixPath(item.path).suffix]],
        sha256=item.sha256,
    )


def _record_set(item: OutgoingFile) -> mlc.RecordSet:
    name = PurePosixPath(item.path).stem
    fields = []
    for column in pq.read_schema(item.source):
        data_types = [type_ for is_type, type_ in TYPES if is_type(column.type)]
        source = mlc.Source(file_object=item.path, extract=mlc.Extract(column=column.name))
        id_ = f"{name}/{column.name}"
        if data_types:
            fields.append(mlc.Field(id=id_, name=id_, data_types=data_types, source=source))
    return mlc.RecordSet(id=name, name=name, fields=fields)

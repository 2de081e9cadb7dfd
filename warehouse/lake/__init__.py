from warehouse.lake.connection import (
    LakeConnection,
    attach,
    connect,
    database,
    extension_path,
    literal,
    quoted,
    sql_type,
    was_interrupted,
)
from warehouse.lake.hashes import content_key, digest, output_hash, table_hash
from warehouse.lake.lake import Lake, forget_lakes, open_lake
from warehouse.lake.place import LakeError
from warehouse.lake.publishing import WHOLE_DATASET, StageRun

__all__ = [
    "WHOLE_DATASET",
    "Lake",
    "LakeConnection",
    "LakeError",
    "StageRun",
    "attach",
    "connect",
    "content_key",
    "database",
    "digest",
    "extension_path",
    "forget_lakes",
    "literal",
    "open_lake",
    "output_hash",
    "quoted",
    "sql_type",
    "table_hash",
    "was_interrupted",
]

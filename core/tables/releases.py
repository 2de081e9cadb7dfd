"""Tables of takedowns and frozen releases."""

from core.tables.definition import CHUNK, DATASET, I32, I64, STR, TIME, C, Table

RELEASE_TABLES = (
    Table(
        "takedowns",
        "Episodes that must not be used or given on any more",
        ("dataset", "episode_index"),
        (
            DATASET,
            C("episode_index", I64, "null: the whole dataset"),
            C("reason", STR, "why, in words"),
            C("created_at", TIME, "when it was asked for"),
        ),
        content=False,
    ),
    Table(
        "releases",
        "Frozen corpora",
        ("name",),
        (
            C("name", STR, "of the release"),
            C("snapshot", I64, "lake snapshot it froze: proccorpus sql --release reads it"),
            C("config_hash", STR, "hash of what it holds"),
            C("created_at", TIME, "when it was frozen"),
        ),
        content=False,
    ),
    Table(
        "release_shards",
        "Shards of a release",
        ("name", "shard"),
        (
            C("name", STR, "release"),
            C("split", STR, "of the shard"),
            C("shard", STR, "file name, see shards"),
            DATASET,
            CHUNK,
            C("episodes", I32, "entries in the tar"),
            C("samples", I32, "samples in it"),
            C("bytes", I64, "size of the tar"),
            C("sha256", STR, "of the tar"),
            C("store", STR, "as in shards"),
        ),
        content=False,
    ),
)

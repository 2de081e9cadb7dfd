"""Tables of takedowns and frozen releases."""

from core.tables.definition import CHUNK, DATASET, I32, I64, STR, TIME, C, Table

RELEASE_TABLES = (
    Table(
        "takedowns",
        "Episodes that must not be used or passed on any more",
        ("dataset", "episode_index"),
        (
            DATASET,
            C("episode_index", I64, "null: the whole dataset"),
            C("reason", STR, "reason in words"),
            C("created_at", TIME, "time of the request"),
        ),
        content=False,
    ),
    Table(
        "releases",
        "One row per release: a corpus frozen under a name",
        ("name",),
        (
            C("name", STR, "name of the release"),
            C("snapshot", I64, "lake snapshot that it froze; proccorpus sql --release reads it"),
            C("config_hash", STR, "hash over its contents"),
            C("created_at", TIME, "time when it was frozen"),
        ),
        content=False,
    ),
    Table(
        "release_shards",
        "Shards of a release",
        ("name", "shard"),
        (
            C("name", STR, "name of the release"),
            C("split", STR, "split of the shard"),
            C("shard", STR, "file name, see shards"),
            DATASET,
            CHUNK,
            C("episodes", I32, "number of entries (episodes) in the tar"),
            C("samples", I32, "number of samples in the tar"),
            C("bytes", I64, "size of the tar"),
            C("sha256", STR, "SHA-256 of the tar"),
            C("store", STR, "as in shards"),
        ),
        content=False,
    ),
)

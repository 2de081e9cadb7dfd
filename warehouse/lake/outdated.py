"""Labels of contents that are gone: one rule for the rows of all label runs, superseded and imported ones included."""

from collections.abc import Collection

import pyarrow as pa

from ingest.reasons import CHANGED_DURING_BUILD
from warehouse.lake.chunk_rows import ChunkRows
from warehouse.lake.connection import LakeConnection

# Tables with rows of an episode's labels, by whatever label run
LABEL_TABLES = (
    "segments",
    "episode_labels",
    "progress",
    "reasoning",
    "label_quality",
    "label_disagreement",
    "alignments",
    "active_runs",
)
COUNTED_TABLES = ("episode_labels", "active_runs")  # that have a row for each label of an episode
# What was measured of an episode's contents
MEASURED_TABLES = (
    "episode_content",
    "frames",
    "tiny_pictures",
    "states",
    "keyframes",
    "demonstration_measures",
    "embeddings",
)
CHANGED = "recordings changed"  # as input_hash: no plan ever wants it, so the stage is stale
OTHER_TEXT = "text_differs"  # the check that compares a run's text with those of others
# Labels of a lake that are of no present contents: SQL conditions on rows of a table in LABEL_TABLES, by its name
WITHOUT_CONTENT = (
    "(dataset, episode_index) NOT IN (SELECT (dataset, episode_index) FROM episode_content)"
)
OTHER_LENGTH = (
    "(dataset, episode_index, label_run) IN (SELECT (s.dataset, s.episode_index, s.label_run) FROM ("
    "SELECT dataset, episode_index, label_run, max(end_frame) AS ends FROM segments GROUP BY ALL) s "
    "JOIN episode_content e USING (dataset, episode_index) WHERE s.ends <> e.num_frames)"
)


def count_outdated(lake: LakeConnection) -> int:
    """Labels whose episode has no contents any more, or other ones by their length: each label run of an episode."""
    condition = " OR ".join((WITHOUT_CONTENT, OTHER_LENGTH))
    parts = [
        f"SELECT dataset, episode_index, label_run FROM {name} WHERE {condition}"
        for name in COUNTED_TABLES
    ]
    return lake.rows(f"SELECT count(*) FROM ({' UNION '.join(parts)})")[0][0]


def delete_outdated_sql() -> list[str]:
    """Statements that delete all labels of contents that are gone, whatever left them."""
    of_length = [name for name in LABEL_TABLES if name != "segments"]
    return [
        *(f"DELETE FROM {name} WHERE {WITHOUT_CONTENT}" for name in LABEL_TABLES),
        # The segments last: the length of a label is told by them
        *(f"DELETE FROM {name} WHERE {OTHER_LENGTH}" for name in (*of_length, "segments")),
    ]


def forget_labels(lake: LakeConnection, dataset: str, outdated: Collection[int]) -> None:
    """Delete what was measured and labelled of some episodes of a dataset, and samples that show
    them.

    Within a transaction; their chunks' stages are stale then.
    """
    indices = sorted(outdated)
    condition = "dataset = ? AND list_contains(?, episode_index)"
    chunks = lake.column(
        f"SELECT DISTINCT chunk FROM episode_facts WHERE {condition}", [dataset, indices]
    )
    for name in (*LABEL_TABLES, *MEASURED_TABLES):
        lake.con.execute(f"DELETE FROM {name} WHERE {condition}", [dataset, indices])
    make_stale(lake, dataset, chunks)
    _forget_samples(lake, dataset, indices)


def make_stale(
    lake: LakeConnection, dataset: str, chunks: Collection[int], *, is_listed_anew: bool = False
) -> None:
    """Let the next build make some chunks anew. Within a transaction."""
    lake.con.execute(
        f"UPDATE stage_runs SET input_hash = '{CHANGED}' WHERE dataset = ? AND (list_contains(?, chunk) "
        "AND stage NOT IN ('episodes', 'import') OR ? AND stage = 'episodes' AND chunk IS NULL)",
        [dataset, list(chunks), is_listed_anew],
    )


def forget_changes(rows: ChunkRows, dataset: str, chunk: int, upstream: Collection[str]) -> None:
    """Delete what an earlier build found changed in a chunk, but for the findings of the stages `upstream`: the other
    stages that found it are stale, and look again."""
    condition = "FROM findings WHERE dataset = ? AND chunk = ? AND reason = ? AND NOT list_contains(?, stage)"
    values = [dataset, chunk, CHANGED_DURING_BUILD, list(upstream)]
    if rows.rows(f"SELECT 1 {condition} LIMIT 1", values):
        lake = rows.whole
        with lake.lock(), lake.transaction(f"changes of {dataset}:{chunk}"):
            lake.con.execute(f"DELETE {condition}", values)
        rows.forget(["findings"])


def forget_texts(lake: LakeConnection, dataset: str) -> None:
    """Delete what the checkup said of texts that their episodes do not have any more: no pass over pictures follows."""
    sql = "SELECT 1 FROM findings WHERE dataset = ? AND (reason, 0) = (?, 0) LIMIT 1"
    if not lake.rows(sql, [dataset, OTHER_TEXT]):
        return
    episodes = lake.column(
        "SELECT episode_index FROM run_checks JOIN episode_facts USING (dataset, episode_index) WHERE dataset = ? AND "
        f"check_name = '{OTHER_TEXT}' AND NOT contains(detail, format('its text \"{{}}\"', task))",
        [dataset],
    )
    if not episodes:
        return
    with lake.lock(), lake.transaction(f"texts of {dataset}"):
        sql = "DELETE FROM findings WHERE dataset = ? AND reason = ? AND list_contains(?, episode_index)"
        lake.con.execute(sql, [dataset, OTHER_TEXT, episodes])


def make_shards_stale(lake: LakeConnection, runs: pa.Table) -> None:
    """Let the next build write the shards of some chunks anew: those of rows of `stage_runs`."""
    for run in runs.to_pylist():
        lake.con.execute(
            f"UPDATE stage_runs SET input_hash = '{CHANGED}' "
            "WHERE stage = 'shards' AND dataset = ? AND chunk = ?",
            [run["dataset"], run["chunk"]],
        )


def _forget_samples(lake: LakeConnection, dataset: str, indices: Collection[int]) -> None:
    """Delete samples and shards of the chunks in which samples are of some episodes, or show them.

    A tar holds a whole chunk. Without the line of `stage_runs` the next build makes samples and
    shards anew.
    """
    clause = "list_has_any(list_transform(pictures, lambda p: p.episode_index), $2)"
    chunks = lake.column(
        f"SELECT DISTINCT chunk FROM samples WHERE dataset = $1 AND (list_contains($2, episode_index) OR {clause})",
        [dataset, list(indices)],
    )
    if not chunks:
        return
    for name in ("samples", "sample_location", "shards"):
        lake.con.execute(
            f"DELETE FROM {name} WHERE dataset = ? AND list_contains(?, chunk)", [dataset, chunks]
        )
    lake.con.execute(
        "DELETE FROM stage_runs WHERE stage IN ('samples', 'shards') AND dataset = ? AND list_contains(?, chunk)",
        [dataset, chunks],
    )

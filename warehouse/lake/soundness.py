"""Are the tables' rows as core/tables says? One partition, or all of the corpus at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.tables import STAGE_TABLES, STAGED_TABLES, TABLES, Table
from warehouse.lake.checks import CheckOutcome, chosen_datasets, in_datasets
from warehouse.lake.connection import quoted
from warehouse.lake.lake import Lake

DISTINCT_AT_ONCE = 20_000_000  # rows whose keys are compared at once, in some 600 MB
TILED_SQL = """
    SELECT count(*) FROM (
        SELECT start_frame <> coalesce(lag(end_frame) OVER (w ORDER BY segment_index), 0)
            OR (lead(1) OVER (w ORDER BY segment_index) IS NULL AND end_frame <> e.num_frames) AS broken
        FROM (FROM segments WHERE {where}) s JOIN episode_content e USING (dataset, episode_index, chunk)
        WINDOW w AS (PARTITION BY dataset, episode_index, label_run)
    ) WHERE broken"""


def follows_schema(lake: Lake, stage: str, dataset: str, chunk: int | None) -> CheckOutcome:
    """What a stage wrote is as core/tables says: columns and types, keys, conditions of rows; and it belongs
    to episodes and label runs that are there.

    `chunk` None: all of the dataset. `numbers` has the rows of each table; the detail names what is broken.
    """
    partition = _Partition(dataset, chunk)
    rows: dict[str, float] = {}
    broken = []
    for name in STAGE_TABLES[stage]:
        rows[name], faults = _faults(lake, TABLES[name], partition)
        broken += [f"{name}: {fault}" for fault in faults]
    detail = "; ".join(broken) if broken else f"{sum(rows.values())} rows as the schema says"
    return CheckOutcome(not broken, detail, rows)


@dataclass(frozen=True)
class _Partition:
    """A chunk of a dataset; `chunk` None: all of the dataset."""

    dataset: str
    chunk: int | None

    @property
    def where(self) -> str:
        return "dataset = ?" if self.chunk is None else "dataset = ? AND chunk = ?"

    @property
    def values(self) -> list[str | int]:
        return [self.dataset] if self.chunk is None else [self.dataset, self.chunk]


def _faults(lake: Lake, table: Table, partition: _Partition) -> tuple[int, list[str]]:
    """Rows of a table, and what is wrong with them."""
    if wrong := _other_columns(lake, table):
        return 0, [wrong]
    rows, faults = _broken_conditions(lake, table, partition)
    return rows, [*faults, *_foreign_rows(lake, table, partition), *_gaps(lake, table, partition)]


def _broken_conditions(lake: Lake, table: Table, partition: _Partition) -> tuple[int, list[str]]:
    """Rows of a table, and how many share a key or break a condition of its rows."""
    conditions = _conditions(table)
    key = quoted(table.key)
    broken = [f"count(*) FILTER (NOT coalesce({condition}, true))" for condition in conditions]
    # Hashes first: to tell apart what has equal ones, which keys of two rows hardly ever have, costs twice as much
    rows, repeated, *counts = lake.rows(
        f"SELECT count(*), count(*) - count(DISTINCT hash({key})), {', '.join(broken)} "
        f"FROM {table.name} WHERE {partition.where}",
        partition.values,
    )[0]
    if repeated:
        sql = f"SELECT count(*) - count(DISTINCT ({key})) FROM {table.name} WHERE {partition.where}"
        repeated = lake.rows(sql, partition.values)[0][0]

    faults = [f"{repeated} rows of one key ({', '.join(table.key)})"] if repeated else []
    for condition, count in zip(conditions, counts, strict=True):
        if count:
            faults.append(f"{count} rows against {condition}")
    return rows, faults


def _foreign_rows(lake: Lake, table: Table, partition: _Partition) -> Iterator[str]:
    """Rows of episodes or label runs that the lake does not have."""
    # Both kinds refer to rows of another table: an episode to its facts, a label run to its record
    where, names = partition.where, set(table.schema.names)
    if "episode_index" in names and table.name != "episode_facts":
        listed = f"(FROM episode_facts WHERE {where})"
        count = _without(lake, table, "dataset, episode_index", listed, where, partition.values * 2)
        if count:
            yield f"{count} rows of episodes that are not listed"
    if "label_run" in names:
        labelled = f"{where} AND label_run <> ''"
        count = _without(lake, table, "label_run", "label_runs", labelled, partition.values)
        if count:
            yield f"{count} rows of label runs that are not known"


def _without(lake: Lake, table: Table, key: str, other: str, where: str, values: list[str | int]) -> int:
    """Rows of a table whose `key` another relation does not have; counted by key first, since many rows share one."""
    return lake.rows(
        f"SELECT coalesce(sum(n), 0)::BIGINT FROM (SELECT {key}, count(*) AS n FROM {table.name} WHERE {where} "
        f"GROUP BY ALL) ANTI JOIN {other} USING ({key})",
        values,
    )[0][0]


def _gaps(lake: Lake, table: Table, partition: _Partition) -> Iterator[str]:
    """Segments that do not tile their episode."""
    if table.name != "segments":
        return
    count = lake.rows(TILED_SQL.format(where=partition.where), partition.values)[0][0]
    if count:
        yield f"{count} do not begin where the one before ends, or do not end with the episode"


def _other_columns(lake: Lake, table: Table) -> str:
    """What of a table's columns is not as the schema says; empty where all is."""
    stored = lake.arrow(f"SELECT * FROM {table.name} LIMIT 0").schema
    wrong = sorted(set(table.schema.names) ^ set(stored.names))
    wrong = wrong or [f.name for f in table.schema if stored.field(f.name).type != f.type]
    return f"other columns than the schema's: {', '.join(wrong)}" if wrong else ""


# All of the corpus


def corpus_soundness(lake: Lake, datasets: Sequence[str] | None = None) -> CheckOutcome:
    """What `follows_schema` looks at, of every stage's tables, of all datasets or some.

    Each table is read once as a whole, in sums per episode and label; a dataset that these make doubtful is looked at
    row by row.
    """
    names, where = chosen_datasets(lake, datasets)
    # Listed once: every table's rows are compared with the episodes that there are, and how long each is
    lake.con.execute(
        "CREATE OR REPLACE TEMP TABLE listed_episodes AS SELECT f.dataset, f.episode_index, any_value(c.num_frames) AS "
        f"num_frames FROM (FROM episode_facts {where}) f LEFT JOIN episode_content c USING (dataset, episode_index) "
        "GROUP BY ALL"
    )
    broken, rows = [], 0
    # First the sums of all datasets, then row by row only where these raise doubt
    for name in STAGED_TABLES:
        table = TABLES[name]
        # A table without some of its columns cannot be summed up: every dataset is looked at
        if _other_columns(lake, table):
            count, doubtful = 0, names
        else:
            count, doubtful = _doubtful(lake, table, names, where)
        rows += count
        for dataset in doubtful:
            _, faults = _faults(lake, table, _Partition(dataset, None))
            if faults:
                broken.append(f"{name} of {dataset}: {', '.join(faults)}")
    lake.con.execute("DROP TABLE listed_episodes")
    detail = "; ".join(broken[:5]) if broken else f"{len(names)} datasets are as the schema says"
    return CheckOutcome(not broken, detail, {"datasets": len(names), "rows": rows, "broken": len(broken)})


def _doubtful(lake: Lake, table: Table, names: list[str], where: str) -> tuple[int, list[str]]:
    """Rows of a table, and the datasets that may break a rule: none that does is missing.

    The rows are summed up by their owner (an episode, its label, its camera), since sums of millions of rows are quick.
    """
    by_dataset = [sums for sums in _sums_by_dataset(lake, table, where) if sums.dataset in names]
    count = sum(sums.rows for sums in by_dataset)
    broken = {sums.dataset for sums in by_dataset if sums.is_broken}

    # Where the sums cannot say whether keys repeat, their hashes are counted: of all datasets together, where those fit
    unsure = [sums.dataset for sums in by_dataset if sums.may_repeat]
    repeating = _repeating(lake, table, unsure, at_once=count < DISTINCT_AT_ONCE)
    return count, sorted(broken | repeating)


def _repeating(lake: Lake, table: Table, datasets: list[str], *, at_once: bool) -> set[str]:
    """Those of some datasets with a key that stands twice; counted one dataset after another unless `at_once`."""
    if at_once:
        return _with_repeated_keys(lake, table, datasets)
    repeating: set[str] = set()
    for dataset in datasets:
        repeating |= _with_repeated_keys(lake, table, [dataset])
    return repeating


@dataclass(frozen=True)
class _DatasetSums:
    """What the sums of a table's rows say of a dataset: whether a rule is broken, and whether a key may stand twice."""

    dataset: str
    rows: int
    is_broken: bool
    may_repeat: bool


def _sums_by_dataset(lake: Lake, table: Table, where: str) -> list[_DatasetSums]:
    owner = _owner(table)
    sums = _sums(table, owner)
    join = ""
    if "episode_index" in table.schema.names:
        join = "LEFT JOIN (SELECT *, true AS known FROM listed_episodes) USING (dataset, episode_index)"
    breaks_rule = " OR ".join(f"({rule})" for rule in sums.broken)
    lines = lake.rows(
        f"SELECT dataset, sum(n)::BIGINT, bool_or(coalesce({breaks_rule}, false)), bool_or({sums.may_repeat}) "
        f"FROM (SELECT {quoted(owner)}, count(*) AS n, {', '.join(sums.columns)} FROM {table.name} {where} "
        f"GROUP BY ALL) {join} GROUP BY dataset"
    )
    return [_DatasetSums(*line) for line in lines]


@dataclass(frozen=True)
class _Sums:
    """SQL over the rows of one owner, of which there are `n`.

    columns: sums. broken: conditions on them that hold where a rule is broken. may_repeat: a condition that holds at
    least where a key stands twice.
    """

    columns: list[str]
    broken: list[str]
    may_repeat: str


def _owner(table: Table) -> tuple[str, ...]:
    """The columns that say whose rows of a table are: the episode, and the label and camera where it has them."""
    columns = tuple(c for c in ("dataset", "episode_index", "label_run") if c in table.schema.names)
    return (*columns, "camera") if "camera" in table.key else columns


def _sums(table: Table, owner: tuple[str, ...]) -> _Sums:
    names = set(table.schema.names)
    conditions = " AND ".join(f"coalesce({condition}, true)" for condition in _conditions(table))
    columns, may_repeat = _key_sums(table, owner)
    # Each entry of `broken` is a condition on one owner's sums that no sound owner meets
    columns = [f"count(*) FILTER (NOT ({conditions})) AS wrong", *columns]
    broken = ["wrong > 0"]
    if table.name == "segments":
        # The segments are one path from (0, 0) to (n, num_frames): where each ends the next one begins. So the points
        # where they begin, with the last one, are the same set as the points where they end, with the first one. Sets
        # are compared by the sums of their members' hashes.
        columns += ["sum(hash(segment_index::BIGINT, start_frame)) AS begins"]
        columns += ["sum(hash(segment_index::BIGINT + 1, end_frame)) AS ends"]
        broken.append("begins + hash(n, num_frames) <> ends + hash(0::BIGINT, 0::BIGINT)")
    if "episode_index" in names and table.name != "episode_facts":
        broken.append("known IS NULL")
    if "label_run" in names:
        known_runs = "SELECT label_run FROM label_runs WHERE label_run IS NOT NULL"
        broken.append(f"label_run <> '' AND label_run NOT IN ({known_runs})")
    return _Sums(columns, broken, may_repeat)


def _key_sums(table: Table, owner: tuple[str, ...]) -> tuple[list[str], str]:
    """Sums, and the condition on them that a key of the table may stand twice."""
    rest = set(table.key) - set(owner)
    if set(owner) == set(table.key):
        return [], "n > 1"
    if set(owner) < set(table.key) and rest in ({"frame_index"}, {"segment_index"}):
        # The numbers are to be exactly 0, 1 .. n - 1: then they and n are the same set as their successors and 0.
        # Example: of 0, 1, 1 the sets are 0, 1, 1, 3 and 1, 2, 2, 0. Compared by the sums of their members' hashes.
        (number,) = rest
        sums = [f"sum(hash({number}::BIGINT)) AS here", f"sum(hash({number}::BIGINT + 1)) AS next"]
        return sums, "here + hash(n) IS DISTINCT FROM next + hash(0::BIGINT)"
    return [], "true"


def _with_repeated_keys(lake: Lake, table: Table, datasets: list[str]) -> set[str]:
    """Datasets in which two rows of a table have one key, or keys of one hash."""
    if not datasets:
        return set()
    repeated = f"count(*) <> count(DISTINCT hash({quoted(table.key)}))"
    sql = f"SELECT dataset FROM {table.name} {in_datasets(datasets)} GROUP BY 1 HAVING {repeated}"
    return set(lake.column(sql))


def _conditions(table: Table) -> list[str]:
    """What no row breaks; one that is null is not broken."""
    return [f'"{k}" IS NOT NULL' for k in table.key] + list(table.must)

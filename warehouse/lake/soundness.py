"""Are the tables' rows as core/tables says? One partition, or all of the corpus at once."""

from collections.abc import Iterable, Sequence

from core.tables import STAGE_TABLES, STAGED_TABLES, TABLES, Table
from warehouse.lake.checks import CheckOutcome, chosen_datasets, in_datasets
from warehouse.lake.connection import literal, quoted
from warehouse.lake.lake import Lake

DISTINCT_AT_ONCE = 20_000_000  # rows whose keys are compared at once, in some 600 MB


def follows_schema(lake: Lake, stage: str, dataset: str, chunk: int | None) -> CheckOutcome:
    """What a stage wrote is as core/tables says: columns and types, keys, conditions of rows; and it belongs
    to episodes and label runs that are there.

    `chunk` None: all of the dataset. `numbers` has the rows of each table; the detail names what is broken.
    """
    where = f"dataset = {literal(dataset)}" + ("" if chunk is None else f" AND chunk = {int(chunk)}")
    rows: dict[str, float] = {}
    broken = []
    for name in STAGE_TABLES[stage]:
        rows[name], faults = _faults(lake, TABLES[name], [dataset], where)
        broken += [f"{name}: {fault}" for fault in faults.get(dataset, ())]
    detail = "; ".join(broken) if broken else f"{sum(rows.values())} rows as the schema says"
    return CheckOutcome(not broken, detail, rows)


def corpus_soundness(lake: Lake, datasets: Sequence[str] | None = None) -> CheckOutcome:
    """What `follows_schema` looks at, of every stage's tables, of all datasets or some."""
    names, of_all = chosen_datasets(lake, datasets)
    where = "true" if not of_all else in_datasets(names).removeprefix("WHERE ")
    broken, rows = [], 0
    for name in STAGED_TABLES:
        count, faults = _faults(lake, TABLES[name], names, where)
        rows += count
        broken += [f"{name} of {dataset}: {', '.join(wrong)}" for dataset, wrong in sorted(faults.items())]
    detail = "; ".join(broken[:5]) if broken else f"{len(names)} datasets are as the schema says"
    return CheckOutcome(not broken, detail, {"datasets": len(names), "rows": rows, "broken": len(broken)})


def _faults(lake: Lake, table: Table, datasets: Sequence[str], where: str) -> tuple[int, dict[str, list[str]]]:
    """Rows of a table, and by dataset what is wrong with them.

    The rows are summed up by their owner (an episode, its label, its camera), since sums of millions of rows are quick.
    """
    if wrong := _other_columns(lake, table):
        return 0, {dataset: [f"other columns than the schema's: {', '.join(wrong)}"] for dataset in datasets}
    owner = _owner(table)
    key_sums, may_repeat = _key_sums(table, owner)
    sums, told = _rules(table)
    listed = (
        "SELECT f.dataset, f.episode_index, any_value(c.num_frames) AS num_frames, true AS known FROM "
        f"(FROM episode_facts WHERE {where}) f LEFT JOIN episode_content c USING (dataset, episode_index) GROUP BY ALL"
    )
    join = f"LEFT JOIN ({listed}) USING (dataset, episode_index)" if "episode_index" in owner else ""
    lines = lake.rows(
        f"SELECT dataset, sum(n)::BIGINT, bool_or({may_repeat}), {', '.join(told.values())} FROM (SELECT "
        f"{quoted(owner)}, count(*) AS n, {', '.join(sums + key_sums)} FROM {table.name} WHERE {where} GROUP BY ALL) "
        f"{join} GROUP BY dataset"
    )
    count = sum(rows for _, rows, *_ in lines)
    unsure = [line[0] for line in lines if line[2]]
    repeated = _repeated(lake, table, unsure, where, at_once=count < DISTINCT_AT_ONCE)
    told = {f"rows of one key ({', '.join(table.key)})": "", **told}
    faults = {dataset: _sentences(told, [repeated.get(dataset, 0), *counts]) for dataset, _, _, *counts in lines}
    return count, {dataset: wrong for dataset, wrong in faults.items() if wrong}


def _sentences(told: Iterable[str], counts: Sequence[int | None]) -> list[str]:
    return [f"{count} {text}" for text, count in zip(told, counts, strict=True) if count]


def _other_columns(lake: Lake, table: Table) -> list[str]:
    stored = lake.arrow(f"SELECT * FROM {table.name} LIMIT 0").schema
    wrong = sorted(set(table.schema.names) ^ set(stored.names))
    return wrong or [f.name for f in table.schema if stored.field(f.name).type != f.type]


def _owner(table: Table) -> tuple[str, ...]:
    """The columns that say whose rows of a table are: the episode, and the label and camera where it has them."""
    columns = tuple(c for c in ("dataset", "episode_index", "label_run") if c in table.schema.names)
    return (*columns, "camera") if "camera" in table.key else columns


def _rules(table: Table) -> tuple[list[str], dict[str, str]]:
    """Sums over an owner's rows, and by sentence a sum over owners, of which there are `n` rows each, that is 0 where
    nothing is wrong."""
    # A condition that is null is not broken
    conditions = [f'"{k}" IS NOT NULL' for k in table.key] + list(table.must)
    sums = [f"count(*) FILTER (NOT coalesce({condition}, true)) AS wrong_{k}" for k, condition in enumerate(conditions)]
    told = {f"rows against {condition}": f"sum(wrong_{k})" for k, condition in enumerate(conditions)}
    if "episode_index" in table.schema.names:
        told["rows of episodes that are not listed"] = "sum(n) FILTER (known IS NULL)"
    if "label_run" in table.schema.names:
        known_runs = "SELECT label_run FROM label_runs WHERE label_run IS NOT NULL"
        unknown = f"label_run <> '' AND label_run NOT IN ({known_runs})"
        told["rows of label runs that are not known"] = f"sum(n) FILTER ({unknown})"
    if table.name == "segments":
        # The segments are one path from (0, 0) to (n, num_frames): where each ends the next one begins. So the points
        # where they begin, with the last one, are the same set as the points where they end, with the first one. Sets
        # are compared by the sums of their members' hashes.
        sums.append("sum(hash(segment_index::BIGINT, start_frame)) AS begins")
        sums.append("sum(hash(segment_index::BIGINT + 1, end_frame)) AS ends")
        broken = "begins + hash(n, num_frames) <> ends + hash(0::BIGINT, 0::BIGINT)"
        told["labels with segments that do not begin where the one before ends, or do not end with the episode"] = (
            f"count(*) FILTER ({broken})"
        )
    return sums, told


def _key_sums(table: Table, owner: tuple[str, ...]) -> tuple[list[str], str]:
    """Sums over an owner's rows, and the condition on them that a key of the table may stand twice."""
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


def _repeated(lake: Lake, table: Table, datasets: list[str], where: str, *, at_once: bool) -> dict[str, int]:
    """Of some datasets the rows with a key that stands twice; of those that have any."""
    key = quoted(table.key)
    repeated: dict[str, int] = {}
    for some in [datasets] if at_once and datasets else [[dataset] for dataset in datasets]:
        of_some = f"FROM {table.name} {in_datasets(some)} AND {where} GROUP BY 1"
        # Hashes first: to tell apart what has equal ones, which keys of two rows hardly ever have, costs twice as much
        if lake.rows(f"SELECT dataset {of_some} HAVING count(*) <> count(DISTINCT hash({key}))"):
            sql = f"SELECT dataset, count(*) - count(DISTINCT ({key})) AS more {of_some} HAVING more > 0"
            repeated |= dict(lake.rows(sql))
    return repeated

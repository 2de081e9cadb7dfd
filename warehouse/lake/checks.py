"""Checks of a corpus: what has to hold before anything is built on it, and what a person should look into."""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from core.tables import STAGE_TABLES, TABLES, Table
from warehouse.lake.connection import literal, quoted
from warehouse.lake.copies import USABLE, near_copies
from warehouse.lake.lake import Lake

MIN_DECODABLE = 0.5  # share of a chunk's episodes with video that must decode
MIN_LABELLED = 0.9  # share of a chunk's episodes with pictures that should have a label
MAX_DISAGREEMENT = 0.15  # mean |difference of progress| between annotators of a chunk
MAX_Z = 4.0  # standard errors that a chunk's labels may be from those of the last release
DISTINCT_AT_ONCE = 20_000_000  # rows whose keys are told apart together, in some 600 MB
MIN_DRIFT = 0.1  # of the mean that it was: less is no drift, however sure
TILED_SQL = """
    SELECT count(*) FROM (
        SELECT start_frame <> coalesce(lag(end_frame) OVER (w ORDER BY segment_index), 0)
            OR (lead(1) OVER (w ORDER BY segment_index) IS NULL AND end_frame <> e.num_frames) AS broken
        FROM (FROM segments WHERE {where}) s JOIN episode_content e USING (dataset, episode_index, chunk)
        WINDOW w AS (PARTITION BY dataset, episode_index, label_run)
    ) WHERE broken"""


@dataclass(frozen=True)
class CheckOutcome:
    passed: bool
    detail: str
    numbers: dict[str, float]


def follows_schema(lake: Lake, stage: str, dataset: str, chunk: int | None) -> CheckOutcome:
    """What a stage wrote is as core/tables says: columns and types, keys, conditions of rows; and it belongs
    to episodes and label runs that are there.

    `chunk` None: all of the dataset. `numbers` has the rows of each table; the detail names what is broken.
    """
    found = {name: _faults(lake, TABLES[name], dataset, chunk) for name in STAGE_TABLES[stage]}
    broken = [f"{name}: {fault}" for name, (_, faults) in found.items() for fault in faults]
    numbers = {name: rows for name, (rows, _) in found.items()}
    detail = "; ".join(broken) if broken else f"{sum(numbers.values())} rows as the schema says"
    return CheckOutcome(not broken, detail, dict(numbers))


def _faults(lake: Lake, table: Table, dataset: str, chunk: int | None) -> tuple[int, list[str]]:
    """Rows of a table, and what is wrong with them."""
    here = [dataset] if chunk is None else [dataset, chunk]
    where = "dataset = ?" if chunk is None else "dataset = ? AND chunk = ?"
    if wrong := _other_columns(lake, table):
        return 0, [wrong]
    conditions = _conditions(table)
    # hashes first: to tell apart what has equal ones, which keys of two rows hardly ever have, costs twice as much
    key = quoted(table.key)
    counts = lake.rows(
        f"SELECT count(*), count(*) - count(DISTINCT hash({key})), "
        f"{', '.join(f'count(*) FILTER (NOT coalesce({c}, true))' for c in conditions)} "
        f"FROM {table.name} WHERE {where}",
        here,
    )[0]
    twice = counts[1]
    if twice:
        twice = lake.rows(f"SELECT count(*) - count(DISTINCT ({key})) FROM {table.name} WHERE {where}", here)[0][0]
    said = [f"of one key ({', '.join(table.key)})", *(f"against {c}" for c in conditions)]
    faults = [f"{n} rows {what}" for n, what in zip((twice, *counts[2:]), said, strict=True) if n]
    names = set(table.schema.names)
    if "episode_index" in names and table.name != "episode_facts":
        n = _without(lake, table, "dataset, episode_index", f"(FROM episode_facts WHERE {where})", where, here)
        faults += [f"{n} rows of episodes that are not listed"] if n else []
    if "label_run" in names:
        n = _without(lake, table, "label_run", "label_runs", f"{where} AND label_run <> ''", here)
        faults += [f"{n} rows of label runs that are not known"] if n else []
    if table.name == "segments":
        gaps = lake.rows(TILED_SQL.format(where=where), here)[0][0]
        faults += [f"{gaps} do not begin where the one before ends, or do not end with the episode"] if gaps else []
    return counts[0], faults


def _other_columns(lake: Lake, table: Table) -> str:
    """What of a table's columns is not as the schema says; empty where all is."""
    found = lake.arrow(f"SELECT * FROM {table.name} LIMIT 0").schema
    wrong = sorted(set(table.schema.names) ^ set(found.names))
    wrong = wrong or [f.name for f in table.schema if found.field(f.name).type != f.type]
    return f"other columns than the schema's: {', '.join(wrong)}" if wrong else ""


def _without(lake: Lake, table: Table, key: str, other: str, where: str, here: list) -> int:
    """Rows of a table whose `key` another relation does not have; counted by key first, since many rows share one."""
    return lake.rows(
        f"SELECT coalesce(sum(n), 0)::BIGINT FROM (SELECT {key}, count(*) AS n FROM {table.name} WHERE {where} "
        f"GROUP BY ALL) ANTI JOIN {other} USING ({key})",
        here * (2 if "?" in other else 1),
    )[0][0]


def decodable_coverage(lake: Lake, dataset: str, chunk: int) -> CheckOutcome:
    """At least half of a chunk's episodes that have video and rows decode: less is a broken source, not bad luck."""
    with_video, usable = lake.rows(
        "SELECT count(*), count(*) FILTER (status = 'ok') FROM episodes e WHERE dataset = ? AND chunk = ? "
        "AND NOT EXISTS (SELECT 1 FROM findings f WHERE f.dataset = e.dataset AND f.episode_index = e.episode_index "
        "AND f.stage = 'episodes' AND f.severity = 'unusable')",
        [dataset, chunk],
    )[0]
    share = usable / with_video if with_video else 1.0
    detail = f"{usable} of {with_video} episodes with video decode"
    return CheckOutcome(share >= MIN_DECODABLE, detail, {"decodable": share, "episodes": with_video})


def progress_sanity(lake: Lake, dataset: str, chunk: int) -> CheckOutcome:
    """Every usable episode of a chunk has an active label for each frame, in 0..1, that starts at 0."""
    here = [dataset, chunk]
    unlabelled = lake.rows(
        "SELECT count(*) FROM episodes e WHERE dataset = ? AND chunk = ? AND status = 'ok' AND num_frames <> "
        "(SELECT count(*) FROM active_progress p WHERE p.dataset = e.dataset AND p.chunk = e.chunk "
        "AND p.episode_index = e.episode_index)",
        here,
    )[0][0]
    outside, not_zero = lake.rows(
        "SELECT count(*) FILTER (NOT coalesce(progress BETWEEN 0 AND 1, false) OR isnan(progress)), "
        "count(*) FILTER (frame_index = 0 AND progress <> 0) FROM active_progress WHERE dataset = ? AND chunk = ?",
        here,
    )[0]
    detail = f"{unlabelled} episodes not labelled in full, {outside} labels outside 0..1, {not_zero} starts not at 0"
    numbers = {"unlabelled": unlabelled, "outside": outside, "starts_not_at_zero": not_zero}
    return CheckOutcome(unlabelled + outside + not_zero == 0, detail, numbers)


def label_coverage(lake: Lake, dataset: str, chunk: int) -> CheckOutcome:
    """Most of a chunk's episodes with pictures have a label; the findings say why the others have none."""
    seen, labelled = lake.rows(
        "SELECT count(*), count(a.label_run) FROM episode_content e LEFT JOIN active_runs a "
        "USING (dataset, episode_index, chunk) WHERE e.dataset = ? AND e.chunk = ? AND len(e.usable_cameras) > 0",
        [dataset, chunk],
    )[0]
    share = labelled / seen if seen else 1.0
    detail = f"{labelled} of {seen} episodes with pictures have a label"
    return CheckOutcome(share >= MIN_LABELLED, detail, {"labelled": share, "episodes": seen})


def label_agreement(lake: Lake, dataset: str, chunk: int) -> CheckOutcome:
    """Labels of a chunk's episodes by several annotators are near each other on average."""
    count, mean, worst, episode = lake.rows(
        "SELECT count(*), avg(mean_difference), max(mean_difference), arg_max(episode_index, mean_difference) "
        "FROM label_disagreement WHERE dataset = ? AND chunk = ?",
        [dataset, chunk],
    )[0]
    if not count:
        return CheckOutcome(True, "labels of one annotator only", {"pairs": 0})
    detail = f"{count} pairs of labels differ by {mean:.3f} on average, at most {worst:.3f} (episode {episode})"
    return CheckOutcome(mean <= MAX_DISAGREEMENT, detail, {"pairs": count, "mean": mean, "worst": worst})


def cost_within_budget(lake: Lake, dataset: str, chunk: int, budget_usd: float | None) -> CheckOutcome:
    """At what a chunk's questions cost, all chunks of the dataset stay within the budget of a build."""
    calls, prompt, completion, usd = lake.rows(
        "SELECT count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0), "
        "coalesce(sum(cost_usd), 0) FROM vlm_calls v JOIN episode_facts e USING (dataset, episode_index) "
        "WHERE dataset = ? AND e.chunk = ?",
        [dataset, chunk],
    )[0]
    chunks = lake.rows("SELECT count(DISTINCT chunk) FROM episode_facts WHERE dataset = ?", [dataset])[0][0]
    numbers = {"calls": calls, "prompt_tokens": prompt, "completion_tokens": completion, "usd": usd}
    detail = f"{usd:.2f} USD for {calls} calls; {chunks} chunks at that price: {usd * chunks:.2f} USD"
    if budget_usd is None:
        return CheckOutcome(True, f"{detail}; no budget is set (max_cost_usd)", numbers)
    return CheckOutcome(usd * chunks <= budget_usd, f"{detail}, of a budget of {budget_usd:g} USD", numbers)


def label_drift(lake: Lake, dataset: str, chunk: int) -> CheckOutcome:
    """A chunk's labels are like the dataset's in the last release: steps per episode, end progress, confidence.

    Drift: means that are MAX_Z standard errors and MIN_DRIFT of the former apart.
    """
    last = lake.rows("SELECT name, snapshot FROM releases ORDER BY created_at DESC, name LIMIT 1")
    if not last:
        return CheckOutcome(True, "no release to compare with", {})
    name, snapshot = last[0]
    try:
        then = _label_statistics(lake, dataset, None, f" AT (VERSION => {int(snapshot)})")
    except (duckdb.CatalogException, duckdb.BinderException):
        return CheckOutcome(True, f"release {name} is older than the tables that are compared", {})
    now = _label_statistics(lake, dataset, chunk, "")
    apart, numbers = [], {}
    for what, (mean, variance, count) in now.items():
        was, its_variance, its_count = then[what]
        if min(count, its_count) < 5:
            continue
        numbers[what], numbers[f"{what}_then"] = mean, was
        error = (variance / count + its_variance / its_count) ** 0.5
        if abs(mean - was) > max(MAX_Z * error, MIN_DRIFT * abs(was)):
            apart.append(f"{what.replace('_', ' ')} {mean:.3g} against {was:.3g}")
    detail = "; ".join(apart) if apart else f"labels are like those of release {name}"
    return CheckOutcome(not apart, f"against release {name}: {detail}" if apart else detail, numbers)


def _label_statistics(lake: Lake, dataset: str, chunk: int | None, at: str) -> dict[str, tuple[float, float, int]]:
    """Mean, variance and count over the episodes of a dataset, or of its chunk, by their active labels."""
    where, values = ("", [dataset]) if chunk is None else (" AND a.chunk = ?", [dataset, chunk])
    asked = {"steps_per_episode": "steps", "end_progress": "end_progress", "confidence": "confidence"}
    row = lake.rows(
        f"SELECT {', '.join(f'avg({c}), var_pop({c}), count({c})' for c in asked.values())} FROM ("
        "SELECT q.end_progress, l.confidence, (SELECT count(*) FROM segments AS s{at} WHERE s.dataset = a.dataset AND "
        "s.chunk = a.chunk AND s.episode_index = a.episode_index AND s.label_run = a.label_run AND s.kind = 'step') "
        "AS steps FROM active_runs AS a{at} "
        "JOIN label_quality AS q{at} USING (dataset, episode_index, chunk, label_run) "
        "JOIN episode_labels AS l{at} USING (dataset, episode_index, chunk, label_run) "
        "WHERE a.dataset = ?{where})".format(at=at, where=where),
        values,
    )[0]
    return {what: (row[3 * k] or 0.0, row[3 * k + 1] or 0.0, row[3 * k + 2]) for k, what in enumerate(asked)}


def corpus_soundness(lake: Lake, datasets: Sequence[str] | None = None) -> CheckOutcome:
    """What `follows_schema` looks at, of every stage's tables, of all datasets or some.

    Each table is read once as a whole, in sums per episode and label; a dataset that these make doubtful is looked at
    row by row.
    """
    names, where = _chosen(lake, datasets)
    lake.con.execute(
        "CREATE OR REPLACE TEMP TABLE listed_episodes AS SELECT f.dataset, f.episode_index, any_value(c.num_frames) AS "
        f"num_frames FROM (FROM episode_facts {where}) f LEFT JOIN episode_content c USING (dataset, episode_index) "
        "GROUP BY ALL"
    )
    broken, rows = [], 0
    for name in sorted({t for stage in STAGE_TABLES.values() for t in stage}):
        table = TABLES[name]
        count, doubtful = (0, names) if _other_columns(lake, table) else _doubtful(lake, table, names, where)
        rows += count
        found = {d: _faults(lake, table, d, None)[1] for d in doubtful}
        broken += [f"{name} of {d}: {', '.join(faults)}" for d, faults in found.items() if faults]
    lake.con.execute("DROP TABLE listed_episodes")
    detail = "; ".join(broken[:5]) if broken else f"{len(names)} datasets are as the schema says"
    return CheckOutcome(not broken, detail, {"datasets": len(names), "rows": rows, "broken": len(broken)})


def _doubtful(lake: Lake, table: Table, names: list[str], where: str) -> tuple[int, list[str]]:
    """Rows of a table, and the datasets that may break a rule: none that does is missing."""
    columns = set(table.schema.names)
    owner = [c for c in ("dataset", "episode_index", "label_run") if c in columns] + ["camera"] * (
        "camera" in table.key
    )
    rest = [k for k in table.key if k not in owner]
    kept = " AND ".join(f"coalesce({c}, true)" for c in _conditions(table))
    sums, rules = [f"count(*) FILTER (NOT ({kept})) AS wrong"], ["wrong > 0"]
    one_each = not rest and set(owner) == set(table.key)
    counted = set(owner) < set(table.key) and len(rest) == 1 and rest[0] in ("frame_index", "segment_index")
    twice = "n > 1" if one_each else "true"
    if counted:
        # exactly 0, 1 .. n - 1: as hashes, the numbers and n are the same set as their successors and 0
        sums += [f"sum(hash({rest[0]}::BIGINT)) AS here", f"sum(hash({rest[0]}::BIGINT + 1)) AS next"]
        twice = "here + hash(n) IS DISTINCT FROM next + hash(0::BIGINT)"
    if table.name == "segments":
        # one path from (0, 0) to (n, num_frames): where each ends the next one begins
        sums += ["sum(hash(segment_index::BIGINT, start_frame)) AS begins"]
        sums += ["sum(hash(segment_index::BIGINT + 1, end_frame)) AS ends"]
        rules.append("begins + hash(n, num_frames) <> ends + hash(0::BIGINT, 0::BIGINT)")
    of_episode = "episode_index" in columns
    if of_episode and table.name != "episode_facts":
        rules.append("known IS NULL")
    if "label_run" in columns:
        rules.append(
            "label_run <> '' AND label_run NOT IN (SELECT label_run FROM label_runs WHERE label_run IS NOT NULL)"
        )
    joined = (
        "LEFT JOIN (SELECT *, true AS known FROM listed_episodes) USING (dataset, episode_index)" if of_episode else ""
    )
    found = lake.rows(
        f"SELECT dataset, sum(n)::BIGINT, bool_or(coalesce({' OR '.join(f'({r})' for r in rules)}, false)), "
        f"bool_or({twice}) FROM (SELECT {quoted(tuple(owner))}, count(*) AS n, {', '.join(sums)} FROM {table.name} "
        f"{where} GROUP BY ALL) {joined} GROUP BY dataset"
    )
    found = [f for f in found if f[0] in names]
    doubtful = {d for d, _, wrong, _ in found if wrong}
    unsure = [d for d, _, _, twice in found if twice]
    count = sum(n for _, n, _, _ in found)
    key = f"count(*) <> count(DISTINCT hash({quoted(table.key)}))"
    at_once = [unsure] if count < DISTINCT_AT_ONCE else [[d] for d in unsure]
    for some in at_once:
        sql = f"SELECT dataset FROM {table.name} {_in(some)} GROUP BY 1 HAVING {key}"
        doubtful |= {d for (d,) in lake.rows(sql)} if some else set()
    return count, sorted(doubtful)


def _conditions(table: Table) -> list[str]:
    """What no row breaks; one that is null is not broken."""
    return [f'"{k}" IS NOT NULL' for k in table.key] + list(table.must)


def _chosen(lake: Lake, datasets: Sequence[str] | None) -> tuple[list[str], str]:
    """Names of the datasets asked for (None: all), and the condition of their rows; empty where it is all of them."""
    have = [r[0] for r in lake.rows("SELECT dataset FROM datasets ORDER BY 1")]
    names = have if datasets is None else list(datasets)
    return names, "" if set(names) >= set(have) else _in(names)


def _in(names: Sequence[str]) -> str:
    return f"WHERE dataset IN ({', '.join(map(literal, names))})"


def split_leaks(lake: Lake, datasets: Sequence[str] | None = None) -> CheckOutcome:
    """Nothing of one split stands in another: no group, source record, episode content or near-copy of pictures.

    Of usable episodes; `datasets` None means all. `numbers` counts each kind.
    """
    _, where = _chosen(lake, datasets)
    lake.con.execute(
        f"CREATE OR REPLACE TEMP TABLE {USABLE} AS SELECT row_number() OVER ()::INTEGER AS id, dataset, episode_index, "
        's.split, s."group", e.source_id, e.content_hash, e.num_frames, e.cameras[1] AS camera '
        f"FROM (FROM episodes {where}) e JOIN splits s USING (dataset, episode_index) WHERE e.status = 'ok'"
    )
    twice = "GROUP BY ALL HAVING min(split) <> max(split)"
    groups = lake.rows(f'SELECT dataset, "group" FROM {USABLE} {twice} ORDER BY ALL')
    records = lake.rows(f"SELECT dataset, source_id, list(episode_index) FROM {USABLE} {twice} ORDER BY 1, 2")
    twins = lake.rows(
        f"SELECT content_hash, list({{d: dataset, e: episode_index, s: split}} ORDER BY dataset, episode_index) AS who "
        f"FROM {USABLE} SEMI JOIN (SELECT content_hash FROM {USABLE} {twice}) USING (content_hash) "
        "GROUP BY 1 ORDER BY ALL"
    )
    same = {frozenset((w["d"], w["e"]) for w in who) for _, who in twins}
    copies = [
        n
        for n in near_copies(lake)
        if not any({(n.dataset, n.episode_index), (n.of_dataset, n.of_episode)} <= s for s in same)
    ]
    lake.con.execute(f"DROP TABLE {USABLE}")
    examples = [f"group {g!r} of {d}" for d, g in groups[:3]]
    examples += [f"{d} {i}, which is episodes {_listed(e)}" for d, i, e in records[:3]]
    examples += [
        "a copy: " + " and ".join(f"{w['d']} episode {w['e']} ({w['s']})" for w in who[:3]) for _, who in twins[:3]
    ]
    examples += [str(n) for n in copies[:3]]
    detail = "no leak" if not examples else f"in more than one split: {'; '.join(examples)}"
    numbers = {"groups": len(groups), "records": len(records), "copies": len(twins), "near_copies": len(copies)}
    return CheckOutcome(not examples, detail, dict(numbers))


def _listed(episodes: Sequence[int]) -> str:
    return " and ".join(map(str, sorted(episodes)[:3]))

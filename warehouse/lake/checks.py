"""Checks of a corpus: what has to hold before anything is built on it, and what a person should look into.

A check is a query of checks.sql, or a function, and gives a finding of its name. `CHECKS`, at the end, lists them:
Dagster's assets run those of their stage; releases, the doctor those of the corpus.

One that blocks and fails stops stages that read what it looked at, and releases of the dataset. Stages and releases
ask for themselves, so it does not matter who starts them: a command, Dagster, a job, the night.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from core.domain.label_run import MIN_LABELLED
from core.tables import STAGE_TABLES, STAGED_TABLES, TABLES, Table
from core.values import grouped
from ingest.episode import Finding
from ingest.reasons import CHANGED_DURING_BUILD
from warehouse.lake.chunk_rows import ChunkRows
from warehouse.lake.connection import LakeConnection, literal, quoted, registered
from warehouse.lake.corrections import REJECTED, chunk_corrections
from warehouse.lake.lake import Lake
from warehouse.lake.near_duplicates import USABLE, Run, look_alikes, near_copies, not_looked_at
from warehouse.lake.publication import WHOLE_DATASET, in_memory
from warehouse.lake.statements import takedown_marks

THRESHOLDS = {
    "CHANGED": literal(CHANGED_DURING_BUILD),
    "FEW": 3,  # episodes, which say nothing of the source or the model: each is left out by itself
    "MAX_DISAGREEMENT": 0.15,  # mean |difference of progress| between annotators of a chunk
    "MAX_Z": 4.0,  # standard errors that a chunk's labels may be from those of the last release
    "MIN_DRIFT": 0.1,  # of the mean that it was: less is no drift, however sure
    "MIN_EPISODES": 5,  # of both, for means to be compared
}
EXAMPLES = 3  # of each kind of leak, in words
MOST_BROKEN = 5  # tables, in one message
IN_TWO_SPLITS = "GROUP BY ALL HAVING min(split) <> max(split)"
GO_ON_WITH_FEWER = (
    "go on with fewer by min_labelled of the section checks in the build's configuration"
)
MAKE_ANEW = "proccorpus doctor --hashes --repair, then build again"  # a remedy
# Dataset or episode, table, and what is wrong with its rows
type Fault = tuple[Any, str, str]
DISTINCT_AT_ONCE = 20_000_000  # rows whose keys are compared at once, in some 600 MB


def check_finding(name: str, passed: bool, detail: str, numbers: Mapping[str, float]) -> Finding:
    """What a check found."""
    return Finding(name, detail, "passed" if passed else "error", numbers=numbers)


class CheckScope(NamedTuple):
    """What is checked: what a stage wrote of a chunk (None: of the dataset); what its build may cost, and the least
    share of episodes that it goes on with.

    is_checked: its rows were held against the schema before they were published.
    """

    stage: str
    dataset: str
    chunk: int | None = 0
    budget_usd: float | None = None
    is_checked: bool = False
    min_labelled: float = MIN_LABELLED

    @property
    def clause(self) -> str:
        """SQL: which rows of a stage's table are of the chunk, or of the dataset."""
        of_dataset = f"dataset = {literal(self.dataset)}"
        return of_dataset if self.chunk is None else f"{of_dataset} AND chunk = {int(self.chunk)}"


def _queries() -> dict[str, tuple[str, Template]]:
    """By name the description and the query of each block of checks.sql."""
    queries = {}
    for block in Path(__file__).with_suffix(".sql").read_text().split("\n\n"):
        head, sql = block.split("\n", 1)
        name, description = head.removeprefix("-- ").split(": ", 1)
        queries[name] = description, Template(sql)
    return queries


QUERIES = _queries()


def queried(name: str, lake: LakeConnection, scope: CheckScope, **values: Any) -> Finding:
    """The one row of a block of checks.sql; `values`: of names in it that others have not."""
    budget = "NULL" if scope.budget_usd is None else scope.budget_usd
    values |= {
        "DATASET": literal(scope.dataset),
        "CHUNK": int(scope.chunk or 0),
        "MIN_LABELLED": scope.min_labelled,
        "TOO_FEW": literal(f", fewer than {scope.min_labelled:g} of them (min_labelled)"),
        "BUDGET": f"{budget}::DOUBLE",
    }
    [outcome] = lake.rows(QUERIES[name][1].substitute(THRESHOLDS, **values))
    passed, detail, numbers = outcome
    return check_finding(name, passed, detail, {k: v for k, v in numbers.items() if v is not None})


def label_coverage(lake: LakeConnection, scope: CheckScope) -> Finding:
    corrections = chunk_corrections(lake.whole, scope.dataset, scope.chunk)
    rejected = [str(c["episode_index"]) for c in corrections if c["status"] == REJECTED]
    return queried("label_coverage", lake, scope, REJECTED=", ".join(rejected))


def label_drift(lake: Lake, scope: CheckScope) -> Finding:
    last = lake.rows("SELECT name, snapshot FROM releases ORDER BY created_at DESC, name LIMIT 1")
    if not last:
        return check_finding("label_drift", True, "no release to compare with", {})
    name, snapshot = last[0]
    # A release may be older than a column that is compared
    try:
        return queried("label_drift", lake, scope, RELEASE=literal(name), VERSION=int(snapshot))
    except (duckdb.CatalogException, duckdb.BinderException):
        detail = f"release {name} is older than the tables that are compared"
        return check_finding("label_drift", True, detail, {})


def chosen_datasets(lake: Lake, datasets: Sequence[str] | None) -> tuple[list[str], str]:
    """Names of the datasets asked for (None: all), and the condition of their rows."""
    have = lake.column("SELECT dataset FROM datasets ORDER BY 1")
    names = have if datasets is None else list(datasets)
    if set(names) >= set(have):
        return names, "true"
    return names, f"dataset IN ({', '.join(map(literal, names)) or 'NULL'})"


# Sentences by kind of leak: a group (such as a scene), a source record and episodes of the same content belong to one
# split whole, or test data is known from training
LEAKS = {
    "groups": f"""
SELECT 'group ''' || "group" || ''' of ' || dataset FROM (
  SELECT dataset, "group" FROM {USABLE} {IN_TWO_SPLITS}) ORDER BY dataset, "group" """,
    "records": f"""
SELECT dataset || ' ' || source_id || ', which is episodes ' || array_to_string(episodes, ' and ') FROM (
  SELECT dataset, source_id, list_sort(list(episode_index))[:{EXAMPLES}] AS episodes FROM {USABLE} {IN_TWO_SPLITS})
ORDER BY dataset, source_id""",
    "copies": f"""
SELECT 'a copy: ' || array_to_string((
  list(dataset || ' episode ' || episode_index || ' (' || split || ')' ORDER BY dataset, episode_index))[:{EXAMPLES}],
  ' and ') FROM {USABLE} SEMI JOIN (SELECT content_hash FROM {USABLE} {IN_TWO_SPLITS}) USING (content_hash)
GROUP BY content_hash ORDER BY content_hash""",
}


def no_split_leak(lake: Lake, datasets: Sequence[str] | None = None) -> Finding:
    """Nothing of one split stands in another: no group, source record, content, near-copy or
    look-alike of pictures.

    Of usable episodes; `datasets` None means all. `numbers` counts each kind.
    """
    names, clause = chosen_datasets(lake, datasets)
    lake.con.execute(
        f"CREATE OR REPLACE TEMP TABLE {USABLE} AS SELECT row_number() OVER ()::INTEGER AS id, dataset, episode_index, "
        's.split, s."group", e.source_id, e.content_hash, e.num_frames, e.cameras[1] AS camera '
        f"FROM (FROM episodes WHERE {clause}) e JOIN splits s USING (dataset, episode_index) WHERE e.status = 'ok'"
    )
    leaks = {kind: lake.column(sql) for kind, sql in LEAKS.items()} | _near_duplicates(lake)
    lake.con.execute(f"DROP TABLE {USABLE}")

    # The message has a few examples of each kind; the numbers count all
    examples = list(chain.from_iterable(of_kind[:EXAMPLES] for of_kind in leaks.values()))
    detail = f"in more than one split: {'; '.join(examples)}" if examples else "no leak"
    if reason := not_looked_at(lake, names):
        detail += f" (datasets were not compared by what an encoder saw: {reason})"
    counts = {kind: len(of_kind) for kind, of_kind in leaks.items()}
    return check_finding("no_split_leak", not examples, detail, counts)


def _near_duplicates(lake: Lake) -> dict[str, list[str]]:
    """Sentences on pairs of the table USABLE by kind; exact copies are not named, and what both kinds find once."""
    of_content = (
        f"SELECT dataset, episode_index, content_hash FROM {USABLE} WHERE content_hash IS NOT NULL"
    )
    hashes = {(dataset, episode): content for dataset, episode, content in lake.rows(of_content)}
    leaks = dict[str, list[str]]()
    reported_pairs = set[tuple[Run, Run]]()
    for kind, pairs in (("near_copies", near_copies(lake)), ("look_alikes", look_alikes(lake))):
        new = [p for p in pairs if (p.held, p.trained) not in reported_pairs]
        leaks[kind] = [
            p.says for p in new if hashes.get(p.held[:2], "") != hashes.get(p.trained[:2])
        ]
        reported_pairs |= {(p.held, p.trained) for p in pairs}
    return leaks


def follows_schema(lake: LakeConnection, scope: CheckScope) -> Finding:
    """What a stage wrote is as core/tables says: columns and types, keys, conditions of rows; and it belongs
    to episodes and label runs that are there.

    `numbers` has the rows of each table; the detail names what is broken.
    """
    tables = STAGE_TABLES[scope.stage]
    may_name = scope
    sql = f"SELECT 1 FROM other_tasks WHERE {scope.clause} LIMIT 1"
    # A listing says of a chunk which other chunks' episodes it may show
    if "other_tasks" in tables and lake.rows(sql):
        lake, may_name = lake.whole, scope._replace(chunk=None)
    rows, faults = _faults_in_lake(lake, tables, [scope.dataset], scope.clause, may_name.clause)
    broken = "; ".join(f"{name}: {text}" for _, name, text in faults)
    detail = broken or f"{sum(rows.values())} rows as the schema says"
    return check_finding("follows_schema", not broken, detail, rows)


def corpus_is_sound(lake: Lake, datasets: Sequence[str] | None = None) -> Finding:
    """What `follows_schema` looks at, of every stage's tables, of all datasets or some."""
    names, rows, faults = schema_faults(lake, datasets)
    detail = "; ".join([*faults.values()][:MOST_BROKEN])
    return check_finding(
        "corpus_is_sound",
        not faults,
        detail or f"{len(names)} datasets are as the schema says",
        {"datasets": len(names), "rows": rows, "broken": len(faults)},
    )


def schema_faults(
    lake: Lake, datasets: Sequence[str] | None = None
) -> tuple[list[str], int, dict[tuple[str, str], str]]:
    """What is wrong with every stage's tables, of all datasets or some.

    Returns the names of those looked at, how many rows their tables have, and by dataset and name each table that is
    not as the schema says, with a text.
    """
    names, clause = chosen_datasets(lake, datasets)
    rows, faults = _faults_in_lake(lake, STAGED_TABLES, names, clause, clause)
    texts_by_table = grouped(((dataset, name), text) for dataset, name, text in faults)
    broken = {
        (dataset, name): f"{name} of {dataset}: {', '.join(texts)}"
        for (dataset, name), texts in texts_by_table.items()
    }
    return names, sum(rows.values()), broken


def listed_episodes(lake: LakeConnection, clause: str) -> pa.Table:
    """Dataset, episode_index, num_frames (null: it was not decoded) and `known`, true, of the episodes that a listing
    has and that fit a condition on episode_facts."""
    return lake.arrow(
        "SELECT f.dataset, f.episode_index, any_value(c.num_frames) AS num_frames, true AS known FROM "
        f"(FROM episode_facts WHERE {clause}) f LEFT JOIN episode_content c USING (dataset, episode_index) GROUP BY ALL"
    )


def _known_runs(lake: LakeConnection) -> pa.Table:
    return lake.arrow("SELECT label_run FROM label_runs WHERE label_run IS NOT NULL")


def broken_episodes(
    lake: ChunkRows,
    dataset: str,
    tables: Mapping[str, pa.Table],
    label_runs: Sequence[pa.Table],
) -> dict[int | str, list[str]]:
    """What is wrong with rows that a stage is about to publish, by their episode; or by dataset, with all of them.

    label_runs: rows of that table that are published with these.
    """
    runs = [_known_runs(lake), *(rows.select(["label_run"]) for rows in label_runs)]
    known_runs = pa.concat_tables(runs)
    listed = listed_episodes(lake, "true")
    tables = {name: rows for name, rows in tables.items() if rows.num_rows}
    with in_memory(listed_episodes=listed, known_runs=known_runs, **tables) as con:
        _, faults = _faults_of_tables(
            lambda sql: con.execute(sql).fetchall(),
            {name: rows.schema for name, rows in tables.items()},
            [dataset],
            "true",
            by_episode=True,
        )
    return grouped((owner, f"{name}: {text}") for owner, name, text in faults)


def _faults_in_lake(
    lake: LakeConnection,
    tables: Iterable[str],
    datasets: Sequence[str],
    clause: str,
    known_clause: str,
) -> tuple[dict[str, int], list[Fault]]:
    """`_faults_of_tables` of the lake; `known_clause`: which episodes the rows may be of.

    All is read from one state of the lake: what another build publishes meanwhile would be rows of a label run that was
    not known before.
    """
    with lake.reading():
        listed = listed_episodes(lake, known_clause)
        with registered(lake.con, listed_episodes=listed, known_runs=_known_runs(lake)):
            stored = {name: lake.arrow(f"SELECT * FROM {name} LIMIT 0").schema for name in tables}
            return _faults_of_tables(lake.rows, stored, datasets, clause)


def _faults_of_tables(
    query_rows: Callable[[str], list[tuple]],
    tables: Mapping[str, pa.Schema],
    datasets: Sequence[str],
    clause: str,
    *,
    by_episode: bool = False,
) -> tuple[dict[str, int], list[Fault]]:
    """How many rows of tables fit a condition, and what is wrong with them; tables: what columns they have.

    By dataset, or by episode where a table has episodes.
    """
    counts = {}
    faults: list[Fault] = []
    for name, stored in tables.items():
        group = "episode_index" if by_episode and "episode_index" in stored.names else "dataset"
        if wrong := _other_columns(TABLES[name], stored):
            counts[name], texts_by_owner = 0, {dataset: [wrong] for dataset in sorted(datasets)}
        else:
            counts[name], texts_by_owner = _faults_of_rows(query_rows, TABLES[name], clause, group)
        for owner, texts in texts_by_owner.items():
            faults += [(owner, name, text) for text in texts]
    return counts, faults


def _other_columns(table: Table, stored: pa.Schema) -> str:
    """Names of columns that are not as the schema says, in words; empty: all are."""
    wrong = sorted(set(table.schema.names) ^ set(stored.names))
    wrong = wrong or [f.name for f in table.schema if stored.field(f.name).type != f.type]
    if wrong:
        return f"other columns than the schema's: {', '.join(wrong)}"
    return ""


def _faults_of_rows(
    query_rows: Callable[[str], list[tuple]], table: Table, clause: str, group: str
) -> tuple[int, dict[Any, list[str]]]:
    """How many rows of a table fit a condition, and what is wrong with them, by dataset or episode.

    The rows are summed up by their owner (an episode, its label, its camera), since sums of millions of rows are quick.
    Example: five rows of `progress`, whose owner is an episode's label, in a dataset of two episodes:

        episode_index  label_run  frame_index  progress
                    0        run            0       0.0
                    0        run            1       0.4
                    1        run            0       0.1
                    1        run            0       0.2    a key that stands twice
                    1        run            1       1.7    against the condition "progress BETWEEN 0 AND 1"

    The inner query makes one line an owner: episode 0 with n = 2 rows, none against the condition; episode 1 with
    n = 3, one against it. Frames 0, 1 are all of 0 .. n - 1, so no key of episode 0 stands twice; frames 0, 0, 1 are
    not, so one of episode 1 may. The outer query makes one line a dataset: 5 rows, 1 against the condition, and a key
    may stand twice. Only then `_repeated` counts the keys of the dataset that do: 1.
    """
    # Whose rows they are: of the episode, and the label and camera where the table has them
    owner = tuple(c for c in ("dataset", "episode_index", "label_run") if c in table.schema.names)
    owner += ("camera",) if "camera" in table.key else ()
    key_sums, may_repeat = _key_sums(table, owner)
    rule_sums, violations = _rules(table)
    if "episode_index" in owner:
        join = "LEFT JOIN listed_episodes USING (dataset, episode_index)"
    else:
        join = ""
    lines = query_rows(
        f"SELECT {group}, sum(n)::BIGINT, bool_or({may_repeat}), {', '.join(violations.values())} FROM ("
        f"SELECT {quoted(owner)}, count(*) AS n, {', '.join(rule_sums + key_sums)} FROM {table.name} WHERE {clause} "
        f"GROUP BY ALL) {join} GROUP BY {group} ORDER BY {group}"
    )
    count = sum(rows for _, rows, *_ in lines)
    unsure = [line[0] for line in lines if line[2]]
    repeated = _repeated(query_rows, table, group, unsure, clause, at_once=count < DISTINCT_AT_ONCE)
    sentences = [f"rows of one key ({', '.join(table.key)})", *violations]
    faults = {}
    for dataset, _, _, *counts in lines:
        numbers = zip(sentences, [repeated.get(dataset, 0), *counts], strict=True)
        if wrong := [f"{number} {sentence}" for sentence, number in numbers if number]:
            faults[dataset] = wrong
    return count, faults


def _rules(table: Table) -> tuple[list[str], dict[str, str]]:
    """Sums over the rows of an owner, and violations: by sentence the SQL of how many there are in all owners' sums.

    Example: the first condition of most tables is `"dataset" IS NOT NULL`. Its sum is `count(*) FILTER (NOT
    coalesce("dataset" IS NOT NULL, true)) AS wrong_0`, and the violations of that name are `sum(wrong_0)`. Each owner
    has `n` rows.
    """
    # A condition that is null is not broken
    conditions = [f'"{k}" IS NOT NULL' for k in table.key] + list(table.must)
    sums = [
        f"count(*) FILTER (NOT coalesce({condition}, true)) AS wrong_{k}"
        for k, condition in enumerate(conditions)
    ]
    violations = {
        f"rows against {condition}": f"sum(wrong_{k})" for k, condition in enumerate(conditions)
    }
    if "episode_index" in table.schema.names:
        violations["rows of episodes that are not listed"] = "sum(n) FILTER (known IS NULL)"
    if "label_run" in table.schema.names:
        unknown = "label_run <> '' AND label_run NOT IN (FROM known_runs)"
        violations["rows of label runs that are not known"] = f"sum(n) FILTER ({unknown})"
    if table.name == "progress":
        violations["labels of another length than the episode"] = (
            "count(*) FILTER (n <> num_frames)"
        )
    if table.name == "segments":
        # The segments are one path from (0, 0) to (n, num_frames): where each ends the next one begins. So the points
        # where they begin, with the last one, are the same set as the points where they end, with the first one. Sets
        # are compared by the sums of their members' hashes. Example, of segments 0-40, 40-90 and 95-120 of 120 frames:
        # (0, 0) (1, 40) (2, 95) and (3, 120) against (1, 40) (2, 90) (3, 120) and (0, 0): a gap at 90
        sums.append("sum(hash(segment_index::BIGINT, start_frame)) AS begins")
        sums.append("sum(hash(segment_index::BIGINT + 1, end_frame)) AS ends")
        broken = "begins + hash(n, num_frames) <> ends + hash(0::BIGINT, 0::BIGINT)"
        violations[
            "labels with segments that do not begin where the one before ends, or do not end with the episode"
        ] = f"count(*) FILTER ({broken})"
    return sums, violations


def _key_sums(table: Table, owner: tuple[str, ...]) -> tuple[list[str], str]:
    """Sums over the rows of an owner, and the condition on them under which a key of the table may stand twice."""
    other_columns = set(table.key) - set(owner)
    if set(owner) == set(table.key):
        return [], "n > 1"
    if set(owner) < set(table.key) and other_columns in ({"frame_index"}, {"segment_index"}):
        # The numbers are to be exactly 0, 1 .. n - 1: then they and n are the same set as their successors and 0.
        # Example: of 0, 1, 1 the sets are 0, 1, 1, 3 and 1, 2, 2, 0. Compared by the sums of their members' hashes.
        (number,) = other_columns
        sums = [f"sum(hash({number}::BIGINT)) AS here", f"sum(hash({number}::BIGINT + 1)) AS next"]
        return sums, "here + hash(n) IS DISTINCT FROM next + hash(0::BIGINT)"
    return [], "true"


def _repeated(
    query_rows: Callable[[str], list[tuple]],
    table: Table,
    column: str,
    owners: list[Any],
    clause: str,
    *,
    at_once: bool,
) -> dict[Any, int]:
    """Of some datasets, or episodes, the rows with a key that stands twice; of those that have any."""
    key = quoted(table.key)
    repeated = {}
    for group in [owners] if at_once and owners else [[owner] for owner in owners]:
        names = ", ".join(literal(f"{owner}") for owner in group)
        of_some = f"FROM {table.name} WHERE {column} IN ({names}) AND {clause} GROUP BY 1"
        # Hashes first: to tell apart what has equal ones, which keys of two rows hardly ever have, costs twice as much
        if query_rows(f"SELECT {column} {of_some} HAVING count(*) <> count(DISTINCT hash({key}))"):
            sql = f"SELECT {column}, count(*) - count(DISTINCT ({key})) AS more {of_some} HAVING more > 0"
            repeated |= dict(query_rows(sql))
    return repeated


@dataclass(frozen=True)
class Check:
    """A check of what some stages wrote; without any, of the corpus as a whole or some datasets, before a release.

    One that blocks stops what is downstream, the release included; else it warns. refusal: of a release, by the detail.
    remedy: of what one that blocks stopped.
    """

    name: str
    run: Callable[..., Finding]
    stages: tuple[str, ...] = ()
    is_blocking: bool = False
    refusal: str = ""
    remedy: str = ""

    @property
    def description(self) -> str:
        """What has to hold: of checks.sql, or the first sentences of a docstring."""
        text = QUERIES[self.name][0] if self.name in QUERIES else self.run.__doc__ or ""
        return " ".join(text.split("\n\n")[0].split())


def withdrawals_are_decided(lake: Lake, datasets: Sequence[str] | None = None) -> Finding:
    """No episode is only probably a recording that was taken down: a person has said whether it is."""
    undecided_names = [
        f"{mark['dataset']} {mark['episode_index']} ({mark['reason']})"
        for mark in takedown_marks(lake)
        if not mark["is_sure"] and (datasets is None or mark["dataset"] in datasets)
    ]
    detail = "; ".join(undecided_names[:EXAMPLES]) or "nothing is undecided"
    counts = {"undecided": len(undecided_names)}
    return check_finding("withdrawals_are_decided", not undecided_names, detail, counts)


CHECKS = (
    Check(
        "follows_schema", follows_schema, tuple(STAGE_TABLES), is_blocking=True, remedy=MAKE_ANEW
    ),
    Check(
        "decodable_coverage",
        partial(queried, "decodable_coverage"),
        ("frames",),
        is_blocking=True,
        remedy="mend the source (proccorpus show quarantine says what is wrong), "
        "take the broken episodes down "
        "(proccorpus takedown DATASET --episodes N --reason TEXT), "
        f"or {GO_ON_WITH_FEWER}",
    ),
    Check(
        "label_coverage",
        label_coverage,
        ("progress",),
        is_blocking=True,
        remedy="build again: the others are asked about again "
        "(proccorpus show quarantine says why they have none); "
        f"or {GO_ON_WITH_FEWER}",
    ),
    Check("label_agreement", partial(queried, "label_agreement"), ("progress",)),
    Check("label_drift", label_drift, ("progress",)),
    Check("cost_within_budget", partial(queried, "cost_within_budget"), ("segments", "reasoning")),
    Check(
        "no_split_leak",
        no_split_leak,
        is_blocking=True,
        refusal="no release while test data leaks into training: {}. Mend the splits (group_field in the registry "
        "entry), or take one of the two down: proccorpus takedown DATASET --episodes N --reason TEXT",
    ),
    Check(
        "withdrawals_are_decided",
        withdrawals_are_decided,
        is_blocking=True,
        refusal="no release while it is not decided whether episodes are recordings that were taken down: {}. Say "
        "proccorpus say recording DATASET EPISODE true, or false",
    ),
    Check("corpus_is_sound", corpus_is_sound, is_blocking=True),
)
GUARDS = tuple(check for check in CHECKS if not check.stages)


# By dataset the least share of labelled episodes, as it was last built
LIMITS = """
SELECT dataset, coalesce((config ->> '$.stages.checks.min_labelled')::DOUBLE, ?) FROM build_configs"""
RUNS = "SELECT DISTINCT stage, dataset, chunk FROM stage_runs WHERE chunk <> ? ORDER BY ALL"


def failed_check(lake: LakeConnection, scope: CheckScope) -> tuple[str, str] | None:
    """The first blocking check of what a stage wrote that fails, in words, and the remedy; None: none."""
    for check in (check for check in CHECKS if check.is_blocking and scope.stage in check.stages):
        # Rows were held against their tables before the stage published them
        if scope.is_checked and check.run is follows_schema:
            continue
        outcome = check.run(lake, scope)
        if not outcome.passed:
            failed = f"the check {check.name} of {scope.stage} failed"
            if scope.chunk is not None:
                failed += f" in chunk {scope.chunk}"
            return f"{failed}: {outcome.detail}", check.remedy
    return None


def blocked_datasets(lake: Lake) -> dict[str, tuple[str, str]]:
    """Datasets of which a blocking check fails: the first that does, in words, and the remedy."""
    datasets, _, faults = schema_faults(lake)
    texts_by_dataset = grouped((dataset, text) for (dataset, _), text in faults.items())
    blocked = {
        dataset: (f"the corpus is broken: {'; '.join(texts[:MOST_BROKEN])}", MAKE_ANEW)
        for dataset, texts in texts_by_dataset.items()
        if dataset in datasets
    }
    limits = dict(lake.rows(LIMITS, [MIN_LABELLED]))
    # The other checks of each chunk, where the stage has run
    for stage, dataset, chunk in lake.rows(RUNS, [WHOLE_DATASET]):
        limit = limits.get(dataset, MIN_LABELLED)
        scope = CheckScope(stage, dataset, chunk, is_checked=True, min_labelled=limit)
        if failed := failed_check(lake, scope):
            blocked.setdefault(dataset, failed)
    return blocked

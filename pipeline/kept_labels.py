"""Labels that a former version of an annotator made, where a chunk of them is made anew: they stay, as nothing is asked
twice. Recordings that hold other contents now have lost their labels at listing (`warehouse.lake.outdated`)."""

from collections.abc import Collection, Iterable, Mapping

import pyarrow as pa

from ingest.episode import Finding
from pipeline.stage import StageContext

FINDING = "reason, detail, severity, episode_index, camera, file"


def kept_labels(context: StageContext) -> frozenset[int]:
    """Episodes of the chunk whose label of a former version stays: it ends where the episode does."""
    if context.step.spec.made_by is None:
        return frozenset()
    sql = (
        "SELECT episode_index, max(end_frame) FROM segments WHERE dataset = ? AND chunk = ? AND label_run = ? "
        "GROUP BY 1"
    )
    ends = dict(context.lake.rows(sql, _place(context)))
    return frozenset(
        e.episode_index for e in context.signals() if ends.get(e.episode_index) == len(e.change)
    )


def kept_reasons(context: StageContext) -> frozenset[int]:
    """Episodes of the chunk whose reasons, by a former version, stay with their label."""
    if context.step.spec.made_by is None:
        return frozenset()
    sql = "SELECT DISTINCT episode_index FROM reasoning WHERE dataset = ? AND chunk = ? AND label_run = ?"
    return frozenset(context.lake.column(sql, _place(context)))


def with_kept_rows(
    context: StageContext, tables: Mapping[str, pa.Table], episodes: Collection[int]
) -> dict[str, pa.Table]:
    """What a stage made, and what the lake has of some episodes in the same tables."""
    return {
        name: pa.concat_tables([_rows(context, name, table, episodes), table])
        for name, table in tables.items()
    }


def _rows(
    context: StageContext, name: str, template: pa.Table, episodes: Collection[int]
) -> pa.Table:
    columns = ", ".join(f'"{column}"' for column in template.schema.names)
    rows = context.lake.arrow(
        f"SELECT {columns} FROM {name} WHERE dataset = ? AND chunk = ? AND label_run = ? "
        "AND list_contains(?, episode_index)",
        [*_place(context), sorted(episodes)],
    )
    return rows.cast(template.schema)


def with_kept_findings(
    context: StageContext, findings: Iterable[Finding], episodes: Collection[int]
) -> list[Finding]:
    """Findings of a stage, with what it found of some episodes before."""
    rows = context.lake.dicts(
        f"SELECT {FINDING} FROM findings WHERE dataset = ? AND chunk = ? AND stage = ? "
        "AND list_contains(?, episode_index)",
        [context.dataset, context.chunk, context.step.stage.name, sorted(episodes)],
    )
    return [*(Finding(**row) for row in rows), *findings]


def _place(context: StageContext) -> list[str | int]:
    return [context.dataset, context.chunk, context.step.spec.label_run]

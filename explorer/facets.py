"""What episodes are chosen and ordered by: each facet once, as SQL over the lake, from
which the index is made, too.
"""

import re
from dataclasses import dataclass
from sys import intern
from typing import Any

from core.annotators import BY_PEOPLE, HUMAN, follows_sql, made_by_sql
from core.demonstration_quality import NOT_MEASURED
from explorer.access import LakeReader

Place = tuple[str, int]  # dataset, episode_index
DURATION = "coalesce(e.duration_s, e.num_frames / d.fps)"
LENGTHS = ("under 5 s", "5 to 15 s", "15 to 60 s", "a minute or more", "unknown")
# A person has judged the label of the review queue as q
JUDGED = (
    "EXISTS (FROM current_corrections c WHERE c.dataset = q.dataset AND c.episode_index = q.episode_index"
    " AND (c.status = 'accepted' OR c.status = 'rejected' AND c.base_label_run = q.label_run))"
)


@dataclass(frozen=True)
class Facet:
    """A column that episodes are chosen by; `sql` is over the view `episodes` as e, and
    JOINS.

    One that is not `listed` is for addresses, such as those that Dagster links to, and
    shown only where it is chosen.
    """

    name: str
    title: str
    sql: str
    listed: bool = True


FACETS = (
    Facet("dataset", "Dataset", "e.dataset"),
    Facet("chunk", "Chunk", "e.chunk::VARCHAR", listed=False),
    Facet("task", "Task", "coalesce(e.task, '')"),
    Facet("robot", "Robot", "coalesce(d.robot, 'unknown')"),
    Facet("license", "Licence", "coalesce(d.license, 'not stated')"),
    Facet("split", "Split", "coalesce(s.split, 'none')"),
    Facet(
        "success",
        "Success",
        "CASE e.success WHEN true THEN 'yes' WHEN false THEN 'no' ELSE 'unknown' END",
    ),
    Facet("end_by", "End by", "coalesce(q.end_by, 'not labelled')"),
    Facet("reason", "Usable", "coalesce(e.reason, 'ok')"),
    Facet(
        "annotator",
        "Label by",
        f"coalesce({made_by_sql('r.annotator', 'l.steps_from', follows_sql('r.annotator', label='a'))}, 'no label')",
    ),
    Facet("label_run", "Label version", "coalesce(a.label_run, '')"),
    Facet(
        "quality",
        "Signs in the label",
        "CASE WHEN a.label_run IS NULL THEN 'no label' ELSE coalesce(sign.why, 'no sign') END",
    ),
    Facet("demonstration", "As a demonstration", f"coalesce(demo.main, '{NOT_MEASURED}')"),
    Facet(
        "length",
        "Length",
        f"CASE WHEN {DURATION} < 5 THEN '{LENGTHS[0]}' WHEN {DURATION} < 15 THEN '{LENGTHS[1]}' WHEN {DURATION} < 60"
        f" THEN '{LENGTHS[2]}' WHEN {DURATION} >= 60 THEN '{LENGTHS[3]}' ELSE '{LENGTHS[4]}' END",
    ),
)
BY_NAME = {f.name: f for f in FACETS}
FORMER_VALUES = {"annotator": {HUMAN: BY_PEOPLE}}  # of addresses that people kept
# What checks found that nobody accepted; no row of a person's stands behind it
OPEN_CHECKS = "(SELECT DISTINCT dataset, episode_index, check_name, '' AS mark_id FROM checks WHERE NOT is_accepted)"
# What people say of episodes, and checks: a title, and the view and the column over the lake
MARKS = {
    "check": ("Fault found by a check", OPEN_CHECKS, "check_name"),
    "tag": ("Tag", "current_tags", "tag"),
    "assigned": ("Assigned to", "current_assignments", "person"),
}
# Numbers that episodes are chosen by, from one to another: a title, the column of the index, and of the lake
RANGES = {
    "seconds": ("Length in seconds", "duration_s", DURATION),
    "confidence": ("Confidence of the label", "confidence", "l.confidence"),
}
# What lists can be ordered by: a title, and the columns of the index
SORTS = {
    "episode": ("dataset and number", "row"),
    "shortest": ("shortest first", "duration_s, row"),
    "longest": ("longest first", "duration_s DESC NULLS LAST, row"),
    "steps": ("most steps first", "num_steps DESC, row"),
    "confidence": ("least sure first", "confidence NULLS LAST, row"),
    "demonstration": ("worst demonstrations first", "demonstration_score NULLS LAST, row"),
    "jump": ("largest jump of progress first", "jump DESC NULLS LAST, row"),
    "end": ("lowest end of progress first", "end_progress NULLS LAST, row"),
}
OF_EPISODE = "{0}.dataset = e.dataset AND {0}.episode_index = e.episode_index"
OF_LABEL = f"{OF_EPISODE} AND {{0}}.label_run = a.label_run"
SIGNS = f"(SELECT dataset, episode_index, signs[1] AS why FROM review_queue q WHERE NOT {JUDGED})"
# Tables beside `episodes`, by alias: the table, on what it is joined, and which one has to be joined before
JOINS = {
    "d": ("datasets", "{0}.dataset = e.dataset"),
    "s": ("splits", OF_EPISODE),
    "a": ("active_runs", OF_EPISODE),
    "r": ("label_runs", "{0}.label_run = a.label_run"),
    "l": ("episode_labels", OF_LABEL),
    "q": ("label_quality", OF_LABEL),
    "sign": (SIGNS, OF_EPISODE),
    "demo": ("demonstration_quality", OF_EPISODE),
}


def episodes_sql(columns: str, condition: str) -> str:
    """A query of columns of `episodes` as e, joined with what the columns and the condition name."""
    aliases = set(re.findall(r"\b(\w+)\.", f"{columns} {condition}"))
    # These are joined by the active label run
    aliases |= {"a"} if aliases & {"r", "l", "q"} else set()
    joins = [
        f"LEFT JOIN {table} {alias} ON {on.format(alias)}"
        for alias, (table, on) in JOINS.items()
        if alias in aliases
    ]
    return " ".join(
        (f"SELECT {columns} FROM episodes e", *joins, f"WHERE {condition}" if condition else "")
    ).strip()


def _marks_by_place(reader: LakeReader, kind: str) -> dict[Place, list[tuple[str, str]]]:
    """What is said of each episode, and the row that says it."""

    def find() -> dict[Place, list[tuple[str, str]]]:
        _, view, column = MARKS[kind]
        marks: dict[Place, list[tuple[str, str]]] = {}
        sql = f"SELECT dataset, episode_index, {column}, mark_id FROM {view} ORDER BY 3, 1, 2"
        for dataset, episode_index, value, mark_id in reader.rows(sql):
            marks.setdefault((intern(dataset), episode_index), []).append((intern(value), mark_id))
        return marks

    return reader.while_nothing_is_said(("tags", kind), find)


def places_by_value(reader: LakeReader, kind: str) -> dict[str, list[Place]]:
    """The episodes of each tag, or of each person that some are assigned to."""

    def find() -> dict[str, list[Place]]:
        places: dict[str, list[Place]] = {}
        for place, marks in _marks_by_place(reader, kind).items():
            for value, _ in marks:
                places.setdefault(value, []).append(place)
        return {value: sorted(places[value]) for value in sorted(places)}

    return reader.while_nothing_is_said(("places", kind), find)


def tags_of(reader: LakeReader, places: list[Place]) -> dict[Place, dict[str, Any]]:
    """Of each episode its `tags`, the `person` who has it, and the row that says so
    (`assignment`); None: nobody.
    """
    tags = _marks_by_place(reader, "tag")
    people = _marks_by_place(reader, "assigned")
    tags_by_place = {}
    for place in places:
        person, assignment = people.get(place, [(None, None)])[-1]
        place_tags = [tag for tag, _ in tags.get(place, [])]
        tags_by_place[place] = {"tags": place_tags, "person": person, "assignment": assignment}
    return tags_by_place

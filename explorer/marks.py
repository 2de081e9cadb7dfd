"""Tags of episodes, and to whom they are assigned, as pages show them."""

from dataclasses import dataclass, field
from sys import intern

from explorer.access import LakeReader

TAGS_SQL = "SELECT dataset, episode_index, tag AS value, NULL AS mark_id FROM current_tags ORDER BY 3, 1, 2"
ASSIGNED_SQL = "SELECT dataset, episode_index, person AS value, mark_id FROM current_assignments ORDER BY 3, 1, 2"
OF_MARK = {"tag": TAGS_SQL, "assigned": ASSIGNED_SQL}
Place = tuple[str, int]  # dataset, episode_index


@dataclass(frozen=True)
class EpisodeMarks:
    """The tags of an episode, and the person who has it with the row that says so; None: nobody."""

    tags: list[str] = field(default_factory=list)
    person: str | None = None
    assignment: str | None = None


def has_marks(reader: LakeReader) -> bool:
    """Is the lake of a version that knows tags and assignments?"""
    return reader.has_view("current_tags")


def places_by_value(reader: LakeReader, kind: str) -> dict[str, list[Place]]:
    """The episodes of each tag, or of each person that some are assigned to."""
    return reader.once(("places", kind), lambda: _places_by_value(reader, kind))


def _places_by_value(reader: LakeReader, kind: str) -> dict[str, list[Place]]:
    found: dict[str, list[Place]] = {}
    for place, marks in _by_place(reader, kind).items():
        for value, _ in marks:
            found.setdefault(value, []).append(place)
    return {value: sorted(found[value]) for value in sorted(found)}


def _by_place(reader: LakeReader, kind: str) -> dict[Place, list[tuple[str, str | None]]]:
    """What is said of each episode, and the row that says it (of assignments)."""

    def find() -> dict[Place, list[tuple[str, str | None]]]:
        by_place: dict[Place, list[tuple[str, str | None]]] = {}
        for dataset, episode_index, value, mark_id in reader.rows(OF_MARK[kind]) if has_marks(reader) else []:
            by_place.setdefault((intern(dataset), episode_index), []).append((intern(value), mark_id))
        return by_place

    return reader.once(("marks", kind), find)


def marks_of(reader: LakeReader, places: list[Place]) -> dict[Place, EpisodeMarks]:
    """What is said of each of some episodes; all of them are in the answer."""
    tags, people = _by_place(reader, "tag"), _by_place(reader, "assigned")
    found = {}
    for place in places:
        person, assignment = people.get(place, [(None, None)])[-1]
        found[place] = EpisodeMarks([tag for tag, _ in tags.get(place, [])], person, assignment)
    return found

"""Tags of episodes, and to whom they are assigned, as pages show them."""

from sys import intern
from typing import Any

from explorer.access import LakeReader
from explorer.facets import MARKS

Place = tuple[str, int]  # dataset, episode_index


def _by_place(reader: LakeReader, kind: str) -> dict[Place, list[tuple[str, str]]]:
    """What is said of each episode, and the row that says it."""

    def find() -> dict[Place, list[tuple[str, str]]]:
        _, view, column = MARKS[kind]
        found: dict[Place, list[tuple[str, str]]] = {}
        sql = f"SELECT dataset, episode_index, {column}, mark_id FROM {view} ORDER BY 3, 1, 2"
        for dataset, episode_index, value, mark_id in reader.rows(sql):
            found.setdefault((intern(dataset), episode_index), []).append((intern(value), mark_id))
        return found

    return reader.once(("tags", kind), find)


def places_by_value(reader: LakeReader, kind: str) -> dict[str, list[Place]]:
    """The episodes of each tag, or of each person that some are assigned to."""

    def find() -> dict[str, list[Place]]:
        found: dict[str, list[Place]] = {}
        for place, said in _by_place(reader, kind).items():
            for value, _ in said:
                found.setdefault(value, []).append(place)
        return {value: sorted(found[value]) for value in sorted(found)}

    return reader.once(("places", kind), find)


def tags_of(reader: LakeReader, places: list[Place]) -> dict[Place, dict[str, Any]]:
    """Of each episode its `tags`, the `person` who has it, and the row that says so (`assignment`); None: nobody."""
    tags, people = _by_place(reader, "tag"), _by_place(reader, "assigned")
    found = {}
    for place in places:
        person, assignment = people.get(place, [(None, None)])[-1]
        own = [tag for tag, _ in tags.get(place, [])]
        found[place] = {"tags": own, "person": person, "assignment": assignment}
    return found

"""Tags of episodes, and to whom they are assigned, as pages show them."""

from dataclasses import dataclass, field
from typing import Any

from explorer.access import LakeReader

TAGS_SQL = "SELECT dataset, episode_index, tag AS value FROM current_tags ORDER BY 3, 1, 2"
ASSIGNED_SQL = "SELECT dataset, episode_index, person AS value FROM current_assignments ORDER BY 3, 1, 2"
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
    found: dict[str, list[Place]] = {}
    for row in reader.dicts(OF_MARK[kind]) if has_marks(reader) else []:
        found.setdefault(row["value"], []).append((row["dataset"], row["episode_index"]))
    return found


def marks_of(reader: LakeReader, places: list[Place]) -> dict[Place, EpisodeMarks]:
    """What is said of each of some episodes; all of them are in the answer."""
    tags: dict[Place, list[str]] = {}
    people: dict[Place, dict[str, Any]] = {}
    if places and has_marks(reader):
        of_places = "list_contains(?, dataset || ' ' || episode_index)"
        keys = [f"{dataset} {episode_index}" for dataset, episode_index in places]
        for row in reader.dicts(f"FROM current_tags WHERE {of_places} ORDER BY tag", keys):
            tags.setdefault((row["dataset"], row["episode_index"]), []).append(row["tag"])
        for row in reader.dicts(f"FROM current_assignments WHERE {of_places}", keys):
            people[row["dataset"], row["episode_index"]] = row
    return {
        place: EpisodeMarks(
            tags.get(place, []), people.get(place, {}).get("person"), people.get(place, {}).get("mark_id")
        )
        for place in places
    }

"""The tree of named parts that a source holds, as each format gives it: nothing here knows what a part means.

Roles (`array_roles.roles_of`) are found among parts, and each is accounted for: used, known and left out, or unknown.
"""

from collections.abc import Callable, Iterable, Mapping
from math import prod
from types import MappingProxyType
from typing import NamedTuple

from ingest.episode import PartKind, SourcePart
from ingest.source_parts import PartCensus

Uses = Mapping[str, tuple[str, str]]  # by path: what a part is read as, and what shows it

UNREAD = "nothing reads it; `keys`, `success_field` or `group_field` of an entry may name it"


class Part(NamedTuple):
    """A part at a `path` of its source. `title`: how it is listed, where that is not its path. `is_picture`: may it
    hold pictures, by its type?
    """

    path: str
    kind: PartKind = "array"
    shape: tuple[int | None, ...] = ()
    dtype: str = ""
    file: str | None = None
    title: str = ""
    is_picture: bool = False

    @property
    def width(self) -> int:
        """Values of a row, of a part with one for each frame."""
        return prod(size or 0 for size in self.shape[1:])


Reason = Callable[[Part], str]  # why a part is left out on purpose; "" for no reason


def fields(
    prefix: str, names: Iterable[str], kind: PartKind = "text", file: str | None = None
) -> list[Part]:
    """Named fields, such as those of metadata, which are listed with a prefix."""
    return [Part(name, kind, file=file, title=f"{prefix}{name}") for name in names]


def account(
    census: PartCensus,
    parts: Iterable[Part],
    uses: Uses,
    why_known: Reason,
    nothing: str = UNREAD,
    problems: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Account for each part: as used, where `uses` says what for; else as known, where it is left out on purpose; else
    as unknown, for what `problems` says of its path, or else for `nothing`. An array of a camera is listed as one.
    """
    for part in parts:
        use, reason = uses.get(part.path, ("", ""))
        status = "used"
        if not use:
            reason = why_known(part)
            status = "known" if reason else "unknown"
        reason = reason or problems.get(part.path, nothing)
        # A field of metadata that names a camera has no type of its own
        is_camera = use == "camera" and part.dtype and part.kind != "topic"
        kind = "camera" if is_camera else part.kind
        title = part.title or part.path
        census.add(SourcePart(kind, title, status, use, reason, part.shape, part.dtype, part.file))

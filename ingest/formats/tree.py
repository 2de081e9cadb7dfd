"""The tree of named parts that a source holds, as each format gives it: nothing here knows what a part means.

Roles (`tree_reader.roles_of`) are found among parts, and each is accounted for: used, known and left out, or unknown.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np

from ingest.episode import PartCensus, PartKind, Picture, SourcePart
from ingest.formats.writers import Writer

ALL_ROWS = slice(None)
type Use = tuple[str, str]  # what a part is read as, and what shows it
Uses = Mapping[str, Use]  # by path

TIMES = "its name says so, and there is one for each row"
UNREAD = "nothing reads it; `keys`, `success_field` or `group_field` of an entry may name it"


class Part(NamedTuple):
    """A part at a `path` of its source. `title`: how it is listed, where that is not its path. `is_picture`: may it
    hold pictures, by its type? `names`: those of its dimensions, where the source has them. `called`: what the source
    calls it, where that is not its path; the first name that says what it is counts.
    """

    path: str
    kind: PartKind = "array"
    shape: tuple[int | None, ...] = ()
    dtype: str = ""
    file: str | None = None
    title: str = ""
    is_picture: bool = False
    names: Sequence[str] = ()
    called: Sequence[str] = ()

    @property
    def width(self) -> int:
        """Values of a row, of a part with one for each frame."""
        return prod(size or 0 for size in self.shape[1:])


class Vector(NamedTuple):
    """Parts that are joined to one vector, and for all of them what shows that they belong there."""

    paths: tuple[str, ...] = ()
    why: str = ""


class Roles(NamedTuple):
    """The parts that are state and action, and that with the time of each row, "" for none; `overruled`: why others
    are not that would count by their names. `writer`: who wrote them, where that is known. `names`: those that the
    source has for the dimensions of a part, by path.
    """

    state: Vector = Vector()
    action: Vector = Vector()
    overruled: Mapping[str, str] = MappingProxyType({})
    times: str = ""
    writer: Writer | None = None
    names: Mapping[str, Sequence[str]] = MappingProxyType({})

    @property
    def uses(self) -> Uses:
        of_times = {self.times: ("time", TIMES)} if self.times else {}
        of_action = dict.fromkeys(self.action.paths, ("action", self.action.why))
        return of_times | of_action | dict.fromkeys(self.state.paths, ("state", self.state.why))


class Tree(Protocol):
    """Named parts with rows, of one episode or of several one after the other. What it says may change with its file:
    each part is looked for anew, and its absence is a DataError.
    """

    def parts(self) -> Sequence[Part]:
        """All parts, in the order of the source."""
        ...

    def read(self, path: str, rows: slice) -> np.ndarray:
        """Some rows [n, ...] of a part of numbers. Raises DataError."""
        ...

    def pictures(self, path: str, rows: slice) -> Iterator[Picture]:
        """The pictures of some rows of a camera's part, one at a time. Raises DataError."""
        ...

    def roles(self) -> Roles:
        """By `tree_reader.roles_of`, of its parts of numbers. Raises DataError."""
        ...

    def cameras(self) -> Mapping[str, str]:
        """The parts with colour pictures, by the name of the camera."""
        ...


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

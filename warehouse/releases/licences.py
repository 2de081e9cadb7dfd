"""Licences of datasets: what their free texts say, and what may go into a release.

Building and training on one's own machine are never asked; a release is what is given to others.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

OPEN, NON_COMMERCIAL, UNKNOWN = "open", "non-commercial", "unknown"

PERMISSIVE = re.compile(
    r"mit|mit-0|apache-2\.0|bsd-[0-4]-clause|bsd|0bsd|isc|zlib|unlicense|wtfpl|cc0-1\.0|cc0|pddl-1\.0|pddl|odc-by-1\.0|"
    r"odc-by|odbl-1\.0|odbl|cdla-permissive-[12]\.0|cdla-sharing-1\.0|cc-by(-sa)?(-[1-4]\.0)?"
)
FORBIDS_COMMERCE = re.compile(r"(^|[^a-z])nc($|[^a-z])|non-?commercial")
NOISE = {"the", "license", "licence", "licenses", "version", "later", "under"}
REMARK = re.compile(r"\(([^()]*)\)")
BY_DEFAULT = re.compile(r"[^,;()]*\([^()]*\bdefault\b[^()]*\)")  # a name, with the remark that a tool filled it in
WORDS = re.compile(r"[\s,;:]+")
PARTS = re.compile(r",|;|/|\+|&|\band\b|\bor\b")


@dataclass(frozen=True)
class Licence:
    """`names` are those in the text, as SPDX writes them where we know them; `restricted` those that are not open."""

    kind: str
    names: tuple[str, ...]
    restricted: tuple[str, ...] = ()

    def allowed(self, allow: Collection[str]) -> bool:
        """May data under it be given on, when the licences `allow` were said to be in order?"""
        if self.kind == OPEN or (self.kind == UNKNOWN and UNKNOWN in allow):
            return True
        allowed_names = {spdx(name) for name in allow}
        return bool(self.restricted) and set(self.restricted) <= allowed_names

    @property
    def flag(self) -> str:
        """What to add to the command line to let it in."""
        names = (UNKNOWN,) if self.kind == UNKNOWN else self.restricted
        return " ".join(f"--allow-licence {n}" for n in names)


def spdx(text: str) -> str:
    """One licence's name as SPDX writes it, in lower case: 'Apache License 2.0' is apache-2.0."""
    words = re.sub(r"[\s_-]+", " ", text.lower()).replace("creative commons attribution", "cc by").split()
    return "-".join(w for w in words if w not in NOISE)


def classify(text: str | None) -> Licence:
    """The meaning of a dataset's licence text.

    Remarks in brackets say where a statement was found; they can make a licence stricter, never more open. A permissive
    name that a tool filled in by default says nothing of the data: without another name the licence is unknown.

    Examples: "MIT" is open. "CC BY-NC 4.0" is non-commercial, and so is "MIT (videos: non-commercial)". "Apache-2.0
    (converter's default)" is unknown, and so is a text with a name that is in no list.
    """
    text = text or ""
    # A text may join several licences: the strictest of them counts
    names = _names(PARTS.split(REMARK.sub(" ", text)))
    if not names:
        return Licence(UNKNOWN, (UNKNOWN,))
    restricted = tuple(name for name in names if not PERMISSIVE.fullmatch(name))
    # a name that we do not know may mean anything, unless it says itself that it is for non-commercial use
    if restricted and not _non_commercial(restricted):
        return Licence(UNKNOWN, names, restricted)
    remarks = " ".join(REMARK.findall(text))
    reasons = (*restricted, *_non_commercial(_names(WORDS.split(remarks))))
    if reasons:
        return Licence(NON_COMMERCIAL, names, tuple(dict.fromkeys(reasons)))
    if not _names(PARTS.split(REMARK.sub(" ", BY_DEFAULT.sub(" ", text)))):
        return Licence(UNKNOWN, (UNKNOWN,))
    return Licence(OPEN, names)


def _names(parts: Iterable[str]) -> tuple[str, ...]:
    """Names of licences as SPDX writes them, without repeats and empty ones."""
    return tuple(dict.fromkeys(name for name in map(spdx, parts) if name))


def _non_commercial(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in names if FORBIDS_COMMERCE.search(name))


def hub_licence(stated: Sequence[str | None]) -> tuple[str, str | None]:
    """What the hub wants at the head of a card of such data: `license`, and the names where there are several."""
    licences = [classify(text) for text in stated]
    names = sorted({n for x in licences for n in x.names})
    if len(names) > 1:
        return "other", ", ".join(names)
    return (UNKNOWN if licences[0].kind == UNKNOWN else names[0]), None

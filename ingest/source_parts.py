"""What a source holds, part by part: what each part is used for, or why it is not used.

A reader records every column, array, topic, picture stream, file and text that it comes upon. What carries data and is
used for nothing is a finding, so that "No findings" means that all of it was understood.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ingest.episode import Finding, PartKind, SourcePart
from ingest.reasons import LIMITS


@dataclass
class PartCensus:
    """The parts of a dataset, as a reader comes upon them; each is kept once, with the number of its episodes.

    `most`: of different parts; `num_beyond`: how often others came after so many.
    """

    parts: dict[tuple[PartKind, str, str], SourcePart] = field(default_factory=dict)
    most: int = LIMITS.max_features
    num_beyond: int = 0

    def add(self, part: SourcePart) -> None:
        """Keep a part, or count it to the one that has its kind, name and use. Of an unknown one comes a finding."""
        key = (part.kind, part.name, f"{part.status} {part.use}")
        former_part = self.parts.get(key)
        if former_part is not None:
            shape = _common_shape(former_part.shape, part.shape)
            num_times = former_part.num_times + part.num_times
            self.parts[key] = replace(former_part, shape=shape, num_times=num_times)
        elif len(self.parts) < self.most:
            self.parts[key] = part
        else:
            self.num_beyond += part.num_times

    def listed(self) -> tuple[SourcePart, ...]:
        """All parts, by kind and name."""
        return tuple(self.parts[key] for key in sorted(self.parts))

    def findings(self) -> list[Finding]:
        """A finding for each part that is used for nothing, and one where there are more parts than the limit."""
        unknown = [part for part in self.listed() if part.status == "unknown"]
        findings = [
            Finding("part_not_used", part_text(part), "warning", file=part.file) for part in unknown
        ]
        if self.num_beyond:
            detail = (
                f"{self.num_beyond} parts are not in the list of what the source holds: it names {self.most:,} "
                "(limits.max_features of the registry entry)"
            )
            findings.append(Finding("over_limit", detail, "warning"))
        return findings


def joined(parts: Iterable[SourcePart]) -> tuple[SourcePart, ...]:
    """Parts in order, those of the same kind, name and use as one."""
    census = PartCensus(most=sys.maxsize)
    for part in parts:
        census.add(part)
    return census.listed()


def part_text(part: SourcePart) -> str:
    """A part and why it is not used, in a line. Example: "array obs/tactile (100 x 16 float32): no key is ..."."""
    form = part_form(part.shape, part.dtype)
    return f"{part.kind} {part.name}{f' ({form})' if form else ''}: {part.why}"


def part_form(shape: Sequence[int | None], dtype: str) -> str:
    """Shape and type in words. Example: part_form((None, 16), "float32") == "? x 16 float32"."""
    size = " x ".join("?" if n is None else str(n) for n in shape)
    return " ".join(filter(None, (size, dtype)))


def _common_shape(
    first: tuple[int | None, ...], second: tuple[int | None, ...]
) -> tuple[int | None, ...]:
    """The dimensions that two shapes share, None for those that differ; () for shapes of unlike rank."""
    if len(first) != len(second):
        return ()
    return tuple(a if a == b else None for a, b in zip(first, second, strict=True))

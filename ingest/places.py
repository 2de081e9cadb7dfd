"""Where datasets lie: in the folder itself, in folders below it, or above, by the names of files alone.

An adapter's `roots` names the folders where its layout begins. From there a dataset may reach up by the format's
`levels`, as one of several tasks does, as long as nothing else lies there.
"""

import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from ingest.formats import FORMATS, VIDEO, Format, format_named, formats_to_ask
from ingest.formats.adapter import adapter_of, recognises
from ingest.sources.files import Source

DESCRIPTIONS = (".json", ".jsonl", ".csv")  # beside videos: may say what they show
MAX_PART_LEVELS = 4  # of folders, from a part of a dataset up to it


@dataclass(frozen=True)
class DatasetPlace:
    """A dataset below a source; `folder` is "" for the source itself.

    `is_bare`: videos that nothing describes.
    """

    folder: str
    format: Format
    is_bare: bool = False


@dataclass(frozen=True)
class Places:
    """The datasets of a source by folder, and single files that lie beside them and are in none."""

    datasets: tuple[DatasetPlace, ...]
    beside: tuple[str, ...] = ()

    @property
    def is_one(self) -> bool:
        """Is the source itself the only dataset?"""
        return len(self.datasets) == 1 and not self.datasets[0].folder


class _Kind(NamedTuple):
    """What lies in a folder: a format, and what its files call the dataset."""

    format: Format
    name: str = ""


def places_of(source: Source) -> Places:
    """The datasets that a source holds; of the format that its entry names, where it names one. Raises SourceError."""
    stated = source.config.format
    formats = (format_named(stated),) if stated else FORMATS
    # Where a format needs no more than single files, a person who names it means the folder as a whole
    if stated and formats[0].levels is None:
        return Places((DatasetPlace("", formats[0]),) if recognises(formats[0], source) else ())
    kinds = _outermost(_kinds(source.files, formats))
    # A folder that is known by less than files, such as an empty meta/, counts where nothing else is there
    if all(kind.format.levels is None for kind in kinds.values()):
        for format_ in formats_to_ask(source.files, formats):
            if format_.levels is not None and recognises(format_, source):
                return Places((DatasetPlace("", format_),))
    return _places(source, _gathered(kinds))


def part_of(source: Source) -> str | None:
    """The folder of the dataset that a source is a part of, such as its videos/; None where it is a part of none."""
    address, scheme = PurePosixPath(source.config.source), source.config.is_remote
    # A single file is what somebody asked for
    if list(source.files) == [address.name]:
        return None
    parents = [*address.parents][: -3 if scheme else None]  # of an address not its scheme, host or owner
    formats = [format_ for format_ in FORMATS if format_.levels is not None]
    for above in parents[:MAX_PART_LEVELS]:
        inside = address.relative_to(above)
        if "" in _kinds((f"{inside}/{uri}" for uri in source.files), formats):
            return source.config.source.rstrip("/").removesuffix(f"/{inside}")
    return None


def _kinds(uris: Iterable[str], formats: Sequence[Format]) -> dict[str, _Kind]:
    """What lies where; of several formats in one folder the particular one counts before the general."""
    uris = list(uris)
    kinds: dict[str, _Kind] = {}
    for format_ in formats_to_ask(uris, formats):
        for folder, name in adapter_of(format_).roots(uris).items():
            kinds.setdefault(folder, _Kind(format_, name))
    return kinds


def _outermost(kinds: Mapping[str, _Kind]) -> dict[str, _Kind]:
    """Without what lies inside a dataset, such as the videos of one whose layout is known."""
    whole = {folder for folder, kind in kinds.items() if kind.format.levels is not None}
    return {folder: kind for folder, kind in kinds.items() if whole.isdisjoint(_above(folder))}


def _above(folder: str) -> Iterator[str]:
    """The folders that a folder lies in, innermost first; "" is the last. Those of "a/b" are "a" and ""."""
    while folder:
        folder = posixpath.dirname(folder)
        yield folder


def _gathered(kinds: Mapping[str, _Kind]) -> dict[str, Format]:
    """The format of each folder that is a dataset, after what belongs together was put together."""
    # What lies in a folder or anywhere below it
    below: dict[str, Counter[_Kind]] = defaultdict(Counter)
    for folder, kind in kinds.items():
        for above in (folder, *_above(folder)):
            below[above][kind] += 1

    datasets: dict[str, Format] = {}
    for folder, kind in kinds.items():
        datasets.setdefault(_reached(folder, kind, below), kind.format)
    # Single files that lie beside folders of datasets are no dataset
    holding = {above for folder, format_ in datasets.items() if format_.levels is not None for above in _above(folder)}
    for folder in holding & datasets.keys():
        del datasets[folder]
    # Videos below rows in single files belong to them
    return {folder: format_ for folder, format_ in datasets.items() if datasets.keys().isdisjoint(_above(folder))}


def _reached(folder: str, kind: _Kind, below: Mapping[str, Counter[_Kind]]) -> str:
    """The outermost folder that a dataset may begin in, as far as all that lies there is of its kind."""
    reached = folder
    for level, above in enumerate(_above(folder), 1):
        is_too_far = kind.format.levels is not None and level > kind.format.levels
        if is_too_far or not all(_belongs(other, kind) for other in below[above]):
            break
        # One configuration alone is the dataset; several are, together
        if not (kind.name and above and below[above].total() == below[folder].total()):
            reached = above
    return reached


def _belongs(other: _Kind, kind: _Kind) -> bool:
    """Does what lies in the same folder belong to a dataset of some kind? Videos do, to rows in single files."""
    return other == kind or (kind.format.levels is None and other.format == VIDEO)


def _places(source: Source, datasets: Mapping[str, Format]) -> Places:
    """With what the files beside the datasets are, where there are several."""
    inside: dict[str | None, list[str]] = defaultdict(list)
    for uri in source.files:
        owner = next((folder for folder in _above(uri) if folder in datasets), None)
        inside[owner].append(uri)
    places = []
    for folder, format_ in sorted(datasets.items()):
        is_described = any(uri.lower().endswith(DESCRIPTIONS) for uri in inside[folder])
        places.append(DatasetPlace(folder, format_, format_ == VIDEO and not is_described))
    return Places(tuple(places), tuple(filter(_is_data, inside[None])))


def _is_data(uri: str) -> bool:
    """Could it be an episode by itself?"""
    return any(adapter_of(format_).roots([uri]) for format_ in formats_to_ask([uri]) if format_.levels is None)

"""What the parts of an HDF5 episode are: state, action, times, texts and rate; and what each other part is, or why not
used.

The registry's keys count first, then the writer's convention (`writers`), then names (`tree_reader`).
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import h5py
import numpy as np

from ingest.episode import Picture, SourcePart
from ingest.formats import hdf5_file as h5
from ingest.formats.facts import (
    is_length_name,
    is_rate_name,
    rank_of,
    rate_of_simulation,
)
from ingest.formats.listing import ListingBuilder
from ingest.formats.row_pictures import form_of
from ingest.formats.side_files import parse_json
from ingest.formats.tables import MISSING_NAMES, known_values, rate_of
from ingest.formats.tree import Part, Roles, Uses, fields
from ingest.formats.tree import account as account_for
from ingest.formats.tree_reader import known_reason, roles_of, why_known
from ingest.formats.writers import HDF5_WRITERS, Writer, writer_of
from ingest.reasons import DataError, Limits
from ingest.registry import Keys
from ingest.sources.files import Source

TEXT_KEYS = ("language_instruction", "instruction", "task", "language")
OTHER_RATE = (
    "no number of frames per second, or a rate of other rows than the state's, the action's and the pictures', or "
    "beside the registry's"
)
MANY_ALIKE = 8  # datasets in one group whose names are numbers: they are one part

SPLITS = "mask"  # robomimic's group of them
COUNTS = ("num_", "n_", "total", "count", "max_")  # how numbers begin that count


@dataclass(frozen=True)
class EpisodePlace:
    """A tree (`tree.Tree`) of the arrays of an episode, or of several one after the other, and where
    it lies: the group `key` of a file that is open; `limits` and `keys` are those of its dataset.

    `container` has the group, and facts about all of the file's episodes, which `above` keeps once
    they were read; of a list with a value for each of the file's episodes it has the one at its
    place `among` them. `is_flat`: the rows of several episodes lie there one after the other. `convention`: that of the
    writer, where files beside it say whose it is.
    """

    uri: str
    key: str
    group: h5py.Group
    container: h5py.Group
    limits: Limits
    keys: Keys
    above: dict[str, Any] = field(default_factory=dict)
    among: h5.EpisodeSlice = h5.WHOLE_GROUP
    is_flat: bool = False
    convention: Writer | None = None

    @cached_property
    def members(self) -> h5.Members:
        return h5.members_of(self.group, self.limits)

    @property
    def datasets(self) -> dict[str, h5py.Dataset]:
        return self.members.datasets

    @cached_property
    def attributes_by_holder(self) -> dict[str, dict[str, Any]]:
        """Small attributes of the groups that say something of the episode, the nearest first, by how these are called
        here; above the episode, of a list for each episode its own.
        """
        groups = {"": self.group, **self.members.groups}
        attributes = {name: h5.attributes_of(group) for name, group in groups.items()}
        for group in (self.container, h5.root_of(self.group)):
            name = f"/{(group.name or '').strip('/')}"
            if group == self.group or name in attributes:
                continue
            if name not in self.above:
                self.above[name] = h5.attributes_of(group)
            stored = self.above[name].items()
            attributes[name] = {n: self.among.share(value) for n, value in stored}
        return attributes

    @cached_property
    def arrays(self) -> list[Part]:
        """Arrays of numbers with a row per frame, or one more or less: the number of rows that most arrays have; also
        those without any row, which show that something was not recorded.
        """
        # Of a flat file a list may have one value for each episode
        lengths = Counter(
            d.shape[0]
            for d in self.datasets.values()
            if d.shape and (len(d.shape) > 1 or (d.shape[0] > 1 and not self.is_flat))
        )
        num_rows = max(lengths, key=lambda n: (lengths[n], n), default=0)
        return [
            Part(path, shape=d.shape)
            for path, d in self.datasets.items()
            if h5.has_rows(d)
            and (abs(d.shape[0] - num_rows) <= 1 or (len(d.shape) > 1 and not d.shape[0]))
        ]

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Small attributes of the holders: of those of one name the nearest, by name."""
        attributes: dict[str, Any] = {}
        for of_holder in reversed(self.attributes_by_holder.values()):
            attributes.update(of_holder)
        return attributes

    @cached_property
    def env(self) -> dict[str, Any]:
        """What env_args says of the simulation."""
        return self.json("env_args")

    @cached_property
    def writer(self) -> Writer | None:
        paths = self.datasets.keys() | self.members.groups.keys()
        attributes = self.attributes.keys()
        return self.convention or writer_of(HDF5_WRITERS, paths, attributes, self.env)

    def facts(self, path: str) -> list[Any]:
        """What is stored at a path below the episode, then below its container; None for nothing."""
        is_near = path in self.datasets or path in self.attributes or "/" in path
        near = h5.value(self.group, path, self.limits) if is_near else None
        if path not in self.above:
            self.above[path] = h5.value(self.container, path, self.limits)
        return [near, self.among.share(self.above[path])]

    def parts(self) -> list[Part]:
        """The datasets of an episode; many of one group whose names are numbers have one title."""
        numbered = Counter(
            path.rpartition("/")[0] for path in self.datasets if _leaf(path).isdecimal()
        )
        parts = []
        for path, dataset in self.datasets.items():
            folder, _, leaf = path.rpartition("/")
            is_one_of_many = leaf.isdecimal() and numbered[folder] > MANY_ALIKE
            title = f"{folder}/*".lstrip("/") if is_one_of_many else path
            is_text = h5.is_text(dataset)
            shape = (0,) if dataset.shape is None else dataset.shape
            # A number for each row, such as a mask of rows that count, is no picture
            is_picture = (
                form_of(path, shape, "uint8") is not None
                or len(shape) == 3
                or (len(shape) == 1 and dataset.dtype.kind not in "biuf")
            )
            kind = "text" if is_text else "array"
            dtype = "text" if is_text else str(dataset.dtype)
            parts.append(Part(path, kind, shape, dtype, self.uri, title, is_picture))
        return parts

    def roles(self) -> Roles:
        """Those by names are among `arrays`. Raises DataError."""
        stored = self.datasets | h5.rows_in(self.group, (*self.keys.state, *self.keys.action))
        extra_parts = [Part(path, shape=d.shape) for path, d in stored.items() if h5.has_rows(d)]
        parts = self.arrays
        if self.writer and self.writer.leaves_empty:
            parts = [part for part in parts if 0 not in part.shape]
            extra_parts = [part for part in extra_parts if 0 not in part.shape]
        return roles_of(parts, self.keys, self.writer, extra_parts)

    def read(self, path: str, rows: slice) -> np.ndarray:
        """With NaN where a value stands for none. Raises DataError."""
        dataset = h5.find(self.group, path)
        return known_values(h5.values(dataset, self.limits)[rows], h5.attributes_of(dataset))

    def cameras(self) -> dict[str, str]:
        return h5.cameras_of(self.datasets, self.limits)

    def pictures(self, path: str, rows: slice) -> Iterator[Picture]:
        """LIBERO's are as OpenGL renders them, last row first, and its files say so (create_dataset.py in
        github.com/Lifelong-Robot-Learning/LIBERO, its issue 11). Turning them by 180 degrees, as often done, mirrors
        the scene (github.com/openvla/openvla/issues/295). Raises DataError.
        """
        dataset = h5.checked(self.datasets[path], self.limits)
        order = h5.texts(h5.value(self.container, "macros_image_convention", self.limits))
        rgb_mark = self.writer.rgb_mark if self.writer else b""
        form = h5.scale_of(path, dataset, self.limits)[0]
        places = range(len(dataset))[rows]
        if form is None:
            return h5.encoded_pictures(dataset, places, self.limits, rgb_mark)
        bottom_up = order == ("opengl",)
        return h5.pictures_of(dataset, form, places, self.limits, bottom_up=bottom_up)

    def json(self, path: str) -> dict[str, Any]:
        """The object that a text holds as JSON, below the episode or its container; {} for anything else."""
        for stored in self.facts(path):
            try:
                content = parse_json(next(iter(h5.texts(stored)), "{}"))
            except ValueError:
                continue
            if isinstance(content, dict) and content:
                return content
        return {}


@contextmanager
def opened_place(
    source: Source, uri: str, convention: Writer | None, key: str = "", *, is_flat: bool = False
) -> Iterator[EpisodePlace]:
    """The place of an episode in a file, found and checked anew: it may be another one than when it was listed. Raises
    DataError.
    """
    limits = source.config.limits
    with h5.opened(source, uri) as file:
        group = h5.find(file, key)
        if not isinstance(group, h5py.Group):
            detail = f"there is no group {key} any more: the file has changed since it was listed"
            raise DataError(f"{uri}: {detail}", "no_data")
        container = h5.find(file, key.rpartition("/")[0])
        scope = (uri, key, group, container, limits, source.config.keys)
        yield EpisodePlace(*scope, is_flat=is_flat, convention=convention)


def facts_named(
    place: EpisodePlace,
    holders: Mapping[str, Mapping[str, Any]],
    is_named: Callable[[str], bool],
    of_episode: Set[str],
    num_values: int = 1,
) -> dict[str, Any]:
    """Attributes of some holders, then small datasets, with so many values and names of one kind, by name or path, the
    nearest first.

    `of_episode`: paths of the state, the action and the pictures. What stands beside other rows, such
    as those of a sensor, is said of these, and is left out.
    """
    facts: dict[str, Any] = {}
    for folder, attributes in holders.items():
        names = [n for n, v in attributes.items() if is_named(n) and np.size(v) == num_values]
        if names and not _is_of_others(place, folder, of_episode):
            facts |= {name: attributes[name] for name in names if name not in facts}
    for path, dataset in sorted(place.datasets.items(), key=lambda item: item[0].count("/")):
        is_fact = dataset.size == num_values and is_named(_leaf(path))
        if is_fact and not _is_of_others(place, path.rpartition("/")[0], of_episode):
            facts[path] = h5.value(place.group, path, place.limits)
    return facts


def _is_of_others(place: EpisodePlace, folder: str, of_episode: Set[str]) -> bool:
    """Does a group below the episode hold rows, and none of what is read of the episode?"""
    inner = {path: d for path, d in place.datasets.items() if path.startswith(f"{folder}/")}
    return of_episode.isdisjoint(inner) and any((d.shape or (1,))[0] > 1 for d in inner.values())


def stated_rates(place: EpisodePlace, of_episode: Set[str]) -> dict[str, float]:
    """Frame rates that the file states, by what states them, the nearest first; `of_episode` as for `facts_named`."""
    simulated = next(filter(None, map(rate_of, rate_of_simulation(place.env))), None)
    facts = facts_named(place, place.attributes_by_holder, is_rate_name, of_episode)
    rates = {name: rate_of(fact) for name, fact in ({"env_args": simulated} | facts).items()}
    return {name: rate for name, rate in rates.items() if rate}


def stated_lengths(
    place: EpisodePlace, of_episode: Set[str], rows: h5.EpisodeSlice
) -> dict[str, Any]:
    """How many rows an episode's group says that it has, by what says it; `of_episode` as for `facts_named`.

    Of a flat file a list has one value for each episode; a single number is that of all together.
    """
    below = {n: found for n, found in place.attributes_by_holder.items() if not n.startswith("/")}
    facts = facts_named(place, below, is_length_name, of_episode, rows.num_episodes)
    return {name: rows.share(stored) for name, stored in facts.items()}


def texts_of(
    place: EpisodePlace, cameras: Collection[str], rows: h5.EpisodeSlice
) -> dict[str, tuple[str, ...]]:
    """Texts of the episode, by path or name: those of its small datasets, then attributes, the nearest first.

    `cameras`: paths of datasets with pictures, whose bytes are no text.
    """
    texts: dict[str, tuple[str, ...]] = {}
    for path, dataset in place.datasets.items():
        if path in cameras:
            continue
        may_be_utf8 = dataset.dtype == np.uint8 and len(dataset.shape or ()) == 1
        may_be_text = h5.is_text(dataset) or (rank_of(path) is not None and may_be_utf8)
        if may_be_text and (stored_texts := h5.texts_at(place.group, path, place.limits, rows)):
            texts[path] = stored_texts
    attributes = {name: h5.texts(stored) for name, stored in place.attributes.items()}
    return texts | {
        name: stored_texts
        for name, stored_texts in attributes.items()
        if stored_texts and name not in texts
    }


def _leaf(path: str) -> str:
    return path.rpartition("/")[2]


# Which part is what


def account(
    listing: ListingBuilder,
    place: EpisodePlace,
    uses: Uses,
    unread: Mapping[str, str],
    problems: Mapping[str, str],
) -> None:
    """Record every dataset and attribute of an episode as used, known or unknown.

    All by path or attribute. `uses`: what a part is used for, and what shows it. `unread`: why a
    part is not read; a finding says it already, or the registry's choice leaves it out. `problems`:
    why a part is not used that could be.
    """
    census = listing.parts
    parts = place.parts()
    nothing = "no name of a state, an action, a camera, a text or an attribute that is known"
    why_attribute_known = partial(why_fact_known, place)
    account_for(
        census,
        parts,
        uses,
        lambda part: unread.get(part.path) or why_known(part, place.writer),
        nothing,
        problems,
    )
    for part in parts:
        names = h5.attributes_of(place.datasets[part.path])
        own_attributes = fields(f"attribute {part.title}/", names, file=place.uri)
        of_one = "it is said of one array, and is not read"
        account_for(census, own_attributes, {}, why_attribute_known, of_one)
    for path, first in place.members.links.items():
        census.add(SourcePart("array", path, "known", "", f"the same as {first}", file=place.uri))
    attributes = fields("attribute ", place.attributes, file=place.uri)
    account_for(census, attributes, uses, why_attribute_known, nothing, problems)


def why_fact_known(place: EpisodePlace, part: Part) -> str:
    """Why a text or an attribute is left out on purpose, by its name; "" for no reason."""
    name = part.path
    if reason := why_known(part, place.writer):
        return reason
    if name in MISSING_NAMES:
        return "the number that stands for no value"
    stored = place.attributes.get(name)
    if stored is not None and not np.size(stored):
        return "it holds no values"
    is_text = stored is None or h5.texts(stored)
    is_count = not is_text and name.lower().startswith(COUNTS)
    return "counts" if is_count or is_length_name(name) else ""


def account_beside(
    listing: ListingBuilder, uri: str, file: h5py.File, keys: Sequence[str], limits: Limits
) -> None:
    """Record what a file holds beside its episodes."""
    if keys == [""]:
        return
    parts = [
        Part(
            path,
            shape=dataset.shape or (),
            dtype=str(dataset.dtype),
            file=uri,
            title=SPLITS if path.startswith(f"{SPLITS}/") else path,
        )
        for path, dataset in h5.walk(file, [], limits, without={*keys})
    ]
    texts = [part.path for part in parts if _leaf(part.path) in TEXT_KEYS and part.title != SPLITS]
    uses = dict.fromkeys(texts, ("instruction", "its name says so"))

    def why_left_out(part: Part) -> str:
        if part.title == SPLITS:
            return "robomimic's own splits: splits are drawn anew"
        # A list of lengths that is compared with nothing is not passed over
        return known_reason("" if is_length_name(_leaf(part.path)) else part.path)

    nothing = "it lies beside the episodes, and is read for none"
    account_for(listing.parts, parts, uses, why_left_out, nothing)

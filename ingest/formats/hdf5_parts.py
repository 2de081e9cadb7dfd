"""What the parts of an HDF5 episode are: state, action, times, texts and rate; and what each other part is, or why not
used.

The registry's keys count first, then the writer's convention (`hdf5_writers`), then names (`array_roles`).
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import h5py
import numpy as np

from ingest.formats import hdf5_file as h5
from ingest.formats.array_pictures import form_of, other_kind
from ingest.formats.array_roles import (
    ArrayForm,
    action_by_name,
    column_names,
    is_bookkeeping_text,
    known_reason,
    state_by_name,
)
from ingest.formats.hdf5_writers import Writer, known_by, rate_of_simulation, writer_of
from ingest.formats.listing import ListingBuilder
from ingest.formats.row_times import first_rate, is_rate_name, is_time_name, is_time_shape
from ingest.formats.side_files import parse_json
from ingest.formats.text_fields import instructions, rank_of
from ingest.outcomes import SUCCESS_FIELDS
from ingest.reasons import DataError, Limits
from ingest.registry import DatasetConfig
from ingest.sources.types import folders_above

TIME_KEYS = ("timestamp", "timestamps", "time", "observations/timestamp")
TEXT_KEYS = ("language_instruction", "instruction", "task", "language")
LENGTHS = ("num_samples", "num_steps", "length")
REGISTERED = "the registry entry names it"
MANY_ALIKE = 8  # datasets in one group whose names are numbers: they are one part
MAX_ATTRIBUTES = 64  # of one group
SHOWN_SPLITS = "robomimic's own splits: splits are drawn anew"


@dataclass(frozen=True)
class EpisodePlace:
    """Where an episode lies: the group `key` of a file that is open; `limits` are those of its dataset.

    `container` has the group, and facts about all of the file's episodes, which `above` keeps once they were read.
    """

    uri: str
    key: str
    group: h5py.Group
    container: h5py.Group
    limits: Limits
    above: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def members(self) -> h5.Members:
        return h5.members_of(self.group, self.limits)

    @property
    def datasets(self) -> dict[str, h5py.Dataset]:
        return self.members.datasets

    @cached_property
    def holders(self) -> dict[str, h5py.Group]:
        """Groups whose attributes say something of the episode, the nearest first, by how they are called here."""
        near: dict[str, h5py.Group] = {"": self.group, **self.members.groups}
        above = {
            f"/{(holder.name or '').strip('/')}": holder
            for holder in (self.container, h5.root_of(self.group))
        }
        return near | {name: holder for name, holder in above.items() if holder != self.group}

    def _attributes_of(self, name: str, holder: h5py.Group) -> dict[str, Any]:
        if not name.startswith("/"):
            return h5.attributes_of(holder, MAX_ATTRIBUTES)
        if name not in self.above:
            self.above[name] = h5.attributes_of(holder, MAX_ATTRIBUTES)
        return self.above[name]

    @cached_property
    def arrays(self) -> list[ArrayForm]:
        return arrays_of(self.datasets)

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Small attributes of the holders: of those of one name the nearest, by name."""
        attributes: dict[str, Any] = {}
        for place, holder in self.holders.items():
            for name, stored in self._attributes_of(place, holder).items():
                attributes.setdefault(name, stored)
        return attributes

    @cached_property
    def env(self) -> dict[str, Any]:
        """What env_args says of the simulation."""
        return self.json("env_args")

    @cached_property
    def writer(self) -> Writer | None:
        def has_path(path: str) -> bool:
            return path in self.datasets or path in self.members.groups

        return writer_of(has_path, frozenset(self.attributes), self.env)

    def values(self, path: str) -> list[Any]:
        """What is stored at a path below the episode, then below its container; None for nothing."""
        is_near = path in self.datasets or path in self.attributes or "/" in path
        near = h5.value(self.group, path, self.limits) if is_near else None
        if path not in self.above:
            self.above[path] = h5.value(self.container, path, self.limits)
        return [near, self.above[path]]

    def json(self, path: str) -> dict[str, Any]:
        """The object that a text holds as JSON, below the episode or its container; {} for anything else."""
        for stored in self.values(path):
            try:
                content = parse_json(next(iter(h5.texts(stored)), "{}"))
            except ValueError:
                continue
            if isinstance(content, dict) and content:
                return content
        return {}


type Parts = dict[str, h5py.Dataset]


class DatasetRoles(NamedTuple):
    """Which arrays are the state, the action and the times, and what shows it."""

    state: Parts
    action: Parts
    times: str | None
    state_why: str
    action_why: str
    writer: Writer | None

    def names(self, column: str) -> list[str]:
        """A name for each dimension of state or action, with the writer's names of grippers."""
        parts = self.state if column == "state" else self.action
        widths = {path: _width(dataset) for path, dataset in parts.items()}
        names = list(chain.from_iterable(column_names(widths)))
        if self.writer:
            layouts = self.writer.state if column == "state" else self.writer.action
        else:
            layouts = ()
        if self.writer and any({*parts} <= {*layout} for layout in layouts):
            by_width = self.writer.grippers
        else:
            by_width = {}
        places = by_width.get((column, len(names)), {})
        return [places.get(k, name) for k, name in enumerate(names)]


def _width(dataset: h5py.Dataset) -> int:
    return int(np.prod((dataset.shape or ())[1:], dtype=int))


def roles_of(place: EpisodePlace, config: DatasetConfig) -> DatasetRoles:
    """By the registry, else by the writer's convention, else by names. Raises DataError."""
    writer = place.writer
    arrays = [array for array in place.arrays if not known_by(writer, array.path)]
    state, state_why = _registered(place, config.keys.state)
    action, action_why = _registered(place, config.keys.action)
    if not state:
        state, state_why = _written(place, writer, writer.state if writer else ())
    if not state:
        vector = state_by_name(arrays)
        state = _of_one_length({path: place.datasets[path] for path in vector.paths})
        state_why = vector.why
    if not action:
        action, action_why = _written(place, writer, writer.action if writer else ())
    if not action:
        vector = action_by_name([array for array in arrays if array.path not in state])
        action = _of_one_length({path: place.datasets[path] for path in vector.paths})
        action_why = vector.why
    num_rows = next((part.shape[0] for part in (*state.values(), *action.values())), None)
    return DatasetRoles(
        state, action, _times(place.datasets, num_rows), state_why, action_why, writer
    )


def _registered(place: EpisodePlace, paths: Sequence[str]) -> tuple[Parts, str]:
    """The registry's vectors, all of which have to be there. Raises DataError."""
    parts = h5.rows_in(place.group, paths)
    if missing := [path for path in paths if path not in parts]:
        raise DataError(f"{place.group.name} has no rows of numbers at {missing[0]}", "no_data")
    return parts, REGISTERED


def _written(
    place: EpisodePlace, writer: Writer | None, layouts: Sequence[Sequence[str]]
) -> tuple[Parts, str]:
    """What there is of the writer's layout that has the most parts here; of equal ones the one that is whole."""
    all_paths = chain.from_iterable(layouts)
    present_paths = {path for path in all_paths if h5.has_rows(place.datasets.get(path))}
    chosen = max(
        layouts,
        key=lambda layout: (len(present_paths & {*layout}), present_paths.issuperset(layout)),
        default=(),
    )
    return {
        p: place.datasets[p] for p in chosen if p in present_paths
    }, f"{writer.name} keeps it there" if writer else ""


def arrays_of(datasets: Mapping[str, h5py.Dataset]) -> list[ArrayForm]:
    """Arrays of numbers with a row per frame, or one more or less: the number of rows that most arrays have; also
    those without any row, which show that something was not recorded.
    """
    lengths = Counter(
        d.shape[0] for d in datasets.values() if d.shape and (len(d.shape) > 1 or d.shape[0] > 1)
    )
    num_rows = max(lengths, key=lambda n: (lengths[n], n), default=0)
    return [
        ArrayForm(path, d.shape, d.dtype.kind)
        for path, d in datasets.items()
        if h5.has_rows(d)
        and (abs(d.shape[0] - num_rows) <= 1 or (len(d.shape) > 1 and not d.shape[0]))
    ]


def _of_one_length(parts: Parts) -> Parts:
    """Those parts that have as many rows as the first: vectors that belong side by side."""
    first = next((part.shape[0] for part in parts.values()), None)
    return {path: part for path, part in parts.items() if part.shape[0] == first}


def _times(datasets: Mapping[str, h5py.Dataset], num_rows: int | None) -> str | None:
    """The path of the rows' times: at the usual places, else the shortest whose name says so."""
    time_paths = [path for path in datasets if is_time_name(path.rpartition("/")[2])]
    places = [*TIME_KEYS, *sorted(time_paths, key=lambda path: (path.count("/"), path))]
    for path in places:
        dataset = datasets.get(path)
        if (
            dataset is not None
            and h5.has_rows(dataset)
            and is_time_shape(dataset.shape or (), num_rows)
        ):
            return path
    return None


def stated_rates(place: EpisodePlace) -> dict[str, float]:
    """Frame rates that the file states, by what states them, the nearest first."""
    rates: dict[str, float] = {}
    if rate := first_rate(rate_of_simulation(place.env)):
        rates["env_args"] = rate
    for name, stored in place.attributes.items():
        if is_rate_name(name) and (rate := first_rate([stored])):
            rates[name] = rate
    for path, dataset in place.datasets.items():
        is_single = dataset.shape is not None and np.prod(dataset.shape) == 1
        if is_single and is_rate_name(_leaf(path)):
            stored = h5.value(place.group, path, place.limits)
        else:
            stored = None
        if rate := first_rate([stored]):
            rates[path] = rate
    return rates


def texts_of(place: EpisodePlace, cameras: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Texts of the episode, by path or name: those of its small datasets, then attributes, the nearest first.

    `cameras`: paths of datasets with pictures, whose bytes are no text.
    """
    texts: dict[str, tuple[str, ...]] = {}
    for path, dataset in place.datasets.items():
        if path in cameras:
            continue
        may_be_text = h5.is_text(dataset) or (rank_of(path) is not None and _holds_utf8(dataset))
        if may_be_text and (stored_texts := h5.texts_at(place.group, path, place.limits)):
            texts[path] = stored_texts
    attributes = {name: h5.texts(stored) for name, stored in place.attributes.items()}
    return texts | {
        name: stored_texts
        for name, stored_texts in attributes.items()
        if stored_texts and name not in texts
    }


def _leaf(path: str) -> str:
    return path.rpartition("/")[2]


def _holds_utf8(dataset: h5py.Dataset) -> bool:
    return dataset.dtype == np.uint8 and len(dataset.shape or ()) == 1


def instruction_by_name(texts: Mapping[str, tuple[str, ...]]) -> tuple[str, tuple[str, ...]]:
    """The text whose name says that it is the instruction, and what is in it."""
    return instructions(
        {name: stored_texts for name, stored_texts in texts.items() if name != "env_args"}
    )


# Which part is what


class Uses(NamedTuple):
    """What parts of an episode are used for, and what shows it, by path or attribute."""

    by_path: dict[str, tuple[str, str]]
    unread: dict[
        str, str
    ]  # what a finding says already, and what the registry's choice leaves out, by path
    problems: dict[str, str]  # why a part that could be one is not used


def account(
    listing: ListingBuilder, place: EpisodePlace, writer: Writer | None, uses: Uses
) -> None:
    """Record every dataset and attribute of an episode as used, known or unknown."""
    parts = listing.parts
    numbered = Counter(
        path.rpartition("/")[0] for path in place.datasets if path.rpartition("/")[2].isdecimal()
    )
    for path, dataset in place.datasets.items():
        folder, _, leaf = path.rpartition("/")
        if leaf.isdecimal() and numbered[folder] > MANY_ALIKE:
            name = f"{folder}/*".lstrip("/")
        else:
            name = path
        is_text = h5.is_text(dataset)
        form = {
            "shape": dataset.shape or (),
            "dtype": "text" if is_text else str(dataset.dtype),
            "file": place.uri,
        }
        if path in uses.by_path:
            use, reason = uses.by_path[path]
            parts.used(
                "camera" if use == "camera" else "text" if is_text else "array",
                name,
                use,
                reason,
                **form,
            )
        elif reason := uses.unread.get(path) or _known(writer, path, dataset):
            parts.known("array", name, reason, **form)
        else:
            reason = uses.problems.get(
                path, "no name of a state, an action, a camera or a text that is known"
            )
            parts.unknown("text" if is_text else "array", name, reason, **form)
    for path, first in place.members.links.items():
        parts.known("array", path, f"the same as {first}", file=place.uri)
    for name, stored in place.attributes.items():
        _account_attribute(listing, place.uri, writer, uses, name, stored)


def _known(writer: Writer | None, path: str, dataset: h5py.Dataset) -> str:
    """Why a dataset is left out on purpose; "" for no reason."""
    if reason := known_by(writer, path) or known_reason(path):
        return reason
    if not dataset.shape and h5.is_text(dataset) and is_bookkeeping_text(_leaf(path)):
        return "says where it is from"
    if dataset.shape is None or 0 in dataset.shape:
        return "it holds no values"
    holds_pictures = form_of(path, dataset.shape, "uint8") is not None or len(dataset.shape) in (
        1,
        3,
    )
    if holds_pictures and other_kind(path):
        return f"pictures of {other_kind(path)}"
    return ""


def _account_attribute(
    listing: ListingBuilder, uri: str, writer: Writer | None, uses: Uses, name: str, stored: Any
) -> None:
    title = f"attribute {name}"
    is_text = bool(h5.texts(stored))
    if name in uses.by_path:
        listing.parts.used("text" if is_text else "array", title, *uses.by_path[name], file=uri)
    elif reason := why_known(writer, name, is_text=is_text):
        listing.parts.known("text", title, reason, file=uri)
    elif is_text or np.size(stored):
        reason = uses.problems.get(name, "no name of an attribute that is known")
        listing.parts.unknown("text" if is_text else "array", title, reason, file=uri)


def why_known(writer: Writer | None, name: str, *, is_text: bool = True) -> str:
    """Why a text or an attribute is left out on purpose, by its name; "" for no reason."""
    if reason := known_by(writer, name) or known_reason(name):
        return reason
    if is_bookkeeping_text(name):
        return "says where it is from"
    is_count = not is_text and name.lower().startswith(("num_", "n_", "total", "count", "max_"))
    if is_count or name in LENGTHS:
        return "counts"
    return ""


def account_beside(
    listing: ListingBuilder, uri: str, file: h5py.File, keys: Sequence[str], limits: Limits
) -> None:
    """Record what a file holds beside its episodes."""
    if keys == [""]:
        return
    for path, dataset in _beside(file, keys, limits):
        form = {"shape": dataset.shape or (), "dtype": str(dataset.dtype), "file": uri}
        if path.startswith("mask/"):
            listing.parts.known("text", "mask", SHOWN_SPLITS, file=uri)
        elif reason := known_reason(path):
            listing.parts.known("array", path, reason, **form)
        else:
            listing.parts.unknown(
                "array", path, "it lies beside the episodes, and is read for none", **form
            )


def _beside(
    file: h5py.File, keys: Sequence[str], limits: Limits
) -> Iterator[tuple[str, h5py.Dataset]]:
    """Datasets that lie in no episode's group."""
    episodes = set(keys)
    above = set(chain.from_iterable(map(folders_above, keys)))
    for container in sorted(above):
        for name in h5.members(h5.find(file, container)):
            path = f"{container}/{name}".strip("/")
            if path in episodes or path in above:
                continue
            try:
                member = h5.find(file, path)
            except DataError:
                continue  # a link to another file is named where its episode is
            if isinstance(member, h5py.Dataset):
                yield path, member
            elif isinstance(member, h5py.Group):
                yield from ((f"{path}/{below}", d) for below, d in h5.walk(member, [], limits))


def outcome_names(place: EpisodePlace) -> list[str]:
    """Paths that end in a usual name of success, and lie deeper than one expects it."""
    return [
        path for path in place.datasets if "/" in path and path.rpartition("/")[2] in SUCCESS_FIELDS
    ]

"""What the parts of an HDF5 episode are: state, action, times, texts and rate; and what each other part is, or why not
used.

The registry's keys count first, then the writer's convention (`hdf5_writers`), then names (`array_roles`).
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from math import prod
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np

from ingest.formats import hdf5_file as h5
from ingest.formats.array_pictures import form_of, other_kind
from ingest.formats.array_roles import (
    ArrayForm,
    Vector,
    action_by_name,
    chosen,
    column_names,
    is_bookkeeping_text,
    known_reason,
    state_by_name,
)
from ingest.formats.hdf5_writers import Writer, known_by, rate_of_simulation, writer_of
from ingest.formats.listing import ListingBuilder, account_for
from ingest.formats.row_times import (
    first_rate,
    is_length_name,
    is_rate_name,
    is_time_name,
    is_time_shape,
)
from ingest.formats.side_files import parse_json
from ingest.formats.tables import MISSING_NAMES
from ingest.formats.text_fields import rank_of
from ingest.reasons import DataError, Limits
from ingest.registry import DatasetConfig
from ingest.sources.types import folders_above

TIME_KEYS = ("timestamp", "timestamps", "time", "observations/timestamp")
TEXT_KEYS = ("language_instruction", "instruction", "task", "language")
OTHER_RATE = (
    "no number of frames per second, or a rate of other rows than the state's, the action's and the pictures', or "
    "beside the registry's"
)
MANY_ALIKE = 8  # datasets in one group whose names are numbers: they are one part

SHOWN_SPLITS = "robomimic's own splits: splits are drawn anew"


@dataclass(frozen=True)
class EpisodePlace:
    """Where an episode lies: the group `key` of a file that is open; `limits` are those of its dataset.

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
            return h5.attributes_of(holder)
        if name not in self.above:
            self.above[name] = h5.attributes_of(holder)
        return {n: self.among.share(stored) for n, stored in self.above[name].items()}

    @cached_property
    def attributes_by_holder(self) -> dict[str, dict[str, Any]]:
        """Small attributes of each of the holders, by name; above the episode, of a list for each episode its own."""
        return {name: self._attributes_of(name, holder) for name, holder in self.holders.items()}

    @cached_property
    def arrays(self) -> list[ArrayForm]:
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
            ArrayForm(path, d.shape, d.dtype.kind)
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
        return self.convention or writer_of(paths, self.attributes.keys(), self.env)

    def values(self, path: str) -> list[Any]:
        """What is stored at a path below the episode, then below its container; None for nothing."""
        is_near = path in self.datasets or path in self.attributes or "/" in path
        near = h5.value(self.group, path, self.limits) if is_near else None
        if path not in self.above:
            self.above[path] = h5.value(self.container, path, self.limits)
        return [near, self.among.share(self.above[path])]

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


def names_of(parts: Parts, writer: Writer | None, column: Literal["state", "action"]) -> list[str]:
    """A name for each dimension of state or action, with the writer's names of grippers."""
    widths = {path: prod((part.shape or ())[1:]) for path, part in parts.items()}
    names = list(chain.from_iterable(column_names(widths)))
    if writer is None or not any({*parts} <= {*layout} for layout in writer.layouts(column)):
        return names
    gripper_names = writer.grippers.get((column, len(names)), {})
    return [gripper_names.get(k, name) for k, name in enumerate(names)]


def roles_of(place: EpisodePlace, config: DatasetConfig) -> DatasetRoles:
    """By the registry, else by the writer's convention, else by names. Raises DataError."""
    arrays = [array for array in place.arrays if not known_by(place.writer, array.path)]
    state, state_why = _vector(place, config.keys.state, "state", state_by_name(arrays))
    remaining = [array for array in arrays if array.path not in state]
    action, action_why = _vector(place, config.keys.action, "action", action_by_name(remaining))
    num_rows = next((part.shape[0] for part in (*state.values(), *action.values())), None)
    return DatasetRoles(state, action, _times(place.datasets, num_rows), state_why, action_why)


def _vector(
    place: EpisodePlace,
    registered: Sequence[str],
    column: Literal["state", "action"],
    by_name: Vector,
) -> tuple[Parts, str]:
    """The arrays that are state or action, and what shows it: the registry's, all of which have to be there, else the
    writer's, else `by_name`. Raises DataError.
    """
    parts = h5.rows_in(place.group, registered)
    if missing := [path for path in registered if path not in parts]:
        raise DataError(f"{place.group.name} has no rows of numbers at {missing[0]}", "no_data")
    parts |= place.datasets
    layouts = []
    if writer := place.writer:
        written = tuple(_written(place.datasets, writer.layouts(column)))
        layouts = [Vector(written, f"{writer.name} keeps it there")]
    paths, reason = chosen(registered, layouts, by_name, parts)
    of_paths = {path: parts[path] for path in paths}
    return (_of_one_length(of_paths) if reason == by_name.why else of_paths), reason


def _written(datasets: Mapping[str, h5py.Dataset], layouts: Sequence[Sequence[str]]) -> Parts:
    """What there is of the writer's layout that has the most parts here; of equal ones the one that is whole."""
    all_paths = chain.from_iterable(layouts)
    present_paths = {path for path in all_paths if h5.has_rows(datasets.get(path))}
    chosen = max(
        layouts,
        key=lambda layout: (len(present_paths & {*layout}), present_paths.issuperset(layout)),
        default=(),
    )
    return {path: datasets[path] for path in chosen if path in present_paths}


def _of_one_length(parts: Parts) -> Parts:
    """Those parts that have as many rows as the first: vectors that belong side by side."""
    first = next((part.shape[0] for part in parts.values()), None)
    return {path: part for path, part in parts.items() if part.shape[0] == first}


def _times(datasets: Mapping[str, h5py.Dataset], num_rows: int | None) -> str | None:
    """The path of the rows' times: at the usual places, else the shortest whose name says so."""
    time_paths = [path for path in datasets if is_time_name(path.rpartition("/")[2])]
    places = [*TIME_KEYS, *sorted(time_paths, key=lambda path: (path.count("/"), path))]
    with_rows = (path for path in places if h5.has_rows(datasets.get(path)))
    return next((p for p in with_rows if is_time_shape(datasets[p].shape or (), num_rows)), None)


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
    simulated = {"env_args": first_rate(rate_of_simulation(place.env))}
    facts = simulated | facts_named(place, place.attributes_by_holder, is_rate_name, of_episode)
    return {name: rate for name, fact in facts.items() if (rate := first_rate([fact]))}


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
    uses: Mapping[str, tuple[str, str]],
    unread: Mapping[str, str],
    problems: Mapping[str, str],
) -> None:
    """Record every dataset and attribute of an episode as used, known or unknown.

    All by path or attribute. `uses`: what a part is used for, and what shows it. `unread`: why a
    part is not read; a finding says it already, or the registry's choice leaves it out. `problems`:
    why a part is not used that could be.
    """
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
        kind = "text" if is_text else "array"
        if path in uses:
            use, reason = uses[path]
            parts.used("camera" if use == "camera" else kind, name, use, reason, **form)
        elif reason := unread.get(path) or _known(place.writer, path, dataset):
            parts.known("array", name, reason, **form)
        else:
            nothing = "no name of a state, an action, a camera or a text that is known"
            parts.unknown(kind, name, problems.get(path, nothing), **form)
        for attribute in h5.attributes_of(dataset):
            account_for(
                parts,
                "text",
                f"attribute {name}/{attribute}",
                None,
                why_known(place.writer, attribute),
                "it is said of one array, and is not read",
                file=place.uri,
            )
    for path, first in place.members.links.items():
        parts.known("array", path, f"the same as {first}", file=place.uri)
    _account_for_attributes(listing, place, uses, problems)


def _known(writer: Writer | None, path: str, dataset: h5py.Dataset) -> str:
    """Why a dataset is left out on purpose; "" for no reason."""
    if reason := known_by(writer, path) or known_reason(path):
        return reason
    if not dataset.shape and h5.is_text(dataset) and is_bookkeeping_text(_leaf(path)):
        return "says where it is from"
    if dataset.shape is None or 0 in dataset.shape:
        return "it holds no values"
    # A number for each row, such as a mask of rows that count, is no picture
    holds_pictures = (
        form_of(path, dataset.shape, "uint8") is not None
        or len(dataset.shape) == 3
        or (len(dataset.shape) == 1 and dataset.dtype.kind not in "biuf")
    )
    if holds_pictures and other_kind(path):
        return f"pictures of {other_kind(path)}"
    return ""


def _account_for_attributes(
    listing: ListingBuilder,
    place: EpisodePlace,
    uses: Mapping[str, tuple[str, str]],
    problems: Mapping[str, str],
) -> None:
    for name, stored in place.attributes.items():
        title = f"attribute {name}"
        is_text = bool(h5.texts(stored))
        kind = "text" if is_text else "array"
        if name in uses:
            listing.parts.used(kind, title, *uses[name], file=place.uri)
        elif reason := why_known(place.writer, name, is_text=is_text):
            listing.parts.known("text", title, reason, file=place.uri)
        elif is_text or np.size(stored):
            nothing = "no name of an attribute that is known"
            listing.parts.unknown(kind, title, problems.get(name, nothing), file=place.uri)


def why_known(writer: Writer | None, name: str, *, is_text: bool = True) -> str:
    """Why a text or an attribute is left out on purpose, by its name; "" for no reason."""
    if reason := known_by(writer, name) or known_reason(name):
        return reason
    if is_bookkeeping_text(name):
        return "says where it is from"
    if name in MISSING_NAMES:
        return "the number that stands for no value"
    is_count = not is_text and name.lower().startswith(("num_", "n_", "total", "count", "max_"))
    if is_count or is_length_name(name):
        return "counts"
    return ""


def account_beside(
    listing: ListingBuilder, uri: str, file: h5py.File, keys: Sequence[str], limits: Limits
) -> None:
    """Record what a file holds beside its episodes."""
    if keys == [""]:
        return
    for path, dataset in _beside(file, keys, limits):
        form: dict[str, Any] = {
            "shape": dataset.shape or (),
            "dtype": str(dataset.dtype),
            "file": uri,
        }
        if path.startswith("mask/"):
            listing.parts.known("text", "mask", SHOWN_SPLITS, file=uri)
        else:
            use = ("instruction", "its name says so") if _leaf(path) in TEXT_KEYS else None
            why_unknown = "it lies beside the episodes, and is read for none"
            # A list of lengths that is compared with nothing is not passed over
            reason = known_reason("" if is_length_name(_leaf(path)) else path)
            account_for(listing.parts, "array", path, use, reason, why_unknown, **form)


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

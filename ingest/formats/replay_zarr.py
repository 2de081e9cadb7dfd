"""Adapter for Zarr replay buffers, as UMI and Diffusion Policy write them: all episodes' rows one after another.

Arrays of `data` have a row per frame; `meta/episode_ends` says at which row each episode ends.
Arrays of pictures are cameras. State and action are looked for by the names that UMI and Diffusion
Policy give them, by others that say so, or where the registry's `keys` say. A dataset may hold
several stores of Zarr 2, each a folder or a ZIP file.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ingest.episode import CameraVideo, EpisodeData, EpisodeRecord, Listing, Picture, SourcePart
from ingest.formats.facts import (
    instruction,
    instructions,
    is_length_name,
    is_rate_name,
    length_problem,
    rate_of_rows,
)
from ingest.formats.listing import (
    BY_NAME,
    ROWS_BEYOND,
    TASK_KEYS,
    ListingBuilder,
    in_order,
    named,
    texts_among,
    usual_uses,
)
from ingest.formats.row_pictures import PictureForm, form_of, other_kind, picture_of, scaled
from ingest.formats.tables import rate_of
from ingest.formats.tree import Part, Roles, account, fields
from ingest.formats.tree_reader import read_tree, roles_of, stored_times, why_known
from ingest.formats.writers import ZARR_WRITER
from ingest.formats.zarr_store import ENDS, ZIP_SUFFIX, Store, opened
from ingest.reasons import DataError, guarded
from ingest.registry import DatasetConfig
from ingest.sources.files import Source
from ingest.sources.types import SourceError

IN_FOLDER = re.compile(rf"(?:(.+)/)?{ENDS}/(?:0|c/0)")
CANNOT_BE_READ = "it cannot be read: a finding says why"


def roots(uris: Iterable[str]) -> dict[str, str]:
    """The folder above the stores; of a store whose folder is not named as one, that folder."""
    stores = {}
    for uri in _stores(uris):
        store_match = IN_FOLDER.fullmatch(uri)
        store = uri if store_match is None else store_match[1] or ""
        is_named = store_match is None or store.endswith(".zarr")
        stores[posixpath.dirname(store) if is_named else store] = ""
    return stores


def _stores(uris: Iterable[str]) -> list[str]:
    """A uri for each store: that of its ZIP file, or of the first chunk of where its episodes end."""
    return sorted(uri for uri in uris if uri.endswith(ZIP_SUFFIX) or IN_FOLDER.fullmatch(uri))


class StoreTree:
    """A tree (`tree.Tree`) of the arrays of a store's rows, of which its episodes have `num_rows`. `problems` (reason,
    what, array) of those that cannot be used; `no_pictures`: why some are no cameras.
    """

    def __init__(self, store: Store, config: DatasetConfig, num_rows: int) -> None:
        self.store = store
        self.config = config
        self.num_rows = num_rows
        self.problems: list[tuple[str, str, str]] = []
        self.no_pictures: dict[str, str] = {}

    @cached_property
    def arrays(self) -> dict[str, Any]:
        """Arrays of numbers with a row for each frame, by name; of others why not."""
        arrays: dict[str, Any] = {}
        for name in self.store.arrays("data"):
            try:
                if (array := self.store.array(f"data/{name}")) is None:
                    continue
                chunk_bytes = prod(array.chunks) * array.dtype.itemsize
                limits = self.config.limits
                limits.check("max_chunk_bytes", chunk_bytes, f"{name}: bytes of a chunk")
            except DataError as e:
                self.problems.append((e.reason, str(e), name))
                continue
            if array.shape[0] < self.num_rows:
                detail = f"data/{name} has {array.shape[0]} rows, and the episodes end at {self.num_rows}"
                self.problems.append(("length_differs", f"{detail}: it is not used", name))
            else:
                arrays[name] = array
        return arrays

    @cached_property
    def forms(self) -> dict[str, PictureForm]:
        """How the pictures of cameras lie, by their arrays' descriptions, and a few rows of floating-point pictures."""
        forms: dict[str, PictureForm] = {}
        for name, array in self.arrays.items():
            form = None if other_kind(name) else form_of(name, array.shape, array.dtype)
            if form is None or not self.num_rows:
                continue
            try:
                whole, problem = scaled(form, self.num_rows, partial(self._row, name))
            except DataError as e:
                self.no_pictures[name] = str(e)
                continue
            if whole is None:
                self.no_pictures[name] = problem
            else:
                forms[name] = whole
        return forms

    def _row(self, path: str, k: int) -> np.ndarray:
        return self.read(path, slice(k, k + 1))[0]

    def parts(self) -> list[Part]:
        parts: list[Part] = []
        for name in self.store.arrays("data"):
            array = self.arrays.get(name)
            shape = () if array is None else (None, *array.shape[1:])
            dtype = "" if array is None else str(array.dtype)
            is_large = array is None or array.ndim >= 3
            parts.append(Part(name, "array", shape, dtype, None, f"data/{name}", is_large))
        return parts

    def roles(self) -> Roles:
        """Finds what the registry names, and has no row of numbers for each frame."""
        vectors = [
            Part(name, shape=(self.num_rows, *array.shape[1:]))
            for name, array in self.arrays.items()
            if name not in self.forms and array.ndim <= 3
        ]
        keys = self.config.keys
        missing = {*keys.state, *keys.action}.difference(part.path for part in vectors)
        for name in sorted(missing):
            detail = f"no array data/{name} with a row of numbers for each frame"
            self.problems.append(("no_data", detail, name))
        return roles_of(vectors, keys, ZARR_WRITER, num_rows=self.num_rows)

    def cameras(self) -> dict[str, str]:
        return {name: name for name in self.forms}

    def read(self, path: str, rows: slice) -> np.ndarray:
        return _rows(self.arrays[path], rows.start, rows.stop, self.config)

    def pictures(self, path: str, rows: slice) -> Iterator[Picture]:
        """A chunk of several pictures is unpacked once."""
        size = self.arrays[path].chunks[0]
        for row in range(rows.start - rows.start % size, rows.stop, size):
            first = max(row, rows.start)
            stored = self.read(path, slice(first, min(row + size, rows.stop)))
            for k, picture in enumerate(stored, first - rows.start):
                yield picture_of(picture, self.forms[path], f"picture {k} of data/{path}")


def _ends(store: Store, config: DatasetConfig) -> np.ndarray:
    """Where each episode ends, int64 [k]. Raises DataError."""
    array = store.array(ENDS)
    if array is None or array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(
            f"{store.name or 'the store'} has no row of numbers at {ENDS}", "bad_episode_ends"
        )
    config.limits.check("max_rows", array.shape[0], f"{ENDS}: episodes")
    ends = _rows(array, 0, array.shape[0], config).astype(np.int64)
    if len(ends) and (ends[0] <= 0 or (np.diff(ends) <= 0).any()):
        raise DataError(
            f"{ENDS} does not rise: {named([str(e) for e in ends])}", "bad_episode_ends"
        )
    return ends


def _rows(array: Any, start: int, stop: int, config: DatasetConfig) -> np.ndarray:
    """Rows [start, stop), of the array's type. Raises DataError."""
    chunk_bytes = prod(array.chunks) * array.dtype.itemsize
    config.limits.check("max_chunk_bytes", chunk_bytes, f"{array.path}: bytes of a chunk")
    config.limits.check(
        "max_values", (stop - start) * prod(array.shape[1:]), f"{array.path}: values"
    )
    with guarded(array.path):
        return np.asarray(array[start:stop])


# Listing


def list_episodes(source: Source) -> Listing:
    listing = ListingBuilder(source)
    for uri in _stores(source.files):
        try:
            with opened(source, uri) as store:
                _add_store(listing, uri, store)
        except (DataError, SourceError) as e:
            listing.add_lost(e, uri, uri)
            folder = uri.rpartition(f"{ENDS}/")[0]
            if folder:
                listing.parts.add(
                    SourcePart(
                        "file",
                        f"{folder}*",
                        "known",
                        "",
                        "of a store that cannot be read: see its finding",
                    )
                )
    return listing.listing(
        "zarr",
        in_order(listing.cameras_in_use(), source.config.cameras),
        nothing="no store holds an episode",
    )


class PerEpisode(NamedTuple):
    """Arrays of `meta` with a value for each episode; which are instructions; why others are not read, by name."""

    count: int
    values: dict[str, list[Any]]
    tasks: tuple[str, ...]
    problems: dict[str, str]


def _add_store(listing: ListingBuilder, uri: str, store: Store) -> None:
    """Raises DataError."""
    config = listing.source.config
    ends = _ends(store, config)
    tree = StoreTree(store, config, int(ends[-1]) if len(ends) else 0)
    roles = tree.roles()
    for reason, detail, name in tree.problems:
        listing.warn(reason, detail, camera=name, file=uri)
    facts = _facts(listing, uri, store)
    per_episode = _per_episode(store, len(ends), config)
    rates = {
        name: rate
        for name, value in facts.items()
        if is_rate_name(name) and (rate := rate_of(value))
    }
    stated_rate = next(iter(rates.values()), None)
    array_titles = named([f"data/{n}" for n in store.arrays("data")]) or "nothing"
    _report_missing_chunks(listing, uri, tree)
    _account(listing, uri, tree, roles)
    _account_meta(listing, uri, per_episode, ends, tree)
    task_from: list[str] = []
    label = store.name or posixpath.basename(str(listing.source.path))
    for k, (start, stop) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
        of_episode = {n: v[k] for n, v in per_episode.values.items()}
        task_from, tasks = _instruction(listing, uri, facts, per_episode, k)
        for name in filter(is_length_name, of_episode):
            if problem := length_problem(f"meta/{name}", of_episode[name], (stop - start,)):
                listing.warn_next("length_differs", problem, uri)
        if not tree.forms:
            listing.unusable_next(
                "no_video",
                f"no array of colour pictures that is read; it holds {array_titles}",
                uri,
            )
        if problem := config.limits.excess(
            "max_rows", stop - start, f"{label}: rows of episode {k}"
        ):
            listing.unusable_next("over_limit", problem, uri)
        listing.add(
            f"{label}#{k}",
            listing.fps(
                stated_rate
                or config.fps
                or rate_of_rows(
                    listing,
                    uri,
                    stored_times(tree, roles, slice(start, stop)),
                    {},
                )
            ),
            tasks=tasks,
            num_rows=stop - start,
            data_uri=uri,
            data_key=str(k),
            row_start=start,
            videos=[
                CameraVideo(camera, uri, start) for camera in in_order(tree.forms, config.cameras)
            ],
            facts=of_episode,
            group=listing.group(of_episode | facts),
            files=_picture_uris(uri, tree, start, stop),
            no_task=f"the store has no instruction among its attributes ({TASK_KEYS[0]}), nor in meta",
        )
    uses = {
        **dict.fromkeys(task_from, ("instruction", BY_NAME)),
        **dict.fromkeys(rates, ("rate", BY_NAME)),
        **usual_uses(config),
    }
    attributes = fields("attribute ", facts, file=uri)
    account(listing.parts, attributes, uses, why_known, "no name of an attribute that is known")


def _instruction(
    listing: ListingBuilder, uri: str, facts: Mapping[str, Any], per_episode: PerEpisode, k: int
) -> tuple[list[str], tuple[str, ...]]:
    """Of episode k; of an attribute that lists a value for each episode, it has its own."""
    count = per_episode.count
    texts = {
        name: texts_among(
            value[k : k + 1] if isinstance(value, list) and len(value) == count else [value]
        )
        for name, value in facts.items()
    }
    values = {name: texts_among([value[k]]) for name, value in per_episode.values.items()}
    places = (*per_episode.tasks, *TASK_KEYS)
    texts_at = (texts | values).get
    return instruction(listing, uri, places, texts_at, lambda: texts, lambda place: False)


def _facts(listing: ListingBuilder, uri: str, store: Store) -> dict[str, Any]:
    """Attributes of the store and its two groups, the store's first; finds those that cannot be read."""
    facts = dict(store.group.attrs)
    for name in ("meta", "data"):
        try:
            with guarded(f"attributes of {name}"):
                inner = store.group.get(name)
                facts = {**dict(inner.attrs), **facts} if inner is not None else facts
        except DataError as e:
            listing.warn(e.reason, f"{e}; the arrays are used without them", file=uri)
    return facts


def _per_episode(store: Store, count: int, config: DatasetConfig) -> PerEpisode:
    values: dict[str, list[Any]] = {}
    texts: dict[str, tuple[str, ...]] = {}
    problems: dict[str, str] = {}
    for name in store.arrays("meta"):
        path = f"meta/{name}"
        if path == ENDS:
            continue
        try:
            array = store.array(path)
            if array is not None and array.shape in ((count,), (count, 1)):
                values[name] = _rows(array, 0, count, config).reshape(-1).tolist()
            elif (
                array is None
                and (stored_texts := store.texts(path)) is not None
                and len(stored_texts) == count
            ):
                values[name], texts[name] = stored_texts, tuple(stored_texts)
            else:
                problems[name] = "it has no value for each episode"
        except DataError as e:
            problems[name] = str(e)
    keys = config.keys.language or (instructions(texts)[0],)
    return PerEpisode(count, values, tuple(name for name in keys if name in texts), problems)


def _report_missing_chunks(listing: ListingBuilder, uri: str, tree: StoreTree) -> None:
    """What cameras have not stored is read as the fill value: zarr >= 3 stores no black picture; a copy may lack it."""
    for name in tree.forms:
        array = tree.arrays[name]
        count = prod(-(-size // step) for size, step in zip(array.shape, array.chunks, strict=True))
        keys = [key for key in tree.store.keys if key.startswith(f"data/{name}/")]
        num_stored = sum(not posixpath.basename(key).startswith(".") for key in keys)
        if (missing := count - num_stored) > 0:
            detail = (
                f"{missing} of {count} chunks of data/{name} are not stored, and count as the fill value "
                f"{array.fill_value}: zarr stores no chunk of black pictures; an incomplete copy looks the same"
            )
            listing.warn("missing_chunks", detail, camera=name, file=uri)


def _account(listing: ListingBuilder, uri: str, tree: StoreTree, roles: Roles) -> None:
    """Record each array of a store's rows as used, known or unknown."""
    unread = dict.fromkeys((name for *_, name in tree.problems), CANNOT_BE_READ)
    reasons = {**roles.overruled, **unread}
    nothing = (
        "no name of a state, an action or a camera that is known, or no description of numbers"
    )
    account(
        listing.parts,
        [part._replace(file=uri) for part in tree.parts()],
        {**roles.uses, **dict.fromkeys(tree.forms, ("camera", "it holds pictures"))},
        lambda part: reasons.get(part.path) or why_known(part),
        nothing,
        tree.no_pictures,
    )


def _account_meta(
    listing: ListingBuilder, uri: str, per_episode: PerEpisode, ends: np.ndarray, tree: StoreTree
) -> None:
    """As _account, of the arrays beside the rows; finds rows behind the last episode's end."""
    parts = listing.parts
    config = listing.source.config
    parts.add(SourcePart("array", ENDS, "used", "length", "it says where episodes end", file=uri))
    num_stored = min((array.shape[0] for array in tree.arrays.values()), default=0)
    if len(ends) and ends[-1] < num_stored:
        listing.warn(
            "bad_episode_ends", ROWS_BEYOND.format(num_stored - ends[-1], ends[-1]), file=uri
        )
    possible_uses = {
        **usual_uses(config),
        **dict.fromkeys(per_episode.tasks, ("instruction", BY_NAME)),
        **dict.fromkeys(filter(is_length_name, per_episode.values), ("length", BY_NAME)),
    }
    uses = {name: use for name, use in possible_uses.items() if name in per_episode.values}
    arrays = [
        Part(name, "array", (len(values),), "", uri, f"meta/{name}")
        for name, values in per_episode.values.items()
    ]
    arrays += fields("meta/", per_episode.problems, "array", uri)
    account(parts, arrays, uses, why_known, "no name that is known", per_episode.problems)


def _picture_uris(uri: str, tree: StoreTree, start: int, stop: int) -> list[str]:
    """Files with an episode's pictures, of a store that is a folder; their sizes show that it has changed."""
    if uri.endswith(ZIP_SUFFIX):
        return []
    uris = []
    for name in tree.forms:
        array = tree.arrays[name]
        rows = array.chunks[0]
        separator = array.metadata.dimension_separator
        inner = ["0"] * (array.ndim - 1)
        places = (separator.join([str(k), *inner]) for k in range(start // rows, -(-stop // rows)))
        uris += [posixpath.join(tree.store.name, "data", name, place) for place in places]
    return uris


# Reading


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """Rows of one episode, and its frames as they are asked for. Raises DataError."""
    rows = slice(record.row_start, record.row_start + (record.num_rows or 0))
    return read_tree(record, partial(_opened, source, record, rows), rows)


@contextmanager
def _opened(source: Source, record: EpisodeRecord, rows: slice) -> Iterator[StoreTree]:
    """The store of an episode. Raises DataError where that is not the one that the corpus knows: it was replaced."""
    with opened(source, record.data_uri or "") as store:
        ends = _ends(store, source.config)
        k = int(record.data_key)
        if k >= len(ends) or (ends[k - 1] if k else 0, ends[k]) != (rows.start, rows.stop):
            raise DataError(f"episode {k} is no more rows {rows.start} to {rows.stop}")
        yield StoreTree(store, source.config, int(ends[-1]))

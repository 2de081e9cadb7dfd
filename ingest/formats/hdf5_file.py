"""HDF5 files that are not trusted: no other file is opened through them, and sizes are known before anything is read.

Links and external storage are the ways in which an HDF5 file names other files: `find` and `walk`
follow hard links, and soft links link by link; `checked` refuses data that is stored elsewhere, or
not at all.
"""

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, NamedTuple

import h5py
import numpy as np

from ingest.episode import EpisodeRecord, Picture
from ingest.formats.listing import ListingBuilder, camera_name, scene_first, texts_among
from ingest.formats.row_pictures import (
    PictureForm,
    form_of,
    natural,
    other_kind,
    picture_of,
    scaled,
)
from ingest.formats.tree import ALL_ROWS
from ingest.media.picture import (
    PICTURE_MARKS,
    ArrayPicture,
    array_picture,
    check_size,
    decode_picture,
    picture_size,
    swapped,
)
from ingest.outcomes import (
    SUCCESS_FIELDS,
    OutcomeEvidence,
    evidence_of,
    known,
)
from ingest.reasons import DataError, Limits, guarded
from ingest.sources.files import Source

SUFFIXES = (".hdf5", ".h5", ".hdf")
MAX_VALUE_BYTES = 1 << 20  # a larger value is no fact about an episode
MAX_TEXTS = 1000
MAX_ATTRIBUTES = 64  # of one group
MAX_DEPTH = 8
MAX_HOPS = 16
# Those that HDF5 and h5py bring along (deflate, shuffle, Fletcher32, szip, n-bit, scale-offset, LZF): no plug-ins
FILTERS = frozenset((1, 2, 3, 4, 5, 6, 32000))
H5_ERRORS = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    OverflowError,
    AttributeError,
    MemoryError,
)
# Folders, and last parts of a path, that say no more than that there are pictures
FOLDERS = (
    "obs",
    "observation",
    "observations",
    "images",
    "rgb_images",
    "image",
    "cameras",
    "cam_data",
    "vision",
)
JPEG = b"\xff\xd8\xff"
HEAD_BYTES = 4096
LAST_PARTS = ("rgb", "color", "colors", "image", "images")
NO_CAMERA = re.compile(r"(^|/)next_obs/", re.I)  # robomimic: the same pictures again, one row later
REWARD_KEYS = ("rewards", "reward")
MAX_NAMED = 8  # datasets in a message
ROWS = "rows-"  # in the name of an episode that is some rows of a flat file


@dataclass(frozen=True)
class EpisodeSlice:
    """Which rows of a group are an episode's, which is number `number` of the `num_episodes` of its file. Those of a
    flat file have `num_rows` rows together; the others 0, as each has a group of its own.
    """

    rows: slice = ALL_ROWS
    number: int = 0
    num_episodes: int = 1
    num_rows: int = 0

    def share(self, stored: Any) -> Any:
        """What a stored value says of the episode: one of an array with a value for each episode, the episode's rows of
        an array with a value for each row. Anything else is said of all episodes.
        """
        if not self.is_array(stored):
            return stored
        if len(stored) == self.num_episodes:
            return stored[self.number]
        if len(stored) >= self.num_rows:
            return stored[self.rows]
        return stored

    def problem(self, stored: Any) -> str:
        """Why an array says nothing of the episode; "" for nothing amiss."""
        if (
            self.is_array(stored)
            and len(stored) != self.num_episodes
            and len(stored) < self.num_rows
        ):
            return (
                f"it holds {len(stored)} values, neither one for each of {self.num_episodes} episodes nor for each of "
                f"{self.num_rows} rows"
            )
        return ""

    def is_array(self, stored: Any) -> bool:
        """Has it several values, in a file of several episodes?"""
        return self.num_episodes > 1 and isinstance(stored, np.ndarray) and stored.size > 1


WHOLE_GROUP = EpisodeSlice()


@contextmanager
def opened(source: Source, uri: str) -> Iterator[h5py.File]:
    """The file, for reading. Raises DataError, also for what HDF5 raises inside the block."""
    with guarded(uri, H5_ERRORS), source.open(uri) as data:
        place = data if isinstance(data, io.BytesIO) else data.name  # a member of a tar has no path
        # So that a chunk of many pictures is unpacked once
        cache_bytes = source.config.limits.max_chunk_bytes
        with h5py.File(
            place, "r", rdcc_nbytes=cache_bytes, **({} if place is data else {"locking": False})
        ) as file:
            yield file


# Finding


def root_of(place: h5py.Group | h5py.Dataset) -> h5py.Group:
    """The group that all of a file lies in."""
    return h5py.Group(h5py.h5g.open(place.file.id, b"/"))


def find(start: h5py.Group, path: str) -> Any:
    """The group or dataset at a path below `start`, or None. Raises DataError for what leads out of the file."""
    node = start
    # A stack: a soft link puts its own path on it
    remaining = path.split("/")[::-1]
    hops = 0
    while remaining:
        if (name := remaining.pop()) in ("", "."):
            continue
        # A path that ends early, or leads through a dataset, leads to nothing
        if not isinstance(node, h5py.Group) or not node.id.links.exists(
            name.encode("utf-8", "surrogateescape")
        ):
            return None
        link = node.get(name, getlink=True)
        if isinstance(link, h5py.HardLink):
            node = node[name]
            continue
        if not isinstance(link, h5py.SoftLink):
            raise DataError(f"{path} is a link to another file; not followed", "path_escape")
        # Links may lead round in a circle
        if (hops := hops + 1) > MAX_HOPS:
            raise DataError(f"{path}: too many links")
        # The link's path counts from the file's root, or from the group that the link lies in
        node = node.file if link.path.startswith("/") else node
        remaining += link.path.split("/")[::-1]
    return node


def members(group: h5py.Group) -> list[str]:
    """Names of what a group holds, as numbers count. Raises DataError for names that are no text."""
    names = [str(name) for name in group]
    if wrong := next((name for name in names if not name.isprintable() or name == "."), None):
        raise DataError(f"{group.name} holds a name that is not text: {wrong!r}")
    return sorted(names, key=natural)


def walk(
    start: h5py.Group,
    escapes: list[str],
    limits: Limits,
    inner: dict[str, h5py.Group] | None = None,
    without: Set[str] = frozenset(),
) -> Iterator[tuple[str, h5py.Dataset]]:
    """(path, dataset) of everything below a group, a bounded number of it, `without` what lies at some paths; `escapes`
    gathers links to other files, `inner` the groups that are come upon.
    """
    # A stack of the groups that are still to be looked into
    groups = [("", start)]
    num_seen = 0
    while groups:
        below, group = groups.pop()
        for path in (below + name for name in members(group) if below + name not in without):
            # Groups can hold one another, so that only a limit is sure to end the walk
            num_seen += 1
            limits.check("max_features", num_seen, f"{start.name}: objects, at least")
            try:
                member = find(start, path)
            except DataError as e:
                if e.reason != "path_escape":
                    raise
                escapes.append(path)
                continue
            if isinstance(member, h5py.Dataset):
                yield path, member
            elif isinstance(member, h5py.Group) and path.count("/") < MAX_DEPTH:
                groups.append((path + "/", member))
                if inner is not None:
                    inner[path] = member


class Members(NamedTuple):
    """What lies below a group: datasets by path, groups, links to what is there already, and links to other files."""

    datasets: dict[str, h5py.Dataset]
    groups: dict[str, h5py.Group]
    links: dict[str, str]
    escapes: list[str]


def members_of(start: h5py.Group, limits: Limits) -> Members:
    """All that lies below a group, each dataset once: by its own path rather than by a link's. Raises DataError."""
    escapes: list[str] = []
    groups: dict[str, h5py.Group] = {}
    places: dict[h5py.Dataset, str] = {}  # two ways to one dataset are equal
    links: dict[str, str] = {}
    datasets = dict(walk(start, escapes, limits, groups))
    below = f"{(start.name or '').rstrip('/')}/"
    for path in sorted(datasets, key=lambda path: datasets[path].name != below + path):
        if (first := places.setdefault(datasets[path], path)) != path:
            links[path] = first
    # The parts of a virtual dataset are its pictures or rows, and no others
    for path, dataset in datasets.items():
        if dataset.is_virtual and path not in links:
            # Its parts are what it shows already; none where they lie in other files
            with suppress(DataError):
                parts = [f"/{p.lstrip('/')}".removeprefix(below) for p in virtual_parts(dataset)]
                links |= {p: path for p in parts if p in datasets and p != path}
    return Members(
        {path: d for path, d in datasets.items() if path not in links}, groups, links, escapes
    )


# Reading


def checked(dataset: h5py.Dataset, limits: Limits) -> h5py.Dataset:
    """The dataset itself, when it is stored whole, in this file and readably. Raises DataError."""
    name = dataset.name
    shape = dataset.shape
    chunks = dataset.chunks
    if dataset.external:
        raise DataError(f"{name} is stored in another file; not followed", "path_escape")
    if dataset.is_virtual:
        _check_virtual(dataset, limits)
        return dataset
    # A plug-in is code of somebody else's
    properties = dataset.id.get_create_plist()
    if unknown := sorted(
        {properties.get_filter(i)[0] for i in range(properties.get_nfilters())} - FILTERS
    ):
        raise DataError(f"{name} is stored with filter {unknown[0]}, which needs a plug-in")
    # What has no values needs no storage
    if not shape or 0 in shape:
        return dataset
    # HDF5 would give zeros, which look like data, for what was never stored
    if chunks is None and dataset.id.get_storage_size() < prod(shape) * dataset.dtype.itemsize:
        raise DataError(f"{name} was never written")
    if chunks is not None:
        limits.check(
            "max_chunk_bytes", prod(chunks) * dataset.dtype.itemsize, f"{name}: bytes of a chunk"
        )
        _check_chunks(dataset, shape, chunks)
    return dataset


def virtual_parts(dataset: h5py.Dataset) -> list[str]:
    """Absolute paths of the datasets of the same file that a virtual one is put together of. Raises DataError."""
    sources = dataset.virtual_sources()
    if any(source.file_name not in (".", dataset.file.filename) for source in sources):
        raise DataError(f"{dataset.name} is stored in another file; not followed", "path_escape")
    return [source.dset_name for source in sources]


def _check_virtual(dataset: h5py.Dataset, limits: Limits) -> None:
    """Are all parts of a virtual dataset there, in this file, stored whole, and do they fill it? Raises DataError."""
    for path in virtual_parts(dataset):
        part = find(root_of(dataset), path)
        if not isinstance(part, h5py.Dataset) or part.is_virtual:
            raise DataError(f"{dataset.name}: its part {path} is no stored array")
        checked(part, limits)
    filled = sum(source.vspace.get_select_npoints() for source in dataset.virtual_sources())
    if filled < prod(dataset.shape or ()):
        raise DataError(
            f"{dataset.name}: its parts fill {filled} of its {prod(dataset.shape or ())} values"
        )


def _check_chunks(dataset: h5py.Dataset, shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    """Are all there, and none larger than what it unpacks to? Raises DataError."""
    sizes: list[int] = []
    if dataset.id.get_num_chunks():
        dataset.id.chunk_iter(lambda info: sizes.append(info.size))
    count = prod(map(ceil, np.divide(shape, chunks)))
    chunk_bytes = prod(chunks) * dataset.dtype.itemsize
    if len(sizes) < count:
        raise DataError(
            f"{dataset.name}: {count - len(sizes)} of its {count} chunks were never written"
        )
    # No filter makes data so much longer: it unpacks to more
    if max(sizes) > chunk_bytes + chunk_bytes // 8 + 4096:
        raise DataError(f"{dataset.name} has a chunk of {max(sizes)} bytes where {chunk_bytes} fit")


def values(dataset: h5py.Dataset, limits: Limits) -> np.ndarray:
    """Numbers [n, ...]. Raises DataError."""
    if dataset.dtype.kind not in "fiub" or not dataset.shape:
        raise DataError(f"{dataset.name} holds no rows of numbers: {dataset.dtype} {dataset.shape}")
    limits.check("max_values", prod(dataset.shape), f"{dataset.name}: values")
    return checked(dataset, limits)[()]


def has_rows(dataset: Any) -> bool:
    """Does a dataset hold rows of numbers?"""
    return (
        isinstance(dataset, h5py.Dataset) and bool(dataset.shape) and dataset.dtype.kind in "fiub"
    )


def rows_in(group: h5py.Group, paths: Iterable[str]) -> dict[str, h5py.Dataset]:
    """Those of some paths where there are rows of numbers."""
    datasets = {path: find(group, path) for path in paths}
    return {path: dataset for path, dataset in datasets.items() if has_rows(dataset)}


def length_of(parts: dict[str, h5py.Dataset], limits: Limits) -> int | None:
    """Rows of vectors that belong side by side; None for none. Raises DataError when they differ."""
    rows = {path: part.shape[0] for path, part in parts.items()}
    if len(set(rows.values())) > 1:
        raise DataError(f"vectors of one episode differ in length: {rows}")
    for part in parts.values():
        checked(part, limits)
    return next(iter(rows.values()), None)


def value(place: h5py.Group, path: str, limits: Limits) -> Any:
    """What a small dataset or an attribute below a group holds, or None. Raises DataError.

    An attribute is `path/name` of the group or dataset at `path`.
    """
    # A large value is no fact about an episode, and is not read
    stored = find(place, path)
    if isinstance(stored, h5py.Dataset):
        if not _is_small(stored.shape, stored.dtype):
            return None
        return checked(stored, limits)[()]
    # No dataset lies there: the last part may be an attribute's name
    holder_path, _, name = path.rpartition("/")
    holder = find(place, holder_path)
    if holder is None or name not in holder.attrs:
        return None
    attribute = holder.attrs.get_id(name)
    if _is_small(attribute.shape, attribute.dtype):
        return holder.attrs[name]
    return None


def lacks_value(place: h5py.Group, path: str) -> bool:
    """Was an attribute stored without a value, as h5py.Empty is?"""
    holder_path, _, name = path.rpartition("/")
    holder = find(place, holder_path)
    return holder is not None and name in holder.attrs and holder.attrs.get_id(name).shape is None


def attributes_of(holder: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """Small attributes of a group or dataset, at most MAX_ATTRIBUTES, by name."""
    if not h5py.h5a.get_num_attrs(holder.id):
        return {}
    attributes: dict[str, Any] = {}
    for name in list(holder.attrs)[:MAX_ATTRIBUTES]:
        attribute = holder.attrs.get_id(name)
        if _is_small(attribute.shape, attribute.dtype):
            attributes[str(name)] = holder.attrs[name]
    return attributes


def is_text(dataset: h5py.Dataset) -> bool:
    return dataset.dtype.kind in "SU" or bool(h5py.check_string_dtype(dataset.dtype))


def texts_at(
    group: h5py.Group, path: str, limits: Limits, rows: EpisodeSlice = WHOLE_GROUP
) -> tuple[str, ...]:
    """An episode's texts in a small dataset; numbers from 0 to 255 are the bytes of one. () where it cannot be read."""
    try:
        stored = value(group, path, limits)
    except (DataError, *H5_ERRORS):
        return ()
    if isinstance(stored, np.ndarray) and stored.dtype == np.uint8:
        decoded = texts(stored.tobytes().rstrip(b"\0"))
        return tuple(text for text in decoded if text.isprintable() and "\ufffd" not in text)
    return texts(rows.share(stored))


def _is_small(shape: tuple[int, ...] | None, dtype: np.dtype) -> bool:
    """May a value be a fact about an episode? One without a shape has no value."""
    if shape is None:
        return False
    is_short = dtype.kind != "O" or prod(shape) <= MAX_TEXTS
    return is_short and prod(shape) * dtype.itemsize <= MAX_VALUE_BYTES


def texts(stored: Any) -> tuple[str, ...]:
    """The texts that a value holds, without quotation marks and spaces around them."""
    flat = stored.ravel().tolist() if isinstance(stored, np.ndarray) else [stored]
    decoded = [
        text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in flat
    ]
    whole = [
        text.encode("utf-8", "replace").decode().strip().strip('"')
        for text in decoded
        if isinstance(text, str)
    ]
    return texts_among(whole)


# Pictures


def cameras_of(datasets: Mapping[str, h5py.Dataset], limits: Limits) -> dict[str, str]:
    """Paths of datasets with colour pictures, by camera name; names that two would have are whole paths."""
    paths = [path for path, dataset in datasets.items() if is_pictures(path, dataset, limits)]
    names = {path: camera_name(path, LAST_PARTS, FOLDERS) for path in paths}
    uses = Counter(names.values())
    return {path if uses[name] > 1 else name: path for path, name in names.items()}


def is_pictures(path: str, dataset: h5py.Dataset, limits: Limits) -> bool:
    """Does it hold colour pictures: an array of one per row, or an encoded one per row?"""
    shape = dataset.shape
    dtype = dataset.dtype
    if not shape or not shape[0] or NO_CAMERA.search(path) or other_kind(path):
        return False
    if form_of(path, shape, dtype):
        return scale_of(path, dataset, limits)[0] is not None
    if not _holds_bytes(shape, dtype):
        return False
    # Does the first, middle or last row begin like a picture's file?
    try:
        rows = {0, shape[0] // 2, shape[0] - 1}
        return any(
            encoded(checked(dataset, limits), k, limits).startswith(PICTURE_MARKS) for k in rows
        )
    except (DataError, *H5_ERRORS):
        # It is called so: what is wrong with it shows when it is read
        return "image" in path or "rgb" in path


def scale_of(path: str, dataset: h5py.Dataset, limits: Limits) -> tuple[PictureForm | None, str]:
    """How the pictures of an array lie; None and why not where it holds none that are read."""
    shape: tuple[int, ...] = dataset.shape or ()
    form = form_of(path, shape, dataset.dtype)
    if form is None or not form.is_float:
        return form, ""
    try:
        limits.check("max_pixels", prod(shape[1:]), f"{dataset.name}: values of one row", 4)
        return scaled(form, len(dataset), checked(dataset, limits).__getitem__)
    except (DataError, *H5_ERRORS) as e:
        return None, str(e)


def _holds_bytes(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Bytes of a file for each row?"""
    if len(shape) == 2:
        return dtype == np.uint8 and shape[1] >= 64
    variable = h5py.check_vlen_dtype(dtype) or h5py.check_string_dtype(dtype)
    return len(shape) == 1 and (bool(variable) or (dtype.kind == "V" and dtype.names is None))


def encoded(dataset: h5py.Dataset, k: int, limits: Limits) -> bytes:
    """Row k of encoded pictures; padding is left on. Raises DataError."""
    row_bytes = dataset.dtype.itemsize * prod(dataset.shape[1:])
    limits.check("max_chunk_bytes", row_bytes, f"{dataset.name}: bytes of a row")
    row = dataset[k]
    if isinstance(row, np.ndarray | np.generic):
        return row.tobytes()
    return bytes(row)


def pictures_of(
    dataset: h5py.Dataset, form: PictureForm, rows: range, limits: Limits, *, bottom_up: bool
) -> Iterator[Picture]:
    """Pictures of a checked array, one at a time; `bottom_up`: their rows are stored last first. Raises DataError."""
    sides = dataset.shape[2:4] if form.channels_first else dataset.shape[1:3]
    for k in rows:
        description = f"picture {k} of {dataset.name}"
        check_size(sides[1], sides[0], description, limits)
        picture = picture_of(dataset[k], form, description)
        if bottom_up:
            picture = ArrayPicture(np.ascontiguousarray(picture.array[::-1]))
        yield picture


def encoded_pictures(
    dataset: h5py.Dataset, rows: range, limits: Limits, rgb_mark: bytes
) -> Iterator[Picture]:
    """Pictures of a checked dataset that are files; or, beside these, the bare pixels of one of the same size. JPEGs
    without `rgb_mark` have their colours as BGR; empty: none has. Raises DataError.
    """
    shape = None  # of the first picture that is a file
    for k in rows:
        description = f"picture {k} of {dataset.name}"
        data = encoded(dataset, k, limits)
        if not data.startswith(PICTURE_MARKS):
            shape = shape or _first_shape(dataset, limits)
            if len(data) == prod(shape) > 0:
                pixels = np.frombuffer(data, np.uint8).reshape(shape)
                yield array_picture(pixels, description)
                continue
        picture = decode_picture(data, description, limits)
        if rgb_mark and data.startswith(JPEG) and rgb_mark not in data[:HEAD_BYTES]:
            picture = swapped(picture)
        yield picture


def _first_shape(dataset: h5py.Dataset, limits: Limits) -> tuple[int, int, int]:
    """Of the first picture that is a file; zeros where none is."""
    files = (encoded(dataset, k, limits) for k in range(len(dataset)))
    head = next((data for data in files if data.startswith(PICTURE_MARKS)), b"")
    return (*picture_size(head), 3)


# What an episode's group shows, and its pictures: of the adapters


def cameras_in(
    listing: ListingBuilder,
    uri: str,
    datasets: Mapping[str, h5py.Dataset],
    escapes: Sequence[str],
    *,
    has_others: bool,
) -> tuple[dict[str, str], list[str]]:
    """Paths of the coming episode's cameras that can be read, by preference; finds what is wrong with the others, whose
    paths come after. `has_others`: it has pictures beside the file.
    """
    readable: dict[str, str] = {}
    limits = listing.source.config.limits
    cameras = cameras_of(datasets, limits)
    for camera in scene_first(cameras, listing.source.config.cameras):
        try:
            checked(datasets[cameras[camera]], limits)
            readable[camera] = cameras[camera]
        except DataError as e:
            listing.warn_next(e.reason, str(e), uri, camera)
    for path in escapes:
        listing.warn_next("path_escape", f"{path} is a link to another file; not followed", uri)
    if not readable and not has_others:
        # What else is there, by which a registry's author may see what the pictures are called
        detail = (
            f"no pictures that can be read among its {len(datasets)} datasets: "
            f"{', '.join([*datasets][:MAX_NAMED])}"
        )
        listing.unusable_next("no_video", detail, uri)
    return readable, [path for camera, path in cameras.items() if camera not in readable]


def evidence_in(
    listing: ListingBuilder,
    uri: str,
    group: h5py.Group,
    registered: Sequence[str],
    further_names: Sequence[str],
    rows: EpisodeSlice,
    num_rows: int | None,
) -> tuple[OutcomeEvidence, list[str]]:
    """What the coming episode's group says of its outcome, and the names of fields whose values can say it:
    `registered` ones at their word, then the usual ones, then `further_names`.

    A dataset has a value for each of the episode's `num_rows` (None: not known), of which the last
    counts; a single value or an attribute is stated once. Any other number of values, such as one
    for each stage of the task, says nothing, unless `keys` of the registry names it.
    """

    def fact(name: str) -> tuple[Any, np.ndarray]:
        """A small value of the episode, and those of its rows; nothing, with a finding, where it cannot be read."""
        try:
            with guarded(f"{uri}, {name}", H5_ERRORS):
                if lacks_value(group, name):
                    raise DataError(f"{uri}, {name}: it holds no value")
                stored = value(group, name, listing.source.config.limits)
            if problem := rows.problem(stored):
                raise DataError(f"{uri}, {name}: {problem}")
            stored = rows.share(stored)
        except DataError as e:
            listing.warn_next(e.reason, f"{e}; it says nothing of success", uri)
            stored = None
        count = None if name in listing.source.config.keys.success else num_rows
        return stored, _of_rows(stored, count)

    fields = (*registered, *SUCCESS_FIELDS, *further_names)
    evidence, telling = evidence_of(fact, fields, registered, REWARD_KEYS)
    return evidence, [*REWARD_KEYS, *telling]


def _of_rows(stored: Any, num_rows: int | None) -> np.ndarray:
    """Several numbers or truths, one for each row, or one more or less; other things are no values."""
    has_rows = (
        isinstance(stored, np.ndarray)
        and stored.size > 1
        and stored.dtype.kind in "biuf"
        and (num_rows is None or abs(stored.size - num_rows) <= 1)
    )
    return known(stored if has_rows else ())


def rows_of(record: EpisodeRecord) -> slice:
    """The episode's rows in its group: some of them where those of several episodes lie there, else all."""
    if record.source_id.rpartition("#")[2].startswith(ROWS):
        return slice(record.row_start, record.row_start + (record.num_rows or 0))
    return ALL_ROWS

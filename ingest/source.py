"""What a source holds: which datasets, and their episodes, read by the adapter of each one's format."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from itertools import chain
from pathlib import PurePosixPath
from time import process_time
from typing import NamedTuple, Protocol, cast

from core.values import imported
from core.wall import is_left_out, memory_wall, time_wall
from ingest.episode import (
    DECODE_ALL,
    DecodeOptions,
    EpisodeData,
    EpisodeRecord,
    Finding,
    Listing,
    TimedPicture,
    VideoError,
)
from ingest.formats import FORMATS, VIDEO, Format, format_named, formats_to_ask
from ingest.formats.listing import named
from ingest.reasons import DataError
from ingest.sources.files import Source
from ingest.sources.types import SourceError, folders_above

DESCRIPTIONS = (".json", ".jsonl", ".csv")  # beside videos: may say what they show
MAX_PART_LEVELS = 4  # of folders, from a part of a dataset up to it
FORMAT, BYTES = "format", "bytes"  # of a source: looked for once
READ_FILES = "read files"  # those that its first listing opened; readers keep what these said
BLOCK = 16  # pictures that are decoded at a go, at most
BLOCK_S = 0.005  # of CPU, after which no more of them begin: large ones come one by one
LOOKS = "docs/formats.md says what each looks like on disk"


class FormatAdapter(Protocol):
    """The module that reads one format; it may have a `recognises` of its own, as `recognises` below."""

    def roots(self, uris: Iterable[str]) -> dict[str, str]:
        """The folders where such datasets begin, by names of files, and what these call the dataset ("": nothing)."""
        ...

    def list_episodes(self, source: Source) -> Listing:
        """List the source from its metadata, and headers of its files.

        No video is decoded, but for the first picture of a camera whose name says that it shows no colours.
        """
        ...

    def read_episode(self, source: Source, record: EpisodeRecord) -> EpisodeData:
        """Rows, and a streaming frame iterator per camera. Raises DataError."""
        ...


def adapter_of(format_: Format) -> FormatAdapter:
    return cast(FormatAdapter, import_module(format_.adapter))


def recognises(format_: Format, source: Source) -> bool:
    """Do the source's files look like a format? By names of files and folders."""
    adapter = adapter_of(format_)
    own_test: Callable[[Source], bool] | None = getattr(adapter, "recognises", None)
    if own_test:
        return own_test(source)
    return bool(adapter.roots(source.files))


# Where datasets lie: in the folder itself, in folders below it, or above, by the names of files alone. An adapter's
# `roots` names the folders where its layout begins. From there a dataset may reach up by the format's `levels`, as one
# of several tasks does, as long as nothing else lies there. (`levels` None: single files, which may lie anywhere.)
#
#   files of a source          _kinds               _outermost     _gathered
#     a/meta/info.json           a: lerobot           a: lerobot     a: lerobot
#     a/videos/front/0.mp4       a/videos/front: video
#     b/pick/1.hdf5              b/pick: hdf5         b/pick: hdf5   b: hdf5
#     b/push/2.hdf5              b/push: hdf5         b/push: hdf5
#     tour.mp4                   "" : video           "" : video
#
# The videos of `a` lie inside a dataset. Both folders of `b` are of one format and nothing else lies in `b`: they are
# one dataset. A single file beside folders of datasets is no dataset; `_places` names it


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
    stated_format = source.config.format
    formats = (format_named(stated_format),) if stated_format else FORMATS
    # Where a format needs no more than single files, a person who names it means the folder as a whole
    if stated_format and formats[0].levels is None:
        return Places((DatasetPlace("", formats[0]),) if recognises(formats[0], source) else ())
    kinds = _outermost(_kinds(source.files, formats))
    # A folder that is known by less than files, such as an empty meta/, counts where nothing else is there
    if all(kind.format.levels is None for kind in kinds.values()):
        for format_ in formats_to_ask(source.files, formats):
            if format_.levels is not None and recognises(format_, source):
                return Places((DatasetPlace("", format_),))
    return _places(source, _gathered(kinds))


def part_of(source: Source) -> str | None:
    """The folder of the dataset that a source is a part of, such as its videos/; None where it is a part of none, or a
    single file, which is what somebody asked for."""
    address = PurePosixPath(source.config.source)
    formats = [f for f in FORMATS if f.levels is not None]
    # Not an address's scheme, host or owner
    parents = [*address.parents][: -3 if source.config.is_remote else None]
    for above in parents[:MAX_PART_LEVELS] if list(source.files) != [address.name] else ():
        relative_path = address.relative_to(above)
        if "" in _kinds((f"{relative_path}/{uri}" for uri in source.files), formats):
            return source.config.source.rstrip("/").removesuffix(f"/{relative_path}")
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
    return {
        folder: kind for folder, kind in kinds.items() if whole.isdisjoint(folders_above(folder))
    }


def _gathered(kinds: Mapping[str, _Kind]) -> dict[str, Format]:
    """The format of each folder that is a dataset, after what belongs together was put together."""
    # What lies in a folder or anywhere below it
    below: dict[str, Counter[_Kind]] = defaultdict(Counter)
    for folder, kind in kinds.items():
        for above in (folder, *folders_above(folder)):
            below[above][kind] += 1

    datasets: dict[str, Format] = {}
    for folder, kind in kinds.items():
        datasets.setdefault(_reached(folder, kind, below), kind.format)
    # Single files that lie beside folders of datasets are no dataset
    bounded = (folder for folder, format_ in datasets.items() if format_.levels is not None)
    holding = set(chain.from_iterable(map(folders_above, bounded)))
    for folder in holding & datasets.keys():
        del datasets[folder]
    # Videos below rows in single files belong to them
    return {
        folder: format_
        for folder, format_ in datasets.items()
        if datasets.keys().isdisjoint(folders_above(folder))
    }


def _reached(folder: str, kind: _Kind, below: Mapping[str, Counter[_Kind]]) -> str:
    """The outermost folder that a dataset may begin in, as far as all that lies there is of its kind."""
    reached = folder
    for level, above in enumerate(folders_above(folder), 1):
        is_too_far = kind.format.levels is not None and level > kind.format.levels
        if is_too_far or not all(_belongs(other_kind, kind) for other_kind in below[above]):
            break
        # One configuration alone is the dataset; several are, together
        if not (kind.name and above and below[above].total() == below[folder].total()):
            reached = above
    return reached


def _belongs(other_kind: _Kind, kind: _Kind) -> bool:
    """Does what lies in the same folder belong to a dataset of some kind? Videos do, to rows in single files."""
    return other_kind == kind or (kind.format.levels is None and other_kind.format == VIDEO)


def _places(source: Source, datasets: Mapping[str, Format]) -> Places:
    """With what the files beside the datasets are, where there are several."""
    uris_by_folder: dict[str | None, list[str]] = defaultdict(list)
    for uri in source.files:
        owner = next((folder for folder in folders_above(uri) if folder in datasets), None)
        uris_by_folder[owner].append(uri)
    places = []
    for folder, format_ in sorted(datasets.items()):
        is_described = any(uri.lower().endswith(DESCRIPTIONS) for uri in uris_by_folder[folder])
        places.append(DatasetPlace(folder, format_, format_ == VIDEO and not is_described))
    return Places(tuple(places), tuple(filter(_is_data, uris_by_folder[None])))


def _is_data(uri: str) -> bool:
    """Could it be an episode by itself?"""
    return any(
        adapter_of(format_).roots([uri])
        for format_ in formats_to_ask([uri])
        if format_.levels is None
    )


def format_of(source: Source) -> Format:
    """The format of a source: that of its registry entry, else the one that its files show.

    Raises SourceError for a path that is missing or empty, that no format (or not the one asked
    for) recognises, that holds several datasets, or is only a part of one.
    """
    if FORMAT not in source.noted:
        if source.config.format:
            source.noted[FORMAT] = _stated(source)
        else:
            check_places(source, places := places_of(source))
            if not places.is_one:
                raise _holding(source, places)
            source.noted[FORMAT] = places.datasets[0].format
    return source.noted[FORMAT]


def _stated(source: Source) -> Format:
    """The format of the registry entry, which must recognise the dataset: what is on disk may be another."""
    stated_format = format_named(source.config.format or "")
    if recognises(stated_format, source):
        return stated_format
    _check_not_empty(source)
    # What it is instead shows what to do
    if (places := places_of(source)).datasets:
        raise _holding(source, places)
    unstated = replace(source, config=source.config.model_copy(update={"format": None}))
    names = dict.fromkeys(place.format.name for place in places_of(unstated).datasets)
    if whole := part_of(unstated):
        reason = f"it is {_part(whole)}"
    else:
        reason = f"its files look like {' and '.join(names)}" if names else LOOKS
    raise SourceError(f"{source.config.source} is not in the format {stated_format.name}: {reason}")


def _holding(source: Source, places: Places) -> SourceError:
    folders = named([place.folder for place in places.datasets])
    what_to_do = "give the folder of one, or name them in `folders` of a registry entry"
    return SourceError(f"{source.config.source} is no dataset, but holds {folders}: {what_to_do}")


def check_places(source: Source, places: Places) -> None:
    """Raises SourceError for a source that holds no dataset, or is a part of one, which lacks rows, tasks, steps."""
    is_loose = not source.config.format and all(
        place.format.levels is None for place in places.datasets
    )
    if is_loose and (whole := part_of(source)):
        raise SourceError(f"{source.config.source} is {_part(whole)}")
    if not places.datasets and source.config.format:
        _stated(source)
    elif not places.datasets:
        _check_not_empty(source)
        names = ", ".join(format_.name for format_ in FORMATS)
        raise SourceError(
            f"{source.config.source} is in no format that is read here ({names}); {LOOKS}"
        )


def _part(whole: str) -> str:
    return f"a part of the dataset {whole}: give that folder (or say --as video to take its videos alone)"


def _check_not_empty(source: Source) -> None:
    """Raises SourceError. An empty folder has another cause than an unknown format, such as a download not begun."""
    if not source.files:
        raise SourceError(f"{source.config.source} is an empty folder: nothing to read")


def list_episodes(source: Source) -> Listing:
    """What the source holds, as its adapter lists it; with findings for links that lead out, names
    that are none, and rates beyond the limit, which are then the limit: sizes follow them. Raises
    SourceError: it takes more than it may.
    """
    adapter = adapter_of(format_of(source))
    limits = source.config.limits
    # What was opened since an earlier listing does not count: a listing depends on the source alone
    if READ_FILES in source.noted:
        source.read_files.intersection_update(source.noted[READ_FILES])
    try:
        allowed_s, name = _allowed(source, "the list of its episodes", "")
        with (
            memory_wall(limits.max_memory_bytes),
            time_wall(name) as cpu_timer,
            cpu_timer(allowed_s),
        ):
            listing = adapter.list_episodes(source)
    except MemoryError as e:
        raise SourceError(
            f"{source.config.source}: to list its episodes takes more memory than it may ({e})"
        ) from e
    except DataError as e:
        raise SourceError(f"{source.config.source}: {e}") from e
    source.noted[READ_FILES] = frozenset(source.read_files)
    # What the files themselves show, in whatever format they are
    escapes = "a link that leads out of the dataset's folder; not followed"
    is_no_name = "the name of a file or folder is not UTF-8; left out"
    path_findings = [
        Finding("path_escape", escapes, "warning", file=uri) for uri in source.contents.escaping
    ]
    path_findings += [
        Finding("path_escape", is_no_name, "warning", file=uri)
        for uri in source.contents.unnameable
    ]
    records = list(listing.records)
    for place, record in enumerate(records):
        if problem := limits.excess("max_fps", record.fps, "frames a second"):
            path_findings.append(Finding("over_limit", problem, "unusable", record.episode_index))
            records[place] = replace(record, fps=limits.max_fps)
    return replace(listing, records=tuple(records), findings=(*listing.findings, *path_findings))


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """One episode's rows and frames, within the dataset's limits. Raises DataError.

    Pictures of cameras that are stored as BGR come as RGB.
    """
    format_name = source.config.format
    format_ = format_named(format_name) if format_name else format_of(source)
    allowed_s, name = _allowed(
        source, f"the rows of episode {record.episode_index}", record.data_uri or ""
    )
    if format_.needs_rows and not (record.data_uri and record.num_rows):
        raise DataError("no rows", "no_data")
    with time_wall(name) as cpu_timer, cpu_timer(allowed_s):
        episode = adapter_of(format_).read_episode(source, record)
    # A file that was replaced since it was listed is not the episode that the corpus knows
    lengths = {table.num_rows for table in (episode.states, episode.actions) if table is not None}
    if lengths - {episode.record.num_rows}:
        raise DataError(f"{max(lengths)} rows; there were {record.num_rows}")
    return replace(episode, frames=partial(_within_limits, source, episode))


def _allowed(source: Source, description: str, uri: str) -> tuple[float, str]:
    """Seconds of CPU that reading some of a source may take, by the bytes of its file, or of all
    where it has none of its own; and the name of that work. Raises DataError where a process has
    stayed in it."""
    if BYTES not in source.noted:
        source.noted[BYTES] = sum(file.size for file in source.files.values())
    allowed_s = source.config.limits.cpu_s(source.size(uri) or source.noted[BYTES])
    if is_left_out(name := f"{source.config.source}: {description} {source.files.get(uri)}"):
        raise DataError(f"{description} takes more than {allowed_s:g} s of CPU", "over_limit")
    return allowed_s, name


def _within_limits(
    source: Source, episode: EpisodeData, camera: str, options: DecodeOptions = DECODE_ALL
) -> Iterator[TimedPicture]:
    """Frames of a camera, as RGB where the registry says that they are stored as BGR. Raises VideoError: also where
    they take more CPU than a file of their size may."""
    record = episode.record
    uri = next((video.uri for video in record.videos if video.camera == camera), "")
    description = f"camera {camera} of episode {record.episode_index}"
    allowed_s, name = _allowed(source, description, uri)
    taken_s = 0.0
    options = replace(options, limits=source.config.limits)
    pictures = iter(episode.frames(camera, options))
    if camera in source.config.cameras.bgr:
        swapped = imported("ingest.media.picture:swapped")
        pictures = ((k, time_s, swapped(picture)) for k, time_s, picture in pictures)
    with time_wall(name) as cpu_timer:
        while taken_s <= allowed_s:
            before_s = process_time()
            with cpu_timer(allowed_s - taken_s):
                block, error = _block(pictures)
            taken_s += process_time() - before_s
            yield from block
            if isinstance(error, StopIteration):
                return
            if error:
                raise error
    raise VideoError(f"{uri}: its pictures take more than {allowed_s:.0f} s of CPU", "over_limit")


def _block(pictures: Iterator[TimedPicture]) -> tuple[list[TimedPicture], Exception | None]:
    """The next pictures, several where they are quick, since a timer has its price; and what ended them early."""
    block = list[TimedPicture]()
    end_s = process_time() + BLOCK_S
    try:
        while len(block) < BLOCK and process_time() <= end_s:
            block.append(next(pictures))
    except Exception as e:
        return block, e.with_traceback(None)  # its frames hold pictures
    return block, None

"""What a source holds, read by the adapter of its format."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from time import process_time

from core.wall import is_left_out, memory_wall, time_wall
from ingest.episode import EpisodeData, EpisodeRecord, Finding, Listing, TimedPicture
from ingest.formats import FORMATS, Format, format_named
from ingest.formats.adapter import adapter_of, recognises
from ingest.formats.listing import named
from ingest.media.frames import DECODE_ALL, DecodeOptions, VideoError
from ingest.media.picture import swapped
from ingest.places import Places, part_of, places_of
from ingest.reasons import DataError
from ingest.sources.files import Source
from ingest.sources.types import SourceError

FORMAT, BYTES = "format", "bytes"  # of a source: looked for once
LOOKS = "docs/formats.md says what each looks like on disk"


def format_of(source: Source) -> Format:
    """The format of a source: that of its registry entry, else the one that its files show.

    Raises SourceError for a path that is missing or empty, that no format (or not the one asked for) recognises, that
    holds several datasets, or is only a part of one.
    """
    if FORMAT not in source.noted:
        source.noted[FORMAT] = _stated(source) if source.config.format else _looked_for(source)
    return source.noted[FORMAT]


def _stated(source: Source) -> Format:
    """The format of the registry entry, which must recognise the dataset: what is on disk may be another."""
    stated = format_named(source.config.format or "")
    if recognises(stated, source):
        return stated
    _check_not_empty(source)
    # What it is instead shows what to do
    if (places := places_of(source)).datasets:
        raise _holding(source, places)
    unstated = replace(source, config=source.config.model_copy(update={"format": None}))
    names = dict.fromkeys(place.format.name for place in places_of(unstated).datasets)
    if whole := part_of(unstated):
        why = f"it is {_part(whole)}"
    else:
        why = f"its files look like {' and '.join(names)}" if names else LOOKS
    raise SourceError(f"{source.config.source} is not in the format {stated.name}: {why}")


def _looked_for(source: Source) -> Format:
    places = places_of(source)
    check_places(source, places)
    if places.is_one:
        return places.datasets[0].format
    raise _holding(source, places)


def _holding(source: Source, places: Places) -> SourceError:
    folders = named([place.folder for place in places.datasets])
    what_to_do = "give the folder of one, or name them in `folders` of a registry entry"
    return SourceError(f"{source.config.source} is no dataset, but holds {folders}: {what_to_do}")


def check_places(source: Source, places: Places) -> None:
    """Raises SourceError for a source that holds no dataset, or is a part of one."""
    # Rows, tasks and steps of a whole dataset are lost to its parts
    is_loose = not source.config.format and all(place.format.levels is None for place in places.datasets)
    if is_loose and (whole := part_of(source)):
        raise SourceError(f"{source.config.source} is {_part(whole)}")
    if not places.datasets and source.config.format:
        _stated(source)
    elif not places.datasets:
        _check_not_empty(source)
        names = ", ".join(format_.name for format_ in FORMATS)
        raise SourceError(f"{source.config.source} is in no format that is read here ({names}); {LOOKS}")


def _part(whole: str) -> str:
    return f"a part of the dataset {whole}: give that folder (or say --as video to take its videos alone)"


def _check_not_empty(source: Source) -> None:
    """Raises SourceError. An empty folder has another cause than an unknown format, such as a download not begun."""
    if not source.files:
        raise SourceError(f"{source.config.source} is an empty folder: nothing to read")


def list_episodes(source: Source) -> Listing:
    """What the source holds, from metadata alone; with findings for links that lead out, names that are none, and rates
    beyond the limit, which are then the limit: sizes follow them. Raises SourceError: it takes more than it may.
    """
    adapter, limits = adapter_of(format_of(source)), source.config.limits
    try:
        allowed_s, name = _allowed(source, "the list of its episodes", "")
        with memory_wall(limits.max_memory_bytes), time_wall(name) as within, within(allowed_s):
            listing = adapter.list_episodes(source)
    except MemoryError as e:
        raise SourceError(f"{source.config.source}: to list its episodes takes more memory than it may ({e})") from e
    except DataError as e:
        raise SourceError(f"{source.config.source}: {e}") from e
    # What the files themselves show, in whatever format they are
    escapes = "a link that leads out of the dataset's folder; not followed"
    is_no_name = "the name of a file or folder is not UTF-8; left out"
    found = [Finding("path_escape", escapes, "warning", file=uri) for uri in source.escaping]
    found += [Finding("bad_name", is_no_name, "warning", file=uri) for uri in source.unnameable]
    records = list(listing.records)
    for place, record in enumerate(records):
        if problem := limits.excess("max_fps", record.fps, "frames a second"):
            found.append(Finding("over_limit", problem, "unusable", record.episode_index))
            records[place] = replace(record, fps=limits.max_fps)
    return replace(listing, records=tuple(records), findings=(*listing.findings, *found))


def read_episode(source: Source, record: EpisodeRecord) -> EpisodeData:
    """One episode's rows and frames, within the dataset's limits. Raises DataError.

    Pictures of cameras that are stored as BGR come as RGB.
    """
    stated = source.config.format
    format_ = format_named(stated) if stated else format_of(source)
    allowed_s, name = _allowed(source, f"the rows of episode {record.episode_index}", record.data_uri or "")
    if format_.needs_rows and not (record.data_uri and record.num_rows):
        raise DataError("no rows", "no_data")
    with time_wall(name) as within, within(allowed_s):
        episode = adapter_of(format_).read_episode(source, record)
    # A file that was replaced since it was listed is not the episode that the corpus knows
    lengths = {table.num_rows for table in (episode.states, episode.actions) if table is not None}
    if lengths - {episode.record.num_rows}:
        raise DataError(f"{max(lengths)} rows; there were {record.num_rows}")
    return replace(episode, frames=partial(_within_limits, source, episode))


def _allowed(source: Source, what: str, uri: str) -> tuple[float, str]:
    """Seconds of CPU that reading some of a source may take, by the bytes of its file, or of all where it has none of
    its own; and the name of that work. Raises DataError where a process has stayed in it."""
    if BYTES not in source.noted:
        source.noted[BYTES] = sum(file.size for file in source.files.values())
    allowed_s = source.config.limits.cpu_s(source.size(uri) or source.noted[BYTES])
    if is_left_out(name := f"{source.config.source}: {what} {source.files.get(uri)}"):
        raise DataError(f"{what} takes more than {allowed_s:g} s of CPU", "too_costly")
    return allowed_s, name


def _within_limits(
    source: Source, episode: EpisodeData, camera: str, options: DecodeOptions = DECODE_ALL
) -> Iterator[TimedPicture]:
    """Frames of a camera, as RGB where the registry says that they are stored as BGR. Raises VideoError: also where
    they take more CPU than a file of their size may."""
    is_swapped = camera in source.config.cameras.bgr
    uri = next((video.uri for video in episode.record.videos if video.camera == camera), "")
    allowed_s, name = _allowed(source, f"camera {camera} of episode {episode.record.episode_index}", uri)
    taken_s, pictures = 0.0, iter(episode.frames(camera, replace(options, limits=source.config.limits)))
    with time_wall(name) as within:
        while taken_s <= allowed_s:
            before_s = process_time()
            with within(allowed_s - taken_s):
                picture = next(pictures, None)
            if picture is None:
                return
            taken_s += process_time() - before_s
            yield (*picture[:2], swapped(picture[2])) if is_swapped else picture
    raise VideoError(f"{uri}: its pictures take more than {allowed_s:.0f} s of CPU", "too_costly")

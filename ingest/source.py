"""What a source holds, read by the adapter of its format."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Protocol, cast

from ingest.episode import Episode, EpisodeRecord, Finding, FrameReader, Listing, TimedPicture
from ingest.formats import FORMATS, Format, format_named
from ingest.media.picture import SwappedPicture
from ingest.media.video import DECODE_ALL, DecodeOptions
from ingest.sources.files import Source
from ingest.sources.types import SourceError


class FormatAdapter(Protocol):
    """The module that reads one format."""

    def recognises(self, source: Source) -> bool:
        """Do the source's files look like this format? Looks at names of files and folders."""
        ...

    def list_episodes(self, source: Source) -> Listing:
        """What the source holds, from its metadata alone: nothing is decoded."""
        ...

    def read_episode(self, source: Source, record: EpisodeRecord) -> Episode:
        """Rows, and a streaming frame iterator per camera. Raises RowsError."""
        ...


def adapter_of(format_: Format) -> FormatAdapter:
    return cast(FormatAdapter, import_module(format_.adapter))


def format_of(source: Source) -> Format:
    """The format of a source: that of its registry entry, else the first that knows what is on disk.

    Raises SourceError for a path that is missing, empty, or that no format (or not the one asked for) recognises.
    """
    files = source.files  # raises SourceError for a missing path
    # Also the format that the registry names must recognise the dataset: what is on disk may be another
    candidates = (format_named(source.config.format),) if source.config.format else FORMATS
    for candidate in candidates:
        if adapter_of(candidate).recognises(source):
            return candidate
    # An empty folder has another cause than an unknown format, such as a download that never began
    if not files:
        raise SourceError(f"{source.config.source} is an empty folder: nothing to read")
    names = ", ".join(c.name for c in candidates)
    raise SourceError(
        f"{source.config.source} is in no format that is read here ({names}); docs/formats.md says what "
        "each looks like on disk"
    )


def list_episodes(source: Source) -> Listing:
    """What the source holds, from metadata alone; with findings for links that lead out, and names that are none."""
    listing = adapter_of(format_of(source)).list_episodes(source)
    # What the files themselves show, in whatever format they are
    escaping = [
        Finding("path_escape", "a link that leads out of the dataset's folder; not followed", "warning", file=uri)
        for uri in source.escaping
    ]
    unnameable = [
        Finding("bad_name", "the name of a file or folder is not UTF-8; left out", "warning", file=uri)
        for uri in source.unnameable
    ]
    return replace(listing, findings=(*listing.findings, *escaping, *unnameable))


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    """One episode's rows and frames; pictures of cameras that are stored as BGR come as RGB. Raises RowsError."""
    stated = source.config.format  # without it the format is found by looking, once per episode
    format_ = format_named(stated) if stated else format_of(source)
    episode = adapter_of(format_).read_episode(source, record)
    swapped = frozenset(source.config.cameras.bgr)
    if swapped.isdisjoint(record.cameras):
        return episode
    return replace(episode, frames=partial(_with_right_colours, episode.frames, swapped))


def _with_right_colours(
    read: FrameReader, swapped: frozenset[str], camera: str, options: DecodeOptions = DECODE_ALL
) -> Iterator[TimedPicture]:
    """Frames of a camera, whose colours are swapped back where the registry says that they are stored as BGR."""
    for k, time_s, picture in read(camera, options):
        yield k, time_s, SwappedPicture(picture) if camera in swapped else picture

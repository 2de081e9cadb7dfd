"""Which adapter reads a dataset.

An adapter is two functions: `list_episodes(source) -> Listing` (metadata only, never decodes) and
`read_episode(source, record) -> Episode` (rows, and a streaming frame iterator per camera).
"""

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from types import ModuleType

from ingest.episode import Episode, EpisodeRecord, Finding, Listing
from ingest.media.picture import SwappedPicture
from ingest.media.video import Picture
from ingest.registry import FORMATS
from ingest.sources.files import Source, SourceError

# Modules by format; imported when one is asked for
MODULES = {
    "rlds": "ingest.formats.rlds",
    "agibot": "ingest.formats.agibot",
    "rh20t": "ingest.formats.rh20t",
    "table30": "ingest.formats.table30",
    "robotwin": "ingest.formats.robotwin",
    "lerobot": "ingest.formats.lerobot",
    "hdf5": "ingest.formats.hdf5",
    "video": "ingest.formats.plain_video",
}


def adapter(source: Source) -> ModuleType:
    """The adapter for a source: that of its registry entry, else the first that knows what is on disk.

    Raises SourceError for a path that is missing, empty, or that no adapter (or not the one asked for) recognises.
    """
    files = source.files  # raises SourceError for a missing path
    formats = (source.config.format,) if source.config.format else FORMATS
    for name in formats:
        module = import_module(MODULES[name])
        if module.recognises(source):
            return module
    if not files:
        raise SourceError(f"{source.config.source} is an empty folder: nothing to read")
    raise SourceError(
        f"{source.config.source} is in no format that is read here ({', '.join(formats)}); docs/formats.md says what "
        "each looks like on disk"
    )


def list_episodes(source: Source) -> Listing:
    """What the source holds, from metadata alone; with findings for links that lead out, and names that are none."""
    listing = adapter(source).list_episodes(source)
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
    known = source.config.format  # else by looking, which is done once per episode
    episode = (import_module(MODULES[known]) if known else adapter(source)).read_episode(source, record)
    swapped = frozenset(source.config.cameras.bgr)
    if swapped.isdisjoint(record.cameras):
        return episode

    def frames(camera: str) -> Iterator[tuple[int, float, Picture]]:
        for k, time_s, picture in episode.frames(camera):
            yield k, time_s, SwappedPicture(picture) if camera in swapped else picture

    return replace(episode, frames=frames)

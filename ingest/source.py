"""Which adapter reads a dataset.

An adapter is two functions: `list_episodes(source) -> Listing` (metadata only, never decodes) and
`read_episode(source, record) -> Episode` (rows, and a streaming frame iterator per camera).
"""

from types import ModuleType

from ingest import lerobot, plain_video
from ingest.episode import Episode, EpisodeRecord, Listing
from ingest.files import Source, SourceError
from ingest.registry import FORMATS

ADAPTERS: dict[str, ModuleType] = {"lerobot": lerobot, "video": plain_video}


def adapter(source: Source) -> ModuleType:
    """The adapter for a source: that of its registry entry, else the first that knows what is on disk.

    Raises SourceError for a path that is missing, empty, or that no adapter (or not the one asked for) recognises.
    """
    files = source.files  # raises SourceError for a missing path
    formats = (source.config.format,) if source.config.format else FORMATS
    for name in formats:
        if ADAPTERS[name].recognises(source):
            return ADAPTERS[name]
    if not files:
        raise SourceError(f"{source.path} is an empty folder: nothing to read")
    raise SourceError(
        f"{source.path} is in no format that is read here ({', '.join(formats)}): a LeRobot dataset has meta/, data/ "
        "and videos/, a plain one has video files"
    )


def list_episodes(source: Source) -> Listing:
    return adapter(source).list_episodes(source)


def read_episode(source: Source, record: EpisodeRecord) -> Episode:
    known = source.config.format  # else by looking, which is done once per episode
    return (ADAPTERS[known] if known else adapter(source)).read_episode(source, record)

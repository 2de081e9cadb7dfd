"""The interface of a module that reads a format."""

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Protocol, cast

from ingest.episode import EpisodeData, EpisodeRecord, Listing
from ingest.formats import Format
from ingest.sources.files import Source


class FormatAdapter(Protocol):
    """The module that reads one format; it may have a `recognises` of its own, as `recognises` below."""

    def roots(self, uris: Iterable[str]) -> dict[str, str]:
        """The folders where such datasets begin, by names of files, and what these call the dataset ("": nothing)."""
        ...

    def list_episodes(self, source: Source) -> Listing:
        """List the source from its metadata alone, without decoding."""
        ...

    def read_episode(self, source: Source, record: EpisodeRecord) -> EpisodeData:
        """Rows, and a streaming frame iterator per camera. Raises DataError."""
        ...


def adapter_of(format_: Format) -> FormatAdapter:
    return cast(FormatAdapter, import_module(format_.adapter))


def recognises(format_: Format, source: Source) -> bool:
    """Do the source's files look like a format? By names of files and folders."""
    adapter = adapter_of(format_)
    own: Callable[[Source], bool] | None = getattr(adapter, "recognises", None)
    return own(source) if own else bool(adapter.roots(source.files))

"""What every module of sources speaks of: a file's size and version, and the errors of reading a source."""

from typing import NamedTuple

from core.errors import FailedError, UserError
from ingest.reasons import DataError

LFS_MARK = b"version https://git-lfs"


class SourceError(UserError):
    """A source that is not there or that no adapter recognises: what, where, what to do."""


class DownloadError(SourceError, FailedError):
    """A file or a listing that could not be fetched: of which dataset, why, what to do."""


class FileStat(NamedTuple):
    size: int
    version: str  # changes with the content: modification time of a local file, hash or etag of a remote one


def refuse_pointer(begin: bytes, what: str) -> None:
    """Raises DataError, in these words, for what begins as a git-LFS pointer, as in clones made without git-LFS."""
    if begin.startswith(LFS_MARK):
        raise DataError(what, "lfs_pointer")

"""What every module of sources speaks of: a file's size and version, addresses, and the errors of reading a source."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import quote, unquote

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


def refuse_pointer(begin: bytes, message: str) -> None:
    """Raises DataError, in these words, for what begins as a git-LFS pointer, as in clones made without git-LFS."""
    if begin.startswith(LFS_MARK):
        raise DataError(message, "lfs_pointer")


def folders_above(path: str) -> Iterator[str]:
    """The folders that a relative path lies in, innermost first; "" is the last. Those of "a/b" are "a" and ""."""
    while path:
        path = path.rpartition("/")[0]
        yield path


def address_below(source: str, folder: str) -> str:
    """The address of a folder below an address or a local folder; "" is the source itself."""
    if not folder:
        return source
    if source.startswith(("http://", "https://")):
        return f"{source}{quote(folder)}/"
    if "://" in source:
        return f"{source.rstrip('/')}/{folder}"
    return str(Path(source) / folder)


def last_name(source: str) -> str:
    """What a source is called by its address: its folder's name, or that of a file without its suffix."""
    if "://" not in source:
        path = Path(source).resolve()
        if path.is_file():
            return path.stem
        return path.name
    name = unquote(source.rstrip("/").rpartition("/")[2])
    # On a web server an address that does not end in '/' is a file's
    is_file = source.startswith(("http://", "https://")) and not source.endswith("/")
    if is_file:
        return PurePosixPath(name).stem
    return name

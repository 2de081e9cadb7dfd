"""Files that survive kills, power cuts and full disks: the one atomic writer of the project."""

import errno
import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PosixPath
from typing import IO

from core.errors import OperationFailedError

COPY_BYTES = 1 << 20
HALF_FILE = ".tmp-"  # what the name of a file begins with that is not whole yet
NEWEST = 8  # files: more than one commit writes into a folder
# What DuckDB, SQLite, Arrow and others say of it
FULL = re.compile(r"No space left on device|database or disk is full|Disk quota exceeded|not enough disk space", re.I)
FAILS, NO_ROOM = "disk I/O error", 64 << 10  # what SQLite says of some writes that find no room; bytes
NAMED = re.compile(r"[\"'](/[^\"']+)[\"']")


class DiskFullError(OperationFailedError):
    """There is no room for what has to be written: where, and what to do."""


def disk_full(e: BaseException | None, folder: Path) -> str | None:
    """Where an error, or what it comes from, says that a disk is full: a sentence for people; else None.

    `folder` is what was written to, if the error names no file.
    """
    while e is not None:
        if isinstance(e, DiskFullError):
            return str(e)
        is_full = (isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT)) or bool(FULL.search(str(e)))
        if is_full or FAILS in str(e):
            named = NAMED.search(str(e))
            at = _folder(Path(getattr(e, "filename", None) or (named[1] if named else folder)))
            if at == folder:  # no file was named, and any folder below may be a disk of its own
                at = min((at, *at.glob("*/"), *at.glob("*/*/")), key=lambda p: shutil.disk_usage(p).free)
            free = shutil.disk_usage(at).free
            if is_full or free < NO_ROOM:
                return (
                    f"the disk that holds {at} is full ({free >> 10} KiB free): make room there (proccorpus gc deletes "
                    "what nothing names any more) and run the same again; what was finished is kept"
                )
        e = e.__cause__ or e.__context__
    return None


def _folder(path: Path) -> Path:
    """The nearest folder that is there."""
    path = path.absolute()
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


@contextmanager
def room_in(folder: Path) -> Iterator[None]:
    """Whatever says meanwhile that a disk is full becomes a DiskFullError, of `folder` where no file is named."""
    try:
        yield
    except Exception as e:
        said = None if isinstance(e, DiskFullError) else disk_full(e, folder)
        if said:
            raise DiskFullError(said) from e
        raise


def write_file(path: Path, data: bytes, *, synced: bool = True) -> None:
    """Durable and atomic: a reader sees the whole file or none, also after a power cut.

    Not `synced`: quicker, and a power cut may take the file back; a reader still sees all of it or none.
    """
    write_from(path, io.BytesIO(data), synced=synced)


def write_from(path: Path, source: IO[bytes], *, synced: bool = True) -> None:
    """As write_file, what is left of an open file. A bucket shows no object before all of it has arrived."""
    if not isinstance(path, PosixPath):
        with path.open("wb") as f:
            shutil.copyfileobj(source, f, COPY_BYTES)
        return
    with whole_file(path, synced=synced) as half, half.open("wb") as f:
        shutil.copyfileobj(source, f, COPY_BYTES)


@contextmanager
def whole_file(path: Path, *, synced: bool = True) -> Iterator[Path]:
    """An empty file beside `path` to write to; it takes the place of `path`, durably, when the block ends well.

    When the block raises, the file is deleted. `synced`: see write_file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=HALF_FILE, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    half = Path(name)
    try:
        yield half
        if synced:
            sync(half)
        half.chmod(0o644)  # mkstemp makes it private
        half.replace(path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write to, which takes the place of `folder`, durably, when the block ends well.

    A kill leaves `folder` as it was, or, in the moment of the exchange, the former one beside it as .NAME.old.
    """
    half = folder.with_name(f".{folder.name}.half")
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    yield half
    # All of the new folder is on the disk before it gets its name
    for path in half.rglob("*"):
        sync(path)
    sync(half)
    # A folder that is not empty cannot be replaced: the former one is moved out of the way
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    half.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync(path: str | Path) -> None:
    """A file's contents, or a folder's list of names, are on the disk when this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_newest(folder: str) -> None:
    """The newest files of a folder, and the folder itself, are on disk when this returns; older ones were long ago."""
    if not os.path.isdir(folder):
        return
    with os.scandir(folder) as entries:
        files = sorted(((e.stat().st_mtime_ns, e.path) for e in entries if e.is_file()), reverse=True)
    for _, path in files[:NEWEST]:
        sync(path)
    sync(folder)


def sha256_file(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()

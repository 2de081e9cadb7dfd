"""Files that survive kills, power cuts and full disks: the one atomic writer of the project.

And folders in the system's temporary place that go with the process that made them. One that is
killed leaves its folder behind. Each holds a lock for as long as it lives, so the next process that
makes such a folder knows whose are left, and deletes them.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PosixPath
from types import TracebackType
from typing import IO

from core.errors import FailedError

COPY_BYTES = 1 << 20
HALF_FILE = ".tmp-"  # what the name of a file begins with that is not whole yet
NEWEST = 8  # files: more than one commit writes into a folder
# In what words DuckDB, SQLite, Arrow and others say so
FULL = re.compile(
    r"No space left on device|database or disk is full|Disk quota exceeded|not enough disk space",
    re.I,
)
FAILS = "disk I/O error"  # SQLite says so also of some writes that find no room
NO_ROOM = 64 << 10  # bytes free, below which that is the reason
NAMED = re.compile(r"[\"'](/[^\"']+)[\"']")

# What to do where the system refuses a file
REMEDIES = {
    errno.EROFS: "this place can only be read: what writes needs another one (a copy of the workspace, for one)",
    errno.EACCES: "ask whoever owns it for the right, or use a place (for one, a copy of the workspace) of your own",
    errno.EPERM: "ask whoever owns it for the right, or use a place (for one, a copy of the workspace) of your own",
    errno.ENAMETOOLONG: "a name may have 255 bytes, a path 4,095: choose a shorter one",
}
# Of scratch folders. No other folder has both: a workspace named /tmp/proccorpus-scratch-mine has another lock
PREFIX = "proccorpus-scratch-"
LOCK = ".scratch-lock"


class DiskFullError(FailedError):
    """There is no room for what has to be written: where, and what to do."""


def disk_full(e: BaseException | None, folder: Path) -> str | None:
    """Where an error, or what it comes from, says that a disk is full: a sentence for people; else
    None.

    `folder` is what was written to, if the error names no file.
    """
    while e is not None:
        sentence = str(e) if isinstance(e, DiskFullError) else _full_disk(e, folder)
        if sentence:
            return sentence
        e = e.__cause__ or e.__context__
    return None


def _full_disk(e: BaseException, folder: Path) -> str | None:
    """As disk_full, of the error itself."""
    is_full = (isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT)) or bool(
        FULL.search(str(e))
    )
    if not is_full and FAILS not in str(e):
        return None
    # Which disk: that of the file that the error names, if it names one
    path_match = NAMED.search(str(e))
    fullest = _folder(
        Path(getattr(e, "filename", None) or (path_match[1] if path_match else folder))
    )
    # Otherwise any folder below the workspace may be a disk of its own: the fullest one
    if fullest == folder:
        fullest = min(
            (fullest, *fullest.glob("*/"), *fullest.glob("*/*/")),
            key=lambda p: shutil.disk_usage(p).free,
        )
    # An error that may have other reasons counts only where the disk has no room
    free = shutil.disk_usage(fullest).free
    if not is_full and free >= NO_ROOM:
        return None
    return (
        f"the disk that holds {fullest} is full ({free >> 10} KiB free): make room there (proccorpus gc deletes "
        "what nothing names any more) and run the same again; what was finished is kept"
    )


def refused_by_system(e: BaseException | None) -> str | None:
    """Where an error, or what it comes from, says that a file may not be used as it is asked: a sentence; else None."""
    while e is not None:
        if isinstance(e, OSError) and e.filename is not None and e.errno in REMEDIES:
            return f"{os.fsdecode(e.filename)}: {os.strerror(e.errno).lower()}; {REMEDIES[e.errno]}"
        e = e.__cause__ or e.__context__
    return None


def _folder(path: Path) -> Path:
    """The nearest folder that is there."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


@contextmanager
def room_in(folder: Path) -> Iterator[None]:
    """An error of the block that says that a disk is full becomes a DiskFullError, of `folder` if it names no file."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as e:
        sentence = disk_full(e, folder)
        if sentence:
            raise DiskFullError(sentence) from e
        raise


def file_version(path: Path) -> tuple[int, int]:
    """The size of a file and when it was written, in nanoseconds; zeros of one that is not there."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def write_file(path: Path, data: bytes, *, synced: bool = True) -> None:
    """Durable and atomic: a reader sees the whole file or none, also after a power cut.

    Not `synced`: quicker, and a power cut may take the file back; a reader still sees all of it or
    none.
    """
    with open_whole(path, synced=synced) as file:
        file.write(data)


def write_from(path: Path, source: IO[bytes], *, synced: bool = True) -> None:
    """As write_file, what is left of an open file."""
    with open_whole(path, synced=synced) as file:
        shutil.copyfileobj(source, file, COPY_BYTES)


@contextmanager
def open_whole(path: Path, *, synced: bool = True) -> Iterator[IO[bytes]]:
    """A new file to write to, which takes the place of `path`, durably, when the block ends well.

    When the block raises, the file is deleted. A bucket shows no object before all of it has
    arrived. `synced`: see write_file.
    """
    if not isinstance(path, PosixPath):
        with path.open("wb") as file:
            yield file
        return
    # Beside `path`: only within one file system does a rename exchange files at once. Who else may read it, the umask
    # says, as of any other file
    half = path.with_name(f"{HALF_FILE}{secrets.token_hex(8)}{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with half.open("xb") as file:
            yield file
            if synced:
                file.flush()
                os.fsync(file.fileno())
        half.replace(path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise


@contextmanager
def whole_file(path: Path, *, synced: bool = True) -> Iterator[Path]:
    """As open_whole, for writers that open a file themselves: the path of an empty file."""
    with open_whole(path, synced=False) as file:
        half = Path(file.name)
        yield half
        if synced:
            sync(half)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write to, which takes the place of `folder`, durably, when the block ends
    well.

    A kill leaves `folder` as it was, or, in the moment of the exchange, the former one beside it as
    .NAME.old.
    """
    half = folder.with_name(f".{folder.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    yield half
    # All of the new folder is on the disk before it gets its name
    for path in half.rglob("*"):
        sync(path)
    take_place(half, folder)


def take_place(half: Path, folder: Path) -> None:
    """Give a folder, whose files are on the disk, its name, durably; a former one of that name is removed."""
    old = folder.with_name(f".{folder.name}.old")
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
        files = sorted(
            ((e.stat().st_mtime_ns, e.path) for e in entries if e.is_file()), reverse=True
        )
    for _, path in files[:NEWEST]:
        sync(path)
    sync(folder)


def files_below(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """The files below a folder, by one look at each folder; links to folders are not followed, and folders that are
    somebody else's alone (`lost+found` of a disk) are passed over."""
    with suppress(FileNotFoundError, PermissionError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from files_below(entry.path)
            # A link that leads to itself is an error for an entry, and no file for a path
            elif entry.is_file(follow_symlinks=False) or os.path.isfile(entry):
                yield entry


def sha256_file(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


class ScratchFolder:
    """A new folder of this process alone, at `path`; `close` deletes it. What killed processes left
    is deleted first.

    Raises OSError: the temporary place is full, or cannot be written to.
    """

    def __init__(self) -> None:
        delete_left()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        # It gets its name once it is locked: without a lock, or locked, a folder is left alone
        half = self.path / f"{LOCK}.new"
        self._lock = os.open(half, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        half.rename(self.path / LOCK)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):  # closed before
            os.close(self._lock)
        self._lock = -1

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type | None, e: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def delete_left() -> None:
    """Delete the folders of processes that are gone; those of other users are theirs."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        # Another process may be first with each of these
        with suppress(OSError):
            if folder.lstat().st_uid != os.getuid():
                continue
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def queries_of(module: str) -> list[str]:
    """The queries of the SQL file beside a module, each after a line of its name; comments end at an empty line."""
    text = Path(module).with_suffix(".sql").read_text().split("\n\n", 1)[1]
    return re.split(r"^-- .*$", text, flags=re.M)[1:]

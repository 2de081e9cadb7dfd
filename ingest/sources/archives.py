"""Members of tar archives, read one by one and in place; a member's uri is `<uri of the tar>!/<name>`.

For uncompressed tars only: their members are found by skipping from header to header. What an archive says is not
trusted: a name never becomes a path, and headers are read under a limit.
"""

import hashlib
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from multiprocessing.util import Finalize
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, NamedTuple, cast

from core.files import HALF_FILE, whole_file
from core.scratch import ScratchFolder
from ingest.limits import LIMITS, Limits

COPY_BYTES = 1 << 20
# What tarfile lets through for damaged headers
DAMAGED = (tarfile.TarError, OSError, ValueError, LookupError, ArithmeticError, TypeError, RecursionError)


class ArchiveError(Exception):
    """An archive that is damaged where a member should be, or that does not hold it."""


class _TooLargeError(Exception):
    """An archive that claims more than the limits: what, with the figure."""


class Member(NamedTuple):
    offset: int  # of its header
    size: int


class Archive(NamedTuple):
    """Plain files of a tar by normalised name; what was left out; why reading stopped early, if it did.

    `reason`: the code of a finding with that problem.
    """

    members: dict[str, Member]
    escaping: tuple[str, ...]  # names that lead out of the archive, links, devices, sparse files
    problem: str | None
    reason: str = "unreadable_data"


def split(uri: str) -> tuple[str, str] | None:
    """(uri of the tar, name of the member); None for a uri of a file."""
    tar, mark, member = uri.partition(".tar!/")
    return (f"{tar}.tar", member) if mark and member else None


def index(tar: Path, limits: Limits = LIMITS) -> Archive:
    """What a tar holds; remembered for the last few. Raises OSError when it is not there."""
    s = tar.stat()
    return _index(str(tar), s.st_size, s.st_mtime_ns, limits)


class _Headers:
    """A file that hands out no more than the limit for one member: a header may claim to be as long as it likes.

    `read_bytes`: of the member that is looked at.
    """

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self.file, self.limits, self.read_bytes = file, limits, 0

    def read(self, size: int) -> bytes:
        self.read_bytes += size
        if size < 0:
            raise tarfile.ReadError("a header has a negative size")
        _check(self.limits.excess("max_header_bytes", self.read_bytes, "bytes of one member's header"))
        return self.file.read(size)

    def seek(self, offset: int) -> int:
        return self.file.seek(offset)

    def tell(self) -> int:
        return self.file.tell()


def _check(problem: str) -> None:
    """Raises _TooLargeError for what `Limits.excess` says."""
    if problem:
        raise _TooLargeError(problem)


@lru_cache(maxsize=8)
def _index(tar: str, size: int, version: int, limits: Limits) -> Archive:
    """As `index`; `version` only tells one state of the file from another."""
    members: dict[str, Member] = {}
    escaping: list[str] = []
    problem, reason = None, "unreadable_data"
    with open(tar, "rb") as file:
        try:
            for number, info in enumerate(_headers(file, limits), 1):
                _check(limits.excess("max_files", number, "files and folders"))
                _sort_in(info, size, members, escaping)
        except (_TooLargeError, *DAMAGED) as e:
            # What stands before the damage can be read, and is kept
            problem = f"{str(e) or type(e).__name__}; {len(members)} files before it can be read"
            reason = "over_limit" if isinstance(e, _TooLargeError) else reason
    return Archive(members, tuple(escaping), problem, reason)


def _headers(file: BinaryIO, limits: Limits) -> Iterator[tarfile.TarInfo]:
    """The headers of an archive up to its end mark. Raises _TooLargeError and DAMAGED."""
    limited = _Headers(file, limits)
    with tarfile.open(fileobj=cast(IO[bytes], limited), mode="r:") as archive:
        while (info := archive.next()) is not None:
            cast(Any, archive).members.clear()  # tarfile would keep every header of a million
            limited.read_bytes = 0
            # Reading would go back to a header that was read before, and never end
            if info.size < 0 or archive.offset <= info.offset:
                raise tarfile.ReadError("a member claims a negative size")
            yield info
        # tarfile takes a damaged header for the end, which is a block of zeros
        file.seek(archive.offset)
        end = file.read(tarfile.BLOCKSIZE)
        if len(end) < tarfile.BLOCKSIZE or any(end):
            raise tarfile.ReadError(f"no header and no end mark at byte {archive.offset}")


def _sort_in(info: tarfile.TarInfo, tar_size: int, members: dict[str, Member], escaping: list[str]) -> None:
    """Put a member where it belongs: to the files, or to the names that are left out. Raises ReadError."""
    name = info.name.encode(errors="replace").decode()
    parts = [part for part in name.split("/") if part not in ("", ".")]
    # Hidden files are left out, as in a folder, and so are those in hidden folders
    if info.isdir() or any(map(_is_hidden, parts)):
        return
    # A name that is not UTF-8 was changed above: no table can keep it
    is_text = name == info.name
    if not (is_text and _stays_inside(name, parts) and info.isreg() and not info.issparse()):
        escaping.append(name)
    elif info.offset_data + info.size > tar_size:
        # A download that broke off ends within a member
        raise tarfile.ReadError(f"{name} claims {info.size} bytes, more than the file has")
    else:
        members["/".join(parts)] = Member(info.offset, info.size)


def _stays_inside(name: str, parts: list[str]) -> bool:
    return bool(parts) and not name.startswith("/") and ".." not in parts


def _is_hidden(part: str) -> bool:
    return part.startswith(".") and part != ".."


@contextmanager
def opened(tar: Path, member: str, limits: Limits = LIMITS) -> Iterator[IO[bytes]]:
    """A member's bytes, read in place. Raises ArchiveError; OSError when the tar is not there."""
    place = index(tar, limits).members.get(member)
    if place is None:
        raise ArchiveError(f"{tar.name} has no member {member}")
    # tarfile reads on from the header: the archive before it is not looked at again
    with tar.open("rb") as file:
        file.seek(place.offset)
        try:
            data = _first_member(file, place.size)
        except DAMAGED as e:
            raise ArchiveError(f"{tar.name}: {member} cannot be read ({e})") from e
        if data is None:
            raise ArchiveError(f"{tar.name}: {member} is not where it was")
        yield data


def _first_member(file: BinaryIO, size: int) -> IO[bytes] | None:
    """The bytes of the member whose header the file stands at; None for one of another size. Raises DAMAGED."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        info = archive.next()
        return archive.extractfile(info) if info and info.size == size else None


def extract(tar: Path, member: str, cache: Path, limits: Limits = LIMITS) -> Path:
    """A copy of one member in the folder `cache`, made once. Raises ArchiveError, and OSError, as for a full disk."""
    path = cache / _cached_name(tar, member)
    # A copy that is there gets a new time, by which _trim knows what was used last
    try:
        os.utime(path)
        return path
    except FileNotFoundError:
        pass
    # Several processes may unpack the member: each writes a file of its own, which takes the name when whole
    with opened(tar, member, limits) as data, whole_file(path, synced=False) as half, half.open("wb") as out:
        try:
            shutil.copyfileobj(data, out, COPY_BYTES)
        except tarfile.TarError as e:
            raise ArchiveError(f"{tar.name}: {member} breaks off ({e})") from e
    _trim(cache, path, limits.max_unpacked_bytes)
    return path


def _cached_name(tar: Path, member: str) -> str:
    """Another one for another state of the archive; with the member's suffix, by which readers know formats."""
    s = tar.stat()
    key = "\0".join([str(tar), str(s.st_size), str(s.st_mtime_ns), member])
    # What a member is called is not trusted: only a plain suffix becomes part of a path
    suffix = PurePosixPath(member).suffix
    suffix = suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix) else ""
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest() + suffix


def _trim(cache: Path, keep: Path, most_bytes: int) -> None:
    """Delete the members used longest ago, so that a whole dataset is never unpacked twice over."""
    copies = sorted(_copies(cache))
    excess = sum(copy.size for copy in copies) - most_bytes
    for copy in copies:
        if excess <= 0:
            break
        if copy.path != keep and not copy.path.name.startswith(HALF_FILE):
            copy.path.unlink(missing_ok=True)
            excess -= copy.size


class _Copy(NamedTuple):
    used_ns: int
    size: int
    path: Path


def _copies(cache: Path) -> Iterator[_Copy]:
    for path in cache.iterdir():
        try:
            s = path.stat()
        except FileNotFoundError:
            continue  # another process was first
        yield _Copy(s.st_mtime_ns, s.st_size, path)


@cache
def scratch() -> Path:
    """A folder of this process, gone when it ends."""
    folder = ScratchFolder()
    # not atexit: worker processes of multiprocessing leave without running it
    Finalize(None, folder.close, exitpriority=0)
    return folder.path

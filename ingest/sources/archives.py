"""Members of tar archives, read one by one and in place; a member's uri is `<uri of the tar>!/<name>`.

For uncompressed tars only: their members are found by skipping from header to header. What an archive says is not
trusted: a name never becomes a path, and headers are read under a limit.
"""

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from multiprocessing.util import Finalize
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, NamedTuple, cast

MAX_HEADER_BYTES = 1 << 20  # one member's headers; long names and extended ones take a few hundred
MAX_UNPACKED_BYTES = 16 << 30  # kept of unpacked members; the ones used longest ago go first
# What tarfile lets through for damaged headers
DAMAGED = (tarfile.TarError, OSError, ValueError, LookupError, ArithmeticError, TypeError, RecursionError)


class ArchiveError(Exception):
    """An archive that is damaged where a member should be, or that does not hold it."""


class Member(NamedTuple):
    offset: int  # of its header
    size: int


class Archive(NamedTuple):
    """Plain files of a tar by normalised name; what was left out; why reading stopped early, if it did."""

    members: dict[str, Member]
    escaping: tuple[str, ...]  # names that lead out of the archive, links, devices, sparse files
    problem: str | None


def split(uri: str) -> tuple[str, str] | None:
    """(uri of the tar, name of the member); None for a uri of a file."""
    tar, mark, member = uri.partition(".tar!/")
    return (f"{tar}.tar", member) if mark and member else None


def index(tar: Path) -> Archive:
    """What a tar holds; remembered for the last few. Raises OSError when it is not there."""
    s = tar.stat()
    return _index(str(tar), s.st_size, s.st_mtime_ns)


class _Headers:
    """A file that hands out no more than `left` bytes: a header may claim to be as long as it likes."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.left = file, MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        self.left -= size
        if size < 0 or self.left < 0:
            raise tarfile.ReadError("a header is too long")
        return self.file.read(size)

    def seek(self, offset: int) -> int:
        return self.file.seek(offset)

    def tell(self) -> int:
        return self.file.tell()


@lru_cache(maxsize=8)
def _index(tar: str, size: int, version: int) -> Archive:
    members: dict[str, Member] = {}
    escaping: list[str] = []
    problem = None
    with open(tar, "rb") as file:
        headers = _Headers(file)
        try:
            with tarfile.open(fileobj=cast(IO[bytes], headers), mode="r:") as archive:
                while (info := archive.next()) is not None:
                    cast(Any, archive).members.clear()  # tarfile would keep every header of a million
                    headers.left = MAX_HEADER_BYTES
                    if info.size < 0 or archive.offset <= info.offset:
                        raise tarfile.ReadError("a member claims a negative size")
                    _sort_in(info, size, members, escaping)
                file.seek(archive.offset)  # tarfile takes a damaged header for the end
                if len(end := file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE or any(end):
                    raise tarfile.ReadError(f"no header and no end mark at byte {archive.offset}")
        except DAMAGED as e:
            problem = f"{str(e) or type(e).__name__}; {len(members)} files before it can be read"
    return Archive(members, tuple(escaping), problem)


def _sort_in(info: tarfile.TarInfo, tar_size: int, members: dict[str, Member], escaping: list[str]) -> None:
    shown = info.name.encode(errors="replace").decode()
    parts = [p for p in shown.split("/") if p not in ("", ".")]
    if info.isdir() or any(p.startswith(".") and p != ".." for p in parts):
        return  # hidden ones are left out as in a folder
    plain = info.isreg() and not info.issparse()
    if not plain or shown != info.name or shown.startswith("/") or ".." in parts or not parts:
        escaping.append(shown)
    elif info.offset_data + info.size > tar_size:
        raise tarfile.ReadError(f"{shown} claims {info.size} bytes, more than the file has")
    else:
        members["/".join(parts)] = Member(info.offset, info.size)


@contextmanager
def opened(tar: Path, member: str) -> Iterator[IO[bytes]]:
    """A member's bytes, read in place. Raises ArchiveError; OSError when the tar is not there."""
    found = index(tar).members.get(member)
    if found is None:
        raise ArchiveError(f"{tar.name} has no member {member}")
    with tar.open("rb") as file:
        file.seek(found.offset)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                info = archive.next()
                data = archive.extractfile(info) if info and info.size == found.size else None
        except DAMAGED as e:
            raise ArchiveError(f"{tar.name}: {member} cannot be read ({e})") from e
        if data is None:
            raise ArchiveError(f"{tar.name}: {member} is not where it was")
        yield data


def extract(tar: Path, member: str, cache: Path) -> Path:
    """A copy of one member in the folder `cache`, made once. Raises ArchiveError, and OSError, as for a full disk."""
    s = tar.stat()
    key = "\0".join([str(tar), str(s.st_size), str(s.st_mtime_ns), member])
    suffix = PurePosixPath(member).suffix
    suffix = suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix) else ""
    path = cache / (hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest() + suffix)
    try:
        os.utime(path)  # in use
        return path
    except FileNotFoundError:
        pass
    with opened(tar, member) as data:
        cache.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=cache, suffix=".part")
        try:
            with open(handle, "wb") as out:
                try:
                    shutil.copyfileobj(data, out, 1 << 20)
                except tarfile.TarError as e:
                    raise ArchiveError(f"{tar.name}: {member} breaks off ({e})") from e
            os.replace(part, path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
    _trim(cache, path)
    return path


def _trim(cache: Path, keep: Path) -> None:
    """Delete the members used longest ago, so that a whole dataset is never unpacked twice over."""
    known = []
    for path in cache.iterdir():
        try:
            s = path.stat()
        except FileNotFoundError:
            continue  # another process was first
        known.append((s.st_mtime_ns, s.st_size, path))
    excess = sum(size for _, size, _ in known) - MAX_UNPACKED_BYTES
    for _, size, path in sorted(known):
        if excess <= 0:
            break
        if path != keep and path.suffix != ".part":
            path.unlink(missing_ok=True)
            excess -= size


@cache
def scratch() -> Path:
    """A folder of this process, gone when it ends."""
    folder = tempfile.mkdtemp(prefix="proccorpus-")
    # not atexit: worker processes of multiprocessing leave without running it
    Finalize(None, shutil.rmtree, (folder, True), exitpriority=0)
    return Path(folder)

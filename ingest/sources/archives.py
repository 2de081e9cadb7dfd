"""Members of tar archives, read one by one and in place; a member's uri is `<uri of the tar>!/<name>`.

For uncompressed tars only: their members are found by skipping from header to header. What an archive says is not
trusted: a name never becomes a path.
"""

import hashlib
import os
import re
import tarfile
from contextlib import suppress
from functools import cache, lru_cache
from multiprocessing.util import Finalize
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from core.files import HALF_FILE, ScratchFolder, whole_file
from ingest.limits import LIMITS, Limits
from ingest.reasons import DataError

COPY_BYTES = 1 << 20
# What tarfile lets through for damaged headers
DAMAGED = (tarfile.TarError, OSError, ValueError, LookupError, ArithmeticError, TypeError, RecursionError, MemoryError)
DAMAGED += (DataError,)


class Member(NamedTuple):
    offset: int
    size: int


class Archive(NamedTuple):
    """Plain files of a tar by normalised name; what was left out; why reading stopped early, if it did."""

    members: dict[str, Member]
    escaping: list[str]  # names that lead out of the archive, links, devices, sparse files
    problem: DataError | None


def split(uri: str) -> tuple[str, str] | None:
    """(uri of the tar, name of the member); None for a uri of a file."""
    tar, mark, member = uri.partition(".tar!/")
    return (f"{tar}.tar", member) if mark and member else None


def index(tar: Path, limits: Limits = LIMITS) -> Archive:
    """What a tar holds; remembered for the last few. Raises OSError when it is not there."""
    s = tar.stat()
    return _index(tar, s.st_size, s.st_mtime_ns, limits)


@lru_cache(maxsize=8)
def _index(tar: Path, size: int, version: int, limits: Limits) -> Archive:
    """As `index`; `version` only tells one state of the file from another."""
    members: dict[str, Member] = {}
    escaping: list[str] = []
    try:
        with tar.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for number, info in enumerate(iter(archive.next, None), 1):
                limits.check("max_files", number, "files and folders")
                # Reading would go back to a header that was read before, and never end
                if info.size < 0 or archive.offset <= info.offset:
                    raise tarfile.ReadError("a member claims a negative size")
                _sort_in(info, size, members, escaping)
            # tarfile takes a damaged header for the end, which is a block of zeros
            file.seek(archive.offset)
            end = file.read(tarfile.BLOCKSIZE)
            if len(end) < tarfile.BLOCKSIZE or any(end):
                raise tarfile.ReadError(f"no header and no end mark at byte {archive.offset}")
    except DAMAGED as e:
        # What stands before the damage can be read, and is kept
        problem = f"{str(e) or type(e).__name__}; {len(members)} files before it can be read"
        return Archive(members, escaping, DataError(problem, getattr(e, "reason", "unreadable_data")))
    return Archive(members, escaping, None)


def _sort_in(info: tarfile.TarInfo, tar_size: int, members: dict[str, Member], escaping: list[str]) -> None:
    """Put a member where it belongs: to the files, or to the names that are left out. Raises ReadError."""
    # A name that is not UTF-8 is changed: no table can keep it
    name = info.name.encode(errors="replace").decode()
    parts = [part for part in name.split("/") if part not in ("", ".")]
    # Hidden files are left out, as in a folder, and so are those in hidden folders
    if info.isdir() or any(part.startswith(".") and part != ".." for part in parts):
        return
    stays_inside = bool(parts) and not name.startswith("/") and ".." not in parts
    if name != info.name or not stays_inside or not info.isreg() or info.issparse():
        escaping.append(name)
    elif info.offset_data + info.size > tar_size:
        # A download that broke off ends within a member
        raise tarfile.ReadError(f"{name} claims {info.size} bytes, more than the file has")
    else:
        members["/".join(parts)] = Member(info.offset_data, info.size)


def member_of(tar: Path, name: str, limits: Limits = LIMITS) -> Member:
    """Where a member's bytes are. Raises DataError; OSError when the tar is not there."""
    member = index(tar, limits).members.get(name)
    if member is None:
        raise DataError(f"{tar.name} has no member {name}")
    return member


def extract(tar: Path, name: str, cache: Path, limits: Limits = LIMITS) -> Path:
    """A copy of one member in the folder `cache`, made once. Raises DataError, and OSError, as for a full disk."""
    # Another file for another state of the archive. What a member is called is not trusted: only a plain suffix, by
    # which readers know formats, becomes part of a path
    s = tar.stat()
    key = "\0".join([str(tar), str(s.st_size), str(s.st_mtime_ns), name])
    suffix = PurePosixPath(name).suffix
    suffix = suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix) else ""
    path = cache / (hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest() + suffix)
    # A copy that is there gets a new time, by which _trim knows what was used last
    with suppress(FileNotFoundError):
        os.utime(path)
        return path
    member = member_of(tar, name, limits)
    # Several processes may unpack the member: each writes a file of its own, which takes the name when whole
    with tar.open("rb") as file, whole_file(path, synced=False) as half, half.open("wb") as out:
        file.seek(member.offset)
        while (left := member.size - out.tell()) > 0:
            if not (block := file.read(min(left, COPY_BYTES))):
                raise DataError(f"{tar.name}: {name} breaks off")
            out.write(block)
    _trim(cache, path, limits.max_unpacked_bytes)
    return path


def _trim(cache: Path, keep: Path, most_bytes: int) -> None:
    """Delete the members used longest ago, so that a whole dataset is never unpacked twice over."""
    copies: list[tuple[int, int, Path]] = []
    for path in cache.iterdir():
        with suppress(FileNotFoundError):  # another process was first
            copies.append(((s := path.stat()).st_mtime_ns, s.st_size, path))
    excess = sum(size for _, size, _ in copies) - most_bytes
    for _, size, path in sorted(copies):
        if excess > 0 and path != keep and not path.name.startswith(HALF_FILE):
            path.unlink(missing_ok=True)
            excess -= size


@cache
def scratch() -> Path:
    """A folder of this process, gone when it ends."""
    folder = ScratchFolder()
    # not atexit: worker processes of multiprocessing leave without running it
    Finalize(None, folder.close, exitpriority=0)
    return folder.path

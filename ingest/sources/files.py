"""The files of a dataset, here or elsewhere: listed once, and never reached outside the dataset's root."""

import hashlib
import io
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache, wraps
from itertools import chain
from multiprocessing.util import Finalize
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, NoReturn
from urllib.parse import quote

from core.files import HALF_FILE, ScratchFolder, open_whole
from core.values import grouped, short_hash
from ingest.reasons import LIMITS, DataError, Limits
from ingest.registry import DatasetConfig
from ingest.sources.types import FileStat, SourceError, folders_above, refuse_pointer

DOWNLOADS = 8  # at once, by one process
# How folders begin that are no data; each disk has the second, for its administrator
HIDDEN = (".", "lost+found")
NO_RIGHTS = " without rights"  # behind the version of a file that may not be read
COPY_BYTES = 1 << 20
# What tarfile lets through for damaged headers
DAMAGED = (
    tarfile.TarError,
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    RecursionError,
    MemoryError,
)
DAMAGED += (DataError,)


# Members of tar archives


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
    if mark and member:
        return (f"{tar}.tar", member)
    return None


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
        return Archive(
            members, escaping, DataError(problem, getattr(e, "reason", "unreadable_data"))
        )
    return Archive(members, escaping, None)


def _sort_in(
    info: tarfile.TarInfo, tar_size: int, members: dict[str, Member], escaping: list[str]
) -> None:
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
    # A copy that is there gets a new time, by which `trim` knows what was used last
    with suppress(FileNotFoundError):
        os.utime(path)
        return path
    member = member_of(tar, name, limits)
    # Several processes may unpack the member: each writes a file of its own, which takes the name when whole
    with tar.open("rb") as file, open_whole(path, synced=False) as out:
        file.seek(member.offset)
        while (num_bytes_left := member.size - out.tell()) > 0:
            if not (block := file.read(min(num_bytes_left, COPY_BYTES))):
                raise DataError(f"{tar.name}: {name} breaks off")
            out.write(block)
    trim(cache, path, limits.max_unpacked_bytes)
    return path


def trim(cache: Path, keep: Path, most_bytes: int) -> None:
    """Delete the members used longest ago, so that a whole dataset is never unpacked twice over."""
    copies: list[tuple[int, int, Path]] = []
    for entry in os.scandir(cache):
        with suppress(FileNotFoundError):  # another process was first
            copies.append(((s := entry.stat()).st_mtime_ns, s.st_size, Path(entry)))
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


# Sources


@dataclass
class FolderContents:
    """What lies below a root, by paths relative to it.

    escaping: links that lead out of the root, and what was left out of archives looked into. unnameable: files and
    folders whose names are not UTF-8, as they can be shown; they are left out.
    """

    files: dict[str, FileStat] = field(default_factory=dict)  # sorted
    escaping: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)  # a local one may be empty
    unnameable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """A dataset's root folder (or its single file) with its registry entry.

    `selected`: the only episodes asked for, so that no more than their files need be there.
    `cache`: where the files of a remote source are kept once fetched. `listed`: the fingerprint of
    a remote source as this cache knows it, so that the network is not asked what is there now.
    `decoding_threads`: for each of its videos, of those readers that use several.

    `noted`: what readers keep of what the files show, by name, or by `once`. `read_files`: files, and
    members of tars, that were opened, or that an episode's stamp rests on.
    `indexed_tars`: those whose members were looked at.
    """

    config: DatasetConfig
    selected: frozenset[int] | None = None
    cache: Path | None = None
    listed: str | None = None
    decoding_threads: int = 1
    noted: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    read_files: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    indexed_tars: dict[str, Archive] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @cached_property
    def remote(self) -> Any:
        """The `Remote` of a source that is not on this machine; None of another."""
        if not self.config.is_remote:
            return None
        if self.cache is None:
            raise SourceError(
                f"{self.config.source} is not on this machine: give a folder to fetch its files to (Source's cache)"
            )
        # The clients of hub and buckets take a second to import
        from ingest.sources.remote import Remote

        return Remote(self.config, self.cache, self.listed)

    @property
    def revision(self) -> str | None:
        """The commit of a hub's dataset that is read."""
        if self.remote and self.config.is_on_hub:
            return self.remote.version
        return self.config.revision

    @property
    def path(self) -> Path:
        if self.remote:
            return self.remote.cache
        return Path(self.config.source)

    @cached_property
    def root(self) -> Path:
        """What uris are relative to."""
        if self.path.is_file():
            return self.path.parent
        return self.path

    @cached_property
    def _real_root(self) -> str:
        """The root without links."""
        return os.path.realpath(self.root)

    @property
    def files(self) -> dict[str, FileStat]:
        """Every file by its path relative to the root, sorted; hidden files and folders are left out.

        Raises SourceError.
        """
        return self.contents.files

    @cached_property
    def contents(self) -> FolderContents:
        """What lies below the root. Raises SourceError."""
        if self.remote:
            files = self.remote.listing.files
            folders = set(chain.from_iterable(map(folders_above, files))) - {""}
            return FolderContents(files, self.remote.listing.escaping, folders)
        if not self.path.exists():
            raise SourceError(f"no such file or folder: {self.path}")
        if self.path.is_file():
            return FolderContents({self.path.name: _stat(os.stat(self.path), self.path)})
        return _walk(self.path)

    @cached_property
    def by_name(self) -> dict[str, list[str]]:
        """Relative paths by file name."""
        return grouped((uri.rsplit("/", 1)[-1], uri) for uri in self.files)

    def archive(self, uri: str) -> Archive:
        """What a tar file of this source holds, found by reading its headers. Raises as `resolve` does, and OSError."""
        archive = index(self.resolve(uri), self.config.limits)
        self.indexed_tars[uri] = archive
        escaping_uris = [f"{uri}!/{name}" for name in archive.escaping]
        self.contents.escaping = list(dict.fromkeys([*self.contents.escaping, *escaping_uris]))
        return archive

    def resolve(self, uri: str) -> Path:
        """The path of a file of this source, which is fetched first if need be.

        A member of a tar file (`a/b.tar!/name`) is unpacked, alone; DataError where the tar is
        damaged there. Raises SourceError for one outside the root, and its DownloadError for one
        that cannot be fetched.
        """
        self.read_files.add(uri)
        if tar_place := self._inside_tar(uri):
            tar_uri, member = tar_place
            tar = self.resolve(tar_uri)
            try:
                cache = self.cache / ".unpacked" if self.cache else scratch()
                return extract(tar, member, cache, self.config.limits)
            except OSError as e:
                raise SourceError(f"cannot unpack {member} of {tar_uri}: {e.strerror}") from e
        # A uri may come from the dataset's own metadata, which may name any place
        path = self.root / uri
        if not _inside(path, self._real_root):
            raise SourceError(f"{uri} lies outside the dataset's folder {self.root}")
        if self.remote:
            self.remote.fetch(uri)
        return path

    def fetch(self, uris: Iterable[str]) -> None:
        """Have files of a remote source on this machine, several being fetched at a time. Raises as `resolve` does."""
        if not self.remote:
            return
        # The first file that cannot be fetched ends it: those that wait are not begun
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            try:
                list(pool.map(self.resolve, uris))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def open(self, uri: str) -> IO[bytes]:
        """A file, or a tar's member, read in place. Raises SourceError, OSError, DataError, also for LFS pointers."""
        pointer_problem = f"{uri} is a git-LFS pointer, not the file"
        self.read_files.add(uri)
        if tar_place := self._inside_tar(uri):
            tar = self.resolve(tar_place[0])
            member = member_of(tar, tar_place[1], self.config.limits)
            with tar.open("rb") as whole:
                whole.seek(member.offset)
                content = whole.read(member.size)
            refuse_pointer(content, pointer_problem)
            return io.BytesIO(content)
        path = self.resolve(uri)
        with path.open("rb") as file:
            refuse_pointer(file.read(64), pointer_problem)
        return path.open("rb")

    def _inside_tar(self, uri: str) -> tuple[str, str] | None:
        tar_place = split(uri)
        if tar_place and tar_place[0] in self.files:
            return tar_place
        return None

    def size(self, uri: str) -> int | None:
        """Bytes of a file or of a member; None for what is not there."""
        if tar_place := self._inside_tar(uri):
            file = self.archive(tar_place[0]).members.get(tar_place[1])
        else:
            file = self.files.get(uri)
        return None if file is None else file.size

    def state(self, uri: str) -> FileStat | None:
        """Size and version of a file as it is now, `files` has them as they were; None for one that is gone."""
        if self.remote:
            return self.files.get(uri)
        path = self.root / uri
        return _stat(os.stat(path), path) if path.exists() else None

    def stamp(self, uris: list[str], num_rows: int | None) -> str:
        """Sizes of some files and a row count, hashed: the part of an episode's identity that metadata shows."""
        self.read_files.update(uris)
        sizes = {uri: self.size(uri) for uri in sorted(set(uris))}
        lines = [f"{uri} {size}" for uri, size in sizes.items() if size is not None]
        return short_hash("\n".join([*lines, str(num_rows)]))

    def fingerprint(self) -> str:
        """Changes when any file is added, removed, resized or rewritten; of a hub's dataset it is the commit."""
        if self.remote:
            return self.remote.version
        h = hashlib.sha256()
        for uri, file_stat in self.files.items():
            h.update(f"{uri}\0{file_stat.size}\0{file_stat.version}\n".encode())
        return h.hexdigest()


def cache_folder(sources: Path, config: DatasetConfig) -> Path:
    """Where the files of a remote dataset are kept, below the folder of those of all datasets."""
    return sources / config.name / quote(config.revision or "current", safe="").replace(".", "%2E")


def _walk(root: Path) -> FolderContents:
    contents = FolderContents()
    real_root = os.path.realpath(root)
    for folder, folders, files in os.walk(root, onerror=_refuse):
        folder_prefix = f"{Path(folder).relative_to(root).as_posix()}/".removeprefix("./")
        # No table can keep a name that is no text: the file, or all that is below the folder, is left out
        contents.unnameable += [
            folder_prefix + _shown(name)
            for name in sorted((*folders, *files))
            if _shown(name) != name
        ]
        # os.walk goes on with what is left in its list, and follows no links
        folders[:] = sorted(
            name for name in folders if not name.startswith(HIDDEN) and _shown(name) == name
        )
        for name in sorted(
            name for name in files if not name.startswith(".") and _shown(name) == name
        ):
            path = os.path.join(folder, name)
            try:
                s = os.lstat(path)
                if stat.S_ISLNK(s.st_mode) and _inside(path, real_root):
                    s = os.stat(path)
            except OSError:
                continue  # a link that leads nowhere, or what is there no more
            if stat.S_ISLNK(s.st_mode):
                contents.escaping.append(folder_prefix + name)
            elif stat.S_ISREG(s.st_mode):
                contents.files[folder_prefix + name] = _stat(s, path)
        contents.folders.update(folder_prefix + name for name in folders)
        contents.escaping += [
            folder_prefix + name
            for name in folders
            if not _inside(os.path.join(folder, name), real_root)
        ]
    return contents


def _refuse(e: OSError) -> NoReturn:
    raise SourceError(f"cannot look into {e.filename}: {e.strerror}") from e


def _stat(s: os.stat_result, path: str | Path) -> FileStat:
    # To be given rights changes no time of a file: what was read without them is not current then
    rights = "" if s.st_mode & stat.S_IROTH or os.access(path, os.R_OK) else NO_RIGHTS
    return FileStat(s.st_size, f"{s.st_mtime_ns}{rights}")


def _shown(name: str) -> str:
    """A file's name as text; another one where it is none, which no table could keep."""
    return os.fsencode(name).decode(errors="replace")


def _inside(path: Path | str, real_root: str) -> bool:
    real = os.path.realpath(path)
    return real == real_root or real.startswith(real_root.rstrip(os.sep) + os.sep)


def once[R, *Keys](ask: Callable[[Source, *Keys], R]) -> Callable[[Source, *Keys], R]:
    """A function whose answers about a source are kept with it."""

    @wraps(ask)
    def answer(source: Source, *keys: *Keys) -> R:
        question = (ask.__module__, ask.__name__, *keys)
        if question not in source.noted:
            source.noted[question] = ask(source, *keys)
        return source.noted[question]

    return answer

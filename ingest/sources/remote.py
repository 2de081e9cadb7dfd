"""The files of a dataset that lies elsewhere: listed once per version, and each fetched when it is asked for.

The cache folder holds `<uri>` of what was fetched, and what belongs to it in `.fetch/` (no uri begins with a dot). A
file under its final name is whole and was checked; one of an earlier version is fetched again.
"""

import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from core.files import write_file
from ingest.registry import DatasetConfig
from ingest.sources.hosts import Host, HostError, TooLargeError, hash_matches, open_host
from ingest.sources.types import DownloadError, FileStat, SourceError

STATE = ".fetch"
TRIES = 5  # in a row, without PROGRESS_BYTES between them
PROGRESS_BYTES = 1 << 16
WAIT_S, MAX_WAIT_S = 1.0, 300.0  # after a failure; doubled each time, or as long as the host says
BUSY = (408, 425, 429, 500, 502, 503, 504)
LOCAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG}
LOCAL |= {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


@dataclass(frozen=True)
class RemoteListing:
    version: str  # a commit, or a hash of `files`
    files: dict[str, FileStat]  # sorted
    escaping: list[str]  # names that lead out of the root


@dataclass(frozen=True)
class Remote:
    """A remote source at one version: `listed` (which this cache has a listing of), else what is there now."""

    config: DatasetConfig
    cache: Path
    listed: str | None = None

    @cached_property
    def host(self) -> Host:
        config = self.config
        commit = self.listed if config.is_on_hub else None
        return open_host(config.source, commit or config.revision, config.limits)

    @property
    def version(self) -> str:
        """Changes with any file: a commit, or a hash of the listing."""
        return self.listed or self._commit or self.listing.version

    @cached_property
    def _commit(self) -> str | None:
        with self._asking("its revision"):
            return self._retried(self.host.commit)

    @cached_property
    def listing(self) -> RemoteListing:
        """Every file by its path below the address; stored, so a known version is listed without a network."""
        # Of a bucket or a web server the version is only known once its files are listed
        known_version = self.listed or self._commit
        stored = self._stored(known_version) if known_version else None
        if stored:
            return stored
        with self._asking("the list of its files"):
            return self._listed_now()

    def _listed_now(self) -> RemoteListing:
        """What the host lists; stored under its version."""
        listed = self._retried(self.host.files)
        # What a host says is not trusted: no name may lead out of the cache
        files = {uri: listed[uri] for uri in sorted(listed) if _is_plain(uri)}
        escaping = sorted(uri for uri in listed if ".." in uri.split("/") or uri.startswith("/"))
        text = json.dumps([files, escaping])
        version = self._commit or hashlib.sha256(text.encode()).hexdigest()
        _write(self._listing_path(version), text)
        return RemoteListing(version, files, escaping)

    def _stored(self, version: str) -> RemoteListing | None:
        try:
            files, escaping = json.loads(self._listing_path(version).read_text())
        except (OSError, ValueError):
            return None
        return RemoteListing(version, {uri: FileStat(*known) for uri, known in files.items()}, escaping)

    def _listing_path(self, version: str) -> Path:
        return self.cache / STATE / f"{_short(self.config.source, version)}.json"

    # Fetching

    def fetch(self, uri: str) -> None:
        """Have a file whole in the cache. Raises DownloadError."""
        known = self._listed(uri)
        path, state = self.cache / uri, self.cache / STATE / _short(uri)
        # A file that is there needs no lock
        if _is_marked(path, state, known):
            return
        with self._asking(uri):
            state.parent.mkdir(parents=True, exist_ok=True)
            # Several processes may want the file: one fetches it, the others wait and find its mark
            from filelock import FileLock  # here: most sources are folders

            with FileLock(f"{state}.lock"):
                if not _is_marked(path, state, known):
                    self._fetch_locked(uri, path, state, known)

    def _listed(self, uri: str) -> FileStat:
        known = self.listing.files.get(uri)
        if known is None:
            raise DownloadError(f"{self.config.name}: {self.config.source} has no file {uri}; run the build again")
        return known

    def _fetch_locked(self, uri: str, path: Path, state: Path, known: FileStat) -> None:
        # A file without a mark may be whole, as after a crash, or when the cache was copied here
        is_there = path.is_file() and path.stat().st_size == known.size
        if not is_there or not hash_matches(path, known.version):
            # A name of its own per version: what one attempt left, the next one goes on with
            partial = state.with_name(f"{_short(self.config.source, uri, known.version)}.partial")
            self._complete(partial, uri, known)
            path.parent.mkdir(parents=True, exist_ok=True)
            state.unlink(missing_ok=True)  # first, or a crash would leave the new file with the old mark
            os.replace(partial, path)
        _mark(state, known)

    def _complete(self, partial: Path, uri: str, known: FileStat) -> None:
        """Fetch what is lacking and check all of it; once more from the start when that fails."""
        for _ in range(2):
            self._download(partial, uri, known)
            if partial.stat().st_size == known.size and self.host.matches(partial, uri, known):
                return
            partial.unlink()
        raise HostError("what arrived is not what was listed (its hash differs), twice; it was thrown away")

    def _download(self, partial: Path, uri: str, known: FileStat) -> None:
        """Fetch what a partial file lacks, in as many attempts as it takes while it grows."""
        self._retried(lambda: self._go_on(partial, uri, known), lambda: _size(partial))

    def _go_on(self, partial: Path, uri: str, known: FileStat) -> None:
        """Raises HostError when the host's answer ends before the file."""
        with partial.open("ab") as f:
            if f.tell() < known.size:
                _append(f, self.host.read(uri, f.tell(), known.size), known.size)
            f.flush()
            os.fsync(f.fileno())
            if f.tell() < known.size:
                raise HostError(f"the connection ended after {f.tell()} of {known.size} bytes", 408)

    def _retried[T](self, do: Callable[[], T], size: Callable[[], int] = lambda: 0) -> T:
        """What `do` returns; a host that is busy or out of reach is asked again, as long as `size` grows in between."""
        tries, size_before = 0, size()
        while True:
            try:
                return do()
            except Exception as e:
                # A wrong address, or a permission that is lacking, does not pass by waiting
                if not _may_pass(e):
                    raise
                error = e
            # Tries count from the last progress
            tries += 1
            size_now = size()
            if size_now >= size_before + PROGRESS_BYTES:
                tries, size_before = 1, size_now
            if tries >= TRIES:
                raise error
            time.sleep(_wait_s(error, tries))

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Whatever a client raises meanwhile is a DownloadError that says what to do."""
        try:
            yield
        except SourceError:
            # It says already what to do
            raise
        except Exception as e:
            cause = " ".join(str(e).split()) or type(e).__name__
            where = f"{self.config.name}: cannot fetch {what} from {self.config.source}"
            at = f" at revision {self.config.revision}" if self.config.revision else ""
            raise DownloadError(f"{where}{at}: {cause}; {self._remedy(e)}") from e

    def _remedy(self, e: Exception) -> str:
        status = e.status if isinstance(e, HostError) else None
        if _is_offline(e):
            return "unset HF_HUB_OFFLINE: only a commit (no branch) whose files were all fetched needs no network"
        if isinstance(e, OSError) and e.errno in LOCAL:
            return f"see to the folder {self.cache} (space, permission, names), and run the build again: it resumes"
        if isinstance(e, TooLargeError):
            return "where it is meant to be so large, raise that limit in its registry entry (limits)"
        if status in (401, 403) or isinstance(e, PermissionError):
            return self.host.credentials
        if status == 404 or isinstance(e, FileNotFoundError):
            return "check the address, and the revision if it has one"
        return "run the build again: it resumes where it stopped"


def _append(f: BinaryIO, blocks: Iterable[bytes], size: int) -> None:
    """Write blocks until a file has so many bytes; a host may send more."""
    for block in blocks:
        f.write(block[: size - f.tell()])
        if f.tell() == size:
            break


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _wait_s(error: Exception, tries: int) -> float:
    """How long to wait after so many tries: as long as the host says, else doubled each time."""
    stated_s = error.retry_after_s if isinstance(error, HostError) else None
    return min(WAIT_S * 2 ** (tries - 1) if stated_s is None else stated_s, MAX_WAIT_S)


def _is_plain(uri: str) -> bool:
    """No hidden file or folder, as with local ones, no path that leads elsewhere, no name that no disk can hold."""
    if re.search("[\0\ud800-\udfff]", uri):
        return False
    return all(part and not part.startswith(".") for part in uri.split("/"))


def _may_pass(e: Exception) -> bool:
    """Is it worth asking again? (Clients of buckets ask again by themselves.)"""
    if isinstance(e, HostError):
        return e.status in BUSY
    import httpx  # late: builds of local sources need no client

    may_pass = isinstance(e, httpx.TransportError | ConnectionError | TimeoutError)
    return may_pass and not _is_offline(e)


def _is_offline(e: Exception) -> bool:
    """Was it the hub's client that refused, because it was told to use no network?"""
    from huggingface_hub.errors import OfflineModeIsEnabled

    return isinstance(e, OfflineModeIsEnabled)


def _short(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _is_marked(path: Path, state: Path, known: FileStat) -> bool:
    try:
        return path.stat().st_size == known.size and state.read_text() == known.version
    except (OSError, ValueError):
        return False


def _mark(state: Path, known: FileStat) -> None:
    _write(state, known.version)


def _write(path: Path, text: str) -> None:
    """A reader sees the whole text or none; a lost one is made again."""
    write_file(path, text.encode(), synced=False)

"""The files of a dataset that lies elsewhere: listed once per version, and each fetched when it is asked for.

The cache folder holds `<uri>` of what was fetched, and what belongs to it in `.fetch/` (no uri
begins with a dot). A file under its final name is whole and was checked; one of an earlier version
is fetched again.
"""

import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from huggingface_hub.errors import OfflineModeIsEnabled

from core.files import write_file
from core.logs import TOLD
from ingest.reasons import DataError
from ingest.registry import DatasetConfig
from ingest.sources.hosts import (
    Bucket,
    HostError,
    Web,
    hash_matches,
    may_pass,
    message_and_status,
    open_host,
)
from ingest.sources.types import DownloadError, FileStat, SourceError

STATE = ".fetch"
TRIES = 5  # in a row, without PROGRESS_BYTES between them
PROGRESS_BYTES = 1 << 16
WAIT_S = 1.0  # after a failure; doubled each time
LOCAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG}
LOCAL |= {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


class RemoteListing(NamedTuple):
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
    def host(self) -> Bucket | Web:
        commit = self.listed if self.config.is_on_hub else None
        return open_host(self.config.source, commit or self.config.revision)

    @property
    def version(self) -> str:
        """Changes with any file: a commit, or a hash of the listing."""
        return self.listed or self._commit or self.listing.version

    @cached_property
    def _commit(self) -> str | None:
        with self._asking("its revision"):
            return _retried(self.config.source, self.host.commit)

    @cached_property
    def listing(self) -> RemoteListing:
        """Every file by its path below the address; stored, so a known version is listed without a network."""
        # Of a bucket or a web server the version is only known once its files are listed
        if known_version := self.listed or self._commit:
            with suppress(OSError, ValueError):  # not listed before, or half stored
                files, escaping = json.loads(self._listing_path(known_version).read_text())
                stats = {uri: FileStat(*stat_fields) for uri, stat_fields in files.items()}
                return RemoteListing(known_version, stats, escaping)
        with self._asking("the list of its files"):
            listed = _retried(self.config.source, lambda: dict(self.host.files(self.config.limits)))
            # What a host says is not trusted: no name may lead out of the cache
            files = {uri: listed[uri] for uri in sorted(filter(_is_plain, listed))}
            escaping = sorted(
                uri for uri in listed if ".." in uri.split("/") or uri.startswith("/")
            )
            text = json.dumps([files, escaping])
            version = self._commit or hashlib.sha256(text.encode()).hexdigest()
            write_file(self._listing_path(version), text.encode(), synced=False)
            return RemoteListing(version, files, escaping)

    def _listing_path(self, version: str) -> Path:
        return self.cache / STATE / f"{_short(self.config.source, version)}.json"

    def fetch(self, uri: str) -> None:
        """Have a file whole in the cache. Raises DownloadError."""
        file_stat = self.listing.files.get(uri)
        if file_stat is None:
            raise DownloadError(
                f"{self.config.name}: {self.config.source} has no file {uri}; run the same again"
            )
        path = self.cache / uri
        state = self.cache / STATE / _short(uri)
        # A file that is there needs no lock
        if _is_marked(path, state, file_stat):
            return
        with self._asking(uri):
            state.parent.mkdir(parents=True, exist_ok=True)
            # Several processes may want the file: one fetches it, the others wait and find its mark
            with FileLock(f"{state}.lock"):
                if _is_marked(path, state, file_stat):
                    return
                # A file without a mark may be whole, as after a crash, or when the cache was copied here
                is_there = path.is_file() and path.stat().st_size == file_stat.size
                if not is_there or not hash_matches(path, file_stat.version):
                    # A name of its own per version: what one attempt left, the next one goes on with
                    partial = state.with_name(
                        f"{_short(self.config.source, uri, file_stat.version)}.partial"
                    )
                    self._complete(partial, uri, file_stat)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    # First, or a crash would leave the new file with the old mark
                    state.unlink(missing_ok=True)
                    os.replace(partial, path)
                write_file(state, file_stat.version.encode(), synced=False)

    def _complete(self, partial: Path, uri: str, file_stat: FileStat) -> None:
        """Fetch what is lacking, in as many attempts as it takes, and check all of it; once more when that fails."""
        for _ in range(2):
            _retried(self.config.source, lambda: self._append(partial, uri, file_stat), partial)
            if partial.stat().st_size == file_stat.size and self.host.matches(
                partial, uri, file_stat
            ):
                return
            partial.unlink()
        raise HostError(
            "what arrived is not what was listed (its hash differs), twice; it was thrown away"
        )

    def _append(self, partial: Path, uri: str, file_stat: FileStat) -> None:
        """Raises HostError when the host's answer ends before the file. What it sends beyond the size is left out."""
        with partial.open("ab") as f:
            for block in (
                self.host.read(uri, file_stat, f.tell()) if f.tell() < file_stat.size else ()
            ):
                f.write(block[: file_stat.size - f.tell()])
                if f.tell() == file_stat.size:
                    break
            f.flush()
            os.fsync(f.fileno())
            if f.tell() < file_stat.size:
                raise HostError(
                    f"the connection ended after {f.tell()} of {file_stat.size} bytes", 408
                )

    @contextmanager
    def _asking(self, description: str) -> Iterator[None]:
        """Whatever a client raises meanwhile is a DownloadError that says what to do."""
        try:
            yield
        except SourceError:
            # It says already what to do
            raise
        except Exception as e:
            cause, status = message_and_status(e)
            failure = f"{self.config.name}: cannot fetch {description} from {self.config.source}"
            if self.config.revision:
                revision_note = f" at revision {self.config.revision}"
            else:
                revision_note = ""
            raise DownloadError(
                f"{failure}{revision_note}: {cause}; {self._remedy(e, status)}"
            ) from e

    def _remedy(self, e: Exception, status: int | None) -> str:
        full = f"see to the folder {self.cache} (space, permission, names), and run the same again: it resumes"
        offline = "unset HF_HUB_OFFLINE: only a commit (no branch) whose files were all fetched needs no network"
        larger = "where it is meant to be so large, raise that limit in its registry entry (limits)"
        remedies = (
            (isinstance(e, OfflineModeIsEnabled), offline),
            (isinstance(e, OSError) and e.errno in LOCAL, full),
            (isinstance(e, DataError), larger),
            (status in (401, 403) or isinstance(e, PermissionError), self.host.credentials),
            (
                status == 404 or isinstance(e, FileNotFoundError),
                "check the address, and the revision if it has one",
            ),
            (True, "see that it answers, and run the same again: it resumes where it stopped"),
        )
        return next(remedy for applies, remedy in remedies if applies)


def _retried[T](source: str, do: Callable[[], T], growing: Path | None = None) -> T:
    """What `do` returns; a host that is busy or out of reach is asked again, as long as a file
    grows in between.

    Who waits is told so, of the address `source`.
    """
    tries = 0
    size_before = _size(growing)
    while True:
        try:
            answer = do()
            break
        except Exception as e:
            # Tries count from the last progress. A wrong address, or a permission that is lacking, stays so
            tries += 1
            if _size(growing) >= size_before + PROGRESS_BYTES:
                tries = 1
                size_before = _size(growing)
            if tries >= TRIES or not may_pass(e):
                raise
            wait_s = WAIT_S * 2 ** (tries - 1)
            cause, _ = message_and_status(e)
            TOLD.get()(source, detail=f"no answer ({cause}), asked again in {wait_s:g} s")
        time.sleep(wait_s)
    if tries:
        TOLD.get()(source, 1, 1)
    return answer


def _size(path: Path | None) -> int:
    if path and path.exists():
        return path.stat().st_size
    return 0


def _is_plain(uri: str) -> bool:
    """No hidden file or folder, as with local ones, no path that leads elsewhere, no name that no disk can hold."""
    if re.search("[\0\ud800-\udfff]", uri):
        return False
    return all(part and not part.startswith(".") for part in uri.split("/"))


def _short(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _is_marked(path: Path, state: Path, file_stat: FileStat) -> bool:
    try:
        return path.stat().st_size == file_stat.size and state.read_text() == file_stat.version
    except (OSError, ValueError):
        return False

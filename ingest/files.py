"""The files of a dataset: listed once, and never reached outside the dataset's root."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, NamedTuple

from ingest import archives
from ingest.registry import DatasetConfig


class SourceError(Exception):
    """A source that is not there or that no adapter recognises: what, where, what to do."""


class FileStat(NamedTuple):
    size: int
    version: str  # changes with the content: modification time of a local file, hash or etag of a remote one


@dataclass(frozen=True)
class Source:
    """A dataset's root folder (or its single file) with its registry entry.

    `selected`: the only episodes asked for, so that no more than their files need be there.
    """

    config: DatasetConfig
    selected: frozenset[int] | None = None

    @property
    def path(self) -> Path:
        return Path(self.config.source)

    @property
    def root(self) -> Path:
        """What uris are relative to."""
        return self.path.parent if self.path.is_file() else self.path

    @cached_property
    def files(self) -> dict[str, FileStat]:
        """Every file by its path relative to the root, sorted; hidden files and folders are left out.

        Links are followed only where they stay inside the root: `escaping` has the others. Raises SourceError.
        """
        return self._walk[0]

    @property
    def escaping(self) -> list[str]:
        """Links that lead out of the root, by their relative path, and what was left out of archives looked into."""
        return [*self._walk[1], *self._left_out]

    @cached_property
    def _left_out(self) -> dict[str, None]:
        return {}

    @cached_property
    def _walk(self) -> tuple[dict[str, FileStat], list[str]]:
        if not self.path.exists():
            raise SourceError(f"no such file or folder: {self.path}")
        if self.path.is_file():
            return {self.path.name: _stat(os.stat(self.path))}, []
        found: dict[str, FileStat] = {}
        escaping: list[str] = []
        real_root = os.path.realpath(self.path)
        for folder, folders, names in os.walk(self.path):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            below = Path(folder).relative_to(self.path).as_posix()
            at = "" if below == "." else f"{below}/"
            for name in sorted(n for n in names if not n.startswith(".")):
                known = _file_stat(path := os.path.join(folder, name), real_root)
                if known:
                    found[at + name] = known
                elif os.path.islink(path) and not _inside(path, real_root):
                    escaping.append(at + name)
            escaping += [at + f for f in folders if not _inside(os.path.join(folder, f), real_root)]
        return found, escaping

    @cached_property
    def by_name(self) -> dict[str, list[str]]:
        """Relative paths by file name."""
        names: dict[str, list[str]] = {}
        for uri in self.files:
            names.setdefault(uri.rsplit("/", 1)[-1], []).append(uri)
        return names

    def archive(self, uri: str) -> archives.Archive:
        """What a tar file of this source holds, found by reading its headers. Raises as `resolve` does, and OSError."""
        archive = archives.index(self.resolve(uri))
        self._left_out.update((f"{uri}!/{name}", None) for name in archive.escaping)
        return archive

    def members(self, tar_uri: str) -> dict[str, FileStat]:
        """The plain files of a tar file by normalised name. Raises as `archive` does."""
        version = self.files[tar_uri].version
        return {n: FileStat(m.size, f"{version} {m.offset}") for n, m in self.archive(tar_uri).members.items()}

    def resolve(self, uri: str) -> Path:
        """The path of a file of this source; raises SourceError for one outside the root.

        A member of a tar file (`a/b.tar!/name`) is unpacked, alone; ArchiveError where the tar is damaged there.
        """
        if (inside := self._inside_tar(uri)) is not None:
            return self._unpacked(*inside)
        path = self.root / uri
        if not _inside(path, os.path.realpath(self.root)):
            raise SourceError(f"{uri} lies outside the dataset's folder {self.root}")
        return path

    @contextmanager
    def open(self, uri: str) -> Iterator[IO[bytes]]:
        """A file, or a member of a tar file, which is read in place. Raises SourceError, OSError, ArchiveError."""
        inside = self._inside_tar(uri)
        if inside is None:
            with self.resolve(uri).open("rb") as file:
                yield file
        else:
            with archives.opened(self.resolve(inside[0]), inside[1]) as file:
                yield file

    def _unpacked(self, tar_uri: str, member: str) -> Path:
        tar = self.resolve(tar_uri)
        try:
            return archives.extract(tar, member, archives.scratch())
        except OSError as e:
            raise SourceError(f"cannot unpack {member} of {tar_uri}: {e.strerror}") from e

    def _inside_tar(self, uri: str) -> tuple[str, str] | None:
        inside = archives.split(uri)
        return inside if inside and inside[0] in self.files else None

    def size(self, uri: str) -> int | None:
        """Bytes of a file or of a member; None for what is not there."""
        if (inside := self._inside_tar(uri)) is not None:
            member = self.archive(inside[0]).members.get(inside[1])
            return member.size if member else None
        return self.files[uri].size if uri in self.files else None

    def stamp(self, uris: list[str], num_rows: int | None) -> str:
        """Sizes of some files and a row count, hashed: the part of an episode's identity that metadata shows."""
        sizes = [(u, self.size(u)) for u in sorted(set(uris))]
        text = "\n".join([*(f"{u} {size}" for u, size in sizes if size is not None), str(num_rows)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def fingerprint(self) -> str:
        """Changes when any file is added, removed, resized or rewritten."""
        h = hashlib.sha256()
        for uri, known in self.files.items():
            h.update(f"{uri}\0{known.size}\0{known.version}\n".encode())
        return h.hexdigest()


def _stat(s: os.stat_result) -> FileStat:
    return FileStat(s.st_size, str(s.st_mtime_ns))


def _file_stat(path: str, real_root: str) -> FileStat | None:
    """None for what is no regular file (any more), and for a link that leads nowhere or out of the root."""
    try:
        s = os.lstat(path)
        if stat.S_ISLNK(s.st_mode):
            if not _inside(path, real_root):
                return None
            s = os.stat(path)
    except OSError:
        return None
    return _stat(s) if stat.S_ISREG(s.st_mode) else None


def _inside(path: Path | str, real_root: str) -> bool:
    real = os.path.realpath(path)
    return real == real_root or real.startswith(real_root.rstrip(os.sep) + os.sep)

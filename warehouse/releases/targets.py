"""Places that a release is published to: folders and buckets through fsspec, repositories of the hub."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, cast

import huggingface_hub as hub
from upath import UPath

from core.errors import FailedError, UserError, checked_address
from core.files import sha256_file
from warehouse.releases.contents import ReleaseError

MANIFEST = "manifest.json"
BLOCK_BYTES = 8 << 20
COMMIT_FILES, COMMIT_BYTES = 50, 5 << 30  # of one commit to the hub
REPOSITORY = {
    "dataset": re.compile(r"^hf://datasets/([\w.-]+/[\w.-]+)/?$"),
    "model": re.compile(r"^hf://((?!datasets/|spaces/)[\w.-]+/[\w.-]+)/?$"),
}
HUB_ADDRESS = {"dataset": ("hf://datasets/OWNER/NAME", "releases"), "model": ("hf://OWNER/NAME", "models")}
BUCKETS = ("s3://", "gs://")
Kind = Literal["dataset", "model"]  # of a repository of the hub

StoredFiles = Mapping[str, tuple[int, str]]  # path in the place -> (bytes, sha256)


@dataclass(frozen=True)
class OutgoingFile:
    """A file to be published; `source` may lie in a bucket."""

    path: str
    bytes: int
    sha256: str
    source: Path


def address(to: str) -> str:
    return to if "://" in to else str(Path(to).resolve())


def open_target(to: str, *, private: bool = False, kind: Kind = "dataset") -> "Target":
    """A place by its address; nothing is asked of it yet. Raises ReleaseError for an address of another kind."""
    form, plural = HUB_ADDRESS[kind]
    if checked_address(to).startswith("hf://"):
        match = REPOSITORY[kind].match(to)
        if not match:
            raise ReleaseError(f"{to} names no {kind} repository: write {form}")
        return HubTarget(to, match[1], private, kind)
    if "://" in to and not to.startswith(BUCKETS):
        raise ReleaseError(f"{to}: {plural} are published to {form}, s3://, gs:// or a folder")
    return FolderTarget(address(to))


def published_root(at: str) -> Path:
    """The root of a published release, as it is now: clients keep listings."""
    root = UPath(address(at))
    root.fs.invalidate_cache()
    return cast("Path", root)


@contextmanager
def _client_errors(to: str, doing: str) -> Iterator[None]:
    """Turn whatever a client library raises into one sentence: they have dozens of classes, few of them common."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        why = " ".join(str(e).split()) or type(e).__name__
        raise FailedError(f"cannot {doing} {to}: {why}; what was sent is kept, run again to go on") from e


def copy_checked(item: OutgoingFile, write: Callable[[bytes], object]) -> None:
    """Copy a file block by block. Raises FailedError when its bytes are not those that were recorded."""
    digest, count = hashlib.sha256(), 0
    with item.source.open("rb") as f:
        while block := f.read(BLOCK_BYTES):
            digest.update(block)
            count += len(block)
            write(block)
    if (count, digest.hexdigest()) != (item.bytes, item.sha256):
        raise FailedError(f"{item.source} is not what was recorded: proccorpus release verify says what is wrong")


@dataclass(frozen=True)
class FolderTarget:
    """A folder here or in a bucket. Its methods, and those of HubTarget, raise ReleaseError and FailedError."""

    to: str

    @property
    def root(self) -> Path:
        return published_root(self.to)

    def manifest(self) -> dict | None:
        path = self.root / MANIFEST
        with _client_errors(self.to, "read"):
            return json.loads(path.read_bytes()) if path.exists() else None

    def stored(self, items: Sequence[OutgoingFile]) -> StoredFiles:
        """What is there whole: by the manifest where it has it, else by its bytes, of an earlier try."""
        with _client_errors(self.to, "read"):
            listed = {(f["path"], f["bytes"], f["sha256"]) for f in (self.manifest() or {}).get("files", [])}
            return {
                item.path: (item.bytes, item.sha256)
                for item in items
                if (path := self.root / item.path).exists()
                and path.stat().st_size == item.bytes
                and ((item.path, item.bytes, item.sha256) in listed or sha256_file(path) == item.sha256)
            }

    def send(self, items: Sequence[OutgoingFile], on_file: Callable[[OutgoingFile], None]) -> None:
        with _client_errors(self.to, "write to"):
            for item in items:
                path = self._file(item.path)
                try:
                    with path.open("wb") as f:
                        copy_checked(item, f.write)
                except ReleaseError:
                    path.unlink()
                    raise
                on_file(item)

    def _file(self, name: str) -> Path:
        """A file to write, its folder made. A bucket has no folders, and to make one would make a bucket."""
        path = self.root / name
        if "://" not in self.to:
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self, manifest: dict) -> None:
        with _client_errors(self.to, "write to"):
            self._file(MANIFEST).write_bytes(manifest_bytes(manifest))


@dataclass(frozen=True)
class HubTarget:
    """A repository of the hub; what a commit holds is whole, and the hub knows its hashes."""

    to: str
    repo: str
    private: bool
    kind: Kind = "dataset"

    @cached_property
    def _api(self) -> "hub.HfApi":
        return hub.HfApi()

    def manifest(self) -> dict | None:
        with _client_errors(self.to, "read"), TemporaryDirectory() as folder:
            try:
                path = self._api.hf_hub_download(self.repo, MANIFEST, repo_type=self.kind, local_dir=folder)
            except (
                hub.errors.LocalEntryNotFoundError
            ):  # it could not be asked for: that is not to say that it is not there
                raise
            except (hub.errors.EntryNotFoundError, hub.errors.RepositoryNotFoundError):
                return None
            return json.loads(Path(path).read_bytes())

    def stored(self, items: Sequence[OutgoingFile]) -> StoredFiles:
        with _client_errors(self.to, "read"):
            try:
                entries = list(self._api.list_repo_tree(self.repo, recursive=True, repo_type=self.kind))
            except hub.errors.RepositoryNotFoundError:
                return {}
        files = {e.path: e for e in entries if isinstance(e, hub.RepoFile)}
        return {item.path: (item.bytes, item.sha256) for item in items if _same(item, files.get(item.path))}

    def send(self, items: Sequence[OutgoingFile], on_file: Callable[[OutgoingFile], None]) -> None:
        with _client_errors(self.to, "write to"):
            self._api.create_repo(self.repo, repo_type=self.kind, private=self.private, exist_ok=True)
            for batch in batches(items):
                with TemporaryDirectory(prefix="proccorpus-publish-") as folder:
                    files = {item.path: _local(item, Path(folder) / str(k)) for k, item in enumerate(batch)}
                    self._commit(f"{len(batch)} files", files)
                for item in batch:
                    on_file(item)

    def _commit(self, message: str, files: Mapping[str, str | bytes]) -> None:
        adds = [hub.CommitOperationAdd(path, data) for path, data in files.items()]
        self._api.create_commit(self.repo, adds, commit_message=message, repo_type=self.kind)

    def finish(self, manifest: dict) -> None:
        with _client_errors(self.to, "write to"):
            self._commit("Manifest", {MANIFEST: manifest_bytes(manifest)})


def _same(item: OutgoingFile, there: "hub.RepoFile | None") -> bool:
    """Does the hub have this file? It knows large files by sha256, small ones by git's hash."""
    if there is None:
        return False
    if there.lfs:
        return (there.lfs.size, there.lfs.sha256) == (item.bytes, item.sha256)
    if there.size != item.bytes:
        return False
    data = item.source.read_bytes()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest() == there.blob_id


def _local(item: OutgoingFile, spare: Path) -> str:
    """A checked file of this machine with an item's bytes: its own, or a copy at `spare` of one in a bucket."""
    if type(item.source) is type(Path()):
        copy_checked(item, lambda block: None)
        return str(item.source)
    with spare.open("wb") as f:
        copy_checked(item, f.write)
    return str(spare)


def manifest_bytes(manifest: dict) -> bytes:
    return (json.dumps(manifest, indent=1) + "\n").encode()


def batches(items: Sequence[OutgoingFile]) -> Iterator[list[OutgoingFile]]:
    """So many files and bytes at a time, in order; a larger file alone."""
    batch: list[OutgoingFile] = []
    size = 0
    for item in items:
        is_full = len(batch) == COMMIT_FILES or size + item.bytes > COMMIT_BYTES
        if batch and is_full:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item.bytes
    if batch:
        yield batch


type Target = FolderTarget | HubTarget

"""Places that files are published to: a folder, a bucket (fsspec) or a repository of the hub.

A place belongs to what is published there. Before anything is sent, a journal names the files that will be. The
manifest, with size and sha256 of every file, is written last, and the journal goes then. So what an interrupted
publication left is known, and removed by the next one; other people's files are refused.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, batched, groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

import huggingface_hub as hub
from upath import UPath

from core.errors import FailedError, UserError, checked_address
from core.files import HALF_FILE, sha256_file, write_file
from warehouse.releases.contents import ReleaseError

MANIFEST = "manifest.json"
JOURNAL = "publication.json"  # of a publication that has not ended
HUB_FILES = {".gitattributes"}  # that the hub itself writes
MAX_NAMED = 5  # files, in one message
BLOCK_BYTES = 8 << 20
COMMIT_FILES, COMMIT_BYTES = 40, 5 << 30  # of one commit to the hub
REPOSITORY = {
    "dataset": re.compile(r"^hf://datasets/([\w.-]+/[\w.-]+)/?$"),
    "model": re.compile(r"^hf://((?!datasets/|spaces/)[\w.-]+/[\w.-]+)/?$"),
}
HUB_ADDRESS = {
    "dataset": ("hf://datasets/OWNER/NAME", "releases"),
    "model": ("hf://OWNER/NAME", "models"),
}
Kind = Literal["dataset", "model"]  # of a repository of the hub


@dataclass(frozen=True)
class OutgoingFile:
    """A file to be published; `source` may lie in a bucket."""

    path: str
    bytes: int
    sha256: str
    source: Path


def item_of(path: Path, name: str) -> OutgoingFile:
    return OutgoingFile(name, path.stat().st_size, sha256_file(path), path)


def listed(items: Sequence[OutgoingFile]) -> list[dict]:
    """A manifest's `files`."""
    return [{"path": i.path, "bytes": i.bytes, "sha256": i.sha256} for i in items]


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """sha256 over all that a manifest says, but the digest itself."""
    content = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def address(target: str) -> str:
    if "://" in target:
        return target
    return str(Path(target).resolve())


def open_target(target_address: str, *, private: bool = False, kind: Kind = "dataset") -> "Target":
    """A place by its address; nothing is asked of it yet. Raises ReleaseError for an address of another kind."""
    form, plural = HUB_ADDRESS[kind]
    if checked_address(target_address).startswith("hf://"):
        match = REPOSITORY[kind].match(target_address)
        if not match:
            raise ReleaseError(f"{target_address} names no {kind} repository: write {form}")
        return HubTarget(target_address, match[1], private, kind)
    if "://" in target_address and not target_address.startswith(("s3://", "gs://")):
        raise ReleaseError(
            f"{target_address}: {plural} are published to {form}, s3://, gs:// or a folder"
        )
    return FolderTarget(address(target_address))


def published_root(location: str) -> Path:
    """The root of a published release, as it is now: clients keep listings."""
    root = UPath(address(location))
    root.fs.invalidate_cache()
    return cast("Path", root)


@contextmanager
def _client_errors(location: str, doing: str) -> Iterator[None]:
    """Turn whatever a client library raises into one sentence: they have dozens of classes, few of them common."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        cause = " ".join(str(e).split()) or type(e).__name__
        raise FailedError(
            f"cannot {doing} {location}: {cause}; what was sent is kept, run again to go on"
        ) from e


def copy_checked(item: OutgoingFile, target_path: Path | None) -> None:
    """Copy a file block by block; None: read it only. Raises FailedError when its bytes are not those recorded."""
    digest = hashlib.sha256()
    count = 0
    with (
        item.source.open("rb") as f,
        target_path.open("wb") if target_path else nullcontext() as copied,
    ):
        while block := f.read(BLOCK_BYTES):
            digest.update(block)
            count += len(block)
            if copied:
                copied.write(block)
    if (count, digest.hexdigest()) != (item.bytes, item.sha256):
        raise FailedError(
            f"{item.source} is not what was recorded: proccorpus release verify says what is wrong"
        )


def _object(data: bytes | None) -> dict | None:
    """The object that a JSON file holds; None for no file, and for one that was cut off while it was written."""
    try:
        content = json.loads(data or b"")
    except ValueError:
        return None
    if isinstance(content, dict):
        return content
    return None


@dataclass(frozen=True)
class FolderTarget:
    """A folder here or in a bucket."""

    to: str

    @property
    def root(self) -> Path:
        return published_root(self.to)

    @property
    def _is_bucket(self) -> bool:
        return "://" in self.to

    def read(self, name: str) -> dict | None:
        """What a JSON file of the place says, such as its manifest; None where there is none that is whole."""
        path = self.root / name
        with _client_errors(self.to, "read"):
            return _object(path.read_bytes() if path.exists() else None)

    def files(self) -> dict[str, int]:
        """Sizes in bytes of all files of the place, by path."""
        root = cast("UPath", self.root)
        base = root.path.rstrip("/")
        if not root.exists():
            return {}
        entries = cast("dict[str, dict[str, Any]]", root.fs.find(base, detail=True))
        return {path[len(base) :].lstrip("/"): facts["size"] for path, facts in entries.items()}

    def has(self, item: OutgoingFile, size: Any, manifest: Mapping[str, Any] | None) -> bool:
        """Is a file of that `size` in bytes this one: by the place's manifest where it lists it, else by its bytes?"""
        if size != item.bytes:
            return False
        lists_it = {"path": item.path, "bytes": item.bytes, "sha256": item.sha256} in (
            manifest or {}
        ).get("files", [])
        return lists_it or sha256_file(self.root / item.path) == item.sha256

    def begin(self, journal: bytes, removed_paths: Sequence[str]) -> None:
        """Say what will be sent, and remove what goes."""
        write_file(self.root / JOURNAL, journal)
        self._remove(removed_paths)

    def send(self, items: Sequence[OutgoingFile], on_file: Callable[[OutgoingFile], None]) -> None:
        for item in items:
            path = self.root / item.path
            # A bucket has no folders, and to make one would make a bucket
            if not self._is_bucket:
                path.parent.mkdir(parents=True, exist_ok=True)
            copy_checked(item, path)
            on_file(item)

    def finish(self, manifest: bytes) -> None:
        write_file(self.root / MANIFEST, manifest)
        self._remove([JOURNAL])

    def _remove(self, names: Iterable[str]) -> None:
        """Remove files, and folders here that are empty then."""
        for name in names:
            path = self.root / name
            path.unlink()
            for folder in path.parents if not self._is_bucket else ():
                if folder == self.root or any(folder.iterdir()):
                    break
                folder.rmdir()


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

    def read(self, name: str) -> dict | None:
        """As `FolderTarget.read`."""
        with _client_errors(self.to, "read"), TemporaryDirectory() as folder:
            try:
                path = self._api.hf_hub_download(
                    self.repo, name, repo_type=self.kind, local_dir=folder
                )
            except (hub.errors.RemoteEntryNotFoundError, hub.errors.RepositoryNotFoundError):
                return None
            return _object(Path(path).read_bytes())

    def files(self) -> "dict[str, hub.RepoFile]":
        """What the hub knows of all files of the repository, by path, but for those that it writes itself."""
        try:
            entries = list(self._api.list_repo_tree(self.repo, recursive=True, repo_type=self.kind))
        except hub.errors.RepositoryNotFoundError:
            return {}
        return {
            e.path: e for e in entries if isinstance(e, hub.RepoFile) and e.path not in HUB_FILES
        }

    def has(self, item: OutgoingFile, facts: Any, manifest: Mapping[str, Any] | None) -> bool:
        """Is a file of which the hub knows these facts this one?"""
        return _same(item, facts)

    def begin(self, journal: bytes, removed_paths: Sequence[str]) -> None:
        self._api.create_repo(self.repo, repo_type=self.kind, private=self.private, exist_ok=True)
        self._commit("What will be sent", {JOURNAL: journal}, removed_paths)

    def send(self, items: Sequence[OutgoingFile], on_file: Callable[[OutgoingFile], None]) -> None:
        for batch in _commits(items):
            with TemporaryDirectory(prefix="proccorpus-publish-") as folder:
                files = {
                    item.path: _local(item, Path(folder) / str(k)) for k, item in enumerate(batch)
                }
                self._commit(f"{len(batch)} files", files)
            for item in batch:
                on_file(item)

    def _commit(
        self, message: str, files: Mapping[str, str | bytes], removed_paths: Sequence[str] = ()
    ) -> None:
        changes = [
            *(hub.CommitOperationAdd(path, data) for path, data in files.items()),
            *(hub.CommitOperationDelete(path) for path in removed_paths),
        ]
        self._api.create_commit(self.repo, changes, commit_message=message, repo_type=self.kind)

    def finish(self, manifest: bytes) -> None:
        self._commit("Manifest", {MANIFEST: manifest}, [JOURNAL])


def _commits(items: Sequence[OutgoingFile]) -> Iterator[tuple[OutgoingFile, ...]]:
    """In order, at most so many files, of so many bytes and one file more: of those in a bucket there are copies."""
    ends = accumulate(item.bytes for item in items)
    for _, part in groupby(zip(ends, items, strict=True), lambda ended: ended[0] // COMMIT_BYTES):
        yield from batched((item for _, item in part), COMMIT_FILES)


def _same(item: OutgoingFile, stored_file: "hub.RepoFile") -> bool:
    """Does the hub have this file? It knows large files by sha256, small ones by git's hash."""
    if stored_file.lfs:
        return (stored_file.lfs.size, stored_file.lfs.sha256) == (item.bytes, item.sha256)
    if stored_file.size != item.bytes:
        return False
    data = item.source.read_bytes()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest() == stored_file.blob_id


def _local(item: OutgoingFile, spare: Path) -> str:
    """A checked file of this machine with an item's bytes: its own, or a copy at `spare` of one in a bucket."""
    is_here = type(item.source) is type(Path())
    copy_checked(item, None if is_here else spare)
    return str(item.source if is_here else spare)


type Target = FolderTarget | HubTarget


@dataclass(frozen=True)
class Publication:
    """What publishing did, or would do; `removed`: files of an earlier publication, or others that were replaced."""

    to: str
    files: int
    bytes: int
    sent: int
    sent_bytes: int
    removed: int


def strangers(target: Target, manifest: Mapping[str, Any]) -> list[str]:
    """Files of a place that its manifest does not list."""
    return sorted(target.files().keys() - {f["path"] for f in manifest["files"]} - {MANIFEST})


def send(
    target: Target,
    items: Sequence[OutgoingFile],
    manifest: dict,
    identity: Mapping[str, Any],
    *,
    dry_run: bool,
    replace: bool,
    on_file: Callable[[OutgoingFile], None],
) -> Publication:
    """Make a place hold these files and the manifest, and nothing else; with `dry_run`, say what that would be.

    `identity`: members of the manifest that tell what is published; a place that holds something else is refused, and
    so is one with files that no publication wrote, unless they may go by `replace`. Raises ReleaseError, FailedError.
    """
    manifest = manifest | {"digest": manifest_digest(manifest)}
    with _client_errors(target.to, "read"):
        former = target.read(MANIFEST)
        journal = target.read(JOURNAL)
        files: Mapping[str, Any] = target.files()
        stored = {
            item.path
            for item in items
            if item.path in files and target.has(item, files[item.path], former)
        }
    present = set(files)
    published = _paths(former) | _paths(journal)
    foreign = _foreign(present, published, items, stored)
    if not replace:
        _check_identity(target.to, former, identity)
        _check_foreign(target.to, foreign)

    # What is to be sent, and what goes before: files of earlier publications, half files, a manifest of other files
    todo = [item for item in items if item.path not in stored]
    item_paths = {item.path for item in items}
    removed_paths = present - item_paths - {JOURNAL, MANIFEST}
    is_as_it_was = former == manifest and not todo and not removed_paths and JOURNAL not in present
    if not dry_run and not is_as_it_was:
        plan = {
            "format": 1,
            "files": [{"path": path} for path in sorted(item_paths | removed_paths)],
        }
        with _client_errors(target.to, "write to"):
            target.begin(_as_bytes(plan), [*({MANIFEST} & present), *sorted(removed_paths)])
            target.send(todo, on_file)
            # The manifest last: until it is there nobody takes the place for whole
            target.finish(_as_bytes(manifest))
    return Publication(
        to=address(target.to),
        files=len(items) + 1,  # with the manifest
        bytes=sum(i.bytes for i in items),
        sent=len(todo),
        sent_bytes=sum(i.bytes for i in todo),
        removed=len(removed_paths),
    )


def _as_bytes(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def _paths(content: Mapping[str, Any] | None) -> set[str]:
    """Paths that a manifest or a journal lists."""
    return {file["path"] for file in (content or {}).get("files", [])}


def _foreign(
    present: set[str], published: set[str], items: Sequence[OutgoingFile], stored: Collection[str]
) -> list[str]:
    """Files that no publication is known to have written: other ones, or under a name of ours with other bytes."""
    item_paths = {item.path for item in items}
    known_paths = published | {MANIFEST, JOURNAL} | set(stored)
    return sorted(
        path
        for path in present - known_paths
        if path in item_paths or not Path(path).name.startswith(HALF_FILE)
    )


def _check_identity(
    location: str, former: Mapping[str, Any] | None, identity: Mapping[str, Any]
) -> None:
    """Raises ReleaseError for a place that holds something else as a whole."""
    if former is None or all(former.get(name) == value for name, value in identity.items()):
        return
    held_identity = ", ".join(f"{name} {str(former.get(name))[:16]}" for name in identity)
    raise ReleaseError(
        f"{location} holds something else ({held_identity}): publish to another place, or say --replace"
    )


def _check_foreign(location: str, foreign: Sequence[str]) -> None:
    if foreign:
        remainder = f" and {len(foreign) - MAX_NAMED} more" if len(foreign) > MAX_NAMED else ""
        raise ReleaseError(
            f"{location} holds files that no publication wrote ({', '.join(foreign[:MAX_NAMED])}{remainder}): "
            "publish to an empty "
            "place, or say --replace, which deletes them"
        )

"""Publishing: a release's shards, card and labels, sent to a folder, a bucket (fsspec) or a repository of the hub.

A published release is whole in itself: its manifest names every file with size and sha256, and is written last. What
was sent before an interruption is not sent again.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate, batched, groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, cast

import huggingface_hub as hub
from upath import UPath

from core.errors import FailedError, UserError, checked_address
from core.files import sha256_file
from warehouse.lake import Lake
from warehouse.lake.connection import literal, temp_table
from warehouse.releases.contents import LOCAL, ReleaseError, held_episodes_sql, hub_licence
from warehouse.releases.release import Failure, Release, card_path, file_failure
from warehouse.shards.shard import index_path

LABELS = {
    # A release of an earlier version has no success_source
    "episodes": "SELECT e.dataset, e.episode_index, e.source_id, e.task, e.tasks, e.num_frames, e.fps, e.duration_s, "
    "e.cameras, COLUMNS('^success(_source)?$'), s.split, a.label_run, a.why AS label_why, e.content_hash "
    "FROM episodes e SEMI JOIN held USING (dataset, episode_index) JOIN splits s USING (dataset, episode_index) "
    "LEFT JOIN active_runs a USING (dataset, episode_index) ORDER BY 1, 2",
    "segments": "SELECT s.* EXCLUDE (chunk) FROM active_segments s SEMI JOIN held USING (dataset, episode_index) "
    "ORDER BY dataset, episode_index, segment_index",
    "progress": "SELECT p.* EXCLUDE (chunk) FROM active_progress p SEMI JOIN held USING (dataset, episode_index) "
    "ORDER BY dataset, episode_index, frame_index",
    "splits": "SELECT s.* EXCLUDE (chunk) FROM splits s SEMI JOIN held USING (dataset, episode_index) ORDER BY 1, 2",
    # questions and answers are in the shards
    "samples": "SELECT s.* EXCLUDE (chunk, question, answer), l.shard FROM samples s JOIN sample_location l "
    "USING (dataset, chunk, sample_id) WHERE l.shard IN (FROM held_shards) ORDER BY sample_id, shard",
    "label_runs": "SELECT r.* EXCLUDE (created_at) FROM label_runs r WHERE label_run IN (SELECT label_run "
    "FROM active_runs SEMI JOIN held USING (dataset, episode_index)) ORDER BY 1",
}
# By the numbers that the release has: a takedown holds for the recording. Releases from before recordings were known
# have the numbers that were said
HELD_RECORDINGS = """
CREATE TEMP TABLE held_recordings AS
SELECT h.dataset, h.episode_index, {0} AS recording FROM held h {1}"""
TAKEN_DOWN = """
SELECT h.dataset || CASE WHEN d.episode_index IS NULL THEN '' ELSE ' episode ' || h.episode_index END
FROM held_recordings h JOIN down d ON CASE WHEN d.recording IS NOT NULL AND h.recording IS NOT NULL
  THEN h.recording = d.recording
  ELSE h.dataset = d.dataset AND h.episode_index = coalesce(d.episode_index, h.episode_index) END
ORDER BY h.dataset, h.episode_index LIMIT 1"""
# What is taken down now, with recordings that probably are
DOWN = """
SELECT dataset, episode_index, recording FROM takedowns UNION
SELECT r.dataset, r.episode_index, r.recording FROM recordings r JOIN takedowns t ON t.recording = r.resembles
WHERE r.left_at IS NULL"""
MANIFEST = "manifest.json"
BLOCK_BYTES = 8 << 20
COMMIT_FILES, COMMIT_BYTES = 40, 5 << 30  # of one commit to the hub
REPOSITORY = {
    "dataset": re.compile(r"^hf://datasets/([\w.-]+/[\w.-]+)/?$"),
    "model": re.compile(r"^hf://((?!datasets/|spaces/)[\w.-]+/[\w.-]+)/?$"),
}
HUB_ADDRESS = {"dataset": ("hf://datasets/OWNER/NAME", "releases"), "model": ("hf://OWNER/NAME", "models")}
BUCKETS = ("s3://", "gs://")
Kind = Literal["dataset", "model"]  # of a repository of the hub


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


def copy_checked(item: OutgoingFile, to: Path | None) -> None:
    """Copy a file block by block; None: read it only. Raises FailedError when its bytes are not those recorded."""
    digest, count = hashlib.sha256(), 0
    with item.source.open("rb") as f, to.open("wb") if to else nullcontext() as copied:
        while block := f.read(BLOCK_BYTES):
            digest.update(block)
            count += len(block)
            if copied:
                copied.write(block)
    if (count, digest.hexdigest()) != (item.bytes, item.sha256):
        raise FailedError(f"{item.source} is not what was recorded: proccorpus release verify says what is wrong")


@dataclass(frozen=True)
class FolderTarget:
    """A folder here or in a bucket."""

    to: str

    @property
    def root(self) -> Path:
        return published_root(self.to)

    def manifest(self) -> dict | None:
        path = self.root / MANIFEST
        with _client_errors(self.to, "read"):
            return json.loads(path.read_bytes()) if path.exists() else None

    def stored(self, items: Sequence[OutgoingFile]) -> set[str]:
        """Paths of what is there whole: by the manifest where it has it, else by its bytes, of an earlier try."""
        listed = {(f["path"], f["bytes"], f["sha256"]) for f in (self.manifest() or {}).get("files", [])}
        return {
            item.path
            for item in items
            if (path := self.root / item.path).exists()
            and path.stat().st_size == item.bytes
            and ((item.path, item.bytes, item.sha256) in listed or sha256_file(path) == item.sha256)
        }

    def send(self, items: Sequence[OutgoingFile], on_file: Callable[[OutgoingFile], None]) -> None:
        for item in items:
            copy_checked(item, self._file(item.path))
            on_file(item)

    def _file(self, name: str) -> Path:
        """A file to write, its folder made. A bucket has no folders, and to make one would make a bucket."""
        path = self.root / name
        if "://" not in self.to:
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self, manifest: bytes) -> None:
        self._file(MANIFEST).write_bytes(manifest)


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
            except (hub.errors.RemoteEntryNotFoundError, hub.errors.RepositoryNotFoundError):
                return None
            return json.loads(Path(path).read_bytes())

    def stored(self, items: Sequence[OutgoingFile]) -> set[str]:
        try:
            entries = list(self._api.list_repo_tree(self.repo, recursive=True, repo_type=self.kind))
        except hub.errors.RepositoryNotFoundError:
            return set()
        files = {e.path: e for e in entries if isinstance(e, hub.RepoFile)}
        return {item.path for item in items if item.path in files and _same(item, files[item.path])}

    def send(self, items: Sequence[OutgoingFile], on_file: Callable[[OutgoingFile], None]) -> None:
        self._api.create_repo(self.repo, repo_type=self.kind, private=self.private, exist_ok=True)
        for batch in _commits(items):
            with TemporaryDirectory(prefix="proccorpus-publish-") as folder:
                files = {item.path: _local(item, Path(folder) / str(k)) for k, item in enumerate(batch)}
                self._commit(f"{len(batch)} files", files)
            for item in batch:
                on_file(item)

    def _commit(self, message: str, files: Mapping[str, str | bytes]) -> None:
        adds = [hub.CommitOperationAdd(path, data) for path, data in files.items()]
        self._api.create_commit(self.repo, adds, commit_message=message, repo_type=self.kind)

    def finish(self, manifest: bytes) -> None:
        self._commit("Manifest", {MANIFEST: manifest})


def _commits(items: Sequence[OutgoingFile]) -> Iterator[tuple[OutgoingFile, ...]]:
    """In order, at most so many files, of so many bytes and one file more: of those in a bucket there are copies."""
    ends = accumulate(item.bytes for item in items)
    for _, part in groupby(zip(ends, items, strict=True), lambda ended: ended[0] // COMMIT_BYTES):
        yield from batched((item for _, item in part), COMMIT_FILES)


def _same(item: OutgoingFile, there: "hub.RepoFile") -> bool:
    """Does the hub have this file? It knows large files by sha256, small ones by git's hash."""
    if there.lfs:
        return (there.lfs.size, there.lfs.sha256) == (item.bytes, item.sha256)
    if there.size != item.bytes:
        return False
    data = item.source.read_bytes()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest() == there.blob_id


def _local(item: OutgoingFile, spare: Path) -> str:
    """A checked file of this machine with an item's bytes: its own, or a copy at `spare` of one in a bucket."""
    is_here = type(item.source) is type(Path())
    copy_checked(item, None if is_here else spare)
    return str(item.source if is_here else spare)


type Target = FolderTarget | HubTarget


@dataclass(frozen=True)
class Publication:
    """What publishing did, or would do."""

    to: str
    files: int
    bytes: int
    sent: int
    sent_bytes: int


def publish(
    lake: Lake,
    release: Release,
    to: str,
    *,
    dry_run: bool = False,
    private: bool = False,
    on_file: Callable[[OutgoingFile], None] = lambda item: None,
) -> Publication:
    """Send a release to hf://datasets/OWNER/NAME, s3://, gs:// or a folder. Raises ReleaseError.

    Every shard's bytes are checked on the way. With `dry_run` nothing is written there.
    """
    if release.name == LOCAL:
        raise ReleaseError(
            f"the release {LOCAL} was made for training here, whatever the licences: make one to be given on, by "
            "proccorpus release create NAME"
        )
    target = open_target(to, private=private)
    with TemporaryDirectory(prefix="proccorpus-publish-") as folder:
        items = _items(lake, release, Path(folder))
        identity = {"release": release.name, "snapshot": release.snapshot, "config_hash": release.config_hash}
        there = target.manifest()
        if there is not None and any(there.get(k) != v for k, v in identity.items()):
            held = f"{there.get('release')} with content {str(there.get('config_hash'))[:16]}"
            raise ReleaseError(f"{to} holds the release {held}: publish to another place, or empty it first")
        # All facts of a shard but where it lies here
        shards = [asdict(shard) | {"path": shard.address} for shard in release.shard_list]
        shards = [{name: value for name, value in shard.items() if name != "store"} for shard in shards]
        manifest = {"format": 1, **identity, "shards": shards, "files": listed(items)}
        return send(target, items, manifest, dry_run=dry_run, on_file=on_file)


def send(
    target: Target,
    items: Sequence[OutgoingFile],
    manifest: dict,
    *,
    dry_run: bool,
    on_file: Callable[[OutgoingFile], None],
) -> Publication:
    """Send what a place does not have yet, and the manifest last; with `dry_run`, say what that would be."""
    with _client_errors(target.to, "read"):
        there = target.stored(items)
    todo = [item for item in items if item.path not in there]
    # The manifest last: until it is there nobody takes the place for a whole release
    with _client_errors(target.to, "write to"):
        if not dry_run:
            target.send(todo, on_file)
            target.finish((json.dumps(manifest, indent=1) + "\n").encode())
    return Publication(
        to=address(target.to),
        files=len(items) + 1,  # with the manifest
        bytes=sum(i.bytes for i in items),
        sent=len(todo),
        sent_bytes=sum(i.bytes for i in todo),
    )


def verify_published(at: str) -> tuple[dict, list[Failure]]:
    """(manifest, failures) of a published release, from the place alone; reads all of it. Raises ReleaseError."""
    root = published_root(at)
    manifest = open_target(at).manifest()
    if manifest is None:
        raise ReleaseError(f"{at} holds no whole release: there is no {MANIFEST} (publish again to go on)")
    failures = [file_failure(root / f["path"], f["bytes"], f["sha256"]) for f in manifest["files"]]
    return manifest, [failure for failure in failures if failure]


def listed(items: Sequence[OutgoingFile]) -> list[dict]:
    """A manifest's `files`."""
    return [{"path": i.path, "bytes": i.bytes, "sha256": i.sha256} for i in items]


def stated_licences(lake: Lake, release: Release) -> dict[str, str | None]:
    """What each dataset of a release says of its licence, as frozen. ReleaseError where something was taken down."""
    with _at_snapshot(lake, release) as then:
        return dict(then.rows("SELECT dataset, license FROM datasets SEMI JOIN held USING (dataset) ORDER BY 1"))


def _items(lake: Lake, release: Release, folder: Path) -> list[OutgoingFile]:
    """All files of the published release but the manifest; those that are made now are written to `folder`."""
    items = []
    for shard in release.shard_list:
        tar = shard.path(lake.workspace)
        index = index_path(tar)
        for path in (tar, index):
            if not path.exists():
                raise ReleaseError(f"{path} is missing: proccorpus release verify {release.name}")
        # the tar's hash is the recorded one: its bytes are compared with it while they are sent
        items.append(OutgoingFile(shard.address, shard.bytes, shard.sha256, tar))
        items.append(item_of(index, f"shards/{shard.split}/{index.name}"))
    with _at_snapshot(lake, release) as then:
        for name, sql in LABELS.items():
            path = folder / f"{name}.parquet"
            then.con.execute(f"COPY ({sql}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)")
            items.append(item_of(path, f"labels/{name}.parquet"))
        licences = then.column("SELECT license FROM datasets SEMI JOIN held USING (dataset)")
    # What the hub reads at the head of a card
    licence, names = hub_licence(licences)
    head = f"---\nlicense: {licence}\ntask_categories: [robotics]\npretty_name: {json.dumps(release.name)}\n"
    head += f"license_name: {json.dumps(names)}\n" if names else ""
    readme = folder / "README.md"
    readme.write_text(f"{head}---\n\n{card_path(lake.workspace, release.name).read_text()}")
    return [*items, item_of(readme, "README.md")]


def item_of(path: Path, name: str) -> OutgoingFile:
    return OutgoingFile(name, path.stat().st_size, sha256_file(path), path)


def _held_recordings(then: Lake) -> str:
    """SQL that makes the table of a release's episodes with their recordings, as far as its snapshot knows any."""
    if then.rows("SELECT 1 FROM duckdb_tables() WHERE database_name = 'lake' AND table_name = 'recordings'"):
        join = "LEFT JOIN recordings r ON r.dataset = h.dataset AND r.episode_index = h.episode_index"
        return HELD_RECORDINGS.format("r.recording", f"{join} AND r.left_at IS NULL")
    return HELD_RECORDINGS.format("NULL", "")


@contextmanager
def _at_snapshot(lake: Lake, release: Release) -> Iterator[Lake]:
    """The lake as the release froze it, with its episodes and shards as the tables `held` and `held_shards`.

    Raises ReleaseError when something that the release holds was taken down since it was made.
    """
    then = Lake(lake.workspace, read_only=True, snapshot=release.snapshot)
    shards = [s.shard for s in release.shard_list]
    with closing(then.con):
        then.con.execute(f"CREATE TEMP TABLE held AS {held_episodes_sql()}", [shards])
        then.con.execute("CREATE TEMP TABLE held_shards AS SELECT unnest(?) AS shard", [shards])
        then.con.execute(_held_recordings(then))
        temp_table(then.con, "down", lake.arrow(DOWN))
        for what in then.column(TAKEN_DOWN):
            raise ReleaseError(
                f"the release {release.name} holds {what}, which was taken down since: release what is left"
            )
        yield then

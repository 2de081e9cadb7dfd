"""Publishing: a release's shards, card and labels, sent to a folder, a bucket or a repository of the hub.

A published release is whole in itself: its manifest names every file with size and sha256, and is written last. What
was sent before an interruption is not sent again.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from core.files import sha256_file
from warehouse.lake import Lake, literal
from warehouse.releases.contents import LOCAL, ReleaseError, held_episodes_sql
from warehouse.releases.licences import hub_licence
from warehouse.releases.release import Release, card_path
from warehouse.releases.targets import MANIFEST, OutgoingFile, Target, address, open_target, published_root
from warehouse.releases.verify import Failure, file_failure
from warehouse.shards import index_path

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
    "ON l.dataset = s.dataset AND l.chunk = s.chunk AND l.sample_id = s.sample_id "
    "WHERE l.shard IN (FROM held_shards) ORDER BY sample_id, shard",
    "label_runs": "SELECT r.* EXCLUDE (created_at) FROM label_runs r WHERE label_run IN (SELECT label_run "
    "FROM active_runs SEMI JOIN held USING (dataset, episode_index)) ORDER BY 1",
}


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
    there = target.stored(items)
    todo = [item for item in items if there.get(item.path) != (item.bytes, item.sha256)]
    # The manifest last: until it is there nobody takes the place for a whole release
    if not dry_run:
        target.send(todo, on_file)
        target.finish(manifest)
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
        _refuse_taken_down(lake, then, release)
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
        _refuse_taken_down(lake, then, release)
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


@contextmanager
def _at_snapshot(lake: Lake, release: Release) -> Iterator[Lake]:
    """The lake as the release froze it, with its episodes and shards as the tables `held` and `held_shards`."""
    then = Lake(lake.workspace, read_only=True, snapshot=release.snapshot)
    shards = [s.shard for s in release.shard_list]
    try:
        then.con.execute(f"CREATE TEMP TABLE held AS {held_episodes_sql()}", [shards])
        then.con.execute("CREATE TEMP TABLE held_shards AS SELECT unnest(?) AS shard", [shards])
        yield then
    finally:
        then.con.close()


def _refuse_taken_down(lake: Lake, then: Lake, release: Release) -> None:
    """Raises ReleaseError when something that the release holds was taken down since it was made."""
    held = set(then.rows("FROM held"))
    for dataset, episode in lake.rows("SELECT dataset, episode_index FROM takedowns ORDER BY ALL"):
        if any(d == dataset and episode in (None, e) for d, e in held):
            what = dataset if episode is None else f"{dataset} episode {episode}"
            raise ReleaseError(
                f"the release {release.name} holds {what}, which was taken down since: release what is left"
            )

"""Publishing: a release's shards, card and labels, sent to a folder, a bucket (fsspec) or a repository of the hub.

A published release is whole in itself: its manifest names every file with size and sha256, and is written last. What
was sent before an interruption is not sent again.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from core.files import queries_of
from ingest.episode import Finding
from warehouse.lake import Lake
from warehouse.lake.connection import has, literal, temp_table
from warehouse.releases.contents import (
    LOCAL,
    ReleaseError,
    freeze_command,
    held_episodes_sql,
    hub_licence,
)
from warehouse.releases.places import (
    MANIFEST,
    OutgoingFile,
    Publication,
    item_of,
    listed,
    manifest_digest,
    open_target,
    published_root,
    send,
    strangers,
)
from warehouse.releases.release import (
    Release,
    card_fault,
    card_path,
    damage,
    file_failure,
    use_here,
)
from warehouse.shards.shard import index_path

NAMES = ("episodes", "segments", "progress", "splits", "samples", "label_runs")
HELD_RECORDINGS, TAKEN_DOWN, DOWN, *LABEL_QUERIES = queries_of(__file__)
LABELS = dict(zip(NAMES, LABEL_QUERIES, strict=True))

# How to read and check a published release without the workspace that froze it, run in its folder
USE_THERE = (
    "`manifest.json` lists every file; `proccorpus release verify --at .` compares them with it. Samples are in the "
    "shards that it lists, as WebDataset; labels are tables: "
    "`duckdb -c \"FROM 'labels/segments.parquet' LIMIT 5\"`."
)


def publish(
    lake: Lake,
    release: Release,
    target_address: str,
    *,
    dry_run: bool = False,
    private: bool = False,
    replace: bool = False,
    on_file: Callable[[OutgoingFile], None] = lambda item: None,
) -> Publication:
    """Send a release to hf://datasets/OWNER/NAME, s3://, gs:// or a folder. Raises ReleaseError.

    Every shard's bytes are checked on the way. With `dry_run` nothing is written there. `replace`: what else the place
    holds goes, another release too.
    """
    if release.name == LOCAL:
        licences = lake.column("SELECT license FROM datasets")
        releases = lake.column("SELECT name FROM releases")
        raise ReleaseError(
            f"the release {LOCAL} was made for training here, whatever the licences: make one to be given on, if you "
            f"know their terms, by proccorpus {freeze_command(licences, releases)}"
        )
    target = open_target(target_address, private=private)
    with TemporaryDirectory(prefix="proccorpus-publish-") as folder:
        items = _items(lake, release, Path(folder))
        identity = {
            "release": release.name,
            "snapshot": release.snapshot,
            "config_hash": release.config_hash,
        }
        # All facts of a shard but where it lies here
        shards = [asdict(shard) | {"path": shard.address} for shard in release.shard_list]
        for shard in shards:
            del shard["store"]
        manifest = {"format": 1, **identity, "shards": shards, "files": listed(items)}
        return send(
            target, items, manifest, identity, dry_run=dry_run, replace=replace, on_file=on_file
        )


def verify_published(location: str) -> tuple[dict, list[Finding]]:
    """(manifest, failures) of a published release, from the place alone; reads all of it. Raises ReleaseError."""
    root = published_root(location)
    target = open_target(location)
    manifest = target.read(MANIFEST)
    if manifest is None:
        raise ReleaseError(
            f"{location} holds no whole release: there is no readable {MANIFEST} (publish again to go on)"
        )
    failures = [file_failure(root / f["path"], f["bytes"], f["sha256"]) for f in manifest["files"]]
    failures += [
        damage(str(root / path), "the manifest does not list it")
        for path in strangers(target, manifest)
    ]
    if manifest.get("digest") not in (None, manifest_digest(manifest)):
        failures.append(damage(str(root / MANIFEST), "it was changed since it was written"))
    return manifest, [failure for failure in failures if failure]


def stated_licences(lake: Lake, release: Release) -> dict[str, str | None]:
    """What each dataset of a release says of its licence, as frozen. ReleaseError where something was taken down."""
    with _at_snapshot(lake, release) as release_lake:
        return dict(
            release_lake.rows(
                "SELECT dataset, license FROM datasets SEMI JOIN held USING (dataset) ORDER BY 1"
            )
        )


def _items(lake: Lake, release: Release, folder: Path) -> list[OutgoingFile]:
    """All files of the published release but the manifest; those that are made now are written to `folder`."""
    if wrong := card_fault(lake.workspace, release):
        raise ReleaseError(f"{wrong}: proccorpus release verify {release.name}")
    items = []
    for shard in release.shard_list:
        tar = shard.path(lake.workspace)
        index = index_path(tar)
        for path in (tar, index):
            if not path.exists():
                raise ReleaseError(f"{path} is missing: proccorpus release verify {release.name}")
        # the tar's hash is the recorded one: its bytes are compared with it while they are sent
        items += [
            OutgoingFile(shard.address, shard.bytes, shard.sha256, tar),
            item_of(index, f"shards/{shard.split}/{index.name}"),
        ]
    with _at_snapshot(lake, release) as release_lake:
        for name, sql in LABELS.items():
            path = folder / f"{name}.parquet"
            release_lake.con.execute(
                f"COPY ({sql}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)"
            )
            items.append(item_of(path, f"labels/{name}.parquet"))
        licences = release_lake.column(
            "SELECT license FROM datasets SEMI JOIN held USING (dataset)"
        )
    # What the hub reads at the head of a card
    licence, names = hub_licence(licences)
    head = f"---\nlicense: {licence}\ntask_categories: [robotics]\npretty_name: {json.dumps(release.name)}\n"
    head += f"license_name: {json.dumps(names)}\n" if names else ""
    readme = folder / "README.md"
    card = card_path(lake.workspace, release.name).read_text()
    readme.write_text(f"{head}---\n\n{card.replace(use_here(release.name), USE_THERE)}")
    return [*items, item_of(readme, "README.md")]


def _held_recordings(release_lake: Lake) -> str:
    """SQL that makes the table of a release's episodes with their recordings, as far as its snapshot knows any."""
    if has(release_lake.con, "recordings"):
        join = (
            "LEFT JOIN recordings r ON r.dataset = h.dataset AND r.episode_index = h.episode_index"
        )
        return HELD_RECORDINGS.format("r.recording", f"{join} AND r.left_at IS NULL")
    return HELD_RECORDINGS.format("NULL", "")


@contextmanager
def _at_snapshot(lake: Lake, release: Release) -> Iterator[Lake]:
    """The lake as the release froze it, with its episodes and shards as the tables `held` and
    `held_shards`.

    Raises ReleaseError when something that the release holds was taken down since it was made.
    """
    release_lake = Lake(lake.workspace, read_only=True, snapshot=release.snapshot)
    shards = release.shard_names
    with closing(release_lake.con):
        release_lake.con.execute(f"CREATE TEMP TABLE held AS {held_episodes_sql()}", [shards])
        release_lake.con.execute(
            "CREATE TEMP TABLE held_shards AS SELECT unnest(?) AS shard", [shards]
        )
        release_lake.con.execute(_held_recordings(release_lake))
        temp_table(release_lake.con, "down", lake.arrow(DOWN))
        for taken_down_item in release_lake.column(TAKEN_DOWN):
            raise ReleaseError(
                f"the release {release.name} holds {taken_down_item}, which was taken down since: release what is left"
            )
        yield release_lake

"""Where things lie: the checkout's root, and the paths below one workspace root."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

ROOT = Path(__file__).resolve().parents[1]  # of the checkout, or of site-packages
DEFAULT_WORKSPACE = "./workspace"


class _Below:
    """A path of that name below a workspace's root."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, workspace: "Workspace", _: type) -> Path:
        return workspace.root / self.name


@dataclass(frozen=True)
class Workspace:
    root: Path

    catalog = _Below("catalog.sqlite")
    data = _Below("lake")
    settings = _Below("workspace.toml")  # says where the lake lies, when it does not lie here
    lock = _Below(".lock")
    # Locked by builds that go on: what would pull a dataset from under them is refused meanwhile
    building = _Below(".building")
    # Number of the newest snapshot that was committed: an older copy of the catalog is noticed by it
    committed = _Below(".committed")
    # What people said, a line for each row (`warehouse.lake.people`); and what of it the lake does not have yet
    # (`warehouse.lake.journal`)
    people = _Below("people.jsonl")
    journal = _Below("journal.jsonl")
    removed = _Below(".removed")  # what a build or a repair found that nothing lists: until gc
    # Not the sweep's: files of remote datasets as they were fetched; replies of models, and the ledger of their costs
    sources = _Below("sources")
    responses = _Below("responses")

    def token(self, server: str) -> Path:
        """The token of a server of ours, for its owner's eyes alone."""
        return self.root / f".token-{server}"

    def exists(self) -> bool:
        """Is a workspace here, or what is left of one that lost its catalog?"""
        return any(
            path.exists() for path in (self.catalog, self.settings, self.committed, self.people)
        )

    @property
    def absence(self) -> str:
        """The message for a folder without a workspace, with what to do."""
        return f"no workspace at {self.root}: build one first (proccorpus build, or make demo)"

    def keyframe(self, sha256: str) -> Path:
        return self.root / "keyframes" / sha256[:2] / f"{sha256}.jpg"

    def edits(self, dataset: str, episode_index: int) -> Path:
        """Folder of pictures of an episode that an image editor made; not the sweep's."""
        return self.root / "edits" / dataset / f"{episode_index:06d}"

    def shard(self, split: str, name: str, store: str | None = None) -> Path:
        """`store` is the address of a bucket or folder below which shards lie; None: the workspace's own."""
        if store is None:
            return self.root / "shards" / split / name
        from upath import UPath  # imports fsspec

        return cast(Path, UPath(store) / split / name)

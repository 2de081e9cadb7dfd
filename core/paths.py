"""Where things lie: the checkout's root, and the paths below one workspace root."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

ROOT = Path(__file__).resolve().parents[1]  # of the checkout, or of site-packages
DEFAULT_WORKSPACE = "./workspace"


@dataclass(frozen=True)
class Workspace:
    root: Path

    @property
    def catalog(self) -> Path:
        return self.root / "catalog.sqlite"

    @property
    def data(self) -> Path:
        return self.root / "lake"

    @property
    def settings(self) -> Path:
        """Says where the lake lies, when it does not lie here."""
        return self.root / "workspace.toml"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def building(self) -> Path:
        """Locked by builds that go on: what would pull a dataset from under them is refused meanwhile."""
        return self.root / ".building"

    @property
    def committed(self) -> Path:
        """Number of the newest snapshot that was committed: an older copy of the catalog is noticed by it."""
        return self.root / ".committed"

    @property
    def statements(self) -> Path:
        """What people said (`warehouse.lake.words`)."""
        return self.root / "statements.sqlite"

    @property
    def removed(self) -> Path:
        """What a build or a repair found that nothing lists: kept until gc."""
        return self.root / ".removed"

    @property
    def sources(self) -> Path:
        """Files of remote datasets, as they were fetched; not the sweep's."""
        return self.root / "sources"

    @property
    def responses(self) -> Path:
        """Replies of models, and the ledger of what they cost; not the sweep's."""
        return self.root / "responses"

    def token(self, server: str) -> Path:
        """The token of a server of ours, for its owner's eyes alone."""
        return self.root / f".token-{server}"

    def exists(self) -> bool:
        """Is a workspace here, or what is left of one that lost its catalog?"""
        return any(
            path.exists() for path in (self.catalog, self.settings, self.committed, self.statements)
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

"""The resources of the code location: the workspace, the servers that annotation asks, and what runs the steps."""

import os
from pathlib import Path

import dagster as dg

from assets.lib.executors import executor
from assets.lib.vlm_server import VlmServer
from core.paths import ROOT, Workspace
from pipeline.config import DatasetBuild, load_config, read_build_file, resolve, stored_build, stored_builds
from pipeline.sources import all_builds, with_folders
from warehouse.lake import Lake, open_lake

DEFAULT_CONFIG = ROOT / "configs" / "demo.toml"


class CorpusResource(dg.ConfigurableResource):
    """A workspace. Left empty, `root` is PROCCORPUS_WORKSPACE or ./workspace of the project."""

    root: str = ""

    def workspace(self) -> Workspace:
        path = self.root or os.environ.get("PROCCORPUS_WORKSPACE") or str(ROOT / "workspace")
        return Workspace(Path(path).resolve())

    def lake(self) -> Lake:
        return open_lake(self.workspace())

    def build(self, dataset: str) -> DatasetBuild:
        """What a dataset was last built with in this workspace, else what PROCCORPUS_CONFIG (the demo) says of it."""
        # What built it last counts: a configuration may have been edited since, or be another one's
        lake = self.lake()
        known = stored_build(lake, dataset)
        if known:
            return resolve(lake, known)
        # A dataset that was never built here has only its configuration
        path = Path(os.environ.get("PROCCORPUS_CONFIG") or DEFAULT_CONFIG)
        # It may be one of the folders of an entry
        entries = [b for b in load_config(path) if dataset == b.name or dataset.startswith(f"{b.name}-")]
        for build in with_folders(self.workspace(), lake, entries):
            if build.name == dataset:
                return resolve(lake, build)
        raise dg.Failure(
            f"dataset {dataset!r} is neither in this workspace nor in {path}: build it once with proccorpus build "
            "--source PATH --name NAME, or name it in the configuration"
        )

    def all_builds(self, config: str = "", *, update: bool = False) -> list[DatasetBuild]:
        """The datasets of a configuration, and those that the workspace holds besides; the demo's where it holds none.

        config: a build's TOML file; empty: PROCCORPUS_CONFIG, if set. update: folders of a hub's repository are those
        of its newest commit.
        """
        lake = self.lake()
        path = _configured(config)
        # An empty workspace begins with the demo
        if not path and not stored_builds(lake):
            path = DEFAULT_CONFIG
        return all_builds(self.workspace(), lake, load_config(path) if path else (), update=update)

    def licences(self, config: str = "") -> tuple[str, ...]:
        """Those that a release may have beside open ones, as a configuration says; found as `all_builds` does."""
        path = _configured(config)
        return read_build_file(path).release.licences if path else ()


def _configured(config: str) -> Path | None:
    path = config or os.environ.get("PROCCORPUS_CONFIG")
    return Path(path) if path else None


@dg.definitions
def resources() -> dg.Definitions:
    return dg.Definitions(resources={"corpus": CorpusResource(), "vlm_server": VlmServer()}, executor=executor())

"""What Dagster assets work on: the workspace, and the configuration that each dataset is built with."""

import os
from pathlib import Path

import dagster as dg

from core.paths import ROOT, Workspace
from pipeline.build import resolve, stored_build
from pipeline.config import DatasetBuild, load_config
from warehouse.lake import Lake, open_lake

DEFAULT_CONFIG = ROOT / "configs" / "demo.toml"


class Corpus(dg.ConfigurableResource):
    """A workspace. Left empty, `root` is PROCCORPUS_WORKSPACE or ./workspace of the project."""

    root: str = ""

    def workspace(self) -> Workspace:
        path = self.root or os.environ.get("PROCCORPUS_WORKSPACE") or str(ROOT / "workspace")
        return Workspace(Path(path).resolve())

    def lake(self) -> Lake:
        return open_lake(self.workspace())

    def build(self, dataset: str) -> DatasetBuild:
        """What a dataset was last built with in this workspace, else what PROCCORPUS_CONFIG (the demo) says of it."""
        lake = self.lake()
        known = stored_build(lake, dataset)
        if known:
            return resolve(lake, known)
        path = Path(os.environ.get("PROCCORPUS_CONFIG") or DEFAULT_CONFIG)
        for build in load_config(path):
            if build.name == dataset:
                return resolve(lake, build)
        raise dg.Failure(
            f"dataset {dataset!r} is neither in this workspace nor in {path}: build it once with proccorpus build "
            "--source PATH --name NAME, or name it in the configuration"
        )

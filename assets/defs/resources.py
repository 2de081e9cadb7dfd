"""The resources of the code location: the workspace, the servers that annotation asks, and what runs the steps."""

import os
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Literal

import dagster as dg
from pydantic import Field, PrivateAttr

from annotate.model_client.server import Server, ServerConfig
from assets.lib.programs import check_programs
from core.errors import UserError
from core.paths import ROOT, Workspace
from pipeline.config import (
    DatasetBuild,
    load_config,
    read_build_file,
    resolve,
    stored_build,
    stored_builds,
)
from pipeline.sources import all_builds, with_folders
from warehouse.lake import Lake, LakeError, open_lake
from warehouse.lake.lake import lake_to_read

CHOICE = "PROCCORPUS_EXECUTOR"
EXECUTORS = ("in_process", "ray", "kubernetes")
# What a step on another machine needs to be told. No secrets: Ray shows a job's variables to whoever sees its dashboard
PASSED_ON = (
    CHOICE,
    "PROCCORPUS_WORKSPACE",
    "PROCCORPUS_CONFIG",
    "DAGSTER_HOME",
    "DAGSTER_FILES",
    "PROCCORPUS_NOTES",
)
DEFAULT_CONFIG = ROOT / "configs" / "demo.toml"


class VlmServer(dg.ConfigurableResource):
    """Endpoints of a model. With `urls` nothing is started; else vLLM is, on demand, and stopped when the run ends."""

    urls: list[str] = Field(
        default=[], description="servers that are already there: bases that end in /v1"
    )
    model: str = Field(
        default="",
        description="what to serve: a name on the hub, or a folder; empty: PROCCORPUS_VLM",
    )
    name: str = Field(default="", description="what requests call it; empty: as model")
    device: Literal["auto", "cpu", "gpu"] = "auto"
    replicas: int = Field(default=1, ge=1)
    tensor_parallel_size: int = Field(default=1, ge=1)
    quantization: str = Field(default="", description="such as fp8; empty: none")
    max_model_len: int = 16384
    python: str = Field(
        default="", description="interpreter that has vLLM; empty: the project's .venv-vllm"
    )
    log_dir: str = Field(default="", description="empty: logs/ of the project")
    ready_timeout_s: float = 1800.0

    _lock: Lock = PrivateAttr(default_factory=Lock)
    _server: Server | None = PrivateAttr(default=None)

    @property
    def is_configured(self) -> bool:
        """Else the endpoints of a dataset's own configuration are asked."""
        return bool(self.urls or self.model or os.environ.get("PROCCORPUS_VLM"))

    def endpoints(self) -> tuple[str, ...]:
        """Ready servers; the first call may take minutes. Raises FailedError."""
        if self.urls:
            return tuple(self.urls)
        with self._lock:
            if self._server is None:
                server = Server(self._config(), lambda line: None)
                self._server = server.__enter__()
            self._server.check()
            return self._server.endpoints

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        self.stop()

    def stop(self) -> None:
        with self._lock:
            if self._server is not None:
                self._server.stop()
                self._server = None

    def _config(self) -> ServerConfig:
        try:
            check_programs(self)
        except UserError as e:
            raise dg.Failure(str(e), allow_retries=False) from e
        # What the resource is configured with comes before the environment
        model = self.model or os.environ.get("PROCCORPUS_VLM")
        if not model:
            raise dg.Failure(
                "no model to serve: set `model` of the resource vlm_server, or PROCCORPUS_VLM, or `urls`"
            )
        names = (
            "name",
            "device",
            "replicas",
            "tensor_parallel_size",
            "quantization",
            "max_model_len",
            "python",
        )
        settings = {name: getattr(self, name) for name in names if getattr(self, name)}
        logs = self.log_dir or ROOT / "logs"
        return ServerConfig.model_validate(
            {"model": model, "port": 0, "log_dir": logs, "timeout": self.ready_timeout_s} | settings
        )


def is_one_process() -> bool:
    """Are the steps of a run run by one process, one after the other?"""
    return (os.environ.get(CHOICE) or EXECUTORS[0]) == EXECUTORS[0]


def executor() -> dg.ExecutorDefinition:
    """As the environment says. Raises ValueError for a name that is none of EXECUTORS."""
    name = os.environ.get(CHOICE) or EXECUTORS[0]
    if name not in EXECUTORS:
        raise ValueError(f"{CHOICE} is {name!r}: it may be {', '.join(EXECUTORS)}")
    return {"in_process": lambda: dg.in_process_executor, "ray": _ray, "kubernetes": _kubernetes}[
        name
    ]()


def _ray() -> dg.ExecutorDefinition:
    """Steps as jobs of the cluster whose dashboard is at RAY_ADDRESS; each reserves a core."""
    from dagster_ray import ray_executor

    address = os.environ.get("RAY_ADDRESS", "http://127.0.0.1:8265")
    passed = [name for name in PASSED_ON if name in os.environ]
    return ray_executor.configured(
        {"ray": {"address": address, "num_cpus": 1.0, "env_vars": passed}}, name="ray"
    )


def _kubernetes() -> dg.ExecutorDefinition:
    """Steps as Jobs; image, volumes, secrets and resources are those of the run launcher (deploy/kubernetes)."""
    from dagster_k8s import k8s_job_executor

    return k8s_job_executor.configured(
        {"max_concurrent": 4, "retries": {"enabled": {}}}, name="kubernetes"
    )


class CorpusResource(dg.ConfigurableResource):
    """A workspace. Left empty, `root` is PROCCORPUS_WORKSPACE or ./workspace of the project."""

    root: str = ""

    def workspace(self) -> Workspace:
        path = self.root or os.environ.get("PROCCORPUS_WORKSPACE") or str(ROOT / "workspace")
        return Workspace(Path(path).resolve())

    def lake(self) -> Lake:
        return open_lake(self.workspace())

    def build(self, dataset: str) -> DatasetBuild:
        """What PROCCORPUS_CONFIG says of a dataset, else what it was last built with in this workspace, else what the
        demo says: as `all_builds`, for one dataset. Raises Failure for a dataset that none of them names.
        """
        lake = self.lake()
        path = _configured("")
        build = path and self._configured_build(lake, path, dataset)
        build = build or stored_build(lake, dataset)
        if not build and not path:
            path = DEFAULT_CONFIG
            build = self._configured_build(lake, path, dataset)
        if not build:
            raise dg.Failure(
                f"dataset {dataset!r} is neither in this workspace nor in {path}: build it once with proccorpus build "
                "--source PATH --name NAME, or name it in the configuration"
            )
        return resolve(lake, build)

    def _configured_build(self, lake: Lake, path: Path, dataset: str) -> DatasetBuild | None:
        """What a TOML file says of a dataset, which may be one of the folders of an entry."""
        entries = [
            b for b in load_config(path) if dataset == b.name or dataset.startswith(f"{b.name}-")
        ]
        builds = with_folders(self.workspace(), lake, entries)
        return next((build for build in builds if build.name == dataset), None)

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

    def names(self) -> list[str]:
        """Datasets that PROCCORPUS_CONFIG names, without those of entries for folders, and that the workspace holds.

        No source is looked at. Where the lake cannot be read, a warning says so. Raises UserError.
        """
        names: list[str] = []
        path = _configured("")
        if path:
            names += [build.name for build in load_config(path) if not build.dataset.folders]
        space = self.workspace()
        if space.exists():
            try:
                lake = lake_to_read(space)
                with closing(lake.con):
                    names += lake.column("SELECT dataset FROM build_configs ORDER BY 1")
            except LakeError as e:
                dg.get_dagster_logger().warning(f"datasets of {space.root} are not known: {e}")
        return list(dict.fromkeys(names))

    def licences(self, config: str = "") -> tuple[str, ...]:
        """Those that a release may have beside open ones, as a configuration says; found as `all_builds` does."""
        path = _configured(config)
        if path:
            return read_build_file(path).release.licences
        return ()


def _configured(config: str) -> Path | None:
    path = config or os.environ.get("PROCCORPUS_CONFIG")
    if path:
        return Path(path)
    return None


@dg.definitions
def resources() -> dg.Definitions:
    return dg.Definitions(
        resources={"corpus": CorpusResource(), "vlm_server": VlmServer()}, executor=executor()
    )

"""The servers that annotation asks, as a Dagster resource: given ones, or a vLLM started when it is first needed."""

import os
from threading import Lock
from typing import Literal

import dagster as dg
from pydantic import Field, PrivateAttr

from annotate.model_client.server import Server, ServerConfig
from assets.lib.programs import check_programs
from core.errors import UserError
from core.paths import ROOT


class VlmServer(dg.ConfigurableResource):
    """Endpoints of a model. With `urls` nothing is started; else vLLM is, on demand, and stopped when the run ends."""

    urls: list[str] = Field(default=[], description="servers that are already there: bases that end in /v1")
    model: str = Field(default="", description="what to serve: a name on the hub, or a folder; empty: PROCCORPUS_VLM")
    name: str = Field(default="", description="what requests call it; empty: as model")
    device: Literal["auto", "cpu", "gpu"] = "auto"
    replicas: int = Field(default=1, ge=1)
    tensor_parallel_size: int = Field(default=1, ge=1)
    quantization: str = Field(default="", description="such as fp8; empty: none")
    max_model_len: int = 16384
    python: str = Field(default="", description="interpreter that has vLLM; empty: the project's .venv-vllm")
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
            raise dg.Failure("no model to serve: set `model` of the resource vlm_server, or PROCCORPUS_VLM, or `urls`")
        own = ("name", "device", "replicas", "tensor_parallel_size", "quantization", "max_model_len", "python")
        given = {name: getattr(self, name) for name in own if getattr(self, name)}
        logs = self.log_dir or ROOT / "logs"
        return ServerConfig.model_validate(
            {"model": model, "port": 0, "log_dir": logs, "timeout": self.ready_timeout_s} | given
        )

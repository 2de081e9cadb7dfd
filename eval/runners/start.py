"""Start the runner that a user asks for: a checkpoint in this process, vLLM, or a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from annotate.config import Price, VlmConfig
from annotate.model_client.server import Server, ServerConfig
from core.errors import UserError
from eval.benchmarks.options import EvaluationOptions
from eval.reward.open import open_local
from eval.runners.api import ApiRunner, Books
from eval.runners.prompt import LocalRunner, PictureLimits, Runner, Sampling
from training.folder import CARD, base_of, folder_hash, read_card
from training.runs import named_model, trained
from warehouse.lake import Lake

DEFAULTS = EvaluationOptions()
SERVED = "evaluated"  # name of a checkpoint at a server that is started here


@dataclass(frozen=True)
class RunnerConfig:
    """Which model answers: a training run, a checkpoint's folder, or the name at the options' `endpoint`; and how, by
    the options. `longest_px` bounds pictures before the model's processor; None: as it was trained."""

    model: str
    options: EvaluationOptions = DEFAULTS
    folder: Path | None = None
    longest_px: int | None = None

    @property
    def sampling(self) -> Sampling:
        o = self.options
        return Sampling(
            o.temperature, o.max_tokens, o.think, o.top_p, o.top_k, o.repetition_penalty, o.seed
        )

    @property
    def limits(self) -> PictureLimits:
        return PictureLimits(self.longest_px, self.options.min_pixels, self.options.max_pixels)


def located_runner(lake: Lake, options: EvaluationOptions, model: str) -> RunnerConfig:
    """With the model's folder, and its name for `latest`, unless a server has it.

    Raises UserError where there is no such model, TrainingError where none was trained.
    """
    if options.endpoint:
        return RunnerConfig(model, options)
    name = named_model(lake, model)
    path = Path(name)
    is_checkpoint = (path / "config.json").exists() or (path / "card.json").exists()
    folder = path if is_checkpoint else trained(lake, name)
    if folder is None:
        names = (
            ", ".join(lake.column("SELECT training_run FROM checkpoints ORDER BY created_at DESC"))
            or "none yet"
        )
        raise UserError(
            f"{model!r} is neither a checkpoint's folder nor a training run ({names}); "
            "a served model needs --endpoint URL"
        )
    return RunnerConfig(name, options, folder)


@contextmanager
def started_runner(config: RunnerConfig, books: Books) -> Iterator[Runner]:
    """A runner; what was started for it is ended afterwards. `books` are for those that ask a server.

    Raises UserError, ModelError, VlmError, FailedError.
    """
    # In this process, by transformers
    folder = config.folder
    o = config.options
    if o.runner == "transformers":
        if folder is None:
            raise UserError(
                f"{config.model} is no checkpoint on this machine, which --runner transformers needs"
            )
        yield local_runner(config, folder)
        return
    # A server that is there already
    if o.answer == "head":
        raise UserError(
            "the progress head is read by --runner transformers only: a server gives words"
        )
    if o.endpoint:
        yield _api(config, config.model, o.endpoint, books)
        return
    if o.runner == "api":
        raise UserError(
            "--runner api needs --endpoint URL, an OpenAI-compatible base that ends in /v1"
        )
    if folder is None:
        raise UserError(
            f"{config.model} is no checkpoint on this machine: give it, or --endpoint URL of a server"
        )
    # vLLM on this machine: a server of our own
    if base_of(folder):
        raise UserError(
            f"{folder} is an adapter: merge it first (proccorpus model merge), or use transformers"
        )
    server = ServerConfig(
        model=str(folder),
        served_name=SERVED,
        port=0,
        log_dir=books.responses.parent / "vllm",
        replicas=o.data_parallel,
        tensor_parallel_size=o.tensor_parallel,
        expert_parallel=o.expert_parallel,
        quantization=o.quantization,
        max_model_len=o.max_model_len,
    )
    with Server(server) as running:
        # Pictures of the size that a checkpoint of ours was trained on
        trained_px = read_card(folder).get("max_px") if (folder / CARD).exists() else None
        limits = replace(config, longest_px=config.longest_px or trained_px)
        yield _api(limits, SERVED, running.endpoints, books, folder_hash(folder))


def local_runner(config: RunnerConfig, folder: Path) -> LocalRunner:
    """A checkpoint in this process. A head that pools the answer, too (ProcVLM's), needs one first: it is asked only
    where that is wished for. Raises UserError, ModelError."""
    o = config.options
    return open_local(
        folder, o.batch_size, answer=o.answer, sampling=config.sampling, limits=config.limits
    )


def _api(
    config: RunnerConfig,
    name: str,
    endpoints: tuple[str, ...],
    books: Books,
    model_hash: str | None = None,
) -> Runner:
    o = config.options
    vlm = VlmConfig(
        model=name,
        revision=model_hash,
        endpoints=endpoints,
        api_key_env=o.api_key_env,
        max_concurrency=o.concurrency,
        max_calls=o.max_calls,
        max_cost_usd=o.max_cost_usd,
        price=Price(
            usd_per_million_prompt_tokens=o.prices[0], usd_per_million_completion_tokens=o.prices[1]
        ),
    )
    return ApiRunner(
        vlm,
        config.sampling,
        config.limits,
        books,
        is_vllm=o.runner == "vllm",
        form=o.prompt_format,
        model_hash=model_hash,
    )

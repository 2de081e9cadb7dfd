"""Start the runner that a user asks for: a checkpoint in this process, vLLM, or a server."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from annotate.config import Price, VlmConfig
from annotate.model_client.server import Server, ServerConfig
from core.errors import UserError
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import BenchmarkError
from eval.reward.laptop import LaptopScorer
from eval.reward.open import open_checkpoint
from eval.reward.scorer import PictureQuestion
from eval.reward.stream import picture_cache
from eval.reward.window import LAST_PICTURE, Window
from eval.runners.api import ApiRunner, Books
from eval.runners.local import TextRunner, TwoPassRunner, answered, head_pooling
from eval.runners.prompt import ModelReply, PictureLimits, Prompt, Runner, Sampling
from training.folder import CARD, base_of, folder_hash, is_laptop, read_card
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
        return Sampling(o.temperature, o.max_tokens, o.think, o.top_p, o.top_k, o.repetition_penalty, o.seed)

    @property
    def limits(self) -> PictureLimits:
        return PictureLimits(self.longest_px, self.options.min_pixels, self.options.max_pixels)


def located(lake: Lake, options: EvaluationOptions, model: str) -> RunnerConfig:
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
        names = ", ".join(lake.column("SELECT training_run FROM checkpoints ORDER BY created_at DESC")) or "none yet"
        raise UserError(
            f"{model!r} is neither a checkpoint's folder nor a training run ({names}); "
            "a served model needs --endpoint URL"
        )
    return RunnerConfig(name, options, folder)


@contextmanager
def started(config: RunnerConfig, books: Books) -> Iterator[Runner]:
    """A runner; what was started for it is ended afterwards. `books` are for those that ask a server.

    Raises UserError, ModelError, VlmError, FailedError.
    """
    # In this process, by transformers
    folder, o = config.folder, config.options
    if o.runner == "transformers":
        if folder is None:
            raise UserError(f"{config.model} is no checkpoint on this machine, which --runner transformers needs")
        yield local_runner(config, folder)
        return
    # A server that is there already
    if o.answer == "head":
        raise UserError("the progress head is read by --runner transformers only: a server gives words")
    if o.endpoint:
        yield _api(config, config.model, o.endpoint, books)
        return
    if o.runner == "api":
        raise UserError("--runner api needs --endpoint URL, an OpenAI-compatible base that ends in /v1")
    if folder is None:
        raise UserError(f"{config.model} is no checkpoint on this machine: give it, or --endpoint URL of a server")
    # vLLM on this machine: a server of our own
    if base_of(folder):
        raise UserError(f"{folder} is an adapter: merge it first (proccorpus model merge), or use transformers")
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
        shown = replace(config, longest_px=config.longest_px or trained_px)
        yield _api(shown, SERVED, running.endpoints, books, folder_hash(folder))


def local_runner(config: RunnerConfig, folder: Path) -> Runner:
    """A checkpoint in this process. A head that pools the answer, too (ProcVLM's), needs one first: it is asked only
    where that is wished for. Raises UserError, ModelError."""
    answer, batch = config.options.answer, config.options.batch_size
    if is_laptop(folder) and answer == "text":
        raise UserError(f"{folder} is a laptop model, which has no words: leave --answer text out")
    pooling = "prompt" if is_laptop(folder) else head_pooling(folder)
    if answer == "head" and pooling is None:
        raise UserError(f"{folder} has no progress head: leave --answer head out")
    if pooling == "prompt" and answer != "text":
        return ScorerRunner(folder, batch)
    kind = TwoPassRunner if pooling == "published" and answer == "head" else TextRunner
    return kind(folder, config.sampling, config.limits, batch)


def _api(
    config: RunnerConfig, name: str, endpoints: tuple[str, ...], books: Books, model_hash: str | None = None
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
        price=Price(usd_per_million_prompt_tokens=o.prices[0], usd_per_million_completion_tokens=o.prices[1]),
    )
    is_vllm = o.runner == "vllm"
    return ApiRunner(
        vlm, config.sampling, config.limits, books, is_vllm=is_vllm, form=o.prompt_format, model_hash=model_hash
    )


class ScorerRunner:
    """A head of a checkpoint of ours. A picture that several prompts show is looked at once."""

    has_head = True

    def __init__(self, folder: Path, batch_size: int) -> None:
        """Raises ModelError, EncoderError."""
        self.scorer = open_checkpoint(folder, None if Window.of_card(read_card(folder)) else LAST_PICTURE)
        self.limits, self.batch_size = PictureLimits(longest_px=self.scorer.max_px), batch_size
        known = {k: v for k, v in self.scorer.settings.items() if k != "window"}
        self.settings: Mapping[str, Any] = {**known, "longest_px": self.limits.longest_px}
        self._kept = picture_cache()

    def answer(self, prompts: Sequence[Prompt]) -> Iterator[ModelReply]:
        yield from answered(prompts, self.batch_size, self._question, self._answers)

    def _question(self, prompt: Prompt) -> PictureQuestion:
        """Raises BenchmarkError for a picture that cannot be read, and for what the model cannot be asked."""
        for_laptop = isinstance(self.scorer, LaptopScorer)
        if for_laptop and not (prompt.pictures and prompt.task):
            lacks = "names no task" if prompt.pictures else "shows no picture"
            raise BenchmarkError(f"{prompt.key} {lacks}: a laptop model is told both, and nothing else")
        seen = [self._kept(picture.rgb(self.limits.longest_px)) for picture in prompt.pictures]
        first = self._kept(prompt.first.rgb(self.limits.longest_px)) if prompt.first and for_laptop else None
        for picture in seen:
            self.scorer.make_ready(picture)
        return PictureQuestion(prompt.text, tuple(seen), system=prompt.system, task=prompt.task, first=first)

    def _answers(self, asked: Sequence[tuple[Prompt, PictureQuestion]]) -> list[ModelReply]:
        rewards = self.scorer.ask([question for _, question in asked])
        return [
            ModelReply(prompt.key, progress=r.progress, done=r.done, error=r.failure)
            for (prompt, _), r in zip(asked, rewards, strict=True)
        ]

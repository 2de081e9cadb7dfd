"""Start the runner that a user asks for: a checkpoint in this process, vLLM, or any OpenAI-compatible server, through
the annotation client: replies are stored, calls budgeted, failures retried."""

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from annotate.config import Price, VlmConfig
from annotate.model_client.calls import Image, Request, VlmError
from annotate.model_client.calls import Reply as Answered
from annotate.model_client.client import Client
from annotate.model_client.endpoints import Served
from annotate.model_client.responses import ResponseStore
from annotate.model_client.server import Server, ServerConfig
from core.errors import UserError
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import BenchmarkError, PictureFile
from eval.runners.checkpoint import open_local
from eval.runners.prompt import (
    LIKELIEST,
    Asked,
    LocalRunner,
    ModelReply,
    PictureLimits,
    Prompt,
    PromptFormat,
    Runner,
    Sampling,
    chat_messages,
    model_type,
    prompt_format_of,
)
from training.folder import CARD, base_of, folder_hash, read_card
from training.runs import named_model, trained
from warehouse.lake import Lake

STAGE = "eval"
Replies = asyncio.Queue[ModelReply | None]  # None comes last
MOST_INFERENCES = 1_000_000  # of a question, between the seeds of two runs
PROMPTS_AT_ONCE = 4  # times max_concurrency: prompts whose pictures are held in memory


@dataclass(frozen=True)
class Books:
    """Where replies and costs are kept, and under whose name: `build_id` is what a budget is counted by."""

    responses: Path
    build_id: str
    benchmark: str
    prompt_version: str = ""


class ApiRunner:
    """`is_vllm`: the server takes vLLM's own fields (pixel limits, the template's thinking switch, all of the
    sampling); one that says it is vLLM takes them anyway."""

    has_head = False

    def __init__(
        self,
        config: VlmConfig,
        sampling: Sampling,
        limits: PictureLimits,
        books: Books,
        *,
        is_vllm: bool = False,
        form: PromptFormat | None = None,
        model_hash: str | None = None,
    ) -> None:
        self.config = config
        self.sampling = sampling
        self.limits = limits
        self.books = books
        self.store = ResponseStore(books.responses)

        async def found() -> Served:
            """The model as the server tells of it."""
            async with self._client() as client:
                await client.check()
                return client.served[config.model]

        # Asked before any prompt: a wrong address or model is an error at once.
        served = asyncio.run(found())
        root = served.root
        takes_vllm_fields = is_vllm or served.is_vllm
        if not takes_vllm_fields:
            _check_fields_of_an_api(sampling, limits)
        self.form: PromptFormat = form or _served_format(root)
        # 1 is every API's own top_p, and some models take no other
        of_api = {"top_p": sampling.top_p} if sampling.top_p < 1 else {}
        self.extra = _vllm_fields(sampling, limits) if takes_vllm_fields else of_api
        self.settings: Mapping[str, Any] = {
            "runner": "vllm" if is_vllm else "api",
            "answer": "text",
            "served_model": config.model,
            "served_root": root and Path(root).name,
            "revision": config.revision,
            "model_hash": model_hash,
            "prompt_format": self.form,
            **sampling.__dict__,
            **limits.__dict__,
        }

    def answer(self, prompts: Sequence[Prompt]) -> Iterator[ModelReply]:
        """Raises VlmError when the server is gone or the budget used up; what was answered is stored."""
        replies: Replies = asyncio.Queue()
        # Whoever reads may stop early: what is still asked is then given up
        with asyncio.Runner() as runner:
            asking = runner.get_loop().create_task(self._ask_all(prompts, replies))
            asking.add_done_callback(lambda _: replies.put_nowait(None))
            while (reply := runner.run(replies.get())) is not None:
                yield reply
            asking.result()

    def ask(self, prompts: Sequence[Asked]) -> list[ModelReply]:
        return list(self.answer([a.sent() for a in prompts]))

    def _client(self) -> Client:
        b = self.books
        return Client(
            self.config,
            self.store,
            build_id=b.build_id,
            dataset=b.benchmark,
            label_run="",
            prompt_version=b.prompt_version,
        )

    async def _ask_all(self, prompts: Sequence[Prompt], replies: Replies) -> None:
        client, room = (
            self._client(),
            asyncio.Semaphore(PROMPTS_AT_ONCE * self.config.max_concurrency),
        )

        async def one(number: int, prompt: Prompt) -> None:
            """One prompt's reply, or its error; what stops all others is raised."""
            async with room:
                try:
                    request = await asyncio.to_thread(self._request, prompt)
                    replies.put_nowait(_reply(prompt, await client.ask(request, number)))
                except (BenchmarkError, VlmError) as e:
                    # Raised, it makes the task group stop all other prompts.
                    if isinstance(e, VlmError) and e.is_fatal:
                        raise
                    replies.put_nowait(ModelReply(prompt.key, error=str(e)))

        await client.side_by_side(one(number, prompt) for number, prompt in enumerate(prompts))

    def _request(self, prompt: Prompt) -> Request:
        pictures = iter(prompt.pictures)
        content = tuple(
            self._image(next(pictures)) if part["type"] == "image" else part["text"]
            for part in chat_messages(prompt, self.form)[-1]["content"]
        )
        extra = self.extra | ({"logprobs": True, "top_logprobs": LIKELIEST} if prompt.words else {})
        tokens = 1 if prompt.words else self.sampling.max_tokens
        temperature = 0.0 if prompt.words else self.sampling.temperature
        seed = prompt.seed + self.sampling.seed * MOST_INFERENCES  # each inference is stored apart
        return Request(STAGE, prompt.system, content, None, tokens, temperature, seed, extra=extra)

    def _image(self, picture: PictureFile) -> Image:
        """The file's own bytes where they are a JPEG or PNG of the right size; else the shrunk pixels as a PNG."""
        data = picture.read()
        rgb = picture.rgb(self.limits.longest_px)
        as_it_is = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if (
            as_it_is is not None
            and rgb.shape == as_it_is.shape
            and data.startswith((b"\xff\xd8", b"\x89PNG"))
        ):
            return Image.of(data)
        return Image.of(cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes())


def _served_format(root: str | None) -> PromptFormat:
    is_here = root is not None and (Path(root) / "config.json").exists()
    if root and is_here:
        return prompt_format_of(model_type(Path(root)))
    return "interleaved"


def _check_fields_of_an_api(sampling: Sampling, limits: PictureLimits) -> None:
    """Raises UserError for what only vLLM's servers take."""
    if limits.processor_size:
        raise UserError(
            "min_pixels and max_pixels need --runner transformers or vllm: no API takes them"
        )
    if sampling.top_k or sampling.repetition_penalty != 1:
        raise UserError(
            "top_k and repetition_penalty need --runner transformers or vllm: no API takes them"
        )


def _vllm_fields(sampling: Sampling, limits: PictureLimits) -> dict[str, Any]:
    """What a request to vLLM has beyond OpenAI's fields. All of the sampling: what is left out would be the
    checkpoint's own, where somebody else started the server."""
    fields: dict[str, Any] = {
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "repetition_penalty": sampling.repetition_penalty,
        "min_p": 0.0,
    }
    if limits.processor_size:
        fields["mm_processor_kwargs"] = {"size": limits.processor_size}
    if sampling.think is not None:
        fields["chat_template_kwargs"] = {"enable_thinking": sampling.think}
    return fields


def _reply(prompt: Prompt, answered: Answered) -> ModelReply:
    tokens: dict[str, Any] = {
        "prompt_tokens": answered.prompt_tokens,
        "completion_tokens": answered.completion_tokens,
    }
    if not prompt.words:
        return ModelReply(prompt.key, text=answered.value["text"], **tokens)
    if not (likeliest := answered.value.get("first_token")):
        raise UserError(
            "the server gives no log-probabilities of tokens (logprobs), which topreward needs: leave it out, "
            "or use --runner transformers or vllm"
        )
    words = {
        w: sum(math.exp(lp) for token, lp in likeliest if token in (w, f" {w}"))
        for w in prompt.words
    }
    return ModelReply(prompt.key, words=words, **tokens)


# From what a user asks for to a runner

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

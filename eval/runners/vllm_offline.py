"""vLLM in this process, for environments that hold it (GPUs). Elsewhere the same model is asked through a server."""

import asyncio
import importlib.util
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from PIL import Image

from core.errors import FailedError
from eval.benchmarks.question import BenchmarkError
from eval.runners.prompt import (
    LIKELIEST,
    ModelReply,
    PictureLimits,
    Prompt,
    PromptFormat,
    Sampling,
    format_of,
    load_picture,
    model_type,
    turn,
    words_of,
)
from training.backbones import load_processor

AT_ONCE = 512  # prompts of each copy of the model whose pictures are held in memory: more than vLLM works on at once


@dataclass(frozen=True)
class Engine:
    """How vLLM loads a model; the same for the offline class and for a server that is started."""

    tensor_parallel_size: int = 1
    data_parallel_size: int = 1  # copies of the model, each on GPUs of its own
    expert_parallel: bool = False  # of mixtures of experts: experts are spread over the GPUs, not cut
    quantization: str | None = None
    max_model_len: int = 16384  # tokens
    max_images: int = 32  # in one prompt


def is_importable() -> bool:
    return importlib.util.find_spec("vllm") is not None


class EngineLostError(FailedError):
    """vLLM's engine has died: nothing more can be asked of it."""


class VllmRunner:
    """All prompts are under way at once, as far as vLLM takes them; each reply is given as soon as it is there.

    A context manager. `engine` is vLLM's own asynchronous one, over `data_parallel_size` copies of the model.
    """

    has_head = False

    def __init__(
        self, folder: Path, sampling: Sampling, limits: PictureLimits, engine: Engine, model_hash: str | None = None
    ) -> None:
        kind = model_type(folder)
        self.form: PromptFormat = format_of(kind)
        self.sampling, self.limits, self.at_once = sampling, limits, AT_ONCE * engine.data_parallel_size
        self.processor = load_processor(folder)
        # vLLM's engine belongs to one event loop, which lives as long as the runner
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.engine = asyncio.run_coroutine_threadsafe(_started_engine(folder, limits, engine), self.loop).result()
        # On how many copies of the model a run is spread changes no answer: it may go on with another number
        loaded = {name: value for name, value in engine.__dict__.items() if name != "data_parallel_size"}
        self.settings: Mapping[str, Any] = {
            "runner": "vllm",
            "answer": "text",
            "model_hash": model_hash,
            "model_type": kind,
            "prompt_format": self.form,
            **loaded,
            **sampling.__dict__,
            **limits.__dict__,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.shutdown()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def answer(self, prompts: Sequence[Prompt]) -> Iterator[ModelReply]:
        """Raises EngineLostError; what was answered before has been given."""
        replies: queue.SimpleQueue[ModelReply | None] = queue.SimpleQueue()
        asking = asyncio.run_coroutine_threadsafe(self._ask_all(prompts, replies), self.loop)
        asking.add_done_callback(lambda _: replies.put(None))
        try:
            while (reply := replies.get()) is not None:
                yield reply
            asking.result()
        finally:
            asking.cancel()

    async def _ask_all(self, prompts: Sequence[Prompt], replies: "queue.SimpleQueue[ModelReply | None]") -> None:
        room = asyncio.Semaphore(self.at_once)
        try:
            async with asyncio.TaskGroup() as group:
                for prompt in prompts:
                    group.create_task(self._ask(prompt, room, replies))
        except BaseExceptionGroup as e:  # one reason is enough: the others only say that they were stopped
            raise next((x for x in e.exceptions if isinstance(x, EngineLostError)), e.exceptions[0]) from e

    async def _ask(
        self, prompt: Prompt, room: asyncio.Semaphore, replies: "queue.SimpleQueue[ModelReply | None]"
    ) -> None:
        """One prompt's reply, or its error; a dead engine is raised, since it answers nothing more."""
        async with room:
            try:
                request = await asyncio.to_thread(self._request, prompt)
                params = _sampling_params(_sampling(prompt, self.sampling))
                last = None
                async for output in self.engine.generate(request, params, uuid4().hex):
                    last = output
                replies.put(_reply(prompt, last))
            except BenchmarkError as e:
                replies.put(ModelReply(prompt.key, error=str(e)))
            except Exception as e:
                why = f"{type(e).__name__}: {' '.join(str(e.__cause__ or e).split())[:300]}"
                if self.engine.errored:
                    raise EngineLostError(
                        f"vLLM's engine has died ({why}): answers are kept, run the same command again to go on"
                    ) from e
                replies.put(ModelReply(prompt.key, error=why))

    def _request(self, prompt: Prompt) -> dict[str, Any]:
        """The text with the model's own marks for pictures, and the very pixels that the transformers runner sees."""
        switch = {} if self.sampling.think is None else {"enable_thinking": self.sampling.think}
        text = self.processor.apply_chat_template(
            turn(prompt, self.form), tokenize=False, add_generation_prompt=True, **switch
        )
        # Decoded once and handed over as pixels: no picture is encoded again
        pictures = [Image.fromarray(load_picture(p, self.limits)) for p in prompt.pictures]
        return {"prompt": text, "multi_modal_data": {"image": pictures}} if pictures else {"prompt": text}


async def _started_engine(folder: Path, limits: PictureLimits, engine: Engine) -> Any:
    """vLLM's engine, made within the event loop that it is asked in."""
    from vllm.engine.arg_utils import AsyncEngineArgs  # type: ignore[import-not-found]
    from vllm.v1.engine.async_llm import AsyncLLM  # type: ignore[import-not-found]

    return AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=str(folder),
            tensor_parallel_size=engine.tensor_parallel_size,
            data_parallel_size=engine.data_parallel_size,
            enable_expert_parallel=engine.expert_parallel,
            quantization=engine.quantization,
            max_model_len=engine.max_model_len,
            limit_mm_per_prompt={"image": engine.max_images, "video": 0},
            mm_processor_kwargs={"size": limits.processor_size} if limits.processor_size else None,
            generation_config="vllm",
            trust_remote_code=False,
        )
    )


def _sampling_params(fields: dict[str, Any]) -> Any:
    from vllm import SamplingParams  # type: ignore[import-not-found]

    return SamplingParams(**fields)


def _sampling(prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
    """vLLM's sampling parameters: the likeliest first tokens where words are weighed, else a generation."""
    if prompt.words:
        return {"temperature": 0.0, "max_tokens": 1, "logprobs": LIKELIEST}
    return {
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_tokens,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": sampling.draw_seed(prompt) if sampling.temperature > 0 else None,
    }


def _reply(prompt: Prompt, output: Any) -> ModelReply:
    (completion,) = output.outputs
    tokens: dict[str, Any] = {
        "prompt_tokens": len(output.prompt_token_ids),
        "completion_tokens": len(completion.token_ids),
    }
    if not prompt.words:
        return ModelReply(prompt.key, text=completion.text, **tokens)
    first = {lp.decoded_token: lp.logprob for lp in completion.logprobs[0].values()}
    return ModelReply(prompt.key, words=words_of(prompt.words, list(first.items())), **tokens)

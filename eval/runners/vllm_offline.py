"""vLLM in this process, for environments that hold it (GPUs). Elsewhere the same model is asked through a server."""

import base64
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from eval.benchmarks.question import BenchmarkError
from eval.runners.prompt import (
    LIKELIEST,
    ModelReply,
    PictureLimits,
    Prompt,
    PromptFormat,
    Sampling,
    apart,
    format_of,
    load_picture,
    model_type,
    turn,
    words_of,
)

CHUNK = 256  # prompts handed over at once: vLLM batches within, and what is answered is written after each
Chat = tuple[Prompt, list[dict[str, Any]]]


@dataclass(frozen=True)
class Engine:
    """How vLLM loads a model; the same for the offline class and for a server that is started."""

    tensor_parallel_size: int = 1
    expert_parallel: bool = False  # of mixtures of experts: experts are spread over the GPUs, not cut
    quantization: str | None = None
    max_model_len: int = 16384  # tokens
    max_images: int = 32  # in one prompt


def is_importable() -> bool:
    return importlib.util.find_spec("vllm") is not None


class VllmRunner:
    has_head = False

    def __init__(
        self, folder: Path, sampling: Sampling, limits: PictureLimits, engine: Engine, model_hash: str | None = None
    ) -> None:
        from vllm import LLM  # type: ignore[import-not-found]

        kind = model_type(folder)
        self.form: PromptFormat = format_of(kind)
        self.sampling, self.limits = sampling, limits
        self.llm = LLM(
            model=str(folder),
            tensor_parallel_size=engine.tensor_parallel_size,
            enable_expert_parallel=engine.expert_parallel,
            quantization=engine.quantization,
            max_model_len=engine.max_model_len,
            limit_mm_per_prompt={"image": engine.max_images, "video": 0},
            mm_processor_kwargs={"size": limits.processor_size} if limits.processor_size else None,
            trust_remote_code=False,
        )
        self.settings: Mapping[str, Any] = {
            "runner": "vllm",
            "answer": "text",
            "model_hash": model_hash,
            "model_type": kind,
            "prompt_format": self.form,
            **engine.__dict__,
            **sampling.__dict__,
            **limits.__dict__,
        }

    def answer(self, prompts: Sequence[Prompt]) -> Iterator[ModelReply]:
        for at in range(0, len(prompts), CHUNK):
            chats: list[Chat] = []
            for prompt in prompts[at : at + CHUNK]:
                try:
                    chats.append((prompt, self._chat(prompt)))
                except BenchmarkError as e:
                    yield ModelReply(prompt.key, error=str(e))
            if chats:
                yield from apart(chats, self._ask, lambda item, why: ModelReply(item[0].key, error=why))

    def _chat(self, prompt: Prompt) -> list[dict[str, Any]]:
        """The message with its pictures as PNGs: the very pixels that the transformers runner sees."""
        (message,) = turn(prompt.text, self.form)
        pictures = iter(prompt.pictures)
        content = [_part(part, pictures, self.limits) for part in message["content"]]
        return [{"role": "user", "content": content}]

    def _ask(self, chats: Sequence[Chat]) -> list[ModelReply]:
        from vllm import SamplingParams  # type: ignore[import-not-found]

        params = [SamplingParams(**_sampling(prompt, self.sampling)) for prompt, _ in chats]
        messages = [chat for _, chat in chats]
        switch = None if self.sampling.think is None else {"enable_thinking": self.sampling.think}
        outputs = self.llm.chat(messages, params, chat_template_kwargs=switch, use_tqdm=False)
        return [_reply(prompt, output) for (prompt, _), output in zip(chats, outputs, strict=True)]


def _sampling(prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
    """vLLM's sampling parameters: the likeliest first tokens where words are weighed, else a generation."""
    if prompt.words:
        return {"temperature": 0.0, "max_tokens": 1, "logprobs": LIKELIEST}
    seed = prompt.seed if sampling.temperature > 0 else None
    return {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens, "seed": seed}


def _part(part: Mapping[str, Any], pictures: Iterator[Any], limits: PictureLimits) -> dict[str, Any]:
    if part["type"] != "image":
        return dict(part)
    rgb = load_picture(next(pictures), limits)
    png = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(png).decode()}}


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

"""Checkpoints in this process that answer in words, by transformers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig, LogitsProcessorList
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.utils import logging

from core.errors import UserError
from eval.benchmarks.question import BenchmarkError
from eval.runners.prompt import (
    ModelReply,
    PictureLimits,
    Prompt,
    PromptFormat,
    Sampling,
    apart,
    format_of,
    model_type,
    turn,
)
from training.folder import CARD, base_of, folder_hash, read_card
from training.model import HEAD_FILE, Head, load_head, load_model
from training.pictures import Item
from training.pixels import device, normalised
from training.transform import Transform

Loaded = tuple[Prompt, tuple[np.ndarray, ...]]
READERS = 8  # threads that read pictures beside the model


def head_pooling(folder: Path) -> str | None:
    """What a checkpoint's head reads: `prompt`, or `published` (the answer, too). None: it has none. ModelError."""
    if not (folder / HEAD_FILE).exists():
        return None
    head = load_head(folder, read_card(folder))
    return None if head is None else head.config.pooling


class TextRunner:
    """Any checkpoint that transformers knows as a vision-language model; answers in words."""

    has_head = False

    def __init__(self, folder: Path, sampling: Sampling, limits: PictureLimits, batch_size: int) -> None:
        kind = model_type(base_of(folder) or folder)
        self.form: PromptFormat = format_of(kind)
        if limits.processor_size and self.form == "images_first":
            raise UserError(f"--min-pixels and --max-pixels are not for {kind}: it cuts pictures into tiles")
        # A checkpoint of ours may be an adapter, which its own loader puts on the base; the head is not asked here.
        if (folder / CARD).exists():
            self.ours, self.processor, self.card = load_model(folder)
            self.ours.to(device())
            self.model: Any = self.ours.backbone
            # Pictures of the size that it was trained on, unless another is asked for.
            limits = replace(limits, longest_px=limits.longest_px or self.card.get("max_px"))
        else:
            self.model, self.processor = _load(folder)
        if limits.processor_size:
            images = self.processor.image_processor
            images.size = {**images.size, **limits.processor_size}
        self.sampling, self.limits, self.batch_size = sampling, limits, batch_size
        self.settings: Mapping[str, Any] = {
            "runner": "transformers",
            "answer": "text",
            "model_hash": folder_hash(folder),
            "model_type": kind,
            "prompt_format": self.form,
            **sampling.__dict__,
            **limits.__dict__,
        }

    def answer(self, prompts: Sequence[Prompt]) -> Iterator[ModelReply]:
        for asked, run in (
            ([p for p in prompts if not p.words], self._generate),
            ([p for p in prompts if p.words], self._weigh),
        ):
            yield from answered(asked, self.batch_size, self._pictures, run)

    def _pictures(self, prompt: Prompt) -> tuple[np.ndarray, ...]:
        return tuple(picture.rgb(self.limits.longest_px) for picture in prompt.pictures)

    def _inputs(self, loaded: Sequence[Loaded]) -> Any:
        """Padded on the left, so that all answers begin at the same place."""
        switch = {} if self.sampling.think is None else {"enable_thinking": self.sampling.think}
        texts = [
            self.processor.apply_chat_template(turn(p, self.form), tokenize=False, add_generation_prompt=True, **switch)
            for p, _ in loaded
        ]
        images = [list(pictures) for _, pictures in loaded if pictures]
        inputs = self.processor(
            text=texts, images=images or None, padding=True, padding_side="left", return_tensors="pt"
        )
        return inputs.to(self.model.device)

    @torch.inference_mode()
    def _generate(self, loaded: Sequence[Loaded]) -> list[ModelReply]:
        inputs, tokenizer = self._inputs(loaded), self.processor.tokenizer
        seeds = [self.sampling.draw_seed(p) for p, _ in loaded]
        generated = generate(self.model, tokenizer, inputs, self.sampling, seeds)
        answers = generated[:, inputs["input_ids"].shape[1] :]
        ends = set(end_tokens(self.model, tokenizer))
        replies = []
        for (p, _), ids, mask in zip(loaded, answers.tolist(), inputs["attention_mask"].sum(1).tolist(), strict=True):
            # A row that ends before the others is filled up with padding.
            count = next((k for k, token in enumerate(ids) if token in ends), len(ids))
            text = tokenizer.decode(ids[:count], skip_special_tokens=True)
            # The token that ends an answer was generated as well; an answer that was cut off has none.
            replies.append(ModelReply(p.key, text=text, prompt_tokens=mask, completion_tokens=min(count + 1, len(ids))))
        return replies

    @torch.inference_mode()
    def _weigh(self, loaded: Sequence[Loaded]) -> list[ModelReply]:
        inputs, encode = self._inputs(loaded), self.processor.tokenizer.encode
        likely = self.model(**inputs, logits_to_keep=1).logits[:, -1].float().softmax(-1)
        replies = []
        for (p, _), row, mask in zip(loaded, likely, inputs["attention_mask"].sum(1).tolist(), strict=True):
            # Tokens that begin a word, with and without a blank before it
            first = {w: sorted({encode(t, add_special_tokens=False)[0] for t in (w, f" {w}")}) for w in p.words}
            words = {w: float(row[tokens].sum()) for w, tokens in first.items()}
            replies.append(ModelReply(p.key, words=words, prompt_tokens=mask, completion_tokens=1))
        return replies


class TwoPassRunner(TextRunner):
    """ProcVLM's head as published: the model answers in words, then its head reads question and answer together."""

    has_head = True

    def __init__(self, folder: Path, sampling: Sampling, limits: PictureLimits, batch_size: int) -> None:
        super().__init__(folder, sampling, limits, batch_size)
        self.transform = Transform(self.processor)
        self.settings: Mapping[str, Any] = {**self.settings, "answer": "head after text"}

    @torch.inference_mode()
    def _generate(self, loaded: Sequence[Loaded]) -> list[ModelReply]:
        replies = super()._generate(loaded)
        items = [
            Item(p.text, pictures, reply.text, system=p.system)
            for (p, pictures), reply in zip(loaded, replies, strict=True)
        ]
        output = self.ours(normalised({k: v.to(device()) for k, v in self.transform.as_bytes(items).items()}))
        head, raw = self.ours.head, output.raw
        assert head is not None
        assert raw is not None
        # A published checkpoint's by the plain sigmoid, as its authors serve it; else as it was trained
        progress = Head.progress(head, raw) if "converted_from" in self.card else head.progress(raw)
        return [replace(reply, progress=value) for reply, value in zip(replies, progress.float().tolist(), strict=True)]


def _load(folder: Path) -> tuple[Any, Any]:
    """Model and processor of a checkpoint of any family, over all GPUs where there are some. Raises UserError."""
    logging.disable_progress_bar()
    closed: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    placed: dict[str, Any] = {"dtype": torch.float32}
    if torch.cuda.is_available():
        placed = {"dtype": torch.bfloat16, "device_map": "auto"}
    try:
        model = AutoModelForImageTextToText.from_pretrained(folder, use_safetensors=True, **closed, **placed)
        return model.eval(), AutoProcessor.from_pretrained(folder, **closed)
    except (OSError, ValueError, KeyError, RuntimeError) as e:
        raise UserError(f"the checkpoint {folder} cannot be loaded: {' '.join(str(e).split())[:300]}") from e


def answered[L](
    prompts: Sequence[Prompt],
    size: int,
    load: Callable[[Prompt], L],
    run: Callable[[Sequence[tuple[Prompt, L]]], list[ModelReply]],
) -> Iterator[ModelReply]:
    """In batches of like length; a prompt whose pictures cannot be read fails before its batch is run, and a batch
    that fails is run by halves. While a batch is run, threads `load` the next."""
    with ThreadPoolExecutor(READERS, "pictures") as readers:
        # By pictures, then by characters; the longest first: memory fails early
        ordered = sorted(prompts, key=lambda p: (len(p.pictures), len(p.text), p.key), reverse=True)
        batches = [*batched(ordered, size), ()]
        coming: list[tuple[Prompt, Future[L]]] = []
        for batch in batches:
            reading, coming = coming, [(prompt, readers.submit(load, prompt)) for prompt in batch]
            loaded: list[tuple[Prompt, L]] = []
            for prompt, pictures in reading:
                try:
                    loaded.append((prompt, pictures.result()))
                except BenchmarkError as e:
                    yield ModelReply(prompt.key, error=str(e))
            if loaded:
                yield from apart(loaded, run, lambda item, why: ModelReply(item[0].key, error=why))


# How words are drawn: by our sampling alone, each row with draws of its own


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer, as the checkpoint says."""
    ends = model.generation_config.eos_token_id or tokenizer.eos_token_id
    return [ends] if isinstance(ends, int) else list(ends)


def generate(model: Any, tokenizer: Any, inputs: Any, sampling: Sampling, seeds: Sequence[int], **more: Any) -> Any:
    """Token ids [rows, prompt + answer] for `inputs` that are padded on the left; `seeds` has one for each row.

    A checkpoint's generation_config.json says which tokens end an answer, and nothing else: transformers would take
    whatever is not given from there, a repetition penalty above all.
    """
    ids: dict[str, Any] = {
        "eos_token_id": end_tokens(model, tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": model.generation_config.bos_token_id,
    }
    config = GenerationConfig(max_new_tokens=sampling.max_tokens, do_sample=False, **ids)
    checkpoints = model.generation_config
    model.generation_config = GenerationConfig(**ids)
    try:
        drawing = processors(sampling, seeds)
        return model.generate(**inputs, generation_config=config, logits_processor=drawing, **more)
    finally:
        model.generation_config = checkpoints


def processors(sampling: Sampling, seeds: Sequence[int]) -> LogitsProcessorList:
    """In vLLM's order: penalty, temperature, top-k, top-p, then the draw; without a temperature the likeliest word."""
    chain: list[Any] = []
    if sampling.repetition_penalty != 1:
        chain.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature > 0:
        chain.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_k:
            chain.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            chain.append(TopPLogitsWarper(sampling.top_p))
        # transformers draws for a batch as a whole; here each row has its own draws, by noise on its logits
        chain.append(SeededDraw(seeds))
    return LogitsProcessorList(chain)


class SeededDraw:
    """Logits that the largest of is a draw: Gumbel noise of each row's own generator is added.

    A row's draw depends on its seed and the step, not on the rows beside it, so that a resumed run says the same.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.stack([torch.empty(scores.shape[-1]).exponential_(generator=g) for g in self.generators])
        return scores.float() - noise.log().to(scores.device)

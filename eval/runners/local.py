"""Checkpoints in this process, by transformers: any family's in words, ours by head, too."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, starmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    LogitsProcessorList,
)
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.utils import logging

from core.errors import UserError
from eval.reward.stream import StreamPicture
from eval.runners.prompt import (
    AnswerName,
    Asked,
    LocalRunner,
    ModelReply,
    PictureLimits,
    Prompt,
    PromptFormat,
    Sampling,
    chat_messages,
    model_type,
    prompt_format_of,
)
from training.folder import CARD, base_of, folder_hash, read_card
from training.model import Head, ProgressModel, Vision, load_model, model_inputs
from training.pictures import Item
from training.pixels import Batch, byte_patches, device, joined, normalised
from training.transform import Transform

LIKELIEST_WORDS = Sampling()


class TextRunner(LocalRunner):
    """Any model that transformers knows as one of vision and language; answers in words."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        sampling: Sampling,
        limits: PictureLimits,
        batch_size: int,
        kind: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(batch_size, limits.longest_px)
        if limits.processor_size:
            images = processor.image_processor
            images.size = {**images.size, **limits.processor_size}
        self.model = model
        self.processor = processor
        self.sampling = sampling
        self.form: PromptFormat = prompt_format_of(kind)
        of_words = {
            "model_type": kind,
            "prompt_format": self.form,
            **sampling.__dict__,
            **limits.__dict__,
        }
        self.settings: Mapping[str, Any] = {"answer": "text", **(settings or {}), **of_words}

    @torch.inference_mode()
    def run(self, prompts: Sequence[Asked]) -> list[ModelReply]:
        if prompts[0].prompt.words:
            return self._weigh(prompts)
        return self._generate(prompts)

    @property
    def _switch(self) -> dict[str, bool]:
        """Of the chat template."""
        if self.sampling.think is None:
            return {}
        return {"enable_thinking": self.sampling.think}

    def _inputs(self, prompts: Sequence[Asked]) -> Any:
        """Padded on the left, so that all answers begin at the same place."""
        texts = [
            self.processor.apply_chat_template(
                chat_messages(a.prompt, self.form),
                tokenize=False,
                add_generation_prompt=True,
                **self._switch,
            )
            for a in prompts
        ]
        images = [_rgbs(a) for a in prompts if a.pictures]
        inputs = self.processor(
            text=texts,
            images=images or None,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        return inputs.to(self.model.device)

    def _generate(self, prompts: Sequence[Asked]) -> list[ModelReply]:
        inputs = self._inputs(prompts)
        tokenizer = self.processor.tokenizer
        seeds = [self.sampling.draw_seed(a.prompt) for a in prompts]
        generated = generate(self.model, tokenizer, inputs, self.sampling, seeds)
        answers = generated[:, inputs["input_ids"].shape[1] :]
        ends = set(end_tokens(self.model, tokenizer))
        replies = []
        for a, ids, mask in zip(
            prompts, answers.tolist(), inputs["attention_mask"].sum(1).tolist(), strict=True
        ):
            # A row that ends before the others is filled up with padding.
            count = next((k for k, token in enumerate(ids) if token in ends), len(ids))
            text = tokenizer.decode(ids[:count], skip_special_tokens=True)
            # The token that ends an answer was generated as well; an answer that was cut off has none.
            tokens = {"prompt_tokens": mask, "completion_tokens": min(count + 1, len(ids))}
            replies.append(ModelReply(a.prompt.key, text=text, **tokens))
        return replies

    def _weigh(self, prompts: Sequence[Asked]) -> list[ModelReply]:
        inputs = self._inputs(prompts)
        encode = self.processor.tokenizer.encode
        probabilities = self.model(**inputs, logits_to_keep=1).logits[:, -1].float().softmax(-1)
        replies = []
        for a, row, mask in zip(
            prompts, probabilities, inputs["attention_mask"].sum(1).tolist(), strict=True
        ):
            # Tokens that begin a word, with and without a blank before it
            words = {}
            for word in a.prompt.words:
                tokens = {encode(w, add_special_tokens=False)[0] for w in (word, f" {word}")}
                words[word] = float(row[sorted(tokens)].sum())
            replies.append(
                ModelReply(a.prompt.key, words=words, prompt_tokens=mask, completion_tokens=1)
            )
        return replies


class ModelRunner(TextRunner):
    """A checkpoint of ours: the head from one prefill, words by generation; each picture is seen once.

    `answer`: auto is the head where it reads the question alone. ProcVLM's reads the model's own answer, too: a number
    is in the words, and with `head` the head's, in a second pass, of a converted one as its authors serve it.
    `reasoning`: the model answers in words, too. Without a head it always does.
    """

    def __init__(
        self,
        model: ProgressModel,
        processor: Any,
        card: Mapping[str, Any],
        batch_size: int,
        *,
        answer: AnswerName = "auto",
        reasoning: bool = False,
        sampling: Sampling = LIKELIEST_WORDS,
        limits: PictureLimits = PictureLimits(),
        kind: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        # Pictures of the size that it was trained on, unless another is asked for.
        limits = replace(limits, longest_px=limits.longest_px or card.get("max_px"))
        super().__init__(
            model.to(device()).backbone, processor, sampling, limits, batch_size, kind, settings
        )
        self.whole, self.transform, self.card = model, Transform(processor, self._switch), card
        pooling = model.head and model.head.config.pooling
        self.has_head = answer != "text" and pooling not in (
            (None,) if answer == "head" else (None, "published")
        )
        self.after_words = self.has_head and pooling == "published"
        self.in_words = reasoning or self.after_words or not self.has_head
        if self.after_words:
            self.settings: Mapping[str, Any] = {**self.settings, "answer": "head after text"}
        elif self.has_head:
            of_words = sampling.__dict__ if reasoning else {}
            picture_settings = {"longest_px": limits.longest_px, **limits.processor_size}
            self.settings = {"answer": "head", **(settings or {}), **of_words, **picture_settings}

    def make_ready(self, picture: StreamPicture) -> None:
        """Cut the picture into patches. Raises ValueError for one of a shape that the model cannot see."""
        # In this order: the scoring thread keeps what it has seen before it throws the patches away
        if picture.cut is None and picture.seen is None:
            picture.cut = byte_patches(self.processor.image_processor, [picture.rgb])

    def load(self, prompt: Prompt) -> Asked:
        loaded = super().load(prompt)
        for picture in loaded.pictures:
            with suppress(ValueError):  # it is raised again where the batch is run
                self.make_ready(picture)
        return loaded

    @torch.inference_mode()
    def run(self, prompts: Sequence[Asked]) -> list[ModelReply]:
        if self.in_words:
            replies = super().run(prompts)
        else:
            replies = [ModelReply(a.prompt.key) for a in prompts]
        if self.has_head:
            return self._by_head(prompts, replies)
        return replies

    def _by_head(self, prompts: Sequence[Asked], replies: Sequence[ModelReply]) -> list[ModelReply]:
        items = self._items(prompts)
        vision = self._seen(prompts, items)
        if self.after_words:
            items = [replace(i, answer=r.text) for i, r in zip(items, replies, strict=True)]
        output = self.whole(
            _on_device(self.transform.seen(items, [v.grid for v in vision])), vision=vision
        )
        progress = output.progress
        # A published checkpoint's by the plain sigmoid, as its authors serve it; else as it was trained
        if (
            self.after_words
            and "converted_from" in self.card
            and output.raw is not None
            and self.whole.head
        ):
            progress = Head.progress(self.whole.head, output.raw)
        success = [None] * len(replies) if output.done is None else output.done.float().tolist()
        predictions = zip(replies, progress.float().tolist(), success, strict=True)
        return [replace(r, progress=p, done=d) for r, p, d in predictions]

    def _inputs(self, prompts: Sequence[Asked]) -> Any:
        items = self._items(prompts)
        vision = self._seen(prompts, items)
        batch = _left_padded(self.transform.seen(items, [v.grid for v in vision]))
        return model_inputs(self.model, _on_device(batch), vision)

    def _items(self, prompts: Sequence[Asked]) -> list[Item]:
        return [Item(a.prompt.text, tuple(_rgbs(a)), system=a.prompt.system) for a in prompts]

    def _seen(self, prompts: Sequence[Asked], items: Sequence[Item]) -> list[Vision]:
        """What the vision tower makes of the items' pictures, in order. Those that it has not seen yet, or in another
        size (a window with more pictures may leave each less room), it sees now, all at once. `seen` is by shape."""
        pictures = chain.from_iterable(a.pictures for a in prompts)
        picture_pairs = list(
            zip(pictures, chain.from_iterable(map(self.transform.pictures, items)), strict=True)
        )
        new = {
            (id(p), rgb.shape): (p, rgb)
            for p, rgb in picture_pairs
            if rgb.shape not in (p.seen or {})
        }
        if new:
            pixels = normalised(_on_device(joined(list(starmap(self._cut, new.values())))))
            for (p, rgb), vision in zip(new.values(), self.whole.see(pixels), strict=True):
                p.seen = {**(p.seen or {}), rgb.shape: vision}
                p.seen_bytes = p.seen_bytes + vision.nbytes
                p.cut = None
        return [p.seen[rgb.shape] for p, rgb in picture_pairs]

    def _cut(self, picture: StreamPicture, rgb: np.ndarray) -> Batch:
        cut = picture.cut
        if cut is not None and rgb.shape == picture.rgb.shape:
            return cut
        return byte_patches(self.processor.image_processor, [rgb])


def _rgbs(prompt: Asked) -> list[np.ndarray]:
    return [picture.rgb for picture in prompt.pictures]


def _on_device(batch: Batch) -> Batch:
    return {k: v.to(device()) for k, v in batch.items()}


def _left_padded(batch: Batch) -> dict[str, Any]:
    """A batch for generation: all answers begin at the same place."""
    lengths = batch["attention_mask"].sum(1).tolist()
    columns = ("input_ids", "attention_mask", "mm_token_type_ids")
    padded = {k: v for k, v in batch.items() if k == "image_grid_thw"}
    for column in columns:
        rows = zip(batch[column], lengths, strict=True)
        padded[column] = torch.stack([row.roll(len(row) - length) for row, length in rows])
    return padded


def open_runner(
    folder: Path,
    batch_size: int,
    *,
    answer: AnswerName = "auto",
    reasoning: bool = False,
    sampling: Sampling = LIKELIEST_WORDS,
    limits: PictureLimits = PictureLimits(),
) -> TextRunner:
    """A checkpoint, but of laptop models; of others than ours over all GPUs. Raises UserError, ModelError."""
    kind = model_type(base_of(folder) or folder)
    is_ours = (folder / CARD).exists()
    if limits.processor_size and prompt_format_of(kind) == "images_first":
        raise UserError(
            f"min_pixels and max_pixels are not for {kind}: it cuts pictures into tiles"
        )
    if answer == "head" and not (is_ours and read_card(folder).get("head", True)):
        raise UserError(f"{folder} has no progress head: leave --answer head out")
    settings = {"runner": "transformers", "model_hash": folder_hash(folder)}
    if is_ours:
        model, processor, card = load_model(folder)
        # Without a GPU, as every other model: in float32, which a CPU multiplies several times as fast as bfloat16
        if not torch.cuda.is_available():
            model = model.float()
        options: dict[str, Any] = {
            "answer": answer,
            "reasoning": reasoning,
            "sampling": sampling,
            "limits": limits,
        }
        return ModelRunner(
            model, processor, card, batch_size, **options, kind=kind, settings=settings
        )
    logging.disable_progress_bar()
    closed: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    placed: dict[str, Any] = {"dtype": torch.float32}
    if torch.cuda.is_available():
        placed = {"dtype": torch.bfloat16, "device_map": "auto"}
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            folder, use_safetensors=True, **closed, **placed
        )
        processor = AutoProcessor.from_pretrained(folder, **closed)
    except (OSError, ValueError, KeyError, RuntimeError) as e:
        raise UserError(
            f"the checkpoint {folder} cannot be loaded: {' '.join(str(e).split())[:300]}"
        ) from e
    return TextRunner(model.eval(), processor, sampling, limits, batch_size, kind, settings)


# How words are drawn: by our sampling alone, each row with draws of its own


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer, as the checkpoint says."""
    ends = model.generation_config.eos_token_id or tokenizer.eos_token_id
    if isinstance(ends, int):
        return [ends]
    return list(ends)


def generate(
    model: Any,
    tokenizer: Any,
    inputs: Any,
    sampling: Sampling,
    seeds: Sequence[int],
    **options: Any,
) -> Any:
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
        drawing = logits_processors(sampling, seeds)
        return model.generate(
            **inputs, generation_config=config, logits_processor=drawing, **options
        )
    finally:
        model.generation_config = checkpoints


def logits_processors(sampling: Sampling, seeds: Sequence[int]) -> LogitsProcessorList:
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
        noise = torch.stack(
            [torch.empty(scores.shape[-1]).exponential_(generator=g) for g in self.generators]
        )
        return scores.float() - noise.log().to(scores.device)

"""How transformers' models here draw words: by our sampling alone, each row with draws of its own."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from eval.runners.prompt import Sampling


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

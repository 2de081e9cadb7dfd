"""The options of an evaluation as what is asked and who answers."""

from annotate.vlm.config import Price
from core.errors import UserError
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.run import BenchmarkConfig
from eval.runners.prompt import PictureLimits, Sampling
from eval.runners.start import Engine, RunnerConfig


def configs(options: EvaluationOptions, model: str) -> tuple[BenchmarkConfig, RunnerConfig]:
    """What is asked, and who answers: `model`. The same questions go to any runner. Raises UserError."""
    o = options
    sampling = Sampling(o.temperature, o.max_tokens, o.think, o.top_p, o.top_k, o.repetition_penalty, o.seed)
    runner = RunnerConfig(
        model,
        o.runner,
        endpoints=o.endpoint,
        answer=o.answer,
        sampling=sampling,
        limits=PictureLimits(None, o.min_pixels, o.max_pixels),
        engine=Engine(o.tensor_parallel, o.data_parallel, o.expert_parallel, o.quantization, o.max_model_len),
        batch_size=o.batch_size,
        max_concurrency=o.concurrency,
        api_key_env=o.api_key_env,
        prompt_format=o.prompt_format,
        max_calls=o.max_calls,
        max_cost_usd=o.max_cost_usd,
        price=_price(o.price),
    )
    asked = BenchmarkConfig(
        benchmark=o.benchmark,
        data=o.data,
        image_root=o.image_root,
        parts=o.part,
        limit=o.limit,
        inferences=o.num_inferences,
        think=o.think is not False,
        vlm_baselines=o.baselines,
        shard=_shard(o.shard),
        out=o.out,
        prompts=o.prompts,
    )
    return asked, runner


def _shard(text: str | None) -> tuple[int, int]:
    """The numbers of a text such as 0/4. Raises UserError."""
    first, _, second = (text or "0/1").partition("/")
    if not (first.isdigit() and second.isdigit() and int(first) < int(second)):
        raise UserError(f"--shard {text}: give i/n with i from 0 to n - 1, such as 0/4")
    return int(first), int(second)


def _price(text: str | None) -> Price:
    """The price that a text such as 2.5,10 gives: USD per million prompt and reply tokens. Raises UserError."""
    try:
        prompt, reply = (float(x) for x in text.split(",")) if text else (0.0, 0.0)
    except ValueError:
        raise UserError(f"--price {text}: give two numbers, such as 2.5,10") from None
    return Price(usd_per_million_prompt_tokens=prompt, usd_per_million_completion_tokens=reply)

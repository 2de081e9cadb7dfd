"""A benchmark as a step of the second half: what is asked of whom, and the outcome that Dagster's asset shows."""

import math
from collections.abc import Callable

from annotate.vlm.config import Price
from core.errors import UserError
from core.figures import render
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.run import BenchmarkConfig, evaluate_benchmark
from eval.report import curves_figure, different
from eval.runners.prompt import PictureLimits, Sampling
from eval.runners.start import Engine, RunnerConfig
from pipeline.outcome import Outcome
from warehouse.lake import Lake
from warehouse.releases import Release

EPISODES = 3  # whose curves the event shows


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


def benchmark_step(
    lake: Lake,
    config: BenchmarkConfig,
    runner: RunnerConfig,
    release: Release | None,
    on_rows: Callable[[str, int, int], None] = lambda name, done, of: None,
) -> Outcome:
    """Evaluate a model on a benchmark; the outcome has its scores, a table with the baselines, and curves."""
    evaluation = evaluate_benchmark(lake, config, runner, release, on_rows)
    assert evaluation.report is not None, "without shards an evaluation ends with its report"
    assert evaluation.page is not None
    own = evaluation.entries[0]
    numbers: dict[str, int | float | str] = {
        "eval_run": evaluation.run,
        "predictions": str(evaluation.predictions),
    }
    for (part, metric), score in own.scores.items():
        if part == "all" and not math.isnan(score.value):
            numbers[metric] = round(score.value, 4)
    picture = b""
    series = own.scored.series
    if series is not None and len(series.runs.target):
        picture = render(curves_figure(evaluation.report, own, different(own, EPISODES)))
    table = tuple({k: str(v) for k, v in row.items()} for row in evaluation.rows())
    files = (evaluation.page, evaluation.predictions)
    return Outcome("evaluation", evaluation.run, True, numbers, picture, files, table)

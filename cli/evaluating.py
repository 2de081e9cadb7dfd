"""Scores of models, prediction files and annotators."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.options import DEFAULT_WORKSPACE, FormatOption, WorkspaceOption, open_release, say, space_at
from cli.output import print_json, show
from core.errors import UserError
from core.names import LATEST, did_you_mean

if TYPE_CHECKING:
    from annotate.vlm.config import Price
    from eval.annotators.compare import Comparison
    from eval.benchmarks.run import Evaluation
    from warehouse.lake import Lake
    from warehouse.releases import Release

# Of the table for people
HELD_OUT_METRICS = (
    "voc",
    "mae",
    "end_error",
    "mae_margin",
    "mcc@95",
    "preference_accuracy",
    "preference_head_accuracy",
)
app = typer.Typer(rich_markup_mode=None)
eval_app = typer.Typer(
    help="Score models, prediction files, and two models against each other.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
app.add_typer(eval_app, name="eval")


@eval_app.callback()
def eval_model(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="A training run, a checkpoint's folder, or a name at --endpoint; default: latest."
        ),
    ] = None,
    benchmark: Annotated[
        str,
        typer.Option(
            "--benchmark",
            help="held-out (test episodes against labels and truth), probes, confusion, robustness, progress-bench, "
            "human-bench, procvqa-id, procvqa-ood, dataset, robofac, rbm-eval, roboreward.",
        ),
    ] = "held-out",
    runner: Annotated[
        Literal["transformers", "vllm", "api"], typer.Option("--runner", help="Software that runs the model.")
    ] = "transformers",
    endpoint: Annotated[
        list[str] | None,
        typer.Option("--endpoint", help="Base address of an OpenAI-compatible server, ends in /v1; repeatable."),
    ] = None,
    answer: Annotated[
        Literal["auto", "head", "text"],
        typer.Option(
            "--answer",
            help="Read the answer from a head or from text; auto: a head that reads only the question, else text.",
        ),
    ] = "auto",
    data: Annotated[
        str | None,
        typer.Option("--data", help="Folder, file or hf://owner/name (or owner/name@commit) that holds the benchmark."),
    ] = None,
    image_root: Annotated[Path | None, typer.Option("--image-root", help="Folder of the benchmark's pictures.")] = None,
    part: Annotated[
        list[str] | None, typer.Option("--part", help="Only this part of the benchmark; repeatable.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Maximum rows of each part, before --num-inferences.")
    ] = None,
    num_inferences: Annotated[int, typer.Option("--num-inferences", min=1, help="Answers to each question.")] = 1,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0)] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(
            "--top-p", max=1.0, help="Sample from the likeliest tokens with this total probability; 1: from all."
        ),
    ] = 1.0,
    top_k: Annotated[
        int, typer.Option("--top-k", min=0, help="Sample from so many likeliest tokens; 0: from all.")
    ] = 0,
    repetition_penalty: Annotated[
        float, typer.Option("--repetition-penalty", help="1: none, whatever the checkpoint's generation_config says.")
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed for sampling, if there is a temperature.")] = 0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Maximum tokens of an answer.")] = 512,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="Folder of the checkpoint's own prompts, a file for each family.")
    ] = None,
    think: Annotated[
        bool | None, typer.Option("--think/--no-think", help="Ask for reasons before the answer; default: yes.")
    ] = None,
    min_pixels: Annotated[int | None, typer.Option("--min-pixels", min=1, help="Area of a picture (Qwen).")] = None,
    max_pixels: Annotated[int | None, typer.Option("--max-pixels", min=1, help="Area of a picture (Qwen).")] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline", help="With the same model: direct, gvl, topreward; repeatable. Others always stand."
        ),
    ] = None,
    shard: Annotated[str | None, typer.Option("--shard", help="i/n: this process answers part i, from 0.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Prediction file; default: in the workspace.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Batch size of --runner transformers.")] = 16,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Requests under way at a server.")] = 16,
    tensor_parallel: Annotated[
        int, typer.Option("--tensor-parallel", min=1, help="GPUs that share one vLLM model.")
    ] = 1,
    data_parallel: Annotated[
        int, typer.Option("--data-parallel", min=1, help="Copies of a vLLM model, each on GPUs of its own.")
    ] = 1,
    expert_parallel: Annotated[bool, typer.Option("--expert-parallel", help="Spread a vLLM model's experts.")] = False,
    quantization: Annotated[
        str | None, typer.Option("--quantization", help="Quantisation in vLLM, such as fp8.")
    ] = None,
    max_model_len: Annotated[
        int, typer.Option("--max-model-len", min=256, help="Maximum tokens of a request in vLLM.")
    ] = 16384,
    max_calls: Annotated[int | None, typer.Option("--max-calls", min=0, help="Maximum number of requests.")] = None,
    max_cost_usd: Annotated[
        float | None, typer.Option("--max-cost-usd", min=0, help="Maximum cost, computed with --price.")
    ] = None,
    price: Annotated[
        str | None, typer.Option("--price", help="USD per million prompt and reply tokens, such as 2.5,10.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option("--api-key-env", help="Environment variable that holds the key.")
    ] = None,
    prompt_format: Annotated[
        Literal["interleaved", "images_first"] | None,
        typer.Option(
            "--prompt-format", help="Position of pictures in the prompt; default: by the checkpoint's model_type."
        ),
    ] = None,
    checks: Annotated[
        bool, typer.Option("--checks", help="Also run probes, confusion and robustness after held-out.")
    ] = False,
    release: Annotated[
        str | None, typer.Option("--release", help="Release to evaluate on; default: the newest.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Score a model and the baselines on a benchmark or on held-out episodes; writes a report."""
    if context.invoked_subcommand is not None:
        return
    if model is None and endpoint:
        raise UserError("--endpoint needs --model, the model's name there")
    model = model or LATEST
    # Held-out episodes are scored by the head alone: options of the other benchmarks would be ignored
    if benchmark == "held-out":
        of_other_benchmarks = (endpoint, data, part, limit, baseline, shard, out, prompts)
        if (runner, answer) != ("transformers", "auto") or any(of_other_benchmarks):
            raise UserError(
                "--benchmark held-out reads the head on all test episodes; procvqa-id takes --runner, --answer, "
                "--endpoint, --part, --limit, --baseline, --shard, --prompts and --out"
            )
        if checks and format == "json":
            raise UserError(
                "--checks prints a table for each: leave --format json out, or ask proccorpus sql for scores"
            )
        _evaluate_held_out(model, release, workspace, format)
        if not checks:
            return
    elif checks:
        raise UserError("--checks needs --benchmark held-out, which is the default")
    from cli.progress import progress
    from eval.benchmarks.run import COMPARING, BenchmarkConfig, evaluate_benchmark
    from eval.runners.prompt import PictureLimits, Sampling
    from eval.runners.start import Engine, RunnerConfig

    names = tuple(COMPARING) if checks else (benchmark,)
    lake, frozen = _open_for_benchmark(workspace, names[0], release)
    runner_config = RunnerConfig(
        model,
        runner,
        endpoints=tuple(endpoint or ()),
        answer=answer,
        sampling=Sampling(temperature, max_tokens, think, top_p, top_k, repetition_penalty, seed),
        limits=PictureLimits(None, min_pixels, max_pixels),
        engine=Engine(tensor_parallel, data_parallel, expert_parallel, quantization, max_model_len),
        batch_size=batch_size,
        max_concurrency=concurrency,
        api_key_env=api_key_env,
        prompt_format=prompt_format,
        max_calls=max_calls,
        max_cost_usd=max_cost_usd,
        price=_price(price),
    ).located(lake)
    # What is asked is apart from who is asked: the same questions go to any runner
    config = BenchmarkConfig(
        benchmark=names[0],
        data=data,
        image_root=image_root,
        parts=tuple(part or ()),
        limit=limit,
        inferences=num_inferences,
        think=think is not False,
        vlm_baselines=tuple(baseline or ()),
        shard=_shard(shard),
        out=out,
        prompts=prompts,
    )
    for name in names:
        with progress() as on_rows:
            evaluation = evaluate_benchmark(lake, replace(config, benchmark=name), runner_config, frozen, on_rows)
        _show_evaluation(evaluation, format)


def _show_evaluation(evaluation: "Evaluation", format: str) -> None:
    """The scores of a model and the baselines; of one part of several, only where its predictions are."""
    print(f"predictions: {evaluation.predictions}", file=sys.stderr)
    for note in evaluation.notes:
        print(f"left out: {note}", file=sys.stderr)
    if not evaluation.entries:
        print("this part is done; the one that ends last scores them all", file=sys.stderr)
        return
    if format == "json":
        print_json({"eval_run": evaluation.run, "settings": dict(evaluation.settings), "models": evaluation.facts()})
    else:
        show(evaluation.rows(), "table")
    print(f"report: {evaluation.page}", file=sys.stderr)


def _evaluate_held_out(model: str, release: str | None, workspace: str, format: Literal["table", "json"]) -> None:
    from assets.lib.report import report_closing
    from pipeline.evaluation import evaluation_step

    space, lake, frozen = open_release(workspace, release)
    # A typing error is told at once, with the names that there are
    from training.finished import named_model

    runs, model = _runs(lake), named_model(lake, model)
    if model not in runs:
        near = did_you_mean(model, runs)
        raise UserError(f"unknown model {model!r}; trained: {', '.join(runs) or 'none yet (proccorpus train)'}{near}")
    outcome = evaluation_step(lake, frozen, model, always=True)
    report_closing(space, [outcome])
    sql = (
        "SELECT benchmark, slice, model, metric, value, low, high, n, coverage FROM leaderboard "
        "WHERE release = ? AND (slice = 'all' OR slice LIKE 'split %') ORDER BY ALL"
    )
    rows = lake.dicts(sql, [frozen.name])
    if format == "table":  # the report has more, and --format json has all
        rows = [row for row in rows if row["metric"] in HELD_OUT_METRICS]
    show(rows, format)
    print(f"report: {outcome.files[0]}", file=sys.stderr)


def _runs(lake: "Lake") -> list[str]:
    """Names of the trained models, the newest first."""
    return [r[0] for r in lake.rows("SELECT training_run FROM checkpoints ORDER BY created_at DESC")]


def _open_for_benchmark(workspace: str, benchmark: str, release: str | None) -> "tuple[Lake, Release | None]":
    """A benchmark that is not a release's needs none, and no workspace that is there already."""
    from eval.benchmarks.run import FROM_RELEASE
    from warehouse.lake import open_lake

    if benchmark in FROM_RELEASE or release:
        return open_release(workspace, release)[1:]
    return open_lake(space_at(workspace)), None


def _shard(text: str | None) -> tuple[int, int]:
    """The numbers of a text such as 0/4. Raises UserError."""
    if text is None:
        return 0, 1
    first, _, second = text.partition("/")
    if not (first.isdigit() and second.isdigit() and int(first) < int(second)):
        raise UserError(f"--shard {text}: give i/n with i from 0 to n - 1, such as 0/4")
    return int(first), int(second)


def _price(text: str | None) -> "Price":
    """The price that a text such as 2.5,10 gives: USD per million prompt and reply tokens. Raises UserError."""
    from annotate.vlm.config import Price

    try:
        prompt, reply = (float(x) for x in text.split(",")) if text else (0.0, 0.0)
    except ValueError:
        raise UserError(f"--price {text}: give two numbers, such as 2.5,10") from None
    return Price(usd_per_million_prompt_tokens=prompt, usd_per_million_completion_tokens=reply)


BenchmarkName = Literal[
    "progress-bench", "human-bench", "procvqa-id", "procvqa-ood", "dataset", "robofac", "rbm-eval", "roboreward"
]


AsPublishedOption = Annotated[
    bool, typer.Option("--as-published", help="Score as the papers' own evaluations do, with their defects.")
]


@eval_app.command("score")
def eval_score(
    benchmark: Annotated[BenchmarkName, typer.Option("--benchmark", help="Benchmark that the predictions answer.")],
    predictions: Annotated[
        Path, typer.Option("--predictions", help='JSON lines: {"meta_data": {...}, "response": "..."}, of any system.')
    ],
    as_published: AsPublishedOption = False,
    store: Annotated[bool, typer.Option("--store", help="Store the file and its scores in the workspace.")] = False,
    stored_as: Annotated[
        str | None, typer.Option("--model", help="Name of the model, for --store; default: the file's name.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Score a prediction file. Needs no workspace, and writes to one only with --store."""
    from eval.predictions import read_predictions
    from eval.scoring.files import score_predictions
    from eval.scoring.scored import ALL, Evaluated

    scored = score_predictions(benchmark, read_predictions(predictions), as_published)
    scores = scored.scores()
    # Only stored scores need the lake: scoring a file works on a machine without a workspace
    if store:
        from eval.store import store_scores
        from warehouse.lake import open_lake

        name = stored_as or predictions.stem
        settings = {"file": predictions.name, "as_published": as_published}
        run = store_scores(
            open_lake(space_at(workspace)), Evaluated(name, scored, scores), predictions.read_bytes(), settings
        )
        print(f"stored as {run}, model {name}", file=sys.stderr)
    if format == "json":
        print_json(scored.facts(scores))
        return
    # The table shows the whole and its parts; JSON has every slice
    rows = []
    for (part, metric), score in scores.items():
        if part == ALL or part.startswith("part "):
            rows.append({"slice": part, "metric": metric} | score.__dict__)
    show(rows, "table")
    say(", ".join(f"{n} {what.replace('_', ' ')}" for what, n in scored.counts.items()))
    for note in scored.notes:
        say(f"not scored: {note}")


@eval_app.command("compare")
def eval_compare(
    first: Annotated[Path, typer.Argument(help="A prediction file.")],
    second: Annotated[Path, typer.Argument(help="Another model's predictions for the same questions.")],
    benchmark: Annotated[BenchmarkName, typer.Option("--benchmark", help="Benchmark that the predictions answer.")],
    as_published: AsPublishedOption = False,
    format: FormatOption = "table",
) -> None:
    """Compare two models: difference of scores, paired over episodes, with bootstrap interval and p-value."""
    from eval.predictions import read_predictions
    from eval.scoring.files import score_predictions
    from eval.scoring.scored import compare

    scored_first = score_predictions(benchmark, read_predictions(first), as_published)
    scored_second = score_predictions(benchmark, read_predictions(second), as_published)
    comparison = compare(scored_first, scored_second)
    # The comparison is paired by episode: without common ones there is no pair
    if not comparison.common:
        raise UserError(f"{first} and {second} have no episode in common")
    differences = comparison.differences.items()
    rows = [{"metric": metric} | difference.__dict__ for metric, difference in differences if difference.n]
    if format == "json":
        facts = {name: value for name, value in comparison.__dict__.items() if name != "differences"}
        print_json(facts | {"benchmark": benchmark, "differences": rows})
        return
    show(rows, "table")
    counts = f"{comparison.only_first} only in the first, {comparison.only_second} in the second"
    say(f"{comparison.common} episodes in both; {counts}")


annotators_app = typer.Typer(help="Score annotators.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(annotators_app, name="annotators")


@annotators_app.command("compare")
def annotators_compare(
    run: Annotated[str | None, typer.Option("--run", help="Only this label run (the beginning of its id).")] = None,
    against: Annotated[str | None, typer.Option("--against", help="Another label run to compare with.")] = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", help="Folder of hand-labelled files, with one folder per dataset.")
    ] = None,
    dataset: Annotated[list[str] | None, typer.Option("--dataset", help="Only this dataset; repeatable.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Show every metric, not only the main ones.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Score label runs against ground truth, or else against the active label.

    Loads a language model, which takes some seconds.
    """
    from assets.lib.report import report_closing
    from eval.annotators.compare import TRUTH
    from pipeline.comparison import comparison_step
    from warehouse.lake import Lake, open_lake

    if truth and against:
        raise UserError("--truth and --against exclude each other")
    if truth and not truth.is_dir():
        raise UserError(f"--truth {truth}: there is no such folder")
    space = space_at(workspace)
    # Refuses a folder that is no workspace before anything is made in it
    Lake(space, read_only=True)
    comparison, outcome = comparison_step(
        open_lake(space), truth, run=run, against=TRUTH if truth else against, datasets=dataset or ()
    )
    is_of_everything = not (run or against or truth or dataset)
    if is_of_everything:
        report_closing(space, [outcome])  # the asset in Dagster is the comparison of everything
    if format == "json":
        print_json(_comparison_json(comparison))
    elif not comparison.labellers:
        say("Nothing to compare: one label run, and no ground truth.")
    else:
        _show_comparison(comparison, every)


def _show_comparison(comparison: "Comparison", every: bool) -> None:
    """A table per dataset and reference, and what it says in words."""
    from pipeline.comparison import conclusions, farthest, groups, metric_table, reference_words, short_table

    for (dataset, against), labellers in groups(comparison.labellers).items():
        print(f"{dataset}, against {reference_words(against)}")
        rows = metric_table(labellers) if every else short_table(labellers)
        show([{k: v for k, v in row.items() if k not in ("dataset", "against")} for row in rows], "table")
        lines = conclusions(labellers) + [farthest(apart) for apart in comparison.apart if apart.dataset == dataset]
        print("\n".join(lines) + "\n")
    for dataset, count in comparison.without.items():
        say(f"{dataset}: {count} episodes of the truth are not in the corpus, or not usable")


def _comparison_json(comparison: "Comparison") -> dict:
    from eval.annotators.compare import differences
    from pipeline.comparison import groups

    gaps = []
    for labellers in groups(comparison.labellers).values():
        for place, first in enumerate(labellers):
            for second in labellers[place + 1 :] if first.label_run else ():
                names = {"dataset": first.dataset, "labels_by": first.model, "beside": second.model}
                gaps += [names | {"metric": metric} | vars(gap) for metric, gap in differences(first, second).items()]
    return {
        "scores": [c.facts() | row for c in comparison.labellers for row in c.rows()],
        "differences": gaps,
        "farthest_apart": [vars(apart) | {"episodes": list(map(vars, apart.episodes))} for apart in comparison.apart],
        "episodes_of_truth_left_out": dict(comparison.without),
    }

"""Training, adaptation, reasoning data, and checkpoints."""

from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.options import (
    DEFAULT_WORKSPACE,
    FormatOption,
    WorkspaceOption,
    lake_at,
    open_release,
    say_next,
    space_at,
    tell_sent,
)
from cli.output import show, show_facts
from cli.progress import progress, training_progress
from core.errors import UserError
from core.names import LATEST

app = typer.Typer()


@app.command()
def train(
    recipe: Annotated[str, typer.Option("--recipe", help="A built-in recipe's name, or a YAML file.")],
    release: Annotated[
        str | None,
        typer.Option("--release", help="Release to train on; default: the newest. local: the corpus as it is now."),
    ] = None,
    model: Annotated[Path | None, typer.Option("--model", help="Folder of the checkpoint to start from.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the run's newest checkpoint.")] = False,
    auto_resume: Annotated[
        bool, typer.Option("--auto-resume", help="Resume if there is a checkpoint, else start: for requeued jobs.")
    ] = False,
    wandb: Annotated[
        bool, typer.Option("--wandb", help="Log to Weights & Biases, too; WANDB_MODE=offline keeps the log here.")
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Train a progress reward model on a release's train split. Always trains anew.

    With --release local, or before the first release: freezes the corpus as it is, whatever its licences, for use
    in this workspace only.
    """
    from training.recipe import load_recipe
    from warehouse.releases import find_release, get_release, local_release
    from warehouse.releases.contents import LOCAL

    loaded = load_recipe(recipe, model)  # before the lake is opened: a typo costs nothing
    lake = lake_at(workspace)
    now = release == LOCAL or (release is None and find_release(lake) is None)
    space, frozen = lake.workspace, local_release(lake) if now else get_release(lake, release)
    from cli.console import train_visibly
    from pipeline.reward_model import reward_model_step
    from training.train import resumable

    resume = resume or (auto_resume and resumable(space, loaded, frozen))
    outcome = train_visibly(
        space,
        lambda on_step: reward_model_step(
            lake, frozen, loaded, always=True, on_step=on_step, resume=resume, wandb=wandb
        ),
    )
    # Further processes of torchrun have no outcome to tell
    if outcome:
        facts = dict(outcome.numbers) | {"checkpoint": str(outcome.files[0])}
        show_facts(facts, format)
        if format == "table":
            say_next(
                {
                    "score it on runs that it never saw": "eval --benchmark held-out --model latest",
                    "see what it says of one": "reward --dataset NAME --episode N",
                },
                workspace,
            )


@app.command()
def adapt(
    dataset: Annotated[str, typer.Option("--dataset", help="A dataset of the corpus.")],
    episode: Annotated[int, typer.Option("--episode", min=0, help="Episode with a label or a correction.")],
    model: Annotated[str, typer.Option("--model", help="Model to adapt: a training run's name, or a folder.")] = LATEST,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="Built-in, or a YAML file; default: laptop_oneshot for a laptop model, else procvlm_oneshot_lora.",
        ),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Maximum number of moments to learn from.")] = 240,
    seed: Annotated[int, typer.Option("--seed", help="Another number draws other moments.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the run's newest checkpoint.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Adapt a model to one episode: from its active label to a LoRA adapter, or to another laptop model."""
    from training.recipe import adapting_recipe, load_recipe

    lake = lake_at(workspace)
    from pipeline.adaptation import episode_samples, model_folder
    from training.oneshot import adapt as train_adapter

    folder = model_folder(lake, model)
    loaded = load_recipe(recipe or adapting_recipe(folder), folder)
    drawn = episode_samples(lake, dataset, episode, samples, seed)
    with training_progress() as on_step:
        run = train_adapter(lake, drawn, f"{dataset}-{episode:06d}", loaded, on_step, resume)
    facts = {
        "training_run": run.id,
        "samples": len(drawn),
        "steps": len(run.curve),
        "first_error": run.curve[0].progress,
        "last_error": run.curve[-1].progress,
        "checkpoint": str(run.checkpoint),
    }
    show_facts(facts, format)


@app.command()
def cot(
    out: Annotated[Path, typer.Option("--out", help="Folder for cot.jsonl, its pictures and report.json.")],
    served_model: Annotated[str, typer.Option("--model", help="Name of a strong vision-language model at the server.")],
    endpoint: Annotated[
        list[str] | None,
        typer.Option("--endpoint", help="Base address of an OpenAI-compatible server, ends in /v1; repeatable."),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve --model (a hub name or a folder) with vLLM during the run.")
    ] = False,
    tensor_parallel_size: Annotated[
        int, typer.Option("--tensor-parallel-size", min=1, help="With --serve: GPUs per replica, such as 4 for 72B.")
    ] = 1,
    replicas: Annotated[int, typer.Option("--replicas", min=1, help="With --serve: number of servers.")] = 1,
    quantization: Annotated[
        str | None, typer.Option("--quantization", help="With --serve: quantisation, such as fp8.")
    ] = None,
    max_model_len: Annotated[
        int, typer.Option("--max-model-len", min=1024, help="With --serve: maximum tokens of a request.")
    ] = 16384,
    release: Annotated[str | None, typer.Option("--release", help="Release to draw from; default: the newest.")] = None,
    profile: Annotated[
        Literal["progresslm_sft", "progresslm_rl"],
        typer.Option("--profile", help="Training set to draw from the release."),
    ] = "progresslm_sft",
    jsonl: Annotated[
        list[Path] | None, typer.Option("--jsonl", help="Use rows of ProgressLM's RL files instead; repeatable.")
    ] = None,
    image_root: Annotated[
        Path | None, typer.Option("--image-root", help="Folder of the pictures that --jsonl names.")
    ] = None,
    inferences: Annotated[int, typer.Option("--inferences", min=1, help="Answers to each question.")] = 1,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Maximum samples, each asked --inferences times.")
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature", min=0)] = 0.6,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance", min=0, max=1, help="Largest error of an answer that is kept, as a share of the task."
        ),
    ] = 0.05,
    max_calls: Annotated[int | None, typer.Option("--max-calls", min=0, help="Maximum requests of this run.")] = None,
    max_cost_usd: Annotated[
        float | None, typer.Option("--max-cost-usd", min=0, help="Maximum cost, computed with --usd-per-gpu-hour.")
    ] = None,
    usd_per_gpu_hour: Annotated[float, typer.Option("--usd-per-gpu-hour", min=0)] = 0.0,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Simultaneous requests.")] = 16,
    seed: Annotated[int, typer.Option("--seed", help="Another number draws other samples for --profile.")] = 0,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Make reasoning data for supervised training: a strong model answers, and right answers are kept.

    They become conversations to train on.
    """
    if serve == bool(endpoint):
        raise UserError("give either --endpoint URL, the address of the model's server, or --serve")
    lake = lake_at(workspace)
    from annotate.model_client.server import Server, ServerConfig
    from annotate.vlm.config import Price, VlmConfig
    from training.cot import CotOptions, generate
    from training.progresslm_data import drawn_samples, read_rows
    from warehouse.releases import get_release

    # The questions: ProgressLM's own files, or samples drawn from a release
    if jsonl:
        samples = read_rows(jsonl, image_root, "think")
        samples.check_labels()
    else:
        samples = drawn_samples(lake.workspace, get_release(lake, release), profile, seed)
    price = Price(usd_per_gpu_hour=usd_per_gpu_hour, gpus=tensor_parallel_size)
    options = CotOptions(inferences, limit, temperature, tolerance)
    server = ServerConfig(
        model=served_model,
        port=0,
        replicas=replicas,
        tensor_parallel_size=tensor_parallel_size,
        quantization=quantization,
        max_model_len=max_model_len,
        log_dir=out / "logs",
    )
    # The server lives as long as the questions last
    with (
        progress() as report_on,
        Server(server, lambda line: report_on("server", detail=line)) if serve else nullcontext() as served,
    ):
        try:
            config = VlmConfig(
                model=served_model,
                price=price,
                endpoints=served.endpoints if served else tuple(endpoint or ()),
                max_calls=max_calls,
                max_cost_usd=max_cost_usd,
                max_concurrency=concurrency,
            )
        except ValueError as e:
            raise UserError(f"--endpoint: {' '.join(str(e).split())}") from e
        report = generate(lake, samples, config, options, out, partial(report_on, "answers"))
    facts = asdict(report) | {"file": str(report.file)}
    if format == "table":
        reasons = [f"{reason} {number}" for reason, number in report.left_out.items()]
        facts["left_out"] = ", ".join(reasons) or "none"
    show_facts(facts, format)


model_app = typer.Typer(
    help="List, check, merge, convert and publish checkpoints.",
    no_args_is_help=True,
)
app.add_typer(model_app, name="model")


ModelArgument = Annotated[
    str, typer.Argument(help="A model of the workspace, latest (the newest), or a checkpoint's folder.")
]


@model_app.command("list")
def model_list(workspace: WorkspaceOption = DEFAULT_WORKSPACE, format: FormatOption = "table") -> None:
    """List the checkpoints of a workspace, models and adapters, with their training data or origin."""
    from pipeline.models import model_rows

    show(model_rows(space_at(workspace)), format, empty="No model yet: proccorpus train.")


@model_app.command("merge")
def model_merge(
    models: Annotated[list[str] | None, typer.Argument(help="Adapters of the workspace, or their folders.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All adapters of the workspace that are not merged yet.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the merged model; default: the adapter's folder with .merged."),
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Merge adapters into whole models, for servers. The card names adapter and base, with their hashes."""
    from pipeline.models import merge_adapter, model_folder, unmerged

    if bool(models) == every:
        raise UserError("give either the names of adapters, or --all")
    if out is not None and (every or len(models or ()) != 1):
        raise UserError("--out needs exactly one adapter")
    space = space_at(workspace)
    folders = unmerged(space) if every else [model_folder(space, m) for m in models or ()]
    rows = [merge_adapter(space, folder, out) for folder in folders]
    show(rows, format, empty="No adapter is left to merge.")


@model_app.command("convert")
def model_convert(
    source: Annotated[Path, typer.Argument(help="Folder of a published ProcVLM or ProgressLM checkpoint.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    base: Annotated[Path | None, typer.Option("--base", help="For an adapter: the folder of its base model.")] = None,
    format: FormatOption = "table",
) -> None:
    """Convert a published checkpoint to our layout: safetensors and JSON. Reads pickled files as weights only."""
    from training.published import convert

    card = convert(source, out, base)
    facts = {"checkpoint": str(out), "parameters": card["parameters"], "head": card["head"] is not None}
    if format == "json":
        facts["files"] = card["files"]
    show_facts(facts, format)


@model_app.command("check")
def model_check(
    model: ModelArgument = LATEST,
    serve: Annotated[bool, typer.Option("--serve", help="Also serve it with vLLM, and send it a question.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Load a checkpoint and ask it a question about a picture."""
    from pipeline.models import check_model, model_folder

    folder = model_folder(space_at(workspace), model)
    with progress() as report:
        facts = check_model(folder, (lambda line: report("server", detail=line)) if serve else None)
    show_facts(facts, format)


@model_app.command("calibrate")
def model_calibrate(
    model: ModelArgument = LATEST,
    release: Annotated[
        str | None, typer.Option("--release", help="Release whose val split is used; default: the newest.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Calibrate the success threshold on validation episodes; training already does this for heads."""
    from eval.reward.calibration import calibrate_checkpoint
    from pipeline.models import model_folder

    space, lake, frozen = open_release(workspace, release)
    success = calibrate_checkpoint(lake, frozen, model_folder(space, model), words=True)
    if success is None:
        raise UserError(f"release {frozen.name} has no val split with moments both at and before the end state")
    show_facts(success.as_json(), format)


@model_app.command("publish")
def model_publish(
    model: ModelArgument,
    to: Annotated[str, typer.Option("--to", help="hf://OWNER/NAME, s3://..., gs://... or a folder.")],
    allow_licence: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-licence", help="Allow training data with this licence, such as cc-by-nc-4.0; repeatable."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be sent; send nothing.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new hub repository private.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Publish a checkpoint. Refused if a licence of its training data is not open."""
    from pipeline.models import model_folder
    from training.publish import publish_model
    from warehouse.lake import Lake

    space = space_at(workspace)
    folder, lake = model_folder(space, model), Lake(space, read_only=True)
    allow = allow_licence or ()
    done = publish_model(lake, folder, to, allow=allow, dry_run=dry_run, private=private, on_file=tell_sent)
    facts = {"model": folder.name} | done.__dict__ | {"dry_run": dry_run}
    show_facts(facts, format)

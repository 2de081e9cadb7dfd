"""Training, adaptation, reasoning data, and checkpoints."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from annotate.config import Price, VlmConfig
from annotate.model_client.server import Server, ServerConfig
from assets.lib.launch.child import launched, report
from cli.lakes import lake_at, lake_to_read
from cli.options import (
    At,
    EndpointOption,
    FormatOption,
    PrivateOption,
    ReleaseOption,
    ReplaceOption,
    SentDryRunOption,
    say_next,
    space_at,
    tell_sent,
)
from cli.output import progress, show, show_facts, training_progress
from core.errors import UserError
from core.names import LATEST
from pipeline.models import model_folder
from pipeline.outcome import StepOutcome
from training.recipe import adapting_recipe, load_recipe
from training.runs import resumable
from warehouse.lake import Lake
from warehouse.releases.contents import LOCAL
from warehouse.releases.release import Release, find_release, get_release, local_release

app = typer.Typer()
ResumeOption = Annotated[bool, Option(help="Resume from the run's newest checkpoint.")]


@app.command()
def train(
    recipe: Annotated[str, Option(help="A built-in recipe's name, or a YAML file.")],
    release: Annotated[
        str | None,
        Option(help="Release to train on; default: the newest. local: the corpus as it is now."),
    ] = None,
    model: Annotated[Path | None, Option(help="Folder of the checkpoint to start from.")] = None,
    resume: ResumeOption = False,
    auto_resume: Annotated[
        bool, Option(help="Resume if there is a checkpoint, else start: for queues.")
    ] = False,
    plan: Annotated[
        bool, Option("--plan", help="Only say what it takes of --machine, and whether it fits.")
    ] = False,
    machine: Annotated[
        str | None, Option(help="GPUs, GB of each, card: 8x80xH100; default: the recipe's.")
    ] = None,
    then: Annotated[
        list[str] | None,
        Option(
            help="Recipe to train next, from the merged model; repeatable. Makes what is missing."
        ),
    ] = None,
    wandb: Annotated[
        bool, Option(help="Log to Weights & Biases, too; WANDB_MODE=offline keeps the log here.")
    ] = False,
    common: At = At(),
) -> None:
    """Train a progress reward model on a release's train split. Always trains anew.

    With --release local, or before the first release: freezes the corpus as it is, whatever its licences, for use
    in this workspace only.
    """
    # Before the lake is opened: a typo costs nothing
    loaded = load_recipe(recipe, model, begins=not plan)
    for name in then or ():
        load_recipe(name, begins=False)
    if plan:
        from training.plan_words import plan_facts  # imports torch

        facts, fits = plan_facts(loaded, machine)
        show_facts(facts, common.format)
        raise typer.Exit(int(not fits))
    lake = lake_at(common.workspace)
    freezes_now = release == LOCAL or (release is None and find_release(lake) is None)
    space = lake.workspace
    frozen = local_release(lake) if freezes_now else get_release(lake, release)
    from pipeline.reward_model import chained_steps, reward_model_step  # imports torch

    if then:
        if resume or auto_resume or wandb:
            raise UserError(
                "--then goes on by itself with what was interrupted: leave out --resume and --wandb"
            )
        chain = [recipe, *then]
        made = _train_visibly(
            lambda on_step: list(chained_steps(lake, frozen, chain, model, on_step))[-1]
        )
        if made:
            show_facts(dict(made.numbers) | {"checkpoint": str(made.files[0])}, common.format)
        return
    resume = resume or (auto_resume and resumable(space, loaded, frozen))
    step = partial(reward_model_step, lake, frozen, loaded, always=True, resume=resume, wandb=wandb)
    outcome = _train_visibly(lambda on_step: step(on_step=on_step))
    if outcome:
        show_facts(dict(outcome.numbers) | {"checkpoint": str(outcome.files[0])}, common.format)
        say_next(_after_training(lake, frozen), common.workspace)


def _after_training(lake: Lake, release: Release) -> dict[str, str]:
    """How to go on: a small corpus may hold nothing out of training to score a model on."""
    splits = {shard.split for shard in release.shard_list}
    steps = {}
    if splits & {"test_id", "test_ood"}:
        steps["score it on runs that it never saw"] = "eval --benchmark held-out --model latest"
    [(dataset, episode)] = lake.rows(
        "SELECT dataset, episode_index FROM episodes WHERE status = 'ok' ORDER BY dataset, episode_index LIMIT 1"
    )
    return steps | {"see what it says of one": f"reward --dataset {dataset} --episode {episode}"}


def _train_visibly(
    train: Callable[[Callable[[Any], None]], StepOutcome],
) -> StepOutcome | None:
    """Train with a progress bar, or tell the Dagster run that launched this. None in the further
    processes of torchrun, which have nothing to say. `train` takes on_step."""
    if os.environ.get("RANK", "0") != "0":
        train(lambda point: None)
        return None
    if launched():
        return report(train)
    with training_progress() as on_step:
        return train(on_step)


@app.command()
def adapt(
    dataset: Annotated[str, Option(help="A dataset of the corpus.")],
    episode: Annotated[int, Option(min=0, help="Episode with a label or a correction.")],
    model: Annotated[
        str, Option(help="Model to adapt: a training run's name, or a folder.")
    ] = LATEST,
    recipe: Annotated[
        str | None,
        Option(
            help="Built-in, or a YAML file; default: laptop_oneshot for a laptop model, else procvlm_oneshot_lora."
        ),
    ] = None,
    samples: Annotated[int, Option(min=1, help="Maximum number of moments to learn from.")] = 240,
    seed: Annotated[int, Option(help="Another number draws other moments.")] = 0,
    resume: ResumeOption = False,
    common: At = At(),
) -> None:
    """Adapt a model to one episode, from its active label. Makes a LoRA adapter, or another laptop model."""
    from pipeline.adaptation import adapt_to_episode  # imports torch

    lake = lake_at(common.workspace)
    folder = model_folder(lake.workspace, model).resolve()
    loaded = load_recipe(recipe or adapting_recipe(folder), folder)
    with training_progress() as on_step:
        run, drawn = adapt_to_episode(
            lake, dataset, episode, loaded, on_step, count=samples, seed=seed, resume=resume
        )
    facts = {
        "training_run": run.id,
        "samples": drawn,
        "steps": len(run.curve),
        "first_error": run.curve[0].progress,
        "last_error": run.curve[-1].progress,
        "checkpoint": str(run.checkpoint),
    }
    show_facts(facts, common.format)


@app.command()
def cot(
    out: Annotated[Path, Option(help="Folder for cot.jsonl, its pictures and report.json.")],
    served_model: Annotated[
        str, Option("--model", help="Name of a strong vision-language model at the server.")
    ],
    endpoint: EndpointOption = None,
    serve: Annotated[
        bool, Option(help="Serve --model (a hub name or a folder) with vLLM during the run.")
    ] = False,
    tensor_parallel_size: Annotated[
        int, Option(min=1, help="With --serve: GPUs per replica, such as 4 for 72B.")
    ] = 1,
    replicas: Annotated[int, Option(min=1, help="With --serve: number of servers.")] = 1,
    quantization: Annotated[
        str | None, Option(help="With --serve: quantisation, such as fp8.")
    ] = None,
    max_model_len: Annotated[
        int, Option(min=1024, help="With --serve: maximum tokens of a request.")
    ] = 16384,
    release: ReleaseOption = None,
    profile: Annotated[
        Literal["progresslm_sft", "progresslm_rl"],
        Option(help="Training set to draw from the release."),
    ] = "progresslm_sft",
    jsonl: Annotated[
        list[Path] | None, Option(help="Use rows of ProgressLM's RL files instead; repeatable.")
    ] = None,
    image_root: Annotated[
        Path | None, Option(help="Folder of the pictures that --jsonl names.")
    ] = None,
    inferences: Annotated[int, Option(min=1, help="Answers to each question.")] = 1,
    limit: Annotated[
        int | None, Option(min=1, help="Maximum samples, each asked --inferences times.")
    ] = None,
    temperature: Annotated[float, Option(min=0)] = 0.6,
    tolerance: Annotated[
        float,
        Option(
            min=0, max=1, help="Largest error of an answer that is kept, as a share of the task."
        ),
    ] = 0.05,
    max_calls: Annotated[int | None, Option(min=0, help="Maximum requests of this run.")] = None,
    max_cost_usd: Annotated[
        float | None, Option(min=0, help="Maximum cost, computed with --usd-per-gpu-hour.")
    ] = None,
    usd_per_gpu_hour: Annotated[float, Option(min=0)] = 0.0,
    concurrency: Annotated[int, Option(min=1, help="Simultaneous requests.")] = 16,
    seed: Annotated[int, Option(help="Another number draws other samples for --profile.")] = 0,
    common: At = At(),
) -> None:
    """Make reasoning data for supervised training from a strong model's right answers.

    They become conversations to train on.
    """
    if serve == bool(endpoint):
        raise UserError("give either --endpoint URL, the address of the model's server, or --serve")
    lake = lake_at(common.workspace)
    from training import cot, progresslm_data  # imports torch

    if jsonl:
        samples = progresslm_data.read_rows(jsonl, image_root, "think")
        samples.check_labels()
    else:
        samples = progresslm_data.drawn_samples(
            lake.workspace, get_release(lake, release), profile, seed
        )
    server = ServerConfig(
        model=served_model,
        port=0,
        replicas=replicas,
        tensor_parallel_size=tensor_parallel_size,
        quantization=quantization,
        max_model_len=max_model_len,
        log_dir=out / "logs",
    )
    with (
        progress() as report_on,
        Server(server, lambda line: report_on("server", detail=line))
        if serve
        else nullcontext() as served,
    ):
        try:
            config = VlmConfig(
                model=served_model,
                price=Price(usd_per_gpu_hour=usd_per_gpu_hour, gpus=tensor_parallel_size),
                endpoints=served.endpoints if served else tuple(endpoint or ()),
                max_calls=max_calls,
                max_cost_usd=max_cost_usd,
                max_concurrency=concurrency,
            )
        except ValueError as e:
            raise UserError(f"--endpoint: {' '.join(str(e).split())}") from e
        options = cot.CotOptions(inferences, limit, temperature, tolerance)
        report = cot.generate(lake, samples, config, options, out, partial(report_on, "answers"))
    facts = asdict(report) | {"file": str(report.file)}
    if common.format == "table":
        facts["left_out"] = (
            ", ".join(f"{reason} {n}" for reason, n in report.left_out.items()) or "none"
        )
    show_facts(facts, common.format)


model_app = typer.Typer(help="Check, merge, convert and publish checkpoints.", no_args_is_help=True)
app.add_typer(model_app, name="model")
ModelArgument = Annotated[
    str, Argument(help="A model of the workspace, latest (the newest), or a checkpoint's folder.")
]


@model_app.command("merge")
def model_merge(
    models: Annotated[
        list[str] | None, Argument(help="Adapters of the workspace, or their folders.")
    ] = None,
    every: Annotated[
        bool, Option("--all", help="All adapters of the workspace that are not merged yet.")
    ] = False,
    out: Annotated[
        Path | None,
        Option(help="Folder for the merged model; default: the adapter's folder with .merged."),
    ] = None,
    common: At = At(),
) -> None:
    """Merge adapters into whole models, for servers. The card names adapter and base, with their hashes."""
    from pipeline.model_check import merge_adapter, unmerged  # imports torch

    if bool(models) == every:
        raise UserError("give either the names of adapters, or --all")
    if out is not None and (every or len(models or ()) != 1):
        raise UserError("--out needs exactly one adapter")
    space = space_at(common.workspace)
    folders = unmerged(space) if every else [model_folder(space, m) for m in models or ()]
    show(
        [merge_adapter(space, folder, out) for folder in folders],
        common.format,
        empty="No adapter is left to merge.",
    )


@model_app.command("convert")
def model_convert(
    source: Annotated[
        Path, Argument(help="Folder of a published ProcVLM or ProgressLM checkpoint.")
    ],
    out: Annotated[Path, Argument(help="Folder to make.")],
    base: Annotated[
        Path | None, Option(help="For an adapter: the folder of its base model.")
    ] = None,
    format: FormatOption = "table",
) -> None:
    """Convert a published checkpoint to our layout: safetensors and JSON. Reads pickled files as weights only."""
    from training.published import convert  # imports torch

    card = convert(source, out, base)
    facts = {
        "checkpoint": str(out),
        "parameters": card["parameters"],
        "head": card["head"] is not None,
    }
    show_facts(facts | {"files": card["files"]}, format, hidden=["files"])


@model_app.command("check")
def model_check(
    model: ModelArgument = LATEST,
    serve: Annotated[bool, Option(help="Also serve it with vLLM, and send it a question.")] = False,
    calibrate: Annotated[
        bool,
        Option(
            help="Instead, set its success threshold by validation episodes, as training does for heads."
        ),
    ] = False,
    release: ReleaseOption = None,
    common: At = At(),
) -> None:
    """Load a checkpoint and ask it a question about a picture."""
    folder = model_folder(space_at(common.workspace), model)
    if calibrate:
        show_facts(_calibrated(lake_at(common.workspace), folder, release), common.format)
        return
    from pipeline.model_check import check_model  # imports torch

    with progress() as report:
        facts = check_model(folder, (lambda line: report("server", detail=line)) if serve else None)
    show_facts(facts, common.format)


def _calibrated(
    lake: Lake,
    folder: Path,
    release: str | None,
) -> dict[str, Any]:
    """A checkpoint's new threshold. Raises UserError."""
    from eval.within import calibrate_checkpoint  # imports torch

    frozen = get_release(lake, release)
    success = calibrate_checkpoint(lake, frozen, folder, words=True)
    if success is None:
        raise UserError(
            f"release {frozen.name} has no val split with moments both at and before the end state"
        )
    return success.as_json()


@model_app.command("publish")
def model_publish(
    model: ModelArgument,
    to: Annotated[str, Option(help="hf://OWNER/NAME, s3://..., gs://... or a folder.")],
    allow_licence: Annotated[
        list[str] | None,
        Option(help="Allow training data with this licence, such as cc-by-nc-4.0; repeatable."),
    ] = None,
    dry_run: SentDryRunOption = False,
    private: PrivateOption = False,
    replace: ReplaceOption = False,
    common: At = At(),
) -> None:
    """Publish a checkpoint. Refused if a licence of its training data is not open."""
    from training.published import publish_model  # imports torch

    folder = model_folder(space_at(common.workspace), model)
    lake = lake_to_read(common.workspace)
    allow = allow_licence or ()
    options = {"dry_run": dry_run, "private": private, "replace": replace}
    upload = publish_model(lake, folder, to, allow=allow, on_file=tell_sent, **options)
    show_facts({"model": folder.name} | upload.__dict__ | {"dry_run": dry_run}, common.format)

"""Training, adaptation, reasoning data, and checkpoints."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from annotate.config import Price, VlmConfig
from annotate.model_client.server import Server, ServerConfig
from assets.lib.launch.child import launched, report
from cli.lakes import ReadLake, WriteLake, lake_at
from cli.options import (
    AS_JSON,
    EndpointOption,
    Facts,
    PrivateOption,
    ReleaseOption,
    ReplaceOption,
    Result,
    SentDryRunOption,
    Space,
    command,
    tell_sent,
)
from cli.output import progress, training_progress
from core.errors import UserError
from core.names import LATEST
from pipeline.models import model_folder
from pipeline.outcome import StepOutcome
from training.recipe import adapting_recipe, load_recipe
from training.runs import resumable
from warehouse.lake import Lake
from warehouse.releases.contents import LOCAL
from warehouse.releases.release import Release, find_release, get_release, local_release

ResumeOption = Annotated[bool, Option(help="Resume from the run's newest checkpoint.")]


@command("train")
def train(
    space: Space,
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
) -> Result:
    """Train a progress reward model on a release's train split. Always trains anew.

    With --release local, or before the first release: freezes the corpus as it is, whatever its
    licences, for use in this workspace only.
    """
    # Before the lake is opened: a typo costs nothing
    loaded = load_recipe(recipe, model, begins=not plan)
    for name in then or ():
        load_recipe(name, begins=False)
    if plan:
        from training.plan import plan_facts  # imports torch

        facts, fits = plan_facts(loaded, machine)
        return Result(facts, code=int(not fits))
    lake = lake_at(space)
    freezes_now = release == LOCAL or (release is None and find_release(lake) is None)
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
        return Result(_facts(made) if made else None)
    resume = resume or (auto_resume and resumable(space, loaded, frozen))
    step = partial(reward_model_step, lake, frozen, loaded, always=True, resume=resume, wandb=wandb)
    outcome = _train_visibly(lambda on_step: step(on_step=on_step))
    if outcome is None:
        return Result()
    return Result(_facts(outcome), steps=_after_training(lake, frozen))


def _facts(outcome: StepOutcome) -> Facts:
    """What a training gave."""
    return dict(outcome.numbers) | {"checkpoint": str(outcome.files[0])}


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


@command("adapt")
def adapt(
    lake: WriteLake,
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
) -> Facts:
    """Adapt a model to one episode, from its active label. Makes a LoRA adapter, or another laptop
    model."""
    from pipeline.reward_model import adapt_to_episode  # imports torch

    folder = model_folder(lake.workspace, model).resolve()
    loaded = load_recipe(recipe or adapting_recipe(folder), folder)
    with training_progress() as on_step:
        run, drawn = adapt_to_episode(
            lake, dataset, episode, loaded, on_step, count=samples, seed=seed, resume=resume
        )
    return {
        "training_run": run.id,
        "samples": drawn,
        "steps": len(run.curve),
        "first_error": run.curve[0].progress,
        "last_error": run.curve[-1].progress,
        "checkpoint": str(run.checkpoint),
    }


@command("cot")
def cot(
    lake: WriteLake,
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
) -> Facts:
    """Make reasoning data for supervised training from a strong model's right answers.

    They become conversations to train on.
    """
    if serve == bool(endpoint):
        raise UserError("give either --endpoint URL, the address of the model's server, or --serve")
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
    if not AS_JSON.get():
        facts["left_out"] = (
            ", ".join(f"{reason} {n}" for reason, n in report.left_out.items()) or "none"
        )
    return facts


ModelArgument = Annotated[
    str, Argument(help="A model of the workspace, latest (the newest), or a checkpoint's folder.")
]


@command("model merge")
def model_merge(
    space: Space,
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
) -> Result:
    """Merge adapters into whole models, for servers. The card names adapter and base, with their
    hashes."""
    from pipeline.model_check import merge_adapter, unmerged  # imports torch

    if bool(models) == every:
        raise UserError("give either the names of adapters, or --all")
    if out is not None and (every or len(models or ()) != 1):
        raise UserError("--out needs exactly one adapter")
    folders = unmerged(space) if every else [model_folder(space, m) for m in models or ()]
    merged = [merge_adapter(space, folder, out) for folder in folders]
    return Result(merged, empty="No adapter is left to merge.")


@command("model convert")
def model_convert(
    source: Annotated[
        Path, Argument(help="Folder of a published ProcVLM or ProgressLM checkpoint.")
    ],
    out: Annotated[Path, Argument(help="Folder to make.")],
    base: Annotated[
        Path | None, Option(help="For an adapter: the folder of its base model.")
    ] = None,
) -> Result:
    """Convert a published checkpoint to our layout: safetensors and JSON. Reads pickled files as
    weights only."""
    from training.published import convert  # imports torch

    card = convert(source, out, base)
    facts = {
        "checkpoint": str(out),
        "parameters": card["parameters"],
        "head": card["head"] is not None,
    }
    return Result(facts | {"files": card["files"]}, hidden=["files"])


@command("model check")
def model_check(
    space: Space,
    model: ModelArgument = LATEST,
    serve: Annotated[bool, Option(help="Also serve it with vLLM, and send it a question.")] = False,
    calibrate: Annotated[
        bool,
        Option(
            help="Instead, set its success threshold by validation episodes, as training does for heads."
        ),
    ] = False,
    release: ReleaseOption = None,
) -> Facts:
    """Load a checkpoint and ask it a question about a picture."""
    folder = model_folder(space, model)
    if calibrate:
        return _calibrated(lake_at(space), folder, release)
    from pipeline.model_check import check_model  # imports torch

    with progress() as report:
        return check_model(folder, (lambda line: report("server", detail=line)) if serve else None)


def _calibrated(
    lake: Lake,
    folder: Path,
    release: str | None,
) -> Facts:
    """A checkpoint's new threshold. Raises UserError."""
    from eval.within import calibrate_checkpoint  # imports torch

    frozen = get_release(lake, release)
    success = calibrate_checkpoint(lake, frozen, folder, words=True)
    if success is None:
        raise UserError(
            f"release {frozen.name} has no val split with moments both at and before the end state"
        )
    return success.as_json()


@command("model publish")
def model_publish(
    lake: ReadLake,
    model: ModelArgument,
    to: Annotated[str, Option(help="hf://OWNER/NAME, s3://..., gs://... or a folder.")],
    allow_licence: Annotated[
        list[str] | None,
        Option(help="Allow training data with this licence, such as cc-by-nc-4.0; repeatable."),
    ] = None,
    dry_run: SentDryRunOption = False,
    private: PrivateOption = False,
    replace: ReplaceOption = False,
) -> Facts:
    """Publish a checkpoint. Refused if a licence of its training data is not open."""
    from training.published import publish_model  # imports torch

    folder = model_folder(lake.workspace, model)
    allow = allow_licence or ()
    options = {"dry_run": dry_run, "private": private, "replace": replace}
    upload = publish_model(lake, folder, to, allow=allow, on_file=tell_sent, **options)
    return {"model": folder.name} | upload.__dict__ | {"dry_run": dry_run}

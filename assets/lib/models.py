"""What the assets of models do: train in a job of its own, evaluate, score. Imports torch."""

from dataclasses import asdict
from pathlib import Path

import dagster as dg

from assets.lib.events import made, parse_chunk_key
from assets.lib.launch.job import Job, job_name
from assets.lib.launch.run import launch
from assets.lib.model_configs import EvaluationConfig, RewardModelConfig, RewardsConfig
from eval.reward.open import ScorerConfig, open_scorer
from eval.runners.start import located_runner
from pipeline.episode_rewards import score_episodes
from pipeline.models import model_folder
from pipeline.reward_model import benchmark_step, evaluation_step, reward_model_step
from training.recipe import load_recipe
from training.runs import forget_steps, named_model, trained, training_run_id
from warehouse.lake import Lake
from warehouse.lake.stored import usable_episodes
from warehouse.releases.release import get_release


def train(
    context: dg.AssetExecutionContext, lake: Lake, config: RewardModelConfig
) -> dg.MaterializeResult:
    recipe = load_recipe(config.recipe, Path(config.model) if config.model else None)
    frozen = get_release(lake, config.name)
    run = training_run_id(recipe, frozen)
    finished = trained(lake, run)
    if finished and not config.always:
        return made(context, reward_model_step(lake, frozen, recipe))
    # Of a finished run the newest checkpoint is its end: there is nothing left to go on with
    if finished or not config.resume:
        forget_steps(lake.workspace, run)
    return launch(context, config.launch, training_job(context, lake, run, config))


def training_job(
    context: dg.AssetExecutionContext, lake: Lake, run: str, config: RewardModelConfig
) -> Job:
    """The command that trains what a configuration says, and the folder of its job."""
    name = job_name("train", context.run_id[:8], run)
    recipe = config.recipe
    if recipe.endswith((".yaml", ".yml")):
        recipe = str(Path(recipe).resolve())
    extra_arguments = ["--model", str(Path(config.model).resolve())] if config.model else []
    extra_arguments += ["--wandb"] if config.wandb else []
    root = lake.workspace.root
    # Whoever begins the job again, Slurm or Kubernetes, gives the same arguments
    start = (
        "train",
        "--auto-resume",
        "--recipe",
        recipe,
        "--release",
        config.name,
        "--workspace",
        str(root),
    )
    return Job(
        name, (*start, *extra_arguments), root, root / "jobs" / f"{name}-{context.retry_number}"
    )


def evaluate(
    context: dg.AssetExecutionContext, lake: Lake, config: EvaluationConfig
) -> dg.MaterializeResult:
    frozen = get_release(lake, config.name)
    options = config.options()
    if options.model:
        run = named_model(lake, options.model)
    else:
        run = training_run_id(load_recipe(config.recipe), frozen)
    if options.benchmark == "held-out":
        return made(context, evaluation_step(lake, frozen, run, always=config.always))

    # A line in the log now and then, where a terminal would have a bar
    def on_rows(name: str, num_done: int, total: int) -> None:
        if num_done % 100 == 0:
            context.log.info(f"{name}: {num_done} of {total}")

    runner = located_runner(lake, options, run)
    outcome = benchmark_step(lake, runner, frozen, on_rows=on_rows)[1]
    assert outcome is not None, "Dagster asks for no shard of an evaluation"
    return made(context, outcome)


def score(
    context: dg.AssetExecutionContext, lake: Lake, config: RewardsConfig
) -> dg.MaterializeResult:
    dataset, chunk = parse_chunk_key(context.partition_key)
    run = config.model or training_run_id(
        load_recipe(config.recipe), get_release(lake, config.name)
    )
    folder = model_folder(lake.workspace, run)
    episodes = usable_episodes(lake.con, "dataset = ? AND chunk = ?", [dataset, chunk])
    with open_scorer(ScorerConfig(folder)) as scorer:
        scored = score_episodes(lake, scorer, folder.name, episodes, config.score_fps)
    version = dg.DataVersion(f"{scored.run}-{scored.episodes}")
    return dg.MaterializeResult(metadata=asdict(scored), data_version=version)

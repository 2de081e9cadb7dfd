"""Building: the demo, a corpus, what a build would cost."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import (
    DEFAULT_WORKSPACE,
    DONE,
    DataFormatOption,
    FormatOption,
    MinConfidenceOption,
    MinNameConfidenceOption,
    RevisionOption,
    WorkersOption,
    WorkspaceOption,
    check_data_format,
    check_source,
    counted,
    episode_list,
    say,
    say_next,
    space_at,
)
from cli.output import print_json, show
from cli.status import status_rows
from cli.terminal import VERBOSE
from core.errors import UserError
from core.paths import ROOT

if TYPE_CHECKING:
    from core.paths import Workspace
    from pipeline.config import DatasetBuild
    from pipeline.embedding_cost import EmbeddingCost
    from pipeline.prediction import DatasetCost
    from warehouse.lake import Lake

ANNOTATORS = ("auto", "motion", "native", "vlm", "transfer")
app = typer.Typer()


@app.command()
def demo(workspace: WorkspaceOption = DEFAULT_WORKSPACE, workers: WorkersOption = None) -> None:
    """Build the shipped sample: all stages on 84 simulated runs. Skips stages that are up to date."""
    from cli.console import build_all, close
    from pipeline.config import load_config
    from pipeline.release import DEMO_RELEASE
    from pipeline.reward_model import DEMO_RECIPE

    config = ROOT / "configs" / "demo.toml"
    if not config.exists() or not (ROOT / "samples").exists():
        raise UserError("demo needs a checkout of the project (configs/ and samples/ are not installed)")
    space = space_at(workspace)
    code = build_all(space, load_config(config), workers, VERBOSE.get())
    if code != DONE:
        raise typer.Exit(code)
    close(space, DEMO_RELEASE, DEMO_RECIPE)
    say("")
    say_next(
        {
            "look at it in a browser": "explore",
            "ask it a question": 'sql "FROM coverage"',
            "see how it was made, in Dagster": "ui",
        },
        workspace,
    )


@app.command()
def build(
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file that names datasets, or one dataset's YAML file.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", help="Dataset to build: a folder, a video file or an address.")
    ] = None,
    revision: RevisionOption = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name for the dataset of --source (a prefix, if it holds several)."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="Build a dataset of the workspace again, with its last configuration."),
    ] = None,
    data_format: DataFormatOption = None,
    format: Annotated[str | None, typer.Option("--format", hidden=True)] = None,
    annotator: Annotated[
        str | None,
        typer.Option("--annotator", help="Annotator that makes the segments: auto, motion, native, vlm or transfer."),
    ] = None,
    vlm_endpoint: Annotated[
        list[str] | None,
        typer.Option("--vlm-endpoint", help="Base address of an OpenAI-compatible server, ends in /v1; repeatable."),
    ] = None,
    vlm_model: Annotated[str | None, typer.Option("--vlm-model", help="The model's name at the server.")] = None,
    episodes: Annotated[str | None, typer.Option("--episodes", help="Only these episodes, such as 0,1,5-9.")] = None,
    min_confidence: MinConfidenceOption = None,
    min_name_confidence: MinNameConfidenceOption = None,
    update: Annotated[
        bool, typer.Option("--update", help="Read hub datasets at their newest commit, not at the last build's.")
    ] = False,
    workers: WorkersOption = None,
    events: Annotated[
        Path | None, typer.Option("--events", help="For programs: append progress to this file, as JSON lines.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Ingest, measure, segment, label, sample and shard a dataset; runs only stages that are missing or stale."""
    from cli.console import build_all
    from cli.events import BuildEvents
    from pipeline.config import with_annotator, with_samples

    # What contradicts itself is refused before anything is read or written
    if [config, source, dataset].count(None) != 2:
        raise UserError("give either --config FILE, --source PATH, or --dataset NAME")
    has_vlm_options = bool(vlm_endpoint or vlm_model)
    _check_annotator(annotator, has_vlm_options=has_vlm_options)
    selected = episode_list(episodes)
    data_format = _data_format(data_format, format)
    space = space_at(workspace)
    if source is None and (name or data_format or revision):
        raise UserError("--name, --as and --revision need --source")
    if dataset is not None:
        builds = (_kept_build(space, dataset, selected),)
    elif config is not None:
        builds = _configured_builds(space, config, selected, update=update)
    else:
        assert source is not None
        builds = _builds_of_source(space, source, name, data_format, selected, revision, update=update)

    gate = {"min_confidence": min_confidence, "min_name_confidence": min_name_confidence}
    builds = tuple(with_samples(build, gate) for build in builds)
    # An annotator of the command line counts for every dataset, whatever its configuration says
    if annotator or has_vlm_options:
        builds = tuple(with_annotator(build, annotator or "vlm", vlm_endpoint, vlm_model) for build in builds)
    progress = BuildEvents(events)
    code = build_all(space, builds, workers, VERBOSE.get(), update=update, events=progress)
    progress.end(code)
    if code != DONE:
        raise typer.Exit(code)
    _say_next(space, [build.name for build in builds], workspace)


def _say_next(space: "Workspace", names: list[str], workspace: str) -> None:
    """How to go on after a build: first what was left out of it."""
    from warehouse.lake import open_lake

    lost = sum(row["quarantined"] for row in status_rows(open_lake(space)) if row["dataset"] in names)
    steps = {"look at it in a browser": "explore", "freeze it, to train on": "release create NAME"}
    if lost:
        steps = {f"why {counted(lost, 'episode')} cannot be used": "quarantine --by reason"} | steps
    say("")
    say_next(steps, workspace)


def _data_format(stated: str | None, former: str | None) -> str | None:
    """The format that --as says, or --format, as it was called before. Raises UserError."""
    if stated and former:
        raise UserError("--as says the data's format; --format, as that was called before, goes without it")
    check_data_format(stated or former)
    if former:
        print(f"note: --format {former} is --as {former} now; the next version takes that alone", file=sys.stderr)
    return stated or former


def _check_annotator(annotator: str | None, *, has_vlm_options: bool) -> None:
    """Raises UserError: an unknown annotator, or options of a model with another one."""
    if annotator is not None and annotator not in ANNOTATORS:
        raise UserError(
            f"--annotator {annotator}: known are auto (native where the source brings steps, else transfer where a "
            "reference shows the task, else motion), motion, native (the source's steps), vlm, transfer (that first)"
        )
    if has_vlm_options and annotator not in (None, "vlm"):
        raise UserError(f"--vlm-endpoint and --vlm-model need --annotator vlm, not {annotator}")


def _configured_builds(
    space: "Workspace", config: Path, episodes: tuple[int, ...] | None, *, update: bool = False
) -> "tuple[DatasetBuild, ...]":
    """The datasets of a TOML or YAML file, with the selected episodes where some are selected."""
    from pipeline.config import load_config, yaml_build
    from pipeline.sources import with_folders

    builds = yaml_build(config) if config.suffix in (".yaml", ".yml") else load_config(config)
    builds = with_folders(space, _lake_if_there(space), builds, update=update)
    if episodes is None:
        return builds
    return tuple(build.model_copy(update={"episodes": episodes}) for build in builds)


def _kept_build(space: "Workspace", dataset: str, episodes: tuple[int, ...] | None) -> "DatasetBuild":
    """A dataset as it was built last, with these episodes besides. Raises UserError: it never was; UserError."""
    from pipeline.build import stored_build

    lake = _lake_if_there(space)
    build = stored_build(lake, dataset) if lake else None
    if build is None:
        raise UserError(f"--dataset {dataset}: no such dataset was built here; proccorpus status lists them")
    return build if episodes is None else build.model_copy(update={"episodes": episodes})


def _builds_of_source(
    space: "Workspace",
    source: str,
    name: str | None,
    data_format: str | None,
    episodes: tuple[int, ...] | None,
    revision: str | None,
    *,
    update: bool,
) -> "tuple[DatasetBuild, ...]":
    """The datasets of --source. Raises UserError."""
    from pipeline.sources import builds_of_source

    if name == "":
        raise UserError("--name is empty; without it a dataset has its folder's name")
    check_source(source, revision)
    held = builds_of_source(
        space,
        _lake_if_there(space),
        source,
        name=name,
        format=data_format,
        episodes=episodes,
        revision=revision,
        update=update,
    )
    for note in held.notes:
        print(f"note: {note}", file=sys.stderr)
    return held.builds


def _lake_if_there(space: "Workspace") -> "Lake | None":
    """The lake of a workspace; none is made where there is none yet."""
    from warehouse.lake import open_lake

    return open_lake(space) if space.exists() else None


@app.command("dry-run")
def dry_run(
    config: Annotated[
        Path, typer.Option("--config", help="TOML file that names datasets, or one dataset's YAML file.")
    ],
    episodes: Annotated[str | None, typer.Option("--episodes", help="Only these episodes, such as 0,1,5-9.")] = None,
    model_dir: Annotated[
        Path | None, typer.Option("--model-dir", help="The model's folder, to count tokens exactly as its server does.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Count already labelled episodes, too.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Estimate what a vision-language model will cost (calls, tokens, GPU-hours, money), and an encoder's time.

    Sends no request.
    """
    from pipeline.prediction import facts, summary

    space = space_at(workspace)
    builds = _configured_builds(space, config, episode_list(episodes))
    # Without a workspace nothing is labelled yet, and the prediction is of all episodes
    lake = _lake_if_there(space)
    costs = _predicted_costs(space, lake, builds, model_dir, again)
    of_encoders = _embedding_costs(space, lake, builds, again)
    if format == "json":
        print_json([facts(cost) for cost in costs] + [cost.facts() for cost in of_encoders])
        return
    for cost in costs:
        show(cost.prediction.rows(), "table")
        say(summary(cost))
    for cost in of_encoders:
        say(cost.summary())


def _embedding_costs(
    space: "Workspace", lake: "Lake | None", builds: "tuple[DatasetBuild, ...]", again: bool
) -> "list[EmbeddingCost]":
    """The cost of each dataset at whose pictures an encoder will look."""
    from pipeline.build import resolve
    from pipeline.embedding_cost import embedding_cost

    resolved = [resolve(lake, build) if lake else build for build in builds]
    for build in resolved:
        if build.lacks_encoder:
            print(f"{build.name}: no embeddings: {build.lacks_encoder}", file=sys.stderr)
    return [embedding_cost(lake, build, space.sources, again=again) for build in resolved if build.has_embeddings]


def _predicted_costs(
    space: "Workspace", lake: "Lake | None", builds: "tuple[DatasetBuild, ...]", model_dir: Path | None, again: bool
) -> "list[DatasetCost]":
    """The cost of each dataset that a model annotates; of the others a line says that there is none."""
    from pipeline.build import resolve
    from pipeline.prediction import dataset_cost
    from warehouse.lake.outcomes import chunks_to_build

    # The prediction counts questions to a model only: what corrections make the build do is said beside it
    stale_chunks = chunks_to_build(lake) if lake else {}
    costs = []
    for build in builds:
        if build.name in stale_chunks:
            print(
                f"{build.name}: people's corrections and outcomes make {stale_chunks[build.name]} chunks stale",
                file=sys.stderr,
            )
        if build.annotator != "vlm":
            print(f"{build.name}: the annotator {build.annotator} sends no requests to a model", file=sys.stderr)
            continue
        # As the build would do it: what the workspace knows of a dataset counts beside its configuration
        resolved = resolve(lake, build) if lake else build
        costs.append(dataset_cost(lake, resolved, space.sources, model_dir, again=again))
    return costs

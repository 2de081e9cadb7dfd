"""Building: the demo, a corpus, what a build would cost."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import (
    DEFAULT_WORKSPACE,
    DONE,
    FormatOption,
    RevisionOption,
    UsageError,
    VerboseOption,
    WorkersOption,
    WorkspaceOption,
    check_source,
    episode_list,
    say,
    space_at,
)
from cli.output import print_json, show
from core.paths import ROOT

if TYPE_CHECKING:
    pass

app = typer.Typer(rich_markup_mode=None)


@app.command()
def demo(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE, workers: WorkersOption = None, verbose: VerboseOption = False
) -> None:
    """Build the shipped sample: the whole graph on 84 simulated runs. What is up to date is not done again."""
    from cli.console import build_all, close
    from pipeline.config import load_config
    from pipeline.release_cycle import DEMO_RECIPE, DEMO_RELEASE

    config = ROOT / "configs" / "demo.toml"
    if not config.exists() or not (ROOT / "samples").exists():
        raise UsageError("demo needs a checkout of the project (configs/ and samples/ are not installed)")
    space = space_at(workspace)
    code = build_all(space, load_config(config), workers, verbose)
    if code != DONE:
        raise typer.Exit(code)
    close(space, DEMO_RELEASE, DEMO_RECIPE)
    say(f"\nNext: see it in Dagster   proccorpus ui{_option(workspace)}")
    say(f'      ask it a question   proccorpus sql{_option(workspace)} "FROM coverage"')


def _option(workspace: str) -> str:
    return "" if workspace == DEFAULT_WORKSPACE else f" --workspace {workspace}"


@app.command()
def build(
    config: Annotated[Path | None, typer.Option("--config", help="TOML file that names datasets, or one YAML.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="A folder, a video file, or an address.")] = None,
    revision: RevisionOption = None,
    name: Annotated[str | None, typer.Option("--name", help="What to call the dataset of --source.")] = None,
    format: Annotated[str | None, typer.Option("--format", help="Format of --source; default: by looking.")] = None,
    annotator: Annotated[str | None, typer.Option("--annotator", help="Who segments: motion, native or vlm.")] = None,
    vlm_endpoint: Annotated[
        list[str] | None, typer.Option("--vlm-endpoint", help="OpenAI-compatible base, ends in /v1; repeatable.")
    ] = None,
    vlm_model: Annotated[str | None, typer.Option("--vlm-model", help="The model's name at the server.")] = None,
    episodes: Annotated[str | None, typer.Option("--episodes", help="Only these, such as 0,1,5-9.")] = None,
    workers: WorkersOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    verbose: VerboseOption = False,
) -> None:
    """Ingest, measure, segment, label, sample and shard; only what is missing or stale is done."""
    from cli.console import build_all
    from ingest.formats import FORMAT_NAMES
    from pipeline.config import load_config, source_build, with_annotator, yaml_build

    if (config is None) == (source is None):
        raise UsageError("give either --config FILE, or --source PATH with --name NAME")
    if annotator not in (None, "motion", "native", "vlm"):
        raise UsageError(f"--annotator {annotator}: known are motion, native (the source's spans), vlm")
    if (vlm_endpoint or vlm_model) and annotator not in (None, "vlm"):
        raise UsageError(f"--vlm-endpoint and --vlm-model go with --annotator vlm, not with {annotator}")
    selected = episode_list(episodes)
    if config is not None:
        if name or format or revision:
            raise UsageError("--name, --format and --revision go with --source")
        loaded = yaml_build(config) if config.suffix in (".yaml", ".yml") else load_config(config)
        if selected is not None:
            loaded = tuple(b.model_copy(update={"episodes": selected}) for b in loaded)
    else:
        assert source is not None
        if not name:
            raise UsageError("--source needs --name NAME")
        if format is not None and format not in FORMAT_NAMES:
            raise UsageError(f"unknown format {format!r}; known: {', '.join(FORMAT_NAMES)}")
        check_source(source, revision)
        loaded = (source_build(source, name, format, selected, revision),)
    if annotator or vlm_endpoint or vlm_model:
        loaded = tuple(with_annotator(b, annotator or "vlm", vlm_endpoint, vlm_model) for b in loaded)
    code = build_all(space_at(workspace), loaded, workers, verbose)
    if code != DONE:
        raise typer.Exit(code)


@app.command("dry-run")
def dry_run(
    config: Annotated[Path, typer.Option("--config", help="TOML file that names datasets, or one YAML.")],
    episodes: Annotated[str | None, typer.Option("--episodes", help="Only these, such as 0,1,5-9.")] = None,
    model_dir: Annotated[
        Path | None, typer.Option("--model-dir", help="The model's folder: tokens are counted as its server does.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Count episodes that are labelled already, too.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """What annotating by a vision-language model will cost: calls, tokens, GPU-hours, money. Asks nothing."""
    from pipeline.build import resolve
    from pipeline.config import load_config, yaml_build
    from pipeline.prediction import dataset_cost, facts, summary
    from warehouse.lake import open_lake
    from warehouse.lake.corrections import pending

    selected = episode_list(episodes)
    loaded = yaml_build(config) if config.suffix in (".yaml", ".yml") else load_config(config)
    space = space_at(workspace)
    lake = open_lake(space) if space.exists() else None
    costs = []
    stale = pending(lake) if lake else {}
    for build in loaded:
        if build.name in stale:
            print(f"{build.name}: people's corrections make {stale[build.name]} chunks stale", file=sys.stderr)
        if build.annotator != "vlm":
            print(f"{build.name}: the annotator {build.annotator} asks no model", file=sys.stderr)
            continue
        chosen = build if selected is None else build.model_copy(update={"episodes": selected})
        chosen = resolve(lake, chosen) if lake else chosen
        costs.append(dataset_cost(lake, chosen, space.sources, model_dir, again=again))
    if format == "json":
        print_json([facts(c) for c in costs])
        return
    for c in costs:
        show(c.prediction.rows(), "table")
        say(summary(c))

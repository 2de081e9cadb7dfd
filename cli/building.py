"""Building: the demo, a corpus, what a build would cost."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Annotated, Any

from typer import Option

from cli.console import build_all
from cli.options import (
    AS_JSON,
    DONE,
    PARTIAL,
    DataFormatOption,
    EndpointOption,
    EpisodesOption,
    MinConfidenceOption,
    MinNameConfidenceOption,
    Result,
    RevisionOption,
    Space,
    UpdateOption,
    WorkersOption,
    check_source,
    command,
    counted,
    note,
    say,
    say_next,
    warn,
)
from cli.output import looking_at, show, training_progress
from cli.status import status_rows
from core.annotators import CHOICES, choices_with_help, in_words
from core.errors import UserError
from core.metrics import is_lower_better
from core.names import DEMO_RECIPE, DEMO_RELEASE, did_you_mean
from core.paths import ROOT, Workspace
from core.values import imported
from ingest.registry import NAME_PATTERN, name_of
from pipeline.config import (
    DatasetBuild,
    load_config,
    read_build_file,
    resolve,
    stored_build,
    stored_builds,
    with_annotator,
    with_samples,
    with_task,
)
from pipeline.sources import all_builds, builds_of_source, replaced, with_folders
from warehouse.lake import Lake, open_lake, renaming
from warehouse.lake.acceptances import open_faults
from warehouse.lake.lake import lake_to_read
from warehouse.releases.contents import freeze_command, licence_flags, listed_numbers

AFTER_DEMO = {
    "look at it in a browser": "explore",
    "ask it a question": 'sql "FROM coverage"',
    "see how it was made, in Dagster": "ui",
}


@command("demo")
def demo(space: Space, workers: WorkersOption = None) -> int:
    """Build the shipped sample: all stages on 84 simulated runs. Skips stages that are up to date."""
    config = ROOT / "configs" / "demo.toml"
    if not config.exists() or not (ROOT / "samples").exists():
        raise UserError(
            "demo needs a checkout of the project (configs/ and samples/ are not installed)"
        )
    code = build_all(space, load_config(config), workers)
    if code != DONE:
        return code
    # Release, train, evaluate and rank
    release, reward_model = _closing()
    lake = open_lake(space)
    with training_progress() as on_step:
        outcomes = reward_model.closing_steps(
            lake, DEMO_RELEASE, imported("training.recipe:load_recipe")(DEMO_RECIPE), on_step
        )
    _say_outcomes(outcomes)
    print(f"\nScores on held-out episodes, best first ({_directions(release.LEADERBOARD_METRICS)})")
    show(release.leaderboard_rows(lake))
    say("")
    say_next(AFTER_DEMO)
    return DONE


def _directions(metrics: Sequence[str]) -> str:
    """Which way is better. Example: _directions(["mae", "voc"]) is "mae: less is better; voc: more
    is better"."""
    lower_is_better = [metric for metric in metrics if is_lower_better(metric)]
    higher_is_better = [metric for metric in metrics if not is_lower_better(metric)]
    return f"{', '.join(lower_is_better)}: less is better; {', '.join(higher_is_better)}: more is better"


def _closing() -> tuple[ModuleType, ModuleType]:
    """What comes after a build, which does not wait for it: releases; models, which import torch."""
    from pipeline import release, reward_model

    return release, reward_model


def _say_outcomes(outcomes: Sequence[Any]) -> None:
    """What steps of a release and its models did (pipeline.outcome.StepOutcome)."""
    for outcome in outcomes:
        if outcome.asset == "leaderboard":  # demo shows it as a table
            continue
        print(f"{outcome.asset.replace('_', ' ')}: {'made' if outcome.made else 'up to date'}")
        if "left_out" in outcome.numbers:
            note(f"left out: {outcome.numbers['left_out']}")
        for path in outcome.files:
            print(f"{outcome.asset}: {path}")


@command("nightly")
def nightly(
    space: Space,
    config: Annotated[
        Path | None, Option(help="TOML file that names datasets, and licences under release.")
    ] = None,
    release: Annotated[
        str, Option(help="The release's name; it is replaced when the corpus changed.")
    ] = "nightly",
    update: UpdateOption = False,
    workers: WorkersOption = None,
) -> int:
    """Bring every dataset up to date, release them, and score the newest model.

    Datasets whose licence is not open stay out unless the configuration's section "release" allows
    it. Exits 3 when only sources out of reach or changed, or episodes without an answer, are left
    out: the next night tries again.
    """
    licences = read_build_file(config).release.licences if config else ()
    builds = all_builds(
        space, _lake_if_there(space), load_config(config) if config else (), update=update
    )
    if not builds:
        raise UserError(f"{space.root} has no dataset yet: give --config FILE")
    code = build_all(space, builds, workers, update=update, asked_code=PARTIAL)
    _, reward_model = _closing()
    _say_outcomes(reward_model.scoring_steps(open_lake(space), release, licences))
    return code


@command("build")
def build(
    space: Space,
    config: Annotated[
        Path | None, Option(help="TOML file that names datasets, or one dataset's YAML file.")
    ] = None,
    source: Annotated[
        str | None, Option(help="Dataset to build: a folder, a video file or an address.")
    ] = None,
    revision: RevisionOption = None,
    name: Annotated[
        str | None, Option(help="Name for the dataset of --source; a prefix, if it holds several.")
    ] = None,
    dataset: Annotated[
        str | None, Option(help="Build this dataset again, with its last configuration.")
    ] = None,
    data_format: DataFormatOption = None,
    task: Annotated[
        str | None,
        Option(help="Instruction of the runs for which the source has none: what all of them do."),
    ] = None,
    annotator: Annotated[str | None, Option(help=f"What labels: {in_words(CHOICES)}.")] = None,
    vlm_endpoint: EndpointOption = None,
    vlm_model: Annotated[str | None, Option(help="The model's name at the server.")] = None,
    episodes: EpisodesOption = None,
    min_confidence: MinConfidenceOption = None,
    min_name_confidence: MinNameConfidenceOption = None,
    update: UpdateOption = False,
    accept_changes: Annotated[
        bool,
        Option(
            help="Build also where most recordings are elsewhere in the source than before, or the robot is another."
        ),
    ] = False,
    replace: Annotated[
        bool,
        Option(
            help="Put a dataset of another source that has the name away; what people said of it is kept."
        ),
    ] = False,
    dry_run: Annotated[
        bool, Option(help="Say what would be done, why, and at what cost of models; write nothing.")
    ] = False,
    again: Annotated[
        bool, Option(help="With --dry-run: count what models answered already, too.")
    ] = False,
    workers: WorkersOption = None,
    events: Annotated[
        Path | None, Option(help="For programs: append progress to this file, as JSON lines.")
    ] = None,
) -> Result:
    """Ingest, label and shard a dataset; runs only stages that are missing or stale.

    Also measures it and draws samples.
    """
    # What contradicts itself is refused before anything is read or written
    if [config, source, dataset].count(None) != 2:
        raise UserError("give either --config FILE, --source PATH, or --dataset NAME")
    has_vlm_options = bool(vlm_endpoint or vlm_model)
    _check_annotator(annotator, has_vlm_options=has_vlm_options)
    _check_of_source(source, name, data_format, revision, replace=replace)
    lake = _lake_if_there(space, read_only=dry_run)
    if dataset is not None:
        builds = [_kept_build(lake, dataset)]
    elif config is not None:
        builds = with_folders(space, lake, load_config(config), update=update)
    else:
        assert source is not None
        check_source(source, revision)
        with looking_at(source), _sources(space, dry_run=dry_run) as looked_in:
            source_builds, notes = builds_of_source(
                looked_in, lake, source, name=name, format=data_format, episodes=episodes,
                revision=revision, update=update, same=replace or accept_changes,
            )  # fmt: skip
        warn(notes, "note")
        builds = list(source_builds)
        if replace:
            _put_away(lake, builds, dry_run=dry_run)

    if episodes is not None:
        builds = [build.model_copy(update={"episodes": episodes}) for build in builds]
    if task is not None:
        builds = [with_task(build, task) for build in builds]
    gate = {"min_confidence": min_confidence, "min_name_confidence": min_name_confidence}
    builds = [with_samples(build, gate) for build in builds]
    # An annotator of the command line counts for every dataset, whatever its configuration says
    if annotator or has_vlm_options:
        builds = [
            with_annotator(build, annotator or "vlm", vlm_endpoint, vlm_model) for build in builds
        ]
    if dry_run:
        return _foreseen(lake, builds, update=update, again=again)
    options = {"update": update, "accept_changes": accept_changes}
    code = build_all(space, builds, workers, events=events, **options)
    names = [build.name for build in builds]
    warn(_not_in_source(space, names, episodes), "note")
    if code != DONE or AS_JSON.get():
        return Result(code=code)
    return Result(lines=[""], steps=_how_to_go_on(space, names))


def _not_in_source(
    space: Workspace, names: Sequence[str], selected: Sequence[int] | None
) -> list[str]:
    """A sentence on each dataset that has not all of the episodes which --episodes names."""
    lines: list[str] = []
    for name in names if selected is not None else ():
        # By their number, or by that in the source; what is quarantined is there, too
        missing = open_lake(space).column(
            "SELECT unnest($2::BIGINT[]) AS e EXCEPT SELECT episode_index FROM episode_facts WHERE dataset = $1 "
            "EXCEPT SELECT source_index FROM episode_facts WHERE dataset = $1 "
            "EXCEPT SELECT episode_index FROM findings WHERE dataset = $1 ORDER BY e",
            [name, selected],
        )
        if missing:
            lines.append(f"{name}: its source has no episodes {listed_numbers(missing)}")
    return lines


def _how_to_go_on(space: Workspace, names: Sequence[str]) -> dict[str, str]:
    """What to do after a build of some datasets: first about what was left out."""
    lake = open_lake(space)
    steps = {}
    with lake.reading():
        num_left_out = sum(
            row["quarantined"] + row["unlabelled"]
            for row in status_rows(lake)
            if row["dataset"] in names
        )
        if num_left_out:
            why = f"why {counted(num_left_out, 'episode')} cannot be used, or have no label"
            steps[why] = "show quarantine_reasons"
        if open_faults(lake, names):
            steps["what checks found"] = "show faults"
        licences = lake.column("SELECT license FROM datasets")
        releases = lake.column("SELECT name FROM releases")
    terms = " (if you know its terms)" if licence_flags(licences) else ""
    steps["look at it in a browser"] = "explore"
    return steps | {f"freeze it, to train on{terms}": freeze_command(licences, releases)}


def _check_of_source(
    source: str | None,
    name: str | None,
    data_format: str | None,
    revision: str | None,
    *,
    replace: bool,
) -> None:
    """Raises UserError: options of --source without it, or a name that holds what none may."""
    if source is None and (name or data_format or revision or replace):
        raise UserError("--name, --as, --revision and --replace need --source")
    if name is not None and not re.fullmatch(NAME_PATTERN, name):
        suggestion = name_of(name) or "my_robot"
        raise UserError(
            f"--name {name!r}: a name is of small letters, digits, _ and -, such as {suggestion}"
        )


@contextmanager
def _sources(space: Workspace, *, dry_run: bool) -> Iterator[Workspace]:
    """Where lists of fetched files are kept: of a dry run nothing is."""
    if not dry_run:
        yield space
        return
    with TemporaryDirectory() as folder:
        yield Workspace(Path(folder))


def _foreseen(
    lake: Lake | None, builds: Sequence[DatasetBuild], *, update: bool, again: bool
) -> Result:
    """What a build would do, and what models would cost. Writes nothing, and sends no request."""
    foreseen = imported("pipeline.dry_run:foresee")(lake, builds, update=update)
    model_cost = imported("pipeline.prediction:model_cost")
    model_costs = []
    with TemporaryDirectory() as folder:
        for build in builds:
            # As the build would do it: what the workspace knows of a dataset counts beside its configuration
            resolved = resolve(lake, build, update=update)
            if build.annotator == "vlm":
                model_costs.append(model_cost(lake, resolved, Path(folder), from_scratch=again))
            if resolved.lacks_encoder:
                warn([f"no embeddings: {resolved.lacks_encoder}"], build.name)
    warn(foreseen.notes, "note")
    rows = [asdict(work) for work in foreseen.work]
    if AS_JSON.get():
        costs = [cost.facts() for cost in model_costs]
        return Result({"work": rows, "up_to_date": foreseen.up_to_date, "model": costs})
    stay = f"{counted(foreseen.up_to_date, 'stage')} up to date"
    show(rows, empty=f"Nothing would be done: {stay}.")
    if rows:
        say(f"Nothing was written. A build would do this; {stay}.")
    for cost in model_costs:
        if cost.measured:
            show(cost.bill(cost.episodes)["stages"])
        say(cost.summary())
    return Result()


def _put_away(lake: Lake | None, builds: Sequence[DatasetBuild], *, dry_run: bool) -> None:
    """Remove the datasets of other sources that have the names of some builds, and say what became
    of them."""
    if lake is None:
        return
    for build in builds:
        if former := replaced(lake, build):
            holdings = renaming.holdings(lake, build.name).sentence
            if dry_run:
                note(f"note: what was built of {former.source} would be put away: {holdings}")
                continue
            kept_as = renaming.remove(lake, build.name)
            kept_note = f"; what people said is kept as {kept_as}" if kept_as else ""
            note(f"note: put away what was built of {former.source}: {holdings}{kept_note}")


def _check_annotator(annotator: str | None, *, has_vlm_options: bool) -> None:
    """Raises UserError: an unknown annotator, or options of a model with another one."""
    if annotator is not None and annotator not in CHOICES:
        raise UserError(f"--annotator {annotator}: known are {choices_with_help()}")
    if has_vlm_options and annotator not in (None, "vlm"):
        raise UserError(f"--vlm-endpoint and --vlm-model need --annotator vlm, not {annotator}")


def _kept_build(lake: Lake | None, dataset: str) -> DatasetBuild:
    """A dataset as it was built last. Raises UserError."""
    build = stored_build(lake, dataset) if lake else None
    if build is None:
        hint = (
            did_you_mean(dataset, [*stored_builds(lake)] if lake else [])
            or "; proccorpus status lists them"
        )
        raise UserError(f"--dataset {dataset}: no such dataset was built here{hint}")
    return build


def _lake_if_there(space: Workspace, *, read_only: bool = False) -> Lake | None:
    """The lake of a workspace; none is made where there is none yet."""
    if not space.exists():
        return None
    if read_only:
        return lake_to_read(space)
    return open_lake(space)

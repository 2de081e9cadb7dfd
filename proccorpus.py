"""The command line. Everything heavy is imported inside the command that needs it."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from warehouse.output import print_json, show, write_result

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from warehouse.exports.common import Exported, Selection
    from warehouse.exports.samples import SampleOptions
    from warehouse.lake import Lake
    from warehouse.releases import Release
    from warehouse.targets import Item
    from warehouse.workspace import Workspace

ROOT = Path(__file__).resolve().parent
DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    help="Turn robot demonstrations into process supervision: segments, progress labels, samples and shards.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
WorkspaceOption = Annotated[
    str, typer.Option("--workspace", envvar="PROCCORPUS_WORKSPACE", help="Folder that holds the corpus.")
]
FormatOption = Annotated[Literal["table", "json"], typer.Option("--format", help="table for people, json for scripts.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show where an error came from.")]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="Processes; default: one per core.")]
RevisionOption = Annotated[str | None, typer.Option("--revision", help="Commit or branch of a hub's dataset.")]
DEFAULT_WORKSPACE = "./workspace"


class UsageError(Exception):
    """Wrong use of the command line: what, and what to do."""


# Building


@app.command()
def demo(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE, workers: WorkersOption = None, verbose: VerboseOption = False
) -> None:
    """Build the shipped sample: the whole graph on 84 simulated runs. What is up to date is not done again."""
    from assets.closing import DEMO_RECIPE, DEMO_RELEASE
    from assets.config import load_config
    from assets.console import build_all, close

    config = ROOT / "configs" / "demo.toml"
    if not config.exists() or not (ROOT / "samples").exists():
        raise UsageError("demo needs a checkout of the project (configs/ and samples/ are not installed)")
    space = _workspace(workspace)
    code = build_all(space, load_config(config), workers, verbose)
    if code != DONE:
        raise typer.Exit(code)
    close(space, DEMO_RELEASE, DEMO_RECIPE)
    _say(f"\nNext: see it in Dagster   proccorpus ui{_option(workspace)}")
    _say(f'      ask it a question   proccorpus sql{_option(workspace)} "FROM coverage"')


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
    from assets.config import load_config, source_build, with_annotator, yaml_build
    from assets.console import build_all
    from ingest.registry import FORMATS

    if (config is None) == (source is None):
        raise UsageError("give either --config FILE, or --source PATH with --name NAME")
    if annotator not in (None, "motion", "native", "vlm"):
        raise UsageError(f"--annotator {annotator}: known are motion, native (the source's spans), vlm")
    if (vlm_endpoint or vlm_model) and annotator not in (None, "vlm"):
        raise UsageError(f"--vlm-endpoint and --vlm-model go with --annotator vlm, not with {annotator}")
    selected = _episode_list(episodes)
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
        if format is not None and format not in FORMATS:
            raise UsageError(f"unknown format {format!r}; known: {', '.join(FORMATS)}")
        _check_source(source, revision)
        loaded = (source_build(source, name, format, selected, revision),)
    if annotator or vlm_endpoint or vlm_model:
        loaded = tuple(with_annotator(b, annotator or "vlm", vlm_endpoint, vlm_model) for b in loaded)
    code = build_all(_workspace(workspace), loaded, workers, verbose)
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
    from assets.build import resolve
    from assets.config import load_config, yaml_build
    from assets.prediction import dataset_cost, facts, summary
    from warehouse.lake import open_lake

    selected = _episode_list(episodes)
    loaded = yaml_build(config) if config.suffix in (".yaml", ".yml") else load_config(config)
    space = _workspace(workspace)
    lake = open_lake(space) if space.exists() else None
    costs = []
    for build in loaded:
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
        _say(summary(c))


def _check_source(source: str, revision: str | None) -> None:
    if "://" not in source and not Path(source).exists():
        raise UsageError(f"no such file or folder: {source}")
    if revision and not source.startswith("hf://"):
        raise UsageError(f"--revision goes with a dataset of the hub (hf://owner/name), not with {source}")


def _episode_list(text: str | None) -> tuple[int, ...] | None:
    """'0,1,5-9' as numbers, ends included; raises UsageError."""
    if text is None:
        return None
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and (not last.isdecimal() or int(last) < int(first))):
            raise UsageError(f"--episodes {text}: {part.strip()!r} is not a number or a range such as 5-9")
        found.update(range(int(first), int(last if dash else first) + 1))
    return tuple(sorted(found))


# Releases, models, scores


release_app = typer.Typer(help="Frozen corpora.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(release_app, name="release")


@release_app.command("create")
def release_create(
    name: str,
    allow_licence: Annotated[
        list[str] | None,
        typer.Option("--allow-licence", help="Let datasets under it in, such as cc-by-nc-4.0 or unknown; repeatable."),
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Freeze the corpus as it is: a snapshot, its shards and a card. Read it later with --release NAME.

    Datasets whose licence is not open stay out unless allowed. A leak between splits blocks it.
    """
    from warehouse.contents import LOCAL, contents
    from warehouse.releases import card_path, create_release

    if name == LOCAL:
        raise UsageError(f"{LOCAL} is what proccorpus train calls the corpus as it is: choose another name")
    lake = _open_lake(workspace)
    held = contents(lake, allow_licence or ())
    made = create_release(lake, name, held=held)
    facts = {"release": made.name, "snapshot": made.snapshot, "content": made.config_hash}
    facts |= {"shards": len(made.shard_list), "card": str(card_path(lake.workspace, name))}
    for left in held.left_out:
        print(f"left out: {left}", file=sys.stderr)
    show([facts], format) if format == "table" else print_json(
        facts | {"left_out": [x.__dict__ for x in held.left_out]}
    )


@release_app.command("list")
def release_list(workspace: WorkspaceOption = DEFAULT_WORKSPACE, format: FormatOption = "table") -> None:
    """The releases of a workspace, newest first."""
    from warehouse.lake import Lake

    sql = (
        "SELECT r.name, r.snapshot, r.config_hash, count(s.shard) AS shards, sum(s.samples)::BIGINT AS samples, "
        "sum(s.bytes)::BIGINT AS bytes, r.created_at FROM releases r LEFT JOIN release_shards s USING (name) "
        "GROUP BY ALL ORDER BY created_at DESC"
    )
    show(Lake(_workspace(workspace), read_only=True).dicts(sql), format, empty="No release yet.")


@release_app.command("verify")
def release_verify(
    name: Annotated[str | None, typer.Argument(help="A release of the workspace; default: the newest.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="A published release's address: needs no workspace.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Read every byte of a release and compare it with what was frozen. Exits 1 and names each failure."""
    from warehouse.lake import Lake
    from warehouse.publish import verify_published
    from warehouse.releases import get_release
    from warehouse.verify import verify_release

    if at is not None:
        if name is not None:
            raise UsageError("give either NAME or --at URI")
        manifest, failures = verify_published(at)
        sizes = [f["bytes"] for f in manifest["files"]]
        facts = {"release": manifest["release"], "snapshot": manifest["snapshot"]}
    else:
        lake = Lake(_workspace(workspace), read_only=True)
        release = get_release(lake, name)
        failures = verify_release(lake, release)
        sizes = [s.bytes for s in release.shard_list]
        facts = {"release": release.name, "snapshot": release.snapshot}
    facts |= {"files": len(sizes), "bytes": sum(sizes), "failures": len(failures)}
    if format == "json":
        print_json(facts | {"failures": [f.__dict__ for f in failures]})
    else:
        show([facts], "table")
        show([f.__dict__ for f in failures], "table", empty="All as it was frozen.")
    if failures:
        raise typer.Exit(FAILED)


@release_app.command("diff")
def release_diff(
    a: Annotated[str, typer.Argument(help="A release, or with --runs the beginning of a label run's id.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
    runs: Annotated[bool, typer.Option("--runs", help="Compare two label runs of the corpus as it is.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """What release B holds otherwise than A: episodes, labels, how far boundaries and progress moved."""
    from warehouse.diff import diff_releases, diff_runs
    from warehouse.lake import Lake

    lake = Lake(_workspace(workspace), read_only=True)
    found = (diff_runs if runs else diff_releases)(lake, a, b)
    if format == "json":
        print_json(found.facts())
        return
    show(found.datasets, "table", empty="Neither holds an episode.")
    if found.relabelled:
        _say(f"The {len(found.worst)} of {len(found.relabelled)} relabelled episodes that moved most:")
        show([c.__dict__ for c in found.worst], "table")


@release_app.command("delete")
def release_delete(name: str, workspace: WorkspaceOption = DEFAULT_WORKSPACE, verbose: VerboseOption = False) -> None:
    """Forget a release and its card. What nothing else names is freed by proccorpus gc."""
    from warehouse.releases import delete_release

    gone = delete_release(_open_lake(workspace), name)
    _say(
        f"{gone.name} is deleted; its {len(gone.shard_list)} shards go with the next gc where nothing else names them."
    )


@release_app.command("publish")
def release_publish(
    name: str,
    to: Annotated[str, typer.Option("--to", help="hf://datasets/OWNER/NAME, s3://..., gs://... or a folder.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent; send nothing.")] = False,
    private: Annotated[bool, typer.Option("--private", help="A new hub repository is private.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Send a release elsewhere: shards, card, labels as Parquet, a manifest. Interrupted, it goes on where it was."""
    from warehouse.lake import Lake
    from warehouse.publish import publish
    from warehouse.releases import get_release

    lake = Lake(_workspace(workspace), read_only=True)
    done = publish(lake, get_release(lake, name), to, dry_run=dry_run, private=private, on_file=_tell_sent)
    facts = {"release": name} | done.__dict__ | {"dry_run": dry_run}
    show([facts], format) if format == "table" else print_json(facts)


def _tell_sent(item: "Item") -> None:
    if sys.stderr.isatty():
        print(f"sent {item.path}", file=sys.stderr)


@app.command()
def takedown(
    dataset: Annotated[str, typer.Argument(help="Its name in the corpus.")],
    episodes: Annotated[str | None, typer.Option("--episodes", help="Only these, such as 0,1,5-9.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; is kept, and shown in the quarantine.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Mark data as not to be used: releases leave it out at once, the next build drops it, gc deletes its bytes."""
    from warehouse.takedown import take_down, takedown_marks
    from warehouse.takedown import undo as take_back

    selected = _episode_list(episodes)
    if not undo and not (reason or "").strip():
        raise UsageError("takedown needs --reason TEXT: whoever finds the data missing later will ask")
    lake = _open_lake(workspace)
    if undo:
        print(
            f"{take_back(lake, dataset, selected)} marks taken back; build {dataset} to use it again.", file=sys.stderr
        )
    else:
        take_down(lake, dataset, selected, reason or "")
        print(f"Build {dataset} to make its chunks without it, then run gc to delete the bytes.", file=sys.stderr)
    show(takedown_marks(lake, dataset), format, empty=f"Nothing of {dataset} is taken down.")


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted; delete nothing.")] = False,
    keep_days: Annotated[
        float, typer.Option("--keep-days", min=0, help="Lake snapshots younger than this stay readable.")
    ] = 7,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Delete what neither the corpus as it is nor a release names. Not while a build runs."""
    from warehouse.gc import collect

    freed = collect(_open_lake(workspace), keep_days, dry_run=dry_run)
    rows = [f.__dict__ for f in freed]
    if format == "table":
        _say("Would be deleted:" if dry_run else "Deleted:")
    show(rows, format)


# Exports


export_app = typer.Typer(
    help="The corpus in formats that other tools open.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(export_app, name="export")
OutOption = Annotated[Path, typer.Option("--out", help="Folder to write; one with the same export is resumed.")]
ReleaseOption = Annotated[
    str | None, typer.Option("--release", help="As this release froze it; default: as it is now.")
]
DatasetsOption = Annotated[list[str] | None, typer.Option("--dataset", help="Only this one; repeatable.")]
EpisodesOption = Annotated[str | None, typer.Option("--episodes", help="Only these of one dataset, such as 0,1,5-9.")]
SplitsOption = Annotated[list[str] | None, typer.Option("--split", help="Only train, val, test_id ...; repeatable.")]
WhereOption = Annotated[
    str | None,
    typer.Option("--where", help="A condition such as 'success', or a query giving dataset, episode_index."),
]
LicencesOption = Annotated[
    list[str] | None,
    typer.Option("--allow-licence", help="Let datasets under it in, such as cc-by-nc-4.0 or unknown; repeatable."),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Delete another export that --out holds.")]
FamiliesOption = Annotated[list[str] | None, typer.Option("--family", help="Only samples of this family; repeatable.")]
FormsOption = Annotated[
    list[str] | None, typer.Option("--form", help="ProgressLM's samples only in this form: think or no_think.")
]
ProfileOption = Annotated[
    str | None,
    typer.Option("--profile", help="Draw this training set from --release: progresslm_sft or progresslm_rl."),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Other samples of --profile with another number.")]


def _selection(
    release: str | None,
    dataset: list[str] | None,
    episodes: str | None,
    split: list[str] | None,
    where: str | None,
    allow_licence: list[str] | None,
) -> "Selection":
    from warehouse.exports.common import Selection

    datasets, splits, allow = (tuple(x or ()) for x in (dataset, split, allow_licence))
    return Selection(release, datasets, _episode_list(episodes), splits, where, allow)


def _sample_options(
    family: list[str] | None, form: list[str] | None, profile: str | None, seed: int
) -> "SampleOptions":
    from warehouse.exports.samples import SampleOptions

    return SampleOptions(tuple(family or ()), tuple(form or ()), profile, seed)


def _tell_exported(done: "Exported", format: str) -> None:
    for left in done.left_out:
        print(f"left out: {left}", file=sys.stderr)
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    facts = done.__dict__ | {"left_out": list(done.left_out), "notes": list(done.notes)}
    if done.samples is None:
        facts.pop("samples")
    if format == "json":
        print_json(facts)
        return
    show([{k: v for k, v in facts.items() if k not in ("left_out", "notes", "again")}], "table")
    if done.again:
        _say("It was there already: nothing was done.")


@export_app.command("lerobot")
def export_lerobot(
    out: OutOption,
    flavour: Annotated[
        Literal["task", "subtask"],
        typer.Option("--flavour", help="What a frame's task is: the instruction, or the step."),
    ] = "task",
    codec: Annotated[
        Literal["h264", "av1"], typer.Option("--codec", help="For pictures that must be encoded.")
    ] = "h264",
    release: ReleaseOption = None,
    dataset: DatasetsOption = None,
    episodes: EpisodesOption = None,
    split: SplitsOption = None,
    where: WhereOption = None,
    allow_licence: LicencesOption = None,
    overwrite: OverwriteOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """A LeRobot v3.0 dataset: rows and videos of the source, our labels in every form that LeRobot reads."""
    from warehouse.exports.lerobot import LerobotOptions, export
    from warehouse.lake import Lake

    chosen = _selection(release, dataset, episodes, split, where, allow_licence)
    lake = Lake(_workspace(workspace), read_only=True)
    _tell_exported(export(lake, chosen, out, LerobotOptions(flavour, codec), overwrite=overwrite), format)


@export_app.command("rabc")
def export_rabc(
    out: OutOption,
    chunk_size: Annotated[
        list[int] | None, typer.Option("--chunk-size", min=1, help="Action chunk to suggest a kappa for; repeatable.")
    ] = None,
    release: ReleaseOption = None,
    dataset: DatasetsOption = None,
    episodes: EpisodesOption = None,
    split: SplitsOption = None,
    where: WhereOption = None,
    allow_licence: LicencesOption = None,
    overwrite: OverwriteOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Progress for LeRobot's reward-aware behaviour cloning, beside a LeRobot dataset that is there already."""
    from warehouse.exports.rabc import RabcOptions, export
    from warehouse.lake import Lake

    options = RabcOptions(tuple(chunk_size)) if chunk_size else RabcOptions()
    chosen = _selection(release, dataset, episodes, split, where, allow_licence)
    lake = Lake(_workspace(workspace), read_only=True)
    _tell_exported(export(lake, chosen, out, options, overwrite=overwrite), format)


def _samples_command(kind: str, options: str, about: str) -> None:
    """Add a command that exports samples; `options` is the class of them in warehouse/exports/<kind>.py."""

    @export_app.command(kind, help=about)
    def command(
        out: OutOption,
        family: FamiliesOption = None,
        form: FormsOption = None,
        profile: ProfileOption = None,
        seed: SeedOption = 0,
        release: ReleaseOption = None,
        dataset: DatasetsOption = None,
        episodes: EpisodesOption = None,
        split: SplitsOption = None,
        where: WhereOption = None,
        allow_licence: LicencesOption = None,
        overwrite: OverwriteOption = False,
        workspace: WorkspaceOption = DEFAULT_WORKSPACE,
        format: FormatOption = "table",
        verbose: VerboseOption = False,
    ) -> None:
        from importlib import import_module

        from warehouse.lake import Lake

        module = import_module(f"warehouse.exports.{kind}")
        chosen = _selection(release, dataset, episodes, split, where, allow_licence)
        made = getattr(module, options)(_sample_options(family, form, profile, seed))
        lake = Lake(_workspace(workspace), read_only=True)
        _tell_exported(module.export(lake, chosen, out, made, overwrite=overwrite), format)


_samples_command(
    "llamafactory",
    "LlamaFactoryOptions",
    "Conversations for LLaMA-Factory: dataset_info.json, ShareGPT's JSON per split, pictures beside.",
)
_samples_command(
    "easyr1",
    "EasyR1Options",
    "Prompts with pictures and what a reward compares with, for EasyR1 and verl: Parquet per split.",
)
_samples_command(
    "datasets",
    "DatasetsOptions",
    "A folder for Hugging Face's load_dataset: samples with their pictures, and labels as tables.",
)


@export_app.command("rerun")
def export_rerun(
    out: OutOption,
    pictures_per_s: Annotated[
        float | None, typer.Option("--pictures-per-s", help="At most so many a second; default: all; 0: none.")
    ] = None,
    max_px: Annotated[
        int, typer.Option("--max-px", help="Longer side of pictures; larger ones are made smaller.")
    ] = 640,
    release: ReleaseOption = None,
    dataset: DatasetsOption = None,
    episodes: EpisodesOption = None,
    split: SplitsOption = None,
    where: WhereOption = None,
    allow_licence: LicencesOption = None,
    overwrite: OverwriteOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """A recording per episode for Rerun's viewer: cameras, segments, progress by every label run, gripper."""
    from warehouse.exports.rerun import RerunOptions, export
    from warehouse.lake import Lake

    chosen = _selection(release, dataset, episodes, split, where, allow_licence)
    lake = Lake(_workspace(workspace), read_only=True)
    _tell_exported(export(lake, chosen, out, RerunOptions(pictures_per_s, max_px), overwrite=overwrite), format)


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="A LeRobot v3.0 folder, a JSON-lines file, or a folder of such files.")],
    name: Annotated[str, typer.Option("--name", help="The corpus's dataset that the annotations are of.")],
    form: Annotated[
        Literal["segments", "language", "sarm", "frames"] | None,
        typer.Option("--form", help="Which of a LeRobot folder's annotations; default: what says most."),
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Annotations made elsewhere become a label run of their own; which label counts stays as it is."""
    from assets.imports import import_annotations

    done = import_annotations(_open_lake(workspace), path, name, form)
    for why in done.refused:
        print(f"left out: {why}", file=sys.stderr)
    facts = done.__dict__ | {"refused": list(done.refused)}
    show([facts | {"refused": len(done.refused)}], "table") if format == "table" else print_json(facts)


def _open_lake(workspace: str) -> "Lake":
    """The lake of an existing workspace, to write to."""
    from warehouse.lake import Lake

    space = _workspace(workspace)
    return Lake(space, read_only=not space.exists())  # which refuses, rather than make a workspace


@app.command()
def train(
    recipe: Annotated[str, typer.Option("--recipe", help="A built-in recipe's name, or a YAML file.")],
    release: Annotated[
        str | None,
        typer.Option("--release", help="Train on this one; default: the newest. local: the corpus as it is now."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="The checkpoint to begin with: a folder on this machine.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Train a progress reward model on a release's train split. Always trains.

    `local`, or no release yet: the corpus as it is, whatever its licences, frozen for use here alone.
    """
    from training.recipe import load_recipe
    from warehouse.contents import LOCAL
    from warehouse.releases import find_release, get_release, local_release

    loaded = load_recipe(recipe, model)  # before the lake is opened: a typo costs nothing
    lake = _open_lake(workspace)
    now = release == LOCAL or (release is None and find_release(lake) is None)
    space, frozen = lake.workspace, local_release(lake) if now else get_release(lake, release)
    from assets.closing import reward_model_step
    from assets.console import train_visibly

    outcome = train_visibly(
        space, lambda on_step: reward_model_step(lake, frozen, loaded, always=True, on_step=on_step, resume=resume)
    )
    if outcome:
        facts = dict(outcome.numbers) | {"checkpoint": str(outcome.files[0])}
        show([facts], format) if format == "table" else print_json(facts)


@app.command()
def adapt(
    dataset: Annotated[str, typer.Option("--dataset", help="A dataset of the corpus.")],
    episode: Annotated[int, typer.Option("--episode", min=0, help="One with a label, or a correction.")],
    model: Annotated[str, typer.Option("--model", help="What to adapt: a training run's name, or a folder.")],
    recipe: Annotated[str, typer.Option("--recipe", help="With a section lora: built-in, or a YAML file.")] = (
        "procvlm_oneshot_lora"
    ),
    samples: Annotated[int, typer.Option("--samples", min=1, help="Moments to learn from, at most.")] = 240,
    seed: Annotated[int, typer.Option("--seed", help="Other moments with another number.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Adapt a model to one episode: from its active label to a LoRA adapter."""
    from training.recipe import load_recipe

    lake = _open_lake(workspace)
    from assets.adaptation import episode_samples, model_folder
    from assets.console import training_bar
    from training.oneshot import adapt as train_adapter

    loaded = load_recipe(recipe, model_folder(lake, model))
    found = episode_samples(lake, dataset, episode, samples, seed)
    with training_bar() as on_step:
        run = train_adapter(lake, found, f"{dataset}-{episode:06d}", loaded, on_step, resume)
    facts = {
        "training_run": run.id,
        "samples": len(found),
        "steps": len(run.curve),
        "first_error": run.curve[0].progress,
        "last_error": run.curve[-1].progress,
        "checkpoint": str(run.checkpoint),
    }
    show([facts], format) if format == "table" else print_json(facts)


@app.command()
def cot(
    out: Annotated[Path, typer.Option("--out", help="Folder for cot.jsonl, its pictures and report.json.")],
    model: Annotated[str, typer.Option("--model", help="A strong vision-language model, by its name at the server.")],
    endpoint: Annotated[
        list[str] | None, typer.Option("--endpoint", help="OpenAI-compatible base, ends in /v1; repeatable.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve --model (a hub name or a folder) with vLLM meanwhile.")
    ] = False,
    tensor_parallel_size: Annotated[
        int, typer.Option("--tensor-parallel-size", min=1, help="With --serve: GPUs per replica, such as 4 for 72B.")
    ] = 1,
    replicas: Annotated[int, typer.Option("--replicas", min=1, help="With --serve: servers.")] = 1,
    quantization: Annotated[str | None, typer.Option("--quantization", help="With --serve, such as fp8.")] = None,
    max_model_len: Annotated[
        int, typer.Option("--max-model-len", min=1024, help="With --serve: tokens of one request.")
    ] = 16384,
    release: Annotated[str | None, typer.Option("--release", help="Draw from this one; default: the newest.")] = None,
    profile: Annotated[
        Literal["progresslm_sft", "progresslm_rl"], typer.Option("--profile", help="Which samples of the release.")
    ] = "progresslm_sft",
    jsonl: Annotated[
        list[Path] | None, typer.Option("--jsonl", help="Rows of ProgressLM's RL files instead; repeatable.")
    ] = None,
    image_root: Annotated[Path | None, typer.Option("--image-root", help="Of the pictures of --jsonl.")] = None,
    inferences: Annotated[int, typer.Option("--inferences", min=1, help="Answers to each question.")] = 1,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Samples, each asked --inferences times.")] = None,
    temperature: Annotated[float, typer.Option("--temperature", min=0)] = 0.6,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, max=1, help="Of the score that is kept, as a share of the task.")
    ] = 0.05,
    max_calls: Annotated[int | None, typer.Option("--max-calls", min=0, help="Requests of this run.")] = None,
    max_cost_usd: Annotated[float | None, typer.Option("--max-cost-usd", min=0, help="At --usd-per-gpu-hour.")] = None,
    usd_per_gpu_hour: Annotated[float, typer.Option("--usd-per-gpu-hour", min=0)] = 0.0,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Requests under way.")] = 16,
    seed: Annotated[int, typer.Option("--seed", help="Other samples of --profile with another number.")] = 0,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Reasoning for supervised training: a strong model answers, what is right is kept as conversations to train on."""
    from contextlib import nullcontext
    from dataclasses import asdict

    if serve == bool(endpoint):
        raise UsageError("say either where the model answers (--endpoint URL), or --serve")
    lake = _open_lake(workspace)
    from annotate.server import ServerConfig, running_server
    from annotate.vlm_config import Price, VlmConfig
    from training.cot import CotOptions, generate
    from training.progresslm_data import drawn_samples, read_rows
    from warehouse.releases import get_release

    if jsonl:
        samples = read_rows(jsonl, image_root, "think")
        samples.check_labels()
    else:
        samples = drawn_samples(lake.workspace, get_release(lake, release), profile, seed)
    price = Price(usd_per_gpu_hour=usd_per_gpu_hour, gpus=tensor_parallel_size)
    options = CotOptions(inferences, limit, temperature, tolerance)
    say = _progress_line()
    server = ServerConfig(
        model=model,
        port=0,
        replicas=replicas,
        tensor_parallel_size=tensor_parallel_size,
        quantization=quantization,
        max_model_len=max_model_len,
        log_dir=out / "logs",
    )
    with running_server(server, say) if serve else nullcontext() as served:
        fields = {"endpoints": served.endpoints if served else tuple(endpoint or ())}
        limits = {"max_calls": max_calls, "max_cost_usd": max_cost_usd, "max_concurrency": concurrency}
        try:
            config = VlmConfig(model=model, price=price, **fields, **limits)
        except ValueError as e:
            raise UsageError(f"--endpoint: {' '.join(str(e).split())}") from e
        report = generate(lake, samples, config, options, out, lambda done, wanted: say(f"{done} of {wanted} answers"))
    facts = asdict(report) | {"left_out": ", ".join(f"{k} {n}" for k, n in report.left_out.items()) or "none"}
    if format == "json":
        print_json(asdict(report) | {"file": str(report.file)})
    else:
        show([facts | {"file": str(report.file)}], format)


eval_app = typer.Typer(
    help="Score models, prediction files, and two models against each other.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
app.add_typer(eval_app, name="eval")


@eval_app.callback()
def evaluate(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option("--model", help="A training run, a checkpoint's folder, or a name at --endpoint.")
    ] = None,
    benchmark: Annotated[
        str,
        typer.Option(
            "--benchmark",
            help="held-out (test episodes against labels and truth), probes, progress-bench, human-bench, procvqa-id, "
            "procvqa-ood, dataset.",
        ),
    ] = "held-out",
    runner: Annotated[
        Literal["transformers", "vllm", "api"], typer.Option("--runner", help="Who runs the model.")
    ] = "transformers",
    endpoint: Annotated[
        list[str] | None, typer.Option("--endpoint", help="OpenAI-compatible base, ends in /v1; repeatable.")
    ] = None,
    answer: Annotated[
        Literal["auto", "head", "text"], typer.Option("--answer", help="auto: the progress head where there is one.")
    ] = "auto",
    data: Annotated[
        str | None, typer.Option("--data", help="Folder, file or hf://owner/name[@commit] that holds the benchmark.")
    ] = None,
    image_root: Annotated[Path | None, typer.Option("--image-root", help="Folder of its pictures.")] = None,
    part: Annotated[list[str] | None, typer.Option("--part", help="Only this part; repeatable.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Rows of each part, before --num-inferences.")
    ] = None,
    num_inferences: Annotated[int, typer.Option("--num-inferences", min=1, help="Answers to each question.")] = 1,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0)] = 0.0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Of an answer.")] = 512,
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
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Of --runner transformers.")] = 16,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Requests under way at a server.")] = 16,
    tensor_parallel: Annotated[
        int, typer.Option("--tensor-parallel", min=1, help="GPUs a vLLM model is cut over.")
    ] = 1,
    expert_parallel: Annotated[bool, typer.Option("--expert-parallel", help="Spread a vLLM model's experts.")] = False,
    quantization: Annotated[str | None, typer.Option("--quantization", help="Of vLLM, such as fp8.")] = None,
    max_model_len: Annotated[int, typer.Option("--max-model-len", min=256, help="Tokens, of vLLM.")] = 16384,
    max_calls: Annotated[int | None, typer.Option("--max-calls", min=0, help="Budget of requests.")] = None,
    max_cost_usd: Annotated[float | None, typer.Option("--max-cost-usd", min=0, help="Budget, by --price.")] = None,
    price: Annotated[
        str | None, typer.Option("--price", help="USD per million prompt and reply tokens, such as 2.5,10.")
    ] = None,
    api_key_env: Annotated[str | None, typer.Option("--api-key-env", help="Variable that holds the key.")] = None,
    prompt_format: Annotated[
        Literal["interleaved", "images_first"] | None,
        typer.Option("--prompt-format", help="Where pictures stand; default: by the checkpoint's model_type."),
    ] = None,
    release: Annotated[str | None, typer.Option("--release", help="Default: the newest.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Score a model beside the baselines, on a benchmark or on episodes it never saw; writes a report."""
    if context.invoked_subcommand is not None:
        return
    if model is None:
        raise UsageError("eval needs --model M, or a command: proccorpus eval --help")
    if benchmark == "held-out":
        if (
            (runner, answer) != ("transformers", "auto")
            or endpoint
            or data
            or part
            or limit
            or baseline
            or shard
            or out
        ):
            raise UsageError(
                "--benchmark held-out reads the head on all test episodes; procvqa-id takes --runner, --answer, "
                "--endpoint, --part, --limit, --baseline, --shard and --out"
            )
        _evaluate_held_out(model, release, workspace, format)
        return
    from assets.benchmarks import BenchmarkConfig, RunnerConfig, checkpoint_of, evaluate_benchmark, runner_options
    from assets.console import counting

    lake, frozen = _open_for_benchmark(workspace, benchmark, release)
    folder = None if endpoint else checkpoint_of(lake, model)
    if folder is None and not endpoint:
        runs = [r[0] for r in lake.rows("SELECT training_run FROM checkpoints ORDER BY created_at DESC")]
        raise UsageError(
            f"{model!r} is neither a checkpoint's folder nor a training run ({', '.join(runs) or 'none yet'}); "
            "a served model needs --endpoint URL"
        )
    options = runner_options(
        temperature=temperature, max_tokens=max_tokens, think=think, min_pixels=min_pixels, max_pixels=max_pixels,
        tensor_parallel=tensor_parallel, expert_parallel=expert_parallel, quantization=quantization,
        max_model_len=max_model_len, price=_price(price),
    )  # fmt: skip
    asked = RunnerConfig(
        model, runner, folder, tuple(endpoint or ()), answer, batch_size=batch_size, max_concurrency=concurrency,
        api_key_env=api_key_env, prompt_format=prompt_format, max_calls=max_calls, max_cost_usd=max_cost_usd, **options,
    )  # fmt: skip
    config = BenchmarkConfig(
        benchmark, data, image_root, tuple(part or ()), limit, num_inferences, think is not False,
        tuple(baseline or ()), _shard(shard), out,
    )  # fmt: skip
    with counting() as on_rows:
        found = evaluate_benchmark(lake, config, asked, frozen, on_rows)
    print(f"predictions: {found.predictions}", file=sys.stderr)
    for note in found.notes:
        print(f"left out: {note}", file=sys.stderr)
    if not found.entries:
        print("this part is done; the one that ends last scores them all", file=sys.stderr)
        return
    if format == "json":
        print_json({"eval_run": found.run, "settings": dict(found.settings), "models": found.facts()})
    else:
        show(found.rows(), "table")
    print(f"report: {found.report}", file=sys.stderr)


def _evaluate_held_out(model: str, release: str | None, workspace: str, format: Literal["table", "json"]) -> None:
    from assets.closing import evaluation_step
    from assets.report import report_closing

    space, lake, frozen = _open_release(workspace, release)
    runs = [r[0] for r in lake.rows("SELECT training_run FROM checkpoints ORDER BY created_at DESC")]
    if model not in runs:
        raise UsageError(f"unknown model {model!r}; trained: {', '.join(runs) or 'none yet (proccorpus train)'}")
    outcome = evaluation_step(lake, frozen, model, always=True)
    report_closing(space, [outcome])
    sql = (
        "SELECT benchmark, slice, model, metric, value, low, high, n, coverage FROM leaderboard "
        "WHERE release = ? AND (slice = 'all' OR slice LIKE 'split %') ORDER BY ALL"
    )
    rows = lake.dicts(sql, [frozen.name])
    if format == "table":  # the report has more, and --format json has all
        rows = [r for r in rows if r["metric"] in ("voc", "mae", "end_error", "mae_margin", "mcc@95")]
    show(rows, format)
    print(f"report: {outcome.files[0]}", file=sys.stderr)


def _open_for_benchmark(workspace: str, benchmark: str, release: str | None) -> "tuple[Lake, Release | None]":
    """A benchmark that is not a release's needs none, and no workspace that is there already."""
    from assets.benchmarks import FROM_RELEASE
    from warehouse.lake import open_lake

    if benchmark in FROM_RELEASE or release:
        return _open_release(workspace, release)[1:]
    return open_lake(_workspace(workspace)), None


def _shard(text: str | None) -> tuple[int, int]:
    """Of i/n."""
    if text is None:
        return 0, 1
    first, _, second = text.partition("/")
    if not (first.isdigit() and second.isdigit() and int(first) < int(second)):
        raise UsageError(f"--shard {text}: give i/n with i from 0 to n - 1, such as 0/4")
    return int(first), int(second)


def _price(text: str | None) -> tuple[float, float]:
    """USD per million prompt and reply tokens."""
    try:
        prompt, reply = (float(x) for x in text.split(",")) if text else (0.0, 0.0)
    except ValueError:
        raise UsageError(f"--price {text}: give two numbers, such as 2.5,10") from None
    return prompt, reply


BenchmarkName = Literal["progress-bench", "human-bench", "procvqa-id", "procvqa-ood", "dataset"]
AsPublishedOption = Annotated[
    bool, typer.Option("--as-published", help="As the papers' own evaluations count, defects and all.")
]


@eval_app.command("score")
def eval_score(
    benchmark: Annotated[BenchmarkName, typer.Option("--benchmark", help="What the answers are to.")],
    predictions: Annotated[
        Path, typer.Option("--predictions", help='JSON lines: {"meta_data": {...}, "response": "..."}, of any system.')
    ],
    as_published: AsPublishedOption = False,
    store: Annotated[bool, typer.Option("--store", help="Keep file and scores in the workspace.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="Whose answers they are, for --store; default: the file's name.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Score a prediction file. Needs no workspace, and writes to one only with --store."""
    from eval.predictions import read_predictions
    from eval.scoring.files import score_predictions
    from eval.scoring.scored import ALL, Evaluated

    scored = score_predictions(benchmark, read_predictions(predictions), as_published)
    scores = scored.scores()
    if store:
        from eval.store import store_scores
        from warehouse.lake import open_lake

        name = model or predictions.stem
        settings = {"file": predictions.name, "as_published": as_published}
        run = store_scores(
            open_lake(_workspace(workspace)), Evaluated(name, scored, scores), predictions.read_bytes(), settings
        )
        print(f"stored as {run}, model {name}", file=sys.stderr)
    if format == "json":
        print_json(scored.facts(scores))
        return
    shown = [(part, m, s) for (part, m), s in scores.items() if part == ALL or part.startswith("part ")]
    show([{"slice": part, "metric": m} | s.__dict__ for part, m, s in shown], "table")
    _say(", ".join(f"{n} {what.replace('_', ' ')}" for what, n in scored.counts.items()))


@eval_app.command("compare")
def eval_compare(
    first: Annotated[Path, typer.Argument(help="A prediction file.")],
    second: Annotated[Path, typer.Argument(help="Another model's, to the same questions.")],
    benchmark: Annotated[BenchmarkName, typer.Option("--benchmark", help="What the answers are to.")],
    as_published: AsPublishedOption = False,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """The first model's scores less the second's, paired over episodes: interval and p-value by bootstrap."""
    from eval.predictions import read_predictions
    from eval.scoring.files import score_predictions
    from eval.scoring.scored import compare

    one, two = (score_predictions(benchmark, read_predictions(p), as_published) for p in (first, second))
    found = compare(one, two)
    if not found.common:
        raise UsageError(f"{first} and {second} have no episode in common")
    rows = [{"metric": m} | d.__dict__ for m, d in found.differences.items() if d.n]
    if format == "json":
        facts = {k: v for k, v in found.__dict__.items() if k != "differences"}
        print_json(facts | {"benchmark": benchmark, "differences": rows})
        return
    show(rows, "table")
    _say(f"{found.common} episodes in both; {found.only_first} only in the first, {found.only_second} in the second")


model_app = typer.Typer(
    help="Checkpoints: those that training made, and those that others publish.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(model_app, name="model")
ModelArgument = Annotated[str, typer.Argument(help="A model of the workspace, or a checkpoint's folder.")]


@model_app.command("list")
def model_list(workspace: WorkspaceOption = DEFAULT_WORKSPACE, format: FormatOption = "table") -> None:
    """The checkpoints of a workspace: whole models and adapters, what each was trained on or made of."""
    from assets.models import model_rows

    show(model_rows(_workspace(workspace)), format, empty="No model yet: proccorpus train.")


@model_app.command("merge")
def model_merge(
    models: Annotated[list[str] | None, typer.Argument(help="Adapters of the workspace, or their folders.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All adapters of the workspace that are not merged yet.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for one; default: beside it, with .merged.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Make whole models of adapters, for servers. The card names adapter and base, with their hashes."""
    from assets.models import merge_adapter, model_folder, unmerged

    if bool(models) == every:
        raise UsageError("give either the names of adapters, or --all")
    if out is not None and (every or len(models or ()) != 1):
        raise UsageError("--out goes with one adapter")
    space = _workspace(workspace)
    folders = unmerged(space) if every else [model_folder(space, m) for m in models or ()]
    rows = [merge_adapter(space, folder, out) for folder in folders]
    show(rows, format, empty="No adapter is left to merge.")


@model_app.command("convert")
def model_convert(
    source: Annotated[Path, typer.Argument(help="Folder of a checkpoint of ProcVLM's or ProgressLM's, as published.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    base: Annotated[Path | None, typer.Option("--base", help="Of an adapter: the folder of its model.")] = None,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Bring a published checkpoint into our layout: safetensors and JSON. Pickled files are read as weights only."""
    from training.published import convert

    card = convert(source, out, base)
    facts = {"checkpoint": str(out), "parameters": card["parameters"], "head": card["head"] is not None}
    show([facts], format) if format == "table" else print_json(facts | {"files": card["files"]})


@model_app.command("check")
def model_check(
    model: ModelArgument,
    serve: Annotated[bool, typer.Option("--serve", help="Serve it with vLLM, too, and ask it something.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Load a checkpoint and ask it about a picture."""
    from assets.models import check_model, model_folder

    facts = check_model(model_folder(_workspace(workspace), model), _progress_line() if serve else None)
    show([facts], format) if format == "table" else print_json(facts)


@model_app.command("publish")
def model_publish(
    model: ModelArgument,
    to: Annotated[str, typer.Option("--to", help="hf://OWNER/NAME, s3://..., gs://... or a folder.")],
    allow_licence: Annotated[
        list[str] | None,
        typer.Option("--allow-licence", help="Of data that it was trained on, such as cc-by-nc-4.0; repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent; send nothing.")] = False,
    private: Annotated[bool, typer.Option("--private", help="A new hub repository is private.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Send a checkpoint elsewhere. Refused when the licences of the data it was trained on are not open."""
    from assets.models import model_folder
    from training.publish import publish_model
    from warehouse.lake import Lake

    space = _workspace(workspace)
    folder, lake = model_folder(space, model), Lake(space, read_only=True)
    allow = allow_licence or ()
    done = publish_model(lake, folder, to, allow=allow, dry_run=dry_run, private=private, on_file=_tell_sent)
    facts = {"model": folder.name} | done.__dict__ | {"dry_run": dry_run}
    show([facts], format) if format == "table" else print_json(facts)


annotators_app = typer.Typer(help="Who labels how well.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(annotators_app, name="annotators")


@annotators_app.command("compare")
def annotators_compare(
    run: Annotated[str | None, typer.Option("--run", help="Only this label run (the beginning of its id).")] = None,
    against: Annotated[str | None, typer.Option("--against", help="Another label run to compare with.")] = None,
    truth: Annotated[bool, typer.Option("--truth", help="Compare with ground truth only.")] = False,
    dataset: Annotated[list[str] | None, typer.Option("--dataset", help="Only this one; may be repeated.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Score label runs against ground truth, or else the active label. Loads a language model: some seconds."""
    from assets.comparison import comparison_step, comparison_table
    from assets.report import report_closing
    from eval.annotators import TRUTH, ComparisonError
    from warehouse.lake import Lake, open_lake

    if truth and against:
        raise UsageError("--truth and --against exclude each other")
    space = _workspace(workspace)
    Lake(space, read_only=True)
    try:
        comparisons, outcome = comparison_step(
            open_lake(space), run=run, against=TRUTH if truth else against, datasets=dataset or ()
        )
    except ComparisonError as e:
        raise UsageError(str(e)) from e
    if not (run or against or truth or dataset):
        report_closing(space, [outcome])  # what the asset in Dagster stands for
    if format == "json":
        print_json([c.facts() | row for c in comparisons for row in c.rows()])
    else:
        show(comparison_table(comparisons), "table", empty="Nothing to compare: one label run, and no ground truth.")


def _open_release(workspace: str, name: str | None) -> "tuple[Workspace, Lake, Release]":
    """An existing workspace's lake and one of its releases (the newest without a name)."""
    from warehouse.lake import Lake, open_lake
    from warehouse.releases import get_release

    space = _workspace(workspace)
    Lake(space, read_only=True)
    lake = open_lake(space)
    return space, lake, get_release(lake, name)


# Samples and shards


samples_app = typer.Typer(help="Question-answer samples.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(samples_app, name="samples")


@samples_app.command("draw")
def samples_draw(
    profile: Annotated[str, typer.Argument(help="progresslm_sft (25 K samples) or progresslm_rl (20 K).")],
    release: Annotated[str | None, typer.Option("--release", help="Draw from this one; default: the newest.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Other samples with another number.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Parquet file for the samples drawn.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Draw a training set of published size from a release's train split: which samples, and where they lie."""
    from warehouse.profiles import PROFILES, draw

    if profile not in PROFILES:
        raise UsageError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    space, _, frozen = _open_release(workspace, release)
    drawn = draw(space, frozen, profile, seed)
    show([dict(k) for k in drawn.kinds], format)
    if out:
        import pyarrow.parquet as pq

        pq.write_table(drawn.samples, out)
        _say(f"{drawn.samples.num_rows} samples in {out}")


shards_app = typer.Typer(help="WebDataset shards.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(shards_app, name="shards")


@shards_app.command("verify")
def shards_verify(
    release: Annotated[str | None, typer.Option("--release", help="Its shards; default: the present ones.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Read every shard again: hash, index, and that each sample has its pictures. Exits 1 when one is damaged."""
    from warehouse.lake import Lake
    from warehouse.shards import check_shard

    space = _workspace(workspace)
    lake = Lake(space, read_only=True)
    if release:
        from warehouse.releases import get_release

        get_release(lake, release)
    source = "release_shards WHERE name = ?" if release else "shards"
    rows = lake.rows(
        f"SELECT split, shard, store, sha256, bytes, samples FROM {source} ORDER BY shard", [release] if release else []
    )
    wrong = [
        {"shard": shard, "split": split, "problem": problem}
        for split, shard, store, sha256, size, _ in rows
        for problem in check_shard(space.shard(split, shard, store), sha256, size)
    ]
    whole = f"{len(rows)} shards with {sum(r[5] for r in rows)} samples are whole."
    show(wrong, format, empty=whole if rows else "No shards yet: build first.")
    if wrong:
        raise typer.Exit(FAILED)


# The vision-language model that annotates


vlm_app = typer.Typer(help="The vision-language model that annotates.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(vlm_app, name="vlm")


@vlm_app.command("cache")
def vlm_cache(
    prune_older: Annotated[
        float | None, typer.Option("--prune-older-than", min=0, help="Delete replies older than so many days.")
    ] = None,
    prune_versions: Annotated[
        bool, typer.Option("--prune-other-prompts", help="Delete replies to prompts of other versions than today's.")
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """The replies of models that are kept: by model, prompts and stage. With an option, delete some first.

    A label does not lose anything by it; only building it again would ask again.
    """
    from datetime import UTC, datetime, timedelta

    from annotate.prompts import prompt_version
    from assets.vlm_stage import cache_rows, response_store
    from warehouse.lake import Lake

    space = _workspace(workspace)
    Lake(space, read_only=True)  # refuses where there is no workspace
    store = response_store(space)
    if prune_older is not None or prune_versions:
        keep = {k for k, r in store.replies() if r.prompt_version == prompt_version()} if prune_versions else None
        limit = None if prune_older is None else datetime.now(UTC) - timedelta(days=prune_older)
        print(f"{store.prune(keep, limit)} replies deleted.", file=sys.stderr)
    show(cache_rows(store), format, empty="No reply is kept.")


@vlm_app.command("serve")
def vlm_serve(
    model: Annotated[str | None, typer.Option("--model", help="Name on the hub, or a folder.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="What requests call it; default: as --model.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Commit of the model on the hub.")] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of the first replica; 0: a free one.")] = 8000,
    device: Annotated[
        Literal["auto", "cpu", "gpu"], typer.Option("--device", help="auto: what the installed vLLM is for.")
    ] = "auto",
    replicas: Annotated[int, typer.Option("--replicas", min=1, help="Servers, each with GPUs of its own.")] = 1,
    tensor_parallel_size: Annotated[int, typer.Option("--tensor-parallel-size", min=1, help="GPUs per replica.")] = 1,
    quantization: Annotated[str | None, typer.Option("--quantization", help="Such as fp8; default: none.")] = None,
    max_model_len: Annotated[int, typer.Option("--max-model-len", min=1024, help="Tokens of one request.")] = 16384,
    max_images: Annotated[int, typer.Option("--max-images", min=1, help="Images of one request.")] = 32,
    max_num_seqs: Annotated[int | None, typer.Option("--max-num-seqs", min=1, help="Requests at once.")] = None,
    python: Annotated[
        Path | None, typer.Option("--python", help="Interpreter that has vLLM; default: .venv-vllm's if it is there.")
    ] = None,
    log_dir: Annotated[Path, typer.Option("--log-dir", help="Folder for the servers' logs.")] = Path("logs"),
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds until it must be ready.")] = 1800,
    verbose: VerboseOption = False,
) -> None:
    """Run vLLM with the flags that annotation needs, until Ctrl-C; prints the endpoints when they are ready."""
    import time

    from annotate.server import ServerConfig, running_server
    from annotate.vlm_config import VlmConfig

    config = ServerConfig(
        model=model or VlmConfig().model,
        served_name=name,
        revision=revision,
        host=host,
        port=port,
        device=device,
        replicas=replicas,
        tensor_parallel_size=tensor_parallel_size,
        quantization=quantization,
        max_model_len=max_model_len,
        max_images=max_images,
        max_num_seqs=max_num_seqs,
        python=python,
        log_dir=log_dir,
        ready_timeout_s=timeout,
    )
    try:
        with running_server(config, _progress_line()) as server:
            for endpoint, log in zip(server.endpoints, server.logs, strict=True):
                _say(f"{config.name} is ready at {endpoint}, log: {log}")
            while True:
                server.check()
                time.sleep(1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)


def _progress_line() -> "Callable[[str], None]":
    """Shows the last line it was given: in place on a terminal, every ten seconds elsewhere."""
    import shutil
    import time

    shown = -10.0

    def say(line: str) -> None:
        nonlocal shown
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - shown >= 10:
            shown = time.monotonic()
            print(line, file=sys.stderr, flush=True)

    return say


# Looking


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="A folder, a video file, or an address such as hf://owner/name.")],
    full: Annotated[bool, typer.Option("--full", help="Decode everything, not only a sample.")] = False,
    revision: RevisionOption = None,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """What a dataset is and what is wrong with it, with the remedy. Decodes a sample. Exits 1 on bad findings."""
    from assets.inspection import grouped, inspect_source

    _check_source(path, revision)
    result = inspect_source(path, revision, full=full)
    if format == "json":
        print_json(result)
    else:
        facts = {k: v for k, v in result.items() if not isinstance(v, list | dict)}
        facts["tasks"] = "; ".join(result["tasks"][:5]) + (" ..." if len(result["tasks"]) > 5 else "")
        show([{"fact": k, "value": "" if v is None else str(v)} for k, v in facts.items()], "table")
        show(result["camera_details"], "table", empty="No cameras.")
        show(grouped(result["findings"]), "table", empty="No findings.")
    if any(f["severity"] == "unusable" for f in result["findings"]):
        raise typer.Exit(FAILED)


datasets_app = typer.Typer(help="The registry of datasets.", invoke_without_command=True, rich_markup_mode=None)
app.add_typer(datasets_app, name="datasets")
RegistryOption = Annotated[list[Path] | None, typer.Option("--registry", help="Folder of your own YAML files, too.")]


@datasets_app.callback()
def datasets(
    ctx: typer.Context,
    registry: RegistryOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """List the datasets of the registry and of the workspace."""
    if ctx.invoked_subcommand:
        return
    from ingest.catalogue import overview
    from ingest.registry import BUILT_IN, load_registry

    rows = overview(load_registry([BUILT_IN, *(registry or [])]), _datasets_built(_workspace(workspace)))
    if format == "table":
        rows = [{k: v for k, v in r.items() if k != "source"} for r in rows]  # too wide: datasets show has it
    show(rows, format)


@datasets_app.command("show")
def datasetsshow(
    name: str,
    registry: RegistryOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Everything that is known of one dataset: sizes, licence, cameras by role, gripper, traps."""
    from ingest.catalogue import facts, near_names, readable
    from ingest.registry import BUILT_IN, load_registry

    built = _datasets_built(_workspace(workspace))
    entries = load_registry([BUILT_IN, *(registry or [])])
    if name not in entries and name not in built:
        near = near_names(name, sorted({*entries, *built}))
        hint = f"did you mean {' or '.join(near)}?" if near else "proccorpus datasets lists them"
        raise UsageError(f"unknown dataset {name!r}; {hint}")
    known = facts(entries.get(name), built.get(name))
    if format == "json":
        print_json(known)
    else:
        show(readable(known), "table")


def _datasets_built(space: "Workspace") -> dict[str, dict]:
    """Rows of the lake's table `datasets` by name; none without a workspace."""
    from warehouse.sql import open_for_users

    if not space.exists():
        return {}
    rows = open_for_users(space).execute("SELECT * FROM datasets").to_arrow_table().to_pylist()
    return {r["dataset"]: r for r in rows}


@app.command()
def status(workspace: WorkspaceOption = DEFAULT_WORKSPACE, format: FormatOption = "table") -> None:
    """Per dataset: episodes, usable and quarantined ones, frames, labels, samples and shards."""
    from warehouse.lake import Lake
    from warehouse.output import status_rows

    space = _workspace(workspace)
    lake = Lake(space, read_only=True)
    if format == "table":
        show(status_rows(lake), "table")
    else:
        print_json({"workspace": str(space.root), "snapshot": lake.snapshot(), "datasets": status_rows(lake)})


@app.command()
def quarantine(workspace: WorkspaceOption = DEFAULT_WORKSPACE, format: FormatOption = "table") -> None:
    """Episodes and datasets that cannot be used, with the reason."""
    from warehouse.lake import Lake

    sql = "SELECT dataset, episode_index, camera, reason, detail, file FROM quarantine ORDER BY 1, 2"
    rows = Lake(_workspace(workspace), read_only=True).dicts(sql)
    show(rows, format, empty="Nothing is quarantined.")


@app.command()
def digest(workspace: WorkspaceOption = DEFAULT_WORKSPACE, format: FormatOption = "table") -> None:
    """One hash per content table: equal for equal inputs, configuration and seed."""
    from warehouse.lake import Lake
    from warehouse.lake import digest as lake_digest

    hashes = lake_digest(Lake(_workspace(workspace), read_only=True))
    if format == "json":
        print_json(hashes)
    else:
        show([{"table": k, "hash": v} for k, v in hashes.items()], "table")


@app.command()
def schema(
    names: Annotated[list[str] | None, typer.Argument(help="Tables or views; default: a line on each.")] = None,
    format: FormatOption = "table",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    verbose: VerboseOption = False,
) -> None:
    """What tables and views there are; with names, their columns, units and meanings, and values of your corpus."""
    from warehouse.schema import columns, relations
    from warehouse.sql import open_for_users

    space = _workspace(workspace)
    con = open_for_users(space) if names and space.exists() else None
    show([vars(d) for d in columns(names, con)] if names else relations(), format)


@app.command()
def sql(
    query: Annotated[str | None, typer.Argument(help="One SELECT; default: a shell, or what is piped in.")] = None,
    format: Annotated[Literal["table", "json", "csv", "parquet"], typer.Option("--format")] = "table",
    release: Annotated[str | None, typer.Option("--release", help="Read the corpus as a release froze it.")] = None,
    snapshot: Annotated[int | None, typer.Option("--snapshot", min=0, help="Read at a lake snapshot.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=0, help="Rows at most; tables show 100.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write; needed for parquet on a terminal.")] = None,
    time_limit: Annotated[float, typer.Option("--time-limit", min=0.001, help="Seconds that a query may take.")] = 600,
    memory: Annotated[str, typer.Option("--memory", help="What a query may hold.")] = "4GB",
    attach: Annotated[bool, typer.Option("--attach", help="Print what DuckDB's own users type to read it.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    verbose: VerboseOption = False,
) -> None:
    """Ask the corpus a question in SQL, read-only; a shell when no question is given."""
    from warehouse.sql import attach_lines, open_for_users, release_snapshot
    from warehouse.sql import query as run

    space = _workspace(workspace)
    if release and snapshot is not None:
        raise UsageError("--release and --snapshot exclude each other")
    if release:
        snapshot = release_snapshot(space, release)
    con = open_for_users(space, snapshot, memory)
    if attach:
        print(attach_lines(space, snapshot))
        return
    if query is None and sys.stdin.isatty():
        from warehouse.sql_shell import shell

        at = release or ("now" if snapshot is None else f"snapshot {snapshot}")
        shell(con, f"{space.root} ({at})", lambda table, style: _show_result(table, style, limit), time_limit)
        return
    table = run(con, sys.stdin.read() if query is None else query, time_limit)
    if not _show_result(table, format, limit, out):
        raise UsageError("Parquet is not for a terminal: add --out FILE")


def _show_result(table: "pa.Table", format: str, limit: int | None, out: Path | None = None) -> bool:
    """Write a query's rows: of a table for people the first 100, unless `limit` says otherwise."""
    shown = 100 if limit is None and format == "table" else limit
    part = table if shown is None else table.slice(0, shown)
    written = write_result(part, format, out)
    if format == "table" and table.num_rows > part.num_rows:
        print(f"({table.num_rows} rows, the first {shown} shown; --limit N, or --format csv for all)", file=sys.stderr)
    return written


@app.command()
def ui(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 3000,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Open the Dagster UI on a workspace: materialise chunks, backfill, see checks and lineage."""
    from assets.report import dagster_home

    space = _workspace(workspace)
    home = dagster_home(space)
    os.environ |= {
        "DAGSTER_HOME": str(home),
        "PROCCORPUS_WORKSPACE": str(space.root),
        "VIRTUAL_ENV": sys.prefix,  # dg warns when it does not see the environment it runs in
    }
    os.chdir(ROOT)
    _say(f"Dagster UI of {space.root}: http://{host}:{port} (Ctrl-C ends it)")
    program = str(Path(sys.executable).parent / "dg")
    os.execv(program, [program, "dev", "--host", host, "--port", str(port)])


# Printing


def _workspace(text: str) -> "Workspace":
    from warehouse.workspace import Workspace

    if "://" in text:
        raise UsageError(f"--workspace {text}: this version keeps workspaces in local folders")
    return Workspace(Path(text).resolve())


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    """Entry point: runs the command line and turns every known error into one line and an exit code."""
    verbose = "--verbose" in sys.argv
    try:
        code = typer.main.get_command(app).main(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(_interrupted() if code == INTERRUPTED else code or DONE)
    except typer.TyperException as e:
        text = e.format_message() if isinstance(e, typer.BadParameter) else str(e)
        # without arguments the message is the help text
        print(text if text.startswith("Usage") else f"error: {' '.join(text.split())}; try --help", file=sys.stderr)
        sys.exit(USAGE)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(_interrupted())
    except BrokenPipeError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(DONE)
    except Exception as e:
        from warehouse.lake import was_interrupted

        if was_interrupted(e):
            sys.exit(_interrupted())
        code = _known_error(e)
        if verbose or code is None:
            import traceback

            traceback.print_exc()
        print(f"error: {' '.join(str(e).split()) or type(e).__name__}", file=sys.stderr)
        sys.exit(FAILED if code is None else code)


def _interrupted() -> int:
    print("interrupted: what was finished is kept, run again to go on", file=sys.stderr)
    return INTERRUPTED


def _known_error(e: Exception) -> int | None:
    """The exit code of an error that is the user's to mend; None for a fault of ours."""
    from assets.config import ConfigError
    from ingest.files import DownloadError, SourceError
    from ingest.registry import RegistryError
    from training.recipe import RecipeError
    from warehouse.contents import ReleaseError
    from warehouse.exports.common import ExportError
    from warehouse.lake import LakeError
    from warehouse.schema import SchemaError
    from warehouse.sql import SqlError
    from warehouse.takedown import TakedownError
    from warehouse.targets import SendError

    if isinstance(e, DownloadError | SendError):
        return FAILED
    if isinstance(e, UsageError | ConfigError | RegistryError | SourceError | LakeError | SqlError | RecipeError):
        return USAGE
    if isinstance(e, ReleaseError | TakedownError | ExportError | SchemaError):
        return USAGE
    if type(e).__name__ in ("ImportedError", "BenchmarkError", "RunnerError"):  # their modules are heavy: by name
        return USAGE
    names = {
        "TrainingError",
        "ModelError",
        "ShardError",
        "TruthError",
        "ServerError",
        "UnansweredError",
        "VlmError",
        "CotError",
        "RowError",
    }  # their modules are heavy: by name
    return FAILED if type(e).__name__ in names else None


if __name__ == "__main__":
    main()

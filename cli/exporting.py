"""Exports to other tools, and annotations from them."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.options import (
    DEFAULT_WORKSPACE,
    FormatOption,
    MinConfidenceOption,
    MinNameConfidenceOption,
    UsageError,
    WorkspaceOption,
    episode_list,
    lake_at,
    say,
    space_at,
)
from cli.output import print_json, show, show_facts
from cli.progress import progress
from cli.rewarding import (
    ApiKeyOption,
    EndpointOption,
    MaxCallsOption,
    WindowFramesOption,
    WindowStepOption,
    scorer_config,
)
from warehouse.exports import EXPORT_KINDS, ExportKind

if TYPE_CHECKING:
    from warehouse.exports.common import Exported, Selection
    from warehouse.exports.samples import SampleOptions
    from warehouse.lake import Lake

app = typer.Typer(rich_markup_mode=None)
export_app = typer.Typer(
    help="Export the corpus in formats that other tools open.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(export_app, name="export")
OutOption = Annotated[Path, typer.Option("--out", help="Folder to write; an unfinished export there is resumed.")]
FileOption = Annotated[Path, typer.Option("--out", help="File to write.")]
ReleaseOption = Annotated[
    str | None, typer.Option("--release", help="Export this release; default: the corpus as it is now.")
]
DatasetsOption = Annotated[list[str] | None, typer.Option("--dataset", help="Only this dataset; repeatable.")]
EpisodesOption = Annotated[
    str | None, typer.Option("--episodes", help="Only these episodes of one dataset, such as 0,1,5-9.")
]
SplitsOption = Annotated[
    list[str] | None, typer.Option("--split", help="Only this split: train, val, test_id, ...; repeatable.")
]
WhereOption = Annotated[
    str | None,
    typer.Option("--where", help="SQL condition such as 'success', or a query for dataset, episode_index."),
]
LicencesOption = Annotated[
    list[str] | None,
    typer.Option("--allow-licence", help="Include datasets with this licence, such as unknown; repeatable."),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Delete a different export in --out first.")]
FamiliesOption = Annotated[list[str] | None, typer.Option("--family", help="Only samples of this family; repeatable.")]
FormsOption = Annotated[
    list[str] | None,
    typer.Option("--form", help="Only ProgressLM samples of this form: think or no_think; repeatable."),
]
ProfileOption = Annotated[
    str | None,
    typer.Option("--profile", help="Draw this training set from --release: progresslm_sft or progresslm_rl."),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Another number draws other samples for --profile.")]

LabelRunOption = Annotated[
    str | None, typer.Option("--label-run", help="Export the labels of this label run, not the active ones.")
]


def _selection(
    release: str | None,
    dataset: list[str] | None,
    episodes: str | None,
    split: list[str] | None,
    where: str | None,
    allow_licence: list[str] | None,
    min_confidence: float | None,
    min_name_confidence: float | None,
) -> "Selection":
    from warehouse.exports.common import Selection

    datasets, splits, allow = (tuple(x or ()) for x in (dataset, split, allow_licence))
    numbers = episode_list(episodes)
    return Selection(release, datasets, numbers, splits, where, allow, min_confidence, min_name_confidence)


def _sample_options(
    family: list[str] | None, form: list[str] | None, profile: str | None, seed: int
) -> "SampleOptions":
    from warehouse.exports.samples import SampleOptions

    return SampleOptions(tuple(family or ()), tuple(form or ()), profile, seed)


def _export(
    lake: "Lake", kind: str, out: Path, selection: "Selection", options: dict[str, Any], overwrite: bool, format: str
) -> None:
    """Write an export of a kind with some of its options, and say what it is."""
    from pipeline.exports import ExportRequest, export_kind, write

    chosen = export_kind(kind)
    done = write(lake, ExportRequest(chosen, out, selection, chosen.options(**options), overwrite))
    _tell_exported(done, format)


def _tell_exported(done: "Exported", format: str) -> None:
    # To stderr, so that standard output is the result alone, for scripts
    for left in done.left_out:
        print(f"left out: {left}", file=sys.stderr)
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    facts = done.__dict__ | {"left_out": list(done.left_out), "notes": list(done.notes)}
    # Exports of labels hold no samples: a null would look like a count that is missing
    if done.samples is None:
        facts.pop("samples")
    if format == "json":
        print_json(facts)
        return
    show([{k: v for k, v in facts.items() if k not in ("left_out", "notes", "again")}], "table")
    if done.again:
        say("It was there already: nothing was done.")


@export_app.command("lerobot", help=EXPORT_KINDS["lerobot"].about)
def export_lerobot(
    out: OutOption,
    flavour: Annotated[
        Literal["task", "subtask"],
        typer.Option("--flavour", help="Text of a frame's task: the instruction, or the step's name."),
    ] = "task",
    codec: Annotated[
        Literal["h264", "av1"], typer.Option("--codec", help="Codec for pictures that must be encoded.")
    ] = "h264",
    blur: Annotated[
        Literal["faces"] | None,
        typer.Option("--blur", help="Blur these in all pictures, which are then encoded again."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Open the export with LeRobot's reader and compare it with the corpus.")
    ] = False,
    release: ReleaseOption = None,
    dataset: DatasetsOption = None,
    episodes: EpisodesOption = None,
    split: SplitsOption = None,
    where: WhereOption = None,
    allow_licence: LicencesOption = None,
    min_confidence: MinConfidenceOption = None,
    min_name_confidence: MinNameConfidenceOption = None,
    overwrite: OverwriteOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    from warehouse.lake import Lake

    chosen = _selection(release, dataset, episodes, split, where, allow_licence, min_confidence, min_name_confidence)
    lake = Lake(space_at(workspace), read_only=True)
    options = {"flavour": flavour, "codec": codec, "blur": blur}
    _export(lake, "lerobot", out, chosen, options, overwrite, format)
    if verify:
        _verify(lake, chosen, out, options)


def _verify(lake: "Lake", chosen: "Selection", out: Path, options: dict[str, Any]) -> None:
    """Say whether LeRobot reads the export as it is meant; ends with 1 where it does not."""
    from warehouse.exports.lerobot_plan import LerobotOptions
    from warehouse.exports.verify_lerobot import verify

    # To stderr, so that standard output is the export's facts alone
    verified = verify(lake, chosen, out, LerobotOptions(**options))
    print(verified.sentence(), file=sys.stderr)
    if verified.problems:
        raise typer.Exit(1)


@export_app.command("rabc", help=EXPORT_KINDS["rabc"].about)
def export_rabc(
    out: OutOption,
    chunk_size: Annotated[
        list[int] | None, typer.Option("--chunk-size", min=1, help="Action chunk to suggest a kappa for; repeatable.")
    ] = None,
    from_model: Annotated[
        str | None,
        typer.Option(
            "--from-model", help="Use this reward model's progress instead of labels; scores missing episodes."
        ),
    ] = None,
    fps: Annotated[
        float | None, typer.Option("--fps", min=0.001, help="With --from-model: scored frames a second; default: 4.")
    ] = None,
    window_frames: WindowFramesOption = None,
    window_step: WindowStepOption = None,
    endpoint: EndpointOption = None,
    api_key_env: ApiKeyOption = None,
    max_calls: MaxCallsOption = None,
    release: ReleaseOption = None,
    dataset: DatasetsOption = None,
    episodes: EpisodesOption = None,
    split: SplitsOption = None,
    where: WhereOption = None,
    allow_licence: LicencesOption = None,
    min_confidence: MinConfidenceOption = None,
    min_name_confidence: MinNameConfidenceOption = None,
    overwrite: OverwriteOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    options: dict[str, Any] = {"chunk_sizes": tuple(chunk_size)} if chunk_size else {}
    chosen = _selection(release, dataset, episodes, split, where, allow_licence, min_confidence, min_name_confidence)
    lake, scored = _scored(
        workspace, chosen, from_model, fps, window_frames, window_step, endpoint, api_key_env, max_calls
    )
    _export(lake, "rabc", out, chosen, options | scored, overwrite, format)


def _scored(
    workspace: str,
    chosen: "Selection",
    from_model: str | None,
    fps: float | None,
    window_frames: int | None,
    window_step: float | None,
    endpoint: list[str] | None,
    api_key_env: str | None,
    max_calls: int | None,
) -> "tuple[Lake, dict[str, Any]]":
    """The lake to export of, and the options that name a model's rewards, made where they were missing."""
    from warehouse.lake import Lake

    if from_model is None:
        # Options that would be ignored are refused: they would be believed to count
        if fps is not None or window_frames is not None or endpoint or max_calls is not None:
            raise UsageError("--fps, --window-frames, --endpoint and --max-calls need --from-model")
        # Labels are only read; scores of a model are kept in the lake
        return Lake(space_at(workspace), read_only=True), {}
    from pipeline.episode_rewards import score_selection

    config = scorer_config(
        workspace, from_model, None, endpoint, window_frames, window_step, False, api_key_env, max_calls
    )
    lake = lake_at(workspace)
    with progress() as report:
        scored = score_selection(lake, config, chosen, fps, partial(report, "episodes"))
    print(f"{scored.scored_now} of {scored.episodes} episodes scored now", file=sys.stderr)
    if scored.failures:
        print(f"note: {scored.failures} of {scored.moments} moments gave no number", file=sys.stderr)
    return lake, {"rewards": scored.run, "model": from_model}


@export_app.command("frame-signals", help=EXPORT_KINDS["frame-signals"].about)
def export_frame_signals(
    out: FileOption,
    label_run: LabelRunOption = None,
    advantage: Annotated[
        int | None, typer.Option("--advantage", min=1, help="Add advantages of action chunks of so many frames.")
    ] = None,
    positive_share: Annotated[
        float, typer.Option("--positive-share", min=0, max=1, help="Share of a task's frames marked positive (RECAP).")
    ] = 0.3,
    from_model: Annotated[
        str | None,
        typer.Option(
            "--from-model", help="Use this reward model's progress instead of labels; scores missing episodes."
        ),
    ] = None,
    fps: Annotated[
        float | None, typer.Option("--fps", min=0.001, help="With --from-model: scored frames a second; default: 4.")
    ] = None,
    window_frames: WindowFramesOption = None,
    window_step: WindowStepOption = None,
    endpoint: EndpointOption = None,
    api_key_env: ApiKeyOption = None,
    max_calls: MaxCallsOption = None,
    release: ReleaseOption = None,
    dataset: DatasetsOption = None,
    episodes: EpisodesOption = None,
    split: SplitsOption = None,
    where: WhereOption = None,
    allow_licence: LicencesOption = None,
    min_confidence: MinConfidenceOption = None,
    min_name_confidence: MinNameConfidenceOption = None,
    overwrite: OverwriteOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    if label_run and from_model:
        raise UsageError("give either --label-run or --from-model: signals come from one of them")
    chosen = _selection(release, dataset, episodes, split, where, allow_licence, min_confidence, min_name_confidence)
    lake, scored = _scored(
        workspace, chosen, from_model, fps, window_frames, window_step, endpoint, api_key_env, max_calls
    )
    options = {"label_run": label_run, "horizon": advantage, "positive_share": positive_share}
    _export(lake, "frame-signals", out, chosen, options | scored, overwrite, format)


def _label_run_command(kind: ExportKind, out_option: Any) -> None:
    """Add the command of a kind that exports labels, the active ones or those of a run."""

    @export_app.command(kind.name, help=kind.about)
    def command(
        out: out_option,  # type: ignore[valid-type]  # folder or file, as the kind has it
        label_run: LabelRunOption = None,
        release: ReleaseOption = None,
        dataset: DatasetsOption = None,
        episodes: EpisodesOption = None,
        split: SplitsOption = None,
        where: WhereOption = None,
        allow_licence: LicencesOption = None,
        min_confidence: MinConfidenceOption = None,
        min_name_confidence: MinNameConfidenceOption = None,
        overwrite: OverwriteOption = False,
        workspace: WorkspaceOption = DEFAULT_WORKSPACE,
        format: FormatOption = "table",
    ) -> None:
        from warehouse.lake import Lake

        chosen = _selection(
            release, dataset, episodes, split, where, allow_licence, min_confidence, min_name_confidence
        )
        lake = Lake(space_at(workspace), read_only=True)
        _export(lake, kind.name, out, chosen, {"label_run": label_run}, overwrite, format)


for _name, _out in (("annotations-json", FileOption), ("robometer", OutOption), ("opensarm", OutOption)):
    _label_run_command(EXPORT_KINDS[_name], _out)


@export_app.command("robo-dopamine", help=EXPORT_KINDS["robo-dopamine"].about)
def export_robo_dopamine(
    out: OutOption,
    per_run: Annotated[int, typer.Option("--per-run", min=0, help="Maximum pairs of states per run.")] = 50,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another number draws other pairs.")] = 0,
    label_run: LabelRunOption = None,
    release: ReleaseOption = None,
    dataset: DatasetsOption = None,
    episodes: EpisodesOption = None,
    split: SplitsOption = None,
    where: WhereOption = None,
    allow_licence: LicencesOption = None,
    min_confidence: MinConfidenceOption = None,
    min_name_confidence: MinNameConfidenceOption = None,
    overwrite: OverwriteOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    from warehouse.lake import Lake

    chosen = _selection(release, dataset, episodes, split, where, allow_licence, min_confidence, min_name_confidence)
    lake = Lake(space_at(workspace), read_only=True)
    options = {"label_run": label_run, "per_run": per_run, "seed": seed}
    _export(lake, "robo-dopamine", out, chosen, options, overwrite, format)


@export_app.command("preferences", help=EXPORT_KINDS["preferences"].about)
def export_preferences(
    out: OutOption,
    per_run: Annotated[int, typer.Option("--per-run", min=1, help="Maximum pairs of each kind per run.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another number draws other pairs.")] = 0,
    release: ReleaseOption = None,
    dataset: DatasetsOption = None,
    episodes: EpisodesOption = None,
    split: SplitsOption = None,
    where: WhereOption = None,
    allow_licence: LicencesOption = None,
    min_confidence: MinConfidenceOption = None,
    min_name_confidence: MinNameConfidenceOption = None,
    overwrite: OverwriteOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    from warehouse.lake import Lake

    chosen = _selection(release, dataset, episodes, split, where, allow_licence, min_confidence, min_name_confidence)
    lake = Lake(space_at(workspace), read_only=True)
    _export(lake, "preferences", out, chosen, {"per_run": per_run, "seed": seed}, overwrite, format)


def _samples_command(kind: ExportKind) -> None:
    """Add the command of a kind that exports samples: they take the same options."""

    @export_app.command(kind.name, help=kind.about)
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
        min_confidence: MinConfidenceOption = None,
        min_name_confidence: MinNameConfidenceOption = None,
        overwrite: OverwriteOption = False,
        workspace: WorkspaceOption = DEFAULT_WORKSPACE,
        format: FormatOption = "table",
    ) -> None:
        from warehouse.lake import Lake

        chosen = _selection(
            release, dataset, episodes, split, where, allow_licence, min_confidence, min_name_confidence
        )
        samples = _sample_options(family, form, profile, seed)
        lake = Lake(space_at(workspace), read_only=True)
        _export(lake, kind.name, out, chosen, {"samples": samples}, overwrite, format)


for _kind in EXPORT_KINDS.values():
    if _kind.of_samples:
        _samples_command(_kind)


@export_app.command("rerun", help=EXPORT_KINDS["rerun"].about)
def export_rerun(
    out: OutOption,
    pictures_per_s: Annotated[
        float | None, typer.Option("--pictures-per-s", help="Maximum pictures per second; default: all; 0: none.")
    ] = None,
    max_px: Annotated[
        int, typer.Option("--max-px", help="Maximum longer side of pictures; larger ones are scaled down.")
    ] = 640,
    release: ReleaseOption = None,
    dataset: DatasetsOption = None,
    episodes: EpisodesOption = None,
    split: SplitsOption = None,
    where: WhereOption = None,
    allow_licence: LicencesOption = None,
    min_confidence: MinConfidenceOption = None,
    min_name_confidence: MinNameConfidenceOption = None,
    overwrite: OverwriteOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    from warehouse.lake import Lake

    chosen = _selection(release, dataset, episodes, split, where, allow_licence, min_confidence, min_name_confidence)
    lake = Lake(space_at(workspace), read_only=True)
    _export(lake, "rerun", out, chosen, {"pictures_per_s": pictures_per_s, "max_px": max_px}, overwrite, format)


@app.command("import")
def import_labels(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[FORM] PATH",
            help="A LeRobot folder, a JSON-lines file, a folder of such files, or a form's name and its file.",
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="Dataset of the corpus that the annotations belong to.")],
    form: Annotated[
        str | None, typer.Option("--form", help="Which annotations of a LeRobot folder; default: the most detailed.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Import annotations from other tools as a label run of their own; active labels stay as they are."""
    from annotate.imported import FORMS
    from pipeline.imports import import_annotations

    *forms, path = words
    if len(forms) > 1 or (forms and form):
        raise UsageError("import takes one form and one path: proccorpus import frame-signals FILE --name DATASET")
    form = forms[0] if forms else form
    if form not in (None, *FORMS):
        raise UsageError(f"there is no form {form}: known are {', '.join(FORMS)}")
    done = import_annotations(lake_at(workspace), Path(path), name, form)
    for why in done.refused:
        print(f"left out: {why}", file=sys.stderr)
    facts = done.__dict__ | {"refused": list(done.refused)}
    if format == "table":
        facts["refused"] = len(done.refused)
    show_facts(facts, format)

"""Exports to other tools, and annotations from them."""

import inspect
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.options import (
    DEFAULT_WORKSPACE,
    FormatOption,
    MinConfidenceOption,
    MinNameConfidenceOption,
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
from core.errors import UserError
from warehouse.exports import EXPORT_KINDS, ExportKind
from warehouse.exports.options import Selection
from warehouse.lake import Lake

if TYPE_CHECKING:
    from warehouse.exports.common import Exported

app = typer.Typer()
export_app = typer.Typer(help="Export the corpus in formats that other tools open.", no_args_is_help=True)
app.add_typer(export_app, name="export")
Options = dict[str, Any]  # of a kind's options class


# Options that commands share, each declared once: a command has the parameters of what makes its options


def _selection(
    release: Annotated[
        str | None, typer.Option("--release", help="Export this release; default: the corpus as it is now.")
    ] = None,
    dataset: Annotated[list[str] | None, typer.Option("--dataset", help="Only this dataset; repeatable.")] = None,
    episodes: Annotated[
        str | None, typer.Option("--episodes", help="Only these episodes of one dataset, such as 0,1,5-9.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Only this split: train, val, test_id, ...; repeatable.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", help="SQL condition such as 'success', or a query for dataset, episode_index."),
    ] = None,
    allow_licence: Annotated[
        list[str] | None,
        typer.Option("--allow-licence", help="Include datasets with this licence, such as unknown; repeatable."),
    ] = None,
    min_confidence: MinConfidenceOption = None,
    min_name_confidence: MinNameConfidenceOption = None,
) -> Selection:
    chosen = {"release": release, "datasets": dataset or (), "splits": split or (), "allow": allow_licence or ()}
    gate = {"min_confidence": min_confidence, "min_name_confidence": min_name_confidence}
    return Selection.model_validate(chosen | gate | {"episodes": episode_list(episodes), "where": where})


def _label_run(
    label_run: Annotated[
        str | None, typer.Option("--label-run", help="Export the labels of this label run, not the active ones.")
    ] = None,
) -> Options:
    return {"label_run": label_run}


def _samples(
    family: Annotated[
        list[str] | None, typer.Option("--family", help="Only samples of this family; repeatable.")
    ] = None,
    form: Annotated[
        list[str] | None,
        typer.Option("--form", help="Only ProgressLM samples of this form: think or no_think; repeatable."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="Draw this training set from --release: progresslm_sft or progresslm_rl."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another number draws other samples for --profile.")] = 0,
) -> Options:
    return {"families": family or (), "forms": form or (), "profile": profile, "seed": seed}


def _scores(
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
    *,
    workspace: str,
    chosen: Selection,
) -> Options:
    """The options that name a model's rewards, which are made where they are missing."""
    if from_model is None:
        # Options that would be ignored are refused: they would be believed to count
        if fps is not None or window_frames is not None or endpoint or max_calls is not None:
            raise UserError("--fps, --window-frames, --endpoint and --max-calls need --from-model")
        return {}
    from pipeline.episode_rewards import score_selection

    config = scorer_config(
        workspace, from_model, None, endpoint, window_frames, window_step, False, api_key_env, max_calls
    )
    with progress() as report:
        scored = score_selection(lake_at(workspace), config, chosen, fps, partial(report, "episodes"))
    print(f"{scored.scored_now} of {scored.episodes} episodes scored now", file=sys.stderr)
    if scored.failures:
        print(f"note: {scored.failures} of {scored.moments} moments gave no number", file=sys.stderr)
    return {"rewards": scored.run, "model": from_model}


def _lerobot(
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
) -> Options:
    return {"flavour": flavour, "codec": codec, "blur": blur}


def _verify(
    verify: Annotated[
        bool, typer.Option("--verify", help="Open the export with LeRobot's reader and compare it with the corpus.")
    ] = False,
) -> bool:
    return verify


def _rabc(
    chunk_size: Annotated[
        list[int] | None, typer.Option("--chunk-size", min=1, help="Action chunk to suggest a kappa for; repeatable.")
    ] = None,
) -> Options:
    return {"chunk_sizes": tuple(chunk_size)} if chunk_size else {}


def _frame_signals(
    advantage: Annotated[
        int | None, typer.Option("--advantage", min=1, help="Add advantages of action chunks of so many frames.")
    ] = None,
    positive_share: Annotated[
        float, typer.Option("--positive-share", min=0, max=1, help="Share of a task's frames marked positive (RECAP).")
    ] = 0.3,
) -> Options:
    return {"horizon": advantage, "positive_share": positive_share}


def _robo_dopamine(
    per_run: Annotated[int, typer.Option("--per-run", min=0, help="Maximum pairs of states per run.")] = 50,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another number draws other pairs.")] = 0,
) -> Options:
    return {"per_run": per_run, "seed": seed}


def _preferences(
    per_run: Annotated[int, typer.Option("--per-run", min=1, help="Maximum pairs of each kind per run.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another number draws other pairs.")] = 0,
) -> Options:
    return {"per_run": per_run, "seed": seed}


def _rerun(
    pictures_per_s: Annotated[
        float | None, typer.Option("--pictures-per-s", help="Maximum pictures per second; default: all; 0: none.")
    ] = None,
    max_px: Annotated[
        int, typer.Option("--max-px", help="Maximum longer side of pictures; larger ones are scaled down.")
    ] = 640,
) -> Options:
    return {"pictures_per_s": pictures_per_s, "max_px": max_px}


# What makes the options of each kind; of samples: _samples
OPTIONS: dict[str, tuple[Callable[..., Any], ...]] = {
    "lerobot": (_lerobot, _verify),
    "rabc": (_rabc, _scores),
    "frame-signals": (_label_run, _frame_signals, _scores),
    "annotations-json": (_label_run,),
    "robometer": (_label_run,),
    "opensarm": (_label_run,),
    "robo-dopamine": (_robo_dopamine, _label_run),
    "preferences": (_preferences,),
    "rerun": (_rerun,),
}


def _last(
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete a different export in --out first.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> tuple[bool, str, str]:
    return overwrite, workspace, format


def _options_of(maker: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a function that are options of a command; what it is told besides is for keywords alone."""
    parameters = inspect.signature(maker).parameters.values()
    return [p for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]


def _own(maker: Callable[..., Any], values: Options) -> Options:
    """Of the values of a command those that a function takes as options."""
    return {p.name: values[p.name] for p in _options_of(maker)}


def _add_command(kind: ExportKind) -> None:
    makers = OPTIONS.get(kind.name, (_samples,))
    about_out = "File to write." if kind.is_file else "Folder to write; an unfinished export there is resumed."

    def command(out: Path, **values: Any) -> None:
        overwrite, workspace, style = _last(**_own(_last, values))
        if values.get("label_run") and values.get("from_model"):
            raise UserError("give either --label-run or --from-model: signals come from one of them")
        chosen: Selection = _selection(**_own(_selection, values))
        options: Options = {}
        for maker in makers:
            if maker is _scores:
                options |= _scores(**_own(_scores, values), workspace=workspace, chosen=chosen)
            elif maker is not _verify:
                options |= maker(**_own(maker, values))
        # Opened after rewards were made: they are in the corpus by now
        lake = Lake(space_at(workspace), read_only=True)
        _export(lake, kind, out, chosen, options, overwrite, style)
        if values.get("verify"):
            _verify_lerobot(lake, chosen, out, options)

    parameters = [
        inspect.Parameter(
            "out", inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[Path, typer.Option("--out", help=about_out)]
        )
    ]
    for maker in (*makers, _selection, _last):
        parameters += [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in _options_of(maker)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    export_app.command(kind.name, help=kind.about)(command)


for _kind in EXPORT_KINDS.values():
    _add_command(_kind)


def _export(
    lake: Lake, kind: ExportKind, out: Path, selection: Selection, options: Options, overwrite: bool, format: str
) -> None:
    """Write an export of a kind with some of its options, and say what it is."""
    from pipeline.exports import ExportRequest, write

    done: Exported = write(lake, ExportRequest(kind, out, selection, kind.read_options(options), overwrite))
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


def _verify_lerobot(lake: Lake, chosen: Selection, out: Path, options: Options) -> None:
    """Say whether LeRobot reads the export as it is meant; ends with 1 where it does not."""
    from warehouse.exports.options import LerobotOptions
    from warehouse.exports.verify_lerobot import verify

    # To stderr, so that standard output is the export's facts alone
    verified = verify(lake, chosen, out, LerobotOptions(**options))
    print(verified.sentence(), file=sys.stderr)
    if verified.problems:
        raise typer.Exit(1)


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
        raise UserError("import takes one form and one path: proccorpus import frame-signals FILE --name DATASET")
    form = forms[0] if forms else form
    if form not in (None, *FORMS):
        raise UserError(f"there is no form {form}: known are {', '.join(FORMS)}")
    done = import_annotations(lake_at(workspace), Path(path), name, form)
    for why in done.refused:
        print(f"left out: {why}", file=sys.stderr)
    facts = done.__dict__ | {"refused": list(done.refused)}
    if format == "table":
        facts["refused"] = len(done.refused)
    show_facts(facts, format)

"""Exports to other tools, and annotations from them."""

import inspect
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from annotate.imported import FORMS
from cli.lakes import lake_at, lake_to_read
from cli.options import At, say, space_at, warn
from cli.output import progress, show_facts
from cli.terminal import FAILED, note
from core.errors import UserError
from eval.reward.open import ModelOptions
from eval.reward.scorer import UNSEEN
from pipeline.episode_rewards import score_selection
from pipeline.imports import import_annotations
from pipeline.rewards import scorer_config
from warehouse.exports import EXPORT_KINDS, ExportKind
from warehouse.exports.options import LerobotOptions, RewardOptions, Selection
from warehouse.exports.verify_lerobot import verify as verify_lerobot

app = typer.Typer()
export_app = typer.Typer(
    help="Export the corpus in formats that other tools open.", no_args_is_help=True
)
app.add_typer(export_app, name="export")
OF_REWARDS = {"from_model", "fps", "how"}


def _export(
    kind: ExportKind,
    out: Path,
    options: Any,
    chosen: Selection,
    scoring: ModelOptions = ModelOptions(),
    from_model: Annotated[
        str | None,
        Option(help="Use this reward model's progress instead of labels; scores missing episodes."),
    ] = None,
    fps: Annotated[
        float | None, Option(min=0.001, help="With --from-model: frames a second; default: 4.")
    ] = None,
    verify: Annotated[
        bool, Option(help="Read the export with LeRobot and compare it with the corpus.")
    ] = False,
    overwrite: Annotated[bool, Option(help="Delete a different export in --out first.")] = False,
    common: At = At(),
) -> None:
    """Write an export of a kind and say what it is; a model's rewards that it wants are made where they are missing."""
    if from_model is not None:
        options = _with_rewards(options, chosen, scoring, from_model, fps, common.workspace)
    # Options that would be ignored are refused: they would be believed to count
    elif scoring.endpoint or any(
        setting is not None for setting in (fps, scoring.window_frames, scoring.max_calls)
    ):
        raise UserError("--fps, --window-frames, --endpoint and --max-calls need --from-model")

    # Opened after rewards were made: they are in the corpus by now
    lake = lake_to_read(common.workspace)
    export = kind.export(lake, chosen, out, options, overwrite=overwrite)
    warn(export.left_out, "left out")
    warn(export.notes, "note")
    facts = export.__dict__ | {"left_out": list(export.left_out), "notes": list(export.notes)}
    # Exports of labels hold no samples: a null would look like a count that is missing
    if export.samples is None:
        facts.pop("samples")
    facts["use"] = list(export.use)
    if not export.use:
        facts.pop("use")
    show_facts(facts, common.format, hidden=("left_out", "notes", "again", "use"))
    for line in export.use:
        say(line)
    if export.again:
        say("It was there already: nothing was done.")
    if verify:
        verified = verify_lerobot(lake, chosen, out, options)
        note(verified.sentence())
        if verified.problems:
            raise typer.Exit(FAILED)


def _with_rewards(
    options: Any,
    chosen: Selection,
    scoring: ModelOptions,
    model: str,
    fps: float | None,
    workspace: str,
) -> Any:
    """The options with a run of the model's rewards, which are made for episodes that have none."""
    if getattr(options, "label_run", None):
        raise UserError("give either --label-run or --from-model: signals come from one of them")
    config = scorer_config(scoring, model, space_at(workspace))
    with progress() as report:
        report("episodes", detail="to score: the model is opened")
        scored = score_selection(
            lake_at(workspace), config, chosen, fps, partial(report, "episodes")
        )
    note(f"{scored.scored_now} of {scored.episodes} episodes scored now")
    if scored.failures:
        warn([f"{scored.failures} of {scored.moments} moments gave no number"], "note")
    if scored.unsure:
        warn([f"{scored.unsure} of {scored.moments} answers are unsure: {UNSEEN}"], "note")
    return options.model_copy(update={"rewards": scored.run, "model": model})


def _command_of(kind: ExportKind) -> Any:
    """The command of a kind: `_export` with the parameters that the kind has."""
    if kind.is_file:
        about_out = "File to write."
    else:
        about_out = "Folder to write; an unfinished export there is resumed."
    annotations = {"out": Annotated[Path, Option(help=about_out)], "options": kind.options}
    hidden = {"kind"} | (set() if issubclass(kind.options, RewardOptions) else OF_REWARDS)
    hidden |= set() if kind.options is LerobotOptions else {"verify"}
    command = partial(_export, kind)
    parameters = [
        p.replace(
            annotation=annotations.get(name, p.annotation), kind=inspect.Parameter.KEYWORD_ONLY
        )
        for name, p in inspect.signature(_export).parameters.items()
        if name not in hidden
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


for _kind in EXPORT_KINDS.values():
    export_app.command(_kind.name, help=_kind.about)(_command_of(_kind))


@app.command("import")
def import_labels(
    words: Annotated[
        list[str],
        Argument(
            metavar="[FORM] PATH",
            help="A LeRobot folder, a JSON-lines file, a folder of such files, or a form's name and its file.",
        ),
    ],
    name: Annotated[str, Option(help="Dataset of the corpus that the annotations belong to.")],
    form: Annotated[
        str | None,
        Option(help="Which annotations of a LeRobot folder; default: the most detailed."),
    ] = None,
    common: At = At(),
) -> None:
    """Import annotations from other tools as a label run of their own. Active labels stay as they are."""
    *forms, path = words
    if len(forms) > 1 or (forms and form):
        raise UserError(
            "import takes one form and one path: proccorpus import frame-signals FILE --name DATASET"
        )
    form = forms[0] if forms else form
    if form not in (None, *FORMS):
        raise UserError(f"there is no form {form}: known are {', '.join(FORMS)}")
    imported = import_annotations(lake_at(common.workspace), Path(path), name, form)
    warn(imported.refused, "left out")
    show_facts(
        imported.__dict__
        | {
            "refused": len(imported.refused) if common.format == "table" else list(imported.refused)
        },
        common.format,
    )

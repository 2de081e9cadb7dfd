"""Exports to other tools."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field
from typer import Argument, Option

from cli.lakes import lake_at, lake_to_read
from cli.options import (
    DONE,
    FAILED,
    Result,
    Space,
    command,
    note,
    warn,
)
from cli.output import progress
from core.errors import UserError
from core.paths import Workspace
from core.settings import read_settings, setting_values, settings_of
from eval.reward.open import ModelOptions
from eval.reward.scorer import UNSEEN
from pipeline.episode_rewards import score_selection
from pipeline.rewards import scorer_config
from warehouse.exports import EXPORT_KINDS, ExportKind, export_kind
from warehouse.exports.options import Selection
from warehouse.exports.verify_lerobot import verify as verify_lerobot

LISTS = ("left_out", "notes", "use")
MAYBE = ("samples", "use")  # facts that not every export has


class Scoring(ModelOptions):
    """Settings of the kinds that take a reward model's progress in the place of labels."""

    from_model: str | None = Field(
        default=None,
        description="Use this reward model's progress instead of labels; scores missing episodes.",
    )
    fps: float | None = Field(
        default=None, ge=0.001, description="With from_model: frames a second; default: 4."
    )


def settings_model(kind: ExportKind) -> Any:
    """What the command takes as settings of a kind: its options, and of some how a model is asked."""
    if "rewards" in kind.options.model_fields:
        return type("Settings", (Scoring, kind.options), {})
    return kind.options


def _help() -> str:
    """The help of the command: each kind, and its settings; those of several kinds are described
    once."""
    paragraphs = ["Export the corpus in formats that other tools open. Kinds, and their settings:"]
    described = dict[str, str]()
    for kind in EXPORT_KINDS.values():
        settings = list[str]()
        for name, field in settings_of(settings_model(kind)).items():
            description = str(field.description)
            is_described = described.get(name) == description
            settings.append(f"{name}." if is_described else f"{name}: {description}")
            described.setdefault(name, description)
        paragraphs.append(" ".join((f"{kind.name}: {kind.about}", *settings)))
    return "\n\n".join(paragraphs)


@command(
    "export",
    help=_help(),
    no_args_is_help=True,
)
def export(
    space: Space,
    kind: Annotated[
        str, Argument(help="What to write, see above.", autocompletion=lambda: [*EXPORT_KINDS])
    ],
    out: Annotated[
        Path,
        Option(
            help="Folder to write, of frame-signals and annotations-json a file; an unfinished export is resumed."
        ),
    ],
    chosen: Selection,
    set: Annotated[
        list[str] | None, Option(help="A setting of the kind, such as codec=av1; repeatable.")
    ] = None,
    settings: Annotated[
        Path | None, Option(help="YAML file with settings of the kind; --set counts before it.")
    ] = None,
    verify: Annotated[
        bool, Option(help="Of lerobot: read the export with LeRobot, compare it with the corpus.")
    ] = False,
    overwrite: Annotated[bool, Option(help="Delete a different export in --out first.")] = False,
) -> Result:
    export_type = export_kind(kind)
    model = settings_model(export_type)
    values = _from_file(settings) | setting_values(set or ())
    if verify and export_type.name != "lerobot":
        raise UserError(f"--verify reads an export of lerobot, not of {kind}: leave it out")
    if label_run := values.pop("label_run", None):
        chosen = chosen.model_copy(update={"label_run": label_run})
    kind_settings = read_settings(model, kind, values)
    options: Any = export_type.options.model_validate(
        kind_settings.model_dump(include={*export_type.options.model_fields})
    )
    if isinstance(kind_settings, Scoring):
        options = _with_rewards(options, kind_settings, chosen, space)

    # Opened after rewards were made: they are in the corpus by now
    lake = lake_to_read(space)
    exported = export_type.export(lake, chosen, out, options, overwrite=overwrite)
    warn(exported.left_out, "left out")
    warn(exported.notes, "note")
    facts = exported.__dict__ | {name: [*getattr(exported, name)] for name in LISTS}
    # Exports of labels hold no samples: a null would look like a count that is missing
    facts = {name: value for name, value in facts.items() if value or name not in MAYBE}
    lines = [*exported.use, *["It was there already: nothing was done."] * exported.again]
    code = DONE
    if verify:
        verified = verify_lerobot(lake, chosen, out, options)
        note(verified.sentence())
        code = FAILED if verified.problems else DONE
    return Result(facts, hidden=(*LISTS, "again"), lines=lines, code=code)


def _from_file(path: Path | None) -> dict[str, Any]:
    """The settings of a YAML file. Raises UserError."""
    if path is None:
        return {}
    try:
        settings = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as e:
        raise UserError(f"--settings {path} cannot be read as YAML: {e}") from e
    if not isinstance(settings, dict):
        raise UserError(f"--settings {path}: it needs lines such as `codec: av1`")
    return settings


def _with_rewards(options: Any, scoring: Scoring, chosen: Selection, space: Workspace) -> Any:
    """The options with a run of the model's rewards, which are made for episodes that have none."""
    model = scoring.from_model
    if model is None:
        # Settings that would be ignored are refused: they would be believed to count
        if ignored := scoring.model_dump(include={*Scoring.model_fields}, exclude_defaults=True):
            raise UserError(f"the settings {', '.join(ignored)} need from_model")
        return options
    if chosen.label_run:
        raise UserError("give either label_run or from_model: signals come from one of them")
    config = scorer_config(scoring, model, space)
    with progress() as report:
        report("episodes", detail="to score: the model is opened")
        scored = score_selection(
            lake_at(space), config, chosen, scoring.fps, partial(report, "episodes")
        )
    note(f"{scored.scored_now} of {scored.episodes} episodes scored now")
    if scored.failures:
        warn([f"{scored.failures} of {scored.moments} moments gave no number"], "note")
    if scored.unsure:
        warn([f"{scored.unsure} of {scored.moments} answers are unsure: {UNSEEN}"], "note")
    return options.model_copy(update={"rewards": scored.run, "model": model})

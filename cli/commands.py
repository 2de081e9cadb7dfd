"""Commands made from typed functions: help, completion, the page of reference and Python's `pc.run` come from them.

A parameter of a function that is Annotated with an Opened is what the workspace gives; one that is a pydantic model
stands for an option of each of its fields; any other is an option or an argument, as it is annotated. What the function
returns is printed: the facts of one thing, rows, or a Result of these, as --format says; a number is an exit code.

Shells complete the names of datasets, releases, label runs, models and recipes (`KINDS`).
"""

import contextvars
import functools
import inspect
import os
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from inspect import Parameter
from itertools import chain, product
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from cli.examples import EXAMPLES
from cli.options import (
    AS_JSON,
    AS_RECORDS,
    DECLARED,
    QUIET,
    VERBOSE,
    WORKSPACE,
    FormatOption,
    Opened,
    Result,
    WorkspaceOption,
    episode_list,
    is_setting,
    space_at,
)
from core.errors import UserError, checked_address, validation_message
from core.names import did_you_mean
from core.paths import DEFAULT_WORKSPACE, ROOT, Workspace
from core.values import imported
from core.version import VERSION

# What the parameters of commands name; a model that is no name of the workspace has a parameter of another name
KINDS = {
    "dataset": "dataset",
    "release": "release",
    "label_run": "label run",
    "run": "label run",
    "against": "label run",
    "model": "model",
    "models": "model",
    "from_model": "model",
    "recipe": "recipe",
    "registered": "registered dataset",
    "first_release": "release",
    "second_release": "release",
}
# Where the names of kinds are: in files of ours, and in the lake
FILES = {"registered dataset": "ingest/datasets/*.yaml", "recipe": "training/recipes/*.yaml"}
QUERIES = {
    "dataset": "SELECT dataset FROM datasets",
    "registered dataset": "SELECT dataset FROM datasets",
    "release": "SELECT name FROM releases",
    "label run": "SELECT label_run FROM label_runs",
}
# What shells take as one plain word: one of them evaluates what it is offered
PLAIN = re.compile(r"[A-Za-z0-9_][\w./+-]*", re.ASCII)


def complete_by_name(parameter: Parameter) -> None:
    """Give the parameter of a command completion, where its name says what it names."""
    if parameter.name in KINDS and "Path" not in str(parameter.annotation):
        for info in getattr(parameter.annotation, "__metadata__", ()):
            info.autocompletion = names_of(KINDS[parameter.name])


def names_of(kind: str) -> Callable[..., list[str]]:
    """A function as Typer asks it: the names of a kind in the workspace of the command that is
    being typed."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        space = Workspace(Path(ctx.params.get("workspace") or DEFAULT_WORKSPACE).expanduser())
        return [name for name in names(kind, space) if name.startswith(incomplete)]

    return complete


def names(kind: str, space: Workspace) -> list[str]:
    """The names of a kind, in order; none where there is no workspace, or it cannot be read: the
    commands say why."""
    listed = [path.stem for path in ROOT.glob(FILES[kind])] if kind in FILES else []
    if kind == "model":
        listed = [path.parent.name for path in (space.root / "models").glob("*/card.json")]
    if kind in QUERIES:
        listed += _in_lake(QUERIES[kind], space)
    return sorted({name for name in listed if PLAIN.fullmatch(name)})


def _in_lake(sql: str, space: Workspace) -> list[str]:
    # Only where a name is completed: every command imports this module
    import duckdb

    from warehouse.lake import Lake

    try:
        return Lake(space, read_only=True).column(sql)
    except (duckdb.Error, UserError):
        return []


# Heading in --help, command, module, first sentence of the command's help. A module is imported when one of its
# commands is run
COMMANDS = (
    ("Start", "demo", "building", "Build the shipped sample: all stages on 84 simulated runs."),
    (
        "Start",
        "inspect",
        "inspecting",
        "Show what a dataset holds, what is wrong with it, and how to repair it.",
    ),
    (
        "Start",
        "build",
        "building",
        "Ingest, label and shard a dataset; runs only stages that are missing or stale.",
    ),
    (
        "Start",
        "status",
        "status",
        "Show how much there is of each dataset, from episodes to shards.",
    ),
    (
        "Start",
        "explore",
        "serving",
        "Browse the corpus and correct labels: episodes, comparisons, SQL, scores.",
    ),
    (
        "Start",
        "sql",
        "sql",
        "Run a read-only SQL query on the corpus; without a query, open a shell.",
    ),
    ("Data", "show", "showing", "Show a list: a view of the corpus, or what is computed from it."),
    ("Data", "datasets", "registry", "Show the registry of datasets; rename or remove one."),
    ("Data", "samples", "releasing", "Draw samples: questions with pictures and answers."),
    ("Data", "release", "releasing", "Freeze, compare and publish the corpus."),
    ("Data", "export", "exporting", "Export the corpus in formats that other tools open."),
    ("Data", "takedown", "releasing", "Take data out of use, in releases, builds and files."),
    ("Labels", "say", "saying", "Say something of episodes: outcomes, references, corrections."),
    ("Labels", "undo", "saying", "Take back what was said."),
    ("Labels", "annotators", "evaluating", "Score annotators."),
    (
        "Labels",
        "import",
        "importing",
        "Import annotations from other tools as a label run of their own.",
    ),
    (
        "Labels",
        "vlm",
        "serving",
        "Serve the vision-language model that annotates, and manage its cached replies.",
    ),
    ("Models", "train", "training", "Train a progress reward model on a release's train split."),
    ("Models", "adapt", "training", "Adapt a model to one episode, from its active label."),
    (
        "Models",
        "cot",
        "training",
        "Make reasoning data for supervised training from a strong model's right answers.",
    ),
    ("Models", "model", "training", "Check, merge, convert and publish checkpoints."),
    (
        "Models",
        "eval",
        "evaluating",
        "Score models, prediction files, and two models against each other.",
    ),
    (
        "Models",
        "reward",
        "rewarding",
        "Score a video or an episode: progress and success at each sampled frame.",
    ),
    (
        "Models",
        "serve",
        "rewarding",
        "Serve rewards over HTTP, for live sessions and for whole runs; see /docs.",
    ),
    ("Operate", "workspace", "operating", "Create a workspace for several machines."),
    (
        "Operate",
        "doctor",
        "operating",
        "Check whether a workspace is complete, and say what to do.",
    ),
    (
        "Operate",
        "recover",
        "operating",
        "Make a lost or damaged catalog again, with all that people said.",
    ),
    (
        "Operate",
        "upgrade",
        "operating",
        "Bring an earlier version's lake to this one's; backs its catalog up first.",
    ),
    (
        "Operate",
        "nightly",
        "building",
        "Bring every dataset up to date, release them, and score the newest model.",
    ),
    (
        "Operate",
        "gc",
        "releasing",
        "Delete files that neither the corpus nor a release uses, and merge small files.",
    ),
    (
        "Operate",
        "ui",
        "operating",
        "Open the Dagster UI on a workspace: chunks, backfills, checks and lineage.",
    ),
)
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show where an error came from.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.")]
# Parameters that are no address, though a link may begin them
FREE_TEXTS = {"comment", "query", "task", "why"}
EPISODES = tuple[int, ...] | None
BOUNDS = {"ge": "min", "gt": "min", "le": "max", "lt": "max"}  # of a pydantic field, of an option


def make_app(command_name: str | None = None) -> typer.Typer:
    """The application. Only the module of the command `command_name` is imported (None: every
    module); others are listed."""
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        epilog=_examples(""),
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(proccorpus)
    for panel, name, module, text in COMMANDS:
        if command_name in (None, name):
            import_module(f"cli.{module}")
            _add(app, panel, name, text)
        else:
            app.command(name, help=text, rich_help_panel=panel)(lambda: None)
    return app


def _add(app: typer.Typer, panel: str, name: str, text: str) -> None:
    """Add a declared command, or those that begin with its word as a group."""
    inner_words = [words for words in DECLARED if words.startswith(f"{name} ")]
    if not inner_words:
        _add_one(app, name, name, rich_help_panel=panel)
        return
    speaks_alone = name in DECLARED
    group = typer.Typer(
        help=text,
        no_args_is_help=not speaks_alone,
        invoke_without_command=speaks_alone,
        epilog=_examples(name),
        rich_markup_mode="rich",
    )
    if speaks_alone:
        group.callback()(as_command(DECLARED[name][0]))
    for words in inner_words:
        _add_one(group, words, words.removeprefix(f"{name} "))
    app.add_typer(group, name=name, epilog=_examples(name), rich_help_panel=panel)


def _add_one(app: typer.Typer, words: str, name: str, **settings: Any) -> None:
    function, own_settings = DECLARED[words]
    settings |= own_settings
    app.command(name, epilog=_examples(words), **settings)(as_command(function))


def as_command(function: Callable[..., Any]) -> Callable[..., int | None]:
    """A typed function as Typer is given it, with the options that all commands have; flags have no
    --no-."""
    signature = inspect.signature(function)
    parameters = _parameters(signature)
    for parameter in parameters:
        complete_by_name(parameter)
        _call_flag(parameter)

    @functools.wraps(function)
    def run(**values: Any) -> int | None:
        context = values["context"]
        _set_flags(values)
        # A group's own function runs ahead of its commands, too, which then speak alone
        if context.invoked_subcommand:
            return None
        return imported("cli.output:print_result")(function(**_arguments(signature, values)))

    # Lines of a paragraph are as long as a terminal has room, not as the source has
    run.__doc__ = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(function) or "")
    # What typer reads a command's options from
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return run


def run(words: str, /, *, workspace: str | Path | None = None, **options: Any) -> Any:
    """What a command gives as JSON, in Python: run("release diff", a="spring", b="summer").

    words: the command. workspace: by default that of PROCCORPUS_WORKSPACE, else ./workspace.
    options: the command's options and arguments, as its function in `cli` names them. Notes go to
    standard error. Raises UserError; TypeError where one is missing, or none of the command's.
    """
    module = next(
        (module for _, name, module, _ in COMMANDS if name == words.partition(" ")[0]), None
    )
    if module:
        import_module(f"cli.{module}")
    if words not in DECLARED:
        raise UserError(f"there is no command {words!r}{did_you_mean(words, DECLARED)}")
    function, _ = DECLARED[words]
    signature = inspect.signature(function)
    bound = signature.replace(parameters=_parameters(signature)).bind(context=None, **options)
    bound.apply_defaults()
    place = workspace or os.environ.get("PROCCORPUS_WORKSPACE") or DEFAULT_WORKSPACE
    return contextvars.copy_context().run(
        _result, function, bound.arguments | {"workspace": str(place)}
    )


def _result(function: Callable[..., Any], values: dict[str, Any]) -> Any:
    """What a function gives, without a word of it on standard output."""
    AS_JSON.set(True)
    result = function(**_arguments(inspect.signature(function), values))
    if isinstance(result, Result):
        return result.rows if result.whole is None else result.whole
    return result


def _parameters(signature: inspect.Signature) -> list[inspect.Parameter]:
    """All options of a command, by name."""
    return [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in _options(signature)]


def _opened(parameter: inspect.Parameter) -> Opened | None:
    """What the workspace gives in the place of an option."""
    annotated = getattr(parameter.annotation, "__metadata__", ())
    return next((declared for declared in annotated if isinstance(declared, Opened)), None)


def _options(signature: inspect.Signature) -> Iterator[inspect.Parameter]:
    """A command's own options, those of models by field, then those that all commands have."""
    common_options: dict[str, tuple[Any, Any]] = {
        "context": (typer.Context, inspect.Parameter.empty)
    }
    for parameter in signature.parameters.values():
        if hasattr(parameter.annotation, "model_fields"):
            yield from options_of(parameter.annotation)
        elif _opened(parameter):
            common_options["workspace"] = (WorkspaceOption, DEFAULT_WORKSPACE)
        else:
            yield _as_text(parameter)
    if signature.return_annotation not in (None, int):
        common_options["format"] = (FormatOption, "table")
    common_options |= {"quiet": (QuietOption, False), "verbose": (VerboseOption, False)}
    for name, (annotation, default) in common_options.items():
        yield inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )


def _as_text(parameter: inspect.Parameter) -> inspect.Parameter:
    """A parameter as an option: episodes are one text, such as 0,1,5-9."""
    kind, *metadata = get_args(parameter.annotation) or [parameter.annotation]
    if kind != EPISODES:
        return parameter
    return parameter.replace(annotation=Annotated[str | None, *metadata])


def _set_flags(values: dict[str, Any]) -> None:
    """Take the options that all commands have out of the values, for the whole process."""
    # A group's own option counts for the command inside it
    for name, flag in {"quiet": QUIET, "verbose": VERBOSE}.items():
        if values.pop(name, False):
            flag.set(True)
    # Records are tables of another form
    if values.get("format") == "records":
        AS_RECORDS.set(True)
        values["format"] = "table"
    AS_JSON.set(values.get("format") == "json")


def _arguments(signature: inspect.Signature, values: dict[str, Any]) -> dict[str, Any]:
    """What a function is called with, of the values of its options. Raises UserError."""
    _refuse_secrets(values)
    if isinstance(values.get("episodes"), str):
        values["episodes"] = episode_list(values["episodes"])
    WORKSPACE.set(values.get("workspace", DEFAULT_WORKSPACE))
    arguments = {}
    for name, parameter in signature.parameters.items():
        if hasattr(parameter.annotation, "model_fields"):
            fields = {
                option.name: values[option.name] for option in options_of(parameter.annotation)
            }
            arguments[name] = _filled(parameter.annotation, fields)
        elif opened := _opened(parameter):
            arguments[name] = opened.open(space_at(values["workspace"]))
        else:
            arguments[name] = values[name]
    return arguments


def _refuse_secrets(values: dict[str, Any]) -> None:
    """Raises SecretInAddress."""
    for name, value in values.items():
        for text in value if isinstance(value, list) else [value]:
            if name not in FREE_TEXTS and isinstance(text, str | Path):
                checked_address(str(text))


def _call_flag(parameter: inspect.Parameter) -> None:
    """A flag has no --no- beside it, unless it says so itself."""
    for option in getattr(parameter.annotation, "__metadata__", ()):
        is_named = option.param_decls or option.default is not ...
        if parameter.annotation.__origin__ is bool and not is_named:
            option.param_decls = (f"--{parameter.name.replace('_', '-')}",)


def _filled(model: Any, values: dict[str, Any]) -> Any:
    """The model of options that were given. Raises UserError."""
    try:
        return model(**{option: value for option, value in values.items() if value is not None})
    except ValueError as e:
        raise UserError(validation_message(e)) from e


def options_of(model: Any) -> list[inspect.Parameter]:
    """The fields of a pydantic model as options, described and bounded as the fields are.

    An option is called as the field's alias, if it has one; a field without a description is no
    option, and what `--set` takes is none either.
    """
    parameters = []
    for name, field in model.model_fields.items():
        if field.description is None or is_setting(field):
            continue
        kind, metadata = _as_option(field.annotation, field.metadata)
        default: Any = inspect.Parameter.empty
        if not field.is_required():
            default = field.get_default(call_default_factory=True)
        if isinstance(default, tuple):
            default = None
        bounds: dict[str, Any] = {
            side: getattr(bound, attribute)
            for bound, (attribute, side) in product(metadata, BOUNDS.items())
            if hasattr(bound, attribute)
        }
        called = str(field.validation_alias or name)
        flag = called.replace("_", "-")
        declared = f"--{flag}" + f"/--no-{flag}" * (kind == bool | None)
        extra: Any = field.json_schema_extra or {}
        option = Annotated[kind, typer.Option(declared, help=field.description, **bounds, **extra)]
        parameters.append(
            inspect.Parameter(
                called, inspect.Parameter.KEYWORD_ONLY, annotation=option, default=default
            )
        )
    return parameters


def _as_option(kind: Any, metadata: list) -> tuple[Any, list]:
    """A field's type and bounds as an option's: episodes are one text, as 0,1,5-9; items of lists
    are given singly."""
    if kind == EPISODES:
        return str | None, metadata
    if get_origin(kind) is not tuple:
        return kind, metadata
    item = get_args(kind)[0]
    of_item = list(chain.from_iterable(m.metadata for m in getattr(item, "__metadata__", ())))
    plain: Any = str if get_origin(item) is Literal else getattr(item, "__origin__", item)
    return list[plain] | None, of_item


def _examples(words: str) -> str | None:
    # Typer keeps the lines of an epilog apart where an empty one stands between them
    if words in EXAMPLES:
        return "\n\n".join(("Examples:", *(f"  {line}" for line in EXAMPLES[words])))
    return None


def _say_version(is_requested: bool) -> None:
    if is_requested:
        print(f"proccorpus {VERSION}")
        raise typer.Exit


def proccorpus(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Say which version this is.", callback=_say_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Turn robot demonstrations into process supervision: segments, progress labels, samples and shards."""

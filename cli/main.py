"""The command line put together: the table of its commands, and every known error as one line and an exit code."""

import copy
import functools
import gc
import inspect
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import chain, product
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from cli.completion import complete_by_name
from cli.examples import EXAMPLES
from cli.former import present
from cli.options import episode_list, is_setting
from cli.terminal import (
    AS_JSON,
    AS_RECORDS,
    DONE,
    ENDED,
    FAILED,
    INTERRUPTED,
    QUIET,
    USAGE,
    VERBOSE,
    guard_terminal,
    leave_streams,
    painted,
)
from core.cores import WithoutPandas, tell_libraries
from core.errors import UserError, checked_address, validation_message, without_secrets
from core.files import disk_full, refused_by_system
from core.names import near_names
from core.version import VERSION
from core.wall import begin_anew
from ingest.formats import FORMAT_NAMES

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
        "exporting",
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
MODULES = {name: f"cli.{module}" for _, name, module, _ in COMMANDS}
# Commands that begin anew without what they stay in too long; the rest of their work is kept
BEGUN_ANEW = {"build", "demo", "inspect"}
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show where an error came from.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.")]
# Parameters that are no address, though a link may begin them
FREE_TEXTS = {"comment", "query", "task", "why"}
EPISODES = tuple[int, ...] | None
ENDS_WITHIN_S = 8.0
_asked_to_end = threading.Event()  # by SIGTERM
BOUNDS = {"ge": "min", "gt": "min", "le": "max", "lt": "max"}  # of a pydantic field, of an option


def make_app(command_name: str | None = None) -> typer.Typer:
    """The application. Only the module of the command `command_name` is imported (None: every module); others are
    listed."""
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        epilog=_examples(""),
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(proccorpus)
    for panel, name, _, text in COMMANDS:
        if command_name in (None, name):
            of_module = import_module(MODULES[name]).app
            infos: list[Any] = [*of_module.registered_commands, *of_module.registered_groups]
            info = _with_options_and_examples(
                next(info for info in infos if _name(info) == name), name
            )
            info.rich_help_panel = panel
            (
                app.registered_groups
                if hasattr(info, "typer_instance")
                else app.registered_commands
            ).append(info)
        else:
            app.command(name, help=text, rich_help_panel=panel)(lambda: None)
    return app


def _name(info: Any) -> str:
    return info.name or typer.main.get_command_name(info.callback.__name__)


def _with_options_and_examples(info: Any, words: str) -> Any:
    """A copy of a command or group, with the options that all commands have, and with its examples."""
    info = copy.copy(info)
    info.epilog = _examples(words)
    if not hasattr(info, "typer_instance"):
        info.callback = _with_common_options(info.callback)
        return info
    inner = info.typer_instance = copy.copy(info.typer_instance)
    inner.registered_commands = [
        _with_options_and_examples(c, f"{words} {_name(c)}") for c in inner.registered_commands
    ]
    # A group that does nothing by itself has no options
    if inner.registered_callback and inner.info.invoke_without_command:
        inner.registered_callback = copy.copy(inner.registered_callback)
        inner.registered_callback.callback = _with_common_options(
            inner.registered_callback.callback
        )
    return info


def _with_common_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer is given it: with the options that all commands have, and with completion of names.

    These are --verbose and -q; flags have no --no-. A parameter that is a pydantic model stands for options: one of
    each of the model's fields.
    """
    signature = inspect.signature(command)
    declared = list(signature.parameters.values())
    models = {p.name: p.annotation for p in declared if hasattr(p.annotation, "model_fields")}
    parameters = [
        option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in _options(declared, models)
    ]
    for parameter in parameters:
        complete_by_name(parameter)
        _call_flag(parameter)

    @functools.wraps(command)
    def run(**values: Any) -> None:
        _refuse_secrets(values)
        _set_flags(values)
        for name, model in models.items():
            fields = {option.name: values.pop(option.name) for option in options_of(model)}
            values[name] = _filled(model, fields)
        command(**values)

    # What typer reads a command's options from
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return run


def _options(
    declared: Iterable[inspect.Parameter], models: Mapping[str, Any]
) -> Iterator[inspect.Parameter]:
    """A command's own options, those of models by field, then those that all commands have."""
    for parameter in declared:
        yield from options_of(models[parameter.name]) if parameter.name in models else [parameter]
    for name, annotation in {"quiet": QuietOption, "verbose": VerboseOption}.items():
        yield inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation
        )


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
    if "episodes" in values:
        values["episodes"] = episode_list(values["episodes"])
    try:
        return model(**{option: value for option, value in values.items() if value is not None})
    except ValueError as e:
        raise UserError(validation_message(e)) from e  # type: ignore[arg-type]


def options_of(model: Any) -> list[inspect.Parameter]:
    """The fields of a pydantic model as options, described and bounded as the fields are.

    An option is called as the field's alias, if it has one; a field without a description is no option, and what
    `--set` takes is none either.
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
    """A field's type and bounds as an option's: episodes are one text, as 0,1,5-9; items of lists are given singly."""
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


def main_of_process() -> None:
    """`main` in a process of its own."""
    if BEGUN_ANEW.intersection(sys.argv[1:2]):
        begin_anew()
    signal.signal(signal.SIGTERM, _end)
    tell_libraries()
    sys.meta_path.insert(0, WithoutPandas())
    main(_keep_imports)


def _keep_imports() -> None:
    # Hundreds of thousands of objects, which stay: looking through them takes 10 % of a command's time
    gc.freeze()
    gc.set_threshold(100_000)
    gc.enable()


def _asked(words: Sequence[str]) -> str:
    """The command of a command line, or of the one that a shell wants completed; "" for none."""
    typed = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS")
    words = typed.split()[1:] if typed and "_PROCCORPUS_COMPLETE" in os.environ else words
    return next((word for word in words if word in MODULES), "")


def main(begin: Callable[[], None] = lambda: None) -> None:
    """Run the command line; `begin` is called once its command is imported. Known errors become one line and an exit
    code; an unknown one shows its traceback."""
    guard_terminal()
    for flag in (QUIET, VERBOSE, AS_RECORDS, AS_JSON):
        flag.set(False)
    try:
        words = present(sys.argv[1:])
        if not words and "_PROCCORPUS_COMPLETE" not in os.environ:
            _say_error(first_screen(), is_error=False)
            sys.exit(USAGE)
        # Typer's own handling is off, so that errors of all commands come out in one form
        command = typer.main.get_command(make_app(_asked(words)))
        begin()
        code = command.main(words, standalone_mode=False)
        # Flushed here, where a reader that went away is still handled below
        sys.stdout.flush()
        sys.exit(_interrupted() if code == INTERRUPTED else code or DONE)
    except typer.TyperException as e:
        # Without arguments the message is the help text
        is_help = e.message.startswith("Usage") or not e.format_message().strip()
        _say_error(e.message if is_help else _wrong_use(e), is_error=not is_help)
        sys.exit(USAGE)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(_interrupted())
    # rich and typer make an exit of 1 out of a reader that went away
    except (BrokenPipeError, SystemExit) as e:
        if not isinstance(e, BrokenPipeError) and not isinstance(e.__context__, BrokenPipeError):
            raise
        # Python flushes once more at its end: with nothing behind the descriptors that fails no more
        leave_streams()
        sys.exit(DONE)
    except Exception as e:
        sys.exit(_failed(e))


def first_screen() -> str:
    """What a newcomer needs, in twelve lines."""
    texts = {name: text for heading, name, _, text in COMMANDS if heading == "Start"}
    commands = [f"  proccorpus {name:9} {text}" for name, text in texts.items()]
    end = f"All {len(COMMANDS)} commands: proccorpus --help. One of them: proccorpus NAME --help"
    return "\n".join([str(proccorpus.__doc__), "", *commands, "", end])


def _say_error(text: str, *, is_error: bool = True) -> None:
    print(f"{painted('error:', 'red', sys.stderr)} {text}" if is_error else text, file=sys.stderr)


def _wrong_use(e: typer.TyperException) -> str:
    """What was wrong with how a command was called, what may have been meant, and which help says more."""
    text = " ".join(e.format_message().split()).replace("Value error, ", "")
    # Somebody gave a format of data as the one to print in
    if (match := re.search(r"'--format': .*'(\w+)' is not one of", text)) and match[
        1
    ] in FORMAT_NAMES:
        text = f"{text.removesuffix('.')}; --format says how to print, --as {match[1]} what the data are"
    if isinstance(wrong := getattr(e, "option_name", None), str) and (
        possible_options := getattr(e, "possibilities", None)
    ):
        text = f"No such option: {wrong}. Did you mean {near_names(wrong, possible_options)[0]}?"
    context = getattr(e, "ctx", None)
    help_command = f"{context.command_path} --help" if context else "--help"
    return f"{text.removesuffix('.')}{'' if text.endswith('?') else ';'} {help_command} says more"


def _failed(e: Exception) -> int:
    """Print what went wrong, in one line; returns the exit code. An unknown error shows its traceback, too."""
    from warehouse.lake import is_passing, was_interrupted

    if was_interrupted(e):
        return _interrupted()
    is_ours = isinstance(e, UserError)
    # A full disk, a server that went away, places that may only be read come as errors of whichever library met them
    full_disk = disk_full(e, Path.cwd())
    system_message = full_disk or (None if is_ours else refused_by_system(e))
    server_is_gone = not is_ours and is_passing(e)
    if VERBOSE.get() or not (system_message or is_ours or server_is_gone):
        print(without_secrets(traceback.format_exc()), end="", file=sys.stderr)
    advice = "; a server went away: what was finished is kept, run again when it is back"
    message = system_message or " ".join(str(e).split()) or type(e).__name__
    _say_error(message + advice * (server_is_gone and full_disk is None))
    if isinstance(e, UserError) and full_disk is None:
        return e.exit_code
    return FAILED


def _end(*_: object) -> None:
    """SIGTERM ends as Ctrl-C does; and at once where something does not end in time."""
    _asked_to_end.set()
    last = threading.Timer(ENDS_WITHIN_S, os._exit, (ENDED,))
    last.daemon = True
    last.start()
    raise KeyboardInterrupt


def _interrupted() -> int:
    print("interrupted: what was finished is kept, run again to go on", file=sys.stderr)
    if _asked_to_end.is_set():
        return ENDED
    return INTERRUPTED

"""The command line put together: the table of its commands, and every known error as one line and an exit code."""

import copy
import functools
import gc
import inspect
import os
import re
import sys
import tomllib
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.completion import complete_by_name
from cli.examples import EXAMPLES
from cli.options import DONE, FAILED, INTERRUPTED, USAGE
from cli.terminal import AS_RECORDS, VERBOSE, guard_terminal, leave_streams, painted
from core.cores import tell_libraries
from core.errors import UserError
from core.files import disk_full, refused_by_system
from core.imports import leave_out_pandas
from core.names import near_names
from core.paths import ROOT

# Every command under the heading that it has in --help: the module that has it, and the first sentence of its help
GROUPS = {
    "Start": {
        "demo": ("cli.building", "Build the shipped sample: all stages on 84 simulated runs."),
        "inspect": ("cli.inspecting", "Show what a dataset holds, what is wrong with it, and how to repair it."),
        "build": (
            "cli.building",
            "Ingest, measure, segment, label, sample and shard a dataset; runs only stages that are missing or stale.",
        ),
        "status": (
            "cli.status",
            "Show each dataset's episodes, usable and quarantined ones, frames, labels, samples and shards.",
        ),
        "explore": (
            "cli.exploring",
            "Browse the corpus and correct labels: episodes, comparisons, SQL, scores.",
        ),
        "sql": ("cli.inspecting", "Run a read-only SQL query on the corpus; without a query, open a shell."),
    },
    "Data": {
        "datasets": ("cli.inspecting", "Show the registry of datasets."),
        "schema": (
            "cli.inspecting",
            "List tables and views; with names, describe their columns, with units and values of your corpus.",
        ),
        "quarantine": ("cli.inspecting", "List episodes and datasets that cannot be used, with the reason."),
        "samples": ("cli.sampling", "Draw samples: questions with pictures and answers."),
        "shards": ("cli.sampling", "Check WebDataset shards."),
        "release": ("cli.releasing", "Freeze, compare and publish the corpus."),
        "export": ("cli.exporting", "Export the corpus in formats that other tools open."),
        "takedown": (
            "cli.releasing",
            "Take data out of use: releases leave it out at once, the next build drops it, gc deletes its files.",
        ),
        "digest": (
            "cli.inspecting",
            "Print one hash per content table; equal inputs, configuration and seed give equal hashes.",
        ),
    },
    "Labels": {
        "annotators": ("cli.evaluating", "Score annotators."),
        "corrections": (
            "cli.correcting",
            "List, export and import corrections of labels by people.",
        ),
        "references": (
            "cli.references",
            "List and choose references: runs that others of their task are labelled like.",
        ),
        "outcomes": ("cli.outcomes", "List and import outcomes: which runs succeeded."),
        "demonstrations": (
            "cli.demonstrations",
            "List the runs that differ most from others of their task, and how they differ.",
        ),
        "like": (
            "cli.likeness",
            "List the runs that are most similar to one run, or with --frame the frames most similar to one frame.",
        ),
        "import": (
            "cli.exporting",
            "Import annotations from other tools as a label run of their own; active labels stay as they are.",
        ),
        "dry-run": (
            "cli.building",
            "Estimate what a vision-language model will cost (calls, tokens, GPU-hours, money), and an encoder's time.",
        ),
        "vlm": ("cli.serving", "Serve the vision-language model that annotates, and manage its cached replies."),
    },
    "Models": {
        "train": ("cli.training", "Train a progress reward model on a release's train split."),
        "adapt": (
            "cli.training",
            "Adapt a model to one episode: from its active label to a LoRA adapter, or to another laptop model.",
        ),
        "cot": (
            "cli.training",
            "Make reasoning data for supervised training: a strong model answers, and right answers are kept.",
        ),
        "model": ("cli.training", "List, check, merge, convert and publish checkpoints."),
        "eval": ("cli.evaluating", "Score models, prediction files, and two models against each other."),
        "reward": (
            "cli.rewarding",
            "Score a video or an episode: progress, and success if the model predicts it, for each sampled frame.",
        ),
        "serve": (
            "cli.serving",
            "Serve rewards over HTTP, for live sessions in reinforcement learning and for whole runs; see /docs.",
        ),
    },
    "Operate": {
        "workspace": ("cli.workspaces", "Create a workspace for several machines."),
        "doctor": (
            "cli.recovering",
            "Check whether a workspace is complete, and say what to do.",
        ),
        "gc": ("cli.releasing", "Delete files that neither the corpus nor a release uses, and merge small files."),
        "ui": (
            "cli.inspecting",
            "Open the Dagster UI on a workspace: materialise chunks, backfill, see checks and lineage.",
        ),
    },
}

# Commands that read and write the lake and nothing else
WITHOUT_PANDAS = {
    "build", "dry-run", "doctor", "takedown", "gc", "inspect", "status", "quarantine", "digest", "schema", "sql",
    "demonstrations", "corrections", "references", "outcomes",
}  # fmt: skip
MODULES = {name: module for commands in GROUPS.values() for name, (module, _) in commands.items()}
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show where an error came from.")]
RecordsOption = Annotated[bool, typer.Option("--records", "-x", help="Each row as a record, a column a line.")]


def make_app(asked: str | None = None) -> typer.Typer:
    """The application. Only the module of the command `asked` is imported (None: every module); others are listed."""
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        epilog=_examples(""),
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(proccorpus)
    for panel, commands in GROUPS.items():
        for name, (module, text) in commands.items():
            if asked in (None, name):
                of_module = import_module(module).app
                infos: list[Any] = [*of_module.registered_commands, *of_module.registered_groups]
                info = _complete(next(info for info in infos if _name(info) == name), name)
                info.rich_help_panel = panel
                (app.registered_groups if hasattr(info, "typer_instance") else app.registered_commands).append(info)
            else:
                app.command(name, help=text, rich_help_panel=panel)(lambda: None)
    return app


def _name(info: Any) -> str:
    return info.name or typer.main.get_command_name(info.callback.__name__)


def _complete(info: Any, words: str) -> Any:
    """A copy of a command or group, with what all commands have: --verbose, -x for tables, completion, examples."""
    info = copy.copy(info)
    info.epilog = _examples(words)
    if not hasattr(info, "typer_instance"):
        info.callback = _with_common_options(info.callback)
        return info
    inner = info.typer_instance = copy.copy(info.typer_instance)
    inner.registered_commands = [_complete(c, f"{words} {_name(c)}") for c in inner.registered_commands]
    # A group that does nothing by itself has no options
    if inner.registered_callback and inner.info.invoke_without_command:
        inner.registered_callback = copy.copy(inner.registered_callback)
        inner.registered_callback.callback = _with_common_options(inner.registered_callback.callback)
    return info


def _with_common_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with --verbose, with -x where it has a --format, and with completion of names."""
    signature = inspect.signature(command)
    more = [inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=VerboseOption)]
    if "table" in str(getattr(signature.parameters.get("format"), "annotation", "")):
        more.insert(0, more[0].replace(name="records", annotation=RecordsOption))
    parameters = [complete_by_name(parameter) for parameter in signature.parameters.values()]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        # A group's own option counts for the command inside it
        if values.pop("verbose"):
            VERBOSE.set(True)
        if values.pop("records", False):
            AS_RECORDS.set(True)
        command(**values)

    all_of_them = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*parameters, *more)]
    run.__signature__ = signature.replace(parameters=all_of_them)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in all_of_them} | {"return": None}
    return run


def _examples(words: str) -> str | None:
    # Typer keeps the lines of an epilog apart where an empty one stands between them
    return "\n\n".join(("Examples:", *(f"  {line}" for line in EXAMPLES[words]))) if words in EXAMPLES else None


def _say_version(asked: bool) -> None:
    if asked:
        # A checkout says it itself: what was installed from it may be from before its last change
        project = ROOT / "pyproject.toml"
        number = tomllib.loads(project.read_text())["project"]["version"] if project.exists() else version("proccorpus")
        print(f"proccorpus {number}")
        raise typer.Exit


def proccorpus(
    version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Turn robot demonstrations into process supervision: segments, progress labels, samples and shards."""


def main_of_process() -> None:
    """`main` in a process of its own, which does without what its command does not need."""
    # Imports make hundreds of thousands of objects that stay: looking through them takes 5 % of a command's time
    gc.set_threshold(100_000)
    tell_libraries()
    if WITHOUT_PANDAS.intersection(sys.argv[1:2]):
        leave_out_pandas()
    # It would look through all that is installed for plug-ins of pydantic, of which we use none
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    main()


def _asked(words: Sequence[str]) -> str:
    """The command of a command line, or of the one that a shell wants completed; "" for none."""
    typed = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS")
    words = typed.split()[1:] if typed and "_PROCCORPUS_COMPLETE" in os.environ else words
    return next((word for word in words if word in MODULES), "")


def main() -> None:
    """Run the command line. Known errors become one line and an exit code; an unknown one shows its traceback."""
    guard_terminal()
    VERBOSE.set(False)
    AS_RECORDS.set(False)
    try:
        # Typer's own handling is off, so that errors of all commands come out in one form
        code = typer.main.get_command(make_app(_asked(sys.argv[1:]))).main(standalone_mode=False)
        # Flushed here, where a reader that went away is still handled below
        sys.stdout.flush()
        sys.exit(_interrupted() if code == INTERRUPTED else code or DONE)
    except typer.TyperException as e:
        error = painted("error:", "red", sys.stderr)
        print(e.message if _is_help(e) else f"{error} {_wrong_use(e)}", file=sys.stderr)
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
        sys.exit(_failed(e, VERBOSE.get()))


def _is_help(e: typer.TyperException) -> bool:
    """Without arguments the message is the help text."""
    return e.message.startswith("Usage")


def _wrong_use(e: typer.TyperException) -> str:
    """What was wrong with how a command was called, what may have been meant, and which help says more."""
    text = " ".join(e.format_message().split())
    if asked := re.search(r"'--format': .*'(\w+)' is not one of", text):
        text += _of_data(asked[1])
    if isinstance(wrong := getattr(e, "option_name", None), str) and getattr(e, "possibilities", None):
        near = near_names(wrong, e.possibilities)[0]  # type: ignore[attr-defined]
        text = f"No such option: {wrong}. Did you mean {near}?"
    text = text.replace("Value error, ", "")
    context = getattr(e, "ctx", None)
    whose = f"{context.command_path} --help" if context else "--help"
    return f"{text.removesuffix('.')}{'' if text.endswith('?') else ';'} {whose} says more"


def _of_data(name: str) -> str:
    """What to say to somebody who gave a format of data as the one to print in."""
    from ingest.formats import FORMAT_NAMES

    return f"; --format says how to print, --as {name} what the data are" if name in FORMAT_NAMES else ""


def _failed(e: Exception, verbose: bool) -> int:
    """Print what went wrong, in one line; returns the exit code. An unknown error shows its traceback, too."""
    from warehouse.lake import was_interrupted
    from warehouse.lake.place import is_passing

    if was_interrupted(e):
        return _interrupted()

    # A full disk and a server that went away come as errors of whichever library met them
    full_disk = disk_full(e, Path.cwd())
    server_is_gone = not isinstance(e, UserError) and is_passing(e)
    # So do places that may only be read, and names that are too long
    refused = None if isinstance(e, UserError) else refused_by_system(e)
    is_known = full_disk is not None or refused is not None or isinstance(e, UserError) or server_is_gone
    if verbose or not is_known:
        traceback.print_exc()

    message = full_disk or refused or " ".join(str(e).split()) or type(e).__name__
    advice = ""
    if full_disk is None and server_is_gone:
        advice = "; a server went away: what was finished is kept, run again when it is back"
    print(f"{painted('error:', 'red', sys.stderr)} {message}{advice}", file=sys.stderr)
    return e.exit_code if full_disk is None and isinstance(e, UserError) else FAILED


def _interrupted() -> int:
    print("interrupted: what was finished is kept, run again to go on", file=sys.stderr)
    return INTERRUPTED

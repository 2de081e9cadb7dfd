"""The command line put together: the table of its commands, and every known error as one line and an exit code."""

import os
import re
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from cli.examples import EXAMPLES
from cli.lazy import Invocation, LazyGroup
from cli.options import DONE, FAILED, INTERRUPTED, USAGE
from cli.terminal import guard_terminal, leave_streams, painted
from core.errors import UserError
from core.files import disk_full, refused_by_system
from core.imports import leave_out_numpy, leave_out_pandas
from core.names import near_names
from core.paths import ROOT

# Every command under the heading that it has in --help: the module that has it, and the first sentence of its help
GROUPS = {
    "Start": {
        "demo": ("cli.building", "Build the shipped sample: the whole graph on 84 simulated runs."),
        "inspect": ("cli.inspecting", "What a dataset is and what is wrong with it, with the remedy."),
        "build": (
            "cli.building",
            "Ingest, measure, segment, label, sample and shard; only what is missing or stale is done.",
        ),
        "status": (
            "cli.inspecting",
            "Per dataset: episodes, usable and quarantined ones, frames, labels, samples and shards.",
        ),
        "explore": (
            "cli.exploring",
            "Look at the corpus in a browser, and correct labels: episodes, comparisons, SQL, scores.",
        ),
        "sql": ("cli.inspecting", "Ask the corpus a question in SQL, read-only; a shell when no question is given."),
    },
    "Data": {
        "datasets": ("cli.inspecting", "The registry of datasets."),
        "schema": (
            "cli.inspecting",
            "What tables and views there are; with names, their columns, units and meanings, and values of your "
            "corpus.",
        ),
        "quarantine": ("cli.inspecting", "Episodes and datasets that cannot be used, with the reason."),
        "samples": ("cli.sampling", "Question-answer samples."),
        "shards": ("cli.sampling", "WebDataset shards."),
        "release": ("cli.releasing", "Frozen corpora."),
        "export": ("cli.exporting", "The corpus in formats that other tools open."),
        "takedown": (
            "cli.releasing",
            "Mark data as not to be used: releases leave it out at once, the next build drops it, gc deletes its "
            "bytes.",
        ),
        "digest": (
            "cli.inspecting",
            "One hash per content table: equal for equal inputs, configuration and seed.",
        ),
    },
    "Labels": {
        "annotators": ("cli.evaluating", "Who labels how well."),
        "corrections": (
            "cli.correcting",
            "What people said of labels: corrected segments and rejected labels.",
        ),
        "references": ("cli.references", "Runs that show the others of their task what is done when."),
        "outcomes": ("cli.outcomes", "Whether runs succeeded: what sources say of it, and people."),
        "demonstrations": (
            "cli.demonstrations",
            "Runs demonstrated unlike the others of their task, the worst first, and what is odd about them.",
        ),
        "like": (
            "cli.likeness",
            "Runs like one run, or with --frame frames like one frame, by what an encoder saw; the most similar first.",
        ),
        "import": (
            "cli.exporting",
            "Annotations made elsewhere become a label run of their own; which label counts stays as it is.",
        ),
        "dry-run": (
            "cli.building",
            "What a vision-language model will cost: calls, tokens, GPU-hours, money; what an encoder: time.",
        ),
        "vlm": ("cli.serving", "The vision-language model that annotates."),
    },
    "Models": {
        "train": ("cli.training", "Train a progress reward model on a release's train split."),
        "adapt": (
            "cli.training",
            "Adapt a model to one episode: from its active label to a LoRA adapter, or to another laptop model.",
        ),
        "cot": (
            "cli.training",
            "Reasoning for supervised training: a strong model answers, what is right is kept as conversations to "
            "train on.",
        ),
        "model": ("cli.training", "Checkpoints: those that training made, and those that others publish."),
        "eval": ("cli.evaluating", "Score models, prediction files, and two models against each other."),
        "reward": (
            "cli.rewarding",
            "Score a video, or an episode: progress and, of models that know it, success at each sampled frame.",
        ),
        "serve": (
            "cli.serving",
            "Serve rewards over HTTP: live sessions for reinforcement learning, whole runs; /docs says how.",
        ),
    },
    "Operate": {
        "workspace": ("cli.workspaces", "Where a corpus is kept."),
        "doctor": (
            "cli.recovering",
            "Is a workspace whole, and what is to be done? Exits 1 on errors; what a crash leaves behind is a warning.",
        ),
        "gc": ("cli.releasing", "Delete what neither the corpus as it is nor a release names."),
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
# Commands that show rows of the lake as they are
WITHOUT_NUMPY = {"quarantine", "schema", "sql"}


class CommandLine(LazyGroup):
    groups = GROUPS
    examples = EXAMPLES


app = typer.Typer(
    cls=CommandLine,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _say_version(asked: bool) -> None:
    if asked:
        print(f"proccorpus {_version()}")
        raise typer.Exit


def _version() -> str:
    """Of a checkout as it says itself: what was installed from it may be from before its last change."""
    project = ROOT / "pyproject.toml"
    if project.exists():
        import tomllib

        return tomllib.loads(project.read_text())["project"]["version"]
    from importlib.metadata import version

    return version("proccorpus")


@app.callback()
def proccorpus(
    version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Turn robot demonstrations into process supervision: segments, progress labels, samples and shards."""


def main_of_process() -> None:
    """`main` in a process of its own: what the command does not need is not imported."""
    if WITHOUT_PANDAS.intersection(sys.argv[1:2]):
        leave_out_pandas()
    if WITHOUT_NUMPY.intersection(sys.argv[1:2]):
        leave_out_numpy()
    # It would look through all that is installed for plug-ins of pydantic, of which we use none
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    main()


def main() -> None:
    """Run the command line. Known errors become one line and an exit code; an unknown one shows its traceback."""
    guard_terminal()
    invocation = Invocation()
    try:
        # Typer's own handling is off, so that errors of all commands come out in one form
        code = typer.main.get_command(app).main(standalone_mode=False, obj=invocation)
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
        sys.exit(_failed(e, invocation.verbose))


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

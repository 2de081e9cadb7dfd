"""The command line put together: the table of its commands, and every known error as one line and an exit code."""

import os
import re
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import typer

from cli.lazy import Invocation, LazyGroup
from cli.options import DONE, FAILED, INTERRUPTED, USAGE
from cli.terminal import guard_terminal
from core.errors import UserError
from core.files import disk_full
from core.imports import leave_out_pandas

# Every command by the module that has it, in the order of --help, with the first sentence of its help
TOPICS = {
    "cli.building": {
        "demo": "Build the shipped sample: the whole graph on 84 simulated runs.",
        "build": "Ingest, measure, segment, label, sample and shard; only what is missing or stale is done.",
        "dry-run": "What a vision-language model will cost: calls, tokens, GPU-hours, money; what an encoder: time.",
    },
    "cli.workspaces": {
        "workspace": "Where a corpus is kept.",
    },
    "cli.recovering": {
        "doctor": (
            "Is a workspace whole, and what is to be done? Exits 1 on errors; what a crash leaves behind is a warning."
        ),
    },
    "cli.releasing": {
        "takedown": (
            "Mark data as not to be used: releases leave it out at once, the next build drops it, gc deletes its bytes."
        ),
        "gc": "Delete what neither the corpus as it is nor a release names.",
        "release": "Frozen corpora.",
    },
    "cli.exporting": {
        "import": "Annotations made elsewhere become a label run of their own; which label counts stays as it is.",
        "export": "The corpus in formats that other tools open.",
    },
    "cli.training": {
        "train": "Train a progress reward model on a release's train split.",
        "adapt": "Adapt a model to one episode: from its active label to a LoRA adapter, or to another laptop model.",
        "cot": (
            "Reasoning for supervised training: a strong model answers, what is right is kept as conversations "
            "to train on."
        ),
        "model": "Checkpoints: those that training made, and those that others publish.",
    },
    "cli.evaluating": {
        "eval": "Score models, prediction files, and two models against each other.",
        "annotators": "Who labels how well.",
    },
    "cli.rewarding": {
        "reward": "Score a video, or an episode: progress and, of models that know it, success at each sampled frame.",
    },
    "cli.sampling": {
        "samples": "Question-answer samples.",
        "shards": "WebDataset shards.",
    },
    "cli.serving": {
        "serve": "Serve rewards over HTTP: live sessions for reinforcement learning, whole runs; /docs says how.",
        "vlm": "The vision-language model that annotates.",
    },
    "cli.inspecting": {
        "inspect": "What a dataset is and what is wrong with it, with the remedy.",
        "status": "Per dataset: episodes, usable and quarantined ones, frames, labels, samples and shards.",
        "quarantine": "Episodes and datasets that cannot be used, with the reason.",
        "digest": "One hash per content table: equal for equal inputs, configuration and seed.",
        "schema": (
            "What tables and views there are; with names, their columns, units and meanings, and values of your corpus."
        ),
        "sql": "Ask the corpus a question in SQL, read-only; a shell when no question is given.",
        "ui": "Open the Dagster UI on a workspace: materialise chunks, backfill, see checks and lineage.",
        "datasets": "The registry of datasets.",
    },
    "cli.demonstrations": {
        "demonstrations": (
            "Runs demonstrated unlike the others of their task, the worst first, and what is odd about them."
        ),
    },
    "cli.exploring": {
        "explore": "Look at the corpus in a browser, and correct labels: episodes, comparisons, SQL, scores.",
    },
    "cli.likeness": {
        "like": (
            "Runs like one run, or with --frame frames like one frame, by what an encoder saw; the most similar first."
        ),
    },
    "cli.correcting": {
        "corrections": "What people said of labels: corrected segments and rejected labels.",
    },
    "cli.references": {
        "references": "Runs that show the others of their task what is done when.",
    },
    "cli.outcomes": {
        "outcomes": "Whether runs succeeded: what sources say of it, and people.",
    },
}

# Commands that read and write the lake and nothing else
WITHOUT_PANDAS = {
    "build", "dry-run", "doctor", "takedown", "gc", "inspect", "status", "quarantine", "digest", "schema", "sql",
    "demonstrations", "corrections", "references", "outcomes",
}  # fmt: skip


class CommandLine(LazyGroup):
    topics = TOPICS


app = typer.Typer(
    cls=CommandLine,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def proccorpus() -> None:
    """Turn robot demonstrations into process supervision: segments, progress labels, samples and shards."""


def main_of_process() -> None:
    """`main` in a process of its own: what the command does not need is not imported."""
    if WITHOUT_PANDAS.intersection(sys.argv[1:2]):
        leave_out_pandas()
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
        text = e.format_message() if isinstance(e, typer.BadParameter) else str(e)
        if asked := re.search(r"'--format': .*'(\w+)' is not one of", text):
            text += _of_data(asked[1])
        # Without arguments the message is the help text
        print(text if text.startswith("Usage") else f"error: {' '.join(text.split())}; try --help", file=sys.stderr)
        sys.exit(USAGE)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(_interrupted())
    except BrokenPipeError:
        # Python flushes once more at its end: with nothing behind the descriptor that fails no more
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(DONE)
    except Exception as e:
        sys.exit(_failed(e, invocation.verbose))


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
    is_known = full_disk is not None or isinstance(e, UserError) or server_is_gone
    if verbose or not is_known:
        traceback.print_exc()

    message = full_disk or " ".join(str(e).split()) or type(e).__name__
    advice = ""
    if full_disk is None and server_is_gone:
        advice = "; a server went away: what was finished is kept, run again when it is back"
    print(f"error: {message}{advice}", file=sys.stderr)
    return e.exit_code if full_disk is None and isinstance(e, UserError) else FAILED


def _interrupted() -> int:
    print("interrupted: what was finished is kept, run again to go on", file=sys.stderr)
    return INTERRUPTED

"""The command line as a process: its start and its end, and every known error as one line and an exit code."""

import gc
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from cli.commands import COMMANDS, make_app, proccorpus
from cli.former import present
from cli.options import (
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
from core.cores import HiddenModules, tell_libraries
from core.errors import UserError, without_secrets
from core.files import disk_full, refused_by_system
from core.names import near_names
from core.values import imported
from ingest.formats import FORMAT_NAMES

# Commands that begin anew without what they stay in too long; the rest of their work is kept
BEGUN_ANEW = {"build", "demo", "inspect"}
ENDS_WITHIN_S = 8.0
_asked_to_end = threading.Event()  # by SIGTERM


def main_of_process() -> None:
    """`main` in a process of its own."""
    if BEGUN_ANEW.intersection(sys.argv[1:2]):
        imported("core.wall:begin_anew")()
    signal.signal(signal.SIGTERM, _end)
    tell_libraries()
    sys.meta_path.insert(0, HiddenModules())
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
    names = {name for _, name, *_ in COMMANDS}
    return next((word for word in words if word in names), "")


def main(begin: Callable[[], None] = lambda: None) -> None:
    """Run the command line; `begin` is called once its command is imported. Known errors become one
    line and an exit code; an unknown one shows its traceback."""
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
    """What was wrong with how a command was called, what may have been meant, and which help says
    more."""
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
    """Print what went wrong, in one line; returns the exit code. An unknown error shows its
    traceback, too."""
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

"""The command line put together: its topics, and every known error as one line and an exit code."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import typer

from cli import (
    building,
    correcting,
    evaluating,
    exploring,
    exporting,
    inspecting,
    recovering,
    releasing,
    rewarding,
    sampling,
    serving,
    training,
    workspaces,
)
from cli.options import DONE, FAILED, INTERRUPTED, USAGE
from core.errors import UserError

app = typer.Typer(
    help="Turn robot demonstrations into process supervision: segments, progress labels, samples and shards.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for topic in (
    building,
    workspaces,
    recovering,
    releasing,
    exporting,
    training,
    evaluating,
    rewarding,
    sampling,
    serving,
    inspecting,
    exploring,
    correcting,
):
    app.add_typer(topic.app)


def main() -> None:
    """Run the command line. Known errors become one line and an exit code; an unknown one shows its traceback."""
    verbose = "--verbose" in sys.argv
    try:
        code = typer.main.get_command(app).main(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(_interrupted() if code == INTERRUPTED else code or DONE)
    except typer.TyperException as e:
        text = e.format_message() if isinstance(e, typer.BadParameter) else str(e)
        # Without arguments the message is the help text
        print(text if text.startswith("Usage") else f"error: {' '.join(text.split())}; try --help", file=sys.stderr)
        sys.exit(USAGE)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(_interrupted())
    except BrokenPipeError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(DONE)
    except Exception as e:
        sys.exit(_failed(e, verbose))


def _failed(e: Exception, verbose: bool) -> int:
    """Tell a person what went wrong, in one line; returns the exit code."""
    from core.files import disk_full
    from warehouse.lake import was_interrupted
    from warehouse.lake.place import is_passing

    if was_interrupted(e):
        return _interrupted()

    # What kind of failure is it? A full disk and a server that went away come as errors of whichever library met them
    full_disk = disk_full(e, Path.cwd())
    is_known, code, advice = True, FAILED, ""
    if full_disk is None and isinstance(e, UserError):
        code = e.exit_code
    elif full_disk is None and is_passing(e):
        advice = "; a server went away: what was finished is kept, run again when it is back"
    elif full_disk is None:
        is_known = False

    if verbose or not is_known:
        import traceback

        traceback.print_exc()
    message = full_disk or " ".join(str(e).split()) or type(e).__name__
    print(f"error: {message}{advice}", file=sys.stderr)
    return code


def _interrupted() -> int:
    print("interrupted: what was finished is kept, run again to go on", file=sys.stderr)
    return INTERRUPTED

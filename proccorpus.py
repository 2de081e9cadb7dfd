"""The command line: its commands are in assets/commands, by topic; here, errors become one line and an exit code."""

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
    recovering,
    releasing,
    rewarding,
    sampling,
    serving,
    training,
)
from cli import inspecting as looking
from cli import workspaces as keeping
from cli.options import DONE, FAILED, INTERRUPTED, USAGE, UsageError

app = typer.Typer(
    help="Turn robot demonstrations into process supervision: segments, progress labels, samples and shards.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for topic in (
    building,
    keeping,
    recovering,
    releasing,
    exporting,
    training,
    evaluating,
    rewarding,
    sampling,
    serving,
    looking,
    exploring,
    correcting,
):
    app.add_typer(topic.app)


def main() -> None:
    """Entry point: runs the command line and turns every known error into one line and an exit code."""
    verbose = "--verbose" in sys.argv
    try:
        code = typer.main.get_command(app).main(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(_interrupted() if code == INTERRUPTED else code or DONE)
    except typer.TyperException as e:
        text = e.format_message() if isinstance(e, typer.BadParameter) else str(e)
        # without arguments the message is the help text
        print(text if text.startswith("Usage") else f"error: {' '.join(text.split())}; try --help", file=sys.stderr)
        sys.exit(USAGE)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(_interrupted())
    except BrokenPipeError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(DONE)
    except Exception as e:
        from warehouse.lake import was_interrupted

        if was_interrupted(e):
            sys.exit(_interrupted())
        from core.files import disk_full
        from warehouse.lake.place import is_passing

        full = disk_full(e, Path.cwd())
        code, more = FAILED if full else _known_error(e), ""
        if code is None and is_passing(e):
            code, more = FAILED, "; a server went away: what was finished is kept, run again when it is back"
        if verbose or code is None:
            import traceback

            traceback.print_exc()
        print(f"error: {full or ' '.join(str(e).split()) or type(e).__name__}{more}", file=sys.stderr)
        sys.exit(FAILED if code is None else code)


def _interrupted() -> int:
    print("interrupted: what was finished is kept, run again to go on", file=sys.stderr)
    return INTERRUPTED


def _known_error(e: Exception) -> int | None:
    """The exit code of an error that is the user's to mend; None for a fault of ours."""
    from core.files import DiskFullError
    from ingest.registry import RegistryError
    from ingest.sources.files import DownloadError, SourceError
    from pipeline.config import ConfigError
    from training.recipe import RecipeError
    from warehouse.exports.common import ExportError
    from warehouse.lake import LakeError
    from warehouse.lake.schema import SchemaError
    from warehouse.lake.sql import SqlError
    from warehouse.releases.contents import ReleaseError
    from warehouse.releases.takedown import TakedownError
    from warehouse.releases.targets import SendError

    if isinstance(e, DownloadError | SendError | DiskFullError):
        return FAILED
    if isinstance(e, UsageError | ConfigError | RegistryError | SourceError | LakeError | SqlError | RecipeError):
        return USAGE
    if isinstance(e, ReleaseError | TakedownError | ExportError | SchemaError):
        return USAGE
    if type(e).__name__ in (
        "ImportedError",
        "BenchmarkError",
        "RunnerError",
        "PageError",
        "CorrectionError",
        "ConflictError",
        "AccessError",
        "RewardError",
    ):  # their modules are heavy: by name
        return USAGE
    names = {
        "TrainingError",
        "ModelError",
        "ShardError",
        "TruthError",
        "ServerError",
        "ServeError",
        "UnansweredError",
        "VlmError",
        "CotError",
        "RowError",
    }  # their modules are heavy: by name
    return FAILED if type(e).__name__ in names else None


if __name__ == "__main__":
    main()

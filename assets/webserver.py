"""Dagster's webserver behind a guard: `python -m assets.webserver`, with the options of `dagster-webserver`.

`python -m assets.webserver dev` starts the daemon and a code location beside it, as `dagster dev` does.
"""

import os
import sys
import warnings
from typing import Any

import dagster._cli.dev as dev
import dagster_webserver.app
import dagster_webserver.cli
from dagster_webserver.webserver import DagsterWebserver
from starlette.middleware import Middleware
from uvicorn.config import HTTP_PROTOCOLS

from assets.lib.ui_guard import UiAccess, UiGuard, ui_access
from core.connections import ConnectionLimits, guarded_protocol
from core.errors import UserError

OWN, DAGSTERS = "assets.webserver", "dagster_webserver"  # modules that `dagster dev` starts as its webserver

SETTINGS = "DAGSTER_WEBSERVER"  # what variables with its options begin with


def guarded(access: UiAccess) -> type[DagsterWebserver]:
    """Dagster's webserver, whose every request passes the guard first."""

    class Guarded(DagsterWebserver):
        def build_middleware(self) -> list[Middleware]:
            return [Middleware(UiGuard, access=access), *super().build_middleware()]

    return Guarded


def serve(arguments: list[str]) -> None:
    """Dagster's webserver with its own options. Raises UiAccessError for an address that a token must guard."""
    command = dagster_webserver.cli.cli
    with command.make_context("webserver", [*arguments], auto_envvar_prefix=SETTINGS) as context:
        host = context.params["host"]
    access = ui_access(host, os.environ)
    # Where Dagster puts its server together; it has no setting for layers of one's own
    dagster_webserver.app.DagsterWebserver = guarded(access)  # pyright: ignore[reportPrivateImportUsage]
    # Nor for the class of its connections, of which half requests would take all
    HTTP_PROTOCOLS["auto"] = guarded_protocol(ConnectionLimits())  # pyright: ignore[reportArgumentType]
    command(arguments, prog_name="webserver", auto_envvar_prefix=SETTINGS)


def develop(arguments: list[str]) -> None:
    """`dagster dev`, whose webserver is this one."""
    start = dev.open_ipc_subprocess  # pyright: ignore[reportPrivateImportUsage]

    def ours(parts: list[str], **how: Any) -> Any:
        return start([OWN if part == DAGSTERS else part for part in parts], **how)

    dev.open_ipc_subprocess = ours  # pyright: ignore[reportPrivateImportUsage]
    # Its better, `dg dev`, has no place for a webserver of one's own
    warnings.filterwarnings("ignore", message=".*dev_command.* is superseded")
    dev.dev_command(arguments, prog_name="dev")


def main(arguments: list[str]) -> None:
    try:
        if arguments[:1] == ["dev"]:
            develop(arguments[1:])
        else:
            serve(arguments)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The lake that a command works on. Imports what begins threads, so cli/sql.py does without it."""

from typing import Annotated

from cli.options import Opened
from core.paths import Workspace
from warehouse.lake import Lake
from warehouse.lake.lake import lake_to_read


def lake_at(space: Workspace) -> Lake:
    """The lake of an existing workspace, to write to."""
    return Lake(space, read_only=not space.exists())  # which refuses, rather than make a workspace


WriteLake = Annotated[Lake, Opened(lake_at)]
ReadLake = Annotated[Lake, Opened(lake_to_read)]

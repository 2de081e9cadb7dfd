"""The lake that a command works on. Imports what begins threads, so cli/sql.py does without it."""

from cli.options import space_at
from warehouse.lake import Lake
from warehouse.lake import lake as lakes


def lake_at(workspace: str) -> Lake:
    """The lake of an existing workspace, to write to."""
    space = space_at(workspace)
    return Lake(space, read_only=not space.exists())  # which refuses, rather than make a workspace


def lake_to_read(workspace: str) -> Lake:
    """The lake of an existing workspace, to read. Raises LakeError: one of another version, among others."""
    return lakes.lake_to_read(space_at(workspace))

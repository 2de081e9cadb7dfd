"""Which Dagster instance belongs to a workspace."""

import os
from pathlib import Path
from typing import Any

import yaml

from core.errors import UserError
from core.files import room_in
from core.paths import ROOT, Workspace


def dagster_home(workspace: Workspace) -> Path:
    """The DAGSTER_HOME that belongs to a workspace: the project's own for its ./workspace, else one inside it.

    A team's workspace (its lake is elsewhere) belongs to the deployment whose DAGSTER_HOME is set, if one is.
    Raises UserError.
    """
    deployed = os.environ.get("DAGSTER_HOME")
    if deployed and workspace.settings.exists():
        return Path(deployed)
    if workspace.root == ROOT / "workspace":
        return ROOT
    home = workspace.root / "dagster"
    # Dagster makes an address of its storage's path, in which a question mark begins something else
    if "?" in str(home.absolute()):
        raise UserError(
            f"{workspace.root}: Dagster cannot keep its storage below a '?': give it another path"
        )

    def below(settings: Any) -> Any:
        """Settings with the project's folder for Dagster replaced by this one."""
        if isinstance(settings, dict):
            return {name: below(value) for name, value in settings.items()}
        is_path = isinstance(settings, str) and settings.startswith(".dagster/")
        if is_path:
            return str(home / settings.removeprefix(".dagster/"))
        return settings

    settings = below(yaml.safe_load((ROOT / "dagster.yaml").read_text()))
    with room_in(workspace.root):
        home.mkdir(parents=True, exist_ok=True)
        (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    return home

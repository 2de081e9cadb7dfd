"""Which Dagster instance belongs to a workspace, and telling it what was built outside Dagster."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from core.errors import UserError
from core.files import room_in
from core.paths import ROOT, Workspace
from pipeline.outcome import StepOutcome
from warehouse.lake import Lake, open_lake


def dagster_home(workspace: Workspace) -> Path:
    """The DAGSTER_HOME that belongs to a workspace: the project's own for its ./workspace, else one inside it.

    A team's workspace (its lake is elsewhere) belongs to the deployment whose DAGSTER_HOME is set, if one is.
    Raises UserError.
    """
    deployed = _deployment(workspace)
    if deployed:
        return deployed
    if workspace.root == ROOT / "workspace":
        return ROOT
    home = _storage(workspace).parent
    # Dagster makes an address of its storage's path, in which a question mark begins something else
    if "?" in str(home.absolute()):
        raise UserError(
            f"{workspace.root}: Dagster cannot keep its storage below a '?': give it another path"
        )
    home.mkdir(parents=True, exist_ok=True)

    def below(settings: Any) -> Any:
        """Settings with the project's folder for Dagster replaced by this one."""
        if isinstance(settings, dict):
            return {name: below(value) for name, value in settings.items()}
        is_path = isinstance(settings, str) and settings.startswith(".dagster/")
        if is_path:
            return str(home / settings.removeprefix(".dagster/"))
        return settings

    settings = below(yaml.safe_load((ROOT / "dagster.yaml").read_text()))
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    return home


def _deployment(workspace: Workspace) -> Path | None:
    """The DAGSTER_HOME that a team's workspace belongs to."""
    deployed = os.environ.get("DAGSTER_HOME")
    if deployed and workspace.settings.exists():
        return Path(deployed)
    return None


def _storage(workspace: Workspace) -> Path:
    """Where a workspace of no deployment has Dagster's events, as dagster.yaml says."""
    if workspace.root == ROOT / "workspace":
        return ROOT / ".dagster" / "storage"
    return workspace.root / "dagster" / "storage"


def is_followed(workspace: Workspace) -> bool:
    """Does Dagster have a storage for the workspace, or a deployment serve it? Else nobody ever opened its UI."""
    return _deployment(workspace) is not None or _storage(workspace).is_dir()


@contextmanager
def telling(workspace: Workspace) -> Iterator[tuple[ModuleType, Any]]:
    """assets.lib.tell, and the Dagster instance of a workspace, which gets one where it has none.

    Dagster is imported here alone: the command line has to start quickly.
    """
    from assets.lib import tell

    with room_in(workspace.root):
        home = dagster_home(workspace)
    with tell.instance_at(home, workspace) as instance:
        yield tell, instance


def report_closing(workspace: Workspace, outcomes: Sequence[StepOutcome]) -> None:
    """Report release, model, evaluation and leaderboard, after the stages that they were made of.

    Only where Dagster is used: else its UI is told by `mirror` when it is first opened.
    """
    if not is_followed(workspace):
        return
    with telling(workspace) as (tell, instance):
        tell.reconcile(instance, open_lake(workspace))
        tell.tell_outcomes(instance, outcomes)


def mirror(workspace: Workspace) -> None:
    """Tell Dagster of all that a workspace holds and it does not know: it may be new here, moved or restored.

    In the order in which it was made: what was made before the newest stages is stale.
    """
    if not workspace.exists():
        return
    lake = open_lake(workspace)
    ((last,),) = lake.rows("SELECT max(finished_at) FROM stage_runs")
    with telling(workspace) as (tell, instance):
        if last:
            tell.tell_held(instance, lake, made_before=last)
        tell.reconcile(instance, lake)
        tell.tell_held(instance, lake)


def report_build(lake: Lake, datasets: Sequence[str], failed: Mapping[str, Sequence[str]]) -> None:
    """Report the stages of datasets that were built, as far as Dagster does not know them; only where it is used.

    `failed`: why some were not brought up to date, by dataset.
    """
    if not is_followed(lake.workspace):
        return
    with telling(lake.workspace) as (tell, instance):
        tell.reconcile(instance, lake, datasets)
        tell.tell_built(instance, set(datasets), failed)

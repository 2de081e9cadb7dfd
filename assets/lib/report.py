"""Which Dagster instance belongs to a workspace, and telling it what was built outside Dagster.

Dagster is imported inside the functions: the command line imports this module, and has to start quickly.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from core.errors import UserError
from core.files import room_in
from core.paths import ROOT, Workspace
from pipeline.stage import StageReport
from warehouse.lake import open_lake

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from pipeline.outcome import Outcome


class DagsterHomeError(UserError, ValueError):
    """A place where Dagster cannot keep its storage: which, and what to do."""


def dagster_home(workspace: Workspace) -> Path:
    """The DAGSTER_HOME that belongs to a workspace: the project's own for its ./workspace, else one inside it.

    A team's workspace (its lake is elsewhere) belongs to the deployment whose DAGSTER_HOME is set, if one is.
    Raises DagsterHomeError.
    """
    deployed = _deployment(workspace)
    if deployed:
        return deployed
    if workspace.root == ROOT / "workspace":
        return ROOT
    home = _storage(workspace).parent
    # Dagster makes an address of its storage's path, in which a question mark begins something else
    if "?" in str(home.absolute()):
        raise DagsterHomeError(f"{workspace.root}: Dagster cannot keep its storage below a '?': give it another path")
    home.mkdir(parents=True, exist_ok=True)
    import yaml  # where nobody opened Dagster's UI a build does without

    settings = _below(yaml.safe_load((ROOT / "dagster.yaml").read_text()), home)
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    return home


def _below(settings: Any, home: Path) -> Any:
    """Settings with the project's folder for Dagster replaced by another one."""
    if isinstance(settings, dict):
        return {name: _below(value, home) for name, value in settings.items()}
    if isinstance(settings, str) and settings.startswith(".dagster/"):
        return str(home / settings.removeprefix(".dagster/"))
    return settings


def _deployment(workspace: Workspace) -> Path | None:
    """The DAGSTER_HOME that a team's workspace belongs to."""
    deployed = os.environ.get("DAGSTER_HOME")
    return Path(deployed) if deployed and workspace.settings.exists() else None


def _storage(workspace: Workspace) -> Path:
    """Where a workspace of no deployment has Dagster's events, as dagster.yaml says."""
    if workspace.root == ROOT / "workspace":
        return ROOT / ".dagster" / "storage"
    return workspace.root / "dagster" / "storage"


@contextmanager
def instance_of(workspace: Workspace) -> "Iterator[DagsterInstance]":
    """The Dagster instance of a workspace; the working directory is the project's meanwhile (dagster.yaml's paths)."""
    from dagster import DagsterInstance

    with room_in(workspace.root):
        home = dagster_home(workspace)
    with chdir(ROOT), room_in(home):
        with FileLock(workspace.root / ".dagster.lock"):  # two that come first would both make Dagster's tables
            instance = DagsterInstance.from_config(str(home))
        with instance:
            yield instance


def is_followed(workspace: Workspace) -> bool:
    """Does Dagster have a storage for the workspace, or a deployment serve it? Else nobody ever opened its UI."""
    return _deployment(workspace) is not None or _storage(workspace).is_dir()


def report_closing(workspace: Workspace, outcomes: "Sequence[Outcome]") -> None:
    """Report release, model, evaluation and leaderboard, after the stages that they were made of.

    Only where Dagster is used: else its UI is told by `mirror` when it is first opened.
    """
    if not is_followed(workspace):
        return
    from assets.lib.tell import tell_outcomes, tell_unasked

    report_all(workspace)
    with instance_of(workspace) as instance:
        tell_outcomes(instance, outcomes)
        tell_unasked(instance)


def mirror(workspace: Workspace) -> None:
    """Tell Dagster of all that a workspace holds and it does not know: it may be new here, moved or restored.

    In the order in which it was made: what was made before the newest stages is stale.
    """
    from assets.lib.tell import tell_held, tell_unasked

    if not workspace.exists():
        return
    lake = open_lake(workspace)
    ((last,),) = lake.rows("SELECT max(finished_at) FROM stage_runs")
    with instance_of(workspace) as instance:
        if last:
            tell_held(instance, lake, before=last)
    report_all(workspace)
    with instance_of(workspace) as instance:
        tell_held(instance, lake)
        tell_unasked(instance)


def report_all(workspace: Workspace) -> None:
    """Report whatever stage of any dataset Dagster does not know: nobody may have opened it before."""
    report_build(workspace, open_lake(workspace).column("SELECT dataset FROM build_configs ORDER BY 1"), [])


def report_build(workspace: Workspace, datasets: Sequence[str], done: Sequence[StageReport]) -> None:
    """Report a build's stages, then whatever else Dagster does not know of some datasets."""
    from assets.lib.tell import reconcile, tell_stages

    with instance_of(workspace) as instance:
        if done:
            tell_stages(instance, open_lake(workspace), done)
        reconcile(instance, workspace, datasets)

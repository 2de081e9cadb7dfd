"""Trial workspaces: datasets built by the product's own command."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from core.paths import ROOT, Workspace

SHARED = ROOT / ".." / "shared"  # real datasets and their hand-labelled truth, where they lie beside the checkout


@contextmanager
def trial_workspace(kept: Path | None) -> Iterator[Workspace]:
    """The workspace at `kept`, which stays, or one that goes afterwards."""
    if kept is not None:
        yield Workspace(kept.resolve())
        return
    with TemporaryDirectory(prefix="proccorpus-trial-") as folder:
        yield Workspace(Path(folder))


def build(space: Workspace, source: Path, dataset: str, annotator: str | None = None) -> None:
    """Bring a dataset of a workspace up to date. Raises SystemExit with what the command said where it fails."""
    command = [sys.executable, "-m", "proccorpus", "build", "--source", str(source), "--name", dataset]
    command += ["--workspace", str(space.root)] + (["--annotator", annotator] if annotator else [])
    done = subprocess.run(command, cwd=ROOT, env=own_code_first(), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"building {dataset} failed:\n{done.stdout}{done.stderr}")


@contextmanager
def stated_outcomes(space: Workspace, dataset: str, success: Mapping[int, bool]) -> Iterator[None]:
    """Say how episodes ended; the next build makes labels of it. Taken back at the end."""
    with TemporaryDirectory(prefix="proccorpus-outcomes-") as folder:
        file = Path(folder) / "outcomes.jsonl"
        lines = [json.dumps({"episode_index": e, "success": done}) + "\n" for e, done in success.items()]
        file.write_text("".join(lines))
        said = _outcomes(space, "import", str(file), "--dataset", dataset, "--format", "json")
    try:
        yield
    finally:
        _outcomes(space, "undo", json.loads(said)["import_id"])


def _outcomes(space: Workspace, *options: str) -> str:
    """What a command about outcomes printed. Raises SystemExit where it fails."""
    command = [sys.executable, "-m", "proccorpus", "outcomes", *options, "--workspace", str(space.root)]
    done = subprocess.run(command, cwd=ROOT, env=own_code_first(), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"proccorpus outcomes {' '.join(options)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def own_code_first() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}

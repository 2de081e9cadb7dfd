"""Trial workspaces: datasets built by the product's own command."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq

from core.paths import ROOT, Workspace
from warehouse.lake import Lake

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


# The review queue


def review_scores(lake: Lake, dataset: str) -> dict[int, float]:
    """What the review queue says of episodes, 0..1; those that it does not ask to look at are missing."""
    return dict(lake.rows("SELECT episode_index, score FROM review_queue WHERE dataset = ?", [dataset]))


def among_first(wanted: Sequence[bool], review_scores: Sequence[float], share: float) -> float:
    """Share of the wanted ones that are among the first `share` of all, the highest review scores first.

    Those with equal scores count as if drawn by chance. NaN where none is wanted.

    Example: two of ten are wanted and have the highest scores: among_first(..., 0.1) is 0.5.
    """
    room = share * len(wanted)
    reached = 0.0
    for score in sorted(set(review_scores), reverse=True):
        alike = [is_wanted for is_wanted, own in zip(wanted, review_scores, strict=True) if own == score]
        reached += sum(alike) * min(1.0, room / len(alike))
        room = max(0.0, room - len(alike))
    return reached / sum(wanted) if any(wanted) else float("nan")


# Outcomes left out


def without_outcomes(dataset: Path, out: Path) -> Path:
    """A copy of a LeRobot v3.0 dataset that does not say which runs succeeded, at `out`.

    Every column, feature and statistic with `success` in its name goes; pictures and states stay as they are.
    """
    shutil.copytree(dataset, out)
    for file in sorted(out.rglob("*.parquet")):
        table = pq.read_table(file)
        kept = [name for name in table.column_names if not _says_outcome(name)]
        if len(kept) < table.num_columns:
            pq.write_table(table.select(kept), file)
    for file in (out / "meta").glob("*.json"):
        data = json.loads(file.read_text())
        fields = data["features"] if file.name == "info.json" else data
        for name in [name for name in fields if _says_outcome(name)]:
            del fields[name]
        file.write_text(json.dumps(data))
    return out


def _says_outcome(name: str) -> bool:
    return "success" in name.lower()

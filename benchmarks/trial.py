"""Trial workspaces: datasets built by the product's own command, and their labels read back."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq

from benchmarks.real_truth import EpisodeLabel, EpisodeTruth, read_truth
from core.paths import ROOT, Workspace
from warehouse.lake import Lake
from warehouse.lake.labels import active_labels

NUMBERED = re.compile(r"episode_?0*(\d+)")


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


def own_code_first() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def read_labels(lake: Lake, dataset: str) -> dict[int, EpisodeLabel]:
    """The active label of each episode."""
    chunks = [c for (c,) in lake.rows("SELECT DISTINCT chunk FROM episode_content WHERE dataset = ?", [dataset])]
    stored = {e: label for chunk in sorted(chunks) for e, label in active_labels(lake.con, dataset, chunk).items()}
    progress = lake.rows(
        "SELECT episode_index, list(progress ORDER BY frame_index) FROM active_progress WHERE dataset = ? GROUP BY ALL",
        [dataset],
    )
    curves = {e: np.array(values, np.float64) for e, values in progress}
    said = lake.rows(
        "SELECT episode_index, annotator, confidence FROM episode_labels "
        "JOIN active_runs USING (dataset, episode_index, label_run) JOIN label_runs USING (label_run) "
        "WHERE dataset = ?",
        [dataset],
    )
    return {e: EpisodeLabel(tuple(stored[e].segments), curves[e], annotator, sure) for e, annotator, sure in said}


def corpus_truth(lake: Lake, folder: Path, dataset: str) -> dict[int, EpisodeTruth]:
    """The truth of a dataset by the corpus's index of each episode.

    A source without indices of its own may have its folders counted from another number than they bear: the number
    in an episode's `source_id` says which one it is, where there is one such episode.
    """
    rows = lake.rows("SELECT episode_index, source_id FROM episode_facts WHERE dataset = ?", [dataset])
    numbered = [(int(match[1]), episode) for episode, source_id in rows if (match := NUMBERED.search(source_id))]
    times = Counter(number for number, _ in numbered)
    index_of = {number: episode for number, episode in numbered if times[number] == 1}
    return {index_of.get(number, number): truth for number, truth in read_truth(folder, dataset).items()}


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

"""The way of a user: the dataset is built, labelled and exported, a model is trained and scores it, by the command."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from annotate.motion.annotator import CODE_VERSION as MOTION
from annotate.progress import CODE_VERSION as PROGRESS
from benchmarks.policy.recording import DATASET, Frames
from benchmarks.policy.weights import clock, export_file, write_progress
from benchmarks.trial import build, own_code_first
from core.paths import ROOT, Workspace
from training.runs import CODE_VERSION as TRAINING
from warehouse.exports.folder import MANIFEST
from warehouse.lake import Lake

TRAINED = "trained.json"  # what `proccorpus train` said
# What the guard against leaks says of a held-out run
ALIKE = re.compile(rf"{DATASET} episode (\d+) \((?!train)\w+\) shows the pictures of {DATASET} episode \d+")


def label(space: Workspace, dataset: Path) -> None:
    """Build the dataset with the settings that a build has by itself. Raises SystemExit where it fails."""
    build(space, dataset, DATASET)


def train_laptop(space: Workspace, dataset: Path, folder: Path) -> Path:
    """The checkpoint of a `laptop` trained on the labels; trained once per folder. Raises SystemExit.

    A held-out run that shows the pictures of one in training is taken down, as the refusal to train says: it has no
    label and no reward from then on, and its frames keep weight 1.
    """
    kept = folder / TRAINED
    while not kept.exists():
        done = attempted(space, "train", "--recipe", "laptop", "--release", "local", "--format", "json")
        if not done.returncode:
            kept.write_text(done.stdout)
            break
        alike = ALIKE.search(done.stdout + done.stderr)
        if alike is None:
            sys.exit(f"training failed:\n{done.stdout}{done.stderr}")
        print(f"taken down: {alike[0]}", flush=True)
        command(space, "takedown", DATASET, "--episodes", alike[1], "--reason", alike[0])
        label(space, dataset)  # the guard looks at what was built
    return Path(json.loads(kept.read_text())["checkpoint"])


def export(space: Workspace, out: Path, chunk: int, model: Path | None = None) -> Path:
    """The file of RA-BC of our labels, or of a model's rewards; made once per folder. Raises SystemExit."""
    if (out / MANIFEST).exists():
        return export_file(out)
    asked = ["export", "rabc", "--dataset", DATASET, "--allow-licence", "unknown"]
    asked += ["--chunk-size", str(chunk), "--out", str(out)]
    command(space, *asked, *(["--from-model", str(model)] if model else []))
    return export_file(out)


def known_progress(frames: Frames, folder: Path, chunk: int) -> dict[str, Path]:
    """Files of progress that need no label: the clock and the truth."""
    curves = {
        "clock": [clock(n) for n in frames.lengths],
        "truth": np.split(frames.truth, np.cumsum(frames.lengths)[:-1]),
    }
    return {name: _written(folder / name, curve, chunk) for name, curve in curves.items()}


def labelled_progress(space: Workspace, dataset: Path, frames: Frames, folder: Path, chunk: int) -> dict[str, Path]:
    """Files of progress by our labels, the published formula on their segments, and a model trained on them.

    What is there already is kept. Raises SystemExit.
    """
    model = train_laptop(space, dataset, folder)
    labels = export(space, folder / "labels", chunk)
    rewards = export(space, folder / "laptop", chunk, model)
    rows = Lake(space, read_only=True).rows(
        "SELECT episode_index, list(progress_procvlm ORDER BY frame_index) FROM active_progress WHERE dataset = ? "
        "GROUP BY ALL",
        [DATASET],
    )
    found = {episode: np.array(curve, np.float64) for episode, curve in rows}
    published = [found.get(k, np.full(n, np.nan)) for k, n in enumerate(frames.lengths)]
    return {
        "published": _written(folder / "published", published, chunk),
        "labels": labels,
        "labels_dense": labels,
        "laptop": rewards,
    }


def _written(folder: Path, curves: Sequence[np.ndarray], chunk: int) -> Path:
    write_progress(export_file(folder), curves, chunk)
    return export_file(folder)


def command(space: Workspace, *asked: str) -> str:
    """What a command of ours printed. Raises SystemExit with all that it said where it fails."""
    done = attempted(space, *asked)
    if done.returncode:
        sys.exit(f"proccorpus {' '.join(asked[:2])} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def attempted(space: Workspace, *asked: str) -> subprocess.CompletedProcess[str]:
    whole: Sequence[str] = [sys.executable, "-m", "proccorpus", *asked, "--workspace", str(space.root)]
    return subprocess.run(whole, cwd=ROOT, env=own_code_first(), capture_output=True, text=True)


def code_versions() -> dict[str, str]:
    """Of what the figures hang on."""
    return {"motion": MOTION, "progress": PROGRESS, "training": TRAINING}

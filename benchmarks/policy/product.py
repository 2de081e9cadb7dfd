"""The way of a user: the dataset is built, labelled and exported, a model is trained and scores it, by the command."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from annotate.alignment.engine import HZ
from annotate.config import MOTION_VERSION, PROGRESS_VERSION
from benchmarks.harness import attempted, command
from benchmarks.policy.protocol import FAR, SHOWN
from benchmarks.policy.recording import DATASET, Frames
from benchmarks.policy.weights import write_progress
from core.domain.label import IDLE
from core.errors import UserError
from core.paths import Workspace
from eval.reward.open import open_checkpoint
from eval.reward.scorer import Scorer
from eval.reward.video import SCORE_FPS, score_clip
from pipeline.episode_rewards import episode_clip
from pipeline.reference_runs import reference_scorer
from training.runs import CODE_VERSION as TRAINING
from warehouse.exports.export import MANIFEST
from warehouse.exports.rabc import FILE, between
from warehouse.exports.weights import LEROBOT_FILE
from warehouse.lake import Lake
from warehouse.lake.stored import labels_of

TRAINED = "trained.json"  # what `proccorpus train` said
# What the guard against leaks says of a held-out run
ALIKE = re.compile(
    rf"{DATASET} episode (\d+) \((?!train)\w+\) shows the pictures of {DATASET} episode \d+"
)


def label(space: Workspace, dataset: Path, only: Sequence[int] = ()) -> None:
    """Build the dataset, or some episodes of it, with the settings that a build has by itself. Raises SystemExit where
    it fails."""
    chosen = ["--episodes", ",".join(map(str, only))] if only else []
    command(space, "build", "--source", str(dataset), "--name", DATASET, *chosen)


def train_laptop(space: Workspace, dataset: Path, folder: Path, only: Sequence[int] = ()) -> Path:
    """The checkpoint of a `laptop` trained on the labels; trained once per folder. Raises SystemExit.

    A held-out run that shows the pictures of one in training is taken down, as the refusal to train says: it has no
    label and no reward from then on, and its frames keep weight 1.
    """
    result_file = folder / TRAINED
    while not result_file.exists():
        process = attempted(
            space, "train", "--recipe", "laptop", "--release", "local", "--format", "json"
        )
        if not process.returncode:
            result_file.write_text(process.stdout)
            break
        match = ALIKE.search(process.stdout + process.stderr)
        if match is None:
            sys.exit(f"training failed:\n{process.stdout}{process.stderr}")
        print(f"taken down: {match[0]}", flush=True)
        command(space, "takedown", DATASET, "--episodes", match[1], "--reason", match[0])
        label(space, dataset, only)  # the guard looks at what was built
    return Path(json.loads(result_file.read_text())["checkpoint"])


def export(space: Workspace, out: Path, chunk: int, model: Path | None = None) -> Path:
    """The file of RA-BC of our labels, or of a model's rewards; made once per folder. Raises SystemExit."""
    words = ["export", "rabc", "--dataset", DATASET, "--allow-licence", "unknown"]
    words += [*(f"--set=chunk_size={size}" for size in (chunk, FAR * chunk)), "--out", str(out)]
    if not (out / MANIFEST).exists():
        command(space, *words, *(["--set", f"from_model={model}"] if model else []))
    return out / FILE


def export_weights(space: Workspace, out: Path, chunk: int) -> Path:
    """The file of `export weights` that LeRobot reads, as it is without options; made once per folder. Raises
    SystemExit."""
    if not (out / MANIFEST).exists():
        words = ["export", "weights", "--dataset", DATASET, "--allow-licence", "unknown"]
        command(space, *words, f"--set=chunk_size={chunk}", "--out", str(out))
    return out / LEROBOT_FILE


def known_progress(frames: Frames, folder: Path, chunk: int) -> dict[str, Path]:
    """Files of progress that need no label: the clock and the truth."""
    clock = [np.linspace(0, 1, n, dtype=np.float32) for n in frames.lengths]
    truth = np.split(frames.truth, np.cumsum(frames.lengths)[:-1])
    return {
        k: write_progress(folder / k, curves, chunk)
        for k, curves in (("clock", clock), ("truth", truth))
    }


def labelled_progress(
    space: Workspace, frames: Frames, folder: Path, chunk: int
) -> dict[str, Path]:
    """Files of progress by our labels, and by the published formula on their segments. Raises SystemExit."""
    rows = Lake(space, read_only=True).rows(
        "SELECT episode_index, list(progress_procvlm ORDER BY frame_index) FROM active_progress WHERE dataset = ? "
        "GROUP BY ALL",
        [DATASET],
    )
    progress_by_episode = dict(rows)
    published = [
        progress_by_episode.get(k, np.full(n, np.nan)) for k, n in enumerate(frames.lengths)
    ]
    labels = export(space, folder / "labels", chunk)
    weights = export_weights(space, folder / "weights", chunk)
    published_file = write_progress(folder / "published", published, chunk)
    return {"published": published_file, "labels": labels, "weights": weights}


def segment_kinds(space: Workspace, frames: Frames) -> np.ndarray:
    """Of each frame, str [n], what our labels say of its segment: idle; failed, a step's that did not complete it; else
    done, also where there is no label."""
    kinds = [np.full(n, "done", "<U6") for n in frames.lengths]
    for episode, label in labels_of(Lake(space, read_only=True).con, DATASET).items():
        for s in label.segments:
            if s.kind == IDLE:
                kind = "idle"
            elif s.completed:
                kind = "done"
            else:
                kind = "failed"
            kinds[episode][s.start_frame : s.end_frame] = kind
    return np.concatenate(kinds)


def rewarded_progress(
    space: Workspace, dataset: Path, frames: Frames, folder: Path, chunk: int, model: Path
) -> dict[str, Path]:
    """Files of progress by a `laptop` that was trained on the runs that it scores, by two of which each scores the
    half of the runs that the other one learnt from, and by some shown runs of each task. Raises SystemExit."""
    curves = {"laptop_unseen": _rewards_by_halves(space, dataset, frames, folder)}
    curves["shown"] = _rewards_by_shown(space, frames)
    laptop = export(space, folder / "laptop", chunk, model)
    return {"laptop": laptop} | {
        name: write_progress(folder / name, curve, chunk) for name, curve in curves.items()
    }


def _rewards_by_halves(
    space: Workspace, dataset: Path, frames: Frames, folder: Path
) -> list[np.ndarray]:
    """Runs of even and of odd numbers are the halves, both with all qualities; each is built and labelled by itself."""
    scorers = []
    count = len(frames.lengths)
    for half in (0, 1):
        half_root = space.root.with_name(f"half_{half}")
        half_folder = folder / f"half_{half}"
        only = range(half, count, 2)
        half_folder.mkdir(exist_ok=True)
        if not (half_folder / TRAINED).exists():
            label(Workspace(half_root), dataset, only)
        scorers.append(
            open_checkpoint(train_laptop(Workspace(half_root), dataset, half_folder, only))
        )
    return [
        _rewards(space, scorers[1 - e % 2], e, n, SCORE_FPS) for e, n in enumerate(frames.lengths)
    ]


def _rewards_by_shown(space: Workspace, frames: Frames) -> list[np.ndarray]:
    """The first runs of each task that succeeded are shown, by our labels; one of them is laid beside the others."""
    first = np.unique(frames.episode, return_index=True)[1]
    curves = []
    for task in dict.fromkeys(frames.task.tolist()):
        task_episodes = np.flatnonzero(frames.task[first] == task).tolist()
        shown_episodes = [e for e in task_episodes if frames.success[first[e]]][:SHOWN]
        scorers = {}
        for left_episode in (*shown_episodes, None):
            references = [f"{DATASET}/{e}" for e in shown_episodes if e != left_episode]
            scorers[left_episode] = reference_scorer(space, references)
        curves += [
            _rewards(space, scorers.get(e, scorers[None]), e, frames.lengths[e], HZ)
            for e in task_episodes
        ]
    return curves


def _rewards(
    space: Workspace, scorer: Scorer, episode: int, num_frames: int, fps: float
) -> np.ndarray:
    """Of each frame of a run, as `proccorpus reward` gives them and `export rabc` fills them; NaN where it has none, as
    a run has that was taken down."""
    try:
        clip, task = episode_clip(space, DATASET, episode)
    except UserError:
        return np.full(num_frames, np.nan)
    rows = list(score_clip(scorer, clip, task, score_fps=fps))
    progress_rows = np.array([(row["frame_index"], row["progress"]) for row in rows], np.float64)
    return between(progress_rows[:, 0].astype(int), progress_rows[:, 1], num_frames)


def code_versions() -> dict[str, str]:
    """Of what the figures hang on."""
    return {"motion": MOTION_VERSION, "progress": PROGRESS_VERSION, "training": TRAINING}

"""Reference runs: labelled episodes of a workspace that other runs are laid beside as they go on."""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from annotate.alignment.engine import HZ
from annotate.alignment.live import Guide, ReferenceRun
from annotate.config import EmbeddingsConfig
from annotate.embeddings import missing_download
from annotate.embeddings.encoders import load_encoder
from annotate.embeddings.projection import Encoder
from annotate.samples.procvqa import task_text
from core.errors import UserError
from core.paths import Workspace
from eval.reward.reference_scorer import ReferenceScorer, openings_of
from eval.reward.video import RunClip, frames
from ingest.signals.gripper import GripperSignal
from pipeline.config import built
from pipeline.episode_rewards import episode_clip
from training.laptop.model import embed
from warehouse.lake import Lake
from warehouse.lake.stored import labels_of, stored_signals, usable_episode

MOST = 5  # references of a task
PREFERRED = "camera"  # the name of a video whose camera nobody named


def reference_scorer(
    space: Workspace,
    references: Sequence[str],
    cameras: Sequence[str] = (),
    lag: float = 0.0,
    hold_s: float = 0.5,
) -> ReferenceScorer:
    """What compares with the episodes DATASET/EPISODE, or with the references of a task, that `references` names.

    cameras: those of the runs that are to come, by the names that the shown ones have for them; default: each dataset's
    preferred one. Raises UserError for what is not there or has no label.
    """
    lake = Lake(space, read_only=True)
    reference_keys = list(
        dict.fromkeys(chain.from_iterable(_named(lake, text) for text in references))
    )
    config = built(lake, reference_keys[0][0]).stages.embeddings
    encoder = load_encoder(EmbeddingsConfig(encoder="grey") if missing_download(config) else config)
    # Grippers are compared within a dataset: each has ranges of its own
    is_one = len({dataset for dataset, _ in reference_keys}) == 1
    grippers = tuple(
        g for g in stored_signals(lake.con, reference_keys[0][0]) if g.is_used and is_one
    )
    reference_runs = [
        _reference_run(lake, dataset, episode, cameras, encoder, grippers)
        for dataset, episode in reference_keys
    ]
    names = tuple(cameras) or (PREFERRED,)
    return ReferenceScorer(Guide.of(reference_runs), encoder, names, lag, hold_s, grippers)


def reference_task(space: Workspace, references: Sequence[str]) -> str:
    """The instruction of the first run that `references` names and that has one; empty where none has. Raises
    UserError."""
    lake = Lake(space, read_only=True)
    for dataset, episode in chain.from_iterable(_named(lake, text) for text in references):
        if task := usable_episode(lake.con, dataset, episode).task:
            return task_text(task)
    return ""


def _named(lake: Lake, text: str) -> list[tuple[str, int]]:
    """The episodes that a text names. Raises UserError."""
    dataset, _, episode = text.rpartition("/")
    if dataset and episode.isdigit():
        return [(dataset, int(episode))]
    rows = lake.rows(
        "SELECT dataset, episode_index FROM current_references WHERE same_as = ? ORDER BY ALL LIMIT ?",
        [text, MOST],
    )
    if not rows:
        raise UserError(
            f"--like {text}: no run of that task is a reference; give DATASET/EPISODE, or label one run of it by hand "
            "(proccorpus explore, or proccorpus say reference)"
        )
    return rows


def _reference_run(
    lake: Lake,
    dataset: str,
    episode: int,
    cameras: Sequence[str],
    encoder: Encoder,
    grippers: Sequence[GripperSignal],
) -> ReferenceRun:
    """Raises UserError."""
    facts = usable_episode(lake.con, dataset, episode)
    label = labels_of(lake.con, dataset, episodes=[episode], whole=True).get(episode)
    if label is None or len(label.progress) != facts.num_frames:
        raise UserError(
            f"--like {dataset}/{episode}: it has no label of every frame; build labels first"
        )
    names = [
        facts.cameras[0] if camera == PREFERRED else camera for camera in cameras or (PREFERRED,)
    ]
    clip, _ = episode_clip(lake.workspace, dataset, episode, names)
    frame_indices, pictures = pictures_of(clip, encoder)
    steps = np.full(len(label.progress), -1)
    plan = dict[int, str]()
    for s in label.segments:
        if s.step is not None:
            steps[s.start_frame : s.end_frame] = s.step
            plan.setdefault(s.step, s.name)
    return ReferenceRun(
        f"{dataset}/{episode}",
        pictures,
        label.progress.astype(np.float64)[frame_indices],
        steps[frame_indices],
        tuple(plan.get(k, f"step {k + 1}") for k in range(label.num_planned)),
        facts.duration_s,
        openings_at(clip, frame_indices, grippers),
    )


def openings_at(
    clip: RunClip, frame_indices: np.ndarray, grippers: Sequence[GripperSignal]
) -> np.ndarray | None:
    """How open the grippers of an episode are at some frames, as `ReferenceRun.openings`; None where nobody knows."""
    opened = [openings_of(grippers, clip.robot(frame)) for frame in frame_indices.tolist()]
    if any(opening is None for opening in opened):
        return None
    return np.array(opened)


def pictures_of(clip: RunClip, encoder: Encoder) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """The frames that are looked at, HZ a second, and what the encoder makes of them, by camera."""
    stride = max(1, round(clip.fps / HZ))

    def chosen() -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for number, camera_frames in enumerate(frames(clip)):
            if number % stride == 0:
                yield (
                    number,
                    {camera: picture.rgb() for camera, (_, picture) in camera_frames.items()},
                )

    numbers, pictures = zip(*chosen(), strict=True)
    return np.array(numbers), tuple(embed(encoder, [p[c] for p in pictures]) for c in clip.cameras)

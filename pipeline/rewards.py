"""Rewards of videos and of the episodes of a selection, put together for the command line."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError
from core.files import whole_file
from core.names import LATEST
from core.paths import Workspace
from eval.reward.open import ModelOptions, ScorerConfig, ScorerOptions, open_scorer
from eval.reward.stream import RewardError
from eval.reward.video import Row, RunClip, open_clip, score_clip, write_overlay
from pipeline.models import model_folder
from training.folder import ModelError, TrainingError

# The fields of a row that the overlay and the summary read; the others are in the file alone
KEPT_FIELDS = ("frame_index", "timestamp_s", "progress", "done", "success", "failure", "unsure")
CAMERA = "camera"  # of the video that is named first
NOTED_FAILURES = 3  # in the summary


@dataclass(frozen=True)
class ScoredVideo:
    """`rows` were scored, `failures` of them have no number; `last_progress` is the last number.

    `last_done` and `success` are those of the last row: does the run count as done there? The command line prints all
    of it as JSON.
    """

    out: str
    rows: int
    failures: int
    last_progress: float | None
    last_done: float | None
    success: bool | None
    overlay: str | None = None
    notes: tuple[str, ...] = ()


def scorer_config(options: ModelOptions, model: str | None, space: Workspace) -> ScorerConfig:
    """The configuration of a scorer that the options of a command describe. Raises UserError."""
    # A model behind an endpoint is known by its name there; otherwise the name is a folder's
    folder = None
    if model is not None and not options.endpoint:
        try:
            folder = model_folder(space, model)
        except (ModelError, TrainingError) as e:
            raise UserError(str(e)) from e
    # Of an export's settings those that say how a model is asked
    chosen = options.model_dump(include={*ScorerOptions.model_fields}) | {"model": model}
    responses = space.responses if space.exists() else None
    return ScorerConfig(folder, ScorerOptions.model_validate(chosen), responses)


def named_scorer(
    options: ScorerOptions, space: Workspace, cameras: tuple[str, ...] = ()
) -> ScorerConfig:
    """The same of a model that the options name, by default the latest, of a baseline, or of shown runs; `cameras`: of
    the run that is to be laid beside them."""
    if options.like:
        from pipeline.reference_runs import reference_scorer  # imports duckdb

        names = tuple(options.like_camera) or cameras
        return ScorerConfig(
            shown=lambda: reference_scorer(space, options.like, names, options.lag, options.hold)
        )
    return scorer_config(options, options.model or (None if options.baseline else LATEST), space)


def task_like(references: Sequence[str], space: Workspace) -> str:
    """The instruction of the shown runs that `references` names, for a run that says none. Raises UserError."""
    from pipeline.reference_runs import reference_task  # imports duckdb

    return reference_task(space, references)


def score_video(
    config: ScorerConfig,
    run: Mapping[str, Path] | RunClip,
    task: str,
    out: Path,
    *,
    score_fps: float | None = None,
    steps: Sequence[str] = (),
    overlay: Path | None = None,
    partial: bool = False,
    on_row: Callable[[Row], None] = lambda row: None,
) -> ScoredVideo:
    """Write the rewards of a run (videos by camera, or an episode), and the overlay where one is wanted.

    Both files appear whole or not at all.
    Raises RewardError and what open_scorer raises.
    """
    is_opened = isinstance(run, RunClip)
    _check_outputs({} if is_opened else run, out, overlay)
    clip = (
        run if is_opened else open_clip(run)
    )  # before a model is loaded: a wrong path costs nothing
    rows: list[Row] = []
    with ExitStack() as files:
        # Both files take their names at the end of this block, and only if nothing failed
        half_rows = files.enter_context(_writable(out))
        half_overlay = files.enter_context(_writable(overlay)) if overlay else None
        with open_scorer(config) as scorer, half_rows.open("w") as file:
            rate = min(scorer.usual_fps, clip.fps) if score_fps is None else score_fps
            scored = score_clip(
                scorer,
                clip,
                task,
                score_fps=rate,
                steps=steps,
                partial=partial,
                reasoning=config.options.reasoning,
            )
            for row in scored:
                file.write(json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n")
                # The whole row is in the file; a long video's rows would be much to hold
                rows.append({k: row[k] for k in KEPT_FIELDS})
                on_row(row)
        if half_overlay:
            write_overlay(half_overlay, clip, rows, partial)
    return _scored(rows, str(out), str(overlay) if overlay else None)


def _scored(rows: Sequence[Row], out: str, overlay: str | None) -> ScoredVideo:
    failures = [r for r in rows if r["progress"] is None]
    notes = tuple(
        dict.fromkeys(
            f"{r['timestamp_s']:.2f} s: {r['failure']}" for r in failures[:NOTED_FAILURES]
        )
    )
    doubts = Counter(r["unsure"] for r in rows if r["unsure"] and r["progress"] is not None)
    notes += tuple(
        f"{count} of {len(rows)} answers are unsure: {reason}" for reason, count in doubts.items()
    )
    last = next((r["progress"] for r in reversed(rows) if r["progress"] is not None), None)
    end = rows[-1]
    return ScoredVideo(
        out, len(rows), len(failures), last, end["done"], end["success"], overlay, notes
    )


def _check_outputs(videos: Mapping[str, Path], out: Path, overlay: Path | None) -> None:
    """Raises RewardError where a file to write is a video, a folder or both files in one."""
    originals = {video.resolve() for video in videos.values()}
    for path in (out, overlay):
        if path is not None and path.resolve() in originals:
            raise RewardError(f"{path} is the video itself: give another file to write")
        if path is not None and path.is_dir():
            raise RewardError(f"{path} is a folder: give a file to write")
    if overlay is not None and overlay.resolve() == out.resolve():
        raise RewardError(
            f"rewards and overlay cannot both be {out}: give the overlay a file of its own"
        )


@contextmanager
def _writable(path: Path) -> Iterator[Path]:
    """whole_file of a path that a user gave. Raises RewardError."""
    with ExitStack() as stack:
        try:
            half = stack.enter_context(whole_file(path))
        except OSError as e:
            raise RewardError(f"{path} cannot be written: {e.strerror}") from e
        yield half

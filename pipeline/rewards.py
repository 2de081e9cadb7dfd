"""Rewards of videos and of the episodes of a selection, put together for the command line."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from annotate.samples.procvqa import task_text
from core.files import whole_file
from core.names import did_you_mean
from core.paths import Workspace
from eval.reward.open import ScorerConfig, open_scorer
from eval.reward.overlay import write_overlay
from eval.reward.video import SCORE_FPS, Clip, Row, RunEpisode, RunVideos, open_clip, score_clip
from eval.reward.window import RewardError
from ingest.source import read_episode
from pipeline.build import stored_build
from pipeline.config import ConfigError
from pipeline.episode_rewards import ScoredEpisodes, score_episodes
from pipeline.reading import records_of
from warehouse.exports.common import Selection, select
from warehouse.exports.rabc import the_dataset
from warehouse.lake import Lake

# The fields of a row that the overlay and the summary read; the others are in the file alone
KEPT_FIELDS = ("frame_index", "timestamp_s", "progress", "done", "success", "failure")
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


def episode_clip(space: Workspace, dataset: str, episode_index: int, cameras: Sequence[str] = ()) -> tuple[Clip, str]:
    """A usable episode of the corpus as a run to score, by its preferred camera or those named; and its task.

    Raises ConfigError: no such dataset, episode or camera, or one that cannot be used.
    """
    lake = Lake(space, read_only=True)
    build = stored_build(lake, dataset)
    if build is None:
        known = lake.column("SELECT dataset FROM build_configs ORDER BY 1")
        near = did_you_mean(dataset, known)
        raise ConfigError(f"there is no dataset {dataset!r}; built: {', '.join(known) or 'none yet'}{near}")
    found = lake.rows(
        "SELECT status, reason, task, cameras, fps, num_frames FROM episodes WHERE dataset = ? AND episode_index = ?",
        [dataset, episode_index],
    )
    if not found:
        raise ConfigError(f"{dataset} has no episode {episode_index}")
    [(status, reason, task, has, fps, num_frames)] = found
    if status != "ok":
        raise ConfigError(f"episode {episode_index} of {dataset} cannot be used: {reason}")
    unknown = [camera for camera in cameras if camera not in has]
    if unknown:
        raise ConfigError(f"episode {episode_index} of {dataset} has no camera {unknown[0]!r}; it has {', '.join(has)}")
    [record] = records_of(lake, dataset, [episode_index])
    episode = read_episode(build.source(space.sources), record)
    title = f"episode {episode_index} of {dataset}"
    return RunEpisode(episode, tuple(cameras) or (has[0],), fps, num_frames, title), task_text(task)


def score_video(
    config: ScorerConfig,
    run: Mapping[str, Path] | Clip,
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
    is_opened = isinstance(run, RunVideos | RunEpisode)
    _check_outputs({} if is_opened else run, out, overlay)
    clip = run if is_opened else open_clip(run)  # before a model is loaded: a wrong path costs nothing
    rate = min(SCORE_FPS, clip.fps) if score_fps is None else score_fps
    rows: list[Row] = []
    with ExitStack() as files:
        # Both files take their names at the end of this block, and only if nothing failed
        half_rows = files.enter_context(_writable(out))
        half_overlay = files.enter_context(_writable(overlay)) if overlay else None
        with open_scorer(config) as scorer, half_rows.open("w") as file:
            scored = score_clip(
                scorer, clip, task, score_fps=rate, steps=steps, partial=partial, reasoning=config.reasoning
            )
            for row in scored:
                file.write(json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n")
                # The whole row is in the file; a long video's rows would be much to hold
                rows.append({k: row[k] for k in KEPT_FIELDS})
                on_row(row)
        if half_overlay:
            write_overlay(half_overlay, clip, rows, partial)
    failures = [r for r in rows if r["progress"] is None]
    notes = dict.fromkeys(f"{r['timestamp_s']:.2f} s: {r['failure']}" for r in failures[:NOTED_FAILURES])
    progress = [r["progress"] for r in rows if r["progress"] is not None]
    return ScoredVideo(
        out=str(out),
        rows=len(rows),
        failures=len(failures),
        last_progress=progress[-1] if progress else None,
        last_done=rows[-1]["done"],
        success=rows[-1]["success"],
        overlay=str(overlay) if overlay else None,
        notes=tuple(notes),
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
        raise RewardError(f"rewards and overlay cannot both be {out}: give the overlay a file of its own")


@contextmanager
def _writable(path: Path) -> Iterator[Path]:
    """whole_file of a path that a user gave. Raises RewardError."""
    with ExitStack() as stack:
        try:
            half = stack.enter_context(whole_file(path))
        except OSError as e:
            raise RewardError(f"{path} cannot be written: {e.strerror}") from e
        yield half


def score_selection(
    lake: Lake,
    config: ScorerConfig,
    selection: Selection,
    score_fps: float | None = None,
    on_episodes: Callable[[int, int], None] = lambda done, of: None,
) -> ScoredEpisodes:
    """Score the episodes of an export to RA-BC that the lake has no rewards of. Raises ExportError, RewardError and
    what open_scorer raises."""
    selected = select(lake, selection)
    the_dataset(selected)  # before hours are spent on what cannot be exported
    name = config.folder.name if config.folder else config.model
    with open_scorer(config) as scorer:
        return score_episodes(lake, scorer, name, selected.episodes, score_fps or SCORE_FPS, on_episodes)

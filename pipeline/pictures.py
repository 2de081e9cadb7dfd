"""Pictures for people: one per stage and partition, small enough to be stored with a materialisation (< 20 kB)."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from annotate.segments import STEP
from core.figures import COLOURS, jpeg_to_rgb, new_figure, render, shorten
from pipeline.stages.reading import chunk_segments
from warehouse.lake import Lake

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = {"facecolor": "black", "alpha": 0.6, "pad": 0.5, "lw": 0}
REST_COLOURS = {"idle": "#c9c9c9", "done": "#e7dfc0"}


def stage_picture(lake: Lake, stage: str, dataset: str, chunk: int | None) -> bytes:
    """A PNG that shows what a stage made of one partition; empty when there is nothing to show."""
    draw = {
        "episodes": _episodes,
        "frames": _frames,
        "segments": _segments,
        "corrections": partial(_segments, stage="corrections"),
        "progress": _progress,
        "reasoning": _segments,  # what is given reasons for
        "samples": _samples,
        "shards": _shards,
    }[stage]
    figure = draw(lake, dataset, chunk)
    return b"" if figure is None else render(figure)


def contact_sheet(lake: Lake, dataset: str, chunk: int) -> bytes:
    """Stored pictures of one episode of a chunk in order, by its first camera; which episode, its contents decide."""
    found = lake.rows(
        "SELECT e.episode_index, e.usable_cameras[1] FROM episode_content e WHERE dataset = ? AND chunk = ? "
        "AND len(usable_cameras) > 0 ORDER BY content_hash LIMIT 1",
        [dataset, chunk],
    )
    if not found:
        return b""
    episode, camera = found[0]
    keys = lake.rows(
        "SELECT frame_index, any_value(sha256) FROM keyframes WHERE dataset = ? AND chunk = ? AND episode_index = ? "
        "AND camera = ? GROUP BY 1 ORDER BY 1",
        [dataset, chunk, episode, camera],
    )
    chosen = [keys[i] for i in sorted({round(x) for x in np.linspace(0, len(keys) - 1, min(12, len(keys)))})]
    if not chosen:
        return b""
    pictures = [jpeg_to_rgb(lake.workspace.keyframe(sha256).read_bytes(), 96) for _, sha256 in chosen]
    gap, (height, width, _) = 4, pictures[0].shape
    rows = 1 if len(chosen) <= 6 else 2
    across = -(-len(chosen) // rows)
    sheet = np.full((rows * (height + gap), across * (width + gap), 3), 255, np.uint8)
    figure, axes = new_figure(8.0, 2.4)
    for k, ((frame, _), picture) in enumerate(zip(chosen, pictures, strict=True)):
        y, x = (k // across) * (height + gap), (k % across) * (width + gap)
        sheet[y : y + height, x : x + min(width, picture.shape[1])] = picture[:, :width]
        axes[0, 0].text(x + 2, y + 2, f"frame {frame}", fontsize=6, color="white", va="top", bbox=CAPTION)
    axes[0, 0].imshow(sheet)
    axes[0, 0].axis("off")
    axes[0, 0].set_title(f"{dataset} episode {episode}, {camera}", fontsize=7)
    return render(figure)


def _episodes(lake: Lake, dataset: str, chunk: int | None) -> "Figure | None":
    rows = lake.rows(
        "SELECT coalesce(task, '(none)'), count(*), avg(duration_s) FROM episodes WHERE dataset = ? GROUP BY 1 "
        "ORDER BY 2 DESC, 1 LIMIT 10",
        [dataset],
    )
    if not rows:
        return None
    figure, axes = new_figure(height=0.6 + 0.25 * len(rows))
    labels = [shorten(r[0], 60) for r in rows]
    axes[0, 0].barh(labels[::-1], [r[1] for r in rows][::-1], color=COLOURS[0])
    axes[0, 0].set_xlabel("episodes (the ten commonest tasks)")
    return figure


def _frames(lake: Lake, dataset: str, chunk: int | None) -> "Figure | None":
    rows = lake.arrow(
        "SELECT episode_index, timestamp_s, visual_change FROM frames WHERE dataset = ? AND chunk = ? "
        "AND frame_index > 0 AND camera = (SELECT min(camera) FROM frames WHERE dataset = ? AND chunk = ?) "
        "AND episode_index IN (SELECT DISTINCT episode_index FROM frames WHERE dataset = ? AND chunk = ? ORDER BY 1 "
        "LIMIT 4) ORDER BY 1, 2",
        [dataset, chunk] * 3,
    )
    if rows.num_rows == 0:
        return None
    figure, axes = new_figure()
    index = rows["episode_index"].to_numpy()
    for episode in np.unique(index):
        part = rows.filter(index == episode)
        axes[0, 0].plot(part["timestamp_s"], part["visual_change"], lw=1, label=f"episode {episode}")
    axes[0, 0].set(xlabel="seconds", ylabel="visual change")
    axes[0, 0].legend(fontsize=7, ncols=4)
    return figure


def _segments(lake: Lake, dataset: str, chunk: int | None, stage: str = "segments") -> "Figure | None":
    last = lake.rows(
        "SELECT label_run FROM stage_runs WHERE stage = ? AND dataset = ? AND chunk = ? ORDER BY snapshot DESC LIMIT 1",
        [stage, dataset, chunk],
    )
    found = list(chunk_segments(lake, dataset, _chunk(chunk), "segments", last[0][0]).items())[:12] if last else []
    if not found:
        return None
    figure, axes = new_figure(height=0.7 + 0.2 * len(found))
    for row, (_, (segments, _, _)) in enumerate(found):
        draw_segments(axes[0, 0], segments, row, 0.8)
    axes[0, 0].set_yticks(range(len(found)), [str(e) for e, _ in found], fontsize=7)
    axes[0, 0].invert_yaxis()
    axes[0, 0].set(xlabel="frame (grey: rest; hatched: not completed)", ylabel="episode")
    return figure


def _chunk(chunk: int | None) -> int:
    return 0 if chunk is None else chunk


def draw_segments(axes, segments: Sequence, row: float, height: float, fps: float = 1.0) -> None:
    """Segments as coloured bars along time (in seconds when fps is given)."""
    for s in segments:
        colour = COLOURS[s.step % len(COLOURS)] if s.kind == STEP else REST_COLOURS[s.kind]
        hatch = None if s.completed or s.kind != STEP else "////"
        axes.barh(row, len(s) / fps, height, s.start_frame / fps, color=colour, edgecolor="white", lw=0.5, hatch=hatch)


def _progress(lake: Lake, dataset: str, chunk: int | None) -> "Figure | None":
    episode = lake.rows(
        "SELECT min(episode_index) FROM active_progress WHERE dataset = ? AND chunk = ?", [dataset, chunk]
    )
    return None if episode[0][0] is None else labelled_episode(lake, dataset, episode[0][0], stills=6)


def labelled_episode(lake: Lake, dataset: str, episode: int, stills: int = 8, truth: np.ndarray | None = None):
    """Stills, segments and both progress labels of one episode; with `truth` [num_frames] that and the clock, too."""
    facts = lake.dicts("SELECT * FROM episodes WHERE dataset = ? AND episode_index = ?", [dataset, episode])[0]
    fps = facts["fps"]
    keys = lake.rows(
        "SELECT frame_index, sha256 FROM keyframes WHERE dataset = ? AND episode_index = ? AND camera = ? ORDER BY 1",
        [dataset, episode, facts["cameras"][0]],
    )
    chosen = [keys[i] for i in sorted({round(x) for x in np.linspace(0, len(keys) - 1, min(stills, len(keys)))})]
    segments = chunk_segments(lake, dataset, facts["chunk"])[episode][0]
    label = lake.arrow(
        "SELECT progress, progress_procvlm FROM active_progress WHERE dataset = ? AND episode_index = ? "
        "ORDER BY frame_index",
        [dataset, episode],
    )
    time_s = np.arange(label.num_rows) / fps
    figure, axes = new_figure(8.0, 4.2, 3, 1, height_ratios=[1.5, 0.3, 2.0])
    pictures = [jpeg_to_rgb(lake.workspace.keyframe(sha256).read_bytes(), 160) for _, sha256 in chosen]
    strip = np.concatenate(pictures, axis=1)
    axes[0, 0].imshow(strip, aspect="auto")
    axes[0, 0].set_xticks(
        [(i + 0.5) * strip.shape[1] / len(chosen) for i in range(len(chosen))],
        [f"{f / fps:.1f} s" for f, _ in chosen],
        fontsize=8,
    )
    axes[0, 0].set_yticks([])
    axes[0, 0].set_title(f"{dataset} episode {episode}: {facts['task'] or '(no task)'}", fontsize=9)
    draw_segments(axes[1, 0], segments, 0, 0.8, fps)
    for s in segments:
        middle = (s.start_frame + s.end_frame) / 2 / fps
        axes[1, 0].text(
            middle, 0, shorten(s.name, max(3, int(110 * len(s) / len(time_s)))), ha="center", va="center", fontsize=6
        )
    axes[1, 0].set(xlim=(0, len(time_s) / fps), xticks=[], yticks=[])
    axes[2, 0].plot(time_s, label["progress"], color=COLOURS[0], lw=2, label="progress")
    axes[2, 0].plot(time_s, label["progress_procvlm"], color=COLOURS[1], lw=1, label="published formula")
    if truth is not None:
        axes[2, 0].plot(time_s, np.linspace(0, 1, len(time_s)), color="grey", lw=0.8, ls=":", label="clock")
        axes[2, 0].plot(time_s, truth, color="black", lw=1, ls="--", label="ground truth")
    axes[2, 0].set(xlim=(0, len(time_s) / fps), ylim=(-0.03, 1.03), xlabel="seconds", ylabel="progress")
    axes[2, 0].legend(fontsize=8)
    return figure


def _samples(lake: Lake, dataset: str, chunk: int | None) -> "Figure | None":
    rows = lake.rows(
        "SELECT progress FROM samples WHERE dataset = ? AND chunk = ? AND progress IS NOT NULL", [dataset, chunk]
    )
    if not rows:
        return None
    figure, axes = new_figure()
    axes[0, 0].hist([r[0] for r in rows], bins=20, range=(0, 1), color=COLOURS[2])
    axes[0, 0].set(xlabel="progress asked for", ylabel="samples")
    return figure


def _shards(lake: Lake, dataset: str, chunk: int | None) -> "Figure | None":
    """Contact sheet: the pictures of one entry of the chunk's first shard."""
    from warehouse.shards import read_entries

    rows = lake.rows(
        "SELECT split, shard, store FROM shards WHERE dataset = ? AND chunk = ? ORDER BY 2 LIMIT 1", [dataset, chunk]
    )
    if not rows:
        return None
    _, pictures = next(read_entries(lake.workspace.shard(*rows[0])))
    chosen = [pictures[name] for name in sorted(pictures)][:: max(1, len(pictures) // 6)][:6]
    figure, axes = new_figure(6.0, 1.3)
    axes[0, 0].imshow(np.concatenate([jpeg_to_rgb(p, 64) for p in chosen], axis=1))
    axes[0, 0].axis("off")
    axes[0, 0].set_title(shorten(rows[0][1], 70), fontsize=7)
    return figure

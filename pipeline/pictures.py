"""Pictures for people: one per stage and partition, small enough to be stored with a materialisation (< 20 kB)."""

from collections.abc import Sequence

import numpy as np

from core.domain.label import STEP, Segment
from core.figures import COLOURS, Axes, Figure, jpeg_to_rgb, new_figure, render, shorten
from core.values import spread
from warehouse.lake import Lake
from warehouse.lake.stored import labels_of
from warehouse.shards.shard import read_entries

CAPTION = {"facecolor": "black", "alpha": 0.6, "pad": 0.5, "lw": 0}
REST_COLOURS = {"idle": "#c9c9c9", "done": "#e7dfc0"}


def contact_sheet(lake: Lake, dataset: str, chunk: int) -> bytes:
    """Stored pictures of one episode of a chunk in order, by its first camera; which episode, its contents decide."""
    first = lake.rows(
        "SELECT e.episode_index, e.usable_cameras[1] FROM episode_content e WHERE dataset = ? AND chunk = ? "
        "AND len(usable_cameras) > 0 ORDER BY content_hash LIMIT 1",
        [dataset, chunk],
    )
    if not first:
        return b""
    episode, camera = first[0]
    keyframes = lake.rows(
        "SELECT frame_index, any_value(sha256) FROM keyframes WHERE dataset = ? AND chunk = ? AND episode_index = ? "
        "AND camera = ? GROUP BY 1 ORDER BY 1",
        [dataset, chunk, episode, camera],
    )
    chosen = spread(keyframes, 12)
    if not chosen:
        return b""

    # One row of up to six pictures, or two
    pictures = [_still(lake, sha256, 96) for _, sha256 in chosen]
    gap, (height, width, _) = 4, pictures[0].shape
    rows = 1 if len(chosen) <= 6 else 2
    columns = -(-len(chosen) // rows)
    sheet = np.full((rows * (height + gap), columns * (width + gap), 3), 255, np.uint8)
    figure, axes = new_figure(8.0, 2.4)
    for index, ((frame, _), picture) in enumerate(zip(chosen, pictures, strict=True)):
        row, column = divmod(index, columns)
        y = row * (height + gap)
        x = column * (width + gap)
        # A camera may have given pictures of several widths
        sheet[y : y + height, x : x + min(width, picture.shape[1])] = picture[:, :width]
        axes[0, 0].text(
            x + 2, y + 2, f"frame {frame}", fontsize=6, color="white", va="top", bbox=CAPTION
        )
    axes[0, 0].imshow(sheet)
    axes[0, 0].axis("off")
    axes[0, 0].set_title(f"{dataset} episode {episode}, {camera}", fontsize=7)
    return render(figure)


def _still(lake: Lake, sha256: str, height: int) -> np.ndarray:
    return jpeg_to_rgb(lake.workspace.keyframe(sha256).read_bytes(), height)


def episodes_figure(lake: Lake, dataset: str, chunk: int | None) -> Figure | None:
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


def frames_figure(lake: Lake, dataset: str, chunk: int | None) -> Figure | None:
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
        axes[0, 0].plot(
            part["timestamp_s"], part["visual_change"], lw=1, label=f"episode {episode}"
        )
    axes[0, 0].set(xlabel="seconds", ylabel="visual change")
    axes[0, 0].legend(fontsize=7, ncols=4)
    return figure


def segments_figure(stage: str, lake: Lake, dataset: str, chunk: int | None) -> Figure | None:
    """The segments that the newest run of a stage gave the chunk's first twelve episodes."""
    assert chunk is not None, "segments belong to a chunk"
    newest = lake.column(
        "SELECT label_run FROM stage_runs WHERE stage = ? AND dataset = ? AND chunk = ? ORDER BY snapshot DESC LIMIT 1",
        [stage, dataset, chunk],
    )
    labels = labels_of(lake.con, dataset, chunk, label_run=newest[0]) if newest else {}
    episodes = list(labels)[:12]
    if not episodes:
        return None
    figure, axes = new_figure(height=0.7 + 0.2 * len(episodes))
    for row, episode in enumerate(episodes):
        draw_segments(axes[0, 0], labels[episode].segments, row, 0.8)
    axes[0, 0].set_yticks(range(len(episodes)), [str(episode) for episode in episodes], fontsize=7)
    axes[0, 0].invert_yaxis()
    axes[0, 0].set(xlabel="frame (grey: rest; hatched: not completed)", ylabel="episode")
    return figure


def draw_segments(
    axes: Axes, segments: Sequence[Segment], row: float, height: float, fps: float = 1.0
) -> None:
    """Segments as coloured bars along time (in seconds when fps is given)."""
    for segment in segments:
        colour = REST_COLOURS.get(segment.kind)
        hatch = None
        if segment.kind == STEP:
            assert segment.step is not None
            colour = COLOURS[segment.step % len(COLOURS)]
            hatch = None if segment.completed else "////"
        start_s = segment.start_frame / fps
        duration_s = len(segment) / fps
        axes.barh(
            row, duration_s, height, start_s, color=colour, edgecolor="white", lw=0.5, hatch=hatch
        )


def progress_figure(lake: Lake, dataset: str, chunk: int | None) -> Figure | None:
    """The chunk's first labelled episode."""
    [(episode,)] = lake.rows(
        "SELECT min(episode_index) FROM active_progress WHERE dataset = ? AND chunk = ?",
        [dataset, chunk],
    )
    if episode is None:
        return None
    return labelled_episode(lake, dataset, episode, stills=6)


def labelled_episode(
    lake: Lake, dataset: str, episode: int, stills: int = 8, truth: np.ndarray | None = None
) -> Figure:
    """Stills, segments and both progress labels of one episode; with `truth` [num_frames] that and the clock, too."""
    facts = lake.dicts(
        "SELECT * FROM episodes WHERE dataset = ? AND episode_index = ?", [dataset, episode]
    )[0]
    fps = facts["fps"]
    segments = labels_of(lake.con, dataset, episodes=[episode])[episode].segments
    label = lake.arrow(
        "SELECT progress, progress_procvlm FROM active_progress WHERE dataset = ? AND episode_index = ? "
        "ORDER BY frame_index",
        [dataset, episode],
    )
    duration_s = label.num_rows / fps

    figure, axes = new_figure(8.0, 4.2, 3, 1, height_ratios=[1.5, 0.3, 2.0])
    strip_axes, segment_axes, curve_axes = axes[:, 0]
    # Keyframes side by side, with their times
    keyframes = lake.rows(
        "SELECT frame_index, sha256 FROM keyframes WHERE dataset = ? AND episode_index = ? AND camera = ? ORDER BY 1",
        [dataset, episode, facts["cameras"][0]],
    )
    chosen = spread(keyframes, stills)
    strip = np.concatenate([_still(lake, sha256, 160) for _, sha256 in chosen], axis=1)
    width = strip.shape[1] / len(chosen)
    middles = [(index + 0.5) * width for index in range(len(chosen))]
    strip_axes.imshow(strip, aspect="auto")
    strip_axes.set_xticks(middles, [f"{frame / fps:.1f} s" for frame, _ in chosen], fontsize=8)
    strip_axes.set_yticks([])
    strip_axes.set_title(f"{dataset} episode {episode}: {facts['task'] or '(no task)'}", fontsize=9)

    draw_segments(segment_axes, segments, 0, 0.8, fps)
    for segment in segments:
        middle_s = (segment.start_frame + segment.end_frame) / 2 / fps
        room = max(3, int(110 * len(segment) / label.num_rows))  # characters that fit into its bar
        segment_axes.text(
            middle_s, 0, shorten(segment.name, room), ha="center", va="center", fontsize=6
        )
    segment_axes.set(xlim=(0, duration_s), xticks=[], yticks=[])

    time_s = np.arange(label.num_rows) / fps
    curve_axes.plot(time_s, label["progress"], color=COLOURS[0], lw=2, label="progress")
    curve_axes.plot(
        time_s, label["progress_procvlm"], color=COLOURS[1], lw=1, label="published formula"
    )
    if truth is not None:
        curve_axes.plot(
            time_s, np.linspace(0, 1, len(time_s)), color="grey", lw=0.8, ls=":", label="clock"
        )
        curve_axes.plot(time_s, truth, color="black", lw=1, ls="--", label="ground truth")
    curve_axes.set(xlim=(0, duration_s), ylim=(-0.03, 1.03), xlabel="seconds", ylabel="progress")
    curve_axes.legend(fontsize=8)
    return figure


def samples_figure(lake: Lake, dataset: str, chunk: int | None) -> Figure | None:
    rows = lake.rows(
        "SELECT progress FROM samples WHERE dataset = ? AND chunk = ? AND progress IS NOT NULL",
        [dataset, chunk],
    )
    if not rows:
        return None
    figure, axes = new_figure()
    axes[0, 0].hist([r[0] for r in rows], bins=20, range=(0, 1), color=COLOURS[2])
    axes[0, 0].set(xlabel="progress asked for", ylabel="samples")
    return figure


def shards_figure(lake: Lake, dataset: str, chunk: int | None) -> Figure | None:
    """Contact sheet: the pictures of one entry of the chunk's first shard."""
    rows = lake.rows(
        "SELECT split, shard, store FROM shards WHERE dataset = ? AND chunk = ? ORDER BY 2 LIMIT 1",
        [dataset, chunk],
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

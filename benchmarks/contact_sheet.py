"""An episode of a built workspace as one PNG: its frames, and below them segments, gripper, speed and progress.

    python -m benchmarks.contact_sheet --workspace W DATASET EPISODE ... [--every 10] [--camera NAME] [--out FOLDER]

Every EVERY-th frame is shown with its number (default: so many that there are 60), in a frame of the colour of its
segment. Segments that were not completed are hatched; idle and done ones are grey. Where `--truth` (default:
../shared/real_truth) has the episode, people's segments stand below ours, their curve of progress is dashed, and
grasps are red lines, releases green, contacts purple.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from annotate.segments import STEP, Segment
from annotate.stored_pictures import fitted
from benchmarks.trial import SHARED
from core.errors import UserError
from core.paths import Workspace
from eval.annotators.labels import stored_labels
from eval.annotators.truth import EpisodeTruth, corpus_truth
from ingest.episode import record_from_row
from ingest.source import read_episode
from pipeline.build import stored_build
from warehouse.lake import Lake
from warehouse.lake.signals import stored_signals

PICTURES, COLUMNS = 60, 12
PICTURE_PX = 240
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22")
GREY = "#bbbbbb"
EVENT_COLOURS = {"grasp": "#d62728", "release": "#2ca02c", "contact": "#9467bd", "other": "#888888"}


@dataclass(frozen=True)
class Shown:
    """What is drawn of one episode; curves are [num_frames] by name."""

    title: str
    fps: float
    pictures: dict[int, np.ndarray]  # RGB by frame
    segments: tuple[Segment, ...]
    progress: np.ndarray
    measured: dict[str, np.ndarray]
    truth: EpisodeTruth | None


def read(lake: Lake, dataset: str, episode: int, every: int | None, camera: str | None, truth: Path) -> Shown:
    """What workspace and source have of an episode. Raises UserError where it has no label or no such camera."""
    labels, build = stored_labels(lake, dataset), stored_build(lake, dataset)
    if episode not in labels or build is None:
        raise UserError(f"{dataset} episode {episode} has no label here; labelled are {sorted(labels)}")
    facts = lake.dicts("SELECT * FROM episode_facts WHERE dataset = ? AND episode_index = ?", [dataset, episode])[0]
    fps, cameras = lake.rows(
        "SELECT fps, usable_cameras FROM episode_content WHERE dataset = ? AND episode_index = ?", [dataset, episode]
    )[0]
    if camera is not None and camera not in cameras:
        raise UserError(f"{dataset} episode {episode} has no usable camera {camera}; usable are {', '.join(cameras)}")

    # Pictures from the source itself: the workspace keeps few
    label = labels[episode]
    if label.progress is None:
        raise UserError(f"{dataset} episode {episode} has no progress yet: build the dataset")
    step = every or max(1, math.ceil(len(label.progress) / PICTURES))
    frames = read_episode(build.source(lake.workspace.sources), record_from_row(facts)).frames(camera or cameras[0])
    pictures = {k: fitted(picture.rgb(), PICTURE_PX) for k, _, picture in frames if k % step == 0}
    success = {True: "success", False: "failure", None: "outcome unknown"}[facts["success"]]
    return Shown(
        title=f"{dataset} episode {episode}: {facts['task'] or 'no task text'} ({success}, {camera or cameras[0]}, "
        f"{fps:g} fps, {label.annotator})",
        fps=fps,
        pictures=pictures,
        segments=label.segments,
        progress=label.progress,
        measured=measurements(lake, dataset, episode, cameras[0]),
        truth=corpus_truth(lake, truth, dataset).get(episode),
    )


def measurements(lake: Lake, dataset: str, episode: int, camera: str) -> dict[str, np.ndarray]:
    """How far open each gripper is, and the speed over its 99th percentile; without what the source has not."""
    rows = lake.rows(
        "SELECT grippers, speed FROM frames WHERE dataset = ? AND episode_index = ? AND camera = ? "
        "ORDER BY frame_index",
        [dataset, episode, camera],
    )
    curves = {}
    for k, signal in enumerate(stored_signals(lake.con, dataset)):
        if signal.is_used and rows[0][0] is not None:
            curves[signal.title] = np.array([grippers[k] for grippers, _ in rows], np.float64)
    if rows[0][1] is not None:
        speed = np.array([value for _, value in rows])
        curves["speed"] = np.minimum(1.0, speed / max(float(np.percentile(speed, 99)), 1e-9))
    return curves


def draw(shown: Shown) -> Figure:
    """The sheet as a figure."""
    rows = math.ceil(len(shown.pictures) / COLUMNS)
    height, width = next(iter(shown.pictures.values())).shape[:2]
    picture_in = 20 / COLUMNS
    bars = 1 + (len(shown.truth.passes) if shown.truth else 0)
    heights = [*[picture_in * height / width + 0.18] * rows, 0.5 + 0.4 * bars, 1.4, 2.2]
    figure = Figure(figsize=(20, sum(heights) + 0.8), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    figure.suptitle(shown.title)
    colours = _colours(shown.segments)
    for place, (frame, picture) in enumerate(shown.pictures.items()):
        axes = figure.add_subplot(grid[place // COLUMNS, place % COLUMNS])
        _draw_picture(axes, picture, frame, _colour_at(shown.segments, colours, frame))

    # Curves share their time
    segments, measured, progress = (figure.add_subplot(grid[rows + k, :]) for k in range(3))
    _draw_segments(segments, shown, colours)
    _draw_curves(measured, shown.measured)
    _draw_progress(progress, shown)
    for axes in (segments, measured, progress):
        axes.set_xlim(0, len(shown.progress))
        _draw_events(axes, shown.truth)
    progress.set_xlabel("frame")
    return figure


def _colours(segments: Sequence[Segment]) -> dict[str, str]:
    """A colour for each step's name."""
    names = dict.fromkeys(s.name for s in segments if s.kind == STEP)
    return {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(names)}


def _colour_at(segments: Sequence[Segment], colours: dict[str, str], frame: int) -> str:
    of_frame = next((s for s in segments if s.start_frame <= frame < s.end_frame), None)
    return GREY if of_frame is None or of_frame.kind != STEP else colours[of_frame.name]


def _draw_picture(axes: Axes, picture: np.ndarray, frame: int, colour: str) -> None:
    axes.imshow(picture)
    axes.set_title(str(frame), fontsize=8, pad=1)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color(colour)
        side.set_linewidth(4)


def _draw_segments(axes: Axes, shown: Shown, colours: dict[str, str]) -> None:
    """Our segments as a bar, each of the people's below it."""
    passes = shown.truth.passes if shown.truth else ()
    bars = [("ours", shown.segments, colours), *((f"person {k + 1}", p, _colours(p)) for k, p in enumerate(passes))]
    for place, (_, segments, its_colours) in enumerate(bars):
        for s in segments:
            colour = its_colours[s.name] if s.kind == STEP else GREY
            hatch = None if s.completed else "//"
            axes.barh(-place, len(s), left=s.start_frame, height=0.85, color=colour, alpha=0.6, hatch=hatch, ec="black")
            sure = "" if s.confidence is None else f" ({s.confidence:.1f})"
            room = max(4, int(len(s) / len(shown.progress) * 210))  # characters that fit
            axes.text(s.start_frame + 1, -place, f"{s.name}{sure}"[:room], fontsize=8, va="center", clip_on=True)
    axes.set_yticks([-k for k in range(len(bars))], [name for name, _, _ in bars])


def _draw_curves(axes: Axes, curves: dict[str, np.ndarray]) -> None:
    for name, values in curves.items():
        is_gripper = name != "speed"
        axes.plot(values, label=name, linewidth=1.6 if is_gripper else 0.7, color=None if is_gripper else GREY)
    axes.set_ylim(-0.05, 1.05)
    axes.set_ylabel("open" if any(name != "speed" for name in curves) else "no gripper")
    if curves:
        axes.legend(loc="upper left", fontsize=8)


def _draw_progress(axes: Axes, shown: Shown) -> None:
    axes.plot(shown.progress, label="ours")
    if shown.truth:
        axes.plot(shown.truth.progress(), "--", color="black", label="people's")
    axes.plot([0, len(shown.progress) - 1], [0, 1], ":", color=GREY, label="clock")
    axes.set_ylim(-0.02, 1.05)
    axes.set_ylabel("progress")
    axes.legend(loc="upper left", fontsize=8)


def _draw_events(axes: Axes, truth: EpisodeTruth | None) -> None:
    for event in truth.events if truth else ():
        axes.axvline(event.frame, color=EVENT_COLOURS.get(event.kind, GREY), linewidth=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("episodes", nargs="+", type=int)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--every", type=int, help="frames from one picture to the next")
    parser.add_argument("--camera", help="default: the preferred one")
    parser.add_argument("--truth", type=Path, default=SHARED / "real_truth")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder")
    asked = parser.parse_args()
    lake = Lake(Workspace(asked.workspace.resolve()), read_only=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    for episode in asked.episodes:
        try:
            shown = read(lake, asked.dataset, episode, asked.every, asked.camera, asked.truth)
        except UserError as e:
            parser.exit(2, f"error: {e}\n")
        file = asked.out / f"{asked.dataset}_{episode:06d}.png"
        draw(shown).savefig(file)
        print(file)


if __name__ == "__main__":
    main()

"""An episode as the model gets to see it, and the pictures in a request: their numbers and times,
alone or in contact sheets, by one camera or by several at once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched, chain
from typing import NamedTuple

import cv2
import numpy as np
import scipy  # loads its parts when they are used: most commands look for no peaks

from annotate.config import MotionConfig
from annotate.model_client.calls import Image, Reply, Request
from annotate.motion.observe import Signals, gripper_moves, moving_average, observe
from annotate.pictures import JPEG_QUALITY
from annotate.vlm.prompts import Pictures, quote, render, seconds
from annotate.vlm.windows import TILES, Span, Window, ascending_starts
from core.domain.label import DONE, IDLE
from core.pictures import decode_stored

SLOW_WITHIN_S = 0.5  # an arm has its slowest moment only once within this time
SLOW_WINDOW_S = 0.3  # of the moving average of its speed
REACH_S = 0.9  # a moment that far from a boundary may be what the model saw
# A model that sees what pictures show is usually nearer to the moments than that
FAR_S = 0.4
FAR_OF_SLOW_S = 0.5
FAR = 0.65  # or than this share of the time between two pictures
# Kinds, those that count first at first
SHARP = (("comes_to_rest", "sets_out"), ("grips",))
SLOW = ("slow",)


class ArmMoments(NamedTuple):
    """Frames, ascending. grips: a gripper begins to close or to open. slow: slower than half of the speed around."""

    comes_to_rest: tuple[int, ...] = ()
    sets_out: tuple[int, ...] = ()
    grips: tuple[int, ...] = ()
    slow: tuple[int, ...] = ()


NO_MOMENTS = ArmMoments()


def moments_of(signals: Signals, config: MotionConfig) -> ArmMoments:
    """The moments of one episode by its signals alone."""
    observed = observe(signals, config)
    fps = signals.fps
    activity = moving_average(observed.activity, SLOW_WINDOW_S, fps)
    min_distance = max(1, round(SLOW_WITHIN_S * fps))
    slow, facts = scipy.signal.find_peaks(
        -activity, distance=min_distance, prominence=0.0, wlen=4 * min_distance + 1
    )
    moves = [gripper_moves(gripper.opening, config, fps) for gripper in signals.grippers]
    grips = {start for start, *_ in chain.from_iterable(moves)}
    return ArmMoments(
        comes_to_rest=tuple(start for start, _ in observed.idle if start > 0),
        sets_out=tuple(end for _, end in observed.idle if end < len(signals)),
        grips=tuple(sorted(grips)),
        slow=tuple(slow[activity[slow] < facts["prominences"]].tolist()),
    )


def settled_starts(
    spans: Sequence[Span], starts: Sequence[int], moments: ArmMoments, fps: float, num_frames: int
) -> list[int]:
    """The first frame of each span: at its moment, where the model's boundaries lie off these moments on the whole.

    A model that is as exact as its pictures keeps its boundaries: moments are not all true. Each
    moment is that of one boundary, sharp ones first, and of these the nearest.
    """
    by_kind = [
        [*_nearby_moments(spans, starts, moments, kinds, REACH_S * fps)] for kinds in (*SHARP, SLOW)
    ]
    sharp = [*chain.from_iterable(by_kind[:-1])]
    slow = by_kind[-1]
    between = float(np.mean([s.start - s.after for s in spans[1:]])) if len(spans) > 1 else 0.0
    limit = max((FAR_S if sharp else FAR_OF_SLOW_S) * fps, FAR * between)
    if not (sharp or slow) or _usual_distance(sharp or slow) <= limit:
        return list(starts)
    moment_of: dict[int, int] = {}
    for near in by_kind:
        for _, k, frame in sorted(near):
            is_free = k not in moment_of and frame not in moment_of.values()
            if is_free and all(
                (j < k) == (other_frame < frame) for j, other_frame in moment_of.items()
            ):
                moment_of[k] = frame
    return ascending_starts([moment_of.get(k, start) for k, start in enumerate(starts)], num_frames)


def _nearby_moments(
    spans: Sequence[Span],
    starts: Sequence[int],
    moments: ArmMoments,
    kinds: Sequence[str],
    reach: float,
) -> Iterator[tuple[int, int, int]]:
    """(distance, span that begins, frame) of each moment that a boundary may be, in frames."""
    for k in range(1, len(spans)):
        may_be = {
            "comes_to_rest": spans[k].label in (IDLE, DONE),
            "sets_out": spans[k - 1].label == IDLE,
        }
        for kind in kinds:
            for frame in getattr(moments, kind) if may_be.get(kind, True) else ():
                if abs(frame - starts[k]) <= reach:
                    yield abs(frame - starts[k]), k, frame


def _usual_distance(near: Sequence[tuple[int, int, int]]) -> float:
    """The median over moments of the frames to the nearest boundary."""
    nearest = {frame: distance for distance, _, frame in sorted(near, reverse=True)}
    return float(np.median([*nearest.values()]))


Ask = Callable[[Request], Awaitable[Reply]]  # the client's, with the episode bound


@dataclass(frozen=True)
class EpisodeView:
    """An episode as the model gets to see it: by one camera, or by several side by side, with its pictures to load."""

    dataset: str
    episode_index: int
    task: str | None
    fps: float
    num_frames: int
    success: bool | None  # as the dataset states it
    frames: tuple[int, ...]  # of the coarse keyframes, ascending, first = 0
    # Any frames as stored JPEGs; called in a thread, never twice at once for one episode
    load: Callable[[Sequence[int]], Mapping[int, Image]]
    phash: np.ndarray  # uint64 [num_frames]
    motion_cuts: tuple[int, ...] = ()  # boundaries that the motion annotator found
    moments: ArmMoments = NO_MOMENTS  # at which the arm shows that it goes on to another activity
    cameras: tuple[str, ...] = ()  # side by side in each picture, from left to right; empty: one


async def all_results[T](*calls: Awaitable[T]) -> list[T]:
    """All results; the first error only after all have ended, so that no reply under way is lost."""
    results: Iterable[T | BaseException] = await asyncio.gather(*calls, return_exceptions=True)
    if error := next((result for result in results if isinstance(result, BaseException)), None):
        raise error
    return [result for result in results if not isinstance(result, BaseException)]


COLUMNS = 3  # of a contact sheet
TILE_PX = 256  # longer side of a picture in it, by each camera: a multiple of what processors cut pictures into
GAP_PX = 4  # between pictures of several cameras
FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_SCALE = 0.45


async def load_pictures(
    view: EpisodeView, parts: Sequence[Window], *, sheets: bool = False
) -> dict[Window, Pictures]:
    """The beginning of a request for each window: every picture with its number and time.

    Each frame is loaded once. Raises what `view.load` raises, ValueError when it leaves a frame
    out.
    """
    return await asyncio.to_thread(_load, view, list(dict.fromkeys(parts)), sheets)


def _load(view: EpisodeView, parts: list[Window], sheets: bool) -> dict[Window, Pictures]:
    frames = sorted(set(chain.from_iterable(parts)))
    images = view.load(frames)
    missing = [f for f in frames if f not in images]
    if missing:
        raise ValueError(
            f"{view.dataset} episode {view.episode_index}: no picture of frame {missing[0]}"
        )
    return {window: _numbered_pictures(view, window, images, sheets) for window in parts}


def _numbered_pictures(
    view: EpisodeView, window: Window, images_by_frame: Mapping[int, Image], sheets: bool
) -> Pictures:
    images = [images_by_frame[frame] for frame in window]
    times = [seconds(f, view.fps) for f in window]
    whole = {"start": times[0], "end": times[-1], "duration": seconds(view.num_frames, view.fps)}
    opening = render("sheets" if sheets else "pictures", count=len(window), **whole)
    views = len(view.cameras) or 1
    if views > 1:
        opening += "\n" + render("views", count=views, names=", ".join(map(quote, view.cameras)))
    if sheets:
        numbered_pictures = _sheets(window, times, images, views)
    else:
        numbered_pictures = _single_pictures(window, times, images)
    return (opening, *numbered_pictures)


def _single_pictures(
    window: Window, times: list[str], images: list[Image]
) -> Iterator[str | Image]:
    """Each picture by itself, behind its number and time."""
    for number, time, image in zip(window, times, images, strict=True):
        yield from (f"Picture {number}, {time} s:", image)


def _sheets(
    window: Window, times: list[str], images: list[Image], views: int
) -> Iterator[str | Image]:
    """Contact sheets of TILES pictures each, with the numbers that they show."""
    for tiles in batched(zip(window, times, images, strict=True), TILES):
        yield f"Pictures {tiles[0][0]} to {tiles[-1][0]}:"
        captions = [f"{number}: {time} s" for number, time, _ in tiles]
        yield contact_sheet([image for *_, image in tiles], captions, views)


def joined_picture(images: Sequence[Image]) -> Image:
    """One moment by several cameras as one picture: side by side, each as high as the first."""
    pictures = [_decoded_pixels(image) for image in images]
    sizes = sizes_in_row([(picture.shape[1], picture.shape[0]) for picture in pictures])
    parts = []
    for picture, size in zip(pictures, sizes, strict=True):
        interpolation = cv2.INTER_AREA if size[1] < picture.shape[0] else cv2.INTER_LINEAR
        if picture.shape[1::-1] == size:
            scaled = picture
        else:
            scaled = cv2.resize(picture, size, interpolation=interpolation)
        parts += [np.zeros((size[1], GAP_PX, 3), np.uint8), scaled]
    return _encoded_jpeg(np.hstack(parts[1:]))


def sizes_in_row(sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """(width, height) of each of several pictures side by side: as high as the first one, aspect kept."""
    height = sizes[0][1]
    return [(max(1, round(across * height / down)), height) for across, down in sizes]


def contact_sheet(images: Sequence[Image], captions: Sequence[str], views: int = 1) -> Image:
    """Pictures in rows of COLUMNS, each with its caption burned into the upper left corner.

    views: how many cameras stand side by side in each.
    """
    tiles = [_decoded_pixels(image) for image in images]
    # All tiles have the size of the first picture's: a sheet is a grid
    size = (tiles[0].shape[1], tiles[0].shape[0])
    across, down = tile_size(size, views)
    columns = min(COLUMNS, len(tiles))
    width, height = sheet_size(size, len(tiles), views)
    sheet = np.zeros((height, width, 3), np.uint8)
    for k, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        # The caption is burned in after scaling, so that it stays readable
        small = cv2.resize(tile, (across, down), interpolation=cv2.INTER_AREA)
        (text_px, line_px), base = cv2.getTextSize(caption, FONT, FONT_SCALE, 1)
        cv2.rectangle(small, (0, 0), (text_px + 4, line_px + base + 3), (0, 0, 0), cv2.FILLED)
        cv2.putText(
            small, caption, (2, line_px + 2), FONT, FONT_SCALE, (255, 255, 255), 1, cv2.LINE_AA
        )
        row, column = divmod(k, columns)
        sheet[row * down : (row + 1) * down, column * across : (column + 1) * across] = small
    return _encoded_jpeg(sheet)


def tile_size(size: tuple[int, int], views: int = 1) -> tuple[int, int]:
    """(width, height) in a contact sheet of a picture of that size."""
    width, height = size
    scale = TILE_PX * views / max(width, height * views)
    return max(1, round(width * scale)), max(1, round(height * scale))


def sheet_size(size: tuple[int, int], num_pictures: int, views: int = 1) -> tuple[int, int]:
    """(width, height) of a contact sheet of so many pictures of that size."""
    across, down = tile_size(size, views)
    return min(COLUMNS, num_pictures) * across, -(-num_pictures // COLUMNS) * down


def _encoded_jpeg(picture: np.ndarray) -> Image:
    """BGR uint8 [h, w, 3]."""
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return Image.of(data.tobytes())


def _decoded_pixels(image: Image) -> np.ndarray:
    """BGR uint8 [h, w, 3]. Raises ValueError for a stored picture that is none."""
    return decode_stored(image.jpeg, f"the stored picture {image.sha256}")

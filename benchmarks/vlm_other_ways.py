"""Other ways to ask a model for the steps of a run, rebuilt from their descriptions, for benchmarks.vlm_stand_in.

LeRobot 0.6.1, by its documentation: contact sheets of 5 x 4 pictures of 224 px, two a second, at most 60 a prompt, so a
longer run is split into windows of 30 s; the steps are described, then divided, then each step is looked at once more
with the sheets of those before and after. Every frame has a step: idle time goes to the step before, and no step fails.
"""

import io
import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import batched, pairwise

from PIL import Image as Pillow

from annotate.model_client.calls import Image, Request
from annotate.model_client.tokens import CHARS_PER_TOKEN, prompt_tokens
from core.domain.label import STEP, Label, Segment, plain_label

QUESTION = "Divide the run into its steps, in order: of each the time in seconds at which it begins, and what is done. "
FORM = QUESTION * 4  # rules and the form of the reply, of usual length
TILE_PX = 224
ACROSS = 5
DOWN = 4
WINDOW_S = 30
PICTURES_PER_S = 2


def blank(width: int, height: int) -> Image:
    """A picture of that size that shows nothing."""
    data = io.BytesIO()
    Pillow.new("RGB", (width, height)).save(data, "JPEG")
    return Image.of(data.getvalue())


def reply_tokens(value: object) -> int:
    """A reply that says `value`, written as guided decoding writes it, and its end."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return 1 + math.ceil(len(text) / CHARS_PER_TOKEN)


@cache
def sheet() -> Image:
    return blank(ACROSS * TILE_PX, DOWN * TILE_PX)


def label_by_pictures(segments: Sequence[Segment], frames: Sequence[int], num_frames: int) -> Label:
    """What a model says that sees some frames: each activity begins at the first picture of it, and none fails."""
    starts = [s.start_frame for s in segments]
    segment_numbers = [bisect_right(starts, frame) - 1 for frame in frames]
    begins = [
        (frames[0], segment_numbers[0]),
        *(
            (f, b)
            for f, (a, b) in zip(frames[1:], pairwise(segment_numbers), strict=True)
            if a != b
        ),
    ]
    ends = [frame for frame, _ in begins[1:]] + [num_frames]
    shown_segments = [
        replace(segments[k], start_frame=start, end_frame=end, completed=True)
        for (start, k), end in zip(begins, ends, strict=True)
    ]
    steps = dict.fromkeys(s.step for s in shown_segments if s.kind == STEP)
    numbers = {step: k for k, step in enumerate(steps)}
    numbered = [replace(s, step=numbers[s.step]) if s.kind == STEP else s for s in shown_segments]
    return plain_label(numbered, len(numbers), None)


def without_idle(segments: Sequence[Segment]) -> list[Segment]:
    """Every frame has a step: what is none belongs to the step before, and the beginning to the first one."""
    steps = [s for s in segments if s.kind == STEP]
    starts = [0, *(s.start_frame for s in steps[1:])]
    ends = [*starts[1:], segments[-1].end_frame]
    return [
        replace(s, start_frame=a, end_frame=b) for s, a, b in zip(steps, starts, ends, strict=True)
    ]


def bill(requests: Sequence[tuple[Sequence[Image], object]]) -> tuple[int, int]:
    """Calls and tokens of requests: their pictures, and what is replied."""
    tokens = 0
    for images, reply in requests:
        request = Request(
            stage="segment", system=FORM, content=(*images, QUESTION), schema=None, max_tokens=1
        )
        tokens += prompt_tokens(request) + reply_tokens(reply)
    return len(requests), tokens


def plainly(
    segments: Sequence[Segment], num_frames: int, fps: float, picture: Image
) -> tuple[Label, int, int]:
    """The label of one request with a picture a second, its calls and its tokens."""
    frames = [min(num_frames - 1, round(k * fps)) for k in range(max(2, int(num_frames / fps)))]
    label = label_by_pictures(segments, frames, num_frames)
    reply = [{"start_s": s.start_frame, "step": s.name} for s in label.segments]
    return label, *bill([([picture] * len(frames), reply)])


def as_lerobot(segments: Sequence[Segment], num_frames: int, fps: float) -> tuple[Label, int, int]:
    """The label of LeRobot's way, its calls and its tokens."""
    stride = max(1, round(fps / PICTURES_PER_S))
    frames = list(range(0, num_frames, stride))
    label = label_by_pictures(without_idle(segments), frames, num_frames)
    requests: list[tuple[Sequence[Image], object]] = []
    for window in batched(frames, WINDOW_S * PICTURES_PER_S):
        sheets = [sheet()] * -(-len(window) // (ACROSS * DOWN))
        window_segments = [s for s in label.segments if window[0] <= s.start_frame <= window[-1]]
        reply = [{"start_s": s.start_frame, "step": s.name} for s in window_segments]
        requests += [(sheets, "A sentence of what is seen. " * 4), (sheets, reply)]
    for k in range(len(label.segments)):
        near_segments = label.segments[max(0, k - 1) : k + 2]
        sheets = [sheet()] * sum(-(-len(s) // (stride * ACROSS * DOWN)) for s in near_segments)
        requests.append((sheets, {"step": label.segments[k].name}))
    return label, *bill(requests)

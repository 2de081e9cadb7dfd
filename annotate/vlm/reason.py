"""The reason stage: the state of the task at chosen frames, in words.

The model is told what the segments say of each moment: its text explains the label and is no evidence for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import starmap

import annotate.vlm.prompts as prompts
import annotate.vlm.schemas as schemas
from annotate.segments import STEP, Segment, completed_steps
from annotate.vlm.config import VlmConfig
from annotate.vlm.pictures import Ask, EpisodeView, all_results, load_pictures
from annotate.vlm.windows import Window, in_batches, shown_frames, windows

MOMENTS_PER_CALL = 12
NEAR_BITS = 1  # perceptual hashes that differ by no more are of near-identical pictures


@dataclass(frozen=True)
class Reasoning:
    frame_index: int
    text: str
    finished: bool  # all planned steps are complete by the end of this frame


async def reason_episode(
    view: EpisodeView, segments: Sequence[Segment], num_planned: int, ask: Ask, config: VlmConfig
) -> list[Reasoning]:
    """A text for one shown frame per reason_interval_s; near-identical ones within a segment share theirs.

    A frame of which the model wrote nothing that can be seen is left out. `view.task` is the inferred task where the
    dataset states none. Raises VlmError and what `view.load` raises.
    """
    shown = shown_frames(view.frames, view.num_frames, config)
    parts = windows(shown, config)
    chosen = chosen_frames(shown, view.fps, config.reason_interval_s)
    text_of = _frames_with_text(view, segments, chosen)
    # Each frame that needs a text of its own is asked about in the first window that shows it
    asked: dict[Window, list[int]] = {}
    for frame in dict.fromkeys(text_of.values()):
        asked.setdefault(next(w for w in parts if frame in w), []).append(frame)
    pictures = await load_pictures(view, list(asked), sheets=config.contact_sheet)
    # The segments name the steps that were attempted
    names = {s.step: s.name for s in segments if s.step is not None}
    steps = prompts.step_list([names.get(step, "not attempted in this run") for step in range(num_planned)])
    task = prompts.task_text(view.task) if view.task else "The dataset does not state the task."
    texts: dict[int, str] = {}
    state = partial(_state, segments, num_planned)

    async def explain(window: Window, frames: list[int]) -> None:
        numbers = [window.index(frame) + 1 for frame in frames]
        moments = (
            f"{schemas.picture_key(number)}, {prompts.seconds(frame, view.fps)} s: {state(frame)}"
            for frame, number in zip(frames, numbers, strict=True)
        )
        question = prompts.render(
            "reason", task=task, steps=steps, moments="\n".join(moments), max_chars=schemas.REASON_CHARS
        )
        reply = await ask(prompts.request("reason", pictures[window], question, schemas.reason(numbers), config))
        for frame, number in zip(frames, numbers, strict=True):
            texts[frame] = prompts.one_line(reply.value[schemas.picture_key(number)])

    # All questions at once; frames that share a text get it together with the one that was asked about. A model may
    # write nothing that can be seen: then there is no reason rather than an empty one
    await all_results(*starmap(explain, in_batches(asked, MOMENTS_PER_CALL)))
    return [
        Reasoning(frame, text, len(completed_steps(segments, frame)) == num_planned)
        for frame in chosen
        if (text := texts[text_of[frame]])
    ]


def chosen_frames(shown: Window, fps: float, interval_s: float) -> list[int]:
    """The first shown frame, then always the next one at least `interval_s` later.

    Example: of frames 0, 30, 60 ... at 30 fps an interval of 2 s chooses 0, 60, 120 ...
    """
    chosen = [shown[0]]
    for f in shown[1:]:
        if f - chosen[-1] >= interval_s * fps:
            chosen.append(f)
    return chosen


def _frames_with_text(view: EpisodeView, segments: Sequence[Segment], chosen: Sequence[int]) -> dict[int, int]:
    """For each chosen frame the earlier one of its segment whose text it shares, or itself."""
    text_of: dict[int, int] = {}
    asked: list[int] = []
    for frame in chosen:
        segment = _at(segments, frame)
        near = (f for f in asked if (int(view.phash[f]) ^ int(view.phash[frame])).bit_count() <= NEAR_BITS)
        text_of[frame] = next((f for f in near if _at(segments, f) is segment), frame)
        if text_of[frame] == frame:
            asked.append(frame)
    return text_of


def _state(segments: Sequence[Segment], num_planned: int, frame: int) -> str:
    """What the segments say of a moment."""
    s, complete = _at(segments, frame), completed_steps(segments, frame)
    now = f"step {(s.step or 0) + 1}, {prompts.quote(s.name)}" if s.kind == STEP else s.kind
    left = [str(step + 1) for step in range(num_planned) if step not in complete]
    return f"{now}; steps still to complete: {', '.join(left) or 'none'}"


def _at(segments: Sequence[Segment], frame: int) -> Segment:
    return next(s for s in segments if s.start_frame <= frame < s.end_frame)

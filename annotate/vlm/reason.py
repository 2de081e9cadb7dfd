"""The reason stage: the state of the task at chosen frames, in words.

The model is told what the segments say of each moment: its text explains the label and is no evidence for it.
"""

from collections.abc import Sequence

import annotate.vlm.prompts as prompts
import annotate.vlm.schemas as schemas
from annotate.model_client.calls import Reply, VlmError
from annotate.segments import STEP, Segment, completed_steps
from annotate.vlm.config import VlmConfig
from annotate.vlm.pictures import load_pictures
from annotate.vlm.view import Ask, EpisodeView, Reasoning, all_results
from annotate.vlm.windows import Window, in_batches, shown_frames, windows

MOMENTS_PER_CALL = 12
NEAR_BITS = 1  # perceptual hashes that differ by no more are of near-identical pictures


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
        window = next(w for w in parts if frame in w)
        asked.setdefault(window, []).append(frame)
    pictures = await load_pictures(view, list(asked), sheets=config.contact_sheet)

    async def explain(window: Window, frames: list[int]) -> dict[int, str]:
        question = _question(view, segments, num_planned, window, frames)
        schema = schemas.reason([_number(window, frame) for frame in frames])
        reply = await ask(prompts.request("reason", pictures[window], question, schema, config))
        return {frame: _text(reply, _number(window, frame)) for frame in frames}

    # All questions at once; frames that share a text get it together with the one that was asked about
    batches = in_batches(asked, MOMENTS_PER_CALL)
    texts: dict[int, str] = {}
    for answer in await all_results(*(explain(window, frames) for window, frames in batches)):
        texts |= answer
    reasoning = []
    for frame in chosen:
        text = texts[text_of[frame]]
        # A model may write nothing that can be seen: then there is no reason rather than an empty one
        if text:
            is_finished = len(completed_steps(segments, frame)) == num_planned
            reasoning.append(Reasoning(frame, text, is_finished))
    return reasoning


def _question(
    view: EpisodeView, segments: Sequence[Segment], num_planned: int, window: Window, frames: Sequence[int]
) -> str:
    task = prompts.task_text(view.task) if view.task else "The dataset does not state the task."
    moments = [_moment(view, segments, num_planned, frame, _number(window, frame)) for frame in frames]
    return prompts.render(
        "reason",
        task=task,
        steps=prompts.step_list(_step_names(segments, num_planned)),
        moments="\n".join(moments),
        max_chars=schemas.REASON_CHARS,
    )


def _step_names(segments: Sequence[Segment], num_planned: int) -> list[str]:
    """Of all planned steps; the segments name those that were attempted."""
    names = {s.step: s.name for s in segments if s.step is not None}
    return [names.get(step, "not attempted in this run") for step in range(num_planned)]


def _number(window: Window, frame: int) -> int:
    """Of the picture that shows the frame, from 1."""
    return window.index(frame) + 1


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
    asked: dict[int, list[int]] = {}  # by segment
    for frame in chosen:
        of_segment = asked.setdefault(_at(segments, frame), [])
        twin = next((earlier for earlier in of_segment if _looks_like(view, frame, earlier)), None)
        if twin is None:
            of_segment.append(frame)
        text_of[frame] = frame if twin is None else twin
    return text_of


def _looks_like(view: EpisodeView, frame: int, other: int) -> bool:
    differing_bits = int(view.phash[frame]) ^ int(view.phash[other])
    return differing_bits.bit_count() <= NEAR_BITS


def _at(segments: Sequence[Segment], frame: int) -> int:
    return next(k for k, s in enumerate(segments) if s.start_frame <= frame < s.end_frame)


def _moment(view: EpisodeView, segments: Sequence[Segment], num_planned: int, frame: int, number: int) -> str:
    s = segments[_at(segments, frame)]
    now = f"step {(s.step or 0) + 1}, {prompts.quote(s.name)}" if s.kind == STEP else s.kind
    complete = completed_steps(segments, frame)
    left = [str(step + 1) for step in range(num_planned) if step not in complete]
    key = schemas.picture_key(number)
    return f"{key}, {prompts.seconds(frame, view.fps)} s: {now}; steps still to complete: {', '.join(left) or 'none'}"


def _text(reply: Reply, number: int) -> str:
    text = reply.value.get(schemas.picture_key(number))
    if not isinstance(text, str):
        raise VlmError("bad_reply", f"the reply of the reason stage says nothing of picture {number}")
    return prompts.one_line(text)

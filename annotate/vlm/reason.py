"""The reason stage: the state of the task at chosen frames, in words.

The model is told what the segments say of each moment: its text explains the label and is no evidence for it.
"""

from collections.abc import Sequence

from annotate.model_client.calls import Reply, VlmError
from annotate.segments import STEP, Segment, undo
from annotate.vlm import prompts, schemas
from annotate.vlm.config import VlmConfig
from annotate.vlm.pictures import load_pictures
from annotate.vlm.view import Ask, EpisodeView, Reasoning, together
from annotate.vlm.windows import Window, shown_frames, windows

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
    shares = _shared(view, segments, chosen)
    asked: dict[Window, list[int]] = {}
    for frame in dict.fromkeys(shares.values()):
        asked.setdefault(next(w for w in parts if frame in w), []).append(frame)
    batches = [
        (window, frames[a : a + MOMENTS_PER_CALL])
        for window, frames in asked.items()
        for a in range(0, len(frames), MOMENTS_PER_CALL)
    ]
    pictures = await load_pictures(view, list(asked), sheets=config.contact_sheet)
    names = {s.step: s.name for s in segments if s.step is not None}
    steps = prompts.step_list([names.get(k, "not attempted in this run") for k in range(num_planned)])

    async def explain(window: Window, frames: list[int]) -> dict[int, str]:
        numbers = {window.index(f) + 1: f for f in frames}
        moments = "\n".join(_moment(view, segments, num_planned, f, number) for number, f in numbers.items())
        question = prompts.render(
            "reason",
            task=prompts.task_text(view.task) if view.task else "The dataset does not state the task.",
            steps=steps,
            moments=moments,
            max_chars=schemas.REASON_CHARS,
        )
        request = prompts.request("reason", pictures[window], question, schemas.reason(list(numbers)), config)
        reply = await ask(request)
        return {f: _text(reply, number) for number, f in numbers.items()}

    texts: dict[int, str] = {}
    for answer in await together(*(explain(*b) for b in batches)):
        texts |= answer
    return [
        Reasoning(f, texts[shares[f]], len(_complete(segments, f)) == num_planned) for f in chosen if texts[shares[f]]
    ]


def chosen_frames(shown: Window, fps: float, interval_s: float) -> list[int]:
    """The first shown frame, then always the next one at least `interval_s` later."""
    chosen = [shown[0]]
    for f in shown[1:]:
        if f - chosen[-1] >= interval_s * fps:
            chosen.append(f)
    return chosen


def _shared(view: EpisodeView, segments: Sequence[Segment], chosen: Sequence[int]) -> dict[int, int]:
    """For each chosen frame the earlier one of its segment whose text it shares, or itself."""
    shares: dict[int, int] = {}
    asked: dict[int, list[int]] = {}  # by segment
    for f in chosen:
        own = asked.setdefault(_at(segments, f), [])
        here = int(view.phash[f])
        twin = next((g for g in own if (here ^ int(view.phash[g])).bit_count() <= NEAR_BITS), None)
        if twin is None:
            own.append(f)
        shares[f] = f if twin is None else twin
    return shares


def _at(segments: Sequence[Segment], frame: int) -> int:
    return next(k for k, s in enumerate(segments) if s.start_frame <= frame < s.end_frame)


def _complete(segments: Sequence[Segment], frame: int) -> set[int]:
    """Planned steps that are complete by the end of a frame."""
    done: set[int] = set()
    for s in segments:
        if s.step is not None and s.start_frame <= frame:
            done = undo(done, s.step)
            if s.completed and s.end_frame <= frame + 1:
                done = done | {s.step}
    return done


def _moment(view: EpisodeView, segments: Sequence[Segment], num_planned: int, frame: int, number: int) -> str:
    s = segments[_at(segments, frame)]
    now = f"step {(s.step or 0) + 1}, {prompts.quote(s.name)}" if s.kind == STEP else s.kind
    complete = _complete(segments, frame)
    left = [str(k + 1) for k in range(num_planned) if k not in complete]
    key = schemas.picture_key(number)
    return f"{key}, {prompts.seconds(frame, view.fps)} s: {now}; steps still to complete: {', '.join(left) or 'none'}"


def _text(reply: Reply, number: int) -> str:
    text = reply.value.get(schemas.picture_key(number))
    if not isinstance(text, str):
        raise VlmError("bad_reply", f"the reply of the reason stage says nothing of picture {number}")
    return prompts.plain(text)

"""The `vlm` annotator: plan, segment, refine, verify, and reason (annotate.vlm.reason).

Pure functions over `ask`: the same replies give the same label. Calls for an episode of S segments that W windows hold
(one, unless it is long): 1 plan; W segment, twice that with two passes, W more for the gate's strong model; refine for
each of S - 1 boundaries as many as narrow it to one frame (2 at 30 fps and a picture per second); verify and reason one
per window and 12 attempts or moments. Plan, segment, verify and reason of one window begin with the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import annotate.vlm.prompts as prompts
import annotate.vlm.schemas as schemas
from annotate.label import EpisodeLabel
from annotate.model_client.calls import Reply, VlmError
from annotate.segments import DONE, IDLE, STEP, Segment, finished
from annotate.vlm.confidence import MATCH_S, agree, confidences
from annotate.vlm.config import VlmConfig
from annotate.vlm.pictures import Pictures, load_pictures
from annotate.vlm.view import Ask, EpisodeView, all_results
from annotate.vlm.windows import (
    Span,
    Window,
    capacity,
    dense_frames,
    in_batches,
    merged,
    search_ranges,
    shifted_frames,
    shown_frames,
    spans_of,
    spread,
    windows,
)

ATTEMPTS_PER_CALL = 12


@dataclass(frozen=True)
class Plan:
    task: str
    inferred: bool
    names: tuple[str, ...]  # of the planned steps
    notes: tuple[str, ...]

    @property
    def task_text(self) -> str:
        return prompts.task_text(self.task, inferred=self.inferred)


@dataclass(frozen=True)
class Looks:
    """What one or several looks at the pictures agree on."""

    spans: list[Span]  # the ones that count
    other: list[Span] | None = None  # of another look, if there was one
    needs_review: bool = False
    notes: tuple[str, ...] = ()


async def annotate_episode(view: EpisodeView, ask: Ask, config: VlmConfig) -> EpisodeLabel:
    """Raises VlmError, what `view.load` raises, and ValueError for an episode of a single frame."""
    if view.num_frames < 2:
        raise ValueError(f"{view.dataset} episode {view.episode_index} has {view.num_frames} frame: nothing can change")
    # A long episode is seen in several windows; the plan sees all of it at once, in fewer pictures
    shown = shown_frames(view.frames, view.num_frames, config)
    parts = windows(shown, config)
    overview = spread(shown, capacity(config))
    pictures = await load_pictures(view, [overview, *parts], sheets=config.contact_sheet)

    # Coarsely first: which steps there are, and between which two pictures each activity begins
    plan = await _plan(view, pictures[overview], ask, config)
    looks = await _segment_and_check(view, plan, shown, pictures, ask, config)
    starts = [span.start for span in looks.spans]
    if config.refine:
        starts = await _refine(view, plan, looks.spans, ask, config)

    # Then the segments: were they completed, by the model, and by what the dataset knows of the episode?
    segments = _segments(plan, looks.spans, starts, view.num_frames)
    if config.verify:
        segments = await _verify(view, plan, segments, parts, pictures, ask, config)
    segments = _corrected_by_outcome(segments, len(plan.names), view.success)
    doubts = _doubts(segments, len(plan.names), view.success)

    # The confidence comes last: it compares boundaries after they were refined
    tolerance = _tolerance(view, config)
    confidence = confidences(looks.spans, starts, view.num_frames, looks.other, view.motion_cuts, tolerance)
    return EpisodeLabel(
        segments=[replace(s, confidence=c) for s, c in zip(segments, confidence, strict=True)],
        num_planned=len(plan.names),
        task=plan.task,
        task_inferred=plan.inferred,
        needs_review=looks.needs_review,
        notes=list(dict.fromkeys((*plan.notes, *looks.notes, *doubts))),
        plan=plan.names,
    )


async def _plan(view: EpisodeView, pictures: Pictures, ask: Ask, config: VlmConfig) -> Plan:
    """The planned steps; a step told twice in a row is one."""
    stated = view.task if view.task and view.task.strip() else None
    verbs = ", ".join(map(prompts.quote, config.vocabulary))
    question = prompts.render("plan", task=prompts.task_text(stated), verbs=verbs, max_steps=config.max_steps)
    schema = schemas.plan(config.vocabulary, config.max_steps, infer_task=stated is None)
    reply = await ask(prompts.request("plan", pictures, question, schema, config))
    task, steps = _planned(reply, stated)

    names: list[str] = []
    notes: list[str] = []
    for name in steps:
        # Two steps of one name in a row cannot be told apart in pictures
        is_repeated = bool(names) and name.casefold() == names[-1].casefold()
        if is_repeated:
            notes.append(f"plan: {name!r} told twice in a row: merged")
        else:
            names.append(name)
    return Plan(task, stated is None, tuple(names), tuple(notes))


def _planned(reply: Reply, stated: str | None) -> tuple[str, list[str]]:
    """The task, stated or as the reply infers it, and the steps of the reply. Raises VlmError where it has none."""
    value = reply.value
    try:
        task = stated if stated is not None else prompts.one_line(value["task"])
        steps = [prompts.one_line(f"{step['verb']} {step['object']}") for step in value["steps"]]
    except (KeyError, TypeError, AttributeError) as e:
        raise VlmError("bad_reply", f"the reply of the plan stage is not what was asked for: {e!r}") from None
    if not steps:
        raise VlmError("bad_reply", "the reply of the plan stage has no steps")
    return task, steps


async def _segment_and_check(
    view: EpisodeView, plan: Plan, shown: Window, pictures: dict[Window, Pictures], ask: Ask, config: VlmConfig
) -> Looks:
    """The spans of one pass, or of two that are compared.

    The gate: where two passes differ, the strong model decides between them; where it sides with neither, or there is
    none, people do.
    """
    if config.passes == 1:
        return Looks(await _segment(view, plan, shown, pictures, ask, config))
    # Other frames, so that the second look is not the first one again
    shifted = shifted_frames(shown)
    shifted_pictures = await load_pictures(view, windows(shifted, config), sheets=config.contact_sheet)
    first, second = await all_results(
        _segment(view, plan, shown, pictures, ask, config),
        _segment(view, plan, shifted, shifted_pictures, ask, config),
    )
    # Without a gate the first pass counts, and the second serves its confidence
    tolerance = _tolerance(view, config)
    if config.gate_tolerance_s is None or agree(first, second, tolerance):
        return Looks(first, second)
    if config.strong_model is None:
        return Looks(first, second, needs_review=True, notes=("the two passes differ",))
    # Two against one: the pass that the strong model agrees with counts
    strong = await _segment(view, plan, shown, pictures, ask, config, model=config.strong_model)
    for which, spans in (("first", first), ("second", second)):
        if agree(spans, strong, tolerance):
            note = f"the two passes differ; the strong model agrees with the {which}"
            return Looks(spans, strong, notes=(note,))
    note = "the two passes differ, and the strong model agrees with neither"
    return Looks(strong, first, needs_review=True, notes=(note,))


def _tolerance(view: EpisodeView, config: VlmConfig) -> float:
    """Frames."""
    return (config.gate_tolerance_s or MATCH_S) * view.fps


async def _segment(
    view: EpisodeView,
    plan: Plan,
    shown: Window,
    pictures: dict[Window, Pictures],
    ask: Ask,
    config: VlmConfig,
    *,
    model: str = "",
) -> list[Span]:
    parts = windows(shown, config)
    whole = len(parts) == 1
    steps = prompts.step_list(plan.names)

    async def look(window: Window) -> tuple[Window, list[Span]]:
        # A model that sees a part must not take its end for the end of the run
        start, end = (prompts.seconds(window[k], view.fps) for k in (0, -1))
        part = f"the stretch from {start} s to {end} s, a part of the run whose rest is divided elsewhere,"
        question = prompts.render(
            "segment",
            task=plan.task_text,
            steps=steps,
            part="the run" if whole else part,
            at_least="; there is at least one" if whole else "; there may be none",
        )
        schema = schemas.segment(len(window), len(plan.names), min_changes=int(whole))
        request = prompts.request("segment", pictures[window], question, schema, config, model=model)
        return window, spans_of((await ask(request)).value, window, len(plan.names))

    return merged(await all_results(*(look(window) for window in parts)))


async def _refine(view: EpisodeView, plan: Plan, spans: Sequence[Span], ask: Ask, config: VlmConfig) -> list[int]:
    """The first frame of each span, exactly: the range of each boundary is narrowed, reply by reply, to one frame."""
    ranges = search_ranges(spans, view.num_frames)
    while any(low < high for low, high in ranges):
        ranges = await _narrowed(view, plan, spans, ranges, ask, config)
    return [0, *(low for low, _ in ranges)]


async def _narrowed(
    view: EpisodeView,
    plan: Plan,
    spans: Sequence[Span],
    ranges: Sequence[tuple[int, int]],
    ask: Ask,
    config: VlmConfig,
) -> list[tuple[int, int]]:
    """The ranges after one more look at each that has more than one frame."""

    async def look(boundary: int, window: Window, shown: Pictures) -> Reply:
        question = _boundary_question(view, plan, spans[boundary], spans[boundary + 1], window)
        return await ask(prompts.request("refine", shown, question, schemas.refine(len(window)), config))

    wide = [k for k, (low, high) in enumerate(ranges) if low < high]
    dense = {k: dense_frames(*ranges[k], config.refine_images) for k in wide}
    pictures = await load_pictures(view, list(dense.values()))
    replies = await all_results(*(look(k, window, pictures[window]) for k, window in dense.items()))

    # A change lies between the picture that shows the next activity first, and the one before it
    narrowed = list(ranges)
    for (k, window), reply in zip(dense.items(), replies, strict=True):
        picture = _picture_of_change(reply, len(window))
        narrowed[k] = (window[picture - 2] + 1, window[picture - 1])
    return narrowed


def _boundary_question(view: EpisodeView, plan: Plan, before: Span, after: Span, window: Window) -> str:
    is_retry = before.label == after.label
    spacing_s = max(b - a for a, b in pairwise(window)) / view.fps
    return prompts.render(
        "refine",
        task=plan.task_text,
        spacing=f"{spacing_s:.3f}",
        before=prompts.activity(before.label, plan.names) + (", a try that ends" if is_retry else ""),
        after=prompts.activity(after.label, plan.names) + (", tried anew" if is_retry else ""),
    )


def _picture_of_change(reply: Reply, num_pictures: int) -> int:
    """The first picture of the next activity, from 2. Raises VlmError where the reply names none."""
    picture = reply.value.get("picture")
    if not isinstance(picture, int) or isinstance(picture, bool) or not 2 <= picture <= num_pictures:
        raise VlmError("bad_reply", f"the reply of the refine stage names picture {picture!r}")
    return picture


def _segments(plan: Plan, spans: Sequence[Span], starts: Sequence[int], num_frames: int) -> list[Segment]:
    segments = []
    for span, (start, end) in zip(spans, pairwise([*starts, num_frames]), strict=True):
        notes = "; ".join(span.notes) or None
        if isinstance(span.label, int):
            name = plan.names[span.label]
            segments.append(Segment(name, start, end, STEP, span.completed, span.label, notes=notes))
        else:
            name = span.label.capitalize()
            segments.append(Segment(name, start, end, span.label, span.label == DONE, notes=notes))
    return segments


async def _verify(
    view: EpisodeView,
    plan: Plan,
    segments: list[Segment],
    parts: Sequence[Window],
    pictures: dict[Window, Pictures],
    ask: Ask,
    config: VlmConfig,
) -> list[Segment]:
    """The segments with `completed` as judged, each attempt in the window that shows most of what surrounds its end."""
    # Each attempt goes to the window that is centred best on its end: that is where completion shows
    attempts_in: dict[Window, list[int]] = {}
    for k, segment in enumerate(segments):
        if segment.kind == STEP:
            attempts_in.setdefault(_window_around(segment.end_frame, parts), []).append(k)
    batches = in_batches(attempts_in, ATTEMPTS_PER_CALL)

    async def judge(window: Window, batch: list[int]) -> Reply:
        attempts = "\n".join(_attempt(view, segments[k], number) for number, k in enumerate(batch, 1))
        question = prompts.render("verify", task=plan.task_text, steps=prompts.step_list(plan.names), attempts=attempts)
        return await ask(prompts.request("verify", pictures[window], question, schemas.verify(len(batch)), config))

    replies = await all_results(*(judge(window, batch) for window, batch in batches))
    judged = list(segments)
    for (_, batch), reply in zip(batches, replies, strict=True):
        for number, k in enumerate(batch, 1):
            judged[k] = _judged(segments[k], reply, number)
    return judged


def _window_around(frame: int, parts: Sequence[Window]) -> Window:
    """The window whose middle is nearest to the frame."""
    return min(parts, key=lambda window: abs(window[0] + window[-1] - 2 * frame))


def _attempt(view: EpisodeView, s: Segment, number: int) -> str:
    start, end = prompts.seconds(s.start_frame, view.fps), prompts.seconds(s.end_frame, view.fps)
    return f"attempt_{number}: step {(s.step or 0) + 1}, {prompts.quote(s.name)}, from {start} s to {end} s"


def _judged(attempt: Segment, reply: Reply, number: int) -> Segment:
    """The attempt as the reply judges its `number`-th one. Raises VlmError where it does not."""
    verdict = reply.value.get(schemas.attempt_key(number))
    completed = verdict.get("completed") if isinstance(verdict, dict) else None
    if not isinstance(completed, bool):
        raise VlmError("bad_reply", f"the reply of the verify stage does not judge attempt {number}")
    if completed == attempt.completed:
        return attempt
    before = "completed" if attempt.completed else "not completed"
    return _noted(replace(attempt, completed=completed), f"seen as {before} before it was verified")


def _corrected_by_outcome(segments: list[Segment], num_planned: int, success: bool | None) -> list[Segment]:
    """What the dataset knows of success overrules; time after the task is `done` only if the task is."""
    corrected = _failed_at_the_end(segments, num_planned) if success is False else list(segments)
    for k, segment in enumerate(corrected):
        if segment.kind == DONE and not finished(corrected[:k], num_planned):
            idle = replace(segment, name=IDLE.capitalize(), kind=IDLE, completed=False)
            corrected[k] = _noted(idle, "told done, but steps are left")
    return corrected


def _failed_at_the_end(segments: list[Segment], num_planned: int) -> list[Segment]:
    """The segments of a run that failed: the attempt that would have finished the task did not complete its step."""
    failed = list(segments)
    last = max((k for k, s in enumerate(segments) if s.kind == STEP), default=None)
    if last is None or not segments[last].completed:
        return failed
    is_last_step = segments[last].step == num_planned - 1
    if is_last_step or finished(segments, num_planned):
        attempt = replace(segments[last], completed=False)
        failed[last] = _noted(attempt, "not completed: the dataset calls the episode a failure")
    return failed


def _doubts(segments: list[Segment], num_planned: int, success: bool | None) -> list[str]:
    if success and not finished(segments, num_planned):
        return ["the dataset calls the episode a success, but not every planned step was seen completed"]
    return []


def _noted(s: Segment, note: str) -> Segment:
    return replace(s, notes=f"{s.notes}; {note}" if s.notes else note)

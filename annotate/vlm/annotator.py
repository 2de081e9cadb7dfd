"""The `vlm` annotator: plan, segment, refine, verify, and reason (annotate.vlm.reason).

Pure functions over `ask`: the same replies give the same label. Calls for an episode of S segments that W windows hold
(one, unless it is long): 1 plan; W segment, twice that with two passes, W more for the gate's strong model; refine for
each of S - 1 boundaries as many as narrow it to one frame (2 at 30 fps and a picture per second); verify and reason one
per window and 12 attempts or moments. Plan, segment, verify and reason of one window begin with the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from annotate.label import EpisodeLabel
from annotate.model_client.calls import Reply, VlmError
from annotate.segments import DONE, IDLE, STEP, Segment, finished
from annotate.vlm import prompts, schemas
from annotate.vlm.confidence import MATCH_S, agree, confidences
from annotate.vlm.config import VlmConfig
from annotate.vlm.pictures import Pictures, load_pictures
from annotate.vlm.view import Ask, EpisodeView, together
from annotate.vlm.windows import (
    Span,
    Window,
    capacity,
    dense_frames,
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


async def annotate_episode(view: EpisodeView, ask: Ask, config: VlmConfig) -> EpisodeLabel:
    """Raises VlmError, what `view.load` raises, and ValueError for an episode of a single frame."""
    if view.num_frames < 2:
        raise ValueError(f"{view.dataset} episode {view.episode_index} has {view.num_frames} frame: nothing can change")
    shown = shown_frames(view.frames, view.num_frames, config)
    parts = windows(shown, config)
    overview = spread(shown, capacity(config))
    pictures = await load_pictures(view, [overview, *parts], sheets=config.contact_sheet)

    plan = await _plan(view, pictures[overview], ask, config)
    spans, other, review, notes = await _segment_and_check(view, plan, shown, pictures, ask, config)
    starts = [s.start for s in spans]
    if config.refine:
        starts = await _refine(view, plan, spans, ask, config)
    segments = _segments(plan, spans, starts, view.num_frames)
    if config.verify:
        segments = await _verify(view, plan, segments, parts, pictures, ask, config)
    segments, more = _outcome(segments, len(plan.names), view.success)
    sure = confidences(spans, starts, view.num_frames, other, view.motion_cuts, _tolerance(view, config))
    segments = [replace(s, confidence=c) for s, c in zip(segments, sure, strict=True)]
    told = list(dict.fromkeys((*plan.notes, *notes, *more)))
    return EpisodeLabel(segments, len(plan.names), plan.task, plan.inferred, review, told, tuple(plan.names))


async def _plan(view: EpisodeView, pictures: Pictures, ask: Ask, config: VlmConfig) -> Plan:
    """The planned steps; a step told twice in a row is one."""
    stated = view.task if view.task and view.task.strip() else None
    verbs = ", ".join(map(prompts.quote, config.vocabulary))
    question = prompts.render("plan", task=prompts.task_text(stated), verbs=verbs, max_steps=config.max_steps)
    schema = schemas.plan(config.vocabulary, config.max_steps, infer_task=stated is None)
    value = (await ask(prompts.request("plan", pictures, question, schema, config))).value
    names: list[str] = []
    notes = []
    try:
        task = stated if stated is not None else prompts.plain(value["task"])
        for step in value["steps"]:
            name = prompts.plain(f"{step['verb']} {step['object']}")
            if names and name.casefold() == names[-1].casefold():
                notes.append(f"plan: {name!r} told twice in a row: merged")
            else:
                names.append(name)
    except (KeyError, TypeError, AttributeError) as e:
        raise VlmError("bad_reply", f"the reply of the plan stage is not what was asked for: {e!r}") from None
    if not names:
        raise VlmError("bad_reply", "the reply of the plan stage has no steps")
    return Plan(task, stated is None, tuple(names), tuple(notes))


async def _segment_and_check(
    view: EpisodeView, plan: Plan, shown: Window, pictures: dict[Window, Pictures], ask: Ask, config: VlmConfig
) -> tuple[list[Span], list[Span] | None, bool, list[str]]:
    """The spans that count, those of another look if there was one, whether people should review, and notes.

    The gate: where two passes differ, the strong model decides between them; where it sides with neither, or there is
    none, people do.
    """
    if config.passes == 1:
        return await _segment(view, plan, shown, pictures, ask, config), None, False, []
    shifted = shifted_frames(shown)
    again = await load_pictures(view, windows(shifted, config), sheets=config.contact_sheet)
    first, second = await together(
        _segment(view, plan, shown, pictures, ask, config), _segment(view, plan, shifted, again, ask, config)
    )
    tolerance = _tolerance(view, config)
    if config.gate_tolerance_s is None or agree(first, second, tolerance):
        return first, second, False, []
    if config.strong_model is None:
        return first, second, True, ["the two passes differ"]
    strong = await _segment(view, plan, shown, pictures, ask, config, model=config.strong_model)
    for which, spans in (("first", first), ("second", second)):
        if agree(spans, strong, tolerance):
            return spans, strong, False, [f"the two passes differ; the strong model agrees with the {which}"]
    return strong, first, True, ["the two passes differ, and the strong model agrees with neither"]


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

    return merged(await together(*(look(w) for w in parts)))


async def _refine(view: EpisodeView, plan: Plan, spans: Sequence[Span], ask: Ask, config: VlmConfig) -> list[int]:
    """The first frame of each span, exactly: the range of each boundary is narrowed, reply by reply, to one frame."""
    ranges = search_ranges(spans, view.num_frames)
    words = [prompts.activity(s.label, plan.names) for s in spans]
    while open_ := [k for k, (low, high) in enumerate(ranges) if low < high]:
        dense = {k: dense_frames(*ranges[k], config.refine_images) for k in open_}
        pictures = await load_pictures(view, list(dense.values()))

        async def look(k: int, window: Window, shown: Pictures) -> Reply:
            retry = spans[k].label == spans[k + 1].label
            question = prompts.render(
                "refine",
                task=plan.task_text,
                spacing=f"{max(b - a for a, b in pairwise(window)) / view.fps:.3f}",
                before=words[k] + (", a try that ends" if retry else ""),
                after=words[k + 1] + (", tried anew" if retry else ""),
            )
            return await ask(prompts.request("refine", shown, question, schemas.refine(len(window)), config))

        replies = await together(*(look(k, w, pictures[w]) for k, w in dense.items()))
        for (k, window), reply in zip(dense.items(), replies, strict=True):
            picture = reply.value.get("picture")
            if not isinstance(picture, int) or isinstance(picture, bool) or not 2 <= picture <= len(window):
                raise VlmError("bad_reply", f"the reply of the refine stage names picture {picture!r}")
            ranges[k] = (window[picture - 2] + 1, window[picture - 1])
    return [0, *(low for low, _ in ranges)]


def _segments(plan: Plan, spans: Sequence[Span], starts: Sequence[int], num_frames: int) -> list[Segment]:
    out = []
    for s, (start, end) in zip(spans, pairwise([*starts, num_frames]), strict=True):
        notes = "; ".join(s.notes) or None
        if isinstance(s.label, int):
            out.append(Segment(plan.names[s.label], start, end, STEP, s.completed, s.label, notes=notes))
        else:
            out.append(Segment(s.label.capitalize(), start, end, s.label, s.label == DONE, notes=notes))
    return out


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
    groups: dict[Window, list[int]] = {}
    for k, s in enumerate(segments):
        if s.kind == STEP:
            window = min(parts, key=lambda w: abs(w[0] + w[-1] - 2 * s.end_frame))
            groups.setdefault(window, []).append(k)
    batches = [
        (window, found[a : a + ATTEMPTS_PER_CALL])
        for window, found in groups.items()
        for a in range(0, len(found), ATTEMPTS_PER_CALL)
    ]

    async def judge(window: Window, batch: list[int]) -> Reply:
        attempts = "\n".join(_attempt(view, segments[k], number) for number, k in enumerate(batch, 1))
        question = prompts.render("verify", task=plan.task_text, steps=prompts.step_list(plan.names), attempts=attempts)
        return await ask(prompts.request("verify", pictures[window], question, schemas.verify(len(batch)), config))

    out = list(segments)
    for (_, batch), reply in zip(batches, await together(*(judge(*b) for b in batches)), strict=True):
        for number, k in enumerate(batch, 1):
            verdict = reply.value.get(schemas.attempt_key(number))
            completed = verdict.get("completed") if isinstance(verdict, dict) else None
            if not isinstance(completed, bool):
                raise VlmError("bad_reply", f"the reply of the verify stage does not judge attempt {number}")
            if completed != out[k].completed:
                said = "completed" if out[k].completed else "not completed"
                out[k] = _noted(replace(out[k], completed=completed), f"seen as {said} before it was verified")
    return out


def _attempt(view: EpisodeView, s: Segment, number: int) -> str:
    start, end = prompts.seconds(s.start_frame, view.fps), prompts.seconds(s.end_frame, view.fps)
    return f"attempt_{number}: step {(s.step or 0) + 1}, {prompts.quote(s.name)}, from {start} s to {end} s"


def _outcome(segments: list[Segment], num_planned: int, success: bool | None) -> tuple[list[Segment], list[str]]:
    """What the dataset knows of success overrules; time after the task is `done` only if the task is."""
    out = list(segments)
    last = max((k for k, s in enumerate(out) if s.kind == STEP), default=None)
    if success is False and last is not None and out[last].completed:
        ended = out[last].step == num_planned - 1 or finished(out, num_planned)
        if ended:
            failed = replace(out[last], completed=False)
            out[last] = _noted(failed, "not completed: the dataset calls the episode a failure")
    for k, s in enumerate(out):
        if s.kind == DONE and not finished(out[:k], num_planned):
            out[k] = _noted(
                replace(s, name=IDLE.capitalize(), kind=IDLE, completed=False), "told done, but steps are left"
            )
    notes = []
    if success and not finished(out, num_planned):
        notes.append("the dataset calls the episode a success, but not every planned step was seen completed")
    return out, notes


def _noted(s: Segment, note: str) -> Segment:
    return replace(s, notes=f"{s.notes}; {note}" if s.notes else note)

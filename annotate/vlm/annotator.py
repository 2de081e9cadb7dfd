"""The `vlm` annotator: plan, segment, refine, verify, and reason.

Pure functions over `ask`: the same replies give the same label. Calls for an episode of S segments
that W windows hold (one, unless it is long): 1 plan; W segment, twice that with two passes, W more
for the gate's strong model; verify and reason one per 12 attempts or moments, which show the
pictures around these only. Where cheap models are unsure, those of their label and of the dear
one's. A boundary lies in the middle of the two pictures that it is seen between, or where the arm
shows it (`moments`); refine narrows some to a frame.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import batched, compress, pairwise

import annotate.vlm.prompts as prompts
import annotate.vlm.windows as windows
from annotate.config import VlmConfig
from annotate.model_client.calls import Reply, Request, VlmError
from annotate.model_client.reading import printable_line
from annotate.vlm.judgement import DOUBTED, implausibilities, with_note, with_outcome
from annotate.vlm.pictures import Ask, EpisodeView, all_results, load_pictures, settled_starts
from core.domain.label import DONE, STEP, Label, Segment, completed_steps
from core.values import spread

ATTEMPTS_PER_CALL = 12
PLAN_PICTURES = 24  # of a whole run: enough to see what is done
LEAST_IMAGES = 4  # of a window
CHEAP_GATE_S = 1.0  # by default, between boundaries of cheap looks


# By stage: of its usual pictures a question shows 1 / so many
type Parts = Mapping[str, int]
MOST_PARTS = 16


async def annotate_episode(view: EpisodeView, send_request: Ask, config: VlmConfig) -> Label:
    """Label an episode of two frames or more. Raises VlmError, and what `view.load` raises.

    Where a server cannot hold a question, those of its stage show half as many pictures, with a
    note. The cheap models label first, if there are some: the label of the first one counts, unless
    the look of the last one differs or something else is amiss. Then `model` is asked as if it were
    alone. Either way a note says whose the label is.
    """
    if not config.cheap_models:
        return await _label(view, send_request, config)
    changes = {
        "passes": 2,
        "gate_tolerance_s": config.gate_tolerance_s or CHEAP_GATE_S,
        "strong_model": None,
    }
    try:
        ask_cheap = _asking(send_request, config.asked_first[0])
        label = await _label(view, ask_cheap, config.model_copy(update=changes))
        if not label.needs_review:
            names = " and ".join(config.cheap_models)
            return replace(label, notes=[*label.notes, f"labelled by {names}"])
        doubt = "; ".join(label.notes)
    except VlmError as e:
        if e.is_fatal:
            raise
        doubt = str(e)
    label = await _label(view, send_request, config.model_copy(update={"cheap_models": ()}))
    return replace(label, notes=[*label.notes, f"labelled by {config.model}: {doubt}"])


async def _label(view: EpisodeView, send_request: Ask, config: VlmConfig) -> Label:
    return await _in_parts(
        send_request, lambda ask, parts: _Annotation(view, ask, config, parts).label()
    )


def _asking(ask: Ask, model: str) -> Ask:
    """Asks that model what names no other one; empty: the client's."""
    return lambda request: ask(replace(request, model=request.model or model))


async def _in_parts[T](send_request: Ask, answer: Callable[[Ask, Parts], Awaitable[T]]) -> T:
    """An answer of questions that the server can hold: made anew with fewer pictures until it can.

    Other questions are not asked again. Raises VlmError, also where 1 / MOST_PARTS is too many.
    """
    parts: dict[str, int] = dict.fromkeys(("plan", "segment", "refine", "verify", "reason"), 1)
    too_long: set[str] = set()
    replies: dict[str, Reply] = {}

    async def ask(request: Request) -> Reply:
        key = request.key("", None)
        try:
            if key not in replies:
                replies[key] = await send_request(request)
            return replies[key]
        except VlmError as e:
            if e.is_too_long:
                too_long.add(request.stage)
            raise

    while True:
        too_long.clear()
        try:
            return await answer(ask, parts)
        except VlmError as e:
            growing = [stage for stage in too_long if parts[stage] < MOST_PARTS]
            if not (e.is_too_long and growing):
                raise
        for stage in growing:
            parts[stage] *= 2


def _segments_with_moves(
    segments: Sequence[Segment], visible_starts: Sequence[int], fps: float
) -> list[Segment]:
    """With a note where one begins at a moment of the arm's, not where the model saw it."""
    off_s = [
        abs(s.start_frame - frame) / fps for s, frame in zip(segments, visible_starts, strict=True)
    ]
    notes = [f"put where the arm shows it, {seconds:.1f} s off the model's" for seconds in off_s]
    return [
        with_note(s, note) if off else s
        for s, note, off in zip(segments, notes, off_s, strict=True)
    ]


def _segments_from(
    starts: Sequence[int], segments: Sequence[Segment], num_frames: int
) -> list[Segment]:
    spans = pairwise([*starts, num_frames])
    return [
        replace(s, start_frame=a, end_frame=b) for s, (a, b) in zip(segments, spans, strict=True)
    ]


class _Annotation:
    """One episode being annotated: what is known of it so far."""

    def __init__(
        self, view: EpisodeView, send_request: Ask, config: VlmConfig, parts: Parts
    ) -> None:
        self.view = view
        self.ask = send_request
        self.config = config
        self.parts = parts
        # In frames. A look may miss a short activity: a cheap one no longer than by default
        self.tolerance = (config.gate_tolerance_s or windows.MATCH_S) * view.fps
        missable = windows.MATCH_S * view.fps if config.cheap_models else self.tolerance
        self.are_alike = partial(
            windows.are_looks_alike, tolerance=self.tolerance, shortest=2 * missable
        )
        self.task = view.task if view.task and view.task.strip() else None
        self.is_inferred = self.task is None
        self.plan: list[str] = []  # names of the planned steps
        self.notes = [
            f"{stage}: a question shows 1/{count} of the usual pictures, more do not fit the server"
            for stage, count in parts.items()
            if count > 1
        ]
        self.needs_review = False

    async def label(self) -> Label:
        view = self.view
        config = self.config
        # A long episode is seen in several windows; the plan sees all of it at once, in fewer pictures
        shown_frames = windows.shown_frames(view.frames, view.num_frames, view.fps, config)
        num_pictures = min(PLAN_PICTURES, config.max_images) // self.parts["plan"]
        overview = tuple(spread(shown_frames, max(2, num_pictures)))
        pictures = await load_pictures(
            view, [overview, *self._windows(shown_frames)], sheets=config.contact_sheet
        )

        # Coarsely first: which steps there are, and between which two pictures each activity begins
        await self._make_plan(pictures[overview])
        spans, other_spans = await self._compared_looks(shown_frames, pictures)
        visible_starts = await self._refined_starts(
            spans, self._doubtful_boundaries(spans, other_spans)
        )
        starts = settled_starts(spans, visible_starts, view.moments, view.fps, view.num_frames)

        # Then the segments: were they completed, by the model, and by what is known of the episode?
        segments = []
        for span, (start, end) in zip(spans, pairwise([*starts, view.num_frames]), strict=True):
            label = span.label
            if isinstance(label, int):
                segment = Segment(self.plan[label], start, end, STEP, span.completed, label)
            else:
                segment = Segment(label.capitalize(), start, end, label, label == DONE)
            segments.append(replace(segment, notes="; ".join(span.notes) or None))
        segments = _segments_with_moves(segments, visible_starts, view.fps)
        if config.verify:
            segments = await self._verified_segments(segments, shown_frames)

        # The confidence compares boundaries after they were refined; what is known comes last, it is the strongest
        by_motion = windows.expected_f1(visible_starts, view.motion_cuts, view.fps)
        confidence = windows.confidences(
            spans, starts, view.num_frames, other_spans, by_motion, self.tolerance
        )
        segments = [replace(s, confidence=c) for s, c in zip(segments, confidence, strict=True)]
        # Equal parts, as the model told them, are none any more where some were moved
        if doubts := implausibilities(
            _segments_from(visible_starts, segments, view.num_frames), self.plan, view.success
        ):
            self._review(*doubts)
            segments = [replace(s, confidence=min(s.confidence or 0.0, DOUBTED)) for s in segments]
        outcome = with_outcome(segments, self.plan, view.success, shown_frames)
        self.notes += outcome.notes
        self._review(*outcome.contradictions)

        assert self.task is not None
        return Label(
            segments=outcome.segments,
            num_planned=len(self.plan),
            task=self.task,
            task_inferred=self.is_inferred,
            needs_review=self.needs_review,
            notes=list(dict.fromkeys(self.notes)),
            plan=tuple(self.plan),
        )

    def _windows(self, shown_frames: windows.Window) -> list[windows.Window]:
        size = max(LEAST_IMAGES, self.config.max_images // self.parts["segment"])
        return windows.windows(shown_frames, self.config.model_copy(update={"max_images": size}))

    def _review(self, *doubts: str) -> None:
        self.notes += doubts
        self.needs_review = self.needs_review or bool(doubts)

    async def _is_answered(self, stage: str, ask: Callable[[], Awaitable[None]]) -> bool:
        """What a stage adds to a label; where it fails, the label stays and says so."""
        try:
            await ask()
        except VlmError as e:
            is_divisible = e.is_too_long and self.parts[stage] < MOST_PARTS
            if e.is_fatal or is_divisible:
                raise
            self.notes.append(f"{stage} failed, so the label is coarser ({e.reason}): {e}")
            return False
        return True

    async def _question(
        self, stage: str, pictures: prompts.Pictures, schema: prompts.Schema, **values: object
    ) -> Reply:
        """Ask a stage's question about pictures."""
        return await self.ask(
            prompts.request(stage, pictures, prompts.render(stage, **values), schema, self.config)
        )

    @property
    def _common_values(self) -> dict[str, str]:
        """What most questions say."""
        return {
            "task": prompts.task_text(self.task, inferred=self.is_inferred),
            "steps": prompts.step_list(self.plan),
        }

    async def _make_plan(self, pictures: prompts.Pictures) -> None:
        """The task, stated or inferred, and the planned steps; one told twice in a row is one."""
        config = self.config
        schema = prompts.plan_reply(
            config.vocabulary, config.max_steps, infer_task=self.is_inferred
        )
        reply = await self._question(
            "plan",
            pictures,
            schema,
            task=prompts.task_text(self.task),
            verbs=", ".join(map(prompts.quote, config.vocabulary)),
            max_steps=config.max_steps,
        )
        if self.task is None:
            self.task = printable_line(reply.value["task"])
        for step in reply.value["steps"]:
            name = printable_line(f"{step['verb']} {step['object']}")
            # Two steps of one name in a row cannot be told apart in pictures
            if self.plan and name.casefold() == self.plan[-1].casefold():
                self.notes.append(f"plan: {name!r} told twice in a row: merged")
            else:
                self.plan.append(name)

    async def _compared_looks(
        self, shown_frames: windows.Window, pictures: dict[windows.Window, prompts.Pictures]
    ) -> tuple[list[windows.Span], list[windows.Span] | None]:
        """The spans of one pass, or of two that are compared; and those of another look, if there was one.

        The gate: where two passes differ, the strong model decides between them; where it sides
        with neither, or there is none, people do.
        """
        config = self.config
        if config.passes == 1:
            return await self._spans_of_look(shown_frames, pictures), None
        # Other frames, so that the second look is not the first one again
        shifted = windows.shifted_frames(shown_frames)
        shifted_pictures = await load_pictures(
            self.view, self._windows(shifted), sheets=config.contact_sheet
        )
        first, second = await all_results(
            self._spans_of_look(shown_frames, pictures),
            self._spans_of_look(shifted, shifted_pictures, model=config.asked_first[-1]),
        )
        # Without a gate the first pass counts, and the second serves its confidence
        if config.gate_tolerance_s is None or self.are_alike(first, second):
            return first, second
        self.needs_review = True
        if config.strong_model is None:
            self.notes.append("the two passes differ")
            return first, second
        # Two against one: the pass that the strong model agrees with counts
        strong = await self._spans_of_look(shown_frames, pictures, model=config.strong_model)
        for pass_name, spans in (("first", first), ("second", second)):
            if self.are_alike(spans, strong):
                self.needs_review = False
                self.notes.append(
                    f"the two passes differ; the strong model agrees with the {pass_name}"
                )
                return spans, strong
        self.notes.append("the two passes differ, and the strong model agrees with neither")
        return strong, first

    async def _spans_of_look(
        self,
        shown_frames: windows.Window,
        pictures: dict[windows.Window, prompts.Pictures],
        *,
        model: str = "",
    ) -> list[windows.Span]:
        parts = self._windows(shown_frames)
        whole = len(parts) == 1

        async def look(window: windows.Window) -> tuple[windows.Window, list[windows.Span]]:
            # A model that sees a part must not take its end for the end of the run
            start, end = (prompts.seconds(window[k], self.view.fps) for k in (0, -1))
            part = f"the stretch from {start} s to {end} s, a part of the run whose rest is divided elsewhere,"
            question = prompts.render(
                "segment",
                **self._common_values,
                part="the run" if whole else part,
                at_least="; there is at least one" if whole else "; there may be none",
            )
            schema = prompts.segment_reply(window, len(self.plan), min_changes=int(whole))
            request = prompts.request(
                "segment", pictures[window], question, schema, self.config, model=model
            )
            return window, windows.spans_of((await self.ask(request)).value, window, len(self.plan))

        return windows.merged_spans(await all_results(*map(look, parts)))

    def _doubtful_boundaries(
        self, spans: Sequence[windows.Span], other_spans: Sequence[windows.Span] | None
    ) -> list[int]:
        """The boundaries to refine, by the span that each begins, from 1."""
        inner = range(1, len(spans))
        if self.config.refine != "doubtful":
            if self.config.refine:
                return [*inner]
            return []
        return [
            k
            for k in inner
            if other_spans is not None and not windows.is_met(spans[k], other_spans, self.tolerance)
        ]

    async def _refined_starts(
        self, spans: Sequence[windows.Span], doubtful: Sequence[int]
    ) -> list[int]:
        """The first frame of each span: in the middle of two pictures; of the doubtful ones narrowed to a frame."""
        ranges = windows.search_ranges(spans, self.view.num_frames)
        starts = [span.middle for span in spans]

        async def narrow(k: int, window: windows.Window, window_pictures: prompts.Pictures) -> None:
            previous_span = spans[k - 1]
            next_span = spans[k]
            is_retry = previous_span.label == next_span.label
            reply = await self._question(
                "refine",
                window_pictures,
                prompts.refine_reply(window),
                task=self._common_values["task"],
                spacing=f"{max(b - a for a, b in pairwise(window)) / self.view.fps:.3f}",
                before=prompts.activity(previous_span.label, self.plan)
                + (", a try that ends" if is_retry else ""),
                after=prompts.activity(next_span.label, self.plan)
                + (", tried anew" if is_retry else ""),
            )
            picture = int(reply.value["picture"])
            # A change lies between the picture that shows the next activity first, and the one before it
            ranges[k - 1] = (window[window.index(picture) - 1] + 1, picture)

        wide = [k for k in doubtful if ranges[k - 1][0] < ranges[k - 1][1]]
        while wide:
            count = max(3, self.config.refine_images // self.parts["refine"])
            dense = {k: windows.dense_frames(*ranges[k - 1], count) for k in wide}
            pictures = await load_pictures(self.view, list(dense.values()))
            requests = (partial(narrow, k, window, pictures[window]) for k, window in dense.items())
            are_answered = await all_results(
                *(self._is_answered("refine", ask) for ask in requests)
            )
            # A boundary that could not be narrowed stays where it was
            answered = [*compress(wide, are_answered)]
            starts = [
                sum(ranges[k - 1]) // 2 if k in answered else start
                for k, start in enumerate(starts)
            ]
            wide = [k for k in answered if ranges[k - 1][0] < ranges[k - 1][1]]
        # A refined boundary may have left its pictures, never its neighbours
        return windows.ascending_starts(starts, self.view.num_frames)

    async def _verified_segments(
        self, segments: list[Segment], shown_frames: windows.Window
    ) -> list[Segment]:
        """The segments with `completed` as judged by the pictures around the end of each attempt."""
        judged = list(segments)
        fps = self.view.fps
        attempts = [k for k, segment in enumerate(segments) if segment.kind == STEP]
        batches = {
            windows.frames_around([segments[k].end_frame for k in batch], shown_frames): list(batch)
            for batch in batched(attempts, max(1, ATTEMPTS_PER_CALL // self.parts["verify"]))
        }
        pictures = await load_pictures(self.view, list(batches), sheets=self.config.contact_sheet)

        async def judge(window: windows.Window, batch: list[int]) -> None:
            listed = []
            for number, s in enumerate((segments[k] for k in batch), 1):
                start = prompts.seconds(s.start_frame, fps)
                end = prompts.seconds(s.end_frame, fps)
                step = f"step {(s.step or 0) + 1}, {prompts.quote(s.name)}"
                listed.append(f"{prompts.attempt_key(number)}: {step}, from {start} s to {end} s")
            reply = await self._question(
                "verify",
                pictures[window],
                prompts.verify_reply(len(batch)),
                **self._common_values,
                attempts="\n".join(listed),
            )
            for number, k in enumerate(batch, 1):
                completed = reply.value[prompts.attempt_key(number)]["completed"]
                if completed != segments[k].completed:
                    former_verdict = "completed" if segments[k].completed else "not completed"
                    verified = replace(segments[k], completed=completed)
                    judged[k] = with_note(
                        verified, f"seen as {former_verdict} before it was verified"
                    )

        requests = (partial(judge, window, batch) for window, batch in batches.items())
        await all_results(*(self._is_answered("verify", ask) for ask in requests))
        return judged


MOMENTS_PER_CALL = 12
NEAR_BITS = 1  # perceptual hashes that differ by no more are of near-identical pictures


@dataclass(frozen=True)
class Reasoning:
    frame_index: int
    text: str
    finished: bool  # all planned steps are complete by the end of this frame


async def reason_episode(
    view: EpisodeView,
    segments: Sequence[Segment],
    num_planned: int,
    send_request: Ask,
    config: VlmConfig,
) -> list[Reasoning]:
    """A text for one shown frame per reason_interval_s; near-identical ones within a segment share theirs.

    A frame of which the model wrote nothing that can be seen is left out. `view.task` is the
    inferred task where the dataset states none. The first cheap model is asked, if there is one.
    Raises VlmError and what `view.load` raises.
    """
    return await _in_parts(
        _asking(send_request, config.asked_first[0]),
        lambda ask, parts: _reasons(
            view, segments, num_planned, ask, config, max(1, MOMENTS_PER_CALL // parts["reason"])
        ),
    )


async def _reasons(
    view: EpisodeView,
    segments: Sequence[Segment],
    num_planned: int,
    send_request: Ask,
    config: VlmConfig,
    moments_per_call: int,
) -> list[Reasoning]:
    shown_frames = windows.shown_frames(view.frames, view.num_frames, view.fps, config)
    chosen = chosen_frames(shown_frames, view.fps, config.reason_interval_s)
    text_of = _frames_with_text(view, segments, chosen)
    # Each frame that needs a text of its own is shown, and asked about
    windows_to_ask = [*batched(dict.fromkeys(text_of.values()), moments_per_call)]
    pictures = await load_pictures(view, windows_to_ask, sheets=config.contact_sheet)
    # The segments name the steps that were attempted
    names = {s.step: s.name for s in segments if s.step is not None}
    steps = prompts.step_list(
        [names.get(step, "not attempted in this run") for step in range(num_planned)]
    )
    task = prompts.task_text(view.task) if view.task else "The dataset does not state the task."
    texts: dict[int, str] = {}
    state = partial(_moment_words, segments, num_planned)

    async def explain(window: windows.Window) -> None:
        moments = (
            f"{prompts.picture_key(frame)}, {prompts.seconds(frame, view.fps)} s: {state(frame)}"
            for frame in window
        )
        question = prompts.render(
            "reason",
            task=task,
            steps=steps,
            moments="\n".join(moments),
            max_chars=prompts.REASON_CHARS,
        )
        reply = await send_request(
            prompts.request(
                "reason", pictures[window], question, prompts.reason_reply(window), config
            )
        )
        for frame in window:
            texts[frame] = printable_line(reply.value[prompts.picture_key(frame)])

    # All questions at once; frames that share a text get it together with the one that was asked about. A model may
    # write nothing that can be seen: then there is no reason rather than an empty one
    await all_results(*map(explain, windows_to_ask))
    return [
        Reasoning(frame, text, len(completed_steps(segments, frame)) == num_planned)
        for frame in chosen
        if (text := texts[text_of[frame]])
    ]


def chosen_frames(shown_frames: windows.Window, fps: float, interval_s: float) -> list[int]:
    """The first shown frame, then always the next one at least `interval_s` later.

    Example: of frames 0, 30, 60 ... at 30 fps an interval of 2 s chooses 0, 60, 120 ...
    """
    chosen = [shown_frames[0]]
    for f in shown_frames[1:]:
        if f - chosen[-1] >= interval_s * fps:
            chosen.append(f)
    return chosen


def _frames_with_text(
    view: EpisodeView, segments: Sequence[Segment], chosen: Sequence[int]
) -> dict[int, int]:
    """For each chosen frame the earlier one of its segment whose text it shares, or itself."""
    text_of: dict[int, int] = {}
    text_frames: list[int] = []
    for frame in chosen:
        segment = _segment_at(segments, frame)
        near = (
            f
            for f in text_frames
            if (int(view.phash[f]) ^ int(view.phash[frame])).bit_count() <= NEAR_BITS
        )
        text_of[frame] = next((f for f in near if _segment_at(segments, f) is segment), frame)
        if text_of[frame] == frame:
            text_frames.append(frame)
    return text_of


def _moment_words(segments: Sequence[Segment], num_planned: int, frame: int) -> str:
    """What the segments say of a moment."""
    s = _segment_at(segments, frame)
    complete = completed_steps(segments, frame)
    if s.kind == STEP:
        current_activity = f"step {(s.step or 0) + 1}, {prompts.quote(s.name)}"
    else:
        current_activity = s.kind
    remaining_steps = [str(step + 1) for step in range(num_planned) if step not in complete]
    return f"{current_activity}; steps still to complete: {', '.join(remaining_steps) or 'none'}"


def _segment_at(segments: Sequence[Segment], frame: int) -> Segment:
    return next(s for s in segments if s.start_frame <= frame < s.end_frame)

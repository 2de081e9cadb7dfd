"""Unanswerable ProgressLM samples: a demonstration, and a picture of which it says nothing.

    other_task    the demonstration, or the picture, is of a run of another task
    other_camera  the picture is the same moment by another camera, which shows something else
    not_shown     the demonstration shows the last part of the run, the picture is from well before it; or the other way
                  round: the first part, and a picture from well after it
    occluded      what the task is about is covered in the picture (`cover`)
    edited        an image editor took something away, or put something else in its place

All show real pictures of the same dataset, so the picture alone, its colours or its sharpness, does not tell: a model
has to compare. Each reason that an episode allows for takes its turn, so that two samples of it never have the same
reason while there is another one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from annotate.samples.config import SamplesConfig
from annotate.samples.demonstrations import (
    LATE,
    Demonstration,
    Kind,
    draw_camera,
    draw_form,
    draw_moments_of,
    draw_one,
    draw_part,
    in_pictures,
    in_words,
    is_whole_other_run,
    part_in_pictures,
)
from annotate.samples.edits import EDITED, OCCLUDED
from annotate.samples.labelled_episode import LabelledEpisode, generator
from annotate.samples.progresslm_wording import Form, answer_text, item_of
from annotate.samples.replies import NA
from annotate.samples.sample_row import SamplePicture, SampleRow
from annotate.samples.wording import template
from ingest.task_texts import are_other_tasks

UNANSWERABLE = "progresslm_unanswerable"
OTHER_TASK, OTHER_CAMERA, NOT_SHOWN = "other_task", "other_camera", "not_shown"
UNDER_WAY = 0.25  # of a run of another task: before, it may look like any run's start
BEYOND = 0.25  # progress that a picture lies before or after the demonstration, at least
START_S = 2.0  # of a run whose length is not known: it is taken to last so long


@dataclass(frozen=True)
class Stranger:
    """A run of another task elsewhere in the dataset, as the listing knows it: it may have no label yet."""

    episode_index: int
    split: str
    task: str
    cameras: tuple[str, ...]
    num_rows: int | None
    fps: float

    def pictures(self, camera: str, share: float) -> SamplePicture:
        """The picture at a share of the run, 0..1, by the camera of that name or its preferred one."""
        num_frames = self.num_rows or max(1, round(START_S * self.fps))
        frame = min(num_frames - 1, int(share * num_frames))
        return SamplePicture(self.episode_index, camera if camera in self.cameras else self.cameras[0], frame)


@dataclass(frozen=True)
class _Case:
    """What a sample shows: the picture of `now` of the run, or another one."""

    view: Literal["text", "visual", "cross_view"]
    demonstration: Demonstration
    picture: SamplePicture
    others: tuple[LabelledEpisode, ...] = ()
    edit_instruction: str | None = None

    @property
    def kind(self) -> Kind:
        return self.demonstration.kind


@dataclass(frozen=True)
class _Run:
    """An episode with what it can be asked about, none of it drawn yet."""

    e: LabelledEpisode
    words: Demonstration | None  # its own
    demonstrators: tuple[LabelledEpisode, ...]  # runs whose pictures show its task: itself, else others of the task
    foreign: tuple[LabelledEpisode, ...]  # labelled runs of other tasks
    strangers: tuple[Stranger, ...]


_Drawn = Callable[[_Run, int, np.random.Generator], _Case]


def unanswerable(
    e: LabelledEpisode, others: Sequence[LabelledEpisode], strangers: Sequence[Stranger], config: SamplesConfig
) -> Iterator[SampleRow]:
    """The unanswerable samples of an episode; `others` and `strangers` as `progresslm.samples` has them."""
    rng = generator(e, UNANSWERABLE, config.seed)
    run = _run(e, others, strangers)
    ways_by_reason = _ways(run, with_editor=config.image_editor is not None)
    if not ways_by_reason:
        return
    reasons = [str(reason) for reason in rng.permutation(list(ways_by_reason))]
    for number, now in enumerate(draw_moments_of(e, rng, config.unanswerable_per_episode, config)):
        # Each with draws of its own: what one sample shows does not move those of the next
        of_sample = generator(e, f"{UNANSWERABLE} {number}", config.seed)
        reason = reasons[number % len(reasons)]
        case = draw_one(of_sample, ways_by_reason[reason])(run, now, of_sample)
        form = draw_form(of_sample, config)
        yield SampleRow.of(
            e,
            UNANSWERABLE,
            case.kind,
            [*case.demonstration.pictures, case.picture],
            case.demonstration.question(case.view, form),
            _refusal(case.kind, reason, form),
            others=case.others,
            form=form,
            reason=reason,
            edit_instruction=case.edit_instruction,
            names_steps=case.kind == "text",
        )


def _run(e: LabelledEpisode, others: Sequence[LabelledEpisode], strangers: Sequence[Stranger]) -> _Run:
    whole_others = tuple(o for o in others if is_whole_other_run(o, e))
    demonstrators = (e,) if in_pictures(e, e.camera) else whole_others
    foreign = tuple(o for o in others if are_other_tasks(o.task, e.task))
    usable_strangers = tuple(s for s in strangers if s.split == e.split and are_other_tasks(s.task, e.task))
    has_task = e.task is not None
    return _Run(e, in_words(e), demonstrators if has_task else (), foreign, usable_strangers)


def _ways(run: _Run, *, with_editor: bool) -> Mapping[str, list[_Drawn]]:
    """How each reason can come about with this run; reasons for which there is no way are left out."""
    has_words, has_pictures = run.words is not None, bool(run.demonstrators)
    has_own_pictures = run.demonstrators == (run.e,)
    has_foreign_pictures = bool(run.foreign or run.strangers)
    ways: list[tuple[str, _Drawn, bool]] = [
        (OTHER_TASK, _foreign_words, any(in_words(o) for o in run.foreign)),
        (OTHER_TASK, _foreign_picture_for_words, has_foreign_pictures and has_words),
        (OTHER_TASK, _foreign_picture, has_foreign_pictures and has_pictures),
        (OTHER_CAMERA, _other_camera, has_own_pictures and any(run.e.unlike_cameras.values())),
        (NOT_SHOWN, _not_shown, has_own_pictures and _has_parts(run.e)),
        (OCCLUDED, _covered, has_pictures),
        (OCCLUDED, _covered_for_words, has_words),
        # An editor is an installed package's
        (EDITED, _edited, has_pictures and with_editor),
    ]
    by_reason: dict[str, list[_Drawn]] = {}
    for reason, way, can_be in ways:
        if can_be:
            by_reason.setdefault(reason, []).append(way)
    return by_reason


# Another task


def _foreign_words(run: _Run, now: int, rng: np.random.Generator) -> _Case:
    """The steps of another task, and the run's own picture."""
    demonstration = in_words(draw_one(rng, [o for o in run.foreign if in_words(o)]))
    assert demonstration is not None
    return _Case("text", demonstration, _own_picture(run.e, run.e.camera, now))


def _foreign_picture_for_words(run: _Run, now: int, rng: np.random.Generator) -> _Case:
    """The run's own steps, and a picture of another task."""
    assert run.words is not None
    picture, others = _draw_foreign_picture(run, run.e.camera, rng)
    return _Case("text", run.words, picture, others)


def _foreign_picture(run: _Run, now: int, rng: np.random.Generator) -> _Case:
    """Pictures of the task, and one of another task."""
    view, demonstration, camera, demonstrator = _draw_pictures(run, rng)
    picture, others = _draw_foreign_picture(run, camera, rng)
    return _Case(view, demonstration, picture, (demonstrator, *others))


def _draw_foreign_picture(
    run: _Run, camera: str, rng: np.random.Generator
) -> tuple[SamplePicture, tuple[LabelledEpisode, ...]]:
    """A picture of another task, by the camera of that name if it can be; and its episode, where that is labelled."""
    other = draw_one(rng, [*run.foreign, *run.strangers])
    share = rng.uniform(UNDER_WAY, 1)
    if isinstance(other, Stranger):
        return other.pictures(camera, share), ()
    return _own_picture(other, other.camera_like(camera), int(share * len(other.progress))), (other,)


# Another camera, or another part of the run


def _other_camera(run: _Run, now: int, rng: np.random.Generator) -> _Case:
    """Pictures by one camera, and the same moment by another one."""
    e = run.e
    camera = draw_camera(rng, e)
    # The drawn camera may look as all others do
    if not e.unlike_cameras.get(camera):
        camera = draw_one(rng, [c for c, unlike in sorted(e.unlike_cameras.items()) if unlike])
    demonstration = in_pictures(e, draw_one(rng, e.unlike_cameras[camera]))
    assert demonstration is not None
    return _Case("visual", demonstration, _own_picture(e, camera, now))


def _has_parts(e: LabelledEpisode) -> bool:
    """Can any part of the run be shown, with something well before or after it?"""
    begins_early = bool(e.progress[0] <= LATE[0] - BEYOND)
    shortest = (part_in_pictures(e, e.camera, True, LATE[1]), part_in_pictures(e, e.camera, False, 1 - LATE[1]))
    return begins_early and None not in shortest


def _not_shown(run: _Run, now: int, rng: np.random.Generator) -> _Case:
    """Pictures of one part of the run, and one from well before or after it; `now` plays no role."""
    e, camera = run.e, draw_camera(rng, run.e)
    is_last, share = draw_part(rng)
    demonstration = part_in_pictures(e, camera, is_last, share)
    assert demonstration is not None
    frames = np.arange(len(e.progress))
    if is_last:
        outside = (frames < demonstration.pictures[0].frame_index) & (e.progress <= share - BEYOND)
    else:
        outside = (frames > demonstration.pictures[-1].frame_index) & (e.progress >= share + BEYOND)
    frame = draw_one(rng, np.flatnonzero(outside).tolist())
    return _Case("visual", demonstration, _own_picture(e, camera, frame))


# Edited pictures


def _covered(run: _Run, now: int, rng: np.random.Generator) -> _Case:
    view, demonstration, camera, demonstrator = _draw_pictures(run, rng)
    return _Case(view, demonstration, _edit(run.e, camera, now, OCCLUDED, rng), (demonstrator,))


def _covered_for_words(run: _Run, now: int, rng: np.random.Generator) -> _Case:
    assert run.words is not None
    return _Case("text", run.words, _edit(run.e, run.e.camera, now, OCCLUDED, rng))


def _edited(run: _Run, now: int, rng: np.random.Generator) -> _Case:
    view, demonstration, camera, demonstrator = _draw_pictures(run, rng)
    # Without names of steps the task as a whole says what is needed
    action = run.e.action_at(now) if run.e.has_actions else run.e.task
    instruction = template("progresslm", "edit").format(action=action)
    picture = _edit(run.e, camera, now, EDITED, rng)
    return _Case(view, demonstration, picture, (demonstrator,), edit_instruction=instruction)


def _edit(e: LabelledEpisode, camera: str, now: int, edit: str, rng: np.random.Generator) -> SamplePicture:
    return SamplePicture(e.episode_index, camera, now, f"{edit}-{int(rng.integers(1 << 32)):08x}")


# What all share


def _draw_pictures(
    run: _Run, rng: np.random.Generator
) -> tuple[Literal["visual", "cross_view"], Demonstration, str, LabelledEpisode]:
    """(how it is asked, pictures of the task, the camera of the run to compare them with, whose pictures they are)."""
    demonstrator = draw_one(rng, run.demonstrators)
    is_own = demonstrator is run.e
    camera = draw_camera(rng, run.e) if is_own else run.e.camera
    demonstration = in_pictures(demonstrator, demonstrator.camera_like(camera))
    assert demonstration is not None
    return "visual" if is_own else "cross_view", demonstration, camera, demonstrator


def _own_picture(e: LabelledEpisode, camera: str, frame: int) -> SamplePicture:
    return SamplePicture(e.episode_index, camera, frame)


def _refusal(kind: Kind, reason: str, form: Form) -> str:
    why = template("progresslm", "unanswerable", reason).format(item=item_of(kind))
    return answer_text(form, ref_think=why, ref=NA, score_think=NA, score=NA)

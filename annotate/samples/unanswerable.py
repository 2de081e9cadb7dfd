"""Demonstrations of ProgressLM samples, and unanswerable ones: a demonstration, and a picture of which it says nothing.

A demonstration is a task's steps in words, or a run's pictures, with the share done at each.

    other_task    the demonstration, or the picture, is of a run of another task
    other_camera  the picture is the same moment by another camera, which shows something else
    not_shown     the demonstration shows the last part of the run, the picture is from well before it; or the other way
                  round: the first part, and a picture from well after it
    occluded      what the task is about is covered in the picture (`edits.covered_picture`)
    edited        an image editor took something away, or put something else in its place

All show real pictures of the same dataset, so the picture alone, its colours or its sharpness, does
not tell: a model has to compare. Each reason that an episode allows for takes its turn, so that two
samples of it never have the same reason while there is another one.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from annotate.config import SamplesConfig
from annotate.samples.edits import EDITED, OCCLUDED
from annotate.samples.labelled_episode import LabelledEpisode, SamplePicture, generator, sample_row
from annotate.samples.wording import NA, Form, View, answer_text, question_text, template
from core.domain.label import Episode
from core.values import grouped
from ingest.task_texts import are_other_tasks

LATE = (0.4, 0.7)  # share done at the first picture of a demonstration of a run's last part


class Demonstration(NamedTuple):
    """Steps, or pictures of their ends (the first is the start), with the share done at each, 0..1."""

    task: str | None
    shares: tuple[float, ...]
    steps: tuple[str, ...] = ()
    pictures: tuple[SamplePicture, ...] = ()

    @property
    def kind(self) -> Literal["text", "visual"]:
        if self.pictures:
            return "visual"
        return "text"


def words_demonstration(e: LabelledEpisode) -> Demonstration | None:
    """None where the steps are not known by their names."""
    if not e.has_actions or e.label.task is None:
        return None
    ends = e.step_ends
    if ends:
        shares = [float(e.label.progress[frame]) for frame in ends]
    else:
        shares = _shares_of_an_incomplete_run(e)
    return Demonstration(e.label.task, tuple(shares), e.steps)


def _shares_of_an_incomplete_run(e: LabelledEpisode) -> list[float]:
    """The share done after each planned step. Steps that the run did not complete share what is left of the task alike.

    Example: of four steps the run completed the first, at 0.4; the shares are 0.4, 0.6, 0.8 and 1.
    """
    reached = {
        s.step: float(e.label.progress[s.end_frame - 1])
        for s in e.label.segments
        if s.step is not None and s.completed
    }
    num_steps = len(e.steps)
    shares: list[float] = []
    share = 0.0
    for step in range(num_steps):
        labelled = reached.get(step, 0.0)
        # A label counts if it rises above the step before and leaves something for the steps after it
        if step < num_steps - 1 and share < labelled < 1:
            share = labelled
        else:
            share += (1 - share) / (num_steps - step)
        shares.append(share)
    return shares


def pictures_demonstration(e: LabelledEpisode, camera: str) -> Demonstration | None:
    """The run's first frame and the end of each step; None where it did not complete every step, in order."""
    ends = e.step_ends
    if ends is None or e.label.task is None or camera not in e.episode.cameras:
        return None
    return _demonstration_of_frames(e, camera, [0, *ends] if ends[0] else ends)


def _demonstration_of_frames(
    e: LabelledEpisode, camera: str, frames: Iterable[int]
) -> Demonstration:
    pictures = tuple(SamplePicture(e.episode.episode_index, camera, frame) for frame in frames)
    return Demonstration(
        e.label.task,
        tuple(float(e.label.progress[p.frame_index]) for p in pictures),
        pictures=pictures,
    )


def draw_part(rng: np.random.Generator) -> tuple[bool, float]:
    """(the run's last part, or its first one; the share done where the two meet)."""
    is_last = bool(rng.random() < 0.5)
    share = float(rng.uniform(*LATE))
    return is_last, share if is_last else 1 - share


def part_in_pictures(
    e: LabelledEpisode, camera: str, is_last: bool, share: float
) -> Demonstration | None:
    """The last or the first part of the run in pictures, parted where `share` is done; None as for the whole run."""
    if e.step_ends is None or e.label.task is None:
        return None
    parting = int(np.argmax(e.label.progress >= share))
    start, end = (parting, e.step_ends[-1]) if is_last else (0, parting)
    # One more than the ends of steps, which may be two pictures alone
    inner_ends = (frame for frame in e.step_ends if start < frame < end)
    if start < end:
        return _demonstration_of_frames(
            e, camera, sorted({start, (start + end) // 2, end, *inner_ends})
        )
    return None


def is_whole_other_run(candidate: LabelledEpisode, e: LabelledEpisode) -> bool:
    """Is it another run of the same task, which completed every step in order?"""
    return (
        candidate.same_as == e.same_as
        and candidate.episode.episode_index != e.episode.episode_index
        and candidate.step_ends is not None
    )


def draw_one[T](rng: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]


def draw_camera(rng: np.random.Generator, e: LabelledEpisode) -> str:
    """The preferred camera in half of all draws, else any other one."""
    other_cameras = list(e.episode.cameras)[1:]
    if other_cameras and rng.random() < 0.5:
        return draw_one(rng, other_cameras)
    return e.camera


UNANSWERABLE = "progresslm_unanswerable"
UNDER_WAY = 0.25  # of a run of another task: before, it may look like any run's start
BEYOND = 0.25  # progress that a picture lies before or after the demonstration, at least
START_S = 2.0  # of a run whose length is not known: it is taken to last so long


def picture_at_share(episode: Episode, camera: str, share: float) -> SamplePicture:
    """The picture at a share of a run, 0..1, by the camera of that name or the run's preferred one."""
    num_frames = episode.num_frames or max(1, round(START_S * episode.fps))
    frame = min(num_frames - 1, int(share * num_frames))
    if camera not in episode.cameras:
        camera = episode.cameras[0]
    return SamplePicture(episode.episode_index, camera, frame)


class Case(NamedTuple):
    """A question without an answer: how it is asked, its demonstration, and the picture of the state."""

    view: View
    demonstration: Demonstration
    picture: SamplePicture


class ShownDemonstration(NamedTuple):
    """How a question is asked, its demonstration, and the run's camera to compare it with."""

    view: View
    demonstration: Demonstration
    camera: str


DrawDemonstration = Callable[[np.random.Generator], ShownDemonstration]
DrawPicture = Callable[[str, int, np.random.Generator], SamplePicture]  # by a camera, of a frame
DrawCase = Callable[[int, np.random.Generator], Case]  # of a frame of the run


def unanswerable_samples(
    e: LabelledEpisode,
    other_episodes: Sequence[LabelledEpisode],
    listed_episodes: Sequence[Episode],
    config: SamplesConfig,
) -> Iterator[dict[str, Any]]:
    """The unanswerable samples of an episode; `other_episodes` and `listed_episodes` as
    `progresslm.samples` has them."""
    rng = generator(e, UNANSWERABLE, config.seed)
    ways = _Ways(e, other_episodes, listed_episodes).by_reason(
        with_editor=config.image_editor is not None
    )
    if not ways:
        return
    reasons = [str(reason) for reason in rng.permutation(list(ways))]
    for number, frame in enumerate(
        e.draw_moments(rng, config.unanswerable_per_episode, config.rare_share)
    ):
        # Each with draws of its own: what one sample shows does not move those of the next
        sample_rng = generator(e, f"{UNANSWERABLE} {number}", config.seed)
        reason = reasons[number % len(reasons)]
        draw_case = draw_one(sample_rng, ways[reason])
        view, demonstration, picture = draw_case(frame, sample_rng)
        form = draw_form(sample_rng, config)
        item = template("progresslm", "item", demonstration.kind)
        explanation = template("progresslm", "unanswerable", reason).format(item=item)
        yield sample_row(
            e,
            UNANSWERABLE,
            demonstration.kind,
            [*demonstration.pictures, picture],
            question_text(
                view, demonstration.task, demonstration.shares, demonstration.steps, form
            ),
            answer_text(form, ref_think=explanation, ref=NA, score_think=NA, score=NA),
            other_episodes=other_episodes,
            form=form,
            reason=reason,
            edit_instruction=_edit_instruction(e, frame) if reason == EDITED else None,
            names_steps=demonstration.kind == "text",
        )


def draw_form(rng: np.random.Generator, config: SamplesConfig) -> Form:
    if rng.random() < config.think_share:
        return "think"
    return "no_think"


def _edit_instruction(e: LabelledEpisode, frame: int) -> str:
    """What an image editor is told. Without names of steps the task as a whole says what is needed."""
    return template("progresslm", "edit").format(
        action=e.action_at(frame) if e.has_actions else e.label.task
    )


def _case_of(draw_demonstration: DrawDemonstration, draw_picture: DrawPicture) -> DrawCase:
    """Draws a demonstration, then a picture of the state by the camera that goes with it."""

    def draw_case(frame: int, rng: np.random.Generator) -> Case:
        view, demonstration, camera = draw_demonstration(rng)
        return Case(view, demonstration, draw_picture(camera, frame, rng))

    return draw_case


class _Ways:
    """How a question about a run can come to have no answer: each way draws a case."""

    def __init__(
        self,
        e: LabelledEpisode,
        other_episodes: Sequence[LabelledEpisode],
        listed_episodes: Sequence[Episode],
    ) -> None:
        self.e = e
        self.words = words_demonstration(e)
        # Runs whose pictures show its task: itself, else others of the task
        whole_others = [o for o in other_episodes if is_whole_other_run(o, e)]
        if e.label.task is not None:
            self.demonstrators = [e] if pictures_demonstration(e, e.camera) else whole_others
        else:
            self.demonstrators = []
        # Of other tasks: labelled runs, and others
        self.foreign = [
            o
            for o in other_episodes
            if o.same_as != e.same_as and are_other_tasks(o.label.task, e.label.task)
        ]
        self.listed = [
            other
            for other in listed_episodes
            if other.split == e.episode.split
            and (other.same_as or other.task) != e.same_as
            and are_other_tasks(other.task, e.label.task)
        ]

    def by_reason(self, *, with_editor: bool) -> dict[str, list[DrawCase]]:
        """How each reason can come about with this run; reasons for which there is no way are left out."""
        has_words = self.words is not None
        has_pictures = bool(self.demonstrators)
        has_own_pictures = self.demonstrators == [self.e]
        is_foreign = bool(self.foreign or self.listed)
        has_unlike_cameras = any(self.e.unlike_cameras.values())
        has_foreign_words = has_words and any(words_demonstration(o) for o in self.foreign)
        can_change_camera = has_own_pictures and has_unlike_cameras
        can_show_part = has_own_pictures and self._has_parts()
        occluded = partial(self._own_picture, edit=OCCLUDED)
        edited = partial(self._own_picture, edit=EDITED)  # an editor is an installed package's
        # The reason, whether this run allows for it, and what draws a case of it
        ways = (
            ("other_task", has_foreign_words, _case_of(self._foreign_words, self._own_picture)),
            (
                "other_task",
                is_foreign and has_words,
                _case_of(self._own_words, self._foreign_picture),
            ),
            (
                "other_task",
                is_foreign and has_pictures,
                _case_of(self._task_pictures, self._foreign_picture),
            ),
            (
                "other_camera",
                can_change_camera,
                _case_of(self._pictures_by_other_camera, self._own_picture),
            ),
            ("not_shown", can_show_part, self._case_of_other_part),
            (OCCLUDED, has_pictures, _case_of(self._task_pictures, occluded)),
            (OCCLUDED, has_words, _case_of(self._own_words, occluded)),
            (EDITED, has_pictures and with_editor, _case_of(self._task_pictures, edited)),
        )
        return grouped((reason, draw) for reason, is_possible, draw in ways if is_possible)

    # Demonstrations

    def _own_words(self, rng: np.random.Generator) -> ShownDemonstration:
        assert self.words is not None
        return ShownDemonstration("text", self.words, self.e.camera)

    def _foreign_words(self, rng: np.random.Generator) -> ShownDemonstration:
        """The steps of another task."""
        demonstration = words_demonstration(
            draw_one(rng, [o for o in self.foreign if words_demonstration(o)])
        )
        assert demonstration is not None
        return ShownDemonstration("text", demonstration, self.e.camera)

    def _task_pictures(self, rng: np.random.Generator) -> ShownDemonstration:
        """Pictures of the task."""
        demonstrator = draw_one(rng, self.demonstrators)
        is_own = demonstrator is self.e
        camera = draw_camera(rng, self.e) if is_own else self.e.camera
        demonstration = pictures_demonstration(demonstrator, demonstrator.camera_like(camera))
        assert demonstration is not None
        view: View = "visual" if is_own else "cross_view"
        return ShownDemonstration(view, demonstration, camera)

    def _pictures_by_other_camera(self, rng: np.random.Generator) -> ShownDemonstration:
        """Pictures by a camera that shows something else than the one of the state."""
        e = self.e
        camera = draw_camera(rng, self.e)
        # The drawn camera may look as all others do
        if not e.unlike_cameras.get(camera):
            camera = draw_one(rng, [c for c, unlike in sorted(e.unlike_cameras.items()) if unlike])
        demonstration = pictures_demonstration(e, draw_one(rng, e.unlike_cameras[camera]))
        assert demonstration is not None
        return ShownDemonstration("visual", demonstration, camera)

    # Pictures of the state

    def _own_picture(
        self, camera: str, frame: int, rng: np.random.Generator, edit: str = ""
    ) -> SamplePicture:
        edit_name = f"{edit}-{int(rng.integers(1 << 32)):08x}" if edit else ""
        return SamplePicture(self.e.episode.episode_index, camera, frame, edit_name)

    def _foreign_picture(
        self, camera: str, current_frame: int, rng: np.random.Generator
    ) -> SamplePicture:
        """Of another task, by the camera of that name if it can be."""
        source_episode = draw_one(rng, [*self.foreign, *self.listed])
        share = rng.uniform(UNDER_WAY, 1)
        if isinstance(source_episode, Episode):
            return picture_at_share(source_episode, camera, share)
        frame = int(share * len(source_episode.label.progress))
        source_camera = source_episode.camera_like(camera)
        return SamplePicture(source_episode.episode.episode_index, source_camera, frame)

    # Another part of the run

    def _has_parts(self) -> bool:
        """Can any part of the run be shown, with something well before or after it?"""
        e = self.e
        shortest = (
            part_in_pictures(e, e.camera, True, LATE[1]),
            part_in_pictures(e, e.camera, False, 1 - LATE[1]),
        )
        return bool(e.label.progress[0] <= LATE[0] - BEYOND) and None not in shortest

    def _case_of_other_part(self, current_frame: int, rng: np.random.Generator) -> Case:
        """Pictures of one part of the run, and one from well before or after it; `current_frame` plays no role."""
        e = self.e
        camera = draw_camera(rng, self.e)
        is_last, share = draw_part(rng)
        demonstration = part_in_pictures(e, camera, is_last, share)
        assert demonstration is not None
        frames = np.arange(len(e.label.progress))
        if is_last:
            is_outside = (frames < demonstration.pictures[0].frame_index) & (
                e.label.progress <= share - BEYOND
            )
        else:
            is_outside = (frames > demonstration.pictures[-1].frame_index) & (
                e.label.progress >= share + BEYOND
            )
        frame = draw_one(rng, np.flatnonzero(is_outside).tolist())
        return Case("visual", demonstration, SamplePicture(e.episode.episode_index, camera, frame))

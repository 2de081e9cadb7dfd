"""ProgressLM samples: a demonstration in words or pictures, and one picture to place in it.

    progresslm_text          the run's planned steps, with the share of the task that each ends at
    progresslm_visual        pictures of the same run by the same camera: its first frame and the end of each step
    progresslm_cross_view    those of another camera of the run, or of another run of the same task
    progresslm_unanswerable  a demonstration that cannot be of that picture: another task's, or the picture was edited

The score is the label itself, and so are the shares of the demonstration, hence the two never contradict each other.
The reference is, in words, the step under way (the last one, once the task is done); in pictures, the one whose share
is nearest to the score, the earlier of two.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, NamedTuple

import numpy as np

from annotate.samples.config import SamplesConfig
from annotate.samples.edits import EDITED, OCCLUDED
from annotate.samples.labelled_episode import LabelledEpisode, generator
from annotate.samples.moments import STATES, draw_moments
from annotate.samples.progresslm_wording import Form, answer_text, item_of, percent, question_text, score_text
from annotate.samples.replies import NA
from annotate.samples.sample_row import SamplePicture, SampleRow
from annotate.samples.wording import template, without_marks

TEXT, VISUAL, CROSS_VIEW, UNANSWERABLE = (
    f"progresslm_{name}" for name in ("text", "visual", "cross_view", "unanswerable")
)
OTHER_TASK = "other_task"

Kind = Literal["text", "visual"]  # of a demonstration


@dataclass(frozen=True)
class Demonstration:
    """Steps, or pictures of their ends (the first is the start), with the share done at each, 0..1."""

    kind: Kind
    task: str | None
    shares: tuple[float, ...]
    steps: tuple[str, ...] = ()
    pictures: tuple[SamplePicture, ...] = ()


class Thoughts(NamedTuple):
    """The reasoning of an answer."""

    reference: int  # item of the demonstration, from 1
    ref_think: str  # why it is that one
    score_think: str  # how the state lies to it


def samples(e: LabelledEpisode, others: Sequence[LabelledEpisode], config: SamplesConfig) -> list[SampleRow]:
    """All ProgressLM samples of an episode; `others` are the labelled episodes of its chunk and split."""
    return [
        *_text(e, config),
        *_visual(e, config),
        *_cross_view(e, others, config),
        *_unanswerable(e, others, config),
    ]


# Demonstrations


def _in_words(e: LabelledEpisode) -> Demonstration | None:
    """None where no step is planned."""
    if not e.steps or e.task is None:
        return None
    ends = e.step_ends()
    shares = [float(e.progress[frame]) for frame in ends] if ends else _shares_of_an_incomplete_run(e)
    return Demonstration("text", e.task, tuple(shares), e.steps)


def _shares_of_an_incomplete_run(e: LabelledEpisode) -> list[float]:
    """The share done after each planned step. Steps that the run did not complete share what is left of the task alike.

    Example: of four steps the run completed the first, at 0.4; the shares are 0.4, 0.6, 0.8 and 1.
    """
    reached = {s.step: float(e.progress[s.end_frame - 1]) for s in e.segments if s.step is not None and s.completed}
    num_steps = len(e.steps)
    shares: list[float] = []
    share = 0.0
    for step in range(num_steps):
        is_last = step == num_steps - 1
        labelled = reached.get(step, 0.0)
        # A label counts if it rises above the step before and leaves something for the steps after it
        if not is_last and share < labelled < 1:
            share = labelled
        else:
            share += (1 - share) / (num_steps - step)
        shares.append(share)
    return shares


def _in_pictures(e: LabelledEpisode, camera: str) -> Demonstration | None:
    """None where the run did not complete every step, in order."""
    ends = e.step_ends()
    if ends is None or e.task is None or camera not in e.cameras:
        return None
    frames = [0, *ends] if ends[0] else ends
    pictures = tuple(SamplePicture(e.episode_index, camera, frame) for frame in frames)
    shares = tuple(float(e.progress[frame]) for frame in frames)
    return Demonstration("visual", e.task, shares, pictures=pictures)


# Families


def _moments(e: LabelledEpisode, rng: np.random.Generator, quota: int, config: SamplesConfig) -> list[int]:
    return draw_moments(rng, e.state, e.fps, quota, config.rare_share)


def _form(rng: np.random.Generator, config: SamplesConfig) -> Form:
    return "think" if rng.random() < config.think_share else "no_think"


def _draw[T](rng: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]


def _text(e: LabelledEpisode, config: SamplesConfig) -> Iterator[SampleRow]:
    rng = generator(e, TEXT, config.seed)
    demonstration = _in_words(e)
    if demonstration is None:
        return
    for now in _moments(e, rng, config.text_demo_per_episode, config):
        picture = SamplePicture(e.episode_index, e.camera, now)
        yield _answerable(e, TEXT, "steps", demonstration, picture, _form(rng, config))


def _visual(e: LabelledEpisode, config: SamplesConfig) -> Iterator[SampleRow]:
    rng = generator(e, VISUAL, config.seed)
    demonstration = _in_pictures(e, e.camera)
    if demonstration is None:
        return
    for now in _moments(e, rng, config.visual_demo_per_episode, config):
        picture = SamplePicture(e.episode_index, e.camera, now)
        yield _answerable(e, VISUAL, "same_view", demonstration, picture, _form(rng, config))


def _cross_view(e: LabelledEpisode, others: Sequence[LabelledEpisode], config: SamplesConfig) -> Iterator[SampleRow]:
    """A demonstration by another camera of the run, or by another run of the task: either, where both can be had."""
    rng = generator(e, CROSS_VIEW, config.seed)
    camera_pairs = _camera_pairs(e)
    other_runs = [o for o in others if _is_whole_other_run(o, e)]
    variants = [name for name, choices in (("cameras", camera_pairs), ("episodes", other_runs)) if choices]
    if not variants or e.task is None:
        return
    for now in _moments(e, rng, config.cross_view_per_episode, config):
        # The demonstration is of the run itself by one camera and the state by another, or it is of another run, by
        # the state's camera if that run has it
        variant = _draw(rng, variants)
        if variant == "cameras":
            demonstrator, (demonstration_camera, camera) = e, _draw(rng, camera_pairs)
        else:
            demonstrator, camera = _draw(rng, other_runs), e.camera
            demonstration_camera = _same_camera(demonstrator, camera)
        demonstration = _in_pictures(demonstrator, demonstration_camera)
        if demonstration:
            picture = SamplePicture(e.episode_index, camera, now)
            form = _form(rng, config)
            yield _answerable(e, CROSS_VIEW, variant, demonstration, picture, form, others=(demonstrator,))


def _camera_pairs(e: LabelledEpisode) -> list[tuple[str, str]]:
    """(the demonstration's, the state's); none where the run cannot demonstrate the task."""
    return list(permutations(e.cameras, 2)) if e.step_ends() else []


def _is_whole_other_run(other: LabelledEpisode, e: LabelledEpisode) -> bool:
    """Is it another run of the same task, which completed every step in order?"""
    return other.task == e.task and other.episode_index != e.episode_index and other.step_ends() is not None


def _same_camera(e: LabelledEpisode, camera: str) -> str:
    """The episode's camera of that name, else its preferred one."""
    return camera if camera in e.cameras else e.camera


def _unanswerable(e: LabelledEpisode, others: Sequence[LabelledEpisode], config: SamplesConfig) -> Iterator[SampleRow]:
    """Another task's steps; or the run's own pictures, and a picture of another task or an edited one."""
    rng = generator(e, UNANSWERABLE, config.seed)
    foreign = [o for o in others if _is_foreign(o, e)]
    own_pictures = _in_pictures(e, e.camera)
    questions = _unanswerable_questions(config, has_foreign=bool(foreign), has_pictures=own_pictures is not None)
    if not questions:
        return
    for now in _moments(e, rng, config.unanswerable_per_episode, config):
        kind, reason = _draw(rng, questions)
        # All of these are drawn for every question, needed or not: what one shows does not move the draws of the next
        other = _draw(rng, foreign) if foreign else e
        frame_of_other = int(rng.integers(len(other.progress)))
        edit_seed = int(rng.integers(1 << 32))
        form = _form(rng, config)

        # In words: a foreign demonstration of the run's own picture.
        # In pictures: the run's own demonstration, of a foreign or an edited picture
        demonstration = _in_words(other) if kind == "text" else own_pictures
        assert demonstration is not None
        if reason != OTHER_TASK:
            picture = SamplePicture(e.episode_index, e.camera, now, f"{reason}-{edit_seed:08x}")
        elif kind == "visual":
            picture = SamplePicture(other.episode_index, other.camera, frame_of_other)
        else:
            picture = SamplePicture(e.episode_index, e.camera, now)
        yield SampleRow.of(
            e,
            UNANSWERABLE,
            kind,
            [*demonstration.pictures, picture],
            _question(kind, demonstration, form),
            _refusal(kind, reason, form),
            others=(other,),
            form=form,
            reason=reason,
            edit_instruction=_edit_instruction(e, now) if reason == EDITED else None,
        )


def _is_foreign(other: LabelledEpisode, e: LabelledEpisode) -> bool:
    """Is the other episode of another task, none of whose steps is one of this task's?"""
    has_other_task = bool(other.task) and other.task != e.task
    return has_other_task and bool(other.steps) and set(other.steps).isdisjoint(e.steps)


def _unanswerable_questions(config: SamplesConfig, *, has_foreign: bool, has_pictures: bool) -> list[tuple[Kind, str]]:
    """The kinds of demonstration, each with a reason why it has no answer, that can be asked about."""
    questions: list[tuple[Kind, str]] = []
    # Steps of a task that shares none with this one
    if has_foreign:
        questions.append(("text", OTHER_TASK))
    if has_foreign and has_pictures:
        questions.append(("visual", OTHER_TASK))
    if has_pictures:
        questions.append(("visual", OCCLUDED))
    # An editor is an installed package's; occluding needs none
    if has_pictures and config.image_editor:
        questions.append(("visual", EDITED))
    return questions


def _edit_instruction(e: LabelledEpisode, now: int) -> str:
    return template("progresslm", "edit").format(action=_action_at(e, now))


def _action_at(e: LabelledEpisode, now: int) -> str:
    """The step under way; the last one, once the task is done."""
    left = e.remaining(now)
    return e.steps[left[0] if left else -1]


# Wording


def _answerable(
    e: LabelledEpisode,
    family: str,
    variant: str,
    demonstration: Demonstration,
    picture: SamplePicture,
    form: Form,
    *,
    others: Sequence[LabelledEpisode] = (),
) -> SampleRow:
    """The sample whose score is the label of the picture's frame, a frame of `e`."""
    now = picture.frame_index
    score = float(e.progress[now])
    thoughts = _thoughts(e, demonstration, now)
    answer = answer_text(
        form,
        ref_think=thoughts.ref_think,
        ref=thoughts.reference,
        score_think=thoughts.score_think,
        score=score_text(score),
    )
    # The question of a cross-view sample says that the two views differ
    view = "cross_view" if family == CROSS_VIEW else demonstration.kind
    return SampleRow.of(
        e,
        family,
        variant,
        [*demonstration.pictures, picture],
        _question(view, demonstration, form),
        answer,
        others=others,
        form=form,
        progress=score,
        reference=thoughts.reference,
        state=STATES[e.state[now]],
    )


def _question(view: Literal["text", "visual", "cross_view"], demonstration: Demonstration, form: Form) -> str:
    return question_text(view, demonstration.task, demonstration.shares, demonstration.steps, form)


def _refusal(kind: Kind, reason: str, form: Form) -> str:
    why = template("progresslm", "unanswerable", reason).format(item=item_of(kind))
    return answer_text(form, ref_think=why, ref=NA, score_think=NA, score=NA)


def _thoughts(e: LabelledEpisode, demonstration: Demonstration, now: int) -> Thoughts:
    if demonstration.kind == "text":
        return _thoughts_on_steps(e, demonstration, now)
    return _thoughts_on_pictures(e, demonstration, now)


def _thoughts_on_steps(e: LabelledEpisode, demonstration: Demonstration, now: int) -> Thoughts:
    """The reference is the step under way, and the last one once the task is done."""
    wording = template("progresslm", "think")
    left = e.remaining(now)
    action = without_marks(_action_at(e, now))
    if not left:
        reference = len(e.steps)
        return Thoughts(reference, wording["all_done"].format(ref=reference, action=action), wording["same"])
    step = left[0]
    reference = step + 1
    # How far within the step: the score between the shares at the step's two ends
    before = demonstration.shares[step - 1] if step else 0.0
    after = demonstration.shares[step]
    share_of_step = (float(e.progress[now]) - before) / max(after - before, 1e-6)
    within = wording["within"].format(
        before=percent(before), percent=percent(after), share=percent(float(np.clip(share_of_step, 0, 1)))
    )
    return Thoughts(reference, wording["step_under_way"].format(ref=reference, action=action), within)


def _thoughts_on_pictures(e: LabelledEpisode, demonstration: Demonstration, now: int) -> Thoughts:
    """The reference is the picture whose share is nearest to the score, the earlier of two."""
    wording = template("progresslm", "think")
    score = float(e.progress[now])
    shares = np.array(demonstration.shares)
    # argmin takes the first of equal ones, hence the earlier picture
    nearest = int(np.abs(shares - score).argmin())
    reference = nearest + 1
    why = wording["picture" if e.remaining(now) else "picture_done"].format(
        action=without_marks(_action_at(e, now)), ref=reference, percent=percent(shares[nearest])
    )
    # In whole points of a percent, as the demonstration shows the shares
    distance = round(100 * (score - float(shares[nearest])))
    if distance == 0:
        where = "same"
    else:
        where = "beyond" if distance > 0 else "before"
    return Thoughts(reference, why, wording[where].format(distance=abs(distance)))

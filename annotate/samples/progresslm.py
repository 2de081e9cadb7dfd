"""ProgressLM samples: a demonstration in words or pictures, and one picture to place in it.

    progresslm_text          the run's planned steps, with the share of the task that each ends at
    progresslm_visual        pictures of the same run by the same camera: its first frame and the end of each step; some
                             show only the run's first or last part, and ask about a moment of it
    progresslm_cross_view    those of another camera of the run, or of another run of the same task
    progresslm_unanswerable  a demonstration that says nothing of that picture (`unanswerable`)

The score is the label itself, and so are the shares of the demonstration, hence the two never contradict each other.
The reference is, in words, the step under way (the last one, once the task is done); in pictures, the one whose share
is nearest to the score, the earlier of two.
"""

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from annotate.samples.config import SamplesConfig
from annotate.samples.demonstrations import (
    Demonstration,
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
from annotate.samples.labelled_episode import LabelledEpisode, generator
from annotate.samples.moments import STATES
from annotate.samples.progresslm_wording import Form, answer_text, percent, score_text
from annotate.samples.sample_row import SamplePicture, SampleRow
from annotate.samples.unanswerable import Stranger, unanswerable
from annotate.samples.wording import template, without_marks

TEXT, VISUAL, CROSS_VIEW = (f"progresslm_{name}" for name in ("text", "visual", "cross_view"))
# Of demonstrations in pictures, how many show a part of the run: those of some unanswerable samples do, which must not
# tell them
PART_SHARE = 0.25


class Thoughts(NamedTuple):
    """The reasoning of an answer."""

    reference: int  # item of the demonstration, from 1
    ref_think: str  # why it is that one
    score_think: str  # how the state lies to it


def samples(
    e: LabelledEpisode, others: Sequence[LabelledEpisode], strangers: Sequence[Stranger], config: SamplesConfig
) -> list[SampleRow]:
    """All ProgressLM samples of an episode.

    `others` are the labelled episodes of its chunk and split, `strangers` runs of other tasks elsewhere in the dataset.
    """
    return [
        *_text(e, config),
        *_visual(e, config),
        *_cross_view(e, others, config),
        *unanswerable(e, others, strangers, config),
    ]


# Families


def _text(e: LabelledEpisode, config: SamplesConfig) -> Iterator[SampleRow]:
    rng = generator(e, TEXT, config.seed)
    demonstration = in_words(e)
    if demonstration is None:
        return
    for now in draw_moments_of(e, rng, config.text_demo_per_episode, config):
        picture = SamplePicture(e.episode_index, e.camera, now)
        yield _answerable(e, TEXT, "steps", demonstration, picture, draw_form(rng, config))


def _visual(e: LabelledEpisode, config: SamplesConfig) -> Iterator[SampleRow]:
    rng = generator(e, VISUAL, config.seed)
    if in_pictures(e, e.camera) is None:
        return
    for now in draw_moments_of(e, rng, config.visual_demo_per_episode, config):
        camera, (is_last, share), is_part = draw_camera(rng, e), draw_part(rng), rng.random() < PART_SHARE
        demonstration = in_pictures(e, camera)
        is_shown = e.progress[now] >= share if is_last else e.progress[now] <= share
        if is_part and is_shown:
            demonstration = part_in_pictures(e, camera, is_last, share) or demonstration
        assert demonstration is not None
        picture = SamplePicture(e.episode_index, camera, now)
        yield _answerable(e, VISUAL, "same_view", demonstration, picture, draw_form(rng, config))


def _cross_view(e: LabelledEpisode, others: Sequence[LabelledEpisode], config: SamplesConfig) -> Iterator[SampleRow]:
    """A demonstration by another camera of the run, or by another run of the task: either, where both can be had."""
    rng = generator(e, CROSS_VIEW, config.seed)
    camera_pairs = _camera_pairs(e)
    other_runs = [o for o in others if is_whole_other_run(o, e)]
    variants = [name for name, choices in (("cameras", camera_pairs), ("episodes", other_runs)) if choices]
    if not variants or e.task is None:
        return
    for now in draw_moments_of(e, rng, config.cross_view_per_episode, config):
        # The demonstration is of the run itself by one camera and the state by another, or it is of another run, by
        # the state's camera if that run has it
        variant = draw_one(rng, variants)
        if variant == "cameras":
            demonstrator, (demonstration_camera, camera) = e, draw_one(rng, camera_pairs)
        else:
            demonstrator, camera = draw_one(rng, other_runs), e.camera
            demonstration_camera = demonstrator.camera_like(camera)
        demonstration = in_pictures(demonstrator, demonstration_camera)
        if demonstration:
            picture = SamplePicture(e.episode_index, camera, now)
            form = draw_form(rng, config)
            yield _answerable(e, CROSS_VIEW, variant, demonstration, picture, form, others=(demonstrator,))


def _camera_pairs(e: LabelledEpisode) -> list[tuple[str, str]]:
    """(the demonstration's, the state's); none where the run cannot demonstrate the task."""
    return list(permutations(e.cameras, 2)) if e.step_ends() else []


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
        demonstration.question(view, form),
        answer,
        others=others,
        form=form,
        progress=score,
        reference=thoughts.reference,
        state=STATES[e.state[now]],
        # A demonstration in words names them, and so do thoughts on the step under way
        names_steps=demonstration.kind == "text" or (form == "think" and e.has_actions),
    )


def _thoughts(e: LabelledEpisode, demonstration: Demonstration, now: int) -> Thoughts:
    if demonstration.kind == "text":
        return _thoughts_on_steps(e, demonstration, now)
    return _thoughts_on_pictures(e, demonstration, now)


def _thoughts_on_steps(e: LabelledEpisode, demonstration: Demonstration, now: int) -> Thoughts:
    """The reference is the step under way, and the last one once the task is done."""
    wording = template("progresslm", "think")
    left = e.remaining(now)
    action = without_marks(e.action_at(now))
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
    if not e.remaining(now):
        wording_of_picture = wording["picture_done"]
    else:
        wording_of_picture = wording["picture" if e.has_actions else "picture_alone"]
    why = wording_of_picture.format(
        action=without_marks(e.action_at(now)), ref=reference, percent=percent(shares[nearest])
    )
    # In whole points of a percent, as the demonstration shows the shares
    distance = round(100 * (score - float(shares[nearest])))
    if distance == 0:
        where = "same"
    else:
        where = "beyond" if distance > 0 else "before"
    return Thoughts(reference, why, wording[where].format(distance=abs(distance)))

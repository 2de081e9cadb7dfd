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
from typing import Any

import numpy as np

from annotate.config import SamplesConfig
from annotate.samples.labelled_episode import STATES, LabelledEpisode, SamplePicture, generator, sample_row
from annotate.samples.unanswerable import (
    Demonstration,
    Stranger,
    draw_camera,
    draw_form,
    draw_one,
    draw_part,
    in_pictures,
    in_words,
    is_whole_other_run,
    part_in_pictures,
    unanswerable,
)
from annotate.samples.wording import answer_text, percent, question_text, score_text, template, without_marks

TEXT, VISUAL, CROSS_VIEW = (f"progresslm_{name}" for name in ("text", "visual", "cross_view"))
# Of demonstrations in pictures, how many show a part of the run: those of some unanswerable samples do, which must not
# tell them
PART_SHARE = 0.25


def samples(
    e: LabelledEpisode, others: Sequence[LabelledEpisode], strangers: Sequence[Stranger], config: SamplesConfig
) -> Iterator[dict[str, Any]]:
    """All ProgressLM samples of an episode.

    `others` are the labelled episodes of its chunk and split, `strangers` runs of other tasks elsewhere in the dataset.
    """
    yield from _text(e, config)
    yield from _visual(e, config)
    yield from _cross_view(e, others, config)
    yield from unanswerable(e, others, strangers, config)


# Families


def _text(e: LabelledEpisode, config: SamplesConfig) -> Iterator[dict[str, Any]]:
    rng = generator(e, TEXT, config.seed)
    demonstration = in_words(e)
    if demonstration:
        for now in e.draw_moments(rng, config.text_demo_per_episode, config.rare_share):
            yield _answerable(e, TEXT, "steps", demonstration, e.camera, now, rng, config)


def _visual(e: LabelledEpisode, config: SamplesConfig) -> Iterator[dict[str, Any]]:
    rng = generator(e, VISUAL, config.seed)
    if in_pictures(e, e.camera) is None:
        return
    for now in e.draw_moments(rng, config.visual_demo_per_episode, config.rare_share):
        camera, (is_last, share), is_part = draw_camera(rng, e), draw_part(rng), rng.random() < PART_SHARE
        is_shown = e.progress[now] >= share if is_last else e.progress[now] <= share
        part = part_in_pictures(e, camera, is_last, share) if is_part and is_shown else None
        demonstration = part or in_pictures(e, camera)
        assert demonstration is not None
        yield _answerable(e, VISUAL, "same_view", demonstration, camera, now, rng, config)


def _cross_view(
    e: LabelledEpisode, others: Sequence[LabelledEpisode], config: SamplesConfig
) -> Iterator[dict[str, Any]]:
    """A demonstration by another camera of the run, or by another run of the task: either, where both can be had."""
    rng = generator(e, CROSS_VIEW, config.seed)
    # (the demonstration's, the state's); none where the run cannot demonstrate the task
    camera_pairs = list(permutations(e.cameras, 2)) if e.step_ends else []
    other_runs = [o for o in others if is_whole_other_run(o, e)]
    variants = [name for name, choices in (("cameras", camera_pairs), ("episodes", other_runs)) if choices]
    if not variants or e.task is None:
        return
    for now in e.draw_moments(rng, config.cross_view_per_episode, config.rare_share):
        # The demonstration is of the run itself by one camera and the state by another, or it is of another run, by
        # the state's camera if that run has it
        variant = draw_one(rng, variants)
        if variant == "cameras":
            demonstrator, (demonstration_camera, camera) = e, draw_one(rng, camera_pairs)
        else:
            demonstrator, camera = draw_one(rng, other_runs), e.camera
            demonstration_camera = demonstrator.camera_like(camera)
        if demonstration := in_pictures(demonstrator, demonstration_camera):
            yield _answerable(e, CROSS_VIEW, variant, demonstration, camera, now, rng, config, others=(demonstrator,))


# Wording


def _answerable(
    e: LabelledEpisode,
    family: str,
    variant: str,
    demonstration: Demonstration,
    camera: str,
    now: int,
    rng: np.random.Generator,
    config: SamplesConfig,
    *,
    others: Sequence[LabelledEpisode] = (),
) -> dict[str, Any]:
    """The sample whose score is the label of frame `now` of `e`."""
    form, score = draw_form(rng, config), float(e.progress[now])
    is_text = demonstration.kind == "text"
    reference, ref_think, score_think = (_thoughts_on_steps if is_text else _thoughts_on_pictures)(
        e, demonstration, now
    )
    # The question of a cross-view sample says that the two views differ
    view = "cross_view" if family == CROSS_VIEW else demonstration.kind
    return sample_row(
        e,
        family,
        variant,
        [*demonstration.pictures, SamplePicture(e.episode_index, camera, now)],
        question_text(view, demonstration.task, demonstration.shares, demonstration.steps, form),
        answer_text(form, ref_think=ref_think, ref=reference, score_think=score_think, score=score_text(score)),
        others=others,
        form=form,
        progress=score,
        reference=reference,
        state=STATES[e.state[now]],
        # A demonstration in words names them, and so do thoughts on the step under way
        names_steps=is_text or (form == "think" and e.has_actions),
    )


def _thoughts_on_steps(e: LabelledEpisode, demonstration: Demonstration, now: int) -> tuple[int, str, str]:
    """The number of the step under way, and of the last one once the task is done; why it is that one, and how the
    state lies to it."""
    wording = template("progresslm", "think")
    left = e.remaining(now)
    action = without_marks(e.action_at(now))
    if not left:
        reference = len(e.steps)
        return reference, wording["all_done"].format(ref=reference, action=action), wording["same"]
    # How far within the step: the score between the shares at the step's two ends
    step, shares = left[0], (0.0, *demonstration.shares)
    before, after = shares[step], shares[step + 1]
    share_of_step = (float(e.progress[now]) - before) / max(after - before, 1e-6)
    within = wording["within"].format(
        before=percent(before), percent=percent(after), share=percent(float(np.clip(share_of_step, 0, 1)))
    )
    return step + 1, wording["step_under_way"].format(ref=step + 1, action=action), within


def _thoughts_on_pictures(e: LabelledEpisode, demonstration: Demonstration, now: int) -> tuple[int, str, str]:
    """The number of the picture whose share is nearest to the score, the earlier of two; and as for steps."""
    wording = template("progresslm", "think")
    score, shares = float(e.progress[now]), np.array(demonstration.shares)
    # argmin takes the first of equal ones, hence the earlier picture
    nearest = int(np.abs(shares - score).argmin())
    if e.remaining(now):
        wording_of_picture = wording["picture" if e.has_actions else "picture_alone"]
    else:
        wording_of_picture = wording["picture_done"]
    why = wording_of_picture.format(
        action=without_marks(e.action_at(now)), ref=nearest + 1, percent=percent(shares[nearest])
    )
    # In whole points of a percent, as the demonstration shows the shares
    distance = round(100 * (score - float(shares[nearest])))
    where = ("same", "beyond", "before")[int(np.sign(distance))]
    return nearest + 1, why, wording[where].format(distance=abs(distance))

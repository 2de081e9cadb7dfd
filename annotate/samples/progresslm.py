"""ProgressLM samples: a demonstration in words or pictures, and one picture to place in it.

    progresslm_text          the run's planned steps, with the share of the task that each ends at
    progresslm_visual        pictures of the same run by the same camera: its first frame and the end of each step; some
                             show only the run's first or last part, and ask about a moment of it
    progresslm_cross_view    those of another camera of the run, or of another run of the same task
    progresslm_unanswerable  a demonstration that says nothing of that picture (`unanswerable.py`)

The score is the label itself, and so are the shares of the demonstration, hence the two never
contradict each other. The reference is, in words, the step under way (the last one, once the task
is done); in pictures, the one whose share is nearest to the score, the earlier of two.
"""

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from annotate.config import SamplesConfig
from annotate.samples.labelled_episode import (
    STATES,
    LabelledEpisode,
    SamplePicture,
    generator,
    sample_row,
)
from annotate.samples.unanswerable import (
    Demonstration,
    draw_camera,
    draw_form,
    draw_one,
    draw_part,
    is_whole_other_run,
    part_in_pictures,
    pictures_demonstration,
    unanswerable_samples,
    words_demonstration,
)
from annotate.samples.wording import (
    answer_text,
    percent,
    question_text,
    score_text,
    template,
    without_marks,
)
from core.domain.label import Episode

TEXT, VISUAL, CROSS_VIEW = (f"progresslm_{name}" for name in ("text", "visual", "cross_view"))
# Of demonstrations in pictures, how many show a part of the run: those of some unanswerable samples do, which must not
# tell them
PART_SHARE = 0.25


def samples(
    e: LabelledEpisode,
    other_episodes: Sequence[LabelledEpisode],
    listed_episodes: Sequence[Episode],
    config: SamplesConfig,
) -> Iterator[dict[str, Any]]:
    """All ProgressLM samples of an episode.

    `other_episodes` are the labelled episodes of its chunk and split, `listed_episodes` runs of
    other tasks elsewhere in the dataset, by its listing: they may have no label yet.
    """
    yield from _text_samples(e, config)
    yield from _visual_samples(e, config)
    yield from _cross_view_samples(e, other_episodes, config)
    yield from unanswerable_samples(e, other_episodes, listed_episodes, config)


# Families


def _text_samples(e: LabelledEpisode, config: SamplesConfig) -> Iterator[dict[str, Any]]:
    rng = generator(e, TEXT, config.seed)
    demonstration = words_demonstration(e)
    if demonstration:
        for frame in e.draw_moments(rng, config.text_demo_per_episode, config.rare_share):
            yield _answerable_sample(e, TEXT, "steps", demonstration, e.camera, frame, rng, config)


def _visual_samples(e: LabelledEpisode, config: SamplesConfig) -> Iterator[dict[str, Any]]:
    rng = generator(e, VISUAL, config.seed)
    if pictures_demonstration(e, e.camera) is None:
        return
    for frame in e.draw_moments(rng, config.visual_demo_per_episode, config.rare_share):
        camera, (is_last, share), is_part = (
            draw_camera(rng, e),
            draw_part(rng),
            rng.random() < PART_SHARE,
        )
        is_shown = e.label.progress[frame] >= share if is_last else e.label.progress[frame] <= share
        part = part_in_pictures(e, camera, is_last, share) if is_part and is_shown else None
        demonstration = part or pictures_demonstration(e, camera)
        assert demonstration is not None
        yield _answerable_sample(e, VISUAL, "same_view", demonstration, camera, frame, rng, config)


def _cross_view_samples(
    e: LabelledEpisode, other_episodes: Sequence[LabelledEpisode], config: SamplesConfig
) -> Iterator[dict[str, Any]]:
    """A demonstration by another camera of the run, or by another run of the task: either, where both can be had."""
    rng = generator(e, CROSS_VIEW, config.seed)
    # (the demonstration's, the state's); none where the run cannot demonstrate the task
    camera_pairs = list(permutations(e.episode.cameras, 2)) if e.step_ends else []
    other_runs = [o for o in other_episodes if is_whole_other_run(o, e)]
    variants = [
        name for name, choices in (("cameras", camera_pairs), ("episodes", other_runs)) if choices
    ]
    if not variants or e.label.task is None:
        return
    for frame in e.draw_moments(rng, config.cross_view_per_episode, config.rare_share):
        # The demonstration is of the run itself by one camera and the state by another, or it is of another run, by
        # the state's camera if that run has it
        variant = draw_one(rng, variants)
        if variant == "cameras":
            demonstrator, (demonstration_camera, camera) = e, draw_one(rng, camera_pairs)
        else:
            demonstrator = draw_one(rng, other_runs)
            camera = e.camera
            demonstration_camera = demonstrator.camera_like(camera)
        if demonstration := pictures_demonstration(demonstrator, demonstration_camera):
            yield _answerable_sample(
                e,
                CROSS_VIEW,
                variant,
                demonstration,
                camera,
                frame,
                rng,
                config,
                other_episodes=(demonstrator,),
            )


# Wording


def _answerable_sample(
    e: LabelledEpisode,
    family: str,
    variant: str,
    demonstration: Demonstration,
    camera: str,
    frame: int,
    rng: np.random.Generator,
    config: SamplesConfig,
    *,
    other_episodes: Sequence[LabelledEpisode] = (),
) -> dict[str, Any]:
    """The sample whose score is the label of frame `frame` of `e`."""
    form = draw_form(rng, config)
    score = float(e.label.progress[frame])
    is_text = demonstration.kind == "text"
    reference, ref_think, score_think = (_thoughts_on_steps if is_text else _thoughts_on_pictures)(
        e, demonstration, frame
    )
    # The question of a cross-view sample says that the two views differ
    view = "cross_view" if family == CROSS_VIEW else demonstration.kind
    return sample_row(
        e,
        family,
        variant,
        [*demonstration.pictures, SamplePicture(e.episode.episode_index, camera, frame)],
        question_text(view, demonstration.task, demonstration.shares, demonstration.steps, form),
        answer_text(
            form,
            ref_think=ref_think,
            ref=reference,
            score_think=score_think,
            score=score_text(score),
        ),
        other_episodes=other_episodes,
        form=form,
        progress=score,
        reference=reference,
        state=STATES[e.state[frame]],
        # A demonstration in words names them, and so do thoughts on the step under way
        names_steps=is_text or (form == "think" and e.has_actions),
    )


def _thoughts_on_steps(
    e: LabelledEpisode, demonstration: Demonstration, frame: int
) -> tuple[int, str, str]:
    """The number of the step under way, and of the last one once the task is done; why it is that
    one, and how the state lies to it."""
    wording = template("progresslm", "think")
    remaining_steps = e.remaining(frame)
    action = without_marks(e.action_at(frame))
    if not remaining_steps:
        reference = len(e.steps)
        return reference, wording["all_done"].format(ref=reference, action=action), wording["same"]
    # How far within the step: the score between the shares at the step's two ends
    step = remaining_steps[0]
    shares = (0.0, *demonstration.shares)
    share_before = shares[step]
    share_after = shares[step + 1]
    share_of_step = (float(e.label.progress[frame]) - share_before) / max(
        share_after - share_before, 1e-6
    )
    share_text = wording["within"].format(
        before=percent(share_before),
        percent=percent(share_after),
        share=percent(float(np.clip(share_of_step, 0, 1))),
    )
    return step + 1, wording["step_under_way"].format(ref=step + 1, action=action), share_text


def _thoughts_on_pictures(
    e: LabelledEpisode, demonstration: Demonstration, frame: int
) -> tuple[int, str, str]:
    """The number of the picture whose share is nearest to the score, the earlier of two; and as for steps."""
    wording = template("progresslm", "think")
    score = float(e.label.progress[frame])
    shares = np.array(demonstration.shares)
    # argmin takes the first of equal ones, hence the earlier picture
    nearest = int(np.abs(shares - score).argmin())
    if e.remaining(frame):
        wording_of_picture = wording["picture" if e.has_actions else "picture_alone"]
    else:
        wording_of_picture = wording["picture_done"]
    reason = wording_of_picture.format(
        action=without_marks(e.action_at(frame)), ref=nearest + 1, percent=percent(shares[nearest])
    )
    # In whole points of a percent, as the demonstration shows the shares
    distance = round(100 * (score - float(shares[nearest])))
    direction = ("same", "beyond", "before")[int(np.sign(distance))]
    return nearest + 1, reason, wording[direction].format(distance=abs(distance))

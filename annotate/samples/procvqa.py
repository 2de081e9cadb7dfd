"""ProcVQA samples: a, the run in segments; b, the next or the remaining actions; c, those and the progress.

Two profiles. `balanced`: a quota per episode, pictures at times, moments drawn by state
(`moments`). `procvlm`: the quotas, windows and intents of the published recipe, whose number grows
with the frames of a run; its defects are mended: progress counts the current frame, a sample that
should give a reason has one.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations_with_replacement
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
from annotate.samples.wording import task_text, template, without_marks
from core.values import IMAGE_MARK, image_marks

SEGMENTATION = "procvqa_a"
ACTIONS = "procvqa_b"
PROGRESS = "procvqa_c"

# The published recipe
KEPT_ACTIONS, KEPT_PROGRESS = 0.6, 0.8  # share of the frames asked about
FINISHED_PER_EPISODE = 10  # at most
ONE_PICTURE = 0.3
FEWEST_BEFORE = 4
MOST_BEFORE = 16
WHOLE_FRAMES, RANGE_FRAMES = (32, 96), (16, 64)  # bounds of the drawn maximum of pictures

Row = dict[str, Any]
# (episode, moment, frames shown, random numbers) -> the sample that asks about the moment
Ask = Callable[[LabelledEpisode, int, list[int], np.random.Generator], Row]


def samples(e: LabelledEpisode, config: SamplesConfig) -> Iterator[Row]:
    """All ProcVQA samples of an episode."""
    if e.has_actions:
        if config.profile == "procvlm":
            yield from _published_segmentation_samples(e, config)
        else:
            yield from _segmentation_samples(e, config)
        yield from _samples_at_moments(
            e, config, ACTIONS, _actions_sample, config.actions_per_episode
        )
    yield from _samples_at_moments(
        e, config, PROGRESS, _progress_sample, config.progress_per_episode
    )


def _samples_at_moments(
    e: LabelledEpisode, config: SamplesConfig, family: str, sample_of: Ask, quota: int
) -> Iterator[Row]:
    """The samples of family b or c: one for each drawn moment, with the pictures of a window up to it."""
    rng = generator(e, family, config.seed)
    if config.profile == "procvlm":
        for frame in _published_moments(e, rng, family):
            yield sample_of(e, frame, _published_window(frame, rng), rng)
    else:
        for frame in e.draw_moments(rng, quota, config.rare_share, ends=family == PROGRESS):
            yield sample_of(e, frame, window(frame, e.episode.fps, config), rng)


def _own_pictures(e: LabelledEpisode, frames: Sequence[int]) -> list[SamplePicture]:
    return [SamplePicture(e.episode.episode_index, e.camera, frame) for frame in frames]


# Families b and c


def window(frame: int, fps: float, config: SamplesConfig) -> list[int]:
    """Frames up to `frame`, window_step_s apart, closer together near the start of a run; no frame is shown twice.

    The number of pictures must not tell how long the run has lasted, or a model learns to count
    them instead of looking (it did): so it is the same everywhere but on the first window_frames -
    1 frames.

    Example: 4 frames 0.4 s apart, at 10 fps, are [18, 22, 26, 30] for window(30, ...), [0, 2, 4, 6]
    for window(6, ...).
    """
    num_previous = config.window_frames - 1
    step = min(config.window_step_s * fps, frame / max(1, num_previous))
    return sorted({frame - round(k * step) for k in range(config.window_frames)})


def _published_window(frame: int, rng: np.random.Generator) -> list[int]:
    if rng.random() < ONE_PICTURE:
        num_previous = 0
    else:
        num_previous = int(rng.integers(FEWEST_BEFORE, MOST_BEFORE + 1))
    return list(range(max(0, frame - num_previous), frame + 1))


def _published_moments(e: LabelledEpisode, rng: np.random.Generator, family: str) -> list[int]:
    """Each frame by a draw (b: all but the last); of the finished ones no more than FINISHED_PER_EPISODE."""
    is_actions = family == ACTIONS
    share = KEPT_ACTIONS if is_actions else KEPT_PROGRESS
    drawn = np.flatnonzero(rng.random(len(e.label.progress) - is_actions) < share)
    is_finished = e.label.progress[drawn] >= 1
    return sorted(
        [*drawn[~is_finished], *rng.permutation(drawn[is_finished])[:FINISHED_PER_EPISODE]]
    )


def _actions_sample(
    e: LabelledEpisode, frame: int, frames: list[int], rng: np.random.Generator
) -> Row:
    variant = "next" if rng.random() < 0.5 else "remaining"
    question = template("procvqa", "b", variant, "question").format(
        frames=image_marks(len(frames)), task=task_text(e.label.task)
    )
    if remaining_steps := e.remaining(frame):
        answer = template("procvqa", "b", variant, "answer").format(
            action=e.steps[remaining_steps[0]], actions=_numbered_steps(e, remaining_steps)
        )
    else:
        answer = template("procvqa", "b", variant, "finished").format(
            reason=finish_reason(e, frame)
        )
    return sample_row(
        e,
        ACTIONS,
        variant,
        _own_pictures(e, frames),
        question,
        answer,
        state=STATES[e.state[frame]],
        names_steps=True,
    )


def _progress_sample(
    e: LabelledEpisode, frame: int, frames: list[int], rng: np.random.Generator
) -> Row:
    """`rng` is not drawn from: the label decides on the variant."""
    return sample_row(
        e,
        PROGRESS,
        "progress" if e.has_actions else "share",
        _own_pictures(e, frames),
        progress_question(e.label.task, len(frames), with_actions=e.has_actions),
        progress_answer(e, frame),
        names_steps=e.has_actions,
        progress=float(e.label.progress[frame]),
        state=STATES[e.state[frame]],
    )


def progress_question(task: str | None, num_pictures: int, *, with_actions: bool = True) -> str:
    """The question of family c, with its <image> marks; without actions it asks for the share done alone."""
    question = template("procvqa", "c", "progress" if with_actions else "share", "question")
    return question.format(frames=image_marks(num_pictures), task=task_text(task))


def progress_answer(e: LabelledEpisode, frame: int) -> str:
    """What remains after frame `frame`, as far as the actions are known, and the share that is done."""
    remaining_steps = e.remaining(frame)
    percent = 100.0 * float(e.label.progress[frame])
    if not e.has_actions:
        return template("procvqa", "c", "share", "answer").format(percent=percent)
    if remaining_steps:
        return template("procvqa", "c", "progress", "answer").format(
            actions=_numbered_steps(e, remaining_steps), percent=percent
        )
    reason = finish_reason(e, frame)
    return template("procvqa", "c", "progress", "finished").format(reason=reason, percent=percent)


def _numbered_steps(e: LabelledEpisode, steps: Sequence[int]) -> str:
    return "\n".join(f"{number}. {e.steps[step]}" for number, step in enumerate(steps, 1))


def finish_reason(e: LabelledEpisode, current_frame: int) -> str:
    """Why nothing remains: the annotator's words where it gave some within the last second, else the steps done."""
    recent = [
        frame for frame in e.reasons if current_frame - e.episode.fps <= frame <= current_frame
    ]
    if recent:
        return without_marks(" ".join(e.reasons[max(recent)].split()))
    return template("procvqa", "reason", "steps").format(actions=", ".join(e.steps))


# Family a


def _segmentation_samples(e: LabelledEpisode, config: SamplesConfig) -> Iterator[Row]:
    """The whole run with its task; then, in drawn order, without it, and a part of the run."""
    rng = generator(e, SEGMENTATION, config.seed)
    other_variants = ["untold", "range"] if rng.random() < 0.5 else ["range", "untold"]
    max_frames = config.segmentation_frames
    # As many variants as the quota says. The number of pictures is drawn for each, so that it tells nothing
    for variant in ["whole", *other_variants][: config.segmentation_per_episode]:
        for start, end in (
            _draw_stretches(e, rng, 1) if variant == "range" else [(0, len(e.label.progress))]
        ):
            drawn_count = int(rng.integers(max(2, max_frames // 2), max_frames + 1))
            evenly = np.linspace(start, end - 1, min(end - start, drawn_count))
            yield from _segmentation_sample(e, variant, sorted({round(frame) for frame in evenly}))


def _published_segmentation_samples(e: LabelledEpisode, config: SamplesConfig) -> Iterator[Row]:
    """The whole run; with equal chance nothing more, the same without its task, or two parts of the run."""
    rng = generator(e, SEGMENTATION, config.seed)
    whole = (0, len(e.label.progress))
    variants = [("whole", whole)]
    repeat = int(rng.integers(0, 3))
    if repeat == 1:
        variants.append(("untold", whole))
    elif repeat == 2:
        variants += [("range", stretch) for stretch in _draw_stretches(e, rng, 2)]
    for variant, (start, end) in variants:
        low, high = RANGE_FRAMES if variant == "range" else WHOLE_FRAMES
        step = -(-(end - start) // int(rng.integers(low, high + 1)))
        yield from _segmentation_sample(e, variant, list(range(start, end, max(1, step))))


def _draw_stretches(
    e: LabelledEpisode, rng: np.random.Generator, count: int
) -> list[tuple[int, int]]:
    """Frames of drawn rows of attempts, different ones and none of all; fewer where there are not so many.

    Example: three attempts have the rows 1, 1-2, 2, 2-3 and 3, of which `count` are drawn.
    """
    attempts = e.attempts
    pairs = combinations_with_replacement(range(len(attempts)), 2)
    # A row of all attempts would show the whole run, which is a variant of its own
    rows = [(first, last) for first, last in pairs if last - first + 1 < len(attempts)]
    drawn = (rows[k] for k in rng.permutation(len(rows))[:count])
    return [(attempts[first].start_frame, attempts[last].end_frame) for first, last in drawn]


def _segmentation_sample(e: LabelledEpisode, variant: str, frames: list[int]) -> Iterator[Row]:
    """The sample that asks for the segments in these pictures; none where they show no attempt."""
    # In numbers of the pictures shown, from 0: a model does not know the frames of the video
    step_pictures = (
        (s.name, [k for k, frame in enumerate(frames) if s.start_frame <= frame < s.end_frame])
        for s in e.attempts
    )
    spans = [
        {"action_description": name, "start_frame": n[0], "end_frame": n[-1]}
        for name, n in step_pictures
        if n
    ]
    if spans:
        marks = "\n".join(f"{number}: {IMAGE_MARK}" for number in range(len(frames)))
        question = template("procvqa", "a", variant, "question").format(
            frames=marks, task=task_text(e.label.task), num_frames=len(frames)
        )
        pictures = _own_pictures(e, frames)
        yield sample_row(
            e, SEGMENTATION, variant, pictures, question, json.dumps(spans), names_steps=True
        )

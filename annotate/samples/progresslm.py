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
from typing import Literal

import numpy as np

from annotate.samples.config import SamplesConfig
from annotate.samples.edits import EDITED, OCCLUDED
from annotate.samples.labelled_episode import LabelledEpisode, Picture, generator, plain, row
from annotate.samples.moments import STATES, drawn
from annotate.samples.progresslm_wording import Form, ask, fill, item_of, percent, written
from annotate.samples.replies import NA
from annotate.samples.wording import template

TEXT, VISUAL, CROSS_VIEW, UNANSWERABLE = (
    f"progresslm_{name}" for name in ("text", "visual", "cross_view", "unanswerable")
)
OTHER_TASK = "other_task"


@dataclass(frozen=True)
class Demonstration:
    """Steps, or pictures of their ends (the first is the start), with the share done at each, 0..1."""

    kind: Literal["text", "visual"]
    task: str | None
    shares: tuple[float, ...]
    steps: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()


def samples(e: LabelledEpisode, others: Sequence[LabelledEpisode], config: SamplesConfig) -> list[dict]:
    """All ProgressLM samples of an episode; `others` are the labelled episodes of its chunk and split."""
    return [
        *_text(e, config),
        *_visual(e, config),
        *_cross_view(e, others, config),
        *_unanswerable(e, others, config),
    ]


def _in_words(e: LabelledEpisode) -> Demonstration | None:
    """None where no step is planned. Steps that the run did not complete share what is left of the task alike."""
    count = len(e.steps)
    if not count or e.task is None:
        return None
    ends = e.step_ends()
    if ends:
        shares = [float(e.progress[f]) for f in ends]
        return Demonstration("text", e.task, tuple(shares), e.steps)
    reached = {s.step: float(e.progress[s.end_frame - 1]) for s in e.segments if s.step is not None and s.completed}
    shares, at = [], 0.0
    for k in range(count):
        equal = at + (1 - at) / (count - k)
        at = reached[k] if at < reached.get(k, 0.0) < 1 and k < count - 1 else equal
        shares.append(at)
    return Demonstration("text", e.task, tuple(shares), e.steps)


def _in_pictures(e: LabelledEpisode, camera: str) -> Demonstration | None:
    """None where the run did not complete every step, in order."""
    ends = e.step_ends()
    if ends is None or e.task is None or camera not in e.cameras:
        return None
    frames = [0, *ends] if ends[0] else ends
    pictures = tuple(Picture(e.episode_index, camera, f) for f in frames)
    return Demonstration("visual", e.task, tuple(float(e.progress[f]) for f in frames), pictures=pictures)


# Families


def _moments(e: LabelledEpisode, rng: np.random.Generator, quota: int, config: SamplesConfig) -> Iterator[int]:
    yield from drawn(rng, e.state, e.fps, quota, config.rare_share)


def _text(e: LabelledEpisode, config: SamplesConfig) -> Iterator[dict]:
    rng, demonstration = generator(e, TEXT, config.seed), _in_words(e)
    if demonstration:
        for now in _moments(e, rng, config.text_demo_per_episode, config):
            yield _row(e, TEXT, "steps", demonstration, Picture(e.episode_index, e.camera, now), _form(rng, config))


def _visual(e: LabelledEpisode, config: SamplesConfig) -> Iterator[dict]:
    rng, demonstration = generator(e, VISUAL, config.seed), _in_pictures(e, e.camera)
    if demonstration:
        for now in _moments(e, rng, config.visual_demo_per_episode, config):
            picture = Picture(e.episode_index, e.camera, now)
            yield _row(e, VISUAL, "same_view", demonstration, picture, _form(rng, config))


def _cross_view(e: LabelledEpisode, others: Sequence[LabelledEpisode], config: SamplesConfig) -> Iterator[dict]:
    rng = generator(e, CROSS_VIEW, config.seed)
    alike = [o for o in others if o.task == e.task and o.episode_index != e.episode_index and o.step_ends()]
    pairs = [(a, b) for a in e.cameras for b in e.cameras if a != b] if e.step_ends() else []
    for now in _moments(e, rng, config.cross_view_per_episode, config):
        variants = [v for v, possible in (("cameras", pairs), ("episodes", alike)) if possible]
        if not variants or e.task is None:
            return
        variant = variants[int(rng.integers(len(variants)))]
        other, shown, camera = e, e.camera, e.camera
        if variant == "cameras":
            shown, camera = pairs[int(rng.integers(len(pairs)))]
        else:
            other = alike[int(rng.integers(len(alike)))]
            shown = camera if camera in other.cameras else other.camera
        demonstration = _in_pictures(other, shown)
        if demonstration:
            picture = Picture(e.episode_index, camera, now)
            yield _row(e, CROSS_VIEW, variant, demonstration, picture, _form(rng, config), others=(other,))


def _unanswerable(e: LabelledEpisode, others: Sequence[LabelledEpisode], config: SamplesConfig) -> Iterator[dict]:
    """Another task's steps; or the run's own pictures, and a picture of another task or an edited one."""
    rng = generator(e, UNANSWERABLE, config.seed)
    foreign = [o for o in others if o.task and o.task != e.task and o.steps and set(o.steps).isdisjoint(e.steps)]
    shown = _in_pictures(e, e.camera)
    possible = [("text", OTHER_TASK)] if foreign else []
    if shown:
        reasons = [*([OTHER_TASK] if foreign else []), OCCLUDED, *([EDITED] if config.image_editor else [])]
        possible += [("visual", reason) for reason in reasons]
    if not possible:
        return
    for now in _moments(e, rng, config.unanswerable_per_episode, config):
        variant, reason = possible[int(rng.integers(len(possible)))]
        other = foreign[int(rng.integers(len(foreign)))] if foreign else e
        at, seed = int(rng.integers(len(other.progress))), int(rng.integers(1 << 32))
        demonstration = _in_words(other) if variant == "text" else shown
        assert demonstration is not None
        picture = Picture(e.episode_index, e.camera, now)
        told = {}
        if reason != OTHER_TASK:
            picture = picture._replace(edit=f"{reason}-{seed:08x}")
        elif variant == "visual":
            picture = Picture(other.episode_index, other.camera, at)
        if reason == EDITED:
            told["edit_instruction"] = _edit_instruction(e, now)
        form = _form(rng, config)
        yield _row(e, UNANSWERABLE, variant, demonstration, picture, form, reason, others=(other,)) | told


def _edit_instruction(e: LabelledEpisode, now: int) -> str:
    left = e.remaining(now)
    return template("progresslm", "edit").format(action=e.steps[left[0] if left else -1])


def _form(rng: np.random.Generator, config: SamplesConfig) -> Form:
    return "think" if rng.random() < config.think_share else "no_think"


# Wording


def _row(
    e: LabelledEpisode,
    family: str,
    variant: str,
    demonstration: Demonstration,
    picture: Picture,
    form: Form,
    reason: str | None = None,
    *,
    others: Sequence[LabelledEpisode] = (),
) -> dict:
    kind = demonstration.kind
    item = item_of(kind)
    view = "cross_view" if family == CROSS_VIEW else kind
    question = ask(view, demonstration.task, demonstration.shares, demonstration.steps, form)
    columns: dict[str, object] = {"form": form, "reason": reason}
    if reason:
        why = template("progresslm", "unanswerable", reason).format(item=item)
        answer = fill(form, ref_think=why, ref=NA, score_think=NA, score=NA)
    else:
        now = picture.frame_index
        score = float(e.progress[now])
        reference, ref_think, score_think = _thoughts(e, demonstration, now)
        answer = fill(form, ref_think=ref_think, ref=reference, score_think=score_think, score=written(score))
        state = STATES[e.state[now]]
        columns |= {"reference": reference, "progress": score, "state": state}
    sizes = {(o.episode_index, camera): size for o in others for camera, size in o.cameras.items()}
    return row(e, family, variant, [*demonstration.pictures, picture], question, answer, sizes, **columns)


def _thoughts(e: LabelledEpisode, demonstration: Demonstration, now: int) -> tuple[int, str, str]:
    """Reference (from 1), why it is that, and how the state lies to it."""
    say = template("progresslm", "think")
    left, score = e.remaining(now), float(e.progress[now])
    action = plain(e.steps[left[0] if left else -1])
    if demonstration.kind == "text":
        k = left[0] if left else len(e.steps) - 1
        if not left:
            return k + 1, say["all_done"].format(ref=k + 1, action=action), say["same"]
        before = demonstration.shares[k - 1] if k else 0.0
        after = demonstration.shares[k]
        share = np.clip((score - before) / max(after - before, 1e-6), 0, 1)
        within = say["within"].format(before=percent(before), percent=percent(after), share=percent(float(share)))
        return k + 1, say["step_under_way"].format(ref=k + 1, action=action), within
    shares = np.array(demonstration.shares)
    k = int(np.abs(shares - score).argmin())
    named = say["picture" if left else "picture_done"]
    why = named.format(action=action, ref=k + 1, percent=percent(shares[k]))
    distance = round(100 * (score - float(shares[k])))
    where = "same" if distance == 0 else "beyond" if distance > 0 else "before"
    return k + 1, why, say[where].format(distance=abs(distance))

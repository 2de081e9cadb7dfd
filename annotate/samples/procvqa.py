"""ProcVQA samples: a, the run in segments; b, the next or the remaining actions; c, those and the progress.

Two profiles. `balanced`: a quota per episode, pictures at times, moments drawn by state (`moments`). `procvlm`:
the quotas, windows and intents of the published recipe, whose number grows with the frames of a run; its defects
are mended: progress counts the current frame, a sample that should give a reason has one.
"""

import json
from collections.abc import Iterator, Sequence

import numpy as np

from annotate.samples.config import SamplesConfig
from annotate.samples.labelled_episode import LabelledEpisode, Picture, generator, plain, row
from annotate.samples.moments import STATES, drawn
from annotate.samples.wording import IMAGE_MARK, template
from annotate.segments import STEP, Segment

# The published recipe
KEPT_ACTIONS, KEPT_PROGRESS = 0.6, 0.8  # share of the frames asked about
FINISHED_PER_EPISODE = 10  # at most
ONE_PICTURE, FEWEST_BEFORE, MOST_BEFORE = 0.3, 4, 16
WHOLE_FRAMES, RANGE_FRAMES = (32, 96), (16, 64)  # bounds of the drawn maximum of pictures


def samples(e: LabelledEpisode, config: SamplesConfig) -> list[dict]:
    """All ProcVQA samples of an episode."""
    published = config.profile == "procvlm"
    rows = [*(_published_segmentation(e, config) if published else _segmentation(e, config))]
    for family, ask, quota in (
        ("procvqa_b", _actions, config.actions_per_episode),
        ("procvqa_c", _progress, config.progress_per_episode),
    ):
        rng = generator(e, family, config.seed)
        if family == "procvqa_b" and not e.steps:
            continue  # nobody knows which actions there are
        if published:
            moments = _published_moments(e, rng, family)
        else:
            moments = drawn(rng, e.state, e.fps, quota, config.rare_share, ends=family == "procvqa_c")
        for now in moments:
            frames = _published_window(now, rng) if published else window(now, e.fps, config)
            rows.append(ask(e, now, frames, rng) | {"state": STATES[e.state[now]]})
    return rows


def _row(e: LabelledEpisode, family: str, variant: str, frames: Sequence[int], question: str, answer: str) -> dict:
    return row(e, family, variant, [Picture(e.episode_index, e.camera, f) for f in frames], question, answer)


def task_text(task: str | None) -> str:
    return plain(task or template("procvqa", "task_missing"))


# Families b and c


def window(now: int, fps: float, config: SamplesConfig) -> list[int]:
    """Frames up to `now`, window_step_s apart, closer together near the start of a run; no frame is shown twice.

    The number of pictures must not tell how long the run has lasted, or a model learns to count them instead of looking
    (it did): so it is the same everywhere but on the first window_frames - 1 frames.
    """
    before = config.window_frames - 1
    step = min(config.window_step_s * fps, now / max(1, before))
    return sorted({now - round(k * step) for k in range(config.window_frames)})


def _published_window(now: int, rng: np.random.Generator) -> list[int]:
    before = 0 if rng.random() < ONE_PICTURE else int(rng.integers(FEWEST_BEFORE, MOST_BEFORE + 1))
    return list(range(max(0, now - before), now + 1))


def _published_moments(e: LabelledEpisode, rng: np.random.Generator, family: str) -> list[int]:
    """Each frame by a draw (b: all but the last); of the finished ones no more than FINISHED_PER_EPISODE."""
    n = len(e.progress) - (family == "procvqa_b")
    kept = np.flatnonzero(rng.random(n) < (KEPT_ACTIONS if family == "procvqa_b" else KEPT_PROGRESS))
    done = e.progress[kept] >= 1
    return sorted([*kept[~done], *rng.permutation(kept[done])[:FINISHED_PER_EPISODE]])


def _actions(e: LabelledEpisode, now: int, frames: list[int], rng: np.random.Generator) -> dict:
    variant = "next" if rng.random() < 0.5 else "remaining"
    question = template("procvqa", "b", variant, "question")
    question = question.format(frames="\n".join([IMAGE_MARK] * len(frames)), task=task_text(e.task))
    left = e.remaining(now)
    if not left:
        answer = template("procvqa", "b", variant, "finished").format(reason=finish_reason(e, now))
    elif variant == "next":
        answer = template("procvqa", "b", variant, "answer").format(action=e.steps[left[0]])
    else:
        answer = template("procvqa", "b", variant, "answer").format(actions=_numbered(e, left))
    return _row(e, "procvqa_b", variant, frames, question, answer)


def _progress(e: LabelledEpisode, now: int, frames: list[int], rng: np.random.Generator) -> dict:
    question = progress_question(e.task, len(frames))
    answer = progress_answer(e, now)
    return _row(e, "procvqa_c", "progress", frames, question, answer) | {"progress": float(e.progress[now])}


def progress_question(task: str | None, num_pictures: int) -> str:
    """The question of family c, with its <image> marks."""
    question = template("procvqa", "c", "progress", "question")
    return question.format(frames="\n".join([IMAGE_MARK] * num_pictures), task=task_text(task))


def progress_answer(e: LabelledEpisode, now: int) -> str:
    """What remains after frame `now`, and the share that is done."""
    left, percent = e.remaining(now), 100.0 * float(e.progress[now])
    if left:
        return template("procvqa", "c", "progress", "answer").format(actions=_numbered(e, left), percent=percent)
    if not e.steps:
        return template("procvqa", "c", "progress", "unplanned").format(percent=percent)
    reason = finish_reason(e, now)
    return template("procvqa", "c", "progress", "finished").format(reason=reason, percent=percent)


def _numbered(e: LabelledEpisode, steps: Sequence[int]) -> str:
    return "\n".join(f"{number}. {e.steps[k]}" for number, k in enumerate(steps, 1))


def finish_reason(e: LabelledEpisode, now: int) -> str:
    """Why nothing remains: the annotator's words where it gave some within the last second, else the steps done."""
    told = [f for f in e.reasons if now - e.fps <= f <= now]
    if told:
        return plain(" ".join(e.reasons[max(told)].split()))
    return template("procvqa", "reason", "steps").format(actions=", ".join(e.steps))


# Family a


def _segmentation(e: LabelledEpisode, config: SamplesConfig) -> Iterator[dict]:
    """The whole run with its task; then, in drawn order, without it, and a part of the run."""
    rng = generator(e, "procvqa_a", config.seed)
    others = ["untold", "range"] if rng.random() < 0.5 else ["range", "untold"]
    most = config.segmentation_frames
    for variant in ["whole", *others][: config.segmentation_per_episode]:
        start, end = 0, len(e.progress)
        if variant == "range":
            parts = _parts(e, rng, 1)
            if not parts:
                continue
            start, end = parts[0]
        count = min(end - start, int(rng.integers(max(2, most // 2), most + 1)))
        yield from _spans(e, variant, sorted({round(x) for x in np.linspace(start, end - 1, count)}))


def _published_segmentation(e: LabelledEpisode, config: SamplesConfig) -> Iterator[dict]:
    rng = generator(e, "procvqa_a", config.seed)
    n, repeat = len(e.progress), int(rng.integers(0, 3))
    wanted: list[tuple[str, int, int]] = [("whole", 0, n)]
    if repeat == 1:
        wanted.append(("untold", 0, n))
    elif repeat == 2:
        wanted += [("range", start, end) for start, end in _parts(e, rng, 2)]
    for variant, start, end in wanted:
        low, high = RANGE_FRAMES if variant == "range" else WHOLE_FRAMES
        step = -(-(end - start) // int(rng.integers(low, high + 1)))
        yield from _spans(e, variant, list(range(start, end, max(1, step))))


def _parts(e: LabelledEpisode, rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """Frames of drawn rows of attempts, different ones and none of all; fewer where there are not so many."""
    attempts = [s for s in e.segments if s.kind == STEP]
    pairs = [(i, j) for i in range(len(attempts)) for j in range(i, len(attempts)) if j - i + 1 < len(attempts)]
    chosen = rng.permutation(len(pairs))[:count]
    return [(attempts[pairs[k][0]].start_frame, attempts[pairs[k][1]].end_frame) for k in chosen]


def _spans(e: LabelledEpisode, variant: str, frames: list[int]) -> Iterator[dict]:
    spans = [
        {"action_description": s.name, "start_frame": inside[0], "end_frame": inside[-1]}
        for s, inside in _shown(e.segments, frames)
    ]
    if spans:
        marks = "\n".join(f"{i}: {IMAGE_MARK}" for i in range(len(frames)))
        question = template("procvqa", "a", variant, "question")
        question = question.format(frames=marks, task=task_text(e.task), num_frames=len(frames))
        yield _row(e, "procvqa_a", variant, frames, question, json.dumps(spans))


def _shown(segments: Sequence[Segment], frames: Sequence[int]) -> Iterator[tuple[Segment, list[int]]]:
    """Attempts with the numbers of the pictures that show them."""
    for s in segments:
        inside = [i for i, f in enumerate(frames) if s.start_frame <= f < s.end_frame]
        if s.kind == STEP and inside:
            yield s, inside

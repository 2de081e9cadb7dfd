"""Which run a benchmark's question is about, and when in it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from eval.benchmarks.question import Question

# Families whose pictures are all of the run that is judged; the others show a demonstration first
FRAMES_OF_A_RUN = frozenset({"procvqa_c", "progress", "success"})
DEMONSTRATED = frozenset({"text", "visual", "cross_view"})
_NUMBER = re.compile(r"(\d+)(?:_edit)?\.\w+$")  # camera_top_0012.jpg, 12.jpg, camera_top_0012_edit.jpg


def run_of(question: Question) -> tuple[str, str, str, str]:
    """Part, dataset, trajectory and camera."""
    return question.part, question.dataset, question.trajectory, question.camera


def moment(question: Question) -> int | None:
    """Frame number of the state that is judged; None where the question is about something else, or does not tell."""
    if question.family in FRAMES_OF_A_RUN:
        return question.frame_index
    if question.family in DEMONSTRATED:
        return question.frame_index if question.frame_index is not None else _number(question.pictures[-1].path.name)
    return None


def last_moments(questions: Sequence[Question]) -> Mapping[tuple[Any, ...], int]:
    """The last frame number that is known of each run: its length, else the largest number among its pictures."""
    last: dict[tuple[Any, ...], int] = {}
    for q in questions:
        now = moment(q)
        if now is not None:
            key = (q.part, q.dataset, q.trajectory)
            last[key] = max(last.get(key, 0), now, _last_shown(q))
    return last


def _last_shown(question: Question) -> int:
    """The last frame of the run that a question knows of beside its own; 0 where it knows none."""
    if question.num_frames is not None:
        return question.num_frames - 1
    if question.family not in DEMONSTRATED:
        return 0
    numbers = [_number(picture.path.name) for picture in question.pictures[:-1]]
    return max((n for n in numbers if n is not None), default=0)


def _number(name: str) -> int | None:
    match = _NUMBER.search(name)
    return int(match[1]) if match else None

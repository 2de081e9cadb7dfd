"""Segments of one episode against labelled ones: boundaries, overlap, order of names; and lists of actions.

Spans are half-open, in frames or in numbers of pictures. NaN where a metric is not defined.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
from scipy.optimize import linear_sum_assignment

TOLERANCE = 0.05  # of a labelled run's length
Span = tuple[str, int, int]  # name, first frame, first frame after


def boundaries(spans: Sequence[Span]) -> list[int]:
    """Inner boundaries: frames where one segment ends and the next begins; the ends of the run are
    no finding."""
    ends = set(chain.from_iterable(span[1:] for span in spans))
    return sorted(ends - {min(ends, default=0), max(ends, default=0)})


def boundary_f1(predicted: Sequence[Span], target: Sequence[Span]) -> float:
    """BF1: F1 of inner boundaries matched one to one within TOLERANCE of the labelled run's length.

    Pairs farther apart are never matched, whatever the assignment would gain. 1 when neither has a boundary, 0 when
    only one has. (ProcVLM, arXiv 2605.08774, counts the ends of the run as well.)
    """
    ours = boundaries(predicted)
    labelled = boundaries(target)
    total = len(ours) + len(labelled)
    tolerance = TOLERANCE * _length(target) if target else 0.0
    if total:
        return 2 * len(matched_pairs(ours, labelled, tolerance)) / total
    return 1.0


def boundary_mae(predicted: Sequence[Span], target: Sequence[Span]) -> float:
    """mMAE: mean distance of matched inner boundaries as a share of the labelled run's length, 0..TOLERANCE.

    Only to be read beside `boundary_f1`, which says how many are matched; NaN where none is.
    """
    ours = boundaries(predicted)
    labelled = boundaries(target)
    pairs = matched_pairs(ours, labelled, TOLERANCE * _length(target)) if target else []
    if pairs:
        return float(np.mean([abs(ours[i] - labelled[j]) for i, j in pairs])) / _length(target)
    return float("nan")


def matched_pairs(
    first: Sequence[float], second: Sequence[float], tolerance: float
) -> list[tuple[int, int]]:
    """One-to-one pairs of numbers that are at most `tolerance` apart, as places in the lists: as many pairs as there
    can
    be, then the least distance."""
    if not len(first) or not len(second):
        return []
    # A pair too far apart costs 1; all near pairs together cost less than 1, so that most pairs come first
    distance = np.abs(np.array(first, np.float64)[:, None] - np.array(second, np.float64))
    near = distance <= tolerance
    rows, columns = linear_sum_assignment(
        np.where(near, distance / (len(first) * max(tolerance, 1) * 2), 1.0)
    )
    return [(i, j) for i, j in zip(rows.tolist(), columns.tolist(), strict=True) if near[i, j]]


def _length(spans: Sequence[Span]) -> int:
    return max(s[2] for s in spans) - min(s[1] for s in spans)


def segment_f1(predicted: Sequence[Span], target: Sequence[Span], overlap: float) -> float:
    """F1@k: a predicted segment is right when its best overlap (intersection over union) with a labelled one of the
    same name reaches k/100, each labelled one counting once, 0..1; 1 when there are none on either side.

    (Lea et al., Temporal convolutional networks for action segmentation, CVPR 2017.) Names are compared as they are.
    """
    matched_targets: set[int] = set()
    for p in sorted(predicted, key=lambda s: s[1]):
        # Of equal overlaps the earlier labelled segment is taken, hence -j.
        overlaps = [(_iou(p, t), -j) for j, t in enumerate(target) if t[0] == p[0]]
        best, j = max(overlaps, default=(0.0, 1))
        # A second finding of one labelled segment counts as wrong.
        if best >= overlap and -j not in matched_targets and best > 0:
            matched_targets.add(-j)
    total = len(predicted) + len(target)
    if total:
        return 2 * len(matched_targets) / total
    return 1.0


def best_overlaps(predicted: Sequence[Span], target: Sequence[Span]) -> list[tuple[int, float]]:
    """Per labelled segment, which predicted one overlaps it best and its intersection over union; (-1, 0): none."""
    best = []
    for t in target:
        overlaps = [(_iou(p, t), -i) for i, p in enumerate(predicted)]
        iou, i = max(overlaps, default=(0.0, 1))
        best.append((-i, iou) if iou > 0 else (-1, 0.0))
    return best


def segment_iou(predicted: Sequence[Span], target: Sequence[Span]) -> float:
    """Mean over labelled segments of the best overlap (intersection over union) with any predicted one, 0 .. 1.

    Names do not count. NaN without labelled segments.
    """
    if not target:
        return float("nan")
    return float(np.mean([iou for _, iou in best_overlaps(predicted, target)]))


def _iou(a: Span, b: Span) -> float:
    overlap = min(a[2], b[2]) - max(a[1], b[1])
    if overlap > 0:
        return max(0, overlap) / (max(a[2], b[2]) - min(a[1], b[1]))
    return 0.0


def edit_score(predicted: Sequence[Span], target: Sequence[Span]) -> float:
    """1 - Levenshtein distance of the two name sequences over the longer one's length, 0 .. 1; 1 when both are empty.

    (The segmental edit score of Lea et al., CVPR 2017, as a share.)
    """
    names = [s[0] for s in predicted]
    target_names = [s[0] for s in target]
    longest = max(len(names), len(target_names))
    if longest:
        return 1 - _levenshtein(names, target_names) / longest
    return 1.0


def _levenshtein(a: Sequence[str], b: Sequence[str]) -> int:
    """Insertions, deletions and replacements between two sequences; one row of the table at a time.

    Example: _levenshtein(["reach", "lift"], ["lift", "place"]) == 2
    """
    row = list(range(len(b) + 1))
    for i, name in enumerate(a, 1):
        diagonal = row[0]
        row[0] = i
        for j, other_name in enumerate(b, 1):
            diagonal, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, diagonal + (name != other_name)),
            )
    return row[-1]


def plain_name(name: str) -> str:
    """A step's name without what does not tell steps apart: case, articles, punctuation at the end."""
    return " ".join(w for w in name.casefold().rstrip(" .!").split() if w not in ("a", "an", "the"))


SAME = 0.8  # cosine of two descriptions from which on they name the same action
_ITEM = re.compile(r"^\s*(?:\d+\s*[.):]|[-*•])\s*(?P<action>\S.*?)\s*$")
_PROGRESS = re.compile(r"<progress>.*", re.DOTALL)
_NOTHING = re.compile(r"^\W*no (?:more |further |remaining )?actions?\b", re.IGNORECASE)


def plan_of(text: str) -> tuple[str, ...] | None:
    """The actions that an answer of ProcVQA's families b and c names, in order; () where it says that none remains.

    Items of a list where there is one, else the answer itself as one action. None for an empty answer.
    """
    # Answers of family c end with a progress tag, which is no action.
    plan = _PROGRESS.sub("", text).strip()
    if not plan:
        return None
    if _NOTHING.match(plan):
        return ()
    items = [m["action"] for line in plan.splitlines() if (m := _ITEM.match(line))]
    if items:
        return tuple(items)
    return (" ".join(plan.split()),)


def plan_success(
    plan: Sequence[str], target: Sequence[str], vectors: Mapping[str, np.ndarray]
) -> float:
    """1 where the plan has the right actions in the right order and no others, else 0; descriptions with a cosine of
    `SAME` or more are the same action. `vectors`: unit vectors of all descriptions."""
    if len(plan) != len(target):
        return 0.0
    return float(
        all(
            a == b or float(vectors[a] @ vectors[b]) >= SAME
            for a, b in zip(plan, target, strict=True)
        )
    )


def semantic_f1(
    plan: Sequence[str], target: Sequence[str], vectors: Mapping[str, np.ndarray]
) -> float:
    """Twice the cosines of the best pairing (negative ones as 0) over the number of actions on both sides, 0..1.

    1 where both are empty. Order does not count. (ProcVLM's semantic alignment, with sentence embeddings in place of
    means of word vectors.)
    """
    total = len(plan) + len(target)
    if not plan or not target:
        return float(total == 0)
    cosines = np.clip(
        np.stack([vectors[a] for a in plan]) @ np.stack([vectors[b] for b in target]).T, 0, 1
    )
    return float(2 * cosines[linear_sum_assignment(-cosines)].sum() / total)

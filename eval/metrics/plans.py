"""Lists of actions against the right ones: the next action, and what remains to be done."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

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
    return tuple(items) if items else (" ".join(plan.split()),)


def plan_success(plan: Sequence[str], target: Sequence[str], vectors: Mapping[str, np.ndarray]) -> float:
    """1 where the plan has the right actions in the right order and no others, else 0; descriptions with a cosine of
    `SAME` or more are the same action. `vectors`: unit vectors of all descriptions."""
    if len(plan) != len(target):
        return 0.0
    return float(all(a == b or float(vectors[a] @ vectors[b]) >= SAME for a, b in zip(plan, target, strict=True)))


def semantic_f1(plan: Sequence[str], target: Sequence[str], vectors: Mapping[str, np.ndarray]) -> float:
    """Twice the cosines of the best pairing (negative ones as 0) over the number of actions on both sides, 0..1.

    1 where both are empty. Order does not count. (ProcVLM's semantic alignment, with sentence embeddings in place of
    means of word vectors.)
    """
    total = len(plan) + len(target)
    if not plan or not target:
        return float(total == 0)
    cosines = np.clip(np.stack([vectors[a] for a in plan]) @ np.stack([vectors[b] for b in target]).T, 0, 1)
    return float(2 * cosines[linear_sum_assignment(-cosines)].sum() / total)

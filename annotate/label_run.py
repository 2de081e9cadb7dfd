"""Label runs: who made a label, and which label of an episode counts."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

HUMAN_VERSION = "human-1"  # of what is made of people's corrections
# Of annotators, where neither a person nor the configuration decides
PRECEDENCE = ("native", "transfer", "vlm", "motion")


@dataclass(frozen=True)
class LabelRun:
    """Provenance of labels; two labels made alike have the same id."""

    annotator: str
    code_version: str
    params: str  # resolved parameters, JSON with sorted keys
    model: str | None = None
    model_revision: str | None = None
    prompt_version: str | None = None

    @property
    def id(self) -> str:
        model = (self.model or "", self.model_revision or "", self.prompt_version or "")
        parts = (self.annotator, *model, self.params, self.code_version)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def human_run(dataset: str) -> str:
    """The one label run that holds people's corrections of a dataset."""
    return f"human/{dataset}"


def resolved(params: dict) -> str:
    return json.dumps(params, sort_keys=True)


def choose_active(runs: Sequence[tuple[str, str]], preferred: Sequence[tuple[str, str]] = ()) -> tuple[str, str] | None:
    """(label_run, why) among an episode's (label_run, annotator) pairs; None when it has none.

    preferred: (label_run, why), the best first; the first that the episode has, else the run of the best annotator, of
    several the first by its id.
    """
    ids = {run for run, _ in runs}
    known = ((run, why) for run, why in preferred if run in ids)
    best = ((run, f"best annotator: {by}") for by in PRECEDENCE for run in sorted(r for r, a in runs if a == by))
    return next(known, None) or next(best, None)

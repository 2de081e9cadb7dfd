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
        parts = (
            self.annotator,
            self.model or "",
            self.model_revision or "",
            self.prompt_version or "",
            self.params,
            self.code_version,
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def human_run(dataset: str) -> str:
    """The one label run that holds people's corrections of a dataset."""
    return f"human/{dataset}"


def resolved(params: dict) -> str:
    return json.dumps(params, sort_keys=True)


def choose_active(runs: Sequence[tuple[str, str]], preferred: Sequence[tuple[str, str]] = ()) -> tuple[str, str] | None:
    """(label_run, why) among an episode's (label_run, annotator) pairs; None when it has none.

    preferred: (label_run, why), the best first; the first that the episode has, else the run of the best annotator.
    """
    ids = {run for run, _ in runs}
    for run, why in preferred:
        if run in ids:
            return run, why
    return _best_run(runs)


def _best_run(runs: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """The run of the best annotator, and why; of several, the first by its id."""
    for annotator in PRECEDENCE:
        of_annotator = sorted(run for run, by in runs if by == annotator)
        if of_annotator:
            return of_annotator[0], f"best annotator: {annotator}"
    return None

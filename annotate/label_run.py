"""Label runs: who made a label, and which label of an episode counts."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

HUMAN_VERSION = "human-1"  # of what is made of people's corrections
PRECEDENCE = ("native", "vlm", "motion")  # of annotators, where neither a person nor the configuration decides


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


def choose_active(
    runs: Sequence[tuple[str, str]], *, corrected: str | None, named: str | None
) -> tuple[str, str] | None:
    """(label_run, why) among an episode's (label_run, annotator) pairs; None when it has none.

    A person's accepted correction, else the run the configuration names, else the best annotator.
    """
    ids = {run for run, _ in runs}
    if corrected in ids and corrected is not None:
        return corrected, "accepted correction"
    if named in ids and named is not None:
        return named, "named by the configuration"
    return _best_run(runs)


def _best_run(runs: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """The run of the best annotator, and why; of several, the first by its id."""
    for annotator in PRECEDENCE:
        of_annotator = sorted(run for run, by in runs if by == annotator)
        if of_annotator:
            return of_annotator[0], f"best annotator: {annotator}"
    return None

"""Label runs: who made a label, which label of an episode counts, and which are sure enough."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

from core.annotators import PRECEDENCE
from core.values import grouped, short_hash

HUMAN_VERSION = "human-1"  # of what is made of people's corrections


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
        return short_hash("\0".join(parts))


class FormerVersion(NamedTuple):
    """An earlier version of an annotator: its labels stay while a person's settings do.

    prompt_versions: by the present prompts, those that it asked with. defaults: settings that had
    another default then, with that one. added: settings that it did not have.
    """

    code_version: str
    prompt_versions: Mapping[str, str]
    defaults: Mapping[str, Any]
    added: tuple[str, ...]

    def label_runs(self, run: LabelRun, defaults_now: Mapping[str, Any]) -> Iterator[LabelRun]:
        """The label runs of this version that differ from a present one by nothing that a person set.

        A setting that has its default now may have had the default of then; every other one has to
        be the same.
        """
        params = json.loads(run.params)
        prompts = self.prompt_versions.get(run.prompt_version or "")
        if prompts is None or any(params[name] != defaults_now[name] for name in self.added):
            return
        same = {name: value for name, value in params.items() if name not in self.added}
        values = [
            (params[name], former) if params[name] == defaults_now[name] else (params[name],)
            for name, former in self.defaults.items()
        ]
        for combination in product(*values):
            former_params = resolved(same | dict(zip(self.defaults, combination, strict=True)))
            yield replace(
                run, code_version=self.code_version, prompt_version=prompts, params=former_params
            )


def human_run(dataset: str) -> str:
    """The one label run that holds people's corrections of a dataset."""
    return f"human/{dataset}"


def resolved(params: dict) -> str:
    return json.dumps(params, sort_keys=True)


def choose_active(
    runs: Sequence[tuple[str, str]], preferred: Sequence[tuple[str, str]] = ()
) -> tuple[str, str] | None:
    """(label_run, why) among an episode's (label_run, annotator) pairs; None when it has none.

    preferred: (label_run, why), the best first; the first that the episode has, else the run of the
    best annotator, of several the first by its id.
    """
    ids = {run for run, _ in runs}
    for run, reason in preferred:
        if run in ids:
            return run, reason
    runs_by_annotator = grouped((annotator, run) for run, annotator in runs)
    for annotator in PRECEDENCE:
        if annotator in runs_by_annotator:
            return min(runs_by_annotator[annotator]), f"best annotator: {annotator}"
    return None


MIN_CONFIDENCE = 0.0  # of a label, for its progress: every label counts
MIN_LABELLED = 0.5  # share of a chunk's episodes that decode, and of these that have a label
MIN_NAME_CONFIDENCE = 0.5  # of a label, for the names of its steps


@dataclass(frozen=True)
class LabelGate:
    """A label counts as far as it is sure enough; `confidence` of an episode's label, 0..1.

    A label without a confidence passes: a person's, or the source's own.
    """

    min_confidence: float = MIN_CONFIDENCE
    min_name_confidence: float = MIN_NAME_CONFIDENCE

    def admits(self, confidence: float | None) -> bool:
        """May the label be used at all?"""
        return confidence is None or confidence >= self.min_confidence

    def admits_names(self, confidence: float | None, *, is_named: bool) -> bool:
        """May the names of its steps be used? Not of a label with a step that has none."""
        return is_named and (confidence is None or confidence >= self.min_name_confidence)


@dataclass(frozen=True)
class GateCounts:
    """Labels of a dataset, each by its confidence and whether all of its steps have names, before a gate."""

    gate: LabelGate
    labels: Sequence[tuple[float | None, bool]]

    def numbers(self) -> dict[str, int]:
        """How many do not pass, by the reason; each label is counted once at most."""
        confident_labels = [
            (confidence, is_named)
            for confidence, is_named in self.labels
            if self.gate.admits(confidence)
        ]
        passing = sum(
            self.gate.admits_names(confidence, is_named=is_named)
            for confidence, is_named in confident_labels
        )
        num_named = sum(is_named for _, is_named in confident_labels)
        return {
            "below_min_confidence": len(self.labels) - len(confident_labels),
            "unnamed_labels": len(confident_labels) - num_named,
            "below_min_name_confidence": num_named - passing,
        }

    def sentences(self) -> list[str]:
        """What does not pass, in words; nothing where all labels do."""
        min_confidence = self.gate.min_confidence
        least_for_names = self.gate.min_name_confidence
        reasons = (
            f"are less sure than {min_confidence:g} (min_confidence): they are left out",
            "have unnamed steps: they give progress alone",
            f"are less sure than {least_for_names:g} (min_name_confidence): they give no names of steps",
        )
        counts = zip(self.numbers().values(), reasons, strict=True)
        return [
            f"{count} of {len(self.labels)} labels {reason}" for count, reason in counts if count
        ]

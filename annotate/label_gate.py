"""Which labels are sure enough: the one rule for samples, releases, weights and exports."""

from collections.abc import Sequence
from dataclasses import dataclass

MIN_CONFIDENCE = 0.0  # of a label, for its progress: every label counts
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

    def admits_names(self, confidence: float | None, *, named: bool) -> bool:
        """May the names of its steps be used? Not of a label with a step that has none."""
        return named and (confidence is None or confidence >= self.min_name_confidence)


@dataclass(frozen=True)
class GateCounts:
    """Labels of a dataset, each by its confidence and whether all of its steps have names, before a gate."""

    gate: LabelGate
    labels: Sequence[tuple[float | None, bool]]

    def numbers(self) -> dict[str, int]:
        """How many do not pass, by the reason; each label is counted once at most."""
        sure = [(confidence, named) for confidence, named in self.labels if self.gate.admits(confidence)]
        passing = sum(self.gate.admits_names(confidence, named=named) for confidence, named in sure)
        named = sum(named for _, named in sure)
        return {
            "below_min_confidence": len(self.labels) - len(sure),
            "unnamed_labels": len(sure) - named,
            "below_min_name_confidence": named - passing,
        }

    def sentences(self) -> list[str]:
        """What does not pass, in words; nothing where all labels do."""
        least, least_for_names = self.gate.min_confidence, self.gate.min_name_confidence
        reasons = (
            f"are less sure than {least:g} (min_confidence): they are left out",
            "have unnamed steps: they give progress alone",
            f"are less sure than {least_for_names:g} (min_name_confidence): they give no names of steps",
        )
        counts = zip(self.numbers().values(), reasons, strict=True)
        return [f"{count} of {len(self.labels)} labels {why}" for count, why in counts if count]

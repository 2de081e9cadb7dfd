"""Which labels are sure enough: the one rule for samples, releases, weights and exports."""

from collections.abc import Iterable
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
    """How many labels of a dataset pass a gate. Each label is counted once at most among those that do not."""

    gate: LabelGate
    labels: int
    below_min_confidence: int
    unnamed: int
    below_min_name_confidence: int

    @classmethod
    def of(cls, gate: LabelGate, labels: Iterable[tuple[float | None, bool]]) -> "GateCounts":
        """Count labels, each given by its confidence and whether all of its steps have names."""
        labels = list(labels)
        sure = [(confidence, named) for confidence, named in labels if gate.admits(confidence)]
        return cls(
            gate,
            labels=len(labels),
            below_min_confidence=len(labels) - len(sure),
            unnamed=sum(not named for _, named in sure),
            below_min_name_confidence=sum(
                named and not gate.admits_names(confidence, named=named) for confidence, named in sure
            ),
        )

    def numbers(self) -> dict[str, int]:
        """What does not pass, by its reason."""
        return {
            "below_min_confidence": self.below_min_confidence,
            "unnamed_labels": self.unnamed,
            "below_min_name_confidence": self.below_min_name_confidence,
        }

    def sentences(self) -> list[str]:
        """What does not pass, in words; nothing where all labels do."""
        least, least_for_names = self.gate.min_confidence, self.gate.min_name_confidence
        unsure = f"are less sure than {least:g} (min_confidence): they are left out"
        unnamed = "have unnamed steps: they give progress alone"
        unsure_of_names = f"are less sure than {least_for_names:g} (min_name_confidence): they give no names of steps"
        counts = zip(self.numbers().values(), (unsure, unnamed, unsure_of_names), strict=True)
        return [f"{count} of {self.labels} labels {why}" for count, why in counts if count]

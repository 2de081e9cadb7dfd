"""The gate that labels pass: how sure they have to be of their progress, and of the names of their steps."""

import pytest

from annotate.label_gate import GateCounts, LabelGate

GATE = LabelGate(0.3, 0.6)


@pytest.mark.parametrize(
    ("confidence", "named", "admitted", "names"),
    [
        (None, True, True, True),
        (None, False, True, False),
        (0.6, True, True, True),
        (0.6, False, True, False),
        (0.59, True, True, False),
        (0.3, True, True, False),
        (0.29, True, False, False),
        (0.0, True, False, False),
    ],
)
def test_a_label_without_a_confidence_passes_and_one_of_nothing_does_not(
    confidence: float | None, named: bool, admitted: bool, names: bool
):
    assert GATE.admits(confidence) is admitted
    assert GATE.admits_names(confidence, named=named) is names


def test_each_label_is_counted_once():
    labels = [(0.1, True), (0.1, False), (0.4, False), (0.4, True), (0.4, True), (0.7, True), (None, True)]
    counts = GateCounts(GATE, labels)
    assert counts.numbers() == {"below_min_confidence": 2, "unnamed_labels": 1, "below_min_name_confidence": 2}
    assert counts.sentences() == [
        "2 of 7 labels are less sure than 0.3 (min_confidence): they are left out",
        "1 of 7 labels have unnamed steps: they give progress alone",
        "2 of 7 labels are less sure than 0.6 (min_name_confidence): they give no names of steps",
    ]
    assert GateCounts(GATE, [(None, True)]).sentences() == []

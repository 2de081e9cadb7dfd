"""The page of attacks names tests that are there."""

import re

from core.paths import ROOT

PAGE = ROOT / "docs/attacks.md"
FAILURES = {*(f"F{k}" for k in range(1, 15)), *(f"L{k}" for k in range(1, 11))}


def test_every_failure_has_a_test_that_is_there() -> None:
    found = set()
    for line in PAGE.read_text().splitlines():
        if not line.startswith("| ") or line.startswith("| what"):
            continue
        what, _, shown = (cell.strip() for cell in line.strip("|").split(" | "))
        found.update(re.findall(r"\b[FL]\d+\b", what))
        tests = re.findall(r"`(tests/[^`]+)`", shown)
        assert tests, line
        for name in tests:
            path, _, test = name.partition("::")
            text = (ROOT / path).read_text()
            assert f"def {test}(" in text or not test, name
    assert found == FAILURES

"""Suggestions of what to label next: what they say, and that they write nothing."""

import json
from dataclasses import asdict

import pytest

from pipeline.suggesting import TaskSuggestion, suggest
from tests.kits.lake_kit import say
from tests.kits.made_corpus import Made
from warehouse.lake import Lake, references

PLATE = "put the cube on the plate"  # the task of episodes 0, 2, 4


def by_task(lake: Lake) -> dict[str | None, TaskSuggestion]:
    suggestions = suggest(lake, "tiny")
    assert json.loads(json.dumps([asdict(suggestion) for suggestion in suggestions]))
    return {suggestion.task: suggestion for suggestion in suggestions}


def test_what_is_labelled_is_not_suggested_again(own: Made, corpus: Lake):
    say(corpus)
    plate = by_task(corpus)[PLATE]
    assert plate.references == (2,)
    assert plate.label_next in (0, 4)
    assert "to label" not in plate.why
    references.vouch(corpus, "tiny", 0, author="ada")
    plate = by_task(corpus)[PLATE]
    assert (plate.references, plate.label_next) == ((0, 2), 4)
    assert plate.measured is not None
    references.vouch(corpus, "tiny", 4, author="ada")
    plate = by_task(corpus)[PLATE]
    assert (plate.label_next, plate.then, plate.expected) == (None, (), ())
    assert "nothing is left to label" in plate.why


def test_of_many_runs_some_are_looked_at(own: Made, corpus: Lake, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.suggesting.MOST_RUNS", 2)
    monkeypatch.setattr("pipeline.suggesting.FEWEST_RUNS", 2)
    plate = by_task(corpus)[PLATE]
    assert {plate.label_next, *plate.then} == {0, 4}
    assert any(caveat.startswith("2 of its 3 runs were looked at") for caveat in plate.caveats)

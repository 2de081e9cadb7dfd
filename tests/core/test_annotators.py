"""One list of annotators, and one rule for who made a label."""

import pkgutil
from itertools import product
from pathlib import Path

import duckdb
import pytest

from core.annotators import (
    ANNOTATORS,
    CHOICES,
    PRECEDENCE,
    choices_with_help,
    in_words,
    made_by,
    made_by_sql,
)
from core.domain.label_run import LabelRun
from pipeline.config import StageConfigs, source_build

FIRST_FOUR = ["native", "transfer", "vlm", "motion"]


def test_the_list_decides_what_a_configuration_may_name():
    assert [StageConfigs(annotator=name).annotator for name in CHOICES] == [*CHOICES]
    with pytest.raises(ValueError, match="'auto', 'motion', 'native', 'vlm'"):
        StageConfigs(annotator="guess")


def test_every_row_names_functions_and_settings_that_are_there(tmp_path: Path):
    build = source_build(tmp_path, "some", None, None)
    for annotator in ANNOTATORS:
        run = annotator.label_run_of(build)
        assert isinstance(run, LabelRun)
        assert run.annotator == annotator.name
        assert not annotator.settings or annotator.settings in StageConfigs.model_fields
        assert not annotator.labels or callable(pkgutil.resolve_name(annotator.labels))


def test_precedence_and_words():
    assert [name for name in PRECEDENCE if name in FIRST_FOUR] == FIRST_FOUR
    assert in_words(("auto", "motion", "vlm")) == "auto, motion or vlm"
    assert "native (the source's steps)" in choices_with_help()


@pytest.mark.parametrize(
    ("annotator", "steps_from", "follows"),
    product(
        ("motion", "native", "vlm", "transfer", "human", "imported"),
        (None, "source"),
        (True, False),
    ),
)
def test_sql_and_python_say_the_same_of_who_made_a_label(
    annotator: str, steps_from: str | None, follows: bool
):
    sql = f"SELECT {made_by_sql('a', 's', 'f')} FROM (SELECT $1 AS a, $2 AS s, $3 AS f)"
    [sql_result] = duckdb.execute(sql, [annotator, steps_from, follows]).fetchone() or [""]
    assert sql_result == made_by(annotator, steps_from, follows=follows)


def test_golden_words_for_makers():
    assert made_by("human", None, follows=False) == "people"
    assert made_by("native", None, follows=False) == "motion"
    assert made_by("native", "source", follows=False) == "steps of the source"
    assert made_by("vlm", None, follows=True) == "like those of vlm"

"""Datasets get another name or are removed, and a name that is in use stays with its dataset."""

import os
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path

import pytest

from core.paths import Workspace
from pipeline.build import BuildListener, run_build
from pipeline.config import built, with_samples
from pipeline.stage import StageReport
from tests.kits.cli_kit import DONE, USAGE, Result, assert_one_error_line
from tests.kits.lake_kit import opened
from tests.kits.made_corpus import restored
from tests.kits.small_sources import OTHERS, RECORDINGS, write_v2
from tests.kits.words_kit import DATASET, EFFECTS, WORDS, Case, checked, prepared

CHUNK = 6  # two chunks of ten runs: a name stands in each


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("datasets") / "case"


@pytest.fixture
def case(place: Path) -> Case:
    """A corpus in which people said something of three recordings since it was built."""
    case = Case("lerobot_v2", place, place / "source", CHUNK, 'embeddings = {when = "never"}')
    written = place.with_name("written")
    restored(place, lambda _: prepared(case, write_v2(written, RECORDINGS)))
    return case


def numbers(case: Case, dataset: str, queries: Mapping[str, str]) -> dict[str, list[int]]:
    return {
        name: sorted(map(itemgetter(0), case.rows(sql, [dataset]))) for name, sql in queries.items()
    }


def in_force(case: Case, dataset: str) -> dict[str, list[int]]:
    """The numbers at which each word is in force."""
    return numbers(case, dataset, {word: sql for word, (_, sql) in WORDS.items()})


def check_built(case: Case, dataset: str, words: Mapping[str, list[int]]) -> None:
    """These words are in force, and a build applied them."""
    assert in_force(case, dataset) == words
    assert numbers(case, dataset, EFFECTS) == {word: words[word] for word in EFFECTS}


def test_what_people_said_goes_with_a_dataset_to_another_name_and_back(case):
    words_before = in_force(case, DATASET)
    assert all(words_before.values())
    result = checked(case.run("datasets", "rename", DATASET, "limb"))
    assert "proccorpus build --dataset limb" in result.out
    checked(case.run("build", "--dataset", "limb", "--workers", 1))
    check_built(case, "limb", words_before)
    assert not any(in_force(case, DATASET).values())
    assert {name for (name,) in case.rows("SELECT DISTINCT dataset FROM samples")} == {"limb"}
    assert checked(case.run("build", "--dataset", "limb")).out.startswith(
        "Everything is up to date"
    )
    refused_name = case.run("datasets", "rename", "limb", "Limb!")
    assert (refused_name.code, "is no name" in assert_one_error_line(refused_name)) == (USAGE, True)


@pytest.mark.slow
def test_what_people_said_of_a_removed_dataset_is_kept_and_no_word_on_another(case, tmp_path):
    words_before = in_force(case, DATASET)
    other_source = write_v2(tmp_path / "other", OTHERS)
    # The name is in use
    refused = case.run("build", "--source", other_source, "--name", DATASET)
    text = assert_one_error_line(refused)
    assert refused.code == USAGE
    assert "10 episodes and their labels; 7 words of people" in text
    assert in_force(case, DATASET) == words_before
    # Said so, the old one is put away
    replaced = case.run(
        "build", "--source", other_source, "--name", DATASET, "--replace", "--workers", 1
    )
    assert replaced.code == DONE, replaced.err
    assert "what people said is kept as arm.1" in replaced.err
    assert not any(in_force(case, DATASET).values())
    assert case.rows("FROM words_in_review") == []
    assert case.rows("SELECT count(*) FROM episodes") == [(len(OTHERS),)]
    # And comes back in the place of the other one
    checked(case.run("datasets", "remove", DATASET, "--yes"))
    assert case.rows("SELECT count(*) FROM samples") == [(0,)]
    checked(case.run("datasets", "rename", "arm.1", DATASET))
    checked(case.build())
    check_built(case, DATASET, words_before)
    assert case.run("doctor").code == DONE


def test_a_dataset_is_not_pulled_from_under_a_build(case):
    """Asked while the build says what it has made, which is in the middle of it; then it is ended."""
    words_before = in_force(case, DATASET)
    command_results = list[Result]()
    with opened(Workspace(case.workspace)) as lake:
        changed_build = with_samples(built(lake, DATASET), {"window_frames": 3})

    class Asking(BuildListener):
        def stage_done(self, report: StageReport) -> None:
            ask()
            raise KeyboardInterrupt

    def ask() -> None:
        for words in (("remove", DATASET, "--yes"), ("rename", DATASET, "limb")):
            command_results.append(case.run("datasets", *words))

    with pytest.raises(KeyboardInterrupt):
        run_build(Workspace(case.workspace), [changed_build], 1, Asking())
    assert len(command_results) == 2
    for result in command_results:
        text = assert_one_error_line(result)
        assert (
            result.code,
            "until the build has ended" in text,
            f"process {os.getpid()}" in text,
        ) == (
            USAGE,
            True,
            True,
        )
    assert in_force(case, DATASET) == words_before
    checked(case.run("datasets", "rename", DATASET, "limb"))


def test_a_source_that_holds_nothing_of_what_was_known_is_asked_about(case, tmp_path):
    """The old folder is gone, so that its name is free to move, and the new one holds other runs."""
    other_source = write_v2(tmp_path / "other", OTHERS)
    case.source.rename(tmp_path / "away")
    refused = case.run("build", "--source", other_source, "--name", DATASET)
    assert refused.code != DONE
    assert "none of its 10 recordings" in refused.err
    assert case.rows("SELECT count(*) FROM episodes") == [(10,)]

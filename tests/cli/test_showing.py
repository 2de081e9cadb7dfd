"""`proccorpus show`: lists of the corpus, narrowed, with the words that people need."""

import json

import pytest

from tests.kits.cli_kit import called
from tests.kits.lerobot_writer import write_info, write_v2
from tests.kits.made_corpus import Made
from warehouse.lake import Lake


def test_reasons_of_a_whole_dataset_have_their_detail(tmp_path, capsys) -> None:
    write_info(write_v2(tmp_path / "source", [6]), features=3)
    space = ("--workspace", tmp_path / "ws")
    called(capsys, "build", "--source", tmp_path / "source", *space)
    [row] = called(capsys, "show", "quarantine_reasons", "--format", "json", *space).json
    assert (row["reason"], row["first_episode"]) == ("no_metadata", None)
    assert row["first_detail"].startswith("meta/info.json")
    assert row["remedy"]


def test_odd_demonstrations_are_listed_with_what_is_odd(own: Made, capsys) -> None:
    words = ("show", "demonstrations", "tiny", "--workspace", own.space.root)
    assert "5 runs or more of a task show what is usual" in called(capsys, *words).out
    lake = Lake(own.space)
    lake.con.execute("UPDATE episode_facts SET task = 'pick'")
    lake.con.execute(
        "UPDATE demonstration_measures SET duration_s = 10, rest_s = 0.4, end_phash = 0"
    )
    lake.con.execute("UPDATE demonstration_measures SET rest_s = 6 WHERE episode_index = 3")
    lake.con.close()
    text = called(capsys, *words, "--limit", 1).out
    assert "stands still for 60 % of its time, others of its task 4 %" in " ".join(text.split())
    assert len(text.splitlines()) == 2, "a head and a row"


def test_any_relation_is_narrowed_and_written(own: Made, capsys: pytest.CaptureFixture[str]):
    out = own.space.root / "rows.jsonl"
    words = ("episodes", "--where", "episode_index < 2", "--out", out)
    assert called(capsys, "show", *words, "--workspace", own.space.root).code == 0
    rows = list(map(json.loads, out.read_text().splitlines()))
    assert [row["episode_index"] for row in rows] == [0, 1]
    for words, message in (
        (("episods",), "there is no list 'episods'; did you mean episodes"),
        (("episodes", "tony"), "there is no dataset 'tony'"),
        (("episodes", "--where", "x IN (FROM read_csv('/etc/passwd'))"), "not allowed"),
    ):
        refused = called(capsys, "show", *words, "--workspace", own.space.root)
        assert (refused.code, message in refused.err) == (2, True), refused.err

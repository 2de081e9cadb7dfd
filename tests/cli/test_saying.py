"""Faults, told until they are accepted; commands killed; commands in Python."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import proccorpus as pc
from tests.kits.cli_kit import Result, called
from tests.kits.fault_kit import killing
from tests.kits.faulty import FAULTS
from tests.kits.lake_kit import opened
from tests.kits.made_corpus import Made
from warehouse.lake.statements import say

Run = Callable[..., Result]
TAKEN_BACK = ("--set", "is_accepted=false")
ACCEPT = ("say", "acceptance", "tiny")
WHY = "the lamp was off; known since May"


@pytest.fixture
def run(faulty: Made, capsys) -> Run:
    return lambda *words: called(capsys, *words, "--workspace", faulty.space.root)


def faults_told(run: Run, faulty: Made, source: Path) -> dict[str, set[str]]:
    """The checks that each place tells of, of a corpus that was built from `source`."""
    texts = {
        "build": run("build", "--dataset", "tiny", "--workers", "1").out,
        "quarantine": run("show", "faults").out,
        "by reason": run("show", "fault_reasons").out,
        "inspect": str(run("inspect", source, "--full", "--format", "json").json["findings"]),
    }
    checks_by_place = {}
    for place, text in texts.items():
        checks_by_place[place] = {check for check in FAULTS if check in text}
    reasons = str(faulty.rows("SELECT why FROM review_queue"))
    checks_by_place["queue"] = {
        check
        for check, word in (("camera_black", "is black"), ("camera_frozen", "one pict"))
        if word in reasons
    }
    return checks_by_place


def test_an_accepted_fault_is_not_told_again(run, faulty, made_faulty):
    assert {*map(frozenset, faults_told(run, faulty, made_faulty.source).values())} == {
        frozenset(FAULTS)
    }
    built = run("build", "--dataset", "tiny", "--workers", "1").out
    assert "tiny: checks found faults: camera_black in 1 run, camera_frozen in 1 run" in built
    assert "proccorpus show faults" in built

    result = run(
        *ACCEPT, "camera_black", "0", *("--comment", WHY, "--author", "ann", "--format", "json")
    )
    assert [(row["episode_index"], row["comment"], row["author"]) for row in result.json] == [
        (0, WHY, "ann")
    ]
    assert {*map(frozenset, faults_told(run, faulty, made_faulty.source).values())} == {
        frozenset({"camera_frozen"})
    }
    sql = "SELECT check_name, is_accepted, accepted_by, accepted_why FROM checks ORDER BY 1"
    assert faulty.rows(sql) == [
        ("camera_black", True, "ann", WHY),
        ("camera_frozen", False, None, None),
    ]
    assert (
        f"Accepted by ann: 1 x camera_black ({WHY})."
        in run("inspect", made_faulty.source, "--full").out
    )

    # All of a dataset, and taken back by check
    assert run(*ACCEPT, "camera_frozen", "--comment", "as built", "--author", "bob").code == 0
    assert {*map(frozenset, faults_told(run, faulty, made_faulty.source).values())} == {frozenset()}
    assert "Next: look at it" in run("build", "--dataset", "tiny", "--workers", "1").out
    assert run(*ACCEPT, "camera_black", *TAKEN_BACK).code == 0
    assert {*map(frozenset, faults_told(run, faulty, made_faulty.source).values())} == {
        frozenset({"camera_black"})
    }


def test_the_words_of_a_check_lead_the_queue(faulty):
    rows = faulty.rows(
        "SELECT episode_index, why, signs FROM review_queue WHERE episode_index < 2 ORDER BY 1"
    )
    assert rows == [
        (
            0,
            [
                "observation.images.front is black for 2.0 s from 3.6 s on",
                "the annotator is unsure",
            ],
            ["a check found a fault", "the annotator is unsure"],
        ),
        (1, ["the annotator is unsure"], ["the annotator is unsure"]),
    ]


def test_what_is_accepted_follows_the_recording(run, faulty):
    run(*ACCEPT, "camera_black", "0", "--comment", WHY)
    with opened(faulty.space) as lake:
        lake.con.execute(
            "UPDATE recordings SET episode_index = 7 - episode_index WHERE dataset = 'tiny'"
        )
        assert lake.rows("SELECT episode_index FROM current_acceptances") == [(7,)]


def test_what_was_accepted_by_a_former_code_stays_accepted(run, faulty):
    acceptance = {"dataset": "tiny", "subject": "black_video", "is_accepted": True}
    acceptance |= {"comment": WHY, "author": "ada"}
    sql = "SELECT DISTINCT reason FROM open_warnings WHERE reason = 'camera_black'"
    with opened(faulty.space) as lake:
        assert lake.column(sql) == ["camera_black"]
        say(lake, "acceptance", lambda: [acceptance])
        assert lake.column(sql) == []
    run(*ACCEPT, "camera_black", *TAKEN_BACK)
    with opened(faulty.space) as lake:
        assert lake.column(sql) == ["camera_black"]


REFUSED: Any = (
    (("camera_blak",), ["--comment", "x"], "did you mean camera_black"),
    (
        ("camera_black", "1"),
        ["--comment", "x"],
        "found nothing in episode 1 of tiny; it did in 0",
    ),
    (
        ("state_stuck",),
        ["--comment", "x"],
        "state_stuck found nothing in tiny; there is camera_black, camera_frozen",
    ),
    (("camera_black",), [], "needs --comment"),
    (("camera_black", *TAKEN_BACK), [], "nothing of camera_black is accepted"),
)


def test_what_cannot_be_accepted_is_refused(run):
    for words, options, message in REFUSED:
        refused = run(*ACCEPT, *words, *options)
        assert (refused.code, refused.out) == (2, "")
        assert message in refused.err
    assert (
        "no dataset 'tony'"
        in run("say", "acceptance", "tony", "camera_black", "--comment", "x").err
    )


STATES = (
    "SELECT kind, dataset, recording, subject, value, comment, undoes FROM statements ORDER BY ALL",
    "SELECT dataset, episode_index, recording FROM recordings ORDER BY ALL",
)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("say tag tiny 2 odd", marks=pytest.mark.slow),
        pytest.param("undo {tag}", marks=pytest.mark.long),
        "say outcome tiny --set file={folder}/ends.csv",
        pytest.param("takedown tiny --episodes 0,3 --reason withdrawn", marks=pytest.mark.slow),
        pytest.param("datasets rename tiny leg", marks=pytest.mark.slow),
        pytest.param("datasets remove tiny --yes", marks=pytest.mark.long),
    ],
)
def test_a_killed_command_says_all_or_nothing_and_is_given_again(faulty, tmp_path, capsys, words):
    # Killed before and behind each of its commits
    (tmp_path / "ends.csv").write_text("episode,success,note\n0,false,fell\n4,true,\n")
    called(capsys, "say", "tag", "tiny", 1, "even", "--workspace", faulty.space.root)
    [(tag,)] = faulty.rows("SELECT statement_id FROM statements WHERE kind = 'tag'")
    words = words.format(tag=tag, folder=tmp_path).split()
    copies = [faulty.copy(tmp_path / "1")]
    with killing(*words) as is_killed:
        while is_killed(len(copies), copies[-1].space.root):
            copies.append(faulty.copy(tmp_path / str(len(copies) + 1)))
    *killed, whole = copies
    assert len(killed) >= 2
    states = [(faulty.rows(sql), whole.rows(sql)) for sql in STATES]
    for copy in killed:
        place = ("--workspace", copy.space.root)
        for sql, before_or_whole in zip(STATES, states, strict=True):
            assert copy.rows(sql) in before_or_whole
        assert '"error"' not in called(capsys, "doctor", "--format", "json", *place).out
        called(capsys, *words, *place)
        assert [copy.rows(sql) for sql in STATES] == [of_whole for _, of_whole in states]


def test_commands_in_python_give_what_they_print_as_json(run, faulty, capsys):
    place = {"workspace": faulty.space.root}
    printed = run("show", "episodes", "tiny", "--limit", "2", "--format", "json").json
    rows = pc.run("show", name="episodes", arguments=["tiny"], limit=2, **place)
    assert [row["episode_index"] for row in rows] == [row["episode_index"] for row in printed]
    tags = pc.run("say", kind="tag", words=["tiny", 0, "odd"], author="ann", **place)
    assert [(row["subject"], row["author"]) for row in tags] == [("odd", "ann")]
    marks = pc.run("takedown", dataset="tiny", episodes=(1,), reason="a face", **place)
    assert [row["episode_index"] for row in marks] == [1]
    assert capsys.readouterr().out == ""
    with pytest.raises(pc.UserError, match="did you mean"):
        pc.run("takedwn", **place)
    with pytest.raises(TypeError, match="dataset"):
        pc.run("takedown", **place)

"""References: which runs are some, by whose word, which chunks they concern, and texts that mean the same task."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.paths import Workspace
from tests.kits.lake_kit import opened, put_rows, say, stage_run
from warehouse.lake import Lake, references
from warehouse.lake.corrections import CorrectionError
from warehouse.lake.lists import LISTS

PICK = "pick up the cube"
CUP = "put the cup down"
LABEL = [
    {"name": "Reach", "start_frame": 0, "end_frame": 9},
    {"name": "Lift", "start_frame": 9, "end_frame": 10},
]


@pytest.fixture(scope="module")
def ten_runs(tmp_path_factory) -> Path:
    """Ten runs of ten frames in chunks of two: the even ones of one task, the odd ones of another. Not for changing."""
    space = Workspace(tmp_path_factory.mktemp("runs") / "corpus")
    ids = [{"dataset": "a", "episode_index": e, "chunk": e // 2} for e in range(10)]
    content = {
        "num_frames": 10,
        "fps": 10.0,
        "usable_cameras": ["front"],
        "content_hash": "content",
    }
    rows = {
        "datasets": [{"dataset": "a", "chunk_size": 2}],
        "episode_facts": [
            row | {"task": (PICK, CUP)[e % 2], "steps": []} for e, row in enumerate(ids)
        ],
        "episode_content": [row | content for row in ids],
    }
    with opened(space) as lake:
        put_rows(lake, **rows)
        for chunk in range(5):
            lake.publish(stage_run(chunk=chunk, output_hash=f"frames {chunk}"), {})
    return space.root


@pytest.fixture
def lake(ten_runs: Path, tmp_path) -> Iterator[Lake]:
    """Their lake, in a copy."""
    with opened(Workspace(shutil.copytree(ten_runs, tmp_path / "corpus"))) as lake:
        yield lake


def test_a_run_is_taken_away_and_brought_back(lake):
    say(lake, LABEL, dataset="a")
    stamps_before = references.reference_stamps(lake, "a")
    references.vouch(lake, "a", 2, author="bob", is_reference=False)
    assert (
        lake.dicts(LISTS["current_references"].sql),
        references.reference_stamps(lake, "a"),
    ) == ([], {})
    assert references.steps_and_references(lake, "a").has_references is False
    with pytest.raises(
        CorrectionError,
        match=r"^episode 2 of a is no reference; proccorpus show current_references",
    ):
        references.vouch(lake, "a", 2, author="bob", is_reference=False)
    row = references.vouch(lake, "a", 2, author="eve")
    assert row["label_run"] == "human/a"
    # The same label shows the same, whoever vouches for it
    assert references.reference_stamps(lake, "a") == stamps_before
    [listed] = lake.dicts(LISTS["current_references"].sql)
    assert (listed["origin"], listed["author"], listed["built"], listed["followed_by"]) == (
        "correction",
        "eve",
        True,
        0,
    )
    with pytest.raises(CorrectionError, match="episode 2 of a is a reference already"):
        references.vouch(lake, "a", 2, author="bob")
    assert (
        len(lake.rows("FROM reference_marks"))
        == len(set(lake.column("SELECT mark_id FROM reference_marks")))
        == 2
    )


def test_texts_are_joined_and_parted(lake):
    third = "grasp the cube"
    row = {"dataset": "a", "episode_index": 10, "chunk": 5, "task": third, "steps": []}
    put_rows(lake, episode_facts=[row])
    say(lake, LABEL, dataset="a")
    assert 5 not in references.reference_stamps(lake, "a")
    assert references.join_tasks(lake, "a", PICK, third, author="ada") == third
    assert references.joined_tasks(lake, "a") == {PICK: third}
    assert references.steps_and_references(lake, "a").has_references is True
    assert sorted(references.reference_stamps(lake, "a")) == [0, 2, 3, 4, 5]
    assert [*references.references_of(lake, "a", third)] == [2]
    with pytest.raises(CorrectionError, match="are one task already"):
        references.join_tasks(lake, "a", third, PICK, author="ada")

    # A further text joins them all; the one that stood for them leaves the others together
    assert references.join_tasks(lake, "a", CUP, PICK, author="ada") == third
    references.part_task(lake, "a", third, author="ada")
    assert references.joined_tasks(lake, "a") == {CUP: PICK}
    references.part_task(lake, "a", CUP, author="ada")
    assert references.joined_tasks(lake, "a") == {}
    assert 5 not in references.reference_stamps(lake, "a")
    with pytest.raises(CorrectionError, match=f"'{CUP}' is joined to no other text"):
        references.part_task(lake, "a", CUP, author="ada")

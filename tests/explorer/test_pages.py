"""The explorer's pages as a client without scripts gets them."""

import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from fastapi.testclient import TestClient

from core.paths import Workspace
from explorer.site import Options
from tests.kits.explorer_kit import CALL, CLOCK, FAILED, LOST, OLD, OTHER
from tests.kits.lake_kit import change
from tests.kits.visitor import visit
from warehouse.lake import Lake

PAGES = {
    "/": "Apache-2.0",
    "/episodes": "tiny 0",
    "/episode/tiny/0": "put the cube on the plate",
    "/compare/tiny/0": "tiny-vlm feedfeed",
    "/compare/tiny": "Labels apart",
    "/why/tiny/0": "Which steps does the task need?",
    "/sql?q=FROM+coverage": "labelled_frames",
    "/t/release_commands": "proccorpus train --recipe laptop --release first",
    "/t/slices?slice=all": "tiny-model",
    "/training?run=tiny-model&run=tiny-model-slower": "newest, second, third, fourth by percent_done",
    "/t/lengths?chart=bars": "<figure",
    "/t/step_counts?chart=bars": "<figure",
    "/releases": "first",
    "/releases/first": "proccorpus show release_contents",
    "/leaderboard": "tiny-model",
    f"/leaderboard/{FAILED}": "Episodes behind the numbers",
}


@pytest.mark.parametrize(("url", "word"), PAGES.items())
def test_every_page_answers_with_the_snapshot_it_shows(client: TestClient, url: str, word: str):
    answer = client.get(url)
    assert answer.status_code == 200
    assert word in answer.text
    assert re.search(r'snapshot\s+<b id="snapshot">\d+</b>, <time', answer.text)


@pytest.mark.parametrize(
    ("url", "status", "says"),
    [
        ("/episode/none/0", 404, "there is no dataset"),
        ("/episode/tiny/99", 404, "has no episode 99"),
        ("/episode/tiny/x", 400, "valid integer"),
        ("/episode/tiny/-1", 400, "greater than or equal"),
        ("/episode/tiny/9007199254740992", 404, "has no episode"),
        ("/episode/tiny/99999999999999999999999", 400, "less than or equal"),
        ("/nothing", 404, "no page"),
        ("/episodes?sort=up", 400, "ordered by"),
        ("/episodes?page=0", 400, "no number of a page"),
        ("/episodes?page=9999999999999", 400, "no number of a page"),
        ("/episodes?q=" + "a+" * 50, 400, "words"),
        ("/compare/tiny/0?a=nobody", 404, "no label run"),
        ("/compare/none", 200, "No episode has two labels"),
        ("/releases/none", 200, "no such release"),
        ("/leaderboard/none", 200, "are not stored"),
        ("/t/none", 404, "no list"),
        ("/t/episodes?none=1", 404, "none"),
        ("/sql/download?q=DROP+TABLE+x", 400, "read only"),
        ("/media/tiny/0/video/9", 404, "no video"),
        ("/media/tiny/0/keyframes/" + "0" * 64 + ".jpg", 404, "no such picture"),
    ],
)
def test_what_cannot_be_shown_is_a_sentence(client: TestClient, url: str, status: int, says: str):
    answer = client.get(url)
    assert answer.status_code == status
    assert says in answer.text
    assert "Traceback" not in answer.text


def test_a_dataset_without_a_gripper_says_where_it_was_looked_for(
    furnished: Workspace, tmp_path: Path
):
    space = Workspace(shutil.copytree(furnished.root, tmp_path / "none"))
    change(space, "DELETE FROM signals")
    change(space, "UPDATE frames SET gripper = NULL, grippers = NULL")
    change(
        space,
        "INSERT INTO findings BY NAME SELECT 'tiny' AS dataset, 'episodes' AS stage, 'no_gripper' AS reason, "
        "'looked at state of 3 dimensions' AS detail, 'warning' AS severity",
    )
    with visit(space) as without:
        assert "looked at state of 3 dimensions" in without.get("/t/open_warnings").text
        assert "/t/open_warnings says" in without.get("/t/signals").text
        text = without.get("/episode/tiny/0").text
    assert "gripper opening" not in text


def test_what_a_source_holds_is_shown_with_what_is_used_for_nothing(
    furnished: Workspace, tmp_path: Path
):
    space = Workspace(shutil.copytree(furnished.root, tmp_path / "parts"))
    change(space, "DELETE FROM source_parts")
    change(
        space,
        "INSERT INTO source_parts BY NAME SELECT 'tiny' AS dataset, 'topic' AS kind, '/<b>odd</b>' AS name, "
        "'unknown' AS status, '' AS use, 'no role has it' AS why, [NULL, 7] AS shape, "
        "'float32' AS dtype, 3 AS num_times",
    )
    with visit(space) as visitor:
        text = visitor.get("/t/source_parts?status=unknown").text
    assert "/&lt;b&gt;odd&lt;/b&gt;" in text
    assert "no role has it" in text


def test_two_labels_farthest_apart_stand_first(client: TestClient, furnished: Workspace):
    differing = Lake(furnished, read_only=True).rows(
        "SELECT episode_index, run_a, run_b FROM label_agreement WHERE dataset = 'tiny' "
        "ORDER BY mae DESC, episode_index"
    )
    text = client.get("/compare/tiny").text
    rows = re.findall(r'href="/compare/tiny/(\d+)\?a=([^"]*)&amp;b=([^"]*)"', text)
    assert [(int(k), unquote(a), unquote(b)) for k, a, b in rows] == differing
    assert differing
    assert "No episode has two labels" in client.get(f"/compare/tiny?a={OTHER}&b={OTHER}").text


def test_the_reason_of_a_label_is_shown_whole(client: TestClient):
    text = client.get("/why/tiny/0").text
    assert all(key in text for key in (CALL, LOST, OLD))
    assert "You watch a robot." in text
    assert "Reach for the cube" in text
    assert "321 tokens in, 45 out" in text
    assert "$0.0375" in text
    picture = re.search(r'<img src="(/media/tiny/0/keyframes/[0-9a-f]{64}.jpg)"', text)
    assert picture is not None
    assert client.get(picture[1]).headers["content-type"] == "image/jpeg"
    assert "(not stored)" in text
    assert "did not store its words" in text
    assert "The reply is not in the response store" in text
    assert "<script>alert(2)" not in text


def test_the_leaderboard_leads_to_the_episodes_behind_a_number(client: TestClient):
    board = client.get("/leaderboard?metric=mae").text
    assert board.index(CLOCK) < board.index(FAILED)  # of an error less is better
    voc = client.get("/leaderboard?metric=voc").text
    assert voc.index(CLOCK) < voc.index(FAILED)
    assert 'href="/t/scored_episodes?eval_run=eval0000clock000">clock</a>' in board
    behind = client.get(f"/leaderboard/{FAILED}").text
    assert re.findall(r'href="(/compare/[^"]*)"', behind) == [
        f"/compare/tiny/{e}?b={FAILED}" for e in (1, 0)
    ]
    assert "tiny-model, held-out (truth)" in client.get(f"/compare/tiny/1?b={FAILED}").text


def test_a_list_is_narrowed_ordered_and_drawn(client: TestClient):
    rows = client.get(f"/t/confusion?eval_run={FAILED}&order=-value").text
    assert re.findall(r'<td class="n">([\d.]+)</td>', rows) == ["0.875", "0.125", "0"]
    assert "&lt;b&gt;Shut&lt;/b&gt; it" in rows
    assert 'href="?order=-value&amp;' not in rows
    assert "under: " not in client.get("/t/leaderboard").text
    assert "<figure" in client.get("/t/episodes?chart=bars").text
    assert "Odd demonstrations" in client.get("/t").text
    assert "No model was asked" in client.get(f"/t/confusion?eval_run={CLOCK}").text


def test_pages_lead_to_the_runs_in_dagster(furnished: Workspace):
    with visit(furnished, Options(dagster_url="http://dagster.test:3000/")) as client:
        link = "http://dagster.test:3000/assets/segments?view=partitions&amp;partition=tiny%3A00000"
        assert link in client.get("/episode/tiny/0").text
        assert link in client.get("/why/tiny/0").text
    with visit(furnished) as client:
        assert "/assets/segments" not in client.get("/why/tiny/0").text

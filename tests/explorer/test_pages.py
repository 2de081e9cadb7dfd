"""The explorer's pages as a client without scripts gets them.

Also: actions on the page of an episode; the documentation below /docs; commands that a page runs.
"""

import base64
import hashlib
import re
import shutil
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.metrics import sentence_of
from core.paths import ROOT, Workspace
from core.web import access_for
from explorer import site as explorer_site
from explorer.pages import docs
from explorer.site import DOCS, Options, docs_page
from pipeline.build import run_build
from tests.docs.test_pages import anchors
from tests.kits.explorer_kit import CALL, CLOCK, FAILED, LOST, OLD, OTHER
from tests.kits.lake_kit import change
from tests.kits.made_corpus import build_of
from tests.kits.patience import PATIENCE_S
from tests.kits.tiny_lerobot import LENGTHS, make_dataset, rows_path
from tests.kits.visitor import post, visit
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
def test_every_page_answers_with_the_snapshot_it_shows(client, url, word):
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
def test_what_cannot_be_shown_is_a_sentence(client, url, status, says):
    answer = client.get(url)
    assert answer.status_code == status
    assert says in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "query",
    [
        "q=a%00b",
        "robot=%00",
        "q=%27b%5C",
        "task=%27%29+OR+1%3D1+--",
        "chunk=%27x",
        "q=%7Bword%7D+%24rows+%3F",
    ],
)
def test_texts_of_an_address_are_texts_in_the_query_of_a_selection(client, query):
    answer = client.get(f"/episodes?{query}")
    assert (answer.status_code, 'id="total">0<' in answer.text) == (200, True)


def test_a_dataset_without_a_gripper_says_where_it_was_looked_for(furnished, tmp_path):
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


def test_what_a_source_holds_is_shown_with_what_is_used_for_nothing(furnished, tmp_path):
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


def test_two_labels_farthest_apart_stand_first(client, furnished):
    differing = Lake(furnished, read_only=True).rows(
        "SELECT episode_index, run_a, run_b FROM label_agreement WHERE dataset = 'tiny' "
        "ORDER BY mae DESC, episode_index"
    )
    text = client.get("/compare/tiny").text
    rows = re.findall(r'href="/compare/tiny/(\d+)\?a=([^"]*)&amp;b=([^"]*)"', text)
    assert [(int(k), unquote(a), unquote(b)) for k, a, b in rows] == differing
    assert differing
    assert "No episode has two labels" in client.get(f"/compare/tiny?a={OTHER}&b={OTHER}").text


def test_the_reason_of_a_label_is_shown_whole(client):
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


def test_the_leaderboard_leads_to_the_episodes_behind_a_number(client):
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


def test_a_list_is_narrowed_ordered_and_drawn(client):
    rows = client.get(f"/t/confusion?eval_run={FAILED}&order=-value").text
    assert re.findall(r'<td class="n">([\d.]+)</td>', rows) == ["0.875", "0.125", "0"]
    assert "&lt;b&gt;Shut&lt;/b&gt; it" in rows
    assert 'href="?order=-value&amp;' not in rows
    assert "under: " not in client.get("/t/leaderboard").text
    assert "<figure" in client.get("/t/episodes?chart=bars").text
    assert "Odd demonstrations" in client.get("/t").text
    assert "No model was asked" in client.get(f"/t/confusion?eval_run={CLOCK}").text


def test_pages_lead_to_the_runs_in_dagster(furnished):
    with visit(furnished, Options(dagster_url="http://dagster.test:3000/")) as client:
        link = "http://dagster.test:3000/assets/segments?view=partitions&amp;partition=tiny%3A00000"
        assert link in client.get("/episode/tiny/0").text
        assert link in client.get("/why/tiny/0").text
    with visit(furnished) as client:
        assert "/assets/segments" not in client.get("/why/tiny/0").text


SCRIPT = 'var palette = "dark";'


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A site of one page, with a script in it, and a file outside it."""
    folder = tmp_path / "docs_site"
    folder.mkdir()
    (folder / "index.html").write_text(
        f"<title>Start</title><script>{SCRIPT}</script><script src=a.js></script>"
    )
    (folder / "a.js").write_text("1")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "out").symlink_to(tmp_path / "secret.txt")
    monkeypatch.setattr(docs, "SITE", folder)
    return folder


def test_a_page_may_run_its_own_scripts_alone(client, site):
    answer = client.get("/docs", follow_redirects=True)
    assert (answer.status_code, "Start" in answer.text) == (200, True)
    policy = answer.headers["content-security-policy"]
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert "http" not in policy
    assert client.get("/docs/a.js").text == "1"


@pytest.mark.parametrize(
    "path", ["out", "%2e%2e/secret.txt", "..%2fsecret.txt", "none.html", "/etc/passwd"]
)
def test_nothing_outside_the_site_is_served(client, site, path):
    answer = client.get(f"/docs/{path}")
    assert answer.status_code == 404
    assert "secret" not in answer.text.replace("secret.txt", "")


def test_without_the_site_the_page_says_how_it_is_built(client, site, monkeypatch):
    monkeypatch.setattr(docs, "SITE", site.parent / "none")
    answer = client.get("/docs/metrics.html")
    assert answer.status_code == 200
    assert f"make -C {ROOT} site" in answer.text
    assert str(ROOT / "docs" / "metrics.md") in answer.text
    # An installed package has no make
    monkeypatch.setattr(docs, "ROOT", site.parent)
    installed = client.get("/docs/metrics.html").text
    assert "made without its documentation" in installed
    assert "make -C" not in installed


def test_every_page_leads_to_its_page_of_the_documentation():
    for address in DOCS.values():
        page, _, anchor = address.partition("#")
        source = ROOT / "docs" / page.replace(".html", ".md")
        assert source.is_file(), address
        assert not anchor or anchor in anchors(source), address
    assert docs_page("/episode/tiny/0") == DOCS["/episode"]
    assert docs_page("/episodes") == DOCS["/episodes"]
    assert docs_page("/nowhere") == DOCS["/"]


def test_metrics_have_their_sentence_and_a_link(client):
    link = '<a href="/docs/metrics.html">mae</a>'
    assert f"{link}: {sentence_of('mae')}." in client.get("/leaderboard?metric=mae").text


URL = "/episode/tiny/0/actions"


def test_actions_are_those_of_the_source(tmp_path):
    source = make_dataset(tmp_path / "source")
    space = Workspace(tmp_path / "w")
    source_actions = np.linspace(-2, 3, LENGTHS[0] * 2, dtype=np.float32).reshape(-1, 2)
    rows = pq.read_table(rows_path(source, 0))
    pq.write_table(
        rows.append_column("action", pa.array(source_actions.tolist(), pa.list_(pa.float32()))),
        rows_path(source, 0),
    )
    assert run_build(space, [build_of(source)], workers=1).failed == []
    with visit(space) as client:
        assert f'data-from="{URL}"' in client.get("/episode/tiny/0").text
        answer = client.get(URL)
        assert answer.status_code == 200
        assert "-2 to 3" in answer.text
        assert re.findall(r'<span title="([^"]*)">', answer.text) == ["dimension 0", "dimension 1"]
        assert answer.text.count("<polyline") + answer.text.count("<path") >= 2
        assert "the source has none" in client.get("/episode/tiny/1/actions").text
        shutil.rmtree(source)
        reply = client.get("/episode/tiny/0/actions")
        assert reply.status_code == 200
        assert "the actions of tiny 0 cannot be read" in reply.text
        assert "Traceback" not in reply.text


EXPORT = "/api/running/export"
WANTED = {"kind": "datasets", "name": "mine", "query": "split=train", "snapshot": 3}
ADAPT = "/api/running/adapt"
WANTED_MODEL = {"dataset": "tiny", "episode": "0", "model": "mine"}
MODEL = (
    "INSERT INTO checkpoints BY NAME SELECT 'mine' AS training_run, 1 AS step, 'models/x' AS path"
)
OF_EPISODE = "/running/adapt?dataset=tiny&episode=0"


@pytest.mark.parametrize(
    "name", ["../out", "/tmp/out", "a/b", "", ".", "-x", "a" * 81, "a b", "x;y"]
)
def test_what_is_typed_is_a_name(own, name):
    change(own.space, MODEL)
    with visit(own.space) as client:
        assert post(client, EXPORT, WANTED | {"name": name}).status_code == 422
        if name:
            assert post(client, ADAPT, WANTED_MODEL | {"recipe": name}).status_code == 422
    assert not (own.space.root / "exports").exists()


def test_what_is_chosen_is_one_of_the_choices(own):
    with visit(own.space) as client:
        assert "The corpus has no trained model yet" in client.get(OF_EPISODE).text
        assert post(client, EXPORT, WANTED | {"kind": "hub"}).status_code == 422
        for model in ("mine", "/etc/passwd", ""):
            assert post(client, ADAPT, WANTED_MODEL | {"model": model}).status_code == 422
    change(own.space, MODEL)
    with visit(own.space) as client:
        page_text = client.get(OF_EPISODE).text
        assert "<option>mine</option>" in page_text
        assert "proccorpus adapt --dataset=tiny --episode=0 --model=mine" in page_text
        for wrong in ({"episode": "99"}, {"episode": "x"}, {"dataset": "none"}):
            assert post(client, ADAPT, WANTED_MODEL | wrong).status_code in (404, 422)


def test_a_link_out_of_the_workspace_is_no_way_there(own, tmp_path):
    (own.space.root / "exports").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    with visit(own.space) as client:
        assert post(client, EXPORT, WANTED).status_code == 422


def test_an_explorer_for_others_or_of_a_snapshot_starts_none(own):
    for options in (Options(access=access_for("0.0.0.0", token="t" * 32)), Options(snapshot=1)):
        with visit(own.space, options) as client:
            client.headers["authorization"] = f"Bearer {'t' * 32}"
            assert post(client, EXPORT, WANTED).status_code == 403
            assert post(client, ADAPT, WANTED_MODEL).status_code == 403


def test_one_at_a_time_with_its_progress_and_its_end(own, monkeypatch):
    out = own.space.root / "exports" / "mine"
    text = (
        "import sys, time, pathlib; out = pathlib.Path([a for a in sys.argv if a.startswith('--out=')][0][6:]);"
        "out.mkdir(parents=True); (out / 'part').write_text('x' * 5000); print('error: the disk is full');"
        "time.sleep(60)"
    )
    with visit(own.space) as client:
        assert "Run it here" in client.get("/running/export?query=split%3Dtrain").text
        monkeypatch.setattr(explorer_site, "program", lambda: [sys.executable, "-c", text])
        assert post(client, EXPORT, WANTED).status_code == 202
        assert post(client, EXPORT, WANTED).status_code == 409
        until = time.monotonic() + PATIENCE_S
        while "1 file, 5 kB written" not in (page_text := client.get("/running/export").text):
            assert time.monotonic() < until, page_text
        assert "data-running" in page_text
        process = client.app.state.explorer.jobs["export"].process  # type: ignore[attr-defined]  # the explorer's own app
        process.kill()
        process.wait()
        page_text = client.get("/running/export").text
        assert "failed: the disk is full" in page_text
        assert f"--out={out}" in page_text
        assert "--where=SELECT" in page_text.replace("&#39;", "").replace("'", "")


def test_a_selection_is_exported(own):
    with visit(own.space) as client:
        assert post(client, EXPORT, WANTED).status_code == 202
        until = time.monotonic() + PATIENCE_S
        while "data-running" in (page_text := client.get("/running/export").text):
            assert time.monotonic() < until
            time.sleep(0.5)
    assert "is done" in page_text
    assert (own.space.root / "exports" / "mine" / "manifest.json").is_file()

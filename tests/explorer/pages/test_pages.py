"""The SQL page: limits, downloads, charts, saved queries.

Also: likeness in the explorer; the page of a task.
"""

import html
import io
import json
import re
import shutil
from collections.abc import Iterator

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from core.paths import Workspace
from explorer.pages import episodes, sql
from explorer.pages import task as task_page
from tests.kits.cli_kit import rows
from tests.kits.embedded import look_at
from tests.kits.explorer_kit import HOSTILE, copy_furnished, write_queries
from tests.kits.lake_kit import SLOW, change, opened, put_rows
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import CAMERA, FPS
from tests.kits.visitor import delete, picture, post, visit


def ask(client: TestClient, q: str, **parameters: str):
    return client.get("/sql", params={"q": q, **parameters})


@pytest.mark.parametrize(
    ("q", "says"),
    [
        ("DELETE FROM episodes", "read only"),
        ("FROM read_csv('/etc/passwd')", "not allowed"),
        ("SELEC 1", "Parser Error"),
    ],
)
def test_a_refused_query_is_a_sentence_on_the_page(client, q, says):
    answer = ask(client, q)
    assert answer.status_code == 200
    assert says in answer.text
    assert 'id="error"' in answer.text
    assert 'id="result"' not in answer.text


def test_rows_are_cut_and_said_to_be(client):
    text = ask(client, "SELECT range AS n FROM range(501)").text
    assert text.count("<tr><td") == sql.MAX_ROWS
    assert "500 rows, the first 500 shown" in text
    assert (
        "shown"
        not in ask(client, "SELECT range AS n FROM range(500)")
        .text.split("As a command")[0]
        .split('id="rows"')[1]
    )


def test_a_long_query_is_stopped_and_the_page_goes_on(client, monkeypatch):
    monkeypatch.setattr(sql, "TIME_S", 0.2)
    text = ask(client, SLOW).text
    assert "took longer than 0.2 s and was stopped" in text
    monkeypatch.undo()
    assert "1 rows" in ask(client, "SELECT 1").text


def test_downloads_have_all_rows(client):
    q = {"q": "SELECT range AS n, 'é' AS t FROM range(1200)"}
    got = {
        f: client.get("/sql/download", params=q | {"format": f}) for f in ("csv", "json", "parquet")
    }
    assert pyarrow.csv.read_csv(io.BytesIO(got["csv"].content)).num_rows == 1200
    assert len(got["json"].json()) == 1200
    assert pq.read_table(io.BytesIO(got["parquet"].content)).column("t")[1199].as_py() == "é"
    assert got["csv"].headers["content-disposition"] == 'attachment; filename="query.csv"'
    assert client.get("/sql/download", params=q | {"format": "xls"}).status_code == 400


def test_rows_that_name_an_episode_link_to_it(client):
    text = ask(
        client, "SELECT dataset, episode_index FROM episodes WHERE episode_index < 2 ORDER BY 2"
    ).text
    links = re.findall(r'<td class="n"><a href="(/episode/[^"]+)">', text)
    assert [link.rsplit("/", 1)[1] for link in links] == ["0", "1"]
    assert all(client.get(link).status_code == 200 for link in links)
    # At the frame where a row names one
    text = ask(client, "SELECT dataset, episode_index, frame_index, fps FROM frames JOIN episodes "
               "USING (dataset, episode_index) WHERE episode_index = 0 AND frame_index = 5 LIMIT 1").text  # fmt: skip
    _, link = re.findall(r'<td class="n"><a href="(/episode/[^"]+)">', text)
    assert link.endswith("/0?frame=5")
    assert client.get(link).status_code == 200
    # Nothing is linked that is no row of an episode
    for q in ("SELECT count(*) AS n FROM episodes", "SELECT 1 AS dataset, 'x' AS episode_index"):
        assert 'href="/episode/' not in ask(client, q).text


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT DATE 'infinity' AS d",
        "SELECT 1::VARIANT AS v",
        "SELECT DATE '-infinity' AS d, 1 AS n",
        "SELECT [DATE 'infinity']",
    ],
)
def test_a_value_that_cannot_be_shown_is_a_sentence(client, sql):
    for chart in ("table", "bars"):
        answer = ask(client, sql, chart=chart)
        assert answer.status_code == 200
        assert 'id="error"' in answer.text
    for style in ("csv", "json", "parquet"):
        assert client.get("/sql/download", params={"q": sql, "format": style}).status_code in (
            200,
            400,
        )


def test_another_sites_link_shows_a_query_and_runs_none(client):
    q = "SELECT 41 + 1 AS answer"

    def asked(site: str, **parameters: str):
        return client.get(
            "/sql",
            params={"q": q, **parameters},
            headers={"sec-fetch-site": site, "sec-fetch-mode": "navigate"},
        )

    for site in ("cross-site", "same-site"):
        page = asked(site).text
        assert "Read it, then press Run" in page
        assert "<td" not in page.split('id="answer"')[1].split("Tables and views")[0]
        assert q in page
        download = client.get(
            "/sql/download",
            params={"q": q},
            headers={"sec-fetch-site": site, "sec-fetch-mode": "navigate"},
        )
        assert download.status_code == 403
        # A link that somebody made up, or took from another query's page
        assert "press Run" in asked(site, asked="0" * 64).text
    for site in ("same-origin", "none"):
        assert '<td class="n">42</td>' in asked(site).text
    link = re.search(r'href="(/sql/download[^"]*)"', asked("same-origin").text)
    assert link
    assert client.get(
        html.unescape(link[1]),
        headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    ).text


def test_charts(client):
    assert 'class="bars"' in ask(client, "SELECT dataset, hours FROM coverage", chart="bars").text
    assert (
        'class="curves"' in ask(client, "SELECT range, range * 2 FROM range(9)", chart="line").text
    )
    for extreme in ("'infinity'", "'-infinity'", "-1e308", "5e-324"):
        assert (
            'class="curves"'
            in ask(
                client, f"SELECT 'a', {extreme}::DOUBLE UNION ALL SELECT 'b', 1e308", chart="line"
            ).text
        )
    assert "A chart needs a first column" in ask(client, "SELECT 'a', 'b'", chart="bars").text


def test_queries_are_saved_listed_and_deleted(client, furnished):
    path = furnished.root / "explorer" / "queries.json"
    saved = post(client, "/api/queries", {"name": "a/b <i>", "sql": "FROM coverage"})
    assert saved.json() == [{"name": "a/b <i>", "sql": "FROM coverage"}]
    assert json.loads(path.read_text()) == saved.json()
    assert "a/b &lt;i&gt;" in client.get("/sql").text
    assert delete(client, "/api/queries/a%2Fb%20%3Ci%3E").json() == []


def test_too_many_queries_are_refused(client, furnished, monkeypatch):
    monkeypatch.setattr(episodes, "MAX_SAVED", 1)
    path = write_queries(furnished, [{"name": "one", "sql": "FROM coverage"}])
    answer = post(client, "/api/queries", {"name": "two", "sql": "FROM coverage"})
    assert (answer.status_code, "at most 1" in answer.json()["error"]) == (400, True)
    path.unlink()


def test_a_spoilt_file_of_queries_is_a_sentence(client, furnished):
    path = write_queries(furnished, [])
    path.write_text("[{")
    answer = client.get("/sql")
    path.unlink()
    assert answer.status_code == 500
    assert "holds no saved queries" in answer.text


TASK = "fold it"
ODD = 6
RUNS = 8
LENGTH = 60


@pytest.fixture(scope="module")
def eight(furnished: Workspace, tmp_path_factory) -> Workspace:
    """A workspace with eight runs of one task, whose progress is straight but for one, which waits
    to the end."""
    space = Workspace(
        shutil.copytree(furnished.root, tmp_path_factory.mktemp("eight") / "workspace")
    )
    change(space, "DELETE FROM findings")
    for number in range(10, 10 + RUNS):
        change(
            space,
            f"INSERT INTO episode_facts BY NAME SELECT * REPLACE ({number} AS episode_index, '{TASK}' AS task, "
            f"['{TASK}'] AS tasks) FROM episode_facts WHERE episode_index = 0",
        )
        change(
            space,
            f"INSERT INTO episode_content BY NAME SELECT * REPLACE ({number} AS episode_index, {LENGTH} AS num_frames) "
            "FROM episode_content WHERE episode_index = 0",
        )
    rows = []
    segments = []
    active = []
    for number in range(10, 10 + RUNS):
        key = {"dataset": "tiny", "episode_index": number, "chunk": 0, "label_run": "one"}
        line = np.linspace(0, 1, LENGTH)
        if number == 10 + ODD:
            curve = np.where(np.arange(LENGTH) < LENGTH - 2, 0.0, 1.0)
        else:
            curve = line
        rows += [
            key | {"frame_index": f, "segment_index": 0, "progress": float(v)}
            for f, v in enumerate(curve)
        ]
        cut = 55 if number == 10 + ODD else 20 + number % 3
        for k, (name, start, end) in enumerate((("Grasp it", 0, cut), ("Fold it", cut, LENGTH))):
            part = {
                "segment_index": k,
                "name": name,
                "start_frame": start,
                "end_frame": end,
                "completed": True,
            }
            segments.append(
                key | part | {"kind": "step", "step": k, "num_planned": 2, "named": True}
            )
        active.append(key | {"why": "it is the only one"})
    with opened(space) as lake:
        tables = {"progress": rows, "segments": segments, "active_runs": active}
        put_rows(lake, **tables)
    return space


def test_the_run_that_is_unlike_the_others_is_marked_and_leads_to_its_page(eight):
    with visit(eight) as client:
        text = client.get("/task/tiny", params={"task": TASK}).text
    link = r'<a href="(/episode/tiny/\d+)" aria-label="tiny \d+"><path class="broad"[^>]*><title>[^<]*</title></path>'
    unlike = re.findall(link + '<path class="line unlike"', text)
    assert unlike == [f"/episode/tiny/{10 + ODD}"]
    assert text.count('class="line single"') == RUNS - 1
    listed = re.findall(r'<tr><th scope="row"><a href="/episode/tiny/(\d+)">', text)
    assert (listed[0], len(listed)) == (str(10 + ODD), 5)
    assert f"{RUNS} labelled runs" in text
    # The step that took this run longer than the others, and those that it left no time for
    assert re.findall(
        rf'<a href="/episode/tiny/{10 + ODD}" aria-label="{10 + ODD}: [\d.]+ s">', text
    )
    steps = re.findall(r'<th scope="row">(Grasp it|Fold it)</th><td class="n">(\d+)</td>', text)
    assert steps == [("Grasp it", str(RUNS)), ("Fold it", str(RUNS))]


def test_quantiles_are_over_all_runs_by_their_own_time(eight):
    with visit(eight) as client, client.app.state.explorer.corpus.reading() as reader:  # type: ignore[attr-defined]
        runs = [{"episode_index": number, "num_frames": LENGTH} for number in range(10, 10 + RUNS)]
        curves = task_page._curves(reader, "tiny", runs)
    assert curves.shape == (RUNS, task_page.PLACES)
    usual_curves = np.delete(curves, ODD, axis=0)
    assert np.abs(usual_curves - np.linspace(0, 1, task_page.PLACES)).max() < 0.02
    assert curves[ODD, :95].max() == 0


def test_a_task_that_is_not_there_is_a_sentence(eight):
    with visit(eight) as client:
        answer = client.get("/task/tiny", params={"task": "<b>none</b>"})
        assert (answer.status_code, "&lt;b&gt;none" in answer.text) == (404, True)
        assert client.get("/task/none").status_code == 404
        assert (
            'href="/task/tiny?task=put%20the%20cube%20on%20the%20plate"'
            in client.get("/episode/tiny/0").text
        )


@pytest.fixture(scope="module")
def searched(furnished: Workspace, made: Made, tmp_path_factory) -> Iterator[TestClient]:
    space = copy_furnished(furnished, made, tmp_path_factory.mktemp("searched"))
    look_at(space)
    with visit(space) as client:
        yield client


def test_frames_like_one_are_pictures_that_lead_to_the_moment(searched):
    text = searched.get("/like/tiny/0?frame=4").text
    first = text.index(f'href="/episode/tiny/1?t={4 / FPS}"')
    assert first < text.index(f'href="/episode/tiny/2?t={4 / FPS}"'), "the most similar one first"
    assert f'src="/media/tiny/1/frames/4.jpg?camera={CAMERA}"' in text
    assert "likeness 1 " in text, "cos 1 degree, to three digits"
    assert "did not look at" not in text


def test_a_frame_between_two_says_which_one_is_meant(searched):
    text = searched.get("/like/tiny/0?frame=5").text
    assert (
        "did not look at frame 5: shown is what is like frame 4, the nearest that it did." in text
    )
    assert f'href="/episode/tiny/1?t={4 / FPS}"' in text


def test_runs_like_one_lead_to_their_pages(searched):
    text = searched.get("/like/tiny/0").text
    assert text.index('href="/episode/tiny/1"') < text.index('href="/episode/tiny/2"')
    assert "/media/tiny/1/thumb.jpg" in text


def test_hostile_words_are_text(searched):
    for address in ("/like/tiny/0", "/like/tiny/0?frame=0", "/like/tiny/2"):
        text = searched.get(address).text
        assert HOSTILE not in text
        assert "&lt;script&gt;alert(&#39;task&#39;)" in text
    for name in ("camera", "among"):
        assert HOSTILE not in searched.get("/like/tiny/0", params={name: HOSTILE}).text


def frame_of(client: TestClient, frame: int) -> np.ndarray:
    return picture(client, f"/media/tiny/0/frames/{frame}.jpg?camera={CAMERA}")


def test_a_picture_is_of_its_frame_and_else_the_nearest_stored_one(
    searched, furnished, made, tmp_path
):
    assert frame_of(searched, 0).shape[0] == 180
    assert np.abs(frame_of(searched, 8) - frame_of(searched, 0)).max() > 50, "the scene has moved"
    # Where the video is elsewhere, a picture that was kept stands for those around it
    space = copy_furnished(furnished, made, tmp_path)
    change(space, "UPDATE datasets SET source_uri = '/nowhere'")
    query = "SELECT DISTINCT frame_index FROM keyframes WHERE episode_index = 0 ORDER BY 1"
    stored_frames = [frame for (frame,) in rows(space.root, query)]
    with visit(space) as elsewhere:
        np.testing.assert_array_equal(
            frame_of(elsewhere, stored_frames[1] + 1), frame_of(elsewhere, stored_frames[1])
        )
        assert (
            np.abs(
                frame_of(elsewhere, stored_frames[1]) - frame_of(searched, stored_frames[1])
            ).mean()
            < 5
        )

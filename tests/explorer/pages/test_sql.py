"""The SQL page: limits, downloads, charts, saved queries."""

import html
import io
import json
import re

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from explorer.pages import episodes, sql
from tests.kits.explorer_kit import write_queries
from tests.kits.lake_kit import SLOW
from tests.kits.visitor import delete, post


def ask(client: TestClient, q: str, **parameters: str):
    return client.get("/sql", params={"q": q, **parameters})


@pytest.mark.parametrize(
    ("q", "says"),
    [
        ("DELETE FROM episodes", "read only"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("FROM read_csv('/etc/passwd')", "not allowed"),
        ("FROM '/etc/passwd'", "no table"),
        ("SELECT getenv('HOME')", "not allowed"),
        ("SELECT nothing FROM coverage", "nothing"),
        ("SELEC 1", "Parser Error"),
    ],
)
def test_a_refused_query_is_a_sentence_on_the_page(client: TestClient, q: str, says: str):
    answer = ask(client, q)
    assert answer.status_code == 200
    assert says in answer.text
    assert 'id="error"' in answer.text
    assert 'id="result"' not in answer.text


def test_rows_are_cut_and_said_to_be(client: TestClient):
    text = ask(client, "SELECT range AS n FROM range(501)").text
    assert text.count("<tr><td") == sql.MAX_ROWS
    assert "500 rows, the first 500 shown" in text
    assert (
        "shown"
        not in ask(client, "SELECT range AS n FROM range(500)")
        .text.split("As a command")[0]
        .split('id="rows"')[1]
    )


def test_a_long_query_is_stopped_and_the_page_goes_on(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sql, "TIME_S", 0.2)
    text = ask(client, SLOW).text
    assert "took longer than 0.2 s and was stopped" in text
    monkeypatch.undo()
    assert "1 rows" in ask(client, "SELECT 1").text


def test_downloads_have_all_rows(client: TestClient):
    q = {"q": "SELECT range AS n, 'é' AS t FROM range(1200)"}
    got = {
        f: client.get("/sql/download", params=q | {"format": f}) for f in ("csv", "json", "parquet")
    }
    assert pyarrow.csv.read_csv(io.BytesIO(got["csv"].content)).num_rows == 1200
    assert len(got["json"].json()) == 1200
    assert pq.read_table(io.BytesIO(got["parquet"].content)).column("t")[1199].as_py() == "é"
    assert got["csv"].headers["content-disposition"] == 'attachment; filename="query.csv"'
    assert client.get("/sql/download", params=q | {"format": "xls"}).status_code == 400


def test_rows_that_name_an_episode_link_to_it(client: TestClient):
    text = ask(
        client, "SELECT dataset, episode_index FROM episodes WHERE episode_index < 2 ORDER BY 2"
    ).text
    links = re.findall(r'<td><a href="(/episode/[^"]+)">', text)
    assert [link.rsplit("/", 1)[1] for link in links] == ["0", "1"]
    assert all(client.get(link).status_code == 200 for link in links)
    # At the frame's time where a row names one
    text = ask(client, "SELECT dataset, episode_index, frame_index, fps FROM frames JOIN episodes "
               "USING (dataset, episode_index) WHERE episode_index = 0 AND frame_index = 5 LIMIT 1").text  # fmt: skip
    (link,) = re.findall(r'<td><a href="(/episode/[^"]+)">', text)
    assert link.endswith("/0?t=1.00")
    assert client.get(link).status_code == 200
    # Nothing is linked that is no episode of the corpus, or no row of one
    for q in ("SELECT 'none' AS dataset, 0 AS episode_index", "SELECT count(*) AS n FROM episodes",
              "SELECT 1 AS dataset, 'x' AS episode_index"):  # fmt: skip
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
def test_a_value_that_cannot_be_shown_is_a_sentence(client: TestClient, sql: str):
    for chart in ("table", "bars"):
        answer = ask(client, sql, chart=chart)
        assert answer.status_code == 200
        assert 'id="error"' in answer.text
    for style in ("csv", "json", "parquet"):
        assert client.get("/sql/download", params={"q": sql, "format": style}).status_code in (
            200,
            400,
        )


def test_another_sites_link_shows_a_query_and_runs_none(client: TestClient):
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


def test_charts(client: TestClient):
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


def test_queries_are_saved_listed_and_deleted(client: TestClient, furnished):
    path = furnished.root / "explorer" / "queries.json"
    saved = post(client, "/api/queries", {"name": "a/b <i>", "sql": "FROM coverage"})
    assert saved.json() == [{"name": "a/b <i>", "sql": "FROM coverage"}]
    assert json.loads(path.read_text()) == saved.json()
    assert "a/b &lt;i&gt;" in client.get("/sql").text
    assert delete(client, "/api/queries/a%2Fb%20%3Ci%3E").json() == []


def test_too_many_queries_are_refused(
    client: TestClient, furnished, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(episodes, "MAX_SAVED", 1)
    path = write_queries(furnished, [{"name": "one", "sql": "FROM coverage"}])
    answer = post(client, "/api/queries", {"name": "two", "sql": "FROM coverage"})
    assert (answer.status_code, "at most 1" in answer.json()["error"]) == (400, True)
    path.unlink()


def test_a_spoilt_file_of_queries_is_a_sentence(client: TestClient, furnished):
    path = write_queries(furnished, [])
    path.write_text("[{")
    answer = client.get("/sql")
    path.unlink()
    assert answer.status_code == 500
    assert "holds no saved queries" in answer.text

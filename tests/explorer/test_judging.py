"""Judging: answered by one durable line, seen at once, in the lake soon after; outcomes; whole queues."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import duckdb
import httpx
import pytest

from core.paths import Workspace
from explorer import scribe
from explorer.overlay import Overlay
from explorer.pages import bulk
from explorer.pages import corrections as pages
from explorer.pages.outcomes import failed_from
from tests.kits.lake_kit import change, opened
from tests.kits.made_corpus import Made
from tests.kits.patience import PATIENCE_S
from tests.kits.visitor import csrf, post, serving, visit
from warehouse.lake import Lake
from warehouse.lake.lake import lake_to_read
from warehouse.lake.outcomes import StatedOutcome, add_outcomes
from warehouse.lake.place import LakeError


@pytest.fixture
def client(own: Made) -> Iterator[Any]:
    with visit(own.space) as client:
        yield client


def active_run(client: Any, episode: int) -> str:
    return client.get(f"/api/episode/tiny/{episode}").json()["runs"][0]["label_run"]


def accept(client: Any, episode: int) -> httpx.Response:
    newest = client.get(f"/api/corrections/tiny/{episode}").json()["newest"]
    body = {
        "base_label_run": active_run(client, episode),
        "author": "ada",
        "follows": newest,
        "brief": True,
    }
    return post(client, f"/api/corrections/tiny/{episode}/accept", body)


def rows(space: Workspace, sql: str) -> list[tuple]:
    with closing(lake_to_read(space).con) as con:
        return con.execute(sql).fetchall()


def test_the_answer_waits_for_no_commit_and_the_lake_follows(own: Made, monkeypatch):
    monkeypatch.setattr(scribe, "IDLE_S", PATIENCE_S)
    monkeypatch.setattr(scribe, "MOST_S", PATIENCE_S)
    with visit(own.space) as client:
        time_before = own.space.catalog.stat().st_mtime_ns
        answer = accept(client, 2)
        assert list(answer.json()) == ["saved"]
        assert own.space.catalog.stat().st_mtime_ns == time_before
        assert client.get("/api/corrections/tiny/2").json()["current"][0]["author"] == "ada"
        assert 'data-episode="2" data-follows' not in client.get("/review").text
        snapshot = re.search(r'id="snapshot">(\d+)', client.get("/").text)
        # Its own commit changes nothing that the pages do not show yet: no state is read anew
        client.app.state.explorer.scribe.settle()
        assert re.search(r'id="snapshot">(\d+)', client.get("/").text)[1] == snapshot[1]
        assert own.rows("SELECT author FROM corrections") == [("ada",)]
        assert (
            "ada"
            in client.get("/sql?q=FROM corrections", headers={"sec-fetch-site": "same-origin"}).text
        )
        accept(client, 0)
    # The last commit is made as it ends
    assert own.rows("SELECT count(*) FROM corrections") == [(2,)]


def test_what_cannot_be_committed_is_kept_and_every_page_says_so(own: Made, monkeypatch):
    with visit(own.space) as client:

        def fails(*_: Any) -> None:
            raise LakeError("the disk fails")

        with monkeypatch.context() as broken:
            broken.setattr(Lake, "take_in", fails)
            assert accept(client, 2).status_code == 200
            assert not client.app.state.explorer.scribe.settle()
            for page in ("/", "/review", "/episode/tiny/1"):
                assert "could not be written to the lake: the disk fails" in client.get(page).text
            assert client.get("/api/corrections/tiny/2").json()["current"]
        assert client.app.state.explorer.scribe.settle()
        assert "could not be written" not in client.get("/").text
    assert own.rows("SELECT count(*) FROM corrections") == [(1,)]


def end(client: Any, episode: int, outcome: str, **body_fields: Any) -> httpx.Response:
    return post(
        client, f"/api/outcomes/tiny/{episode}", {"outcome": outcome, "author": "ada"} | body_fields
    )


def test_an_outcome_by_a_click_counts_as_one_of_a_file(own: Made, tmp_path):
    change(own.space, "UPDATE episode_facts SET success = NULL, success_source = NULL")
    (tmp_path / "other").mkdir()
    other_corpus = own.copy(tmp_path / "other")
    with opened(other_corpus.space) as lake:
        add_outcomes(lake, "tiny", "explorer", [StatedOutcome(2, False, "unfinished", "ada")])
    with visit(own.space) as client:
        reply = end(client, 2, "unfinished")
        assert reply.status_code == 200, reply.text
        assert "unfinished" in client.get("/episode/tiny/2").text
        # Whoever has not seen it replaces nothing
        assert end(client, 2, "succeeded", author="grace").status_code == 409
    waiting = "SELECT dataset, episode_index FROM pending_outcomes"
    assert own.rows(waiting) == other_corpus.rows(waiting)
    assert own.rebuild() == other_corpus.rebuild()
    ended = (
        "SELECT success, success_source, end_by, end_progress FROM episode_facts JOIN label_quality "
        "USING (dataset, episode_index) WHERE episode_index = 2"
    )
    assert own.rows(ended) == other_corpus.rows(ended)
    assert own.rows(ended)[0][:3] == (False, "person: explorer", "person")
    with visit(own.space) as client:
        body = {"import_id": reply.json()["saved"], "author": "ada"}
        assert post(client, "/api/outcomes/tiny/2/undo", body).status_code == 200
        assert post(client, "/api/outcomes/tiny/2/undo", body).status_code == 422
    assert own.rows("SELECT * FROM current_outcomes") == []


def test_a_judgement_is_seen_that_makes_the_journal_as_long_as_it_was_before_it_was_emptied(
    own: Made, monkeypatch
):
    monkeypatch.setattr(scribe, "IDLE_S", PATIENCE_S)
    monkeypatch.setattr(scribe, "MOST_S", PATIENCE_S)
    with visit(own.space) as client, visit(own.space) as other_client:
        end(client, 1, "unfinished")
        length = own.space.journal.stat().st_size
        client.app.state.explorer.scribe.settle()
        assert own.space.journal.stat().st_size == 0
        assert end(other_client, 2, "unfinished").status_code == 200
        assert own.space.journal.stat().st_size == length
        # Who has not seen that one replaces nothing
        assert end(client, 2, "unfinished", author="eve").status_code == 409


def test_a_request_waits_for_what_another_one_reads_of_the_journal(client, own: Made, monkeypatch):
    lay_over = Overlay._lay_over
    newest: list[str | None] = []

    def ask() -> None:
        newest.append(client.get("/api/corrections/tiny/2").json()["newest"])

    other_request = threading.Thread(target=ask)

    def lay_over_slowly(overlay: Overlay, name: str, rows: list[dict[str, Any]]) -> None:
        other_request.start()
        other_request.join(0.5)
        lay_over(overlay, name, rows)

    run = active_run(client, 2)
    with monkeypatch.context() as slow:
        slow.setattr(Overlay, "_lay_over", lay_over_slowly)
        body = {"base_label_run": run, "author": "ada"}
        saved = post(client, "/api/corrections/tiny/2/reject", body).json()
        other_request.join()
    assert newest == [saved["saved"]] == [saved["newest"]]


def test_what_is_saved_is_answered_so_where_the_page_cannot_be_read_anew(
    client, own: Made, monkeypatch
):
    def fails(*_: Any) -> None:
        raise duckdb.IOException("the disk is slow")

    monkeypatch.setattr(pages, "correction_state", fails)
    body = {"base_label_run": active_run(client, 2), "author": "ada"}
    reply = post(client, "/api/corrections/tiny/2/reject", body)
    assert (reply.status_code, "the disk is slow" in reply.json()["unread"]) == (200, True)
    client.app.state.explorer.scribe.settle()
    assert own.rows("SELECT correction_id FROM corrections") == [(reply.json()["saved"],)]


def test_a_refused_outcome_leaves_no_label_behind(client, own: Made):
    assert end(client, 2, "failed", frame=5, follows="another").status_code == 409
    assert own.space.journal.stat().st_size == 0
    client.app.state.explorer.scribe.settle()
    assert own.rows("SELECT * FROM corrections") == []


def test_a_failure_from_a_moment_on_is_in_the_label_and_one_undo_takes_both_back(client, own: Made):
    saved_ids = end(client, 2, "failed", frame=5).json()
    [current] = client.get("/api/corrections/tiny/2").json()["current"]
    assert (current["correction_id"], current["catastrophic_frame"]) == (saved_ids["correction"], 5)
    assert not any(s["completed"] for s in current["segments"] if s["end_frame"] > 5)
    assert "failed from frame 5" in client.get("/episode/tiny/2").text
    # A frame that is none leaves nothing behind
    follow_fields = {"follows": saved_ids["saved"], "follows_correction": saved_ids["correction"]}
    assert end(client, 2, "failed", frame=10**6, **follow_fields).status_code == 422
    assert (
        post(client, "/api/outcomes/tiny/2/undo", {"import_id": saved_ids["saved"]}).status_code
        == 200
    )
    assert client.get("/api/corrections/tiny/2").json()["current"] == []
    assert rows(own.space, "FROM current_outcomes") == []


def test_the_step_at_the_moment_of_failure_and_those_after_it_are_not_completed():
    def part(kind: str, start: int, end: int) -> dict[str, Any]:
        return {
            "name": kind,
            "kind": kind,
            "start_frame": start,
            "end_frame": end,
            "completed": kind != "idle",
        }

    label = [part("step", 0, 4), part("step", 4, 8), part("done", 8, 12)]
    assert [(s["kind"], s["completed"]) for s in failed_from(label, 5)] == [
        ("step", True), ("step", False), ("idle", False),
    ]  # fmt: skip
    assert [(s["kind"], s["completed"]) for s in failed_from(label, 9)] == [
        ("step", True), ("step", False), ("idle", False),
    ]  # fmt: skip


def test_the_review_page_says_how_many_outcomes_are_assumed(own: Made):
    change(own.space, "UPDATE label_quality SET end_by = 'assumed'")
    with visit(own.space) as client:
        assert "5 of 5 runs</a> ended: their labels assume success" in client.get("/review").text
        end(client, 1, "succeeded")
        assert "4 of 5 runs</a> ended: their labels assume success" in client.get("/review").text


def test_a_queue_is_accepted_after_its_sample_was_right(own: Made, monkeypatch):
    change(own.space, "UPDATE episode_labels SET confidence = 0.1")
    monkeypatch.setattr(bulk, "SAMPLE", 2)
    monkeypatch.setattr(bulk, "AT_ONCE", 2)
    with visit(own.space) as client:
        page = client.get("/review/bulk?kind=unsure")
        sample = [int(number) for number in re.findall(r"tiny%2F(\d)", str(page.url))]
        assert len(set(sample)) == 2
        body = {
            "kind": "unsure",
            "sample": [["tiny", number] for number in sample],
            "author": "ada",
        }
        refused = post(client, "/api/bulk", body)
        assert (refused.status_code, "not looked at yet" in refused.text) == (422, True)
        for number in sample:
            assert accept(client, number).status_code == 200
        assert "All 2 were right" in client.get(str(page.url)).text
        assert post(client, "/api/bulk", body).json() == {"accepted": 2, "left": 1, "refused": []}
        assert post(client, "/api/bulk", body).json() == {"accepted": 1, "left": 0, "refused": []}
    assert own.rows("SELECT count(DISTINCT episode_index), count(*) FROM corrections") == [(5, 5)]


def test_a_selection_of_the_gallery_is_accepted_after_its_sample_was_right(own: Made, monkeypatch):
    """Without those of which somebody said something already, and no other run than the selected ones."""
    monkeypatch.setattr(bulk, "SAMPLE", 2)
    with visit(own.space) as client:
        picks = "&".join(f"pick=tiny+{number}" for number in range(4))
        page = client.get("/review/bulk", params={"query": picks})
        assert 'href="/episodes?' in page.text
        sample = [int(number) for number in re.findall(r"sample=tiny%2F(\d)", str(page.url))]
        assert (len(set(sample)), max(sample) < 4) == (2, True)
        body = {"query": picks, "sample": [["tiny", n] for n in sample], "author": "ada"}
        assert post(client, "/api/bulk", body).status_code == 422
        for number in sample:
            accept(client, number)
        assert "Accept the other 2 labels" in client.get(str(page.url)).text
        assert post(client, "/api/bulk", body).json() == {"accepted": 2, "left": 0, "refused": []}
        monkeypatch.setattr(bulk, "MOST_SELECTED", 3)
        too_many = client.get("/review/bulk", params={"query": ""})
        assert (too_many.status_code, "narrow it down" in too_many.text) == (422, True)
    assert own.rows("SELECT DISTINCT episode_index FROM corrections ORDER BY 1") == [
        (0,), (1,), (2,), (3,),
    ]  # fmt: skip


def test_a_queue_whose_sample_is_wrong_is_not_accepted(own: Made, monkeypatch):
    change(own.space, "UPDATE episode_labels SET confidence = 0.1")
    monkeypatch.setattr(bulk, "SAMPLE", 1)
    with visit(own.space) as client:
        run = active_run(client, 2)
        post(client, "/api/corrections/tiny/2/reject", {"base_label_run": run, "author": "ada"})
        body = {"kind": "unsure", "sample": [["tiny", 2]], "author": "ada"}
        assert post(client, "/api/bulk", body).status_code == 422
        page = client.get("/review/bulk?kind=unsure&sample=tiny/2").text
        assert "judge them one by one" in page
        assert "accept-others" not in page


class Judging(threading.Thread):
    """Accepts one episode's label again and again, each time with other words, until nobody answers; `saved`: the ids
    that were answered for. Where another person was quicker it looks again."""

    def __init__(self, url: str, author: str, episodes: list[int], most: int) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.author = author
        self.episodes = episodes
        self.most = most
        self.saved: list[str] = []
        self.problems: list[str] = []
        self.start()

    def run(self) -> None:
        with (
            httpx.Client(base_url=self.url, timeout=600, trust_env=False) as client,
            suppress(httpx.TransportError),
        ):
            headers = {"origin": self.url, "x-csrf-token": csrf(client)}
            newest: dict[int, str | None] = {}
            runs = {episode: active_run(client, episode) for episode in self.episodes}
            for number in range(10 * self.most):
                if len(self.saved) >= self.most:
                    return
                episode = self.episodes[number % len(self.episodes)]
                if episode not in newest:
                    newest[episode] = client.get(f"/api/corrections/tiny/{episode}").json()[
                        "newest"
                    ]
                body_fields = {
                    "author": self.author,
                    "comment": f"{self.author} {number}",
                    "brief": True,
                }
                body = body_fields | {
                    "base_label_run": runs[episode],
                    "follows": newest.pop(episode),
                }
                answer = client.post(
                    f"/api/corrections/tiny/{episode}/reject", json=body, headers=headers
                )
                if answer.status_code == 200:
                    newest[episode] = answer.json()["saved"]
                    self.saved.append(newest[episode])
                elif answer.status_code != 409:
                    self.problems.append(answer.text)


@pytest.mark.parametrize("most", [25, pytest.param(340, marks=pytest.mark.long)])
def test_two_people_judge_and_the_explorer_is_killed(own: Made, most: int):
    """Killed in the middle, started again, to the end: all that was answered is there, nothing twice."""
    change(own.space, "UPDATE episode_labels SET confidence = 0.1")
    saved: list[str] = []
    for is_killed in (True, False):
        with serving(own.space) as (client, server):
            url = str(client.base_url).rstrip("/")
            people = [Judging(url, "ada", [0, 1], most), Judging(url, "grace", [1, 2], most)]
            deadline = time.monotonic() + PATIENCE_S
            while (
                is_killed
                and time.monotonic() < deadline
                and min(len(p.saved) for p in people) < most // 2
            ):
                time.sleep(0.01)
            if is_killed:
                os.kill(server.pid, signal.SIGKILL)
            for person in people:
                person.join(PATIENCE_S)
                assert person.problems == []
                saved += person.saved
            assert is_killed or all(len(p.saved) == most for p in people)
    assert len(saved) >= 2 * most + 2 * (most // 2)
    stored_ids = [row[0] for row in rows(own.space, "SELECT correction_id FROM corrections")]
    assert len(stored_ids) == len(set(stored_ids))
    assert set(stored_ids) >= set(saved)
    # Of each person one may have been under way
    assert len(stored_ids) <= len(saved) + 2

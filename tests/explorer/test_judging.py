"""Judging: durable when it is answered, and seen at once; outcomes; whole queues."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import duckdb
import httpx
import pytest

from explorer import review_queue
from explorer.pages import corrections as pages
from explorer.pages import review
from explorer.pages.corrections import failed_from
from tests.kits.lake_kit import change, opened
from tests.kits.made_corpus import Made
from tests.kits.patience import PATIENCE_S
from tests.kits.visitor import csrf, post, serving, visit
from warehouse.lake.outcomes import StatedOutcome, add_outcomes


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
    }
    return post(client, f"/api/corrections/tiny/{episode}/accept", body)


def test_a_judgement_is_durable_when_it_is_answered_and_seen_everywhere_at_once(own: Made):
    with visit(own.space) as client, visit(own.space) as other_client:
        time_before = own.space.catalog.stat().st_mtime_ns
        answer = accept(client, 2)
        assert list(answer.json()) == ["saved"]
        assert own.rows("SELECT author FROM corrections") == [("ada",)]
        assert own.space.catalog.stat().st_mtime_ns == time_before
        for explorer in (client, other_client):
            current = explorer.get("/api/corrections/tiny/2").json()["current"]
            assert current[0]["author"] == "ada"
            assert 'data-episode="2" data-follows' not in explorer.get("/review").text
        headers = {"sec-fetch-site": "same-origin"}
        query = "/sql/download?q=SELECT count(*) AS n FROM corrections"
        assert client.get(query, headers=headers).text.split() == ['"n"', "1"]
        assert accept(client, 0).status_code == 200
        assert client.get(query, headers=headers).text.split() == ['"n"', "2"]
        # Whoever has not seen it replaces nothing
        body = {"base_label_run": active_run(other_client, 2), "author": "eve", "follows": None}
        assert post(other_client, "/api/corrections/tiny/2/reject", body).status_code == 409
        # What an import says meanwhile is seen by the next page
        with opened(own.space) as lake:
            add_outcomes(lake, "tiny", "night.csv", [StatedOutcome(1, False, "fell", "eve")])
        assert "fell" in client.get("/episode/tiny/1").text


FAULT = "SELECT 'tiny' AS dataset, 2 AS episode_index, 'rows_late' AS reason, 'warning' AS severity"


def test_a_number_that_is_another_recordings_by_now_is_not_judged(own: Made):
    """A page is open, a build gives the number to another recording:
    no word lands on that one."""
    with visit(own.space) as client:
        [(shown,)] = own.rows("SELECT recording FROM recordings WHERE episode_index = 2")
        [(snapshot,)] = own.rows("SELECT id FROM ducklake_current_snapshot('lake')")
        change(own.space, "UPDATE recordings SET recording = 'other' WHERE episode_index = 2")
        body = {"base_label_run": active_run(client, 2), "author": "ada", "recording": shown}
        assert post(client, "/api/corrections/tiny/2/reject", body).status_code == 409
        assert end(client, 2, "failed", frame=5, recording=shown).status_code == 409
        marking = {"kind": "tag", "value": "odd", "episodes": [["tiny", 2, None]]}
        accepting = {"dataset": "tiny", "check": "rows_late", "episode_index": 2, "why": "known"}
        change(own.space, f"INSERT INTO findings BY NAME {FAULT}")
        bulk_body = {"kind": "unsure", "sample": [["tiny", 2]], "author": "ada"}
        for url, body in (
            ("/api/marks", marking | {"episodes": [["tiny", k, None] for k in range(4)]}),
            ("/api/acceptances", accepting),
            ("/api/bulk", bulk_body),
        ):
            for seen in (snapshot, 10**6):  # and one that is gone
                reply = post(client, url, body | {"snapshot": seen})
                assert (reply.status_code, "reload it" in reply.text) == (409, True), reply.text
        assert own.rows("SELECT count(*) FROM statements WHERE kind <> 'build'") == [(0,)]
        assert post(client, "/api/marks", marking).json() == {"changed": 1}


def test_what_cannot_be_written_is_answered_so(own: Made):
    with visit(own.space) as client:
        run = active_run(client, 2)
        own.space.statements.unlink()
        own.space.statements.mkdir()
        body = {"base_label_run": run, "author": "ada"}
        reply = post(client, "/api/corrections/tiny/2/reject", body)
        assert (reply.status_code >= 400, "statements.sqlite" in reply.text) == (True, True)


def end(client: Any, episode: int, outcome: str, **body_fields: Any) -> httpx.Response:
    return post(
        client, f"/api/outcomes/tiny/{episode}", {"outcome": outcome, "author": "ada"} | body_fields
    )


def test_an_outcome_by_a_click_counts_as_one_of_a_file(undivided: Made, tmp_path):
    change(undivided.space, "UPDATE episode_facts SET success = NULL, success_source = NULL")
    (tmp_path / "other").mkdir()
    other_corpus = undivided.copy(tmp_path / "other")
    with opened(other_corpus.space) as lake:
        add_outcomes(lake, "tiny", "explorer", [StatedOutcome(2, False, "unfinished", "ada")])
    with visit(undivided.space) as client:
        reply = end(client, 2, "unfinished")
        assert reply.status_code == 200, reply.text
        assert "unfinished" in client.get("/episode/tiny/2").text
        # Whoever has not seen it replaces nothing
        assert end(client, 2, "succeeded", author="grace").status_code == 409
    waiting = "SELECT dataset, episode_index FROM pending_outcomes"
    assert undivided.rows(waiting) == other_corpus.rows(waiting)
    assert undivided.rebuild() == other_corpus.rebuild()
    ended = (
        "SELECT success, success_source, end_by, end_progress FROM episode_facts JOIN label_quality "
        "USING (dataset, episode_index) WHERE episode_index = 2"
    )
    assert undivided.rows(ended) == other_corpus.rows(ended)
    assert undivided.rows(ended)[0][:3] == (False, "person: explorer", "person")
    with visit(undivided.space) as client:
        body = {"import_id": reply.json()["saved"], "author": "ada"}
        assert post(client, "/api/outcomes/tiny/2/undo", body).status_code == 200
        assert post(client, "/api/outcomes/tiny/2/undo", body).status_code == 422
    assert undivided.rows("SELECT * FROM current_outcomes") == []


def test_what_is_saved_is_answered_so_where_the_page_cannot_be_read_anew(
    client, own: Made, monkeypatch
):
    def fails(*_: Any) -> None:
        raise duckdb.IOException("the disk is slow")

    monkeypatch.setattr(pages, "correction_state", fails)
    body = {"base_label_run": active_run(client, 2), "author": "ada"}
    reply = post(client, "/api/corrections/tiny/2/reject", body)
    assert reply.status_code == 200
    unread = client.get("/api/corrections/tiny/2")
    assert (unread.status_code, "the disk is slow" in unread.json()["error"]) == (503, True)
    assert own.rows("SELECT correction_id FROM corrections") == [(reply.json()["saved"],)]


def test_a_failure_from_a_moment_on_is_in_the_label_and_one_undo_takes_both(client, own: Made):
    # One that is refused leaves no label behind
    assert end(client, 2, "failed", frame=5, follows="another").status_code == 409
    assert own.rows("SELECT * FROM corrections") == []
    saved_ids = end(client, 2, "failed", frame=5).json()
    [current] = client.get("/api/corrections/tiny/2").json()["current"]
    assert (current["correction_id"], current["catastrophic_frame"]) == (saved_ids["correction"], 5)
    assert not any(s["completed"] for s in current["segments"] if s["end_frame"] > 5)
    assert "failed from frame 5" in client.get("/episode/tiny/2").text
    # A frame that is none leaves nothing behind
    follow_fields = {"follows": saved_ids["saved"], "follows_correction": saved_ids["correction"]}
    assert end(client, 2, "failed", frame=10**6, **follow_fields).status_code == 422
    undone = post(client, "/api/outcomes/tiny/2/undo", {"import_id": saved_ids["saved"]})
    assert undone.status_code == 200
    assert client.get("/api/corrections/tiny/2").json()["current"] == []
    assert own.rows("FROM current_outcomes") == []
    # Who says otherwise of the end does not mean the moment any more
    undone = client.get("/api/corrections/tiny/2").json()["newest"]
    failed = end(client, 2, "failed", frame=5, follows_correction=undone).json()
    succeeded = end(client, 2, "succeeded", follows=failed["saved"]).json()
    corrected = client.get("/api/corrections/tiny/2").json()
    assert (corrected["current"], corrected["newest"]) == ([], succeeded["correction"])
    assert own.rows("SELECT success FROM current_outcomes") == [(True,)]


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
    monkeypatch.setattr(review, "SAMPLE", 2)
    monkeypatch.setattr(review, "MOST_ACCEPTED", 2)
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


def test_a_selection_is_accepted_after_its_sample_was_right(own: Made, monkeypatch):
    """Without those of which somebody said something already, and no
    other run than the selected ones."""
    monkeypatch.setattr(review, "SAMPLE", 2)
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
        monkeypatch.setattr(review_queue, "MOST_SELECTED", 3)
        too_many = client.get("/review/bulk", params={"query": ""})
        assert (too_many.status_code, "narrow it down" in too_many.text) == (422, True)
    assert own.rows("SELECT DISTINCT episode_index FROM corrections ORDER BY 1") == [
        (0,), (1,), (2,), (3,),
    ]  # fmt: skip


def test_a_queue_whose_sample_is_wrong_is_not_accepted(own: Made, monkeypatch):
    change(own.space, "UPDATE episode_labels SET confidence = 0.1")
    monkeypatch.setattr(review, "SAMPLE", 1)
    with visit(own.space) as client:
        run = active_run(client, 2)
        post(client, "/api/corrections/tiny/2/reject", {"base_label_run": run, "author": "ada"})
        body = {"kind": "unsure", "sample": [["tiny", 2]], "author": "ada"}
        assert post(client, "/api/bulk", body).status_code == 422
        page = client.get("/review/bulk?kind=unsure&sample=tiny/2").text
        assert "judge them one by one" in page
        assert "accept-others" not in page


class Judging(threading.Thread):
    """Judges labels, each time in other words; `saved`: the ids that were answered."""

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
                    state = client.get(f"/api/corrections/tiny/{episode}").json()
                    newest[episode] = state["newest"]
                body = {
                    "author": self.author,
                    "comment": f"{self.author} {number}",
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


@pytest.mark.parametrize("most", [8, pytest.param(340, marks=pytest.mark.long)])
def test_two_people_judge_and_the_explorer_is_killed(own: Made, most: int):
    """Killed in the middle, started again, to the end: all that was
    answered is there, nothing twice."""
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
    stored_ids = [row[0] for row in own.rows("SELECT correction_id FROM corrections")]
    assert len(stored_ids) == len(set(stored_ids))
    assert set(stored_ids) >= set(saved)
    # Of each person one may have been under way
    assert len(stored_ids) <= len(saved) + 2

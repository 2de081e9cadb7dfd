"""Labelling others like a run that was shown (browser/test_show_once): one job at a time, and suggestions."""

import sys
import time
from typing import Any

import pytest

from core.errors import UserError
from explorer import jobs
from explorer.site import Options
from tests.explorer.test_correcting import label
from tests.kits.visitor import post, visit

pytestmark = pytest.mark.slow

URL = "/labelling/tiny"
START = "/api/labelling/tiny"
SLOW = "import time; time.sleep(60)"


def show(client, episode: int = 2) -> None:
    """Save the label of an episode as it is: by that it is a reference."""
    assert (
        post(client, f"/api/corrections/tiny/{episode}", label(client, episode)).status_code == 200
    )


def ended(client, limit_s: float = 60) -> str:
    until = time.monotonic() + limit_s
    while "<progress" in (page_text := client.get(URL).text):
        assert time.monotonic() < until, page_text
        time.sleep(0.1)
    return page_text


def instead(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Start this Python program, which is given the job's arguments,
    and not proccorpus."""
    monkeypatch.setattr(jobs, "program", lambda: [sys.executable, "-c", program])


def test_it_is_one_at_a_time_in_a_workspace_and_ends_with_its_explorer(own, monkeypatch):
    instead(monkeypatch, SLOW)
    with visit(own.space) as other_client:
        with visit(own.space) as client:
            show(client)
            assert post(client, START, {}).status_code == 202
            process = client.app.state.explorer.jobs["label"].process  # type: ignore[attr-defined]
            assert "Planning the build of tiny." in other_client.get(URL).text
            answer = post(other_client, START, {})
            assert answer.status_code == 409
            assert answer.json()["error"] == "runs of tiny are being labelled: one build at a time"
        assert process.poll() is not None
        assert "The build failed: it was stopped before it finished." in ended(other_client)
        assert post(other_client, START, {}).status_code == 202


def test_suggestions_are_asked_once_for_each_state_of_the_lake(own, monkeypatch):
    asked_datasets: list[str] = []

    def suggest(dataset: str) -> list[dict[str, Any]]:
        asked_datasets.append(dataset)
        if len(asked_datasets) == 2:
            raise UserError("no frames are measured: build it first")
        suggestion_text = {"why": "it is like the others", "expected": [], "ask_outcome": [2]}
        return [{"task": "put the cube on the plate", "label_next": 4} | suggestion_text]

    with visit(own.space, Options(suggest=suggest)) as client:
        assert "Show it once" in client.get("/review").text
        assert asked_datasets == []  # no page waits for them
        for _ in range(2):
            page = client.get(f"{URL}/suggestions").text
            assert "Episode 4</a>\nit is like the others." in page
            assert "First say how" in page
        assert asked_datasets == ["tiny"]
        assert client.get("/labelling/nobody/suggestions").status_code == 404
        show(client)
        suggestion_text = "no run can be suggested: no frames are measured: build it first"
        assert suggestion_text in client.get(f"{URL}/suggestions").text
        assert suggestion_text not in client.get(f"{URL}/suggestions").text
        assert asked_datasets == ["tiny"] * 3
    with visit(own.space) as without:
        assert "any run" in without.get(f"{URL}/suggestions").text

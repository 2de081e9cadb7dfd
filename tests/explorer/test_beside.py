"""Runs beside their references: what is shown where, the order of the queue, and pages that are asked in vain."""

from itertools import product
from typing import Any

import pytest

from core.tables import TABLES
from explorer.pages.beside import unsure_steps
from explorer.site import Options
from tests.kits.visitor import visit
from warehouse.lake import Lake

RUN = "0123456789abcdef"  # a label run of transfer
REFERENCE = 2


def segments(*spans: tuple[str, int, int]) -> list[dict[str, Any]]:
    facts = {"kind": "step", "completed": True, "confidence": None}
    return [
        facts | {"name": name, "start_frame": a, "end_frame": b, "step": k}
        for k, (name, a, b) in enumerate(spans)
    ]


def test_the_least_sure_steps_are_named_in_order_of_time():
    steps = segments(("a", 0, 1), ("b", 1, 2), ("c", 2, 3), ("d", 3, 4), ("e", 4, 5))
    for step, confidence in zip(steps, (0.6, 0.9, 0.2, 0.5, 0.4), strict=True):
        step["confidence"] = confidence
    assert [s["name"] for s in unsure_steps(steps)] == ["c", "d", "e"]
    assert unsure_steps(segments(("a", 0, 1))) == []


@pytest.fixture
def followed(own):
    """Episodes 0 and 4 of tiny are labelled like episode 2, as far as the lake says."""
    lake = Lake(own.space)
    run = {"label_run": RUN, "annotator": "transfer", "code_version": "t", "params": "{}"}
    lake.upsert("a run", label_runs=TABLES["label_runs"].rows([run]))
    for table in ("segments", "progress", "episode_labels", "label_quality", "active_runs"):
        lake.con.execute(f"UPDATE {table} SET label_run = '{RUN}' WHERE episode_index IN (0, 4)")
    lake.con.execute(
        "UPDATE episode_labels SET confidence = 0.9 - episode_index / 10 WHERE episode_index IN (0, 4)"
    )
    rows = [
        {
            "dataset": "tiny",
            "episode_index": episode,
            "chunk": episode // 2,
            "label_run": RUN,
            "frame_index": frame,
        }
        | {
            "reference_episode": REFERENCE,
            "reference_frame": frame,
            "distance": 0.5,
            "follows": frame < 8,
        }
        for episode, frame in product((0, 4), range(0, 24, 2))
    ]
    lake.con.register("aligned", TABLES["alignments"].rows(rows))
    lake.con.execute("INSERT INTO alignments BY NAME FROM aligned")
    lake.con.close()
    return own


def test_the_doubtful_come_first_and_each_leads_to_the_next(followed):
    with visit(followed.space) as client:
        first = client.get("/review/beside/tiny", follow_redirects=False)
        assert (first.status_code, first.headers["location"]) == (303, "/review/beside/tiny/4")
        page = client.get("/review/beside/tiny/4?camera=observation.images.front").text
        assert "1 of 2</b> to check" in page
        assert 'data-after="/review/beside/tiny/0?camera=observation.images.front"' in page
        assert "not in the reference" in page
        assert 'src="/media/tiny/4/video/0"' in page
        assert 'src="/media/tiny/2/video/0"' in page
        assert 'data-after="/review/beside/tiny?end=1"' in client.get("/review/beside/tiny/0").text
        end = client.get("/review/beside/tiny?end=1").text
        assert "That was the last one. 2 were skipped." in end
        assert "Beside its reference" in client.get("/episode/tiny/4").text


def test_at_a_release_one_may_look_and_not_judge(followed):
    snapshot = Lake(followed.space, read_only=True).snapshot()
    with visit(followed.space, Options(snapshot=snapshot, release="v1")) as client:
        page = client.get("/review/beside/tiny/4").text
        assert "You cannot judge labels here" in page
        assert 'data-act="accept"' not in page
        assert 'rel="next"' in page

"""Recordings in review: what was said of them, pictures of both beside one another, and what a person decides."""

import numpy as np
import pytest

from core.paths import Workspace
from tests.kits.changed_sources import JUDGED, V2, WITHDRAWN, trimmed
from tests.kits.lake_kit import opened
from tests.kits.small_sources import RECORDINGS, write_v2
from tests.kits.visitor import picture, post, visit
from tests.kits.words_kit import DATASET, TAG, Case, checked
from warehouse.lake.statements import mark

SERIALS = (1, 2, 3, WITHDRAWN, JUDGED)
WITHHELD = SERIALS.index(WITHDRAWN)
TAGGED = SERIALS.index(JUDGED)


@pytest.fixture(scope="module")
def trimmed_corpus(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A run with a tag and one that was taken down, of which 20 rows each are gone since."""
    folder = tmp_path_factory.mktemp("recordings")
    case = Case(V2, folder, folder / "source")
    write_v2(case.source, [r for r in RECORDINGS if r.serial in SERIALS])
    checked(case.build())
    checked(case.run("takedown", DATASET, "--episodes", WITHHELD, "--reason", "withdrawn"))
    with opened(Workspace(case.workspace)) as lake:
        mark(lake, [(DATASET, TAGGED)], "tag", TAG, author="anna")
    checked(case.build())
    write_v2(case.source, [r for r in trimmed() if r.serial in SERIALS])
    checked(case.build())
    return case


def test_both_are_shown_and_a_person_decides(trimmed_corpus: Case) -> None:
    with visit(Workspace(trimmed_corpus.workspace)) as client:
        words = "SELECT episode_index FROM words_in_review WHERE kind = '{}'"
        [[tagged]] = trimmed_corpus.rows(words.format("tag"))
        [[withheld_run]] = trimmed_corpus.rows(words.format("takedown"))
        assert "2 words of people wait" in client.get("/review").text
        page = client.get("/recordings").text
        assert f"tag: {TAG}" in page
        assert "of the rows are equal" in page
        assert page.count("eight moments") == 2, (
            "none of the run that may be one that was taken down"
        )
        strips = [
            picture(client, f"/recordings/{DATASET}/{tagged}/{side}.png")
            for side in ("former", "present")
        ]
        assert [strip.shape for strip in strips] == [(128, 1024, 3)] * 2
        # The same scene, some frames later
        assert 0 < np.abs(strips[0] - strips[1]).mean() < 20
        for side in ("former", "present"):
            withheld = client.get(f"/recordings/{DATASET}/{withheld_run}/{side}.png")
            assert withheld.status_code == 404, (
                "pictures of a run that may be one that was taken down"
            )
        address = f"/api/recordings/{DATASET}/{tagged}"
        assert post(client, address, {"is_same": True, "author": "dora"}).status_code == 200
        second_reply = post(client, address, {"is_same": True, "author": "dora"})
        assert second_reply.status_code == 422
        assert "has no episode" in second_reply.json()["error"]
        assert f"tag: {TAG}" not in client.get("/recordings").text
    checked(trimmed_corpus.build())
    assert trimmed_corpus.rows("SELECT episode_index, tag FROM current_tags") == [(TAGGED, TAG)]
    count_query = "SELECT count(*) FROM fingerprints WHERE len(pictures) > 0"
    assert trimmed_corpus.rows(count_query) == [(0,)], (
        "the pictures of both stay where the episode is"
    )


def test_a_copy_that_cannot_be_changed_shows_it(trimmed_corpus: Case) -> None:
    from explorer.site import Options

    with visit(Workspace(trimmed_corpus.workspace), Options(snapshot=1)) as client:
        assert "You cannot decide here" in client.get("/recordings").text

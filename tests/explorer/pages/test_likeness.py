"""Likeness in the explorer: pictures that lead to the moment, and what to do where there are none."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from core.paths import Workspace
from tests.kits.cli_kit import rows
from tests.kits.embedded import look_at
from tests.kits.explorer_kit import HOSTILE, copy_furnished
from tests.kits.lake_kit import change
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import CAMERA, FPS
from tests.kits.visitor import picture, visit


@pytest.fixture(scope="module")
def searched(
    furnished: Workspace, made: Made, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    space = copy_furnished(furnished, made, tmp_path_factory.mktemp("searched"))
    look_at(space)
    with visit(space) as client:
        yield client


def test_frames_like_one_are_pictures_that_lead_to_the_moment(searched: TestClient):
    text = searched.get("/like/tiny/0?frame=4").text
    first = text.index(f'href="/episode/tiny/1?t={4 / FPS}"')
    assert first < text.index(f'href="/episode/tiny/2?t={4 / FPS}"'), "the most similar one first"
    assert f'src="/media/tiny/1/frames/4.jpg?camera={CAMERA}"' in text
    assert "likeness 1 " in text, "cos 1 degree, to three digits"
    assert "did not look at" not in text


def test_a_frame_between_two_says_which_one_is_meant(searched: TestClient):
    text = searched.get("/like/tiny/0?frame=5").text
    assert (
        "did not look at frame 5: shown is what is like frame 4, the nearest that it did." in text
    )
    assert f'href="/episode/tiny/1?t={4 / FPS}"' in text


def test_runs_like_one_lead_to_their_pages(searched: TestClient):
    text = searched.get("/like/tiny/0").text
    assert text.index('href="/episode/tiny/1"') < text.index('href="/episode/tiny/2"')
    assert "/media/tiny/1/thumb.jpg" in text


def test_hostile_words_are_text(searched: TestClient):
    for address in ("/like/tiny/0", "/like/tiny/0?frame=0", "/like/tiny/2"):
        text = searched.get(address).text
        assert HOSTILE not in text
        assert "&lt;script&gt;alert(&#39;task&#39;)" in text
    for name in ("camera", "among"):
        assert HOSTILE not in searched.get("/like/tiny/0", params={name: HOSTILE}).text


def frame_of(client: TestClient, frame: int) -> np.ndarray:
    return picture(client, f"/media/tiny/0/frames/{frame}.jpg?camera={CAMERA}")


def test_a_picture_is_of_its_frame_and_else_the_nearest_stored_one(
    searched: TestClient, furnished: Workspace, made: Made, tmp_path: Path
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

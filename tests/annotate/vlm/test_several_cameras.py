"""What a model is shown and told where labels are made by several cameras."""

import asyncio
from pathlib import Path

import cv2
import numpy as np
import pytest

from annotate.model_client.calls import Image
from annotate.vlm import annotate_episode, prompts
from annotate.vlm.config import VlmConfig
from annotate.vlm.pictures import beside, size_beside
from tests.kits.vlm_episodes import Loader, Model, ignorant, view_of


def jpeg(width: int, height: int, luma: int) -> Image:
    return Image.of(cv2.imencode(".jpg", np.full((height, width, 3), luma, np.uint8))[1].tobytes())


def pixels(image: Image) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(image.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture


@pytest.mark.parametrize("sheets", [False, True])
def test_cameras_are_named_in_the_order_in_which_they_stand(sheets: bool) -> None:
    moment = beside([jpeg(120, 90, 40), jpeg(30, 45, 200)])
    model = Model(**ignorant(3).replies)
    view = view_of(load=Loader(lambda _: moment), cameras=("front", 'the "wrist"'))
    asyncio.run(annotate_episode(view, model, VlmConfig(contact_sheet=sheets)))
    for request in model.requests:
        first = request.content[0]
        assert isinstance(first, str)
        assert first.split("\n")[1].startswith(
            'Each picture shows one moment by 2 cameras at once, side by side, from left to right: "front", '
            '"the \\"wrist\\"".'
        )
    # In a sheet of three columns each camera has as much room as one alone has
    shown = pixels(model.of("segment")[0].images[0])
    assert shown.shape[1] == (3 * 2 * 224 if sheets else 184)


def test_pictures_side_by_side_are_as_high_as_the_first() -> None:
    assert size_beside([(120, 90), (30, 45)]) == (184, 90)
    picture = pixels(beside([jpeg(120, 90, 40), jpeg(30, 45, 200)]))
    assert picture.shape == (90, 184, 3)
    assert abs(float(picture[:, 4:112].mean()) - 40) < 2
    assert abs(float(picture[:, 130:].mean()) - 200) < 2


def test_the_prompt_of_several_cameras_is_a_version_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_one, by_several = prompts.prompt_version(), prompts.prompt_version(several_views=True)
    assert by_one != by_several
    for f in prompts.FOLDER.glob("*.txt"):
        (tmp_path / f.name).write_bytes(f.read_bytes())
    (tmp_path / prompts.OF_VIEWS).write_text("Look.")
    monkeypatch.setattr(prompts, "FOLDER", tmp_path)
    prompts.prompt_version.cache_clear()
    try:
        assert prompts.prompt_version() == by_one, "labels by one camera stay as they are"
        assert prompts.prompt_version(several_views=True) != by_several
    finally:
        prompts.prompt_version.cache_clear()

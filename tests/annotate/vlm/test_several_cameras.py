"""What a model is shown and told where labels are made by several cameras."""

import asyncio

import cv2
import numpy as np
import pytest

from annotate.model_client.calls import Image
from annotate.vlm import annotate_episode
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

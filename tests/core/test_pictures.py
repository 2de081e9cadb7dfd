"""Pictures that were stored, and bytes that are none."""

import cv2
import numpy as np
import pytest

from core.pictures import decode_stored


def test_a_stored_picture_has_its_pixels():
    blue = np.full((4, 6, 3), (255, 0, 0), np.uint8)
    data = cv2.imencode(".png", blue)[1].tobytes()
    assert (decode_stored(data) == blue).all()
    assert (decode_stored(data, mode=cv2.IMREAD_COLOR_RGB) == blue[..., ::-1]).all()


@pytest.mark.parametrize("data", [b"", b"text", b"\xff\xd8\xff"])
def test_what_is_no_picture_is_refused_by_its_name(data: bytes):
    with pytest.raises(ValueError, match=rf"keyframe 7 is not a picture .*\({len(data)} bytes\)"):
        decode_stored(data, "keyframe 7")

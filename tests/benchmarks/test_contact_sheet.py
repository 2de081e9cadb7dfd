"""Contact sheets of a small built corpus."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.contact_sheet import draw, read
from core.errors import UserError
from tests.kits.hand_truth import write_truth
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import CAMERA, LENGTHS
from warehouse.lake import Lake


@pytest.fixture
def corpus(made: Made) -> Lake:
    return Lake(made.space, read_only=True)


def test_a_sheet_shows_every_so_many_frames_and_the_label(corpus: Lake, tmp_path: Path) -> None:
    write_truth(tmp_path, 0, LENGTHS[0])
    shown = read(corpus, "tiny", 0, 5, None, tmp_path)
    assert list(shown.pictures) == [0, 5, 10, 15, 20]
    assert len(shown.progress) == LENGTHS[0]
    assert "gripper" in shown.measured
    assert shown.truth is not None
    assert shown.truth.events[0].frame == LENGTHS[0] // 2

    # Pictures, segments, curves and progress are drawn, people's bar below ours
    figure = draw(shown)
    assert len(figure.axes) == len(shown.pictures) + 3
    bars = [text.get_text() for text in figure.axes[-3].get_yticklabels()]
    assert bars == ["ours", "person 1"]
    file = tmp_path / "sheet.png"
    figure.savefig(file)
    with Image.open(file) as picture:
        assert np.asarray(picture.convert("L")).std() > 5


def test_so_many_pictures_that_they_fit(corpus: Lake, tmp_path: Path) -> None:
    shown = read(corpus, "tiny", 2, None, CAMERA, tmp_path)
    assert len(shown.pictures) == LENGTHS[2]
    assert shown.truth is None


def test_an_episode_without_a_label_and_an_unknown_camera_are_named(corpus: Lake, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tiny episode 77 has no label here"):
        read(corpus, "tiny", 77, None, None, tmp_path)
    with pytest.raises(UserError, match="no usable camera wrist"):
        read(corpus, "tiny", 0, None, "wrist", tmp_path)

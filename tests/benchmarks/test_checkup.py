"""The benchmark of the checkup: what it spoils, whom it holds to be named, and what it reads of other checkers."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.checkup import HEADS, is_meant, is_right_time, trials
from benchmarks.checkup_faults import FAULTS, Spoilt, encoded_again, late, values_of
from benchmarks.checkup_sets import DecodedRun, DecodedSet, measured
from benchmarks.harness import write_tables
from ingest.episode import EpisodeData, EpisodeRecord, Finding

FRAMES = 60
FPS = 10.0
SIDE = 64


def decoded_run(index: int) -> DecodedRun:
    """A bright square that goes where the state says."""
    times = np.arange(FRAMES) / FPS
    state = np.column_stack([np.sin(times + index), np.cos(times + index)])
    pictures = np.full((FRAMES, SIDE, SIDE), 60, np.uint8)
    for picture, (x, y) in zip(pictures, (20 + 12 * state).astype(int), strict=True):
        picture[y : y + 20, x : x + 20] = 220
    record = EpisodeRecord(index, str(index), FPS, "move the square", num_rows=FRAMES)
    rows = pa.table({"x": state[:, 0], "y": state[:, 1]})
    episode = EpisodeData(record, rows, None, times, lambda *_: iter(()))
    return DecodedRun(episode, (), [measured("front", pictures, 2)], {"front": pictures})


@pytest.fixture(scope="module")
def squares() -> DecodedSet:
    return DecodedSet("squares", [decoded_run(index) for index in range(4)], 1.0)


def test_a_fault_is_tried_at_each_size(squares: DecodedSet) -> None:
    black = [fault for fault in FAULTS if fault.name == "camera black"]
    all_trials = list(trials(squares, black, seed=1))
    # Six seconds have no place for ten of black
    assert [trial.size for trial in all_trials] == [
        size for size, _ in product((0.5, 1, 2, 5), range(3))
    ]
    assert all(trial.is_named and not trial.false_alarms for trial in all_trials)
    assert {trial.spoilt.run.index for trial in all_trials[:3]} == {
        trial.spoilt.run.index for trial in all_trials[3:6]
    }
    assert [t.spoilt.start for t in all_trials] == [
        t.spoilt.start for t in trials(squares, black, seed=1)
    ]


def test_pictures_that_are_encoded_again_are_no_fault(squares: DecodedSet) -> None:
    control = [fault for fault in FAULTS if fault.check is None]
    assert [trial.false_alarms for trial in trials(squares, control, seed=0)] == [()] * 3
    pictures = squares.runs[0].pictures["front"]
    differences = np.abs(encoded_again(pictures).astype(int) - pictures)
    assert 0 < differences.mean() < 2


@pytest.mark.parametrize("frames", [5, -5])
def test_late_rows_meet_later_pictures(squares: DecodedSet, frames: int) -> None:
    spoilt = late(squares, 0, frames, np.random.default_rng(0))
    assert spoilt is not None
    state = values_of(squares.runs[0])["state"]
    pictures = squares.runs[0].pictures["front"]
    if frames > 0:
        rows, shown_slice = (slice(0, -5), slice(5, None))
    else:
        rows, shown_slice = (slice(5, None), slice(0, -5))
    assert (values_of(spoilt.run)["state"] == state[rows]).all()
    assert (spoilt.run.pictures["front"] == pictures[shown_slice]).all()
    fault = Finding("rows_late", "", measured=frames + 1, unit="frames")
    assert is_right_time(fault, spoilt)
    assert not is_right_time(replace(fault, measured=-frames), spoilt)


def test_the_right_check_names_a_fault(squares: DecodedSet) -> None:
    frozen = next(fault for fault in FAULTS if fault.name == "camera frozen")
    spoilt = Spoilt(squares.runs[1], 20, 40)
    fault = Finding("camera_frozen", "", episode_index=1, start_frame=35, end_frame=50)
    assert is_meant(fault, frozen, spoilt)
    assert not is_meant(replace(fault, reason="camera_black"), frozen, spoilt)
    assert not is_meant(replace(fault, episode_index=2), frozen, spoilt)
    assert not is_meant(replace(fault, start_frame=40), frozen, spoilt)


def test_the_page_gets_its_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    marks = [f"<!-- {name}: made by us -->\nold\n<!-- end of {name} -->\n" for name in HEADS]
    page.write_text("".join(marks))
    write_tables(page, dict.fromkeys(HEADS, "| new |\n"))
    assert page.read_text() == "".join(m.replace("old", "\n| new |\n") for m in marks)
    with pytest.raises(ValueError, match="needs <!-- none -->"):
        write_tables(page, {"none": ""})

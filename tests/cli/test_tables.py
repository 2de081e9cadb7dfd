"""Tables for people: as wide as the terminal, nothing cut in a number or lost without a word."""

import pytest

from cli.output import show, table_text
from cli.terminal import AS_RECORDS
from core.values import plain

ROWS = [
    {"dataset": "cubes", "episode_index": 3, "task": "Put the red cube onto the green one", "seconds": 4.25},
    {"dataset": "cubes", "episode_index": 12, "task": "Open the drawer", "seconds": 61.5},
]


def lines(rows: list[dict], width: int) -> list[str]:
    return table_text(rows, list(rows[0]), width).splitlines()


def test_a_table_that_fits_has_a_line_a_row_and_numbers_at_the_right():
    head, first, second = lines(ROWS, 100)
    assert head == "dataset   episode_index   task                                  seconds"
    assert [line.split()[-1] for line in (first, second)] == ["4.25", "61.5"]
    assert first.index("4.25") + 4 == second.index("61.5") + 4, "numbers end below one another"


@pytest.mark.parametrize("width", [30, 44, 60, 80, 100])
def test_no_line_is_wider_than_the_terminal_and_numbers_are_whole(width: int):
    said = lines(ROWS, width)
    assert all(len(line) <= width for line in said)
    assert all(number in "".join(said) for number in ("12", "61.5", "4.25"))


def test_long_texts_go_on_in_a_second_line():
    text = " ".join(" ".join(lines(ROWS, 56)).split())
    assert len(lines(ROWS, 56)) > 3
    assert "Put the red" in text
    assert "green one" in text


def test_rows_that_have_no_room_are_records():
    wide = [{f"column_{i}": f"a text of {i:02d} or so" for i in range(20)}] * 2
    said = lines(wide, 80)
    assert len(said) == 2 * 21
    assert said[1] == "column_0    a text of 00 or so"
    assert lines(wide[:1], 80) == said[1:21], "one row needs no number"


def test_records_are_asked_for_by_x():
    token = AS_RECORDS.set(True)
    try:
        said = lines(ROWS, 60)
    finally:
        AS_RECORDS.reset(token)
    assert said[0].startswith("1 ─")
    assert said[1] == "dataset         cubes"
    assert said[3] == "task            Put the red cube onto the green one"
    assert len(said) == 10


def test_bytes_have_units_for_people_and_none_for_scripts(capsys: pytest.CaptureFixture[str]):
    rows = [{"what": "shards", "bytes": 64_380_000}]
    show(rows, "table")
    assert "64.4 MB" in capsys.readouterr().out
    show(plain(rows), "json")
    assert "64380000" in capsys.readouterr().out

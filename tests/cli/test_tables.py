"""Tables for people: as wide as the terminal, nothing cut in a number or lost without a word."""

from cli.output import table_text
from cli.terminal import AS_RECORDS

ROWS = [
    {"dataset": "cubes", "episode_index": 3, "task": "Put the red cube onto the green one", "seconds": 4.25},
    {"dataset": "cubes", "episode_index": 12, "task": "Open the drawer", "seconds": 61.5},
]


def lines(rows: list[dict], width: int) -> list[str]:
    return table_text(rows, list(rows[0]), width).splitlines()


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

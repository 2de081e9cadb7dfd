"""Tables for people: as wide as the terminal, no number cut, nothing lost in silence."""

import pytest

from cli.output import show, table_text
from cli.terminal import AS_RECORDS

ROWS = [
    {
        "dataset": "cubes",
        "episode_index": 3,
        "task": "Put the red cube onto the green one",
        "seconds": 4.25,
    },
    {"dataset": "cubes", "episode_index": 12, "task": "Open the drawer", "seconds": 61.5},
]


def lines(rows: list[dict], width: int) -> list[str]:
    return table_text(rows, list(rows[0]), width).splitlines()


def test_names_are_broken_before_texts_and_numbers_are_never_cut(
    capsys: pytest.CaptureFixture[str],
):
    assert lines(ROWS, 50) == [
        "          episode_",
        "dataset      index   task                  seconds",
        "cubes            3   Put the red cube         4.25",
        "                     onto the green one",
        "cubes           12   Open the drawer          61.5",
    ]
    show(
        [
            {"dataset": "cubes", "bytes": 2_500_000, "rows": 3},
            {"dataset": "a", "bytes": 0, "rows": 12},
        ],
        "table",
    )
    assert capsys.readouterr().out.splitlines() == [
        "dataset   bytes     rows", "cubes     2.5 MB       3", "a         0 bytes     12",
    ]  # fmt: skip


def test_rows_that_have_no_room_are_records():
    wide = [{f"column_{i}": f"a text of {i:02d} or so" for i in range(20)}] * 2
    output_lines = lines(wide, 80)
    assert len(output_lines) == 2 * 21
    assert output_lines[1] == "column_0    a text of 00 or so"
    assert lines(wide[:1], 80) == output_lines[1:21], "one row needs no number"


def test_records_are_asked_for_by_x():
    token = AS_RECORDS.set(True)
    try:
        output_lines = lines(ROWS, 60)
    finally:
        AS_RECORDS.reset(token)
    assert output_lines[0].startswith("1 ─")
    assert output_lines[1] == "dataset         cubes"
    assert output_lines[3] == "task            Put the red cube onto the green one"
    assert len(output_lines) == 10

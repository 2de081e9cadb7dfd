"""Tables for people: as wide as the terminal, nothing cut in a number or lost without a word."""

import pytest

from cli.output import show
from cli.tables import table_text, wrapped
from cli.terminal import AS_RECORDS
from core.values import plain

ROWS = [
    {"dataset": "cubes", "episode_index": 3, "task": "Put the red cube onto the green one", "seconds": 4.25},
    {"dataset": "cubes", "episode_index": 12, "task": "Open the drawer", "seconds": 61.5},
]


def lines(rows: list[dict], width: int) -> list[str]:
    return table_text(rows, list(rows[0]), width).splitlines()


def test_a_table_that_fits_has_a_line_a_row_and_numbers_at_the_right():
    head, rule, first, second = lines(ROWS, 100)
    assert head == "dataset   episode_index   task                                  seconds"
    assert set(rule) == {"─"}
    assert first == "cubes                 3   Put the red cube onto the green one      4.25"
    assert second == "cubes                12   Open the drawer                          61.5"


@pytest.mark.parametrize("width", [30, 44, 60, 80, 100])
def test_no_line_is_wider_than_the_terminal_and_numbers_are_whole(width: int):
    said = lines(ROWS, width)
    told = [line for line in said if line.startswith("(")]
    assert all(len(line) <= width for line in said if line not in told)
    shown = "".join(said)
    assert "12" in shown
    assert ("61.5" in shown) != bool(told)


def test_long_texts_go_on_in_a_second_line():
    said = lines(ROWS, 56)
    assert [line[:14].strip() for line in said[2:]] == ["cubes", "", "cubes"] or len(said) > 4
    text = " ".join(" ".join(said).split())
    assert "Put the red" in text
    assert "green one" in text


def test_columns_without_room_are_counted_and_named():
    wide = [{f"column_{i}": f"a text of {i:02d} or so" for i in range(20)}] * 2
    *_, told = lines(wide, 80)
    assert (
        told == "(16 of 20 columns have no room: column_4, column_5, column_6, column_7, ...; -x shows rows as records)"
    )


def test_one_row_that_does_not_fit_is_a_record():
    wide = {f"column_{i}": f"a text of {i:02d} or so" for i in range(20)}
    said = lines([wide], 80)
    assert len(said) == 20
    assert said[19] == "column_19   a text of 19 or so"


def test_records_are_asked_for_by_x():
    token = AS_RECORDS.set(True)
    try:
        said = lines(ROWS, 60)
    finally:
        AS_RECORDS.reset(token)
    assert said[0].startswith("── 1 ─")
    assert said[1] == "dataset         cubes"
    assert said[3] == "task            Put the red cube onto the green one"
    assert len(said) == 10


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("one two three", 8, ["one two", "three"]),
        ("videos/chunk-000/file-000.mp4", 17, ["videos/chunk-000/", "file-000.mp4"]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
        ("", 4, [""]),
        ("a\nb", 4, ["a", "b"]),
        ("\u4f60\u597d\u4f60\u597d", 4, ["\u4f60\u597d", "\u4f60\u597d"]),
        ("see videos/chunk-000/file-000.mp4 now", 17, ["see videos/chunk-", "000/file-000.mp4", "now"]),
    ],
)
def test_a_text_is_cut_between_words_and_behind_signs(text: str, width: int, expected: list[str]):
    assert wrapped(text, width) == expected


def test_bytes_have_units_for_people_and_none_for_scripts(capsys: pytest.CaptureFixture[str]):
    rows = [{"what": "shards", "bytes": 64_380_000}]
    show(rows, "table")
    assert "64.4 MB" in capsys.readouterr().out
    show(plain(rows), "json")
    assert "64380000" in capsys.readouterr().out

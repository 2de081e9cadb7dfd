"""What is compared of an output that a page shows."""

import pytest

from tests.kits.docs_output import OutputError, check_lines, check_shown, masked

TABLE = "kind   out   bytes\n──────\nrabc   d3    68.1 kB\n"


def test_figures_ids_and_rules_are_masked_and_words_are_not():
    assert masked("run 0db2bc68a5bd4107  4,216 frames  1.5 MB\n────\n  laptop-demo-9f9b4249 ok\n") == [
        "run ID # frames # BYTES",
        "MODEL ok",
    ]


@pytest.mark.parametrize(
    ("shown", "out", "err"),
    [
        (TABLE, "kind      out   bytes\n────\nrabc   d3    3 B\n", ""),
        (TABLE, TABLE, "note: a page need not show this\n"),
        ("note: 3 left\n...", TABLE, "note: 12 left\n"),
        ('{"a": 1, "b": ...}', '{\n "a": 0.25,\n "b": {"c": [1, 2]}\n}\n', ""),
    ],
)
def test_equal_but_for_figures(shown: str, out: str, err: str):
    check_shown(shown, out, err)


@pytest.mark.parametrize(
    ("shown", "out", "err"),
    [
        (TABLE, TABLE.replace("bytes", "size"), ""),
        (TABLE, TABLE.replace("rabc", "lerobot"), ""),
        (TABLE, f"{TABLE}one more line\n", ""),
        ("note: 3 left\n...", TABLE, ""),
        ("No findings.", "", ""),
    ],
)
def test_anything_else_is_told(shown: str, out: str, err: str):
    with pytest.raises(OutputError):
        check_shown(shown, out, err)


def test_lines_among_others():
    check_lines("sim_long   18", "dataset  n\nsim_long   3   ok\n")
    with pytest.raises(OutputError):
        check_lines("sim_short   18", "dataset  n\nsim_long   3   ok\n")
